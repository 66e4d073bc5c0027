//! Runs commands of the operating system, trusting them in nothing (design section 6).
//!
//! Every command runs under a small process of ours, its warden ([`warden`]), which needs no agent:
//!
//! ```text
//! agent ─ Nursery::start ─▶ warden ─▶ command
//!       ◀─ end.json, pidfd ─┘
//! ```
//!
//! Here is the agent's side: it starts wardens, finds those of earlier starts again, waits for them and
//! reads what they wrote. Knows neither orders nor the journal. The only home of the operating
//! system's processes.

use std::{
    collections::BTreeMap, fmt, future::Future, io, pin::Pin, process::Stdio, time::Duration,
};

use jiff::Timestamp;
use rustix::{
    io::Errno,
    process::{Pid, Signal, set_child_subreaper},
};
use serde::{Deserialize, Serialize};
use steward_protocol::{MessageId, NodeName, Output, body::Limits};
use tokio::{
    process::{Child, Command},
    sync::watch,
    time::sleep,
};

use self::{
    cgroup::{Cgroups, Insist},
    sweep::{Leader, Leaders},
};
use crate::{journal::ChildMark, keeper::chain, signals::Stop};

pub mod cgroup;
pub mod helper;
mod kin;
mod launch;
pub mod log;
pub mod nursery;
mod output;
pub mod place;
mod recorder;
mod sweep;
pub mod warden;

pub use self::{nursery::Nursery, place::Place, sweep::Label};

/// The word on the command line that makes this program a warden.
pub const VERB: &str = "child";

/// Names the node a command runs on, in its environment.
const NODE: &str = "STEWARD_NODE";

/// Names the message a command runs for, in its environment.
const MESSAGE_ID: &str = "STEWARD_MESSAGE_ID";

/// Says how often that was started, in its environment.
const ATTEMPT: &str = "STEWARD_ATTEMPT";

/// How often a warden of an earlier start of the agent is looked at.
const WATCH: Duration = Duration::from_millis(200);

/// How often a warden that has just been started is looked at until it can hear.
const SOON: Duration = Duration::from_millis(2);

/// How long a command may take to obey TERM when nobody says otherwise.
pub const GRACE: Duration = Duration::from_secs(5);

/// What a warden is to run, and how.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Spec {
    /// The program and its arguments. Not empty: the body was checked.
    pub argv: Vec<String>,
    /// The directory to run in; the agent's own when absent.
    #[serde(default)]
    pub cwd: Option<String>,
    /// Variables added to the environment.
    #[serde(default)]
    pub env: BTreeMap<String, String>,
    /// Text for standard input; `/dev/null` when absent.
    #[serde(default)]
    pub stdin: Option<String>,
    /// The user to run as; the agent's own when absent.
    #[serde(default)]
    pub user: Option<String>,
    /// The group to run as; the user's own when absent.
    #[serde(default)]
    pub group: Option<String>,
    /// Its priority, from -20 to 19; the agent's own when absent.
    #[serde(default)]
    pub nice: Option<i8>,
    /// What it and its descendants may use together.
    #[serde(default)]
    pub limits: Limits,
    /// What becomes of it when they cannot be held.
    pub insist: Insist,
    /// Where they are held; the nursery says it.
    #[serde(default)]
    pub cgroups: Cgroups,
    /// How long it may run.
    pub timeout: Duration,
    /// How long it may take to obey TERM.
    pub grace: Duration,
    /// Most bytes of its record log that are kept, or that are ahead of who follows it.
    pub cap: u64,
    /// Who follows its output.
    pub following: Following,
    /// The node it runs on.
    pub node: NodeName,
    /// The message it runs for.
    pub message_id: MessageId,
    /// How often it has been started, this time included.
    pub attempt: u32,
    /// Exit codes that count as success.
    pub success_codes: Vec<i32>,
}

/// Who follows the output of a command while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Following {
    /// Nobody: its first part is kept, and the rest counted.
    Nobody,
    /// The station: all of it is kept until it is released, and the command waits when that takes long.
    Station,
}

/// Why a command was not started: an outcome of the order, not a fault of ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NotStarted {
    /// The code a shell would give: 127 not found, 126 found but not startable; none when the node is at fault.
    pub exit_code: Option<i32>,
    /// What happened, in words.
    pub reason: String,
}

/// Why a command was stopped.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Stopped {
    /// Its time was over.
    TimedOut,
    /// Its warden was told to.
    Told,
}

/// What a warden writes down about the end of its command.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// How it came.
    pub how: How,
    /// Whether it came by itself, with an exit code that counts as success.
    pub success: bool,
    /// When the command was started, by the wall clock.
    pub started_at: Timestamp,
    /// When it had ended and nothing of it was left.
    pub finished_at: Timestamp,
    /// What it wrote to standard output.
    pub stdout: Output,
    /// What it wrote to standard error.
    pub stderr: Output,
    /// What its record log came to.
    pub log: log::Total,
    /// What else there is to say.
    #[serde(default)]
    pub notes: Vec<String>,
}

/// How the end of a command came.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum How {
    /// It ran.
    Ended {
        /// Its exit code, unless a signal ended it.
        exit_code: Option<i32>,
        /// The signal that ended it.
        signal: Option<i32>,
        /// Why its warden stopped it, if it did.
        stopped: Option<Stopped>,
        /// Descendants that could not be ended.
        #[serde(default)]
        survivors: Vec<i32>,
    },
    /// It never ran.
    NotStarted {
        /// As in [`NotStarted`].
        exit_code: Option<i32>,
        /// What happened, in words.
        reason: String,
    },
}

/// A command with a warden.
#[derive(Debug)]
pub struct Running {
    /// The warden, where this start of the agent is its parent.
    child: Option<Child>,
    leader: Leader,
    mark: ChildMark,
    label: Label,
    place: Place,
}

/// What came of waiting for a command.
#[derive(Debug)]
pub enum Finished {
    /// It has ended, and its warden says how.
    Over(Box<End>),
    /// Its warden is gone without a word; nothing of the command is left. Says what is known.
    Lost(String),
    /// The agent ends first, and leaves it to its next start.
    Left,
}

/// Resolves when somebody wants a command stopped.
pub type Cancelled = Pin<Box<dyn Future<Output = ()> + Send>>;

/// How long a command is waited for, and who may end it sooner.
pub struct Terms {
    /// How long it is waited for while the agent drains.
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
            .field("drain", &self.drain)
            .finish_non_exhaustive()
    }
}

/// Makes orphans of our children our children, so that they can be found and ended.
///
/// # Errors
///
/// Fails when the kernel does not allow it.
pub fn adopt_orphans() -> io::Result<()> {
    let me = Pid::from_raw(sweep::own_pid());
    set_child_subreaper(me).map_err(io::Error::from)
}

impl Running {
    fn start(nursery: &Nursery, place: Place, label: Label) -> io::Result<Self> {
        let mut command = Command::new(nursery.program());
        command.arg0("steward-agent").arg(VERB).arg(place.dir());
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        // Held until the child is registered: a sweep must not take it for an orphan.
        let leaders = Leaders::hold();
        let child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let Some(pid) = pid else {
            let problem = "the system gave the command no process number";
            return Err(io::Error::other(problem));
        };
        Ok(Self {
            leader: leaders.add(pid),
            mark: sweep::mark(pid).unwrap_or(ChildMark { pid, start_time: 0 }),
            child: Some(child),
            label,
            place,
        })
    }

    /// Names the warden across restarts of the agent.
    pub fn mark(&self) -> ChildMark {
        self.mark
    }

    /// Returns the command's directory.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Waits for the command's end, has it stopped when it is cancelled, and gives up waiting when the
    /// agent ends.
    pub async fn finish(mut self, terms: Terms) -> Finished {
        let Terms {
            drain,
            stop,
            cancelled,
        } = terms;
        let mut told = Box::pin(tell(self.mark, cancelled));
        let mut is_told = false;
        let mut leaving = Box::pin(leave(stop, drain));
        loop {
            tokio::select! {
                biased;
                () = gone(&mut self.child, self.mark) => break,
                () = &mut told, if !is_told => is_told = true,
                () = &mut leaving => {
                    self.leader.leave();
                    return Finished::Left;
                }
            }
        }
        drop(self.leader);
        match self.place.end() {
            Ok(Some(end)) => Finished::Over(Box::new(end)),
            Ok(None) => {
                sweep::clear(self.mark, &self.label).await;
                let words = self.place.trouble().map(|words| format!(" ({words})"));
                Finished::Lost(format!(
                    "the process that watched over it is gone{}",
                    words.unwrap_or_default()
                ))
            }
            Err(error) => {
                sweep::clear(self.mark, &self.label).await;
                Finished::Lost(format!("its end cannot be read: {}", chain(&error)))
            }
        }
    }
}

/// Returns when the agent ends and has waited long enough.
async fn leave(mut stop: watch::Receiver<Stop>, drain: Duration) {
    if stop.wait_for(|stop| *stop != Stop::No).await.is_err() {
        // Nobody is left to say that the agent ends.
        return std::future::pending().await;
    }
    tokio::select! {
        _ = stop.wait_for(|stop| *stop == Stop::Now) => {}
        () = sleep(drain) => {}
    }
}

/// Has a warden stop its command once somebody wants that.
async fn tell(warden: ChildMark, cancelled: Cancelled) {
    cancelled.await;
    // It begins its session when it can hear; before that, TERM would end it and nothing else.
    while sweep::look(warden.pid).is_some_and(|seen| {
        seen.start_time == warden.start_time && !seen.zombie && seen.session != warden.pid
    }) {
        sleep(SOON).await;
    }
    sweep::signal(warden, Signal::TERM);
}

/// Returns when a warden has ended. Safe to drop and call again.
async fn gone(child: &mut Option<Child>, mark: ChildMark) {
    match child {
        Some(child) => {
            if let Err(error) = child.wait().await {
                tracing::warn!(%error, "a warden cannot be waited for");
                looked_at(mark).await;
            }
        }
        // It is not our child, so nobody tells us: that costs one small read of `/proc` now and then.
        None => looked_at(mark).await,
    }
}

async fn looked_at(mark: ChildMark) {
    while sweep::is_alive(mark) {
        sleep(WATCH).await;
    }
}

/// Ends what is left of a command whose warden is gone.
pub(crate) async fn clear_leftovers(mark: Option<ChildMark>, label: &Label) {
    // Its number may be anybody's by now, and so may a group or session of that number.
    let nobody = ChildMark {
        pid: sweep::NOBODY,
        start_time: mark.map_or(0, |mark| mark.start_time),
    };
    sweep::clear(nobody, label).await;
}

/// Tells whether the node ran out of something, so that the command is not to blame.
fn is_shortage(error: &io::Error) -> bool {
    let no_descriptors = [Errno::MFILE, Errno::NFILE].map(|errno| Some(errno.raw_os_error()));
    matches!(
        error.kind(),
        io::ErrorKind::WouldBlock | io::ErrorKind::OutOfMemory
    ) || no_descriptors.contains(&error.raw_os_error())
}
