//! One line, read in one direction: loads batches as late as it can, and few of them.

use std::{
    collections::VecDeque,
    sync::{Arc, mpsc::Receiver},
};

use steward_protocol::logs::Micros;

use super::{
    super::{
        LogsError,
        disk::{Disk, Mode, failed},
        index::Entry,
        name::{Line, path},
    },
    catalog::{self, Segment},
    crew::Crew,
    query::{Direction, Query},
    sift::{self, Match, Share, Sifted, Source},
};

/// Batches at hand or asked for in one line, at most.
const MAX_AHEAD: usize = 64;

/// How many batches must be wanted for others to help: for fewer it is not worth beginning threads.
const ASKING: usize = 4;

/// Batches that one thread looks through before it says what it found, at most.
const MAX_TASK: usize = 4;

/// What the name of a source takes with each find; it has hardly ever more bytes.
const SOURCE: usize = 64;

/// What is kept of a line while others are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keeping {
    /// What was found and is to come, and the file open.
    All,
    /// What was found. Thousands of lines are more than a program may have open.
    Little,
}

/// Where in a line: the number of a segment, and a byte of it.
pub(super) type Place = (u64, u64);

/// Batches that others look through.
struct Asked {
    batches: usize,
    /// What they may take in memory.
    cost: usize,
    answer: Receiver<Vec<Sifted>>,
}

/// One line that is being read.
pub(super) struct Cursor<D: Disk> {
    pub(super) line: Line,
    dir: String,
    segments: VecDeque<Segment>,
    from: Place,
    end: Place,
    /// What is left of the segment that is being read, or the next of it.
    entries: VecDeque<Entry>,
    /// How many of them are at hand, at most.
    window: usize,
    /// The file of that segment.
    place: Option<String>,
    source: Option<Arc<Source<D>>>,
    /// How many finds of the first entry were handed out already.
    skip: usize,
    ready: VecDeque<Match>,
    /// What was found in the first entries (if some of the first was handed out, in those behind it), and whom to ask about
    /// those that follow.
    sifted: VecDeque<Sifted>,
    asked: VecDeque<Asked>,
    /// How many entries are wanted at hand: few at first, since a few lines may be enough.
    ahead: usize,
    /// How many the disk was told of.
    announced: usize,
    /// The latest time so far (backward: the earliest): times of a line never go back in what is shown.
    time: Option<Micros>,
}

impl<D: Disk> Cursor<D> {
    /// Returns a reader of what is between two places of a line.
    pub(super) fn new(
        disk: &D,
        line: Line,
        (from, end): (Place, Place),
        (direction, window): (Direction, usize),
    ) -> Result<Self, LogsError> {
        let dir = line.dir();
        let mut segments = catalog::segments(disk, &dir)?;
        segments.retain(|segment| (from.0..=end.0).contains(&segment.name.number));
        if direction == Direction::Backward {
            segments.reverse();
        }
        Ok(Self {
            line,
            dir,
            segments: segments.into(),
            from,
            end,
            entries: VecDeque::new(),
            window,
            place: None,
            source: None,
            skip: 0,
            ready: VecDeque::new(),
            sifted: VecDeque::new(),
            asked: VecDeque::new(),
            ahead: 1,
            announced: 0,
            time: None,
        })
    }

    /// Returns the time of the next find, or of the next batch in which there may be one; nothing at the end.
    pub(super) fn time(&mut self, disk: &D, query: &Query) -> Result<Option<Micros>, LogsError> {
        if let Some(found) = self.ready.front() {
            return Ok(Some(self.clamp(found.received, query.direction)));
        }
        while self.entries.is_empty() {
            let Some(segment) = self.segments.pop_front() else {
                return Ok(None);
            };
            self.open(disk, segment, query)?;
        }
        let time = self.entries.front().map(|entry| match query.direction {
            Direction::Forward => entry.from,
            Direction::Backward => entry.to,
        });
        Ok(time.map(|time| self.clamp(time, query.direction)))
    }

    /// Tells whether a find is at hand.
    pub(super) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Returns the find at hand.
    pub(super) fn pop(&mut self, direction: Direction) -> Option<Match> {
        let found = self.ready.pop_front()?;
        self.time = Some(self.clamp(found.received, direction));
        Some(found)
    }

    /// Looks into the next batches for something; `room` is how many bytes may be at hand.
    pub(super) fn fill(
        &mut self,
        crew: &mut Crew<D>,
        (room, keeping): (usize, Keeping),
    ) -> Result<(), LogsError> {
        let Some(source) = self.source(crew.disk())? else {
            // Retention was faster.
            self.entries.clear();
            return Ok(());
        };
        self.ask(crew, &source, room)?;
        while let Some(sifted) = self.next(crew, &source, room)? {
            self.skip += sifted.found.len();
            self.ready.extend(sifted.found);
            if sifted.is_cut {
                // The rest of this batch is unpacked once more, when there is room for it.
                break;
            }
            self.skip = 0;
            self.entries.pop_front();
            self.announced = self.announced.saturating_sub(1);
            if keeping == Keeping::All || self.begun() == 0 {
                break;
            }
        }
        if keeping == Keeping::Little {
            self.let_go();
        }
        self.ahead = (self.ahead * 2).min(MAX_AHEAD);
        Ok(())
    }

    /// Returns what is in the next batch: at once, or from those who were asked before.
    fn next(
        &mut self,
        crew: &mut Crew<D>,
        source: &Source<D>,
        room: usize,
    ) -> Result<Option<Sifted>, LogsError> {
        if self.skip == 0 {
            if self.sifted.is_empty()
                && let Some(asked) = self.asked.pop_front()
            {
                let gone = |_| LogsError::Damaged {
                    path: source.place.clone(),
                };
                self.sifted = asked.answer.recv().map_err(gone)?.into();
            }
            if let Some(sifted) = self.sifted.pop_front() {
                return Ok(Some(sifted));
            }
        }
        let share = Share {
            skip: self.skip,
            room,
        };
        let entry = self.entries.front();
        Ok(entry.map(|entry| crew.sift(source, entry, share)))
    }

    /// Lets others look through the next batches, as many as there is room for.
    fn ask(
        &mut self,
        crew: &mut Crew<D>,
        source: &Arc<Source<D>>,
        room: usize,
    ) -> Result<(), LogsError> {
        // Whoever wants only the last few lines needs nobody's help.
        if self.ahead < ASKING {
            return Ok(());
        }
        let hands = crew.hands()?;
        if hands == 0 {
            return Ok(());
        }
        let share = (self.ahead / (2 * hands)).clamp(1, MAX_TASK);
        let mut begun = self.begun();
        let mut cost: usize = self.asked.iter().map(|asked| asked.cost).sum();
        self.announce(crew.disk(), source, begun);
        while begun + share <= self.ahead {
            let (mut task, mut costs) = (Vec::new(), 0);
            for entry in self.entries.iter().skip(begun).take(share) {
                if cost + costs + most(entry) > room {
                    break;
                }
                costs += most(entry);
                task.push(entry.clone());
            }
            if task.is_empty() {
                break;
            }
            begun += task.len();
            cost += costs;
            self.asked.push_back(Asked {
                batches: task.len(),
                cost: costs,
                answer: crew.ask(source, task, room),
            });
        }
        Ok(())
    }

    /// Returns how many batches from the first on are at hand or asked for.
    fn begun(&self) -> usize {
        let asked: usize = self.asked.iter().map(|asked| asked.batches).sum();
        usize::from(self.skip > 0) + self.sifted.len() + asked
    }

    /// Tells the disk what will be read, some time before.
    fn announce(&mut self, disk: &D, source: &Source<D>, begun: usize) {
        let (from, to) = (self.announced.max(begun), begun + 2 * self.ahead);
        if from + self.ahead / 2 > to {
            return;
        }
        let next = self.entries.iter().skip(from).take(to - from);
        let mut run: Option<(u64, u64)> = None;
        for entry in next {
            let (at, end) = (entry.at, entry.end());
            run = Some(match run {
                Some((first, last)) if at == last => (first, end),
                Some((first, last)) if end == first => (at, last),
                Some((first, last)) => {
                    disk.announce(&source.file, first, last - first);
                    (at, end)
                }
                None => (at, end),
            });
        }
        if let Some((first, last)) = run {
            disk.announce(&source.file, first, last - first);
        }
        self.announced = to;
    }

    /// Returns the file of the segment that is being read, opened; nothing if it is gone.
    fn source(&mut self, disk: &D) -> Result<Option<Arc<Source<D>>>, LogsError> {
        if let Some(source) = &self.source {
            return Ok(Some(Arc::clone(source)));
        }
        let place = self.place.clone().unwrap_or_default();
        let file = match disk.open(&place, Mode::Read) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(failed("open", &place)(error)),
        };
        let source = Arc::new(Source { file, place });
        self.source = Some(Arc::clone(&source));
        Ok(Some(source))
    }

    /// Forgets what was found in batches behind the first, and closes the file.
    fn let_go(&mut self) {
        self.asked.clear();
        self.sifted.clear();
        self.source = None;
    }

    fn open(&mut self, disk: &D, segment: Segment, query: &Query) -> Result<(), LogsError> {
        let number = segment.name.number;
        let mut entries = catalog::entries(disk, &self.dir, &segment)?;
        entries.retain(|entry| {
            let place = (number, entry.at);
            place >= self.from && place < self.end && query.may_be_in(entry)
        });
        if query.direction == Direction::Backward {
            entries.reverse();
        }
        if entries.len() > self.window {
            entries.truncate(self.window);
            // The others are looked for again when these were read.
            match (query.direction, entries.last()) {
                (Direction::Forward, Some(last)) => self.from = (number, last.end()),
                (Direction::Backward, Some(last)) => self.end = (number, last.at),
                (_, None) => {}
            }
            self.segments.push_front(segment);
        }
        self.let_go();
        self.announced = 0;
        self.entries = entries.into();
        self.place = Some(path(&self.dir, &segment.name.log()));
        Ok(())
    }

    fn clamp(&self, time: Micros, direction: Direction) -> Micros {
        match (self.time, direction) {
            (None, _) => time,
            (Some(last), Direction::Forward) => time.max(last),
            (Some(last), Direction::Backward) => time.min(last),
        }
    }
}

/// Returns how much memory the finds of a batch take at most.
fn most(entry: &Entry) -> usize {
    let records = usize::try_from(entry.count).unwrap_or(usize::MAX);
    let each = sift::COST + SOURCE;
    records
        .saturating_mul(each)
        .saturating_add(entry.raw as usize)
}
