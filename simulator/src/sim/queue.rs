//! What happens next: events by time, those of one moment in the order they were planned.

use std::{cmp::Reverse, collections::BinaryHeap};

/// Events to come.
#[derive(Debug)]
pub struct Queue<T> {
    heap: BinaryHeap<Reverse<Planned<T>>>,
    planned: u64,
}

#[derive(Debug)]
struct Planned<T> {
    at: u64,
    number: u64,
    what: T,
}

impl<T> Queue<T> {
    /// Returns a queue of nothing.
    pub fn new() -> Self {
        Self {
            heap: BinaryHeap::with_capacity(128),
            planned: 0,
        }
    }

    /// Plans `what` for the moment `at`.
    pub fn plan(&mut self, at: u64, what: T) {
        self.planned += 1;
        let number = self.planned;
        self.heap.push(Reverse(Planned { at, number, what }));
    }

    /// Takes what happens next, and when.
    pub fn take(&mut self) -> Option<(u64, T)> {
        let Reverse(planned) = self.heap.pop()?;
        Some((planned.at, planned.what))
    }
}

impl<T> Default for Queue<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> PartialEq for Planned<T> {
    fn eq(&self, other: &Self) -> bool {
        (self.at, self.number) == (other.at, other.number)
    }
}

impl<T> Eq for Planned<T> {}

impl<T> PartialOrd for Planned<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Planned<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (self.at, self.number).cmp(&(other.at, other.number))
    }
}
