//! File names: which are left alone, and how the others are written into names of our own.
//!
//! A name in the inbox may hold anything but a slash and a NUL. What we write from it is printable,
//! short enough to carry a uuid and an ending, and can be read back. No file is touched here.

use std::{ffi::OsStr, fmt, os::unix::ffi::OsStrExt};

use steward_protocol::Digest;
use uuid::Uuid;

use super::report::is_hostile;

/// Longest name we write for a file of the inbox, in bytes: 255, the most a file system takes, less a
/// uuid and `--` before it and the longest ending, `.status.json`, behind it, with some room.
pub(super) const MAX_NAME: usize = 190;

/// Longest ending kept when a name is shortened, in bytes.
const MAX_ENDING: usize = 16;

/// Returns why a name is left alone, if it is.
pub(super) fn left_alone(name: &OsStr) -> Option<&'static str> {
    let name = name.as_bytes();
    if name.starts_with(b".") {
        return Some("its name begins with a dot");
    }
    if name.ends_with(b"~") {
        return Some("its name ends in ~: an editor's backup");
    }
    [".tmp", ".part", ".swp"]
        .iter()
        .any(|ending| name.ends_with(ending.as_bytes()))
        .then_some("its name ends in .tmp, .part or .swp: not complete yet")
}

/// Returns `name` in printable characters, shortened where it is too long; `%41` stands for the byte 0x41.
pub(super) fn escaped(name: &OsStr) -> String {
    let mut text = String::new();
    for chunk in name.as_bytes().utf8_chunks() {
        for character in chunk.valid().chars() {
            if is_hostile(character) || matches!(character, '%' | '/') {
                let mut buffer = [0; 4];
                push_bytes(&mut text, character.encode_utf8(&mut buffer).as_bytes());
            } else {
                text.push(character);
            }
        }
        push_bytes(&mut text, chunk.invalid());
    }
    if text.len() > MAX_NAME {
        text = shortened(&text);
    }
    text
}

/// Returns a name that was escaped before as it is; anything else is escaped now.
pub(super) fn written(name: &OsStr) -> String {
    match name.to_str() {
        Some(text) if !text.chars().any(is_hostile) => text.to_owned(),
        _ => escaped(name),
    }
}

fn push_bytes(text: &mut String, bytes: &[u8]) {
    for byte in bytes {
        let digit = |value: u8| char::from(b"0123456789ABCDEF"[usize::from(value & 15)]);
        text.extend(['%', digit(byte >> 4), digit(*byte)]);
    }
}

/// Keeps the beginning and the ending, which says the format, and tells the rest apart by a digest.
fn shortened(text: &str) -> String {
    let ending = match text.rfind('.') {
        Some(dot) if text.len() - dot <= MAX_ENDING => &text[dot..],
        _ => "",
    };
    let digest = Digest::of(text.as_bytes()).to_string();
    let mut room = MAX_NAME - ending.len() - 9;
    while !text.is_char_boundary(room) {
        room -= 1;
    }
    format!("{}~{}{ending}", &text[..room], &digest[..8])
}

/// The name of a claimed file: a uuid, which names the claim for ever, and the escaped name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claimed {
    /// The intake's id: version 7, so that sorting by name sorts by time.
    pub(super) intake: Uuid,
    /// The file's name, escaped.
    pub(super) name: String,
}

impl Claimed {
    /// Returns the claim that a file name in `.processing` or `.done` stands for.
    pub(super) fn parse(name: &OsStr) -> Option<Self> {
        let text = name.to_str()?;
        let (intake, rest) = text.split_at_checked(36)?;
        Some(Self {
            intake: Uuid::try_parse(intake).ok()?,
            name: rest.strip_prefix("--")?.to_owned(),
        })
    }
}

impl fmt::Display for Claimed {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}--{}", self.intake, self.name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::intake::Format, *};

    #[test]
    fn names_are_escaped_and_shortened_safely() {
        let long = format!("{}.yaml", "æ".repeat(125));
        for (name, expected) in [
            (&b"a.json"[..], "a.json".to_owned()),
            (b"restart nginx.json", "restart nginx.json".to_owned()),
            (b"a\nb.json", "a%0Ab.json".to_owned()),
            (b"\x1b[2J.json", "%1B[2J.json".to_owned()),
            (b"\xff\xfe.json", "%FF%FE.json".to_owned()),
            (b"100%.json", "100%25.json".to_owned()),
            ("\u{202e}x".as_bytes(), "%E2%80%AEx".to_owned()),
            ("æ.json".as_bytes(), "æ.json".to_owned()),
        ] {
            assert_eq!(escaped(OsStr::from_bytes(name)), expected);
        }
        let short = escaped(OsStr::new(&long));
        assert!(
            short.len() <= MAX_NAME && short.ends_with(".yaml"),
            "{short}"
        );
        let other = long.replace("æ.yaml", "ø.yaml");
        assert_ne!(escaped(OsStr::new(&other)), short);
    }

    #[test]
    fn unfinished_and_hidden_files_are_left_alone() {
        for name in [".a.json", "a.json~", "a.tmp", "a.json.part", ".a.swp", ".."] {
            assert!(left_alone(OsStr::new(name)).is_some(), "{name}");
        }
        for name in [
            "a.json",
            "tmp",
            "a",
            "..json".trim_start_matches('.'),
            "a~b",
        ] {
            assert!(left_alone(OsStr::new(name)).is_none(), "{name}");
        }
    }

    proptest! {
        #[test]
        fn every_name_becomes_one_that_can_be_written_and_read_back(
            bytes in proptest::collection::vec(1_u8.., 1..255),
        ) {
            let name = OsStr::from_bytes(&bytes);
            let escaped = escaped(name);
            prop_assert!(escaped.len() <= MAX_NAME);
            prop_assert!(!escaped.contains('/') && !escaped.chars().any(is_hostile));
            if !bytes.contains(&b'/') {
                prop_assert_eq!(Format::of_name(OsStr::new(&escaped)), Format::of_name(name));
            }
            let claimed = Claimed { intake: Uuid::from_u128(7), name: escaped };
            prop_assert_eq!(Claimed::parse(OsStr::new(&claimed.to_string())), Some(claimed));
        }
    }
}
