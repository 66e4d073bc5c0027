//! One file that is read, whatever it is called by now, and what tells it from others.

use std::{
    fs::{File, Metadata},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::Path,
    time::SystemTime,
};

use rustix::fs::{Mode, OFlags};
use steward_protocol::Digest;

use super::{TailError, position::Position};

/// Longest piece read at once, and longest part of a line that is held back until the line is complete.
pub(super) const PIECE: usize = 256 << 10;

/// Bytes at the beginning, and as many before the place reached, by which a file is known.
const PRINT: usize = 1024;

/// Digits of a fingerprint.
const DIGITS: usize = 32;

/// Names a file as long as it exists. The number alone is given to the next file when one is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Identity {
    device: u64,
    inode: u64,
    born: Option<SystemTime>,
}

impl Identity {
    /// Returns the file's number.
    pub(super) fn inode(self) -> u64 {
        self.inode
    }
}

impl From<&Metadata> for Identity {
    fn from(found: &Metadata) -> Self {
        Self {
            device: found.dev(),
            inode: found.ino(),
            born: found.created().ok(),
        }
    }
}

/// A file, and how far it was given.
#[derive(Debug)]
pub(super) struct Generation {
    file: File,
    /// Which file it is.
    pub(super) identity: Identity,
    /// Bytes given.
    given: u64,
    /// The first bytes given, up to [`PRINT`].
    head: Vec<u8>,
    /// The last bytes given, up to [`PRINT`].
    last: Vec<u8>,
    /// Whether what was given last is not the end of a line.
    pub(super) mid_line: bool,
}

impl Generation {
    /// Opens a file at its beginning. There may be none.
    pub(super) fn open(path: &Path) -> Result<Option<Self>, TailError> {
        let failed = |source| TailError::System {
            doing: "open",
            path: path.to_owned(),
            source,
        };
        // A fifo must not be waited for.
        let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => File::from(file),
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => return Ok(None),
            Err(errno) => return Err(failed(errno.into())),
        };
        let found = file.metadata().map_err(failed)?;
        if !found.is_file() {
            return Err(TailError::Kind {
                path: path.to_owned(),
            });
        }
        Ok(Some(Self {
            identity: Identity::from(&found),
            file,
            given: 0,
            head: Vec::new(),
            last: Vec::new(),
            mid_line: false,
        }))
    }

    /// Goes to a place, as if everything before it had been given.
    pub(super) fn go_to(&mut self, offset: u64) -> io::Result<()> {
        let print = offset.min(PRINT as u64);
        self.head = self.at(0, print)?;
        self.last = self.at(offset - print, print)?;
        self.given = offset;
        self.mid_line = false;
        Ok(())
    }

    /// Reads up to `length` bytes from `offset` on; fewer where the file ends.
    fn at(&self, offset: u64, length: u64) -> io::Result<Vec<u8>> {
        let mut bytes = vec![0; usize::try_from(length).unwrap_or(PIECE)];
        let mut filled = 0;
        while filled < bytes.len() {
            match self
                .file
                .read_at(&mut bytes[filled..], offset + filled as u64)
            {
                Ok(0) => break,
                Ok(read) => filled += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        bytes.truncate(filled);
        Ok(bytes)
    }

    /// Returns its present length.
    pub(super) fn length(&self) -> io::Result<u64> {
        self.file.metadata().map(|found| found.len())
    }

    /// Returns what follows, up to the end of a line; all of it when the line is too long to be held.
    pub(super) fn lines(&self) -> io::Result<Vec<u8>> {
        let mut bytes = self.rest()?;
        match bytes.iter().rposition(|byte| *byte == b'\n') {
            Some(end) => bytes.truncate(end + 1),
            None if bytes.len() < PIECE => bytes.clear(),
            None => {}
        }
        Ok(bytes)
    }

    /// Returns what follows, complete lines or not.
    pub(super) fn rest(&self) -> io::Result<Vec<u8>> {
        self.at(self.given, PIECE as u64)
    }

    /// Notes that these bytes, which followed, were given.
    pub(super) fn took(&mut self, bytes: &[u8]) {
        let missing = PRINT.saturating_sub(self.head.len());
        self.head.extend(bytes.iter().take(missing));
        let fresh = &bytes[bytes.len().saturating_sub(PRINT)..];
        let kept = PRINT.saturating_sub(fresh.len()).min(self.last.len());
        self.last.drain(..self.last.len() - kept);
        self.last.extend_from_slice(fresh);
        self.given += bytes.len() as u64;
        if let Some(end) = bytes.last() {
            self.mid_line = *end != b'\n';
        }
    }

    /// Tells whether what was given is still what the file has there.
    pub(super) fn is_continued(&self) -> io::Result<bool> {
        self.is_continued_in(self)
    }

    /// Tells whether what was given here stands at the same place in another file: a copy, maybe longer.
    pub(super) fn is_continued_in(&self, other: &Self) -> io::Result<bool> {
        let print = self.head.len() as u64;
        Ok(other.length()? >= self.given
            && other.at(0, print)? == self.head
            && other.at(self.given - print, print)? == self.last)
    }

    /// Tells whether nothing of it was given.
    pub(super) fn is_untouched(&self) -> bool {
        self.given == 0
    }

    /// Tells whether another file is a copy of this one, or of its beginning, as far as first and last
    /// bytes say.
    pub(super) fn contains(&self, other: &Self) -> io::Result<bool> {
        let length = other.length()?;
        let print = length.min(PRINT as u64);
        Ok(length > 0
            && length <= self.length()?
            && self.at(0, print)? == other.at(0, print)?
            && self.at(length - print, print)? == other.at(length - print, print)?)
    }

    /// Continues here what was given of another file with the same content.
    pub(super) fn take_over(&mut self, other: &Self) {
        self.given = other.given;
        self.head.clone_from(&other.head);
        self.last.clone_from(&other.last);
        self.mid_line = other.mid_line;
    }

    /// Returns the place where the last `lines` lines begin, read backwards in pieces.
    pub(super) fn last_lines(&self, lines: u32) -> io::Result<u64> {
        let length = self.length()?;
        let (mut end, mut wanted) = (length, lines);
        while end > 0 && wanted > 0 {
            let begin = end.saturating_sub(PIECE as u64);
            let bytes = self.at(begin, end - begin)?;
            for (index, byte) in bytes.iter().enumerate().rev() {
                let after = begin + index as u64 + 1;
                // The end of the file's last line begins no other.
                if *byte == b'\n' && after < length {
                    wanted -= 1;
                    if wanted == 0 {
                        return Ok(after);
                    }
                }
            }
            end = begin;
        }
        Ok(if lines == 0 { length } else { 0 })
    }

    /// Returns the place reached.
    pub(super) fn position(&self) -> Position {
        let mut fingerprint = Digest::of(&[&self.head[..], &self.last[..]].concat()).to_string();
        fingerprint.truncate(DIGITS);
        Position {
            device: self.identity.device,
            inode: self.identity.inode,
            offset: self.given,
            fingerprint,
        }
    }

    /// Goes to a position, if this is the file it was taken in, or a copy of it. At its very beginning
    /// a file has no content to be known by; there its number has to do.
    pub(super) fn recognises(&mut self, position: &Position) -> io::Result<bool> {
        if self.length()? < position.offset {
            return Ok(false);
        }
        self.go_to(position.offset)?;
        let known = match position.offset {
            0 => self.identity.inode == position.inode,
            _ => self.position().fingerprint == position.fingerprint,
        };
        if known {
            self.mid_line = self.last.last().is_some_and(|end| *end != b'\n');
        } else {
            self.go_to(0)?;
        }
        Ok(known)
    }
}
