//! Every key of logs, and every problem at once.

use std::path::Path;

use steward_protocol::syslog::{Facility, Severities};

use super::*;
use crate::config::{Config, Flags, Sources, resolve};

fn resolved(text: &str) -> Result<Config, Vec<String>> {
    let sources = Sources {
        flags: Flags {
            node: Some("ship1".to_owned()),
            nats: Some("nats://127.0.0.1:4222".to_owned()),
            state_dir: Some("/state".to_owned()),
            ..Flags::default()
        },
        file: Some(("agent.toml".into(), text.to_owned())),
        ..Sources::default()
    };
    resolve(&sources).map_err(|error| error.problems.iter().map(ToString::to_string).collect())
}

fn logs(text: &str) -> Logs {
    let config = resolved(text).unwrap_or_else(|problems| panic!("{problems:?}"));
    config.logs.expect("an input")
}

#[test]
fn without_an_input_there_are_no_logs() {
    for text in [
        "",
        "[syslog_spool]\nsize = \"1GiB\"\n",
        "[[syslog_rule]]\naction = \"drop\"\n",
    ] {
        assert_eq!(resolved(text).map(|config| config.logs), Ok(None), "{text}");
    }
}

#[test]
fn an_input_has_defaults_for_all_but_its_domain_and_place() {
    let logs = logs("[[syslog]]\ndomain = \"nginx\"\ninput = \"udp://localhost:5514\"\n");
    let input = &logs.inputs[0];
    assert_eq!(input.listen, Listen::Udp(([127, 0, 0, 1], 5514).into()));
    assert_eq!((input.domain.as_str(), input.max_message), ("nginx", 8192));
    assert_eq!((input.connections, input.idle), (CONNECTIONS, IDLE));
    assert_eq!(logs.commit, Commit::Every(Duration::from_millis(50)));
    assert_eq!((logs.spool, logs.rate), (Settings::default(), None));
}

#[test]
fn a_journal_is_that_of_this_machine_or_that_in_a_directory() {
    for (name, directory) in [
        ("journal:", None),
        (
            "journal:///var/log/journal",
            Some("/var/log/journal".into()),
        ),
    ] {
        let logs = logs(&format!(
            "[[syslog]]\ndomain = \"system\"\ninput = \"{name}\"\n"
        ));
        assert_eq!(logs.inputs[0].listen, Listen::Journal(directory), "{name}");
    }
}

#[test]
fn every_key_is_read() {
    let text = r#"
[[syslog]]
domain = "a"
input = "tls://0.0.0.0:6514"
beyond_loopback = true
cert = "/c"
key = "/k"
client_ca = "/a"
max_message = "64KiB"
connections = 10000
idle_timeout = "5m"
[[syslog]]
domain = "b"
input = "unixgram:///dev/log"
mode = "0660"
receive_buffer = "1MiB"
[[syslog]]
domain = "c"
input = "unix:///run/log"
[[syslog]]
domain = "d"
input = "tcp://[::1]:601"
[[syslog_rule]]
name = "quiet"
facility = ["auth", "10"]
severity = "debug..info"
app = "cron, systemd"
host = ["web1"]
source = ["udp:*"]
match = "x+"
action = "rate_limit"
most = 5
per = "10s"
domain = "e"
[[syslog_rule]]
action = "sample"
one_of = 100
[syslog_spool]
size = "10MiB"
share = "8MiB"
policy = "drop_oldest"
commit = "always"
rate = "16KiB"
[syslog_spool.domain.a]
share = "2MiB"
policy = "drop_by_severity"
"#;
    let logs = logs(text);
    let [tls, gram, stream, six] = &logs.inputs[..] else {
        panic!("four inputs: {:?}", logs.inputs);
    };
    let files = TlsFiles {
        cert: "/c".into(),
        key: "/k".into(),
        client_ca: Some("/a".into()),
    };
    assert_eq!(tls.listen, Listen::Tls(([0, 0, 0, 0], 6514).into(), files));
    let sizes = (tls.max_message, tls.connections, tls.idle);
    assert_eq!(sizes, (64 << 10, 10_000, Duration::from_secs(300)));
    assert_eq!(gram.listen, Listen::Unixgram("/dev/log".into()));
    assert_eq!((gram.mode, gram.receive_buffer), (0o660, 1 << 20));
    assert_eq!(stream.listen, Listen::Unix("/run/log".into()));
    assert!(six.listen.is_stream() && !gram.listen.is_stream());
    let rule = &logs.rules[0];
    assert_eq!(rule.facilities, [Facility::Auth, Facility::AuthPriv]);
    assert_eq!(rule.severities.map(Severities::bits), Some(0b1100_0000));
    assert_eq!(rule.apps, ["cron", "systemd"]);
    let limit = Action::RateLimit {
        most: 5,
        per: Duration::from_secs(10),
    };
    assert_eq!((rule.action, rule.name.as_str()), (limit, "quiet"));
    assert_eq!(logs.rules[1].action, Action::Sample { one_of: 100 });
    assert_eq!(logs.rules[1].name, "rule 2");
    assert_eq!((logs.commit, logs.rate), (Commit::Always, Some(16 << 10)));
    let terms = |share, policy| Terms { share, policy };
    assert_eq!(logs.spool.others, terms(8 << 20, Policy::DropOldest));
    let own = logs.spool.domains.values().next();
    assert_eq!(own, Some(&terms(2 << 20, Policy::DropBySeverity)));
}

#[test]
fn every_problem_is_told_at_once_with_its_place() {
    let text = r#"
sylog = 3
[[syslog]]
domian = "a"
input = "udp://127.0.0.1:5514"
[[syslog]]
domain = "a b"
input = "upd://127.0.0.1:5514"
[[syslog_rule]]
severity = "loud"
match = "("
action = "dorp"
[syslog_spool]
size = "10MiB"
share = "11MiB"
comit = "1s"
[syslog_spool.domain.x]
policy = "forget"
"#;
    let problems = resolved(text).expect_err("problems");
    for wanted in [
        "sylog: is not a key; did you mean syslog?",
        "syslog[1].domain: is missing",
        "syslog[1].domian: is not a key; did you mean domain?",
        "syslog[2].domain: \"a b\"",
        "syslog[2].input: \"upd\" is no kind of input; did you mean udp://?",
        "syslog_rule[1].severity: read severity \"loud\"",
        "syslog_rule[1].match: \"(\" is no regular expression",
        "syslog_rule[1].action: \"dorp\" is nothing that can be done; did you mean \"drop\"?",
        "syslog_spool.share: is more than the whole spool",
        "syslog_spool.comit: is not a key; did you mean commit?",
        "syslog_spool.domain.x.policy: \"forget\" is no policy",
    ] {
        let is_told = |problem: &String| problem.contains(wanted);
        assert!(problems.iter().any(is_told), "{wanted:?} in {problems:#?}");
    }
    assert_eq!(problems.len(), 11, "{problems:#?}");
}

#[test]
fn an_input_of_files_has_patterns_and_says_how_they_are_read() {
    let text = r#"
[[syslog]]
domain = "a"
input = "file:///var/log/*.log"
files = ["/srv/**/x", "file:///y"]
exclude = ["/var/log/debug*"]
from = "end"
multiline = '^\d{4}'
multiline_timeout = "5s"
[[syslog]]
domain = "b"
input = "file:///z"
"#;
    let logs = logs(text);
    let wanted = Files {
        patterns: ["/var/log/*.log", "/srv/**/x", "/y"]
            .map(str::to_owned)
            .into(),
        exclude: vec!["/var/log/debug*".to_owned()],
        from: Start::End,
        multiline: Some("^\\d{4}".to_owned()),
        pause: Duration::from_secs(5),
    };
    assert_eq!(logs.inputs[0].listen, Listen::Files(wanted));
    let Listen::Files(plain) = &logs.inputs[1].listen else {
        panic!("{:?}", logs.inputs[1]);
    };
    assert_eq!((plain.from, &plain.multiline), (Start::Beginning, &None));
}

#[test]
fn each_of_these_is_refused_in_words() {
    let rows = [
        ("input = \"udp://10.0.0.1:514\"", "beyond_loopback = true"),
        ("input = \"tcp://[::]:514\"", "beyond_loopback = true"),
        ("input = \"udp://127.0.0.1\"", "no address and port"),
        ("input = \"udp://127.0.0.1:0\"", "no address and port"),
        ("input = \"udp://example.com:514\"", "no address and port"),
        ("input = \"unix://log\"", "whole path"),
        ("input = \"unix:///run/\"", "whole path"),
        ("input = \"/dev/log\"", "is no input"),
        ("input = \"journal\"", "is no input"),
        ("input = \"journal:/var/log\"", "is no journal"),
        ("input = \"journal://log\"", "is no journal"),
        ("input = \"file://var/log/*.log\"", "whole path"),
        ("input = \"file:///var/log/[a.log\"", "no pattern"),
        ("input = \"file:///a\"\nfiles = [\"b\"]", "whole path"),
        ("input = \"file:///a\"\nfrom = \"middle\"", "is no place"),
        (
            "input = \"file:///a\"\nmultiline = \"(\"",
            "no regular expression",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\nfrom = \"end\"",
            "file:// inputs only",
        ),
        ("input = \"tls://127.0.0.1:6514\"", "needs cert and key"),
        (
            "input = \"udp://127.0.0.1:514\"\ncert = \"/c\"",
            "tls:// inputs only",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\nmax_message = \"479\"",
            "480 bytes",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\nmax_message = \"257KiB\"",
            "256KiB",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\nmode = \"999\"",
            "no permissions",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\n[syslog_spool]\nsize = \"1023KiB\"",
            "at least \"1MiB\"",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\n[syslog_spool]\ncommit = \"11s\"",
            "longer than 10s",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\n[[syslog_rule]]\naction = \"sample\"",
            "needs one_of",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\n[[syslog_rule]]\none_of = 3",
            "\"sample\" only",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\n[[syslog_rule]]\naction = \"drop\"\ndomain = \"x\"",
            "of no use",
        ),
        (
            "input = \"udp://127.0.0.1:514\"\n[[syslog]]\ndomain = \"b\"\ninput = \"udp://localhost:514\"",
            "is there twice",
        ),
    ];
    for (text, wanted) in rows {
        let text = format!("[[syslog]]\ndomain = \"a\"\n{text}\n");
        let problems = resolved(&text).expect_err(&text);
        assert!(
            problems.len() == 1 && problems[0].contains(wanted),
            "{text}: {problems:#?}"
        );
    }
    for text in [
        "syslog = 3",
        "[syslog]\ndomain = \"a\"",
        "syslog_spool = 3",
        "syslog = [3]",
    ] {
        let problems = resolved(text).expect_err(text);
        assert_eq!(problems.len(), 1, "{text}: {problems:#?}");
    }
}

#[test]
fn rules_can_be_read_alone() {
    let path = Path::new("agent.toml");
    let named = std::collections::BTreeSet::new();
    let read = |text: &str| rules_of(path, text.to_owned(), &named);
    let rules = read("queue = \"what\"\n[[syslog_rule]]\ndomain = \"x\"\n").expect("a rule");
    assert_eq!(rules.len(), 1);
    assert!(read("[[syslog_rule]]\nmatch = \"(\"\n").is_err());
    assert!(read("not toml").is_err());
    assert_eq!(read("").map(|rules| rules.len()), Ok(0));
}

#[test]
fn so_many_domains_are_taken_and_no_more() {
    let input = "[[syslog]]\ndomain = \"d0\"\ninput = \"udp://127.0.0.1:5514\"\n";
    let rules = |count: usize| {
        let rule = |number| format!("[[syslog_rule]]\napp = \"a\"\ndomain = \"d{number}\"\n");
        input.to_owned() + &(0..count).map(rule).collect::<String>()
    };
    assert_eq!(logs(&rules(MAX_DOMAINS)).rules.len(), MAX_DOMAINS);
    let problems = resolved(&rules(MAX_DOMAINS + 1)).expect_err("too many");
    assert!(problems[0].contains("129 domains"), "{problems:?}");
}

#[test]
fn rules_read_again_name_no_more_domains_than_are_taken_since_the_start() {
    let path = Path::new("agent.toml");
    let rules = |from: usize, to: usize| {
        let rule = |number| format!("[[syslog_rule]]\napp = \"a\"\ndomain = \"d{number}\"\n");
        (from..to).map(rule).collect::<String>()
    };
    let named = (0..4).map(|number| format!("d{number}").parse().expect("a domain"));
    let named = named.collect();
    for (from, to, is_taken) in [
        (0, MAX_DOMAINS - 1, true),
        (0, MAX_DOMAINS, true),
        (0, MAX_DOMAINS + 1, false),
        (4, MAX_DOMAINS, true),
        (4, MAX_DOMAINS + 1, false),
    ] {
        let read = rules_of(path, rules(from, to), &named);
        assert_eq!(read.is_ok(), is_taken, "d{from} to d{to}: {read:?}");
    }
    let problems = rules_of(path, rules(4, MAX_DOMAINS + 1), &named).expect_err("too many");
    assert!(problems.to_string().contains("129"), "{problems}");
}
