//! Limits that are met while the agent runs: domains that rules name when they are read again, and files that may be open.

use std::{
    os::unix::net::{UnixDatagram, UnixStream},
    time::{Duration, Instant},
};

use rustix::process::{Pid, Resource, Rlimit, prlimit};
use steward_agent::config::syslog::MAX_DOMAINS;

use super::*;

/// Waits for a fault of a kind whose detail has some words in it.
async fn fault(station: &Station, kind: &str, words: &str) {
    eventually(&format!("a fault {kind} that says {words:?}"), || {
        let world = station.world();
        let is_it = |kind_of: &str, detail: &str| kind_of == kind && detail.contains(words);
        let mut faults = world.faults.iter();
        faults
            .any(|fault| is_it(&fault.kind, &fault.detail))
            .then_some(())
    })
    .await;
}

#[tokio::test]
async fn rules_read_again_with_too_many_domains_leave_those_there_were() {
    let field = Field::new();
    let gram = field.path("gram");
    let inputs = input("main", &format!("unixgram://{}", gram.display()));
    let rule = |text: &str, domain: &str| {
        format!("[[syslog_rule]]\nmatch = \"{text}\"\ndomain = \"{domain}\"\n")
    };
    let many = |count: usize, to: &str| {
        let more = (2..count).map(|number| rule(&format!("never {number}"), &format!("d{number}")));
        inputs.clone() + &rule("web", to) + &more.collect::<String>()
    };
    let (agent, station) = pair(&field, &many(2, "web")).await;
    eventually("the socket", || gram.exists().then_some(())).await;
    let sender = UnixDatagram::unbound().expect("a socket");
    let send = |text: &str| sender.send_to(text.as_bytes(), &gram).expect("it is taken");
    send("<13>web 1");
    assert_eq!(texts(&station, "web", 1).await, ["<13>web 1"]);
    // As many as are taken, with the input's own and `web`, which has its spool already: those rules hold.
    fs::write(field.path("agent.toml"), many(MAX_DOMAINS - 1, "other")).expect("a config");
    agent.signal(Signal::HUP);
    let mut tries = 0;
    eventually("other rules", || {
        tries += 1;
        send(&format!("<13>web again {tries}"));
        (!station.world().logs.texts("other").is_empty()).then_some(())
    })
    .await;
    // One more.
    fs::write(field.path("agent.toml"), many(MAX_DOMAINS, "web")).expect("a config");
    agent.signal(Signal::HUP);
    fault(&station, "config", &format!("make {}", MAX_DOMAINS + 1)).await;
    send("<13>web, still");
    eventually("rules that stay", || {
        let texts = station.world().logs.texts("other");
        texts.contains(&"<13>web, still".to_owned()).then_some(())
    })
    .await;
    // What is wrong in another way is a fault as well.
    fs::write(field.path("agent.toml"), "[[syslog_rule]]\nmatch = \"(\"\n").expect("a config");
    agent.signal(Signal::HUP);
    fault(&station, "config", "no regular expression").await;
}

/// Sets how many files the agent may have open, and returns how many those were.
fn limit_files(agent: &Agent, current: Option<u64>) -> Option<u64> {
    let limit = getrlimit_of(agent.pid());
    let new = Rlimit {
        current,
        maximum: limit.maximum,
    };
    prlimit(Some(agent.pid()), Resource::Nofile, new)
        .expect("it is ours to limit")
        .current
}

fn getrlimit_of(pid: Pid) -> Rlimit {
    let text = fs::read_to_string(format!("/proc/{}/limits", pid.as_raw_nonzero()));
    let text = text.expect("it runs");
    let row = text.lines().find(|line| line.starts_with("Max open files"));
    let mut words = row.expect("a row").split_whitespace().skip(3);
    let mut next = || words.next().and_then(|word| word.parse().ok());
    Rlimit {
        current: next(),
        maximum: next(),
    }
}

/// Returns the processor time the agent has used, in hundredths of a second.
fn used(agent: &Agent) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", agent.pid().as_raw_nonzero()));
    let stat = stat.expect("it runs");
    let words: Vec<&str> = stat.split(' ').collect();
    [13, 14]
        .iter()
        .filter_map(|at| words[*at].parse::<u64>().ok())
        .sum()
}

#[tokio::test]
async fn connections_that_cannot_be_taken_wait_and_that_is_told_and_others_go_on() {
    let field = Field::new();
    let (stream, gram) = (field.path("stream"), field.path("gram"));
    let config = input("app", &format!("unix://{}", stream.display()))
        + &input("other", &format!("unixgram://{}", gram.display()));
    let (agent, station) = pair(&field, &config).await;
    eventually("the sockets", || {
        (stream.exists() && gram.exists()).then_some(())
    })
    .await;
    let mut early = UnixStream::connect(&stream).expect("a connection");
    let sender = UnixDatagram::unbound().expect("a socket");
    let send = |text: &str| sender.send_to(text.as_bytes(), &gram).expect("it is taken");
    early.write_all(b"<13>app 0\n").expect("it is taken");
    send("<13>other 0");
    texts(&station, "app", 1).await;
    texts(&station, "other", 1).await;
    // What is open stays open, and nothing more can be.
    let before = limit_files(&agent, Some(3));
    let mut late = UnixStream::connect(&stream).expect("the kernel takes it");
    late.write_all(b"<13>app, late\n")
        .expect("the kernel keeps it");
    fault(&station, "not_startable", "take connections on unix://").await;
    let (began, at) = (used(&agent), Instant::now());
    while at.elapsed() < Duration::from_secs(2) {
        send("<13>other, meanwhile");
        early
            .write_all(b"<13>app, meanwhile\n")
            .expect("it is taken");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let spent = used(&agent) - began;
    let most = u64::try_from(at.elapsed().as_millis() / 20).expect("small");
    assert!(
        spent < most,
        "{spent} of {most} hundredths of a second spent"
    );
    assert!(
        !station
            .world()
            .logs
            .texts("app")
            .contains(&"<13>app, late".to_owned())
    );
    limit_files(&agent, before);
    eventually("what had waited", || {
        let texts = station.world().logs.texts("app");
        texts.contains(&"<13>app, late".to_owned()).then_some(())
    })
    .await;
    let told = || {
        let world = station.world();
        let is_it = |detail: &str| detail.contains("take connections");
        let faults = world.faults.iter();
        faults.filter(|fault| is_it(&fault.detail)).count()
    };
    assert_eq!(told(), 1, "once, and not with every try");
    send("<13>other, afterwards");
    eventually("what others said", || {
        let texts = station.world().logs.texts("other");
        let gaps = station.world().logs.gaps("other");
        let last = texts.last().is_some_and(|text| text.contains("afterwards"));
        let meanwhile = texts
            .iter()
            .filter(|text| text.contains("meanwhile"))
            .count();
        let missing: u64 = gaps.iter().filter_map(|gap| gap.count).sum();
        (last && (meanwhile > 5 || missing > 0)).then_some(())
    })
    .await;
    check_order(&station);
}
