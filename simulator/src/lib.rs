//! Shows that delivery stays true under faults.

pub mod sim;
