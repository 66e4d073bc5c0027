//! One measurement each: who forwards, under which load, and what came of it.
//!
//! Lines leave over one TCP connection from memory; what is measured begins with the first byte and ends when the last
//! message has arrived, or was acknowledged. Everybody gets one line first, so that connections are made.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::Write,
    net::{TcpStream, UdpSocket},
    path::Path,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::fs::{Advice, fadvise};
use steward_station::logs::{
    disk::Files,
    name::Line,
    read::{Merge, Query, ends},
};

use super::{
    super::{dice::Dice, layout::free_port, runner::Ground},
    lines::Lines,
    peers::{Peer, Root},
    plant::{DATAGRAMS, NODE, Plant, With},
    receive::{Counter, Looks, Progress, StandIn, Witness},
    usage::{self, Memory},
};

/// Bytes of one write of the sender.
const WRITE: usize = 64 << 10;

/// How long all lines may take to arrive: the slowest peer by far.
const PATIENCE: Duration = Duration::from_secs(300);

/// What a connection begins with.
const PROBE: &[u8] = b"<13>Nov 21 08:00:00 ship1 probe[1]: is anybody there\n";

/// How long an agent rests before its memory is looked at.
const REST: Duration = Duration::from_secs(4);

/// How long nothing must come to count as the end.
const QUIET: Duration = Duration::from_secs(2);

/// Pauses of a sender that keeps to a rate.
const BEAT: Duration = Duration::from_millis(1);

/// What all measurements need.
pub(super) struct Bench<'a> {
    pub(super) ground: &'a Ground,
    pub(super) peers: Option<Root>,
    pub(super) dice: Dice,
    /// What is sent, as a stream.
    pub(super) stream: Vec<u8>,
    pub(super) lines: u64,
    pub(super) length: Duration,
}

/// How a forwarder did.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    /// Messages per second.
    pub(super) rate: f64,
    /// Microseconds of processor time per message, of the forwarder alone.
    pub(super) cost: f64,
    pub(super) memory: Memory,
    /// Bytes forwarded or spooled per byte of the lines; 0 where that was not looked at.
    pub(super) share: f64,
}

/// How an agent did in an outage.
#[derive(Debug, Clone, Copy)]
pub(super) struct Outage {
    pub(super) idle: Memory,
    pub(super) drained: Pace,
    /// From the return of the receiver to the first message.
    pub(super) wait: Duration,
}

/// What became of datagrams.
#[derive(Debug, Clone)]
pub(super) struct Datagrams {
    pub(super) sent: u64,
    pub(super) stored: u64,
    /// What gaps say is missing.
    pub(super) counted: u64,
    /// The same by reason.
    pub(super) reasons: BTreeMap<String, u64>,
    /// How many left per second.
    pub(super) rate: f64,
}

impl Datagrams {
    /// Returns how many are neither stored nor in a gap, or twice there.
    pub(super) fn unaccounted(&self) -> u64 {
        self.sent.abs_diff(self.stored + self.counted)
    }
}

impl Bench<'_> {
    pub(super) fn peer(&mut self, peer: Peer) -> Result<Option<Pace>> {
        let Some(root) = self.peers.clone() else {
            return Ok(None);
        };
        let dir = self.ground.new_dir()?;
        let (from, to) = (free_port(&mut self.dice)?, free_port(&mut self.dice)?);
        let counter = Counter::listen(to)?;
        let member = root.start(peer, dir.path(), from, to)?;
        let pid = member.pid().context("find the peer")?;
        let pace = self.pace(from, &counter.progress, pid);
        let pace = pace.with_context(|| format!("measure {}", peer.name()))?;
        Ok(Some(pace))
    }

    /// Returns how a peer did after an outage, and how long it took to notice its end.
    pub(super) fn peer_drain(&mut self, peer: Peer) -> Result<Option<(Pace, Duration)>> {
        let Some(root) = self.peers.clone() else {
            return Ok(None);
        };
        let dir = self.ground.new_dir()?;
        let (from, to) = (free_port(&mut self.dice)?, free_port(&mut self.dice)?);
        let member = root.start(peer, dir.path(), from, to)?;
        let pid = member.pid().context("find the peer")?;
        let sent = self.send(from)?;
        usage::calm(pid)?;
        let used = usage::processor(pid)?;
        let back = Instant::now();
        let counter = Counter::listen(to)?;
        let times = counter.progress.wait(self.lines, PATIENCE);
        let times = times.with_context(|| format!("drain {}", peer.name()))?;
        drop(sent);
        let pace = self.paced(times, pid, used, self.lines)?;
        Ok(Some((pace, times.0.saturating_duration_since(back))))
    }

    /// Sender, agent with its spool, broker, and a receiver that counts and acknowledges.
    pub(super) fn agent(&mut self) -> Result<Pace> {
        let mut plant = Plant::new(self.ground, &mut self.dice, With::Nobody)?;
        let station = StandIn::begin(plant.nats)?;
        plant.start_agent()?;
        let pid = plant.agent.pid().context("find the agent")?;
        let pace = self.pace(plant.tcp, &station.progress, pid);
        let mut pace = pace.context("measure the agent's path")?;
        let bytes = station.bytes.load(std::sync::atomic::Ordering::Relaxed);
        pace.share = bytes as f64 / self.stream.len() as f64;
        Ok(pace)
    }

    /// The same with the real station, which stores and fsyncs.
    pub(super) fn whole(&mut self) -> Result<(Pace, f64)> {
        let mut plant = Plant::new(self.ground, &mut self.dice, With::Station)?;
        let witness = Witness::begin(plant.nats, Looks::Words)?;
        plant.start_agent()?;
        let pid = plant.agent.pid().context("find the agent")?;
        let station = plant
            .station
            .as_ref()
            .and_then(super::super::child::Member::pid);
        let station = station.context("find the station")?;
        let before = usage::processor(station)?;
        let pace = self.pace(plant.tcp, &witness.progress, pid);
        let pace = pace.context("measure the whole path")?;
        let used = usage::processor(station)? - before;
        Ok((pace, micros(used, self.lines)))
    }

    /// An agent that has nothing to do, then much, then no station to say it to, then all of it at once. What is timed is
    /// the way from the first batch that comes to a station again to its word that it has stored all of them.
    pub(super) fn outage(&mut self) -> Result<Outage> {
        let mut plant = Plant::new(self.ground, &mut self.dice, With::Station)?;
        let witness = Witness::begin(plant.nats, Looks::Arrivals)?;
        let progress = &witness.progress;
        forget(&self.ground.programs.agent)?;
        plant.start_agent()?;
        let pid = plant.agent.pid().context("find the agent")?;
        thread::sleep(REST);
        let idle = usage::memory(pid)?;
        let burst = self.send(plant.tcp)?;
        progress.wait(self.lines, PATIENCE).context("burst")?;
        if let Some(station) = &mut plant.station {
            station.stop();
        }
        let sent = self.send(plant.tcp)?;
        usage::calm(pid)?;
        let used = usage::processor(pid)?;
        let back = Instant::now();
        progress.begin_again();
        if let Some(station) = &mut plant.station {
            station.start()?;
        }
        let times = progress.wait(2 * self.lines, PATIENCE);
        let times = times.context("drain the agent's spool")?;
        drop((burst, sent));
        Ok(Outage {
            idle,
            drained: self.paced(times, pid, used, self.lines)?,
            wait: times.0.saturating_duration_since(back),
        })
    }

    /// Returns how long each message took from acceptance to the station's word, at 1,000 a second.
    pub(super) fn latency(&mut self) -> Result<Vec<Duration>> {
        let mut plant = Plant::new(self.ground, &mut self.dice, With::Station)?;
        let witness = Witness::begin(plant.nats, Looks::Times)?;
        plant.start_agent()?;
        let mut stream = probe(plant.tcp, &witness.progress)?;
        let lines = self.stream.split_inclusive(|byte| *byte == b'\n').cycle();
        let count = at_rate(1000, self.length, lines, |line| stream.write_all(line))?;
        witness.progress.wait(count + 1, PATIENCE)?;
        let waits = witness.waits.lock();
        let mut waits = waits.map_err(|_| anyhow::anyhow!("read the times"))?;
        let mut waits = std::mem::take(&mut *waits);
        if waits.len() as u64 != count + 1 {
            bail!("time {} messages: {} were", count + 1, waits.len());
        }
        waits.sort();
        Ok(waits)
    }

    /// Sends 100,000 datagrams a second, and looks what of them is in the station's files.
    pub(super) fn datagrams(&mut self) -> Result<Datagrams> {
        let mut plant = Plant::new(self.ground, &mut self.dice, With::Station)?;
        let witness = Witness::begin(plant.nats, Looks::Words)?;
        plant.start_agent()?;
        drop(probe(plant.tcp, &witness.progress)?);
        let socket = UdpSocket::bind("127.0.0.1:0").context("open a socket")?;
        let to = ("127.0.0.1", plant.udp);
        socket.connect(to).context("set up a socket")?;
        let lines = self.stream.split(|byte| *byte == b'\n');
        let lines = lines.filter(|line| !line.is_empty()).cycle();
        let began = Instant::now();
        let sent = at_rate(100_000, self.length, lines, |line| {
            socket.send(line).map(drop)
        })?;
        let took = began.elapsed();
        let mut before = 0;
        while witness.progress.count() > before {
            before = witness.progress.count();
            thread::sleep(QUIET);
        }
        let (stored, reasons) = stored(&plant.stored())?;
        Ok(Datagrams {
            sent,
            stored,
            counted: reasons.values().sum(),
            reasons,
            rate: sent as f64 / took.as_secs_f64(),
        })
    }

    fn pace(&self, port: u16, progress: &Progress, pid: u32) -> Result<Pace> {
        drop(probe(port, progress)?);
        let used = usage::processor(pid)?;
        let began = Instant::now();
        let stream = self.send(port)?;
        let (_, last) = progress.wait(self.lines + 1, PATIENCE)?;
        drop(stream);
        self.paced((began, last), pid, used, self.lines)
    }

    fn paced(
        &self,
        (first, last): (Instant, Instant),
        pid: u32,
        used: Duration,
        lines: u64,
    ) -> Result<Pace> {
        let took = last.saturating_duration_since(first);
        Ok(Pace {
            rate: lines as f64 / took.as_secs_f64().max(1e-6),
            cost: micros(usage::processor(pid)?.saturating_sub(used), lines),
            memory: usage::memory(pid)?,
            share: 0.0,
        })
    }

    /// Sends everything over one connection, which is returned open.
    fn send(&self, port: u16) -> Result<TcpStream> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
        for chunk in self.stream.chunks(WRITE) {
            stream.write_all(chunk).context("send lines")?;
        }
        Ok(stream)
    }
}

/// Lets the kernel read a program anew, as after a boot. How much of one that was copied in large pieces is resident depends
/// on the copying.
fn forget(program: &Path) -> Result<()> {
    let file = File::open(program).with_context(|| format!("open {}", program.display()))?;
    file.sync_all().context("write a program to the disk")?;
    fadvise(&file, 0, None, Advice::DontNeed).context("forget a program")
}

/// Sends one line and waits until it has arrived.
fn probe(port: u16, progress: &Progress) -> Result<TcpStream> {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).context("connect")?;
    stream.write_all(PROBE).context("send a line")?;
    progress.wait(1, PATIENCE).context("see one line arrive")?;
    Ok(stream)
}

/// Sends at a rate for a time; returns how many lines that were.
fn at_rate<'l>(
    rate: u64,
    length: Duration,
    mut lines: impl Iterator<Item = &'l [u8]>,
    mut send: impl FnMut(&[u8]) -> std::io::Result<()>,
) -> Result<u64> {
    let began = Instant::now();
    let mut sent = 0;
    while began.elapsed() < length {
        let due = (began.elapsed().as_secs_f64() * rate as f64) as u64;
        while sent < due {
            let line = lines.next().context("find a line to send")?;
            send(line).context("send a line")?;
            sent += 1;
        }
        thread::sleep(BEAT);
    }
    Ok(sent)
}

fn micros(time: Duration, messages: u64) -> f64 {
    time.as_secs_f64() * 1e6 / messages as f64
}

/// Returns how many datagrams are in the station's files, and how many their gaps say are missing, by reason.
fn stored(root: &Path) -> Result<(u64, BTreeMap<String, u64>)> {
    let disk = Files::new(root.to_owned());
    let line = Line {
        node: NODE.parse().context("name the node")?,
        domain: DATAGRAMS.parse().context("name the domain")?,
    };
    let ends = ends(&disk, &[line]).context("find what is stored")?;
    let none = BTreeMap::new();
    let merge = Merge::new(&disk, Query::everything(), &none, &ends);
    let mut merge = merge.context("begin to read what is stored")?;
    let (mut stored, mut reasons) = (0, BTreeMap::new());
    while let Some((_, found)) = merge.pull().context("read what is stored")? {
        match found.gap {
            Some(gap) => {
                let count = gap.count.context("count what is missing")?;
                *reasons.entry(format!("{:?}", gap.reason)).or_default() += count;
            }
            None => stored += 1,
        }
    }
    Ok((stored, reasons))
}

/// Returns what is sent, as a stream.
pub(super) fn stream(seed: u64, lines: u64) -> Vec<u8> {
    Lines::new(seed).stream(usize::try_from(lines).unwrap_or(usize::MAX))
}

/// Returns the bytes of all files below a directory.
pub(super) fn size(dir: &Path) -> u64 {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries
        .map(|entry| match entry.metadata() {
            Ok(meta) if meta.is_dir() => size(&entry.path()),
            Ok(meta) => meta.len(),
            Err(_) => 0,
        })
        .sum()
}
