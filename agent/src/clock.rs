//! The agent's three clocks: wall time, time since boot, and which boot it is.
//!
//! Decides nothing. Pure code gets a [`Moment`] and never looks at a clock itself.

use std::{fs, io, sync::Arc};

use jiff::Timestamp;
use rustix::time::{ClockId, clock_gettime};

/// Where the kernel tells which boot this is.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// One reading of all clocks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// The wall clock, which may be wrong and may jump.
    pub wall: Timestamp,
    /// Milliseconds since boot, suspend included; compares only within one boot.
    pub boot_ms: u64,
    /// The kernel's name for this boot.
    pub boot_id: Arc<str>,
}

/// Reads the clocks.
#[derive(Debug, Clone)]
pub struct Clock {
    boot_id: Arc<str>,
}

impl Clock {
    /// Learns which boot this is.
    ///
    /// # Errors
    ///
    /// Fails when the kernel does not tell.
    pub fn open() -> io::Result<Self> {
        let boot_id = fs::read_to_string(BOOT_ID)?.trim().into();
        Ok(Self { boot_id })
    }

    /// Returns the present moment.
    pub fn now(&self) -> Moment {
        Moment {
            wall: Timestamp::now(),
            boot_ms: boot_ms(),
            boot_id: Arc::clone(&self.boot_id),
        }
    }

    /// Returns the kernel's name for this boot.
    pub fn boot_id(&self) -> &str {
        &self.boot_id
    }
}

fn boot_ms() -> u64 {
    let time = clock_gettime(ClockId::Boottime);
    // The kernel's boot time is never negative.
    let seconds = u64::try_from(time.tv_sec).unwrap_or(0);
    let millis = u64::try_from(time.tv_nsec / 1_000_000).unwrap_or(0);
    seconds * 1000 + millis
}
