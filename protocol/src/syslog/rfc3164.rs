//! The header of RFC 3164 and of what is sent in its name.
//!
//! The RFC describes what was seen, not what must be, so these are rules of ours, chosen where rsyslog and
//! syslog-ng agree to give what they give:
//!
//! 1. Spaces and a sequence number (`29: `, Cisco) may precede the time.
//! 2. With a time: the next word is the host, unless it is a tag (it ends with `:`, has a `[` within, or is the
//!    last word); a `:` right behind the time says there is no host. `-` is no host.
//! 3. The tag follows: the name up to the first `:`, `[` or space; then, in brackets, the pid; then a `:`. The colon may be
//!    missing: one word behind the host is taken as the tag all the same. Two spaces behind the host: no tag.
//!    A colon that stands alone (Cisco ASA: `host : %ASA-…`): no tag either.
//! 4. Without a time (Python's handler, `openlog` of small systems) there is no host, and a tag only if a colon or
//!    a pid proves it and it looks like a name: `app: text`, `app[12]: text`. Free text and JSON have none.
//! 5. One space behind the tag is dropped, not more: the rest is the message's own indentation.

use super::{
    Form, Header,
    scan::{take_digits, trim_spaces, word},
    stamp::{self, Stamp},
};

/// Reads what follows the PRI as a header with a time; none when it has none.
pub(super) fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let bytes = trim_spaces(bytes);
    let (stamp, rest) = time(bytes).or_else(|| time(without_sequence(bytes)?))?;
    let (rest, hosted) = match rest.strip_prefix(b":") {
        Some(rest) => (rest, false),
        None => (rest, true),
    };
    // A time is followed by a space, or it is the beginning of something else.
    if !matches!(rest.first(), Some(b' ') | None) {
        return None;
    }
    let rest = trim_spaces(rest);
    let (host, rest) = if hosted { host(rest) } else { (None, rest) };
    let tag = Tag::read(rest);
    Some(Header {
        form: Form::Rfc3164,
        stamp: Some(stamp),
        host,
        app: tag.name,
        procid: tag.pid,
        msgid: None,
        rest: tag.rest,
    })
}

/// Reads what follows the PRI where there is no time.
pub(super) fn timeless(bytes: &[u8]) -> Header<'_> {
    let tag = Tag::read(trim_spaces(bytes));
    let tag = if tag.proven && tag.name.is_some_and(is_plain) {
        tag
    } else {
        Tag::none(bytes)
    };
    Header {
        form: Form::Pri,
        stamp: None,
        host: None,
        app: tag.name,
        procid: tag.pid,
        msgid: None,
        rest: tag.rest,
    }
}

fn is_plain(name: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii_alphanumeric() || b"._-/@%+".contains(byte);
    name.iter().all(plain)
}

fn time(bytes: &[u8]) -> Option<(Stamp<'_>, &[u8])> {
    if bytes.first().is_some_and(u8::is_ascii_digit) {
        stamp::rfc3339(bytes)
    } else {
        stamp::rfc3164(bytes)
    }
}

/// Passes over `29: `, also twice: Cisco's own number and the one of its logging.
fn without_sequence(bytes: &[u8]) -> Option<&[u8]> {
    let number = |bytes| {
        let (_, rest) = take_digits(bytes, 1..=9)?;
        Some(trim_spaces(rest.strip_prefix(b": ")?))
    };
    let rest = number(bytes)?;
    Some(number(rest).unwrap_or(rest))
}

/// Takes the host off, if the word is one.
fn host(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let (first, rest) = word(bytes);
    let Some(rest) = rest else {
        return (None, bytes);
    };
    let bracket = first.iter().position(|byte| *byte == b'[');
    // A bracket in front is an address; within, it is a pid.
    if first.last() == Some(&b':') || bracket.is_some_and(|at| at > 0) {
        return (None, bytes);
    }
    ((first != b"-").then_some(first), rest)
}

/// What names the program.
struct Tag<'a> {
    name: Option<&'a [u8]>,
    pid: Option<&'a [u8]>,
    /// Whether a colon or a pid says that it is one.
    proven: bool,
    rest: &'a [u8],
}

impl<'a> Tag<'a> {
    fn none(rest: &'a [u8]) -> Self {
        Self {
            name: None,
            pid: None,
            proven: false,
            rest,
        }
    }

    fn read(bytes: &'a [u8]) -> Self {
        if let Some(rest) = bytes.strip_prefix(b": ") {
            return Self::none(rest);
        }
        let ends = |byte: &u8| matches!(byte, b':' | b'[' | b' ');
        let length = bytes.iter().position(ends).unwrap_or(bytes.len());
        if length == 0 {
            return Self::none(bytes.strip_prefix(b" ").unwrap_or(bytes));
        }
        let (name, rest) = bytes.split_at(length);
        let (pid, rest) = pid(rest);
        let (colon, rest) = match rest.strip_prefix(b":") {
            Some(rest) => (true, rest),
            None => (false, rest),
        };
        Self {
            name: Some(name),
            pid,
            proven: colon || pid.is_some(),
            rest: rest.strip_prefix(b" ").unwrap_or(rest),
        }
    }
}

/// Takes `[12]` off; where the bracket is not closed, up to the next space.
fn pid(bytes: &[u8]) -> (Option<&[u8]>, &[u8]) {
    let Some(inner) = bytes.strip_prefix(b"[") else {
        return (None, bytes);
    };
    let ends = |byte: &u8| matches!(byte, b']' | b' ');
    let length = inner.iter().position(ends).unwrap_or(inner.len());
    let (pid, rest) = inner.split_at(length);
    let pid = (length > 0).then_some(pid);
    (pid, rest.strip_prefix(b"]").unwrap_or(rest))
}
