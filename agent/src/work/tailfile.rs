//! `tailfile`: the lines of a file as they come, each once, through rotation and truncation.
//!
//! What is to be given is decided in [`follower`]; this file waits, writes and ends. Looking again and
//! again is all there is: a look costs a few system calls, and no notification can be missed.

use std::{
    io::{self, Write},
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

use serde::Serialize;
use steward_protocol::body::{TailBody, TailFrom};

use self::{
    follower::{Follower, Step},
    position::Position,
};
use crate::signals::Bell;

mod follower;
mod generation;
mod position;
mod siblings;

/// Time between two looks at a file that had nothing new.
const LOOK: Duration = Duration::from_millis(250);

/// What is written at once: a pipe that can be written to takes this much without waiting, so that
/// a signal is heard while nobody reads.
const PIPE_PIECE: usize = 4096;

/// Why a file is not followed, or not any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum TailError {
    /// The position is none.
    #[error(
        "begin at the position {text:?}: it is none; use what an earlier tailfile wrote as \"from\" on the last line of its standard error"
    )]
    Position {
        /// What was given.
        text: String,
    },
    /// It is no file.
    #[error("follow {path}: it is not a regular file; name one")]
    Kind {
        /// The path.
        path: PathBuf,
    },
    /// The system refused something.
    #[error("{doing} {path}")]
    System {
        /// What was tried.
        doing: &'static str,
        /// Where.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody reads what is found.
    #[error("write what was found")]
    Output(#[source] io::Error),
    /// Signals cannot be caught.
    #[error("wait for the next look")]
    Wait(#[source] io::Error),
}

/// The last line on standard error.
#[derive(Debug, Serialize)]
struct Last {
    /// What `from` takes to go on here.
    from: String,
    /// The same in parts.
    #[serde(flatten)]
    position: Position,
}

/// Follows a file until its time is over or it is told to end, and returns the exit code.
pub(super) fn run(body: &TailBody) -> Result<u8, TailError> {
    let mut bell = Bell::catch().map_err(TailError::Wait)?;
    let end = body.span.map(|span| Instant::now() + span.0);
    let mut follower = open(body)?;
    let followed = follow(&mut follower, &mut bell, end);
    // Said whatever happened: everything before it has been written.
    if let Some(position) = follower.position() {
        let last = Last {
            from: position.to_string(),
            position,
        };
        if let Ok(line) = serde_json::to_string(&last) {
            super::say(&line);
        }
    }
    followed.map(|()| super::DONE)
}

fn open(body: &TailBody) -> Result<Follower, TailError> {
    let path = Path::new(&body.path);
    match &body.from {
        None | Some(TailFrom::End) => Follower::from_end(path, body.lines.unwrap_or(0)),
        Some(TailFrom::Start) => Follower::from_start(path),
        Some(TailFrom::Position(text)) => {
            let position =
                Position::read(text).ok_or_else(|| TailError::Position { text: text.clone() })?;
            Follower::resume(path, &position)
        }
    }
}

fn follow(follower: &mut Follower, bell: &mut Bell, end: Option<Instant>) -> Result<(), TailError> {
    let begin = Instant::now();
    loop {
        let wait = match follower.next(begin.elapsed())? {
            Step::Give(bytes) => {
                let written = give(bell, &bytes)?;
                follower.took(&bytes[..written]);
                Duration::ZERO
            }
            Step::Break => {
                if give(bell, b"\n")? == 1 {
                    follower.broke();
                }
                Duration::ZERO
            }
            Step::Say(words) => {
                super::say(&words);
                Duration::ZERO
            }
            Step::Nothing => LOOK,
        };
        let left = end.map(|end| end.saturating_duration_since(Instant::now()));
        let rung = bell
            .wait(left.map_or(wait, |left| left.min(wait)))
            .map_err(TailError::Wait)?;
        if rung || end.is_some_and(|end| end <= Instant::now()) {
            return last_words(follower, bell);
        }
    }
}

/// Gives what is there of a line that is not complete.
fn last_words(follower: &mut Follower, bell: &mut Bell) -> Result<(), TailError> {
    let rest = follower.rest()?;
    let written = give(bell, &rest)?;
    follower.took(&rest[..written]);
    Ok(())
}

/// Writes, and returns how much was written: not everything only when nobody reads and the bell rings.
fn give(bell: &mut Bell, bytes: &[u8]) -> Result<usize, TailError> {
    let mut stdout = io::stdout().lock();
    let mut written = 0;
    for piece in bytes.chunks(PIPE_PIECE) {
        while !bell.wait_for(stdout.as_fd()).map_err(TailError::Wait)? {
            if bell.wait(Duration::ZERO).map_err(TailError::Wait)? {
                return Ok(written);
            }
        }
        stdout
            .write_all(piece)
            .and_then(|()| stdout.flush())
            .map_err(TailError::Output)?;
        written += piece.len();
    }
    Ok(written)
}

#[cfg(test)]
mod tests;
