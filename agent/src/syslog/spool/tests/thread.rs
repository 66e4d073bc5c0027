//! The thread with a real disk: what is durable when it says so, and who waits for whom.

use std::time::Duration;

use steward_protocol::{
    Domain,
    logs::{Batch, Unpacker},
};
use tokio::{sync::oneshot, time::timeout};

use super::{domain, draw, line, portion, settings};
use crate::syslog::spool::{
    Found, Policy, Spool,
    files::Files,
    writer::{Commit, Store},
};

/// Longest wait for what must happen.
const PATIENCE: Duration = Duration::from_secs(20);

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
        feed.put(portion(0..20), Some(done))
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
    let begin = std::time::Instant::now();
    let spool = open(dir.path(), Policy::Block, 1);
    let took = begin.elapsed();
    assert!(took < Duration::from_secs(1), "{took:?}");
    assert_eq!(spool.standings()[0].used, 10 << 30);
    assert_eq!(spool.standings()[0].segments as u64, segments);
}

#[tokio::test]
async fn a_full_domain_makes_its_feed_wait_and_what_is_offered_is_counted() {
    let dir = tempfile::tempdir().expect("a directory");
    let nginx = domain("nginx");
    let commit = Commit::Every(Duration::from_millis(5));
    let spool = open(dir.path(), Policy::Block, 0);
    let (store, thread) = Store::start(spool, commit).expect("a thread");
    let feed = store.feed(&nginx).expect("the thread is there");
    let mut put = 0;
    while let Ok(sent) = timeout(
        Duration::from_millis(500),
        feed.put(portion(put..put + 20), None),
    )
    .await
    {
        sent.expect("the thread is there");
        put += 20;
        assert!(put < 100_000, "it never waits");
    }
    let mut returned = 0;
    for _ in 0..10 {
        returned += u64::from(feed.offer(portion(put..put + 20), None).is_err());
    }
    assert_eq!(returned, 10);
    // What the station keeps makes room.
    let deadline = std::time::Instant::now() + PATIENCE;
    loop {
        release_all(&store, &nginx).await;
        let wait = Duration::from_millis(200);
        if let Ok(sent) = timeout(wait, feed.put(portion(put..put + 20), None)).await {
            sent.expect("the thread is there");
            break;
        }
        assert!(std::time::Instant::now() < deadline, "there is room again");
    }
    let mut standings = store.standings();
    let counted = standings.wait_for(|all| all.iter().any(|one| one.dropped == 200));
    timeout(PATIENCE, counted)
        .await
        .expect("what was offered in vain is counted")
        .expect("it is told");
    store.stop().expect("the thread is there");
    thread.join().expect("it ends in order");
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
