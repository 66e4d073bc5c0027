//! Notes how far files were read, durably: a line for each change, all of it anew from time to time.
//!
//! A line that is torn says nothing, and neither does what is behind it: then what it noted is read again.

use std::{
    ffi::OsString,
    fs::{self, File},
    io::{self, ErrorKind, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
};

use serde::{Deserialize, Serialize};
use steward_files::{Spot, make_directories};
use steward_protocol::logs::Micros;

use super::book::{Book, Log, form, hash};

/// Bytes of changes after which all is written anew, beyond twice what that takes.
const CHANGES: u64 = 256 << 10;

/// Digits of a line's hash.
const HASH: usize = 16;

/// What a line says: when the last durable portion was received, and how far logs were read.
#[derive(Serialize, Deserialize)]
struct Line {
    stamp: i64,
    logs: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
struct Row {
    #[serde(with = "form")]
    name: PathBuf,
    /// Nothing, if it is not there any more.
    log: Option<Log>,
}

/// What was found at the start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Found {
    /// Nothing was ever noted.
    Nothing,
    /// Notes.
    Notes,
    /// Something that cannot be read.
    Damaged,
}

/// Where notes of one input are kept.
#[derive(Debug)]
pub(super) struct Notes {
    dir: PathBuf,
    name: OsString,
    /// The file that changes are added to; none, if all is to be written anew.
    file: Option<File>,
    /// Bytes of all that was written anew last, and of the changes since.
    whole: u64,
    changes: u64,
}

impl Notes {
    /// Names where the notes of an input are.
    pub(super) fn of(dir: &Path, input: &str) -> Self {
        Self {
            dir: dir.to_owned(),
            name: format!("{:016x}.notes", hash(&[input.as_bytes()])).into(),
            file: None,
            whole: 0,
            changes: 0,
        }
    }

    /// Reads what was noted.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub(super) fn load(&self) -> io::Result<(Book, Found)> {
        let mut book = Book::default();
        let bytes = match fs::read(self.dir.join(&self.name)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok((book, Found::Nothing)),
            Err(error) => return Err(error),
        };
        let mut found = Found::Damaged;
        for line in bytes.split(|byte| *byte == b'\n') {
            let Some(line) = read(line) else { break };
            found = Found::Notes;
            book.stamp = Micros(line.stamp);
            for row in line.logs {
                match row.log {
                    Some(log) => book.restore(row.name, log),
                    None => drop(book.logs.remove(&row.name)),
                }
            }
        }
        Ok((book, found))
    }

    /// Notes these logs, durably; all of them, if need be.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; the next call writes all of it.
    pub(super) fn save(
        &mut self,
        book: &Book,
        changed: impl Iterator<Item = PathBuf>,
    ) -> io::Result<()> {
        if self.changes > CHANGES + 2 * self.whole {
            self.file = None;
        }
        let Some(mut file) = self.file.take() else {
            return self.save_all(book);
        };
        let row = |name: PathBuf| Row {
            log: book.logs.get(&name).map(sound),
            name,
        };
        let bytes = line(book, changed.map(row).collect())?;
        file.write_all(&bytes)?;
        file.sync_data()?;
        self.changes += bytes.len() as u64;
        self.file = Some(file);
        Ok(())
    }

    fn save_all(&mut self, book: &Book) -> io::Result<()> {
        make_directories(&self.dir).map_err(|error| error.source)?;
        let rows = book.logs.iter().map(|(name, log)| Row {
            name: name.clone(),
            log: Some(sound(log)),
        });
        let bytes = line(book, rows.collect())?;
        let directory = File::open(&self.dir)?;
        let mut beside = self.name.clone();
        beside.push(".new");
        let spot = Spot {
            directory: directory.as_fd(),
            name: &self.name,
            beside: &beside,
        };
        spot.replace(&bytes, 0o600)?;
        let path = self.dir.join(&self.name);
        self.file = Some(fs::OpenOptions::new().append(true).open(path)?);
        self.whole = bytes.len() as u64;
        self.changes = 0;
        Ok(())
    }
}

/// Returns a log as it is if nothing becomes durable any more.
fn sound(log: &Log) -> Log {
    let mut log = log.clone();
    for part in &mut log.parts {
        // What has no name is not found again.
        part.ended |= part.unlinked && part.read.offset >= part.size;
        part.ended &= part.done == part.read;
    }
    log
}

fn line(book: &Book, logs: Vec<Row>) -> io::Result<Vec<u8>> {
    let line = Line {
        stamp: book.stamp.0,
        logs,
    };
    let json = serde_json::to_vec(&line)?;
    let mut bytes = format!("{:016x} ", hash(&[&json])).into_bytes();
    bytes.extend_from_slice(&json);
    bytes.push(b'\n');
    Ok(bytes)
}

fn read(line: &[u8]) -> Option<Line> {
    let (sum, json) = line.split_at_checked(HASH)?;
    let sum = u64::from_str_radix(str::from_utf8(sum).ok()?, 16).ok()?;
    let json = json.strip_prefix(b" ")?;
    if hash(&[json]) != sum {
        return None;
    }
    serde_json::from_slice(json).ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::input::files::book::Key;

    fn note(notes: &mut Notes, book: &mut Book, name: &str, offset: u64) {
        let name = PathBuf::from(name);
        let mut part = book.part(Key(1, offset), &name);
        part.done.offset = offset;
        let log = Log {
            parts: [part].into(),
            ..Log::default()
        };
        book.logs.insert(name.clone(), log);
        book.stamp.0 += 1;
        notes.save(book, [name].into_iter()).expect("it is noted");
    }

    fn offsets(notes: &Notes) -> Vec<(String, u64)> {
        let (book, _) = notes.load().expect("notes");
        let row =
            |(name, log): (&PathBuf, &Log)| (name.display().to_string(), log.parts[0].done.offset);
        book.logs.iter().map(row).collect()
    }

    #[test]
    fn what_was_noted_is_found_and_a_torn_line_takes_only_itself_away() {
        let dir = tempfile::tempdir().expect("a directory");
        let dir = dir.path().join("files");
        let mut notes = Notes::of(&dir, "file:///x");
        assert_eq!(notes.load().expect("notes").1, Found::Nothing);
        let mut book = Book::default();
        note(&mut notes, &mut book, "/a", 1);
        note(&mut notes, &mut book, "/b", 2);
        let path = dir.join(&notes.name);
        let before = fs::read(&path).expect("notes").len();
        note(&mut notes, &mut book, "/a", 3);
        let row = |name: &str, offset| (name.to_owned(), offset);
        assert_eq!(offsets(&notes), [row("/a", 3), row("/b", 2)]);
        let bytes = fs::read(&path).expect("notes");
        for length in before..bytes.len() - 1 {
            fs::write(&path, &bytes[..length]).expect("it is torn");
            assert_eq!(offsets(&notes), [row("/a", 1), row("/b", 2)], "{length}");
        }
        // After a start all is written anew, whatever stands behind a torn line.
        let mut again = Notes::of(&dir, "file:///x");
        note(&mut again, &mut book, "/c", 4);
        assert_eq!(offsets(&again), [row("/a", 3), row("/b", 2), row("/c", 4)]);
        fs::write(&path, "rubbish").expect("it is damaged");
        assert_eq!(notes.load().expect("notes").1, Found::Damaged);
    }

    #[test]
    fn notes_do_not_grow_with_time() {
        let dir = tempfile::tempdir().expect("a directory");
        let mut notes = Notes::of(dir.path(), "file:///x");
        let mut book = Book::default();
        let mut largest = 0;
        for offset in 0..3000 {
            note(&mut notes, &mut book, "/a", offset);
            let found = fs::metadata(dir.path().join(&notes.name)).expect("notes");
            largest = largest.max(found.len());
        }
        assert!(largest > CHANGES && largest < CHANGES + 4096, "{largest}");
        assert_eq!(offsets(&notes), [("/a".to_owned(), 2999)]);
    }

    #[test]
    fn names_that_are_no_text_are_noted_as_they_are() {
        use std::os::unix::ffi::OsStringExt;
        let dir = tempfile::tempdir().expect("a directory");
        let mut notes = Notes::of(dir.path(), "file:///x");
        let mut book = Book::default();
        let name = PathBuf::from(OsString::from_vec(b"/a\xff".to_vec()));
        let part = book.part(Key(1, 2), &name);
        let log = Log {
            parts: [part].into(),
            ..Log::default()
        };
        book.logs.insert(name.clone(), log);
        notes.save(&book, std::iter::empty()).expect("it is noted");
        let (book, _) = notes.load().expect("notes");
        assert_eq!(book.logs[&name].parts[0].path, name);
    }
}
