//! Logs on their way from the programs of a node to its station.

pub mod send;
pub mod spool;
