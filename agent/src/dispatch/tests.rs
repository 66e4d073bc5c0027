//! The dispatch against tables, and against what must hold on every random walk.

use proptest::prelude::*;
use steward_protocol::MessageId;
use uuid::Uuid;

use super::*;

const IDLE_AFTER: Duration = Duration::from_secs(60);

fn at(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

fn welcomed() -> Dispatch {
    let mut dispatch = Dispatch::new(IDLE_AFTER, at(0));
    assert_eq!(dispatch.next(Event::Welcomed, at(0)), []);
    dispatch
}

fn taken(ticket: u64, ordered: bool) -> Event {
    Event::Taken {
        ticket: Ticket(ticket),
        ordered,
    }
}

fn over(ticket: u64, turn: Turn) -> Event {
    Event::TurnOver {
        ticket: Ticket(ticket),
        turn,
    }
}

fn begin(ticket: u64) -> Action {
    Action::Begin(Ticket(ticket))
}

fn started() -> Started {
    Started {
        at: jiff::Timestamp::UNIX_EPOCH,
        boot_id: "boot-1".into(),
        boot_ms: 0,
        child: None,
        revoked: None,
    }
}

fn open(ticket: u64, ordered: bool, started: Option<Started>) -> OpenOrder {
    OpenOrder {
        ticket: Ticket(ticket),
        id: MessageId(Uuid::from_u128(u128::from(ticket))),
        ordered,
        timeout_ms: 1000,
        starts: 1,
        started,
    }
}

#[test]
fn ordered_orders_take_turns_and_the_others_run_beside_them() {
    let mut dispatch = welcomed();
    assert_eq!(dispatch.next(taken(1, true), at(0)), [begin(1)]);
    assert_eq!(dispatch.next(taken(2, true), at(0)), []);
    assert_eq!(dispatch.next(taken(3, false), at(0)), [begin(3)]);
    assert_eq!(dispatch.next(taken(4, false), at(0)), [begin(4)]);
    assert_eq!((dispatch.running(), dispatch.queued()), (3, 1));
    assert_eq!(dispatch.next(over(3, Turn::Over), at(1)), []);
    assert_eq!(dispatch.next(over(1, Turn::Over), at(1)), [begin(2)]);
    assert_eq!(dispatch.handled(), 2);
}

#[test]
fn nothing_begins_before_the_welcome_and_after_the_word_to_stop() {
    let mut dispatch = Dispatch::new(IDLE_AFTER, at(0));
    assert_eq!(dispatch.next(taken(1, true), at(0)), []);
    assert_eq!(dispatch.next(taken(2, false), at(0)), []);
    assert_eq!(dispatch.next(Event::Welcomed, at(0)), [begin(1), begin(2)]);
    assert_eq!(dispatch.next(taken(3, true), at(0)), []);
    assert_eq!(dispatch.next(Event::Stopping, at(0)), []);
    assert_eq!(dispatch.next(over(1, Turn::Over), at(0)), []);
    assert_eq!(dispatch.next(Event::Welcomed, at(0)), []);
    assert_eq!(dispatch.quit(at(0)), None, "one is still at work");
    assert_eq!(dispatch.next(over(2, Turn::Over), at(0)), []);
    assert_eq!(dispatch.quit(at(0)), Some(Quit::Stopping));
}

#[test]
fn what_was_started_is_recovered_at_once_and_its_lane_waits_for_it() {
    let mut dispatch = Dispatch::new(IDLE_AFTER, at(0));
    let list = vec![
        open(1, true, None),
        open(2, true, Some(started())),
        open(3, false, Some(started())),
        open(4, false, None),
    ];
    let recover = |ticket, ordered| {
        Action::Recover(Box::new(open(ticket, ordered, None)), Box::new(started()))
    };
    let actions = dispatch.next(Event::Open(list), at(0));
    assert_eq!(
        actions,
        [recover(2, true), recover(3, false)],
        "before any welcome"
    );
    assert_eq!(dispatch.next(Event::Welcomed, at(0)), [begin(4)]);
    assert_eq!(dispatch.next(over(3, Turn::Over), at(0)), []);
    // It may run again, and is nevertheless not before the one that came before it.
    assert_eq!(dispatch.next(over(2, Turn::Again), at(0)), [begin(1)]);
    assert_eq!(dispatch.next(over(1, Turn::Over), at(0)), [begin(2)]);
}

#[test]
fn a_turn_that_came_to_nothing_pauses_everything_and_is_tried_again_first() {
    for turn in [Turn::Wait, Turn::NoStorage] {
        let mut dispatch = welcomed();
        dispatch.next(taken(1, true), at(10));
        dispatch.next(taken(2, true), at(10));
        assert_eq!(dispatch.next(over(1, turn), at(10)), []);
        assert_eq!(dispatch.wake_at(), Some(at(10) + PAUSE));
        assert_eq!(dispatch.next(taken(3, false), at(10)), []);
        let early = at(10) + PAUSE - Duration::from_nanos(1);
        assert_eq!(dispatch.next(Event::Time, early), []);
        let due = dispatch.next(Event::Time, at(10) + PAUSE);
        assert_eq!(due, [begin(1), begin(3)], "{turn:?}");
        assert_eq!(dispatch.wake_at(), None);
    }
}

#[test]
fn a_pause_ends_early_when_the_station_speaks() {
    for event in [Event::Welcomed, Event::Repeated] {
        let mut dispatch = welcomed();
        dispatch.next(taken(1, true), at(0));
        dispatch.next(over(1, Turn::Wait), at(0));
        assert_eq!(dispatch.next(event, at(0)), [begin(1)]);
    }
}

#[test]
fn it_is_idle_long_enough_only_when_nothing_happened_for_so_long() {
    let mut dispatch = welcomed();
    assert_eq!(dispatch.wake_at(), Some(at(60)));
    dispatch.next(Event::Arrived, at(10));
    assert_eq!(dispatch.quit(at(69)), None);
    assert_eq!(dispatch.quit(at(70)), Some(Quit::Idle));
    dispatch.next(taken(1, true), at(70));
    assert_eq!((dispatch.quit(at(500)), dispatch.wake_at()), (None, None));
    dispatch.next(over(1, Turn::Over), at(500));
    assert_eq!(dispatch.wake_at(), Some(at(560)));
    // The word that it has been welcomed is nothing to do.
    dispatch.next(Event::Welcomed, at(559));
    assert_eq!(dispatch.quit(at(560)), Some(Quit::Idle));
}

#[test]
fn the_end_of_a_turn_nobody_began_changes_nothing() {
    let mut dispatch = welcomed();
    dispatch.next(taken(1, true), at(0));
    assert_eq!(dispatch.next(over(9, Turn::Again), at(0)), []);
    assert_eq!((dispatch.running(), dispatch.queued()), (1, 0));
    dispatch.next(over(1, Turn::Over), at(0));
    dispatch.next(over(1, Turn::Over), at(0));
    assert_eq!(dispatch.handled(), 1);
}

/// One step of a random walk.
#[derive(Debug, Clone)]
enum Step {
    Take { ordered: bool },
    End { which: usize, turn: Turn },
    Welcome,
    Repeat,
    Time(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let turn = prop_oneof![
        4 => Just(Turn::Over),
        1 => Just(Turn::Wait),
        1 => Just(Turn::Again),
        1 => Just(Turn::NoStorage),
    ];
    prop_oneof![
        4 => any::<bool>().prop_map(|ordered| Step::Take { ordered }),
        5 => (any::<usize>(), turn).prop_map(|(which, turn)| Step::End { which, turn }),
        1 => Just(Step::Welcome),
        1 => Just(Step::Repeat),
        1 => (1..4000_u64).prop_map(Step::Time),
    ]
}

/// What a bystander sees.
#[derive(Debug, Default)]
struct Witness {
    now: Duration,
    last: u64,
    ordered: BTreeMap<u64, bool>,
    at_work: BTreeSet<u64>,
    recovering: BTreeSet<u64>,
    open: BTreeSet<u64>,
}

impl Witness {
    fn see(&mut self, actions: Vec<Action>) {
        for action in actions {
            let Action::Begin(Ticket(ticket)) = action else {
                panic!("nothing is recovered but at the beginning");
            };
            assert!(self.open.contains(&ticket), "{ticket} is not waiting");
            assert!(self.at_work.insert(ticket), "{ticket} has two turns");
            if self.ordered[&ticket] {
                self.check_lane(ticket);
            }
        }
    }

    fn check_lane(&self, ticket: u64) {
        let in_lane = |other: &&u64| self.ordered[*other] && **other != ticket;
        let beside: Vec<_> = self.at_work.iter().filter(in_lane).collect();
        assert!(beside.is_empty(), "{ticket} runs beside {beside:?}");
        let mut before = self.open.range(..ticket).filter(in_lane);
        assert_eq!(before.next(), None, "{ticket} overtook it");
        let mut recovering = self.recovering.iter().filter(in_lane);
        assert_eq!(
            recovering.next(),
            None,
            "{ticket} began before its recovery"
        );
    }

    fn end(&mut self, dispatch: &mut Dispatch, ticket: u64, turn: Turn) {
        self.at_work.remove(&ticket);
        self.recovering.remove(&ticket);
        if turn == Turn::Over {
            self.open.remove(&ticket);
        }
        let actions = dispatch.next(over(ticket, turn), self.now);
        self.see(actions);
    }

    fn walk(&mut self, dispatch: &mut Dispatch, step: &Step) {
        let event = match step {
            Step::Take { ordered } => {
                self.last += 1;
                self.ordered.insert(self.last, *ordered);
                self.open.insert(self.last);
                taken(self.last, *ordered)
            }
            Step::End { which, turn } => {
                let count = self.at_work.len().max(1);
                let ticket = self.at_work.iter().nth(which % count).copied();
                if let Some(ticket) = ticket {
                    self.end(dispatch, ticket, *turn);
                }
                return;
            }
            Step::Welcome => Event::Welcomed,
            Step::Repeat => Event::Repeated,
            Step::Time(millis) => {
                self.now += Duration::from_millis(*millis);
                Event::Time
            }
        };
        let actions = dispatch.next(event, self.now);
        self.see(actions);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_walk_breaks_a_lane_or_leaves_anything_stuck(
        left in prop::collection::vec((any::<bool>(), any::<bool>()), 0..6),
        steps in prop::collection::vec(step(), 0..60),
    ) {
        let mut dispatch = Dispatch::new(IDLE_AFTER, at(0));
        let mut witness = Witness::default();
        let mut orders = Vec::new();
        for (ordered, was_started) in left {
            witness.last += 1;
            witness.ordered.insert(witness.last, ordered);
            witness.open.insert(witness.last);
            let taken_up = was_started.then(started);
            if was_started {
                witness.at_work.insert(witness.last);
                witness.recovering.insert(witness.last);
            }
            orders.push(open(witness.last, ordered, taken_up));
        }
        let actions = dispatch.next(Event::Open(orders), at(0));
        assert_eq!(actions.len(), witness.at_work.len(), "all that was started, and no more");
        for step in &steps {
            witness.walk(&mut dispatch, step);
            assert_eq!(dispatch.running(), witness.at_work.len());
            assert_eq!(dispatch.queued(), witness.open.len() - witness.at_work.len());
        }
        // Once turns only end well, everything has its turn, with no more than the promised wake-ups.
        witness.walk(&mut dispatch, &Step::Welcome);
        while !witness.open.is_empty() {
            match witness.at_work.first().copied() {
                Some(ticket) => witness.end(&mut dispatch, ticket, Turn::Over),
                None => {
                    witness.now = dispatch.wake_at().expect("it is stuck");
                    witness.walk(&mut dispatch, &Step::Time(0));
                }
            }
        }
        assert!(dispatch.is_idle());
    }
}
