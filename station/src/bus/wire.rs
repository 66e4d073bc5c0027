//! What a NATS server says, taken apart byte by byte: messages here, everything else for the client.
//!
//! Pure. A message whose subject, reply or header is not what the protocol promises comes out as
//! [`Poison`] with the name its sender bears; nothing a publisher can send makes this fail. It does
//! not know what a message means.

use std::fmt;

use steward_protocol::{NodeName, limits::MAX_FRAME};

/// Longest control line. The server's own limit is 4 KiB; only its INFO is longer, with the
/// addresses of a large cluster.
const MAX_LINE: usize = 256 * 1024;

/// Largest header block that is read: a signature and a key need a tenth of it.
const MAX_HEADER: usize = 16 * 1024;

/// Largest payload a server can be configured for; a larger number is no length.
const MAX_LENGTH: usize = 64 * 1024 * 1024;

/// What a server says next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Piece {
    /// A message for one of our subscriptions.
    Message(Message),
    /// A message that breaks the rules, of which only this is left.
    Poison {
        /// Who sent it, as far as its subject says.
        sender: Option<NodeName>,
        /// What is wrong with it.
        kind: Poison,
    },
    /// Not a message: for the client, as it is.
    Other(Vec<u8>),
}

/// A message that keeps to the rules.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Message {
    /// Where it arrived.
    pub(super) subject: String,
    /// The status its header begins with, such as 503 for "no responders".
    pub(super) status: Option<u16>,
    /// What it says.
    pub(super) payload: Vec<u8>,
}

/// How a message breaks the rules.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Poison {
    /// Its subject is not text.
    Subject,
    /// Its reply subject is not text.
    Reply,
    /// Its header is not one.
    Header,
    /// It is larger than anything a node says.
    Size,
}

impl Poison {
    /// Returns the name it is counted under.
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Subject => "poison_subject",
            Self::Reply => "poison_reply",
            Self::Header => "poison_header",
            Self::Size => "poison_size",
        }
    }
}

/// The server does not speak the protocol. No publisher can bring this about.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("understand the broker: {0}")]
pub(super) struct NotNats(&'static str);

/// A stream of bytes from a server, taken apart.
///
/// It holds at most one control line and one message.
#[derive(Default)]
pub(super) struct Splitter {
    buffer: Vec<u8>,
    /// Where the unread part of the buffer begins.
    at: usize,
    /// Bytes still to come of a message that is not read.
    skip: usize,
}

impl fmt::Debug for Splitter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Splitter({} bytes)", self.rest().len())
    }
}

impl Splitter {
    /// Takes what has arrived.
    pub(super) fn feed(&mut self, bytes: &[u8]) {
        self.buffer.drain(..self.at);
        self.at = 0;
        self.buffer.extend_from_slice(bytes);
    }

    /// Returns the next piece, or nothing until more has arrived.
    pub(super) fn next(&mut self) -> Result<Option<Piece>, NotNats> {
        let skipped = self.skip.min(self.rest().len());
        self.at += skipped;
        self.skip -= skipped;
        if self.skip > 0 {
            return Ok(None);
        }
        let Some(end) = line_end(self.rest()) else {
            return match self.rest().len() > MAX_LINE {
                true => Err(NotNats("a line without an end")),
                false => Ok(None),
            };
        };
        let (line, after) = self.rest().split_at(end);
        let Some(head) = Head::read(line)? else {
            let piece = Piece::Other(text_of(line));
            self.at += end + 2;
            return Ok(Some(piece));
        };
        if head.total > MAX_FRAME + MAX_HEADER || head.header > MAX_HEADER {
            let (sender, skip) = (sender_of(head.subject), head.total + 2);
            self.at += end + 2;
            self.skip = skip;
            let kind = Poison::Size;
            return Ok(Some(Piece::Poison { sender, kind }));
        }
        let after = &after[2..];
        if after.len() < head.total + 2 {
            return Ok(None);
        }
        let (header, payload) = after[..head.total].split_at(head.header);
        let piece = head.piece(header, payload);
        self.at += end + 2 + head.total + 2;
        Ok(Some(piece))
    }

    fn rest(&self) -> &[u8] {
        &self.buffer[self.at..]
    }
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    let mut from = 0;
    loop {
        let found = from + bytes[from..].iter().position(|byte| *byte == b'\r')?;
        match bytes.get(found + 1) {
            Some(b'\n') => return Some(found),
            Some(_) => from = found + 1,
            None => return None,
        }
    }
}

/// A line for the client, made text: it would drop the connection over any other.
fn text_of(line: &[u8]) -> Vec<u8> {
    let mut text = String::from_utf8_lossy(line).into_owned().into_bytes();
    text.extend_from_slice(b"\r\n");
    text
}

/// The control line of a message.
#[derive(Debug)]
struct Head<'a> {
    subject: &'a [u8],
    reply: Option<&'a [u8]>,
    has_header: bool,
    header: usize,
    total: usize,
}

impl<'a> Head<'a> {
    /// Returns nothing if the line is not that of a message.
    fn read(line: &'a [u8]) -> Result<Option<Self>, NotNats> {
        let (has_header, rest) = match line {
            [b'M', b'S', b'G', b' ', rest @ ..] => (false, rest),
            [b'H', b'M', b'S', b'G', b' ', rest @ ..] => (true, rest),
            _ => return Ok(None),
        };
        // The server cuts at ASCII blanks only, so any other byte stays inside its word.
        let mut words: [&[u8]; 6] = [b""; 6];
        let split = rest.split(|byte| matches!(byte, b' ' | b'\t'));
        let mut count = 0;
        for (place, word) in words.iter_mut().zip(split.filter(|word| !word.is_empty())) {
            *place = word;
            count += 1;
        }
        let (subject, reply, header, total) = match (has_header, &words[..count]) {
            (false, &[subject, _, total]) => (subject, None, 0, length(total)?),
            (false, &[subject, _, reply, total]) => (subject, Some(reply), 0, length(total)?),
            (true, &[subject, _, header, total]) => {
                (subject, None, length(header)?, length(total)?)
            }
            (true, &[subject, _, reply, header, total]) => {
                (subject, Some(reply), length(header)?, length(total)?)
            }
            _ => return Err(NotNats("a message with a wrong number of words")),
        };
        if header > total {
            return Err(NotNats("a header longer than its message"));
        }
        Ok(Some(Self {
            subject,
            reply,
            has_header,
            header,
            total,
        }))
    }

    fn piece(&self, header: &[u8], payload: &[u8]) -> Piece {
        let poison = |kind| Piece::Poison {
            sender: sender_of(self.subject),
            kind,
        };
        let Ok(subject) = std::str::from_utf8(self.subject) else {
            return poison(Poison::Subject);
        };
        if self
            .reply
            .is_some_and(|reply| std::str::from_utf8(reply).is_err())
        {
            return poison(Poison::Reply);
        }
        let status = match self.has_header.then(|| status_of(header)) {
            None => None,
            Some(Some(status)) => status,
            Some(None) => return poison(Poison::Header),
        };
        Piece::Message(Message {
            subject: subject.to_owned(),
            status,
            payload: payload.to_vec(),
        })
    }
}

fn length(word: &[u8]) -> Result<usize, NotNats> {
    std::str::from_utf8(word)
        .ok()
        .and_then(|word| word.parse().ok())
        .filter(|length| *length <= MAX_LENGTH)
        .ok_or(NotNats("a length that is none"))
}

/// Returns who a subject towards a station says it is from.
pub(crate) fn sender_of(subject: &[u8]) -> Option<NodeName> {
    let sender = subject.split(|byte| *byte == b'.').nth(4)?;
    std::str::from_utf8(sender).ok()?.parse().ok()
}

/// Returns the status of a header block, if it has one; nothing if it is no header block.
///
/// Stricter than most clients: no folded lines, no empty names, no control characters.
fn status_of(header: &[u8]) -> Option<Option<u16>> {
    let text = std::str::from_utf8(header).ok()?;
    let mut lines = text.strip_suffix("\r\n\r\n")?.split("\r\n");
    let version = lines.next()?.strip_prefix("NATS/1.0")?;
    if !lines.all(is_field) {
        return None;
    }
    if version.is_empty() {
        return Some(None);
    }
    let status = version.strip_prefix(' ')?;
    let code = status.split(' ').next()?;
    let is_code = code.len() == 3 && code.bytes().all(|byte| byte.is_ascii_digit());
    is_code.then(|| code.parse().ok())
}

fn is_field(line: &str) -> bool {
    line.split_once(':').is_some_and(|(name, value)| {
        !name.is_empty()
            && name.bytes().all(|byte| byte.is_ascii_graphic())
            && !value
                .chars()
                .any(|letter| letter.is_control() && letter != '\t')
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn split(bytes: &[u8]) -> Vec<Piece> {
        let mut splitter = Splitter::default();
        splitter.feed(bytes);
        std::iter::from_fn(|| splitter.next().expect("a server's bytes")).collect()
    }

    fn message(subject: &str, status: Option<u16>, payload: &[u8]) -> Piece {
        Piece::Message(Message {
            subject: subject.to_owned(),
            status,
            payload: payload.to_vec(),
        })
    }

    fn hmsg(header: &[u8]) -> Vec<u8> {
        let (length, total) = (header.len(), header.len() + 2);
        let line = format!("HMSG c.event.ack.x.evil 1 {length} {total}\r\n");
        [line.as_bytes(), header, b"{}\r\n"].concat()
    }

    #[test]
    fn messages_are_taken_out_and_the_rest_is_left() {
        let stream = b"INFO {}\r\nPING\r\nMSG a.b 1 2\r\nhi\r\n+OK\r\nMSG a.b 1 back 0\r\n\r\n\
            HMSG in.box 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\n-ERR 'no'\r\n";
        assert_eq!(
            split(stream),
            [
                Piece::Other(b"INFO {}\r\n".to_vec()),
                Piece::Other(b"PING\r\n".to_vec()),
                message("a.b", None, b"hi"),
                Piece::Other(b"+OK\r\n".to_vec()),
                message("a.b", None, b""),
                message("in.box", Some(503), b""),
                Piece::Other(b"-ERR 'no'\r\n".to_vec()),
            ]
        );
    }

    #[test]
    fn headers_are_judged() {
        let good = message("c.event.ack.x.evil", None, b"{}");
        let bad = Piece::Poison {
            sender: Some("evil".parse().expect("a name")),
            kind: Poison::Header,
        };
        let huge = format!("NATS/1.0\r\nA: {}\r\n\r\n", "a".repeat(MAX_HEADER - 20));
        for (header, is_good) in [
            (&b"NATS/1.0\r\n\r\n"[..], true),
            (b"NATS/1.0\r\nA: b\r\n\r\n", true),
            (b"NATS/1.0\r\nA:\r\nA: \xc3\xa9\t\r\n\r\n", true),
            (huge.as_bytes(), true),
            (b"", false),
            (b"NATS/1.0\r\n", false),
            (b"NATS/2.0\r\n\r\n", false),
            (b"NATS/1.0x\r\n\r\n", false),
            (b"NATS/1.0 50\r\n\r\n", false),
            (b"NATS/1.0 +50\r\n\r\n", false),
            (b"NATS/1.0\r\nno colon\r\n\r\n", false),
            (b"NATS/1.0\r\n: no name\r\n\r\n", false),
            (b"NATS/1.0\r\nA b: c\r\n\r\n", false),
            (b"NATS/1.0\r\nA: b\r\n folded\r\n\r\n", false),
            (b"NATS/1.0\r\nA: \0\r\n\r\n", false),
            (b"NATS/1.0\r\nA: \xff\r\n\r\n", false),
            (b"NATS/1.0\r\nA: b\nC: d\r\n\r\n", false),
        ] {
            let expected = if is_good { &good } else { &bad };
            let pieces = split(&hmsg(header));
            assert_eq!(
                pieces,
                std::slice::from_ref(expected),
                "{}",
                header.escape_ascii()
            );
        }
        assert_eq!(
            split(&hmsg(b"NATS/1.0 409 Consumer Deleted\r\n\r\n")),
            [message("c.event.ack.x.evil", Some(409), b"{}")]
        );
    }

    #[test]
    fn poison_is_named_after_its_sender_and_the_stream_goes_on() {
        let evil: Option<NodeName> = Some("evil".parse().expect("a name"));
        let size = MAX_FRAME + MAX_HEADER + 1;
        let large = [
            format!("MSG c.event.ack.x.evil 1 {size}\r\n").as_bytes(),
            &vec![b'\n'; size],
            b"\r\n",
        ]
        .concat();
        for (frame, sender, kind) in [
            (
                &b"MSG c.event.ack.\xff.evil 1 0\r\n\r\n"[..],
                &evil,
                Poison::Subject,
            ),
            (
                b"MSG c.event.ack.x.ev\xff 1 0\r\n\r\n",
                &None,
                Poison::Subject,
            ),
            (
                b"MSG c.event.ack.x.evil 1 \xff\xfe 2\r\nhi\r\n",
                &evil,
                Poison::Reply,
            ),
            (b"MSG c.\xff 1 0\r\n\r\n", &None, Poison::Subject),
            (&large, &evil, Poison::Size),
        ] {
            let stream = [frame, b"MSG a.b 1 2\r\nhi\r\n"].concat();
            let (sender, poison) = (sender.clone(), frame.len().min(40));
            assert_eq!(
                split(&stream),
                [Piece::Poison { sender, kind }, message("a.b", None, b"hi")],
                "{}",
                frame[..poison].escape_ascii()
            );
        }
    }

    #[test]
    fn what_no_server_says_ends_the_connection() {
        for line in [
            "MSG a 1\r\n",
            "MSG a 1 b c 2\r\n",
            "MSG a 1 -2\r\n",
            "MSG a 1 99999999999\r\n",
            "HMSG a 1 3 2\r\n",
            "HMSG a 1 2\r\n",
        ] {
            let mut splitter = Splitter::default();
            splitter.feed(line.as_bytes());
            assert!(splitter.next().is_err(), "{line}");
        }
        let mut splitter = Splitter::default();
        splitter.feed(&vec![b'x'; MAX_LINE + 1]);
        assert!(splitter.next().is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_where_the_stream_is_cut(
            cuts in prop::collection::vec(1usize..40, 1..40),
            reply in prop::collection::vec(0x21u8..=0xff, 1..9),
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            let mut stream = b"PING\r\nMSG c.event.ack.x.evil 1 ".to_vec();
            stream.extend_from_slice(&reply);
            stream.extend_from_slice(format!(" {}\r\n", payload.len()).as_bytes());
            stream.extend_from_slice(&payload);
            stream.extend_from_slice(b"\r\nHMSG in.box 2 16 16\r\nNATS/1.0 503\r\n\r\n\r\nPONG\r\n");
            let mut splitter = Splitter::default();
            let mut pieces = Vec::new();
            let mut rest = &stream[..];
            for cut in cuts.iter().cycle() {
                let (now, later) = rest.split_at((*cut).min(rest.len()));
                splitter.feed(now);
                while let Some(piece) = splitter.next().expect("a server's bytes") {
                    pieces.push(piece);
                }
                rest = later;
                if rest.is_empty() {
                    break;
                }
            }
            prop_assert_eq!(pieces, split(&stream));
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            for prefix in [&b""[..], b"MSG ", b"HMSG a 1 5 9\r\n"] {
                let mut splitter = Splitter::default();
                splitter.feed(prefix);
                splitter.feed(&bytes);
                while let Ok(Some(_)) = splitter.next() {}
            }
        }
    }

    #[test]
    fn lengths_are_taken_up_to_their_limits() {
        let read = |stream: &[u8]| {
            let mut splitter = Splitter::default();
            splitter.feed(stream);
            splitter.next()
        };
        let line =
            |header: usize, total: usize| format!("HMSG a.b 1 {header} {total}\r\n").into_bytes();
        let size = |stream: &[u8]| match read(stream) {
            Ok(Some(Piece::Poison {
                kind: Poison::Size, ..
            })) => "too large",
            Ok(Some(_)) => "a piece",
            Ok(None) => "more to come",
            Err(_) => "no server",
        };
        let most = MAX_FRAME + MAX_HEADER;
        for (header, total, expected) in [
            (12, most, "more to come"),
            (12, most + 1, "too large"),
            (MAX_HEADER, most, "more to come"),
            (MAX_HEADER + 1, most, "too large"),
            (12, MAX_LENGTH, "too large"),
            (12, MAX_LENGTH + 1, "no server"),
            (12, 12, "more to come"),
            (13, 12, "no server"),
        ] {
            assert_eq!(size(&line(header, total)), expected, "{header} {total}");
        }
        assert_eq!(size(&vec![b'x'; MAX_LINE]), "more to come");
        assert_eq!(size(&vec![b'x'; MAX_LINE + 1]), "no server");
    }

    #[test]
    fn the_largest_message_is_read_whole() {
        let payload = vec![b'p'; MAX_FRAME + MAX_HEADER];
        let head = format!("MSG a.b 1 {}\r\n", payload.len()).into_bytes();
        let stream = [&head[..], &payload, b"\r\nPING\r\n"].concat();
        let expected = [
            message("a.b", None, &payload),
            Piece::Other(b"PING\r\n".to_vec()),
        ];
        assert_eq!(split(&stream), expected);
    }

    #[test]
    fn a_message_too_large_is_passed_over_as_it_comes() {
        let size = MAX_FRAME + MAX_HEADER + 1;
        let mut splitter = Splitter::default();
        splitter.feed(format!("MSG c.event.ack.x.evil 1 {size}\r\n").as_bytes());
        let first = splitter.next();
        assert!(matches!(first, Ok(Some(Piece::Poison { .. }))), "{first:?}");
        for part in vec![b'\n'; size].chunks(1000) {
            splitter.feed(part);
            assert_eq!(splitter.next(), Ok(None));
            assert!(splitter.rest().is_empty(), "nothing of it is kept");
        }
        splitter.feed(b"\r\nPONG\r\n");
        assert_eq!(
            splitter.next(),
            Ok(Some(Piece::Other(b"PONG\r\n".to_vec())))
        );
        assert_eq!(format!("{splitter:?}"), "Splitter(0 bytes)");
    }

    #[test]
    fn a_line_ends_with_both_its_letters() {
        for (stream, expected) in [
            (&b"A\rB\r\n"[..], Some(&b"A\rB\r\n"[..])),
            (b"A\r\r\n", Some(b"A\r\r\n")),
            (b"A\nB\r\n", Some(b"A\nB\r\n")),
            (b"A\r", None),
            (b"A\n", None),
            (b"\xff\r\n", Some("\u{fffd}\r\n".as_bytes())),
        ] {
            let expected: Vec<Piece> = expected
                .map(|line| Piece::Other(line.to_vec()))
                .into_iter()
                .collect();
            assert_eq!(split(stream), expected, "{}", stream.escape_ascii());
        }
    }

    #[test]
    fn blanks_between_words_count_once_and_a_word_too_many_is_refused() {
        assert_eq!(
            split(b"MSG  a.b\t1  2\r\nhi\r\n"),
            [message("a.b", None, b"hi")]
        );
        for line in ["HMSG a 1 b 1 2 3\r\n", "MSG a 1 b 2 3 4 5\r\n", "MSG \r\n"] {
            let mut splitter = Splitter::default();
            splitter.feed(line.as_bytes());
            assert!(splitter.next().is_err(), "{line}");
        }
    }

    #[test]
    fn poison_has_a_name_of_its_own_for_each_kind() {
        let kinds = [Poison::Subject, Poison::Reply, Poison::Header, Poison::Size];
        let names = kinds.map(Poison::as_str);
        assert_eq!(
            names,
            [
                "poison_subject",
                "poison_reply",
                "poison_header",
                "poison_size"
            ]
        );
    }

    #[test]
    fn the_sender_is_the_fifth_word_of_a_subject() {
        for (subject, sender) in [
            ("central.event.ack.os.ship1", Some("ship1")),
            ("central.event.ack.os.ship1.more", Some("ship1")),
            ("central.event.ack.os", None),
            ("central.event.ack.os.*", None),
        ] {
            let expected = sender.map(|name| name.parse().expect("a name"));
            assert_eq!(sender_of(subject.as_bytes()), expected, "{subject}");
        }
    }
}
