//! The operating system's signals, as one value that everybody can watch: go on, drain, now.

use std::{
    io::{self, Read},
    os::{fd::BorrowedFd, unix::net::UnixStream},
    time::Duration,
};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGINT, SIGTERM};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// Whether the agent is ending.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// It is not.
    No,
    /// It takes nothing new, lets what runs come to an end, and leaves.
    Drain,
    /// It ends at once.
    Now,
}

impl Stop {
    /// Returns what one more signal makes of it.
    #[must_use]
    pub fn next(self) -> Self {
        match self {
            Self::No => Self::Drain,
            Self::Drain | Self::Now => Self::Now,
        }
    }
}

/// TERM, INT and HUP, caught.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
    hup: Signal,
}

impl Signals {
    /// Starts catching.
    ///
    /// # Errors
    ///
    /// Fails when the system does not allow it.
    pub fn catch() -> io::Result<Self> {
        Ok(Self {
            term: signal(SignalKind::terminate())?,
            int: signal(SignalKind::interrupt())?,
            hup: signal(SignalKind::hangup())?,
        })
    }

    /// Tells `stop` about every TERM and INT: the first drains, the second forces; and `reload` about every HUP.
    pub async fn tell(mut self, stop: watch::Sender<Stop>, reload: watch::Sender<u64>) {
        loop {
            let name = tokio::select! {
                Some(()) = self.term.recv() => "TERM",
                Some(()) = self.int.recv() => "INT",
                Some(()) = self.hup.recv() => {
                    tracing::info!(signal = "HUP", "a signal arrived");
                    reload.send_modify(|count| *count += 1);
                    continue;
                }
                else => return,
            };
            let next = stop.borrow().next();
            tracing::info!(signal = name, ?next, "a signal arrived");
            stop.send_replace(next);
        }
    }
}

/// TERM and INT for a program without a runtime: something that can be waited for beside others.
#[derive(Debug)]
pub struct Bell {
    rung: UnixStream,
    /// Whether it has been heard; a bell stays rung.
    heard: bool,
}

impl Bell {
    /// Starts catching.
    ///
    /// # Errors
    ///
    /// Fails when the system does not allow it.
    pub fn catch() -> io::Result<Self> {
        let (bell, ringer) = Self::unhung()?;
        signal_hook::low_level::pipe::register(SIGTERM, ringer.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, ringer)?;
        Ok(bell)
    }

    fn unhung() -> io::Result<(Self, UnixStream)> {
        let (rung, ringer) = UnixStream::pair()?;
        rung.set_nonblocking(true)?;
        Ok((Self { rung, heard: false }, ringer))
    }

    /// Waits for `time`, or until it rings, and tells whether it has rung.
    ///
    /// # Errors
    ///
    /// Fails when the system cannot wait.
    pub fn wait(&mut self, time: Duration) -> io::Result<bool> {
        if !self.heard {
            // Too long a time is as good as none.
            let time = Timespec::try_from(time).ok();
            look(&mut [PollFd::new(&self.rung, PollFlags::IN)], time)?;
            self.listen();
        }
        Ok(self.heard)
    }

    /// Waits until `out` can be written to, or it rings, and tells whether `out` can be written to.
    ///
    /// # Errors
    ///
    /// Fails when the system cannot wait.
    pub fn wait_for(&mut self, out: BorrowedFd<'_>) -> io::Result<bool> {
        let at_once = self.heard.then(Timespec::default);
        let mut waited = [
            PollFd::new(&self.rung, PollFlags::IN),
            PollFd::new(&out, PollFlags::OUT),
        ];
        look(&mut waited, at_once)?;
        let writable = !waited[1].revents().is_empty();
        self.listen();
        Ok(writable)
    }

    fn listen(&mut self) {
        self.heard = self.heard || self.rung.read(&mut [0; 8]).is_ok();
    }
}

fn look(waited: &mut [PollFd<'_>], time: Option<Timespec>) -> io::Result<()> {
    match poll(waited, time.as_ref()) {
        // Whoever waits looks again.
        Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;

    use super::*;

    #[test]
    fn the_first_signal_drains_and_the_second_forces() {
        assert_eq!(Stop::No.next(), Stop::Drain);
        assert_eq!(Stop::Drain.next(), Stop::Now);
        assert_eq!(Stop::Now.next(), Stop::Now);
    }

    #[test]
    fn a_bell_that_was_rung_stays_rung_and_keeps_nobody_from_writing() {
        let (mut bell, mut ringer) = Bell::unhung().expect("a pair");
        let (out, _reader) = UnixStream::pair().expect("a pair");
        let short = Duration::from_millis(1);
        assert!(!bell.wait(short).expect("it waits"));
        assert!(bell.wait_for(out.as_fd()).expect("it waits"));
        std::io::Write::write_all(&mut ringer, b"x").expect("it rings");
        for _ in 0..2 {
            assert!(bell.wait(Duration::from_secs(1000)).expect("it waits"));
            assert!(bell.wait_for(out.as_fd()).expect("it waits"));
        }
    }

    #[test]
    fn a_bell_is_heard_while_nobody_reads() {
        let (mut bell, mut ringer) = Bell::unhung().expect("a pair");
        let (mut out, _reader) = UnixStream::pair().expect("a pair");
        out.set_nonblocking(true).expect("a stream");
        while std::io::Write::write(&mut out, &[0; 4096]).is_ok() {}
        std::io::Write::write_all(&mut ringer, b"x").expect("it rings");
        assert!(!bell.wait_for(out.as_fd()).expect("it waits"));
    }
}
