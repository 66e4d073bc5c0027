//! What is known of the logs at every moment, for the status, the hello and the delivery. It decides nothing.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread::JoinHandle,
};

use serde::{Deserialize, Serialize};
use steward_protocol::Budget;

use super::spool::Standing;

macro_rules! tallies {
    ($($(#[$doc:meta])* $name:ident,)*) => {
        /// What an input has seen, since the start of the agent.
        #[derive(Debug, Default)]
        pub struct Tally {
            $($(#[$doc])* pub $name: AtomicU64,)*
            trouble: Mutex<Option<String>>,
        }

        /// What an input has seen, for people.
        #[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
        pub struct InputView {
            $($(#[$doc])* #[serde(default)] pub $name: u64,)*
            /// Why it does not work, if it does not.
            #[serde(default, skip_serializing_if = "Option::is_none")]
            pub trouble: Option<String>,
        }

        impl Tally {
            /// Returns the numbers of this moment.
            pub fn view(&self) -> InputView {
                InputView {
                    $($name: self.$name.load(Ordering::Relaxed),)*
                    trouble: lock(&self.trouble).clone(),
                }
            }
        }
    };
}

tallies! {
    /// Messages taken.
    messages,
    /// Bytes of them, as they came.
    bytes,
    /// Messages that were cut.
    cut,
    /// Messages whose beginning or end a wrong octet count made uncertain.
    out_of_step,
    /// Messages that had no end when their connection ended.
    unfinished,
    /// Messages the kernel had no room for.
    kernel_drops,
    /// Messages there was no room for in the agent.
    refused,
    /// Messages that rules have dropped on purpose.
    dropped,
    /// Connections that are open.
    connections,
    /// Connections that were turned away.
    turned_away,
    /// Tries to take a connection that the system refused, as for want of descriptors.
    untaken,
    /// Files that are read.
    files,
    /// Bytes of files that are not durably read.
    behind,
}

impl Tally {
    /// Says why the input does not work, or that it does.
    pub fn trouble(&self, trouble: Option<String>) {
        *lock(&self.trouble) = trouble;
    }
}

/// Adds to a number.
pub fn add(number: &AtomicU64, more: u64) {
    number.fetch_add(more, Ordering::Relaxed);
}

/// How it stands with the logs of one domain, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DomainView {
    /// Bytes its spool takes.
    pub used: u64,
    /// Bytes it may take.
    pub share: u64,
    /// Messages dropped since the start.
    pub dropped: u64,
    /// Damaged places found since the start.
    pub damaged: u64,
    /// Why nothing is taken, if the disk fails.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stuck: Option<String>,
}

/// How it stands with the logs, for people.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogsView {
    /// The inputs.
    pub inputs: BTreeMap<String, InputView>,
    /// The domains.
    pub domains: BTreeMap<String, DomainView>,
    /// Bytes the spool may take in all.
    pub size: u64,
}

#[derive(Debug, Default)]
struct State {
    inputs: BTreeMap<String, Arc<Tally>>,
    standings: Vec<Standing>,
    size: u64,
    thread: Option<JoinHandle<()>>,
}

/// What is known of the logs.
#[derive(Debug, Default)]
pub struct Board {
    state: Mutex<State>,
}

impl Board {
    /// Returns the numbers of an input; they go on where an earlier start of the process left them.
    pub fn tally(&self, input: &str) -> Arc<Tally> {
        let mut state = lock(&self.state);
        Arc::clone(state.inputs.entry(input.to_owned()).or_default())
    }

    /// Takes note of how it stands with the spool.
    pub fn stand(&self, standings: Vec<Standing>, size: u64) {
        let mut state = lock(&self.state);
        state.standings = standings;
        state.size = size;
    }

    /// Takes note of the thread that has the spool. It outlives a process that was cut off, for a moment.
    pub fn sit(&self, thread: JoinHandle<()>) {
        lock(&self.state).thread = Some(thread);
    }

    /// Tells whether nobody has the spool.
    pub fn is_free(&self) -> bool {
        let state = lock(&self.state);
        state.thread.as_ref().is_none_or(JoinHandle::is_finished)
    }

    /// Returns why the disk does not take logs, if it does not.
    pub fn stuck(&self) -> Option<String> {
        let state = lock(&self.state);
        let mut stuck = state.standings.iter().filter_map(|one| {
            let problem = one.stuck.as_ref()?;
            Some(format!("logs of domain {}: {problem}", one.domain))
        });
        stuck.next()
    }

    /// Returns the inputs that cannot take connections for the moment, and why.
    pub fn untaken(&self) -> Vec<(String, String)> {
        let state = lock(&self.state);
        let has_failed = |tally: &Tally| tally.untaken.load(Ordering::Relaxed) > 0;
        let failing = |(name, tally): (&String, &Arc<Tally>)| {
            let trouble = has_failed(tally).then(|| lock(&tally.trouble).clone())?;
            Some((name.clone(), trouble?))
        };
        state.inputs.iter().filter_map(failing).collect()
    }

    /// Returns how it stands, for people; nothing, if there are no logs.
    pub fn view(&self) -> Option<LogsView> {
        let state = lock(&self.state);
        if state.inputs.is_empty() {
            return None;
        }
        let inputs = state.inputs.iter();
        let domain = |one: &Standing| {
            let view = DomainView {
                used: one.used,
                share: one.share,
                dropped: one.dropped,
                damaged: one.damaged,
                stuck: one.stuck.clone(),
            };
            (one.domain.to_string(), view)
        };
        Some(LogsView {
            inputs: inputs
                .map(|(name, tally)| (name.clone(), tally.view()))
                .collect(),
            domains: state.standings.iter().map(domain).collect(),
            size: state.size,
        })
    }

    /// Returns what a hello says of it.
    pub fn budget(&self) -> Option<Budget> {
        let view = self.view()?;
        Some(Budget {
            used: view.domains.values().map(|domain| domain.used).sum(),
            limit: view.size,
        })
    }

    /// Adds what a hello counts of it.
    pub fn count(&self, counted: &mut BTreeMap<String, u64>) {
        let Some(view) = self.view() else { return };
        let inputs = || view.inputs.values();
        let domains = || view.domains.values();
        let rows: [(&str, u64); 10] = [
            ("log_messages", inputs().map(|input| input.messages).sum()),
            (
                "log_kernel_drops",
                inputs().map(|input| input.kernel_drops).sum(),
            ),
            ("log_refused", inputs().map(|input| input.refused).sum()),
            (
                "log_turned_away",
                inputs().map(|input| input.turned_away).sum(),
            ),
            ("log_untaken", inputs().map(|input| input.untaken).sum()),
            ("log_cut", inputs().map(|input| input.cut).sum()),
            (
                "log_out_of_step",
                inputs().map(|input| input.out_of_step).sum(),
            ),
            (
                "log_unfinished",
                inputs().map(|input| input.unfinished).sum(),
            ),
            ("log_dropped", domains().map(|domain| domain.dropped).sum()),
            ("log_damaged", domains().map(|domain| domain.damaged).sum()),
        ];
        for (name, number) in rows.into_iter().filter(|(_, number)| *number > 0) {
            counted.insert(name.to_owned(), number);
        }
        for (name, input) in &view.inputs {
            counted.insert(format!("log_messages {name}"), input.messages);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
