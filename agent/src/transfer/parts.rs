//! Where the files stand that are being received: beside their places, and written down before the first
//! byte, so that what an order left behind is found although the agent was killed meanwhile. Blocks.
//!
//! It does not know how far orders are; whoever clears up does.

use std::{
    fs::{self, File},
    io::{self, ErrorKind, Write},
    path::{Path, PathBuf},
};

use steward_protocol::MessageId;

/// The directory of the notes, in the state directory.
const DIR: &str = "receiving";

/// The notes of one agent: one file per order, named after it, with the path of what it receives.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    dir: PathBuf,
}

/// Returns where the file for `target` is until it is complete: beside it, so that it can be renamed.
pub(super) fn beside(target: &Path, id: MessageId) -> PathBuf {
    target.with_file_name(name(id))
}

fn name(id: MessageId) -> String {
    format!(".steward-{id}.part")
}

impl Parts {
    /// Names the notes of the agent that keeps its state in `state_dir`. Nothing is looked at.
    pub(crate) fn of(state_dir: &Path) -> Self {
        Self {
            dir: state_dir.join(DIR),
        }
    }

    /// Writes down where the file of an order stands. Durable when this returns.
    pub(super) fn note(&self, id: MessageId, part: &Path) -> io::Result<()> {
        fs::create_dir_all(&self.dir)?;
        let mut file = File::create(self.dir.join(id.to_string()))?;
        file.write_all(part.as_os_str().as_encoded_bytes())?;
        file.sync_all()?;
        File::open(&self.dir)?.sync_all()
    }

    /// Returns the orders of which something may be left.
    pub(crate) fn noted(&self) -> Vec<MessageId> {
        let entries = fs::read_dir(&self.dir).into_iter().flatten().flatten();
        let id = |entry: fs::DirEntry| entry.file_name().to_str()?.parse().ok();
        entries.filter_map(id).collect()
    }

    /// Removes what is left of an order, and then its note. What cannot be removed now stays noted.
    pub(crate) fn clear(&self, id: MessageId) {
        let note = self.dir.join(id.to_string());
        let part = fs::read_to_string(&note).map(PathBuf::from);
        // A note that was cut short by a crash names something else; nothing was received then.
        let part = part.ok().filter(|part| part.ends_with(name(id)));
        let cleared = part.map_or(Ok(()), |part| {
            gone(fs::remove_file(&part)).inspect_err(|error| {
                tracing::warn!(path = %part.display(), %error, "what was received of a file was not removed; it is tried again");
            })
        });
        if cleared.is_ok()
            && let Err(error) = gone(fs::remove_file(&note))
        {
            tracing::warn!(path = %note.display(), %error, "the note of a file that was received was not removed");
        }
    }
}

fn gone(removed: io::Result<()>) -> io::Result<()> {
    match removed {
        Err(error) if error.kind() != ErrorKind::NotFound => Err(error),
        Ok(()) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn what_was_noted_is_cleared_and_nothing_else_is() {
        let dir = tempfile::tempdir().expect("a directory");
        let parts = Parts::of(dir.path());
        assert_eq!(parts.noted(), []);
        let (one, two) = (MessageId(Uuid::from_u128(1)), MessageId(Uuid::from_u128(2)));
        let part = beside(&dir.path().join("target"), one);
        parts.note(one, &part).expect("noted");
        fs::write(&part, "some").expect("written");
        // A note that was cut short.
        let precious = dir.path().join("precious");
        fs::write(&precious, "kept").expect("written");
        parts.note(two, &precious).expect("noted");
        let mut noted = parts.noted();
        noted.sort();
        assert_eq!(noted, [one, two]);
        for id in noted {
            parts.clear(id);
        }
        assert!(!part.exists() && precious.exists());
        assert_eq!(parts.noted(), []);
        // Again, as after a crash in between.
        parts.clear(one);
    }
}
