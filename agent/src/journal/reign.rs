//! What the station's own words change: whose journal this is, what is confirmed, what may go.

use std::time::Duration;

use jiff::SignedDuration;
use steward_protocol::{EventId, LedgerId, MessageId, envelope::Reign, limits};

use super::{Journal, Phase, Pinned, Ticket, WallClock, Write, entry::Fact};
use crate::clock::Moment;

/// Something the station said besides orders.
#[derive(Debug, Clone)]
pub struct Word {
    /// Who said it, to whom.
    pub reign: Reign,
    /// What.
    pub what: What,
}

/// What a station says besides orders.
#[derive(Debug, Clone)]
pub enum What {
    /// This start of the agent is welcome.
    Welcome {
        /// How far the two wall clocks are apart, if that could be measured.
        skew: Option<Duration>,
    },
    /// These answers and events are stored.
    Confirm {
        /// Orders.
        orders: Vec<MessageId>,
        /// Events.
        events: Vec<EventId>,
    },
}

/// What became of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Welcomed {
    /// It was heard.
    Heard,
    /// It was heard, and the journal now belongs to this ledger, the first it has met.
    Pinned(LedgerId),
    /// It was heard, and this ledger took over from another, as the config allows.
    TakenOver(LedgerId),
    /// Another ledger than the one pinned.
    Foreign(LedgerId),
    /// An earlier reign.
    Stale,
    /// Meant for another start of this agent.
    OtherInstance,
    /// The same, and this start had been welcomed: it is not any more, and has to introduce itself.
    Superseded,
}

impl Journal {
    pub(super) fn word(&mut self, word: Word, now: &Moment) -> Welcomed {
        let reign = &word.reign;
        let greeting = matches!(word.what, What::Welcome { .. });
        if reign.instance != self.instance {
            if greeting && self.is_ours(reign) {
                // The station takes another start for this node: a clone of this journal, or what
                // replaced this node while it was away. Nothing begins here before it is welcomed
                // again, or what both have received would run on both.
                // It may also be a welcome that was under way for long; so this start speaks up at once.
                if std::mem::take(&mut self.welcomed) {
                    return Welcomed::Superseded;
                }
            }
            return Welcomed::OtherInstance;
        }
        let heard = match self.identity.pinned {
            Some(pinned) if pinned.ledger_id == reign.ledger_id => {
                if reign.epoch < pinned.epoch {
                    return Welcomed::Stale;
                }
                Welcomed::Heard
            }
            None if greeting => Welcomed::Pinned(reign.ledger_id),
            Some(_) if greeting && self.limits.accept_ledger == Some(reign.ledger_id) => {
                self.abandon();
                Welcomed::TakenOver(reign.ledger_id)
            }
            Some(_) | None => return Welcomed::Foreign(reign.ledger_id),
        };
        if heard != Welcomed::Heard {
            self.identity.pinned = Some(Pinned {
                ledger_id: reign.ledger_id,
                epoch: reign.epoch,
                low: reign.low,
            });
            self.writes.push(Write::Identity(self.identity));
        }
        match word.what {
            What::Welcome { skew } => {
                self.welcomed = true;
                self.welcomed_at = Some((now.wall, now.boot_ms));
                self.wall = match skew {
                    Some(skew) if skew <= limits::TRUSTED_SKEW => WallClock::Trusted,
                    Some(_) | None => WallClock::Doubtful,
                };
            }
            What::Confirm { orders, events } => self.confirm(&orders, &events, now),
        }
        self.rise(word.reign.epoch, word.reign.low);
        heard
    }

    /// Doubts the wall clock once it was set since the last welcome: what the station found of it is
    /// not true any more, and by itself it advances as the clock of the boot does.
    pub(super) fn doubt(&mut self, now: &Moment) {
        let Some((wall, boot_ms)) = self.welcomed_at else {
            return;
        };
        let passed = Duration::from_millis(now.boot_ms.saturating_sub(boot_ms));
        let passed = SignedDuration::try_from(passed).unwrap_or(SignedDuration::MAX);
        let step = now.wall.duration_since(wall).saturating_sub(passed);
        if step.unsigned_abs() > limits::TRUSTED_SKEW {
            self.wall = WallClock::Doubtful;
        }
    }

    /// Whether the ledger pinned said it, in a reign that is not over.
    fn is_ours(&self, reign: &Reign) -> bool {
        self.identity.pinned.is_some_and(|pinned| {
            pinned.ledger_id == reign.ledger_id && pinned.epoch <= reign.epoch
        })
    }

    /// Adopts a later reign, and forgets what it says is settled.
    pub(super) fn rise(&mut self, epoch: u64, low: u64) {
        if let Some(pinned) = &mut self.identity.pinned {
            let risen = Pinned {
                epoch: pinned.epoch.max(epoch),
                low: pinned.low.max(low),
                ..*pinned
            };
            if risen != *pinned {
                *pinned = risen;
                self.writes.push(Write::Identity(self.identity));
                self.settle(risen);
            }
        }
        while let Some(ticket) = self.shelf.forgettable(self.low()) {
            self.forget(ticket);
        }
    }

    /// What the station calls settled is recorded there, whether its confirmation arrived or not.
    fn settle(&mut self, pinned: Pinned) {
        let is_settled = |ticket: &Ticket| {
            self.shelf.get(*ticket).is_some_and(|entry| {
                // An order that could only be named has no place, and waits for its confirmation.
                entry.ledger_id == pinned.ledger_id && (1..pinned.low).contains(&entry.pos)
            })
        };
        let unconfirmed = self.shelf.unconfirmed().iter().copied();
        let settled: Vec<Ticket> = unconfirmed.filter(is_settled).collect();
        for ticket in settled {
            self.forget(ticket);
        }
    }

    fn confirm(&mut self, orders: &[MessageId], events: &[EventId], now: &Moment) {
        for id in orders {
            let over: Vec<Ticket> = self
                .shelf
                .with_id(*id)
                .filter(|ticket| self.shelf.unconfirmed().contains(ticket))
                .collect();
            for ticket in over {
                self.resends.remove(&ticket);
                self.apply(ticket, Fact::Confirm, now).ok();
            }
        }
        for id in events {
            if let Some(rank) = self.spool.confirm(*id) {
                self.writes.push(Write::ForgetEvent(rank));
            }
        }
    }

    /// Lets go of everything another ledger left here; what runs is let run to its end.
    fn abandon(&mut self) {
        for ticket in self.shelf.tickets() {
            let running = self
                .shelf
                .get(ticket)
                .is_some_and(|entry| matches!(entry.phase, Phase::Started(_)));
            if !running {
                self.forget(ticket);
            }
        }
        for subject in self.lanes.clear() {
            self.writes.push(Write::ForgetLane(subject));
        }
    }

    fn forget(&mut self, ticket: Ticket) {
        drop(self.shelf.remove(ticket));
        self.resends.remove(&ticket);
        self.writes.push(Write::Forget(ticket));
    }
}
