//! The station: takes messages, delivers them to nodes that are sometimes away, and knows what became of each.

pub mod bus;
pub mod config;
pub mod courier;
pub mod delivery;
pub mod http;
pub mod roster;
pub mod signals;
pub mod station;
pub mod store;
pub mod view;
