//! Where the directories of all commands are: starts commands in new ones, and finds old ones again.
//!
//! Knows nothing of what the commands do, nor how long their directories are needed: whoever asks for
//! them to be tidied says that.

use std::{
    fs::{self, DirBuilder},
    io,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
};

use steward_protocol::MessageId;

use super::{End, Label, NotStarted, Place, Running, Spec, place::PlaceError, sweep};
use crate::{
    journal::ChildMark,
    keeper::chain,
};

/// This very program, also when its file was replaced since it was started.
const SELF: &str = "/proc/self/exe";

/// The directories' directory below the state directory.
const DIR: &str = "children";

/// Where the directories of all commands are.
#[derive(Debug, Clone)]
pub struct Nursery {
    dir: PathBuf,
    program: PathBuf,
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
        })
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
    pub fn find(&self, label: &Label, attempt: u32, mark: Option<ChildMark>) -> Result<Found, PlaceError> {
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
