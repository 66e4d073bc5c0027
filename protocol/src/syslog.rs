//! Reads one syslog message: RFC 5424, RFC 3164 and what is sent in their names.
//!
//! Pure: bytes in, slices of the same bytes out. Nothing is copied, nothing fails, nothing takes longer than the message
//! is long. It does not know where a message comes from, nor where it begins and ends ([`framing`] does).
//!
//! What cannot be read is not guessed at: it is [`Form::Unparsed`] and all of it is the message. The raw bytes are what is
//! kept and sent; whoever asks reads them again with this.
//!
//! In this order: a PRI larger than 191, or one that does not end, makes the message unparsed. Behind a PRI (or
//! without one, as in files) come RFC 5424, then RFC 3164 with a time. With a PRI and no time
//! it is [`Form::Pri`]. With neither it is unparsed. NUL, LF and CR at the end are framing that
//! was left over, and belong to nothing.

pub mod clock;
pub mod data;
pub mod framing;
pub mod level;
mod rfc3164;
mod rfc5424;
mod scan;
pub mod stamp;

pub use self::{
    clock::{Clock, Doubt, Sent},
    data::{Element, Elements, Parameter, Parameters},
    level::{Facility, LevelError, Severities, Severity},
    stamp::Stamp,
};

/// In front of a message that is said to be UTF-8 (RFC 5424 §6.4).
const BOM: &[u8] = b"\xef\xbb\xbf";

/// How a message was read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Form {
    /// RFC 5424.
    Rfc5424,
    /// RFC 3164 or one of its variants, with a time.
    Rfc3164,
    /// A PRI, perhaps a tag, and no time.
    Pri,
    /// Not at all; all of it is the message.
    Unparsed,
}

impl Form {
    /// Returns the word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Rfc5424 => "rfc5424",
            Self::Rfc3164 => "rfc3164",
            Self::Pri => "pri",
            Self::Unparsed => "unparsed",
        }
    }
}

/// One message, read. Its parts are slices of the bytes it was read from.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    raw: &'a [u8],
    pri: Option<u8>,
    header: Header<'a>,
    data: &'a [u8],
    ill_formed: bool,
    bom: bool,
    text: &'a [u8],
}

/// What the formats say in front of the message.
#[derive(Debug, Clone, Copy)]
struct Header<'a> {
    form: Form,
    stamp: Option<Stamp<'a>>,
    host: Option<&'a [u8]>,
    app: Option<&'a [u8]>,
    procid: Option<&'a [u8]>,
    msgid: Option<&'a [u8]>,
    rest: &'a [u8],
}

impl<'a> Message<'a> {
    /// Reads a message.
    pub fn parse(raw: &'a [u8]) -> Self {
        let (pri, header) = read(raw);
        let mut message = Self {
            raw,
            pri,
            header,
            data: b"",
            ill_formed: false,
            bom: false,
            text: header.rest,
        };
        if header.form == Form::Rfc5424 {
            message.take_data();
        }
        message
    }

    /// Takes structured data and BOM off the text. What begins like data and is none stays in the text.
    fn take_data(&mut self) {
        let rest = scan::trim_spaces(self.header.rest);
        let rest = match (rest, data::extent(rest)) {
            (b"-" | b"", _) => &rest[rest.len()..],
            ([b'-', b' ', text @ ..], _) => text,
            (_, Some(length)) => {
                let (data, text) = rest.split_at(length);
                self.data = data;
                text.strip_prefix(b" ").unwrap_or(text)
            }
            (_, None) => {
                self.ill_formed = true;
                rest
            }
        };
        let text = rest.strip_prefix(BOM);
        self.bom = text.is_some();
        self.text = text.unwrap_or(rest);
    }

    /// Returns the bytes it was read from.
    pub fn raw(&self) -> &'a [u8] {
        self.raw
    }

    /// Returns how it was read.
    pub fn form(&self) -> Form {
        self.header.form
    }

    /// Returns the facility, where there is a PRI.
    pub fn facility(&self) -> Option<Facility> {
        Some(level::split(self.pri?)?.0)
    }

    /// Returns the severity, where there is a PRI.
    pub fn severity(&self) -> Option<Severity> {
        Some(level::split(self.pri?)?.1)
    }

    /// Returns the sender's time as written; [`Clock::resolve`] makes a moment of it.
    pub fn stamp(&self) -> Option<Stamp<'a>> {
        self.header.stamp
    }

    /// Returns the sender's name for its host.
    pub fn host(&self) -> Option<&'a [u8]> {
        self.header.host
    }

    /// Returns the program's name: APP-NAME, or the tag without its pid.
    pub fn app(&self) -> Option<&'a [u8]> {
        self.header.app
    }

    /// Returns the process's number or name.
    pub fn procid(&self) -> Option<&'a [u8]> {
        self.header.procid
    }

    /// Returns the kind of message.
    pub fn msgid(&self) -> Option<&'a [u8]> {
        self.header.msgid
    }

    /// Returns the structured data.
    pub fn data(&self) -> Elements<'a> {
        Elements::new(self.data)
    }

    /// Returns the structured data as written, without the nil value.
    pub fn raw_data(&self) -> &'a [u8] {
        self.data
    }

    /// Tells whether something stands for structured data that is none; it is part of the text.
    pub fn has_ill_formed_data(&self) -> bool {
        self.ill_formed
    }

    /// Tells whether the sender said, with a BOM, that the text is UTF-8.
    pub fn has_bom(&self) -> bool {
        self.bom
    }

    /// Returns the text, without BOM; not always UTF-8, whatever the sender said.
    pub fn text(&self) -> &'a [u8] {
        self.text
    }

    /// Returns where in the raw bytes the text begins.
    pub fn text_offset(&self) -> usize {
        // The text ends where the bytes do, but for what framing left there.
        trimmed(self.raw).len() - self.text.len()
    }
}

/// Returns facility and severity, if the bytes begin with a valid PRI.
pub fn pri(raw: &[u8]) -> Option<(Facility, Severity)> {
    match prefix(raw) {
        Prefix::Pri(pri, _) => level::split(pri),
        Prefix::Absent | Prefix::Wrong => None,
    }
}

/// Returns the program's name: what [`Message::app`] returns, for less.
pub fn app(raw: &[u8]) -> Option<&[u8]> {
    read(raw).1.app
}

/// Reads everything in front of the structured data.
fn read(raw: &[u8]) -> (Option<u8>, Header<'_>) {
    let (pri, rest) = match prefix(raw) {
        Prefix::Pri(pri, rest) => (Some(pri), trimmed(rest)),
        Prefix::Absent => (None, trimmed(raw)),
        Prefix::Wrong => return (None, unparsed(raw)),
    };
    let header = rfc5424::header(rest).or_else(|| rfc3164::header(rest));
    let header = match (header, pri) {
        (Some(header), _) => header,
        (None, Some(_)) => rfc3164::timeless(rest),
        (None, None) => unparsed(raw),
    };
    (pri, header)
}

fn unparsed(raw: &[u8]) -> Header<'_> {
    Header {
        form: Form::Unparsed,
        stamp: None,
        host: None,
        app: None,
        procid: None,
        msgid: None,
        rest: trimmed(raw),
    }
}

/// What stands where a PRI may be.
enum Prefix<'a> {
    Pri(u8, &'a [u8]),
    Absent,
    /// Something in angle brackets that begins like one.
    Wrong,
}

fn prefix(raw: &[u8]) -> Prefix<'_> {
    let [b'<', first @ b'0'..=b'9', rest @ ..] = raw else {
        return Prefix::Absent;
    };
    if let ([b'0', ..], [b'0'..=b'9', ..]) = (&raw[1..], rest) {
        return zero_filled(raw);
    }
    let digit = |byte: &u8| u16::from(byte - b'0');
    let (value, rest) = match rest {
        [b'>', rest @ ..] => (digit(first), rest),
        [second @ b'0'..=b'9', b'>', rest @ ..] => (digit(first) * 10 + digit(second), rest),
        [second @ b'0'..=b'9', third @ b'0'..=b'9', b'>', rest @ ..] => {
            (digit(first) * 100 + digit(second) * 10 + digit(third), rest)
        }
        _ => return Prefix::Wrong,
    };
    match u8::try_from(value) {
        Ok(pri) if pri <= level::MAX_PRI => Prefix::Pri(pri, rest),
        _ => Prefix::Wrong,
    }
}

/// Reads a PRI with zeros in front, of any number: both rsyslog and syslog-ng do.
fn zero_filled(raw: &[u8]) -> Prefix<'_> {
    let digits = raw[1..].iter().take_while(|byte| byte.is_ascii_digit());
    let value = digits.clone().try_fold(0_u8, |value, digit| {
        value.checked_mul(10)?.checked_add(digit - b'0')
    });
    let rest = &raw[1 + digits.count()..];
    match (value, rest.strip_prefix(b">")) {
        (Some(pri), Some(rest)) if pri <= level::MAX_PRI => Prefix::Pri(pri, rest),
        _ => Prefix::Wrong,
    }
}

/// Drops what framing left at the end.
fn trimmed(bytes: &[u8]) -> &[u8] {
    let end = bytes
        .iter()
        .rposition(|byte| !matches!(byte, 0 | b'\n' | b'\r'));
    &bytes[..end.map_or(0, |end| end + 1)]
}
