//! Asks the agent of a state directory how it is. Knows nothing but its socket.

use std::{
    io::{self, ErrorKind, Read},
    os::unix::net::UnixStream,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{StatusView, socket};

/// How long the agent may be silent. It waits for its journal a little less than this.
const PATIENCE: Duration = Duration::from_secs(5);

/// The longest answer: a full list of processes with long faults is far below.
const MOST: u64 = 4 << 20;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// Nobody is there.
    #[error("find a running agent that uses {}: nobody answers at {}", dir.display(), path.display())]
    NotRunning {
        /// The state directory.
        dir: PathBuf,
        /// The socket.
        path: PathBuf,
    },
    /// It may be there, but cannot be asked.
    #[error("ask the agent at {}", path.display())]
    Ask {
        /// The socket.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// It answered something else.
    #[error("understand the agent's answer: it may be another version than this program")]
    Answer(#[source] serde_json::Error),
}

impl AskError {
    /// Returns the exit code for it.
    pub fn code(&self) -> u8 {
        match self {
            Self::NotRunning { .. } => 6,
            Self::Ask { .. } | Self::Answer(_) => 1,
        }
    }
}

/// Asks the agent that uses this directory.
///
/// # Errors
///
/// Says whether there is none, or what came in between.
pub fn ask(state_dir: &Path) -> Result<StatusView, AskError> {
    let path = socket(state_dir);
    let mut stream = match UnixStream::connect(&path) {
        Ok(stream) => stream,
        // A file without a listener is what a killed agent leaves.
        Err(error)
            if matches!(
                error.kind(),
                ErrorKind::NotFound | ErrorKind::ConnectionRefused
            ) =>
        {
            let dir = state_dir.to_owned();
            return Err(AskError::NotRunning { dir, path });
        }
        Err(source) => return Err(AskError::Ask { path, source }),
    };
    let mut json = Vec::new();
    let read = stream
        .set_read_timeout(Some(PATIENCE))
        .and_then(|()| stream.by_ref().take(MOST).read_to_end(&mut json));
    match read {
        Ok(_) => serde_json::from_slice(&json).map_err(AskError::Answer),
        Err(source) => Err(AskError::Ask { path, source }),
    }
}
