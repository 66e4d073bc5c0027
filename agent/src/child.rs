//! Runs one command of the operating system, trusting it in nothing (design section 6).
//!
//! Knows neither orders nor the journal: it gets a program, a time limit and a word when to stop,
//! and returns what happened. The only home of the operating system's processes.

use std::{env, fmt, future::Future, io, path::Path, pin::Pin, process::Stdio, time::Duration};

use rustix::{
    io::Errno,
    process::{Pid, Signal, set_child_subreaper},
};
use steward_protocol::{MessageId, NodeName, Output, ShellBody};
use tokio::{
    io::AsyncWriteExt,
    process::{Child, Command},
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};

use self::{
    output::Reader,
    sweep::{Leader, Leaders},
};
use crate::{journal::ChildMark, signals::Stop};

mod output;
mod sweep;

pub(crate) use self::sweep::{Label, find_leader, is_alive};

/// Names the node a command runs on, in its environment.
const NODE: &str = "STEWARD_NODE";

/// Names the message a command runs for, in its environment.
const MESSAGE_ID: &str = "STEWARD_MESSAGE_ID";

/// How long a command may take to obey TERM before it is killed.
const GRACE: Duration = Duration::from_secs(5);

/// How long after a kill it is repeated, while the command has not ended.
const KILL_AGAIN: Duration = Duration::from_secs(1);

/// How long output is waited for after the command has ended, should somebody else hold the pipe.
const DRAIN: Duration = Duration::from_secs(2);

/// How often the pipes are looked at meanwhile.
const LOOK: Duration = Duration::from_millis(5);

/// How often a command of an earlier start of the agent is looked at.
const WATCH: Duration = Duration::from_millis(200);

/// Variables of the agent's own environment that a command does not get: they hold the agent's
/// secrets and its line to the service manager.
const WITHHELD_PREFIXES: [&str; 2] = ["NATS_", "STEWARD_"];
const WITHHELD: [&str; 2] = ["NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"];

/// A command to run.
#[derive(Debug, Clone)]
pub struct Spec {
    /// The program and what surrounds it. The program is not empty: the body was checked.
    pub body: ShellBody,
    /// The node it runs on.
    pub node: NodeName,
    /// The message it runs for.
    pub message_id: MessageId,
    /// How often it has been started, this time included.
    pub attempt: u32,
}

/// Why a command was not started: an outcome of the order, not a fault of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStarted {
    /// The code a shell would give: 127 not found, 126 found but not startable; none when the node is at fault.
    pub exit_code: Option<i32>,
    /// What happened, in words.
    pub reason: String,
}

/// A command that runs.
#[derive(Debug)]
pub struct Running {
    child: Child,
    leader: Leader,
    mark: ChildMark,
    label: Label,
    stdout: Reader,
    stderr: Reader,
}

/// Why a command was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stopped {
    /// Its time was over.
    TimedOut,
    /// The agent is ending.
    AgentStopping,
    /// Somebody wanted it stopped.
    Cancelled,
}

/// Resolves when somebody wants a command stopped.
pub type Cancelled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What came of a command.
#[derive(Debug)]
pub struct Ended {
    /// Its exit code, unless a signal ended it.
    pub exit_code: Option<i32>,
    /// The signal that ended it.
    pub signal: Option<i32>,
    /// Why we stopped it, if we did.
    pub stopped: Option<Stopped>,
    /// What it wrote to standard output.
    pub stdout: Output,
    /// What it wrote to standard error.
    pub stderr: Output,
}

/// How long a command may run, and who may end it sooner.
pub struct Terms {
    /// Its timeout.
    pub timeout: Duration,
    /// How long it may go on while the agent drains.
    pub drain: Duration,
    /// Whether the agent is ending.
    pub stop: watch::Receiver<Stop>,
    /// When somebody wants it stopped.
    pub cancelled: Cancelled,
}

impl fmt::Debug for Terms {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Terms")
            .field("timeout", &self.timeout)
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// Makes orphans of commands our children, so that they can be found and ended.
///
/// # Errors
///
/// Fails when the kernel does not allow it.
pub fn adopt_orphans() -> io::Result<()> {
    let me = Pid::from_raw(i32::try_from(std::process::id()).unwrap_or(1));
    set_child_subreaper(me).map_err(io::Error::from)
}

/// Starts a command.
///
/// # Errors
///
/// Says why it could not be started, with the exit code a shell would give.
pub fn start(spec: &Spec) -> Result<Running, NotStarted> {
    let (program, arguments) = spec.body.data.split_first().ok_or_else(|| NotStarted {
        exit_code: Some(127),
        reason: "the command is empty".to_owned(),
    })?;
    check_directory(spec.body.cwd.as_deref())?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    command.stdin(match spec.body.stdin {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cwd) = &spec.body.cwd {
        command.current_dir(cwd);
    }
    surround(&mut command, spec);
    // Held until the child is registered: a sweep must not take it for an orphan.
    let leaders = Leaders::hold();
    let mut child = command
        .spawn()
        .map_err(|error| not_started(program, &error))?;
    let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
    let Some(pid) = pid else {
        return Err(NotStarted {
            exit_code: None,
            reason: "the system gave the command no process number".to_owned(),
        });
    };
    let leader = leaders.add(pid);
    let mark = sweep::mark(pid).unwrap_or(ChildMark { pid, start_time: 0 });
    feed(&mut child, spec.body.stdin.clone());
    Ok(Running {
        stdout: Reader::start(child.stdout.take()),
        stderr: Reader::start(child.stderr.take()),
        child,
        leader,
        mark,
        label: Label {
            node: spec.node.clone(),
            id: spec.message_id,
        },
    })
}

fn check_directory(cwd: Option<&str>) -> Result<(), NotStarted> {
    let Some(cwd) = cwd else { return Ok(()) };
    let reason = match Path::new(cwd).metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "is not a directory".to_owned(),
        Err(error) => format!("cannot be used: {error}"),
    };
    Err(NotStarted {
        exit_code: Some(126),
        reason: format!("working directory {cwd:?} {reason}"),
    })
}

fn not_started(program: &str, error: &io::Error) -> NotStarted {
    let no_descriptors = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    let exit_code = match error.kind() {
        io::ErrorKind::NotFound => Some(127),
        // The node ran out of something; the command is not to blame.
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory => None,
        _ if no_descriptors.contains(&error.raw_os_error()) => None,
        _ => Some(126),
    };
    let what = match exit_code {
        Some(127) => "was not found",
        Some(_) => "cannot be executed",
        None => "could not be started",
    };
    NotStarted {
        exit_code,
        reason: format!("{program:?} {what}: {error}"),
    }
}

fn surround(command: &mut Command, spec: &Spec) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let withheld = WITHHELD.contains(&&*text)
            || WITHHELD_PREFIXES
                .iter()
                .any(|prefix| text.starts_with(prefix));
        if withheld {
            command.env_remove(&name);
        }
    }
    command
        .envs(&spec.body.env)
        .env(NODE, spec.node.as_str())
        .env(MESSAGE_ID, spec.message_id.to_string())
        .env("STEWARD_ATTEMPT", spec.attempt.to_string());
}

/// Writes the given text to the child's input and closes it. Ends with the child at the latest.
fn feed(child: &mut Child, text: Option<String>) {
    if let (Some(mut stdin), Some(text)) = (child.stdin.take(), text) {
        tokio::spawn(async move {
            // A command need not read its input.
            stdin.write_all(text.as_bytes()).await.ok();
        });
    }
}

impl Running {
    /// Names the child across restarts of the agent.
    pub fn mark(&self) -> ChildMark {
        self.mark
    }

    /// Waits for the command's end, brings it about when its time is over or the agent ends, and
    /// leaves no descendant of it alive.
    ///
    /// # Errors
    ///
    /// Fails when the system cannot say how the command ended.
    pub async fn finish(mut self, terms: Terms) -> io::Result<Ended> {
        let mut end = End::new(terms);
        let mut stopped = None;
        let status = loop {
            tokio::select! {
                status = self.child.wait() => break status,
                step = end.next() => match step {
                    Step::Term(reason) => {
                        // It may have come to its own end meanwhile, and that is the truth then.
                        if let Ok(Some(status)) = self.child.try_wait() {
                            break Ok(status);
                        }
                        stopped = Some(reason);
                        sweep::signal_all(self.mark, &self.label, Signal::TERM);
                    }
                    Step::Kill(reason) => {
                        stopped.get_or_insert(reason);
                        sweep::signal_all(self.mark, &self.label, Signal::KILL);
                    }
                },
            }
        };
        drop(self.leader);
        if stopped.is_none() {
            drain(&self.stdout, &self.stderr).await;
        }
        sweep::clear(self.mark, &self.label).await;
        let status = status?;
        Ok(Ended {
            exit_code: status.code(),
            signal: std::os::unix::process::ExitStatusExt::signal(&status),
            stopped,
            stdout: self.stdout.collect().await,
            stderr: self.stderr.collect().await,
        })
    }
}

/// Waits for the end of both streams, but not for ever: a grandchild may hold a pipe open.
async fn drain(stdout: &Reader, stderr: &Reader) {
    let both = async {
        while !(stdout.is_done() && stderr.is_done()) {
            sleep(LOOK).await;
        }
    };
    timeout(DRAIN, both).await.ok();
}

/// What is to be done to a command.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Term(Stopped),
    Kill(Stopped),
}

/// When a command is ended, and how: asked first, killed five seconds later.
struct End {
    stop: watch::Receiver<Stop>,
    drain: Duration,
    at: Instant,
    reason: Stopped,
    cancelled: Cancelled,
    asked: bool,
    killed: bool,
}

/// Longer than any command runs; stands for "never" where a time is needed.
const NEVER: Duration = Duration::from_secs(365 * 24 * 3600);

impl End {
    fn new(terms: Terms) -> Self {
        Self {
            stop: terms.stop,
            drain: terms.drain,
            at: Instant::now() + terms.timeout.min(NEVER),
            reason: Stopped::TimedOut,
            cancelled: terms.cancelled,
            asked: false,
            killed: false,
        }
    }

    /// Waits for the next thing to do. Safe to drop and call again.
    async fn next(&mut self) -> Step {
        let mut draining = false;
        loop {
            let stop = *self.stop.borrow_and_update();
            if !self.killed && stop == Stop::Now {
                self.killed = true;
                self.reason = Stopped::AgentStopping;
                return Step::Kill(self.reason);
            }
            if !self.asked && stop == Stop::Drain && !draining {
                draining = true;
                let last = Instant::now() + self.drain;
                if last < self.at {
                    self.at = last;
                    self.reason = Stopped::AgentStopping;
                }
            }
            if self.killed {
                // A look that failed, or a descendant born meanwhile, must not make it last for ever.
                sleep(KILL_AGAIN).await;
                return Step::Kill(self.reason);
            }
            tokio::select! {
                () = sleep_until(self.at) => return self.due(),
                () = &mut self.cancelled, if !self.asked => {
                    self.reason = Stopped::Cancelled;
                    return self.due();
                }
                changed = self.stop.changed() => if changed.is_err() {
                    // Nobody is left to stop us; the timeout still holds.
                    sleep_until(self.at).await;
                    return self.due();
                },
            }
        }
    }

    fn due(&mut self) -> Step {
        if self.asked {
            self.killed = true;
            return Step::Kill(self.reason);
        }
        self.asked = true;
        self.at = Instant::now() + GRACE;
        Step::Term(self.reason)
    }
}

/// How a command that an earlier start of the agent left running came to its end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WatchEnd {
    /// By itself, or by somebody else's hand.
    ByItself,
    /// We ended it.
    Stopped(Stopped),
}

/// Watches a command that is not our child any more until its end, under the same terms.
pub(crate) async fn watch(mark: ChildMark, label: &Label, terms: Terms) -> WatchEnd {
    let mut end = End::new(terms);
    let mut stopped = None;
    loop {
        tokio::select! {
            () = gone(mark) => break,
            step = end.next() => match step {
                Step::Term(_) if !is_alive(mark) => break,
                Step::Term(reason) => {
                    stopped = Some(reason);
                    sweep::signal_all(mark, label, Signal::TERM);
                }
                Step::Kill(reason) => {
                    stopped.get_or_insert(reason);
                    sweep::signal_all(mark, label, Signal::KILL);
                }
            },
        }
    }
    sweep::clear(mark, label).await;
    stopped.map_or(WatchEnd::ByItself, WatchEnd::Stopped)
}

/// Ends what is left of a command whose leader is gone.
pub(crate) async fn clear_leftovers(mark: Option<ChildMark>, label: &Label) {
    // Its number may be anybody's by now, and so may a group or session of that number.
    let nobody = ChildMark {
        pid: sweep::NOBODY,
        start_time: mark.map_or(0, |mark| mark.start_time),
    };
    sweep::clear(nobody, label).await;
}

/// Returns when exactly this process has ended. It is not our child, so nobody tells us: it is
/// looked at, which costs one small read of `/proc`.
async fn gone(mark: ChildMark) {
    while is_alive(mark) {
        sleep(WATCH).await;
    }
}

#[cfg(test)]
mod tests;
