//! What became of files, told by listings only: everything that was written is read once and in its order, or its loss is
//! told.

use super::*;
use crate::syslog::input::files::book::{HEAD, TAIL};

mod cases;

/// A file of a file system that is none.
#[derive(Debug, Clone)]
struct Fake {
    path: PathBuf,
    key: Key,
    content: Vec<u8>,
    modified: i64,
}

/// A directory, an input that reads it, and what that has read.
struct World {
    files: Vec<Fake>,
    /// Files without a name that are open.
    unlinked: Vec<Fake>,
    time: i64,
    keys: u64,
    book: Book,
    wanted: &'static str,
    is_first: bool,
    /// Whether the input holds its files open.
    holds: bool,
    read: String,
    gaps: Vec<Reason>,
}

impl World {
    fn new(wanted: &'static str) -> Self {
        Self {
            files: Vec::new(),
            unlinked: Vec::new(),
            time: 1000,
            keys: 0,
            book: Book::default(),
            wanted,
            is_first: true,
            holds: true,
            read: String::new(),
            gaps: Vec::new(),
        }
    }

    fn path(name: &str) -> PathBuf {
        Path::new("/var/log").join(name)
    }

    fn at(&self, name: &str) -> usize {
        let path = Self::path(name);
        let found = self.files.iter().position(|file| file.path == path);
        found.unwrap_or_else(|| panic!("{name} is not there"))
    }

    fn add(&mut self, name: &str, content: &[u8]) {
        self.time += 1_000_000_000;
        self.keys += 1;
        self.files.push(Fake {
            path: Self::path(name),
            key: Key(1, self.keys),
            content: content.to_vec(),
            modified: self.time,
        });
    }

    fn write(&mut self, name: &str, text: &str) {
        if !self.files.iter().any(|file| file.path == Self::path(name)) {
            self.add(name, b"");
        }
        self.time += 1_000_000_000;
        let at = self.at(name);
        self.files[at].content.extend_from_slice(text.as_bytes());
        self.files[at].modified = self.time;
    }

    fn rename(&mut self, from: &str, to: &str) {
        self.files.retain(|file| file.path != Self::path(to));
        let at = self.at(from);
        self.files[at].path = Self::path(to);
    }

    fn delete(&mut self, name: &str) {
        let at = self.at(name);
        let gone = self.files.remove(at);
        self.unlinked.push(gone);
    }

    /// Packs a file as gzip does: another file with the time of the first.
    fn pack(&mut self, name: &str) {
        let at = self.at(name);
        let old = self.files[at].clone();
        self.add(&format!("{name}.gz"), &old.content);
        let last = self.files.len() - 1;
        self.files[last].modified = old.modified;
        self.delete(name);
    }

    fn copy(&mut self, from: &str, to: &str) {
        let content = self.files[self.at(from)].content.clone();
        self.files.retain(|file| file.path != Self::path(to));
        self.add(to, &content);
    }

    fn truncate(&mut self, name: &str) {
        self.time += 1_000_000_000;
        let at = self.at(name);
        self.files[at].content.clear();
        self.files[at].modified = self.time;
    }

    fn listing(&self) -> Listing {
        let pattern = glob::Pattern::new(self.wanted).expect("a pattern");
        let entry = |file: &Fake| {
            let name = file.path.file_name().expect("a name").to_string_lossy();
            Entry {
                path: file.path.clone(),
                key: file.key,
                size: file.content.len() as u64,
                modified: file.modified,
                is_wanted: pattern.matches(&name) && Packing::of(&name).0 == Packing::Plain,
            }
        };
        Listing {
            entries: self.files.iter().map(entry).collect(),
            ..Listing::default()
        }
    }

    /// Looks, and reads what there is, until nothing changes any more.
    fn look(&mut self) {
        for _ in 0..=SEARCHES {
            self.settle();
            self.take();
        }
    }

    fn settle(&mut self) -> Settled {
        let listing = self.listing();
        let unlinked: Vec<Key> = self.unlinked.iter().map(|file| file.key).collect();
        let (files, holds) = (self.files.clone(), self.holds);
        let mut probe = |entry: &Entry, question: Question| {
            let file = files.iter().find(|file| file.key == entry.key);
            let content = &file.expect("a file").content;
            match holds_in(content, question) {
                true => Sight::Same,
                false => Sight::Other,
            }
        };
        let mut print = |entry: &Entry| {
            let file = files.iter().find(|file| file.key == entry.key);
            let content = &file.expect("a file").content;
            Some(match content.is_empty() {
                true => Print::default(),
                false => Print::of(&content[..content.len().min(HEAD)]),
            })
        };
        let asked = Asked {
            first: std::mem::take(&mut self.is_first).then_some(Start::Beginning),
            is_held: &|key| holds && unlinked.contains(&key),
            probe: &mut probe,
            print: &mut print,
        };
        settle(&mut self.book, &listing, asked)
    }

    fn take(&mut self) {
        let all: Vec<Fake> = self.files.iter().chain(&self.unlinked).cloned().collect();
        for (name, log) in &mut self.book.logs {
            for part in &mut log.parts {
                if let Some(reason) = part.lost.filter(|_| !part.ended) {
                    self.gaps.push(reason);
                    part.ended = true;
                }
                if part.lost.is_some() {
                    continue;
                }
                if part.doubtful || part.replaced || part.sought > 0 {
                    break;
                }
                let Some(file) = all.iter().find(|file| file.key == part.key) else {
                    break;
                };
                let content = &file.content;
                let question = Question {
                    head: if part.read.offset == 0 {
                        part.head
                    } else {
                        Print::default()
                    },
                    mark: part.read,
                    is_whole: false,
                };
                if !holds_in(content, question) {
                    part.doubtful = true;
                    break;
                }
                let at = usize::try_from(part.read.offset).expect("it fits");
                self.read += &String::from_utf8_lossy(&content[at..]);
                part.head = Print::of(&content[..content.len().min(HEAD)]);
                part.read = Mark {
                    offset: content.len() as u64,
                    tail: Print::of(&content[content.len().saturating_sub(TAIL)..]),
                };
                part.done = part.read;
                part.ended = part.path != *name || part.unlinked;
            }
            log.parts.retain(|part| part.lost.is_none() || !part.ended);
        }
    }

    /// Begins anew with what was noted.
    fn restart(&mut self) {
        let book = std::mem::take(&mut self.book);
        self.unlinked.clear();
        for (name, log) in book.logs {
            let json = serde_json::to_string(&log).expect("it is noted");
            let log = serde_json::from_str(&json).expect("it is read");
            self.book.restore(name, log);
        }
    }
}

fn holds_in(content: &[u8], question: Question) -> bool {
    let Question {
        head,
        mark,
        is_whole,
    } = question;
    let offset = usize::try_from(mark.offset).expect("it fits");
    if content.len() < offset || content.len() < head.length() {
        return false;
    }
    let tail = &content[offset - mark.tail.length()..offset];
    (head.length() == 0 || Print::of(&content[..head.length()]) == head)
        && (mark.tail.length() == 0 || Print::of(tail) == mark.tail)
        && (!is_whole || content.len() == offset)
}

/// What happens, and what is read and told in the end.
type Row = (
    &'static str,
    &'static str,
    fn(&mut World),
    &'static str,
    &'static [Reason],
);
