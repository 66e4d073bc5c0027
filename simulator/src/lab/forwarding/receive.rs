//! Who receives at the other end: a counter of lines for the peers, a stand-in for the station that counts and
//! acknowledges, and a witness of what the real station says.

use std::{
    cell::RefCell,
    collections::BTreeMap,
    io::Read,
    net::{TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use jiff::Timestamp;
use steward_protocol::{
    Frame, Generation, Hello, InstanceId, LedgerId, Origin, Reign, Welcome,
    logs::{Batch, Header, Kept, Kind, Micros, Unpacker},
    version,
};
use uuid::Uuid;

use super::wire::Wire;

/// Bytes of one read.
const READ: usize = 256 << 10;

/// How often it is looked whether all has arrived.
const LOOK: Duration = Duration::from_millis(1);

/// A silence after which what comes is another beginning, as long as nothing has counted.
const SILENCE: Duration = Duration::from_millis(100);

/// What has arrived so far.
#[derive(Debug, Default)]
pub(super) struct Progress {
    count: AtomicU64,
    times: Mutex<Times>,
}

#[derive(Debug, Default, Clone, Copy)]
struct Times {
    /// When the first arrived, and the last so far.
    span: Option<(Instant, Instant)>,
    has_counted: bool,
}

impl Progress {
    fn add(&self, more: u64) {
        if more == 0 {
            return;
        }
        let now = Instant::now();
        let mut times = self.times();
        let first = times.span.map_or(now, |(first, _)| first);
        *times = Times {
            span: Some((first, now)),
            has_counted: true,
        };
        self.count.fetch_add(more, Ordering::Release);
    }

    /// Notes that something has arrived that counts later, if it counts at all.
    fn touch(&self) {
        let now = Instant::now();
        let mut times = self.times();
        let first = match times.span {
            Some((first, last)) if times.has_counted || now - last < SILENCE => first,
            Some(_) | None => now,
        };
        times.span = Some((first, now));
    }

    /// Forgets when what has arrived so far did, but not how much it was.
    pub(super) fn begin_again(&self) {
        *self.times() = Times::default();
    }

    fn times(&self) -> MutexGuard<'_, Times> {
        self.times.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn count(&self) -> u64 {
        self.count.load(Ordering::Acquire)
    }

    /// Waits for so many, and returns when the first and the last arrived.
    pub(super) fn wait(&self, count: u64, patience: Duration) -> Result<(Instant, Instant)> {
        let deadline = Instant::now() + patience;
        while self.count() < count {
            if Instant::now() > deadline {
                bail!(
                    "see {count} messages arrive in {} s: there were {}",
                    patience.as_secs(),
                    self.count()
                );
            }
            thread::sleep(LOOK);
        }
        self.times().span.context("see a message arrive")
    }
}

/// Counts lines on a port.
#[derive(Debug)]
pub(super) struct Counter {
    pub(super) progress: Arc<Progress>,
    stop: Arc<AtomicBool>,
    port: u16,
    thread: Option<JoinHandle<()>>,
}

impl Counter {
    pub(super) fn listen(port: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", port)).context("listen for lines")?;
        let (progress, stop) = (
            Arc::new(Progress::default()),
            Arc::new(AtomicBool::new(false)),
        );
        let (counted, stopped) = (Arc::clone(&progress), Arc::clone(&stop));
        let thread = thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if stopped.load(Ordering::Relaxed) {
                    return;
                }
                let counted = Arc::clone(&counted);
                thread::spawn(move || count_lines(stream, &counted));
            }
        });
        Ok(Self {
            progress,
            stop,
            port,
            thread: Some(thread),
        })
    }
}

impl Drop for Counter {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        // So that it looks once more.
        TcpStream::connect(("127.0.0.1", self.port)).ok();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

fn count_lines(mut stream: TcpStream, progress: &Progress) {
    let mut buffer = vec![0; READ];
    while let Ok(count @ 1..) = stream.read(&mut buffer) {
        let ends = buffer[..count].iter().filter(|byte| **byte == b'\n');
        progress.add(ends.count() as u64);
    }
}

/// By the subject of the answer, and generation.
type Stored = BTreeMap<(String, Generation), Heard>;

/// Stands in for a station: welcomes, counts, and says what it has, as a station does after its commit.
#[derive(Debug)]
pub(super) struct StandIn {
    pub(super) progress: Arc<Progress>,
    /// Bytes of batches that came.
    pub(super) bytes: Arc<AtomicU64>,
    wire: Wire,
    thread: Option<JoinHandle<()>>,
}

impl StandIn {
    /// Begins, with nothing stored.
    pub(super) fn begin(port: u16) -> Result<Self> {
        let wire = Wire::connect(port, &["central.>"])?;
        let (progress, bytes) = (Arc::new(Progress::default()), Arc::new(AtomicU64::new(0)));
        let desk = RefCell::new(Desk {
            wire: wire.clone(),
            ledger_id: LedgerId(Uuid::new_v4()),
            stored: Stored::new(),
            progress: Arc::clone(&progress),
            bytes: Arc::clone(&bytes),
            instances: BTreeMap::new(),
        });
        let hearing = wire.clone();
        let thread = thread::spawn(move || {
            let take = |subject: &str, payload: &[u8]| desk.borrow_mut().take(subject, payload);
            // It ends with its connection.
            hearing.hear(take, || desk.borrow_mut().say()).ok();
        });
        Ok(Self {
            progress,
            bytes,
            wire,
            thread: Some(thread),
        })
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.wire.close();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

/// A numbering, how far it is there, and what is to be said of it.
#[derive(Debug, Default, Clone, Copy)]
struct Heard {
    next: u64,
    is_news: bool,
    again: bool,
}

struct Desk {
    wire: Wire,
    ledger_id: LedgerId,
    stored: Stored,
    progress: Arc<Progress>,
    bytes: Arc<AtomicU64>,
    /// The present start of each node.
    instances: BTreeMap<String, InstanceId>,
}

impl Desk {
    fn take(&mut self, subject: &str, payload: &[u8]) {
        let mut words = subject.split('.').skip(2);
        let (method, domain, node) = (words.next(), words.next(), words.next());
        let (Some(method), Some(domain), Some(node)) = (method, domain, node) else {
            return;
        };
        if method == "syslogforwarding" {
            self.batch(format!("{node}.event.kept.{domain}"), payload);
        } else if let Ok(frame) = Frame::<Origin, Hello>::decode(payload) {
            self.instances.insert(node.to_owned(), frame.send.instance);
            let body = Welcome {
                at: Timestamp::now(),
                hello_at: frame.body.at,
            };
            if let Some(send) = self.reign(node)
                && let Ok(bytes) = (Frame { send, body }).encode()
            {
                let subject = format!("{node}.event.welcome.node");
                self.wire.publish(&subject, &bytes);
            }
        }
    }

    fn batch(&mut self, answer: String, payload: &[u8]) {
        let Ok((header, _)) = Header::read(payload) else {
            return;
        };
        let heard = self.stored.entry((answer, header.generation)).or_default();
        heard.is_news = true;
        heard.again = header.first > heard.next;
        if header.first <= heard.next && header.next() > heard.next {
            let new = header.next() - heard.next;
            heard.next = header.next();
            self.bytes
                .fetch_add(payload.len() as u64, Ordering::Relaxed);
            let is_there = header.kind == Kind::Records;
            self.progress.add(if is_there { new } else { 0 });
        }
    }

    fn reign(&self, node: &str) -> Option<Reign> {
        Some(Reign {
            v: version::CURRENT,
            ledger_id: self.ledger_id,
            epoch: 1,
            instance: *self.instances.get(node)?,
            low: 1,
        })
    }

    /// Says how far everything is there that has grown.
    fn say(&mut self) {
        let mut said = Vec::new();
        for ((subject, generation), heard) in &mut self.stored {
            if std::mem::take(&mut heard.is_news) {
                let body = Kept {
                    generation: *generation,
                    next: heard.next,
                    again: heard.again,
                };
                said.push((subject.clone(), body));
            }
        }
        for (subject, body) in said {
            let node = subject.split('.').next().unwrap_or_default();
            if let Some(send) = self.reign(node)
                && let Ok(bytes) = (Frame { send, body }).encode()
            {
                self.wire.publish(&subject, &bytes);
            }
        }
        // A broker that is gone ends hearing.
        self.wire.flush().ok();
    }
}

/// Hears what the real station says it has, after its fsync.
#[derive(Debug)]
pub(super) struct Witness {
    pub(super) progress: Arc<Progress>,
    /// Time from acceptance by the agent to the station's word, of each message.
    pub(super) waits: Arc<Mutex<Vec<Duration>>>,
    wire: Wire,
    thread: Option<JoinHandle<()>>,
}

/// What a witness looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Looks {
    /// The station's word.
    Words,
    /// Also at when batches come.
    Arrivals,
    /// Also at the times in them.
    Times,
}

impl Witness {
    pub(super) fn begin(port: u16, looks: Looks) -> Result<Self> {
        let subjects: &[&str] = match looks {
            Looks::Words => &["*.event.kept.*"],
            Looks::Arrivals | Looks::Times => {
                &["*.event.kept.*", "central.event.syslogforwarding.>"]
            }
        };
        let wire = Wire::connect(port, subjects)?;
        let (progress, waits) = (Arc::new(Progress::default()), Arc::default());
        let mut watch = Watch {
            looks,
            unpacker: Unpacker::new().context("begin to unpack")?,
            accepted: BTreeMap::new(),
            next: BTreeMap::new(),
            progress: Arc::clone(&progress),
            waits: Arc::clone(&waits),
        };
        let hearing = wire.clone();
        let thread = thread::spawn(move || {
            let heard = |subject: &str, payload: &[u8]| watch.take(subject, payload);
            hearing.hear(heard, || ()).ok();
        });
        Ok(Self {
            progress,
            waits,
            wire,
            thread: Some(thread),
        })
    }
}

impl Drop for Witness {
    fn drop(&mut self) {
        self.wire.close();
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

struct Watch {
    looks: Looks,
    unpacker: Unpacker,
    /// When what is on its way was accepted, by generation and position.
    accepted: BTreeMap<(Generation, u64), Micros>,
    next: BTreeMap<Generation, u64>,
    progress: Arc<Progress>,
    waits: Arc<Mutex<Vec<Duration>>>,
}

impl Watch {
    fn take(&mut self, subject: &str, payload: &[u8]) {
        if subject.starts_with("central.") {
            self.progress.touch();
            if self.looks == Looks::Times {
                self.batch(payload);
            }
            return;
        }
        let Ok(frame) = Frame::<Reign, Kept>::decode(payload) else {
            return;
        };
        let kept = frame.body;
        let before = self.next.entry(kept.generation).or_default();
        let new = kept.next.saturating_sub(*before);
        *before = kept.next.max(*before);
        self.progress.add(new);
        let now = Micros::from(Timestamp::now());
        let stored = (kept.generation, kept.next);
        let waiting = self.accepted.split_off(&stored);
        let stored = std::mem::replace(&mut self.accepted, waiting);
        let mut waits = self.waits.lock().unwrap_or_else(PoisonError::into_inner);
        waits.extend(
            stored.values().map(|accepted| {
                Duration::from_micros(u64::try_from(now.0 - accepted.0).unwrap_or(0))
            }),
        );
    }

    fn batch(&mut self, payload: &[u8]) {
        let Ok(batch) = Batch::read(payload) else {
            return;
        };
        let generation = batch.header().generation;
        let Ok(records) = self.unpacker.records(&batch) else {
            return;
        };
        for record in records.map_while(Result::ok) {
            let place = (generation, record.position);
            self.accepted.entry(place).or_insert(record.received);
        }
    }
}
