//! The entries and the indices over them, kept in step in one place.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use steward_protocol::{Digest, MessageId, Subject};

use super::{
    entry::{Entry, Phase, Ticket},
    talk::Fate,
};

/// Every entry of the journal, found by ticket, by id, and by how far it has come.
#[derive(Debug, Default)]
pub(super) struct Shelf {
    /// Boxed: an entry is taken out and put back with every fact, and a tree moves its neighbours.
    entries: BTreeMap<Ticket, Box<Entry>>,
    by_id: HashMap<MessageId, Vec<Ticket>>,
    received: BTreeSet<Ticket>,
    started: BTreeSet<Ticket>,
    unconfirmed: BTreeSet<Ticket>,
    /// Final and confirmed, by their place in the ledger: what `low` lets go.
    settled: BTreeSet<(u64, Ticket)>,
    /// Entries with output, the confirmed ones (`false`) first: the order in which output goes.
    outputs: BTreeSet<(bool, Ticket)>,
    output_bytes: u64,
    last: u64,
}

impl Shelf {
    /// Returns an empty shelf that gives no ticket `other` has given: somebody may still hold one.
    pub(super) fn after(other: &Self) -> Self {
        Self {
            last: other.last,
            ..Self::default()
        }
    }

    /// Returns a ticket never given before.
    pub(super) fn ticket(&mut self) -> Ticket {
        self.last += 1;
        Ticket(self.last)
    }

    /// Puts an entry in its place, whatever was there before.
    pub(super) fn put(&mut self, ticket: Ticket, entry: impl Into<Box<Entry>>) {
        let entry = entry.into();
        drop(self.remove(ticket));
        self.last = self.last.max(ticket.0);
        self.by_id.entry(entry.id).or_default().push(ticket);
        match &entry.phase {
            Phase::Received => {
                self.received.insert(ticket);
            }
            Phase::Started(_) => {
                self.started.insert(ticket);
            }
            Phase::Final(ending) => {
                if ending.confirmed {
                    self.settled.insert((entry.pos, ticket));
                } else {
                    self.unconfirmed.insert(ticket);
                }
                if ending.output_bytes > 0 {
                    self.outputs.insert((!ending.confirmed, ticket));
                    self.output_bytes += ending.output_bytes;
                }
            }
        }
        self.entries.insert(ticket, entry);
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, ticket: Ticket) -> Option<Box<Entry>> {
        let entry = self.entries.remove(&ticket)?;
        if let Some(tickets) = self.by_id.get_mut(&entry.id) {
            tickets.retain(|known| *known != ticket);
            if tickets.is_empty() {
                self.by_id.remove(&entry.id);
            }
        }
        self.received.remove(&ticket);
        self.started.remove(&ticket);
        self.unconfirmed.remove(&ticket);
        self.settled.remove(&(entry.pos, ticket));
        if let Phase::Final(ending) = &entry.phase
            && self.outputs.remove(&(!ending.confirmed, ticket))
        {
            self.output_bytes -= ending.output_bytes;
        }
        Some(entry)
    }

    /// Returns an entry.
    pub(super) fn get(&self, ticket: Ticket) -> Option<&Entry> {
        self.entries.get(&ticket).map(Box::as_ref)
    }

    /// Returns the ticket of exactly this order.
    pub(super) fn find(&self, id: MessageId, digest: Digest) -> Option<Ticket> {
        self.with_id(id).find(|ticket| {
            self.entries
                .get(ticket)
                .is_some_and(|entry| entry.digest == digest)
        })
    }

    /// Returns the tickets of every order with this id, whatever its bytes.
    pub(super) fn with_id(&self, id: MessageId) -> impl Iterator<Item = Ticket> + '_ {
        self.by_id.get(&id).into_iter().flatten().copied()
    }

    /// Returns how far the orders with this id are: the one that has most to go.
    pub(super) fn fate(&self, id: MessageId) -> Fate {
        self.with_id(id)
            .filter_map(|ticket| self.get(ticket))
            .map(|entry| match &entry.phase {
                Phase::Received | Phase::Started(_) => Fate::Open,
                Phase::Final(ending) if ending.confirmed => Fate::Confirmed,
                Phase::Final(_) => Fate::Over,
            })
            .max()
            .unwrap_or(Fate::Forgotten)
    }

    /// Returns every ticket in the order of arrival.
    pub(super) fn tickets(&self) -> Vec<Ticket> {
        self.entries.keys().copied().collect()
    }

    /// Returns the orders not started, in the order of arrival.
    pub(super) fn received(&self) -> &BTreeSet<Ticket> {
        &self.received
    }

    /// Returns the orders started and not over, in the order of arrival.
    pub(super) fn started(&self) -> &BTreeSet<Ticket> {
        &self.started
    }

    /// Returns the orders that are over without the station having confirmed it.
    pub(super) fn unconfirmed(&self) -> &BTreeSet<Ticket> {
        &self.unconfirmed
    }

    /// Returns how many entries there are.
    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns the subjects that have orders not over.
    pub(super) fn open_subjects(&self) -> BTreeSet<Subject> {
        self.started
            .iter()
            .chain(&self.received)
            .filter_map(|ticket| self.entries.get(ticket))
            .map(|entry| entry.subject.clone())
            .collect()
    }

    /// Returns one entry that is settled and below `low`.
    pub(super) fn forgettable(&self, low: u64) -> Option<Ticket> {
        let (pos, ticket) = self.settled.first()?;
        (*pos < low).then_some(*ticket)
    }

    /// Returns how many bytes of output are kept.
    pub(super) fn output_bytes(&self) -> u64 {
        self.output_bytes
    }

    /// Returns the entry whose output goes next when more than `budget` bytes are kept.
    pub(super) fn surplus(&self, budget: u64) -> Option<Ticket> {
        let (_, ticket) = self.outputs.first()?;
        (self.output_bytes > budget).then_some(*ticket)
    }
}
