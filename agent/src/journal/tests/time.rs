//! What the station's settled places, repeated copies and passing time change of an order, to the unit.

use super::*;

fn idempotent(pos: u64) -> Offer {
    let mut offer = order(pos);
    reseal(&mut offer, |order| order.idempotent = true);
    offer
}

#[test]
fn an_order_settled_while_it_waited_is_cancelled_and_one_started_before_goes_on() {
    let settled = Some(State::Cancelled);
    for (name, low, started_before, expected) in [
        (
            "nothing below it is settled",
            1,
            false,
            Some(State::Running),
        ),
        ("all before it is settled", 2, false, Some(State::Running)),
        ("it is settled", 3, false, settled),
        ("it and more is settled", 4, false, settled),
        // Its end is unknown, which the station cannot have settled.
        ("settled after a start", 3, true, Some(State::Running)),
    ] {
        let mut bench = Bench::welcomed();
        bench.taken(&order(1));
        let ticket = bench.taken(&idempotent(2));
        if started_before {
            bench.begin(ticket);
            bench.ask(Ask::Lost(ticket, "gone".to_owned()));
        }
        bench.low = low;
        bench.welcome();
        let begun = bench.begin(ticket);
        assert_eq!(bench.state(ticket), expected, "{name}");
        assert_eq!(begun == Begun::Over(ticket), expected == settled, "{name}");
    }
}

#[test]
fn a_copy_of_what_never_waits_again_writes_nothing() {
    for (name, offer, ended, writes) in [
        ("at work, once only", order(1), false, 0),
        ("at work, repeatable", idempotent(1), false, 1),
        ("over, once only", order(1), true, 0),
        ("over, repeatable", idempotent(1), true, 0),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&offer);
        bench.begin(ticket);
        if ended {
            bench.finish(ticket, 1);
        }
        bench.now.boot_ms += 1;
        let ask = Ask::Offer(Box::new(offer));
        let (answer, written) = bench.journal.next(ask, &bench.now.clone());
        assert_eq!(answer, Answer::Offered(Offered::Stands(ticket)), "{name}");
        assert_eq!(written.len(), writes, "{name}: {written:?}");
    }
}

#[test]
fn the_time_told_is_when_it_came_to_its_state_not_when_something_else_was_learned() {
    let mut bench = Bench::welcomed();
    let begin = bench.now.wall;
    let told = |bench: &Bench, ticket| {
        let at = bench.journal.entry(ticket).expect("it is kept").ack().at;
        at.duration_since(begin).as_secs()
    };
    let ticket = bench.taken(&order(1));
    type Happens = fn(&mut Bench, Ticket);
    let steps: [(&str, i64, Happens); 5] = [
        ("started", 1, |bench, ticket| {
            bench.begin(ticket);
        }),
        ("its child exists", 1, |bench, ticket| {
            let mark = ChildMark {
                pid: 7,
                start_time: 8,
            };
            bench.ask(Ask::Spawned(ticket, mark));
        }),
        ("cancelled at work", 1, |bench, _| {
            bench.cancel(&cancellation(&order(1)));
        }),
        ("over", 4, |bench, ticket| {
            bench.finish(ticket, 1);
        }),
        ("confirmed", 4, |bench, _| {
            let orders = vec![order(1).order.order().id];
            bench.word(What::Confirm {
                orders,
                events: Vec::new(),
            });
        }),
    ];
    for (name, expected, happens) in steps {
        bench.now.wall += SignedDuration::from_secs(1);
        bench.now.boot_ms += 1000;
        happens(&mut bench, ticket);
        assert_eq!(told(&bench, ticket), expected, "{name}");
    }
}

#[test]
fn an_order_may_be_started_until_the_first_of_its_deadlines_that_can_be_trusted() {
    use super::entry::Timeliness::{CannotTell, InTime, Late};
    use WallClock::{Doubtful, Trusted};
    let mut bench = Bench::welcomed();
    let ticket = bench.taken(&order(1));
    let entry = bench.journal.entry(ticket).cloned().expect("it is kept");
    // Milliseconds to the deadline of the boot and to that of the wall clock.
    for (same_boot, boot, wall, clock, expected) in [
        (true, 1, 1, Trusted, InTime),
        (true, 1, 0, Trusted, InTime),
        (true, 1, -1, Trusted, Late),
        (true, 0, 1, Trusted, Late),
        (true, -1, 1, Trusted, Late),
        (true, 1, -1, Doubtful, InTime),
        (true, 0, 1, Doubtful, Late),
        (false, 1, 0, Trusted, InTime),
        (false, -1, 0, Trusted, InTime),
        (false, 1, -1, Trusted, Late),
        (false, 1, 1, Doubtful, CannotTell),
        (false, -1, -1, Doubtful, CannotTell),
    ] {
        let boot_id = if same_boot { "boot-1" } else { "boot-2" };
        let now = Moment {
            wall: entry.expires_at - SignedDuration::from_millis(wall),
            boot_ms: entry.deadline.boot_ms.saturating_add_signed(-boot),
            boot_id: boot_id.into(),
        };
        assert_eq!(
            entry.timeliness(&now, clock),
            expected,
            "{boot_id}, {boot} ms, {wall} ms, {clock:?}"
        );
    }
}

#[test]
fn a_place_is_settled_only_below_the_smallest_that_is_not() {
    for (low, heard) in [(0, true), (4, true), (5, true), (6, false)] {
        let mut bench = Bench::welcomed();
        let mut offer = order(5);
        (offer.send.low, offer.send.seq_low) = (low, Some(5));
        let call = cancellation(&offer);
        let settled = Cancelled::Ignored(Counter::Settled);
        assert_eq!(bench.cancel(&call) != settled, heard, "cancelled, {low}");
        let mut bench = Bench::welcomed();
        let settled = Offered::Ignored(Counter::Settled);
        assert_eq!(bench.offer(&offer) != settled, heard, "offered, {low}");
    }
}
