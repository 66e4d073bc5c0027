//! Shows that delivery stays true under faults.

pub mod lab;
pub mod sim;
