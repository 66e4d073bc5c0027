//! The store: lines that are open, and the commit that makes the batches of many of them durable at once.
//!
//! It says what is durable, and only that. A line whose disk failed is forgotten and opened again with
//! its next batch; nothing is said of it meanwhile. It has one owner, and knows neither broker nor clock.

use std::{
    collections::{BTreeSet, HashMap},
    io,
    thread::ScopedJoinHandle,
    time::Duration,
};

use steward_protocol::{
    Generation, NodeName,
    logs::{Header, Kept},
};

use super::{
    LogsError,
    census::Census,
    disk::{Disk, Mode, failed, read_from},
    index::Index,
    line::Line,
    name::{Line as Key, Name, path},
    take::Verdict,
};

/// Lines that are open at once, each with two files: far below the 1,024 files that a program may have
/// open where nobody raised that.
pub const MAX_OPEN: usize = 128;

/// Threads that sync files side by side: a disk makes one durable in about the time of several.
const SYNCERS: usize = 8;

/// A batch as it arrived, understood.
#[derive(Debug)]
pub struct Arrived {
    /// Of which node and domain.
    pub line: Key,
    /// What its header says.
    pub header: Header,
    /// All of it.
    pub payload: Vec<u8>,
}

/// What is to be said to a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Word {
    /// Of which node and domain.
    pub line: Key,
    /// What is durable.
    pub kept: Kept,
}

/// What came of a commit.
#[derive(Debug, Default)]
pub struct Done {
    /// What is to be said.
    pub words: Vec<Word>,
    /// Lines that have grown, each with the number of its newest segment and how many bytes are durable.
    pub tips: Vec<(Key, u64, u64)>,
    /// What went wrong, line by line.
    pub failed: Vec<(Key, LogsError)>,
    /// Lines whose node does not know what it had said before.
    pub lost: Vec<Key>,
    /// Lines of which a batch was not taken, for their node has as many domains as it may have.
    pub refused: Vec<Key>,
    /// Batches that were stored, their bytes and their records; batches that were there already.
    pub stored: u64,
    /// Bytes of them.
    pub bytes: u64,
    /// Records in them.
    pub records: u64,
    /// Batches that were there already.
    pub twice: u64,
    /// Batches that did not fit.
    pub again: u64,
}

/// The lines.
pub struct Store<D: Disk> {
    disk: D,
    lines: HashMap<Key, (Line<D>, u64)>,
    census: Census,
    /// Counts commits, to find the line that was not used for longest.
    tick: u64,
    limit: usize,
}

/// What is known of the lines of one commit.
#[derive(Default)]
struct Round {
    touched: BTreeSet<Key>,
    /// What is to be said of whom, and whether it is to go back.
    said: Vec<(Key, Generation, bool)>,
    done: Done,
}

impl<D: Disk> Store<D> {
    /// Returns the store on a disk, with nothing open.
    pub fn new(disk: D) -> Self {
        Self::with_limit(disk, MAX_OPEN)
    }

    /// Returns the store on a disk, of which `limit` lines are open at most.
    pub fn with_limit(disk: D, limit: usize) -> Self {
        Self {
            disk,
            lines: HashMap::new(),
            census: Census::default(),
            tick: 0,
            limit: limit.max(1),
        }
    }

    /// Returns its disk.
    pub fn disk(&self) -> &D {
        &self.disk
    }

    /// Looks at the newest segment of every line, and at what stands in it behind its index.
    ///
    /// # Errors
    ///
    /// Fails when the directories cannot be listed; what is wrong with a line is in the answer.
    pub fn recover(&mut self) -> Result<Done, LogsError> {
        let mut round = Round::default();
        for key in lines(&self.disk)? {
            match is_settled(&self.disk, &key) {
                Ok(true) => {}
                Ok(false) => match self.recovered(&key, &mut round) {
                    Ok((number, bytes)) => round.done.tips.push((key, number, bytes)),
                    Err(error) => round.done.failed.push((key, error)),
                },
                Err(error) => round.done.failed.push((key, error)),
            }
        }
        Ok(round.done)
    }

    fn recovered(&mut self, key: &Key, round: &mut Round) -> Result<(u64, u64), LogsError> {
        self.line(key, round)?;
        Ok(open(&self.disk, &mut self.lines, key)?.tip())
    }

    /// Stores what continues what is there, and returns what may be said once all of it is durable.
    pub fn commit(&mut self, arrived: Vec<Arrived>, now: Duration) -> Done {
        let mut round = Round::default();
        for batch in arrived {
            if let Err(error) = self.take(&batch, now, &mut round) {
                self.forget(&batch.line, error, &mut round);
            }
        }
        self.settle(&mut round);
        round.done
    }

    /// Closes a segment, so that it can be removed.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; the line is opened again when it is needed.
    pub fn close(&mut self, key: &Key, number: u64) -> Result<(), LogsError> {
        self.line(key, &mut Round::default())?;
        let closed = open(&self.disk, &mut self.lines, key)?.close(&self.disk, number);
        if closed.is_err() {
            self.lines.remove(key);
        }
        closed
    }

    fn take(&mut self, batch: &Arrived, now: Duration, round: &mut Round) -> Result<(), LogsError> {
        if !self.census.admits(&self.disk, &batch.line)? {
            round.done.refused.push(batch.line.clone());
            return Ok(());
        }
        let (header, generation) = (&batch.header, batch.header.generation);
        self.line(&batch.line, round)?;
        let line = open(&self.disk, &mut self.lines, &batch.line)?;
        let taken = line.take(&self.disk, (header, &batch.payload), now)?;
        round.touched.insert(batch.line.clone());
        match taken.verdict {
            Verdict::Store => {
                self.census.note(&batch.line);
                round.done.stored += 1;
                round.done.bytes += batch.payload.len() as u64;
                round.done.records += header.count;
            }
            Verdict::Twice => round.done.twice += 1,
            Verdict::Again => round.done.again += 1,
        }
        if taken.lost {
            round.done.lost.push(batch.line.clone());
        }
        if taken.verdict == Verdict::Again && !taken.again {
            return Ok(());
        }
        let same =
            |said: &&mut (Key, Generation, bool)| said.0 == batch.line && said.1 == generation;
        match round.said.iter_mut().rev().find(same) {
            Some(said) => said.2 = taken.again,
            None => round
                .said
                .push((batch.line.clone(), generation, taken.again)),
        }
        Ok(())
    }

    /// Opens a line, if it is not open, and makes room for it.
    fn line(&mut self, key: &Key, round: &mut Round) -> Result<(), LogsError> {
        if !self.lines.contains_key(key) {
            open(&self.disk, &mut self.lines, key)?;
            self.make_room(round);
        }
        if let Some((_, used)) = self.lines.get_mut(key) {
            self.tick += 1;
            *used = self.tick;
        }
        Ok(())
    }

    fn make_room(&mut self, round: &mut Round) {
        if self.lines.len() <= self.limit {
            return;
        }
        let idle = |lines: &HashMap<Key, (Line<D>, u64)>, touched: &BTreeSet<Key>| {
            let idle = lines
                .iter()
                .filter(|(key, (_, used))| *used > 0 && !touched.contains(*key));
            idle.min_by_key(|(_, (_, used))| *used)
                .map(|(key, _)| key.clone())
        };
        if idle(&self.lines, &round.touched).is_none() {
            // What was taken so far becomes durable a little earlier.
            self.settle(round);
        }
        if let Some(key) = idle(&self.lines, &round.touched) {
            self.lines.remove(&key);
        }
    }

    /// Makes what was taken durable, and finds the words for it.
    fn settle(&mut self, round: &mut Round) {
        let touched = std::mem::take(&mut round.touched);
        for key in &touched {
            if let Some((line, _)) = self.lines.get_mut(key)
                && let Err(error) = line.write(&self.disk)
            {
                self.forget(key, error, round);
            }
        }
        for (key, error) in self.sync(&touched) {
            self.forget(&key, error, round);
        }
        for key in touched {
            let Some((line, _)) = self.lines.get_mut(&key) else {
                continue;
            };
            match line.settle(&self.disk) {
                Ok(()) => {
                    let (number, bytes) = line.tip();
                    round.done.tips.push((key, number, bytes));
                }
                Err(error) => self.forget(&key, error, round),
            }
        }
        for (key, generation, again) in std::mem::take(&mut round.said) {
            let Some((line, _)) = self.lines.get(&key) else {
                continue;
            };
            match line.next(&self.disk, generation) {
                Ok(next) => round.done.words.push(Word {
                    line: key,
                    kept: Kept {
                        generation,
                        next,
                        again,
                    },
                }),
                Err(error) => self.forget(&key, error, round),
            }
        }
    }

    fn sync(&self, touched: &BTreeSet<Key>) -> Vec<(Key, LogsError)> {
        let lines: Vec<(&Key, &Line<D>)> = touched
            .iter()
            .filter_map(|key| Some((key, &self.lines.get(key)?.0)))
            .collect();
        let disk = &self.disk;
        let sync = |lines: &[(&Key, &Line<D>)]| -> Vec<(Key, LogsError)> {
            let failed =
                |(key, line): &(&Key, &Line<D>)| Some(((*key).clone(), line.sync(disk).err()?));
            lines.iter().filter_map(failed).collect()
        };
        if lines.len() < 2 {
            return sync(&lines);
        }
        let shares = lines.chunks(lines.len().div_ceil(SYNCERS));
        std::thread::scope(|scope| {
            let begin = |some| (some, scope.spawn(move || sync(some)));
            let syncers: Vec<_> = shares.map(begin).collect();
            let end = |(some, syncer): (_, ScopedJoinHandle<'_, _>)| {
                // What was not seen to be durable is not.
                syncer.join().unwrap_or_else(|_| all_failed(some))
            };
            syncers.into_iter().flat_map(end).collect()
        })
    }

    /// Closes a line whose disk failed. Nothing is said of it until it is open again.
    fn forget(&mut self, key: &Key, error: LogsError, round: &mut Round) {
        self.lines.remove(key);
        self.census.forget(&key.node);
        round.touched.remove(key);
        round.said.retain(|(line, ..)| line != key);
        round.done.failed.push((key.clone(), error));
    }
}

/// Returns a line, which is opened if it is not open. One that is not used yet has the number 0.
fn open<'a, D: Disk>(
    disk: &D,
    lines: &'a mut HashMap<Key, (Line<D>, u64)>,
    key: &Key,
) -> Result<&'a mut Line<D>, LogsError> {
    if !lines.contains_key(key) {
        let line = Line::open(disk, key)?;
        lines.insert(key.clone(), (line, 0));
    }
    let found = lines.get_mut(key).map(|(line, _)| line);
    found.ok_or_else(|| LogsError::Damaged { path: key.dir() })
}

fn all_failed<D: Disk>(lines: &[(&Key, &Line<D>)]) -> Vec<(Key, LogsError)> {
    let failed = |(key, _): &(&Key, &Line<D>)| {
        let error = failed("make durable", &key.dir())(io::Error::other("its thread ended"));
        ((*key).clone(), error)
    };
    lines.iter().map(failed).collect()
}

/// Returns every line there is.
///
/// # Errors
///
/// Fails when the directories cannot be listed.
pub fn lines<D: Disk>(disk: &D) -> Result<Vec<Key>, LogsError> {
    let mut found = Vec::new();
    for node in disk.list("").map_err(failed("list", ""))? {
        let Ok(name) = node.name.parse::<NodeName>() else {
            continue;
        };
        for domain in disk.list(&node.name).map_err(failed("list", &node.name))? {
            if let Ok(domain) = domain.name.parse() {
                found.push(Key {
                    node: name.clone(),
                    domain,
                });
            }
        }
    }
    Ok(found)
}

/// Tells whether the index of the newest segment knows all of it.
fn is_settled<D: Disk>(disk: &D, key: &Key) -> Result<bool, LogsError> {
    let dir = key.dir();
    let files = disk.list(&dir).map_err(failed("list", &dir))?;
    let newest = files
        .iter()
        .filter_map(|file| Some((Name::read(&file.name)?, file.bytes)))
        .max();
    let Some((name, bytes)) = newest else {
        return Ok(true);
    };
    let place = path(&dir, &name.index());
    let file = match disk.open(&place, Mode::Read) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(bytes == 0),
        Err(error) => return Err(failed("open", &place)(error)),
    };
    let text = read_from(disk, &file, 0, u64::MAX).map_err(failed("read", &place))?;
    // All of it, for a power cut may have left its end and taken what stood before.
    Ok(Index::read(&text, 0).end() == bytes)
}
