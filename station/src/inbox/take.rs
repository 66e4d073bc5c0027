//! Takes files out of the inbox: looks, claims, reads, and says what each one is.
//!
//! A file is looked at before it is claimed, so that one still being written is not taken from its
//! writer, and read again after, because only then nobody can exchange it. Everything here blocks.

use std::{
    ffi::{OsStr, OsString},
    io,
    panic::{AssertUnwindSafe, catch_unwind},
};

use steward_protocol::Message;
use uuid::Uuid;

use super::{
    Submission,
    findings::whole,
    folder::{Durability, Folder, Opened, open},
    intake::{self, Format, Unreadable},
    names::{self, Claimed},
    settle::Look,
};
use crate::view::Problem;

/// Why a file is looked at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Trigger {
    /// A writer closed it.
    Written,
    /// It was renamed into the inbox.
    Renamed,
    /// A scan found it unchanged for long enough.
    Settled,
    /// A scan found it cut short and unchanged for so long that nothing more will come. It looked
    /// like this; if it does not any more, it is another file.
    GivenUp(Look),
}

/// A file to take.
#[derive(Debug)]
pub(super) enum Candidate {
    /// It lies in the inbox.
    Fresh { name: OsString, trigger: Trigger },
    /// It is claimed already: by an earlier start, or by a try that could not be finished.
    Claimed { claimed: Claimed, attempts: u32 },
}

/// A claimed file whose submission is on its way.
pub(super) struct Flight {
    pub(super) claimed: Claimed,
    pub(super) attempts: u32,
    /// What was in it, to quote from if it is refused.
    pub(super) bytes: Vec<u8>,
}

/// What became of a candidate.
pub(super) enum Taken {
    /// It is a submission.
    Work(Flight, Submission),
    /// It was refused and moved away.
    Rejected {
        claimed: Claimed,
        problems: Vec<Problem>,
    },
    /// It ends too early.
    Incomplete { name: OsString, look: Look },
    /// It is not there any more, or stays where it is by a rule.
    Left { name: OsString },
    /// It could not be claimed.
    Stuck { name: OsString, error: io::Error },
    /// It is claimed and could not be finished; try again.
    Unfinished {
        claimed: Claimed,
        attempts: u32,
        error: io::Error,
    },
}

/// Returns whether a file of this format may be taken for this reason.
pub(super) fn may_take(format: Format, trigger: Trigger) -> bool {
    match format {
        Format::Json => true,
        // A YAML file cut short is often another valid file; only a rename is known to be whole.
        Format::Yaml => trigger == Trigger::Renamed,
    }
}

/// Takes candidates in their order.
///
/// Claims become durable together at the end, so that a thousand files cost a few writes to the
/// disk; nothing may be submitted before.
pub(super) fn take(folder: &Folder, candidates: Vec<Candidate>) -> Vec<Taken> {
    let mut taken: Vec<Taken> = candidates
        .into_iter()
        .map(|candidate| take_or_survive(folder, candidate))
        .collect();
    if let Err(error) = folder.sync_claims() {
        let kind = error.kind();
        for one in &mut taken {
            if let Taken::Work(flight, _) = one {
                *one = Taken::Unfinished {
                    claimed: flight.claimed.clone(),
                    attempts: flight.attempts,
                    error: kind.into(),
                };
            }
        }
    }
    taken
}

/// Takes one candidate; a panic over one file is that file's trouble and not the others'.
fn take_or_survive(folder: &Folder, candidate: Candidate) -> Taken {
    let panicked = || io::Error::other("reading it panicked");
    let trouble = match &candidate {
        Candidate::Fresh { name, .. } => Taken::Stuck {
            name: name.clone(),
            error: panicked(),
        },
        Candidate::Claimed { claimed, attempts } => Taken::Unfinished {
            claimed: claimed.clone(),
            attempts: *attempts,
            error: panicked(),
        },
    };
    let taken = catch_unwind(AssertUnwindSafe(|| take_one(folder, candidate)));
    taken.unwrap_or(trouble)
}

fn take_one(folder: &Folder, candidate: Candidate) -> Taken {
    match candidate {
        Candidate::Fresh { name, trigger } => {
            fresh(folder, &name, trigger).unwrap_or_else(|error| match error.kind() {
                io::ErrorKind::NotFound => Taken::Left { name },
                _ => Taken::Stuck { name, error },
            })
        }
        Candidate::Claimed { claimed, attempts } => {
            let path = folder.claimed_path(&claimed);
            match open(&path, Durability::Synced) {
                Ok(opened) => {
                    let read = judge(&opened, Format::of_name(OsStr::new(&claimed.name)));
                    finish(folder, claimed, attempts, opened, read)
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => Taken::Left {
                    name: claimed.to_string().into(),
                },
                Err(error) => Taken::Unfinished {
                    claimed,
                    attempts,
                    error,
                },
            }
        }
    }
}

fn fresh(folder: &Folder, name: &OsStr, trigger: Trigger) -> io::Result<Taken> {
    let format = Format::of_name(name);
    let preview = open(&folder.root().join(name), Durability::None)?;
    let read = judge(&preview, format);
    if let Opened::Regular { look, .. } = preview {
        if !may_take(format, trigger) {
            return Ok(Taken::Left {
                name: name.to_owned(),
            });
        }
        if waits(&read, format, trigger, look) {
            return Ok(Taken::Incomplete {
                name: name.to_owned(),
                look,
            });
        }
    }
    let claimed = Claimed {
        intake: Uuid::now_v7(),
        name: names::escaped(name),
    };
    folder.claim(name, &claimed)?;
    // From here on the file is claimed, so no error may leave it behind unnoticed.
    let opened = match open(&folder.claimed_path(&claimed), Durability::Synced) {
        Ok(opened) => opened,
        Err(error) => {
            return Ok(Taken::Unfinished {
                claimed,
                attempts: 0,
                error,
            });
        }
    };
    let unchanged = matches!((&preview, &opened),
        (Opened::Regular { bytes: before, .. }, Opened::Regular { bytes: after, .. }) if before == after);
    let read = if unchanged {
        read
    } else {
        judge(&opened, format)
    };
    if let Opened::Regular { look, .. } = opened
        && waits(&read, format, trigger, look)
        && folder.put_back(&claimed, name).is_ok()
    {
        return Ok(Taken::Incomplete {
            name: name.to_owned(),
            look,
        });
    }
    Ok(finish(folder, claimed, 0, opened, read))
}

/// Returns whether a file is left in the inbox for its writer to complete.
fn waits(
    read: &Result<Vec<Message>, Unreadable>,
    format: Format,
    trigger: Trigger,
    look: Look,
) -> bool {
    // A claim changes the time of the last change, and nothing else.
    let given_up = matches!(trigger, Trigger::GivenUp(seen)
        if (seen.inode, seen.size, seen.modified) == (look.inode, look.size, look.modified));
    *read == Err(Unreadable::Incomplete) && format == Format::Json && !given_up
}

fn judge(opened: &Opened, format: Format) -> Result<Vec<Message>, Unreadable> {
    match opened {
        Opened::Regular { bytes, .. } => intake::read(bytes, format),
        Opened::Never(reason) => {
            let hint = "drop a regular file of at most 1 MiB that the station may read";
            let problem = whole(reason.clone(), hint);
            Err(Unreadable::Rejected(vec![problem]))
        }
    }
}

fn finish(
    folder: &Folder,
    claimed: Claimed,
    attempts: u32,
    opened: Opened,
    read: Result<Vec<Message>, Unreadable>,
) -> Taken {
    let (uid, bytes) = match opened {
        Opened::Regular { uid, bytes, .. } => (Some(uid), Some(bytes)),
        Opened::Never(_) => (None, None),
    };
    match (read, uid, bytes) {
        (Ok(messages), Some(uid), Some(bytes)) => {
            let submission = Submission {
                messages,
                source: format!("inbox:{}", claimed.name),
                submitted_by: format!("uid:{uid}"),
                intake: Some(claimed.intake),
            };
            let flight = Flight {
                claimed,
                attempts,
                bytes,
            };
            Taken::Work(flight, submission)
        }
        (read, _, bytes) => {
            let seen = bytes.as_deref().unwrap_or_default();
            let problems = read
                .err()
                .map_or_else(Vec::new, |unreadable| unreadable.into_problems(seen));
            match folder.finish_rejected(&claimed, bytes.as_deref(), &problems) {
                Ok(_) => Taken::Rejected { claimed, problems },
                Err(error) => Taken::Unfinished {
                    claimed,
                    attempts,
                    error,
                },
            }
        }
    }
}
