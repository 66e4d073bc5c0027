//! Finds and ends what a command leaves behind whose warden is gone: every descendant, however it
//! tried to get away.
//!
//! A warden that lives ends its command's descendants itself ([`super::kin`]). The agent is a sub-reaper, so whatever loses its parent becomes the agent's own child. A
//! descendant is recognised by its process group, by its ancestors, or by the node's name and the
//! message's id in its environment (both: one host may be several nodes, and one message is for
//! many); one that dropped all three is ended when no other command runs. Signals go through a pidfd
//! whose start time was compared, so that a reused number is never hit, and only named processes are
//! reaped, never "any child".

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    fs,
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
    process,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use rustix::process::{
    Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid,
};
use steward_protocol::{MessageId, NodeName};

use super::{MESSAGE_ID, NODE, VERB};
use crate::journal::ChildMark;

/// No process has this number.
pub(super) const NOBODY: i32 = i32::MAX;

/// Most rounds of looking and killing; a command that forks faster than that is left to its parent's limits.
const ROUNDS: u32 = 100;

/// Time between two rounds: long enough for a killed process to be gone.
const PAUSE: Duration = Duration::from_millis(10);

/// The wardens whose end the runtime waits for. Neither they nor theirs are for anybody's sweep.
static LEADERS: Mutex<Known> = Mutex::new(Known {
    wardens: BTreeSet::new(),
    helpers: BTreeSet::new(),
});

/// What every process of a command carries in its environment, unless it took care not to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// The node it runs on.
    pub node: NodeName,
    /// The message it runs for.
    pub id: MessageId,
}

/// Which children of the agent somebody waits for.
#[derive(Debug, Default)]
struct Known {
    /// Those of commands.
    wardens: BTreeSet<i32>,
    /// Programs that work for the agent itself. They leave nothing behind that could be taken for a command's.
    helpers: BTreeSet<i32>,
}

impl Known {
    fn has(&self, pid: i32) -> bool {
        self.wardens.contains(&pid) || self.helpers.contains(&pid)
    }
}

/// Holds still the set of running commands; nobody spawns while a sweep looks.
pub(super) struct Leaders(MutexGuard<'static, Known>);

/// Keeps a command out of the reach of every other command's sweep, until dropped.
#[derive(Debug)]
pub(super) struct Leader(i32);

impl Leaders {
    pub(super) fn hold() -> Self {
        // Nothing that holds the lock can leave the set half changed.
        Self(LEADERS.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(super) fn add(mut self, pid: i32) -> Leader {
        self.0.wardens.insert(pid);
        Leader(pid)
    }

    /// The same for a program that works for the agent itself.
    pub(super) fn add_helper(mut self, pid: i32) -> Leader {
        self.0.helpers.insert(pid);
        Leader(pid)
    }
}

impl Leader {
    /// Keeps it out of reach for as long as this program runs: nobody waits for it any more.
    pub(super) fn leave(self) {
        std::mem::forget(self);
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        let mut leaders = Leaders::hold();
        leaders.0.wardens.remove(&self.0);
        leaders.0.helpers.remove(&self.0);
    }
}

/// What `/proc/PID/stat` says of one process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) parent: i32,
    pub(super) group: i32,
    pub(super) session: i32,
    pub(super) start_time: u64,
    pub(super) zombie: bool,
}

pub(super) fn look(pid: i32) -> Option<Seen> {
    // The kernel writes a name as it is, and that need not be UTF-8.
    let stat = fs::read(format!("/proc/{pid}/stat")).ok()?;
    parse(&String::from_utf8_lossy(&stat))
}

/// Reads a line of `stat`. The name in it may hold anything, brackets and newlines included.
fn parse(stat: &str) -> Option<Seen> {
    let (_, rest) = stat.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    let number = |index: usize| fields.get(index)?.parse::<i32>().ok();
    // One whose first thread has ended shows as a zombie while its other threads run on.
    let ended = matches!(*fields.first()?, "Z" | "X") && number(17)? <= 1;
    Some(Seen {
        zombie: ended,
        parent: number(1)?,
        group: number(2)?,
        session: number(3)?,
        start_time: fields.get(19)?.parse().ok()?,
    })
}

/// Names a process across reuse of its number.
pub(super) fn mark(pid: i32) -> Option<ChildMark> {
    look(pid).map(|seen| ChildMark {
        pid,
        start_time: seen.start_time,
    })
}

/// Tells whether this very process still runs.
pub(super) fn is_alive(child: ChildMark) -> bool {
    look(child.pid).is_some_and(|seen| seen.start_time == child.start_time && !seen.zombie)
}

/// Finds the warden of a command by its command line.
pub(super) fn find_warden(dir: &Path) -> Option<ChildMark> {
    let all = snapshot();
    let mut living = all.iter().filter(|(_, seen)| !seen.zombie);
    let (pid, seen) = living.find(|(pid, _)| warded(**pid).is_some_and(|words| words == dir))?;
    Some(ChildMark {
        pid: *pid,
        start_time: seen.start_time,
    })
}

/// Returns the directory in the command line of a warden: `…/steward-agent child DIR`.
fn warded(pid: i32) -> Option<PathBuf> {
    let line = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    let mut words = line.split(|byte| *byte == 0).skip(1);
    let is_warden = words.next() == Some(VERB.as_bytes());
    let dir = words.next().filter(|_| is_warden)?;
    Some(PathBuf::from(OsStr::from_bytes(dir)))
}

pub(super) fn snapshot() -> BTreeMap<i32, Seen> {
    let Ok(listing) = fs::read_dir("/proc") else {
        return BTreeMap::new();
    };
    listing
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok())
        .filter_map(|pid| Some((pid, look(pid)?)))
        .collect()
}

/// Whose command a process says it belongs to.
#[derive(Debug, PartialEq, Eq)]
struct Tag {
    node: String,
    id: String,
}

impl Tag {
    fn is(&self, label: &Label) -> bool {
        self.node == label.node.as_str() && self.id == label.id.to_string()
    }
}

fn tag(pid: i32) -> Option<Tag> {
    tag_of(&fs::read(format!("/proc/{pid}/environ")).ok()?)
}

/// Reads the two names out of an environment.
fn tag_of(environ: &[u8]) -> Option<Tag> {
    let value = |name: &str| {
        environ
            .split(|byte| *byte == 0)
            .filter_map(|pair| pair.strip_prefix(name.as_bytes()))
            .find_map(|rest| rest.strip_prefix(b"="))
            .map(|value| String::from_utf8_lossy(value).into_owned())
    };
    Some(Tag {
        node: value(NODE)?,
        id: value(MESSAGE_ID)?,
    })
}

/// Returns every living process that belongs to the command, its leader included.
fn family(
    all: &BTreeMap<i32, Seen>,
    command: ChildMark,
    label: &Label,
    leaders: &Leaders,
) -> BTreeSet<i32> {
    let me = own_pid();
    // A number that belongs to another process by now says nothing about groups and sessions either.
    let reused = all
        .get(&command.pid)
        .is_some_and(|seen| seen.start_time != command.start_time);
    let leader = if reused { NOBODY } else { command.pid };
    let alone = leaders.0.wardens.iter().all(|pid| *pid == leader);
    // As the first process of a container the agent is everybody's heir, not only its commands'.
    let heir = alone && me != 1;
    let born = all.get(&me).map_or(u64::MAX, |seen| seen.start_time);
    let mut found: BTreeSet<i32> = all
        .iter()
        .filter(|(pid, _)| **pid != me)
        .filter(|(pid, seen)| {
            // What nobody else can have left behind, from this command or an earlier one.
            let stray = seen.parent == me && !leaders.0.has(**pid) && seen.start_time >= born;
            // Nothing older can be its descendant; this spares a look at most of the system.
            let younger = seen.start_time >= command.start_time;
            (heir && stray && tag(**pid).is_none() && warded(**pid).is_none())
                || younger
                    && (**pid == leader
                        || seen.group == leader
                        || seen.session == leader
                        || tag(**pid).is_some_and(|tag| tag.is(label)))
        })
        .map(|(pid, _)| *pid)
        .collect();
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, seen)| found.contains(&seen.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .filter(|pid| *pid != me)
            .collect();
        if more.is_empty() {
            break;
        }
        found.extend(more);
    }
    found
}

pub(super) fn own_pid() -> i32 {
    i32::try_from(process::id()).unwrap_or(i32::MAX)
}

/// Sends a signal to exactly this process, if it still runs.
pub(super) fn signal(child: ChildMark, signal: Signal) {
    if let Some(seen) = look(child.pid).filter(|seen| seen.start_time == child.start_time) {
        send(child.pid, &seen, signal);
    }
}

/// Signals exactly the process that was seen, or nobody.
fn send(pid: i32, seen: &Seen, signal: Signal) {
    if seen.zombie {
        return;
    }
    let Some(raw) = Pid::from_raw(pid) else {
        return;
    };
    let Ok(pidfd) = pidfd_open(raw, PidfdFlags::empty()) else {
        return;
    };
    if look(pid).is_some_and(|now| now.start_time == seen.start_time) {
        // It may have ended in between, or be another user's; the next round looks again.
        pidfd_send_signal(pidfd, signal).ok();
    }
}

/// Kills what is left of a command until nothing is, and reaps what became ours.
///
/// Call it when the command itself has ended.
pub(super) async fn clear(leader: ChildMark, label: &Label) {
    for _ in 0..ROUNDS {
        let label = label.clone();
        // Looking through /proc takes a while on a busy host; the tasks of this one go on meanwhile.
        let swept = tokio::task::spawn_blocking(move || sweep(leader, &label)).await;
        if matches!(swept, Ok(0)) {
            return;
        }
        tokio::time::sleep(PAUSE).await;
    }
    tracing::warn!(id = %label.id, "a command left processes behind that could not be ended");
}

/// One round; returns how many were still alive.
fn sweep(leader: ChildMark, label: &Label) -> usize {
    let leaders = Leaders::hold();
    let all = snapshot();
    let mut alive = 0;
    for pid in family(&all, leader, label, &leaders) {
        let Some(seen) = all.get(&pid) else { continue };
        // The leader's number may belong to a new command by now.
        let another = leaders.0.has(pid) || leaders.0.has(seen.group);
        if !another && !seen.zombie {
            alive += 1;
            send(pid, seen, Signal::KILL);
        }
    }
    let me = own_pid();
    for (pid, seen) in &all {
        if seen.zombie
            && seen.parent == me
            && !leaders.0.has(*pid)
            && let Some(pid) = Pid::from_raw(*pid)
        {
            waitpid(Some(pid), WaitOptions::NOHANG).ok();
        }
    }
    alive
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_stat_is_read_whatever_the_name() {
        let rest = "S 1 20 30 0 -1 4194304 1 2 3 4 5 6 7 8 20 0 1 0 98765 1000 1";
        for name in ["sh", "a) Z 9 9 9", "with space", "new\nline", "((("] {
            let seen = parse(&format!("77 ({name}) {rest}"));
            let expected = Seen {
                parent: 1,
                group: 20,
                session: 30,
                start_time: 98765,
                zombie: false,
            };
            assert_eq!(seen, Some(expected), "{name:?}");
        }
        for broken in ["", "1 (a", "1 (a) S", "1 (a) S x y z"] {
            assert_eq!(parse(broken), None, "{broken:?}");
        }
    }

    #[test]
    fn a_process_whose_first_thread_ended_is_no_zombie() {
        let stat =
            |threads: u32| format!("7 (x) Z 1 7 7 0 -1 0 1 2 3 4 5 6 7 8 20 0 {threads} 0 99 1 1");
        assert_eq!(parse(&stat(1)).map(|seen| seen.zombie), Some(true));
        assert_eq!(parse(&stat(2)).map(|seen| seen.zombie), Some(false));
    }

    #[test]
    fn a_reused_number_brings_nobody_into_the_family() {
        let seen = |parent, group, start_time| Seen {
            parent,
            group,
            session: group,
            start_time,
            zombie: false,
        };
        let command = ChildMark {
            pid: 1_000_000_037,
            start_time: 10,
        };
        let label = Label {
            node: "ship1".parse().expect("a name"),
            id: "01934d6a-7b00-7000-8000-000000000001"
                .parse()
                .expect("an id"),
        };
        let family_of = |leader_start| {
            let all = BTreeMap::from([
                (1_000_000_037, seen(1, 1_000_000_037, leader_start)),
                (1_000_000_038, seen(1_000_000_037, 1_000_000_037, 20)),
            ]);
            family(&all, command, &label, &Leaders::hold()).len()
        };
        assert_eq!(family_of(10), 2, "the command and its child");
        assert_eq!(family_of(15), 0, "another process has its number now");
    }

    #[test]
    fn a_helper_of_the_agent_is_nobodys_stray_and_keeps_nobodys_stray_alive() {
        let me = own_pid();
        let born = look(me).expect("this process is in /proc").start_time;
        let child = |group| Seen {
            parent: me,
            group,
            session: group,
            start_time: born + 1,
            zombie: false,
        };
        let (helper, stray) = (1_000_000_041, 1_000_000_042);
        let all = BTreeMap::from([
            (me, look(me).expect("this process is in /proc")),
            (helper, child(helper)),
            (stray, child(stray)),
        ]);
        let command = ChildMark {
            pid: 1_000_000_043,
            start_time: born + 1,
        };
        let label = Label {
            node: "ship1".parse().expect("a name"),
            id: "01934d6a-7b00-7000-8000-000000000001"
                .parse()
                .expect("an id"),
        };
        let _helper = Leaders::hold().add_helper(helper);
        let found = family(&all, command, &label, &Leaders::hold());
        assert_eq!(found, BTreeSet::from([stray]));
    }

    #[test]
    fn a_command_of_another_node_on_this_host_is_not_ours_though_the_message_is_the_same() {
        let id: MessageId = "01934d6a-7b00-7000-8000-000000000001"
            .parse()
            .expect("an id");
        let label = |node: &str| Label {
            node: node.parse().expect("a name"),
            id,
        };
        let environ = format!("PATH=/bin\0STEWARD_NODE=ship1\0STEWARD_MESSAGE_ID={id}\0");
        let tag = tag_of(environ.as_bytes()).expect("both names are there");
        assert!(tag.is(&label("ship1")));
        assert!(!tag.is(&label("ship2")));
        assert_eq!(tag_of(b"STEWARD_NODE=ship1\0PATH=/bin\0"), None);
    }

    #[test]
    fn this_process_is_alive_and_its_number_with_another_start_is_not() {
        let me = mark(own_pid()).expect("this process is in /proc");
        assert!(is_alive(me));
        assert!(!is_alive(ChildMark {
            start_time: me.start_time + 1,
            ..me
        }));
    }
}
