//! A file that is being received: appended to, made durable, and known by its digest at every step.
//!
//! Knows nothing of where the bytes come from.

use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use steward_protocol::Digest;

use crate::source::hash;

/// Nobody else sees a file before all of it is there.
const PRIVATE: u32 = 0o600;

/// A file that is being received.
#[derive(Debug)]
pub struct Sink {
    path: PathBuf,
    file: File,
    length: u64,
    hasher: blake3::Hasher,
    durable: (u64, blake3::Hasher),
}

impl Sink {
    /// Opens the file and takes in what is there from before.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn open(path: &Path) -> io::Result<Self> {
        let nofollow = rustix::fs::OFlags::NOFOLLOW.bits().cast_signed();
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(PRIVATE)
            .custom_flags(nofollow)
            .open(path)?;
        // What was written before a restart of this program is not durable for that.
        file.sync_data()?;
        let (length, hasher) = hash(&file)?;
        Ok(Self {
            path: path.to_owned(),
            file,
            length,
            durable: (length, hasher.clone()),
            hasher,
        })
    }

    /// Returns how many bytes are there durably.
    pub fn durable(&self) -> u64 {
        self.durable.0
    }

    /// Returns where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Returns the file.
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Returns the digest of what is there.
    pub fn blake3(&self) -> Digest {
        self.hasher.finalize().into()
    }

    /// Appends bytes.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn append(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, self.length)?;
        self.length += bytes.len() as u64;
        self.hasher.update(bytes);
        Ok(())
    }

    /// Makes durable what was appended.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn sync(&mut self) -> io::Result<()> {
        self.file.sync_data()?;
        self.durable = (self.length, self.hasher.clone());
        Ok(())
    }

    /// Goes back to what is durable.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn go_back(&mut self) -> io::Result<()> {
        (self.length, self.hasher) = self.durable.clone();
        self.file.set_len(self.length)
    }

    /// Begins from the beginning.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn reset(&mut self) -> io::Result<()> {
        self.durable = (0, blake3::Hasher::new());
        self.go_back()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_there_before_a_restart_counts_and_what_was_taken_back_does_not() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("part");
        let mut sink = Sink::open(&path).expect("new");
        sink.append(b"one ").expect("room");
        sink.sync().expect("durable");
        sink.append(b"lost").expect("room");
        sink.go_back().expect("shorter");
        drop(sink);
        let mut sink = Sink::open(&path).expect("there");
        assert_eq!(sink.durable(), 4);
        sink.append(b"two").expect("room");
        assert_eq!(sink.blake3(), Digest::of(b"one two"));
        sink.reset().expect("empty");
        assert_eq!((sink.durable(), sink.blake3()), (0, Digest::of(b"")));
        assert_eq!(std::fs::read(&path).expect("there"), b"");
    }
}
