//! What an input hands its portions to: sorts them by the rules and passes them on to the spool, within bounds.
//!
//! Who can wait waits for room; who cannot is refused, and what was refused is counted until the spool writes it down as
//! a gap. It knows no sockets and no disk.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use jiff::Timestamp;
use steward_protocol::{
    Domain,
    logs::{Gap, Micros},
};
use tokio::sync::oneshot;

use super::{
    board::{Tally, add},
    route::{Part, Router, Rules, Tell},
    spool::{
        Portion,
        writer::{self, Done, Gone, Receipt, Store},
    },
};

/// Takes the portions of one input.
#[derive(Debug, Clone)]
pub struct Feed {
    inner: Arc<Inner>,
}

/// The way to one domain.
#[derive(Debug, Clone)]
struct Way {
    feed: writer::Feed,
    /// Whether it was waited for in vain last: then nothing waits until there is room at once. One domain that is full must
    /// not hold up what goes to others.
    is_refusing: Arc<AtomicBool>,
}

impl Way {
    fn new(feed: writer::Feed) -> Self {
        Self {
            feed,
            is_refusing: Arc::default(),
        }
    }
}

#[derive(Debug)]
struct Inner {
    router: Mutex<Router>,
    store: Store,
    /// The way to each domain that something has gone to; rules name few.
    ways: Mutex<BTreeMap<Arc<Domain>, Way>>,
    /// Where what is refused is counted.
    own: writer::Feed,
    tally: Arc<Tally>,
}

impl Feed {
    /// Returns the feed of an input whose messages go to `domain` unless a rule says otherwise.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub fn new(
        domain: Domain,
        rules: Arc<Rules>,
        store: Store,
        tally: Arc<Tally>,
    ) -> Result<Self, Gone> {
        let own = store.feed(&domain)?;
        let domain = Arc::new(domain);
        let inner = Inner {
            router: Mutex::new(Router::new(Arc::clone(&domain), rules)),
            store,
            ways: Mutex::new(BTreeMap::from([(domain, Way::new(own.clone()))])),
            own,
            tally,
        };
        Ok(Self {
            inner: Arc::new(inner),
        })
    }

    /// Returns the numbers of the input.
    pub fn tally(&self) -> &Tally {
        &self.inner.tally
    }

    /// Returns what to hand a portion over with that can be read again, and what to keep until it was noted.
    pub fn receipt(&self) -> (Done, Receipt) {
        self.inner.own.receipt()
    }

    /// Hands a portion over; waits for room. `done` is told once all of it is durable, and dropped if it never will be.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub async fn put(&self, portion: Portion, done: Option<Done>) -> Result<(), Gone> {
        self.note(&portion);
        let parts = self.split(portion);
        self.put_parts(parts, done).await
    }

    /// Says in every domain that this input's messages may go to that some of them are missing, nobody knows how many: in its
    /// own, and where rules may send them.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub async fn put_everywhere(&self, gap: &Portion) -> Result<(), Gone> {
        let targets = self.router(|router, _| router.targets(&gap.source));
        for domain in &targets {
            self.way(domain)?.feed.put(gap.clone(), None).await?;
        }
        Ok(())
    }

    async fn put_parts(&self, parts: Vec<Part>, done: Option<Done>) -> Result<(), Gone> {
        let mut dones = match done {
            Some(done) => fan_out(done, parts.len()),
            None => Vec::new(),
        };
        for (domain, portion) in parts {
            self.way(&domain)?.feed.put(portion, dones.pop()).await?;
        }
        Ok(())
    }

    /// Hands a portion over that can wait for no longer than `patience`: a write to a slow disk, not a disk that hangs. What
    /// finds no room is counted, and its number arrives as a gap.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub async fn offer(&self, portion: Portion, patience: Duration) -> Result<(), Gone> {
        self.note(&portion);
        let inner = &self.inner;
        for (domain, portion) in self.split(portion) {
            let way = self.way(&domain)?;
            let taken = if way.is_refusing.load(Ordering::Relaxed) {
                way.feed.offer(portion, None)
            } else {
                way.feed.offer_within(portion, patience).await
            };
            way.is_refusing.store(taken.is_err(), Ordering::Relaxed);
            if let Err(refused) = taken {
                add(&inner.tally.refused, refused.messages.len() as u64);
            }
        }
        Ok(())
    }

    /// Waits until everything is durable that was handed over before.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub async fn settled(&self) -> Result<(), Gone> {
        let ways = self.inner.ways.lock();
        let ways: Vec<_> = ways
            .unwrap_or_else(PoisonError::into_inner)
            .values()
            .cloned()
            .collect();
        for way in ways {
            // What waits for room stands in line, and this behind it.
            let (done, told) = oneshot::channel();
            let nothing = Portion::new("".into(), now());
            way.feed.put(nothing, Some(done.into())).await?;
            told.await.map_err(|_| Gone)?;
        }
        Ok(())
    }

    /// Hands over what rules have suppressed.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub fn tell(&self, how_much: Tell) -> Result<(), Gone> {
        let told = self.router(|router, now| router.tell(now, how_much));
        self.summarise(told)
    }

    /// Puts other rules in the place of those it has.
    ///
    /// # Errors
    ///
    /// Fails when the spool's thread is gone.
    pub fn reroute(&self, rules: Arc<Rules>) -> Result<(), Gone> {
        let told = self.router(|router, now| router.replace(rules, now));
        self.summarise(told)
    }

    /// Counts messages that were taken and cannot be handed over any more.
    pub fn lose(&self, count: u64) {
        self.inner.own.miss(count);
        add(&self.inner.tally.refused, count);
    }

    /// Hands over what is only numbers: if there is no room for them, they are added to what was lost.
    fn summarise(&self, told: Vec<(Arc<Domain>, Gap)>) -> Result<(), Gone> {
        let source: Arc<str> = "rules:".into();
        for (domain, gap) in told {
            let mut portion = Portion::new(Arc::clone(&source), now());
            portion.gaps.push(gap);
            // Refused, it is counted there.
            self.way(&domain)?.feed.offer(portion, None).ok();
        }
        Ok(())
    }

    fn way(&self, domain: &Arc<Domain>) -> Result<Way, Gone> {
        let ways = &self.inner.ways;
        let mut ways = ways.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(way) = ways.get(domain) {
            return Ok(way.clone());
        }
        let way = Way::new(self.inner.store.feed(domain)?);
        ways.insert(Arc::clone(domain), way.clone());
        Ok(way)
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
        let dropped = &self.inner.tally.dropped;
        dropped.store(router.dropped(), Ordering::Relaxed);
        answer
    }
}

/// Returns as many as there are parts; when all of them have been told, `done` is.
fn fan_out(done: Done, parts: usize) -> Vec<Done> {
    match parts {
        // Rules wanted nothing of it.
        0 => {
            done.tell();
            Vec::new()
        }
        1 => vec![done],
        _ => {
            let (tell, told): (Vec<_>, Vec<_>) = (0..parts).map(|_| done.part()).unzip();
            tokio::spawn(async move {
                for one in told {
                    if one.await.is_err() {
                        return;
                    }
                }
                done.tell();
            });
            tell
        }
    }
}

/// Returns the wall clock's time.
pub fn now() -> Micros {
    Micros::from(Timestamp::now())
}

#[cfg(test)]
mod tests {
    use steward_protocol::Generation;
    use tempfile::TempDir;
    use tokio::time::Instant;
    use uuid::Uuid;

    use super::*;
    use crate::{
        config::syslog::{Action, RuleSpec},
        syslog::spool::{Policy, Settings, Spool, Terms, files::Files, writer::Commit},
    };

    const SHARE: u64 = 64 << 10;

    const PATIENCE: Duration = Duration::from_millis(100);

    fn domain(name: &str) -> Domain {
        name.parse().expect("a domain")
    }

    /// Returns a feed of domain `app` with a small spool that blocks.
    fn feed(rules: &[RuleSpec]) -> (Feed, Store, TempDir) {
        let dir = tempfile::tempdir().expect("a directory");
        let disk = Files::open(&dir.path().join("spool")).expect("a disk");
        let settings = Settings {
            total: 2 * SHARE,
            others: Terms {
                share: SHARE,
                policy: Policy::Block,
            },
            ..Settings::default()
        };
        let draw = Box::new(|| Generation(Uuid::now_v7()));
        let spool = Spool::open(disk, settings, draw).expect("a spool");
        let commit = Commit::Every(Duration::from_millis(5));
        let (store, _) = Store::start(spool, commit).expect("a thread");
        let rules = Arc::new(Rules::new(rules).expect("rules"));
        let feed =
            Feed::new(domain("app"), rules, store.clone(), Arc::default()).expect("a thread");
        (feed, store, dir)
    }

    /// Returns a portion that does not compress.
    fn noise(bytes: usize) -> Portion {
        let mut portion = Portion::new("x".into(), now());
        let mut noise = Vec::new();
        while noise.len() < bytes {
            noise.extend_from_slice(Uuid::new_v4().as_bytes());
        }
        for line in noise.chunks(1000) {
            portion.push(line, 5);
        }
        portion
    }

    /// Offers until nothing finds room any more, neither in the spool nor on the way to it. That there is none for the moment
    /// is not enough: its thread may only not have had the time.
    async fn fill(feed: &Feed, store: &Store) {
        let other = store.feed(&domain("other")).expect("a thread");
        let is_refused = async || {
            let before = feed.tally().view().refused;
            let offered = feed.offer(noise(32 << 10), PATIENCE).await;
            offered.expect("a thread");
            feed.tally().view().refused > before
        };
        loop {
            while !is_refused().await {}
            // The thread takes what waits, commits, and takes what then finds room; the question is answered after that.
            let mut portion = Portion::new("x".into(), now());
            portion.push(b"something to commit", 5);
            let (done, told) = oneshot::channel();
            other
                .put(portion, Some(done.into()))
                .await
                .expect("a thread");
            told.await.expect("it is durable");
            store.place(&domain("app")).await.expect("a thread");
            if is_refused().await {
                return;
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn who_cannot_wait_waits_once_and_is_counted_from_then_on() {
        let (feed, store, _dir) = feed(&[]);
        let refused = || feed.tally().view().refused;
        fill(&feed, &store).await;
        let (began, before) = (Instant::now(), refused());
        for _ in 0..10 {
            feed.offer(noise(32 << 10), PATIENCE)
                .await
                .expect("a thread");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
        assert!(refused() > before + 300, "{}", refused());
    }

    #[tokio::test(start_paused = true)]
    async fn a_domain_that_is_full_does_not_hold_up_another() {
        let rule = RuleSpec {
            pattern: Some("web".to_owned()),
            domain: Some("web".parse().expect("a domain")),
            ..RuleSpec::default()
        };
        let (feed, store, _dir) = feed(&[rule]);
        fill(&feed, &store).await;
        let began = Instant::now();
        for _ in 0..10 {
            let mut portion = noise(32 << 10);
            portion.push(b"web", 5);
            feed.offer(portion, PATIENCE).await.expect("a thread");
        }
        assert_eq!(began.elapsed(), Duration::ZERO);
    }

    #[tokio::test(start_paused = true)]
    async fn who_can_wait_waits_for_as_long_as_the_spool_is_full() {
        let (feed, _store, _dir) = feed(&[]);
        let filling = async {
            loop {
                feed.put(noise(32 << 10), None).await.expect("a thread");
            }
        };
        let filled = tokio::time::timeout(Duration::from_secs(3600), filling).await;
        assert!(filled.is_err());
        assert_eq!(feed.tally().view().refused, 0);
    }

    #[tokio::test]
    async fn what_goes_to_several_domains_is_done_when_all_of_it_is_durable() {
        let rule = RuleSpec {
            pattern: Some("web".to_owned()),
            domain: Some("web".parse().expect("a domain")),
            ..RuleSpec::default()
        };
        let drop_it = RuleSpec {
            pattern: Some("noise".to_owned()),
            action: Action::Drop,
            ..RuleSpec::default()
        };
        let (feed, store, _dir) = feed(&[rule, drop_it]);
        for texts in [&["web", "other"][..], &["web"], &["noise"]] {
            let mut portion = Portion::new("x".into(), now());
            for text in texts {
                portion.push(text.as_bytes(), 5);
            }
            let (done, told) = oneshot::channel();
            feed.put(portion, Some(done.into()))
                .await
                .expect("a thread");
            told.await.expect("all of it is durable");
        }
        // Who waits is told before the board is.
        let row = |domain: &str, position| (domain.to_owned(), Some(position));
        let expected = [row("app", 1), row("web", 2)];
        let mut standings = store.standings();
        let arrived = standings.wait_for(|standings| {
            let rows = standings.iter().map(|one| {
                let durable = one.durable.map(|place| place.position);
                (one.domain.to_string(), durable)
            });
            rows.eq(expected.iter().cloned())
        });
        let arrived = tokio::time::timeout(Duration::from_secs(30), arrived).await;
        assert!(
            matches!(arrived, Ok(Ok(_))),
            "the board never said {expected:?}"
        );
    }
}
