//! The spool of one domain: what is open, what is written, what is on the disk.
//!
//! What an earlier start of the agent wrote is only read and removed. The first batch after a start begins a generation
//! of its own, so that no position ever stands for two records, whatever the disk has lost meanwhile.
//!
//! It does not know of other domains, and does not decide what is to be dropped.

use std::{collections::VecDeque, io};

use steward_protocol::{
    Domain, Generation,
    logs::{Builder, Gap, Kind, MAX_RAW, Micros, PackError, Packer, Push, Reason, Stream, frame},
};

use super::{
    Extent, Fetched, Found, Place,
    disk::Disk,
    lost::Lost,
    name::{Name, Shape},
    portion::Portion,
    read::{Aside, Hole, Reader, Span, Step, drawn_at},
};

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

    /// Returns where the newest segments begin, so many of them at most.
    pub(super) fn newest(&self, segments: usize) -> Option<Place> {
        let of = |numbering: &Numbering| {
            let generation = numbering.generation;
            let place = move |segment: &Segment| Place {
                generation,
                position: segment.name.first,
            };
            numbering
                .segments
                .iter()
                .rev()
                .map(place)
                .collect::<Vec<_>>()
        };
        let newest = self.numberings.iter().rev().flat_map(of);
        newest.take(segments).last()
    }

    /// Returns the place behind the newest durable record, if there is one of this start.
    pub(super) fn durable(&self) -> Option<Place> {
        self.live.as_ref().map(|live| Place {
            generation: live.stream.generation,
            position: live.durable,
        })
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

    fn span(&self, numbering: usize, segment: usize) -> Option<Span> {
        let numbering = self.numberings.get(numbering)?;
        let here = numbering.segments.get(segment)?;
        let live = self
            .live
            .as_ref()
            .filter(|live| live.stream.generation == numbering.generation);
        let behind = numbering.segments.get(segment + 1);
        let stop = behind.map(|next| next.name.first);
        Some(Span {
            name: here.name,
            bytes: here.bytes,
            stop: stop.or(live.map(|live| live.durable)),
        })
    }

    /// Returns what stands at a place, and what comes behind it.
    pub(super) fn read<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        place: Place,
        packer: &mut Packer,
    ) -> io::Result<Found> {
        let is_it = |numbering: &Numbering| numbering.generation == place.generation;
        let Some(index) = self.numberings.iter().position(is_it) else {
            return Ok(self.end(None, place.position));
        };
        let mut wanted = place.position;
        if let Some(first) = self.first_of(index)
            && wanted < first
        {
            // Only of the oldest generation anything was released.
            let reason = match index {
                0 => Reason::Released,
                _ => Reason::Corrupt,
            };
            let gap = Gap::new(Some(first - wanted), reason);
            return self.gap(index, self.before(index), (wanted, first), gap, packer);
        }
        let mut segment = self.segment_with(index, wanted);
        while let Some(span) = self.span(index, segment) {
            self.reader.seek(disk, &span, wanted)?;
            loop {
                match self.reader.step(disk, &span)? {
                    Step::Batch(header) if header.next() <= wanted => {}
                    Step::Batch(header) if header.kind == Kind::Gap => {
                        let first = header.first.max(wanted);
                        let mut gap = header.gap.clone().unwrap_or(Gap::new(None, Reason::Other));
                        gap.count = gap.count.map(|_| header.next() - first);
                        let after = header.after.or(self.before(index));
                        return self.gap(index, after, (first, header.next()), gap, packer);
                    }
                    Step::Batch(header) => {
                        return Ok(Found::Batch(Fetched {
                            payload: std::mem::take(&mut self.reader.payload),
                            first: header.first,
                            next: header.next(),
                        }));
                    }
                    Step::Hole(hole) if hole.next <= wanted => {}
                    Step::Hole(hole) => return self.hole(index, &span, wanted, &hole, packer),
                    Step::End(position) => {
                        wanted = wanted.max(position);
                        break;
                    }
                }
            }
            segment += 1;
        }
        Ok(self.end(Some(index), wanted))
    }

    fn first_of(&self, numbering: usize) -> Option<u64> {
        let first = self.numberings.get(numbering)?.segments.front()?;
        Some(first.name.first)
    }

    fn segment_with(&self, numbering: usize, position: u64) -> usize {
        self.numberings.get(numbering).map_or(0, |numbering| {
            let (left, right) = numbering.segments.as_slices();
            let before = |segment: &Segment| segment.name.first <= position;
            let count = match left.partition_point(before) {
                count if count == left.len() => count + right.partition_point(before),
                count => count,
            };
            count.saturating_sub(1)
        })
    }

    fn end(&self, numbering: Option<usize>, next: u64) -> Found {
        let is_live = |index: usize| {
            self.live
                .as_ref()
                .zip(self.numberings.get(index))
                .is_some_and(|(live, numbering)| live.stream.generation == numbering.generation)
        };
        let follows = match numbering {
            Some(index) if is_live(index) => return Found::Nothing,
            Some(index) => self.numberings.get(index + 1),
            None => self.numberings.front(),
        };
        let follows = follows.map(|numbering| Place {
            generation: numbering.generation,
            position: numbering
                .segments
                .front()
                .map_or(0, |segment| segment.name.first),
        });
        Found::End { next, follows }
    }

    fn hole(
        &self,
        numbering: usize,
        span: &Span,
        wanted: u64,
        hole: &Hole,
        packer: &mut Packer,
    ) -> io::Result<Found> {
        let first = hole.first.max(wanted);
        let count = hole.is_counted.then_some(hole.next - first);
        let until = hole.until.unwrap_or(hole.since);
        let gap = Gap::new(count, hole.reason)
            .between(hole.since.min(until), hole.since.max(until))
            .with_detail(format!("{} at byte {}", span.name, hole.at));
        let after = self.before(numbering);
        self.gap(numbering, after, (first, hole.next), gap, packer)
    }

    fn gap(
        &self,
        numbering: usize,
        after: Option<Generation>,
        (first, next): (u64, u64),
        mut gap: Gap,
        packer: &mut Packer,
    ) -> io::Result<Found> {
        let Some(here) = self.numberings.get(numbering) else {
            return Ok(self.end(None, next));
        };
        if gap.since.is_none()
            && let Some(segment) = here.segments.front()
        {
            gap.since = Some(drawn_at(&segment.name));
        }
        let stream = Stream {
            generation: here.generation,
            after,
            domain: self.domain.clone(),
        };
        let payload = packer
            .gap(&stream, first, next - first, gap)
            .map_err(other)?
            .to_vec();
        Ok(Found::Batch(Fetched {
            payload,
            first,
            next,
        }))
    }

    fn before(&self, numbering: usize) -> Option<Generation> {
        match numbering.checked_sub(1) {
            Some(before) => Some(self.numberings.get(before)?.generation),
            None => self.finished,
        }
    }

    /// Removes the segments of a generation all of whose positions are below `next`.
    ///
    /// The last segment of the last generation stays, empty: it tells the next start what was before it.
    pub(super) fn release<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        generation: Generation,
        next: u64,
        how_much: Extent,
    ) {
        let live = self.live.as_ref();
        let is_live = live.is_some_and(|live| live.stream.generation == generation);
        let how_much = if is_live { Extent::Below } else { how_much };
        let is_it = |numbering: &Numbering| numbering.generation == generation;
        let Some(index) = self.numberings.iter().position(is_it) else {
            return;
        };
        let is_newest = index + 1 == self.numberings.len();
        let Some(numbering) = self.numberings.get_mut(index) else {
            return;
        };
        // In their order: the name of a segment tells where the one before it ends, and behind that may stand what a
        // failed sync has left.
        while let Some(behind) = numbering.segments.get(1)
            && behind.name.first <= next
            && let Some(segment) = numbering.segments.front()
            && disk.remove(&self.dir, &segment.name.to_string()).is_ok()
        {
            self.stored -= segment.bytes;
            numbering.segments.pop_front();
        }
        let is_full = numbering
            .segments
            .front()
            .is_some_and(|segment| segment.bytes >= self.segment_bytes);
        let has_all = self.live.as_ref().is_some_and(|live| live.durable <= next);
        match how_much {
            // What is added to stays, unless it takes all the room there is.
            Extent::Below if is_live && is_newest && is_full && has_all => {
                if let Some(live) = &mut self.live {
                    live.tail = None;
                }
                self.empty_last(disk, index, next);
            }
            Extent::Below => return,
            Extent::Whole if is_newest => self.empty_last(disk, index, next),
            Extent::Whole => self.remove_last(disk, index),
        }
        self.reader.forget();
    }

    /// Puts an empty segment in the place of the last one of a generation.
    fn empty_last<D: Disk<File = F>>(&mut self, disk: &mut D, index: usize, next: u64) {
        let numbering = self.numberings.get_mut(index);
        let Some(last) = numbering.and_then(|numbering| numbering.segments.back_mut()) else {
            return;
        };
        if last.bytes == 0 {
            return;
        }
        // Its name is to say where it ended.
        let name = Name {
            first: next,
            shape: Shape::Log,
            ..last.name
        };
        let made = disk
            .create(&self.dir, &name.to_string())
            .and_then(|_| disk.sync_dir(&self.dir));
        if made.is_err() {
            return;
        }
        if name != last.name {
            disk.remove(&self.dir, &last.name.to_string()).ok();
        }
        self.stored -= last.bytes;
        *last = Segment { name, bytes: 0 };
    }

    /// Removes a generation. What cannot be removed, the next start finds and finishes.
    fn remove_last<D: Disk<File = F>>(&mut self, disk: &mut D, index: usize) {
        let Some(numbering) = self.numberings.remove(index) else {
            return;
        };
        self.finished = Some(numbering.generation);
        let bytes = |segment: &Segment| segment.bytes;
        self.stored -= numbering.segments.iter().map(bytes).sum::<u64>();
        let Some(last) = numbering.segments.back() else {
            return;
        };
        // Those before it are gone durably first.
        if numbering.segments.len() == 1 && disk.sync_dir(&self.dir).is_ok() {
            disk.remove(&self.dir, &last.name.to_string()).ok();
        }
    }

    /// Puts a gap in the place of the oldest segment that is none. Tells whether there was one.
    pub(super) fn drop_oldest<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        packer: &mut Packer,
    ) -> io::Result<bool> {
        let Some((index, segment)) = self.oldest() else {
            return Ok(false);
        };
        let Some(span) = self.span(index, segment) else {
            return Ok(false);
        };
        let mut extent = self.extent(disk, &span)?;
        let mut first = span.name.first;
        let before = segment
            .checked_sub(1)
            .and_then(|before| self.span(index, before))
            .filter(|before| before.name.shape == Shape::Gap);
        if let Some(before) = before {
            let earlier = self.extent(disk, &before)?;
            extent.since = extent.since.min(earlier.since);
            extent.after = earlier.after;
            first = before.name.first;
        }
        let stream = Stream {
            generation: span.name.generation,
            after: extent.after.or(self.before(index)),
            domain: self.domain.clone(),
        };
        let count = extent.end - first;
        let gap = Gap::new(Some(count), Reason::SpoolFull)
            .between(extent.since.min(extent.until), extent.until);
        let payload = packer.gap(&stream, first, count, gap).map_err(other)?;
        let mut bytes = frame::head(payload.len()).to_vec();
        bytes.extend_from_slice(payload);
        let name = Name {
            first,
            shape: Shape::Gap,
            ..span.name
        };
        self.put(disk, name, &bytes)?;
        disk.remove(&self.dir, &span.name.to_string()).ok();
        self.replace(index, segment, name, bytes.len() as u64);
        Ok(true)
    }

    fn oldest(&self) -> Option<(usize, usize)> {
        let log = |segment: &Segment| segment.name.shape == Shape::Log && segment.bytes > 0;
        self.numberings
            .iter()
            .enumerate()
            .find_map(|(index, numbering)| Some((index, numbering.segments.iter().position(log)?)))
    }

    /// Writes a gap under its name, all of it or nothing.
    fn put<D: Disk<File = F>>(&self, disk: &mut D, name: Name, bytes: &[u8]) -> io::Result<()> {
        let mut file = disk.create(&self.dir, UNFINISHED)?;
        disk.write(&mut file, 0, bytes)?;
        disk.sync(&mut file)?;
        disk.rename(&self.dir, UNFINISHED, &name.to_string())?;
        disk.sync_dir(&self.dir)
    }

    fn replace(&mut self, index: usize, segment: usize, name: Name, bytes: u64) {
        let Some(numbering) = self.numberings.get_mut(index) else {
            return;
        };
        if let Some(dropped) = numbering.segments.remove(segment) {
            self.stored -= dropped.bytes;
        }
        if numbering.segments.len() == segment
            && let Some(live) = &mut self.live
        {
            // It was the one that is added to.
            live.tail = None;
        }
        let at = numbering
            .segments
            .iter()
            .position(|known| known.name == name);
        match at.and_then(|at| numbering.segments.get_mut(at)) {
            Some(known) => {
                self.stored -= known.bytes;
                known.bytes = bytes;
            }
            None => numbering.segments.insert(segment, Segment { name, bytes }),
        }
        self.stored += bytes;
        self.reader.forget();
    }

    /// Reads a segment through and returns what a gap in its place has to say.
    fn extent<D: Disk<File = F>>(&mut self, disk: &mut D, span: &Span) -> io::Result<Contents> {
        self.reader.forget();
        self.reader.seek(disk, span, span.name.first)?;
        let drawn = drawn_at(&span.name);
        let mut extent = Contents {
            end: span.name.first,
            since: Micros(i64::MAX),
            until: drawn,
            after: None,
        };
        loop {
            match self.reader.step(disk, span)? {
                Step::Batch(header) => {
                    extent.end = header.next();
                    extent.since = extent.since.min(header.from);
                    extent.until = extent.until.max(header.to);
                    extent.after = extent.after.or(header.after);
                }
                Step::Hole(hole) => extent.end = hole.next,
                Step::End(position) => {
                    extent.end = position;
                    return Ok(extent);
                }
            }
        }
    }
}

/// What a segment holds, in short.
struct Contents {
    end: u64,
    since: Micros,
    until: Micros,
    after: Option<Generation>,
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
