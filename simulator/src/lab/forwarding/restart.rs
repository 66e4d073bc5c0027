//! How soon an agent is ready that has a large spool.
//!
//! The spool is made with its own code on a disk that does not sync, of records that do not compress, so that it is soon
//! large. What is measured is the start alone.

use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::fs::statvfs;
use steward_agent::syslog::spool::{
    Policy, Portion, Settings, Spool, Taken, Terms,
    disk::{Disk, Entry},
    files::Files,
};
use steward_protocol::{Domain, Generation, logs::Micros};
use uuid::Uuid;

use super::{
    super::{dice::Dice, runner::Ground},
    measure::size,
    plant::{Plant, STREAMS, With},
    receive::StandIn,
};

/// Room that must be left on the disk.
const SPARE: u64 = 5 << 30;

/// Bytes of a message, and messages of a portion.
const MESSAGE: usize = 4 << 10;
const AT_ONCE: usize = 60;

/// How long the first batch may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// What a start took.
#[derive(Debug, Clone, Copy)]
pub(super) struct Restart {
    /// Bytes in the spool.
    pub(super) bytes: u64,
    /// Until an input takes connections.
    pub(super) open: Duration,
    /// Until the first batch of the spool arrived at a receiver that was there.
    pub(super) first: Duration,
}

/// Makes a spool of so many bytes and starts an agent on it.
pub(super) fn run(ground: &Ground, dice: &mut Dice, bytes: u64) -> Result<Restart> {
    let stat = statvfs(&ground.dir).context("look at the disk")?;
    let free = stat.f_bavail * stat.f_frsize;
    if free < bytes + SPARE {
        bail!("make a spool of {bytes} bytes: the disk has only {free} left");
    }
    let mut plant = Plant::new(ground, dice, With::Nobody)?;
    // Once, for its directories.
    plant.start_agent()?;
    plant.agent.stop();
    fill(&plant.spool(), dice, bytes)?;
    let station = StandIn::begin(plant.nats)?;
    let bytes = size(&plant.spool());
    let began = Instant::now();
    plant.start_agent()?;
    let open = began.elapsed();
    let (first, _) = station.progress.wait(1, PATIENCE)?;
    Ok(Restart {
        bytes,
        open,
        first: first.saturating_duration_since(began),
    })
}

fn fill(dir: &Path, dice: &mut Dice, bytes: u64) -> Result<()> {
    let disk = Hasty(Files::open(dir).context("open the spool's directory")?);
    let terms = Terms {
        share: u64::MAX / 2,
        policy: Policy::Block,
    };
    let settings = Settings {
        total: u64::MAX / 2,
        others: terms,
        ..Settings::default()
    };
    let draw = Box::new(|| Generation(Uuid::now_v7()));
    let mut spool = Spool::open(disk, settings, draw).context("open a spool")?;
    let domain: Domain = STREAMS.parse().context("name a domain")?;
    let mut noise: Vec<u8> = (0..2 * MESSAGE * AT_ONCE)
        .map(|_| dice.next() as u8)
        .collect();
    let mut written = 0;
    while written < bytes {
        let mut portion =
            Portion::new("tcp://127.0.0.1:5514".into(), Micros(1_795_248_000_000_000));
        for _ in 0..AT_ONCE {
            // Never the same twice, so that nothing compresses.
            let at = dice.below(noise.len() - MESSAGE);
            noise[at] = noise[at].wrapping_add(1);
            portion.push(&noise[at..at + MESSAGE], 6);
        }
        written += (MESSAGE * AT_ONCE) as u64;
        if spool.append(&domain, &portion) != Taken::Yes {
            bail!("fill a spool: it is full");
        }
        spool.commit();
    }
    Ok(())
}

/// A disk that does not wait for anything to be durable.
struct Hasty(Files);

impl Disk for Hasty {
    type File = File;

    fn dirs(&mut self) -> io::Result<Vec<String>> {
        self.0.dirs()
    }

    fn files(&mut self, dir: &str) -> io::Result<Vec<Entry>> {
        self.0.files(dir)
    }

    fn make_dir(&mut self, dir: &str) -> io::Result<()> {
        self.0.make_dir(dir)
    }

    fn create(&mut self, dir: &str, name: &str) -> io::Result<File> {
        self.0.create(dir, name)
    }

    fn open(&mut self, dir: &str, name: &str) -> io::Result<File> {
        self.0.open(dir, name)
    }

    fn write(&mut self, file: &mut File, at: u64, bytes: &[u8]) -> io::Result<()> {
        self.0.write(file, at, bytes)
    }

    fn read(&mut self, file: &mut File, at: u64, bytes: &mut [u8]) -> io::Result<usize> {
        self.0.read(file, at, bytes)
    }

    fn sync(&mut self, _: &mut File) -> io::Result<()> {
        Ok(())
    }

    fn sync_dir(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&mut self, file: &mut File, bytes: u64) -> io::Result<()> {
        self.0.truncate(file, bytes)
    }

    fn rename(&mut self, dir: &str, from: &str, to: &str) -> io::Result<()> {
        self.0.rename(dir, from, to)
    }

    fn remove(&mut self, dir: &str, name: &str) -> io::Result<()> {
        self.0.remove(dir, name)
    }
}
