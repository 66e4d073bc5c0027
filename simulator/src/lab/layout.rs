//! Where the parts of a world are and how they are started: programs, addresses, directories, configuration.
//!
//! It starts nothing; it writes configuration files and command lines.

use std::{
    collections::BTreeMap,
    env, fs,
    net::TcpListener,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result, bail};

use super::{dice::Dice, world::Who};

/// Ports of brokers: below those the system gives to outgoing connections, or a client that connects again and
/// again would some day meet itself on the port of a broker that is away.
const PORTS: std::ops::Range<usize> = 10_000..32_000;

/// Tries to find a free port.
const TRIES: usize = 1000;

/// The programs under test.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Programs {
    pub(crate) steward: PathBuf,
    pub(crate) agent: PathBuf,
    pub(crate) broker: PathBuf,
    /// The witness: this program.
    pub(crate) lab: PathBuf,
}

impl Programs {
    /// Finds station and agent in `bin_dir`, or beside this program.
    pub(crate) fn find(bin_dir: Option<&Path>, broker: Option<&Path>) -> Result<Self> {
        let lab = env::current_exe().context("find this program")?;
        let beside = lab.parent().context("find this program's directory")?;
        let dir = bin_dir.unwrap_or(beside);
        let program = |name: &str| {
            let path = dir.join(name);
            if !path.is_file() {
                bail!(
                    "find {}: build it with `cargo build --release --workspace`, or say with --bin-dir where it is",
                    path.display()
                );
            }
            Ok(path)
        };
        Ok(Self {
            steward: program("steward")?,
            agent: program("steward-agent")?,
            broker: steward_station::broker::find(broker).context("find a nats-server")?,
            lab,
        })
    }
}

impl Programs {
    /// Returns every program, as the system names it.
    pub(crate) fn all(&self) -> Vec<PathBuf> {
        let all = [&self.steward, &self.agent, &self.broker, &self.lab];
        all.into_iter()
            .filter_map(|path| path.canonicalize().ok())
            .collect()
    }
}

/// How a world is laid out.
#[derive(Debug, Clone)]
pub(crate) struct Layout {
    dir: PathBuf,
    pub(crate) programs: Programs,
    pub(crate) nodes: Vec<String>,
    /// Where the broker listens.
    pub(crate) listen: (String, u16),
    /// What a part connects to, where that is not the broker itself.
    pub(crate) urls: BTreeMap<Who, String>,
    /// What stands before a part's command, such as a way into a network namespace.
    pub(crate) prefixes: BTreeMap<Who, Vec<String>>,
    /// State directories that are somewhere else, such as on a disk of their own.
    pub(crate) state_dirs: BTreeMap<Who, PathBuf>,
    /// Commands an agent runs at once.
    pub(crate) at_once: usize,
}

impl Layout {
    /// Returns `nodes` nodes around a broker on loopback.
    pub(crate) fn new(
        dir: &Path,
        programs: Programs,
        nodes: usize,
        dice: &mut Dice,
    ) -> Result<Self> {
        Ok(Self {
            dir: dir.to_owned(),
            programs,
            nodes: (1..=nodes).map(|number| format!("n{number}")).collect(),
            listen: ("127.0.0.1".to_owned(), free_port(dice)?),
            urls: BTreeMap::new(),
            prefixes: BTreeMap::new(),
            state_dirs: BTreeMap::new(),
            at_once: 4,
        })
    }

    /// Returns every part, in the order of starting.
    pub(crate) fn members(&self) -> Vec<Who> {
        let agents = (0..self.nodes.len()).map(Who::Agent);
        [Who::Broker, Who::Station]
            .into_iter()
            .chain(agents)
            .collect()
    }

    pub(crate) fn name(&self, who: Who) -> String {
        match who {
            Who::Broker => "broker".to_owned(),
            Who::Station => "central".to_owned(),
            Who::Agent(place) => self.nodes.get(place).cloned().unwrap_or_default(),
        }
    }

    pub(crate) fn state_dir(&self, who: Who) -> PathBuf {
        let own = self.state_dirs.get(&who).cloned();
        own.unwrap_or_else(|| self.dir.join(self.name(who)))
    }

    pub(crate) fn inbox(&self) -> PathBuf {
        self.state_dir(Who::Station).join("inbox")
    }

    pub(crate) fn truth(&self) -> PathBuf {
        self.dir.join("truth")
    }

    pub(crate) fn config(&self, who: Who) -> PathBuf {
        self.dir.join(format!("{}.toml", self.name(who)))
    }

    fn url(&self, who: Who) -> String {
        let (host, port) = &self.listen;
        let own = self.urls.get(&who).cloned();
        own.unwrap_or_else(|| format!("nats://{host}:{port}"))
    }

    /// Writes the configuration files. Everything here only makes the product look sooner than usual.
    pub(crate) fn write(&self) -> Result<()> {
        let station = "[inbox]\nrescan = \"500ms\"\nsettle = \"400ms\"\n";
        let agent = format!(
            "heartbeat = \"500ms\"\ndrain = \"1s\"\ncommands_at_once = {}\nqueue = 1000\n",
            self.at_once
        );
        for who in self.members() {
            let text = match who {
                Who::Broker => continue,
                Who::Station => station,
                Who::Agent(_) => &agent,
            };
            let path = self.config(who);
            fs::write(&path, text).with_context(|| format!("write {}", path.display()))?;
        }
        Ok(())
    }

    /// Returns what is run for a part.
    pub(crate) fn command(&self, who: Who) -> Vec<String> {
        let text = |path: PathBuf| path.display().to_string();
        let mut command = self.prefixes.get(&who).cloned().unwrap_or_default();
        let (host, port) = &self.listen;
        let own: Vec<String> = match who {
            Who::Broker => vec![
                text(self.programs.broker.clone()),
                "-a".to_owned(),
                host.clone(),
                "-p".to_owned(),
                port.to_string(),
            ],
            Who::Station => vec![text(self.programs.steward.clone()), "serve".to_owned()],
            Who::Agent(_) => vec![
                text(self.programs.agent.clone()),
                "run".to_owned(),
                "--node".to_owned(),
                self.name(who),
            ],
        };
        command.extend(own);
        if who != Who::Broker {
            let rest = [
                ("--config", text(self.config(who))),
                ("--state-dir", text(self.state_dir(who))),
                ("--nats", self.url(who)),
            ];
            command.extend(
                rest.into_iter()
                    .flat_map(|(flag, value)| [flag.to_owned(), value]),
            );
            command.push("--allow-unsigned".to_owned());
        }
        command
    }
}

/// Returns a port on which nobody listens.
pub(crate) fn free_port(dice: &mut Dice) -> Result<u16> {
    for _ in 0..TRIES {
        let port = PORTS.start + dice.below(PORTS.len());
        let port = u16::try_from(port).context("choose a port")?;
        if TcpListener::bind(("127.0.0.1", port)).is_ok() {
            return Ok(port);
        }
    }
    bail!("find a free port: {TRIES} tries failed")
}
