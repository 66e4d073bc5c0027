//! Laws: text and value are inverses, no bytes make a decoder panic, the filter agrees with a naive one.

use proptest::prelude::*;
use steward_protocol::{
    Ack, Cancel, Confirm, Deferral, Digest, Envelope, Frame, Hello, MessageId, Origin, Outcome,
    Output, Reign, Send, State, Subject, SubjectFilter, Uplink, Welcome,
};
use uuid::Uuid;

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9_-]{0,62}"
}

fn subject() -> impl Strategy<Value = String> {
    (
        token(),
        prop_oneof![Just("command"), Just("event")],
        token(),
        token(),
    )
        .prop_map(|(node, kind, method, domain)| format!("{node}.{kind}.{method}.{domain}"))
}

fn filter() -> impl Strategy<Value = String> {
    let part = prop_oneof![3 => "[ab]", 1 => Just("*".to_owned())];
    (prop::collection::vec(part, 1..=4), any::<bool>()).prop_map(|(parts, rest)| {
        if rest {
            format!("{}.>", parts.join("."))
        } else {
            parts.join(".")
        }
    })
}

/// The broker's rule, written down as plainly as possible.
fn naive(filter: &[&str], subject: &[&str]) -> bool {
    match (filter, subject) {
        ([], []) => true,
        ([">"], [_, ..]) => true,
        (["*", filter @ ..], [_, subject @ ..]) => naive(filter, subject),
        ([expected, filter @ ..], [found, subject @ ..]) => {
            expected == found && naive(filter, subject)
        }
        ([], [_, ..]) | ([_, ..], []) => false,
    }
}

fn output() -> impl Strategy<Value = Output> {
    (prop::collection::vec(any::<u8>(), 0..300), 0_usize..400).prop_map(|(bytes, keep)| {
        let mut output = Output::whole(&bytes);
        output.shrink(keep);
        output
    })
}

fn ack() -> impl Strategy<Value = Ack> {
    let outcome = (
        any::<Option<i32>>(),
        any::<Option<i32>>(),
        prop::option::of(output()),
        prop::option::of(output()),
    );
    (
        any::<u128>(),
        prop::sample::select(State::ALL.to_vec()),
        any::<Option<String>>(),
        prop::option::of(outcome),
    )
        .prop_map(|(id, state, reason, outcome)| Ack {
            id: MessageId(Uuid::from_u128(id)),
            digest: Digest::of(&id.to_be_bytes()),
            state,
            at: jiff::Timestamp::UNIX_EPOCH,
            reason,
            deferral: (state == State::Deferred).then_some(Deferral::Busy),
            expected_seq: None,
            outcome: outcome.map(|(exit_code, signal, stdout, stderr)| Outcome {
                exit_code,
                signal,
                started_at: jiff::Timestamp::UNIX_EPOCH,
                finished_at: jiff::Timestamp::UNIX_EPOCH,
                stdout,
                stderr,
            }),
        })
}

fn decode_everything(bytes: &[u8]) {
    // Only that none of them panics matters here.
    drop(Envelope::decode(bytes));
    drop(Frame::<Origin, Ack>::decode(bytes));
    drop(Frame::<Origin, Hello>::decode(bytes));
    drop(Frame::<Reign, Welcome>::decode(bytes));
    drop(Frame::<Reign, Confirm>::decode(bytes));
    drop(Frame::<Send, Cancel>::decode(bytes));
}

proptest! {
    #[test]
    fn a_subject_prints_as_it_was_parsed(text in subject()) {
        let value: Subject = text.parse().expect("generated as a subject");
        prop_assert_eq!(value.to_string(), text);
    }

    #[test]
    fn an_uplink_prints_as_it_was_parsed(text in subject(), sender in token()) {
        let text = format!("{text}.{sender}");
        let value: Uplink = text.parse().expect("generated as an uplink");
        prop_assert_eq!(value.to_string(), text);
    }

    #[test]
    fn whatever_parses_as_a_subject_prints_the_same(text in "[a-z.>* _-]{0,30}|.{0,30}") {
        if let Ok(value) = text.parse::<Subject>() {
            prop_assert_eq!(value.to_string(), text.clone());
        }
        if let Ok(value) = text.parse::<Uplink>() {
            prop_assert_eq!(value.to_string(), text);
        }
    }

    #[test]
    fn the_filter_agrees_with_a_naive_matcher(filter in filter(), subject in prop::collection::vec("[abc]", 1..=6)) {
        let subject = subject.join(".");
        let expected = naive(&filter.split('.').collect::<Vec<_>>(), &subject.split('.').collect::<Vec<_>>());
        let value: SubjectFilter = filter.parse().expect("generated as a filter");
        prop_assert_eq!(value.to_string(), filter);
        prop_assert_eq!(value.matches(&subject), expected);
    }

    #[test]
    fn an_ack_comes_back_as_it_was(ack in ack()) {
        let text = serde_json::to_string(&ack).expect("serialises");
        let back: Ack = serde_json::from_str(&text).expect("comes back");
        prop_assert_eq!(back, ack);
    }

    #[test]
    fn fitting_an_ack_makes_it_fit_and_keeps_the_facts(mut ack in ack(), limit in 1200_usize..3000) {
        let before = ack.clone();
        ack.fit(limit);
        let streams = |ack: &Ack| ack.outcome.as_ref().map(|outcome| {
            [&outcome.stdout, &outcome.stderr].map(|output| output.as_ref().map(|output| (output.bytes, output.blake3)))
        });
        prop_assert_eq!(streams(&ack), streams(&before));
        let size = ack.outcome.as_ref().map_or(0, |outcome| {
            serde_json::to_vec(&(&outcome.stdout, &outcome.stderr)).map_or(0, |json| json.len())
        });
        prop_assert!(size <= limit, "{} bytes, limit {}", size, limit);
    }

    #[test]
    fn no_bytes_make_a_decoder_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_everything(&bytes);
    }

    #[test]
    fn no_damage_to_a_frame_makes_a_decoder_panic(
        file in prop::sample::select(vec!["order", "ack-succeeded", "hello", "welcome", "confirm"]),
        place in any::<prop::sample::Index>(),
        byte in any::<u8>(),
        cut in any::<prop::sample::Index>(),
    ) {
        let path = format!("{}/tests/wire/v1/{file}.json", env!("CARGO_MANIFEST_DIR"));
        let mut bytes = std::fs::read(path).expect("a golden file");
        let place = place.index(bytes.len());
        bytes[place] = byte;
        decode_everything(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decode_everything(&bytes);
    }
}
