//! A file that only one program at a time may hold.
//!
//! The system lets go of it with the program, so that nothing is left after a crash.

use std::{
    fs::{File, TryLockError},
    path::Path,
};

use crate::FileError;

/// Locks a file, made where there is none, for as long as what is returned lives. Nothing is returned
/// when somebody else holds it.
///
/// # Errors
///
/// Fails when it cannot be opened, and when the file system knows no locks.
pub fn lock(path: &Path) -> Result<Option<File>, FileError> {
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path)
        .map_err(FileError::new("open", path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => Ok(None),
        Err(TryLockError::Error(error)) => Err(FileError::new("lock", path)(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_held_once_and_free_again_afterwards() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("lock");
        let first = lock(&path).expect("a writable directory");
        assert!(first.is_some());
        assert!(lock(&path).expect("it can be asked").is_none());
        drop(first);
        assert!(lock(&path).expect("it can be asked").is_some());
        let missing = dir.path().join("missing/lock");
        assert_eq!(lock(&missing).expect_err("no directory").path, missing);
    }
}
