//! What others are told the journal holds: open orders, subjects, a hello's words, answers.

use super::*;

fn subject(text: &str) -> Subject {
    text.parse().expect("a subject")
}

/// The order at place `pos`, unordered and on another subject.
fn elsewhere(pos: u64) -> Offer {
    let mut offer = order(pos);
    offer.send.seq = None;
    reseal(&mut offer, |order| {
        order.subject = subject("ship1.command.shellcommand.y");
        order.ordered = false;
        order.timeout_ms = 7;
    });
    offer
}

/// A journal with order 1 over, 2 at work, 3 waiting, and elsewhere 5 waiting and 4 behind it.
fn busy() -> (Bench, [Ticket; 5]) {
    let mut bench = Bench::welcomed();
    let over = bench.taken(&order(1));
    bench.begin(over);
    bench.finish(over, 1);
    let other = bench.taken(&elsewhere(5));
    let running = bench.taken(&order(2));
    let waiting = bench.taken(&order(3));
    bench.begin(running);
    let last = bench.taken(&elsewhere(4));
    (bench, [over, running, waiting, last, other])
}

fn ids(pos: &[u64]) -> Vec<MessageId> {
    let id = |pos: &u64| MessageId(Uuid::from_u128(u128::from(*pos)));
    pos.iter().map(id).collect()
}

#[test]
fn a_process_is_given_what_is_open_of_its_subject_in_the_order_of_arrival() {
    let (mut bench, [_, running, waiting, last, other]) = busy();
    let mut open = |text: &str| match bench.ask(Ask::Open(subject(text))) {
        Answer::Open(open) => open
            .into_iter()
            .map(|order| {
                let started = order.started.is_some();
                (order.ticket, order.ordered, order.timeout_ms, started)
            })
            .collect::<Vec<_>>(),
        other => panic!("open was answered with {other:?}"),
    };
    assert_eq!(
        open("ship1.command.shellcommand.x"),
        [(running, true, 1000, true), (waiting, true, 1000, false)]
    );
    assert_eq!(
        open("ship1.command.shellcommand.y"),
        [(other, false, 7, false), (last, false, 7, false)]
    );
    assert_eq!(open("ship1.command.shellcommand.z"), []);
}

#[test]
fn a_child_is_found_again_by_the_mark_of_its_start_also_after_a_cancellation() {
    let mark = ChildMark {
        pid: 7,
        start_time: 8,
    };
    for cancelled in [false, true] {
        let (mut bench, [_, running, ..]) = busy();
        bench.ask(Ask::Spawned(running, mark));
        if cancelled {
            bench.cancel(&cancellation(&order(2)));
        }
        let Answer::Open(open) = bench.ask(Ask::Open(subject("ship1.command.shellcommand.x")))
        else {
            panic!("open was answered with something else");
        };
        let started = open[0].started.clone().expect("it is at work");
        assert_eq!(started.child, Some(mark));
        assert_eq!(started.revoked.is_some(), cancelled);
    }
}

#[test]
fn a_subject_is_open_as_long_as_one_of_its_orders_is() {
    let (mut bench, [_, running, waiting, ..]) = busy();
    let open = |bench: &mut Bench| match bench.ask(Ask::OpenSubjects) {
        Answer::OpenSubjects(subjects) => subjects.len(),
        other => panic!("open subjects were answered with {other:?}"),
    };
    assert_eq!(open(&mut bench), 2);
    bench.finish(running, 1);
    assert_eq!(open(&mut bench), 2);
    bench.begin(waiting);
    assert_eq!(open(&mut bench), 2);
    bench.finish(waiting, 1);
    assert_eq!(open(&mut bench), 1);
}

#[test]
fn a_hello_names_the_lanes_what_is_open_and_what_is_unconfirmed() {
    let (mut bench, _) = busy();
    let expected = Snapshot {
        counter: 1,
        lanes: vec![(subject("ship1.command.shellcommand.x"), 3)],
        open: ids(&[2, 5, 3, 4]),
        unconfirmed: ids(&[1]),
        dropped: 0,
        held: Held {
            waiting: 3,
            started: 1,
            unconfirmed: 1,
            output_bytes: 1,
            events: 0,
        },
    };
    assert_eq!(bench.ask(Ask::Snapshot), Answer::Snapshot(expected));
}

#[test]
fn the_lanes_used_last_are_named_first_also_after_a_restart() {
    let lane = |number: usize| subject(&format!("ship1.command.shellcommand.d{number}"));
    let mut lanes = Lanes::default();
    for (number, seq) in [(1, 1), (2, 5), (3, 9), (1, 2)] {
        lanes.advance(&lane(number), seq);
    }
    assert_eq!(lanes.advance(&lane(2), 5), None, "nothing new is no use");
    let all = [(lane(1), 2), (lane(3), 9), (lane(2), 5)];
    assert_eq!(lanes.recent(9), all);
    assert_eq!(lanes.recent(2), all[..2]);
    let mut kept = Lanes::new([
        (lane(1), Lane { next: 3, used: 8 }),
        (lane(2), Lane { next: 6, used: 5 }),
    ]);
    let expected = Lane { next: 8, used: 9 };
    assert_eq!(kept.advance(&lane(3), 7), Some(expected));
    assert_eq!(kept.recent(9), [(lane(3), 7), (lane(1), 2), (lane(2), 5)]);
    let mut cleared = kept.clear();
    cleared.sort();
    assert_eq!(cleared, [lane(1), lane(2), lane(3)]);
    assert_eq!(kept.recent(9), []);
}

#[test]
fn both_streams_of_output_count_against_the_budget_and_what_goes_is_said() {
    let output = |bytes: usize| Some(steward_protocol::Output::whole(&vec![b'x'; bytes]));
    // The budget of the bench is 1000 bytes.
    for (stdout, stderr, goes) in [
        (output(1000), None, false),
        (output(500), output(500), false),
        (output(500), output(501), true),
        (None, output(1001), true),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&order(1));
        bench.begin(ticket);
        let bytes = [&stdout, &stderr]
            .into_iter()
            .flatten()
            .map(steward_protocol::Output::kept)
            .sum::<usize>();
        let finish = Finish {
            state: State::Failed,
            reason: Some("exit code 1".to_owned()),
            outcome: Some(Outcome {
                exit_code: Some(1),
                signal: None,
                started_at: bench.now.wall,
                finished_at: bench.now.wall,
                stdout,
                stderr,
            }),
        };
        let ask = Ask::Finish(ticket, Box::new(finish));
        let (_, writes) = bench.journal.next(ask, &bench.now.clone());
        let dropped = |write: &Write| matches!(write, Write::DropOutput(_));
        assert_eq!(writes.iter().any(dropped), goes, "{bytes} bytes");
        let reason = bench
            .journal
            .entry(ticket)
            .and_then(|entry| entry.ack().reason);
        let note = format!(
            "exit code 1; {bytes} bytes of output were dropped to stay within this node's results_budget of 1000 bytes"
        );
        let expected = if goes { note } else { "exit code 1".to_owned() };
        assert_eq!(reason, Some(expected));
    }
}

#[test]
fn output_that_is_forgotten_makes_room_for_more() {
    let mut bench = Bench::welcomed();
    for pos in 1..=8 {
        let ticket = bench.taken(&order(pos));
        bench.begin(ticket);
        bench.finish(ticket, 600);
        let Phase::Final(ending) = &bench.disk[&ticket].phase else {
            panic!("order {pos} is not over");
        };
        assert_eq!(ending.output_bytes, 600, "order {pos} keeps its output");
        bench.low = pos + 1;
        bench.welcome();
        assert_eq!(bench.state(ticket), None, "order {pos} is forgotten");
    }
}

#[test]
fn a_contradiction_names_what_happened_and_where_the_order_stood() {
    let mark = ChildMark {
        pid: 7,
        start_time: 8,
    };
    let finish = || {
        let finish = Finish {
            state: State::Failed,
            reason: None,
            outcome: None,
        };
        Box::new(finish)
    };
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    let mut said = |ask| match bench.ask(ask) {
        Answer::Contradiction(contradiction) => contradiction.to_string(),
        other => format!("{other:?}"),
    };
    let mut told = vec![said(Ask::Spawned(ticket, mark))];
    said(Ask::Finish(ticket, finish()));
    for ask in [
        Ask::Spawned(ticket, mark),
        Ask::Finish(ticket, finish()),
        Ask::Finish(Ticket(99), finish()),
    ] {
        told.push(said(ask));
    }
    assert_eq!(
        told,
        [
            "record the child of an order that is received",
            "record the child of an order that is final",
            "record the end of an order that is final",
            "record anything of an order that is forgotten",
        ]
    );
}
