//! A plain client of the broker: subscribes, publishes, hears. Fast enough not to be what is measured.
//!
//! It connects once and never again: when the connection ends, hearing ends.

use std::{
    io::{self, Read, Write},
    net::{Shutdown, TcpStream},
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};

/// Bytes of one read.
const READ: usize = 1 << 20;

/// A connection.
#[derive(Debug, Clone)]
pub(super) struct Wire {
    stream: Arc<TcpStream>,
    out: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    /// Connects and subscribes.
    pub(super) fn connect(port: u16, subjects: &[&str]) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).context("reach the broker")?;
        stream.set_nodelay(true).context("set up a connection")?;
        let wire = Self {
            stream: Arc::new(stream),
            out: Arc::default(),
        };
        let mut words = String::from(
            "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"protocol\":1,\"name\":\"steward-lab\"}\r\n",
        );
        for (number, subject) in subjects.iter().enumerate() {
            words += &format!("SUB {subject} {}\r\n", number + 1);
        }
        words += "PING\r\n";
        wire.write(words.as_bytes()).context("greet the broker")?;
        Ok(wire)
    }

    /// Writes a message down, to leave with the next [`Self::flush`].
    pub(super) fn publish(&self, subject: &str, payload: &[u8]) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        out.extend_from_slice(format!("PUB {subject} {}\r\n", payload.len()).as_bytes());
        out.extend_from_slice(payload);
        out.extend_from_slice(b"\r\n");
    }

    /// Sends what was written down.
    pub(super) fn flush(&self) -> io::Result<()> {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        if out.is_empty() {
            return Ok(());
        }
        let written = (&*self.stream).write_all(&out);
        out.clear();
        written
    }

    fn write(&self, bytes: &[u8]) -> io::Result<()> {
        (&*self.stream).write_all(bytes)
    }

    /// Ends the connection, and with it hearing.
    pub(super) fn close(&self) {
        // It may be closed already.
        self.stream.shutdown(Shutdown::Both).ok();
    }

    /// Hears until the connection ends. `heard` gets subject and payload; `pause` comes when all that has arrived was heard.
    pub(super) fn hear(
        &self,
        mut heard: impl FnMut(&str, &[u8]),
        mut pause: impl FnMut(),
    ) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(2 * READ);
        let mut filled = 0;
        loop {
            buffer.resize(filled + READ, 0);
            let count = (&*self.stream).read(&mut buffer[filled..])?;
            if count == 0 {
                return Ok(());
            }
            filled += count;
            let mut taken = 0;
            while let Some((length, frame)) = cut(&buffer[taken..filled]) {
                match frame {
                    Frame::Message(subject, payload) => heard(subject, payload),
                    Frame::Ping => self.write(b"PONG\r\n")?,
                    Frame::Other => {}
                }
                taken += length;
            }
            buffer.copy_within(taken..filled, 0);
            filled -= taken;
            pause();
        }
    }
}

/// What arrives.
#[derive(Debug, PartialEq, Eq)]
enum Frame<'a> {
    Message(&'a str, &'a [u8]),
    Ping,
    Other,
}

/// Cuts the first whole frame off, and returns how long it is.
fn cut(bytes: &[u8]) -> Option<(usize, Frame<'_>)> {
    let line = bytes.windows(2).position(|two| two == b"\r\n")?;
    let text = str::from_utf8(&bytes[..line]).unwrap_or_default();
    let mut words = text.split(' ');
    let verb = words.next().unwrap_or_default();
    if !matches!(verb, "MSG" | "HMSG") {
        let frame = match verb {
            "PING" => Frame::Ping,
            _ => Frame::Other,
        };
        return Some((line + 2, frame));
    }
    let subject = words.next().unwrap_or_default();
    let rest: Vec<&str> = words.collect();
    let number = |from_end: usize| {
        let word = rest.len().checked_sub(from_end).and_then(|at| rest.get(at));
        word.and_then(|word| word.parse::<usize>().ok())
            .unwrap_or(0)
    };
    let total = number(1);
    let headers = if verb == "HMSG" { number(2) } else { 0 };
    let begin = line + 2;
    let payload = bytes.get(begin + headers..begin + total)?;
    bytes.get(begin + total..begin + total + 2)?;
    Some((begin + total + 2, Frame::Message(subject, payload)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_cut_with_and_without_headers_and_replies() {
        let row = |bytes: &'static [u8]| cut(bytes);
        assert_eq!(row(b"PING\r\nrest"), Some((6, Frame::Ping)));
        assert_eq!(row(b"INFO {}\r\n"), Some((9, Frame::Other)));
        let message = Frame::Message("a.b", b"hi");
        assert_eq!(row(b"MSG a.b 1 2\r\nhi\r\n"), Some((17, message)));
        let message = Frame::Message("a.b", b"hi");
        assert_eq!(row(b"MSG a.b 1 _R.x 2\r\nhi\r\n"), Some((22, message)));
        let message = Frame::Message("a", b"hi");
        assert_eq!(row(b"HMSG a 1 4 6\r\nNATShi\r\n"), Some((22, message)));
        assert_eq!(row(b"MSG a 1 2\r\nhi"), None);
        assert_eq!(row(b"MSG a 1"), None);
    }
}
