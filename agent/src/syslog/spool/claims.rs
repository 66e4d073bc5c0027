//! What the station has and its source may still give again: it stays in the spool until the source has noted how far it
//! was read. An agent that is killed before that recognises by the spool what comes again.
//!
//! A source that cannot note, as on a full disk, is waited for only for a while, since what is released may be the room it
//! needs.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use steward_protocol::{Domain, Generation};

/// How long a source is waited for.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);

/// Claims of a domain after which those are looked for that were noted out of their order.
const MANY: usize = 1024;

/// Whether its source has noted what was taken.
pub(super) type Noted = Arc<AtomicBool>;

/// The claims of all domains, on what this start has taken.
#[derive(Debug, Default)]
pub(super) struct Claims {
    domains: BTreeMap<Domain, Held>,
}

#[derive(Debug, Default)]
struct Held {
    /// Of each portion a position that is not behind its first record, in the order in which they were taken.
    claims: VecDeque<(u64, Noted)>,
    /// How many of them there may be before all are looked at.
    most: usize,
    wanted: Option<Wanted>,
}

/// What the station has and is not released.
#[derive(Debug)]
struct Wanted {
    generation: Generation,
    next: u64,
    /// What was released.
    until: u64,
    /// Since when that has not become more.
    since: Instant,
}

impl Claims {
    /// Takes note of a portion with no record below `from`.
    pub(super) fn hold(&mut self, domain: &Domain, from: u64, noted: Noted) {
        if !self.domains.contains_key(domain) {
            self.domains.insert(domain.clone(), Held::default());
        }
        let Some(held) = self.domains.get_mut(domain) else {
            return;
        };
        if held.claims.len() >= held.most.max(MANY) {
            let mut has_abandoned = false;
            held.claims.retain(|(_, noted)| {
                // Of those that nobody will note, the first holds as much as all of them.
                let is_abandoned = Arc::strong_count(noted) == 1;
                let is_held = !(is_noted(noted) || (is_abandoned && has_abandoned));
                has_abandoned |= is_abandoned && is_held;
                is_held
            });
            held.most = held.claims.len() * 2;
        }
        held.claims.push_back((from, noted));
    }

    /// Takes note that the station has everything of this start below `next`.
    pub(super) fn want(&mut self, domain: Domain, generation: Generation, next: u64, now: Instant) {
        let held = self.domains.entry(domain).or_default();
        let wanted = held.wanted.get_or_insert(Wanted {
            generation,
            next,
            until: 0,
            since: now,
        });
        wanted.next = wanted.next.max(next);
    }

    /// Returns what may be released now, of each domain up to which position.
    pub(super) fn take(&mut self, now: Instant) -> Vec<(Domain, Generation, u64)> {
        let domains = self.domains.iter_mut();
        domains
            .filter_map(|(domain, held)| {
                let (generation, until) = held.take(now)?;
                Some((domain.clone(), generation, until))
            })
            .collect()
    }

    /// Returns when to ask again although nothing happens until then.
    pub(super) fn wake_at(&self) -> Option<Instant> {
        let wanted = self
            .domains
            .values()
            .filter_map(|held| held.wanted.as_ref());
        wanted.map(|wanted| wanted.since + PATIENCE).min()
    }
}

impl Held {
    fn take(&mut self, now: Instant) -> Option<(Generation, u64)> {
        let wanted = self.wanted.as_mut()?;
        if wanted.since + PATIENCE <= now {
            let until = wanted.next;
            while self.claims.front().is_some_and(|(from, _)| *from < until) {
                self.claims.pop_front();
            }
        }
        while self
            .claims
            .front()
            .is_some_and(|(_, noted)| is_noted(noted))
        {
            self.claims.pop_front();
        }
        let first = self.claims.front().map_or(u64::MAX, |(from, _)| *from);
        let (generation, until) = (wanted.generation, wanted.next.min(first));
        let is_new = until > wanted.until;
        if is_new {
            wanted.until = until;
            wanted.since = now;
        }
        if until == wanted.next {
            self.wanted = None;
        }
        is_new.then_some((generation, until))
    }
}

fn is_noted(noted: &Noted) -> bool {
    noted.load(Ordering::Acquire)
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    const GENERATION: Generation = Generation(Uuid::nil());

    fn app() -> Domain {
        "app".parse().expect("a domain")
    }

    /// Holds a portion at a position and returns what notes it.
    fn hold(claims: &mut Claims, from: u64) -> Noted {
        let noted = Noted::default();
        claims.hold(&app(), from, Arc::clone(&noted));
        noted
    }

    fn note(noted: &Noted) {
        noted.store(true, Ordering::Release);
    }

    fn take(claims: &mut Claims, now: Instant) -> Option<u64> {
        let taken = claims.take(now);
        assert!(taken.len() <= 1, "{taken:?}");
        taken.first().map(|(_, _, until)| *until)
    }

    #[test]
    fn nothing_is_released_behind_what_is_not_noted() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let portions = [10, 20, 30].map(|from| hold(&mut claims, from));
        claims.want(app(), GENERATION, 25, now);
        assert_eq!(take(&mut claims, now), Some(10));
        assert_eq!(take(&mut claims, now), None);
        // Also when a later one was noted before it.
        note(&portions[1]);
        assert_eq!(take(&mut claims, now), None);
        note(&portions[0]);
        assert_eq!(take(&mut claims, now), Some(25));
        assert_eq!(claims.wake_at(), None);
        claims.want(app(), GENERATION, 40, now);
        assert_eq!(take(&mut claims, now), Some(30));
        note(&portions[2]);
        assert_eq!(take(&mut claims, now), Some(40));
    }

    #[test]
    fn a_source_that_does_not_note_is_waited_for_only_for_a_while() {
        let (mut claims, began) = (Claims::default(), Instant::now());
        let _never = [10, 20, 60].map(|from| hold(&mut claims, from));
        claims.want(app(), GENERATION, 50, began);
        assert_eq!(take(&mut claims, began), Some(10));
        assert_eq!(claims.wake_at(), Some(began + PATIENCE));
        let before = began + PATIENCE - Duration::from_millis(1);
        assert_eq!(take(&mut claims, before), None);
        assert_eq!(take(&mut claims, began + PATIENCE), Some(50));
        assert_eq!(claims.wake_at(), None);
        // What came later is waited for as long.
        let later = began + PATIENCE * 2;
        claims.want(app(), GENERATION, 70, later);
        assert_eq!(take(&mut claims, later), Some(60));
        assert_eq!(take(&mut claims, later + PATIENCE), Some(70));
    }

    #[test]
    fn claims_behind_one_that_is_held_for_long_take_no_memory() {
        let (mut claims, now) = (Claims::default(), Instant::now());
        let _first = hold(&mut claims, 7);
        for from in 8..100 * MANY as u64 {
            note(&hold(&mut claims, from));
            // Nobody will ever note this one.
            hold(&mut claims, from);
        }
        let held = &claims.domains[&app()];
        assert!(held.claims.len() <= MANY, "{}", held.claims.len());
        claims.want(app(), GENERATION, 10_000, now);
        assert_eq!(take(&mut claims, now), Some(7));
    }
}
