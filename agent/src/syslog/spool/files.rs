//! The real disk of a spool: a directory of the file system. It knows nothing of what is in the files.

use std::{
    fs::{self, DirBuilder, File, OpenOptions},
    io,
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use super::disk::{Disk, Entry};

/// A directory of the file system.
#[derive(Debug)]
pub struct Files {
    root: PathBuf,
}

impl Files {
    /// Opens the directory; it is made, for the owner alone, unless it is there.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be made.
    pub fn open(root: &Path) -> io::Result<Self> {
        make(root)?;
        Ok(Self {
            root: root.to_owned(),
        })
    }

    fn path(&self, dir: &str, name: &str) -> PathBuf {
        self.root.join(dir).join(name)
    }
}

fn make(path: &Path) -> io::Result<()> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    path.parent().map_or(Ok(()), sync)
}

fn sync(dir: &Path) -> io::Result<()> {
    File::open(dir)?.sync_all()
}

impl Disk for Files {
    type File = File;

    fn dirs(&mut self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.root)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                names.extend(entry.file_name().into_string().ok());
            }
        }
        Ok(names)
    }

    fn files(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        let mut entries = Vec::new();
        for entry in fs::read_dir(self.root.join(dir))? {
            let entry = entry?;
            let meta = entry.metadata()?;
            if !meta.is_file() {
                continue;
            }
            if let Ok(name) = entry.file_name().into_string() {
                let bytes = meta.len();
                entries.push(Entry { name, bytes });
            }
        }
        Ok(entries)
    }

    fn make_dir(&mut self, dir: &str) -> io::Result<()> {
        make(&self.root.join(dir))
    }

    fn create(&mut self, dir: &str, name: &str) -> io::Result<File> {
        OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(self.path(dir, name))
    }

    fn open(&mut self, dir: &str, name: &str) -> io::Result<File> {
        File::open(self.path(dir, name))
    }

    fn write(&mut self, file: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
        file.write_all_at(bytes, at)
    }

    fn read(&mut self, file: &mut File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        let mut filled = 0;
        while filled < bytes.len() {
            match file.read_at(&mut bytes[filled..], at + filled as u64) {
                Ok(0) => break,
                Ok(more) => filled += more,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(filled)
    }

    fn sync(&mut self, file: &mut File) -> io::Result<()> {
        file.sync_data()
    }

    fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        sync(&self.root.join(dir))
    }

    fn truncate(&mut self, file: &mut File, bytes: u64) -> io::Result<()> {
        file.set_len(bytes)
    }

    fn rename(&mut self, dir: &str, from: &str, to: &str) -> io::Result<()> {
        fs::rename(self.path(dir, from), self.path(dir, to))
    }

    fn remove(&mut self, dir: &str, name: &str) -> io::Result<()> {
        fs::remove_file(self.path(dir, name))
    }
}
