//! A socket's place in the file system: taken over from a program that is gone, never from one that listens, and given
//! back at the end.

use std::{
    fs,
    io::{self, ErrorKind},
    os::unix::{
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
        net::{UnixDatagram, UnixStream},
    },
    path::{Path, PathBuf},
};

/// A place that is ours until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    path: PathBuf,
    /// Device and inode of what was put there.
    file: (u64, u64),
}

/// What listens at a place.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Stream,
    Datagram,
}

/// Clears a place of a socket that nobody listens on any more.
pub(super) fn clear(path: &Path, kind: Kind) -> io::Result<()> {
    match fs::symlink_metadata(path) {
        Ok(found) if found.file_type().is_socket() => {}
        Ok(_) => {
            let problem = "something that is no socket stands in its place";
            return Err(io::Error::new(ErrorKind::AlreadyExists, problem));
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    let answer = match kind {
        Kind::Stream => UnixStream::connect(path).map(drop),
        Kind::Datagram => UnixDatagram::unbound().and_then(|socket| socket.connect(path)),
    };
    match answer {
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
        Ok(()) | Err(_) => {
            let problem = "another program listens there";
            Err(io::Error::new(ErrorKind::AddrInUse, problem))
        }
    }
}

impl Place {
    /// Takes note of a socket that was just put there, and lets in who may send.
    pub(super) fn take(path: &Path, mode: u32) -> io::Result<Self> {
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        let found = fs::symlink_metadata(path)?;
        Ok(Self {
            path: path.to_owned(),
            file: (found.dev(), found.ino()),
        })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        // Another program may have put its own there meanwhile.
        let found = fs::symlink_metadata(&self.path);
        if found.is_ok_and(|found| (found.dev(), found.ino()) == self.file) {
            fs::remove_file(&self.path).ok();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn only_a_socket_that_nobody_listens_on_makes_room() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        clear(&path, Kind::Stream).expect("an empty place is clear");
        for kind in [Kind::Stream, Kind::Datagram] {
            let listener = UnixListener::bind(&path).expect("a listener");
            let datagrams = UnixDatagram::bind(dir.path().join("gram")).expect("a socket");
            let gram = dir.path().join("gram");
            let taken = clear(if kind == Kind::Stream { &path } else { &gram }, kind);
            assert_eq!(
                taken.map_err(|error| error.kind()),
                Err(ErrorKind::AddrInUse)
            );
            drop((listener, datagrams));
            clear(&path, Kind::Stream).expect("a stale socket goes");
            clear(&gram, Kind::Datagram).expect("a stale socket goes");
            assert!(!path.exists() && !gram.exists());
        }
        fs::write(&path, "precious").expect("a file");
        assert!(clear(&path, Kind::Stream).is_err() && path.exists());
    }

    #[test]
    fn a_place_is_given_back_unless_it_is_somebody_elses_by_now() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("log");
        let listener = UnixListener::bind(&path).expect("a listener");
        let place = Place::take(&path, 0o600).expect("a place");
        fs::remove_file(&path).expect("it goes");
        let other = UnixListener::bind(&path).expect("another listener");
        drop(place);
        assert!(path.exists());
        let place = Place::take(&path, 0o600).expect("a place");
        drop(place);
        assert!(!path.exists());
        drop((listener, other));
    }
}
