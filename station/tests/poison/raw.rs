//! A publisher that keeps to no rules: it writes NATS frames byte by byte.

use std::{
    io::{BufRead, BufReader, Write},
    net::TcpStream,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

/// One frame to be published.
#[derive(Debug, Clone, Copy)]
pub(super) struct RawFrame<'a> {
    pub(super) subject: &'a [u8],
    pub(super) reply: Option<&'a [u8]>,
    pub(super) header: Option<&'a [u8]>,
    pub(super) payload: &'a [u8],
}

impl<'a> RawFrame<'a> {
    pub(super) fn plain(subject: &'a str, payload: &'a [u8]) -> Self {
        Self {
            subject: subject.as_bytes(),
            reply: None,
            header: None,
            payload,
        }
    }

    /// Returns the bytes that publish it.
    pub(super) fn bytes(&self) -> Vec<u8> {
        let mut bytes = match self.header {
            None => b"PUB ".to_vec(),
            Some(_) => b"HPUB ".to_vec(),
        };
        bytes.extend_from_slice(self.subject);
        bytes.push(b' ');
        if let Some(reply) = self.reply {
            bytes.extend_from_slice(reply);
            bytes.push(b' ');
        }
        let header = self.header.unwrap_or_default();
        if self.header.is_some() {
            bytes.extend_from_slice(format!("{} ", header.len()).as_bytes());
        }
        let total = header.len() + self.payload.len();
        bytes.extend_from_slice(format!("{total}\r\n").as_bytes());
        bytes.extend_from_slice(header);
        bytes.extend_from_slice(self.payload);
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

/// A connection to a broker that publishes whatever it is given.
pub(super) struct Raw {
    stream: Arc<Mutex<TcpStream>>,
    errors: Arc<Mutex<Vec<String>>>,
}

impl Raw {
    pub(super) fn connect(url: &str) -> Self {
        let place = url.rsplit("//").next().expect("an address");
        let mut stream = TcpStream::connect(place).expect("the broker is there");
        stream.set_nodelay(true).expect("a socket");
        stream
            .write_all(
                b"CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":true,\"lang\":\"raw\"}\r\n",
            )
            .expect("written");
        let errors = Arc::new(Mutex::new(Vec::new()));
        let (heard, told) = (stream.try_clone().expect("cloned"), Arc::clone(&errors));
        let stream = Arc::new(Mutex::new(stream));
        let pong = Arc::clone(&stream);
        std::thread::spawn(move || {
            for line in BufReader::new(heard).lines().map_while(Result::ok) {
                if line.starts_with("PING") {
                    // Never in the middle of a frame.
                    pong.lock().expect("ours").write_all(b"PONG\r\n").ok();
                } else if line.starts_with("-ERR") {
                    told.lock().expect("ours").push(line);
                }
            }
        });
        Self { stream, errors }
    }

    pub(super) fn send(&self, bytes: &[u8]) {
        let written = self.stream.lock().expect("ours").write_all(bytes);
        written.unwrap_or_else(|error| panic!("{error}; the broker said {:?}", self.errors()));
    }

    /// What the broker complained about.
    pub(super) fn errors(&self) -> Vec<String> {
        self.errors.lock().expect("ours").clone()
    }
}

/// A publisher at work on a thread of its own, until told to stop.
pub(super) struct Attack {
    stop: Arc<AtomicBool>,
    sent: Arc<AtomicU64>,
    began: Instant,
    thread: Option<JoinHandle<()>>,
}

impl Attack {
    /// Publishes `frames` over and over, `per_second` of them (as fast as the broker takes them: 0).
    pub(super) fn start(url: &str, frames: Vec<Vec<u8>>, per_second: u32) -> Self {
        let raw = Raw::connect(url);
        let stop = Arc::new(AtomicBool::new(false));
        let sent = Arc::new(AtomicU64::new(0));
        let (until, count) = (Arc::clone(&stop), Arc::clone(&sent));
        let began = Instant::now();
        let thread = std::thread::spawn(move || {
            for frame in frames.iter().cycle() {
                if until.load(Ordering::Relaxed) {
                    return;
                }
                raw.send(frame);
                let number = count.fetch_add(1, Ordering::Relaxed) + 1;
                if per_second > 0 {
                    let due = Duration::from_secs(number) / per_second;
                    std::thread::sleep(due.saturating_sub(began.elapsed()));
                }
            }
        });
        Self {
            stop,
            sent,
            began,
            thread: Some(thread),
        }
    }

    /// Returns how many frames were sent so far.
    pub(super) fn sent(&self) -> u64 {
        self.sent.load(Ordering::Relaxed)
    }

    /// Stops, and returns how many frames were sent, and how many of them per second.
    pub(super) fn end(mut self) -> (u64, u64) {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take().expect("ended once");
        thread.join().expect("the attacker goes on to the end");
        let millis = u64::try_from(self.began.elapsed().as_millis()).expect("a short while");
        (self.sent(), self.sent() * 1000 / millis.max(1))
    }
}

impl Drop for Attack {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
    }
}
