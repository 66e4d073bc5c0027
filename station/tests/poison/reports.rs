//! What nodes say unasked and should not: reports that are forged or collide with what is known, and
//! garbage about transfers. Nothing is made of it, and each is counted under the name of whoever sent it.

use serde_json::{Value, json};
use steward_protocol::{
    Digest, EventId, Frame, MessageId, Order, Origin, ReportEvent, Sealed, State,
    transfer::{Chunk, Packet, Transfer, What},
};
use uuid::Uuid;

use super::{
    Harbour,
    forged::{ack, id, origin},
    raw::{Raw, RawFrame},
};
use crate::support::{eventually, state_of};

/// Returns an order of `node` to itself.
fn own_order(id: MessageId, node: &str, words: &str) -> Sealed {
    let at = jiff::Timestamp::now();
    let day = jiff::SignedDuration::from_hours(24);
    let order = Order {
        id,
        from: "central".parse().expect("a name"),
        to: node.parse().expect("a name"),
        subject: format!("{node}.command.shellcommand.operatingsystem")
            .parse()
            .expect("a subject"),
        issued_at: at,
        expires_at: at.checked_add(day).expect("tomorrow"),
        submitted_by: format!("node:{node}"),
        retry_of: None,
        timeout_ms: 1000,
        ordered: false,
        idempotent: false,
        success_codes: vec![0],
        stream: false,
        body: serde_json::value::to_raw_value(&json!({ "data": ["echo", words] })).expect("JSON"),
    };
    Sealed::seal(order).expect("small")
}

fn report(sender: &str, send: &Origin, event: ReportEvent) -> Vec<u8> {
    let send = send.clone();
    let payload = Frame { send, body: event }.encode().expect("small");
    let subject = format!("central.event.report.operatingsystem.{sender}");
    RawFrame::plain(&subject, &payload).bytes()
}

fn told(order: &Sealed) -> ReportEvent {
    let id = order.order().id;
    ReportEvent {
        id: EventId(id.0),
        at: jiff::Timestamp::now(),
        source: "schedule:forged".to_owned(),
        order: serde_json::value::RawValue::from_string(order.text().to_owned()).expect("JSON"),
        ack: ack(id, order.digest(), State::Succeeded, 0),
    }
}

impl Harbour {
    /// Returns who a node is, as the station knows it.
    fn origin_of(&self, name: &str) -> Origin {
        let node = self.world.json(&["node", "show", name, "-o", "json"]);
        origin(id(&node["instance"]), id(&node["journal_id"]))
    }

    /// Returns how often `kind` was counted against `sender`.
    fn counted(&self, sender: &str, kind: &str) -> u64 {
        let status = self.status();
        let offenders = status["offenders"].as_array().cloned().unwrap_or_default();
        let found = offenders
            .into_iter()
            .find(|offender| offender["sender"] == sender);
        found
            .and_then(|found| found["kinds"][kind].as_u64())
            .unwrap_or(0)
    }

    /// Returns every message and what became of it, without what changes by itself.
    fn messages(&self) -> Vec<Value> {
        let list = self
            .world
            .json(&["msg", "ls", "-o", "json", "--limit", "0"]);
        let list = list.as_array().cloned().unwrap_or_default();
        let ids = list.iter().filter_map(|message| message["id"].as_str());
        ids.map(|id| self.world.json(&["msg", "show", id, "-o", "json"]))
            .collect()
    }
}

#[test]
fn poison_forged_reports_create_and_change_nothing_and_are_named() {
    let harbour = Harbour::new();
    let gate = harbour.world.folder.path().join("gate");
    let script = format!("while [ ! -e '{}' ]; do sleep 0.05; done", gate.display());
    harbour.world.drop_file(
        "held.json",
        &json!([{ "to": ["ship1"], "method": "shellcommand", "domain": "operatingsystem",
                  "name": "held", "data": ["sh", "-c", script] }])
        .to_string(),
    );
    let held = eventually("the command to run", || {
        let id = harbour.world.message_called("held")?;
        let message = harbour.world.json(&["msg", "show", &id, "-o", "json"]);
        (state_of(&message, "ship1") == "running").then_some(message)
    });
    let held = MessageId(id(&held["id"]));
    let (ship1, ship2) = (harbour.origin_of("ship1"), harbour.origin_of("ship2"));
    let stranger = origin(Uuid::new_v4(), Uuid::new_v4());
    let raw = Raw::connect(&harbour.world.url);

    // What is not believed does not stand for what is: the same bytes from a stranger come first.
    let honest = own_order(MessageId(Uuid::now_v7()), "ship1", "honest");
    let mut both = report("ship1", &stranger, told(&honest));
    both.extend(report("ship1", &ship1, told(&honest)));
    raw.send(&both);
    let known = honest.order().id.to_string();
    eventually("the honest report to be stored", || {
        let found = harbour
            .world
            .steward(&["msg", "show", &known, "-o", "json"]);
        found.status.success().then_some(())
    });
    assert_eq!(harbour.counted("ship1", "report_held_back"), 1);

    let before = harbour.messages();
    let fresh = || MessageId(Uuid::now_v7());
    let own = |node: &str| own_order(fresh(), node, "forged");
    let with = |change: &dyn Fn(&mut ReportEvent)| {
        let mut event = told(&own("ship2"));
        change(&mut event);
        event
    };
    let collides = |id, node| told(&own_order(id, node, "forged"));
    for (what, sender, origin, event, kind) in [
        (
            "an order the station sent to this node",
            "ship1",
            &ship1,
            collides(held, "ship1"),
            "report_conflict",
        ),
        (
            "an order the station sent to another node",
            "ship2",
            &ship2,
            collides(held, "ship2"),
            "report_conflict",
        ),
        (
            "what another node reported",
            "ship2",
            &ship2,
            collides(honest.order().id, "ship2"),
            "report_conflict",
        ),
        (
            "its own report, changed",
            "ship1",
            &ship1,
            collides(honest.order().id, "ship1"),
            "report_conflict",
        ),
        (
            "another node's report as it was",
            "ship2",
            &ship2,
            told(&honest),
            "garbage_sender",
        ),
        (
            "another node's order",
            "ship2",
            &ship2,
            told(&own("ship1")),
            "garbage_sender",
        ),
        (
            "another node's journal",
            "ship2",
            &ship1,
            told(&own("ship2")),
            "report_held_back",
        ),
        (
            "somebody nobody knows",
            "evil",
            &stranger,
            told(&own("evil")),
            "report_held_back",
        ),
        (
            "an order that is not over",
            "ship2",
            &ship2,
            with(&|event| event.ack.state = State::Running),
            "garbage_report",
        ),
        (
            "the end of another order",
            "ship2",
            &ship2,
            with(&|event| event.ack.id = held),
            "garbage_report",
        ),
        (
            "an event of another name",
            "ship2",
            &ship2,
            with(&|event| event.id = EventId(Uuid::now_v7())),
            "garbage_report",
        ),
        (
            "a success that contradicts itself",
            "ship2",
            &ship2,
            with(&|event| {
                if let Some(outcome) = &mut event.ack.outcome {
                    outcome.exit_code = Some(1);
                }
            }),
            "garbage_report",
        ),
        (
            "an operator's order",
            "ship2",
            &ship2,
            with(&|event| event.source = "uid:0".to_owned()),
            "garbage_report",
        ),
    ] {
        let count = harbour.counted(sender, kind);
        raw.send(&report(sender, origin, event));
        eventually(&format!("{what}: {kind} counted against {sender}"), || {
            (harbour.counted(sender, kind) == count + 1).then_some(())
        });
        assert_eq!(harbour.messages(), before, "{what}");
    }
    std::fs::write(&gate, "").expect("opened");
    let message = harbour.world.await_final("held");
    assert_eq!(state_of(&message, "ship1"), "succeeded");
}

#[test]
fn poison_in_transfers_is_counted_and_named() {
    let harbour = Harbour::new();
    let raw = Raw::connect(&harbour.world.url);
    let unknown = Transfer {
        id: MessageId(Uuid::now_v7()),
        digest: Digest::of(b"no order"),
        what: What::Output,
    };
    let chunk = Chunk {
        transfer: unknown,
        attempt: 1,
        offset: 0,
        bytes: 4,
        blake3: Digest::of(b"junk"),
        end: None,
    };
    let packet = Packet::encode(harbour.origin_of("ship2"), chunk, b"junk").expect("small");
    let mut damaged = packet.clone();
    damaged.pop();
    for (method, payload, kind) in [
        ("output", &b"garbage"[..], "garbage_output"),
        ("output", &damaged, "garbage_output"),
        ("want", b"{}", "garbage_want"),
        ("output", &packet, "transfer_unknown_order"),
    ] {
        let count = harbour.counted("ship2", kind);
        let subject = format!("central.event.{method}.operatingsystem.ship2");
        raw.send(&RawFrame::plain(&subject, payload).bytes());
        eventually(&format!("{kind} to be counted against ship2"), || {
            (harbour.counted("ship2", kind) == count + 1).then_some(())
        });
    }
    let node = harbour.world.json(&["node", "show", "ship2", "-o", "json"]);
    assert_eq!(node["garbage"]["garbage_output"], 2, "{node}");
    let faults = eventually("a fault that names it", || {
        let events = harbour.world.json(&["events", "-o", "json"]).to_string();
        events
            .contains("ship2 sends what cannot be believed")
            .then_some(events)
    });
    assert!(faults.contains("garbage_output"), "{faults}");
}
