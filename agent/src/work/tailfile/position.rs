//! Where following ended: enough to find the place again, even in a file that was renamed or copied.

use std::fmt;

use serde::{Deserialize, Serialize};

/// A place in a file. Written as `device-inode-offset-print`, so that it needs no escaping in a message.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Position {
    /// The file system.
    pub(super) device: u64,
    /// The file in it.
    pub(super) inode: u64,
    /// Bytes that were given.
    pub(super) offset: u64,
    /// Digest of the first of them and the last.
    pub(super) fingerprint: String,
}

/// The last line of a `tailfile` may be given as it is.
#[derive(Deserialize)]
struct Line {
    from: String,
}

impl Position {
    /// Reads a position, or the line it stood on.
    pub(super) fn read(text: &str) -> Option<Self> {
        if let Ok(Line { from }) = serde_json::from_str(text) {
            return Self::plain(&from);
        }
        Self::plain(text)
    }

    fn plain(text: &str) -> Option<Self> {
        let mut parts = text.trim().split('-');
        let mut number = || parts.next()?.parse().ok();
        let (device, inode, offset) = (number()?, number()?, number()?);
        let fingerprint = parts.next()?.to_owned();
        let hexadecimal = fingerprint.bytes().all(|byte| byte.is_ascii_hexdigit());
        let whole = !fingerprint.is_empty() && hexadecimal && parts.next().is_none();
        whole.then_some(Self {
            device,
            inode,
            offset,
            fingerprint,
        })
    }
}

impl fmt::Display for Position {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            device,
            inode,
            offset,
            fingerprint,
        } = self;
        write!(formatter, "{device}-{inode}-{offset}-{fingerprint}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_position_is_read_back_as_it_was_written_alone_or_with_its_line() {
        let position = Position {
            device: 64_769,
            inode: 12,
            offset: u64::MAX,
            fingerprint: "00ff".to_owned(),
        };
        let text = position.to_string();
        assert_eq!(Position::read(&text), Some(position.clone()));
        let line = format!("{{\"from\":\"{text}\",\"device\":1}}");
        assert_eq!(Position::read(&line), Some(position));
    }

    #[test]
    fn what_is_no_position_is_not_taken_for_one() {
        for text in [
            "",
            "1-2-3",
            "1-2-3-",
            "1-2-3-xyz",
            "1-2-3-ff-1",
            "1--3-ff",
            "{}",
            "a-2-3-ff",
        ] {
            assert_eq!(Position::read(text), None, "{text:?}");
        }
    }
}
