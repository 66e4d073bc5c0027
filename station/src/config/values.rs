//! What the texts of settings and flags mean: durations, sizes, times, broker addresses.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use jiff::Timestamp;

use super::LogFormat;

/// The port of a broker whose address names none.
const NATS_PORT: u16 = 4222;

/// Reads a positive duration such as `30s`, `1h 30m` or `90d`.
///
/// # Errors
///
/// Says what is wrong with the text and how a duration is written.
pub fn duration(text: &str) -> Result<Duration, String> {
    match humantime::parse_duration(text.trim()) {
        Ok(Duration::ZERO) => Err(format!("{text:?} is no time at all; write for example 30s")),
        Ok(duration) => Ok(duration),
        Err(error) => Err(format!(
            "{text:?} is not a duration ({error}); write for example 30s, 5m, 1h 30m or 90d"
        )),
    }
}

/// Reads a point in time: RFC 3339, or a duration that is counted back from `now`.
///
/// # Errors
///
/// Says how a time is written.
pub fn since(text: &str, now: Timestamp) -> Result<Timestamp, String> {
    if let Ok(time) = text.trim().parse::<Timestamp>() {
        return Ok(time);
    }
    let back = duration(text).map_err(|_| {
        format!(
            "{text:?} is neither a time nor a duration; write for example 2026-11-21T08:00:00Z, or 1h for the last hour"
        )
    })?;
    now.checked_sub(back)
        .map_err(|_| format!("{text:?} ago is before any time that can be named"))
}

/// Reads a size in bytes, with or without `KiB`, `MiB`, `GiB`, `TiB`.
pub(super) fn bytes(text: &str) -> Result<u64, String> {
    let explain = || {
        format!("{text:?} is not a size; write a number of bytes, or for example 512MiB or 10GiB")
    };
    let text = text.trim();
    let split = text
        .find(|character: char| !character.is_ascii_digit())
        .unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let factor: u64 = match unit.trim() {
        "" | "B" => 1,
        "KiB" => 1 << 10,
        "MiB" => 1 << 20,
        "GiB" => 1 << 30,
        "TiB" => 1 << 40,
        _ => return Err(explain()),
    };
    let number: u64 = number.parse().map_err(|_| explain())?;
    number.checked_mul(factor).ok_or_else(explain)
}

pub(super) fn count(text: &str) -> Result<u64, String> {
    match text.parse() {
        Ok(0) | Err(_) => Err(format!("{text:?} is not a number above 0")),
        Ok(number) => Ok(number),
    }
}

pub(super) fn boolean(text: &str) -> Result<bool, String> {
    match text {
        "true" | "1" | "yes" => Ok(true),
        "false" | "0" | "no" => Ok(false),
        _ => Err(format!("{text:?} is neither true nor false")),
    }
}

pub(super) fn loopback(text: &str) -> Result<SocketAddr, String> {
    let address: SocketAddr = text.parse().map_err(|_| {
        format!("{text:?} is not an address and port; write for example 127.0.0.1:8080")
    })?;
    if address.ip().is_loopback() {
        return Ok(address);
    }
    Err(format!(
        "{address} is reachable from other machines, and the API has no login: use 127.0.0.1:{}, and a tunnel or a proxy with a login to reach it from elsewhere",
        address.port()
    ))
}

pub(super) fn log_filter(text: &str) -> Result<String, String> {
    match text.parse::<tracing_subscriber::EnvFilter>() {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(format!(
            "{text:?} is not a log filter ({error}); write for example info or steward_station=debug"
        )),
    }
}

pub(super) fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is not a log format; write text or json")),
    }
}

/// Tells whether every broker named is on this machine.
pub(super) fn broker_is_local(addresses: &str) -> Result<bool, String> {
    let mut local = true;
    for address in addresses.split(',').map(str::trim) {
        let host = broker_host(address)?;
        local &= host.eq_ignore_ascii_case("localhost")
            || host.parse::<IpAddr>().is_ok_and(|ip| ip.is_loopback());
    }
    Ok(local)
}

fn broker_host(address: &str) -> Result<&str, String> {
    let explain = |what: &str| {
        format!(
            "{:?} is not the address of a broker ({what}); write for example nats://broker.example:{NATS_PORT}",
            hide_credentials(address)
        )
    };
    let rest = match address.split_once("://") {
        Some(("nats" | "tls", rest)) => rest,
        Some(("ws" | "wss", _)) => {
            return Err(explain("this program does not speak NATS over websockets"));
        }
        Some(_) => return Err(explain("its scheme is unknown")),
        None => address,
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    let place = authority
        .rsplit_once('@')
        .map_or(authority, |(_, place)| place);
    let (host, port) = match place
        .strip_prefix('[')
        .and_then(|rest| rest.split_once(']'))
    {
        Some((host, "")) => (host, None),
        Some((host, rest)) => (host, Some(rest.trim_start_matches(':'))),
        None => match place.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (place, None),
        },
    };
    if host.is_empty() {
        return Err(explain("it has no host"));
    }
    match port.map(str::parse::<u16>) {
        None | Some(Ok(1..)) => Ok(host),
        Some(Ok(0) | Err(_)) => Err(explain("its port is not a number from 1 to 65535")),
    }
}

/// Returns the addresses without users and passwords, for screens and logs.
pub fn hide_credentials(addresses: &str) -> String {
    let hide = |address: &str| {
        let (scheme, rest) = match address.split_once("://") {
            Some((scheme, rest)) => (format!("{scheme}://"), rest),
            None => (String::new(), address),
        };
        match rest.rsplit_once('@') {
            Some((_, place)) => format!("{scheme}…@{place}"),
            None => address.to_owned(),
        }
    };
    addresses.split(',').map(hide).collect::<Vec<_>>().join(",")
}
