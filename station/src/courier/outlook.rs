//! What one open delivery waits for, as the courier sees it: for whoever asks why.
//!
//! Pure, like its parent.

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use steward_protocol::{Deferral, MessageId, NodeName, State};

use super::{Courier, link::Link, open::Open};
use crate::roster::Moment;

/// What the courier knows of an open delivery beyond the ledger. Times of this reign only.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outlook {
    /// Whether the broker is there.
    pub connected: bool,
    /// Whether the node is there, as far as is known, so that something may be sent.
    pub ready: bool,
    /// Whether its turn among the messages of its subject matters.
    pub ordered: bool,
    /// When it, or its cancellation, was last sent.
    pub sent_at: Option<Timestamp>,
    /// When it is due next; none while the node has it.
    pub next_at: Option<Timestamp>,
    /// Why the node put it off.
    pub deferral: Option<Deferral>,
    /// When the broker last said that nobody listens for this node, if the node has not spoken since.
    pub deaf_at: Option<Timestamp>,
    /// What comes before it in its lane.
    pub ahead: Option<Ahead>,
}

/// What comes before a delivery in its lane.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ahead {
    /// The message at the front.
    pub id: MessageId,
    /// How that one stands.
    pub state: State,
    /// How many come before, that one included.
    pub count: usize,
}

impl Courier {
    /// Returns what the open delivery of `id` to `node` waits for; none when nothing is open there.
    pub fn outlook(&self, node: &NodeName, id: MessageId, now: Moment) -> Option<Outlook> {
        let link = self.links.get(node)?;
        let open = link.get(self.places.get(&id)?.pos)?;
        let at = |mono: Duration| wall(mono, now);
        Some(Outlook {
            connected: self.connected,
            ready: link.ready.is_some(),
            ordered: open.ordered,
            sent_at: open.schedule.sent.map(at),
            next_at: open.schedule.due.map(|due| at(due).max(now.wall)),
            deferral: open.schedule.deferral,
            deaf_at: link.deaf.map(at),
            ahead: ahead(link, open),
        })
    }
}

fn ahead(link: &Link, open: &Open) -> Option<Ahead> {
    if !open.ordered || !open.held_by.is_empty() {
        return None;
    }
    let queue = &link.lanes.get(&open.lane)?.queue;
    let (_, first) = queue.first()?;
    let front = link.get(*first).filter(|front| front.pos != open.pos)?;
    Some(Ahead {
        id: front.id,
        state: front.state,
        count: queue.range(..open.turn()).count(),
    })
}

/// Returns what the wall clock shows, or showed, at `mono`.
fn wall(mono: Duration, now: Moment) -> Timestamp {
    let span = |duration| SignedDuration::try_from(duration).unwrap_or(SignedDuration::MAX);
    let shown = now.wall.saturating_sub(span(now.mono)).ok();
    shown
        .and_then(|start| start.saturating_add(span(mono)).ok())
        .unwrap_or(now.wall)
}
