//! The thread with a real disk: what is durable when it says so, and who waits for whom.

use std::time::{Duration, Instant};

use steward_protocol::{
    Domain,
    logs::{Batch, Unpacker},
};
use tokio::{sync::oneshot, time::timeout};

use super::{domain, draw, line, portion, settings};
use crate::syslog::spool::{
    Found, Policy, Settings, Spool,
    files::Files,
    writer::{Claim, Commit, Feed, Store},
};

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// How often a time is measured of which the shortest counts.
const TRIES: u64 = 5;

fn open(root: &std::path::Path, policy: Policy, start: u64) -> Spool<Files> {
    let files = Files::open(root).expect("a directory");
    Spool::open(files, settings(100_000, policy), draw(start)).expect("opens")
}

#[tokio::test]
async fn what_is_said_to_be_durable_is_there_after_a_start() {
    let dir = tempfile::tempdir().expect("a directory");
    let nginx = domain("nginx");
    for commit in [Commit::Every(Duration::from_millis(20)), Commit::Always] {
        let root = dir
            .path()
            .join(format!("{commit:?}").replace(['(', ')'], ""));
        let (store, thread) =
            Store::start(open(&root, Policy::Block, 0), commit).expect("a thread");
        let feed = store.feed(&nginx).expect("the thread is there");
        let (done, durable) = oneshot::channel();
        feed.put(portion(0..20), Some(done.into()))
            .await
            .expect("the thread is there");
        timeout(PATIENCE, durable)
            .await
            .expect("it becomes durable")
            .expect("it is told");
        let mut spool = open(&root, Policy::Block, 1);
        let place = spool.start(&nginx).expect("it is there");
        let Ok(Found::Batch(batch)) = spool.read(&nginx, place) else {
            panic!("no batch");
        };
        let from_thread = store
            .read(&nginx, place)
            .await
            .expect("the thread is there");
        assert_eq!(from_thread.expect("reads"), Found::Batch(batch.clone()));
        let batch = Batch::read(&batch.payload).expect("a batch");
        let mut unpacker = Unpacker::new().expect("memory");
        let first = unpacker.records(&batch).expect("unpacks").next();
        assert_eq!(
            first.expect("one").expect("a record").bytes,
            line(0).as_bytes()
        );
        store.stop().expect("the thread is there");
        thread.join().expect("it ends in order");
    }
}

#[tokio::test]
async fn what_its_source_can_give_again_stays_until_that_has_noted_it() {
    let dir = tempfile::tempdir().expect("a directory");
    let nginx = domain("nginx");
    let commit = Commit::Every(Duration::from_millis(5));
    let files = Files::open(dir.path()).expect("a directory");
    let spool = Spool::open(files, settings(400_000, Policy::Block), draw(0)).expect("opens");
    let (store, thread) = Store::start(spool, commit).expect("a thread");
    let feed = store.feed(&nginx).expect("the thread is there");
    let mut claims = Vec::new();
    for round in 0..20 {
        let (done, receipt) = feed.receipt();
        let sent = feed.put(portion(round * 200..(round + 1) * 200), Some(done));
        sent.await.expect("the thread is there");
        timeout(PATIENCE, receipt.durable)
            .await
            .expect("it becomes durable")
            .expect("it is told");
        claims.push(receipt.claim);
    }
    let start = async || {
        let start = store.place(&nginx).await.expect("the thread is there");
        start.expect("something is there").position
    };
    release_all(&store, &nginx).await;
    assert_eq!(start().await, 0);
    // In the order in which they came: what lies between is one more question.
    let last = claims.split_off(10);
    claims.into_iter().for_each(Claim::let_go);
    let half = start().await;
    assert!((1..=2000).contains(&half), "{half}");
    last.into_iter().for_each(Claim::let_go);
    let end = start().await;
    assert!((2001..=4000).contains(&end), "{end}");
    store.stop().expect("the thread is there");
    thread.join().expect("it ends in order");
}

#[test]
fn ten_gigabytes_are_open_in_less_than_a_second() {
    const SEGMENT: u64 = 4 << 20;
    let dir = tempfile::tempdir().expect("a directory");
    let domain = dir.path().join("nginx");
    std::fs::create_dir(&domain).expect("a directory");
    let generation = draw(0)();
    let segments = (10 << 30) / SEGMENT;
    for number in 0..segments {
        let name = format!("{:010}-{generation}-{:020}.log", 0, number * 1000);
        let file = std::fs::File::create(domain.join(name)).expect("a file");
        // With a hole in it: only names and sizes count.
        file.set_len(SEGMENT).expect("a size");
    }
    // A machine that is busy may need several tries to show it.
    let open_it = |start| {
        let begin = Instant::now();
        (open(dir.path(), Policy::Block, start), begin.elapsed())
    };
    let opened = (1..=TRIES).map(open_it).min_by_key(|(_, took)| *took);
    let (spool, took) = opened.expect("several");
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(spool.standings()[0].used, 10 << 30);
    assert_eq!(spool.standings()[0].segments as u64, segments);
}

#[tokio::test]
async fn a_full_domain_makes_its_feed_wait_and_what_is_offered_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let nginx = domain("nginx");
    let commit = Commit::Every(Duration::from_millis(5));
    let files = Files::open(dir.path()).expect("a directory");
    // Room for another domain.
    let settings = Settings {
        total: 200_000,
        ..settings(100_000, Policy::Block)
    };
    let spool = Spool::open(files, settings, draw(0)).expect("opens");
    let (store, thread) = Store::start(spool, commit).expect("a thread");
    let feed = store.feed(&nginx).expect("the thread is there");
    let Filled { put, mut refused } = fill(&store, &feed, &nginx).await;
    let waits = timeout(
        Duration::from_millis(100),
        feed.put(portion(put..put + 20), None),
    );
    assert!(waits.await.is_err(), "it does not wait");
    for _ in 0..10 {
        assert!(feed.offer(portion(put..put + 20), None).is_err());
        refused += 20;
    }
    // What the station keeps makes room.
    let deadline = Instant::now() + PATIENCE;
    loop {
        release_all(&store, &nginx).await;
        let wait = Duration::from_millis(200);
        if let Ok(sent) = timeout(wait, feed.put(portion(put..put + 20), None)).await {
            sent.expect("the thread is there");
            break;
        }
        assert!(Instant::now() < deadline, "there is room again");
    }
    let mut standings = store.standings();
    let counted = standings.wait_for(|all| all.iter().any(|one| one.dropped == refused));
    timeout(PATIENCE, counted)
        .await
        .expect("what was offered in vain is counted")
        .expect("it is told");
    store.stop().expect("the thread is there");
    thread.join().expect("it ends in order");
}

/// Messages that found room, and those that did not.
struct Filled {
    put: u64,
    refused: u64,
}

/// Offers until nothing finds room any more. That there is none for the moment is not enough: the thread may only not have had
/// the time.
async fn fill(store: &Store, feed: &Feed, nginx: &Domain) -> Filled {
    let other = store.feed(&domain("other")).expect("the thread is there");
    let (mut put, mut refused) = (0, 0);
    loop {
        while feed.offer(portion(put..put + 20), None).is_ok() {
            put += 20;
            assert!(put < 100_000, "it is never full");
        }
        refused += 20;
        // The thread takes what waits, commits, and takes what then finds room; the question is answered after that.
        let (done, durable) = oneshot::channel();
        let sent = other.put(portion(0..1), Some(done.into())).await;
        sent.expect("the thread is there");
        timeout(PATIENCE, durable)
            .await
            .expect("it becomes durable")
            .expect("it is told");
        store.place(nginx).await.expect("the thread is there");
        if feed.offer(portion(put..put + 20), None).is_err() {
            refused += 20;
            return Filled { put, refused };
        }
        put += 20;
    }
}

/// Releases everything that is durable, as if a station had it.
async fn release_all(store: &Store, domain: &Domain) {
    let start = store.place(domain).await.expect("the thread is there");
    let mut place = start.expect("something is there");
    while let Ok(Found::Batch(batch)) = store
        .read(domain, place)
        .await
        .expect("the thread is there")
    {
        place.position = batch.next;
    }
    store
        .release(domain.clone(), place)
        .expect("the thread is there");
}
