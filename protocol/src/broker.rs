//! Which versions of nats-server are good enough, and the sentence that says why not.

use std::{fmt, str::FromStr};

/// A version of nats-server; a pre-release suffix is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ServerVersion {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
    /// Patch number.
    pub patch: u32,
}

/// A text that is not `major.minor.patch`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a server version; expected major.minor.patch")]
pub struct VersionError {
    /// The text found.
    pub found: String,
}

impl FromStr for ServerVersion {
    type Err = VersionError;

    fn from_str(text: &str) -> Result<Self, VersionError> {
        let error = || VersionError {
            found: text.to_owned(),
        };
        let core = text
            .trim_start_matches('v')
            .split(['-', '+'])
            .next()
            .unwrap_or_default();
        let numbers: Vec<u32> = core
            .split('.')
            .map(str::parse)
            .collect::<Result<_, _>>()
            .map_err(|_| error())?;
        match numbers.as_slice() {
            &[major, minor, patch] => Ok(Self {
                major,
                minor,
                patch,
            }),
            _ => Err(error()),
        }
    }
}

impl fmt::Display for ServerVersion {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// What we think of a server's version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Judgement {
    /// Good.
    Fine,
    /// Works, but has known holes; the sentence says which.
    Warn(String),
    /// Not used; the sentence says why.
    Refuse(String),
}

/// Judges a server by the version it reports when connecting.
///
/// Below 2.9 is refused; below 2.12.12, and 2.14 below 2.14.3, is warned about, because permission
/// holes were fixed there (2.13 has no fixed release and is warned about too).
pub fn judge(reported: &str) -> Judgement {
    let version: ServerVersion = match reported.parse() {
        Ok(version) => version,
        Err(_) => {
            return Judgement::Warn(format!(
                "the broker reports the version {reported:?}, which cannot be compared: make sure it is nats-server 2.12.12, 2.14.3 or newer"
            ));
        }
    };
    let at_least = |major, minor, patch| {
        version
            >= ServerVersion {
                major,
                minor,
                patch,
            }
    };
    if !at_least(2, 9, 0) {
        return Judgement::Refuse(format!(
            "nats-server {version} is older than 2.9, the oldest version this program is tested with: upgrade the broker to 2.12.12, 2.14.3 or newer"
        ));
    }
    let fixed = (at_least(2, 12, 12) && !at_least(2, 13, 0)) || at_least(2, 14, 3);
    if fixed {
        return Judgement::Fine;
    }
    Judgement::Warn(format!(
        "nats-server {version} has known permission holes that 2.12.12 and 2.14.3 closed: it works, but upgrade the broker before relying on its permissions"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_judged_at_their_borders() {
        let word = |reported: &str| match judge(reported) {
            Judgement::Fine => "fine",
            Judgement::Warn(_) => "warn",
            Judgement::Refuse(_) => "refuse",
        };
        for (reported, expected) in [
            ("2.8.4", "refuse"),
            ("2.9.0", "warn"),
            ("2.9.10", "warn"),
            ("2.12.11", "warn"),
            ("2.12.12", "fine"),
            ("2.13.0", "warn"),
            ("2.14.2", "warn"),
            ("2.14.3", "fine"),
            ("2.15.1", "fine"),
            ("v2.15.0-RC.1", "fine"),
            ("3.0.0", "fine"),
            ("banana", "warn"),
            ("", "warn"),
        ] {
            assert_eq!(word(reported), expected, "{reported}");
        }
    }
}
