//! ACKs that were never earned: none of them moves a delivery, and each is counted under the name
//! of whoever sent it.

use serde_json::{Value, json};
use steward_protocol::{
    Ack, Digest, Frame, Hello, InstanceId, JournalId, MessageId, Origin, Outcome, State,
};
use uuid::Uuid;

use super::{
    Harbour,
    raw::{Raw, RawFrame},
};
use crate::support::{delivery_to, eventually, state_of};

pub(super) fn origin(instance: Uuid, journal: Uuid) -> Origin {
    Origin {
        v: 1,
        instance: InstanceId(instance),
        journal_id: JournalId(journal),
        ledger_id: None,
    }
}

pub(super) fn ack(id: MessageId, digest: Digest, state: State, exit_code: i32) -> Ack {
    let at = jiff::Timestamp::now();
    Ack {
        id,
        digest,
        state,
        at,
        reason: None,
        deferral: None,
        expected_seq: None,
        outcome: Some(Outcome {
            exit_code: Some(exit_code),
            signal: None,
            started_at: at,
            finished_at: at,
            stdout: None,
            stderr: None,
        }),
    }
}

fn frame(sender: &str, send: Origin, body: Ack) -> Vec<u8> {
    let payload = Frame { send, body }.encode().expect("small");
    let subject = format!("central.event.ack.operatingsystem.{sender}");
    RawFrame::plain(&subject, &payload).bytes()
}

/// Returns a well-formed ACK of nobody for nothing.
pub(super) fn unknown_order(sender: &str) -> Vec<u8> {
    let (id, digest) = (MessageId(Uuid::now_v7()), Digest::of(b"anything"));
    let body = ack(id, digest, State::Succeeded, 0);
    frame(sender, origin(Uuid::new_v4(), Uuid::new_v4()), body)
}

/// Returns a hello of another journal every time, with as many ids as are believed.
pub(super) fn hello(sender: &str, counter: u64) -> Vec<u8> {
    let at = jiff::Timestamp::now();
    let ids: Vec<MessageId> = (0..20).map(|_| MessageId(Uuid::now_v7())).collect();
    let body = Hello {
        counter: u64::MAX - counter,
        boot_id: Uuid::new_v4().to_string(),
        version: "0.1.0".to_owned(),
        at,
        started_at: at,
        interval_ms: 1,
        round_trip_us: None,
        labels: std::collections::BTreeMap::new(),
        lanes: std::collections::BTreeMap::new(),
        open: ids.clone(),
        unconfirmed: ids,
        processes: Vec::new(),
        counters: std::collections::BTreeMap::new(),
        leaving: false,
        facts: None,
        budgets: std::collections::BTreeMap::new(),
    };
    let send = origin(Uuid::new_v4(), Uuid::new_v4());
    let payload = Frame { send, body }.encode().expect("small");
    RawFrame::plain(&format!("central.event.hello.node.{sender}"), &payload).bytes()
}

pub(super) fn id(value: &Value) -> Uuid {
    let text = value.as_str().expect("an id");
    text.parse().expect("an id")
}

#[test]
fn poison_forged_acks_move_nothing_and_are_named() {
    let harbour = Harbour::new();
    let gate = harbour.world.folder.path().join("gate");
    let script = format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display());
    harbour.world.drop_file(
        "held.json",
        &json!([{ "to": ["ship1"], "method": "shellcommand", "domain": "operatingsystem",
                  "name": "held", "data": ["sh", "-c", script] }])
        .to_string(),
    );
    let order = eventually("the command to run", || {
        let id = harbour.world.message_called("held")?;
        let message = harbour.world.json(&["msg", "show", &id, "-o", "json"]);
        (state_of(&message, "ship1") == "running").then_some(message)
    });
    let target = MessageId(id(&order["id"]));
    let digest: Digest = serde_json::from_value(delivery_to(&order, "ship1")["digest"].clone())
        .expect("the order's digest");
    let known = |name: &str| {
        let node = harbour.world.json(&["node", "show", name, "-o", "json"]);
        origin(id(&node["instance"]), id(&node["journal_id"]))
    };
    let (ship1, ship2) = (known("ship1"), known("ship2"));
    let stranger = origin(Uuid::new_v4(), Uuid::new_v4());
    let other = MessageId(Uuid::now_v7());
    let wrong = Digest::of(b"another order");
    let success = |id, digest| ack(id, digest, State::Succeeded, 0);

    let raw = Raw::connect(&harbour.world.url);
    for (sender, origin, body, kind) in [
        (
            "ship2",
            &ship2,
            success(target, digest),
            "ack_unknown_order",
        ),
        ("ship2", &ship2, success(other, digest), "ack_unknown_order"),
        ("ship2", &ship1, success(target, digest), "ack_held_back"),
        ("evil", &stranger, success(target, digest), "ack_held_back"),
        ("evil", &ship1, success(target, digest), "ack_held_back"),
        ("ship1", &stranger, success(target, digest), "ack_held_back"),
        ("ship1", &ship1, success(target, wrong), "ack_digest"),
        (
            "ship1",
            &ship1,
            ack(target, digest, State::Succeeded, 1),
            "ack_contradiction",
        ),
        (
            "ship1",
            &ship1,
            ack(target, digest, State::Accepted, 0),
            "ack_contradiction",
        ),
        (
            "ship1",
            &ship1,
            ack(target, digest, State::Unknown, 0),
            "ack_contradiction",
        ),
    ] {
        let counted = || {
            let status = harbour.status();
            let offenders = status["offenders"].as_array().cloned().unwrap_or_default();
            let found = offenders
                .into_iter()
                .find(|offender| offender["sender"] == sender);
            found
                .and_then(|found| found["kinds"][kind].as_u64())
                .unwrap_or(0)
        };
        let before = counted();
        raw.send(&frame(sender, origin.clone(), body));
        eventually(&format!("{kind} to be counted against {sender}"), || {
            (counted() == before + 1).then_some(())
        });
        let message = harbour
            .world
            .json(&["msg", "show", &target.to_string(), "-o", "json"]);
        assert_eq!(
            state_of(&message, "ship1"),
            "running",
            "after {kind} of {sender}"
        );
    }
    std::fs::write(&gate, "").expect("opened");
    let message = harbour.world.await_final("held");
    assert_eq!(state_of(&message, "ship1"), "succeeded");
    let node = harbour.world.json(&["node", "show", "ship2", "-o", "json"]);
    assert_eq!(node["garbage"]["ack_unknown_order"], 2, "{node}");
}
