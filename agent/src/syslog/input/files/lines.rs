//! Cuts what was read of a file into messages: lines, or several lines where a pattern says how the first one looks.
//!
//! It is given the bytes from the beginning of a message on, says how many of them are done with, and is given the rest
//! again with what follows. It reads no files.

use memchr::memchr;
use regex::bytes::Regex;

/// How messages are told apart.
#[derive(Debug)]
pub(super) struct Cutter {
    /// Bytes of a message that are kept.
    pub(super) keep: usize,
    /// What the first line of a message looks like; without it, every line is one.
    pub(super) first: Option<Regex>,
    /// Bytes after which a message is not joined with further lines, and one that has no end is held in short.
    pub(super) room: usize,
}

/// What is known of what comes behind the bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Behind {
    /// More may come.
    Open,
    /// No line comes for now: lines that are whole are joined no longer.
    Quiet,
    /// Nothing comes any more: what has no end is a message, too.
    Nothing,
}

/// A line that is longer than there is room: its beginning, and its length so far.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Long {
    kept: Vec<u8>,
    length: u64,
}

impl Cutter {
    /// Gives each message and its length as it came to `take`, and returns how many bytes are done with.
    pub(super) fn cut(
        &self,
        long: &mut Option<Long>,
        bytes: &[u8],
        behind: Behind,
        mut take: impl FnMut(&[u8], u64),
    ) -> usize {
        let mut at = 0;
        if let Some(open) = long {
            at = open.add(bytes, self.keep);
            let has_end = at < bytes.len();
            if !has_end && behind != Behind::Nothing {
                return at;
            }
            at += usize::from(has_end);
            open.give(&mut take);
            *long = None;
        }
        while let Some(length) = self.message(&bytes[at..], behind) {
            self.give(&bytes[at..at + length], &mut take);
            at += length;
        }
        // A hole that a program has left which went on where it was when its file had been truncated.
        at += bytes[at..].iter().take_while(|byte| **byte == 0).count();
        if bytes.len() - at >= self.room {
            let mut open = Long::default();
            at += open.add(&bytes[at..], self.keep);
            *long = Some(open);
        }
        at
    }

    /// Returns the length of the message at the beginning, its end included; nothing, if that is not known yet.
    fn message(&self, bytes: &[u8], behind: Behind) -> Option<usize> {
        if bytes.is_empty() {
            return None;
        }
        let Some(first) = &self.first else {
            return line(bytes, behind);
        };
        let mut end = line(bytes, behind)?;
        while end < bytes.len() {
            let length = match memchr(b'\n', &bytes[end..]) {
                Some(length) => length,
                None if behind == Behind::Nothing => bytes.len() - end,
                // Whether a line that is not whole belongs to it shows when it is.
                None if behind == Behind::Quiet || bytes.len() >= self.room => return Some(end),
                None => return None,
            };
            if first.is_match(&bytes[end..end + length]) {
                return Some(end);
            }
            end = (end + length + 1).min(bytes.len());
        }
        (behind != Behind::Open || bytes.len() >= self.room).then_some(end)
    }

    fn give(&self, message: &[u8], take: &mut impl FnMut(&[u8], u64)) {
        let holes = message.iter().take_while(|byte| **byte == 0).count();
        let message = trimmed(&message[holes..]);
        if !message.is_empty() {
            take(
                &message[..message.len().min(self.keep)],
                message.len() as u64,
            );
        }
    }
}

impl Long {
    /// Adds what there is up to the end of the line, and returns how much that is.
    fn add(&mut self, bytes: &[u8], keep: usize) -> usize {
        let length = memchr(b'\n', bytes).unwrap_or(bytes.len());
        let room = keep.saturating_sub(self.kept.len()).min(length);
        self.kept.extend_from_slice(&bytes[..room]);
        self.length += length as u64;
        length
    }

    fn give(&self, take: &mut impl FnMut(&[u8], u64)) {
        take(&self.kept, self.length);
    }
}

fn line(bytes: &[u8], behind: Behind) -> Option<usize> {
    match memchr(b'\n', bytes) {
        Some(length) => Some(length + 1),
        None => (behind == Behind::Nothing).then_some(bytes.len()),
    }
}

/// Takes the end of the line away; those within a message stay.
pub(in super::super) fn trimmed(message: &[u8]) -> &[u8] {
    let mut end = message.len();
    while end > 0 && matches!(message[end - 1], b'\n' | b'\r') {
        end -= 1;
    }
    &message[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Cuts a text that comes in pieces, as a file that grows is read.
    fn cut(
        first: Option<&str>,
        keep: usize,
        pieces: &[&str],
        last: Behind,
    ) -> (Vec<String>, usize) {
        let cutter = Cutter {
            keep,
            first: first.map(|text| Regex::new(text).expect("a pattern")),
            room: 64,
        };
        let (mut held, mut long, mut seen) = (Vec::new(), None, Vec::new());
        for (index, piece) in pieces.iter().enumerate() {
            held.extend_from_slice(piece.as_bytes());
            let is_last = index + 1 == pieces.len();
            let behind = if is_last { last } else { Behind::Open };
            let done = cutter.cut(&mut long, &held, behind, |message, length| {
                let text = String::from_utf8_lossy(message).into_owned();
                let cut = length - message.len() as u64;
                seen.push(if cut > 0 {
                    format!("{text}+{cut}")
                } else {
                    text
                });
            });
            held.drain(..done);
        }
        (seen, held.len())
    }

    #[test]
    fn lines_are_messages_and_what_has_no_end_is_held() {
        use Behind::{Nothing, Open, Quiet};
        let long = "x".repeat(100);
        let rows: &[(&[&str], Behind, &[&str], usize)] = &[
            (&["one\ntwo\n"], Open, &["one", "two"], 0),
            (&["one\r\ntwo\r\n\r\n\n"], Open, &["one", "two"], 0),
            (&["one\ntw", "o\nthree"], Open, &["one", "two"], 5),
            (&["one\nhalf"], Quiet, &["one"], 4),
            (&["one\nhalf"], Nothing, &["one", "half"], 0),
            (&["", "\n", "a\n"], Open, &["a"], 0),
            (
                &["\0\0\0\0", "\0\0one\n\0\0two\n"],
                Open,
                &["one", "two"],
                0,
            ),
            (&["one\n\0\0\0"], Nothing, &["one"], 0),
            (
                &[&long, &long, "\nnext\n"],
                Open,
                &["xxxxxxxxxx+190", "next"],
                0,
            ),
            (&[&long, &long], Nothing, &["xxxxxxxxxx+190"], 0),
            (&["elevenbytes\n"], Open, &["elevenbyte+1"], 0),
            (&["a\rb\n"], Open, &["a\rb"], 0),
        ];
        for (pieces, behind, wanted, held) in rows {
            let seen = cut(None, 10, pieces, *behind);
            assert_eq!(seen.0, *wanted, "{pieces:?}");
            assert_eq!(seen.1, *held, "{pieces:?}");
        }
    }

    #[test]
    fn lines_are_joined_until_one_begins_a_message() {
        use Behind::{Nothing, Open, Quiet};
        let rows: &[(&[&str], Behind, &[&str], usize)] = &[
            (&["1 a\n  b\n  c\n2 d\n"], Open, &["1 a\n  b\n  c"], 4),
            (&["1 a\n  b\n", "  c\n2"], Open, &[], 13),
            (
                &["1 a\n  b\n  c\n2 d\n"],
                Quiet,
                &["1 a\n  b\n  c", "2 d"],
                0,
            ),
            (&["1 a\n  b\n  hal"], Quiet, &["1 a\n  b"], 5),
            (&["1 a\n  b\n  hal"], Nothing, &["1 a\n  b\n  hal"], 0),
            (&["  before\n1 a\n2 b\n"], Open, &["  before", "1 a"], 4),
            (&["1 a\r\n  b\r\n2 c\r\n"], Open, &["1 a\r\n  b"], 5),
        ];
        for (pieces, behind, wanted, held) in rows {
            let seen = cut(Some(r"^\d "), 100, pieces, *behind);
            assert_eq!(seen.0, *wanted, "{pieces:?}");
            assert_eq!(seen.1, *held, "{pieces:?}");
        }
    }

    #[test]
    fn a_message_is_joined_with_no_more_lines_than_there_is_room() {
        let text = format!("1 a\n{}", "  continued\n".repeat(20));
        let (seen, held) = cut(Some(r"^\d "), 100, &[&text, "2 b\n"], Behind::Quiet);
        assert!(seen.len() > 1 && held == 0, "{seen:?}");
        let lines: usize = seen.iter().map(|message| message.lines().count()).sum();
        assert!(lines <= 22, "{seen:?}");
        assert_eq!(seen.last().map(String::as_str), Some("2 b"));
    }
}
