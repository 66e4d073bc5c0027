//! Commands that misbehave, seen from the station; and what becomes of the agent meanwhile.

use std::{fs, io::Write, path::PathBuf, time::Duration};

use rustix::process::Signal;
use serde_json::json;
use steward_protocol::{Ack, State};

use crate::support::{
    Field, Request, Station, children_of, eventually, kill_with_warden, lines, signal_all,
    station::Sent, wardens_of,
};

const SUBJECT: &str = "ship1.command.shellcommand.operatingsystem";

fn shell(script: &str) -> Request {
    Request::new("ship1", &["sh", "-c", script])
}

/// Returns a figure of `/proc/PID/status` in KiB.
fn status(pid: i32, name: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = text.lines().find_map(|line| line.strip_prefix(name));
    let figure = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    figure.unwrap_or(0)
}

fn descriptors(pid: i32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}

/// Returns an order's final answer once nothing of it is left, neither process nor warden.
async fn over(station: &Station, sent: &Sent) -> Ack {
    let ack = station.over(sent).await;
    assert_eq!(children_of(sent.id), Vec::<i32>::new(), "when it is said");
    assert_eq!(wardens_of(&sent.id.to_string()), Vec::<i32>::new());
    ack
}

#[tokio::test(flavor = "multi_thread")]
async fn after_everything_that_misbehaves_the_agent_is_as_before() {
    let field = Field::new();
    let (agent, station) = field.pair("ship1").await;
    let pid = agent.pid().as_raw_pid();
    let first = station.send(shell("true")).await;
    over(&station, &first).await;
    let (handles, memory) = (descriptors(pid), status(pid, "RssAnon:"));
    let quick = Duration::from_millis(300);
    let body = |body| Request::body(SUBJECT, body);
    let rows = [
        (shell("exec sleep 1000").timeout(quick), State::TimedOut),
        (
            body(json!({"shell": "trap '' TERM; while :; do sleep 1; done", "grace": "300ms"}))
                .timeout(quick),
            State::TimedOut,
        ),
        (shell("sleep 1000 & echo done"), State::Succeeded),
        (
            shell("(setsid env -i sh -c 'sleep 1000 & sleep 1000' >/dev/null 2>&1 &); echo done"),
            State::Succeeded,
        ),
        (shell("head -c 1000000 /dev/urandom"), State::Succeeded),
        (shell("cat"), State::Succeeded),
        (shell(": </dev/tty"), State::Failed),
        (body(json!({"data": ["no-such-program"]})), State::Failed),
        (
            body(json!({"data": ["true"], "cwd": "/no/such/dir"})),
            State::Failed,
        ),
        (
            body(json!({"data": ["true"], "user": "no-such-user"})),
            State::Failed,
        ),
    ];
    for (request, expected) in rows {
        let sent = station.send(request).await;
        let ack = over(&station, &sent).await;
        assert_eq!(ack.state, expected, "{ack:?}");
    }
    eventually("the descriptors to be back", || {
        (descriptors(pid) <= handles).then_some(())
    })
    .await;
    let now = status(pid, "RssAnon:");
    assert!(
        now < memory + 8 * 1024,
        "{now} KiB of memory after {memory}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gibibyte_of_output_passes_through_little_memory() {
    let field = Field::new();
    let (agent, station) = field.pair("ship1").await;
    let sent = station
        .send(shell("head -c 1073741824 /dev/zero; echo >&2 end"))
        .await;
    station.ack(&sent, &[State::Running]).await;
    let warden = wardens_of(&sent.id.to_string())[0];
    let mut most = 0;
    let ack = loop {
        most = most.max(status(warden, "VmHWM:"));
        tokio::time::sleep(Duration::from_millis(20)).await;
        if station.states(&sent).contains(&State::Succeeded) {
            break over(&station, &sent).await;
        }
        assert!(!station.states(&sent).contains(&State::Failed));
    };
    let outcome = ack.outcome.expect("it ran");
    assert_eq!(outcome.stdout.expect("kept").bytes, 1 << 30);
    assert_eq!(outcome.stderr.expect("kept").head, b"end\n");
    let agent = status(agent.pid().as_raw_pid(), "VmHWM:");
    assert!(agent > 0 && most > 0, "nothing was measured");
    assert!(agent < 64 * 1024, "the agent took {agent} KiB");
    assert!(most < 64 * 1024, "the warden took {most} KiB");
    let words = format!("at most: agent {agent} KiB, warden {most} KiB\n");
    std::io::stderr().write_all(words.as_bytes()).ok();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_command_wrote_is_told_by_the_start_after_the_one_that_was_killed() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let script = format!(
        "echo before; until [ -e {} ]; do sleep 0.05; done; printf '\\377after'; exit 3",
        gate.display()
    );
    let sent = station.send(shell(&script)).await;
    station.ack(&sent, &[State::Running]).await;
    agent.kill();
    fs::write(&gate, "").expect("the gate opens");
    eventually("the end of the command", || {
        wardens_of(&sent.id.to_string()).is_empty().then_some(())
    })
    .await;
    let _agent = field.agent("ship1").start();
    let ack = over(&station, &sent).await;
    assert_eq!((ack.state, ack.reason), (State::Failed, None));
    let outcome = ack.outcome.expect("its warden wrote it down");
    assert_eq!(outcome.exit_code, Some(3));
    assert_eq!(outcome.stdout.expect("kept").head, b"before\n\xffafter");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_is_found_by_its_directory_when_its_number_was_not_written_down() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; exit 4",
        gate.display()
    );
    let sent = station.send(shell(&script)).await;
    station.ack(&sent, &[State::Running]).await;
    let old = station.world().hellos[0].1.instance;
    agent.kill();
    change_journal(
        &field,
        "UPDATE orders SET pid = NULL, pid_start_time = NULL WHERE pid IS NOT NULL",
    );
    let _agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    station.settled("ship1").await;
    assert_eq!(station.states(&sent).last(), Some(&State::Running));
    fs::write(&gate, "").expect("the gate opens");
    let ack = over(&station, &sent).await;
    assert_eq!(ack.outcome.expect("it ran").exit_code, Some(4));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_timeout_holds_while_there_is_no_agent() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let sent = station
        .send(shell("exec sleep 1000").timeout(Duration::from_secs(1)))
        .await;
    station.ack(&sent, &[State::Running]).await;
    agent.kill();
    eventually("the end of the command", || {
        wardens_of(&sent.id.to_string()).is_empty().then_some(())
    })
    .await;
    let _agent = field.agent("ship1").start();
    let ack = over(&station, &sent).await;
    assert_eq!(ack.state, State::TimedOut);
    assert!(ack.reason.expect("a reason").contains("timeout of 1s"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_that_ends_its_own_agent_is_told_by_the_next_one() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    for signal in ["TERM", "KILL"] {
        let old = station.world().hellos.last().expect("a hello").1.instance;
        let pid = agent.pid().as_raw_pid();
        // As `systemctl restart` in a message would, with the test for a service manager.
        let script = format!(
            "kill -{signal} {pid}; while grep -q '^State:.[^Z]' /proc/{pid}/status 2>/dev/null; do sleep 0.02; done; echo restarted"
        );
        let sent = station.send(shell(&script)).await;
        agent.wait();
        agent = field.agent("ship1").start();
        station.met_again("ship1", old).await;
        let ack = over(&station, &sent).await;
        assert_eq!(ack.state, State::Succeeded, "{signal}: {ack:?}");
        let stdout = ack.outcome.and_then(|outcome| outcome.stdout);
        assert_eq!(stdout.expect("kept").head, b"restarted\n", "{signal}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_warden_is_killed_is_interrupted_and_swept() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let ran = field.path("ran");
    let script = format!(
        "echo ran >> {}; setsid sleep 1000 & sleep 1000 & exec sleep 1000",
        ran.display()
    );
    let sent = station.send(shell(&script)).await;
    eventually("three processes of the command", || {
        (children_of(sent.id).len() == 3).then_some(())
    })
    .await;
    signal_all(&wardens_of(&sent.id.to_string()), Signal::KILL);
    let ack = over(&station, &sent).await;
    assert_eq!(ack.state, State::Interrupted);
    assert!(
        ack.reason
            .expect("a reason")
            .contains("watched over it is gone")
    );
    assert_eq!(directories(&field), Vec::<PathBuf>::new());
    // What may be run again is.
    let script = format!(
        "echo ran >> {}; [ $STEWARD_ATTEMPT = 2 ] || sleep 1000",
        ran.display()
    );
    let sent = station.send(shell(&script).idempotent()).await;
    eventually("the command to run", || (lines(&ran) == 2).then_some(())).await;
    signal_all(&wardens_of(&sent.id.to_string()), Signal::KILL);
    assert_eq!(over(&station, &sent).await.state, State::Succeeded);
    assert_eq!(lines(&ran), 3);
}

/// Returns the directories of commands that there are.
fn directories(field: &Field) -> Vec<PathBuf> {
    let entries = fs::read_dir(field.path("ship1").join("children"))
        .into_iter()
        .flatten();
    entries.flatten().map(|entry| entry.path()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_stopped_on_its_node_is_not_cancelled() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let sent = station.send(shell("echo partial; exec sleep 1000")).await;
    station.ack(&sent, &[State::Running]).await;
    eventually("the command", || {
        (!children_of(sent.id).is_empty()).then_some(())
    })
    .await;
    signal_all(&wardens_of(&sent.id.to_string()), Signal::TERM);
    let ack = over(&station, &sent).await;
    assert_eq!(ack.state, State::Failed);
    assert!(
        ack.reason
            .expect("a reason")
            .contains("stopped on this node")
    );
}

/// Changes one row of the journal of an agent that does not run.
fn change_journal(field: &Field, change: &str) {
    let journal = rusqlite::Connection::open(field.path("ship1").join("journal.db"));
    let changed = journal.expect("the journal opens").execute(change, []);
    assert_eq!(changed.expect("it is writable"), 1);
}

/// Makes what an agent started the work of another boot.
const REBOOT: &str = "UPDATE orders SET started_boot_id = 'another' \
                      WHERE started_boot_id IS NOT NULL AND state = 'running'";

#[tokio::test(flavor = "multi_thread")]
async fn after_a_reboot_a_written_end_is_true_and_an_unwritten_one_unknown() {
    let field = Field::new();
    let (mut agent, station) = field.pair("ship1").await;
    let gate = field.path("gate");
    let script = format!(
        "until [ -e {} ]; do sleep 0.05; done; exit 9",
        gate.display()
    );
    let ended = station.send(shell(&script)).await;
    station.ack(&ended, &[State::Running]).await;
    agent.kill();
    change_journal(&field, REBOOT);
    fs::write(&gate, "").expect("the gate opens");
    eventually("the end of the command", || {
        wardens_of(&ended.id.to_string()).is_empty().then_some(())
    })
    .await;
    let old = station.world().hellos.last().expect("a hello").1.instance;
    let mut agent = field.agent("ship1").start();
    station.met_again("ship1", old).await;
    let ack = over(&station, &ended).await;
    assert_eq!(ack.outcome.expect("it was written").exit_code, Some(9));
    station
        .hello("nothing unconfirmed", |_, hello| {
            hello.unconfirmed.is_empty().then_some(())
        })
        .await;

    let cut = station.send(shell("exec sleep 1000")).await;
    station.ack(&cut, &[State::Running]).await;
    agent.kill();
    kill_with_warden(cut.id).await;
    change_journal(&field, REBOOT);
    let _agent = field.agent("ship1").start();
    let ack = over(&station, &cut).await;
    assert_eq!(ack.state, State::Interrupted);
    assert!(
        ack.reason
            .expect("a reason")
            .starts_with("the node was restarted")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_shell_runs_a_text_with_the_options_asked_for() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let body =
        json!({"shell": "echo $0 $A | tr a-z A-Z; nice; exit 3", "env": {"A": "b"}, "nice": 5});
    let mut request = Request::body(SUBJECT, body);
    request.order.success_codes = vec![0, 3];
    let ack = over(&station, &station.send(request).await).await;
    assert_eq!(ack.state, State::Succeeded);
    let outcome = ack.outcome.expect("it ran");
    assert_eq!(outcome.exit_code, Some(3));
    assert_eq!(outcome.stdout.expect("kept").head, b"/BIN/SH B\n5\n");
}

#[tokio::test(flavor = "multi_thread")]
async fn limits_are_held_or_refused_before_the_start() {
    let field = Field::new();
    let (_agent, station) = field.pair("ship1").await;
    let body = json!({"shell": "for i in 1 2 3 4 5 6 7 8; do sleep 0.2 & done; wait", "limits": {"tasks": 4}});
    let ack = over(&station, &station.send(Request::body(SUBJECT, body)).await).await;
    let reason = ack.reason.clone().unwrap_or_default();
    match ack.state {
        State::Rejected => assert!(reason.contains("cannot hold a limit on tasks"), "{reason}"),
        State::Failed => assert!(reason.contains("its limit of 4 tasks"), "{reason}"),
        other => panic!("{other}: {ack:?}"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn directories_go_when_their_orders_are_forgotten_or_the_budget_is_spent() {
    let field = Field::new();
    let station = field.station().await;
    let config = field.path("agent.toml");
    let text = "results_budget = \"1MiB\"\n";
    fs::create_dir_all(field.path("ship1").join("children").join("stray")).expect("a directory");
    let _agent = field.agent("ship1").config(&config, text).start();
    station.met("ship1").await;
    eventually("what nobody knows to be gone", || {
        directories(&field).is_empty().then_some(())
    })
    .await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        let request = shell("head -c 600000 /dev/urandom");
        sent.push(station.send(request).await);
        over(&station, &sent[sent.len() - 1]).await;
    }
    let kept = |sent: &Sent| {
        let name = format!("{}-1", sent.id);
        field
            .path("ship1")
            .join("children")
            .join(name)
            .join("end.json")
            .exists()
    };
    eventually("the oldest to be gone", || {
        (!kept(&sent[0]) && !kept(&sent[1])).then_some(())
    })
    .await;
    assert!(kept(&sent[2]), "the latest fits");
}
