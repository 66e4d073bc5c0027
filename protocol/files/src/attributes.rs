//! What a file is given besides its content: permissions and owner.
//!
//! Knows no names of users: they are numbers here.

use std::{
    fs::{File, Permissions},
    io,
    os::unix::fs::{MetadataExt, PermissionsExt, fchown},
};

/// Why a file did not get its attributes.
#[derive(Debug, thiserror::Error)]
pub enum AttributesError {
    /// The system does not say what it has.
    #[error("look at it")]
    Look(#[source] io::Error),
    /// It cannot be given away.
    #[error("set its owner")]
    Owner(#[source] io::Error),
    /// Its permissions cannot be set.
    #[error("set its permissions")]
    Permissions(#[source] io::Error),
}

/// What a file is given besides its content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Attributes {
    /// Its permissions.
    pub mode: u32,
    /// Its owner; the program's user where nothing is said.
    pub uid: Option<u32>,
    /// Its group; that of the program's user, or of the directory.
    pub gid: Option<u32>,
}

impl Attributes {
    /// Gives them to an open file. Not durable yet.
    ///
    /// # Errors
    ///
    /// Fails at what the system does not allow.
    pub fn give(&self, file: &File) -> Result<(), AttributesError> {
        let present = file.metadata().map_err(AttributesError::Look)?;
        // What it has already may be kept without the right to set it.
        let uid = self.uid.filter(|uid| *uid != present.uid());
        let gid = self.gid.filter(|gid| *gid != present.gid());
        // The owner first: changing it takes set-user-id away.
        if uid.is_some() || gid.is_some() {
            fchown(file, uid, gid).map_err(AttributesError::Owner)?;
        }
        file.set_permissions(Permissions::from_mode(self.mode))
            .map_err(AttributesError::Permissions)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_gets_its_permissions_and_keeps_the_owner_it_has() {
        let file = tempfile::tempfile().expect("a file");
        let before = file.metadata().expect("there");
        for (mode, uid, gid) in [
            (0o640, None, None),
            (0o4755, Some(before.uid()), Some(before.gid())),
        ] {
            let attributes = Attributes { mode, uid, gid };
            attributes.give(&file).expect("one's own file");
            let found = file.metadata().expect("there");
            assert_eq!(found.mode() & 0o7777, mode);
            assert_eq!((found.uid(), found.gid()), (before.uid(), before.gid()));
        }
    }
}
