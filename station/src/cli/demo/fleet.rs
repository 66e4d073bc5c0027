//! The demo's processes: started, looked after, and ended in order, each by its own id.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::{Instant, sleep};

use super::must_be_program;
use crate::{broker::Broker, signals::Stop};

/// How long a station or the agents may drain before they are killed. The longest example runs
/// a second; an agent gives its children 5 s between TERM and KILL.
const DRAIN: Duration = Duration::from_secs(10);

/// How often ending processes are looked at.
const LOOK: Duration = Duration::from_millis(20);

/// Longest path of a socket, without the byte that ends it (unix(7): `sun_path` has 108).
const LONGEST_SOCKET: usize = 107;

/// Lines of a log shown when something went wrong.
const LAST_WORDS: usize = 15;

/// One process of ours.
struct Member {
    name: String,
    child: Child,
    log: PathBuf,
}

impl Member {
    fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    fn ask_to_end(&mut self) {
        // Its id stays ours until it has been waited for, so the signal cannot hit another.
        if self.is_running() {
            kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
        }
    }

    fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }

    fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        if lines.is_empty() {
            return format!("{} has written nothing to its log yet", self.name);
        }
        let last = &lines[lines.len().saturating_sub(LAST_WORDS)..];
        format!("the log of {} ends with:\n{}", self.name, last.join("\n"))
    }
}

/// Everything the demo has started.
pub(super) struct Fleet {
    dir: PathBuf,
    broker: Option<Broker>,
    station: Option<Member>,
    agents: Vec<Member>,
}

impl Fleet {
    /// Returns a fleet of nobody, to be started in `dir`.
    pub(super) fn new(dir: &Path) -> Self {
        Self {
            dir: dir.to_owned(),
            broker: None,
            station: None,
            agents: Vec::new(),
        }
    }

    pub(super) fn dir(&self) -> &Path {
        &self.dir
    }

    pub(super) fn state_dir(&self) -> PathBuf {
        self.dir.join("station")
    }

    pub(super) fn inbox(&self) -> PathBuf {
        self.state_dir().join("inbox")
    }

    pub(super) fn broker_url(&self) -> &str {
        self.broker.as_ref().map_or("", Broker::url)
    }

    pub(super) fn start_broker(&mut self, binary: &Path) -> Result<()> {
        self.broker = Some(Broker::start(binary, &self.dir.join("broker"))?);
        Ok(())
    }

    pub(super) fn start_station(&mut self) -> Result<()> {
        let program = env::current_exe().context("find this program")?;
        // The demo is the same on every machine, whatever is configured there.
        let config = self.dir.join("station.toml");
        fs::write(&config, "").with_context(|| format!("write {}", config.display()))?;
        let mut command = Command::new(program);
        command
            .arg("serve")
            .args([OsStr::new("--config"), config.as_os_str()])
            .args([OsStr::new("--state-dir"), self.state_dir().as_os_str()])
            .args(["--nats", self.broker_url()]);
        self.station = Some(self.start("central", command)?);
        Ok(())
    }

    /// Returns where a node takes logs; none where a socket cannot be.
    pub(super) fn log_socket(&self, node: &str) -> Option<String> {
        let path = self.dir.join(format!("{node}.sock"));
        let path = path.to_str().filter(|path| !path.contains(['"', '\\']))?;
        (path.len() <= LONGEST_SOCKET).then(|| path.to_owned())
    }

    pub(super) fn start_agent(&mut self, node: &str) -> Result<()> {
        let fleet = if self.agents.len().is_multiple_of(2) {
            "fleet=north"
        } else {
            "fleet=south"
        };
        let mut command = Command::new(agent_program()?);
        command
            .args(["run", "--node", node, "--nats", self.broker_url()])
            .args([
                OsStr::new("--state-dir"),
                self.dir.join("agents").join(node).as_os_str(),
            ])
            .args(["--station", "central", "--heartbeat", "2s"])
            .args(["--label", fleet]);
        let config = self.dir.join(format!("{node}.toml"));
        let logs = self.log_socket(node).map_or_else(String::new, |socket| {
            format!("[[syslog]]\ndomain = \"demo\"\ninput = \"unixgram://{socket}\"\n")
        });
        fs::write(&config, logs).with_context(|| format!("write {}", config.display()))?;
        command.args([OsStr::new("--config"), config.as_os_str()]);
        let agent = self.start(node, command)?;
        self.agents.push(agent);
        Ok(())
    }

    fn start(&self, name: &str, mut command: Command) -> Result<Member> {
        let logs = self.dir.join("logs");
        fs::create_dir_all(&logs).with_context(|| format!("create {}", logs.display()))?;
        let log = logs.join(format!("{name}.log"));
        let open = || File::options().create(true).append(true).open(&log);
        let (stdout, stderr) = (open(), open());
        for (variable, _) in env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("STEWARD_") || text.starts_with("NATS_") {
                command.env_remove(&variable);
            }
        }
        // A group of its own: the Ctrl-C that ends the demo must not end its parts out of order.
        let child = command
            .env("NO_COLOR", "1")
            .stdin(Stdio::null())
            .stdout(stdout.with_context(|| format!("open {}", log.display()))?)
            .stderr(stderr.with_context(|| format!("open {}", log.display()))?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.get_program().display()))?;
        Ok(Member {
            name: name.to_owned(),
            child,
            log,
        })
    }

    /// Looks whether everybody is still there.
    ///
    /// # Errors
    ///
    /// Names who ended, and the end of its log.
    pub(super) fn check(&mut self) -> Result<()> {
        if self
            .broker
            .as_mut()
            .is_some_and(|broker| !broker.is_running())
        {
            bail!("keep the broker running: it has ended");
        }
        for member in self.station.iter_mut().chain(&mut self.agents) {
            if let Ok(Some(status)) = member.child.try_wait() {
                bail!(
                    "keep {} running: it ended with {status}; {}",
                    member.name,
                    member.last_words()
                );
            }
        }
        Ok(())
    }

    /// Returns the end of the station's log.
    pub(super) fn last_words(&self) -> String {
        self.station
            .as_ref()
            .map_or_else(String::new, Member::last_words)
    }

    /// Returns `error`, preferring the reason behind it: a process that has ended.
    pub(super) fn blame(&mut self, error: anyhow::Error) -> anyhow::Error {
        self.check().err().unwrap_or(error)
    }

    /// Ends everybody: agents, then the station, then the broker; kills who does not end in time.
    pub(super) async fn stop(&mut self, stop: &Stop) {
        let mut agents = std::mem::take(&mut self.agents);
        drain(&mut agents, stop).await;
        let mut station: Vec<Member> = self.station.take().into_iter().collect();
        drain(&mut station, stop).await;
        if let Some(mut broker) = self.broker.take() {
            broker.stop();
        }
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        for member in self.agents.iter_mut().chain(&mut self.station) {
            member.kill();
        }
    }
}

async fn drain(members: &mut [Member], stop: &Stop) {
    for member in members.iter_mut() {
        member.ask_to_end();
    }
    let deadline = Instant::now() + DRAIN;
    while members.iter_mut().any(Member::is_running) && Instant::now() < deadline {
        tokio::select! {
            () = sleep(LOOK) => {}
            () = stop.now() => break,
        }
    }
    for member in members {
        member.kill();
    }
}

/// Returns the agent: beside this program, or in `PATH`.
fn agent_program() -> Result<PathBuf> {
    const NAME: &str = "steward-agent";
    let beside = env::current_exe()
        .context("find this program")?
        .with_file_name(NAME);
    if beside.is_file() {
        return Ok(beside);
    }
    let path = env::var_os("PATH").unwrap_or_default();
    let in_path = env::split_paths(&path)
        .map(|dir| dir.join(NAME))
        .find(|program| program.is_file());
    match in_path {
        Some(program) => Ok(program),
        None => must_be_program(
            &beside,
            "the demo needs the agent beside this program or in PATH; build both with `cargo build --release`",
        )
        .map(|()| beside),
    }
}
