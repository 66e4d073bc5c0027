//! A seeded walk: the real courier against a simulated agent over a wire that drops, doubles and reorders.
//!
//! The agent keeps the ground truth — what was started, how often, how it ended — apart from what the
//! courier believes. Both sides restart: the courier from its records, the agent from its journal.

use std::collections::{BTreeSet, VecDeque};

use super::*;

/// A small generator (xorshift64*, Marsaglia 2003), so that a seed names a walk for ever.
struct Dice(u64);

impl Dice {
    fn roll(&mut self) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }

    fn percent(&mut self, chance: u64) -> bool {
        self.roll() % 100 < chance
    }
}

/// An agent as the design says it should be, in the fewest lines.
#[derive(Default)]
struct Agent {
    instance: u128,
    counter: u64,
    journal: BTreeMap<u64, State>,
    last_seq: u64,
    low: u64,
    started: BTreeMap<u64, u32>,
    stopping: BTreeSet<u64>,
    confirmed: BTreeSet<u64>,
    /// Places in the order in which they were started (true) and became final (false).
    log: Vec<(u64, bool)>,
}

impl Agent {
    /// Admits a header as a journal does. Returns the answer, nothing, or that it is new.
    fn admit(&mut self, send: &steward_protocol::Send) -> Result<Option<Ack>, ()> {
        let answer = |state| ack(u128::from(send.pos), state);
        if send.instance != origin(1, self.instance).instance {
            return Ok(Some(Ack {
                deferral: Some(Deferral::StaleInstance),
                ..answer(State::Deferred)
            }));
        }
        self.low = self.low.max(send.low);
        if let Some(state) = self.journal.get(&send.pos) {
            self.last_seq = self.last_seq.max(send.seq.unwrap_or(0));
            return Ok(Some(answer(*state)));
        }
        if send.pos < self.low {
            return Ok(None);
        }
        if let Some(seq) = send.seq {
            let next = (self.last_seq + 1).max(send.seq_low.unwrap_or(0));
            if seq > next {
                return Ok(Some(Ack {
                    deferral: Some(Deferral::Gap),
                    expected_seq: Some(next),
                    ..answer(State::Deferred)
                }));
            }
            if seq < next {
                return Ok(None);
            }
        }
        Err(())
    }

    /// Writes down something new. Returns how it answers.
    fn note(&mut self, send: &steward_protocol::Send, state: State) -> Ack {
        self.last_seq = self.last_seq.max(send.seq.unwrap_or(0));
        self.set(send.pos, state);
        ack(u128::from(send.pos), state)
    }

    fn set(&mut self, pos: u64, state: State) {
        self.journal.insert(pos, state);
        if state == State::Running {
            *self.started.entry(pos).or_default() += 1;
            self.log.push((pos, true));
        } else if state.is_final() {
            self.log.push((pos, false));
        }
    }

    fn take(&mut self, send: &steward_protocol::Send, is_busy: bool) -> Option<Ack> {
        match self.admit(send) {
            Ok(answer) => answer,
            Err(()) if is_busy => Some(ack(u128::from(send.pos), State::Deferred)),
            Err(()) => Some(self.note(send, State::Received)),
        }
    }

    fn cancel(&mut self, send: &steward_protocol::Send) -> Option<Ack> {
        let answer = match self.admit(send) {
            Ok(answer) => answer?,
            Err(()) => return Some(self.note(send, State::Cancelled)),
        };
        match (answer.state, self.journal.get(&send.pos)) {
            (State::Received, Some(_)) => {
                self.set(send.pos, State::Cancelled);
                Some(ack(u128::from(send.pos), State::Cancelled))
            }
            (State::Running, Some(_)) => {
                self.stopping.insert(send.pos);
                Some(answer)
            }
            _ => Some(answer),
        }
    }

    /// Starts and ends something. Returns what it has to say.
    fn work(&mut self, dice: &mut Dice) -> Option<Ack> {
        let is = |wanted: State| move |(_, state): &(&u64, &State)| **state == wanted;
        let running = self.journal.iter().find(is(State::Running));
        let (pos, state) = match running.map(|(pos, _)| *pos) {
            Some(pos) if self.stopping.contains(&pos) && dice.percent(70) => {
                (pos, State::Cancelled)
            }
            Some(pos) if dice.percent(60) => (pos, State::Succeeded),
            Some(pos) => (pos, State::Failed),
            None => {
                let (pos, _) = self.journal.iter().find(is(State::Received))?;
                (*pos, State::Running)
            }
        };
        self.set(pos, state);
        Some(ack(u128::from(pos), state))
    }

    /// The agent is killed and comes back: what ran is interrupted, never run again (rule J3).
    fn restart(&mut self) {
        self.instance += 1;
        self.counter += 1;
        let running = self
            .journal
            .iter()
            .filter(|(_, state)| **state == State::Running);
        for pos in running.map(|(pos, _)| *pos).collect::<Vec<_>>() {
            self.set(pos, State::Interrupted);
        }
    }
}

#[derive(Clone)]
enum Letter {
    Down(Box<Dispatch>),
    Cancel(Box<Withdrawal>),
    Up(Box<Ack>, u128),
    Confirm(Vec<MessageId>),
}

struct World {
    courier: Courier,
    replay: Replay,
    epoch: u64,
    agent: Agent,
    wire: VecDeque<Letter>,
    dice: Dice,
    loss: u64,
    second: u64,
    finals: BTreeMap<u64, Vec<State>>,
    sent: BTreeSet<u64>,
    /// What was called off, and what repeats what.
    cancelled: BTreeSet<u64>,
    retries: BTreeMap<u64, u64>,
}

impl World {
    fn new(seed: u64, loss: u64) -> Self {
        let mut world = Self {
            courier: courier(),
            replay: Replay::new(LEDGER),
            epoch: 1,
            agent: Agent {
                instance: 1,
                counter: 1,
                ..Agent::default()
            },
            wire: VecDeque::new(),
            dice: Dice(seed | 1),
            loss,
            second: 0,
            finals: BTreeMap::new(),
            sent: BTreeSet::new(),
            cancelled: BTreeSet::new(),
            retries: BTreeMap::new(),
        };
        world.heartbeat();
        world
    }

    fn carry(&mut self, actions: Vec<Action>) {
        for action in &actions {
            if let Action::Record(record) = action {
                self.replay.record(record);
            }
        }
        for action in actions {
            match action {
                Action::Order(dispatch) => {
                    assert!(
                        !self.cancelled.contains(&dispatch.send.pos),
                        "an order called off is never sent again"
                    );
                    self.sent.insert(dispatch.send.pos);
                    self.post(Letter::Down(Box::new(dispatch)));
                }
                Action::Cancel(withdrawal) => self.post(Letter::Cancel(withdrawal)),
                Action::Confirm { confirm, .. } => self.post(Letter::Confirm(confirm.orders)),
                Action::AskLedger { ack, .. } => self.post(Letter::Confirm(vec![ack.id])),
                Action::Record(Record::Moved { pos, state, .. }) if state.is_final() => {
                    self.finals.entry(pos).or_default().push(state);
                }
                Action::Record(_) | Action::Welcome { .. } => {}
            }
        }
    }

    fn post(&mut self, letter: Letter) {
        if self.dice.percent(self.loss) {
            return;
        }
        if self.dice.percent(self.loss) {
            self.wire.push_back(letter.clone());
        }
        if self.dice.percent(self.loss) {
            self.wire.push_front(letter);
        } else {
            self.wire.push_back(letter);
        }
    }

    fn say(&mut self, ack: Ack) {
        let instance = self.agent.instance;
        self.post(Letter::Up(Box::new(ack), instance));
    }

    fn deliver(&mut self) {
        match self.wire.pop_front() {
            None => {}
            Some(Letter::Down(dispatch)) => {
                let is_busy = self.dice.percent(self.loss / 2);
                if let Some(answer) = self.agent.take(&dispatch.send, is_busy) {
                    self.say(answer);
                }
            }
            Some(Letter::Cancel(withdrawal)) => {
                assert_eq!(withdrawal.subject.method, Method::Cancel.name());
                if let Some(answer) = self.agent.cancel(&withdrawal.send) {
                    self.say(answer);
                }
            }
            Some(Letter::Up(ack, instance)) => {
                let event = Event::Ack {
                    node: ship(1),
                    origin: origin(1, instance),
                    ack,
                };
                let actions = self.courier.on(event, now(self.second));
                self.carry(actions);
            }
            Some(Letter::Confirm(ids)) => {
                let places = ids
                    .iter()
                    .filter_map(|id| u64::try_from(id.0.as_u128()).ok());
                self.agent.confirmed.extend(places);
            }
        }
    }

    fn heartbeat(&mut self) {
        let actions = greet(
            &mut self.courier,
            self.agent.instance,
            self.agent.counter,
            now(self.second),
        );
        self.carry(actions);
        for (pos, state) in self.agent.journal.clone() {
            if state.is_final() && !self.agent.confirmed.contains(&pos) {
                self.say(ack(u128::from(pos), state));
            }
        }
    }

    fn step(&mut self) {
        self.second += 1;
        if self.dice.percent(self.loss / 4) {
            self.agent.restart();
            self.heartbeat();
        } else if self.second.is_multiple_of(10) {
            self.heartbeat();
        }
        if self.dice.percent(self.loss / 4) {
            self.restart_station();
        }
        let actions = self.courier.on(Event::Tick, now(self.second));
        self.carry(actions);
        for _ in 0..self.dice.roll() % 40 {
            self.deliver();
        }
        for _ in 0..3 {
            if let Some(ack) = self.agent.work(&mut self.dice) {
                self.say(ack);
            }
        }
    }

    fn restart_station(&mut self) {
        self.epoch += 1;
        let name = "central".parse().expect("a name");
        self.courier = Courier::load(name, self.replay.load(self.epoch), now(self.second));
        self.courier.on(Event::Connected, now(self.second));
    }

    fn submit(&mut self, retry: Option<u64>) {
        let number = self.courier.next_pos();
        let options = Options {
            ordered: self.dice.percent(70),
            ..Options::standard()
        };
        let mut accepted = (*accepted(&self.courier, number.into(), &[ship(1)], options)).clone();
        if let Some(old) = retry {
            self.retries.insert(number, old);
            accepted.retry_of = Some(id(old.into()));
            let mut ancestors = vec![old];
            while let Some(older) = ancestors.last().and_then(|pos| self.retries.get(pos)) {
                ancestors.push(*older);
            }
            accepted.holds = ancestors.into_iter().map(|pos| (ship(1), pos)).collect();
        }
        let actions = self.courier.accept(Arc::new(accepted), now(self.second));
        self.carry(actions);
    }

    fn cancel(&mut self, pos: u64) {
        let cancellation = Cancellation {
            id: id(pos.into()),
            nodes: vec![ship(1)],
            by: "uid:0".to_owned(),
        };
        let (answers, actions) = self.courier.cancel(&cancellation, now(self.second));
        if answers[0].1 != CancelAnswer::NotOpen {
            self.cancelled.insert(pos);
        }
        self.carry(actions);
    }

    /// An operator with a heavy hand: calls things off, and repeats what has not succeeded.
    fn meddle(&mut self) {
        let pos = 1 + self.dice.roll() % (self.courier.next_pos() - 1);
        if self.dice.percent(30) {
            self.cancel(pos);
        }
        if self.dice.percent(25) && self.replay.settled(pos, &ship(1)) != Some(State::Succeeded) {
            self.cancel(pos);
            self.submit(Some(pos));
        }
    }

    fn settle(&mut self, seed: u64) {
        while self.courier.open() > 0 && self.second < 4000 {
            self.step();
            // The link heals in the end; what was promised must then come true.
            if self.second > 600 {
                self.loss = 0;
            }
        }
        assert_eq!(
            self.courier.open(),
            0,
            "seed {seed}: not everything became final"
        );
        for pos in 1..self.courier.next_pos() {
            self.check(seed, pos);
        }
    }

    /// Compares what is believed of one message with what really happened.
    fn check(&self, seed: u64, pos: u64) {
        let finals = self.finals.get(&pos).map(Vec::as_slice);
        let &[end] = finals.unwrap_or_default() else {
            panic!("seed {seed}: message {pos} ended as {finals:?}");
        };
        let starts = self.agent.started.get(&pos).copied().unwrap_or(0);
        assert!(
            starts <= 1,
            "seed {seed}: message {pos} started {starts} times"
        );
        match self.agent.journal.get(&pos) {
            Some(state) => assert_eq!(end, *state, "seed {seed}: message {pos}"),
            None => assert_eq!(
                (end, self.sent.contains(&pos)),
                (State::Cancelled, false),
                "seed {seed}: message {pos} never came to the node"
            ),
        }
        let was_meddled_with = self.cancelled.contains(&pos) || self.retries.contains_key(&pos);
        assert!(
            was_meddled_with || starts == 1,
            "seed {seed}: message {pos} was never started"
        );
        if let Some(old) = self.retries.get(&pos) {
            self.check_retry(seed, *old, pos);
        }
    }

    /// A repetition starts only after the old order is settled on the node, and never after its success.
    fn check_retry(&self, seed: u64, old: u64, new: u64) {
        let place = |wanted: (u64, bool)| self.agent.log.iter().position(|entry| *entry == wanted);
        let Some(start) = place((new, true)) else {
            return;
        };
        let text = format!("seed {seed}: message {new} repeats {old}");
        assert_ne!(
            self.agent.journal.get(&old),
            Some(&State::Succeeded),
            "{text}"
        );
        if self.sent.contains(&old) {
            assert!(place((old, false)).is_some_and(|end| end < start), "{text}");
        }
        assert!(
            place((old, true)).is_none_or(|began| began < start),
            "{text}"
        );
    }
}

fn seeds(count: u64) -> impl Iterator<Item = (u64, u64)> {
    (0..count).map(|number| {
        let loss = [0, 5, 20, 40][usize::try_from(number % 4).expect("small")];
        let seed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (seed, loss)
    })
}

#[test]
fn every_message_starts_once_and_ends_once_whatever_the_wire_loses() {
    for (seed, loss) in seeds(400) {
        let mut world = World::new(seed, loss);
        for _ in 0..30 {
            world.submit(None);
            world.step();
        }
        world.settle(seed);
    }
}

#[test]
fn what_is_called_off_and_what_is_repeated_ends_as_it_really_did() {
    for (seed, loss) in seeds(400) {
        let mut world = World::new(seed, loss);
        for _ in 0..30 {
            world.submit(None);
            if world.dice.percent(70) {
                world.step();
            }
            world.meddle();
        }
        world.settle(seed);
    }
}
