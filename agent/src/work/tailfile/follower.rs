//! Decides what is to be given next of a file that is rotated, truncated, removed and made again.
//!
//! It looks at files and gives nothing away itself: whoever asks writes what it gets and says so. The time
//! is passed in. Every state of the directory is understood from what is there, not from how it came about:
//!
//! ```text
//! the path is this file, as it was        go on
//! the path is this file, with less in it  truncated: the rest of a copy first, then from its start
//! the path is another file                rotated: the rest of this one, those in between, then that one
//! there is nothing at the path            go on with this one until there is
//! ```

use std::{
    collections::{BTreeSet, VecDeque},
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    TailError,
    generation::{Generation, Identity},
    position::Position,
    siblings::{self, Age, Sibling},
};

/// How long a file that was rotated away must be quiet before it is left: what writes to it may take
/// a while to open the new one.
pub(super) const LINGER: Duration = Duration::from_secs(1);

/// Most generations held open at once; more than this between two looks have been rotated by nobody.
const MAX_QUEUE: usize = 64;

/// What is to be done next.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Give these bytes, then say how many with [`Follower::took`].
    Give(Vec<u8>),
    /// Give a line end that is in no file, then say so with [`Follower::broke`].
    Break,
    /// Tell this to people.
    Say(String),
    /// Look again later.
    Nothing,
}

/// What is beside a log and was not there before.
#[derive(Debug, Default)]
struct Between {
    /// What the log was meanwhile, the oldest first.
    generations: Vec<Generation>,
    /// Copies of what is read already.
    copies: Vec<Identity>,
}

/// A file that is followed.
#[derive(Debug)]
pub(super) struct Follower {
    path: PathBuf,
    current: Option<Generation>,
    /// What comes after the present file has been read.
    queue: VecDeque<Generation>,
    /// Files beside it that are known not to be the next generation.
    seen: BTreeSet<Identity>,
    /// Since when the present file, rotated away, has had this length.
    quiet: Option<(Duration, u64)>,
    notes: VecDeque<String>,
    /// The last complaint about the path, so that it is made once.
    complaint: Option<String>,
}

impl Follower {
    fn new(path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            current: None,
            queue: VecDeque::new(),
            seen: siblings::identities(path).unwrap_or_default(),
            quiet: None,
            notes: VecDeque::new(),
            complaint: None,
        }
    }

    /// Follows a file from its first line on.
    pub(super) fn from_start(path: &Path) -> Result<Self, TailError> {
        let mut follower = Self::new(path);
        follower.current = Generation::open(path)?;
        if follower.current.is_none() {
            follower.say(format!(
                "waits for {}: there is no such file yet",
                path.display()
            ));
        }
        Ok(follower)
    }

    /// Follows a file from its last `lines` lines on.
    pub(super) fn from_end(path: &Path, lines: u32) -> Result<Self, TailError> {
        let mut follower = Self::from_start(path)?;
        if let Some(current) = &mut follower.current {
            current
                .last_lines(lines)
                .and_then(|offset| current.go_to(offset))
                .map_err(|source| follower.failed("read", source))?;
        }
        Ok(follower)
    }

    /// Goes on where an earlier one ended.
    pub(super) fn resume(path: &Path, position: &Position) -> Result<Self, TailError> {
        let mut follower = Self::from_start(path)?;
        let failed = |source| TailError::System {
            doing: "read",
            path: path.to_owned(),
            source,
        };
        if let Some(current) = &mut follower.current
            && current.recognises(position).map_err(failed)?
        {
            return Ok(follower);
        }
        let present = follower.current.as_ref().map(|current| current.identity);
        let found = siblings::list(path).map_err(failed)?;
        // The one with the same number first; a copy only if there is none.
        let (same, others): (Vec<&Sibling>, Vec<&Sibling>) = found
            .iter()
            .partition(|sibling| sibling.identity.inode() == position.inode);
        for sibling in same.into_iter().chain(others.into_iter().rev()) {
            if Some(sibling.identity) == present {
                continue;
            }
            let Ok(Some(mut generation)) = Generation::open(&sibling.path) else {
                continue;
            };
            if !generation.recognises(position).map_err(failed)? {
                continue;
            }
            let words = format!(
                "goes on in {}, as {} was rotated",
                sibling.path.display(),
                path.display()
            );
            follower.notes.clear();
            follower.say(words);
            follower
                .seen
                .retain(|one| is_older(&found, *one, sibling.age));
            follower.current = Some(generation);
            return Ok(follower);
        }
        follower.say(format!(
            "cannot find the place {position} again: neither {} nor a file beside it has what was read before; begins at the start of the present file, and lines in between may be lost",
            path.display()
        ));
        Ok(follower)
    }

    /// Returns what is to be done next, at this time.
    pub(super) fn next(&mut self, now: Duration) -> Result<Step, TailError> {
        loop {
            if let Some(words) = self.notes.pop_front() {
                return Ok(Step::Say(words));
            }
            let Some(current) = &self.current else {
                if !self.turn() && !self.begin()? {
                    return Ok(Step::Nothing);
                }
                continue;
            };
            let lines = current
                .lines()
                .map_err(|source| self.failed("read", source))?;
            // Looked at after it was read: what was read is used only if nothing came in between.
            if !current
                .is_continued()
                .map_err(|source| self.failed("read", source))?
            {
                match self.truncated()? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            if self.was_emptied()? {
                continue;
            }
            if !lines.is_empty() {
                self.quiet = None;
                return Ok(Step::Give(lines));
            }
            if !self.queue.is_empty() {
                match self.leave()? {
                    Some(step) => return Ok(step),
                    None => continue,
                }
            }
            if self.is_over(now)? {
                self.advance()?;
            }
            if self.queue.is_empty() {
                return Ok(Step::Nothing);
            }
        }
    }

    /// Notes that bytes were given.
    pub(super) fn took(&mut self, bytes: &[u8]) {
        if let Some(current) = &mut self.current {
            current.took(bytes);
        }
    }

    /// Notes that a line end was given.
    pub(super) fn broke(&mut self) {
        if let Some(current) = &mut self.current {
            current.mid_line = false;
        }
    }

    /// Returns what is there of a line that is not complete.
    pub(super) fn rest(&mut self) -> Result<Vec<u8>, TailError> {
        // What was before it comes first, and nobody waits for that now.
        self.was_emptied()?;
        let Some(current) = &self.current else {
            return Ok(Vec::new());
        };
        let read = |source| self.failed("read", source);
        let rest = current.rest().map_err(read)?;
        Ok(if current.is_continued().map_err(read)? {
            rest
        } else {
            Vec::new()
        })
    }

    /// Returns the place reached, once there was a file.
    pub(super) fn position(&self) -> Option<Position> {
        let next = self.current.as_ref().or(self.queue.front());
        next.map(Generation::position)
    }

    fn say(&mut self, words: String) {
        self.notes.push_back(format!("tailfile: {words}"));
    }

    fn failed(&self, doing: &'static str, source: io::Error) -> TailError {
        TailError::System {
            doing,
            path: self.path.clone(),
            source,
        }
    }

    /// Opens the file at the path, if there is one. What cannot be opened is complained about once, and
    /// tried again: it was there, and will be.
    fn open(&mut self) -> Option<Generation> {
        match Generation::open(&self.path) {
            Ok(found) => {
                self.complaint = None;
                found
            }
            Err(error) => {
                let words = crate::keeper::chain(&error);
                if self.complaint.as_ref() != Some(&words) {
                    self.complaint = Some(words.clone());
                    self.say(format!("failed to {words}; tries again"));
                }
                None
            }
        }
    }

    /// Goes on with the next file, if there is one.
    fn turn(&mut self) -> bool {
        self.quiet = None;
        // Once it is over, and has another name, it must not be taken for a new one.
        self.seen
            .extend(self.current.as_ref().map(|one| one.identity));
        self.current = self.queue.pop_front();
        self.current.is_some()
    }

    /// Begins with the file at the path, and with what it was before if that is new too.
    fn begin(&mut self) -> Result<bool, TailError> {
        self.advance()?;
        Ok(!self.queue.is_empty() || !self.notes.is_empty())
    }

    /// Ends a file after which there are others: gives its last line even if it has no end.
    fn leave(&mut self) -> Result<Option<Step>, TailError> {
        let rest = self.rest()?;
        if !rest.is_empty() {
            return Ok(Some(Step::Give(rest)));
        }
        if self
            .current
            .as_ref()
            .is_some_and(|current| current.mid_line)
        {
            return Ok(Some(Step::Break));
        }
        self.turn();
        Ok(None)
    }

    /// Tells whether the present file is rotated away and nothing more will come.
    fn is_over(&mut self, now: Duration) -> Result<bool, TailError> {
        let Some(current) = &self.current else {
            return Ok(false);
        };
        let identity = current.identity;
        if self.present() == Some(identity) {
            self.quiet = None;
            // Whatever is beside it now is not the next generation, unless it has been rotated just now.
            if let Ok(seen) = siblings::identities(&self.path)
                && self.present() == Some(identity)
            {
                self.seen = seen;
            }
            return Ok(false);
        }
        // It was removed or renamed, and nothing has come after it yet.
        if self.present().is_none() && self.unseen(self.beside()?, None)?.generations.is_empty() {
            return Ok(false);
        }
        let length = current
            .length()
            .map_err(|source| self.failed("read", source))?;
        match self.quiet {
            Some((since, before)) if before == length => Ok(now >= since + LINGER),
            _ => {
                self.quiet = Some((now, length));
                Ok(false)
            }
        }
    }

    /// Finds what a file of which nothing was given had before it was copied and truncated, all between
    /// two looks: nothing in it could tell.
    fn was_emptied(&mut self) -> Result<bool, TailError> {
        let untouched = self
            .current
            .as_ref()
            .filter(|current| current.is_untouched());
        let Some(identity) = untouched.map(|current| current.identity) else {
            return Ok(false);
        };
        if !self.queue.is_empty() {
            return Ok(false);
        }
        let mut found = self.beside()?;
        match found.iter().position(|one| one.identity == identity) {
            // It was rotated away; what is new may have come after it.
            Some(at) => found.truncate(at),
            None if self.present() == Some(identity) => {}
            None => return Ok(false),
        }
        let between = self.unseen(found, Some(identity))?;
        if between.generations.is_empty() {
            return Ok(false);
        }
        self.queue(between);
        let present = self.current.take();
        self.queue.extend(present);
        Ok(true)
    }

    fn beside(&self) -> Result<Vec<Sibling>, TailError> {
        siblings::list(&self.path).map_err(|source| self.failed("list the files beside", source))
    }

    fn queue(&mut self, between: Between) {
        self.seen.extend(between.copies);
        self.queue.extend(between.generations);
    }

    /// Returns which file is at the path.
    fn present(&self) -> Option<Identity> {
        let found = fs::metadata(&self.path).ok()?;
        found.is_file().then(|| Identity::from(&found))
    }

    /// Queues what came after the present file: generations that were rotated away, then the one at the path.
    fn advance(&mut self) -> Result<(), TailError> {
        // Before the list: whatever is rotated away from now on is this one, or comes after it.
        let present = self.open();
        let between = self.unseen(
            self.beside()?,
            present.as_ref().map(|present| present.identity),
        )?;
        self.queue(between);
        self.queue.extend(present);
        Ok(())
    }

    /// Opens the files beside the path that were not there before, the oldest first, without copies of
    /// the present one.
    fn unseen(&self, found: Vec<Sibling>, present: Option<Identity>) -> Result<Between, TailError> {
        let mut fresh = Between::default();
        for sibling in found {
            let current = self.current.as_ref();
            let known = Some(sibling.identity) == present
                || current.is_some_and(|current| current.identity == sibling.identity)
                || self.seen.contains(&sibling.identity);
            if known || fresh.generations.len() >= MAX_QUEUE {
                continue;
            }
            let Ok(Some(generation)) = Generation::open(&sibling.path) else {
                continue;
            };
            let copy = match current {
                Some(current) => current
                    .contains(&generation)
                    .map_err(|source| self.failed("read", source))?,
                None => false,
            };
            if copy {
                fresh.copies.push(generation.identity);
            } else {
                fresh.generations.push(generation);
            }
        }
        Ok(fresh)
    }

    /// The present file has other content than was given. If it was copied before, the copy has the rest.
    fn truncated(&mut self) -> Result<Option<Step>, TailError> {
        let Some(current) = &self.current else {
            return Ok(None);
        };
        let copy = self.copy_of(current)?;
        if copy.is_none() && current.mid_line {
            return Ok(Some(Step::Break));
        }
        let present = self.open();
        let identity = present.as_ref().map(|present| present.identity);
        let Some(old) = self.current.take() else {
            return Ok(None);
        };
        let copied = copy.is_some();
        if let Some(mut copy) = copy {
            copy.take_over(&old);
            self.seen.insert(copy.identity);
            self.current = Some(copy);
        } else {
            self.say(format!(
                "{} was truncated; what was not read before is lost",
                self.path.display()
            ));
        }
        // It may have been rotated away since, and then is one of those in between itself.
        if copied || identity != Some(old.identity) {
            let between = self.unseen(self.beside()?, identity)?;
            self.queue(between);
        }
        self.queue.extend(present);
        Ok(None)
    }

    fn copy_of(&self, current: &Generation) -> Result<Option<Generation>, TailError> {
        let read = |source| self.failed("read", source);
        let found = siblings::list(&self.path).map_err(read)?;
        for sibling in found.iter().rev() {
            if sibling.identity == current.identity || current.is_untouched() {
                continue;
            }
            if let Ok(Some(other)) = Generation::open(&sibling.path)
                && current.is_continued_in(&other).map_err(read)?
            {
                return Ok(Some(other));
            }
        }
        Ok(None)
    }
}

/// Tells whether a file was written no later than one of that age.
fn is_older(found: &[Sibling], identity: Identity, age: Age) -> bool {
    let one = found.iter().find(|sibling| sibling.identity == identity);
    one.is_none_or(|sibling| sibling.age <= age)
}
