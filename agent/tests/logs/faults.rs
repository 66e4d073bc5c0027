//! Bad input and faults, each with its outcome: what is missing is counted, nothing else is, and the agent stays up and small.

use std::{
    fs::{self, OpenOptions},
    io::{Read, Write},
    net::{TcpStream, UdpSocket},
    os::unix::net::UnixDatagram,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use futures_util::StreamExt;
use rustix::process::{Pid, Resource, Signal, getrlimit, kill_process};
use steward_protocol::{State, logs::Reason};

use super::{check_order, input, numbered, numbers, open, pair, start, texts};
use crate::support::{
    Agent, AgentCommand, Field, Request, Station, as_it_grows, eventually, ports::free_port,
};

mod disk;

/// Memory that no sender may make an agent take (debug builds are larger than others).
const MEMORY: u64 = 64 << 10;

/// Lines that do not compress.
fn noise(count: usize, length: usize) -> Vec<String> {
    let mut state = 1_u64;
    let mut line = || {
        let mut text = String::from("<13>");
        while text.len() < length {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            text += &format!("{:x}", state >> 16);
        }
        text
    };
    (0..count).map(|_| line()).collect()
}

fn joined(lines: &[String]) -> String {
    lines.iter().map(|line| line.clone() + "\n").collect()
}

fn connect(port: u16) -> TcpStream {
    TcpStream::connect(("127.0.0.1", port)).expect("a connection")
}

/// Returns a number of kilobytes from what the kernel says of a process.
fn memory(agent: &Agent, row: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", agent.pid().as_raw_nonzero()));
    let status = status.expect("the agent runs");
    let row = status.lines().find(|line| line.starts_with(row));
    let number = row.and_then(|row| row.split_whitespace().nth(1)?.parse().ok());
    number.expect("its memory")
}

fn say_skipped(what: &str) {
    let words = format!("SKIPPED: {what}\n");
    std::io::stderr().write_all(words.as_bytes()).ok();
}

/// Waits until what is stored of a domain and what its gaps count come to so many, and returns the gaps' part.
async fn accounted(station: &Station, domain: &str, sent: u64) -> u64 {
    let awaited = format!("all of {sent} datagrams of {domain}");
    let found = as_it_grows(&awaited, || {
        let world = station.world();
        let lost = world
            .logs
            .gaps(domain)
            .iter()
            .filter_map(|gap| gap.count)
            .sum::<u64>();
        let seen = (world.logs.count(domain) as u64, lost);
        let all = seen.0 + seen.1;
        assert!(all <= sent, "{seen:?} of {sent}: more than there were");
        let all_of_it = usize::try_from(all).expect("few");
        (all_of_it, (all == sent).then_some(lost))
    });
    found.await
}

#[tokio::test]
async fn every_datagram_of_a_flood_is_stored_or_counted() {
    const SENT: u64 = 120_000;
    let field = Field::new();
    let port = free_port();
    let config = input("udp", &format!("udp://127.0.0.1:{port}")) + "receive_buffer = \"64KiB\"\n";
    let (agent, station) = pair(&field, &config).await;
    let sending = thread::spawn(move || {
        let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        sender.connect(("127.0.0.1", port)).expect("connected");
        for number in 0..SENT {
            let text = format!("<13>Nov 21 10:00:00 h app: flood {number:06} {:0>120}", 0);
            sender.send(text.as_bytes()).expect("it leaves");
        }
    });
    sending.join().expect("all is sent");
    let lost = accounted(&station, "udp", SENT).await;
    assert!(lost > 0, "nothing was lost: that was no flood");
    let world = station.world();
    let stored = world.logs.texts("udp");
    assert!(stored.is_sorted(), "out of order");
    let is_kernel = |reason| matches!(reason, Reason::KernelDrop | Reason::SpoolFull);
    assert!(
        world
            .logs
            .gaps("udp")
            .iter()
            .all(|gap| is_kernel(gap.reason))
    );
    drop(world);
    check_order(&station);
    let peak = memory(&agent, "VmHWM:");
    assert!(peak < MEMORY, "{peak} kB");
}

#[tokio::test]
async fn ten_thousand_idle_connections_cost_little_and_more_are_turned_away_and_told() {
    const MORE: usize = 200;
    let limit = getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX);
    // Both ends need one each, and tests side by side have theirs.
    let idle = 10_000.min(
        usize::try_from(limit)
            .unwrap_or(usize::MAX)
            .saturating_sub(2000),
    );
    if idle < 10_000 {
        say_skipped(&format!(
            "with {limit} files open only {idle} connections can be tried"
        ));
    }
    if idle == 0 {
        return;
    }
    let field = Field::new();
    let port = free_port();
    let config =
        input("app", &format!("tcp://127.0.0.1:{port}")) + &format!("connections = {}\n", idle + 1);
    let (agent, station) = pair(&field, &config).await;
    let before = memory(&agent, "VmRSS:");
    let mut speaking = connect(port);
    let held: Vec<TcpStream> = (0..idle).map(|_| connect(port)).collect();
    // The last of them has been taken when it is heard.
    let mut last = &held[idle - 1];
    last.write_all(b"<13>the last\n").expect("it is taken");
    assert_eq!(texts(&station, "app", 1).await, ["<13>the last"]);
    let refused: Vec<TcpStream> = (0..MORE).map(|_| connect(port)).collect();
    for mut one in refused {
        one.set_read_timeout(Some(Duration::from_secs(20)))
            .expect("a time");
        assert!(
            !matches!(one.read(&mut [0]), Ok(1..)),
            "who is turned away hears it"
        );
    }
    speaking
        .write_all(b"<13>among them\n")
        .expect("it is taken");
    assert_eq!(texts(&station, "app", 2).await[1], "<13>among them");
    eventually("a gap that says how many were turned away", || {
        let gaps = station.world().logs.gaps("app");
        let count = |detail: &str| detail.split(' ').next()?.parse::<usize>().ok();
        let told = gaps
            .iter()
            .filter_map(|gap| count(gap.detail.as_deref()?))
            .sum::<usize>();
        (told == MORE).then_some(())
    })
    .await;
    let each = (memory(&agent, "VmHWM:") - before) * 1024 / idle as u64;
    assert!(each < 4096, "a connection takes {each} bytes");
    drop(held);
}

#[tokio::test]
async fn bad_frames_cost_only_themselves() {
    let field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    let (_agent, station) = pair(&field, &config).await;
    let mut seen = 0;
    for (sent, wanted) in [
        (&b"2024 was\n<13>a\n"[..], &["2024 was", "<13>a"][..]),
        (b"12 <b>x</b>\n012 <13>\n", &["12 <b>x</b>", "012 <13>"]),
        // Too small, too large, larger than is believed.
        (
            b"5 <13>abc5 <14>b5 <15>c",
            &["<13>a", "bc", "<14>b", "<15>c"],
        ),
        (b"9 <13>a5 <14>b5 <15>c", &["<13>a5 <1", "4>b", "<15>c"]),
        (b"99999999 <13>a\n5 <14>b", &["99999999 <13>a", "<14>b"]),
        // More is promised than comes.
        (b"500 <13>and then it broke", &["<13>and then it broke"]),
        (
            b"\xff\xfe\x00\x01garbage\n<13>b\n",
            &["\u{fffd}\u{fffd}", "\u{1}garbage", "<13>b"],
        ),
        (b"no end", &["no end"]),
        (b"\n\r\n\0\n", &[]),
    ] {
        let mut sender = connect(port);
        sender.set_nodelay(true).expect("no delay");
        for byte in sent {
            sender.write_all(&[*byte]).expect("it is taken");
        }
        drop(sender);
        let mut next = connect(port);
        next.write_all(b"<13>next\n").expect("it is taken");
        drop(next);
        let stored = texts(&station, "app", seen + wanted.len() + 1).await;
        let mut stored = stored[seen..].to_vec();
        let at = stored
            .iter()
            .position(|text| text == "<13>next")
            .expect("the next");
        stored.remove(at);
        assert_eq!(stored, wanted, "{}", sent.escape_ascii());
        seen += wanted.len() + 1;
    }
    check_order(&station);
    station
        .hello("frames that were out of step", |_, hello| {
            (hello.counters.get("log_out_of_step")? == &3).then_some(())
        })
        .await;
}

#[tokio::test]
async fn rules_are_read_again_and_again_under_load_without_loss() {
    const LINES: usize = 40_000;
    let field = Field::new();
    let port = free_port();
    let inputs = input("even", &format!("tcp://127.0.0.1:{port}"));
    let rule = |domain: &str| {
        format!("{inputs}[[syslog_rule]]\nmatch = \"[13579]$\"\ndomain = \"{domain}\"\n")
    };
    let (agent, station) = pair(&field, &rule("odd")).await;
    let over = Arc::new(AtomicBool::new(false));
    let is_over = Arc::clone(&over);
    let sending = thread::spawn(move || {
        let mut sender = connect(port);
        for from in (0..LINES).step_by(50) {
            let text = numbered(from, from + 50);
            sender.write_all(text.as_bytes()).expect("it is taken");
            thread::sleep(Duration::from_millis(3));
        }
        is_over.store(true, Ordering::Relaxed);
    });
    let mut reloads = 0;
    while !over.load(Ordering::Relaxed) {
        let domain = if reloads % 2 == 0 { "strange" } else { "odd" };
        fs::write(field.path("agent.new"), rule(domain)).expect("a config");
        fs::rename(field.path("agent.new"), field.path("agent.toml")).expect("a config");
        agent.signal(Signal::HUP);
        reloads += 1;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    sending.join().expect("all is sent");
    assert!(reloads > 10, "{reloads}");
    let found = eventually("every line in one of three domains", || {
        let world = station.world();
        let of = |domain: &str| numbers(&world.logs.texts(domain));
        let all = [of("even"), of("odd"), of("strange")];
        (all.iter().map(Vec::len).sum::<usize>() >= LINES).then_some(all)
    })
    .await;
    for domain in &found {
        assert!(domain.is_sorted_by(|one, other| one < other));
    }
    let [even, odd, strange] = found;
    assert!(even.iter().all(|number| number % 2 == 0));
    assert!(!odd.is_empty() && !strange.is_empty());
    let mut all = [even, odd, strange].concat();
    all.sort_unstable();
    assert_eq!(all, (0..LINES).collect::<Vec<_>>());
    check_order(&station);
    let world = station.world();
    assert!(
        ["even", "odd", "strange"]
            .iter()
            .all(|domain| world.logs.gaps(domain).is_empty())
    );
}

#[tokio::test]
async fn orders_are_answered_while_a_backlog_drains() {
    let mut field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    // A backlog for minutes, whatever the machine does meanwhile.
    let slow = config.clone() + "[syslog_spool]\nrate = \"64KiB\"\n";
    let (mut agent, station) = pair(&field, &slow).await;
    field.cut();
    let lines = noise(12_000, 1000);
    connect(port)
        .write_all(joined(&lines).as_bytes())
        .expect("it is taken");
    field.heal();
    texts(&station, "app", 1).await;
    let mut slowest = Duration::ZERO;
    for number in 0..10 {
        let began = Instant::now();
        let sent = station.send(Request::new("ship1", &["true"])).await;
        assert_eq!(
            station.over(&sent).await.state,
            State::Succeeded,
            "{number}"
        );
        slowest = slowest.max(began.elapsed());
    }
    let there = station.world().logs.count("app");
    assert!(
        there < lines.len(),
        "the backlog was gone before the orders were"
    );
    assert!(
        slowest < Duration::from_secs(10),
        "an order took {slowest:?}"
    );
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    let _agent = start(&field, &config);
    assert_eq!(texts(&station, "app", lines.len()).await, lines);
    check_order(&station);
}

#[tokio::test]
async fn no_more_is_sent_than_the_rate_allows() {
    const RATE: f64 = 200_000.0;
    let field = Field::new();
    let port = free_port();
    let config =
        input("app", &format!("tcp://127.0.0.1:{port}")) + "[syslog_spool]\nrate = \"200000\"\n";
    let (_agent, station) = pair(&field, &config).await;
    let mut batches = station
        .client
        .subscribe("central.event.syslogforwarding.>")
        .await
        .expect("subscribed");
    let begin = Instant::now();
    let counting = tokio::spawn(async move {
        let mut sizes = Vec::new();
        while let Some(batch) = batches.next().await {
            sizes.push((begin.elapsed(), batch.payload.len()));
        }
        sizes
    });
    let lines = noise(2000, 1000);
    connect(port)
        .write_all(joined(&lines).as_bytes())
        .expect("it is taken");
    assert_eq!(texts(&station, "app", lines.len()).await, lines);
    station.client.drain().await.expect("the end");
    let sizes = counting.await.expect("counted");
    let largest = sizes
        .iter()
        .map(|(_, bytes)| *bytes)
        .max()
        .expect("a batch");
    // From the beginning on: between two batches less time may have passed here than there.
    let mut sent = 0;
    for (at, bytes) in &sizes {
        sent += bytes;
        // A second's worth may go at once, and the last batch on top of it.
        let allowed = RATE * (at.as_secs_f64() + 1.5) + 2.0 * largest as f64;
        assert!((sent as f64) < allowed, "{sent} bytes after {at:?}");
    }
    assert!(
        sizes.iter().map(|(_, bytes)| bytes).sum::<usize>() > 800_000,
        "it was not held back"
    );
}

/// Returns the library that shifts clocks.
fn faketime() -> Option<PathBuf> {
    let machine = std::env::consts::ARCH;
    let path = format!("/usr/lib/{machine}-linux-gnu/faketime/libfaketimeMT.so.1");
    Path::new(&path).exists().then(|| path.into())
}

#[tokio::test]
async fn a_clock_that_goes_backwards_changes_nothing_but_times() {
    let Some(library) = faketime() else {
        panic!("the clock is shifted by faketime: apt-get install faketime");
    };
    let field = Field::new();
    let port = free_port();
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    let station = field.station().await;
    let clock = field.path("clock");
    fs::write(&clock, "+0\n").expect("written");
    let mut command = field
        .agent("ship1")
        .config(&field.path("agent.toml"), &config);
    command.0.env("LD_PRELOAD", library);
    command.0.env("FAKETIME_TIMESTAMP_FILE", &clock);
    command.0.env("FAKETIME_NO_CACHE", "1");
    command.0.env("DONT_FAKE_MONOTONIC", "1");
    let _agent = command.start();
    station.met("ship1").await;
    open(&config).await;
    let mut sender = connect(port);
    for (round, shift) in ["+0", "-1d", "-400d", "+3d"].iter().enumerate() {
        fs::write(&clock, format!("{shift}\n")).expect("written");
        let from = round * 500;
        sender
            .write_all(numbered(from, from + 500).as_bytes())
            .expect("it is taken");
        texts(&station, "app", from + 500).await;
    }
    let stored = numbers(&texts(&station, "app", 2000).await);
    assert_eq!(stored, (0..2000).collect::<Vec<_>>());
    check_order(&station);
    let world = station.world();
    assert!(world.logs.gaps("app").is_empty());
    let received: Vec<_> = world
        .logs
        .records
        .iter()
        .map(|record| record.received)
        .collect();
    assert!(!received.is_sorted(), "the clock was not set back");
}

#[tokio::test]
async fn two_agents_of_one_name_do_not_mix_their_logs() {
    let field = Field::new();
    let (one, other) = (free_port(), free_port());
    let station = field.station().await;
    let start = |port: u16, state: &str| {
        let config = field.path(&format!("{state}.toml"));
        let text = input("app", &format!("tcp://127.0.0.1:{port}"));
        let mut command = field.agent("ship1").config(&config, &text);
        command.0.arg("--state-dir").arg(field.path(state));
        command
    };
    // The last word counts.
    let given = |command: AgentCommand| {
        let mut again = Command::new(command.0.get_program());
        let arguments: Vec<_> = command.0.get_args().map(ToOwned::to_owned).collect();
        let first = arguments
            .iter()
            .position(|word| word == "--state-dir")
            .expect("one");
        for (index, word) in arguments.iter().enumerate() {
            if index != first && index != first + 1 {
                again.arg(word);
            }
        }
        again.env("RUST_LOG", "steward_agent=debug");
        AgentCommand(again)
    };
    let _first = given(start(one, "first")).start();
    station.met("ship1").await;
    let _second = given(start(other, "second")).start();
    eventually("two agents of one name", || {
        let world = station.world();
        let journals: std::collections::BTreeSet<_> = world
            .hellos
            .iter()
            .map(|(_, origin, _)| origin.journal_id)
            .collect();
        (journals.len() == 2).then_some(())
    })
    .await;
    for port in [one, other] {
        open(&input("app", &format!("tcp://127.0.0.1:{port}"))).await;
    }
    let (mut to_one, mut to_other) = (connect(one), connect(other));
    to_one
        .write_all(numbered(0, 2000).as_bytes())
        .expect("it is taken");
    to_other
        .write_all(numbered(5000, 7000).as_bytes())
        .expect("it is taken");
    texts(&station, "app", 4000).await;
    check_order(&station);
    let world = station.world();
    let generations: std::collections::BTreeSet<_> = world
        .logs
        .records
        .iter()
        .map(|record| record.generation)
        .collect();
    assert_eq!(generations.len(), 2);
    for generation in generations {
        let of = world
            .logs
            .records
            .iter()
            .filter(|record| record.generation == generation);
        let of: Vec<String> = of.map(|record| record.text.clone()).collect();
        let of = numbers(&of);
        assert!(of == (0..2000).collect::<Vec<_>>() || of == (5000..7000).collect::<Vec<_>>());
    }
}

#[tokio::test]
async fn logs_that_cannot_begin_are_told_disturb_nobody_and_begin_when_they_can() {
    let field = Field::new();
    let port = free_port();
    let state = field.path("ship1");
    fs::create_dir_all(&state).expect("a directory");
    fs::write(state.join("logs"), "in the way").expect("a file");
    let config = input("app", &format!("tcp://127.0.0.1:{port}"));
    let station = field.station().await;
    let _agent = start(&field, &config);
    station.met("ship1").await;
    eventually("a fault", || {
        let world = station.world();
        let is_it = |detail: &str| detail.contains("the directory");
        let mut faults = world.faults.iter();
        faults
            .any(|fault| fault.kind == "failed" && is_it(&fault.detail))
            .then_some(())
    })
    .await;
    let sent = station.send(Request::new("ship1", &["true"])).await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
    fs::remove_file(state.join("logs")).expect("out of the way");
    eventually("an input that works", || {
        TcpStream::connect(("127.0.0.1", port))
            .ok()?
            .write_all(b"<13>at last\n")
            .ok()
    })
    .await;
    assert_eq!(texts(&station, "app", 1).await, ["<13>at last"]);
}

#[tokio::test]
async fn nothing_listens_where_others_can_reach_it_unless_that_is_accepted() {
    let field = Field::new();
    let port = free_port();
    let given = input("app", &format!("udp://0.0.0.0:{port}"));
    let refused = field
        .agent("ship1")
        .config(&field.path("agent.toml"), &given);
    let (code, _, said) = refused.run();
    assert_eq!(code, Some(2), "{said}");
    assert!(said.contains("beyond_loopback = true"), "{said}");
    let accepted = given + "beyond_loopback = true\n";
    let station = field.station().await;
    let _agent = start(&field, &accepted);
    station.met("ship1").await;
    let sender = UdpSocket::bind("127.0.0.1:0").expect("a socket");
    eventually("a message", || {
        sender.send_to(b"<13>from afar", ("127.0.0.1", port)).ok();
        (!station.world().logs.texts("app").is_empty()).then_some(())
    })
    .await;
}

#[tokio::test]
async fn what_datagrams_and_sorted_messages_may_have_lost_in_a_kill_is_told_where_it_is_missing() {
    let field = Field::new();
    let gram = field.path("gram");
    let config = input("main", &format!("unixgram://{}", gram.display()))
        + "[[syslog_rule]]\nmatch = \"web\"\ndomain = \"web\"\n[[syslog_rule]]\nmatch = \"never\"\ndomain = \"unused\"\n";
    let (mut agent, station) = pair(&field, &config).await;
    let sender = UnixDatagram::unbound().expect("a socket");
    for text in ["<13>main", "<13>web"] {
        sender.send_to(text.as_bytes(), &gram).expect("it is taken");
    }
    texts(&station, "main", 1).await;
    texts(&station, "web", 1).await;
    agent.kill();
    let _agent = start(&field, &config);
    // Also where nothing has come yet: nobody knows whether something was on its way there.
    eventually("a gap in each", || {
        let world = station.world();
        let is_told = |domain: &str| {
            let gaps = world.logs.gaps(domain);
            matches!(gaps.as_slice(), [gap] if gap.reason == Reason::UncleanStart && gap.count.is_none())
        };
        ["main", "web", "unused"]
            .into_iter()
            .all(is_told)
            .then_some(())
    })
    .await;
}
