//! The descendants of this very process, a warden: finds, signals and reaps all of them.
//!
//! A warden is a sub-reaper and has nothing to do but its one command, so every process that descends
//! from it belongs to that command, however it tried to get away, and is its own child in the end.
//! When there is nobody to wait for, nobody is left: that is proof and no guess.

use std::{
    collections::{BTreeMap, BTreeSet},
    thread::sleep,
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    process::{
        Pid, Signal, WaitOptions, WaitStatus, getpgrp, kill_process, kill_process_group, wait,
    },
};

use super::sweep::{self, Seen};

/// Time between two rounds of killing: long enough for a killed process to be gone.
const PAUSE: Duration = Duration::from_millis(2);

/// How long killing goes on. Who survives it hangs in the kernel, and may for days.
const PATIENCE: Duration = Duration::from_secs(10);

/// Who is left of the descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Left {
    /// Nobody.
    None,
    /// Somebody, alive or about to be reaped.
    Some,
}

/// Reaps everybody that has ended, and returns how `leader` did if it is among them.
pub(super) fn reap(leader: Pid) -> (Option<WaitStatus>, Left) {
    let mut status = None;
    loop {
        match wait(WaitOptions::NOHANG) {
            Ok(Some((pid, found))) if pid == leader => status = Some(found),
            Ok(Some(_)) | Err(Errno::INTR) => {}
            Ok(None) => return (status, Left::Some),
            Err(_) => return (status, Left::None),
        }
    }
}

/// Sends a signal to every descendant.
pub(super) fn signal_all(signal: Signal) {
    let all = sweep::snapshot();
    let me = sweep::own_pid();
    let mine = descendants(&all, me);
    // A whole group is signalled in one step; that outruns one that forks as fast as it can.
    let own_group = getpgrp().as_raw_pid();
    let groups: BTreeSet<i32> = mine
        .iter()
        .filter_map(|pid| all.get(pid))
        .map(|seen| seen.group)
        .filter(|group| *group != own_group)
        .collect();
    let reached = |pid: &i32| {
        let group = all.get(pid).map(|seen| seen.group);
        group.is_some_and(|group| groups.contains(&group))
    };
    for group in groups.iter().filter_map(|group| Pid::from_raw(*group)) {
        // It may have ended in between; the next round looks again.
        kill_process_group(group, signal).ok();
    }
    for pid in mine.iter().filter(|pid| !reached(pid)) {
        if let Some(pid) = Pid::from_raw(*pid) {
            kill_process(pid, signal).ok();
        }
    }
}

/// Kills and reaps until nobody is left; returns who could not be ended, and the end of `leader` if
/// it came only now.
pub(super) fn end_all(leader: Pid) -> (Vec<i32>, Option<WaitStatus>) {
    let begun = Instant::now();
    let mut status = None;
    loop {
        let (found, left) = reap(leader);
        status = status.or(found);
        if left == Left::None {
            return (Vec::new(), status);
        }
        if begun.elapsed() > PATIENCE {
            let all = sweep::snapshot();
            let mine = descendants(&all, sweep::own_pid());
            return (mine.into_iter().collect(), status);
        }
        signal_all(Signal::KILL);
        sleep(PAUSE);
    }
}

/// Returns everybody who descends from `me`. A group can be trusted here: it holds relatives only, as
/// none but they can join it.
fn descendants(all: &BTreeMap<i32, Seen>, me: i32) -> BTreeSet<i32> {
    let mut found = BTreeSet::from([me]);
    loop {
        let more: Vec<i32> = all
            .iter()
            .filter(|(pid, seen)| found.contains(&seen.parent) && !found.contains(pid))
            .map(|(pid, _)| *pid)
            .collect();
        if more.is_empty() {
            found.remove(&me);
            return found;
        }
        found.extend(more);
    }
}
