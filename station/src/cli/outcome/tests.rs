//! Tests of the exit codes over deliveries.

use steward_protocol::MessageId;

use super::*;

fn delivery(node: &str, state: State, stdout: &[u8]) -> DeliveryView {
    let at = |text: &str| text.parse().expect("a time");
    DeliveryView {
        node: node.parse().expect("a name"),
        subject: format!("{node}.command.shellcommand.operatingsystem")
            .parse()
            .expect("a subject"),
        state,
        since: at("2026-11-21T08:00:01Z"),
        observed_by: node.to_owned(),
        attempts: 1,
        exit_code: state.is_final().then_some(0),
        signal: None,
        stdout: state.is_final().then(|| Output::whole(stdout)),
        stderr: None,
        reason: None,
        started_at: state.is_final().then(|| at("2026-11-21T08:00:00.5Z")),
        finished_at: state.is_final().then(|| at("2026-11-21T08:00:01Z")),
        digest: None,
        cancel: None,
        held_by: Vec::new(),
        transitions: Vec::new(),
        notes: Vec::new(),
    }
}

fn message(deliveries: Vec<DeliveryView>) -> MessageView {
    MessageView {
        id: "0190f000-0000-7000-8000-000000000001"
            .parse::<MessageId>()
            .expect("an id"),
        name: None,
        source: "api:run".to_owned(),
        submitted_by: "uid:0".to_owned(),
        accepted_at: "2026-11-21T08:00:00Z".parse().expect("a time"),
        expires_at: "2026-11-22T08:00:00Z".parse().expect("a time"),
        retry_of: None,
        retried_by: Vec::new(),
        timeout_ms: None,
        version: 1,
        deliveries,
    }
}

#[test]
fn nodes_that_came_out_alike_stand_under_one_heading() {
    let failed = DeliveryView {
        exit_code: Some(3),
        stderr: Some(Output::whole(b"boom \x1b[2J\n")),
        ..delivery("ship2", State::Failed, b"")
    };
    let away = DeliveryView {
        reason: Some("waits for an unknown node".to_owned()),
        ..delivery("ship4", State::Accepted, b"")
    };
    let view = message(vec![
        delivery("ship1", State::Succeeded, b"Linux\nhere"),
        failed,
        delivery("ship3", State::Succeeded, b"Linux\nhere"),
        away,
    ]);
    assert_eq!(
        grouped(&view, Paint::Plain),
        "\
ship1, ship3 (2 nodes): succeeded, exit code 0
  Linux
  here

ship2: failed, exit code 3, 0.50s
  stderr:
    boom \\x1b[2J

ship4: accepted, waits for an unknown node
"
    );
    assert_eq!(
        summary([&view]),
        "4 deliveries: 1 accepted, 2 succeeded, 1 failed"
    );
}

#[test]
fn a_cut_output_says_how_much_is_missing() {
    let mut output = Output::whole(&b"0123456789".repeat(10));
    output.shrink(40);
    assert_eq!(
        readable(&output),
        "012345678901234567890123456789\n… 60 bytes left out …\n0123456789"
    );
    assert_eq!(readable(&Output::whole(b"")), "");
    assert_eq!(
        left_out("stdout", &output).as_deref(),
        Some(
            "stdout: 60 bytes of 100 left out after the first 30; the first 30 and the last 10 are kept, no more is stored anywhere"
        )
    );
    assert_eq!(left_out("stdout", &Output::whole(b"x")), None);
}

#[test]
fn a_signal_and_a_reason_are_part_of_the_verdict() {
    let stopped = DeliveryView {
        exit_code: None,
        signal: Some(15),
        reason: Some("ran longer than 1s".to_owned()),
        ..delivery("ship1", State::TimedOut, b"")
    };
    assert_eq!(
        verdict(&stopped, Paint::Plain),
        "timed_out, signal 15, 0.50s, ran longer than 1s"
    );
}
