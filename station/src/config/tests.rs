//! Tests of the configuration: precedence, and everything wrong reported at once.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use jiff::Timestamp;

use super::{
    values::{broker_is_local, bytes, duration, hide_credentials, loopback, since},
    *,
};

fn file(text: &str) -> File {
    File {
        path: PathBuf::from("station.toml"),
        text: text.to_owned(),
    }
}

fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

fn flags(pairs: &[(&'static str, &str)]) -> BTreeMap<&'static str, String> {
    pairs
        .iter()
        .map(|(key, value)| (*key, (*value).to_owned()))
        .collect()
}

/// Returns every problem of a configuration, one per line.
fn problems(flags: &BTreeMap<&'static str, String>, text: &str) -> String {
    let problems = resolve(flags, &BTreeMap::new(), Some(&file(text))).expect_err("problems");
    problems
        .iter()
        .map(ToString::to_string)
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn without_a_word_the_defaults_of_the_design_hold() {
    let Resolved {
        config, warnings, ..
    } = resolve(&BTreeMap::new(), &BTreeMap::new(), None).expect("defaults are fine");
    assert_eq!(
        config,
        Config {
            name: "central".parse().expect("a name"),
            state_dir: "/var/lib/steward".into(),
            nats: "nats://127.0.0.1:4222".to_owned(),
            creds: None,
            http: None,
            unsigned: Unsigned::LoopbackOnly,
            inbox: InboxConfig {
                rescan: Duration::from_secs(10),
                settle: Duration::from_secs(5),
                give_up: Duration::from_secs(60),
            },
            retention: RetentionConfig {
                age: Duration::from_secs(90 * 24 * 3600),
                bytes: 10 << 30,
            },
            logs: RetentionConfig {
                age: Duration::from_secs(90 * 86400),
                bytes: 50 << 30,
            },
            relays: Vec::new(),
            mirror: None,
            outputs_bytes: 10 << 30,
            max_open_deliveries: 1_000_000,
            log: LogConfig {
                filter: "info".to_owned(),
                format: LogFormat::Text,
            },
        }
    );
    assert!(warnings.is_empty());
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let in_file = file("name = \"file\"\nhttp = \"127.0.0.1:1\"\n[inbox]\nrescan = \"1s\"\n");
    let in_environment = environment(&[
        ("STEWARD_NAME", "environment"),
        ("STEWARD_HTTP", ""),
        ("NATS_URL", "nats://user:secret@localhost"),
    ]);
    let resolve = |given: &BTreeMap<&'static str, String>| {
        resolve(given, &in_environment, Some(&in_file)).expect("fine")
    };
    assert_eq!(
        resolve(&flags(&[("name", "flag")])).config.name.as_str(),
        "flag"
    );
    let Resolved {
        config, entries, ..
    } = resolve(&BTreeMap::new());
    assert_eq!(config.name.as_str(), "environment");
    assert_eq!(config.http, "127.0.0.1:1".parse().ok());
    assert_eq!(config.inbox.rescan, Duration::from_secs(1));
    let told: Vec<String> = entries
        .iter()
        .take(5)
        .map(|entry| {
            let value = entry.value.as_deref().unwrap_or("-");
            format!("{} {value} {}", entry.setting.key, entry.origin)
        })
        .collect();
    assert_eq!(
        told,
        [
            "name environment $STEWARD_NAME",
            "state_dir /var/lib/steward default",
            "nats nats://…@localhost $NATS_URL",
            "creds - default",
            "http 127.0.0.1:1 station.toml:2",
        ]
    );
}

#[test]
fn all_problems_are_told_at_once_each_with_its_place() {
    let told = problems(
        &flags(&[("name", "two words")]),
        "nats = \"ftp://x\"\nstate-dir = \"/tmp\"\ncolour = 3\nhttp = [1]\n[inbox]\nrecsan = \"1s\"\nsettle = 5\n[retention]\nage = \"soon\"\n",
    );
    let lines: Vec<&str> = told.lines().collect();
    for (expected, place) in [
        ("did you mean state_dir?", "station.toml:2"),
        (
            "\"colour\" is not a setting; `steward config show`",
            "station.toml:3",
        ),
        ("http is of type array", "station.toml:4"),
        ("did you mean inbox.rescan?", "station.toml:6"),
        ("has ' ' at position 4", "--name"),
        ("scheme is unknown", "station.toml:1: nats"),
        ("\"5\" is not a duration", "station.toml:7: inbox.settle"),
        ("\"soon\" is not a duration", "station.toml:9"),
    ] {
        assert!(
            lines
                .iter()
                .any(|line| line.starts_with(place) && line.contains(expected)),
            "{place} … {expected} in:\n{told}"
        );
    }
    assert_eq!(lines.len(), 8, "{told}");
}

#[test]
fn one_problem_does_not_hide_another() {
    let told = problems(
        &flags(&[("name", "a b"), ("nats", "nats://elsewhere")]),
        "[inbox]\ngive_up = \"1s\"\nrescan = \"x\"\n",
    );
    assert_eq!(told.lines().count(), 4, "{told}");
}

#[test]
fn a_file_that_is_not_toml_is_told_with_its_line() {
    let told = problems(&BTreeMap::new(), "name = \"a\"\nhttp = \n");
    assert!(told.starts_with("station.toml:2: is not TOML"), "{told}");
}

#[test]
fn a_broker_elsewhere_needs_a_word_and_gets_a_warning() {
    let elsewhere = flags(&[("nats", "nats://u:p@broker.example:4222")]);
    let told = problems(&elsewhere, "");
    assert!(
        told.contains("--allow-unsigned here and on every agent"),
        "{told}"
    );
    assert!(
        told.contains("…@broker.example") && !told.contains("u:p"),
        "{told}"
    );
    let mut allowed = elsewhere;
    allowed.insert("allow_unsigned", "true".to_owned());
    let resolved = resolve(&allowed, &BTreeMap::new(), None).expect("allowed");
    assert_eq!(resolved.config.unsigned, Unsigned::Anywhere);
    assert_eq!(resolved.warnings.len(), 1);
    assert!(resolved.warnings[0].contains("whoever can publish"));
}

#[test]
fn brokers_are_told_apart_by_where_they_are() {
    for (addresses, expected) in [
        ("nats://127.0.0.1:4222", Some(true)),
        ("127.0.0.1", Some(true)),
        ("localhost:4222", Some(true)),
        ("tls://[::1]:4222", Some(true)),
        ("nats://user:p@ss@127.0.0.9", Some(true)),
        ("nats://127.0.0.1:4222,nats://10.0.0.1:4222", Some(false)),
        ("nats://localhost.example", Some(false)),
        ("nats://127.0.0.1@broker.example", Some(false)),
        ("ws://broker:8080/path", None),
        ("", None),
        ("nats://", None),
        ("nats://host:0", None),
        ("nats://host:99999", None),
        ("http://127.0.0.1", None),
        ("127.0.0.1,,", None),
    ] {
        assert_eq!(broker_is_local(addresses).ok(), expected, "{addresses}");
    }
    assert_eq!(
        hide_credentials("nats://a:b@one:1,two:2,t@three"),
        "nats://…@one:1,two:2,…@three"
    );
}

#[test]
fn the_api_listens_on_loopback_only() {
    for (text, fine) in [
        ("127.0.0.1:8080", true),
        ("[::1]:8080", true),
        ("0.0.0.0:8080", false),
        ("192.168.1.1:80", false),
        ("[::]:80", false),
        ("localhost:80", false),
        ("8080", false),
    ] {
        assert_eq!(loopback(text).is_ok(), fine, "{text}");
    }
}

#[test]
fn durations_sizes_and_times_are_read_or_explained() {
    for (text, expected) in [
        ("30s", Some(30)),
        (" 5m ", Some(300)),
        ("1h 30m", Some(5400)),
        ("90d", Some(90 * 86400)),
        ("0s", None),
        ("30", None),
        ("", None),
        ("-1s", None),
        ("abc", None),
    ] {
        assert_eq!(
            duration(text).ok().map(|read| read.as_secs()),
            expected,
            "{text:?}"
        );
    }
    for (text, expected) in [
        ("0", Some(0)),
        ("1024", Some(1024)),
        ("1KiB", Some(1024)),
        ("10 GiB", Some(10 << 30)),
        ("99999999999TiB", None),
        ("1GB", None),
        ("GiB", None),
        ("-1", None),
    ] {
        assert_eq!(bytes(text).ok(), expected, "{text:?}");
    }
    let now: Timestamp = "2026-11-21T08:00:00Z".parse().expect("a time");
    for (text, expected) in [
        ("1h", Some("2026-11-21T07:00:00Z")),
        ("2026-11-20T00:00:00+01:00", Some("2026-11-19T23:00:00Z")),
        ("yesterday", None),
        ("99999999999d", None),
    ] {
        let read = since(text, now).ok().map(|time| time.to_string());
        assert_eq!(read.as_deref(), expected, "{text:?}");
    }
}

#[test]
fn a_state_directory_too_deep_for_a_socket_is_refused() {
    let fits = format!("/{}", "d".repeat(107 - 2 - SOCKET.len()));
    let resolve = |dir: &str| resolve(&flags(&[("state_dir", dir)]), &BTreeMap::new(), None);
    assert!(resolve(&fits).is_ok());
    assert!(resolve(&format!("{fits}d")).is_err());
}

#[test]
fn giving_up_on_a_file_before_it_can_be_read_is_refused() {
    let told = problems(&BTreeMap::new(), "[inbox]\ngive_up = \"1s\"\n");
    assert!(told.contains("station.toml:2: inbox.give_up"), "{told}");
}

#[test]
fn relays_and_the_mirror_are_read() {
    let text = r#"
[logs.mirror]
dir = "/var/log/nodes"
format = "raw"
size = "2MiB"
keep = 0

[[logs.relay]]
name = "soc"
address = "tls://siem.example"
ca = "/etc/ca.pem"
node = ["ship1", "ship2"]
domain = "nginx"
priority = "err"
begin = "newest"

[[logs.relay]]
name = "local"
address = "tcp://[::1]:1514"
"#;
    let resolved = resolve(&BTreeMap::new(), &BTreeMap::new(), Some(&file(text))).expect("fine");
    let Config { relays, mirror, .. } = resolved.config;
    let mirror = mirror.expect("a mirror");
    assert_eq!(mirror.dir, PathBuf::from("/var/log/nodes"));
    assert_eq!((mirror.rotation.bytes, mirror.rotation.keep), (2 << 20, 0));
    let [soc, local] = &relays[..] else {
        panic!("{relays:?}");
    };
    assert_eq!(soc.address.to_string(), "tls://siem.example:6514");
    assert_eq!(soc.choice.nodes.len(), 2);
    assert_eq!(soc.choice.severities.bits(), 0b0000_1111);
    assert_eq!(local.address.to_string(), "tcp://[::1]:1514");
    assert_eq!(local.choice, crate::logs::outlet::Choice::everything());
}

#[test]
fn everything_wrong_with_relays_and_the_mirror_is_told() {
    let text = r#"
[logs.mirror]
dir = "here"
format = "nice"
size = "1KiB"

[[logs.relay]]
name = "soc"
address = "udp://siem.example"
hop = "1"

[[logs.relay]]
name = "soc"
address = "tcp://siem.example:99999"
priority = "loud"
begin = "soon"
node = "a b"

[[logs.relay]]
address = 5

[[logs.relay]]
name = "open"
address = "tcp://siem.example"
ca = "x.pem"

[[logs.relay]]
priority = "err"
"#;
    let told = problems(&BTreeMap::new(), text);
    for expected in [
        "station.toml:3: logs.mirror.dir: \"here\" is not",
        "station.toml:4: logs.mirror.format: \"nice\" is not",
        "station.toml:5: logs.mirror.size: 1024 bytes are too few",
        "station.toml:9: logs.relay: address \"udp://siem.example\" is not",
        "station.toml:10: logs.relay: \"hop\" is not a key",
        "station.toml:13: logs.relay: name \"soc\" is there twice",
        "station.toml:14: logs.relay: address",
        "station.toml:15: logs.relay: priority \"loud\" is not a severity",
        "station.toml:16: logs.relay: begin \"soon\" is neither",
        "station.toml:17: logs.relay: node \"a b\"",
        "station.toml:20: logs.relay: address is neither a text",
        "station.toml:25: logs.relay: ca is only for tls://",
        "station.toml:28: logs.relay: name is missing",
    ] {
        assert!(told.contains(expected), "{expected}\nis not in\n{told}");
    }
}
