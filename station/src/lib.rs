//! The station: takes messages, delivers them to nodes that are sometimes away, and knows what became of each.

pub mod broker;
pub mod bus;
pub mod cli;
pub mod config;
pub mod courier;
pub mod delivery;
pub mod http;
pub mod inbox;
pub mod logs;
pub mod results;
pub mod roster;
pub mod serve;
pub mod signals;
pub mod sole;
pub mod station;
pub mod store;
pub mod transfer;
pub mod view;
pub mod why;
