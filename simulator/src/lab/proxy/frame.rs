//! Frames of the NATS client protocol, cut out of a stream of bytes.
//!
//! It keeps every byte as it came and understands only as much as is needed to know where a frame ends, what it
//! is, and where its payload lies. It decides nothing and does no input or output.

use std::ops::Range;

/// Longest control line: a broker's INFO is the longest, a few KiB.
const MAX_LINE: usize = 64 * 1024;

/// Largest body. Brokers allow at most 64 MiB.
const MAX_BODY: usize = 64 * 1024 * 1024;

/// What a frame is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Info,
    Connect,
    Sub,
    Unsub,
    /// A message: PUB, HPUB, MSG or HMSG.
    Message,
    Ping,
    Pong,
    Ok,
    Err,
}

/// One frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) kind: Kind,
    /// All its bytes, line ends included.
    pub(crate) bytes: Vec<u8>,
    /// Where its payload lies, headers not counted; empty where there is none.
    pub(crate) payload: Range<usize>,
}

/// Why a stream cannot be read on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FrameError {
    #[error("read a control line: it is longer than {MAX_LINE} bytes")]
    LongLine,
    #[error("read the control line {line:?}: {what}")]
    Line { line: String, what: &'static str },
    #[error("read a body of {bytes} bytes: at most {MAX_BODY} are allowed")]
    LongBody { bytes: usize },
    #[error("read a body: no line end follows it")]
    Unended,
}

/// Cuts frames out of what is pushed.
#[derive(Debug, Default)]
pub(crate) struct Cutter {
    bytes: Vec<u8>,
    /// Where the first byte that belongs to no frame yet lies.
    start: usize,
}

impl Cutter {
    pub(crate) fn push(&mut self, bytes: &[u8]) {
        if self.start > 0 {
            self.bytes.drain(..self.start);
            self.start = 0;
        }
        self.bytes.extend_from_slice(bytes);
    }

    /// Returns the next whole frame, if it is there.
    ///
    /// # Errors
    ///
    /// Fails when what is there can never become a frame; the stream cannot be read on then.
    pub(crate) fn next(&mut self) -> Result<Option<Frame>, FrameError> {
        let rest = &self.bytes[self.start..];
        let Some(line) = rest.windows(2).position(|two| two == b"\r\n") else {
            return match rest.len() > MAX_LINE {
                true => Err(FrameError::LongLine),
                false => Ok(None),
            };
        };
        if line > MAX_LINE {
            return Err(FrameError::LongLine);
        }
        let head = Head::read(&rest[..line])?;
        let begin = line + 2;
        let Some(body) = head.body else {
            return Ok(Some(self.take(head.kind, begin, begin..begin)));
        };
        let end = begin + body.total;
        let Some(ending) = rest.get(end..end + 2) else {
            return Ok(None);
        };
        if ending != b"\r\n" {
            return Err(FrameError::Unended);
        }
        Ok(Some(self.take(
            head.kind,
            end + 2,
            begin + body.headers..end,
        )))
    }

    fn take(&mut self, kind: Kind, length: usize, payload: Range<usize>) -> Frame {
        let bytes = self.bytes[self.start..self.start + length].to_vec();
        self.start += length;
        Frame {
            kind,
            bytes,
            payload,
        }
    }
}

/// How long a body is.
struct Body {
    headers: usize,
    total: usize,
}

/// A control line.
struct Head {
    kind: Kind,
    body: Option<Body>,
}

impl Head {
    fn read(line: &[u8]) -> Result<Self, FrameError> {
        let text = String::from_utf8_lossy(line);
        let wrong = |what| FrameError::Line {
            line: text.chars().take(120).collect(),
            what,
        };
        let mut words = text.split_ascii_whitespace();
        let verb = words.next().unwrap_or_default().to_ascii_uppercase();
        let words: Vec<&str> = words.collect();
        let kind = match verb.as_str() {
            "INFO" => Kind::Info,
            "CONNECT" => Kind::Connect,
            "SUB" => Kind::Sub,
            "UNSUB" => Kind::Unsub,
            "PUB" | "HPUB" | "MSG" | "HMSG" => Kind::Message,
            "PING" => Kind::Ping,
            "PONG" => Kind::Pong,
            "+OK" => Kind::Ok,
            "-ERR" => Kind::Err,
            _ => return Err(wrong("no frame begins like this")),
        };
        if kind != Kind::Message {
            return Ok(Self { kind, body: None });
        }
        let number = |word: Option<&&str>| word.and_then(|word| word.parse::<usize>().ok());
        let total = number(words.last()).ok_or_else(|| wrong("it does not end with a length"))?;
        if total > MAX_BODY {
            return Err(FrameError::LongBody { bytes: total });
        }
        let headers = match verb.starts_with('H') {
            true => number(words.iter().rev().nth(1)).filter(|headers| *headers <= total),
            false => Some(0),
        };
        let headers = headers.ok_or_else(|| wrong("the length of its headers makes no sense"))?;
        let body = Body { headers, total };
        Ok(Self {
            kind,
            body: Some(body),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const STREAM: &[u8] =
        b"INFO {\"server_id\":\"a\"}\r\nCONNECT {}\r\nPING\r\nPONG\r\n+OK\r\n-ERR 'no'\r\n\
        SUB n1.> 1\r\nUNSUB 1 2\r\nPUB a.b 5\r\nhe\r\no\r\nPUB a.b re.ply 0\r\n\r\n\
        MSG a.b 7 3\r\nabc\r\nMSG a.b 7 re.ply 3\r\nabc\r\n\
        HPUB a.b 12 15\r\nNATS/1.0\r\n\r\nxyz\r\nHMSG a.b 1 r 16 16\r\nNATS/1.0 503\r\n\r\n\r\n";

    fn cut(pieces: &[&[u8]]) -> Vec<Frame> {
        let (mut cutter, mut frames) = (Cutter::default(), Vec::new());
        for piece in pieces {
            cutter.push(piece);
            while let Some(frame) = cutter.next().expect("frames") {
                frames.push(frame);
            }
        }
        frames
    }

    #[test]
    fn a_stream_is_the_same_frames_wherever_it_is_split() {
        let whole = cut(&[STREAM]);
        assert_eq!(whole.len(), 14);
        let bytes: Vec<u8> = whole.iter().flat_map(|frame| frame.bytes.clone()).collect();
        assert_eq!(bytes, STREAM);
        for at in 0..=STREAM.len() {
            assert_eq!(cut(&[&STREAM[..at], &STREAM[at..]]), whole, "split at {at}");
        }
        let single: Vec<&[u8]> = STREAM.chunks(1).collect();
        assert_eq!(cut(&single), whole);
    }

    #[test]
    fn payloads_lie_where_they_should() {
        let payloads: Vec<Vec<u8>> = cut(&[STREAM])
            .into_iter()
            .filter(|frame| frame.kind == Kind::Message)
            .map(|frame| frame.bytes[frame.payload.clone()].to_vec())
            .collect();
        let expected: [&[u8]; 6] = [b"he\r\no"[..].as_ref(), b"", b"abc", b"abc", b"xyz", b""];
        assert_eq!(payloads, expected);
    }

    fn check_refused(text: &[u8]) {
        let mut cutter = Cutter::default();
        cutter.push(text);
        assert!(
            cutter.next().is_err(),
            "{:?}",
            String::from_utf8_lossy(text)
        );
    }

    #[test]
    fn garbage_and_huge_lengths_are_refused() {
        check_refused(b"\r\n");
        check_refused(b"GET / HTTP/1.1\r\n");
        check_refused(b"PUB a.b\r\n");
        check_refused(b"PUB a.b -1\r\n");
        check_refused(b"PUB a.b 5x\r\n");
        check_refused(b"PUB a.b 99999999999999999999999999\r\n");
        check_refused(b"PUB a.b 67108865\r\n");
        check_refused(b"MSG a.b 1 18446744073709551615\r\n");
        check_refused(b"HPUB a.b 9 5\r\nNATS/1.0\r\n");
        check_refused(b"PUB a.b 1\r\nabcd");
        check_refused(&vec![b'a'; MAX_LINE + 1]);
        check_refused(&[0xff, 0xfe, b'\r', b'\n']);
    }

    #[test]
    fn what_is_not_whole_yet_is_waited_for() {
        for part in [
            &b"PI"[..],
            b"PUB a.b 5\r\nhell",
            b"PUB a.b 5\r\nhello\r",
            b"",
        ] {
            let mut cutter = Cutter::default();
            cutter.push(part);
            assert_eq!(
                cutter.next(),
                Ok(None),
                "{:?}",
                String::from_utf8_lossy(part)
            );
        }
    }
}
