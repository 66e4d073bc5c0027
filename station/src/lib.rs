//! The station: takes messages, delivers them to nodes that are sometimes away, and knows what became of each.

pub mod view;
pub mod courier;
pub mod delivery;
pub mod roster;
pub mod store;
pub mod bus;
pub mod config;
pub mod http;
pub mod inbox;
pub mod signals;
pub mod station;
