//! The inbox (design sections 4.5 and 5): message files dropped into a folder become submissions.
//!
//! [`read`] turns bytes into messages and knows no files; [`Inbox`] watches the folder and knows no
//! ledger: it is handed a function that accepts a [`Submission`].

use std::{io, path::PathBuf};

use steward_protocol::Message;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::view::{Problem, Receipt};

mod bodies;
mod canonical;
mod durations;
mod fields;
mod files;
mod findings;
mod folder;
mod intake;
mod keep;
mod list;
mod listen;
mod locate;
mod names;
mod report;
mod scan;
mod settle;
mod shapes;
mod take;
mod tree;
mod values;

pub use self::{
    canonical::{canonical, content_digest},
    durations::spell,
    fields::schema,
    files::{MAX_IN_FLIGHT, MAX_RETRYING},
    findings::MAX_PROBLEMS,
    intake::{Format, MAX_FILE, MAX_MESSAGES, Unreadable, place, read, unused},
    keep::{Retention, sweep},
    list::list,
    report::{printable, render},
    settle::InboxTiming,
    shapes::MAX_BODY,
    tree::MAX_DEPTH,
    values::{MAX_ARGUMENT, MAX_DIRECTORY, MAX_LABEL, MAX_NAME},
};

/// Messages on their way into the ledger: accepted together or not at all.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Submission {
    /// What is asked.
    pub messages: Vec<Message>,
    /// Where it came from: `inbox:<file>`, `api:<name>`.
    pub source: String,
    /// Who submitted it: `uid:<n>`.
    pub submitted_by: String,
    /// Names this submission for ever: the ledger answers a second one with the first one's receipt.
    pub intake: Option<Uuid>,
}

/// Why a submission was not accepted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AcceptError {
    /// It is wrong, and will be wrong again.
    #[error("accept the submission: {} problems", .0.len())]
    Rejected(Vec<Problem>),
    /// It cannot be stored now; the same submission may be made again.
    #[error("accept the submission now: {0}")]
    Unavailable(String),
}

/// Where the inbox is and how it behaves.
#[derive(Debug, Clone)]
pub struct InboxConfig {
    /// The folder that files are dropped into.
    pub dir: PathBuf,
    /// How long files are left alone.
    pub timing: InboxTiming,
    /// How long finished files are kept.
    pub retention: Retention,
}

/// Why the inbox cannot be opened.
#[derive(Debug, thiserror::Error)]
#[error("open the inbox {}; it must be a directory the station may write to", path.display())]
pub struct InboxError {
    /// The folder.
    path: PathBuf,
    /// What the operating system said.
    source: io::Error,
}

/// The watched folder.
pub struct Inbox {
    files: files::Files,
    health: watch::Receiver<Option<String>>,
}

impl Inbox {
    /// Creates the folders that are missing, begins to listen, and finds what an earlier start left.
    ///
    /// # Errors
    ///
    /// Fails when the folders cannot be created or read.
    pub fn open(config: InboxConfig) -> Result<Self, InboxError> {
        let path = config.dir.clone();
        let (sender, health) = watch::channel(None);
        let mut files = files::Files::new(config, sender);
        files.open().map_err(|source| InboxError { path, source })?;
        Ok(Self { files, health })
    }

    /// Returns what is in the inbox's way, as it changes; `None` while nothing is.
    pub fn health(&self) -> watch::Receiver<Option<String>> {
        self.health.clone()
    }

    /// Takes files and submits them with `accept` until `stop`; then waits for what is on its way.
    ///
    /// Submissions begin in the order of the files: the first poll of each future `accept` returns
    /// follows that order, so that an accept that queues on its first poll keeps it. Ending this
    /// future at any moment loses nothing: the next start submits again, under the same intakes.
    pub async fn run<A, F>(self, accept: A, stop: CancellationToken)
    where
        A: Fn(Submission) -> F,
        F: Future<Output = Result<Receipt, AcceptError>> + Send + 'static,
    {
        self.files.run(accept, stop).await;
    }
}

#[cfg(test)]
mod tests;
