//! The spool of one domain: what is open, what is written, what is on the disk.
//!
//! What an earlier start of the agent wrote is only read and removed. The first batch after a start begins a generation
//! of its own, so that no position ever stands for two records, whatever the disk has lost meanwhile.
//!
//! It does not know of other domains, and does not decide what is to be dropped. What is read of it is in `find`, what is
//! removed in `room`.

use std::{collections::VecDeque, io};

use steward_protocol::{
    Domain, Generation,
    logs::{Builder, Gap, MAX_RAW, Micros, PackError, Packer, Push, Reason, Stream, frame},
};

use super::{
    Place,
    disk::Disk,
    lost::Lost,
    name::{Name, Shape},
    portion::Portion,
    read::{Aside, Reader},
};

mod find;
mod room;

/// What a gap is called until it is whole.
const UNFINISHED: &str = "gap.tmp";

/// Where a gap says that it comes from that the spool itself has found.
const SELF: &str = "spool:";

/// A file of batches.
#[derive(Debug)]
struct Segment {
    name: Name,
    /// Bytes that are durable.
    bytes: u64,
}

/// The segments of one generation.
#[derive(Debug)]
struct Numbering {
    ordinal: u64,
    generation: Generation,
    segments: VecDeque<Segment>,
}

/// The generation of this start.
#[derive(Debug)]
struct Live<F> {
    stream: Stream,
    ordinal: u64,
    /// The segment that is added to; none if the next batch begins another.
    tail: Option<F>,
    /// The position of the next record.
    next: u64,
    /// The position behind what is durable.
    durable: u64,
    /// The position behind what the station has.
    released: u64,
}

/// One domain's spool.
#[derive(Debug)]
pub(super) struct Lane<F> {
    domain: Domain,
    dir: String,
    is_made: bool,
    numberings: VecDeque<Numbering>,
    live: Option<Live<F>>,
    /// The generation that was released last.
    finished: Option<Generation>,
    builder: Builder,
    /// Sealed batches that are not durable yet, as they will stand in a segment.
    frames: Vec<u8>,
    /// Bytes on the disk.
    stored: u64,
    segment_bytes: u64,
    pub(super) lost: Lost,
    /// Why the last write failed, if it did.
    pub(super) stuck: Option<io::Error>,
    pub(super) reader: Reader<F>,
}

/// Sizes that a lane keeps to.
#[derive(Debug, Clone, Copy)]
pub(super) struct Sizes {
    pub(super) batch: usize,
    pub(super) segment: u64,
}

/// What comes with a record that is to be added.
pub(super) struct Means<'a> {
    pub(super) packer: &'a mut Packer,
    pub(super) draw: &'a mut dyn FnMut() -> Generation,
}

impl<F> Lane<F> {
    /// Returns the spool of a domain that has none on the disk.
    pub(super) fn new(domain: Domain, sizes: Sizes) -> Self {
        Self {
            dir: domain.to_string(),
            is_made: false,
            numberings: VecDeque::new(),
            live: None,
            finished: None,
            builder: Builder::new(sizes.batch.min(MAX_RAW)),
            frames: Vec::new(),
            stored: 0,
            segment_bytes: sizes.segment,
            lost: Lost::default(),
            stuck: None,
            reader: Reader::new(domain.clone(), Aside::default()),
            domain,
        }
    }

    /// Finds what is on the disk by names and sizes.
    pub(super) fn open<D: Disk<File = F>>(
        disk: &mut D,
        domain: Domain,
        sizes: Sizes,
    ) -> io::Result<Self> {
        let mut lane = Self::new(domain, sizes);
        lane.is_made = true;
        let (mut found, mut aside) = (Vec::new(), Aside::default());
        for entry in disk.files(&lane.dir)? {
            if let Ok(name) = entry.name.parse::<Name>() {
                found.push(Segment {
                    name,
                    bytes: entry.bytes,
                });
            } else if entry.name == UNFINISHED {
                disk.remove(&lane.dir, UNFINISHED).ok();
            } else if entry.name.ends_with(".bad") {
                aside.bytes += entry.bytes;
                aside.names.insert(entry.name);
            }
        }
        lane.reader.aside = aside;
        found.sort_by_key(|segment| segment.name);
        for segment in found {
            lane.place(disk, segment);
        }
        // Nothing was ever said of a generation that has no byte.
        lane.numberings
            .retain(|numbering| match numbering.segments.front() {
                Some(only) if numbering.segments.len() == 1 => {
                    only.bytes > 0 || only.name.first > 0 || {
                        disk.remove(&lane.dir, &only.name.to_string()).ok();
                        false
                    }
                }
                Some(_) | None => true,
            });
        lane.settle(disk);
        Ok(lane)
    }

    /// Makes durable what was found: the start before may have been killed between writing and syncing, and what is
    /// said to the station from now on rests on it. A disk that cannot do that can still be read.
    fn settle<D: Disk<File = F>>(&self, disk: &mut D) {
        let last = self.numberings.back();
        if let Some(last) = last.and_then(|numbering| numbering.segments.back())
            && let Ok(mut file) = disk.open(&self.dir, &last.name.to_string())
        {
            disk.sync(&mut file).ok();
        }
        disk.sync_dir(&self.dir).ok();
    }

    fn place<D: Disk<File = F>>(&mut self, disk: &mut D, segment: Segment) {
        let name = segment.name;
        let same = self
            .numberings
            .back()
            .is_some_and(|last| (last.ordinal, last.generation) == (name.ordinal, name.generation));
        if !same {
            self.numberings.push_back(Numbering {
                ordinal: name.ordinal,
                generation: name.generation,
                segments: VecDeque::new(),
            });
        }
        let Some(numbering) = self.numberings.back_mut() else {
            return;
        };
        // The power went between the gap and the end of what it stands for.
        if let Some(before) = numbering.segments.back()
            && before.name.first == name.first
        {
            disk.remove(&self.dir, &before.name.to_string()).ok();
            self.stored -= before.bytes;
            numbering.segments.pop_back();
        }
        self.stored += segment.bytes;
        numbering.segments.push_back(segment);
    }

    /// Returns the bytes it takes, on the disk and in memory.
    pub(super) fn used(&self) -> u64 {
        self.stored + self.unwritten()
    }

    /// Returns the bytes that are in memory only.
    pub(super) fn unwritten(&self) -> u64 {
        (self.frames.len() + self.builder.raw_len()) as u64
    }

    /// Tells whether all that was taken is durable.
    pub(super) fn is_durable(&self) -> bool {
        self.frames.is_empty() && self.builder.is_empty()
    }

    /// Returns how many segments there are.
    pub(super) fn segments(&self) -> usize {
        let segments = |numbering: &Numbering| numbering.segments.len();
        self.numberings.iter().map(segments).sum()
    }

    /// Returns where delivery begins: the oldest record that is here.
    pub(super) fn start(&self) -> Option<Place> {
        let oldest = self.numberings.front()?;
        Some(Place {
            generation: oldest.generation,
            position: oldest.segments.front().map_or(0, |first| first.name.first),
        })
    }

    /// Returns where the newest segments begin that have so many bytes together, or all there are.
    pub(super) fn newest(&self, bytes: u64) -> Option<Place> {
        let of = |numbering: &Numbering| {
            let generation = numbering.generation;
            let segments = numbering.segments.iter().rev();
            segments
                .map(|segment| {
                    let position = segment.name.first;
                    let place = Place {
                        generation,
                        position,
                    };
                    (place, segment.bytes)
                })
                .collect::<Vec<_>>()
        };
        let (mut begin, mut found) = (None, 0);
        for (place, bytes_of_it) in self.numberings.iter().rev().flat_map(of) {
            begin = Some(place);
            found += bytes_of_it;
            if found >= bytes {
                break;
            }
        }
        begin
    }

    /// Returns the place behind the newest durable record, if there is one of this start.
    pub(super) fn durable(&self) -> Option<Place> {
        self.live.as_ref().map(|live| Place {
            generation: live.stream.generation,
            position: live.durable,
        })
    }

    /// Returns the position of the first record that is not sealed yet.
    pub(super) fn sealed(&self) -> u64 {
        self.live.as_ref().map_or(0, |live| live.next)
    }

    /// Adds the messages of a portion that are grave enough.
    pub(super) fn push(&mut self, portion: &Portion, limits: PushLimits, means: &mut Means<'_>) {
        self.flush_lost(means);
        for gap in &portion.gaps {
            self.push_gap(portion.received, &portion.source, gap, means);
        }
        for piece in &portion.messages {
            if piece.severity > limits.severity {
                self.lost.add(Reason::SpoolFull, 1, portion.received);
                continue;
            }
            let entry = portion.entry(piece, limits.longest);
            if self.builder.push(&entry) == Push::Taken {
                continue;
            }
            self.seal(means);
            if self.builder.push(&entry) == Push::Full {
                // An empty batch takes any record.
                self.lost.add(Reason::Other, 1, portion.received);
            }
        }
    }

    /// Writes down what was lost, so that it is known where it is read.
    pub(super) fn flush_lost(&mut self, means: &mut Means<'_>) {
        for (gap, at) in self.lost.take() {
            self.push_gap(at, SELF, &gap, means);
        }
    }

    fn push_gap(&mut self, at: Micros, source: &str, gap: &Gap, means: &mut Means<'_>) {
        if self.builder.push_gap(at, source, gap) == Push::Taken {
            return;
        }
        self.seal(means);
        if self.builder.push_gap(at, source, gap) == Push::Full {
            self.lost.add(gap.reason, gap.count.unwrap_or(1), at);
        }
    }

    /// Closes the open batch and gives its records their positions.
    pub(super) fn seal(&mut self, means: &mut Means<'_>) {
        if self.builder.is_empty() {
            return;
        }
        let live = self.live.get_or_insert_with(|| {
            let before = self.numberings.back();
            Live {
                stream: Stream {
                    generation: (means.draw)(),
                    after: before.map(|numbering| numbering.generation),
                    domain: self.domain.clone(),
                },
                ordinal: before.map_or(0, |numbering| numbering.ordinal + 1),
                tail: None,
                next: 0,
                durable: 0,
                released: 0,
            }
        });
        let count = self.builder.count();
        match means.packer.records(&live.stream, live.next, &self.builder) {
            Ok(payload) => {
                self.frames.extend_from_slice(&frame::head(payload.len()));
                self.frames.extend_from_slice(payload);
                live.next += count;
            }
            // There was no memory to compress them.
            Err(_) => self.lost.add(Reason::Other, count, Micros::default()),
        }
        self.builder.clear();
    }

    /// Makes durable what is sealed. What fails is tried again with another segment: whether a failed sync has
    /// written anything, nobody can know.
    pub(super) fn write<D: Disk<File = F>>(&mut self, disk: &mut D) -> io::Result<()> {
        let Some(live) = &mut self.live else {
            return Ok(());
        };
        if self.frames.is_empty() {
            return Ok(());
        }
        if !self.is_made {
            disk.make_dir(&self.dir)?;
            self.is_made = true;
        }
        let length = self.frames.len() as u64;
        let numbering = self.numberings.back_mut();
        let numbering = numbering.filter(|last| last.generation == live.stream.generation);
        let tail = numbering.and_then(|numbering| numbering.segments.back_mut());
        if let (Some(file), Some(segment)) = (&mut live.tail, tail)
            && segment.bytes < self.segment_bytes
        {
            let written = disk
                .write(file, segment.bytes, &self.frames)
                .and_then(|()| disk.sync(file));
            if let Err(error) = written {
                // Reading does not go beyond what is durable; this is for a reader after the next start.
                disk.truncate(file, segment.bytes).ok();
                live.tail = None;
                return Err(error);
            }
            segment.bytes += length;
        } else {
            live.tail = None;
            let name = Name {
                ordinal: live.ordinal,
                generation: live.stream.generation,
                first: live.durable,
                shape: Shape::Log,
            };
            live.tail = Some(begin(disk, &self.dir, name, &self.frames)?);
            let segment = Segment {
                name,
                bytes: length,
            };
            self.add_segment(segment);
        }
        self.stored += length;
        if let Some(live) = &mut self.live {
            live.durable = live.next;
        }
        self.frames.clear();
        Ok(())
    }

    fn add_segment(&mut self, segment: Segment) {
        let name = segment.name;
        match self.numberings.back_mut() {
            Some(last) if last.generation == name.generation => {
                // An empty one may hold the place.
                last.segments.retain(|known| known.name != name);
                last.segments.push_back(segment);
            }
            Some(_) | None => self.numberings.push_back(Numbering {
                ordinal: name.ordinal,
                generation: name.generation,
                segments: VecDeque::from([segment]),
            }),
        }
    }

    /// Gives memory back that a burst has taken.
    pub(super) fn shrink(&mut self) {
        const KEPT: usize = 64 * 1024;
        self.frames.shrink_to(KEPT);
    }
}

/// What a record must keep to.
#[derive(Debug, Clone, Copy)]
pub(super) struct PushLimits {
    /// What is less grave is dropped.
    pub(super) severity: u8,
    /// Bytes of a message that are kept.
    pub(super) longest: usize,
}

/// Makes a segment with these bytes, durably, or not at all as far as that is possible.
fn begin<D: Disk>(disk: &mut D, dir: &str, name: Name, bytes: &[u8]) -> io::Result<D::File> {
    let text = name.to_string();
    let mut write = || {
        let mut file = disk.create(dir, &text)?;
        disk.write(&mut file, 0, bytes)?;
        disk.sync(&mut file)?;
        disk.sync_dir(dir)?;
        Ok(file)
    };
    let written = write();
    if written.is_err() {
        disk.remove(dir, &text).ok();
    }
    written
}

fn other(error: PackError) -> io::Error {
    io::Error::other(error)
}
