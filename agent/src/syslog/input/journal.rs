//! The systemd journal, read through `journalctl`: it can be read again, so nothing of it is lost. Where reading has come
//! to is kept once what was read is durable in the spool, and never before.
//!
//! ```text
//! journalctl ─ export format ─▶ entries ─ RFC 5424 lines ─▶ feed ─ durable ─▶ the place is kept
//! ```
//!
//! Whatever `journalctl` is asked for, it looks for the nearest entry when the one named is gone, and says nothing. So the
//! kept entry is asked for itself, and compared.

use std::{
    collections::VecDeque,
    ffi::OsString,
    path::{Path, PathBuf},
    pin::pin,
    sync::Arc,
    time::Duration,
};

use steward_protocol::logs::{Gap, Micros, Reason};
use tokio::{
    task::spawn_blocking,
    time::{Instant, MissedTickBehavior, interval_at, sleep},
};

use self::{
    cursor::{Cursor, Keeper, Kept, Place},
    export::Reader,
};
use super::{
    InputError, LAST, LOOK, Work, gather,
    seen::{PATIENCE, Seen},
    source,
};
use crate::{
    child::helper::Helper,
    keeper::chain,
    syslog::{
        feed::now,
        route::Tell,
        spool::{
            Portion,
            writer::{Claim, Gone, Receipt},
        },
    },
};

mod cursor;
mod export;
mod line;

/// What reads journals.
const PROGRAM: &str = "journalctl";

/// Bytes of one read: a portion's worth.
const READ: usize = 64 << 10;

/// Portions that are not durable yet: as much as a slow commit leaves open. What is in them is in memory.
const AHEAD: usize = 8;

/// How long nothing is asked about numbers that are missing, once it was found that the journal only did not use them.
const TRUST: Duration = Duration::from_secs(1);

/// Bytes of lines after which nothing is held against what the spool has any more: more than is ever open.
const REREAD: usize = 4 << 20;

/// Which machine's journal `journal:` is.
const MACHINE_ID: &str = "/etc/machine-id";

/// Returns when the last portion was received whose place was kept.
pub(super) fn noted(dir: &Path, name: &str) -> Micros {
    match Keeper::new(dir, name).read() {
        Ok(Kept::Place(place)) => place.stamp,
        Ok(Kept::Nothing | Kept::Damaged) | Err(_) => Micros::default(),
    }
}

/// Reads a journal until told to end: this machine's, or one in a directory.
pub(super) async fn run(work: Work, directory: Option<PathBuf>) -> Result<(), InputError> {
    let mut follower = Follower::new(&work, directory);
    let stop = work.stop.clone();
    let begun = tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        begun = follower.begin() => begun?,
    };
    let (helper, from) = begun;
    let ended = follower.follow(&stop, helper, from).await;
    follower.settle().await;
    ended
}

/// What was read together.
struct Haul {
    portion: Portion,
    /// The last entry of it.
    last: Cursor,
    /// The entry in front of it, and how many numbers were left out behind that.
    jump: Option<(Cursor, u64)>,
}

/// Reads one journal.
struct Follower<'w> {
    work: &'w Work,
    name: Arc<str>,
    /// What every call of the program is told.
    words: Vec<OsString>,
    keeper: Keeper,
    /// What is missing in front of what is read next.
    gap: Option<Gap>,
    /// The last entry that was read.
    last: Option<Cursor>,
    /// What was handed over, in its order, and how far the journal was read with it.
    open: VecDeque<(Receipt, Place)>,
    /// What keeps portions in the spool whose place could not be kept.
    claims: Vec<Claim>,
    /// When the last portion was received.
    stamp: Micros,
    /// What the spool has of what comes again.
    seen: Seen,
    /// Bytes that came since the start.
    reread: usize,
    /// How many places are to be kept until what the spool had is known by its place.
    unkept: Option<usize>,
    /// When this began.
    began: Instant,
    /// Until when numbers that are missing are nothing.
    trust: Instant,
}

impl<'w> Follower<'w> {
    fn new(work: &'w Work, directory: Option<PathBuf>) -> Self {
        let mut words: Vec<OsString> = ["--output=export", "--quiet", "--no-pager"]
            .map(OsString::from)
            .into();
        // Without it, what is followed is only what was logged since the boot.
        words.push("--merge".into());
        // Cursor and time are always there.
        words.push(format!("--output-fields={}", export::FIELDS[2..].join(",")).into());
        match directory {
            Some(directory) => {
                words.push("--directory".into());
                words.push(directory.into());
            }
            // What is kept beside it for containers has an order of its own.
            None => words.extend(machine().map(|id| format!("_MACHINE_ID={id}").into())),
        }
        Self {
            work,
            name: source(&work.input.name, None),
            words,
            keeper: Keeper::new(&work.dir, &work.input.name),
            gap: None,
            last: None,
            open: VecDeque::new(),
            claims: Vec::new(),
            stamp: Micros::default(),
            seen: Seen::default(),
            reread: 0,
            unkept: None,
            began: Instant::now(),
            trust: Instant::now(),
        }
    }

    /// Finds out where reading begins, and begins. Returns the entry that was read before, which comes again.
    async fn begin(&mut self) -> Result<(Helper, Option<Cursor>), InputError> {
        let keeper = self.keeper.clone();
        let kept = spawn_blocking(move || keeper.read()).await;
        let kept = kept.map_err(|_| self.broken("its place cannot be read"))?;
        let from = match kept.map_err(|error| self.work.receiving(error))? {
            Kept::Nothing => None,
            Kept::Damaged => {
                let gap = Gap::new(None, Reason::SourceVanished);
                self.gap = Some(gap.with_detail("the place in the journal was damaged"));
                None
            }
            Kept::Place(Place { cursor, stamp }) => {
                self.stamp = stamp;
                if self.is_there(&cursor).await? {
                    Some(cursor)
                } else {
                    self.gap = self.vanished(&cursor).await?;
                    None
                }
            }
        };
        self.seen = self.work.seen.take();
        // However the clock stands: what comes now is later than what the spool has.
        self.stamp = self.stamp.max(self.seen.newest());
        self.met();
        let mut more = vec!["--follow".to_owned(), "--no-tail".to_owned()];
        more.extend(from.as_ref().map(at));
        self.last.clone_from(&from);
        Ok((self.start(&more)?, from))
    }

    /// Says what is missing when an entry that was read is not there any more: the oldest that is there comes next.
    async fn vanished(&self, cursor: &Cursor) -> Result<Option<Gap>, InputError> {
        let Some(oldest) = self.first(&[]).await? else {
            // It may be on a disk that is not there yet.
            return Err(self.broken("it is empty, and was not; it is waited for"));
        };
        let count = cursor.missing_before(&oldest);
        tracing::warn!(input = %self.name, place = cursor.as_str(), oldest = oldest.as_str(), "the place in a journal is gone; it is read from its oldest entry");
        Ok((count != Some(0)).then(|| gap(cursor, &oldest, count)))
    }

    async fn is_there(&self, cursor: &Cursor) -> Result<bool, InputError> {
        let found = self.first(&[at(cursor)]).await?;
        Ok(found.is_some_and(|found| found.is_same(cursor)))
    }

    /// Returns the first entry there is, by what the program is told.
    async fn first(&self, more: &[String]) -> Result<Option<Cursor>, InputError> {
        let mut helper = self.start(more)?;
        let (mut reader, mut found) = (Reader::new(0), None);
        let mut buffer = vec![0; READ];
        while found.is_none() {
            let count = helper.read(&mut buffer).await;
            let count = count.map_err(|error| self.work.receiving(error))?;
            if count == 0 {
                return match helper.end().await {
                    (Some(status), _) if status.success() => Ok(None),
                    ended => Err(self.ended(ended)),
                };
            }
            let read = reader.push(&buffer[..count], |entry| {
                if found.is_none() {
                    found = Cursor::new(&entry.cursor.bytes);
                }
            });
            read.map_err(|broken| self.broken(&chain(&broken)))?;
        }
        helper.end().await;
        Ok(found)
    }

    fn start(&self, more: &[String]) -> Result<Helper, InputError> {
        let mut words = self.words.clone();
        words.extend(more.iter().map(OsString::from));
        Helper::start(PROGRAM, &words).map_err(|source| InputError::Journalctl {
            name: self.work.input.name.clone(),
            source,
        })
    }

    /// Hands over what is read, until told to end.
    async fn follow(
        &mut self,
        stop: &tokio_util::sync::CancellationToken,
        mut helper: Helper,
        mut from: Option<Cursor>,
    ) -> Result<(), InputError> {
        let mut reader = Reader::new(self.work.input.max_message);
        let mut buffer = vec![0; READ];
        let mut looks = interval_at(Instant::now() + LOOK, LOOK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                kept = durable(&mut self.open) => self.keep(kept?).await,
                read = helper.read(&mut buffer), if self.open.len() < AHEAD => {
                    let count = read.map_err(|error| self.work.receiving(error))?;
                    if count == 0 {
                        return Err(self.ended(helper.end().await));
                    }
                    let hauls = self.take(&mut reader, &buffer[..count], &mut from)?;
                    tokio::select! {
                        biased;
                        handed = self.hand(hauls) => handed?,
                        // It is read again.
                        () = stop.cancelled() => break,
                    }
                }
                _ = looks.tick() => {
                    if self.unkept.is_none() && self.began.elapsed() > PATIENCE {
                        self.seen = Seen::default();
                        self.met();
                    }
                    self.work.feed.tally().trouble(None);
                    self.work.feed.tell(Tell::Due)?;
                }
            }
        }
        helper.end().await;
        Ok(())
    }

    /// Makes portions of what was read.
    fn take(
        &mut self,
        reader: &mut Reader,
        bytes: &[u8],
        from: &mut Option<Cursor>,
    ) -> Result<Vec<Haul>, InputError> {
        let (mut hauls, mut line, mut is_wrong): (Vec<Haul>, _, _) =
            (Vec::new(), Vec::new(), false);
        let (name, last, most) = (&self.name, &mut self.last, self.work.input.max_message);
        let (seen, reread, stamp) = (&mut self.seen, &mut self.reread, &mut self.stamp);
        let read = reader.push(bytes, |entry| {
            let Some(cursor) = Cursor::new(&entry.cursor.bytes) else {
                return;
            };
            if let Some(known) = from.take() {
                // The one that was read before comes once more.
                is_wrong = !known.is_same(&cursor);
                return;
            }
            let jump = last.as_ref().and_then(|last| {
                let missing = last.missing_before(&cursor)?;
                (missing > 0).then(|| (last.clone(), missing))
            });
            if hauls.is_empty() || jump.is_some() {
                *stamp = now().max(Micros(stamp.0 + 1));
                hauls.push(Haul {
                    portion: Portion::new(Arc::clone(name), *stamp),
                    last: cursor.clone(),
                    jump,
                });
            }
            if let Some(haul) = hauls.last_mut() {
                line.clear();
                let length = line::write(entry, &mut line);
                let original = usize::try_from(length).unwrap_or(usize::MAX);
                let bytes = &line[..line.len().min(most)];
                *reread = reread.saturating_add(bytes.len());
                if *reread > REREAD {
                    *seen = Seen::default();
                }
                // The spool has it already.
                if !seen.remove(name, bytes) {
                    gather::add_message(&mut haul.portion, bytes, original);
                }
                haul.last = cursor.clone();
            }
            *last = Some(cursor);
        });
        read.map_err(|broken| self.broken(&chain(&broken)))?;
        if is_wrong {
            return Err(self.broken("its place was removed a moment ago"));
        }
        Ok(hauls)
    }

    /// Hands portions over; waits for room, which there may be only once what is durable was noted.
    async fn hand(&mut self, hauls: Vec<Haul>) -> Result<(), InputError> {
        for mut haul in hauls {
            let missing = match haul.jump.take() {
                Some((before, missing)) => self.missing(&before, missing, &haul.last).await?,
                None => None,
            };
            haul.portion.gaps.extend(self.gap.take());
            haul.portion.gaps.extend(missing);
            let (done, receipt) = self.work.feed.receipt();
            let place = Place {
                cursor: haul.last,
                stamp: haul.portion.received,
            };
            let mut put = pin!(self.work.feed.put(haul.portion, Some(done)));
            loop {
                tokio::select! {
                    biased;
                    put = &mut put => break put?,
                    kept = durable(&mut self.open) => self.keep(kept?).await,
                }
            }
            self.open.push_back((receipt, place));
        }
        self.met();
        Ok(())
    }

    /// Says what is missing where numbers are left out: entries, if what was in front of them is gone as well, for the
    /// oldest are removed first. Else the journal did not use the numbers, or keeps what they stand for from us.
    async fn missing(
        &mut self,
        before: &Cursor,
        missing: u64,
        after: &Cursor,
    ) -> Result<Option<Gap>, InputError> {
        if Instant::now() < self.trust {
            return Ok(None);
        }
        if self.is_there(before).await? {
            self.trust = Instant::now() + TRUST;
            return Ok(None);
        }
        Ok(Some(gap(before, after, Some(missing))))
    }

    /// Keeps the place up to which all is durable. That it cannot be kept loses nothing: more is read again.
    async fn keep(&mut self, (claim, mut place): (Claim, Place)) {
        let mut claims = std::mem::take(&mut self.claims);
        claims.push(claim);
        let mut kept_places = 1;
        while let Some((receipt, _)) = self.open.front_mut()
            && receipt.durable.try_recv().is_ok()
            && let Some((receipt, last)) = self.open.pop_front()
        {
            place = last;
            claims.push(receipt.claim);
            kept_places += 1;
        }
        if let Some(left) = &mut self.unkept {
            *left = left.saturating_sub(kept_places);
        }
        // With a later time kept, what is still to come again would not be recognised after another kill. For that, delivery
        // waits, and not for each portion.
        if self.unkept == Some(0) {
            let keeper = self.keeper.clone();
            let kept = spawn_blocking(move || keeper.write(&place)).await;
            if let Ok(Err(error)) = kept {
                tracing::warn!(%error, input = %self.name, "the place in a journal was not kept");
                let problem = format!("keep the place in the journal: {error}");
                self.work.feed.tally().trouble(Some(problem));
                // Nothing behind the first of them is removed, be they held or not.
                claims.truncate(AHEAD);
                self.claims = claims;
                return;
            }
            self.work.noted.cancel();
        }
        claims.into_iter().for_each(Claim::let_go);
    }

    /// Notices that all came again that the spool has. Once the places of what is open are kept, it may be removed there.
    fn met(&mut self) {
        if self.unkept.is_none() && self.seen.is_empty() {
            self.unkept = Some(self.open.len());
            if self.open.is_empty() {
                self.work.noted.cancel();
            }
        }
    }

    /// Waits until what was handed over is durable, and keeps the place; when the agent ends, not for long. What is read
    /// again while it runs would come twice.
    async fn settle(&mut self) {
        let stop = self.work.stop.clone();
        let too_late = async {
            stop.cancelled().await;
            sleep(LAST).await;
        };
        let mut too_late = pin!(too_late);
        while !self.open.is_empty() {
            tokio::select! {
                biased;
                kept = durable(&mut self.open) => match kept {
                    Ok(kept) => self.keep(kept).await,
                    Err(Gone) => return,
                },
                () = &mut too_late => return,
            }
        }
    }

    fn broken(&self, problem: &str) -> InputError {
        InputError::Journal {
            name: self.work.input.name.clone(),
            problem: problem.to_owned(),
        }
    }

    /// Says that the program has ended, with what it said itself.
    fn ended(&self, (status, words): (Option<std::process::ExitStatus>, String)) -> InputError {
        let status = status.map_or_else(
            || "nobody knows how".to_owned(),
            |status| status.to_string(),
        );
        let words = if words.is_empty() {
            "it said nothing"
        } else {
            &words
        };
        self.broken(&format!("{PROGRAM} has ended ({status}): {words}"))
    }
}

/// Waits for the first portion to be durable, and returns what keeps it in the spool and how far the journal was read with
/// it. Safe to drop and call again; without portions it waits for ever.
async fn durable(open: &mut VecDeque<(Receipt, Place)>) -> Result<(Claim, Place), Gone> {
    let Some((receipt, _)) = open.front_mut() else {
        return std::future::pending().await;
    };
    let told = (&mut receipt.durable).await;
    match open.pop_front() {
        Some((receipt, place)) if told.is_ok() => Ok((receipt.claim, place)),
        Some(_) | None => Err(Gone),
    }
}

/// Asks for the entries from this one on. Behind it (`--after-cursor`) would leave one out when it is gone.
fn at(cursor: &Cursor) -> String {
    format!("--cursor={}", cursor.as_str())
}

fn gap(before: &Cursor, after: &Cursor, count: Option<u64>) -> Gap {
    let since = before.at().unwrap_or_else(now);
    let until = after.at().unwrap_or_else(now);
    let (since, until): (Micros, Micros) = (since.min(until), since.max(until));
    Gap::new(count, Reason::SourceVanished)
        .between(since, until)
        .with_detail("removed from the journal before it was read")
}

/// Returns the name of this machine in its journal.
fn machine() -> Option<String> {
    let text = std::fs::read_to_string(MACHINE_ID).ok()?;
    let id = text.trim();
    let is_one = id.len() == 32 && id.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one.then(|| id.to_owned())
}
