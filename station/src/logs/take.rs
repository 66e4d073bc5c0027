//! Which batches are stored: those that continue what is there, once and in order.
//!
//! Pure. It does not know where `next` comes from, nor what is in a batch.

use std::time::Duration;

use steward_protocol::{Generation, logs::Header};

/// How long until a node is told again to go back, if what it sends still does not fit: the word may
/// have been lost.
const AGAIN: Duration = Duration::from_secs(1);

/// What becomes of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// It continues what is there.
    Store,
    /// It is there already.
    Twice,
    /// Something is missing in front of it, or it overlaps; the node is to go back.
    Again,
}

/// Judges a batch by the first position that is missing of its generation; 0 if the generation is new.
pub fn judge(next: u64, header: &Header) -> Verdict {
    if header.first == next {
        Verdict::Store
    } else if header.next() <= next {
        Verdict::Twice
    } else {
        Verdict::Again
    }
}

/// The last hole of a stream of which its node was told, so that it is told once and not with every
/// batch behind the hole.
#[derive(Debug, Default)]
pub struct Holes {
    told: Option<(Generation, u64, Duration)>,
}

impl Holes {
    /// Tells whether the node is to be told, now, that positions from `next` on are missing.
    pub fn tell(&mut self, generation: Generation, next: u64, now: Duration) -> bool {
        let is_told = self.told.is_some_and(|(of, from, at)| {
            of == generation && from == next && now.saturating_sub(at) < AGAIN
        });
        if !is_told {
            self.told = Some((generation, next, now));
        }
        !is_told
    }

    /// Forgets the hole of a generation, for it was filled.
    pub fn filled(&mut self, generation: Generation) {
        self.told = self.told.filter(|(of, ..)| *of != generation);
    }
}
