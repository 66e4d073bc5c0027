//! What is bounded: outputs, events, lanes, and the words of a reason.

use super::*;

#[test]
fn output_goes_oldest_first_when_space_is_short_and_confirmed_output_before_that() {
    let mut bench = Bench::welcomed();
    let tickets: Vec<Ticket> = (1..=4)
        .map(|pos| {
            let ticket = bench.taken(&order(pos));
            bench.begin(ticket);
            ticket
        })
        .collect();
    bench.finish(tickets[0], 400);
    bench.finish(tickets[1], 400);
    let orders = vec![MessageId(Uuid::from_u128(2))];
    bench.word(What::Confirm {
        orders,
        events: Vec::new(),
    });
    bench.finish(tickets[2], 400);
    let bytes = |bench: &Bench, index: usize| match &bench.disk[&tickets[index]].phase {
        Phase::Final(ending) => ending.output_bytes,
        _ => panic!("it is not over"),
    };
    assert_eq!([0, 1, 2].map(|index| bytes(&bench, index)), [400, 0, 400]);
    bench.finish(tickets[3], 400);
    assert_eq!(
        [0, 1, 2, 3].map(|index| bytes(&bench, index)),
        [0, 0, 400, 400]
    );
    assert_eq!(bench.state(tickets[0]), Some(State::Succeeded));
}

#[test]
fn the_spool_is_bounded_and_the_oldest_event_goes_first() {
    let mut bench = Bench::new();
    let event = |number: u128| {
        Ask::Report(Box::new(spool::Notice::Fault(
            steward_protocol::FaultEvent {
                id: EventId(Uuid::from_u128(number)),
                at: Timestamp::UNIX_EPOCH,
                kind: String::new(),
                subject: None,
                detail: String::new(),
                verdict: String::new(),
            },
        )))
    };
    for number in 0..spool::MAX_EVENTS as u128 {
        bench.ask(event(number));
        assert_eq!(bench.journal.snapshot().dropped, 0);
    }
    let (answer, writes) = bench.journal.next(event(99_999), &bench.now.clone());
    assert_eq!(answer, Answer::Reported);
    assert_eq!(bench.journal.snapshot().dropped, 1);
    assert!(matches!(
        writes.as_slice(),
        [Write::Event(..), Write::Dropped(1), Write::ForgetEvent(1)]
    ));
}

#[test]
fn lanes_are_bounded_and_a_forgotten_one_is_found_again_by_what_is_known() {
    let mut lanes = Lanes::default();
    let subject = |number: usize| -> Subject {
        format!("ship1.command.shellcommand.d{number}")
            .parse()
            .expect("a subject")
    };
    let mut evicted = Vec::new();
    for number in 0..=lanes::MAX_LANES {
        lanes.advance(&subject(number), 1);
        evicted.extend(lanes.evict());
    }
    assert_eq!(evicted, [subject(0)]);
    assert_eq!(lanes.turn(&subject(0), 7, 7), Turn::Next);
    assert_eq!(lanes.turn(&subject(1), 1, 1), Turn::Past);
    lanes.advance(&subject(0), 7);
    assert_eq!(lanes.turn(&subject(0), 8, 1), Turn::Next);
}

#[test]
fn a_reason_is_cut_so_that_every_answer_fits_a_frame() {
    use super::entry::{MAX_REASON, brief};
    for length in [MAX_REASON - 1, MAX_REASON] {
        let whole = "x".repeat(length);
        assert_eq!(brief(whole.clone()), whole);
    }
    for text in ["x", "æ", "…"] {
        let cut = brief(text.repeat(MAX_REASON + 1));
        let no_shorter_than_needed = MAX_REASON - text.len() < cut.len();
        assert!(
            cut.len() <= MAX_REASON && no_shorter_than_needed && cut.ends_with(" …"),
            "{text}: {} bytes",
            cut.len()
        );
    }
}
