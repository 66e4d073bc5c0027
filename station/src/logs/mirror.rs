//! The mirror: writes what nodes log into plain files as well, so that existing tools go on working.
//!
//! A file holds every line once, also after a kill or a power cut: beside the cursor stands how far the file counts, and
//! what is behind that is written again in the same place. A disk that is full is waited for.

use std::{
    collections::BTreeSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use steward_protocol::retry::Backoff;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;

use self::{
    file::{FileError, Need, Rotation, Tree},
    text::Format,
};
use super::{
    LogsError,
    disk::{Disk, Files},
    follow::{Follower, Mark, Portion, keep},
    name::Line,
    outlet::{Outlet, PACE},
};
use crate::{bus::dice, station::chain};

pub mod file;
pub mod text;

/// Waits between attempts to go on.
const RETRY: Backoff = Backoff {
    base: Duration::from_millis(500),
    cap: Duration::from_secs(10),
};

/// How often files and cursors are made durable while they grow.
const SAVE: Duration = Duration::from_secs(2);

/// How a mirror looks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shape {
    /// Where its files are.
    pub dir: PathBuf,
    /// How their lines look.
    pub format: Format,
    /// How large they become.
    pub rotation: Rotation,
}

/// Why nothing can be mirrored.
#[derive(Debug, thiserror::Error)]
pub enum MirrorError {
    /// What is stored cannot be read, or cursors cannot be kept.
    #[error(transparent)]
    Logs(LogsError),
    /// A file cannot be written.
    #[error(transparent)]
    File(FileError),
}

/// The writer of a mirror: reads a piece and appends it.
pub struct Copier<D: Disk, K: Disk> {
    follower: Follower<D>,
    shape: Shape,
    tree: Tree,
    /// Where cursors are kept, and under which name.
    kept: (K, String),
    /// Files that grew since they were made durable.
    dirty: BTreeSet<Line>,
    /// Whether cursors have moved since they were kept, and when that was.
    moved: bool,
    saved: Option<Instant>,
    text: Vec<u8>,
}

impl<D: Disk, K: Disk> Copier<D, K> {
    /// Returns one that goes on where the follower is.
    pub fn new(follower: Follower<D>, shape: Shape, kept: (K, String)) -> Self {
        Self {
            follower,
            tree: Tree::new(&shape.dir),
            shape,
            kept,
            dirty: BTreeSet::new(),
            moved: false,
            saved: Some(Instant::now()),
            text: Vec::new(),
        }
    }

    /// Returns what reads.
    pub fn follower(&mut self) -> &mut Follower<D> {
        &mut self.follower
    }

    /// Copies the next piece; nothing when all was copied.
    ///
    /// # Errors
    ///
    /// Fails when a disk does; it can be tried again.
    pub fn copy(&mut self) -> Result<Option<Portion>, MirrorError> {
        let Self {
            follower,
            text,
            shape,
            ..
        } = self;
        text.clear();
        let pulled = follower.pull(&mut |line, item| text::put(text, shape.format, line, &item));
        let Some(mut portion) = pulled.map_err(MirrorError::Logs)? else {
            return Ok(None);
        };
        if !self.text.is_empty() {
            let mark = self.prepare(&portion.line)?;
            let appended = self.tree.append(&portion.line, mark, &self.text);
            portion.cursor.mark = Some(appended.map_err(MirrorError::File)?);
            self.dirty.insert(portion.line.clone());
        }
        self.follower.passed(&portion);
        self.moved = true;
        Ok(Some(portion))
    }

    /// Makes files durable, and then how far they count.
    ///
    /// # Errors
    ///
    /// Fails when a disk does; nothing is forgotten.
    pub fn save(&mut self) -> Result<(), MirrorError> {
        self.saved = Some(Instant::now());
        for line in &self.dirty {
            self.tree.sync(line).map_err(MirrorError::File)?;
        }
        let (disk, name) = &self.kept;
        keep::save(disk, name, self.follower.cursors()).map_err(MirrorError::Logs)?;
        self.dirty.clear();
        self.moved = false;
        Ok(())
    }

    /// Returns how long it may still go on without making anything durable.
    fn due(&self) -> Duration {
        let since = self.saved.map(|saved| saved.elapsed());
        since.map_or(Duration::ZERO, |since| SAVE.saturating_sub(since))
    }

    /// Returns the mark behind which can be written, and keeps it first where that is needed.
    fn prepare(&mut self, line: &Line) -> Result<Mark, MirrorError> {
        let more = (self.text.len() as u64, self.shape.rotation);
        loop {
            let mark = self.follower.cursors().get(line);
            let mark = mark.and_then(|cursor| cursor.mark);
            let need = self.tree.need(line, mark, more);
            match need.map_err(MirrorError::File)? {
                Need::Append(mark) => return Ok(mark),
                Need::Mark(mark) => {
                    let named = self.tree.sync_name(line);
                    named.map_err(MirrorError::File)?;
                    self.follower.mark(line, mark);
                    self.save()?;
                }
                Need::Rotate => {
                    self.save()?;
                    let rotated = self.tree.rotate(line, self.shape.rotation);
                    rotated.map_err(MirrorError::File)?;
                }
            }
        }
    }
}

/// The mirror, running.
pub struct Mirror {
    outlet: Outlet,
    shape: Shape,
}

/// What came of some pieces.
struct Worked {
    copier: Copier<Files, Files>,
    messages: u64,
    missed: u64,
    is_over: bool,
    error: Option<MirrorError>,
}

impl Mirror {
    /// Returns a mirror.
    pub fn new(outlet: Outlet, shape: Shape) -> Self {
        Self { outlet, shape }
    }

    /// Runs until told to stop.
    pub async fn run(mut self, stop: CancellationToken) {
        let mut attempt = 0_u32;
        while !stop.is_cancelled() {
            let opened = tokio::select! {
                () = stop.cancelled() => return,
                opened = self.outlet.follower() => opened,
            };
            let born = Instant::now();
            let ended = match opened {
                Ok(follower) => {
                    let kept = (self.outlet.cursors.clone(), self.outlet.name.clone());
                    let copier = Copier::new(follower, self.shape.clone(), kept);
                    self.copy(copier, &stop).await
                }
                Err(error) => Err(format!("failed to {}", chain(&error))),
            };
            let Err(text) = ended else { return };
            self.outlet.trouble(text).await;
            if born.elapsed() > RETRY.cap {
                attempt = 0;
            }
            let wait = RETRY.bound(attempt) / 2 + RETRY.full_jitter(attempt, dice()) / 2;
            attempt = attempt.saturating_add(1);
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(wait) => {}
            }
        }
    }

    /// Copies until told to stop, or it fails.
    async fn copy(
        &mut self,
        mut copier: Copier<Files, Files>,
        stop: &CancellationToken,
    ) -> Result<(), String> {
        loop {
            self.outlet.learn(copier.follower());
            let worked = tokio::task::spawn_blocking(move || work(copier)).await;
            let worked = worked.map_err(|_| "failed to copy logs: the writer ended".to_owned())?;
            self.outlet.count(worked.messages, worked.missed).await;
            if let Some(error) = worked.error {
                return Err(format!("failed to {}", chain(&error)));
            }
            if worked.messages > 0 {
                self.outlet.well();
            }
            copier = worked.copier;
            if stop.is_cancelled() && !copier.moved {
                return Ok(());
            }
            if worked.is_over {
                tokio::select! {
                    () = stop.cancelled() => copier.saved = None,
                    () = async { self.outlet.changed().await; sleep(PACE).await } => {}
                    () = sleep(copier.due()), if copier.moved => {}
                }
            }
        }
    }
}

/// Copies for a while, and makes durable what was copied.
fn work(mut copier: Copier<Files, Files>) -> Worked {
    let begun = Instant::now();
    let (mut messages, mut missed, mut is_over) = (0, 0, false);
    let mut error = None;
    while error.is_none() && !is_over && begun.elapsed() < SAVE {
        match copier.copy() {
            Ok(Some(portion)) => {
                messages += portion.messages;
                missed += portion.missed;
            }
            Ok(None) => is_over = true,
            Err(failed) => error = Some(failed),
        }
    }
    if error.is_none() && copier.moved && copier.due().is_zero() {
        error = copier.save().err();
    }
    Worked {
        copier,
        messages,
        missed,
        is_over,
        error,
    }
}
