//! What makes room in a domain's spool: what the station has is removed, and in the place of what is dropped comes a gap.
//!
//! It does not decide what is dropped, nor when.

use std::io;

use steward_protocol::{
    Generation,
    logs::{Gap, Micros, Packer, Reason, Stream, frame},
};

use super::{
    super::{
        Extent,
        disk::Disk,
        name::{Name, Shape},
        read::{Span, Step, drawn_at},
    },
    Lane, Numbering, Segment, UNFINISHED, other,
};

/// What a segment holds, in short.
struct Contents {
    end: u64,
    since: Micros,
    until: Micros,
    after: Option<Generation>,
}

impl<F> Lane<F> {
    /// Removes the segments of a generation all of whose positions are below `next`.
    ///
    /// The last segment of the last generation stays, empty: it tells the next start what was before it.
    pub(in super::super) fn release<D: Disk<File = F>>(
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
        if is_live && let Some(live) = &mut self.live {
            live.released = live.released.max(next);
        }
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

    /// Gives back what the segment takes that is added to, if the station has all of it. Tells whether it did.
    pub(in super::super) fn give_back<D: Disk<File = F>>(&mut self, disk: &mut D) -> bool {
        let before = self.stored;
        let Some(live) = &mut self.live else {
            return false;
        };
        let (generation, next) = (live.stream.generation, live.durable);
        let newest = self.numberings.back();
        let is_newest = newest.is_some_and(|newest| newest.generation == generation);
        if live.released < next || !is_newest {
            return false;
        }
        live.tail = None;
        self.empty_last(disk, self.numberings.len() - 1, next);
        self.reader.forget();
        self.stored < before
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
    pub(in super::super) fn drop_oldest<D: Disk<File = F>>(
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
