//! `steward-agent child DIR`: the small process of ours that one command runs under.
//!
//! ```text
//! agent ─ spec.json, TERM ─▶ warden ─ spawns, signals, reaps ─▶ command and all its descendants
//!       ◀─ output, end.json ─┘      ◀─ two pipes ─┘
//! ```
//!
//! It holds the timeout, takes the output, ends what the command leaves behind, and writes down how it
//! ended. It needs no agent for any of that, so a restart of the agent ends no command and loses no
//! result. No threads, no runtime; knows neither orders nor the journal.

use std::{
    io::{self, Read, Write},
    os::{fd::AsFd, unix::net::UnixStream},
    path::Path,
    process::{Child, ChildStderr, ChildStdin, ChildStdout},
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, ioctl_fionbio},
    process::{Pid, Signal, WaitStatus, setsid},
};
use signal_hook::consts::{SIGCHLD, SIGINT, SIGTERM};
use steward_protocol::Digest;

use super::{
    End, How, NotStarted, Spec, Stopped, adopt_orphans,
    cgroup::Group,
    kin,
    launch::{self, Launched},
    log::{self, Stream, Total},
    place::{Place, PlaceError},
    recorder::{Recorded, Recorder},
};

/// How long after a kill it is repeated, while the command has not ended.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How long output is waited for after the command has ended, should somebody else hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// How often it is looked whether there is room again for what the command writes.
const LOOK: Duration = Duration::from_millis(20);

/// Most bytes still taken from a pipe when nobody is left who writes: the largest one there is.
const LAST_BYTES: usize = 1 << 20;

/// Wait between two tries to write the end down.
const AGAIN: Duration = Duration::from_secs(1);

/// Longer than any command runs; stands for "never" where a time is needed.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

/// Why a warden could not do its work.
#[derive(Debug, thiserror::Error)]
pub enum WardenError {
    /// The kernel refused something every warden needs.
    #[error("{doing}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Its directory could not be used.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

fn system(doing: &'static str) -> impl FnOnce(io::Error) -> WardenError {
    move |source| WardenError::System { doing, source }
}

/// Runs the command that `dir` describes, to its end and that of everything it started.
///
/// # Errors
///
/// Fails when nothing could be started at all; the words are left in the directory as well.
pub fn run(dir: &Path) -> Result<(), WardenError> {
    let place = Place::new(dir);
    watch_over(&place).inspect_err(|error| place.lament(&crate::keeper::chain(error)))
}

fn watch_over(place: &Place) -> Result<(), WardenError> {
    let calls = Calls::listen().map_err(system("listen to signals"))?;
    adopt_orphans().map_err(system("become the reaper of the command's orphans"))?;
    // Last: whoever sees the new session knows that TERM will be heard.
    setsid()
        .map_err(io::Error::from)
        .map_err(system("begin a session"))?;
    let spec = place.take_spec()?;
    let recorder = Recorder::create(place, spec.cap, spec.following)
        .map_err(system("create the file for the output"))?;
    let started_at = Timestamp::now();
    let (how, recorded, notes) = match launch::launch(&spec) {
        Ok(Launched {
            child,
            group,
            mut notes,
        }) => {
            let watch = Watch::new(child, &spec, calls, recorder);
            let (how, recorded) = watch.see_through(group.as_ref());
            if let Some(group) = group {
                notes.extend(group.notes(&spec.limits));
                group.remove();
            }
            (how, recorded, notes)
        }
        Err(NotStarted { exit_code, reason }) => {
            let how = How::NotStarted { exit_code, reason };
            (how, recorder.finish(), Vec::new())
        }
    };
    let mut end = End {
        success: is_success(&how, &spec),
        how,
        started_at,
        finished_at: Timestamp::now(),
        stdout: recorded.stdout,
        stderr: recorded.stderr,
        log: recorded.log,
        notes,
    };
    record(place, &mut end);
    Ok(())
}

fn is_success(how: &How, spec: &Spec) -> bool {
    match how {
        How::Ended {
            exit_code: Some(code),
            stopped: None,
            ..
        } => spec.success_codes.contains(code),
        How::Ended { .. } | How::NotStarted { .. } => false,
    }
}

/// Writes the end down, however long that takes. Where there is no room for it, the output goes first.
fn record(place: &Place, end: &mut End) {
    while let Err(error) = place.write_end(end) {
        if !place.dir().exists() {
            // It was removed, so nobody wants to know.
            return;
        }
        if end.stdout.kept() + end.stderr.kept() > 0 {
            end.stdout.shrink(0);
            end.stderr.shrink(0);
            place.drop_output();
            let reason = crate::keeper::chain(&error);
            end.log = Total {
                bytes: 0,
                blake3: Digest::of(b""),
                cut: Some(format!(
                    "it was dropped so that the end could be written: {reason}"
                )),
            };
        } else {
            std::thread::sleep(AGAIN);
        }
    }
}

/// What signals say, as bytes to be read.
struct Calls {
    stop: UnixStream,
    child: UnixStream,
}

impl Calls {
    fn listen() -> io::Result<Self> {
        let (stop, told) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGTERM, told.try_clone()?)?;
        signal_hook::low_level::pipe::register(SIGINT, told)?;
        let (child, told) = UnixStream::pair()?;
        signal_hook::low_level::pipe::register(SIGCHLD, told)?;
        stop.set_nonblocking(true)?;
        child.set_nonblocking(true)?;
        Ok(Self { stop, child })
    }

    /// Tells whether somebody wants the command stopped.
    fn is_stop(&mut self) -> bool {
        drained(&mut self.stop)
    }

    fn forget_children(&mut self) {
        drained(&mut self.child);
    }
}

/// Takes everything there is out of a socket, and tells whether there was anything.
fn drained(socket: &mut UnixStream) -> bool {
    let mut bytes = [0_u8; 64];
    let mut found = false;
    while matches!(socket.read(&mut bytes), Ok(1..)) {
        found = true;
    }
    found
}

/// How far the command's end has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stage {
    /// It runs until its time is over.
    Running,
    /// It was asked to end, and has some time for that.
    Asked,
    /// It was killed; that is repeated.
    Killed,
    /// It has ended; somebody may still write.
    Draining,
}

/// A command being watched.
struct Watch {
    leader: Pid,
    status: Option<WaitStatus>,
    calls: Calls,
    recorder: Recorder,
    input: Option<(ChildStdin, Vec<u8>)>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    grace: Duration,
    stage: Stage,
    /// When the next stage begins.
    until: Instant,
    stopped: Option<Stopped>,
}

/// What became ready.
#[derive(Debug, Default)]
struct Ready {
    input: bool,
    stdout: bool,
    stderr: bool,
}

impl Watch {
    fn new(mut child: Child, spec: &Spec, calls: Calls, recorder: Recorder) -> Self {
        let text = spec.stdin.clone().map(String::into_bytes);
        let watch = Self {
            leader: Pid::from_child(&child),
            status: None,
            calls,
            recorder,
            input: child.stdin.take().zip(text),
            stdout: child.stdout.take(),
            stderr: child.stderr.take(),
            grace: spec.grace.min(NEVER),
            stage: Stage::Running,
            until: Instant::now() + spec.timeout.min(NEVER),
            stopped: None,
        };
        // Without it a read could wait for ever; it is never refused for a pipe.
        let ends = [
            watch.input.as_ref().map(|(pipe, _)| pipe.as_fd()),
            watch.stdout.as_ref().map(AsFd::as_fd),
            watch.stderr.as_ref().map(AsFd::as_fd),
        ];
        for end in ends.into_iter().flatten() {
            ioctl_fionbio(end, true).ok();
        }
        watch
    }

    /// Watches until the command has ended and nobody is left of it.
    fn see_through(mut self, group: Option<&Group>) -> (How, Recorded) {
        while !self.is_over() {
            let ready = self.wait();
            self.calls.forget_children();
            let told = self.calls.is_stop();
            let (status, _) = kin::reap(self.leader);
            self.status = self.status.or(status);
            // It may have come to its own end meanwhile, and that is the truth then.
            if told && self.status.is_none() && self.stage == Stage::Running {
                self.ask(Stopped::Told);
            }
            self.transfer(&ready);
            self.advance();
        }
        if let Some(group) = group {
            group.kill();
        }
        let (survivors, status) = kin::end_all(self.leader);
        self.status = self.status.or(status);
        self.take_last();
        let how = How::Ended {
            exit_code: self.status.and_then(|status| status.exit_status()),
            signal: self.status.and_then(|status| status.terminating_signal()),
            stopped: self.stopped,
            survivors,
        };
        (how, self.recorder.finish())
    }

    fn is_over(&self) -> bool {
        let silent = self.stdout.is_none() && self.stderr.is_none();
        self.status.is_some()
            && (self.stopped.is_some()
                || silent
                || (self.stage == Stage::Draining && Instant::now() >= self.until))
    }

    /// Waits until there is something to do.
    fn wait(&mut self) -> Ready {
        let full = self.recorder.is_full();
        let mut time = self.until.saturating_duration_since(Instant::now());
        if full {
            time = time.min(LOOK);
        }
        let reading = |pipe| Some(PollFd::from_borrowed_fd(pipe, PollFlags::IN)).filter(|_| !full);
        let input = self.input.as_ref();
        let input = input.map(|(pipe, _)| PollFd::new(pipe, PollFlags::OUT));
        let stdout = self.stdout.as_ref().map(AsFd::as_fd).and_then(reading);
        let stderr = self.stderr.as_ref().map(AsFd::as_fd).and_then(reading);
        let there = [&input, &stdout, &stderr].map(Option::is_some);
        let signals = [&self.calls.stop, &self.calls.child];
        let mut ends: Vec<PollFd<'_>> = [input, stdout, stderr]
            .into_iter()
            .flatten()
            .chain(signals.map(|signal| PollFd::new(signal, PollFlags::IN)))
            .collect();
        // Interrupted or not: whatever there is to do is looked at.
        poll(&mut ends, Timespec::try_from(time).ok().as_ref()).ok();
        let mut found = ends.iter().map(|end| !end.revents().is_empty());
        let [input, stdout, stderr] = there.map(|there| there && found.next() == Some(true));
        Ready {
            input,
            stdout,
            stderr,
        }
    }

    /// Moves what can be moved, a piece of each stream.
    fn transfer(&mut self, ready: &Ready) {
        if ready.input {
            self.feed();
        }
        if ready.stdout && take(&mut self.stdout, &mut self.recorder, Stream::Stdout) == Took::End {
            self.stdout = None;
        }
        if ready.stderr && take(&mut self.stderr, &mut self.recorder, Stream::Stderr) == Took::End {
            self.stderr = None;
        }
    }

    /// Writes a piece of the given text, and closes the input after the last one.
    fn feed(&mut self) {
        let Some((pipe, text)) = &mut self.input else {
            return;
        };
        match pipe.write(text) {
            Ok(count) if count < text.len() => drop(text.drain(..count)),
            Err(error) if is_later(&error) => {}
            // All of it is written, or the command does not want it.
            Ok(_) | Err(_) => self.input = None,
        }
    }

    /// Goes on to the next stage when it is time for it.
    fn advance(&mut self) {
        let now = Instant::now();
        if self.status.is_some() {
            self.input = None;
            if self.stage != Stage::Draining && self.stopped.is_none() {
                self.stage = Stage::Draining;
                self.until = now + DRAIN;
            }
            return;
        }
        if now < self.until {
            return;
        }
        match self.stage {
            Stage::Running => self.ask(Stopped::TimedOut),
            Stage::Asked | Stage::Killed => {
                kin::signal_all(Signal::KILL);
                self.stage = Stage::Killed;
                self.until = now + KILL_AGAIN;
            }
            Stage::Draining => {}
        }
    }

    fn ask(&mut self, why: Stopped) {
        self.stopped = Some(why);
        self.stage = Stage::Asked;
        self.until = Instant::now() + self.grace;
        kin::signal_all(Signal::TERM);
    }

    /// Takes what is left in the pipes; nobody writes any more.
    fn take_last(&mut self) {
        for _ in 0..LAST_BYTES / log::LONGEST {
            let stdout = take(&mut self.stdout, &mut self.recorder, Stream::Stdout);
            let stderr = take(&mut self.stderr, &mut self.recorder, Stream::Stderr);
            if stdout != Took::Some && stderr != Took::Some {
                return;
            }
        }
    }
}

/// What was found in a pipe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Took {
    Some,
    /// Nothing now.
    Nothing,
    /// Nothing, ever again.
    End,
}

/// Takes a piece out of a pipe.
fn take(pipe: &mut Option<impl Read>, recorder: &mut Recorder, stream: Stream) -> Took {
    let Some(pipe) = pipe else { return Took::End };
    let Some(room) = recorder.room() else {
        return Took::Nothing;
    };
    match pipe.read(room) {
        Ok(0) => Took::End,
        Ok(count) => {
            recorder.take(stream, count);
            Took::Some
        }
        Err(error) if is_later(&error) => Took::Nothing,
        Err(_) => Took::End,
    }
}

fn is_later(error: &io::Error) -> bool {
    let later = [Errno::AGAIN, Errno::INTR].map(|errno| Some(errno.raw_os_error()));
    later.contains(&error.raw_os_error())
}
