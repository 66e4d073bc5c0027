//! Figures and words that other programs and people rely on, said once more and independently.

use std::time::Duration;

use jiff::Timestamp;
use steward_protocol::{
    Ack, DecodeError, Deferral, Digest, Envelope, Frame, MessageId, Outcome, Output, ProcessState,
    Sealed, State, SubjectFilter, Uplink,
    ack::AckError,
    envelope::EncodeError,
    filter::FilterError,
    limits::{self, MAX_FRAME, MAX_ORDER},
    retry::Backoff,
};
use uuid::Uuid;

fn ack(state: State) -> Ack {
    Ack {
        id: MessageId(Uuid::nil()),
        digest: Digest::of(b""),
        state,
        at: Timestamp::UNIX_EPOCH,
        reason: None,
        deferral: None,
        expected_seq: None,
        outcome: None,
    }
}

fn outcome(exit_code: Option<i32>) -> Outcome {
    Outcome {
        exit_code,
        signal: None,
        started_at: Timestamp::UNIX_EPOCH,
        finished_at: Timestamp::UNIX_EPOCH,
        stdout: None,
        stderr: None,
    }
}

#[test]
fn the_limits_are_those_of_the_design() {
    // Design section 8, except where the name says otherwise.
    assert_eq!(MAX_FRAME, 524_288);
    assert_eq!(MAX_ORDER, 262_144);
    assert_eq!(limits::OUTPUT_HEAD, 49_152);
    assert_eq!(limits::OUTPUT_TAIL, 16_384);
    assert_eq!(limits::DEFAULT_TIMEOUT.as_secs(), 300);
    assert_eq!(limits::MAX_TIMEOUT.as_secs(), 86_400);
    assert_eq!(limits::DEFAULT_EXPIRY.as_secs(), 86_400);
    assert_eq!(limits::MAX_EXPIRY.as_secs(), 7_776_000);
    assert_eq!(limits::HEARTBEAT.as_secs(), 10);
    assert_eq!(limits::TRUSTED_SKEW.as_secs(), 30);
    assert_eq!(limits::LANE_WINDOW, 8);
}

#[test]
fn every_state_has_its_word_and_seven_are_final() {
    let words = [
        ("accepted", State::Accepted, false),
        ("sent", State::Sent, false),
        ("received", State::Received, false),
        ("running", State::Running, false),
        ("succeeded", State::Succeeded, true),
        ("failed", State::Failed, true),
        ("timed_out", State::TimedOut, true),
        ("cancelled", State::Cancelled, true),
        ("rejected", State::Rejected, true),
        ("expired", State::Expired, true),
        ("interrupted", State::Interrupted, true),
        ("deferred", State::Deferred, false),
        ("unknown", State::Unknown, false),
    ];
    assert_eq!(words.len(), State::ALL.len());
    for (word, state, is_final) in words {
        assert_eq!(state.as_str(), word);
        assert_eq!(state.to_string(), word);
        assert_eq!(word.parse(), Ok(state));
        assert_eq!(state.is_final(), is_final, "{word}");
        let json = serde_json::to_string(&state).expect("a word");
        assert_eq!(json, format!("{word:?}"));
    }
    let error = "Succeeded"
        .parse::<State>()
        .expect_err("words are in lower case");
    assert!(error.to_string().contains("succeeded, failed"), "{error}");
}

#[test]
fn every_deferral_and_process_state_has_its_word() {
    let words = [
        (Deferral::Busy, "busy"),
        (Deferral::Storage, "storage"),
        (Deferral::StaleInstance, "stale instance"),
        (Deferral::StaleEpoch, "stale epoch"),
        (Deferral::ForeignLedger, "foreign ledger"),
        (Deferral::Gap, "gap"),
        (Deferral::Stopping, "stopping"),
        (Deferral::Stopped, "process stopped"),
        (Deferral::Other, "another reason"),
    ];
    for (deferral, word) in words {
        assert_eq!(deferral.as_str(), word);
    }
    let words = [
        (ProcessState::Idle, "idle"),
        (ProcessState::Running, "running"),
        (ProcessState::Restarting, "restarting"),
        (ProcessState::Stopped, "stopped"),
        (ProcessState::Other, "other"),
    ];
    for (state, word) in words {
        assert_eq!(state.as_str(), word);
    }
}

#[test]
fn an_ack_is_believed_only_as_far_as_it_supports_itself() {
    let success = |code| Ack {
        outcome: Some(outcome(code)),
        ..ack(State::Succeeded)
    };
    assert_eq!(success(Some(0)).check(&[0]), Ok(()));
    assert_eq!(success(Some(3)).check(&[0, 3]), Ok(()));
    for exit_code in [Some(1), None] {
        let refused = Err(AckError::FalseSuccess {
            exit_code,
            success_codes: vec![0],
        });
        assert_eq!(success(exit_code).check(&[0]), refused);
    }
    assert!(ack(State::Succeeded).check(&[0]).is_err(), "no outcome");

    for state in [State::Accepted, State::Sent, State::Unknown] {
        assert_eq!(ack(state).check(&[0]), Err(AckError::NotAnAgents(state)));
    }
    for state in State::ALL.into_iter().filter(|state| state.is_final()) {
        let put_off = Ack {
            deferral: Some(Deferral::Busy),
            ..ack(state)
        };
        assert_eq!(put_off.check(&[0]), Err(AckError::Deferral(state)));
    }
    let deferred = ack(State::Deferred);
    assert_eq!(
        deferred.check(&[0]),
        Err(AckError::Deferral(State::Deferred))
    );
    let deferred = Ack {
        deferral: Some(Deferral::Busy),
        ..deferred
    };
    assert_eq!(deferred.check(&[0]), Ok(()));
    assert_eq!(ack(State::Running).check(&[0]), Ok(()));
}

#[test]
fn outputs_are_cut_only_when_they_do_not_fit_and_then_to_equal_shares() {
    let noise: Vec<u8> = (0..50_000_u32)
        .map(|n| (n * 7 % 256) as u8 | 0x80)
        .collect();
    let whole = Ack {
        outcome: Some(Outcome {
            stdout: Some(Output::whole(&noise)),
            stderr: Some(Output::whole(&noise)),
            ..outcome(Some(0))
        }),
        ..ack(State::Succeeded)
    };
    let streams = |ack: &Ack| {
        let outcome = ack.outcome.clone().expect("there");
        (
            outcome.stdout.expect("there"),
            outcome.stderr.expect("there"),
        )
    };
    let needed = serde_json::to_vec(&streams(&whole)).expect("JSON").len();

    let mut fits = whole.clone();
    fits.fit(needed);
    assert_eq!(fits, whole);

    let mut tight = whole.clone();
    tight.fit(needed - 1);
    assert_ne!(tight, whole);

    let mut cut = whole.clone();
    cut.fit(40_000);
    let (stdout, stderr) = streams(&cut);
    // Half the room each, less what surrounds it, three quarters of it for base64.
    assert_eq!((stdout.kept(), stderr.kept()), (14_808, 14_808));
    assert_eq!((stdout.bytes, stdout.blake3), (50_000, Digest::of(&noise)));
    assert!(serde_json::to_vec(&(stdout, stderr)).expect("JSON").len() <= 40_000);
}

#[test]
fn text_stays_text_until_base64_is_shorter() {
    let is_text = |text: &str| {
        let json = serde_json::to_string(&Output::whole(text.as_bytes())).expect("JSON");
        let back: Output = serde_json::from_str(&json).expect("and back");
        assert_eq!(back, Output::whole(text.as_bytes()));
        json.contains("\"text\"")
    };
    // 300 bytes may grow by a third and 64.
    let quotes = |quotes: usize| format!("{}{}", "\"".repeat(quotes), "x".repeat(300 - quotes));
    assert!(is_text(&quotes(164)));
    assert!(!is_text(&quotes(165)));
    assert!(is_text(&"aaa\n".repeat(1000)), "a line break costs two");
    assert!(
        !is_text(&"\u{1}".repeat(300)),
        "a control character costs six"
    );
}

#[test]
fn lengths_that_contradict_each_other_are_no_output() {
    let written = |bytes: u64, truncated: bool, head: usize| {
        let blake3 = Digest::of(b"four");
        format!(
            r#"{{"text":"four","bytes":{bytes},"truncated":{truncated},"head_bytes":{head},"blake3":"{blake3}"}}"#
        )
    };
    let read = |text: String| serde_json::from_str::<Output>(&text).map(|output| output.bytes);
    assert_eq!(read(written(9, true, 3)).ok(), Some(9));
    assert_eq!(read(written(4, false, 4)).ok(), Some(4));
    for (bytes, truncated, head) in [(9, true, 5), (3, false, 3), (9, false, 3), (4, true, 3)] {
        let error = read(written(bytes, truncated, head)).expect_err("a contradiction");
        assert!(error.to_string().contains("contradict"), "{error}");
    }
}

#[test]
fn what_is_printed_of_an_output_names_its_length_and_its_bytes() {
    let text = format!("{:?}", Output::whole(b"Linux"));
    assert!(
        text.contains("bytes: 5") && text.contains("Linux"),
        "{text}"
    );
}

#[test]
fn a_wait_above_a_floor_lies_between_floor_and_cap() {
    let policy = Backoff {
        base: Duration::from_secs(2),
        cap: Duration::from_secs(60),
    };
    let floor = Duration::from_secs(5);
    assert_eq!(policy.above(floor, 0, 0), floor);
    assert_eq!(policy.above(floor, 0, u64::MAX), Duration::from_secs(7));
    assert_eq!(policy.above(floor, 2, u64::MAX), Duration::from_secs(13));
    assert_eq!(policy.above(floor, 30, u64::MAX), policy.cap);
    let long = Duration::from_secs(90);
    assert_eq!(policy.above(long, 0, u64::MAX), long);
}

#[test]
fn a_digest_is_the_one_blake3_gives() {
    // The hash of nothing, as the BLAKE3 paper's test vectors give it.
    let hex = "af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262";
    let digest = Digest::of(b"");
    assert_eq!(digest.to_string(), hex);
    assert_eq!(format!("{digest:?}"), hex);
    assert_eq!(digest.as_bytes()[..3], [0xaf, 0x13, 0x49]);
    assert_eq!(Digest::from(*digest.as_bytes()), digest);
    let json = serde_json::to_string(&digest).expect("JSON");
    assert_eq!(json, format!("{hex:?}"));
    assert_eq!(serde_json::from_str::<Digest>(&json).ok(), Some(digest));
    let error = serde_json::from_str::<Digest>("\"af\"").expect_err("too short");
    assert!(
        error.to_string().contains("64 hexadecimal digits"),
        "{error}"
    );
}

#[test]
fn a_filter_that_is_none_is_named_with_its_token() {
    let rest = "a.>.b"
        .parse::<SubjectFilter>()
        .expect_err("> ends a filter");
    assert_eq!(rest, FilterError::Rest { position: 2 });
    match "a.b*.c".parse::<SubjectFilter>().expect_err("no wildcard") {
        FilterError::Name { position, .. } => assert_eq!(position, 2),
        other => panic!("expected a bad name, got {other:?}"),
    }
    let filter: SubjectFilter = "a.*.>".parse().expect("a filter");
    assert_eq!(
        (filter.to_string(), format!("{filter:?}")),
        ("a.*.>".into(), "a.*.>".into())
    );
}

#[test]
fn an_uplink_has_five_tokens() {
    let text = "central.event.ack.operatingsystem.ship2";
    let uplink: Uplink = text.parse().expect("five tokens");
    assert_eq!(uplink.sender.as_str(), "ship2");
    assert_eq!(format!("{uplink} {uplink:?}"), format!("{text} {text}"));
    assert_eq!(
        format!("{:?}", uplink.address),
        "central.event.ack.operatingsystem"
    );
    for wrong in [
        "central.event.ack.operatingsystem",
        "central.event.ack.a.b.ship2",
    ] {
        let error = wrong.parse::<Uplink>().expect_err("not five");
        let found = wrong.split('.').count().to_string();
        assert!(error.to_string().contains(&found), "{error}");
    }
}

#[test]
fn an_order_of_exactly_the_limit_is_opened_and_one_beyond_is_not() {
    let text = |bytes: usize| {
        let order = r#"{"id":"01934d6a-7b00-7000-8000-000000000001","from":"a","to":"b","subject":"b.command.hello.node","issued_at":"2026-11-21T08:00:00Z","expires_at":"2026-11-22T08:00:00Z","submitted_by":"uid:0","timeout_ms":1,"ordered":true,"success_codes":[0],"body":{}"#;
        format!("{order}{}}}", " ".repeat(bytes - order.len() - 1))
    };
    assert!(Sealed::open(&text(MAX_ORDER - 1)).is_ok());
    assert!(Sealed::open(&text(MAX_ORDER)).is_ok());
    match Sealed::open(&text(MAX_ORDER + 1)) {
        Err(DecodeError::TooLarge { bytes, limit }) => {
            assert_eq!((bytes, limit), (MAX_ORDER + 1, MAX_ORDER));
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn a_frame_of_exactly_the_limit_is_written_and_one_beyond_is_not() {
    let frame = |bytes: usize| Frame {
        send: (),
        body: Ack {
            reason: Some("x".repeat(bytes)),
            ..ack(State::Failed)
        },
    };
    let around = frame(0).encode().expect("small").len();
    assert_eq!(
        frame(MAX_FRAME - around)
            .encode()
            .map(|bytes| bytes.len())
            .ok(),
        Some(MAX_FRAME)
    );
    match frame(MAX_FRAME - around + 1).encode() {
        Err(EncodeError::TooLarge { bytes, limit }) => {
            assert_eq!((bytes, limit), (MAX_FRAME + 1, MAX_FRAME));
        }
        other => panic!("expected a refusal, got {other:?}"),
    }
}

#[test]
fn what_is_no_object_is_said_to_be_no_frame() {
    let error = Envelope::decode(b"[]").expect_err("a list");
    assert!(
        error.to_string().contains("a frame: a JSON object"),
        "{error}"
    );
}

#[test]
fn a_server_version_is_printed_as_it_is_written() {
    let version: steward_protocol::broker::ServerVersion = "2.15.1".parse().expect("a version");
    assert_eq!(version.to_string(), "2.15.1");
}
