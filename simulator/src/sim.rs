//! The simulator: the real decisions of one station and several agents under seeded faults.
