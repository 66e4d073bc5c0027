//! The writer of results: brings what the ledger says is still to be written below `results/`.
//!
//! ```text
//! ledger ─ errands ─▶ writer ─▶ files        writer ─ facts ─▶ station's loop ─▶ ledger
//! ```
//!
//! It acts on the list in the ledger, so that a restart is the ordinary path. An append is recorded
//! with its place before it is made: made again, it writes the same bytes to the same place.

pub mod place;

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
    time::Duration,
};

use steward_protocol::retry::Backoff;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use self::place::{Log, Place, PlaceError};
use crate::{
    bus::dice,
    station::{Gone, StationHandle, chain},
    store::{Begun, Errand, Fact, How, Reader, StoreError},
};

/// How often the list is looked at although nothing was committed: what failed is tried again.
const LOOK: Duration = Duration::from_secs(1);

/// Wait before what failed is tried again.
const RETRY: Backoff = Backoff {
    base: Duration::from_secs(1),
    cap: Duration::from_secs(300),
};

/// Why the writer stops for a moment.
#[derive(Debug, thiserror::Error)]
enum WriterError {
    #[error("read what is to be written")]
    Read(#[source] StoreError),
    #[error("record what was written: {0}")]
    Record(String),
    #[error(transparent)]
    Gone(Gone),
}

/// A file that could not be written, and when it is tried again.
#[derive(Debug, Clone, Copy)]
struct Trouble {
    tries: u32,
    at: Instant,
}

/// The one writer of results.
#[derive(Debug)]
pub struct Writer {
    root: PathBuf,
    ledger: PathBuf,
    handle: StationHandle,
    troubles: HashMap<String, Trouble>,
}

impl Writer {
    /// Returns the writer for the results of the station at `handle`.
    pub fn new(state_dir: &Path, ledger: PathBuf, handle: StationHandle) -> Self {
        Self {
            root: place::root(state_dir),
            ledger,
            handle,
            troubles: HashMap::new(),
        }
    }

    /// Writes until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut changes = self.handle.changes();
        loop {
            match self.round(&stop).await {
                Ok(()) => {}
                Err(WriterError::Gone(_)) => return,
                Err(error) => tracing::error!(error = chain(&error), "results are not written"),
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(LOOK) => {}
                changed = changes.changed() => if changed.is_err() {
                    return;
                },
            }
        }
    }

    /// Does everything on the list that can be done now.
    async fn round(&mut self, stop: &CancellationToken) -> Result<(), WriterError> {
        let reader = Reader::open(&self.ledger).map_err(WriterError::Read)?;
        let paths = tokio::task::block_in_place(|| reader.errand_paths());
        let paths = paths.map_err(WriterError::Read)?;
        self.troubles.retain(|path, _| paths.contains(path));
        for path in paths {
            let rests = |trouble: &Trouble| Instant::now() < trouble.at;
            if stop.is_cancelled() || self.troubles.get(&path).is_some_and(rests) {
                continue;
            }
            let errands = tokio::task::block_in_place(|| reader.errands(&path));
            let errands = errands.map_err(WriterError::Read)?;
            self.write(&path, &errands).await?;
        }
        Ok(())
    }

    /// Writes to one file, in order, as far as one kind of writing goes.
    async fn write(&mut self, path: &str, errands: &[Errand]) -> Result<(), WriterError> {
        let Some(first) = errands.first() else {
            return Ok(());
        };
        let written = match first.how {
            How::File => {
                let place = || Place::below(&self.root, path)?.replace(&first.content);
                tokio::task::block_in_place(place).map(|()| vec![first.n])
            }
            How::Append => {
                let appends = errands
                    .iter()
                    .take_while(|errand| errand.how == How::Append);
                self.append(path, &appends.collect::<Vec<_>>()).await?
            }
        };
        let facts = match written {
            Ok(done) => {
                self.troubles.remove(path);
                done.into_iter().map(Fact::Done).collect()
            }
            Err(error) => {
                let why = chain(&error);
                let tries = self.troubles.get(path).map_or(0, |trouble| trouble.tries);
                let wait = RETRY.bound(tries) / 2 + RETRY.full_jitter(tries, dice()) / 2;
                let trouble = Trouble {
                    tries: tries.saturating_add(1),
                    at: Instant::now() + wait,
                };
                tracing::warn!(path, why, "a result is not written; it is tried again");
                self.troubles.insert(path.to_owned(), trouble);
                vec![Fact::Failed(first.n, why)]
            }
        };
        self.note(facts).await
    }

    /// Appends: first the places are recorded, then the bytes go there.
    async fn append(
        &self,
        path: &str,
        errands: &[&Errand],
    ) -> Result<Result<Vec<i64>, PlaceError>, WriterError> {
        let open = || Place::below(&self.root, path)?.open();
        let log = match tokio::task::block_in_place(open) {
            Ok(log) => log,
            Err(error) => return Ok(Err(error)),
        };
        let places = places(errands, log.inode, log.length);
        let fresh = errands.iter().zip(&places);
        let facts = fresh
            .filter(|(errand, begun)| errand.begun != Some(**begun))
            .map(|(errand, begun)| Fact::Begun(errand.n, *begun));
        self.note(facts.collect()).await?;
        let write = || {
            for (errand, begun) in errands.iter().zip(&places) {
                Log::write(&log, begun.base, &errand.content)?;
            }
            log.sync()
        };
        let written = tokio::task::block_in_place(write);
        Ok(written.map(|()| errands.iter().map(|errand| errand.n).collect()))
    }

    async fn note(&self, facts: Vec<Fact>) -> Result<(), WriterError> {
        if facts.is_empty() {
            return Ok(());
        }
        match self.handle.errands(facts).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(why)) => Err(WriterError::Record(why)),
            Err(gone) => Err(WriterError::Gone(gone)),
        }
    }
}

/// Where each append goes: where it was begun, while that file is there and as long as that; behind
/// what is there otherwise. A file that was moved away in between had it or not; a log that lacks a
/// line is worse than one that has it twice.
fn places(errands: &[&Errand], inode: u64, length: u64) -> Vec<Begun> {
    let mut end = length;
    let mut places = Vec::new();
    for errand in errands {
        let begun = errand
            .begun
            .filter(|begun| begun.inode == inode && begun.base <= end);
        let base = begun.map_or(end, |begun| begun.base);
        end = end.max(base + errand.content.len() as u64);
        places.push(Begun { inode, base });
    }
    places
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errand(n: i64, content: &str, begun: Option<(u64, u64)>) -> Errand {
        Errand {
            n,
            how: How::Append,
            content: content.as_bytes().to_vec(),
            begun: begun.map(|(inode, base)| Begun { inode, base }),
        }
    }

    #[test]
    fn an_append_goes_where_it_was_begun_and_otherwise_to_the_end() {
        for (what, length, begun, expected) in [
            ("nothing begun", 10, [None, None], [10, 13]),
            (
                "begun, nothing written",
                10,
                [Some((7, 10)), Some((7, 13))],
                [10, 13],
            ),
            (
                "begun, half written",
                11,
                [Some((7, 10)), Some((7, 13))],
                [10, 13],
            ),
            ("all written", 16, [Some((7, 10)), Some((7, 13))], [10, 13]),
            ("the first begun", 13, [Some((7, 10)), None], [10, 13]),
            ("another file", 2, [Some((8, 10)), Some((8, 13))], [2, 5]),
            ("cut short since", 2, [Some((7, 10)), None], [2, 5]),
        ] {
            let errands = [errand(1, "abc", begun[0]), errand(2, "def", begun[1])];
            let places = places(&errands.each_ref(), 7, length);
            let bases: Vec<u64> = places.iter().map(|begun| begun.base).collect();
            assert_eq!(bases, expected, "{what}");
        }
    }
}
