//! How many domains a node may have: at the limit, beyond it, and after all kinds of ends.

use super::*;
use crate::logs::census::MAX_DOMAINS;

/// Returns the first batch of a domain of a node.
fn of_domain(node: usize, domain: usize) -> Arrived {
    let mut arrived = arrived(node, &batch(0, 0, 0, 1));
    arrived.line.domain = format!("d{domain}").parse().expect("a domain");
    arrived
}

/// Offers the first batches of domains of a node, and tells which were confirmed and which refused.
fn offer(store: &mut Store<Ram>, domains: std::ops::Range<usize>) -> (usize, usize) {
    let batches = domains.map(|domain| of_domain(0, domain)).collect();
    let done = store.commit(batches, Duration::ZERO);
    assert!(done.failed.is_empty(), "{:?}", done.failed);
    assert!(done.refused.iter().all(|line| line.node == key(0).node));
    (done.words.len(), done.refused.len())
}

#[test]
fn a_node_has_so_many_domains_and_the_others_go_on() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let most = MAX_DOMAINS;
    assert_eq!(offer(&mut store, 0..most - 1), (most - 1, 0), "below");
    assert_eq!(offer(&mut store, most - 1..most), (1, 0), "at the limit");
    for reopened in [false, true] {
        if reopened {
            store = Store::new(disk.clone());
            store.recover().expect("a disk that works");
        }
        // Nothing is said of what is too many, though it come again and again.
        assert_eq!(offer(&mut store, most..most + 3), (0, 3), "beyond");
        // What is there goes on, in the same commit too.
        assert_eq!(offer(&mut store, most - 2..most + 1), (2, 1), "both");
        // And so does another node.
        let other = store.commit(vec![of_domain(1, most)], Duration::ZERO);
        assert_eq!((other.words.len(), other.refused.len()), (1, 0));
    }
    let places = disk.list(&key(0).node.to_string()).expect("a directory");
    assert_eq!(places.len(), most);
}

#[test]
fn domains_that_never_got_a_place_are_not_counted() {
    let mut store = Store::new(Ram::default());
    for domain in 0..MAX_DOMAINS + 10 {
        // Something is missing in front of it, so it is not stored.
        let mut hole = of_domain(0, domain);
        hole.payload = batch(0, 0, 5, 1);
        hole.header = Batch::read(&hole.payload).expect("a batch").into_header();
        let done = store.commit(vec![hole], Duration::ZERO);
        assert_eq!((done.again, done.refused.len()), (1, 0));
    }
    assert_eq!(offer(&mut store, 0..MAX_DOMAINS), (MAX_DOMAINS, 0));
}

#[test]
fn a_place_that_was_made_before_the_disk_failed_is_counted() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    offer(&mut store, 0..MAX_DOMAINS - 1);
    // The directory is made, and what was to be in it is not.
    disk.fail_after(1, 1);
    let done = store.commit(vec![of_domain(0, MAX_DOMAINS)], Duration::ZERO);
    assert_eq!((done.failed.len(), done.words.len()), (1, 0));
    disk.heal();
    assert_eq!(offer(&mut store, 0..1), (1, 0));
    assert_eq!(
        offer(&mut store, MAX_DOMAINS + 1..MAX_DOMAINS + 2),
        (0, 1),
        "the limit is reached"
    );
    assert_eq!(offer(&mut store, MAX_DOMAINS..MAX_DOMAINS + 1), (1, 0));
}
