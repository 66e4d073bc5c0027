//! What an input hands its portions to: sorts them by the rules and passes them on to the writer, within bounds.
//!
//! Every input has room for so many bytes on their way to the writer. Who can wait waits for room; who cannot is
//! refused, and what was refused is counted until the writer writes it down as a gap. It knows no sockets and no disk.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use steward_protocol::{Domain, logs::Micros};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};

use super::{
    board::{Tally, add},
    route::{Part, Router, Rules, Tell},
    spool::Portion,
};

/// Bytes of one input on their way to the writer: four reads of the largest size. What one write to a slow disk holds up
/// fits into it on a node; what does not waits in the kernel.
pub const ROOM: usize = 512 << 10;

/// What a portion takes of the room at least, so that small ones are bounded in number as well.
const LEAST: usize = 2 << 10;

/// Portions on their way to the writer, of all inputs; those beyond wait, as for room.
pub const HANDED: usize = 256;

/// How long what cannot wait does so all the same: a write to a slow disk, not a disk that hangs. Senders to `/dev/log` wait
/// as long.
const PATIENCE: Duration = Duration::from_millis(100);

/// Whether what finds no room in its domain's spool waits for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// It does, and its source with it.
    Wait,
    /// It is dropped and counted.
    Offer,
}

/// What is on its way to the writer.
#[derive(Debug)]
pub struct Handover {
    /// The parts, in their order.
    pub parts: Vec<Part>,
    /// Whether they wait for room in the spool.
    pub manner: Manner,
    /// Told once all of it is durable.
    pub done: Option<oneshot::Sender<()>>,
    /// The room it takes on the way.
    pub room: Option<OwnedSemaphorePermit>,
}

/// What inputs were refused, until it is written down.
#[derive(Debug)]
pub struct Refused {
    /// Where it would have gone.
    pub domain: Arc<Domain>,
    /// How many messages.
    pub count: AtomicU64,
}

/// The writer does not take anything any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("hand logs to the spool's writer, which has ended")]
pub struct Closed;

/// Takes the portions of one input.
#[derive(Debug, Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    router: Mutex<Router>,
    handed: mpsc::Sender<Handover>,
    room: Arc<Semaphore>,
    refused: Arc<Refused>,
    is_refusing: AtomicBool,
    tally: Arc<Tally>,
}

impl Feed {
    /// Returns the feed of an input whose messages go to `domain` unless a rule says otherwise, and where it counts what it
    /// refuses.
    pub fn new(
        domain: Domain,
        rules: Arc<Rules>,
        handed: mpsc::Sender<Handover>,
        tally: Arc<Tally>,
    ) -> (Self, Arc<Refused>) {
        let domain = Arc::new(domain);
        let refused = Arc::new(Refused {
            domain: Arc::clone(&domain),
            count: AtomicU64::new(0),
        });
        let inner = Inner {
            router: Mutex::new(Router::new(domain, rules)),
            handed,
            room: Arc::new(Semaphore::new(ROOM)),
            refused: Arc::clone(&refused),
            is_refusing: AtomicBool::new(false),
            tally,
        };
        let feed = Self {
            inner: Arc::new(inner),
        };
        (feed, refused)
    }

    /// Returns the numbers of the input.
    pub fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// Hands a portion over; waits for room. `done` is told once all of it is durable, and dropped if it never will be.
    ///
    /// # Errors
    ///
    /// Fails when the writer has ended.
    pub async fn put(
        &self,
        portion: Portion,
        done: Option<oneshot::Sender<()>>,
    ) -> Result<(), Closed> {
        self.note(&portion);
        let room = self.room(&portion).await?;
        let parts = self.split(portion);
        self.hand(parts, Manner::Wait, done, Some(room)).await
    }

    /// Hands a portion over that nobody waits for. What finds no room is counted, and its number arrives as a gap.
    ///
    /// # Errors
    ///
    /// Fails when the writer has ended.
    pub async fn offer(&self, portion: Portion) -> Result<(), Closed> {
        self.note(&portion);
        let inner = &self.inner;
        let room = if inner.is_refusing.load(Ordering::Relaxed) {
            Arc::clone(&inner.room)
                .try_acquire_many_owned(cost(&portion))
                .ok()
        } else {
            timeout(PATIENCE, self.room(&portion))
                .await
                .ok()
                .transpose()?
        };
        let slot = inner.handed.try_reserve();
        inner.is_refusing.store(room.is_none(), Ordering::Relaxed);
        let (Some(room), Ok(slot)) = (room, slot) else {
            if inner.handed.is_closed() {
                return Err(Closed);
            }
            let gaps = portion.gaps.iter().filter_map(|gap| gap.count);
            let lost = portion.messages.len() as u64 + gaps.sum::<u64>();
            self.lose(lost);
            return Ok(());
        };
        let parts = self.split(portion);
        if !parts.is_empty() {
            slot.send(Handover {
                parts,
                manner: Manner::Offer,
                done: None,
                room: Some(room),
            });
        }
        Ok(())
    }

    /// Hands over what rules have suppressed.
    ///
    /// # Errors
    ///
    /// Fails when the writer has ended.
    pub async fn tell(&self, how_much: Tell) -> Result<(), Closed> {
        let told = self.router(|router, now| router.tell(now, how_much));
        self.hand(summaries(told), Manner::Wait, None, None).await
    }

    /// Puts other rules in the place of those it has.
    ///
    /// # Errors
    ///
    /// Fails when the writer has ended.
    pub async fn reroute(&self, rules: Arc<Rules>) -> Result<(), Closed> {
        let told = self.router(|router, now| router.replace(rules, now));
        self.hand(summaries(told), Manner::Wait, None, None).await
    }

    /// Counts messages that were taken and cannot be handed over any more.
    pub fn lose(&self, count: u64) {
        self.inner.refused.count.fetch_add(count, Ordering::Relaxed);
        add(&self.inner.tally.refused, count);
    }

    async fn room(&self, portion: &Portion) -> Result<OwnedSemaphorePermit, Closed> {
        let room = Arc::clone(&self.inner.room);
        room.acquire_many_owned(cost(portion))
            .await
            .map_err(|_| Closed)
    }

    async fn hand(
        &self,
        parts: Vec<Part>,
        manner: Manner,
        done: Option<oneshot::Sender<()>>,
        room: Option<OwnedSemaphorePermit>,
    ) -> Result<(), Closed> {
        if parts.is_empty() && done.is_none() {
            return Ok(());
        }
        let handover = Handover {
            parts,
            manner,
            done,
            room,
        };
        self.inner.handed.send(handover).await.map_err(|_| Closed)
    }

    fn note(&self, portion: &Portion) {
        let tally = &self.inner.tally;
        add(&tally.messages, portion.messages.len() as u64);
        let (mut bytes, mut cut) = (0, 0);
        for piece in &portion.messages {
            bytes += u64::from(piece.original);
            cut += u64::from(piece.original > piece.length);
        }
        add(&tally.bytes, bytes);
        if cut > 0 {
            add(&tally.cut, cut);
        }
    }

    fn split(&self, portion: Portion) -> Vec<Part> {
        self.router(|router, _| router.split(portion))
    }

    fn router<T>(&self, ask: impl FnOnce(&mut Router, Micros) -> T) -> T {
        let router = &self.inner.router;
        let mut router = router.lock().unwrap_or_else(PoisonError::into_inner);
        let answer = ask(&mut router, now());
        self.inner
            .tally
            .dropped
            .store(router.dropped(), Ordering::Relaxed);
        answer
    }
}

fn summaries(told: Vec<(Arc<Domain>, steward_protocol::logs::Gap)>) -> Vec<Part> {
    let source: Arc<str> = "rules:".into();
    let part = |(domain, gap)| {
        let mut portion = Portion::new(Arc::clone(&source), now());
        portion.gaps.push(gap);
        (domain, portion)
    };
    told.into_iter().map(part).collect()
}

/// Returns what a portion takes of the room; never more than there is.
fn cost(portion: &Portion) -> u32 {
    let bytes = portion.arena.len().clamp(LEAST, ROOM);
    u32::try_from(bytes).unwrap_or(u32::MAX)
}

/// Returns the wall clock's time.
pub fn now() -> Micros {
    Micros::from(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;

    fn portion(bytes: usize) -> Portion {
        let mut portion = Portion::new("x".into(), now());
        portion.push(&vec![b'x'; bytes], 5);
        portion
    }

    fn feed(capacity: usize) -> (Feed, Arc<Refused>, mpsc::Receiver<Handover>) {
        let (hand, handed) = mpsc::channel(capacity);
        let domain: Domain = "app".parse().expect("a domain");
        let (feed, refused) = Feed::new(domain, Arc::default(), hand, Arc::default());
        (feed, refused, handed)
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_waits_once_for_a_slow_disk_and_is_counted_from_then_on() {
        let (feed, refused, mut handed) = feed(64);
        for _ in 0..4 {
            feed.offer(portion(ROOM / 4)).await.expect("a writer");
        }
        let began = Instant::now();
        let paused = tokio::time::Instant::now();
        for _ in 0..10 {
            feed.offer(portion(100)).await.expect("a writer");
        }
        assert_eq!(paused.elapsed(), PATIENCE, "only the first has waited");
        assert!(began.elapsed() < PATIENCE * 10);
        assert_eq!(refused.count.load(Ordering::Relaxed), 10);
        assert_eq!(
            (feed.tally().view().refused, feed.tally().view().messages),
            (10, 14)
        );
        drop(handed.recv().await);
        feed.offer(portion(100)).await.expect("a writer");
        assert_eq!(refused.count.load(Ordering::Relaxed), 10);
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_wait_waits_until_what_it_handed_over_is_taken() {
        let (feed, refused, mut handed) = feed(64);
        feed.put(portion(2 * ROOM), None)
            .await
            .expect("there is room for one of any size");
        let mut next = putting(&feed);
        assert!(timeout(Duration::from_secs(60), &mut next).await.is_err());
        drop(handed.recv().await);
        next.await.expect("a writer");
        assert_eq!(refused.count.load(Ordering::Relaxed), 0);
    }

    fn putting(feed: &Feed) -> std::pin::Pin<Box<dyn Future<Output = Result<(), Closed>> + '_>> {
        Box::pin(feed.put(portion(1), None))
    }

    #[tokio::test]
    async fn small_portions_are_bounded_in_number() {
        let (feed, refused, _handed) = feed(10_000);
        for _ in 0..ROOM / LEAST + 1 {
            feed.offer(portion(1)).await.expect("a writer");
        }
        assert_eq!(refused.count.load(Ordering::Relaxed), 1);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_writer_that_is_gone() {
        let (feed, _, handed) = feed(1);
        drop(handed);
        assert_eq!(feed.put(portion(1), None).await, Err(Closed));
        assert_eq!(feed.offer(portion(1)).await, Err(Closed));
    }
}
