//! A second start of an order that says that it may be run again.

use super::*;

/// A journal with such an order at work, after a reboot and with a wall clock nobody has compared.
fn rebooted() -> (Bench, Offer, Ticket) {
    let mut bench = Bench::welcomed();
    let mut offer = order(1);
    reseal(&mut offer, |order| order.idempotent = true);
    let ticket = bench.taken(&offer);
    bench.begin(ticket);
    bench.now.boot_id = "boot-2".into();
    bench.now.boot_ms = 5_000;
    bench.word(What::Welcome { skew: None });
    (bench, offer, ticket)
}

#[test]
fn what_runs_gets_a_deadline_of_this_boot_with_its_next_copy() {
    let (mut bench, offer, ticket) = rebooted();
    assert_eq!(bench.offer(&offer), Offered::Stands(ticket));
    assert_eq!(
        bench.ask(Ask::Lost(ticket, "gone".to_owned())),
        Answer::Again
    );
    assert!(matches!(bench.begin(ticket), Begun::Go { attempt: 2, .. }));
}

#[test]
fn what_runs_past_its_deadline_is_not_begun_again() {
    let (mut bench, mut offer, ticket) = rebooted();
    offer.send.ttl_left_ms = 0;
    assert_eq!(bench.offer(&offer), Offered::Stands(ticket));
    assert_eq!(
        bench.ask(Ask::Lost(ticket, "gone".to_owned())),
        Answer::Again
    );
    assert_eq!(bench.begin(ticket), Begun::Over(ticket));
    assert_eq!(bench.state(ticket), Some(State::Interrupted));
}
