//! What there is of a line and what is missing: from headers alone, but for gaps that stand among records.
//!
//! What retention removed is not missing. What a node has not sent yet nobody here can know.

use std::collections::HashMap;

use steward_protocol::{
    Generation,
    logs::{Gap, Micros, Reason},
};

use super::{
    super::{
        LogsError,
        disk::{Disk, Mode, failed},
        index::Entry,
        name::{Line, path},
        removed::Removed,
    },
    catalog::{self, Segment},
    query::Query,
    sift::{Share, Sieve, Source},
    verify,
};
use crate::view::logs::{LogDamage, LogExtent, LogFinding, LogGap, LogRemoved};

/// How much is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Depth {
    /// Headers, and records where there are gaps among them: how much there is, and how much is missing.
    Extent,
    /// The same, and each gap is told.
    Gaps,
    /// Every byte.
    Everything,
}

/// Looks through one line.
pub(super) struct Examiner<'a, D: Disk> {
    pub(super) disk: &'a D,
    pub(super) line: &'a Line,
    pub(super) dir: String,
    since: Micros,
    until: Micros,
    depth: Depth,
    /// How far each generation came.
    reached: HashMap<Generation, u64>,
    /// The one that began last.
    newest: Option<Generation>,
    removed: Removed,
    /// When the latest record so far was received.
    last: Micros,
    extent: LogExtent,
    emit: &'a mut dyn FnMut(LogFinding),
}

/// Looks through a line, as far as it was received within a time, and hands out what is found. The last is what there is.
///
/// # Errors
///
/// Fails when the disk does; what is damaged is found.
pub fn examine<D: Disk>(
    disk: &D,
    line: &Line,
    (since, until, depth): (Option<Micros>, Option<Micros>, Depth),
    emit: &mut dyn FnMut(LogFinding),
) -> Result<(), LogsError> {
    let dir = line.dir();
    let removed = Removed::load(disk, &dir)?.unwrap_or_default();
    let mut examiner = Examiner {
        disk,
        line,
        dir,
        since: since.unwrap_or(Micros(i64::MIN)),
        until: until.unwrap_or(Micros(i64::MAX)),
        depth,
        reached: HashMap::new(),
        newest: removed.newest,
        last: removed.until,
        removed,
        extent: empty(line),
        emit,
    };
    examiner.examine()
}

fn empty(line: &Line) -> LogExtent {
    LogExtent {
        node: line.node.clone(),
        domain: line.domain.clone(),
        records: 0,
        from: None,
        to: None,
        batches: 0,
        segments: 0,
        bytes: 0,
        raw_bytes: 0,
        generations: 0,
        gaps: 0,
        missing: 0,
        missing_unknown: false,
    }
}

impl<D: Disk> Examiner<'_, D> {
    fn examine(&mut self) -> Result<(), LogsError> {
        if self.removed.through > 0 && self.removed.until >= self.since && self.depth >= Depth::Gaps
        {
            (self.emit)(LogFinding::Removed(LogRemoved {
                node: self.line.node.clone(),
                domain: self.line.domain.clone(),
                records: self.removed.records,
                bytes: self.removed.bytes,
                until: self.removed.until.timestamp(),
            }));
        }
        let mut number = self.removed.through;
        for segment in catalog::segments(self.disk, &self.dir)? {
            for missing in number + 1..segment.name.number.min(number + 1000) {
                self.damage(
                    &format!("{missing:08}"),
                    0,
                    "the segment with this number is not there".to_owned(),
                );
            }
            number = segment.name.number;
            let entries = catalog::entries(self.disk, &self.dir, &segment)?;
            if self.depth == Depth::Everything {
                verify::segment(self, &segment, &entries)?;
            }
            let end = entries.last().map_or(0, Entry::end);
            self.extent.segments += 1;
            self.extent.bytes += end;
            for entry in &entries {
                self.entry(&segment, entry)?;
            }
        }
        (self.emit)(LogFinding::Extent(self.extent.clone()));
        Ok(())
    }

    fn entry(&mut self, segment: &Segment, entry: &Entry) -> Result<(), LogsError> {
        self.continues(entry);
        let known = self.reached.insert(entry.generation, entry.next());
        self.extent.generations += u64::from(known.is_none());
        if entry.first == 0 {
            self.newest = Some(entry.generation);
        }
        let is_dateless = entry.gap.is_some() && entry.to == Micros::default();
        if !is_dateless {
            self.last = self.last.max(entry.to);
        }
        if !is_dateless && (entry.to < self.since || entry.from > self.until) {
            // What a gap record tells of may lie before the batch it came in.
            if entry.gaps > 0 && entry.to >= self.since {
                self.gap_records(segment, entry)?;
            }
            return Ok(());
        }
        match &entry.gap {
            Some(gap) => {
                let at = if is_dateless { self.last } else { entry.from };
                // The node may know how many messages there were only by their positions.
                let count = Some(entry.count);
                self.gap(
                    entry,
                    at,
                    "node",
                    Gap {
                        count,
                        ..gap.clone()
                    },
                );
            }
            None => {
                self.extent.batches += 1;
                self.extent.records += entry.count.saturating_sub(entry.gaps);
                self.extent.raw_bytes += u64::from(entry.raw);
                let (from, to) = (entry.from.timestamp(), entry.to.timestamp());
                self.extent.from = Some(self.extent.from.map_or(from, |known| known.min(from)));
                self.extent.to = Some(self.extent.to.map_or(to, |known| known.max(to)));
                if entry.gaps > 0 {
                    self.gap_records(segment, entry)?;
                }
            }
        }
        Ok(())
    }

    /// Looks whether a batch continues what is there.
    fn continues(&mut self, entry: &Entry) {
        let before = match self.reached.get(&entry.generation) {
            Some(next) => *next,
            None => {
                let removed = &self.removed.generations;
                let known = removed
                    .iter()
                    .find(|known| known.generation == entry.generation);
                known.map_or(0, |known| known.next)
            }
        };
        let between = |gap: Gap| gap.between(self.last.min(entry.from), entry.from);
        if entry.first > before {
            let gap = Gap::new(Some(entry.first - before), Reason::Corrupt);
            let gap = between(gap).with_detail("it is not at the station any more");
            let entry = Entry {
                first: before,
                ..entry.clone()
            };
            self.gap(&entry, entry.from, "station", gap);
        } else if entry.first == 0
            && self.newest.is_some()
            && entry.after != self.newest
            // A gap at the very beginning stands where the batch was damaged that would have named what came before.
            && (entry.gap.is_none() || entry.after.is_some())
        {
            let gap = Gap::new(None, Reason::SpoolLost);
            let gap = between(gap).with_detail("the node does not know what it had logged before");
            self.gap(entry, entry.from, "station", gap);
        }
    }

    fn gap_records(&mut self, segment: &Segment, entry: &Entry) -> Result<(), LogsError> {
        let place = path(&self.dir, &segment.name.log());
        let file = self
            .disk
            .open(&place, Mode::Read)
            .map_err(failed("open", &place))?;
        let query = Query {
            severities: steward_protocol::syslog::Severities::NONE,
            ..Query::everything()
        };
        let share = Share {
            skip: 0,
            room: usize::MAX,
        };
        let sifted = Sieve::new(query)?.sift(self.disk, &Source { file, place }, entry, share);
        for found in sifted.found {
            if let Some(gap) = found.gap {
                let place = Entry {
                    first: found.position,
                    ..entry.clone()
                };
                self.gap(&place, found.received, "node", gap);
            }
        }
        Ok(())
    }

    fn gap(&mut self, entry: &Entry, at: Micros, by: &str, gap: Gap) {
        if at < self.since || gap.since.unwrap_or(at) > self.until {
            return;
        }
        self.extent.gaps += 1;
        match gap.count {
            Some(count) => self.extent.missing = self.extent.missing.saturating_add(count),
            None => self.extent.missing_unknown = true,
        }
        if self.depth >= Depth::Gaps {
            (self.emit)(LogFinding::Gap(LogGap {
                node: self.line.node.clone(),
                domain: self.line.domain.clone(),
                generation: entry.generation,
                position: entry.first,
                at: at.timestamp(),
                by: by.to_owned(),
                gap,
            }));
        }
    }

    pub(super) fn damage(&mut self, file: &str, at: u64, what: String) {
        let file = path(&self.dir, file);
        (self.emit)(LogFinding::Damage(LogDamage {
            node: self.line.node.clone(),
            domain: self.line.domain.clone(),
            file,
            at,
            what,
        }));
    }
}
