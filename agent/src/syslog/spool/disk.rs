//! What a spool needs of a disk, so that tests can take its power away.
//!
//! A directory per domain, files in it. Nothing is durable before it is synced: bytes by [`Disk::sync`], names by
//! [`Disk::sync_dir`].

use std::io;

/// A file in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its length.
    pub bytes: u64,
}

/// A directory of directories of files.
pub trait Disk {
    /// An open file.
    type File;

    /// Returns the names of all directories.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn dirs(&mut self) -> io::Result<Vec<String>>;

    /// Returns the files of a directory.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is none.
    fn files(&mut self, dir: &str) -> io::Result<Vec<Entry>>;

    /// Makes a directory, durably, unless it is there.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn make_dir(&mut self, dir: &str) -> io::Result<()>;

    /// Makes an empty file; one of the same name is emptied.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn create(&mut self, dir: &str, name: &str) -> io::Result<Self::File>;

    /// Opens a file for reading.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is none.
    fn open(&mut self, dir: &str, name: &str) -> io::Result<Self::File>;

    /// Writes all of `bytes` at a place in the file.
    ///
    /// # Errors
    ///
    /// Fails when not all could be written; how many were is unknown.
    fn write(&mut self, file: &mut Self::File, at: u64, bytes: &[u8]) -> io::Result<()>;

    /// Fills `bytes` from a place in the file, and returns how many there were.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn read(&mut self, file: &mut Self::File, at: u64, bytes: &mut [u8]) -> io::Result<usize>;

    /// Makes the bytes of the file durable.
    ///
    /// # Errors
    ///
    /// Fails when the disk does; what was written since the last time may then be lost, whatever a later sync says.
    fn sync(&mut self, file: &mut Self::File) -> io::Result<()>;

    /// Makes the names in a directory durable.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn sync_dir(&mut self, dir: &str) -> io::Result<()>;

    /// Cuts the file.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    fn truncate(&mut self, file: &mut Self::File, bytes: u64) -> io::Result<()>;

    /// Gives a file another name, in the place of one that has it.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is none.
    fn rename(&mut self, dir: &str, from: &str, to: &str) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is none.
    fn remove(&mut self, dir: &str, name: &str) -> io::Result<()>;
}
