//! What stands at a place of a domain's spool: a batch, a gap where one is missing, or what comes behind the end.
//!
//! It changes nothing but where the reader stands.

use std::io;

use steward_protocol::{
    Generation,
    logs::{Gap, Kind, Packer, Reason, Stream},
};

use super::{
    super::{
        Fetched, Found, Place,
        disk::Disk,
        read::{Hole, Span, Step, drawn_at},
    },
    Lane, Numbering, Segment, other,
};

impl<F> Lane<F> {
    pub(super) fn span(&self, numbering: usize, segment: usize) -> Option<Span> {
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
    pub(in super::super) fn read<D: Disk<File = F>>(
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

    pub(super) fn before(&self, numbering: usize) -> Option<Generation> {
        match numbering.checked_sub(1) {
            Some(before) => Some(self.numberings.get(before)?.generation),
            None => self.finished,
        }
    }
}
