//! One node that misbehaves, and the others that must not notice.
//!
//! `cargo test -p steward-station --test main poison -- --nocapture` prints the figures;
//! `STEWARD_POISON_SECONDS` says how long each attack lasts, `STEWARD_POISON_FLOOD` how many frames
//! a second a flood has (0: as many as the broker takes).

mod forged;
mod library;
mod raw;
mod reports;
mod tls;

use std::{
    io::{Read, Write},
    os::unix::net::UnixStream,
    time::{Duration, Instant},
};

use jiff::Timestamp;
use rustix::process::Signal;
use serde_json::{Value, json};

use self::{
    library::{Fate, odd_frames},
    raw::{Attack, RawFrame},
};
use crate::support::{Running, World, code, delivery_to, eventually, state_of};

/// An honest delivery that takes longer than this while somebody misbehaves was delayed by it, unless
/// the machine is so busy that the slowest takes a quarter of that while nobody does. A connection that
/// is lost costs every node some of its attempts, so what is looked for shows far above this bound
/// on an idle machine; on one that runs other tests, speed itself is not to be judged.
const PROMPT: Duration = Duration::from_secs(10);

/// The two that must not notice.
const HONEST: [&str; 2] = ["ship1", "ship2"];

/// Prints a figure.
#[expect(
    clippy::print_stdout,
    reason = "these tests print figures when asked to"
)]
fn print(figure: &str) {
    println!("{figure}");
}

fn seconds() -> Duration {
    let seconds = std::env::var("STEWARD_POISON_SECONDS").ok();
    Duration::from_secs(seconds.and_then(|text| text.parse().ok()).unwrap_or(4))
}

/// Frames per second of a flood. A broker passes on ten times as many, which is more than a station
/// that was not optimised can throw away.
fn flood() -> u32 {
    let flood = std::env::var("STEWARD_POISON_FLOOD").ok();
    flood.and_then(|text| text.parse().ok()).unwrap_or(20_000)
}

/// A station and its honest nodes, at work while somebody else attacks.
struct Harbour {
    world: World,
    station: Running,
    _agents: Vec<Running>,
}

/// What the honest saw.
#[derive(Debug, Default)]
struct Seen {
    messages: usize,
    slowest_answer: Duration,
}

impl Harbour {
    fn new() -> Self {
        let world = World::new();
        let station = world.station();
        let agents = HONEST.map(|name| world.agent(name)).into();
        world.await_online(&HONEST);
        Self {
            world,
            station,
            _agents: agents,
        }
    }

    fn status(&self) -> Value {
        self.world.json(&["status", "-o", "json"])
    }

    /// Asks the loop over the station's socket, and returns how long it took to answer.
    fn ask(&self) -> Duration {
        let asked = Instant::now();
        let mut socket =
            UnixStream::connect(self.world.state_dir().join("steward.sock")).expect("connects");
        socket
            .write_all(
                b"GET /api/v1/nodes HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
            )
            .expect("written");
        let mut answer = String::new();
        socket.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        asked.elapsed()
    }

    /// Sends the honest nodes a message every 100 ms for a while.
    fn work(&self, name: &str) -> Seen {
        let began = Instant::now();
        let mut seen = Seen::default();
        while began.elapsed() < seconds() {
            seen.messages += 1;
            let number = seen.messages;
            let script = format!(
                "echo {number} >> '{}'-$STEWARD_NODE",
                self.world.folder.path().join(name).display()
            );
            let message = json!([{ "to": HONEST, "method": "shellcommand", "domain": "operatingsystem",
                                   "name": format!("{name}-{number}"), "data": ["sh", "-c", script] }]);
            self.world
                .drop_file(&format!("{name}-{number}.json"), &message.to_string());
            seen.slowest_answer = seen.slowest_answer.max(self.ask());
            let due = Duration::from_millis(100) * u32::try_from(number).expect("few");
            std::thread::sleep(due.saturating_sub(began.elapsed()));
        }
        seen
    }

    /// Returns how long a delivery may take, measured while nobody misbehaves.
    fn prompt(&self) -> Duration {
        let seen = self.work("calm");
        let times = self.times("calm", &seen);
        PROMPT.max(times.into_iter().max().unwrap_or_default() * 4)
    }

    /// Checks that all of it succeeded once, and returns how long each delivery took.
    fn times(&self, name: &str, seen: &Seen) -> Vec<Duration> {
        let mut times = Vec::new();
        for number in 1..=seen.messages {
            let message = self.world.await_final(&format!("{name}-{number}"));
            let accepted: Timestamp = time(&message["accepted_at"]);
            for node in HONEST {
                assert_eq!(state_of(&message, node), "succeeded", "{message}");
                let took = time(&delivery_to(&message, node)["since"]).duration_since(accepted);
                times.push(took.unsigned_abs());
            }
        }
        for node in HONEST {
            let file = self.world.folder.path().join(format!("{name}-{node}"));
            let expected: Vec<String> = (1..=seen.messages).map(|n| n.to_string()).collect();
            assert_eq!(
                self.world.lines_of(&file),
                expected,
                "{node} ran each once, in order"
            );
        }
        times
    }

    /// Checks that all of it succeeded once, and that at least 99 % of it took no longer than `prompt`.
    fn check(&self, name: &str, seen: &Seen, prompt: Duration) {
        let times = self.times(name, seen);
        let share = share(
            times.iter().filter(|took| **took <= prompt).count(),
            times.len(),
        );
        print(&format!(
            "{name}: {} messages to {} nodes, {:.2} % within {prompt:?}, slowest {:?}, slowest answer {:?}",
            seen.messages,
            HONEST.len(),
            share * 100.0,
            times.iter().max().copied().unwrap_or_default(),
            seen.slowest_answer,
        ));
        assert!(share >= 0.99, "{name}: only {share} were in time");
    }

    /// Waits until the station has counted one of `kinds` against `sender`, and returns its status.
    fn await_named(&self, sender: &str, kinds: &[&str]) -> Value {
        eventually(&format!("{kinds:?} to be counted against {sender}"), || {
            let status = self.status();
            let offenders = status["offenders"].as_array()?;
            let named = offenders.iter().any(|offender| {
                let has = |kind: &&str| offender["kinds"][kind].as_u64() > Some(0);
                offender["sender"] == sender && kinds.iter().any(has)
            });
            named.then_some(status)
        })
    }

    /// Most memory the station ever had, in bytes.
    fn peak_memory(&self) -> u64 {
        let path = format!("/proc/{}/status", self.station.pid());
        let text = std::fs::read_to_string(path).expect("its status");
        let line = text
            .lines()
            .find(|line| line.starts_with("VmHWM"))
            .expect("a peak");
        let words: Vec<&str> = line.split_whitespace().collect();
        words[1].parse::<u64>().expect("a number") * 1024
    }
}

#[expect(clippy::cast_precision_loss, reason = "hundreds of messages")]
fn share(part: usize, whole: usize) -> f64 {
    part as f64 / whole.max(1) as f64
}

fn time(value: &Value) -> Timestamp {
    let text = value.as_str().expect("a time");
    text.parse().expect("a time")
}

#[test]
fn poison_disturbs_nobody_and_its_sender_is_named() {
    let harbour = Harbour::new();
    let prompt = harbour.prompt();
    let before = harbour.status();
    // Twenty a second kept a station without a relay disconnected for good.
    for (name, per_second) in [("slow", 20), ("fast", 2_000)] {
        let frames: Vec<Vec<u8>> = odd_frames()
            .iter()
            .filter(|odd| odd.fate == Fate::Fatal)
            .map(|odd| odd.bytes())
            .collect();
        let attack = Attack::start(&harbour.world.url, frames, per_second);
        let seen = harbour.work(name);
        let (sent, rate) = attack.end();
        print(&format!("{name}: {sent} frames of poison, {rate}/s"));
        harbour.check(name, &seen, prompt);
    }
    let after = harbour.await_named("evil", &["poison_reply"]);
    assert_eq!(
        before["broker"]["since"], after["broker"]["since"],
        "never disconnected"
    );
    let told = harbour.world.json(&["status", "-o", "json"])["faults"].clone();
    let told: Vec<&Value> = told
        .as_array()
        .expect("faults")
        .iter()
        .filter(|fault| fault["kind"] == "garbage")
        .collect();
    assert!(told.iter().all(|fault| fault["node"] == "evil"), "{told:?}");
    let most = 2 + 2 * seconds().as_secs() / 30;
    assert!(
        (1..=most).contains(&(told.len() as u64)),
        "once a minute: {told:?}"
    );
}

#[test]
fn poison_every_odd_frame_is_counted_under_its_kind_and_sender() {
    let harbour = Harbour::new();
    let before = harbour.status();
    let raw = raw::Raw::connect(&harbour.world.url);
    let mut expected = std::collections::BTreeMap::<&str, u64>::new();
    for odd in odd_frames() {
        raw.send(&odd.bytes());
        *expected.entry(odd.counted).or_default() += 1;
    }
    let expected = json!(expected);
    let mut kinds = Value::Null;
    let status = eventually("every odd frame to be counted", || {
        let status = harbour.status();
        let offenders = status["offenders"].as_array()?;
        kinds = offenders
            .iter()
            .find(|offender| offender["sender"] == "evil")?["kinds"]
            .clone();
        (kinds == expected || kinds["garbage_ack"].as_u64() > expected["garbage_ack"].as_u64())
            .then_some(status)
    });
    assert_eq!(kinds, expected, "the broker said {:?}", raw.errors());
    assert_eq!(
        before["broker"]["since"], status["broker"]["since"],
        "never disconnected"
    );
}

#[test]
fn poison_floods_delay_nobody_and_fill_no_memory() {
    let harbour = Harbour::new();
    let prompt = harbour.prompt();
    let before = harbour.status();
    let small = RawFrame::plain("central.event.ack.operatingsystem.evil", b"not json").bytes();
    let forged = forged::unknown_order("evil");
    let large = RawFrame {
        payload: &vec![b'['; 500_000],
        ..RawFrame::plain("central.event.hello.node.evil", b"")
    };
    let mut hellos = Vec::new();
    for number in 0..100 {
        hellos.push(forged::hello("evil", number));
    }
    for (name, frames, each, least) in [
        ("garbage", small.repeat(100), 100, 10_000),
        ("acks", forged.repeat(100), 100, 10_000),
        ("hellos", hellos.concat(), 100, 10_000),
        // These cost as much as a hundred times as many small ones.
        ("large", large.bytes(), 1, 50),
    ] {
        let per_second = flood() / 100;
        let attack = Attack::start(&harbour.world.url, vec![frames], per_second);
        let seen = harbour.work(name);
        let (sent, rate) = attack.end();
        let (sent, rate) = (sent * each, rate * each);
        print(&format!("{name}: {sent} frames, {rate}/s"));
        assert!(rate >= least, "{name} is no flood: {rate}/s");
        harbour.check(name, &seen, prompt);
        harbour.await_named("evil", &["flood", "overflow"]);
        assert!(seen.slowest_answer < prompt, "the loop answers: {seen:?}");
    }
    let after = harbour.status();
    assert_eq!(
        before["broker"]["since"], after["broker"]["since"],
        "never disconnected"
    );
    let peak = harbour.peak_memory();
    print(&format!("peak memory {} MiB", peak >> 20));
    assert!(peak < 400 << 20, "{peak} bytes of memory");
    for node in after["offenders"].as_array().expect("offenders") {
        assert_eq!(node["sender"], "evil", "nobody else is named");
    }
    // Nothing of the attack lasts.
    let output = harbour
        .world
        .steward(&["run", "--to", "ship1,ship2", "--", "true"]);
    assert_eq!(code(output.status), 0, "{output:?}");
}

#[test]
fn poison_for_an_agent_costs_it_its_connection_and_loses_nothing() {
    let harbour = Harbour::new();
    let frame = RawFrame {
        reply: Some(b"\xff"),
        ..RawFrame::plain("ship1.event.confirm.operatingsystem", b"{}")
    };
    // The agent waits up to a second before it connects again, and hears nothing meanwhile.
    let attack = Attack::start(&harbour.world.url, vec![frame.bytes()], 1);
    let truth = harbour.world.folder.path().join("truth");
    let ran = |node: &str| harbour.world.lines_of(&truth.with_extension(node)).len();
    for number in 1..=10 {
        let script = format!("echo {number} >> '{}'.$STEWARD_NODE", truth.display());
        let message = json!([{ "to": HONEST, "method": "shellcommand", "domain": "operatingsystem",
                               "name": format!("agent-{number}"), "data": ["sh", "-c", script] }]);
        harbour
            .world
            .drop_file(&format!("agent-{number}.json"), &message.to_string());
    }
    let reconnected = eventually("the agent to be thrown out", || {
        let nodes = harbour.world.json(&["node", "show", "ship1", "-o", "json"]);
        (attack.sent() > 3 && nodes["state"] != Value::Null).then_some(nodes)
    });
    assert_eq!(reconnected["name"], "ship1");
    attack.end();
    for number in 1..=10 {
        let message = harbour.world.await_final(&format!("agent-{number}"));
        for node in HONEST {
            assert_eq!(state_of(&message, node), "succeeded", "{message}");
        }
    }
    assert_eq!((ran("ship1"), ran("ship2")), (10, 10), "each ran once");
}

#[test]
fn poison_and_a_lost_broker_together_lose_nothing() {
    let mut harbour = Harbour::new();
    let port = harbour.world.broker.as_ref().expect("a broker").port();
    harbour.world.drop_file(
        "before.json",
        &json!([{ "to": HONEST, "method": "shellcommand", "domain": "operatingsystem",
                  "name": "before", "data": ["sleep", "1"] }])
        .to_string(),
    );
    let id = eventually("the message to be accepted", || {
        harbour.world.message_called("before")
    });
    drop(harbour.world.broker.take());
    eventually("the station to know that its broker is gone", || {
        (harbour.status()["broker"]["connected"] == false).then_some(())
    });
    let reason = eventually("the reason to be known", || {
        let reason = harbour.status()["broker"]["reason"].as_str()?.to_owned();
        reason.contains("refused").then_some(reason)
    });
    assert!(reason.contains(&port.to_string()), "{reason}");
    let place = harbour.world.folder.path().join("broker-again");
    harbour.world.broker = Some(
        steward_station::broker::Broker::start_on(crate::support::nats_server(), &place, port)
            .unwrap_or_else(|error| panic!("{error}")),
    );
    let message = harbour.world.await_final("before");
    assert_eq!(message["id"], id.as_str());
    for node in HONEST {
        assert_eq!(state_of(&message, node), "succeeded");
    }
    harbour.station.signal(Signal::TERM);
}
