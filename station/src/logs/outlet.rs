//! What relays and the mirror have in common: where their cursors are, what they wait for, and whom they tell.
//!
//! It does not know where messages go.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use steward_protocol::{Domain, NodeName, syslog::Severities};
use tokio::sync::watch;

use super::{
    Logs, LogsError,
    disk::Files,
    follow::{Begin, Cursors, Follower, begin, keep},
    name::Line,
    read, store,
};
use crate::{
    courier::FaultRecord,
    station::{StationHandle, chain},
};

/// The directory of cursors, in the state directory.
pub const DIR: &str = "outlets";

/// How often an operator is told that messages were removed before they were passed on.
const TELL: Duration = Duration::from_secs(60);

/// How long is waited for more after something was passed on: what comes one by one goes in pieces.
pub(super) const PACE: Duration = Duration::from_millis(50);

/// Which logs are meant; all, where nothing is named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Choice {
    /// Of these nodes.
    pub nodes: Vec<NodeName>,
    /// Of these domains.
    pub domains: Vec<Domain>,
    /// Of these severities.
    pub severities: Severities,
    /// Where to begin, the first time.
    pub begin: Begin,
}

impl Choice {
    /// Returns one that leaves nothing out.
    pub fn everything() -> Self {
        Self {
            nodes: Vec::new(),
            domains: Vec::new(),
            severities: Severities::ALL,
            begin: Begin::Oldest,
        }
    }

    /// Tells whether a line is meant.
    pub fn has(&self, line: &Line) -> bool {
        (self.nodes.is_empty() || self.nodes.contains(&line.node))
            && (self.domains.is_empty() || self.domains.contains(&line.domain))
    }
}

/// One way out.
pub struct Outlet {
    /// How it is called, and its cursors.
    pub(super) name: String,
    pub(super) choice: Choice,
    pub(super) logs: Logs,
    pub(super) cursors: Files,
    station: StationHandle,
    changes: watch::Receiver<u64>,
    /// Which change the follower knows of.
    known: u64,
    in_trouble: bool,
    missed: u64,
    told: Option<Instant>,
}

impl Outlet {
    /// Returns one that keeps its cursors in `state_dir`.
    pub fn new(
        name: &str,
        choice: Choice,
        state_dir: &Path,
        (logs, station): (Logs, StationHandle),
    ) -> Self {
        Self {
            name: name.to_owned(),
            choice,
            cursors: Files::new(state_dir.join(DIR)),
            changes: logs.changes(),
            logs,
            station,
            known: 0,
            in_trouble: false,
            missed: 0,
            told: None,
        }
    }

    /// Returns a follower that goes on from where the last one was.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub(super) async fn follower(&mut self) -> Result<Follower<Files>, LogsError> {
        self.logs.is_looked_through().await;
        tokio::task::block_in_place(|| self.open())
    }

    fn open(&mut self) -> Result<Follower<Files>, LogsError> {
        let disk = self.logs.files();
        let mut lines = store::lines(disk)?;
        lines.retain(|line| self.choice.has(line));
        let ends = read::ends(disk, &lines)?;
        let cursors = match keep::load(&self.cursors, &self.name) {
            Ok(Some(cursors)) => cursors,
            Ok(None) => {
                let cursors = begin(disk, &ends, self.choice.begin)?;
                keep::save(&self.cursors, &self.name, &cursors)?;
                cursors
            }
            Err(error @ LogsError::Damaged { .. }) => {
                tracing::error!(
                    outlet = self.name,
                    error = chain(&error),
                    "where an outlet of logs had been is not known any more; it begins with the oldest that is kept"
                );
                begin(disk, &ends, Begin::Oldest)?
            }
            Err(error) => return Err(error),
        };
        let mut follower = Follower::new(disk.clone(), self.choice.severities, cursors)?;
        follower.learn(ends);
        self.known = 0;
        self.learn(&mut follower);
        Ok(follower)
    }

    /// Tells a follower what has been stored, if anything was.
    pub(super) fn learn(&mut self, follower: &mut Follower<Files>) {
        let now = *self.changes.borrow_and_update();
        if std::mem::replace(&mut self.known, now) == now {
            return;
        }
        let tips = self.logs.tips().into_iter();
        follower.learn(tips.filter(|(line, _)| self.choice.has(line)));
    }

    /// Waits until more was stored.
    pub(super) async fn changed(&mut self) {
        if self.changes.changed().await.is_err() {
            // Nothing will ever be stored again; whoever waits is told to stop by others.
            std::future::pending::<()>().await;
        }
    }

    /// Writes cursors down.
    ///
    /// # Errors
    ///
    /// Fails when the disk does.
    pub(super) fn save(&self, cursors: &Cursors) -> Result<(), LogsError> {
        keep::save(&self.cursors, &self.name, cursors)
    }

    /// Tells that it cannot go on, the first time.
    pub(super) async fn trouble(&mut self, text: String) {
        if std::mem::replace(&mut self.in_trouble, true) {
            tracing::debug!(
                outlet = self.name,
                error = text,
                "logs are still not passed on"
            );
            return;
        }
        tracing::warn!(
            outlet = self.name,
            error = text,
            "logs are not passed on; it is tried again"
        );
        let verdict =
            "what nodes log is stored all the same; it goes on by itself from where it was";
        self.tell("logs_outlet", format!("{}: {text}", self.name), verdict)
            .await;
    }

    /// Notes that it can go on.
    pub(super) fn well(&mut self) {
        if std::mem::take(&mut self.in_trouble) {
            tracing::info!(outlet = self.name, "logs are passed on again");
        }
    }

    /// Counts what was passed on, and tells of what was removed before it could be.
    pub(super) async fn count(&mut self, messages: u64, missed: u64) {
        self.logs.count_passed(messages, missed);
        self.missed += missed;
        let is_due = self.told.is_none_or(|told| told.elapsed() >= TELL);
        if self.missed == 0 || !is_due {
            return;
        }
        self.told = Some(Instant::now());
        let many = std::mem::take(&mut self.missed);
        tracing::warn!(
            outlet = self.name,
            messages = many,
            "retention has removed messages before they were passed on"
        );
        let detail = format!(
            "{}: retention has removed {many} messages before they were passed on",
            self.name
        );
        let verdict =
            "it goes on with the oldest that is kept; where something is missing, that is said";
        self.tell("logs_missed", detail, verdict).await;
    }

    async fn tell(&self, kind: &str, detail: String, verdict: &str) {
        let fault = FaultRecord {
            kind: kind.to_owned(),
            detail,
            verdict: verdict.to_owned(),
            ..FaultRecord::at(Timestamp::now(), None)
        };
        if self.station.fault(fault).await.is_err() {
            tracing::debug!("nobody is there any more to be told");
        }
    }
}
