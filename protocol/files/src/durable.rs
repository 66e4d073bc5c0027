//! Files and directories that come to their places as a whole, and stay there when the power goes.
//!
//! The order is always the same: bytes, then their name, then the directory that holds the name.

use std::{
    ffi::OsStr,
    fs::{self, File},
    io::{self, Write},
    os::{fd::BorrowedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, Mode, OFlags, RenameFlags},
    io::Errno,
};

/// Permissions of a directory that is made on the way; the umask may take more away.
const NEW_DIRECTORY: u32 = 0o755;

/// Why something is not there durably.
#[derive(Debug, thiserror::Error)]
#[error("{doing} {path}", path = .path.display())]
pub struct FileError {
    /// What was tried.
    pub doing: &'static str,
    /// With what.
    pub path: PathBuf,
    /// Why not.
    #[source]
    pub source: io::Error,
}

impl FileError {
    pub(crate) fn new(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self {
            doing,
            path,
            source,
        }
    }
}

/// What may be in a file's place already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Over {
    /// Whatever there is, except a directory.
    Anything,
    /// Nothing, at the very moment of the rename.
    Nothing,
}

/// A place for a file: a directory that is held open, and names in it.
#[derive(Debug, Clone, Copy)]
pub struct Spot<'a> {
    /// The directory.
    pub directory: BorrowedFd<'a>,
    /// The file's name.
    pub name: &'a OsStr,
    /// Its name until it is complete.
    pub beside: &'a OsStr,
}

impl Spot<'_> {
    /// Puts `content` in the place: all of it, durable when this returns, or what was there before.
    ///
    /// Whoever calls this sees to it that nobody else writes beside the file.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn replace(&self, content: &[u8], mode: u32) -> io::Result<()> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::TRUNC | OFlags::NOFOLLOW;
        let file = rustix::fs::openat(
            self.directory,
            self.beside,
            flags | OFlags::CLOEXEC,
            Mode::from_raw_mode(mode),
        )?;
        let mut file = File::from(file);
        file.write_all(content)?;
        file.sync_all()?;
        self.rename(Over::Anything)?;
        self.sync()
    }

    /// Gives what is beside the place its name. Not durable until [`Self::sync`].
    ///
    /// # Errors
    ///
    /// Fails when there is something that must not be, and when the system says no.
    pub fn rename(&self, over: Over) -> io::Result<()> {
        let (directory, from, to) = (self.directory, self.beside, self.name);
        match over {
            Over::Anything => rustix::fs::renameat(directory, from, directory, to)?,
            Over::Nothing => self.rename_new()?,
        }
        Ok(())
    }

    /// Renames it unless something is there; nothing can come in between.
    fn rename_new(&self) -> Result<(), Errno> {
        let (directory, from, to) = (self.directory, self.beside, self.name);
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(directory, from, directory, to, flags) {
            // Not every file system can do it; a second name does the same.
            Err(Errno::INVAL | Errno::NOSYS) => self.link_new(),
            other => other,
        }
    }

    fn link_new(&self) -> Result<(), Errno> {
        let (directory, from, to) = (self.directory, self.beside, self.name);
        rustix::fs::linkat(directory, from, directory, to, AtFlags::empty())?;
        rustix::fs::unlinkat(directory, from, AtFlags::empty())
    }

    /// Makes the names in the directory durable.
    ///
    /// # Errors
    ///
    /// Fails when the system says no.
    pub fn sync(&self) -> io::Result<()> {
        Ok(rustix::fs::fsync(self.directory)?)
    }
}

/// Moves the complete file `from` to its place `to` in the same directory. Durable when this returns.
///
/// # Errors
///
/// Fails when the system says no.
pub fn put(from: &Path, to: &Path) -> Result<(), FileError> {
    File::open(from)
        .and_then(|file| file.sync_all())
        .map_err(FileError::new("make durable", from))?;
    fs::rename(from, to).map_err(FileError::new("move into place", to))?;
    let directory = directory_of(to);
    sync_directory(directory).map_err(FileError::new("make durable", directory))
}

fn directory_of(path: &Path) -> &Path {
    let directory = path.parent().unwrap_or(Path::new("/"));
    match directory.as_os_str().is_empty() {
        true => Path::new("."),
        false => directory,
    }
}

/// Makes the names in a directory durable.
///
/// # Errors
///
/// Fails when it cannot be opened, and when the system says no.
pub fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

/// Removes a file, if it is there. Not durable.
///
/// # Errors
///
/// Fails when it stays.
pub fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

/// Makes a directory and those above it, each durable before the next.
///
/// # Errors
///
/// Names the directory that cannot be made.
pub fn make_directories(directory: &Path) -> Result<(), FileError> {
    let above = directory_of(directory);
    if directory.is_dir() {
        // Whoever made it may have been killed before its name was durable; what we made we may open.
        sync_directory(above).ok();
        return Ok(());
    }
    make_directories(above)?;
    let made = match fs::DirBuilder::new().mode(NEW_DIRECTORY).create(directory) {
        // Somebody else was faster.
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && directory.is_dir() => Ok(()),
        made => made,
    };
    made.and_then(|()| sync_directory(above))
        .map_err(FileError::new("make the directory", directory))
}

#[cfg(test)]
mod tests {
    use std::os::{fd::AsFd, unix::fs::PermissionsExt};

    use super::*;

    const NAME: &str = "it";
    const BESIDE: &str = ".it.new";

    fn spot(directory: &File) -> Spot<'_> {
        Spot {
            directory: directory.as_fd(),
            name: OsStr::new(NAME),
            beside: OsStr::new(BESIDE),
        }
    }

    #[test]
    fn a_file_is_replaced_as_a_whole_and_nothing_stays_beside_it() {
        let dir = tempfile::tempdir().expect("a directory");
        let (path, beside) = (dir.path().join(NAME), dir.path().join(BESIDE));
        let directory = File::open(dir.path()).expect("a directory");
        // What an earlier try left half done is overwritten.
        fs::write(&beside, b"longer than what comes").expect("written");
        for content in [&b"one"[..], b"two"] {
            let replaced = spot(&directory).replace(content, 0o600);
            replaced.expect("a writable directory");
            assert_eq!(fs::read(&path).expect("there"), content);
            assert!(!beside.exists());
        }
    }

    #[test]
    fn a_link_beside_a_file_is_not_written_through() {
        let dir = tempfile::tempdir().expect("a directory");
        let elsewhere = dir.path().join("elsewhere");
        fs::write(&elsewhere, b"kept").expect("written");
        std::os::unix::fs::symlink(&elsewhere, dir.path().join(BESIDE)).expect("linked");
        let directory = File::open(dir.path()).expect("a directory");
        let replaced = spot(&directory).replace(b"new", 0o600);
        assert!(replaced.is_err());
        assert_eq!(fs::read(&elsewhere).expect("there"), b"kept");
    }

    #[test]
    fn what_must_not_be_there_is_never_replaced_whatever_the_file_system_can_do() {
        type Rename = fn(&Spot<'_>) -> io::Result<()>;
        let ways: [(&str, Rename); 2] = [
            ("rename", |spot| spot.rename(Over::Nothing)),
            ("link", |spot| Ok(spot.link_new()?)),
        ];
        for (way, rename) in ways {
            let dir = tempfile::tempdir().expect("a directory");
            let (path, beside) = (dir.path().join(NAME), dir.path().join(BESIDE));
            let directory = File::open(dir.path()).expect("a directory");
            fs::write(&beside, b"one").expect("written");
            rename(&spot(&directory)).expect("nothing is there");
            assert!(!beside.exists(), "{way}");
            fs::write(&beside, b"two").expect("written");
            let refused = rename(&spot(&directory)).expect_err("it is there");
            assert_eq!(refused.kind(), io::ErrorKind::AlreadyExists, "{way}");
            assert_eq!(fs::read(&path).expect("there"), b"one", "{way}");
            spot(&directory).rename(Over::Anything).expect("replaced");
            assert_eq!(fs::read(&path).expect("there"), b"two", "{way}");
        }
    }

    #[test]
    fn a_file_is_put_in_its_place_and_one_that_is_missing_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let (from, to) = (dir.path().join(BESIDE), dir.path().join(NAME));
        fs::write(&from, b"content").expect("written");
        put(&from, &to).expect("put");
        assert_eq!(fs::read(&to).expect("there"), b"content");
        let failed = put(&from, &to).expect_err("it was moved");
        assert_eq!(failed.path, from);
        assert_eq!(fs::read(&to).expect("there"), b"content");
    }

    #[test]
    fn a_file_is_removed_once_and_a_directory_never() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join(NAME);
        fs::write(&path, b"content").expect("written");
        for _ in 0..2 {
            remove(&path).expect("it goes, or is gone");
            assert!(!path.exists());
        }
        assert!(remove(dir.path()).is_err());
    }

    #[test]
    fn directories_are_made_down_to_the_last_one_and_a_file_in_the_way_is_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let deep = dir.path().join("a/b/c");
        for _ in 0..2 {
            make_directories(&deep).expect("made, or there");
        }
        let mode = fs::metadata(&deep).expect("there").permissions().mode();
        assert_eq!(mode & 0o022, 0, "others may write to it");
        fs::write(dir.path().join("file"), b"").expect("written");
        let failed = make_directories(&dir.path().join("file/below")).expect_err("a file");
        assert_eq!(failed.path, dir.path().join("file"));
    }
}
