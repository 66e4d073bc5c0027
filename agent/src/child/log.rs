//! The record log of a command: everything it wrote, in the order it was read, as one run of bytes.
//!
//! Records of `stream: u8 ‖ length: u32 big endian ‖ bytes`; a place in the log is one byte offset.
//! It is written by the command's warden (`recorder`) and read by anybody, while the command
//! runs and after; bytes below the log's length never change. Knows nothing of who wants them.

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt,
};

use rustix::fs::{FallocateFlags, fallocate};
use serde::{Deserialize, Serialize};
use steward_protocol::Digest;

use super::{
    End,
    place::{Place, PlaceError},
};

/// Bytes before those of a record: its stream and its length.
pub const HEADER: usize = 5;

/// Most bytes of one record: a Linux pipe gives no more at a time.
pub const LONGEST: usize = 64 * 1024;

/// Holes are punched in whole blocks; a smaller one frees nothing.
const BLOCK: u64 = 4096;

/// Which of its two streams a command wrote to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

impl Stream {
    /// Returns its number in a record.
    pub fn number(self) -> u8 {
        match self {
            Self::Stdout => 1,
            Self::Stderr => 2,
        }
    }

    /// Returns the stream with this number.
    pub fn from_number(number: u8) -> Option<Self> {
        match number {
            1 => Some(Self::Stdout),
            2 => Some(Self::Stderr),
            _ => None,
        }
    }
}

/// Returns the bytes before those of a record.
pub fn header(stream: Stream, length: u32) -> [u8; HEADER] {
    let [a, b, c, d] = length.to_be_bytes();
    [stream.number(), a, b, c, d]
}

/// What a log came to, once its command has ended.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Total {
    /// Its length, what was released included.
    pub bytes: u64,
    /// Digest of all of it.
    pub blake3: Digest,
    /// Why it does not hold everything the command wrote, if it does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cut: Option<String>,
}

/// Why a log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// Its file could not be used.
    #[error("{doing} the output of a command in {place}")]
    File {
        /// What was tried.
        doing: &'static str,
        /// Where.
        place: String,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody has these bytes any more.
    #[error("read a command's output from byte {offset}: everything below {released} was released")]
    Released {
        /// Where reading was to begin.
        offset: u64,
        /// Where it can.
        released: u64,
    },
    /// The end of the command could not be read.
    #[error(transparent)]
    Place(#[from] PlaceError),
}

/// A command's record log, to be read.
#[derive(Debug)]
pub struct Log {
    place: Place,
    file: File,
}

impl Log {
    /// Returns the directory it is in.
    pub fn dir(&self) -> &std::path::Path {
        self.place.dir()
    }

    /// Opens the log of a command that was started.
    ///
    /// # Errors
    ///
    /// Fails when it is not there: not started yet, or removed.
    pub fn open(place: Place) -> Result<Self, LogError> {
        let opened = OpenOptions::new()
            .read(true)
            .write(true)
            .open(place.output());
        match opened {
            Ok(file) => Ok(Self { place, file }),
            Err(source) => Err(LogError::File {
                doing: "open",
                place: place.dir().display().to_string(),
                source,
            }),
        }
    }

    /// Reads what there is from `offset` on, as much as fits. Gives 0 at the present end: whether it is
    /// the last one, [`Log::end`] tells; ask for that first and read afterwards, or the last bytes
    /// may be missed.
    ///
    /// # Errors
    ///
    /// Fails when the bytes were released, and when they cannot be read.
    pub fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<usize, LogError> {
        let released = self.released()?;
        if offset < released {
            return Err(LogError::Released { offset, released });
        }
        self.file
            .read_at(buffer, offset)
            .map_err(|source| self.failed("read", source))
    }

    /// Returns how many bytes there are so far, what was released included.
    ///
    /// # Errors
    ///
    /// Fails when the file cannot be asked.
    pub fn length(&self) -> Result<u64, LogError> {
        let length = self.file.metadata().map(|found| found.len());
        length.map_err(|source| self.failed("measure", source))
    }

    /// Returns how the command ended, if it has. Its [`End::log`] says what the log came to.
    ///
    /// # Errors
    ///
    /// Fails when that is there and cannot be read.
    pub fn end(&self) -> Result<Option<End>, LogError> {
        Ok(self.place.end()?)
    }

    /// Returns the offset below which nothing is kept.
    ///
    /// # Errors
    ///
    /// Fails when the number is there and cannot be read.
    pub fn released(&self) -> Result<u64, LogError> {
        released(&self.place).map_err(|source| self.failed("look what was released of", source))
    }

    /// Lets go of everything below `upto`: somebody else has it for good. The space is given back, and
    /// a warden that waits for that reads on.
    ///
    /// # Errors
    ///
    /// Fails when the word cannot be written; a file system without holes is no error.
    pub fn release(&self, upto: u64) -> Result<(), LogError> {
        let before = self.released()?;
        let upto = upto.min(self.length()?);
        if upto <= before {
            return Ok(());
        }
        // The word first: nobody reads zeroes for bytes that are gone.
        note(&self.place, upto).map_err(|source| self.failed("release", source))?;
        let (from, to) = (before / BLOCK * BLOCK, upto / BLOCK * BLOCK);
        if to > from {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            if let Err(error) = fallocate(&self.file, flags, from, to - from) {
                tracing::debug!(%error, "a hole could not be punched");
            }
        }
        Ok(())
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> LogError {
        LogError::File {
            doing,
            place: self.place.dir().display().to_string(),
            source,
        }
    }
}

/// Writes how much of a log was released, over what was there: all digits at once.
fn note(place: &Place, upto: u64) -> io::Result<()> {
    let file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(place.released())?;
    file.write_all_at(format!("{upto:020}").as_bytes(), 0)
}

/// Reads how much of a log was released; nothing, when nobody has said so yet.
pub(super) fn released(place: &Place) -> io::Result<u64> {
    let text = match fs::read_to_string(place.released()) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
        Err(error) => return Err(error),
    };
    // Caught between its making and its first digits, it says nothing: the next look will.
    if text.is_empty() {
        return Ok(0);
    }
    text.trim().parse().map_err(io::Error::other)
}

/// Takes a log apart into its records. Feed it pieces of any size, in their order.
#[derive(Debug, Default)]
pub struct Records {
    rest: Vec<u8>,
}

/// A log that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("read a record of a command's output: {0} is no stream")]
pub struct NoStream(pub u8);

impl Records {
    /// Takes the next bytes of a log and calls `each` for every record that is whole now.
    ///
    /// # Errors
    ///
    /// Fails at a record of a stream that does not exist: the bytes are not those of a log.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(Stream, &[u8]),
    ) -> Result<(), NoStream> {
        self.rest.extend_from_slice(bytes);
        let mut at = 0;
        while let Some((head, body)) = self
            .rest
            .get(at..)
            .and_then(<[u8]>::split_first_chunk::<HEADER>)
        {
            let [number, length @ ..] = *head;
            let stream = Stream::from_number(number).ok_or(NoStream(number))?;
            let length = u32::from_be_bytes(length) as usize;
            let Some(body) = body.get(..length) else {
                break;
            };
            each(stream, body);
            at += HEADER + length;
        }
        self.rest.drain(..at);
        Ok(())
    }

    /// Tells whether the last record was whole.
    pub fn is_complete(&self) -> bool {
        self.rest.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_come_apart_as_they_were_put_together_whatever_the_pieces() {
        let records: Vec<(Stream, Vec<u8>)> = vec![
            (Stream::Stdout, b"one".to_vec()),
            (Stream::Stderr, b"".to_vec()),
            (Stream::Stderr, vec![0xff; 70_000]),
            (Stream::Stdout, b"\n".to_vec()),
        ];
        let mut log = Vec::new();
        for (stream, bytes) in &records {
            let length = u32::try_from(bytes.len()).expect("short");
            log.extend(header(*stream, length));
            log.extend(bytes);
        }
        for piece in [1, 4, 5, 6, 1000, 100_000] {
            let mut found = Vec::new();
            let mut reader = Records::default();
            for bytes in log.chunks(piece) {
                let took = reader.feed(bytes, |stream, bytes| found.push((stream, bytes.to_vec())));
                took.expect("a log");
            }
            assert!(found == records, "in pieces of {piece}");
            assert!(reader.is_complete());
        }
        let mut reader = Records::default();
        assert_eq!(reader.feed(b"\x07abcd", |_, _| {}), Err(NoStream(7)));
    }
}
