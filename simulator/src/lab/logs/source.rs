//! The programs that log: each writes numbered messages, every message once, and notes what it wrote and when.
//!
//! It does not know who is killed.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream, UdpSocket},
    os::unix::net::{UnixDatagram, UnixStream},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result};

use crate::lab::{dice::Dice, layout::free_port};

/// Pause between two bursts, at most.
const PAUSE: Duration = Duration::from_millis(8);

/// Messages of a burst, at most, and of a large one.
const BURST: usize = 20;
const LARGE: usize = 300;

/// How long a program waits before it connects again.
const AGAIN: Duration = Duration::from_millis(3);

/// Bytes after which a file is rotated.
const ROTATION: u64 = 256 << 10;

/// Bytes beside name and number, at most.
const FILLER: u64 = 180;

/// Where the agent listens.
#[derive(Debug, Clone)]
pub(super) struct Places {
    udp: u16,
    tcp: u16,
    stream: PathBuf,
    gram: PathBuf,
    files: PathBuf,
}

impl Places {
    pub(super) fn new(dir: &Path, dice: &mut Dice) -> Result<Self> {
        Ok(Self {
            udp: free_port(dice).context("find a port for datagrams")?,
            tcp: free_port(dice).context("find a port for streams")?,
            stream: dir.join("stream.sock"),
            gram: dir.join("gram.sock"),
            files: {
                let files = dir.join("log");
                fs::create_dir(&files).context("make a directory for files")?;
                files
            },
        })
    }

    /// Returns the agent's configuration.
    pub(super) fn config(&self) -> String {
        let inputs = [
            ("udp", format!("udp://127.0.0.1:{}", self.udp)),
            ("tcp", format!("tcp://127.0.0.1:{}", self.tcp)),
            ("stream", format!("unix://{}", self.stream.display())),
            ("gram", format!("unixgram://{}", self.gram.display())),
            ("file", format!("file://{}/*.log", self.files.display())),
        ];
        let mut text = String::new();
        for (domain, input) in inputs {
            text += &format!("[[syslog]]\ndomain = \"{domain}\"\ninput = \"{input}\"\n");
        }
        text += "[[syslog_rule]]\napp = \"sorted\"\ndomain = \"sorted\"\n";
        // Small where senders can wait, so that segments are full and released all the time.
        for domain in ["tcp", "stream", "sorted", "file"] {
            text += &format!("[syslog_spool.domain.{domain}]\nshare = \"1MiB\"\n");
        }
        text
    }

    /// Returns every program there is.
    pub(super) fn sources(&self) -> Vec<Source> {
        let source = |name, domain, way| Source { name, domain, way };
        vec![
            source("grams", "udp", Way::Udp(self.udp)),
            source("lines", "tcp", Way::Tcp(self.tcp, Framing::Lines)),
            source("counts", "tcp", Way::Tcp(self.tcp, Framing::Counts)),
            // A rule sends these elsewhere.
            source("sorted", "sorted", Way::Tcp(self.tcp, Framing::Lines)),
            source("local", "stream", Way::Stream(self.stream.clone())),
            source("devlog", "gram", Way::Gram(self.gram.clone())),
            source(
                "renamed",
                "file",
                Way::File(self.files.clone(), Rotation::Rename),
            ),
            source(
                "copied",
                "file",
                Way::File(self.files.clone(), Rotation::Copy),
            ),
        ]
    }

    /// Tells whether somebody listens everywhere.
    pub(super) fn are_open(&self) -> bool {
        let is_bound = |table: &str, port: u16, state: &str| {
            let is_it = |row: &Row| row.local == port && row.state == state;
            rows(table).iter().any(is_it)
        };
        is_bound("/proc/net/tcp", self.tcp, "0A")
            && rows("/proc/net/udp")
                .iter()
                .any(|row| row.local == self.udp)
            && UnixDatagram::unbound().is_ok_and(|socket| socket.connect(&self.gram).is_ok())
            && UnixStream::connect(&self.stream).is_ok()
    }

    /// Returns how many bytes of each connection stand in the kernel's buffers, by the port of their sender; of datagrams, by
    /// the port they go to, with what the kernel needs beside.
    pub(super) fn unread(&self) -> BTreeMap<u16, u64> {
        let mut unread = BTreeMap::new();
        for row in rows("/proc/net/tcp") {
            if row.local == self.tcp && row.state != "0A" {
                *unread.entry(row.remote).or_default() += row.unread;
            } else if row.remote == self.tcp {
                *unread.entry(row.local).or_default() += row.unsent;
            }
        }
        for row in rows("/proc/net/udp") {
            if row.local == self.udp {
                *unread.entry(row.local).or_default() += row.unread;
            }
        }
        unread
    }
}

/// A row of the kernel's table of sockets.
struct Row {
    local: u16,
    remote: u16,
    state: String,
    unsent: u64,
    unread: u64,
}

fn rows(table: &str) -> Vec<Row> {
    let text = fs::read_to_string(table).unwrap_or_default();
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<Row> {
    let mut words = line.split_whitespace().skip(1);
    let port = |word: &str| u16::from_str_radix(word.rsplit(':').next()?, 16).ok();
    let (local, remote) = (port(words.next()?)?, port(words.next()?)?);
    let state = words.next()?.to_owned();
    let (unsent, unread) = words.next()?.split_once(':')?;
    Some(Row {
        local,
        remote,
        state,
        unsent: u64::from_str_radix(unsent, 16).ok()?,
        unread: u64::from_str_radix(unread, 16).ok()?,
    })
}

/// How messages of a stream are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Framing {
    Lines,
    Counts,
}

/// How a file makes room for the next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Rotation {
    /// It is renamed, and another one begun.
    Rename,
    /// It is copied and truncated.
    Copy,
}

/// How a program logs.
#[derive(Debug, Clone)]
enum Way {
    Udp(u16),
    Tcp(u16, Framing),
    Stream(PathBuf),
    Gram(PathBuf),
    /// Into files of a directory.
    File(PathBuf, Rotation),
}

/// One program that logs.
#[derive(Debug, Clone)]
pub(super) struct Source {
    name: &'static str,
    domain: &'static str,
    way: Way,
}

/// What one program wrote.
#[derive(Debug, Clone)]
pub(super) struct Written {
    pub(super) name: &'static str,
    /// Where its messages are to arrive.
    pub(super) domain: &'static str,
    /// Whether its messages are told apart by connections, each of which is whole but for its end.
    pub(super) is_stream: bool,
    /// Whether they stay where they were written until they have arrived, so that none may ever be missing.
    pub(super) is_kept: bool,
    pub(super) connections: Vec<Connection>,
}

/// What was written over one connection.
#[derive(Debug, Clone, Default)]
pub(super) struct Connection {
    /// The number of its first message.
    pub(super) first: u64,
    /// The port it comes from, of datagrams the one they go to; none of what has no ports.
    pub(super) port: Option<u16>,
    /// When the kernel had taken all below a number, and how many bytes that were.
    pub(super) writes: Vec<Wrote>,
}

/// One write.
#[derive(Debug, Clone, Copy)]
pub(super) struct Wrote {
    pub(super) at: Duration,
    pub(super) next: u64,
    pub(super) bytes: u64,
}

impl Connection {
    /// Returns the number behind its last message.
    pub(super) fn next(&self) -> u64 {
        self.writes.last().map_or(self.first, |write| write.next)
    }
}

impl Written {
    /// Returns the number behind the last message.
    pub(super) fn next(&self) -> u64 {
        self.connections.last().map_or(0, Connection::next)
    }
}

/// Returns message `number` of a program, as it is to be stored.
pub(super) fn text(name: &str, number: u64) -> String {
    let mut text = format!("<13>Nov 21 10:00:00 host {name}[7]: {name} {number:08} ");
    let noise = number.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    let length = usize::try_from(noise % FILLER).unwrap_or(0);
    // It hardly compresses: segments are to become full.
    let mut dice = Dice::new(noise);
    let words: String = (0..=length / 16)
        .map(|_| format!("{:016x}", dice.next()))
        .collect();
    text.push_str(&words[..length]);
    text.push('.');
    text
}

/// Returns the program and the number of a message, if it is one of ours and whole.
pub(super) fn number(raw: &str) -> Option<(&str, u64)> {
    let mut words = raw.split("]: ").nth(1)?.split(' ');
    let name = words.next()?;
    let number = words.next()?.parse().ok()?;
    (raw == text(name, number)).then_some((name, number))
}

/// An open way.
enum Open {
    Udp(UdpSocket),
    Tcp(TcpStream, Framing),
    Stream(UnixStream),
    Gram(UnixDatagram),
    File(Rotated),
}

/// A file that is rotated now and then, and nothing of it removed.
struct Rotated {
    path: PathBuf,
    rotation: Rotation,
    file: File,
    bytes: u64,
    count: usize,
}

impl Rotated {
    fn open(path: PathBuf, rotation: Rotation) -> io::Result<Self> {
        let file = File::options().append(true).create(true).open(&path)?;
        Ok(Self {
            path,
            rotation,
            file,
            bytes: 0,
            count: 0,
        })
    }

    fn write(&mut self, texts: &[String]) -> io::Result<u64> {
        if self.bytes > ROTATION {
            self.rotate()?;
        }
        let text: String = texts.iter().map(|text| format!("{text}\n")).collect();
        self.file.write_all(text.as_bytes())?;
        self.bytes += text.len() as u64;
        Ok(text.len() as u64)
    }

    fn rotate(&mut self) -> io::Result<()> {
        self.count += 1;
        let old = self.path.with_extension(format!("log.{}", self.count));
        self.bytes = 0;
        match self.rotation {
            Rotation::Rename => {
                fs::rename(&self.path, old)?;
                self.file = File::options().append(true).create(true).open(&self.path)?;
            }
            Rotation::Copy => {
                fs::copy(&self.path, old)?;
                self.file.set_len(0)?;
            }
        }
        Ok(())
    }
}

impl Source {
    /// Logs until it is over; whoever listens may vanish at any time.
    pub(super) fn log(&self, begun: Instant, mut dice: Dice, over: &AtomicBool) -> Written {
        let is_stream = matches!(self.way, Way::Tcp(..) | Way::Stream(_));
        let mut written = Written {
            name: self.name,
            domain: self.domain,
            is_stream,
            is_kept: matches!(self.way, Way::File(..)),
            connections: Vec::new(),
        };
        while !over.load(Ordering::Relaxed) {
            let Some(mut open) = self.open() else {
                thread::sleep(AGAIN);
                continue;
            };
            let connection = Connection {
                first: written.next(),
                port: open.port(),
                writes: Vec::new(),
            };
            let connection = self.log_on(&mut open, connection, (begun, &mut dice, over));
            match written.connections.last_mut() {
                // Whoever sends datagrams has no connection that could end.
                Some(last) if !is_stream => last.writes.extend(connection.writes),
                Some(_) | None => written.connections.push(connection),
            }
        }
        written
    }

    fn open(&self) -> Option<Open> {
        match &self.way {
            Way::Udp(port) => {
                let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
                socket.connect((Ipv4Addr::LOCALHOST, *port)).ok()?;
                Some(Open::Udp(socket))
            }
            Way::Tcp(port, framing) => {
                let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, *port)).ok()?;
                Some(Open::Tcp(stream, *framing))
            }
            Way::Stream(path) => Some(Open::Stream(UnixStream::connect(path).ok()?)),
            Way::Gram(path) => {
                let socket = UnixDatagram::unbound().ok()?;
                socket.connect(path).ok()?;
                Some(Open::Gram(socket))
            }
            Way::File(dir, rotation) => {
                let path = dir.join(format!("{}.log", self.name));
                Some(Open::File(Rotated::open(path, *rotation).ok()?))
            }
        }
    }

    fn log_on(
        &self,
        open: &mut Open,
        mut connection: Connection,
        (begun, dice, over): (Instant, &mut Dice, &AtomicBool),
    ) -> Connection {
        let mut bytes = 0;
        while !over.load(Ordering::Relaxed) {
            let most = if dice.chance(20) { LARGE } else { BURST };
            let first = connection.next();
            let texts: Vec<String> = (first..first + dice.within(1, most) as u64)
                .map(|number| text(self.name, number))
                .collect();
            let (count, length, is_open) = open.write(&texts);
            bytes += length;
            if count > 0 {
                connection.writes.push(Wrote {
                    at: begun.elapsed(),
                    next: first + count,
                    bytes,
                });
            }
            if !is_open {
                thread::sleep(AGAIN);
                break;
            }
            thread::sleep(dice.time(PAUSE));
        }
        connection
    }
}

impl Open {
    fn port(&self) -> Option<u16> {
        match self {
            Self::Tcp(stream, _) => stream.local_addr().ok().as_ref().map(SocketAddr::port),
            Self::Udp(socket) => socket.peer_addr().ok().as_ref().map(SocketAddr::port),
            Self::Stream(_) | Self::Gram(_) | Self::File(_) => None,
        }
    }

    /// Writes messages. Returns how many were, or may have been, taken; of how many bytes; and whether more can be.
    fn write(&mut self, texts: &[String]) -> (u64, u64, bool) {
        match self {
            Self::Udp(socket) => each(texts, |text| socket.send(text).is_ok()),
            Self::Gram(socket) => each(texts, |text| socket.send(text).is_ok()),
            Self::Tcp(stream, Framing::Lines) => all(stream, texts, |text| format!("{text}\n")),
            Self::Tcp(stream, Framing::Counts) => {
                all(stream, texts, |text| format!("{} {text}", text.len()))
            }
            Self::Stream(stream) => all(stream, texts, |text| format!("{text}\n")),
            Self::File(file) => match file.write(texts) {
                Ok(bytes) => (texts.len() as u64, bytes, true),
                Err(_) => (0, 0, false),
            },
        }
    }
}

/// Sends each by itself; what was refused was not sent.
fn each(texts: &[String], send: impl Fn(&[u8]) -> bool) -> (u64, u64, bool) {
    let taken = texts.iter().take_while(|text| send(text.as_bytes()));
    let (mut count, mut bytes) = (0, 0);
    for text in taken {
        count += 1;
        bytes += text.len() as u64;
    }
    (count, bytes, count == texts.len() as u64)
}

/// Writes all of it; of what failed, any part may have been taken.
fn all(
    stream: &mut impl Write,
    texts: &[String],
    frame: impl Fn(&String) -> String,
) -> (u64, u64, bool) {
    let bytes: String = texts.iter().map(frame).collect();
    let is_open = stream.write_all(bytes.as_bytes()).is_ok();
    (texts.len() as u64, bytes.len() as u64, is_open)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_tells_its_number_and_only_when_it_is_whole() {
        for at in [0, 7, 123_456] {
            let text = text("lines", at);
            assert_eq!(number(&text), Some(("lines", at)));
            assert_eq!(number(&text[..text.len() - 1]), None);
            assert_eq!(number(&format!("{text}x")), None);
        }
    }

    #[test]
    fn the_kernels_table_is_understood() {
        let line =
            "   1: 0100007F:1F90 0100007F:C350 01 0000000A:00000010 00:00000000 00000000 0 0 1 1";
        let row = row(line).expect("a row");
        assert_eq!((row.local, row.remote), (8080, 50000));
        assert_eq!((row.unsent, row.unread, row.state.as_str()), (10, 16, "01"));
    }
}
