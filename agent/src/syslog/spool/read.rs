//! Reads the batches of one segment after the other, and steps over what is damaged.
//!
//! A batch that is not what it was costs that batch: the next sound one is looked for behind it, what is between them
//! becomes a hole with the positions that names and neighbours tell, and its bytes are put aside. It does not know
//! which segments there are, nor what a hole becomes.

use std::{collections::BTreeSet, io};

use steward_protocol::{
    Domain,
    logs::{Batch, Header, Kind, MAX_BATCH, MAX_HEADER, Micros, Reason, frame},
};

use super::{disk::Disk, name::Name};

/// Bytes looked through at once for the next sound batch: as few reads as memory allows.
const WINDOW: usize = 256 * 1024;

/// What is skipped where the disk cannot be read: a block of it.
const BLOCK: usize = 4096;

/// How often reading a place may fail before what is there counts as damaged. A disk that was away for a moment must
/// not cost anything; one with a bad sector must not stop what is behind it.
const PATIENCE: u32 = 5;

/// Most bytes put aside of one place, and of one domain: enough for a person to see what became of it.
const ASIDE: u64 = 512 * 1024;
const ASIDE_IN_ALL: u64 = 2 * 1024 * 1024;

/// Most files put aside of one domain.
const ASIDE_FILES: usize = 256;

/// A segment that is to be read.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) name: Name,
    /// How many of its bytes count.
    pub(super) bytes: u64,
    /// The position behind its last record, if the next segment or the writer tells.
    pub(super) stop: Option<u64>,
}

/// What comes next in a segment.
#[derive(Debug)]
pub(super) enum Step {
    /// A batch; its payload is in the reader's buffer.
    Batch(Box<Header>),
    /// Positions without records.
    Hole(Hole),
    /// Nothing any more; the position behind the last record.
    End(u64),
}

/// Positions without records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hole {
    pub(super) first: u64,
    pub(super) next: u64,
    /// Whether it is known how many records were in it. If not, it takes one position for all of them.
    pub(super) is_counted: bool,
    pub(super) reason: Reason,
    pub(super) since: Micros,
    pub(super) until: Option<Micros>,
    /// Where the damage begins in the segment.
    pub(super) at: u64,
}

/// Where reading goes on.
#[derive(Debug)]
struct Cursor<F> {
    name: Name,
    file: F,
    at: u64,
    position: u64,
    /// When the last record before it was received.
    last: Micros,
}

/// What stands at some place.
enum Place {
    Sound(Header, u64),
    /// Nothing sound.
    Damaged(Damaged),
}

/// What is known of a batch that is not sound.
#[derive(Debug, Default)]
struct Damaged {
    /// What its header says, if at least that can be read.
    header: Option<Header>,
    /// Whether the file ends within it, and its head is sound: it was being written when the agent was killed.
    is_cut: bool,
}

/// Files put aside.
#[derive(Debug, Default)]
pub(super) struct Aside {
    pub(super) names: BTreeSet<String>,
    pub(super) bytes: u64,
}

/// Reads one domain's segments.
#[derive(Debug)]
pub(super) struct Reader<F> {
    dir: String,
    domain: Domain,
    cursor: Option<Cursor<F>>,
    pub(super) payload: Vec<u8>,
    pub(super) aside: Aside,
    failures: Option<(Name, u64, u32)>,
    /// How many damaged places were found since the start.
    pub(super) damaged: u64,
}

impl<F> Reader<F> {
    pub(super) fn new(domain: Domain, aside: Aside) -> Self {
        Self {
            dir: domain.to_string(),
            domain,
            cursor: None,
            payload: Vec::new(),
            aside,
            failures: None,
            damaged: 0,
        }
    }

    /// Closes the file in hand, as it is to go away, or its memory is wanted.
    pub(super) fn forget(&mut self) {
        self.cursor = None;
        self.payload = Vec::new();
    }

    /// Goes to the beginning of a segment, or stays before `position` if it is there already.
    pub(super) fn seek<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        position: u64,
    ) -> io::Result<()> {
        if self
            .cursor
            .as_ref()
            .is_some_and(|cursor| cursor.name == span.name && cursor.position <= position)
        {
            return Ok(());
        }
        self.cursor = None;
        let file = match disk.open(&self.dir, &span.name.to_string()) {
            Ok(file) => file,
            Err(error) => return self.be_patient(span.name, u64::MAX, error),
        };
        self.cursor = Some(Cursor {
            name: span.name,
            file,
            at: 0,
            position: span.name.first,
            last: drawn_at(&span.name),
        });
        Ok(())
    }

    /// Returns what comes next in the segment that [`Self::seek`] went to.
    pub(super) fn step<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
    ) -> io::Result<Step> {
        let Some(mut cursor) = self.cursor.take() else {
            // It could not even be opened, often enough.
            return Ok(self.without_file(span));
        };
        let step = self.step_from(disk, span, &mut cursor);
        self.cursor = Some(cursor);
        step
    }

    fn without_file(&mut self, span: &Span) -> Step {
        let first = span.name.first;
        match span.stop {
            Some(stop) if stop <= first => Step::End(first),
            stop => Step::Hole(Hole {
                first,
                next: stop.unwrap_or(first + 1),
                is_counted: stop.is_some(),
                reason: Reason::Corrupt,
                since: drawn_at(&span.name),
                until: None,
                at: 0,
            }),
        }
    }

    fn step_from<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        cursor: &mut Cursor<F>,
    ) -> io::Result<Step> {
        loop {
            let stop = span.stop.unwrap_or(u64::MAX);
            if cursor.position >= stop || (cursor.at >= span.bytes && span.stop.is_none()) {
                return Ok(Step::End(cursor.position));
            }
            if cursor.at >= span.bytes {
                return Ok(Step::Hole(hole(cursor, stop, None, Reason::Corrupt)));
            }
            match self.look(disk, span, cursor, cursor.at)? {
                Place::Sound(header, length) if header.next() <= cursor.position => {
                    cursor.at += length;
                }
                Place::Sound(mut header, length)
                    if header.first == cursor.position
                        && (header.next() <= stop || header.kind == Kind::Gap) =>
                {
                    // A segment that was dropped while the next one was added to it.
                    header.count = header.next().min(stop) - header.first;
                    cursor.at += length;
                    cursor.position = header.next();
                    cursor.last = header.to;
                    return Ok(Step::Batch(Box::new(header)));
                }
                Place::Sound(header, _)
                    if header.first > cursor.position && header.next() <= stop =>
                {
                    let until = Some(header.from);
                    return Ok(Step::Hole(hole(
                        cursor,
                        header.first,
                        until,
                        Reason::Corrupt,
                    )));
                }
                Place::Sound(header, _) => {
                    let damaged = Damaged {
                        header: Some(header),
                        is_cut: false,
                    };
                    if let Some(hole) = self.damage(disk, span, cursor, damaged)? {
                        return Ok(Step::Hole(hole));
                    }
                }
                Place::Damaged(damaged) => {
                    if let Some(hole) = self.damage(disk, span, cursor, damaged)? {
                        return Ok(Step::Hole(hole));
                    }
                }
            }
        }
    }

    /// Steps over damage and returns the positions it costs, if any.
    fn damage<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        cursor: &mut Cursor<F>,
        damaged: Damaged,
    ) -> io::Result<Option<Hole>> {
        let at = cursor.at;
        let hint = damaged.header.filter(|header| {
            header.first == cursor.position && header.next() <= span.stop.unwrap_or(u64::MAX)
        });
        let found = self.search(disk, span, cursor)?;
        let end = found.as_ref().map_or(span.bytes, |(at, _)| *at);
        self.put_aside(disk, span, cursor, end);
        cursor.at = end;
        let known = match (&found, span.stop, &hint) {
            (Some((_, header)), _, _) => Some(header.first),
            (None, Some(stop), _) => Some(stop),
            (None, None, Some(header)) => Some(header.next()),
            (None, None, None) => None,
        };
        let next = known.unwrap_or(cursor.position + 1);
        if next == cursor.position {
            return Ok(None);
        }
        let until = found.map(|(_, header)| header.from);
        let until = until.or(hint.map(|header| header.to));
        let mut hole = hole(cursor, next, until, Reason::Corrupt);
        hole.at = at;
        hole.is_counted = known.is_some();
        // Where nothing tells, that the power went while it was written is as likely as damage.
        if known.is_none() || (damaged.is_cut && span.stop.is_none()) {
            hole.reason = Reason::UncleanStart;
        }
        Ok(Some(hole))
    }

    /// Reads what stands at a place; the payload is left in the buffer.
    fn look<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        cursor: &mut Cursor<F>,
        at: u64,
    ) -> io::Result<Place> {
        match self.try_look(disk, span, cursor, at) {
            Ok(place) => {
                self.failures = None;
                Ok(place)
            }
            Err(error) => {
                self.be_patient(span.name, at, error)?;
                Ok(Place::Damaged(Damaged::default()))
            }
        }
    }

    fn be_patient(&mut self, name: Name, at: u64, error: io::Error) -> io::Result<()> {
        let before = match self.failures {
            Some((known, place, times)) if (known, place) == (name, at) => times,
            Some(_) | None => 0,
        };
        self.failures = Some((name, at, before + 1));
        if before + 1 < PATIENCE {
            Err(error)
        } else {
            Ok(())
        }
    }

    fn try_look<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        cursor: &mut Cursor<F>,
        at: u64,
    ) -> io::Result<Place> {
        let mut head = [0; frame::HEAD];
        let found = disk.read(&mut cursor.file, at, &mut head)?;
        let begin = at + frame::HEAD as u64;
        let left = usize::try_from(span.bytes.saturating_sub(begin)).unwrap_or(usize::MAX);
        let length = frame::length(&head[..found]);
        // Behind a head that is none, there may still be a header that tells what it was.
        let wanted = length.unwrap_or(MAX_HEADER + 4).min(left);
        self.payload.resize(wanted.min(MAX_BATCH), 0);
        let found = disk.read(&mut cursor.file, begin, &mut self.payload)?;
        self.payload.truncate(found);
        let is_ours = |header: &Header| {
            header.generation == span.name.generation && header.domain == self.domain
        };
        if length == Some(found)
            && let Ok(batch) = Batch::read(&self.payload)
            && is_ours(batch.header())
        {
            let header = batch.into_header();
            return Ok(Place::Sound(header, (frame::HEAD + found) as u64));
        }
        let hint = Header::read(&self.payload).ok().map(|(header, _)| header);
        Ok(Place::Damaged(Damaged {
            header: hint.filter(is_ours),
            is_cut: length.is_some_and(|length| length > left),
        }))
    }

    /// Looks for the next batch that could follow, and returns where it is.
    fn search<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        cursor: &mut Cursor<F>,
    ) -> io::Result<Option<(u64, Header)>> {
        let mut window = vec![0; WINDOW];
        let mut size = WINDOW;
        let mut from = cursor.at + 1;
        while from + (frame::HEAD as u64) < span.bytes {
            let left = usize::try_from(span.bytes - from).unwrap_or(WINDOW);
            let found = match disk.read(&mut cursor.file, from, &mut window[..left.min(size)]) {
                Ok(found) => found,
                // Somewhere in it is a place that cannot be read; around it, small steps lose least.
                Err(_) if size > BLOCK => {
                    size = BLOCK;
                    continue;
                }
                Err(_) => {
                    from = (from / BLOCK as u64 + 1) * BLOCK as u64;
                    continue;
                }
            };
            if found < frame::HEAD {
                return Ok(None);
            }
            let Some(place) = frame::find(&window[..found]) else {
                // A head may stand across the end of the window.
                from += (found - frame::HEAD + 1) as u64;
                continue;
            };
            let at = from + place as u64;
            from = at + 1;
            if let Ok(Place::Sound(header, _)) = self.try_look(disk, span, cursor, at)
                && header.first >= cursor.position
                && header.next() <= span.stop.unwrap_or(u64::MAX)
            {
                return Ok(Some((at, header)));
            }
        }
        Ok(None)
    }

    /// Copies what is damaged to a file of its own, as far as there is room; without that, it is only counted.
    fn put_aside<D: Disk<File = F>>(
        &mut self,
        disk: &mut D,
        span: &Span,
        cursor: &mut Cursor<F>,
        end: u64,
    ) {
        let name = format!("{}.{}.bad", span.name, cursor.at);
        if self.aside.names.contains(&name) {
            return;
        }
        self.damaged += 1;
        let bytes = (end - cursor.at).min(ASIDE);
        if self.aside.bytes + bytes > ASIDE_IN_ALL || self.aside.names.len() >= ASIDE_FILES {
            return;
        }
        let Ok(length) = usize::try_from(bytes) else {
            return;
        };
        let mut copy = vec![0; length];
        let found = disk.read(&mut cursor.file, cursor.at, &mut copy);
        let written = found.and_then(|found| {
            let mut file = disk.create(&self.dir, &name)?;
            disk.write(&mut file, 0, &copy[..found])?;
            disk.sync(&mut file)
        });
        if written.is_ok() {
            self.aside.bytes += bytes;
            self.aside.names.insert(name);
        }
    }
}

fn hole<F>(cursor: &mut Cursor<F>, next: u64, until: Option<Micros>, reason: Reason) -> Hole {
    let first = cursor.position;
    cursor.position = next;
    Hole {
        first,
        next,
        is_counted: true,
        reason,
        since: cursor.last,
        until,
        at: cursor.at,
    }
}

/// Returns when a generation was drawn, which is about when its first record came.
pub(super) fn drawn_at(name: &Name) -> Micros {
    let (seconds, nanos) = name
        .generation
        .0
        .get_timestamp()
        .map_or((0, 0), |at| at.to_unix());
    let seconds = i64::try_from(seconds).unwrap_or(0);
    Micros(seconds.saturating_mul(1_000_000) + i64::from(nanos / 1000))
}
