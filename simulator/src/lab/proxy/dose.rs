//! What the proxy does to a frame, drawn by seeded dice. Pure.

use std::time::Duration;

use super::super::dice::Dice;

/// Longest time a frame is held back.
const DELAY: Duration = Duration::from_millis(400);

/// How long a frame waits for the next one to overtake it.
const OVERTAKE: Duration = Duration::from_millis(30);

/// Longest time nothing is carried at all.
const STALL: Duration = Duration::from_millis(1500);

/// How often each fault is made, in ten thousand frames.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::Args)]
pub(crate) struct Dose {
    /// Frames dropped, in ten thousand
    #[arg(long = "drop", value_name = "N", default_value_t = 100)]
    pub(crate) drop: u32,
    /// Frames sent twice, in ten thousand
    #[arg(long, value_name = "N", default_value_t = 150)]
    pub(crate) duplicate: u32,
    /// Frames overtaken by the next one, in ten thousand
    #[arg(long, value_name = "N", default_value_t = 150)]
    pub(crate) reorder: u32,
    /// Frames held back for up to 400 ms, in ten thousand
    #[arg(long, value_name = "N", default_value_t = 100)]
    pub(crate) delay: u32,
    /// Old frames sent again, in ten thousand
    #[arg(long, value_name = "N", default_value_t = 150)]
    pub(crate) replay: u32,
    /// Frames with one bit of their payload flipped, in ten thousand
    #[arg(long, value_name = "N", default_value_t = 50)]
    pub(crate) flip: u32,
    /// Connections cut in the middle of a frame, in a hundred thousand frames
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) cut: u32,
    /// Connections that carry nothing for up to 1.5 s, in a hundred thousand frames
    #[arg(long, value_name = "N", default_value_t = 20)]
    pub(crate) stall: u32,
}

/// What is done to one frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fault {
    Drop,
    Duplicate,
    /// Held back until then.
    Hold(&'static str, Duration),
    /// An old frame follows: the one this far back.
    Replay(usize),
    /// This bit of the payload is flipped.
    Flip(usize),
    /// Only so many of its bytes leave, and the connection ends.
    Cut(usize),
    Stall(Duration),
}

impl Fault {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Drop => "drop",
            Self::Duplicate => "duplicate",
            Self::Hold(name, _) => name,
            Self::Replay(_) => "replay",
            Self::Flip(_) => "flip",
            Self::Cut(_) => "cut in mid-frame",
            Self::Stall(_) => "stall",
        }
    }
}

impl Dose {
    /// Draws what is done to a frame of so many bytes with so long a payload, after so many others.
    pub(crate) fn draw(
        self,
        dice: &mut Dice,
        bytes: usize,
        payload: usize,
        old: usize,
    ) -> Option<Fault> {
        let mut left = u32::try_from(dice.below(100_000)).unwrap_or(u32::MAX);
        let mut hits = |share: u32| match left.checked_sub(share) {
            Some(rest) => {
                left = rest;
                false
            }
            None => {
                left = u32::MAX;
                true
            }
        };
        if hits(self.drop * 10) {
            Some(Fault::Drop)
        } else if hits(self.duplicate * 10) {
            Some(Fault::Duplicate)
        } else if hits(self.reorder * 10) {
            Some(Fault::Hold("reorder", OVERTAKE))
        } else if hits(self.delay * 10) {
            Some(Fault::Hold("delay", dice.time(DELAY)))
        } else if hits(self.replay * 10) {
            (old > 0).then(|| Fault::Replay(dice.below(old)))
        } else if hits(self.flip * 10) {
            (payload > 0).then(|| Fault::Flip(dice.below(payload * 8)))
        } else if hits(self.cut) {
            Some(Fault::Cut(dice.within(1, bytes.max(2) - 1)))
        } else if hits(self.stall) {
            Some(Fault::Stall(dice.time(STALL)))
        } else {
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn every_fault_is_made_as_often_as_asked() {
        let dose = Dose {
            drop: 100,
            duplicate: 200,
            reorder: 100,
            delay: 100,
            replay: 100,
            flip: 100,
            cut: 1000,
            stall: 1000,
        };
        let (mut dice, mut counts) = (Dice::new(3), BTreeMap::new());
        for _ in 0..100_000 {
            if let Some(fault) = dose.draw(&mut dice, 10, 10, 10) {
                *counts.entry(fault.as_str()).or_insert(0) += 1;
            }
        }
        assert_eq!(counts.len(), 8);
        assert!(
            counts.values().all(|count| (800..2400).contains(count)),
            "{counts:?}"
        );
        assert!(counts["duplicate"] > counts["drop"]);
        let none = Dose {
            drop: 0,
            duplicate: 0,
            reorder: 0,
            delay: 0,
            replay: 0,
            flip: 0,
            cut: 0,
            stall: 0,
        };
        assert!((0..1000).all(|_| none.draw(&mut dice, 10, 10, 10).is_none()));
    }
}
