//! Removes what is not needed any more: outputs of messages the ledger has forgotten, files whose
//! order is settled, and the oldest outputs when they are too many. Blocks.

use std::{
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use steward_protocol::{MessageId, NodeName};

use super::{
    Ground,
    shelf::{INCOMING, OUTPUTS},
};
use crate::store::{Reader, StoreError};

/// One output, as the janitor sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Kept {
    dir: PathBuf,
    bytes: u64,
    used: SystemTime,
    /// Whether its delivery is over.
    settled: bool,
}

/// Removes what is not needed any more.
pub(super) fn tidy(ground: &Ground) {
    if let Err(error) = outputs(ground).and_then(|()| incoming(ground)) {
        tracing::warn!(%error, "what transfers left could not be tidied");
    }
}

fn outputs(ground: &Ground) -> Result<(), StoreError> {
    let reader = Reader::open(&ground.ledger)?;
    let mut kept = Vec::new();
    for (dir, id, node) in places(&ground.state_dir.join(OUTPUTS)) {
        match reader.carriage(id, &node)? {
            None => remove(&dir),
            Some(carriage) => kept.push(Kept {
                bytes: size(&dir),
                used: fs::metadata(&dir)
                    .and_then(|found| found.modified())
                    .unwrap_or(SystemTime::UNIX_EPOCH),
                settled: carriage.state.is_final(),
                dir,
            }),
        }
    }
    for old in surplus(kept, ground.outputs_bytes) {
        tracing::info!(dir = %old.dir.display(), bytes = old.bytes, "an output was removed, as outputs.bytes says");
        remove(&old.dir);
    }
    Ok(())
}

/// Returns what goes so that the rest is within the budget: the oldest first, and nothing whose
/// delivery is not over.
fn surplus(mut kept: Vec<Kept>, budget: u64) -> Vec<Kept> {
    let mut total: u64 = kept.iter().map(|kept| kept.bytes).sum();
    kept.sort_by_key(|kept| kept.used);
    let mut gone = Vec::new();
    for old in kept.into_iter().filter(|kept| kept.settled) {
        if total <= budget {
            break;
        }
        total -= old.bytes;
        gone.push(old);
    }
    gone
}

fn incoming(ground: &Ground) -> Result<(), StoreError> {
    let reader = Reader::open(&ground.ledger)?;
    for (dir, id, node) in places(&ground.state_dir.join(INCOMING)) {
        let carriage = reader.carriage(id, &node)?;
        if carriage.is_none_or(|carriage| carriage.state.is_final()) {
            remove(&dir);
        }
    }
    Ok(())
}

/// Lists the places below a directory of places.
fn places(base: &Path) -> Vec<(PathBuf, MessageId, NodeName)> {
    let below = |dir: &Path| -> Vec<PathBuf> {
        let entries = fs::read_dir(dir).into_iter().flatten().flatten();
        entries.map(|entry| entry.path()).collect()
    };
    let name = |path: &Path| path.file_name()?.to_str().map(str::to_owned);
    let mut found = Vec::new();
    for message in below(base) {
        let Some(id) = name(&message).and_then(|name| name.parse::<MessageId>().ok()) else {
            continue;
        };
        let nodes = below(&message);
        if nodes.is_empty() {
            // Only an empty one goes.
            fs::remove_dir(&message).ok();
        }
        for dir in nodes {
            if let Some(node) = name(&dir).and_then(|name| name.parse().ok()) {
                found.push((dir, id, node));
            }
        }
    }
    found
}

fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    let length = |entry: fs::DirEntry| entry.metadata().map_or(0, |found| found.len());
    entries.map(length).sum()
}

fn remove(dir: &Path) {
    if let Err(error) = fs::remove_dir_all(dir) {
        tracing::warn!(dir = %dir.display(), %error, "what is not needed any more was not removed");
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn the_oldest_outputs_go_until_the_rest_is_within_the_budget_and_none_that_is_still_to_grow() {
        let kept = |name: &str, bytes, used, settled| Kept {
            dir: name.into(),
            bytes,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(used),
            settled,
        };
        let all = [
            kept("newest", 30, 4, true),
            kept("oldest", 10, 1, true),
            kept("grows", 40, 0, false),
            kept("middle", 20, 2, true),
        ];
        for (budget, expected) in [
            (101, vec![]),
            (100, vec![]),
            (99, vec!["oldest"]),
            (90, vec!["oldest"]),
            (89, vec!["oldest", "middle"]),
            (70, vec!["oldest", "middle"]),
            (69, vec!["oldest", "middle", "newest"]),
            (0, vec!["oldest", "middle", "newest"]),
        ] {
            let gone = surplus(all.to_vec(), budget);
            let gone: Vec<_> = gone
                .iter()
                .map(|kept| kept.dir.display().to_string())
                .collect();
            assert_eq!(gone, expected, "{budget}");
        }
    }
}
