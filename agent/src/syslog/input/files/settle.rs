//! Decides from a listing which file is which: which were renamed, packed, copied and truncated, deleted, and which are
//! new. It reads no files: what is in one, it asks.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, HashMap, HashSet},
    path::{Path, PathBuf},
};

use steward_protocol::logs::Reason;

use super::{
    book::{Book, HEAD, Key, Log, Mark, Packing, Part, Print, SLACK},
    kin::{Kin, kin, origins},
};
use crate::config::syslog::Start;

/// Most files of an input: what is noted of them stays below 4 MiB.
pub(super) const MAX_FILES: usize = 10_000;

/// How often a file is looked for before it is given up: a listing that is made while files are renamed may lack one.
pub(super) const SEARCHES: u8 = 4;

/// A file that was found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Entry {
    pub(super) path: PathBuf,
    pub(super) key: Key,
    pub(super) size: u64,
    pub(super) modified: i64,
    /// Whether it is one of those that are to be read; the others may be rotated ones of these.
    pub(super) is_wanted: bool,
}

/// The files there are.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) entries: Vec<Entry>,
    /// Directories that could not be listed, and why: what is in them is not gone.
    pub(super) unread: Vec<(PathBuf, String)>,
    /// The directories that were looked into.
    pub(super) dirs: Vec<PathBuf>,
    /// Whether some of those that are to be read have their content elsewhere.
    pub(super) has_links: bool,
    /// Whether there are more than are looked at.
    pub(super) is_cut: bool,
}

/// Whether a file is one that is known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Question {
    /// It begins so.
    pub(super) head: Print,
    /// And has this in front of this place.
    pub(super) mark: Mark,
    /// And ends there.
    pub(super) is_whole: bool,
}

/// The answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sight {
    /// It is.
    Same,
    /// It is not.
    Other,
    /// It cannot be read now.
    Unknown,
    /// Its name stands for another file since it was listed.
    Moved,
}

/// What is asked.
pub(super) struct Asked<'a> {
    /// Whether nothing was ever noted, and where reading begins then.
    pub(super) first: Option<Start>,
    /// Whether a file is open here.
    pub(super) is_held: &'a dyn Fn(Key) -> bool,
    /// Looks into a file.
    pub(super) probe: &'a mut dyn FnMut(&Entry, Question) -> Sight,
    /// Tells what a file begins with; nothing, if its name stands for another one since it was listed.
    pub(super) print: &'a mut dyn FnMut(&Entry) -> Option<Print>,
}

/// What came of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Settled {
    /// Whether to look again soon: something is looked for.
    pub(super) is_seeking: bool,
    /// Files that are not read for there are too many.
    pub(super) beyond: usize,
}

/// Files beside a log of which is remembered that they have nothing new.
const MAX_KNOWN: usize = 64;

/// Brings the book up to date with a listing.
pub(super) fn settle<'a>(book: &mut Book, listing: &'a Listing, asked: Asked<'a>) -> Settled {
    let mut work = Settling {
        by_key: (listing.entries.iter())
            .map(|entry| (entry.key, entry))
            .collect(),
        by_path: (listing.entries.iter())
            .map(|entry| (&*entry.path, entry))
            .collect(),
        claimed: HashSet::new(),
        families: None,
        is_curious: false,
        is_complete: listing.unread.is_empty() && !listing.is_cut,
        listing,
        asked,
    };
    let mut logs = std::mem::take(&mut book.logs);
    for log in logs.values_mut() {
        for part in &mut log.parts {
            work.locate(part);
        }
    }
    for (name, log) in &mut logs {
        work.search(name, log);
    }
    for (name, log) in &mut logs {
        work.renew(book, name, log);
        work.find_missed(book, name, log);
    }
    let room = MAX_FILES.saturating_sub(logs.values().map(|log| log.parts.len()).sum());
    let beyond = work.discover(book, &mut logs, room);
    for (name, log) in &mut logs {
        work.clear(name, log);
    }
    logs.retain(|name, log| !log.parts.is_empty() || work.by_path.contains_key(&**name));
    let mut parts = logs.values().flat_map(|log| &log.parts);
    let is_seeking = parts.any(|part| part.sought > 0 && part.lost.is_none()) || work.is_curious;
    book.logs = logs;
    Settled { is_seeking, beyond }
}

struct Settling<'a> {
    listing: &'a Listing,
    by_key: HashMap<Key, &'a Entry>,
    by_path: HashMap<&'a Path, &'a Entry>,
    /// Files that are known to be what they are.
    claimed: HashSet<Key>,
    /// Files by the names they may have had; made when it is needed.
    families: Option<HashMap<PathBuf, Vec<&'a Entry>>>,
    is_complete: bool,
    /// Whether something will be known at the next look.
    is_curious: bool,
    asked: Asked<'a>,
}

impl<'a> Settling<'a> {
    /// Finds a part where its file is now, whatever that is called.
    fn locate(&mut self, part: &mut Part) {
        if part.lost.is_some() || part.replaced {
            return;
        }
        // A file may have several names.
        let own = self.by_path.get(&*part.path);
        let own = own.filter(|entry| entry.key == part.key);
        let Some(entry) = own.or_else(|| self.by_key.get(&part.key)) else {
            part.unlinked = !part.doubtful && (self.asked.is_held)(part.key);
            return;
        };
        part.unlinked = false;
        let is_plain = part.packing == Packing::Plain;
        let is_short = is_plain && entry.size < part.read.offset;
        // Of what was not read only the beginning can tell.
        let is_unread = part.read.offset == 0 && part.head.length() > 0;
        let sight = match part.doubtful || is_short || is_unread {
            true => (self.asked.probe)(entry, question(part)),
            false => Sight::Same,
        };
        match sight {
            Sight::Same => {
                self.claimed.insert(entry.key);
                part.doubtful = false;
                place(part, entry);
                if part.read.offset == 0 && part.head.length() < HEAD {
                    part.head = (self.asked.print)(entry).unwrap_or(part.head);
                }
            }
            Sight::Other => {
                part.replaced = true;
                part.doubtful = false;
            }
            // It stays what it was, and is not read.
            Sight::Unknown | Sight::Moved => {
                self.is_curious |= sight == Sight::Moved;
                self.claimed.insert(entry.key);
                part.doubtful = true;
            }
        }
    }

    /// Looks for what a part was copied or packed into.
    fn search(&mut self, name: &Path, log: &mut Log) {
        for index in 0..log.parts.len() {
            let part = &mut log.parts[index];
            let is_there = !part.replaced && (part.unlinked || self.by_key.contains_key(&part.key));
            if part.lost.is_some() || is_there {
                part.sought = 0;
                continue;
            }
            if part.ended || (part.size == 0 && part.read.offset == 0) {
                part.ended = true;
                continue;
            }
            log.turned = true;
            if let Some(copy) = self.copy_of(name, part) {
                self.claimed.insert(copy.key);
                part.key = copy.key;
                part.replaced = false;
                part.doubtful = false;
                part.unlinked = false;
                part.sought = 0;
                place(part, &copy);
            } else if self.is_complete {
                part.sought = part.sought.saturating_add(1);
                if part.sought >= SEARCHES {
                    let part = part.clone();
                    self.ignore_older(name, log, &part);
                    let part = &mut log.parts[index];
                    // Its number may have been given to a file of another name.
                    let own = self.by_path.get(name);
                    let is_own = own.is_some_and(|entry| entry.key == part.key);
                    part.lost = Some(match part.replaced && is_own {
                        true => Reason::SourceTruncated,
                        false => Reason::SourceVanished,
                    });
                }
            }
        }
    }

    /// A copy that has less of a part than was read of it has nothing new.
    fn ignore_older(&mut self, name: &Path, log: &mut Log, part: &Part) {
        for entry in self.kin_of(name) {
            let is_older = entry.size < part.read.offset && part.head.length() > 0;
            if is_older && (self.asked.probe)(entry, beginning(part)) == Sight::Same {
                know(log, entry);
            }
        }
    }

    fn copy_of(&mut self, name: &Path, part: &Part) -> Option<Entry> {
        if part.head.length() == 0 {
            return None;
        }
        let mut candidates: Vec<(Kin, i64, &Entry)> = self
            .kin_of(name)
            .into_iter()
            .filter(|entry| !self.claimed.contains(&entry.key))
            .map(|entry| (kin(name, &entry.path), entry.modified, entry))
            .filter(|(kin, ..)| *kin != Kin::None)
            .collect();
        // What rotation has named, and the newest of them, first.
        candidates.sort_by_key(|(kin, modified, _)| std::cmp::Reverse((*kin, *modified)));
        let is_it = |entry: &&Entry| (self.asked.probe)(entry, question(part)) == Sight::Same;
        let mut entries = candidates.into_iter().map(|(.., entry)| entry);
        entries.find(is_it).cloned()
    }

    /// Returns the files that may be rotated ones or copies of a log.
    fn kin_of(&mut self, name: &Path) -> Vec<&'a Entry> {
        let entries = &self.listing.entries;
        let families = self.families.get_or_insert_with(|| {
            let mut families = HashMap::<PathBuf, Vec<&Entry>>::new();
            for entry in entries {
                for origin in origins(&entry.path) {
                    families.entry(origin).or_default().push(entry);
                }
            }
            families
        });
        families.get(name).cloned().unwrap_or_default()
    }

    /// Adds the file that has the name now.
    fn renew(&mut self, book: &mut Book, name: &Path, log: &mut Log) {
        let Some(entry) = self.by_path.get(name) else {
            return;
        };
        if !entry.is_wanted || !self.claimed.insert(entry.key) {
            return;
        }
        log.turned |= !log.parts.is_empty() || !log.past.is_empty();
        log.parts.extend(self.part(book, entry));
    }

    /// Adds the files that had the name for a while, and were never seen then.
    fn find_missed(&mut self, book: &mut Book, name: &Path, log: &mut Log) {
        let is_seeking = |part: &Part| part.sought > 0 && part.lost.is_none();
        if log.parts.iter().any(is_seeking) {
            return;
        }
        let mut missed: Vec<&Entry> = self.kin_of(name);
        missed.retain(|entry| {
            let is_recent = entry.size > 0 && entry.modified >= log.seen.saturating_sub(SLACK);
            // One that is wanted for itself is found as such, unless it was behind this name.
            is_recent
                && (log.turned || !entry.is_wanted)
                && !self.claimed.contains(&entry.key)
                && !log.known.contains(&state(entry))
                && kin(name, &entry.path) == Kin::Rotated
                && !self.is_being_packed(entry)
        });
        missed.retain(|entry| self.is_news(log, entry));
        missed.sort_by_key(|entry| entry.modified);
        let is_live = |part: &Part| part.path == name && !part.replaced;
        let at = log.parts.len() - usize::from(log.parts.back().is_some_and(is_live));
        let missed: Vec<Part> = (missed.into_iter())
            .filter_map(|entry| self.part(book, entry))
            .collect();
        for (index, mut part) in missed.into_iter().enumerate() {
            self.claimed.insert(part.key);
            if part.packing == Packing::Strange {
                part.lost = Some(Reason::SourceVanished);
                // It is told once.
                log.known.insert((part.key, part.size, part.modified));
            }
            log.parts.insert(at + index, part);
        }
        // What has moved since it was listed is found the next time.
        log.turned = self.is_curious;
    }

    /// Tells whether a file has what none of the log's files has or had.
    fn is_news(&mut self, log: &mut Log, entry: &Entry) -> bool {
        let Some(begin) = (self.asked.print)(entry) else {
            self.is_curious = true;
            return false;
        };
        // Few of them are looked into: there may be many, and packed ones take long.
        let may_be = |head: Print| match head.length().cmp(&begin.length()) {
            Ordering::Less => true,
            Ordering::Equal => head == begin,
            Ordering::Greater => false,
        };
        let past = log.past.iter().map(|past| (past.head, past.end, true));
        let parts = log.parts.iter().filter(|part| part.head.length() > 0);
        // A part that is read on may be about to be truncated; then reading goes on in its copy.
        let parts = parts.map(|part| (part.head, part.read, part.ended));
        for (head, mark, is_whole) in past.chain(parts).filter(|(head, ..)| may_be(*head)) {
            let question = Question {
                head,
                mark,
                is_whole,
            };
            match (self.asked.probe)(entry, question) {
                Sight::Same if is_whole => {
                    know(log, entry);
                    return false;
                }
                Sight::Same => return false,
                Sight::Moved => {
                    self.is_curious = true;
                    return false;
                }
                Sight::Other | Sight::Unknown => {}
            }
        }
        !self.is_being_copied(log, entry)
    }

    /// Tells whether a file may be the copy of one that is read, and not be complete.
    fn is_being_copied(&mut self, log: &mut Log, entry: &Entry) -> bool {
        let size = entry.size;
        let mut is_tiny = false;
        for part in log
            .parts
            .iter()
            .filter(|part| !part.ended && size < part.read.offset)
        {
            is_tiny |= size < part.head.length() as u64;
            if (self.asked.probe)(entry, beginning(part)) == Sight::Same {
                return true;
            }
        }
        // It has too little to tell: it is not, if it is the same the next time.
        let is_young = is_tiny && log.young.insert(state(entry));
        self.is_curious |= is_young;
        is_young
    }

    /// Returns a part that is to be read from its beginning; nothing, if it is elsewhere since it was listed.
    fn part(&mut self, book: &mut Book, entry: &Entry) -> Option<Part> {
        let Some(head) = (self.asked.print)(entry) else {
            self.is_curious = true;
            return None;
        };
        let mut part = book.part(entry.key, &entry.path);
        place(&mut part, entry);
        part.head = head;
        Some(part)
    }

    /// Tells whether what it is packed from is still there.
    fn is_being_packed(&self, entry: &Entry) -> bool {
        let path = entry.path.to_string_lossy();
        let (packing, plain) = Packing::of(&path);
        packing != Packing::Plain && self.by_path.contains_key(Path::new(plain))
    }

    /// Begins with files that nothing is known of, and returns how many there was no room for.
    fn discover(
        &mut self,
        book: &mut Book,
        logs: &mut BTreeMap<PathBuf, Log>,
        mut room: usize,
    ) -> usize {
        let mut beyond = 0;
        for entry in &self.listing.entries {
            let is_new = entry.is_wanted
                && !self.claimed.contains(&entry.key)
                && !logs.contains_key(&entry.path);
            if !is_new || self.is_copy(logs, entry) {
                continue;
            }
            if room == 0 {
                beyond += 1;
                continue;
            }
            self.claimed.insert(entry.key);
            let Some(mut part) = self.part(book, entry) else {
                continue;
            };
            room -= 1;
            if self.asked.first == Some(Start::End) {
                part.read.offset = entry.size;
                part.done = part.read;
            }
            let mut log = Log {
                seen: part.modified,
                newest: part.modified,
                parts: [part].into(),
                ..Log::default()
            };
            if self.asked.first.is_some() {
                // What was rotated before the first start is nothing that was missed.
                for entry in self.kin_of(&entry.path) {
                    know(&mut log, entry);
                }
            } else {
                self.find_missed(book, &entry.path, &mut log);
            }
            logs.insert(entry.path.clone(), log);
        }
        beyond
    }

    /// Tells whether a file is the copy of one that is read: if that one is truncated, reading goes on in the copy.
    fn is_copy(&mut self, logs: &mut BTreeMap<PathBuf, Log>, entry: &Entry) -> bool {
        for name in origins(&entry.path) {
            let Some(log) = logs.get_mut(&name) else {
                continue;
            };
            if kin(&name, &entry.path) == Kin::None {
                continue;
            }
            let mut parts = log.parts.iter().filter(|part| part.head.length() > 0);
            let is_it = |part: &Part| {
                let is_older = entry.size < part.read.offset;
                let asked = if is_older {
                    beginning(part)
                } else {
                    question(part)
                };
                (self.asked.probe)(entry, asked) == Sight::Same
            };
            if log.known.contains(&state(entry)) || parts.any(is_it) {
                know(log, entry);
                return true;
            }
        }
        false
    }

    /// Forgets parts that were read to their end, if nothing depends on knowing them.
    fn clear(&self, name: &Path, log: &mut Log) {
        let is_left = |part: &Part| part.ended && part.read.offset == part.done.offset;
        let newest = log
            .parts
            .iter()
            .rev()
            .find(|part| is_left(part))
            .map(|part| part.id);
        let mut gone = Vec::new();
        log.parts.retain(|part| {
            let entry = self.by_key.get(&part.key).filter(|_| !part.replaced);
            let is_known = entry.is_some_and(|entry| entry.is_wanted) || newest == Some(part.id);
            let stays = !is_left(part) || (entry.is_some() && is_known);
            if !stays {
                gone.push(part.clone());
            }
            stays
        });
        for part in gone {
            log.leave(&part);
        }
        if !log.turned {
            log.seen = log.seen.max(log.newest);
            let modified = log.parts.iter().map(|part| part.modified).max();
            log.newest = log.newest.max(modified.unwrap_or(i64::MIN));
        }
        log.young.retain(|(key, ..)| self.by_key.contains_key(key));
        // A part with the name has not been left.
        for part in &mut log.parts {
            part.ended &= part.path != name || part.replaced || part.unlinked;
        }
    }
}

fn question(part: &Part) -> Question {
    Question {
        head: part.head,
        mark: part.read,
        is_whole: false,
    }
}

fn beginning(part: &Part) -> Question {
    Question {
        head: part.head,
        mark: Mark::default(),
        is_whole: false,
    }
}

/// Returns what tells a file from others, and from itself when it was written to.
fn state(entry: &Entry) -> (Key, u64, i64) {
    (entry.key, entry.size, entry.modified)
}

fn know(log: &mut Log, entry: &Entry) {
    if log.known.len() >= MAX_KNOWN {
        log.known.clear();
    }
    log.known.insert(state(entry));
}

fn place(part: &mut Part, entry: &Entry) {
    let is_same_size = entry.size == part.read.offset && entry.size > 0;
    part.touched |= is_same_size && entry.modified != part.modified;
    if part.path != entry.path {
        part.path.clone_from(&entry.path);
        part.packing = Packing::of(&entry.path.to_string_lossy()).0;
    }
    part.modified = entry.modified;
    part.size = entry.size;
}

#[cfg(test)]
mod tests;
