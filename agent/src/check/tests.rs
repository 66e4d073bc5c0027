//! The order of the checks, one row each.

use steward_protocol::{Order, Sealed};
use uuid::Uuid;

use super::*;

const INSTANCE: InstanceId = InstanceId(Uuid::from_u128(1));
const LEDGER: LedgerId = LedgerId(Uuid::from_u128(2));

fn send() -> Send {
    Send {
        v: 1,
        ledger_id: LEDGER,
        epoch: 5,
        instance: INSTANCE,
        pos: 1,
        low: 0,
        seq: None,
        seq_low: None,
        attempt: 1,
        ttl_left_ms: 1,
    }
}

fn order(subject: &str, body: &str) -> Order {
    let subject: Subject = subject.parse().expect("a subject");
    Order {
        id: MessageId(Uuid::from_u128(9)),
        from: "central".parse().expect("a name"),
        to: subject.node.clone(),
        subject,
        issued_at: jiff::Timestamp::UNIX_EPOCH,
        expires_at: jiff::Timestamp::UNIX_EPOCH,
        submitted_by: String::new(),
        retry_of: None,
        timeout_ms: 1,
        ordered: false,
        idempotent: false,
        success_codes: Vec::new(),
        stream: false,
        body: serde_json::from_str(body).expect("JSON"),
    }
}

fn bytes(order: Order) -> Vec<u8> {
    let body = Sealed::seal(order).expect("an order");
    Envelope { send: send(), body }
        .encode()
        .expect("an envelope")
}

#[test]
fn a_frame_becomes_an_order_or_is_counted_as_what_it_is() {
    let here: Subject = "ship1.command.shellcommand.x".parse().expect("a subject");
    let good = order("ship1.command.shellcommand.x", "{}");
    assert!(read(&here, &bytes(good.clone())).is_ok());
    let elsewhere = order("ship1.command.shellcommand.y", "{}");
    let mut other = good.clone();
    other.to = "ship2".parse().expect("a name");
    for (name, frame, expected) in [
        ("empty", Vec::new(), Counter::GarbageFrame),
        ("too large", vec![b' '; 600_000], Counter::GarbageFrame),
        ("another subject", bytes(elsewhere), Counter::Redirected),
        ("another node", bytes(other), Counter::Redirected),
    ] {
        match read(&here, &frame) {
            Err(Unreadable::Garbage { counter, .. }) => assert_eq!(counter, expected, "{name}"),
            found => panic!("{name} gave {found:?}"),
        }
    }
    let newer = String::from_utf8(bytes(good))
        .expect("text")
        .replace("\"v\":1", "\"v\":9");
    assert!(matches!(
        read(&here, newer.as_bytes()),
        Err(Unreadable::Version { reason, .. }) if reason.starts_with("version: ")
    ));
}

#[test]
fn an_order_is_admitted_by_instance_then_welcome_then_ledger_then_epoch() {
    let standing = Standing {
        instance: INSTANCE,
        welcomed: true,
        pinned: Some((LEDGER, 5)),
    };
    let unwelcome = Standing {
        welcomed: false,
        ..standing
    };
    let unpinned = Standing {
        pinned: None,
        ..standing
    };
    let ignored = Err(Bar::Ignore(Counter::BeforeWelcome));
    let other = LedgerId(Uuid::nil());
    let stale = Send {
        instance: InstanceId(Uuid::nil()),
        ledger_id: other,
        ..send()
    };
    for (name, standing, send, expected) in [
        ("good", standing, send(), Ok(())),
        (
            "a later reign",
            standing,
            Send { epoch: 6, ..send() },
            Ok(()),
        ),
        (
            "stale, foreign",
            standing,
            stale.clone(),
            Err(Bar::Defer(Deferral::StaleInstance)),
        ),
        (
            "stale, unwelcome",
            unwelcome,
            stale,
            Err(Bar::Defer(Deferral::StaleInstance)),
        ),
        ("unwelcome", unwelcome, send(), ignored),
        ("unpinned", unpinned, send(), ignored),
        (
            "foreign",
            standing,
            Send {
                ledger_id: other,
                epoch: 1,
                ..send()
            },
            Err(Bar::Defer(Deferral::ForeignLedger)),
        ),
        (
            "an earlier reign",
            standing,
            Send { epoch: 4, ..send() },
            Err(Bar::Defer(Deferral::StaleEpoch)),
        ),
    ] {
        assert_eq!(admit(&standing, &send), expected, "{name}");
    }
}

#[test]
fn policy_refuses_with_a_reason_or_returns_the_work() {
    let allowed: BTreeSet<Domain> = ["x", "y"].map(|name| name.parse().expect("a name")).into();
    let data = r#"{"data":["ls"]}"#;
    for (subject, body, domains, expected) in [
        ("ship1.command.shellcommand.x", data, None, ""),
        ("ship1.command.shellcommand.z", data, None, ""),
        ("ship1.command.shellcommand.x", data, Some(&allowed), ""),
        (
            "ship1.command.shellcommand.z",
            data,
            Some(&allowed),
            "policy: domain \"z\"",
        ),
        (
            "ship1.command.shellcommand.x",
            "{}",
            Some(&allowed),
            "bad body: data",
        ),
        ("ship1.command.hello.x", "null", Some(&allowed), ""),
        (
            "ship1.command.teleport.x",
            data,
            None,
            "unknown method teleport",
        ),
        (
            "ship1.command.confirm.x",
            data,
            None,
            "unknown method confirm",
        ),
        ("ship1.event.shellcommand.x", data, None, "event: "),
    ] {
        let all = Methods::default();
        let all = Policy {
            methods: &all,
            domains,
        };
        let refusal = policy(&order(subject, body), all).err().unwrap_or_default();
        let refusal = refusal
            .replace("\"teleport\"", "teleport")
            .replace("\"confirm\"", "confirm");
        let fits = refusal.starts_with(expected) && refusal.is_empty() == expected.is_empty();
        assert!(fits, "{subject} {body}: {refusal:?}");
    }
}

#[test]
fn a_refusal_by_policy_names_what_this_node_does_take() {
    let allowed: BTreeSet<Domain> = ["y", "x"].map(|name| name.parse().expect("a name")).into();
    for (subject, expected) in [
        (
            "ship1.command.shellcommand.z",
            "policy: domain \"z\" is not one of this node's domains: x, y",
        ),
        (
            "ship1.event.syslog.x",
            "event: this node takes no event syslog from its station; it takes the event textlogging, and commands: shellcommand, hello, ping, filewrite, fileappend, filefetch, filesend, tailfile, httpget, processes, schedule, textlogging",
        ),
    ] {
        let given = Policy {
            methods: &Methods::default(),
            domains: Some(&allowed),
        };
        let refused = policy(&order(subject, r#"{"data":["ls"]}"#), given);
        assert_eq!(refused, Err(expected.to_owned()));
    }
}

#[test]
fn a_method_that_the_config_leaves_out_is_refused_with_those_it_names_and_hello() {
    let (some, none) = (Methods::only([Method::Ping]), None);
    for (subject, body, expected) in [
        ("ship1.command.ping.x", "{}", None),
        ("ship1.command.hello.x", "{}", None),
        (
            "ship1.command.shellcommand.x",
            r#"{"data":["ls"]}"#,
            Some("policy: method \"shellcommand\" is not one that this node offers: hello, ping"),
        ),
        // What is wrong with it comes second.
        (
            "ship1.command.shellcommand.x",
            "{}",
            Some("policy: method \"shellcommand\" is not one that this node offers: hello, ping"),
        ),
        (
            "ship1.command.teleport.x",
            "{}",
            Some("unknown method \"teleport\"; this node offers: hello, ping"),
        ),
        (
            "ship1.event.textlogging.x",
            r#"{"data":["up"]}"#,
            Some("policy: method \"textlogging\" is not one that this node offers: hello, ping"),
        ),
        (
            "ship1.event.syslog.x",
            "{}",
            Some(
                "event: this node takes no event syslog from its station; it takes commands: hello, ping",
            ),
        ),
    ] {
        let given = Policy {
            methods: &some,
            domains: none,
        };
        let refusal = policy(&order(subject, body), given).err();
        assert_eq!(refusal.as_deref(), expected, "{subject}");
    }
}

#[test]
fn a_frame_is_routed_by_its_subject() {
    let node: NodeName = "ship1".parse().expect("a name");
    let parsed = |text: &str| text.parse::<Subject>().expect("a subject");
    let order = "ship1.command.anything.x";
    assert_eq!(route(order, &node), Route::Order(parsed(order)));
    let cancel = "ship1.command.cancel.x";
    assert_eq!(route(cancel, &node), Route::Cancel(parsed(cancel)));
    assert_eq!(route("ship1.event.welcome.node", &node), Route::Welcome);
    assert_eq!(route("ship1.event.confirm.any", &node), Route::Confirm);
    let event = "ship1.event.syslog.x";
    assert_eq!(route(event, &node), Route::Unwanted(parsed(event)));
    for garbage in [
        "ship2.command.a.b",
        "ship1",
        "ship1.command.a",
        "ship1.x.a.b",
        "",
        "ship1.command.a.b.c",
    ] {
        assert!(
            matches!(route(garbage, &node), Route::Garbage(_)),
            "{garbage:?}"
        );
    }
}

#[test]
fn a_cancellation_is_read_where_it_belongs_and_counted_elsewhere() {
    let here: Subject = "ship1.command.cancel.x".parse().expect("a subject");
    let frame = |target: &str| {
        let body = steward_protocol::Cancel {
            id: MessageId(Uuid::from_u128(9)),
            digest: Digest::of(b"an order"),
            subject: target.parse().expect("a subject"),
            at: jiff::Timestamp::UNIX_EPOCH,
            by: "ann".to_owned(),
        };
        let send = send();
        let frame = steward_protocol::Frame { send, body };
        frame.encode().expect("a frame")
    };
    let good = frame("ship1.command.shellcommand.x");
    assert!(read_cancel(&here, &good).is_ok());
    let newer = String::from_utf8(good)
        .expect("text")
        .replace("\"v\":1", "\"v\":9");
    let order = bytes(order("ship1.command.cancel.x", "{}"));
    for (name, bytes, expected) in [
        ("empty", Vec::new(), Counter::GarbageFrame),
        ("an order", order, Counter::GarbageFrame),
        ("a later version", newer.into_bytes(), Counter::GarbageFrame),
        (
            "another domain",
            frame("ship1.command.shellcommand.y"),
            Counter::Redirected,
        ),
        (
            "another node",
            frame("ship2.command.shellcommand.x"),
            Counter::Redirected,
        ),
    ] {
        match read_cancel(&here, &bytes) {
            Err((counter, _)) => assert_eq!(counter, expected, "{name}"),
            Ok(found) => panic!("{name} gave {found:?}"),
        }
    }
}
