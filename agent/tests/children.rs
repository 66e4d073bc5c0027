//! Commands that misbehave, for real: under a warden alone, and under an agent.

mod agent;
mod alone;
mod disk;
mod limits;
mod log;
