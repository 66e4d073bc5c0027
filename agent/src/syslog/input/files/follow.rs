//! Reads files: takes what a log has next, in its order, and makes portions of it. Blocks; it knows no spool, and waits
//! for nothing.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque},
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use regex::bytes::Regex;
use steward_protocol::logs::{Gap, Micros, Reason};

use super::super::seen::{Seen, source};
use super::{
    book::{Book, Key, Mark, Packing, Part, TAIL},
    handle::{Chunk, Desk, Handle, READ},
    lines::{Behind, Cutter},
    list::{self, Patterns},
    look,
    note::Found,
    settle::{Asked, Entry, Listing, Settled, settle},
};
use crate::{
    config::syslog::{Files, Input, Start},
    syslog::{feed, input::gather, spool::Portion},
};

mod again;

/// Most files of an input that are open: those that were read last. Others are opened when they are written to.
pub(crate) const MAX_OPEN: usize = 256;

/// How long the end of a rotated file that is no whole line may still be completed, while nothing else is written.
const LAST_LINE: Duration = Duration::from_secs(5);

/// How long a file without a name is read on after it has last grown: its space is not free before.
const UNLINKED: Duration = Duration::from_secs(60);

/// How often files are listed again at the very first, until two listings agree.
const LISTINGS: usize = 10;

/// Buffers that one turn reads when nothing comes of them, as of a line that never ends.
const CHUNKS: usize = 64;

/// What was read with one turn.
#[derive(Debug)]
pub(super) struct Turn {
    pub(super) portion: Portion,
    pub(super) flight: Flight,
}

/// What is true once a portion is durable.
#[derive(Debug)]
pub(super) struct Flight {
    pub(super) log: PathBuf,
    pub(super) part: u64,
    /// How far the part is read; nothing, if it is given up.
    mark: Option<Mark>,
    stamp: Micros,
    /// Whether all was met by then that the spool had of the log.
    is_clear: bool,
    /// How many bytes of the file that were.
    pub(super) bytes: u64,
}

/// What came of reading a part.
enum Got {
    Turn(Turn),
    /// It is at its end for now.
    End,
    /// It is not, and nothing behind it is to be read before it is.
    Rest,
}

/// What is read of the files of one input.
pub(super) struct Follower {
    pub(super) book: Book,
    patterns: Patterns,
    cutter: Cutter,
    pause: Duration,
    first: Option<Start>,
    /// Whether there was a listing.
    is_listed: bool,
    /// How many there were, one after the other, in which nothing was looked for.
    settled: u8,
    handles: HashMap<u64, Handle>,
    /// Logs that have something to be read, in their turn.
    queue: VecDeque<PathBuf>,
    queued: HashSet<PathBuf>,
    /// Where a path is in the book.
    paths: HashMap<PathBuf, (PathBuf, u64)>,
    /// Logs of which something waits for its time.
    waiting: BTreeSet<PathBuf>,
    buffer: Vec<u8>,
    seen: Seen,
    reread: u64,
    /// When the last portion was received.
    stamp: Micros,
    clock: fn() -> Micros,
    turns: u64,
    /// Whether a file was not what it was.
    pub(super) is_doubtful: bool,
    /// What the last listing lacked.
    lacking: Option<String>,
    /// Files that cannot be read, and why.
    failing: BTreeMap<PathBuf, String>,
}

impl Follower {
    /// Begins where the notes say.
    pub(super) fn new(input: &Input, files: &Files, noted: (Book, Found), seen: Seen) -> Self {
        let (book, found) = noted;
        Self {
            // However the clock stands: what comes now is later than what the spool has.
            stamp: book.stamp.max(seen.newest()),
            book,
            patterns: Patterns::new(files),
            cutter: Cutter {
                keep: input.max_message,
                // It was compiled before.
                first: files
                    .multiline
                    .as_ref()
                    .and_then(|text| Regex::new(text).ok()),
                room: READ,
            },
            pause: files.pause,
            first: (found == Found::Nothing).then_some(files.from),
            is_listed: false,
            settled: 0,
            handles: HashMap::new(),
            queue: VecDeque::new(),
            queued: HashSet::new(),
            paths: HashMap::new(),
            waiting: BTreeSet::new(),
            buffer: Vec::new(),
            seen,
            reread: 0,
            clock: feed::now,
            turns: 0,
            is_doubtful: false,
            lacking: None,
            failing: BTreeMap::new(),
        }
    }

    /// Looks at everything there is, and returns what was listed.
    pub(super) fn scan(&mut self) -> (Listing, Settled) {
        self.is_doubtful = false;
        self.look_at_open();
        let listing = self.list();
        let held: HashSet<Key> = self.handles.values().map(|handle| handle.key).collect();
        let asked = Asked {
            first: self.first.take(),
            is_held: &|key| held.contains(&key),
            probe: &mut look::probe,
            print: &mut look::print,
        };
        let settled = settle(&mut self.book, &listing, asked);
        self.lacking = trouble(&listing, settled.beyond);
        self.failing.retain(|path, _| path.exists());
        self.know_new();
        self.settled = match settled.is_seeking || !listing.unread.is_empty() {
            true => 0,
            false => self.settled.saturating_add(1),
        };
        self.paths.clear();
        let mut known = HashMap::new();
        for (name, log) in &self.book.logs {
            for part in &log.parts {
                known.insert(part.id, part.key);
                self.paths
                    .insert(part.path.clone(), (name.clone(), part.id));
            }
        }
        // One whose part is another file by now, as a copy, is of no use.
        self.handles
            .retain(|id, handle| known.get(id) == Some(&handle.key));
        self.queue_all();
        (listing, settled)
    }

    /// Lists what there is: the first time until two listings agree. One that is made while files are renamed may lack one,
    /// and as long as nothing is known, nobody would miss it.
    fn list(&self) -> Listing {
        let mut listing = self.patterns.list();
        if self.first.is_some() {
            for _ in 0..LISTINGS {
                let before = std::mem::replace(&mut listing, self.patterns.list());
                if names(&before).eq(names(&listing)) {
                    break;
                }
            }
        }
        listing
    }

    /// Takes note of files that were written to.
    pub(super) fn touch<'a>(&mut self, paths: impl Iterator<Item = &'a PathBuf>) {
        for path in paths {
            let Some((name, id)) = self.paths.get(path) else {
                continue;
            };
            let (name, id) = (name.clone(), *id);
            let Ok(found) = std::fs::metadata(path) else {
                self.is_doubtful = true;
                continue;
            };
            if let Some(part) = self.book.find(&name, id) {
                if part.key != list::key(&found) || found.len() < part.read.offset {
                    self.is_doubtful = true;
                    continue;
                }
                let modified = list::modified(&found);
                part.touched |= found.len() == part.read.offset && modified != part.modified;
                part.size = found.len();
                part.modified = modified;
                if part.head.length() == 0 {
                    // By what it is found again, wherever it is when it is read.
                    let entry = Entry {
                        path: path.clone(),
                        key: part.key,
                        size: part.size,
                        modified,
                        is_wanted: true,
                    };
                    part.head = look::print(&entry).unwrap_or_default();
                }
            }
            self.queue(name);
        }
    }

    /// Takes note of the time: what has waited long enough is looked at.
    pub(super) fn tick(&mut self) {
        for name in std::mem::take(&mut self.waiting) {
            self.queue(name);
        }
        if self.queue.is_empty() {
            self.buffer = Vec::new();
        }
    }

    /// Reads what is next; nothing, if there is nothing to be read.
    pub(super) fn turn(&mut self) -> Option<Turn> {
        while let Some(name) = self.queue.pop_front() {
            self.queued.remove(&name);
            if let Some(turn) = self.step(&name) {
                // There may be more.
                self.queue(name);
                return Some(turn);
            }
        }
        None
    }

    /// What the spool has of comes first: it takes no room there, and delivery waits for it.
    fn queue(&mut self, name: PathBuf) {
        let is_unmet = !self.seen.is_empty() && self.seen.has(&source(&name));
        if !self.queued.insert(name.clone()) {
            return;
        }
        match is_unmet {
            true => self.queue.push_front(name),
            false => self.queue.push_back(name),
        }
    }

    fn queue_all(&mut self) {
        let logs = self.book.logs.iter();
        let due: Vec<PathBuf> = logs
            .filter(|(name, log)| log.parts.iter().any(|part| is_due(name, part)))
            .map(|(name, _)| name.clone())
            .collect();
        for name in due {
            self.queue(name);
        }
    }

    /// Looks at files that are open, also at those without a name.
    fn look_at_open(&mut self) {
        for log in self.book.logs.values_mut() {
            for part in &mut log.parts {
                let size = self.handles.get(&part.id).and_then(Handle::size);
                if let Some(size) = size.filter(|size| *size > part.read.offset) {
                    part.size = size;
                    part.ended = false;
                }
            }
        }
    }

    /// Takes the parts of a log in their order; the next only when the one before is at its end.
    fn step(&mut self, name: &Path) -> Option<Turn> {
        let parts = self.book.logs.get(name)?.parts.len();
        for index in 0..parts {
            let part = &self.book.logs.get(name)?.parts[index];
            if part.lost.is_some() {
                match part.ended {
                    true => continue,
                    false => return self.mourn(name, index),
                }
            }
            if part.doubtful || part.replaced || part.sought > 0 {
                return None;
            }
            if !is_due(name, part) {
                continue;
            }
            let path = part.path.clone();
            let got = self.read(name, index);
            if got.is_ok() {
                self.failing.remove(&path);
            }
            match got {
                Ok(Got::Turn(turn)) => return Some(turn),
                Ok(Got::End) => {}
                Ok(Got::Rest) => return None,
                Err(error) => {
                    self.failed(name, index, &error);
                    return None;
                }
            }
        }
        None
    }

    /// Says that a part cannot be read to its end.
    fn mourn(&mut self, name: &Path, index: usize) -> Option<Turn> {
        let mut portion = self.portion(name);
        let part = self.book.logs.get_mut(name)?.parts.get_mut(index)?;
        // It is said once.
        part.ended = true;
        let reason = part.lost.unwrap_or(Reason::SourceVanished);
        let what = match reason {
            Reason::SourceTruncated => "was truncated, and no copy of it found",
            _ => "was not read to its end, and cannot be any more",
        };
        let (path, read) = (part.path.display(), part.read.offset);
        tracing::warn!(file = %path, read, "a log file {what}");
        let detail = format!("{path} {what}; read up to byte {read}");
        portion
            .gaps
            .push(Gap::new(None, reason).with_detail(detail));
        Some(Turn {
            flight: Flight {
                log: name.to_owned(),
                part: part.id,
                mark: None,
                stamp: portion.received,
                is_clear: !self.seen.has(&portion.source),
                bytes: 0,
            },
            portion,
        })
    }

    /// Reads what a part has next.
    fn read(&mut self, name: &Path, index: usize) -> io::Result<Got> {
        self.open(name, index)?;
        self.buffer.resize(READ + TAIL, 0);
        let mut portion = self.portion(name);
        let Some(log) = self.book.logs.get_mut(name) else {
            return Ok(Got::Rest);
        };
        let has_followers = log.parts.iter().skip(index + 1).any(|next| next.size > 0);
        let part = &mut log.parts[index];
        let is_left = part.path != name || part.unlinked;
        let Some(handle) = self.handles.get_mut(&part.id) else {
            return Ok(Got::Rest);
        };
        let pause = self.pause;
        let behind = |quiet: Duration| match is_left && (has_followers || quiet >= LAST_LINE) {
            true => Behind::Nothing,
            false if quiet >= pause => Behind::Quiet,
            false => Behind::Open,
        };
        handle.turn = self.turns;
        part.touched = false;
        let before = part.read.offset;
        let mut got = Got::Rest;
        for _ in 0..CHUNKS {
            let desk = Desk {
                buffer: &mut self.buffer,
                cutter: &self.cutter,
            };
            let chunk = handle.read(part, desk, behind, |message, length| {
                let length = usize::try_from(length).unwrap_or(usize::MAX);
                gather::add_message(&mut portion, message, length);
            })?;
            match chunk {
                Chunk::More if portion.messages.is_empty() => continue,
                Chunk::More => {}
                Chunk::End { held } => {
                    let is_over = !part.unlinked || handle.quiet() >= UNLINKED;
                    part.ended = is_left && held == 0 && is_over;
                    let waits = match held {
                        0 => is_left && !is_over,
                        _ => is_left || self.cutter.first.is_some(),
                    };
                    if waits {
                        self.waiting.insert(name.to_owned());
                    }
                    if held == 0 || !is_left {
                        got = Got::End;
                    }
                }
                Chunk::Changed => {
                    part.doubtful = true;
                    self.is_doubtful = true;
                }
            }
            break;
        }
        let bytes = part.read.offset.saturating_sub(before);
        if bytes == 0 {
            if handle.is_within_a_line() {
                self.waiting.insert(name.to_owned());
            }
            return Ok(got);
        }
        let (part, mark) = (part.id, Some(part.read));
        Ok(self.turned(name, (part, mark, bytes), portion))
    }

    /// Returns what was read up to a place, without what the spool has already.
    fn turned(
        &mut self,
        name: &Path,
        (part, mark, bytes): (u64, Option<Mark>, u64),
        mut portion: Portion,
    ) -> Got {
        self.skip_seen(&mut portion, bytes);
        let flight = Flight {
            log: name.to_owned(),
            part,
            mark,
            stamp: portion.received,
            is_clear: !self.seen.has(&portion.source),
            bytes,
        };
        Got::Turn(Turn { portion, flight })
    }

    fn open(&mut self, name: &Path, index: usize) -> io::Result<()> {
        self.turns += 1;
        let part = &self.book.logs[name].parts[index];
        if self.handles.contains_key(&part.id) {
            return Ok(());
        }
        if self.handles.len() >= MAX_OPEN {
            let oldest = self.handles.iter().min_by_key(|(_, handle)| handle.turn);
            if let Some(oldest) = oldest.map(|(id, _)| *id) {
                self.handles.remove(&oldest);
            }
        }
        self.handles.insert(part.id, Handle::open(part)?);
        Ok(())
    }

    /// What cannot be read is looked at again; what never can is lost.
    fn failed(&mut self, name: &Path, index: usize, error: &io::Error) {
        let Some(log) = self.book.logs.get_mut(name) else {
            return;
        };
        let part = &mut log.parts[index];
        self.handles.remove(&part.id);
        if part.packing != Packing::Plain && error.kind() != io::ErrorKind::NotFound {
            tracing::warn!(file = %part.path.display(), %error, "a packed log file cannot be read");
            part.lost = Some(Reason::SourceVanished);
            // It is told once.
            let told = (part.key, part.size, part.modified);
            log.known.insert(told);
            self.queue(name.to_owned());
            return;
        }
        if error.kind() == io::ErrorKind::NotFound {
            self.is_doubtful = true;
            return;
        }
        let problem = format!("read {}: {error}", part.path.display());
        if self.failing.insert(part.path.clone(), problem).is_none() {
            tracing::warn!(file = %part.path.display(), %error, "a log file cannot be read");
        }
    }

    /// Returns what is not read, and why.
    pub(super) fn trouble(&self) -> Option<String> {
        let failing = self.failing.values().next();
        self.lacking.as_ref().or(failing).cloned()
    }

    /// Tells whether there is nothing to be read.
    pub(super) fn is_idle(&self) -> bool {
        self.queue.is_empty()
    }

    /// Returns an empty portion with a time of its own.
    fn portion(&mut self, name: &Path) -> Portion {
        self.stamp = (self.clock)().max(Micros(self.stamp.0 + 1));
        Portion::new(source(name).into(), self.stamp)
    }
}

/// Tells whether there is something to be read of a part, or to be found out.
fn is_due(name: &Path, part: &Part) -> bool {
    let is_plain = part.packing == Packing::Plain;
    let has_more = is_plain && (part.size > part.read.offset || part.touched);
    has_more || (!part.ended && (part.path != name || part.unlinked || part.lost.is_some()))
}

fn names(listing: &Listing) -> impl Iterator<Item = (&Path, Key)> {
    let entries = listing.entries.iter();
    entries.map(|entry| (entry.path.as_path(), entry.key))
}

fn trouble(listing: &Listing, beyond: usize) -> Option<String> {
    if beyond > 0 {
        let most = super::settle::MAX_FILES;
        return Some(format!(
            "{beyond} files are not read: an input reads at most {most}"
        ));
    }
    if listing.is_cut {
        return Some("there are more files and directories than are looked at".to_owned());
    }
    let (dir, problem) = listing.unread.first()?;
    Some(format!("list {}: {problem}", dir.display()))
}

#[cfg(test)]
mod once;
#[cfg(test)]
mod tests;
