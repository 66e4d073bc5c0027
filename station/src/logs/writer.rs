//! The one writer: a thread that takes many batches at a time, makes them durable, and only then says so.

use std::{
    collections::HashMap,
    thread,
    time::{Duration, Instant},
};

use steward_protocol::{Frame, Kind, Method, NodeName, Reign, Subject, checksum, version};
use tokio::sync::mpsc;

use super::{
    Ground, Logs,
    disk::Files,
    name::Line,
    store::{Arrived, Done, Store, Word},
};
use crate::{bus::Outgoing, station::chain};

/// Batches and bytes of one commit: enough to make fsync cheap, few enough to answer soon.
const GROUP: usize = 1024;
const GROUP_BYTES: usize = 8 * 1024 * 1024;

/// How often it is told of a node that it has too many domains: it sends what is refused again and again.
const REFUSED: Duration = Duration::from_secs(3600);

/// What the writer is asked to do.
#[derive(Debug)]
pub(super) enum Mail {
    /// Store a batch.
    Batch(Box<Arrived>),
    /// Close a segment, so that it can be removed.
    Close(Line, u64),
}

/// Something an operator should know.
#[derive(Debug)]
pub(super) enum Report {
    /// Nothing can be stored.
    Trouble(String),
    /// A node does not know what it had said before.
    Lost(Line),
    /// A node has more domains than it may have; one of those that are too many.
    Refused(Line),
}

pub(super) struct Writer {
    pub(super) ground: Ground,
    pub(super) logs: Logs,
    pub(super) mail: mpsc::Receiver<Mail>,
    pub(super) reports: mpsc::Sender<Report>,
    /// When it was told of a node that it has too many domains.
    pub(super) refused: HashMap<NodeName, Instant>,
}

impl Writer {
    /// Begins the thread.
    pub(super) fn start(self) -> std::io::Result<thread::JoinHandle<()>> {
        thread::Builder::new()
            .name("logs".to_owned())
            .spawn(move || self.run())
    }

    fn run(mut self) {
        let born = Instant::now();
        let mut store = Store::new(self.logs.files().clone());
        match store.recover() {
            Ok(done) => self.tell(done),
            Err(error) => tracing::error!(error = chain(&error), "logs cannot be looked through"),
        }
        self.logs.looked_through();
        while let Some(mail) = self.mail.blocking_recv() {
            let (group, close) = self.group(mail);
            if !group.is_empty() {
                let done = store.commit(group, born.elapsed());
                self.tell(done);
            }
            if let Some((line, number)) = close {
                close_segment(&mut store, &line, number);
            }
        }
    }

    /// Adds to a batch what else is there already.
    fn group(&mut self, first: Mail) -> (Vec<Arrived>, Option<(Line, u64)>) {
        let (mut group, mut bytes) = (Vec::new(), 0);
        let mut next = Some(first);
        while let Some(mail) = next {
            match mail {
                Mail::Batch(arrived) => {
                    bytes += arrived.payload.len();
                    group.push(*arrived);
                }
                Mail::Close(line, number) => return (group, Some((line, number))),
            }
            let has_room = group.len() < GROUP && bytes < GROUP_BYTES;
            next = has_room.then(|| self.mail.try_recv().ok()).flatten();
        }
        (group, None)
    }

    fn tell(&mut self, done: Done) {
        if let Some(text) = self.logs.note(&done) {
            tracing::error!(
                error = text,
                "logs cannot be stored; nothing is confirmed until they can"
            );
            self.report(Report::Trouble(text));
        }
        for line in &done.lost {
            tracing::warn!(%line, "a node does not know what it had logged before");
            self.report(Report::Lost(line.clone()));
        }
        for line in done.refused {
            self.refuse(line);
        }
        for word in done.words {
            self.say(word);
        }
    }

    fn refuse(&mut self, line: Line) {
        let told = self.refused.get(&line.node);
        if told.is_some_and(|at| at.elapsed() < REFUSED) {
            return;
        }
        tracing::warn!(%line, "a node has more domains of logs than it may have; this one is not stored");
        self.refused.insert(line.node.clone(), Instant::now());
        self.report(Report::Refused(line));
    }

    /// Reports are for people; one that finds no room is in the log of this program all the same.
    fn report(&self, report: Report) {
        drop(self.reports.try_send(report));
    }

    fn say(&self, word: Word) {
        let Word { line, kept } = word;
        let Some((instance, low)) = self.logs.instance(&line.node) else {
            return;
        };
        let send = Reign {
            v: version::CURRENT,
            ledger_id: self.ground.ledger_id,
            epoch: self.ground.epoch,
            instance,
            low,
        };
        match (Frame { send, body: kept }).encode().map(checksum::append) {
            Ok(payload) => {
                let outgoing = Outgoing {
                    subject: subject(&line),
                    node: line.node,
                    // It says nothing about the node whether anybody listens for this.
                    sent_ms: 0,
                    payload,
                };
                // Without room it is said again, when the node sends again.
                self.ground.bus.publish(outgoing);
            }
            Err(error) => tracing::error!(%error, "a word about logs cannot be written"),
        }
    }
}

fn close_segment(store: &mut Store<Files>, line: &Line, number: u64) {
    if let Err(error) = store.close(line, number) {
        tracing::warn!(%line, error = chain(&error), "a segment of logs cannot be closed");
    }
}

fn subject(line: &Line) -> String {
    let Line { node, domain } = line;
    Subject::new(node.clone(), Kind::Event, Method::Kept, domain.clone()).to_string()
}
