//! Commands on a disk that fills up: the agent's state is on a small one of its own, in a name space
//! for mounts that the test makes.

use std::{
    fs::{self, OpenOptions},
    io::Write,
    path::PathBuf,
    process::{Command, Stdio},
};

use steward_protocol::{Deferral, State};

use crate::support::{Agent, AgentCommand, Field, Request, children_of, eventually, lines};

/// Size of the disk; the journal fits with room to spare.
const SIZE: &str = "size=4m";

/// Tells whether this test may make name spaces, loudly when not.
fn may_mount() -> bool {
    let tried = Command::new("unshare")
        .args(["-m", "true"])
        .stderr(Stdio::null())
        .status();
    let may = tried.is_ok_and(|status| status.success());
    if !may {
        let words = "SKIPPED: no name space for mounts can be made here\n";
        std::io::stderr().write_all(words.as_bytes()).ok();
    }
    may
}

/// Starts an agent whose state directory is a disk of its own.
fn confined(field: &Field) -> (Agent, PathBuf) {
    let state = field.path("ship1");
    fs::create_dir_all(&state).expect("a directory");
    let plain = field.agent("ship1").0;
    let script = format!(
        "mount -t tmpfs -o {SIZE} tmpfs {0} && exec \"$0\" \"$@\"",
        state.display()
    );
    let mut command = Command::new("unshare");
    command.args(["-m", "sh", "-c", &script]);
    command.arg(plain.get_program()).args(plain.get_args());
    command.env("RUST_LOG", "steward_agent=debug");
    let agent = AgentCommand(command).start();
    // Seen from outside, through the agent's own root.
    let root = PathBuf::from(format!("/proc/{}/root", agent.pid().as_raw_pid()));
    let state = root.join(state.strip_prefix("/").expect("a whole path"));
    (agent, state)
}

/// Fills a disk to the last byte.
fn fill(state: &std::path::Path) {
    let path = state.join("filler");
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .open(path)
        .expect("a file");
    for size in [64 << 10, 1 << 10, 1] {
        while file.write_all(&vec![b'x'; size]).is_ok() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_nothing_is_started_and_later_all_of_it() {
    if !may_mount() {
        return;
    }
    let field = Field::new();
    let station = field.station().await;
    let (_agent, state) = confined(&field);
    station.met("ship1").await;
    let ran = field.path("ran");
    let script = format!("echo ran >> {}", ran.display());
    fill(&state);
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", &script]))
        .await;
    let ack = station.ack(&sent, &[State::Deferred]).await;
    assert_eq!(ack.deferral, Some(Deferral::Storage));
    assert_eq!((lines(&ran), children_of(sent.id)), (0, Vec::new()));
    fs::remove_file(state.join("filler")).expect("room again");
    eventually("the order to be taken", || {
        let station = station.clone();
        let sent = sent.clone();
        tokio::spawn(async move { station.resend(&sent).await });
        std::thread::sleep(std::time::Duration::from_millis(100));
        (lines(&ran) == 1).then_some(())
    })
    .await;
    assert_eq!(station.over(&sent).await.state, State::Succeeded);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_command_whose_output_fills_the_disk_is_told_with_its_true_end() {
    if !may_mount() {
        return;
    }
    let field = Field::new();
    let station = field.station().await;
    let (_agent, state) = confined(&field);
    station.met("ship1").await;
    let script = "head -c 20000000 /dev/zero; echo end; exit 6";
    let sent = station
        .send(Request::new("ship1", &["sh", "-c", script]))
        .await;
    // The journal needs room for what the warden wrote down; what filled the disk goes for it.
    let place = state.join("children").join(format!("{}-1", sent.id));
    eventually("the end to be written down", || {
        place.join("end.json").exists().then_some(())
    })
    .await;
    let ack = station.over(&sent).await;
    assert_eq!(ack.state, State::Failed);
    let outcome = ack.outcome.expect("it ran");
    assert_eq!(outcome.exit_code, Some(6));
    assert_eq!(outcome.stdout.expect("counted").bytes, 20_000_004);
}
