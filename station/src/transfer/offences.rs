//! What came about transfers and cannot be believed: tallied here, until the loop holds it against
//! whoever sent it.

use std::{
    collections::BTreeMap,
    mem,
    sync::{Arc, Mutex, PoisonError},
};

use steward_protocol::NodeName;

/// Senders told apart between two looks of the loop, which come several times a second; others are counted
/// without their names.
const MAX_SENDERS: usize = 256;

/// A chunk that cannot be read.
pub(super) const GARBAGE_OUTPUT: &str = "garbage_output";
/// A want that cannot be read.
pub(super) const GARBAGE_WANT: &str = "garbage_want";
/// A subject that cannot be read.
pub(super) const GARBAGE_SUBJECT: &str = "garbage_subject";
/// A transfer of an order that this station never gave.
pub(super) const UNKNOWN_ORDER: &str = "transfer_unknown_order";

/// How often each sender did what.
pub(super) type Tally = BTreeMap<(Option<NodeName>, &'static str), u64>;

/// The tally, shared between those who count and the loop.
#[derive(Debug, Clone, Default)]
pub(super) struct Offences(Arc<Mutex<Tally>>);

impl Offences {
    /// Counts a frame.
    pub(super) fn note(&self, sender: Option<&NodeName>, kind: &'static str) {
        let mut tally = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut key = (sender.cloned(), kind);
        if tally.len() >= MAX_SENDERS && !tally.contains_key(&key) {
            key.0 = None;
        }
        *tally.entry(key).or_default() += 1;
    }

    /// Returns what was counted since the last call.
    pub(super) fn take(&self) -> Tally {
        mem::take(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn invented_names_do_not_fill_the_tally_and_are_counted_all_the_same() {
        let offences = Offences::default();
        for number in 0..1000 {
            let name = format!("n{number}").parse().expect("a name");
            offences.note(Some(&name), GARBAGE_WANT);
        }
        let tally = offences.take();
        assert_eq!(tally.len(), MAX_SENDERS + 1);
        assert_eq!(tally.values().sum::<u64>(), 1000);
        assert!(offences.take().is_empty());
    }
}
