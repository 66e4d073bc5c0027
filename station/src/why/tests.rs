//! Tests of the explanations: one row per cause.

use jiff::SignedDuration;
use steward_protocol::{Deferral, InstanceId, Subject};
use uuid::Uuid;

use super::*;
use crate::{
    courier::Ahead,
    view::{CancelView, Presence, TransitionView},
};

mod ends;

fn at(minutes: i64) -> Timestamp {
    let start: Timestamp = "2026-11-21T08:00:00Z".parse().expect("a time");
    start + SignedDuration::from_mins(minutes)
}

fn id(number: u128) -> MessageId {
    MessageId(Uuid::from_u128(number))
}

fn subject() -> Subject {
    "ship1.command.shellcommand.operatingsystem"
        .parse()
        .expect("a subject")
}

/// Everything an explanation rests on, to be changed row by row.
struct World {
    message: MessageView,
    delivery: DeliveryView,
    node: Option<NodeView>,
    outlook: Option<Outlook>,
    broker: BrokerView,
}

impl World {
    /// A delivery accepted at 08:00, for a node that is online.
    fn new() -> Self {
        let delivery = serde_json::json!({ "node": "ship1", "subject": subject(), "state": "accepted",
            "since": at(0), "observed_by": "central", "attempts": 0 });
        let message = serde_json::json!({ "id": id(1), "name": "restart", "source": "api:run",
            "submitted_by": "uid:7", "accepted_at": at(0), "expires_at": at(60), "timeout_ms": 300_000,
            "version": 1, "deliveries": [] });
        let mut world = Self {
            message: serde_json::from_value(message).expect("a message"),
            delivery: serde_json::from_value(delivery).expect("a delivery"),
            node: Some(NodeView {
                name: "ship1".parse().expect("a name"),
                state: Presence::Online,
                since: at(-5),
                reason: None,
                last_seen: Some(at(9)),
                instance: Some(InstanceId(Uuid::from_u128(1))),
                journal_id: None,
                version: None,
                boot_id: None,
                labels: std::collections::BTreeMap::new(),
                skew_ms: None,
                round_trip_us: None,
                conflict: None,
                open: 1,
                processes: Vec::new(),
                facts: None,
                budgets: std::collections::BTreeMap::new(),
                garbage: std::collections::BTreeMap::new(),
                fault_count: 0,
                faults: Vec::new(),
            }),
            outlook: Some(Outlook {
                connected: true,
                ready: true,
                ordered: true,
                sent_at: None,
                next_at: Some(at(10)),
                deferral: None,
                deaf_at: None,
                ahead: None,
            }),
            broker: BrokerView {
                url: "nats://127.0.0.1:4222".to_owned(),
                connected: true,
                since: at(-9),
                version: None,
                reason: None,
            },
        };
        world.step(State::Accepted, 0, "central");
        world
    }

    /// The delivery entered `state` after so many minutes, on somebody's word.
    fn step(&mut self, state: State, minutes: i64, by: &str) {
        let delivery = &mut self.delivery;
        (delivery.state, delivery.since) = (state, at(minutes));
        delivery.observed_by = by.to_owned();
        delivery.transitions.push(TransitionView {
            state,
            at: at(minutes),
            observed_by: by.to_owned(),
            reason: None,
        });
        if state == State::Sent {
            delivery.attempts = 1;
            self.outlook().sent_at = Some(at(minutes));
        }
        if state.is_final() {
            self.outlook = None;
        }
    }

    fn sent_and(mut self, state: State, by: &str) -> Self {
        self.step(State::Sent, 1, "central");
        self.step(state, 2, by);
        self
    }

    fn sent() -> Self {
        let mut world = Self::new();
        world.step(State::Sent, 1, "central");
        world
    }

    fn outlook(&mut self) -> &mut Outlook {
        self.outlook.as_mut().expect("it is open")
    }

    fn node(&mut self) -> &mut NodeView {
        self.node.as_mut().expect("it is known")
    }

    fn away(mut self, presence: Presence) -> Self {
        self.node().state = presence;
        self.node().since = at(5);
        self.node().reason = Some("silent for 40.0 s, heartbeat 10.0 s".to_owned());
        if let Some(outlook) = &mut self.outlook {
            outlook.ready = false;
        }
        self
    }

    fn because(mut self, reason: &str) -> Self {
        self.delivery.reason = Some(reason.to_owned());
        self
    }

    fn cancel(mut self) -> Self {
        self.delivery.cancel = Some(CancelView {
            at: at(6),
            by: "uid:0".to_owned(),
        });
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn told(&self) -> Vec<Sentence> {
        explain(&Facts {
            now: at(10),
            station: &"central".parse().expect("a name"),
            message: &self.message,
            delivery: &self.delivery,
            node: self.node.as_ref(),
            outlook: self.outlook.as_ref(),
            broker: &self.broker,
        })
    }
}

/// Checks that the explanation has these sentences, in this order, and ends with the last of them.
fn check(world: &World, expected: &[&str]) {
    let told = world.told();
    let texts: Vec<&str> = told.iter().map(|sentence| sentence.text.as_str()).collect();
    let mut rest = texts.iter();
    for sentence in expected {
        assert!(
            rest.any(|text| text.contains(sentence)),
            "not told, or not here: {sentence}\n{texts:#?}"
        );
    }
    assert_eq!(rest.next(), None, "told after the last: {texts:#?}");
}

#[test]
fn it_begins_with_who_asked_for_what_and_when() {
    let told = World::new().told();
    let first = &told[0];
    assert_eq!(
        first.text,
        format!(
            "Message {} (\"restart\") for ship1 was accepted at 2026-11-21T08:00:00Z from api:run; uid:7 submitted it.",
            id(1)
        )
    );
    assert_eq!(
        (first.at, first.by.as_deref()),
        (Some(at(0)), Some("central"))
    );
}

#[test]
fn what_was_never_sent_says_what_it_waits_for() {
    let never = "It has never been sent, so it has certainly not run.";
    check(
        &World::new(),
        &[
            never,
            "ship1 is online",
            "as soon as ship1 has room for it; otherwise it expires at 2026-11-21T09:00:00Z.",
        ],
    );
    check(
        &World::new().with(|world| world.node = None),
        &[
            never,
            "Nobody has ever heard of ship1",
            "It is sent when an agent says hello as ship1; check the name with steward node ls",
        ],
    );
    check(
        &World::new().away(Presence::Offline),
        &[
            never,
            "ship1 is offline since 2026-11-21T08:05:00Z (silent for 40.0 s, heartbeat 10.0 s); it was last heard at 2026-11-21T08:09:00Z.",
            "It is sent with the next hello of ship1",
        ],
    );
    check(
        &World::new().away(Presence::Unknown),
        &[
            "ship1 has not been heard since this station started",
            "the next hello of ship1",
        ],
    );
    check(
        &World::new().away(Presence::Online).with(|world| {
            world.node().conflict = Some("belongs to the ledger x".to_owned());
        }),
        &[
            "There is a conflict about who ship1 is: belongs to the ledger x.",
            "the next hello of ship1",
        ],
    );
    check(
        &World::new().with(|world| {
            world.broker.connected = false;
            world.broker.reason = Some("connection refused".to_owned());
        }),
        &[
            never,
            "no connection to its broker at nats://127.0.0.1:4222 since 2026-11-21T07:51:00Z (connection refused).",
            "when the broker is back and ship1 says hello",
        ],
    );
    check(
        &World::new().with(|world| {
            world.outlook().ahead = Some(Ahead {
                id: id(9),
                state: State::Deferred,
                count: 8,
            });
        }),
        &[
            never,
            &format!(
                "before it comes message {}, which is deferred and 7 more",
                id(9)
            ),
            "when it comes near the front",
        ],
    );
}

#[test]
fn a_repetition_says_what_holds_it_and_both_know_each_other() {
    let held = World::new().with(|world| {
        world.message.retry_of = Some(id(9));
        world.delivery.held_by = vec![id(9)];
    });
    check(
        &held,
        &[
            &format!("It repeats message {}.", id(9)),
            &format!(
                "held until message {}, which it repeats, is settled on ship1",
                id(9)
            ),
            &format!(
                "cancelled if that one turns out to have succeeded; what that one waits for: steward msg why {} ship1.",
                id(9)
            ),
        ],
    );
    let old = World::new().sent_and(State::Failed, "ship1").with(|world| {
        world.message.retried_by = vec![id(2), id(3)];
    });
    check(
        &old,
        &[
            &format!(
                "It has been repeated by message {}, and by 1 before it",
                id(3)
            ),
            "failed",
            "To run it again",
        ],
    );
}

#[test]
fn what_was_sent_does_not_claim_that_it_arrived() {
    let silent =
        "ship1 has not answered; whether it arrived, and whether it ran, cannot be told from here.";
    check(
        &World::sent().with(|world| {
            world.outlook().next_at = Some(at(12));
        }),
        &[
            "It was sent once, at 2026-11-21T08:01:00Z.",
            silent,
            "It is sent again at 2026-11-21T08:12:00Z if ship1 has not answered by then. Without a word by 2026-11-21T09:00:00Z it becomes unknown",
        ],
    );
    check(
        &World::sent().with(|world| {
            world.delivery.attempts = 4;
            world.outlook().sent_at = Some(at(8));
        }),
        &[
            "It was sent 4 times, first at 2026-11-21T08:01:00Z and last at 2026-11-21T08:08:00Z.",
            silent,
            "sent again at once",
        ],
    );
    check(
        &World::sent().away(Presence::Offline).with(|world| {
            world.outlook().deaf_at = Some(at(3));
        }),
        &[
            "At 2026-11-21T08:03:00Z the broker said that nobody listens for ship1",
            silent,
            "ship1 is offline since",
            "It is sent again with the next hello of ship1. Without a word",
        ],
    );
}

#[test]
fn a_deferral_is_explained() {
    for (deferral, meaning) in [
        (Deferral::Busy, "Its queue is full"),
        (Deferral::Storage, "cannot write its journal"),
        (Deferral::StaleInstance, "an earlier start of its agent"),
        (Deferral::StaleEpoch, "a later reign of this station"),
        (Deferral::ForeignLedger, "--accept-ledger"),
        (Deferral::Gap, "It misses an earlier order"),
        (Deferral::Stopping, "Its agent is ending"),
        (
            Deferral::Stopped,
            "start it by a message with the method processes",
        ),
    ] {
        let world = World::new()
            .sent_and(State::Deferred, "ship1")
            .because(deferral.as_str());
        let said = format!(
            "ship1 asked at 2026-11-21T08:02:00Z to have it later: {}.",
            deferral.as_str()
        );
        // From the ledger alone, and from what the courier knows.
        check(&world, &[&said, meaning, "It is sent again at once."]);
        let world = world.with(|world| world.outlook().deferral = Some(deferral));
        check(&world, &[&said, meaning, "It is sent again at once."]);
    }
    check(
        &World::new()
            .sent_and(State::Deferred, "ship1")
            .because("moon: full"),
        &["to have it later: moon: full.", "It is sent again at once."],
    );
}

#[test]
fn what_the_node_has_says_what_it_does_with_it() {
    check(
        &World::new()
            .sent_and(State::Received, "ship1")
            .with(|world| {
                world.outlook().ahead = Some(Ahead {
                    id: id(9),
                    state: State::Running,
                    count: 1,
                });
            }),
        &[
            "ship1 stored it in its journal; the station heard so at 2026-11-21T08:02:00Z.",
            &format!("before it comes message {}, which is running;", id(9)),
            &format!(
                "what it has not started by 2026-11-21T09:00:00Z it never will. To stop it: steward msg cancel {} --to ship1.",
                id(1)
            ),
        ],
    );
    let process = serde_json::json!({ "subject": subject(), "state": "stopped", "since": at(4), "restarts": 5, "last_fault": "panic" });
    check(
        &World::new()
            .sent_and(State::Received, "ship1")
            .with(|world| {
                world.node().processes = vec![serde_json::from_value(process).expect("a process")];
            }),
        &[
            "is stopped, given up after its faults or by an operator; its last fault: panic.",
            "when its turn comes",
        ],
    );
    check(
        &World::new().sent_and(State::Running, "ship1"),
        &[
            "ship1 said that it started it; the station heard so at 2026-11-21T08:02:00Z.",
            "at its timeout of 5m, at about 2026-11-21T08:07:00Z. To stop it now: steward msg cancel",
        ],
    );
    check(
        &World::new()
            .sent_and(State::Running, "ship1")
            .away(Presence::Late),
        &[
            "said that it started it",
            "ship1 is late since",
            "To stop it now",
        ],
    );
}

#[test]
fn unknown_is_no_failure() {
    check(
        &World::sent()
            .away(Presence::Offline)
            .with(|world| world.step(State::Unknown, 61, "central")),
        &[
            "It was sent once",
            "ship1 never said a word about it.",
            "nothing proves how it ended, or that it never started",
            "ship1 is offline",
            "That is no failure: when ship1 returns it says what really happened",
        ],
    );
    check(
        &World::new()
            .sent_and(State::Running, "ship1")
            .with(|world| world.step(State::Unknown, 61, "central")),
        &[
            "The last that ship1 said of it was running, at 2026-11-21T08:02:00Z.",
            "no failure",
        ],
    );
    check(
        &World::sent()
            .with(|world| world.step(State::Unknown, 61, "central"))
            .cancel(),
        &[
            "uid:0 asked at 2026-11-21T08:06:00Z to cancel it; ship1 has not confirmed that, so it stays unknown until then.",
            "until then nothing more can be known.",
        ],
    );
}

#[test]
fn a_cancellation_on_its_way_says_whether_it_was_sent() {
    check(
        &World::sent().away(Presence::Offline).cancel(),
        &[
            "It was sent once",
            "ship1 is offline",
            "so it stays sent until then.",
            "The cancellation is sent with the next hello of ship1.",
        ],
    );
    check(
        &World::new()
            .sent_and(State::Running, "ship1")
            .cancel()
            .with(|world| {
                world.outlook().sent_at = Some(at(7));
                world.outlook().next_at = Some(at(11));
            }),
        &[
            "so it stays running until then.",
            "The cancellation was last sent at 2026-11-21T08:07:00Z.",
            "ship1 stops the command when the cancellation reaches it, and says how it ended. The cancellation is sent again at 2026-11-21T08:11:00Z",
        ],
    );
}

#[test]
fn every_state_is_explained_whatever_is_missing() {
    for state in State::ALL {
        for by in ["central", "ship1"] {
            let mut world = World::new();
            world.step(state, 2, by);
            (world.node, world.outlook) = (None, None);
            world.message.timeout_ms = None;
            let told = world.told();
            assert!(told.len() >= 2, "{state}");
            assert!(
                told.iter().all(|sentence| sentence.text.ends_with('.')),
                "{state}: {told:?}"
            );
        }
    }
}
