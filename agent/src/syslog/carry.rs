//! Carries batches to the station: does what the delivery decides, with the spool's writer and the bus. It decides
//! nothing itself.
//!
//! Not more than a little waits in the broker's client, so that answers and hellos never stand behind a backlog of logs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

use steward_protocol::{Domain, Frame, Reign, logs::Kept, transfer::Moment};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};

use super::{
    send::{Action, Delivery, Ended, Event, Sent, Window},
    spool::{
        Fetched, Found, Place, SpoolError, Standing,
        writer::{Gone, Store},
    },
};
use crate::{
    bus::{Link, dice},
    config::Logs,
    counters::Counter,
    keeper::chain,
    supervisor::{
        context::{Context, Mail},
        pulse,
    },
    voice::Footing,
};

/// Bytes that may wait in the broker's client: a moment's worth on a thin link.
const UNFLUSHED: u64 = 256 << 10;

/// How long a link may take for them.
const FLUSH: Duration = Duration::from_secs(10);

/// Bytes on their way to the station, of each domain. With answers after a commit of 10 ms it is wide enough for 400 MB/s
/// here, and for 30 Mbit/s over a second of satellite.
const WINDOW: u64 = 4 << 20;

/// Why carrying ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// The supervisor let go.
    LetGo,
    /// The writer has ended.
    WriterGone,
}

/// Batches that were read and not asked for yet, of one domain and in order.
#[derive(Debug)]
struct Ahead {
    domain: Domain,
    place: Place,
    found: VecDeque<Found>,
}

/// Carries batches.
pub(super) struct Carrier {
    context: Arc<Context>,
    store: Store,
    /// What the spool holds, in all.
    size: u64,
    delivery: Delivery,
    /// How far each domain was durable when that was last looked at.
    durable: BTreeMap<Domain, Place>,
    /// Where the delivery's time begins.
    epoch: Instant,
    /// Whose welcome it knows of.
    footing: Option<Footing>,
    ahead: Option<Ahead>,
    unflushed: u64,
}

/// What to do next.
enum Step {
    Deliver(Domain, Place),
    Wait(Option<Instant>),
}

impl Carrier {
    pub(super) fn new(
        context: &Arc<Context>,
        store: Store,
        starts: Vec<(Domain, Place)>,
        logs: &Logs,
    ) -> Self {
        let window = Window {
            bytes: WINDOW,
            rate: logs.rate,
            ..Window::default()
        };
        Self {
            context: Arc::clone(context),
            store,
            size: logs.spool.total,
            durable: BTreeMap::new(),
            delivery: Delivery::new(window, starts),
            epoch: Instant::now(),
            footing: None,
            ahead: None,
            unflushed: 0,
        }
    }

    /// Carries until the mailbox is let go of.
    pub(super) async fn carry(&mut self, mailbox: &mut mpsc::Receiver<Mail>) -> End {
        let mut footing = self.context.footing.subscribe();
        let mut link = self.context.voice.bus.link();
        let mut standings = self.store.standings();
        standings.mark_changed();
        loop {
            let standing = *footing.borrow_and_update();
            let link_now = link.borrow_and_update().clone();
            self.stand(standing, &link_now);
            if standings.has_changed().unwrap_or(false) {
                let now = standings.borrow_and_update().clone();
                if self.note_filled(now).await.is_err() {
                    return End::WriterGone;
                }
            }
            while let Ok(mail) = mailbox.try_recv() {
                if self.hear(mail).is_err() {
                    return End::WriterGone;
                }
            }
            let at = match self.step() {
                Step::Deliver(domain, place) => {
                    pulse::beat();
                    if self.deliver(&domain, place).await.is_err() {
                        return End::WriterGone;
                    }
                    continue;
                }
                Step::Wait(at) => at,
            };
            self.ahead = None;
            tokio::select! {
                mail = mailbox.recv() => match mail {
                    Some(mail) => if self.hear(mail).is_err() {
                        return End::WriterGone;
                    },
                    None => return End::LetGo,
                },
                changed = standings.changed() => match changed {
                    Ok(()) => standings.mark_changed(),
                    Err(_) => return End::WriterGone,
                },
                changed = footing.changed() => if changed.is_err() {
                    return End::LetGo;
                },
                changed = link.changed() => if changed.is_err() {
                    return End::LetGo;
                },
                () = sleep_until(at.unwrap_or_else(Instant::now)), if at.is_some() => {}
                () = pulse::rest() => {}
            }
        }
    }

    fn moment(&self) -> Moment {
        Moment {
            at: self.epoch.elapsed(),
            dice: dice(),
        }
    }

    fn step(&mut self) -> Step {
        let now = self.moment();
        match self.delivery.next(now) {
            Some((domain, place)) => Step::Deliver(domain, place),
            None => Step::Wait(self.delivery.wake_at(now).map(|at| self.epoch + at)),
        }
    }

    /// Tells the delivery whose word counts now: who has welcomed this start on the connection that is up.
    fn stand(&mut self, footing: Footing, link: &Link) {
        let is_up =
            matches!(link, Link::Up { generation, .. } if *generation == footing.generation);
        let standing = footing.welcomed.filter(|_| is_up).map(|_| footing);
        if standing == self.footing {
            return;
        }
        // Another connection may have lost what was on its way on the one before.
        let now = self.moment();
        self.act_on(Event::Parted, now);
        self.footing = standing;
        if let Some((ledger_id, epoch)) = standing.and_then(|footing| footing.welcomed) {
            let reign = Reign {
                v: steward_protocol::version::CURRENT,
                ledger_id,
                epoch,
                instance: self.context.voice.instance,
                low: 0,
            };
            self.act_on(Event::Welcomed(&reign), now);
        }
    }

    fn act_on(&mut self, event: Event<'_>, now: Moment) {
        // Neither a welcome nor a parting releases anything.
        drop(self.delivery.on(event, now));
    }

    /// Tells the delivery which domains have something durable that was not there before.
    async fn note_filled(&mut self, standings: Vec<Standing>) -> Result<(), Gone> {
        for standing in &standings {
            let Some(durable) = standing.durable else {
                continue;
            };
            let domain = &standing.domain;
            if self.durable.insert(domain.clone(), durable) == Some(durable) {
                continue;
            }
            let begin = match self.delivery.base(domain) {
                Some(base) => Some(base),
                None => self.store.place(domain).await?,
            };
            if let Some(begin) = begin {
                let now = self.moment();
                self.act_on(Event::Filled(domain, begin), now);
            }
        }
        self.context.board.stand(standings, self.size);
        Ok(())
    }

    fn hear(&mut self, mail: Mail) -> Result<(), Gone> {
        let Mail::Kept { domain, payload } = mail else {
            return Ok(());
        };
        let counters = &self.context.counters;
        let frame = match Frame::<Reign, Kept>::decode(&payload) {
            Ok(frame) => frame,
            Err(error) => {
                let detail = format!("the station's word on logs {error}");
                counters.note(Counter::GarbageFrame, &detail);
                return Ok(());
            }
        };
        let welcomed = self.context.footing.borrow().welcomed;
        match welcomed {
            _ if frame.send.instance != self.context.voice.instance => {
                counters.count(Counter::OtherInstance);
                return Ok(());
            }
            None => {
                counters.count(Counter::BeforeWelcome);
                return Ok(());
            }
            Some((ledger_id, _)) if ledger_id != frame.send.ledger_id => {
                let detail = format!("ledger {} speaks of logs", frame.send.ledger_id);
                counters.note(Counter::ForeignLedger, &detail);
                return Ok(());
            }
            Some((_, epoch)) if epoch != frame.send.epoch => {
                counters.count(Counter::StaleReign);
                return Ok(());
            }
            Some(_) => {}
        }
        let event = Event::Kept(&domain, &frame.send, frame.body);
        let actions = self.delivery.on(event, self.moment());
        self.act(actions)
    }

    fn act(&self, actions: Vec<Action>) -> Result<(), Gone> {
        for action in actions {
            match action {
                Action::Release(domain, below) => self.store.release(domain, below)?,
                Action::Finish(domain, end) => self.store.finish(domain, end)?,
            }
        }
        Ok(())
    }

    /// Reads what is at a place, publishes it, and says what came of it.
    async fn deliver(&mut self, domain: &Domain, place: Place) -> Result<(), Gone> {
        let found = match self.find(domain, place).await? {
            Ok(found) => found,
            Err(error) => {
                let error = chain(&error);
                tracing::warn!(%domain, error, "logs could not be read from their spool for now");
                let now = self.moment();
                self.act_on(Event::Unread(domain), now);
                return Ok(());
            }
        };
        match found {
            None | Some(Found::Nothing) => {
                let now = self.moment();
                self.act_on(Event::Empty(domain), now);
            }
            Some(Found::End { next, follows }) => {
                let ended = Ended {
                    place,
                    next,
                    follows,
                };
                let actions = self.delivery.on(Event::Ended(domain, ended), self.moment());
                self.act(actions)?;
            }
            Some(Found::Batch(batch)) => self.publish(domain, place, batch).await,
        }
        Ok(())
    }

    async fn publish(&mut self, domain: &Domain, place: Place, batch: Fetched) {
        let bytes = batch.payload.len() as u64;
        let voice = &self.context.voice;
        let said = voice.batch(domain, batch.payload).await;
        let event = match said {
            Ok(()) => Event::Sent(
                domain,
                Sent {
                    place,
                    next: batch.next,
                    bytes,
                },
            ),
            Err(error) => {
                tracing::debug!(%error, "logs are not said now");
                Event::Unread(domain)
            }
        };
        let now = self.moment();
        self.act_on(event, now);
        self.unflushed += bytes;
        if self.unflushed >= UNFLUSHED {
            self.unflushed = 0;
            pulse::hold(self.context.voice.bus.flush(FLUSH)).await;
        }
    }

    /// Returns what is at a place: of what was read ahead, or from the writer.
    async fn find(
        &mut self,
        domain: &Domain,
        place: Place,
    ) -> Result<Result<Option<Found>, SpoolError>, Gone> {
        if let Some(found) = self.take_ahead(domain, place) {
            return Ok(Ok(Some(found)));
        }
        let found = match pulse::hold(self.store.read_on(domain, place)).await? {
            Ok(found) => found,
            Err(error) => return Ok(Err(error)),
        };
        self.ahead = Some(Ahead {
            domain: domain.clone(),
            place,
            found: found.into(),
        });
        Ok(Ok(self.take_ahead(domain, place)))
    }

    fn take_ahead(&mut self, domain: &Domain, place: Place) -> Option<Found> {
        let ahead = self.ahead.as_mut()?;
        if ahead.domain != *domain || ahead.place != place {
            return None;
        }
        let found = ahead.found.pop_front()?;
        if let Found::Batch(batch) = &found {
            ahead.place.position = batch.next;
        }
        Some(found)
    }
}
