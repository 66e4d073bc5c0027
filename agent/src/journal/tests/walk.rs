//! Random walks beside a bystander who knows what must hold: nothing starts twice, is told before it is durable, or is
//! forgotten too soon.

use super::*;

/// Tells which orders of a random walk may be started again.
fn is_idempotent(pos: u64) -> bool {
    pos.is_multiple_of(4)
}

/// The order at place `pos` of a random walk.
fn walked(pos: u64) -> Offer {
    let mut offer = order(pos);
    reseal(&mut offer, |order| order.idempotent = is_idempotent(pos));
    offer
}

/// One step of a random walk.
#[derive(Debug, Clone)]
enum Step {
    Offer(u64),
    Tombstone(u64),
    Cancel(u64),
    CancelInVain(u64),
    Begin(u64),
    Finish(u64),
    Confirm(u64),
    Low(u64),
    Crash,
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let pos = 1..12_u64;
    prop_oneof![
        4 => pos.clone().prop_map(Step::Offer),
        1 => pos.clone().prop_map(Step::Tombstone),
        2 => pos.clone().prop_map(Step::Cancel),
        1 => pos.clone().prop_map(Step::CancelInVain),
        4 => pos.clone().prop_map(Step::Begin),
        3 => pos.clone().prop_map(Step::Finish),
        3 => pos.clone().prop_map(Step::Confirm),
        1 => pos.prop_map(Step::Low),
        1 => Just(Step::Crash),
        1 => (1..70_000_u64).prop_map(Step::Time),
    ]
}

/// What a bystander knows for certain.
#[derive(Default)]
struct Model {
    started: BTreeSet<u64>,
    /// Those of them that still are, as far as their processes know.
    at_work: BTreeSet<u64>,
    /// Cancelled, durably.
    cancelled: BTreeSet<u64>,
    ended: BTreeMap<u64, State>,
    confirmed: BTreeSet<u64>,
    tickets: BTreeMap<u64, Ticket>,
}

impl Model {
    fn walk(&mut self, bench: &mut Bench, step: &Step) {
        match step {
            Step::Offer(pos) => self.offer(bench, *pos, 60_000),
            Step::Tombstone(pos) => self.offer(bench, *pos, 0),
            Step::Cancel(pos) => self.cancel(bench, *pos),
            Step::CancelInVain(pos) => {
                let mut cancellation = cancellation(&walked(*pos));
                cancellation.send.low = bench.low;
                bench.cancel_in_vain(&cancellation);
                let told = bench.halt(&cancellation);
                match told {
                    Cancelled::Stop(_) => assert!(self.at_work.contains(pos)),
                    Cancelled::Over(ticket) => {
                        let state = bench.disk[&ticket].phase.state();
                        assert!(state.is_final(), "J4: {state} is not over");
                    }
                    Cancelled::Deferred { .. } | Cancelled::Ignored(_) => {}
                }
            }
            Step::Begin(pos) => {
                let Some(ticket) = self.tickets.get(pos).copied() else {
                    return;
                };
                if let Begun::Go { .. } = bench.begin(ticket) {
                    let again = !self.started.insert(*pos);
                    let may = is_idempotent(*pos) && !self.at_work.contains(pos);
                    assert!(!again || may, "order {pos} was started twice");
                    self.at_work.insert(*pos);
                    assert!(
                        !self.cancelled.contains(pos),
                        "order {pos} was started after it was cancelled"
                    );
                    assert!(
                        !self.ended.contains_key(pos),
                        "order {pos} was started after its end"
                    );
                    assert_eq!(bench.disk[&ticket].phase.state(), State::Running, "J1");
                }
            }
            Step::Finish(pos) => {
                let Some(ticket) = self.tickets.get(pos).copied() else {
                    return;
                };
                // Only who started it can say how it ended.
                if self.at_work.remove(pos) {
                    bench.finish(ticket, 300);
                }
            }
            Step::Confirm(pos) => {
                let over = self.ended.contains_key(pos);
                let orders = vec![MessageId(Uuid::from_u128(u128::from(*pos)))];
                bench.word(What::Confirm {
                    orders,
                    events: Vec::new(),
                });
                if over {
                    self.confirmed.insert(*pos);
                }
            }
            Step::Low(low) => {
                // A station only calls settled what it has confirmed.
                let open = (1..12)
                    .find(|pos| !self.confirmed.contains(pos))
                    .unwrap_or(12);
                bench.low = bench.low.max((*low).min(open));
                bench.welcome();
            }
            Step::Crash => {
                bench.crash();
                self.at_work.clear();
                // Nobody holds a ticket across a restart.
                self.tickets
                    .retain(|_, ticket| bench.state(*ticket).is_some());
            }
            Step::Time(millis) => {
                bench.now.boot_ms += millis;
                bench.ask(Ask::Due {
                    all: false,
                    dice: *millis,
                });
            }
        }
    }

    fn offer(&mut self, bench: &mut Bench, pos: u64, ttl_left_ms: u64) {
        let mut offer = walked(pos);
        offer.send.low = bench.low;
        offer.send.ttl_left_ms = ttl_left_ms;
        match bench.offer(&offer) {
            Offered::Taken(ticket) => {
                assert!(
                    !self.started.contains(&pos),
                    "order {pos} was forgotten and taken again"
                );
                assert!(
                    !self.ended.contains_key(&pos),
                    "order {pos} was taken after its end"
                );
                self.tickets.insert(pos, ticket);
            }
            Offered::Stands(ticket) => {
                let told = bench.state(ticket).expect("it is there");
                assert_eq!(
                    bench.disk[&ticket].phase.state(),
                    told,
                    "J4: told before durable"
                );
                if let Some(state) = self.ended.get(&pos) {
                    assert_eq!(told, *state, "the end of order {pos} changed");
                }
                self.tickets.insert(pos, ticket);
            }
            Offered::Ignored(_) => {
                assert!(
                    self.confirmed.contains(&pos) && pos < bench.low,
                    "order {pos} was lost"
                );
            }
            Offered::Deferred { .. } => {}
        }
    }

    fn cancel(&mut self, bench: &mut Bench, pos: u64) {
        let mut cancellation = cancellation(&walked(pos));
        cancellation.send.low = bench.low;
        match bench.cancel(&cancellation) {
            Cancelled::Over(ticket) => {
                let told = bench.disk[&ticket].phase.state();
                assert!(
                    told.is_final(),
                    "J4: order {pos} is {told}, and called over"
                );
                self.tickets.insert(pos, ticket);
                self.cancelled.insert(pos);
            }
            Cancelled::Stop(ticket) => {
                assert!(self.at_work.contains(&pos), "nobody is there to stop {pos}");
                assert_eq!(bench.state(ticket), Some(State::Running));
                self.cancelled.insert(pos);
            }
            Cancelled::Ignored(_) => {
                assert!(
                    self.confirmed.contains(&pos) && pos < bench.low,
                    "the cancellation of order {pos} was lost"
                );
            }
            Cancelled::Deferred { .. } => {
                assert!(!self.tickets.contains_key(&pos), "order {pos} is known");
            }
        }
    }

    /// Learns ends, and compares what is forgotten.
    fn look(&mut self, bench: &Bench) {
        for (pos, ticket) in &self.tickets {
            match bench.state(*ticket) {
                Some(state) if state.is_final() => {
                    let known = self.ended.entry(*pos).or_insert(state);
                    assert_eq!(*known, state, "the end of order {pos} changed");
                    if matches!(state, State::Expired | State::Cancelled) {
                        assert!(
                            !self.started.contains(pos),
                            "order {pos} ran and is {state}"
                        );
                    }
                }
                Some(state) => {
                    assert!(
                        !self.ended.contains_key(pos),
                        "order {pos} is {state} after its end"
                    );
                }
                None => {
                    assert!(
                        self.confirmed.contains(pos),
                        "order {pos} was forgotten unconfirmed"
                    );
                    assert!(*pos < bench.low, "order {pos} was forgotten above low");
                }
            }
        }
        let live: BTreeSet<Ticket> = bench.journal.shelf.tickets().into_iter().collect();
        let durable: BTreeSet<Ticket> = bench.disk.keys().copied().collect();
        assert_eq!(live, durable);
        let waiting = bench.journal.shelf.received().len();
        assert!(waiting <= limits().queue, "{waiting} orders wait");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_walk_starts_twice_tells_before_it_is_durable_or_forgets_too_soon(
        steps in prop::collection::vec(step(), 1..80)
    ) {
        let mut bench = Bench::welcomed();
        let mut model = Model::default();
        for step in &steps {
            model.walk(&mut bench, step);
            model.look(&bench);
        }
    }
}
