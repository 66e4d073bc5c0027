//! A seeded walk: the real courier against a simulated agent over a wire that drops, doubles and reorders.
//!
//! The agent keeps the ground truth — what was started, how often — apart from what the courier believes.

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
struct Agent {
    instance: u128,
    counter: u64,
    journal: BTreeMap<u64, State>,
    last_seq: u64,
    started: BTreeMap<u64, u32>,
    confirmed: BTreeSet<u64>,
}

impl Agent {
    /// Returns how it answers, if it does.
    fn take(&mut self, dispatch: &Dispatch) -> Option<Ack> {
        let send = &dispatch.send;
        let answer = |state| ack(u128::from(send.pos), state);
        if send.instance != origin(1, self.instance).instance {
            return Some(Ack {
                deferral: Some(Deferral::StaleInstance),
                ..answer(State::Deferred)
            });
        }
        if let Some(state) = self.journal.get(&send.pos) {
            return Some(answer(*state));
        }
        if let Some(seq) = send.seq {
            let next = (self.last_seq + 1).max(send.seq_low.unwrap_or(0));
            if seq > next {
                let expected_seq = Some(next);
                return Some(Ack {
                    deferral: Some(Deferral::Gap),
                    expected_seq,
                    ..answer(State::Deferred)
                });
            }
            if seq < next {
                return None;
            }
            self.last_seq = seq;
        }
        *self.started.entry(send.pos).or_default() += 1;
        self.journal.insert(send.pos, State::Succeeded);
        Some(answer(State::Succeeded))
    }
}

#[derive(Clone)]
enum Letter {
    Down(Box<Dispatch>),
    Up(Box<Ack>, u128),
    Confirm(Vec<MessageId>),
}

struct World {
    courier: Courier,
    agent: Agent,
    wire: VecDeque<Letter>,
    dice: Dice,
    loss: u64,
    second: u64,
    finals: BTreeMap<u64, Vec<State>>,
}

impl World {
    fn carry(&mut self, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Order(dispatch) => self.post(Letter::Down(Box::new(dispatch))),
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

    fn deliver(&mut self) {
        match self.wire.pop_front() {
            None => {}
            Some(Letter::Down(dispatch)) => {
                if let Some(answer) = self.agent.take(&dispatch) {
                    self.post(Letter::Up(Box::new(answer), self.agent.instance));
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
            if !self.agent.confirmed.contains(&pos) {
                self.post(Letter::Up(
                    Box::new(ack(u128::from(pos), state)),
                    self.agent.instance,
                ));
            }
        }
    }

    fn step(&mut self) {
        self.second += 1;
        if self.dice.percent(self.loss / 4) {
            self.agent.instance += 1;
            self.agent.counter += 1;
            self.heartbeat();
        } else if self.second.is_multiple_of(10) {
            self.heartbeat();
        }
        let actions = self.courier.on(Event::Tick, now(self.second));
        self.carry(actions);
        for _ in 0..self.dice.roll() % 40 {
            self.deliver();
        }
    }
}

fn walk(seed: u64, loss: u64) {
    const MESSAGES: u64 = 30;
    let agent = Agent {
        instance: 1,
        counter: 1,
        journal: BTreeMap::new(),
        last_seq: 0,
        started: BTreeMap::new(),
        confirmed: BTreeSet::new(),
    };
    let mut world = World {
        courier: courier(),
        agent,
        wire: VecDeque::new(),
        dice: Dice(seed | 1),
        loss,
        second: 0,
        finals: BTreeMap::new(),
    };
    world.heartbeat();
    for number in 1..=MESSAGES {
        let options = Options {
            ordered: world.dice.percent(70),
            ..Options::standard()
        };
        let actions = submit(&mut world.courier, number.into(), options);
        world.carry(actions);
        world.step();
    }
    while world.courier.open() > 0 && world.second < 4000 {
        world.step();
        // The link heals in the end; what was promised must then come true.
        if world.second > 600 {
            world.loss = 0;
        }
    }
    assert_eq!(
        world.courier.open(),
        0,
        "seed {seed}: not everything became final"
    );
    for pos in 1..=MESSAGES {
        assert_eq!(
            world.agent.started.get(&pos),
            Some(&1),
            "seed {seed}: message {pos} started once"
        );
        assert_eq!(
            world.finals.get(&pos),
            Some(&vec![State::Succeeded]),
            "seed {seed}: message {pos} ended once"
        );
    }
}

#[test]
fn every_message_starts_once_and_ends_once_whatever_the_wire_loses() {
    for seed in 0..400_u64 {
        let loss = [0, 5, 20, 40][usize::try_from(seed % 4).expect("small")];
        walk(
            seed.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15),
            loss,
        );
    }
}
