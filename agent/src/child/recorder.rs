//! Takes what a command writes: into its record log, and into what is said of each stream at its end.
//!
//! Keeps the first part of the log up to a cap and counts the rest, nothing of it when there is no room
//! on the disk, or, where somebody follows it,
//! keeps everything and says when to stop reading until the other side has caught up. Knows neither
//! pipes nor processes.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
};

use steward_protocol::Output;

use super::{
    Following,
    log::{self, HEADER, LONGEST, Stream, Total},
    output::Capture,
    place::Place,
};

/// A command's output on its way to the disk.
#[derive(Debug)]
pub(super) struct Recorder {
    place: Place,
    file: File,
    /// Room for one record: its header, and what is read for it.
    buffer: Vec<u8>,
    length: u64,
    hasher: Box<blake3::Hasher>,
    cap: u64,
    following: Following,
    /// A record in the buffer that could not be written yet.
    pending: Option<(Stream, usize)>,
    cut: Option<String>,
    stdout: Capture,
    stderr: Capture,
}

/// What a command wrote, once it writes no more.
#[derive(Debug)]
pub(super) struct Recorded {
    pub(super) stdout: Output,
    pub(super) stderr: Output,
    pub(super) log: Total,
}

impl Recorder {
    pub(super) fn create(place: &Place, cap: u64, following: Following) -> io::Result<Self> {
        let file = OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(place.output())?;
        Ok(Self {
            place: place.clone(),
            file,
            buffer: vec![0; HEADER + LONGEST],
            length: 0,
            hasher: Box::new(blake3::Hasher::new()),
            cap,
            following,
            pending: None,
            cut: None,
            stdout: Capture::new(),
            stderr: Capture::new(),
        })
    }

    /// Tells whether there is no room: what a command writes must wait in its pipe.
    pub(super) fn is_full(&mut self) -> bool {
        if self.following == Following::Nobody {
            return false;
        }
        self.write_pending();
        let released = log::released(&self.place).unwrap_or(0);
        self.pending.is_some() || self.length.saturating_sub(released) >= self.cap
    }

    /// Returns where the next bytes of a stream are to be read to, unless that is taken.
    pub(super) fn room(&mut self) -> Option<&mut [u8]> {
        self.write_pending();
        let free = self.pending.is_none();
        self.buffer.get_mut(HEADER..).filter(|_| free)
    }

    /// Takes the first `count` bytes of [`Recorder::room`].
    pub(super) fn take(&mut self, stream: Stream, count: usize) {
        let bytes = self.buffer.get(HEADER..HEADER + count).unwrap_or_default();
        match stream {
            Stream::Stdout => self.stdout.push(bytes),
            Stream::Stderr => self.stderr.push(bytes),
        }
        if self.cut.is_none() {
            self.pending = Some((stream, self.fitting(count)));
            self.write_pending();
        }
    }

    /// Returns how many of `count` bytes are kept, and takes note when that is not all of them.
    fn fitting(&mut self, count: usize) -> usize {
        if self.following == Following::Station {
            return count;
        }
        let room = self.cap.saturating_sub(self.length + HEADER as u64);
        let fitting = usize::try_from(room).map_or(count, |room| room.min(count));
        if fitting < count {
            self.cut = Some(format!("the first {} bytes are kept", self.cap));
        }
        fitting
    }

    fn write_pending(&mut self) {
        let Some((stream, count)) = self.pending else {
            return;
        };
        let Some(record) = self.buffer.get_mut(..HEADER + count).filter(|_| count > 0) else {
            self.pending = None;
            return;
        };
        // At most `LONGEST`, which fits.
        let header = log::header(stream, u32::try_from(count).unwrap_or(u32::MAX));
        if let Some(start) = record.first_chunk_mut::<HEADER>() {
            *start = header;
        }
        match self.file.write_all_at(record, self.length) {
            Ok(()) => {
                self.hasher.update(record);
                self.length += record.len() as u64;
                self.pending = None;
            }
            // Whoever follows must miss nothing; it goes on when there is room again.
            Err(_) if self.following == Following::Station => {}
            Err(error) => self.give_up(&error.to_string()),
        }
    }

    /// Lets the whole log go: what a full disk needs most is room for how the command ended.
    fn give_up(&mut self, why: &str) {
        self.cut = Some(format!("it could not be kept: {why}"));
        self.pending = None;
        self.length = 0;
        self.hasher.reset();
        self.file.set_len(0).ok();
    }

    /// Returns what was taken. What the end's own record does not hold whole is durable then.
    pub(super) fn finish(mut self) -> Recorded {
        self.write_pending();
        if self.pending.is_some() {
            self.give_up("the disk had no room");
        }
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        let needed =
            stdout.is_truncated() || stderr.is_truncated() || self.following == Following::Station;
        if needed && let Err(error) = self.file.sync_data() {
            self.cut.get_or_insert(format!("not made durable: {error}"));
        }
        Recorded {
            stdout,
            stderr,
            log: Total {
                bytes: self.length,
                blake3: self.hasher.finalize().into(),
                cut: self.cut,
            },
        }
    }
}
