//! What a process costs: processor time and memory, as the kernel tells in `/proc`.

use std::{fs, thread, time::Duration};

use anyhow::{Context, Result};

/// The kernel's unit of processor time in `/proc`: fixed at 100 per second towards programs.
const TICK: Duration = Duration::from_millis(10);

/// How long a process must use nothing to count as done.
const CALM: Duration = Duration::from_millis(500);

/// Returns the processor time a process has used, all its threads together, ended ones too.
pub(super) fn processor(pid: u32) -> Result<Duration> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    // The name in parentheses may have anything in it; user and system time are the 12th and 13th words behind it.
    let words = stat.rsplit(") ").next().unwrap_or_default();
    let ticks = words.split(' ').skip(11).take(2).map(str::parse::<u32>);
    let ticks: u32 = ticks.sum::<Result<_, _>>().context("read processor time")?;
    Ok(TICK * ticks)
}

/// Memory of a process, in bytes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Memory {
    /// All that is resident.
    pub(super) resident: u64,
    /// Of it, what belongs to the process alone.
    pub(super) own: u64,
    /// Of it, pages of files: the program itself and its libraries.
    pub(super) files: u64,
    /// The most that was ever resident.
    pub(super) peak: u64,
}

/// Returns what memory a process has.
pub(super) fn memory(pid: u32) -> Result<Memory> {
    let path = format!("/proc/{pid}/status");
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    Ok(memory_of(&status))
}

fn memory_of(status: &str) -> Memory {
    let bytes = |key: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(key));
        let kilobytes = value.and_then(|value| value.trim().trim_end_matches(" kB").parse().ok());
        kilobytes.unwrap_or(0_u64) * 1024
    };
    Memory {
        resident: bytes("VmRSS:"),
        own: bytes("RssAnon:"),
        files: bytes("RssFile:"),
        peak: bytes("VmHWM:"),
    }
}

/// Waits until a process does nothing any more.
pub(super) fn calm(pid: u32) -> Result<()> {
    let mut before = processor(pid)?;
    loop {
        thread::sleep(CALM);
        let now = processor(pid)?;
        // One tick may be anything.
        if now <= before + TICK {
            return Ok(());
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_words_are_read() {
        let status = "Name:\tx\nVmHWM:\t   2000 kB\nVmRSS:\t    1000 kB\nRssAnon:\t     400 kB\nRssFile:\t     600 kB\n";
        let memory = memory_of(status);
        let expected = Memory {
            resident: 1_024_000,
            own: 409_600,
            files: 614_400,
            peak: 2_048_000,
        };
        assert_eq!(memory, expected);
        let own = std::process::id();
        assert!(super::memory(own).is_ok_and(|memory| memory.resident > 0));
        assert!(processor(own).is_ok());
    }
}
