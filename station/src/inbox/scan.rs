//! Looks through the whole inbox folder for files that are due.
//!
//! This is what makes notices dispensable: whatever was missed lies there still. It opens nothing.

use std::{
    collections::{HashSet, VecDeque},
    ffi::OsString,
    fs, io,
    time::{Duration, SystemTime},
};

use super::{
    folder::{self, Folder},
    intake::Format,
    names::{self, Claimed},
    settle::{Clocks, Due, InboxTiming, Patience},
    take::{Trigger, may_take},
};

/// Due files one scan returns. The rest is found by the next one, which follows at once.
pub(super) const MAX_DUE: usize = 10_000;

/// What a scan found.
pub(super) struct Scan {
    /// Files to take, oldest first.
    pub(super) due: VecDeque<(OsString, Trigger)>,
    /// When the next file may be due, if one waits.
    pub(super) next: Option<Duration>,
    /// What was remembered of waiting files, as it is now.
    pub(super) patience: Patience,
    /// The files that could not be claimed before and lie there still.
    pub(super) stuck: HashSet<OsString>,
}

/// Scans the inbox. Files in `stuck` come last, so that they cannot keep others from their turn.
pub(super) fn scan(
    folder: &Folder,
    mut patience: Patience,
    stuck: &HashSet<OsString>,
    timing: InboxTiming,
) -> io::Result<Scan> {
    folder.create()?;
    patience.begin();
    let clocks = Clocks::now();
    let mut found: Vec<(bool, SystemTime, OsString, Trigger)> = Vec::new();
    let mut next: Option<Duration> = None;
    let mut still_stuck = HashSet::new();
    for entry in fs::read_dir(folder.root())? {
        let name = entry?.file_name();
        if names::left_alone(&name).is_some() {
            continue;
        }
        // Gone since it was listed: taken, or taken back.
        let Ok((look, strange)) = folder::look(&folder.root().join(&name)) else {
            continue;
        };
        if strange.is_none() && !may_take(Format::of_name(&name), Trigger::Settled) {
            continue;
        }
        if stuck.contains(&name) {
            still_stuck.insert(name.clone());
        }
        let trigger = match patience.due(&name, look, clocks, timing) {
            Due::Settled => Trigger::Settled,
            Due::GivenUp => Trigger::GivenUp(look),
            Due::After(wait) => {
                next = Some(next.map_or(wait, |next| next.min(wait)));
                continue;
            }
        };
        if found.len() < MAX_DUE {
            found.push((stuck.contains(&name), look.modified, name, trigger));
        } else {
            next = Some(Duration::ZERO);
        }
    }
    patience.end();
    found.sort_by(|one, other| (one.0, one.1, &one.2).cmp(&(other.0, other.1, &other.2)));
    Ok(Scan {
        due: found
            .into_iter()
            .map(|(_, _, name, trigger)| (name, trigger))
            .collect(),
        next,
        patience,
        stuck: still_stuck,
    })
}

/// Returns the files claimed by earlier starts, oldest first, and how many files lie beside them that
/// the station did not put there.
pub(super) fn claimed(folder: &Folder) -> io::Result<(VecDeque<Claimed>, usize)> {
    let mut claims = Vec::new();
    let mut strangers = 0;
    for entry in fs::read_dir(folder.processing())? {
        match Claimed::parse(&entry?.file_name()) {
            Some(claimed) => claims.push(claimed),
            None => strangers += 1,
        }
    }
    claims.sort();
    Ok((claims.into(), strangers))
}
