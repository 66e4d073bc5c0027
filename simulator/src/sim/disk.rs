//! A host's disk: what an agent's journal has made durable, and nothing else.
//!
//! A commit is atomic. A restart reads what is here through the same image as the real store gives.

use std::collections::BTreeMap;

use steward_agent::journal::{
    Entry, Identity, Image, Phase, Ticket, Write,
    lanes::Lane,
    spool::{Kept, Notice},
};
use steward_protocol::{Digest, FaultEvent, JournalId, MessageId, Outcome, State, Subject};
use uuid::Uuid;

/// What is kept of one order.
#[derive(Debug)]
struct Row {
    ticket: Ticket,
    entry: Box<Entry>,
    text: Option<String>,
    outcome: Option<Box<Outcome>>,
}

/// The journal's file.
#[derive(Debug)]
pub struct Disk {
    identity: Identity,
    /// By ticket; tickets only grow.
    rows: Vec<Row>,
    lanes: Vec<(Subject, Lane)>,
    events: BTreeMap<u64, Box<Notice>>,
}

impl Disk {
    /// Returns an empty journal's file.
    pub fn new(journal: u64) -> Self {
        Self {
            identity: Identity {
                journal_id: JournalId(Uuid::from_u64_pair(0xD15C, journal)),
                starts: 0,
                pinned: None,
            },
            rows: Vec::new(),
            lanes: Vec::new(),
            events: BTreeMap::new(),
        }
    }

    /// Counts a start of the agent, as opening the journal does.
    pub fn open(&mut self) {
        self.identity.starts += 1;
    }

    /// Makes all of `writes` durable.
    pub fn commit(&mut self, writes: Vec<Write>) {
        for write in writes {
            self.apply(write);
        }
    }

    fn apply(&mut self, write: Write) {
        match write {
            Write::Identity(identity) => self.identity = identity,
            Write::Entry(ticket, entry) => match self.find(ticket) {
                Ok(at) => self.rows[at].entry = entry,
                Err(at) => self.rows.insert(
                    at,
                    Row {
                        ticket,
                        entry,
                        text: None,
                        outcome: None,
                    },
                ),
            },
            Write::Text(ticket, text) => self.with(ticket, |row| row.text = Some(text)),
            Write::DropText(ticket) => self.with(ticket, |row| row.text = None),
            Write::Outcome(ticket, outcome) => {
                self.with(ticket, |row| row.outcome = Some(outcome));
            }
            Write::DropOutput(ticket) => self.with(ticket, drop_output),
            Write::Forget(ticket) => {
                if let Ok(at) = self.find(ticket) {
                    self.rows.remove(at);
                }
            }
            Write::Lane(subject, lane) => {
                match self.lanes.iter_mut().find(|(known, _)| *known == subject) {
                    Some((_, known)) => *known = lane,
                    None => self.lanes.push((subject, lane)),
                }
            }
            Write::ForgetLane(subject) => self.lanes.retain(|(known, _)| *known != subject),
            Write::Event(rank, event) => {
                self.events.insert(rank, event);
            }
            Write::ForgetEvent(rank) => {
                self.events.remove(&rank);
            }
            // Simulated nodes give themselves nothing, and no spool here is ever full.
            Write::Dropped(_)
            | Write::Local(..)
            | Write::ForgetLocal(_)
            | Write::Schedule(..)
            | Write::ForgetSchedule(_) => {}
        }
    }

    fn find(&self, ticket: Ticket) -> Result<usize, usize> {
        match self.rows.last() {
            Some(last) if last.ticket < ticket => Err(self.rows.len()),
            _ => self.rows.binary_search_by_key(&ticket, |row| row.ticket),
        }
    }

    fn with(&mut self, ticket: Ticket, change: impl FnOnce(&mut Row)) {
        if let Ok(at) = self.find(ticket) {
            change(&mut self.rows[at]);
        }
    }

    /// Returns what a start of the agent finds.
    pub fn image(&self) -> Image {
        let rows = self.rows.iter();
        let events = self.events.iter();
        Image {
            identity: self.identity,
            entries: rows.map(|row| (row.ticket, (*row.entry).clone())).collect(),
            lanes: self.lanes.clone(),
            events: events
                .map(|(rank, event)| Kept {
                    rank: *rank,
                    ..Kept::of(event)
                })
                .collect(),
            dropped: 0,
            locals: Vec::new(),
            schedules: Vec::new(),
        }
    }

    /// Returns an order's own bytes.
    pub fn text(&self, ticket: Ticket) -> Option<&str> {
        self.rows[self.find(ticket).ok()?].text.as_deref()
    }

    /// Returns what came of an order.
    pub fn outcome(&self, ticket: Ticket) -> Option<Outcome> {
        let row = &self.rows[self.find(ticket).ok()?];
        row.outcome.as_deref().cloned()
    }

    /// Tells whether it is written that exactly this order is in `state`.
    pub fn says(&self, id: MessageId, digest: Digest, state: State) -> bool {
        let mut rows = self.rows.iter().rev();
        rows.any(|row| {
            let entry = &row.entry;
            entry.id == id && entry.digest == digest && entry.phase.state() == state
        })
    }

    /// Returns an event.
    pub fn event(&self, rank: u64) -> Option<FaultEvent> {
        match self.events.get(&rank).map(|event| &**event) {
            Some(Notice::Fault(fault)) => Some(fault.clone()),
            Some(Notice::Text(_) | Notice::Report(_)) | None => None,
        }
    }

    /// Forgets every order, as a journal kept in memory does at a restart.
    pub fn lose_orders(&mut self) {
        self.rows.clear();
        self.lanes.clear();
    }

    /// Forgets that anything was started, so that it is run again.
    pub fn forget_starts(&mut self) {
        for row in &mut self.rows {
            if matches!(row.entry.phase, Phase::Started(_)) {
                row.entry.phase = Phase::Received;
            }
        }
    }
}

fn drop_output(row: &mut Row) {
    if let Some(outcome) = &mut row.outcome {
        for output in [&mut outcome.stdout, &mut outcome.stderr] {
            *output = None;
        }
    }
}
