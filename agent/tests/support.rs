//! A broker, agents and a station to play with. Waits for conditions, never for time.

use std::{
    fs,
    io::{BufRead, BufReader, Read},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::broker::{self, Broker};

pub(crate) mod logs;
pub(crate) mod peers;
pub(crate) mod ports;
pub(crate) mod station;
pub(crate) mod ward;

pub(crate) use self::{
    station::{Request, Station},
    ward::{children_of, wardens_of},
};

/// Longer than anything takes here that happens at all, also on a machine that is busy.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// A broker and a directory; both end with it.
pub(crate) struct Field {
    pub(crate) broker: Broker,
    pub(crate) dir: TempDir,
}

impl Field {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let binary = broker::find(None).expect("there is a nats-server");
        let broker = ports::on_a_free_port(|port| Broker::start_on(&binary, dir.path(), port));
        Self { broker, dir }
    }

    /// Ends the broker without a word.
    pub(crate) fn cut(&mut self) {
        self.broker.kill();
    }

    /// Starts the broker again where it was.
    pub(crate) fn heal(&mut self) {
        let binary = broker::find(None).expect("there is a nats-server");
        let port = self.broker.port();
        self.broker =
            Broker::start_on(&binary, self.dir.path(), port).expect("the broker starts again");
    }

    pub(crate) async fn station(&self) -> Station {
        Station::connect(self.broker.url()).await
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// Returns the command line of an agent; its state stays with the field.
    pub(crate) fn agent(&self, node: &str) -> AgentCommand {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steward-agent"));
        command.args(["run", "--node", node, "--nats", self.broker.url()]);
        command.arg("--state-dir").arg(self.path(node));
        command.args(["--heartbeat", "1s"]);
        command.env("RUST_LOG", "steward_agent=debug");
        for name in ["NATS_URL", "NATS_CREDS", "STEWARD_STATE_DIR"] {
            command.env_remove(name);
        }
        AgentCommand(command)
    }

    /// Starts an agent and a station that has welcomed it.
    pub(crate) async fn pair(&self, node: &str) -> (Agent, Station) {
        let station = self.station().await;
        let agent = self.agent(node).start();
        station.met(node).await;
        (agent, station)
    }
}

impl Drop for Field {
    /// Commands live on without their agent; not without their field.
    fn drop(&mut self) {
        let dir = self.dir.path().to_string_lossy().into_owned();
        let deadline = Instant::now() + DEADLINE;
        let mut signal = Signal::TERM;
        loop {
            let left = wardens_of(&dir);
            if left.is_empty() || Instant::now() > deadline {
                return;
            }
            signal_all(&left, signal);
            // Once: it is asked, not hurried.
            signal = Signal::CONT;
            thread::sleep(Duration::from_millis(10));
        }
    }
}

pub(crate) struct AgentCommand(pub(crate) Command);

impl AgentCommand {
    pub(crate) fn arg(mut self, name: &str, value: &str) -> Self {
        self.0.args([name, value]);
        self
    }

    pub(crate) fn config(mut self, path: &Path, text: &str) -> Self {
        fs::write(path, text).expect("the config can be written");
        self.0.arg("--config").arg(path);
        self
    }

    /// Starts the agent and waits until it says that it is ready.
    pub(crate) fn start(mut self) -> Agent {
        self.0.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = self.0.spawn().expect("the agent starts");
        let stdout = child.stdout.take().expect("its output is piped");
        let mut stderr = child.stderr.take().expect("its log is piped");
        let log = thread::spawn(move || {
            let mut bytes = Vec::new();
            stderr.read_to_end(&mut bytes).ok();
            String::from_utf8_lossy(&bytes).into_owned()
        });
        let (lines, said) = mpsc::channel();
        thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                lines.send(line).ok();
            }
        });
        let ready = said.recv_timeout(DEADLINE).ok();
        let mut agent = Agent {
            child,
            said,
            ready: ready.clone().unwrap_or_default(),
            log: Some(log),
        };
        if ready.is_none() {
            agent.kill();
            panic!(
                "the agent did not say that it is ready; its log:\n{}",
                agent.log()
            );
        }
        agent
    }

    /// Runs the agent to its end, which must come by itself.
    pub(crate) fn run(mut self) -> (Option<i32>, String, String) {
        self.0.stdout(Stdio::piped()).stderr(Stdio::piped());
        let output = self.0.output().expect("the agent starts");
        (
            output.status.code(),
            String::from_utf8_lossy(&output.stdout).into_owned(),
            String::from_utf8_lossy(&output.stderr).into_owned(),
        )
    }
}

/// A running agent; killed when dropped.
pub(crate) struct Agent {
    child: Child,
    said: mpsc::Receiver<String>,
    pub(crate) ready: String,
    log: Option<thread::JoinHandle<String>>,
}

impl Agent {
    pub(crate) fn pid(&self) -> Pid {
        Pid::from_child(&self.child)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).expect("the agent can be signalled");
    }

    /// Ends it as a power cut would.
    pub(crate) fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    pub(crate) fn wait(&mut self) -> ExitStatus {
        let deadline = Instant::now() + DEADLINE;
        loop {
            if let Some(status) = self.child.try_wait().expect("the agent can be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "the agent did not end");
            thread::sleep(Duration::from_millis(10));
        }
    }

    /// Returns its log; it must have ended.
    pub(crate) fn log(&mut self) -> String {
        let log = self.log.take().map(thread::JoinHandle::join);
        log.and_then(Result::ok).unwrap_or_default()
    }

    /// Returns what it wrote on standard output after the line that it is ready.
    pub(crate) fn said_more(&self) -> Vec<String> {
        self.said.try_iter().collect()
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            let log = self.log();
            let tail: Vec<&str> = log.lines().rev().take(60).collect();
            let tail: Vec<&str> = tail.into_iter().rev().collect();
            std::io::Write::write_all(
                &mut std::io::stderr(),
                format!("the agent's log ends with:\n{}\n", tail.join("\n")).as_bytes(),
            )
            .ok();
        }
    }
}

/// Polls until `look` finds something; names what was awaited when it does not.
pub(crate) async fn eventually<T>(awaited: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "in vain awaited: {awaited}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// As [`eventually`], for what takes long: the deadline begins anew whenever the number that `look` returns is larger.
pub(crate) async fn as_it_grows<T>(
    awaited: &str,
    mut look: impl FnMut() -> (usize, Option<T>),
) -> T {
    let (mut most, mut since) = (0, Instant::now());
    loop {
        let (seen, found) = look();
        if let Some(found) = found {
            return found;
        }
        if seen > most {
            (most, since) = (seen, Instant::now());
        }
        assert!(
            since.elapsed() < DEADLINE,
            "in vain awaited: {awaited}; there are {seen}, and no more come"
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Returns how often a command ran, by the lines it wrote itself.
pub(crate) fn lines(path: &Path) -> usize {
    fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// Sends a signal to processes; those that have ended meanwhile do not matter.
pub(crate) fn signal_all(pids: &[i32], signal: Signal) {
    for pid in pids.iter().filter_map(|pid| Pid::from_raw(*pid)) {
        kill_process(pid, signal).ok();
    }
}

/// Kills the warden of a message and all of its command, as nobody but a person would.
pub(crate) async fn kill_with_warden(id: steward_protocol::MessageId) {
    signal_all(&wardens_of(&id.to_string()), Signal::KILL);
    eventually("warden and command to be gone", || {
        let left = children_of(id);
        signal_all(&left, Signal::KILL);
        (left.is_empty() && wardens_of(&id.to_string()).is_empty()).then_some(())
    })
    .await;
}
