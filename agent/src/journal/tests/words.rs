//! What the station's words change: whose journal this is, who may speak, and whose clock is right.

use super::*;

fn ledger(number: u128) -> LedgerId {
    LedgerId(Uuid::from_u128(number))
}

fn reign(ledger_id: LedgerId, epoch: u64) -> Reign {
    Reign {
        v: 1,
        ledger_id,
        epoch,
        instance: INSTANCE,
        low: 0,
    }
}

fn greeting() -> What {
    What::Welcome {
        skew: Some(Duration::ZERO),
    }
}

fn confirmation(pos: &[u64]) -> What {
    let id = |pos: &u64| MessageId(Uuid::from_u128(u128::from(*pos)));
    What::Confirm {
        orders: pos.iter().map(id).collect(),
        events: Vec::new(),
    }
}

fn said(bench: &mut Bench, reign: Reign, what: What) -> Welcomed {
    match bench.ask(Ask::Word(Word { reign, what })) {
        Answer::Word(welcomed) => welcomed,
        other => panic!("a word was answered with {other:?}"),
    }
}

#[test]
fn a_word_is_heard_by_ledger_then_reign_and_only_a_greeting_pins_or_takes_over() {
    use Welcomed::{Foreign, Heard, Pinned, Stale, TakenOver};
    const SECOND: LedgerId = LedgerId(Uuid::from_u128(77));
    const THIRD: LedgerId = LedgerId(Uuid::from_u128(78));
    let pinned = Some(LEDGER);
    for (before, from, epoch, greets, expected) in [
        (None, LEDGER, 1, true, Pinned(LEDGER)),
        (None, LEDGER, 1, false, Foreign(LEDGER)),
        (pinned, LEDGER, 4, true, Stale),
        (pinned, LEDGER, 4, false, Stale),
        (pinned, LEDGER, 5, true, Heard),
        (pinned, LEDGER, 5, false, Heard),
        (pinned, LEDGER, 6, false, Heard),
        (pinned, SECOND, 1, true, TakenOver(SECOND)),
        (pinned, SECOND, 1, false, Foreign(SECOND)),
        (pinned, THIRD, 9, true, Foreign(THIRD)),
        (pinned, THIRD, 9, false, Foreign(THIRD)),
    ] {
        let name = format!("{before:?}, {from} in {epoch}, greets: {greets}");
        let mut bench = Bench::new();
        bench.journal.limits.accept_ledger = Some(SECOND);
        if let Some(ledger_id) = before {
            said(&mut bench, reign(ledger_id, 5), greeting());
        }
        let known = bench.journal.identity().pinned;
        let what = if greets {
            greeting()
        } else {
            confirmation(&[])
        };
        assert_eq!(
            said(&mut bench, reign(from, epoch), what),
            expected,
            "{name}"
        );
        let now = bench.journal.identity().pinned;
        match expected {
            Heard | Pinned(_) | TakenOver(_) => {
                let now = now.map(|pinned| (pinned.ledger_id, pinned.epoch));
                assert_eq!(now, Some((from, epoch)), "{name}");
            }
            _ => assert_eq!(now, known, "{name}"),
        }
    }
}

#[test]
fn a_pin_and_every_later_reign_is_written_down_and_what_is_known_is_not_written_again() {
    let mut bench = Bench::new();
    for (epoch, low, written, kept) in [
        (5, 3, true, (5, 3)),
        (5, 3, false, (5, 3)),
        (6, 3, true, (6, 3)),
        (6, 4, true, (6, 4)),
        // An older `low` of the same reign was overtaken on its way.
        (6, 2, false, (6, 4)),
        (7, 2, true, (7, 4)),
    ] {
        let reign = Reign {
            low,
            ..reign(LEDGER, epoch)
        };
        let what = greeting();
        let ask = Ask::Word(Word { reign, what });
        let (_, writes) = bench.journal.next(ask, &bench.now.clone());
        let identities: Vec<_> = writes
            .iter()
            .filter_map(|write| match write {
                Write::Identity(identity) => identity.pinned,
                _ => None,
            })
            .map(|pinned| (pinned.epoch, pinned.low))
            .collect();
        let expected = if written { vec![kept] } else { Vec::new() };
        assert_eq!(identities, expected, "reign {epoch} from {low}");
        let pinned = bench.journal.identity().pinned.expect("it is pinned");
        assert_eq!((pinned.epoch, pinned.low), kept);
    }
}

#[test]
fn only_a_greeting_of_another_start_takes_the_welcome_away() {
    let other = InstanceId(Uuid::from_u128(99));
    for (greets, waits, first) in [
        (true, true, Welcomed::Superseded),
        (false, false, Welcomed::OtherInstance),
    ] {
        let mut bench = Bench::welcomed();
        let ticket = bench.taken(&order(1));
        let reign = Reign {
            instance: other,
            ..reign(LEDGER, 1)
        };
        let what = if greets {
            greeting()
        } else {
            confirmation(&[1])
        };
        assert_eq!(said(&mut bench, reign.clone(), what.clone()), first);
        assert_eq!(bench.begin(ticket) == Begun::Wait, waits, "{greets}");
        let again = said(&mut bench, reign, what);
        assert_eq!(again, Welcomed::OtherInstance, "it is told once");
    }
}

#[test]
fn a_wall_clock_is_trusted_up_to_the_skew_and_doubted_once_set_by_more() {
    let trusted = limits::TRUSTED_SKEW;
    let more = trusted + Duration::from_nanos(1);
    let set = |by: Duration| SignedDuration::try_from(by).expect("small");
    for (name, skew, step, expected) in [
        ("exact", Some(Duration::ZERO), SignedDuration::ZERO, true),
        (
            "as far off as may be",
            Some(trusted),
            SignedDuration::ZERO,
            true,
        ),
        ("further off", Some(more), SignedDuration::ZERO, false),
        ("not measured", None, SignedDuration::ZERO, false),
        ("set, a little", Some(Duration::ZERO), set(trusted), true),
        (
            "set back, a little",
            Some(Duration::ZERO),
            -set(trusted),
            true,
        ),
        ("set", Some(Duration::ZERO), set(more), false),
        ("set back", Some(Duration::ZERO), -set(more), false),
    ] {
        let mut bench = Bench::new();
        bench.word(What::Welcome { skew });
        bench.now.wall += step;
        bench.ask(Ask::Snapshot);
        let trusts = bench.journal.wall == WallClock::Trusted;
        assert_eq!(trusts, expected, "{name}");
    }
}

#[test]
fn what_is_settled_goes_by_ledger_and_place_and_what_runs_or_has_no_place_stays() {
    let mut bench = Bench::welcomed();
    let over = [1, 2, 3].map(|pos| {
        let ticket = bench.taken(&order(pos));
        bench.begin(ticket);
        bench.finish(ticket, 1);
        ticket
    });
    let running = bench.taken(&order(4));
    bench.begin(running);
    let named = order(9);
    let unread = Unread {
        id: named.order.order().id,
        digest: named.order.digest(),
        subject: named.order.order().subject.clone(),
        reason: "version".to_owned(),
    };
    let Answer::Offered(Offered::Stands(placeless)) = bench.ask(Ask::Unread(unread)) else {
        panic!("it was not refused");
    };
    let kept = |bench: &Bench| {
        let tickets = [over[0], over[1], over[2], running, placeless];
        tickets.map(|ticket| u8::from(bench.state(ticket).is_some()))
    };
    bench.low = 2;
    bench.word(confirmation(&[]));
    assert_eq!(kept(&bench), [0, 1, 1, 1, 1], "below 2");
    // Confirmed, and not below it yet; without a place, and therefore below everything.
    bench.word(confirmation(&[2, 9]));
    assert_eq!(kept(&bench), [0, 1, 1, 1, 0], "2 and 9 confirmed");
    bench.low = 9;
    bench.word(confirmation(&[]));
    assert_eq!(kept(&bench), [0, 0, 0, 1, 0], "below 9");
    assert_eq!(bench.finish(running, 1), Answer::Stands(running));
}

#[test]
fn a_takeover_forgets_the_lanes_and_all_but_what_runs_durably() {
    let mut bench = Bench::welcomed();
    let over = bench.taken(&order(1));
    bench.begin(over);
    bench.finish(over, 1);
    let running = bench.taken(&order(2));
    bench.begin(running);
    let waiting = bench.taken(&order(3));
    let second = ledger(77);
    bench.journal.limits.accept_ledger = Some(second);
    let ask = Ask::Word(Word {
        reign: reign(second, 1),
        what: greeting(),
    });
    let (_, writes) = bench.journal.next(ask, &bench.now.clone());
    let mut forgotten = Vec::new();
    let mut lanes = 0;
    for write in writes {
        match write {
            Write::Forget(ticket) => forgotten.push(ticket),
            Write::ForgetLane(_) => lanes += 1,
            Write::Identity(_) => {}
            other => panic!("a takeover writes {other:?}"),
        }
    }
    assert_eq!((forgotten, lanes), (vec![over, waiting], 1));
    assert_eq!(bench.state(running), Some(State::Running));
}

#[test]
fn a_failed_write_undoes_the_first_welcome_and_no_later_one() {
    let mut bench = Bench::new();
    let kept = bench.kept();
    bench.welcome();
    bench.journal.reload(kept);
    let ignored = Offered::Ignored(Counter::BeforeWelcome);
    assert_eq!(bench.offer(&order(1)), ignored);
    bench.welcome();
    let kept = bench.kept();
    bench.journal.reload(kept);
    assert!(matches!(bench.offer(&order(1)), Offered::Taken(_)));
}

#[test]
fn a_ticket_given_before_a_failed_write_is_not_given_again() {
    let mut bench = Bench::welcomed();
    let kept = bench.kept();
    let lost = bench.taken(&order(1));
    bench.journal.reload(kept);
    let next = bench.taken(&order(1));
    assert!(next > lost, "{next:?} after {lost:?}");
}
