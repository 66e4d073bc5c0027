//! What the node is: read anew for every hello, from files of the kernel that cost nothing to read, and
//! what its config lets it be asked for.

use std::{fs, num::NonZero, path::Path, thread};

use rustix::{
    fs::statvfs,
    system::{sysinfo, uname},
};
use steward_protocol::Facts;

use crate::method::Methods;

/// Where a system says its name.
const RELEASE: &str = "/etc/os-release";

/// Where the kernel tells how its memory is used.
const MEMORY: &str = "/proc/meminfo";

/// Longest text of a fact that is told.
const MAX_TEXT: usize = 128;

/// Gathers what can be known of this node; its state is in `state_dir`, and it offers `methods`.
pub(super) fn gather(state_dir: &Path, methods: &Methods) -> Facts {
    let system = uname();
    let text = |text: &std::ffi::CStr| short(&text.to_string_lossy());
    let disk = statvfs(state_dir).ok();
    let memory = fs::read_to_string(MEMORY).unwrap_or_default();
    Facts {
        os: fs::read_to_string(RELEASE)
            .ok()
            .and_then(|release| pretty_name(&release)),
        kernel: Some(text(system.release())),
        arch: Some(text(system.machine())),
        cpus: thread::available_parallelism()
            .ok()
            .and_then(|cpus| u32::try_from(NonZero::get(cpus)).ok()),
        memory_bytes: kibibytes(&memory, "MemTotal"),
        memory_available_bytes: kibibytes(&memory, "MemAvailable"),
        disk_bytes: disk
            .as_ref()
            .map(|disk| disk.f_blocks.saturating_mul(disk.f_frsize)),
        disk_free_bytes: disk
            .as_ref()
            .map(|disk| disk.f_bavail.saturating_mul(disk.f_frsize)),
        uptime_s: u64::try_from(sysinfo().uptime).ok(),
        methods: methods.limited(),
    }
}

/// Returns a value of `/proc/meminfo` in bytes.
fn kibibytes(memory: &str, name: &str) -> Option<u64> {
    let line = memory
        .lines()
        .find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    let number: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    number.checked_mul(1024)
}

/// Returns the name a system gives itself for people.
fn pretty_name(release: &str) -> Option<String> {
    let value = release
        .lines()
        .find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(short(value.trim_matches(['"', '\''])))
}

fn short(text: &str) -> String {
    text.chars().take(MAX_TEXT).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_are_read_as_the_kernel_writes_them() {
        let memory = "MemTotal:        4026544 kB\nMemFree: 1 kB\nMemAvailable:    2013272 kB\n";
        assert_eq!(kibibytes(memory, "MemTotal"), Some(4_026_544 * 1024));
        assert_eq!(kibibytes(memory, "MemAvailable"), Some(2_013_272 * 1024));
        assert_eq!(kibibytes(memory, "Mem"), None);
        assert_eq!(kibibytes("MemTotal: many kB\n", "MemTotal"), None);
        let release = "NAME=x\nPRETTY_NAME=\"Debian GNU/Linux 13 (trixie)\"\n";
        let expected = Some("Debian GNU/Linux 13 (trixie)".to_owned());
        assert_eq!(pretty_name(release), expected);
    }

    #[test]
    fn this_node_has_facts() {
        let facts = gather(Path::new("/"), &Methods::default());
        assert!(facts.kernel.is_some_and(|kernel| !kernel.is_empty()));
        assert!(facts.memory_bytes > facts.memory_available_bytes);
        assert!(facts.disk_bytes >= facts.disk_free_bytes && facts.disk_bytes > Some(0));
        assert!(facts.cpus > Some(0) && facts.uptime_s.is_some());
        assert_eq!(facts.methods, None, "all are offered");
    }
}
