//! The operating system's signals, as one value that everybody can watch: go on, drain, now.

use std::io;

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

/// TERM and INT, caught.
#[derive(Debug)]
pub struct Signals {
    term: Signal,
    int: Signal,
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
        })
    }

    /// Tells `stop` about every signal: the first drains, the second forces.
    pub async fn tell(mut self, stop: watch::Sender<Stop>) {
        loop {
            let name = tokio::select! {
                Some(()) = self.term.recv() => "TERM",
                Some(()) = self.int.recv() => "INT",
                else => return,
            };
            let next = stop.borrow().next();
            tracing::info!(signal = name, ?next, "a signal arrived");
            stop.send_replace(next);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_signal_drains_and_the_second_forces() {
        assert_eq!(Stop::No.next(), Stop::Drain);
        assert_eq!(Stop::Drain.next(), Stop::Now);
        assert_eq!(Stop::Now.next(), Stop::Now);
    }
}
