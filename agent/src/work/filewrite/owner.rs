//! Who a file belongs to: names and numbers of users and groups.

use nix::unistd::{Gid, Group, Uid, User};
use steward_protocol::body::WriteBody;

use super::WriteError;

/// Who a file is to belong to, as far as that was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Owner {
    /// The user.
    pub(super) uid: Option<u32>,
    /// The group.
    pub(super) gid: Option<u32>,
}

impl Owner {
    /// Looks up who a body names: `user`, `user:group` or `:group`.
    pub(super) fn wanted(body: &WriteBody) -> Result<Self, WriteError> {
        let Some(owner) = &body.owner else {
            return Ok(Self::default());
        };
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let find = |name: &str, kind, database, found: Option<u32>| match found {
            _ if name.is_empty() => Ok(None),
            Some(number) => Ok(Some(number)),
            None => Err(WriteError::Nobody {
                owner: name.to_owned(),
                kind,
                database,
            }),
        };
        let by_name = User::from_name(user).ok().flatten();
        let uid = by_name.map(|user| user.uid.as_raw()).or(user.parse().ok());
        let by_name = Group::from_name(group).ok().flatten();
        let gid = by_name
            .map(|group| group.gid.as_raw())
            .or(group.parse().ok());
        Ok(Self {
            uid: find(user, "user", "passwd", uid)?,
            gid: find(group, "group", "group", gid)?,
        })
    }
}

/// Returns the names of an owner and a group, or their numbers where there is no name.
pub(super) fn words(uid: u32, gid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    let group = group.map_or_else(|| gid.to_string(), |group| group.name);
    format!("{user}:{group}")
}
