//! The station: takes messages, delivers them to nodes that are sometimes away, and knows what became of each.

pub mod broker;
pub mod cli;
pub mod config;
pub mod inbox;
pub mod signals;
pub mod view;
