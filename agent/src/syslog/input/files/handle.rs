//! One open file: reads on where it was, notices that its content is another, and cuts what it reads. It knows no other
//! files.

use std::{
    fs::File,
    io::{self, Read},
    time::{Duration, Instant},
};

use rustix::fs::{SeekFrom, seek};

use super::{
    book::{HEAD, Key, Mark, Part, Print, TAIL},
    lines::{Behind, Cutter, Long},
    list,
    look::{self, Body},
};

/// Bytes that are read at once.
pub(super) const READ: usize = 128 << 10;

/// What came of reading.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Chunk {
    /// There is more.
    More,
    /// There is no more now; so many bytes wait for what belongs to them.
    End { held: u64 },
    /// It is not what it was.
    Changed,
}

/// An open file.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) key: Key,
    /// When it was used last, in turns.
    pub(super) turn: u64,
    body: Body,
    /// The next byte to be read, if a long line is on its way.
    scanned: u64,
    long: Option<Long>,
    /// What was unpacked and is not done with.
    carry: Vec<u8>,
    /// Why nothing more can be unpacked.
    broken: Option<io::Error>,
    /// Its size when it last grew, and when that was.
    grown: (u64, Instant),
}

impl Handle {
    /// Opens the file of a part.
    pub(super) fn open(part: &Part) -> io::Result<Self> {
        let file = look::open(&part.path)?;
        let key = list::key(&file.metadata()?);
        if key != part.key {
            // It was renamed meanwhile; the next listing finds it.
            return Err(io::ErrorKind::NotFound.into());
        }
        let mut body = look::unpack(file, part.packing)?;
        if let Body::Packed(reader) = &mut body
            && look::skip(&mut **reader, part.read.offset)? < part.read.offset
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Self {
            key,
            turn: 0,
            body,
            scanned: part.read.offset,
            long: None,
            carry: Vec::new(),
            broken: None,
            grown: (part.size, Instant::now()),
        })
    }

    /// Returns the size of a file that is not packed.
    pub(super) fn size(&self) -> Option<u64> {
        match &self.body {
            Body::Plain(file) => Some(file.metadata().ok()?.len()),
            Body::Packed(_) => None,
        }
    }

    /// Returns for how long it has not grown.
    pub(super) fn quiet(&self) -> Duration {
        self.grown.1.elapsed()
    }

    /// Tells whether a line is on its way that is longer than a buffer.
    pub(super) fn is_within_a_line(&self) -> bool {
        self.long.is_some()
    }

    /// Reads a bufferful, cuts it, and brings the part up to date. What may come behind it depends on for how long it has
    /// not grown.
    pub(super) fn read(
        &mut self,
        part: &mut Part,
        desk: Desk<'_>,
        behind: impl Fn(Duration) -> Behind,
        take: impl FnMut(&[u8], u64),
    ) -> io::Result<Chunk> {
        match &self.body {
            Body::Plain(_) => self.read_plain(part, desk, behind, take),
            Body::Packed(_) => self.read_packed(part, desk, take),
        }
    }

    fn read_plain(
        &mut self,
        part: &mut Part,
        Desk { buffer, cutter }: Desk<'_>,
        behind: impl Fn(Duration) -> Behind,
        take: impl FnMut(&[u8], u64),
    ) -> io::Result<Chunk> {
        let Body::Plain(file) = &self.body else {
            return Ok(Chunk::Changed);
        };
        // What stands in front of the place shows whether the file is still the same.
        let (tail, place) = match &self.long {
            None => (part.read.tail, part.read.offset),
            Some(_) => (Print::default(), self.scanned),
        };
        let before = tail.length();
        let start = place.saturating_sub(before as u64);
        let count = look::fill_at(file, start, &mut buffer[..before + READ])?;
        let is_same = count >= before && (before == 0 || Print::of(&buffer[..before]) == tail);
        let is_same = is_same && (place > 0 || begins(part, &buffer[..count]));
        if !is_same || (count == before && file.metadata()?.len() < place) {
            return Ok(Chunk::Changed);
        }
        let (end, is_end) = (start + count as u64, count < before + READ);
        if end > self.grown.0 {
            self.grown = (end, Instant::now());
        }
        let behind = match is_end {
            true => behind(self.grown.1.elapsed()),
            false => Behind::Open,
        };
        let bytes = &buffer[before..count];
        let done = cutter.cut(&mut self.long, bytes, behind, take);
        self.scanned = place + done as u64;
        if self.long.is_none() && self.scanned > part.read.offset {
            part.read = Mark {
                offset: self.scanned,
                tail: tail_of(&buffer[..before + done]),
            };
            if done == bytes.len() && !is_end && bytes.iter().all(|byte| *byte == 0) {
                skip_hole(file, part);
            }
            know(file, part);
        }
        part.size = part.size.max(end);
        Ok(match is_end {
            true => Chunk::End {
                held: end - part.read.offset,
            },
            false => Chunk::More,
        })
    }

    fn read_packed(
        &mut self,
        part: &mut Part,
        Desk { buffer, cutter }: Desk<'_>,
        take: impl FnMut(&[u8], u64),
    ) -> io::Result<Chunk> {
        let Body::Packed(reader) = &mut self.body else {
            return Ok(Chunk::Changed);
        };
        let held = self.carry.len();
        buffer[..held].copy_from_slice(&self.carry);
        if let Some(error) = self.broken.take() {
            return Err(error);
        }
        let broken = &mut self.broken;
        let read = |rest: &mut [u8], at| match reader.read(rest) {
            // What was unpacked before it is good.
            Err(error) if at > 0 && error.kind() != io::ErrorKind::Interrupted => {
                *broken = Some(error);
                Ok(0)
            }
            read => read,
        };
        let count = held + look::fill(read, &mut buffer[held..READ])?;
        let is_end = count < READ && self.broken.is_none();
        let behind = if is_end {
            Behind::Nothing
        } else {
            Behind::Open
        };
        let done = cutter.cut(&mut self.long, &buffer[..count], behind, take);
        self.carry.clear();
        self.carry.extend_from_slice(&buffer[done..count]);
        self.scanned += done as u64;
        if self.long.is_none() && self.scanned > part.read.offset {
            if part.read.offset == 0 && part.head.length() == 0 {
                part.head = Print::of(&buffer[..done.min(HEAD)]);
            }
            part.read = Mark {
                offset: self.scanned,
                tail: tail_of(&buffer[..done]),
            };
        }
        Ok(match is_end {
            true => Chunk::End { held: 0 },
            false => Chunk::More,
        })
    }
}

/// What a file is read with.
pub(super) struct Desk<'a> {
    pub(super) buffer: &'a mut [u8],
    pub(super) cutter: &'a Cutter,
}

/// Tells whether a file that is read from its beginning begins as it did when it was found.
fn begins(part: &Part, bytes: &[u8]) -> bool {
    let length = part.head.length();
    length == 0 || (bytes.len() >= length && Print::of(&bytes[..length]) == part.head)
}

fn tail_of(bytes: &[u8]) -> Print {
    Print::of(&bytes[bytes.len().saturating_sub(TAIL)..])
}

/// Takes note of what a file begins with, as far as it was read.
fn know(file: &File, part: &mut Part) {
    let length = usize::try_from(part.read.offset).unwrap_or(HEAD).min(HEAD);
    if part.head.length() >= length {
        return;
    }
    let mut buffer = [0; HEAD];
    if let Ok(count) = look::fill_at(file, 0, &mut buffer[..length])
        && count == length
    {
        part.head = Print::of(&buffer[..length]);
    }
}

/// Goes on behind a hole, which may be larger than anything that was ever written.
fn skip_hole(file: &File, part: &mut Part) {
    // Where the file system knows of no holes, they are read.
    if let Ok(data) = seek(file, SeekFrom::Data(part.read.offset))
        && data > part.read.offset
    {
        part.read = Mark {
            offset: data,
            tail: Print::default(),
        };
    }
}
