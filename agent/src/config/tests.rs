//! Every key from every layer, and every problem at once.

use super::*;
use crate::child::cgroup::Insist;

fn needed() -> Sources {
    Sources {
        flags: Flags {
            node: Some("ship1".to_owned()),
            nats: Some("nats://127.0.0.1:4222".to_owned()),
            state_dir: Some("/state".to_owned()),
            ..Flags::default()
        },
        ..Sources::default()
    }
}

fn with_file(text: &str) -> Sources {
    Sources {
        file: Some(("agent.toml".into(), text.to_owned())),
        ..needed()
    }
}

fn problems(sources: &Sources) -> Vec<String> {
    match resolve(sources) {
        Ok(_) => Vec::new(),
        Err(error) => error.problems.iter().map(ToString::to_string).collect(),
    }
}

#[test]
fn what_nobody_says_has_the_defaults_of_the_design() {
    let config = resolve(&needed()).expect("enough to run");
    assert_eq!(config.station.as_str(), "central");
    assert_eq!(config.heartbeat, Duration::from_secs(10));
    assert_eq!((config.commands_at_once, config.queue), (4, 100));
    assert_eq!(config.results_budget, 64 * 1024 * 1024);
    assert_eq!(config.output_cap, 16 * 1024 * 1024);
    assert_eq!(config.shell, ["/bin/sh", "-c"]);
    assert_eq!(config.limits, Insist::Require);
    assert_eq!(config.idle_after, Duration::from_secs(600));
    assert_eq!(config.drain, Duration::from_secs(10));
    assert_eq!(config.wedged_after, Duration::from_secs(30));
    assert_eq!(
        (config.restart.intensity, config.restart.window.as_secs()),
        (5, 60)
    );
    assert_eq!(config.restart.give_up, GiveUp::Stop);
    for borne in [config.restart.storage, config.restart.not_startable] {
        assert_eq!(borne.give_up, GiveUp::Continue);
    }
    assert_eq!(
        (config.domains, config.subjects, config.reach),
        (None, Vec::new(), Reach::Loopback)
    );
}

#[test]
fn a_node_cannot_have_its_stations_name() {
    let mut sources = needed();
    sources.flags.node = Some("central".to_owned());
    let problems = problems(&sources);
    assert!(
        problems.len() == 1 && problems[0].contains("station's own name"),
        "{problems:?}"
    );
}

#[test]
fn a_flag_wins_over_the_environment_and_that_over_the_file() {
    let mut sources = with_file("station = \"file\"\nheartbeat = \"3s\"\nqueue = 3\n");
    sources
        .env
        .insert("STEWARD_STATION".to_owned(), "env".to_owned());
    sources
        .env
        .insert("STEWARD_HEARTBEAT".to_owned(), "2s".to_owned());
    sources.flags.station = Some("flag".to_owned());
    let config = resolve(&sources).expect("fine");
    assert_eq!(config.station.as_str(), "flag");
    assert_eq!(config.heartbeat, Duration::from_secs(2));
    assert_eq!(config.queue, 3);
}

#[test]
fn every_key_of_the_file_is_read() {
    let config = resolve(&with_file(
        r#"
        creds = "/creds"
        subjects = ["command.shellcommand.operatingsystem"]
        domains = ["operatingsystem", "nginx"]
        commands_at_once = 2
        results_budget = "1MiB"
        shell = ["/usr/bin/env", "bash", "-c"]
        limits = "best_effort"
        output_cap = "2MiB"
        idle_after = "1m"
        drain = "1s"
        accept_ledger = "6a9b0e5e-0000-4000-8000-000000000000"
        [labels]
        kind = "ship"
        [restart]
        intensity = 2
        window = "5s"
        [restart.storage]
        give_up = "escalate"
        [restart.shellcommand]
        intensity = 9
        base = "1s"
        give_up = "escalate"
        [restart.shellcommand.not_startable]
        intensity = 1
        window = "2s"
        give_up = "stop"
        "#,
    ))
    .expect("fine");
    assert_eq!(
        config.subjects[0].to_string(),
        "ship1.command.shellcommand.operatingsystem"
    );
    assert_eq!(config.domains.map(|domains| domains.len()), Some(2));
    assert_eq!(
        (config.commands_at_once, config.results_budget),
        (2, 1 << 20)
    );
    assert_eq!(config.shell, ["/usr/bin/env", "bash", "-c"]);
    assert_eq!(
        (config.limits, config.output_cap),
        (Insist::BestEffort, 2 << 20)
    );
    assert_eq!(config.labels["kind"], "ship");
    assert!(config.accept_ledger.is_some());
    assert_eq!(
        (config.restart.intensity, config.restart.window.as_secs()),
        (2, 5)
    );
    let own = config.restart_of[&Method::Shellcommand];
    assert_eq!(
        (
            own.intensity,
            own.window.as_secs(),
            own.backoff.base.as_secs()
        ),
        (9, 5, 1)
    );
    assert_eq!(config.restart.give_up, GiveUp::Stop);
    assert_eq!(own.give_up, GiveUp::Escalate);
    // A method that says nothing of it has what every process has.
    assert_eq!(own.storage.give_up, GiveUp::Escalate);
    assert_eq!(config.restart.not_startable.give_up, GiveUp::Continue);
    let borne = own.not_startable;
    assert_eq!((borne.intensity, borne.window.as_secs()), (1, 2));
    assert_eq!(borne.give_up, GiveUp::Stop);
}

#[test]
fn all_problems_are_told_at_once_with_their_places() {
    let mut sources =
        with_file("queue = 0\ndrain = \"soon\"\nqeue = 1\nsubjects = [\"command.x\"]\n");
    sources.flags.node = Some("a.b".to_owned());
    sources.flags.state_dir = None;
    sources.flags.labels = vec!["novalue".to_owned()];
    sources
        .env
        .insert("NATS_URL".to_owned(), "unused".to_owned());
    sources
        .env
        .insert("STEWARD_HEARTBEAT".to_owned(), "0s".to_owned());
    let found = problems(&sources);
    for place in [
        "--node: ",
        "state_dir: is missing",
        "--label: ",
        "STEWARD_HEARTBEAT: ",
        "agent.toml: queue: ",
        "agent.toml: drain: ",
        "agent.toml: qeue: is not a key",
    ] {
        let times = found
            .iter()
            .filter(|problem| problem.starts_with(place))
            .count();
        assert_eq!(times, 1, "{place} in {found:#?}");
    }
}

#[test]
fn what_is_wrong_in_the_file_is_told_with_its_key() {
    for (text, place) in [
        ("queue = ", "agent.toml: line 1"),
        ("queue = 1.5", "agent.toml: queue"),
        ("queue = [[1]]", "agent.toml: queue"),
        ("subjects = [\"command.x\"]", "agent.toml: subjects"),
        ("subjects = [\"event.hello.x\"]", "agent.toml: subjects"),
        (
            "subjects = [\"command.teleport.x\"]",
            "agent.toml: subjects",
        ),
        ("domains = [\"a.b\"]", "agent.toml: domains"),
        ("methods = []", "agent.toml: methods"),
        ("methods = [\"ping\", \"ack\"]", "agent.toml: methods"),
        ("methods = [\"teleport\"]", "agent.toml: methods"),
        (
            "methods = [\"ping\"]\nsubjects = [\"command.shellcommand.x\"]",
            "agent.toml: subjects",
        ),
        (
            "results_budget = \"1 parsec\"",
            "agent.toml: results_budget",
        ),
        ("shell = \"sh -c\"", "agent.toml: shell"),
        ("shell = []", "agent.toml: shell"),
        ("limits = \"perhaps\"", "agent.toml: limits"),
        ("output_cap = \"much\"", "agent.toml: output_cap"),
        ("[restart]\nintensty = 1", "agent.toml: restart.intensty"),
        ("wedged_after = \"999ms\"", "agent.toml: wedged_after"),
        (
            "[restart]\ngive_up = \"continue\"",
            "agent.toml: restart.give_up",
        ),
        (
            "[restart.shellcommand.storage]\ngive_up = \"pray\"",
            "agent.toml: restart.shellcommand.storage.give_up",
        ),
        (
            "[restart.storage]\nbase = \"1s\"",
            "agent.toml: restart.storage.base",
        ),
        (
            "[restart]\nintensity = 4294967296",
            "agent.toml: restart.intensity",
        ),
        (
            "[restart.teleport]\nintensity = 1",
            "agent.toml: restart.teleport.intensity",
        ),
        ("[labels]\n\"a b\" = \"x\"", "agent.toml: labels"),
    ] {
        let found = problems(&with_file(text));
        assert!(
            found.len() == 1 && found[0].starts_with(place),
            "{text:?} gave {found:#?}"
        );
    }
}

#[test]
fn methods_are_named_and_what_every_node_does_is_not_left_out() {
    let offered = |text: &str| {
        let config = resolve(&with_file(text)).expect("good");
        config.methods.to_string()
    };
    assert_eq!(offered(""), Methods::default().to_string());
    for text in ["methods = [\"ping\"]", "methods = \"ping, hello\""] {
        assert_eq!(offered(text), "hello, ping");
    }
    for (text, words) in [
        (
            "methods = [\"shellcomand\"]",
            "did you mean \"shellcommand\"?",
        ),
        ("methods = [\"teleport\"]", "there are shellcommand, hello"),
        ("methods = [\"cancel\"]", "is always on"),
        ("method = [\"ping\"]", "did you mean methods?"),
    ] {
        let found = problems(&with_file(text));
        assert!(found[0].contains(words), "{found:?}");
    }
}

#[test]
fn a_broker_elsewhere_needs_a_word() {
    let mut sources = needed();
    sources.flags.nats = Some("nats://127.0.0.1:4222,nats://broker.example:4222".to_owned());
    let found = problems(&sources);
    assert!(found[0].contains("broker.example") && found[0].contains("--allow-unsigned"));
    sources.flags.allow_unsigned = true;
    assert_eq!(resolve(&sources).expect("allowed").reach, Reach::Unsigned);
}

#[test]
fn labels_are_counted_up_to_the_limit() {
    for (count, expected) in [
        (limits::MAX_LABELS - 1, true),
        (limits::MAX_LABELS, true),
        (limits::MAX_LABELS + 1, false),
    ] {
        let mut sources = needed();
        sources.flags.labels = (0..count).map(|number| format!("k{number}=v")).collect();
        assert_eq!(resolve(&sources).is_ok(), expected, "{count} labels");
    }
}
