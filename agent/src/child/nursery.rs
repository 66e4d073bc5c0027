//! Where the directories of all commands are: starts commands in new ones, and finds old ones again.
//!
//! Knows nothing of what the commands do, nor how long their directories are needed: whoever asks for
//! them to be tidied says that.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::{DirBuilderExt, MetadataExt},
    path::{Path, PathBuf},
    sync::Arc,
};

use steward_protocol::MessageId;
use tokio::sync::Notify;

use super::{Cgroups, End, Label, NotStarted, Place, Running, Spec, place::PlaceError, sweep};
use crate::{journal::ChildMark, keeper::chain};

/// This very program, also when its file was replaced since it was started.
const SELF: &str = "/proc/self/exe";

/// The directories' directory below the state directory.
const DIR: &str = "children";

/// Where the directories of all commands are.
#[derive(Debug, Clone)]
pub struct Nursery {
    dir: PathBuf,
    program: PathBuf,
    cgroups: Cgroups,
    /// Whoever is woken here looks whether there is too much.
    changed: Arc<Notify>,
}

/// What an earlier start of the agent left of a command.
#[derive(Debug)]
pub enum Found {
    /// Its end.
    Over(Box<End>),
    /// Its warden, which lives.
    Running(Box<Running>),
    /// Neither.
    Nothing,
}

/// One command's directory, and what it takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kept {
    /// The directory.
    pub place: Place,
    /// The message; none, if it is not one of ours.
    pub id: Option<MessageId>,
    /// Bytes on the disk.
    pub bytes: u64,
}

fn kept(dir: &Path) -> Option<Kept> {
    let name = dir.file_name()?.to_str()?;
    let id = name.rsplit_once('-').and_then(|(id, _)| id.parse().ok());
    let files = fs::read_dir(dir).into_iter().flatten().flatten();
    // Blocks and not lengths: what was released is a hole.
    let blocks = files
        .filter_map(|file| file.metadata().ok())
        .map(|file| file.blocks());
    Some(Kept {
        place: Place::new(dir),
        id,
        bytes: blocks.sum::<u64>() * 512,
    })
}

impl Nursery {
    /// Opens it in the agent's state directory.
    ///
    /// # Errors
    ///
    /// Fails when there can be no directory for it.
    pub fn open(state_dir: &Path) -> io::Result<Self> {
        Self::with_program(state_dir, Path::new(SELF))
    }

    /// The same with wardens that are another program than this one; for tests, which are not the agent.
    ///
    /// # Errors
    ///
    /// Fails when there can be no directory for it.
    pub fn with_program(state_dir: &Path, program: &Path) -> io::Result<Self> {
        let dir = state_dir.join(DIR);
        match DirBuilder::new().mode(0o700).create(&dir) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
            Ok(()) | Err(_) => {}
        }
        Ok(Self {
            // Wardens are found by this path, whatever directory the next start is started in.
            dir: fs::canonicalize(dir)?,
            program: program.to_owned(),
            cgroups: Cgroups::open(),
            changed: Arc::default(),
        })
    }

    /// Returns which limits can be held here.
    pub fn cgroups(&self) -> &Cgroups {
        &self.cgroups
    }

    /// Says that a command has come to its end, and takes more room than before.
    pub fn note_change(&self) {
        self.changed.notify_one();
    }

    /// Returns when a command has come to its end since this returned last.
    pub async fn changed(&self) {
        self.changed.notified().await;
    }

    /// Returns everything there is, in the order of its making.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be listed.
    pub fn list(&self) -> io::Result<Vec<Kept>> {
        let mut kept: Vec<Kept> = fs::read_dir(&self.dir)?
            .filter_map(|entry| kept(&entry.ok()?.path()))
            .collect();
        // The ids of messages begin with their time.
        kept.sort_by_key(|kept| kept.id);
        Ok(kept)
    }

    /// Removes a command's directory, unless its warden lives.
    ///
    /// # Errors
    ///
    /// Fails when something of it stays.
    pub fn remove(&self, place: &Place) -> Result<(), PlaceError> {
        match sweep::find_warden(place.dir()) {
            Some(_) => Ok(()),
            None => place.remove(),
        }
    }

    pub(super) fn program(&self) -> &Path {
        &self.program
    }

    /// Returns the directory of one command.
    pub fn place(&self, id: MessageId, attempt: u32) -> Place {
        Place::new(self.dir.join(format!("{id}-{attempt}")))
    }

    /// Starts a command under a warden of its own.
    ///
    /// # Errors
    ///
    /// Says why there is no warden: the command was not started. What keeps the command itself from
    /// starting, its warden says.
    pub fn start(&self, spec: &Spec) -> Result<Running, NotStarted> {
        let place = self.place(spec.message_id, spec.attempt);
        let node_at_fault = |reason: String| NotStarted {
            exit_code: None,
            reason,
        };
        let spec = &Spec {
            cgroups: self.cgroups.clone(),
            ..spec.clone()
        };
        place
            .create(spec)
            .map_err(|error| node_at_fault(format!("could not be started: {}", chain(&error))))?;
        let label = Label {
            node: spec.node.clone(),
            id: spec.message_id,
        };
        Running::start(self, place.clone(), label).map_err(|error| {
            place.remove().ok();
            node_at_fault(format!("its warden could not be started: {error}"))
        })
    }

    /// Finds the end of a command of an earlier boot; nothing else can be left of it.
    ///
    /// # Errors
    ///
    /// Fails when its end is there and cannot be read.
    pub fn find_end(&self, label: &Label, attempt: u32) -> Result<Found, PlaceError> {
        let end = self.place(label.id, attempt).end()?;
        Ok(end.map_or(Found::Nothing, |end| Found::Over(Box::new(end))))
    }

    /// Finds what an earlier start of the agent left of a command in the present boot; `mark` is its
    /// warden, if that was written down.
    ///
    /// # Errors
    ///
    /// Fails when its end is there and cannot be read.
    pub fn find(
        &self,
        label: &Label,
        attempt: u32,
        mark: Option<ChildMark>,
    ) -> Result<Found, PlaceError> {
        let place = self.place(label.id, attempt);
        let mark = match mark {
            Some(mark) => Some(mark).filter(|mark| sweep::is_alive(*mark)),
            // It was cut short between the start and the note of its number.
            None => sweep::find_warden(place.dir()),
        };
        // Asked for after the warden: one that has just ended has written it.
        if let Some(end) = place.end()? {
            return Ok(Found::Over(Box::new(end)));
        }
        Ok(match mark {
            Some(mark) => Found::Running(Box::new(Running {
                child: None,
                leader: sweep::Leaders::hold().add(mark.pid),
                mark,
                label: label.clone(),
                place,
            })),
            None => Found::Nothing,
        })
    }
}
