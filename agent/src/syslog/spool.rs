//! The spool: log records on the node's disk until the station has them.
//!
//! Here is decided what is taken, what is dropped and what is written when; the disk is handed in, as are time and
//! chance. What is on the disk is byte for byte what is sent. Memory does not grow with what is on the disk.
//!
//! ```text
//! Portion ─▶ open batch ─(full, or commit)─▶ sealed ─(commit: write, fdatasync)─▶ segment ─▶ read ─▶ release
//! ```

mod claims;
pub mod disk;
pub mod files;
mod lane;
mod lost;
mod name;
mod portion;
mod read;
#[cfg(test)]
mod tests;
pub mod writer;

use std::{collections::BTreeMap, fmt, io};

use steward_protocol::{
    Domain, Generation,
    logs::{Micros, PackError, Packer, Reason},
};

pub use self::portion::{Piece, Portion};
use self::{
    disk::Disk,
    lane::{Lane, Means, PushLimits, Sizes},
};

/// A segment is this part of what its domain may take, so that what is released or dropped comes in small pieces.
const SEGMENTS: u64 = 16;

/// Largest segment: a domain of 10 GB has 2,500 of them, whose names are read in no time.
const MAX_SEGMENT: u64 = 4 << 20;

/// Smallest segment: a few batches.
const MIN_SEGMENT: u64 = 16 << 10;

/// Most bytes beyond its share that a domain takes to say what it has dropped.
const RESERVE: u64 = 256 << 10;

/// What to do when a domain has taken all it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Policy {
    /// Take nothing more; sources that can wait do.
    #[default]
    Block,
    /// Drop the oldest, a segment at a time.
    DropOldest,
    /// Drop what comes.
    DropNewest,
    /// Drop what comes, and the less grave before it is full: debug beyond 9/16 of its share, emergencies at the end.
    DropBySeverity,
}

/// What one domain may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms {
    /// Bytes on the disk.
    pub share: u64,
    /// What to do then.
    pub policy: Policy,
}

/// What a spool keeps to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// Bytes on the disk, in all.
    pub total: u64,
    /// Bytes of records after which a batch is sealed.
    pub batch: usize,
    /// Bytes of a message that are kept; of what is cut, the length is.
    pub longest: usize,
    /// Domains with terms of their own.
    pub domains: BTreeMap<Domain, Terms>,
    /// The terms of all others.
    pub others: Terms,
}

impl Default for Settings {
    fn default() -> Self {
        let total = 64 << 20;
        Self {
            total,
            batch: 128 << 10,
            longest: 8 << 10,
            domains: BTreeMap::new(),
            // The rest is for those that are not the loudest.
            others: Terms {
                share: total / 4 * 3,
                policy: Policy::Block,
            },
        }
    }
}

/// A place in a domain's spool.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Place {
    /// Which numbering.
    pub generation: Generation,
    /// The number of the record there.
    pub position: u64,
}

/// What is at a place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// A batch.
    Batch(Fetched),
    /// Nothing yet; it is the place of a record to come.
    Nothing,
    /// The end of a generation that is not added to any more; when the station has all of it, it is released whole.
    End {
        /// The position behind its last record.
        next: u64,
        /// Where to go on, if there is another generation.
        follows: Option<Place>,
    },
}

/// A batch that was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fetched {
    /// What is to be sent.
    pub payload: Vec<u8>,
    /// Its first position.
    pub first: u64,
    /// The position behind its last.
    pub next: u64,
}

/// What became of a portion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum Taken {
    /// It was taken; what was dropped of it is counted.
    Yes,
    /// There is no room, or the disk fails, and its source is to wait.
    No,
}

/// How it stands with a domain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Standing {
    /// Which domain.
    pub domain: Domain,
    /// Bytes it takes.
    pub used: u64,
    /// Bytes it may take.
    pub share: u64,
    /// Files it has.
    pub segments: usize,
    /// The place behind the newest durable record of this start.
    pub durable: Option<Place>,
    /// Messages dropped since the start.
    pub dropped: u64,
    /// Damaged places found since the start.
    pub damaged: u64,
    /// Why the last write failed, if it did: nothing is taken until one succeeds.
    pub stuck: Option<String>,
    /// Whether something that was taken, or the number of what was dropped, is in memory only.
    pub owes: bool,
}

/// Why a spool cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SpoolError {
    /// The disk failed.
    #[error("{doing} the spool of logs{}", of(.domain.as_ref()))]
    Disk {
        /// What was tried.
        doing: &'static str,
        /// Of which domain.
        domain: Option<Domain>,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// There is no memory to compress with.
    #[error("begin to compress logs")]
    Pack(#[source] PackError),
}

fn of(domain: Option<&Domain>) -> String {
    domain.map_or_else(String::new, |domain| format!(" of domain {domain}"))
}

/// Draws the name of a numbering.
pub type Draw = Box<dyn FnMut() -> Generation + Send>;

/// All domains' spools.
pub struct Spool<D: Disk> {
    disk: D,
    settings: Settings,
    packer: Packer,
    draw: Draw,
    lanes: BTreeMap<Domain, Lane<D::File>>,
}

impl<D: Disk> Spool<D> {
    /// Opens the spool: reads names and sizes.
    ///
    /// # Errors
    ///
    /// Fails when the disk does, or there is no memory.
    pub fn open(mut disk: D, settings: Settings, draw: Draw) -> Result<Self, SpoolError> {
        let packer = Packer::new().map_err(SpoolError::Pack)?;
        let failed = |domain| {
            move |source| SpoolError::Disk {
                doing: "open",
                domain,
                source,
            }
        };
        let mut lanes = BTreeMap::new();
        for dir in disk.dirs().map_err(failed(None))? {
            // A directory that names no domain is not ours.
            let Ok(domain) = dir.parse::<Domain>() else {
                continue;
            };
            let sizes = sizes(&settings, &domain);
            let lane = Lane::open(&mut disk, domain.clone(), sizes)
                .map_err(failed(Some(domain.clone())))?;
            lanes.insert(domain, lane);
        }
        Ok(Self {
            disk,
            settings,
            packer,
            draw,
            lanes,
        })
    }

    /// Takes a portion into the open batch of its domain, or does what the domain's policy says.
    pub fn append(&mut self, domain: &Domain, portion: &Portion) -> Taken {
        let terms = terms(&self.settings, domain);
        let count = portion.messages.len() as u64;
        // What is larger than any room would wait for ever.
        let cost = portion.cost().min(terms.share / 2);
        loop {
            let left = self.left(domain, terms.share);
            let lane = lane(&mut self.lanes, &self.settings, domain);
            let reason = match &lane.stuck {
                Some(_) => Reason::DiskFull,
                None if cost <= left => break,
                None => Reason::SpoolFull,
            };
            // What is added to stays as long as there is room for it.
            if reason == Reason::SpoolFull && self.give_back() {
                continue;
            }
            let lane = self::lane(&mut self.lanes, &self.settings, domain);
            match terms.policy {
                Policy::Block => return Taken::No,
                Policy::DropOldest if reason == Reason::SpoolFull => {
                    match lane.drop_oldest(&mut self.disk, &mut self.packer) {
                        Ok(true) => continue,
                        Ok(false) => {}
                        Err(error) => {
                            lane.stuck = Some(error);
                            continue;
                        }
                    }
                }
                Policy::DropOldest | Policy::DropNewest | Policy::DropBySeverity => {}
            }
            lane.lost.add(reason, count, portion.received);
            for gap in &portion.gaps {
                lane.lost
                    .add(gap.reason, gap.count.unwrap_or(1), portion.received);
            }
            return Taken::Yes;
        }
        let lane = lane(&mut self.lanes, &self.settings, domain);
        let limits = PushLimits {
            severity: least_grave(terms, lane.used()),
            longest: self.settings.longest,
        };
        lane.lost.relax();
        lane.push(
            portion,
            limits,
            &mut means(&mut self.packer, &mut self.draw),
        );
        Taken::Yes
    }

    /// Counts messages for which there was no room on their way here.
    pub fn missed(&mut self, domain: &Domain, count: u64, at: Micros) {
        let lane = lane(&mut self.lanes, &self.settings, domain);
        lane.lost.add(Reason::SpoolFull, count, at);
    }

    fn left(&self, domain: &Domain, share: u64) -> u64 {
        let used = |lane: &Lane<D::File>| lane.used();
        let all: u64 = self.lanes.values().map(used).sum();
        let here = self.lanes.get(domain).map_or(0, used);
        share
            .saturating_sub(here)
            .min(self.settings.total.saturating_sub(all))
    }

    /// Returns how many bytes are in memory only.
    pub fn unwritten(&self) -> u64 {
        self.lanes.values().map(Lane::unwritten).sum()
    }

    /// Tells whether a commit would do anything.
    pub fn has_work(&self) -> bool {
        self.lanes
            .values()
            .any(|lane| !lane.is_durable() || !lane.lost.is_empty())
    }

    /// Makes durable what was taken. A domain whose disk fails keeps it and tries again with the next commit.
    pub fn commit(&mut self) {
        for (domain, lane) in &mut self.lanes {
            let terms = terms(&self.settings, domain);
            let means = &mut means(&mut self.packer, &mut self.draw);
            if lane.stuck.is_none() && lane.used() < terms.share + RESERVE && lane.lost.is_due() {
                lane.flush_lost(means);
            }
            lane.seal(means);
            lane.stuck = lane.write(&mut self.disk).err();
        }
        if self.lanes.values().any(|lane| lane.stuck.is_some()) && self.give_back() {
            for lane in self.lanes.values_mut().filter(|lane| lane.stuck.is_some()) {
                lane.stuck = lane.write(&mut self.disk).err();
            }
        }
    }

    /// Gives back what segments take of which the station has all, although they are added to. Tells whether there were
    /// any.
    fn give_back(&mut self) -> bool {
        let mut has = false;
        for lane in self.lanes.values_mut() {
            has |= lane.give_back(&mut self.disk);
        }
        has
    }

    /// Makes durable what was taken, and writes down what was dropped, although there be no room: there is no later.
    pub fn close(&mut self) {
        for lane in self.lanes.values_mut() {
            let means = &mut means(&mut self.packer, &mut self.draw);
            lane.flush_lost(means);
            lane.seal(means);
            lane.stuck = lane.write(&mut self.disk).err();
        }
    }

    /// Gives memory back that a burst has taken.
    pub fn shrink(&mut self) {
        for lane in self.lanes.values_mut() {
            lane.shrink();
        }
    }

    /// Tells whether all that was taken of a domain is durable.
    pub fn is_durable(&self, domain: &Domain) -> bool {
        self.lanes.get(domain).is_none_or(Lane::is_durable)
    }

    /// Returns all domains there are, and where the delivery of each begins.
    pub fn starts(&self) -> impl Iterator<Item = (&Domain, Place)> {
        self.lanes
            .iter()
            .filter_map(|(domain, lane)| Some((domain, lane.start()?)))
    }

    /// Returns where the delivery of a domain begins, if there is anything.
    pub fn start(&self, domain: &Domain) -> Option<Place> {
        self.lanes.get(domain)?.start()
    }

    /// Returns where the newest segments of a domain begin that have so many bytes together, or all there are.
    pub fn newest(&self, domain: &Domain, bytes: u64) -> Option<Place> {
        self.lanes.get(domain)?.newest(bytes)
    }

    /// Returns what is at a place. What is damaged or not there any more is a gap.
    ///
    /// # Errors
    ///
    /// Fails when the disk cannot be read; a place that stays so becomes a gap.
    pub fn read(&mut self, domain: &Domain, place: Place) -> Result<Found, SpoolError> {
        let Some(lane) = self.lanes.get_mut(domain) else {
            return Ok(Found::Nothing);
        };
        lane.read(&mut self.disk, place, &mut self.packer)
            .map_err(|source| SpoolError::Disk {
                doing: "read",
                domain: Some(domain.clone()),
                source,
            })
    }

    /// Returns a position of this start that is not behind the next record of a domain.
    pub fn sealed(&self, domain: &Domain) -> u64 {
        self.lanes.get(domain).map_or(0, Lane::sealed)
    }

    /// Tells whether a generation of a domain is that of this start.
    pub fn is_live(&self, domain: &Domain, generation: Generation) -> bool {
        let lane = self.lanes.get(domain);
        lane.and_then(Lane::durable)
            .is_some_and(|durable| durable.generation == generation)
    }

    /// Removes what the station has: all segments of a generation below `next`.
    pub fn release(&mut self, domain: &Domain, generation: Generation, next: u64) {
        if let Some(lane) = self.lanes.get_mut(domain) {
            lane.release(&mut self.disk, generation, next, Extent::Below);
        }
    }

    /// Removes a generation that is not added to any more, of which the station has all, up to `next`.
    pub fn finish(&mut self, domain: &Domain, generation: Generation, next: u64) {
        if let Some(lane) = self.lanes.get_mut(domain) {
            lane.release(&mut self.disk, generation, next, Extent::Whole);
        }
    }

    /// Returns how it stands with every domain.
    pub fn standings(&self) -> Vec<Standing> {
        let standing = |(domain, lane): (&Domain, &Lane<D::File>)| Standing {
            domain: domain.clone(),
            used: lane.used(),
            share: terms(&self.settings, domain).share,
            segments: lane.segments(),
            durable: lane.durable(),
            dropped: lane.lost.total(),
            damaged: lane.reader.damaged,
            stuck: lane.stuck.as_ref().map(ToString::to_string),
            owes: !lane.is_durable() || !lane.lost.is_empty(),
        };
        self.lanes.iter().map(standing).collect()
    }
}

impl<D: Disk> fmt::Debug for Spool<D> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("Spool")
            .field("settings", &self.settings)
            .finish_non_exhaustive()
    }
}

/// How much of a generation is released.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Extent {
    Below,
    Whole,
}

fn means<'a>(packer: &'a mut Packer, draw: &'a mut Draw) -> Means<'a> {
    Means { packer, draw }
}

fn terms(settings: &Settings, domain: &Domain) -> Terms {
    *settings.domains.get(domain).unwrap_or(&settings.others)
}

fn sizes(settings: &Settings, domain: &Domain) -> Sizes {
    let share = terms(settings, domain).share;
    Sizes {
        batch: settings.batch,
        segment: (share / SEGMENTS).clamp(MIN_SEGMENT, MAX_SEGMENT),
    }
}

fn lane<'a, F>(
    lanes: &'a mut BTreeMap<Domain, Lane<F>>,
    settings: &Settings,
    domain: &Domain,
) -> &'a mut Lane<F> {
    lanes
        .entry(domain.clone())
        .or_insert_with(|| Lane::new(domain.clone(), sizes(settings, domain)))
}

/// Returns the least grave severity that is still taken.
fn least_grave(terms: Terms, used: u64) -> u8 {
    if terms.policy != Policy::DropBySeverity {
        return u8::MAX;
    }
    let sixteenths = used.saturating_mul(16) / terms.share.max(1);
    // Below 16, so it fits.
    u8::try_from(16 - sixteenths.min(16)).unwrap_or(0).min(7)
}
