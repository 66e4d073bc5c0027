//! What was counted since the start, by a closed set of names; each is logged the first time.

use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
};

macro_rules! counters {
    ($($(#[$doc:meta])* $name:ident => $text:literal,)*) => {
        /// Something that is counted.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub enum Counter {
            $($(#[$doc])* $name,)*
        }

        impl Counter {
            /// Every counter, in the order of their declaration.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the name in the hello.
            pub fn as_str(self) -> &'static str {
                match self {
                    $(Self::$name => $text,)*
                }
            }
        }
    };
}

counters! {
    /// A subject that is not one of ours.
    GarbageSubject => "garbage_subject",
    /// A frame that cannot be decoded.
    GarbageFrame => "garbage_frame",
    /// An order or a cancellation that arrived on another subject than its own.
    Redirected => "redirected",
    /// An order before this start of the agent was welcomed.
    BeforeWelcome => "before_welcome",
    /// An order that is settled already and forgotten.
    Settled => "settled",
    /// A cancellation of an order whose id is known with other content.
    OtherContent => "other_content",
    /// A frame dropped because the mailbox of its process was full.
    MailboxFull => "mailbox_full",
    /// A frame for a process that was waiting for its restart.
    Restarting => "restarting",
    /// A process went on without the verdict on its fault, which did not come in time.
    VerdictsLate => "verdicts_late",
    /// A process that could not be ended, because it blocks its thread.
    LeftBehind => "processes_left_behind",
    /// A welcome or confirmation from a ledger this agent does not belong to.
    ForeignLedger => "foreign_ledger",
    /// A welcome or confirmation from an earlier reign.
    StaleReign => "stale_reign",
    /// A welcome or confirmation meant for another start of this agent.
    OtherInstance => "other_instance",
    /// An event dropped because the spool was full.
    EventsDropped => "events_dropped",
    /// A journal write that failed.
    Storage => "storage_errors",
    /// The broker dropped frames because this program read too slowly.
    SlowConsumer => "slow_consumer",
    /// Something could not be said because the broker was away.
    NotSent => "not_sent",
    /// Reconnections to the broker.
    Reconnects => "reconnects",
}

/// The numbers.
#[derive(Debug)]
pub struct Counters {
    values: Vec<AtomicU64>,
}

impl Default for Counters {
    fn default() -> Self {
        Self {
            values: Counter::ALL.iter().map(|_| AtomicU64::new(0)).collect(),
        }
    }
}

impl Counters {
    /// Counts one.
    pub fn count(&self, counter: Counter) {
        self.add(counter);
    }

    /// Counts one and says in the log what it was, if it is the first of its kind.
    pub fn note(&self, counter: Counter, detail: &dyn std::fmt::Display) {
        if self.add(counter) == 0 {
            tracing::warn!(
                kind = counter.as_str(),
                %detail,
                "something unusable arrived or happened; it is counted, and this kind is not logged again"
            );
        }
    }

    fn add(&self, counter: Counter) -> u64 {
        self.values
            .get(counter as usize)
            .map_or(0, |value| value.fetch_add(1, Ordering::Relaxed))
    }

    /// Returns how often.
    pub fn get(&self, counter: Counter) -> u64 {
        self.values
            .get(counter as usize)
            .map_or(0, |value| value.load(Ordering::Relaxed))
    }

    /// Returns everything that was counted at least once.
    pub fn all(&self) -> BTreeMap<String, u64> {
        Counter::ALL
            .iter()
            .map(|counter| (counter.as_str().to_owned(), self.get(*counter)))
            .filter(|(_, value)| *value > 0)
            .collect()
    }
}
