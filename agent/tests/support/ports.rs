//! Ports for tests, and whether somebody listens already where a config says so. It starts nobody.

use std::{
    collections::hash_map::RandomState,
    fmt::Display,
    fs,
    hash::{BuildHasher, Hasher},
    net::{TcpListener, UdpSocket},
    ops::Range,
    sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    },
};

/// Below those the system gives to outgoing connections: one of these would take a port between its choice and its use, and
/// whoever connects again and again would some day meet itself.
const PORTS: Range<u32> = 10_000..32_000;

/// How often something is started on another port.
const TRIES: usize = 5;

/// Returns a port that is free for TCP and UDP, and that no other test of this process gets.
pub(crate) fn free_port() -> u16 {
    static NEXT: LazyLock<AtomicU32> = LazyLock::new(|| {
        let dice = RandomState::new().build_hasher().finish();
        AtomicU32::new(u32::try_from(dice % u64::from(PORTS.end)).expect("a small number"))
    });
    for _ in PORTS {
        let count = PORTS.end - PORTS.start;
        let port = PORTS.start + NEXT.fetch_add(1, Ordering::Relaxed) % count;
        let port = u16::try_from(port).expect("a port");
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok();
        if is_free && UdpSocket::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
    panic!("no port of {PORTS:?} is free");
}

/// Starts something on a free port, and on another one should that be taken meanwhile.
pub(crate) fn on_a_free_port<T, E: Display>(mut start: impl FnMut(u16) -> Result<T, E>) -> T {
    let mut tries = 0;
    loop {
        tries += 1;
        match start(free_port()) {
            Ok(started) => return started,
            Err(error) => assert!(tries < TRIES, "it starts on no port: {error}"),
        }
    }
}

/// Tells whether somebody listens on every socket that an agent's config has an input for. An agent is ready before that.
pub(crate) fn are_open(config: &str) -> bool {
    let mut inputs = config.lines().filter_map(|line| {
        let given = line.strip_prefix("input = \"")?.strip_suffix('"')?;
        given.split_once("://")
    });
    inputs.all(|(kind, place)| match kind {
        "tcp" | "tls" => has_port("tcp", place, "0A"),
        "udp" => has_port("udp", place, "07"),
        "unix" => has_path(place, "00010000"),
        "unixgram" => has_path(place, "00000000"),
        _ => true,
    })
}

/// Whether the kernel has a socket of IPv4 with this port that stands so.
fn has_port(kind: &str, place: &str, wanted: &str) -> bool {
    let port = place
        .rsplit_once(':')
        .and_then(|(_, port)| port.parse().ok());
    let port: u16 = port.expect("a port");
    let ending = format!(":{port:04X}");
    let table = fs::read_to_string(format!("/proc/net/{kind}")).expect("a table of sockets");
    let is_it = |row: &str| {
        let mut words = row.split_whitespace().skip(1);
        let (local, standing) = (words.next(), words.nth(1));
        local.is_some_and(|local| local.ends_with(&ending)) && standing == Some(wanted)
    };
    table.lines().any(is_it)
}

/// Whether the kernel has a socket at this path with these flags.
fn has_path(path: &str, flags: &str) -> bool {
    let table = fs::read_to_string("/proc/net/unix").expect("a table of sockets");
    let is_it = |row: &str| {
        let words: Vec<_> = row.split_whitespace().collect();
        words.get(3) == Some(&flags) && words.get(7) == Some(&path)
    };
    table.lines().any(is_it)
}
