//! A file that is being sent: as it was when its digest was taken, or not at all.
//!
//! Knows nothing of where it is found: it is given open.

use std::{
    fs::File,
    io,
    os::unix::fs::{FileExt, MetadataExt},
};

use steward_protocol::Digest;

/// Bytes read at a time while a digest is taken.
const GULP: usize = 1 << 20;

/// Why a file cannot be sent.
#[derive(Debug, thiserror::Error)]
pub enum PinnedError {
    /// It is a directory, a pipe or a device.
    #[error("use it: not a regular file")]
    Irregular,
    /// It is not what it was when it was opened, or when its digest was taken.
    #[error("read it: it changed")]
    Changed,
    /// The system does not say what it is.
    #[error("look at it")]
    Look(#[source] io::Error),
    /// The system does not give its bytes.
    #[error("read it")]
    Read(#[source] io::Error),
}

/// What tells one state of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Face {
    inode: (u64, u64),
    bytes: u64,
    modified: (i64, i64),
}

impl Face {
    fn of(file: &File) -> Result<Self, PinnedError> {
        let found = file.metadata().map_err(PinnedError::Look)?;
        if !found.is_file() {
            return Err(PinnedError::Irregular);
        }
        Ok(Self {
            inode: (found.dev(), found.ino()),
            bytes: found.len(),
            modified: (found.mtime(), found.mtime_nsec()),
        })
    }
}

/// A file whose length and digest are known.
#[derive(Debug)]
pub struct Pinned {
    file: File,
    face: Face,
    blake3: Digest,
}

impl Pinned {
    /// Takes the digest of an open file, which takes a while.
    ///
    /// # Errors
    ///
    /// Fails when it is no regular file, cannot be read, or changes meanwhile.
    pub fn take(file: File) -> Result<Self, PinnedError> {
        let face = Face::of(&file)?;
        let (bytes, blake3) = digest(&file).map_err(PinnedError::Read)?;
        if bytes != face.bytes || Face::of(&file)? != face {
            return Err(PinnedError::Changed);
        }
        Ok(Self { file, face, blake3 })
    }

    /// Returns its length.
    pub fn bytes(&self) -> u64 {
        self.face.bytes
    }

    /// Returns its digest.
    pub fn blake3(&self) -> Digest {
        self.blake3
    }

    /// Reads `length` bytes from `offset` on.
    ///
    /// # Errors
    ///
    /// Fails when it is not what it was when its digest was taken, or cannot be read.
    pub fn read(&self, offset: u64, length: usize) -> Result<Vec<u8>, PinnedError> {
        let mut bytes = vec![0; length];
        let read = self.file.read_exact_at(&mut bytes, offset);
        // Asked afterwards: what was read is what the digest was taken of.
        if Face::of(&self.file)? != self.face {
            return Err(PinnedError::Changed);
        }
        read.map_err(PinnedError::Read)?;
        Ok(bytes)
    }
}

/// Returns length and digest of what a file holds.
///
/// # Errors
///
/// Fails when it cannot be read.
pub fn digest(file: &File) -> io::Result<(u64, Digest)> {
    let (bytes, hasher) = hash(file)?;
    Ok((bytes, hasher.finalize().into()))
}

/// Takes in what a file holds, from its beginning.
pub(crate) fn hash(file: &File) -> io::Result<(u64, blake3::Hasher)> {
    let mut hasher = blake3::Hasher::new();
    let mut buffer = vec![0; GULP];
    let mut offset = 0;
    loop {
        let count = match file.read_at(&mut buffer, offset) {
            Ok(0) => return Ok((offset, hasher)),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        hasher.update(buffer.get(..count).unwrap_or_default());
        offset += count as u64;
    }
}

#[cfg(test)]
mod tests {
    use std::{fs::OpenOptions, io::Write};

    use super::*;

    #[test]
    fn a_file_that_changes_after_its_digest_was_taken_is_not_read_any_more() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("file");
        std::fs::write(&path, b"some bytes").expect("written");
        let pinned = Pinned::take(File::open(&path).expect("there")).expect("a file");
        assert_eq!(pinned.bytes(), 10);
        assert_eq!(pinned.blake3(), Digest::of(b"some bytes"));
        assert_eq!(pinned.read(5, 5).expect("unchanged"), b"bytes");
        let beyond = pinned.read(8, 5).expect_err("there is no more");
        assert!(matches!(beyond, PinnedError::Read(_)), "{beyond:?}");
        let mut file = OpenOptions::new().append(true).open(&path).expect("open");
        file.write_all(b"more").expect("written");
        let changed = pinned.read(0, 4).expect_err("it changed");
        assert!(matches!(changed, PinnedError::Changed), "{changed:?}");
    }

    #[test]
    fn what_is_no_regular_file_is_not_pinned() {
        let dir = tempfile::tempdir().expect("a directory");
        let taken = Pinned::take(File::open(dir.path()).expect("there"));
        assert!(matches!(taken, Err(PinnedError::Irregular)), "{taken:?}");
    }

    #[test]
    fn a_digest_is_of_the_whole_file_wherever_it_was_read_to() {
        let content = vec![7; GULP + 1];
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(&content).expect("written");
        let found = digest(&file).expect("readable");
        assert_eq!(found, (content.len() as u64, Digest::of(&content)));
    }
}
