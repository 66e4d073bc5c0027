//! Who a file belongs to: names and numbers of users and groups, wherever this node keeps them. Blocks.

use nix::unistd::{Gid, Group, Uid, User};

/// Who a file is to belong to, as far as that was said.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Owner {
    /// The user.
    pub(crate) uid: Option<u32>,
    /// The group.
    pub(crate) gid: Option<u32>,
}

/// Nobody has this name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "give the file to {owner:?}: this node knows no {kind} of this name; use a number, or a name that `getent {database}` shows"
)]
pub(crate) struct Nobody {
    /// The name.
    owner: String,
    /// User or group.
    kind: &'static str,
    /// Where names are kept.
    database: &'static str,
}

impl Owner {
    /// Looks up who is named: `user`, `user:group` or `:group`, each by name or number. A name comes
    /// before a number, as with `chown`.
    pub(crate) fn named(owner: Option<&str>) -> Result<Self, Nobody> {
        let Some(owner) = owner else {
            return Ok(Self::default());
        };
        let (user, group) = owner.split_once(':').unwrap_or((owner, ""));
        let find = |name: &str, kind, database, found: Option<u32>| match found {
            _ if name.is_empty() => Ok(None),
            Some(number) => Ok(Some(number)),
            None => Err(Nobody {
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
pub(crate) fn words(uid: u32, gid: u32) -> String {
    let user = User::from_uid(Uid::from_raw(uid)).ok().flatten();
    let group = Group::from_gid(Gid::from_raw(gid)).ok().flatten();
    let user = user.map_or_else(|| uid.to_string(), |user| user.name);
    let group = group.map_or_else(|| gid.to_string(), |group| group.name);
    format!("{user}:{group}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_owner_is_a_name_or_a_number_of_this_node() {
        for (text, expected) in [
            ("0", Some((Some(0), None))),
            ("root", Some((Some(0), None))),
            ("root:root", Some((Some(0), Some(0)))),
            (":7", Some((None, Some(7)))),
            ("nobody-of-that-name", None),
            ("root:nobody-of-that-name", None),
        ] {
            let found = Owner::named(Some(text)).ok();
            let found = found.map(|owner| (owner.uid, owner.gid));
            assert_eq!(found, expected, "{text}");
        }
        assert_eq!(Owner::named(None), Ok(Owner::default()));
        assert_eq!(words(0, 0), "root:root");
    }
}
