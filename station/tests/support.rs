//! What the tests share: a broker, a station and agents as real processes, and waiting with a deadline.

use std::{
    io::{BufRead, BufReader, Read},
    os::unix::process::ExitStatusExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Output, Stdio},
    sync::OnceLock,
    time::{Duration, Instant},
};

use serde_json::Value;
use steward_station::broker::{self, Broker};
use tempfile::TempDir;

use self::ports::on_a_free_port;

#[path = "../../agent/tests/support/ports.rs"]
pub(crate) mod ports;

/// Generous: this machine may be busy. A test that needs it all has failed already.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Waits until `probe` finds something; names what was awaited when it does not.
pub(crate) fn eventually<T>(awaited: &str, mut probe: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(
            Instant::now() < deadline,
            "waited {} s in vain for: {awaited}",
            DEADLINE.as_secs()
        );
        std::thread::park_timeout(Duration::from_millis(20));
    }
}

/// Returns a nats-server, fetched once if this machine has none.
pub(crate) fn nats_server() -> &'static Path {
    static FOUND: OnceLock<PathBuf> = OnceLock::new();
    FOUND.get_or_init(|| {
        broker::find(None).unwrap_or_else(|error| panic!("no nats-server: {error}"))
    })
}

/// Returns the agent's program, built from these sources.
///
/// Cargo builds a package's own programs for its tests, not those of its neighbours.
pub(crate) fn agent_program() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let beside = Path::new(env!("CARGO_BIN_EXE_steward")).with_file_name("steward-agent");
        let mut build = Command::new(env!("CARGO"));
        build.args([
            "build",
            "--quiet",
            "--package",
            "steward-agent",
            "--bin",
            "steward-agent",
        ]);
        if beside
            .parent()
            .is_some_and(|folder| folder.ends_with("release"))
        {
            build.arg("--release");
        }
        let status = build
            .current_dir(env!("CARGO_MANIFEST_DIR"))
            .status()
            .expect("cargo runs");
        assert!(status.success(), "the agent could not be built");
        beside
    })
}

/// A process of ours that ends with the test.
pub(crate) struct Running {
    child: Child,
}

impl Running {
    /// Starts a program and waits for the one line it prints when ready.
    pub(crate) fn start(mut command: Command) -> (Self, String) {
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let stdout = child.stdout.take().expect("stdout is piped");
        let mut lines = BufReader::new(stdout);
        let mut line = String::new();
        lines.read_line(&mut line).expect("stdout is readable");
        assert!(
            !line.is_empty(),
            "the program ended before it was ready: {:?}",
            child.wait()
        );
        // What follows is read so that the program never waits for us.
        std::thread::spawn(move || lines.read_to_end(&mut Vec::new()));
        (Self { child }, line)
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.child.id().cast_signed()).expect("a pid");
        rustix::process::kill_process(pid, signal).expect("it is ours to signal");
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().expect("killed");
        self.child.wait().expect("reaped");
    }

    pub(crate) fn terminate(mut self) -> ExitStatus {
        self.signal(rustix::process::Signal::TERM);
        eventually("the program to end after SIGTERM", || {
            self.child.try_wait().expect("ours")
        })
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Already gone is as good.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// A broker and a folder for everything else.
pub(crate) struct World {
    pub(crate) broker: Option<Broker>,
    pub(crate) url: String,
    pub(crate) folder: TempDir,
}

impl World {
    pub(crate) fn new() -> Self {
        let mut world = Self::without_broker();
        let place = world.folder.path().join("broker");
        std::fs::create_dir(&place).expect("a folder");
        let broker = on_a_free_port(|port| Broker::start_on(nats_server(), &place, port));
        broker.url().clone_into(&mut world.url);
        world.broker = Some(broker);
        world
    }

    pub(crate) fn without_broker() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        Self {
            broker: None,
            url: String::new(),
            folder,
        }
    }

    pub(crate) fn state_dir(&self) -> PathBuf {
        self.folder.path().join("station")
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.state_dir().join("inbox")
    }

    pub(crate) fn station(&self) -> Running {
        self.station_with(&[])
    }

    pub(crate) fn station_with(&self, more: &[&str]) -> Running {
        Running::start(self.serve_command(more)).0
    }

    /// Returns the command that starts this world's station.
    pub(crate) fn serve_command(&self, more: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_steward"));
        command
            .arg("serve")
            .arg("--state-dir")
            .arg(self.state_dir())
            .args(["--nats", &self.url])
            .args(more)
            .env("RUST_LOG", "warn");
        command
    }

    pub(crate) fn agent(&self, name: &str) -> Running {
        self.agent_with(name, &[])
    }

    pub(crate) fn agent_with(&self, name: &str, more: &[&str]) -> Running {
        let mut command = Command::new(agent_program());
        command
            .args([
                "run",
                "--node",
                name,
                "--nats",
                &self.url,
                "--heartbeat",
                "1s",
            ])
            .arg("--state-dir")
            .arg(self.folder.path().join(name))
            .args(more)
            .env("RUST_LOG", "warn");
        Running::start(command).0
    }

    /// Runs `steward` with this world's state directory.
    pub(crate) fn steward(&self, arguments: &[&str]) -> Output {
        self.steward_with(arguments, Stdio::null())
    }

    pub(crate) fn steward_with(&self, arguments: &[&str], stdin: Stdio) -> Output {
        Command::new(env!("CARGO_BIN_EXE_steward"))
            .args(arguments)
            .env("STEWARD_STATE_DIR", self.state_dir())
            .stdin(stdin)
            .output()
            .expect("steward runs")
    }

    /// Runs `steward` and reads its standard output as JSON.
    pub(crate) fn json(&self, arguments: &[&str]) -> Value {
        let output = self.steward(arguments);
        serde_json::from_slice(&output.stdout).unwrap_or_else(|error| {
            panic!("{arguments:?} printed no JSON ({error}): {output:?}");
        })
    }

    /// Drops a file into the inbox as an operator should: whole, by rename.
    pub(crate) fn drop_file(&self, name: &str, text: &str) {
        let hidden = self.inbox().join(format!(".{name}"));
        std::fs::write(&hidden, text).expect("written");
        std::fs::rename(&hidden, self.inbox().join(name)).expect("renamed");
    }

    /// Waits until `steward node ls` shows these nodes online.
    pub(crate) fn await_online(&self, names: &[&str]) {
        eventually(&format!("{names:?} to be online"), || {
            let nodes = self.json(&["node", "ls", "-o", "json"]);
            let is_online = |name: &&str| {
                nodes.as_array().is_some_and(|nodes| {
                    nodes
                        .iter()
                        .any(|node| node["name"] == **name && node["state"] == "online")
                })
            };
            names.iter().all(is_online).then_some(())
        });
    }

    /// Waits until every delivery of the message called `name` is final, and returns it.
    pub(crate) fn await_final(&self, name: &str) -> Value {
        eventually(&format!("every delivery of {name:?} to be final"), || {
            let id = self.message_called(name)?;
            let message = self.json(&["msg", "show", &id, "-o", "json"]);
            let is_final = |delivery: &Value| {
                let word = delivery["state"].as_str().expect("a state");
                word.parse::<steward_protocol::State>()
                    .expect("a known state")
                    .is_final()
            };
            message["deliveries"]
                .as_array()?
                .iter()
                .all(is_final)
                .then_some(message)
        })
    }

    /// Returns the id of the newest message called `name`.
    pub(crate) fn message_called(&self, name: &str) -> Option<String> {
        let list = self.json(&["msg", "ls", "-o", "json", "--limit", "0"]);
        let found = list
            .as_array()?
            .iter()
            .find(|message| message["name"] == name)?;
        found["id"].as_str().map(str::to_owned)
    }

    /// Returns the lines a command appended to `file`: the ground truth of what ran.
    pub(crate) fn lines_of(&self, file: &Path) -> Vec<String> {
        std::fs::read_to_string(file)
            .unwrap_or_default()
            .lines()
            .map(str::to_owned)
            .collect()
    }
}

/// Returns the state of the delivery to `node`.
pub(crate) fn state_of<'a>(message: &'a Value, node: &str) -> &'a str {
    delivery_to(message, node)["state"]
        .as_str()
        .expect("a state")
}

/// Returns the delivery to `node`.
pub(crate) fn delivery_to<'a>(message: &'a Value, node: &str) -> &'a Value {
    let deliveries = message["deliveries"].as_array().expect("deliveries");
    deliveries
        .iter()
        .find(|delivery| delivery["node"] == node)
        .expect("a delivery to this node")
}

/// Returns the exit code, or 128 and the signal.
pub(crate) fn code(status: ExitStatus) -> i32 {
    status
        .code()
        .unwrap_or_else(|| 128 + status.signal().unwrap_or_default())
}
