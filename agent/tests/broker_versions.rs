//! What the agent makes of a broker's version, told by a broker that can be made to claim any.

use std::process::Command;

use rustix::process::Signal;

use crate::{claiming::broker_claiming, support::AgentCommand};

fn agent_at(url: &str, state: &tempfile::TempDir) -> AgentCommand {
    let mut command = Command::new(env!("CARGO_BIN_EXE_steward-agent"));
    command.args(["run", "--node", "ship1", "--nats", url]);
    command.arg("--state-dir").arg(state.path());
    AgentCommand(command)
}

#[test]
fn a_broker_older_than_2_9_ends_the_agent_with_a_sentence() {
    let state = tempfile::tempdir().expect("a folder");
    let (code, _, log) = agent_at(&broker_claiming("2.8.4"), &state).run();
    assert_eq!(code, Some(1), "{log}");
    assert!(
        log.contains("older than 2.9") && log.contains("upgrade"),
        "{log}"
    );
}

#[test]
fn a_broker_with_known_holes_is_used_with_one_warning() {
    let state = tempfile::tempdir().expect("a folder");
    let mut agent = agent_at(&broker_claiming("2.10.26"), &state).start();
    agent.signal(Signal::TERM);
    assert!(agent.wait().success());
    let log = agent.log();
    assert_eq!(log.matches("permission holes").count(), 1, "{log}");
}
