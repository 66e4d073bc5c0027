//! Whether a broker's URL leaves this machine, and whether that was allowed.

use std::net::IpAddr;

use super::layers::{Layers, Value};

/// Where the broker is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// On this machine.
    Loopback,
    /// Elsewhere, and the operator allowed it although nothing is signed yet.
    Unsigned,
}

/// Judges the URLs; notes a problem when they leave this machine without permission.
pub(super) fn reach(layers: &mut Layers<'_>, urls: &str) -> Option<Reach> {
    let allowed = layers
        .or("allow_unsigned", answer, Some(false))
        .unwrap_or(false);
    let hosts: Vec<&str> = urls.split(',').map(|url| host(url.trim())).collect();
    if hosts.contains(&"") {
        layers.problem(
            "nats",
            format!("{urls:?} names no host; write nats://HOST:4222"),
        );
        return None;
    }
    match hosts.iter().find(|host| !is_loopback(host)) {
        None => Some(Reach::Loopback),
        Some(_) if allowed => Some(Reach::Unsigned),
        Some(host) => {
            layers.problem(
                "nats",
                format!(
                    "the broker {host} is not on this machine, and commands are not signed yet: whoever can publish there can run commands here; use a broker on loopback, or accept that with --allow-unsigned"
                ),
            );
            None
        }
    }
}

fn answer(value: &Value) -> Result<bool, String> {
    match value {
        Value::Text(text) if matches!(text.as_str(), "true" | "1") => Ok(true),
        Value::Text(text) if matches!(text.as_str(), "false" | "0") => Ok(false),
        Value::Text(_) | Value::List(_) | Value::Pairs(_) => {
            Err("is neither true nor false".to_owned())
        }
    }
}

/// Returns the host of a URL, without scheme, user, port and path.
fn host(url: &str) -> &str {
    let rest = url.split_once("://").map_or(url, |(_, rest)| rest);
    let rest = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let rest = rest.rsplit_once('@').map_or(rest, |(_, host)| host);
    if let Some(bracketed) = rest.strip_prefix('[') {
        return bracketed.split(']').next().unwrap_or_default();
    }
    rest.rsplit_once(':').map_or(rest, |(host, _)| host)
}

fn is_loopback(host: &str) -> bool {
    host.eq_ignore_ascii_case("localhost")
        || host
            .parse::<IpAddr>()
            .is_ok_and(|address| address.is_loopback())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_hosts_are_on_this_machine() {
        for (url, local) in [
            ("nats://127.0.0.1:4222", true),
            ("nats://127.9.9.9", true),
            ("localhost:4222", true),
            ("tls://LOCALHOST", true),
            ("nats://user:p@ss@127.0.0.1:4222", true),
            ("nats://[::1]:4222", true),
            ("ws://127.0.0.1:80/path", true),
            ("nats://10.0.0.1:4222", false),
            ("nats://127.0.0.1.example.com", false),
            ("nats://localhost.example.com", false),
            ("nats://127.0.0.1@evil.example", false),
            ("nats://evil.example/127.0.0.1", false),
            ("nats://evil.example#@127.0.0.1", false),
            ("nats://[2001:db8::1]:4222", false),
            ("nats://0.0.0.0:4222", false),
        ] {
            assert_eq!(is_loopback(host(url)), local, "{url}");
        }
    }
}
