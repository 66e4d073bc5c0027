//! What became of files, told by listings only: everything that was written is read once and in its order, or its loss is
//! told.

use super::*;
use crate::syslog::input::files::book::{HEAD, TAIL};

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

#[test]
fn whatever_becomes_of_files_all_of_them_is_read_once_and_in_order_or_its_loss_is_told() {
    const NONE: &[Reason] = &[];
    let rows: &[Row] = &[
        (
            "a file that grows",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "rename and create",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "3 ");
                world.look();
                // Its program has not left it yet.
                world.write("a.log.1", "late ");
                world.look();
            },
            "1 2 3 late ",
            NONE,
        ),
        (
            "renamed twice between two looks",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "3 ");
                world.rename("a.log.1", "a.log.2");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "4 ");
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "a week without the agent, packed",
            "*.log",
            |world| {
                world.write("a.log.3", "old ");
                world.pack("a.log.3");
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.pack("a.log.1");
                world.rename("a.log.1.gz", "a.log.2.gz");
                world.write("a.log", "3 ");
                world.rename("a.log", "a.log.1");
                world.write("a.log", "4 ");
                world.restart();
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "dated names without the agent",
            "a.log",
            |world| {
                world.write("a-20261119.log", "old ");
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a-20261120.log");
                world.write("a-20261121.log", "2 ");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "packed while it is read, after its end",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.look();
                world.pack("a.log.1");
                world.look();
                world.write("a.log", "2 ");
                world.look();
                world.restart();
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "packed before it was read to its end",
            "*.log",
            |world| {
                world.holds = false;
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.rename("a.log", "a.log.1");
                world.pack("a.log.1");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "copied and truncated",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log.1");
                world.look();
                world.write("a.log", "3 ");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "4 ");
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "copied and truncated, and longer at once than before",
            "*.log",
            |world| {
                world.write("a.log", "one ");
                world.look();
                world.write("a.log", "two ");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "three four five ");
                world.look();
            },
            "one two three four five ",
            NONE,
        ),
        (
            "copied and truncated without the agent, twice",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "3 ");
                world.rename("a.log.1", "a.log.2");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "4 ");
                world.pack("a.log.2");
                world.restart();
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "copies that the pattern stands for",
            "a.log*",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log.1");
                world.look();
                world.write("a.log", "3 ");
                world.look();
                world.rename("a.log.1", "a.log.2");
                world.copy("a.log", "a.log.1");
                world.truncate("a.log");
                world.write("a.log", "4 ");
                world.look();
            },
            "1 2 3 4 ",
            NONE,
        ),
        (
            "renamed ones that the pattern stands for",
            "a.log*",
            |world| {
                world.write("a.log.1", "0 ");
                world.write("a.log", "1 ");
                world.look();
                world.read.clear();
                for number in 2..6 {
                    for old in (1..=number - 1).rev() {
                        world.rename(&format!("a.log.{old}"), &format!("a.log.{}", old + 1));
                    }
                    world.rename("a.log", "a.log.1");
                    world.write("a.log", &format!("{number} "));
                    world.look();
                    world.restart();
                    world.look();
                }
            },
            "2 3 4 5 ",
            NONE,
        ),
        (
            "truncated again before anything of it was read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.copy("a.log", "a.log-20261101");
                world.truncate("a.log");
                world.write("a.log", "2 ");
                world.settle();
                world.copy("a.log", "a.log-20261102");
                world.truncate("a.log");
                world.write("a.log", "3, longer ");
                world.look();
            },
            "1 2 3, longer ",
            NONE,
        ),
        (
            "found empty, written, copied and truncated before the next look",
            "*.log",
            |world| {
                world.write("a.log", "");
                world.look();
                world.write("a.log", "1 ");
                world.copy("a.log", "a.log-20261101");
                world.truncate("a.log");
                world.write("a.log", "2 ");
                world.copy("a.log", "a.log-20261102");
                world.truncate("a.log");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "packed before anything of it was read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.write("a.log", "2 ");
                world.settle();
                world.rename("a.log.1", "a.log.2");
                world.rename("a.log", "a.log.1");
                world.pack("a.log.1");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "another worker's log",
            "worker.log",
            |world| {
                world.write("worker.log", "1 ");
                world.write("worker-1.log", "other ");
                world.look();
                world.rename("worker.log", "worker.log.1");
                world.write("worker-1.log", "other ");
                world.write("worker.log", "2 ");
                world.write("worker-1.log", "other ");
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "truncated without a copy",
            "*.log",
            |world| {
                world.write("a.log", "one ");
                world.look();
                world.truncate("a.log");
                world.write("a.log", "2 ");
                world.look();
            },
            "one 2 ",
            &[Reason::SourceTruncated],
        ),
        (
            "deleted while it is open",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.delete("a.log");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "deleted without the agent",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                world.delete("a.log");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
                world.look();
            },
            "1 3 ",
            &[Reason::SourceVanished],
        ),
        (
            "deleted without the agent after it was rotated and read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.write("a.log", "2 ");
                world.look();
                world.delete("a.log.1");
                world.restart();
                world.look();
            },
            "1 2 ",
            NONE,
        ),
        (
            "a number of an inode that is used again",
            "*.log",
            |world| {
                world.write("a.log", "first ");
                world.look();
                let key = world.files[0].key;
                world.files.clear();
                world.write("b.log", "second, and longer ");
                world.files[0].key = key;
                world.restart();
                world.look();
            },
            "first second, and longer ",
            &[Reason::SourceVanished],
        ),
        (
            "files that begin alike",
            "*.log",
            |world| {
                world.write("a.log", "# banner\n");
                world.look();
                world.write("b.log", "# banner\n");
                world.write("b.log", "b ");
                world.write("a.log", "a ");
                world.look();
            },
            "# banner\na # banner\nb ",
            NONE,
        ),
        (
            "a listing that lacks a file for a moment",
            "*.log",
            |world| {
                world.holds = false;
                world.write("a.log", "1 ");
                world.look();
                world.write("a.log", "2 ");
                let moved = world.files.remove(0);
                assert!(world.settle().is_seeking);
                world.take();
                world.files.push(moved);
                world.rename("a.log", "a.log.1");
                world.write("a.log", "3 ");
                world.look();
            },
            "1 2 3 ",
            NONE,
        ),
        (
            "packed in a way that is not read",
            "*.log",
            |world| {
                world.write("a.log", "1 ");
                world.look();
                world.rename("a.log", "a.log.1");
                world.look();
                world.write("a.log.2.xz", "strange");
                world.write("a.log", "3 ");
                world.restart();
                world.look();
            },
            "1 3 ",
            &[Reason::SourceVanished],
        ),
    ];
    for (name, pattern, act, read, gaps) in rows {
        let mut world = World::new(pattern);
        act(&mut world);
        assert_eq!(world.read, *read, "{name}");
        assert_eq!(world.gaps, *gaps, "{name}");
    }
}

#[test]
fn from_the_end_only_what_is_there_at_the_first_start_is_left_out() {
    let mut world = World::new("*.log");
    world.write("a.log", "old ");
    let listing = world.listing();
    let asked = Asked {
        first: Some(Start::End),
        is_held: &|_| false,
        probe: &mut |_, _| Sight::Other,
        print: &mut |_| Some(Print::default()),
    };
    settle(&mut world.book, &listing, asked);
    world.is_first = false;
    world.write("a.log", "new ");
    world.write("b.log", "other ");
    world.look();
    assert_eq!(world.read, "new other ");
}

#[test]
fn an_input_knows_so_many_files_and_no_more() {
    let mut world = World::new("*.log");
    let entry = |index: usize| Entry {
        path: World::path(&format!("{index}.log")),
        key: Key(1, index as u64),
        size: 1,
        modified: 1,
        is_wanted: true,
    };
    let mut listing = Listing {
        entries: (0..MAX_FILES + 7).map(entry).collect(),
        ..Listing::default()
    };
    let mut settle = |listing: &Listing| {
        let asked = Asked {
            first: None,
            is_held: &|_| false,
            probe: &mut |_, _| Sight::Same,
            print: &mut |_| Some(Print::default()),
        };
        settle(&mut world.book, listing, asked).beyond
    };
    assert_eq!(settle(&listing), 7);
    assert_eq!(settle(&listing), 7);
    // Those that are gone make room, and none that are read lose theirs.
    listing.entries.drain(..3);
    for entry in &mut listing.entries {
        entry.size = 0;
    }
    settle(&listing);
    settle(&listing);
    assert!(world.book.len() <= MAX_FILES);
}

#[test]
fn what_cannot_be_listed_is_not_gone() {
    let mut world = World::new("*.log");
    world.holds = false;
    world.write("a.log", "1 ");
    world.look();
    let listing = Listing {
        unread: vec![("/var/log".into(), "permission denied".to_owned())],
        ..Listing::default()
    };
    for _ in 0..10 {
        let asked = Asked {
            first: None,
            is_held: &|_| false,
            probe: &mut |_, _| Sight::Other,
            print: &mut |_| Some(Print::default()),
        };
        settle(&mut world.book, &listing, asked);
    }
    world.write("a.log", "2 ");
    world.look();
    assert_eq!((world.read.as_str(), world.gaps.len()), ("1 2 ", 0));
}
