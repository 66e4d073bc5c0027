//! The keeper's thread: decides a batch, makes it durable with one commit, and only then answers.

use std::sync::Arc;

use steward_protocol::{Ack, Digest, MessageId, Sealed, State};
use tokio::sync::{mpsc, oneshot};

use super::{BATCH, BeginReply, CancelReply, DueReply, Job, KeeperError, OfferReply, Told, chain};
use crate::{
    clock::{Clock, Moment},
    counters::{Counter, Counters},
    journal::{
        Answer, Ask, Begun, Cancelled, Contradiction, Finish, Journal, Offered, Ticket, Write,
        spool::Notice,
    },
    store::{Store, StoreError},
};

/// What the thread owns.
pub(super) struct Desk {
    pub(super) store: Store,
    pub(super) journal: Journal,
    pub(super) clock: Clock,
    pub(super) counters: Arc<Counters>,
    /// Whether the last write failed.
    pub(super) failing: bool,
    /// Whether the journal must be rebuilt before it may decide again.
    pub(super) stale: bool,
}

/// An answer before the file was read for it, and the order it is about.
struct Decided {
    answer: Answer,
    named: Option<(MessageId, Digest)>,
    order: Option<Sealed>,
}

impl Desk {
    pub(super) fn serve(mut self, mut inbox: mpsc::Receiver<Job>) {
        let mut batch = Vec::with_capacity(BATCH);
        while inbox.blocking_recv_many(&mut batch, BATCH) > 0 {
            self.settle(std::mem::take(&mut batch));
        }
    }

    /// Settles a batch. What is asked because nothing can be written does not share the fate of what
    /// is to be written.
    pub(super) fn settle(&mut self, batch: Vec<Job>) {
        let writes_nothing = |job: &Job| job.asks.iter().all(|ask| matches!(ask, Ask::Halt(_)));
        let (halts, rest) = batch.into_iter().partition(writes_nothing);
        for jobs in [halts, rest] {
            self.settle_together(jobs);
        }
    }

    /// Decides jobs, makes what they change durable with one commit, and only then answers.
    fn settle_together(&mut self, batch: Vec<Job>) {
        if batch.is_empty() {
            return;
        }
        if self.stale
            && let Err(error) = self.rebuild()
        {
            return self.fail(batch.into_iter().map(|job| job.reply), &error);
        }
        let now = self.clock.now();
        let mut writes = Vec::new();
        let decided: Vec<(Vec<Decided>, _)> = batch
            .into_iter()
            .map(|job| {
                let asks = job.asks.into_iter();
                let answers = asks.map(|ask| self.decide(ask, &now, &mut writes));
                (answers.collect(), job.reply)
            })
            .collect();
        if !writes.is_empty() {
            if let Err(error) = self.store.commit(&writes) {
                self.stale = true;
                return self.fail(decided.into_iter().map(|(_, reply)| reply), &error);
            }
            if std::mem::take(&mut self.failing) {
                tracing::info!("the journal can be written again");
            }
        }
        for (decided, reply) in decided {
            let told: Result<Vec<Told>, StoreError> = decided
                .into_iter()
                .map(|decided| self.tell(decided, &now))
                .collect();
            let told = told.map_err(|error| storage(&error));
            // Whoever asked may have ended since; what it asked for is durable all the same.
            reply.send(told).ok();
        }
    }

    fn decide(&mut self, ask: Ask, now: &Moment, writes: &mut Vec<Write>) -> Decided {
        let named = match &ask {
            Ask::Offer(offer) => Some((offer.order.order().id, offer.order.digest())),
            Ask::Unread(unread) => Some((unread.id, unread.digest)),
            Ask::Cancel(call) | Ask::Halt(call) => Some((call.body.id, call.body.digest)),
            _ => None,
        };
        let (ask, order) = match ask {
            Ask::Begin(ticket) => match self.read_order(ticket) {
                Ok(read) => read,
                Err(error) => {
                    // Not started and not refused: what cannot be read now may be read later.
                    tracing::warn!(error = chain(&error), "an order cannot be read yet");
                    return Decided {
                        answer: Answer::Begun(Begun::Wait),
                        named,
                        order: None,
                    };
                }
            },
            ask => (ask, None),
        };
        let (answer, new) = self.journal.next(ask, now);
        writes.extend(new);
        Decided {
            answer,
            named,
            order,
        }
    }

    /// Reads an order before it is started; one whose bytes are gone is refused instead.
    fn read_order(&self, ticket: Ticket) -> Result<(Ask, Option<Sealed>), StoreError> {
        let received = self
            .journal
            .entry(ticket)
            .is_some_and(|entry| entry.phase.state() == State::Received);
        if !received {
            return Ok((Ask::Begin(ticket), None));
        }
        if let Some(order) = self.journal.local_order(ticket) {
            return Ok((Ask::Begin(ticket), Some(order.clone())));
        }
        let read = match self.store.text(ticket)? {
            Some(text) => Sealed::open(&text).map_err(|error| error.to_string()),
            None => Err("it is missing".to_owned()),
        };
        Ok(match read {
            Ok(order) => (Ask::Begin(ticket), Some(order)),
            Err(detail) => {
                let finish = Finish {
                    state: State::Rejected,
                    reason: Some(format!(
                        "its text in this node's journal is damaged: {detail}"
                    )),
                    outcome: None,
                };
                (Ask::Finish(ticket, Box::new(finish)), None)
            }
        })
    }

    /// Adds to an answer what only the file knows.
    fn tell(&self, decided: Decided, now: &Moment) -> Result<Told, StoreError> {
        Ok(match decided.answer {
            Answer::Offered(offered) => Told::Offer(OfferReply {
                ack: self.readable(self.offer_ack(&offered, decided.named, now)),
                offered,
            }),
            Answer::Cancelled(cancelled) => Told::Cancel(CancelReply {
                ack: self.readable(self.cancel_ack(&cancelled, decided.named, now)),
                cancelled,
            }),
            Answer::Begun(begun) => Told::Begin(match (begun, decided.order) {
                (Begun::Go { attempt, at }, Some(order)) => BeginReply::Go {
                    order: Box::new(order),
                    attempt,
                    at,
                },
                (Begun::Over(ticket), _) => match self.ack(ticket)? {
                    Some(ack) => BeginReply::Over(Box::new(ack)),
                    None => BeginReply::Gone,
                },
                (Begun::Wait, _) => BeginReply::Wait,
                (Begun::Gone | Begun::Go { .. }, _) => BeginReply::Gone,
            }),
            Answer::Stands(ticket) => match self.ack(ticket)? {
                Some(ack) => Told::Ack(ack),
                None => Told::Contradiction(Contradiction {
                    phase: "forgotten",
                    fact: "anything",
                }),
            },
            Answer::Again => Told::Again,
            Answer::Word(welcomed) => Told::Word(welcomed, self.journal.identity()),
            Answer::Reported => Told::Reported,
            Answer::Ack(ack) => Told::Ack(*ack),
            Answer::Local(answer) => Told::Local(answer),
            Answer::Due(due) => Told::Due(self.due(due)?),
            Answer::Open(orders) => Told::Open(orders),
            Answer::OpenSubjects(subjects) => Told::OpenSubjects(subjects),
            Answer::Snapshot(snapshot) => Told::Snapshot(snapshot),
            Answer::Fates(fates) => Told::Fates(fates),
            Answer::Contradiction(contradiction) => Told::Contradiction(contradiction),
        })
    }

    fn offer_ack(
        &self,
        offered: &Offered,
        named: Option<(MessageId, Digest)>,
        now: &Moment,
    ) -> Result<Option<Ack>, StoreError> {
        match (offered, named) {
            (Offered::Taken(ticket) | Offered::Stands(ticket), _) => self.ack(*ticket),
            (
                Offered::Deferred {
                    deferral,
                    expected_seq,
                },
                Some(name),
            ) => Ok(Some(Ack {
                expected_seq: *expected_seq,
                ..Ack::deferred(name, *deferral, now.wall)
            })),
            (Offered::Ignored(_), _) | (Offered::Deferred { .. }, None) => Ok(None),
        }
    }

    fn cancel_ack(
        &self,
        cancelled: &Cancelled,
        named: Option<(MessageId, Digest)>,
        now: &Moment,
    ) -> Result<Option<Ack>, StoreError> {
        match (cancelled, named) {
            (Cancelled::Over(ticket) | Cancelled::Stop(ticket), _) => self.ack(*ticket),
            (
                Cancelled::Deferred {
                    deferral,
                    expected_seq,
                },
                Some(name),
            ) => Ok(Some(Ack {
                expected_seq: *expected_seq,
                ..Ack::deferred(name, *deferral, now.wall)
            })),
            (Cancelled::Ignored(_), _) | (Cancelled::Deferred { .. }, None) => Ok(None),
        }
    }

    fn ack(&self, ticket: Ticket) -> Result<Option<Ack>, StoreError> {
        let Some(entry) = self.journal.entry(ticket) else {
            return Ok(None);
        };
        let mut ack = entry.ack();
        if ack.state.is_final() {
            ack.outcome = self.store.outcome(ticket)?;
        }
        Ok(Some(ack))
    }

    fn due(&self, due: crate::journal::Due) -> Result<DueReply, StoreError> {
        let mut reply = DueReply {
            next_ms: due.next_ms,
            ..DueReply::default()
        };
        for ticket in due.answers {
            let subject = self
                .journal
                .entry(ticket)
                .map(|entry| entry.subject.clone());
            reply
                .acks
                .extend(subject.zip(self.readable(self.ack(ticket))));
        }
        for rank in due.events {
            let mut notice = self.readable(self.store.event(rank));
            if let Some(Notice::Text(text)) = &mut notice {
                text.after = self.journal.text_before(rank);
            }
            reply.events.extend(notice);
        }
        Ok(reply)
    }

    /// What cannot be read back now is left unsaid, and said when it can be; the rest of a batch, which
    /// is durable, does not suffer from it.
    fn readable<T>(&self, read: Result<Option<T>, StoreError>) -> Option<T> {
        read.unwrap_or_else(|error| {
            self.counters.count(Counter::Storage);
            tracing::warn!(error = chain(&error), "the journal cannot be read back");
            None
        })
    }

    fn rebuild(&mut self) -> Result<(), StoreError> {
        self.store.make_room();
        let image = self.store.image()?;
        self.journal.reload(image);
        self.stale = false;
        Ok(())
    }

    fn fail(
        &mut self,
        replies: impl Iterator<Item = oneshot::Sender<Result<Vec<Told>, KeeperError>>>,
        error: &StoreError,
    ) {
        self.counters.count(Counter::Storage);
        if !std::mem::replace(&mut self.failing, true) {
            tracing::error!(
                error = chain(error),
                "the journal cannot be written: nothing is started until it can be"
            );
        }
        let error = storage(error);
        for reply in replies {
            reply.send(Err(error.clone())).ok();
        }
    }
}

fn storage(error: &StoreError) -> KeeperError {
    KeeperError::Storage {
        detail: chain(error).into(),
    }
}
