//! The simulator: the real decisions of one station and several agents under seeded faults.
//!
//! The courier, the journal and the dispatch are the very types the programs drive. Around them are
//! shells of a few hundred lines that do what the real shells do, on disks, lines and clocks that a
//! seed spoils. Ground truth of what ran comes from the simulated commands alone.

pub mod act;
pub mod book;
pub mod bug;
pub mod check;
pub mod dice;
pub mod disk;
pub mod faults;
pub mod host;
pub mod intake;
pub mod ledger;
pub mod notes;
pub mod operator;
pub mod plan;
pub mod queue;
pub mod rounds;
pub mod run;
pub mod station;
pub mod truth;
pub mod warden;
pub mod wire;
pub mod work;
pub mod world;

#[cfg(test)]
mod tests;
