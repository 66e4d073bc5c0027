//! The product under load: a broker, an agent with inputs, and a station where one is wanted, as processes in a directory of
//! their own. It measures nothing.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context, Result};
use tempfile::TempDir;

use super::{
    super::{
        child::Member,
        dice::Dice,
        layout::{Programs, free_port},
        runner::Ground,
    },
    peers::wait_for,
};

/// The node's name.
pub(super) const NODE: &str = "n1";

/// The domain of what comes over TCP.
pub(super) const STREAMS: &str = "streams";

/// The domain of what comes over UDP.
pub(super) const DATAGRAMS: &str = "datagrams";

/// Room for whatever is spooled in an outage.
const SPOOL: &str = "64GiB";

/// A broker, an agent, perhaps a station.
#[derive(Debug)]
pub(super) struct Plant {
    // In the order in which they are to end.
    pub(super) agent: Member,
    pub(super) station: Option<Member>,
    #[expect(dead_code, reason = "held for its drop")]
    broker: Member,
    pub(super) nats: u16,
    pub(super) tcp: u16,
    pub(super) udp: u16,
    dir: TempDir,
}

/// Whether a station belongs to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum With {
    Station,
    /// Something else stands in for it.
    Nobody,
}

impl Plant {
    /// Makes directory and configuration and starts everything but the agent.
    pub(super) fn new(ground: &Ground, dice: &mut Dice, with: With) -> Result<Self> {
        let dir = ground.new_dir()?;
        let programs = &ground.programs;
        let (nats, tcp, udp) = (free_port(dice)?, free_port(dice)?, free_port(dice)?);
        let (agent_config, station_config) = (
            dir.path().join("agent.toml"),
            dir.path().join("station.toml"),
        );
        write(&agent_config, &agent(dir.path(), tcp, udp))?;
        write(&station_config, "")?;
        let member = |name: &str, command: Vec<String>| {
            Member::new(name, command, &dir.path().join(format!("{name}.log")))
        };
        let mut broker = member("broker", broker(programs, nats));
        broker.start()?;
        wait_for(nats, &mut broker)?;
        let station = (with == With::Station).then(|| {
            let mut words = vec![programs.steward.display().to_string(), "serve".to_owned()];
            words.extend(common(dir.path(), "central", &station_config, nats));
            member("central", words)
        });
        let mut words = vec![programs.agent.display().to_string(), "run".to_owned()];
        words.extend(["--node".to_owned(), NODE.to_owned()]);
        words.extend(common(dir.path(), NODE, &agent_config, nats));
        let mut plant = Self {
            agent: member(NODE, words),
            station,
            broker,
            nats,
            tcp,
            udp,
            dir,
        };
        if let Some(station) = &mut plant.station {
            station.start()?;
        }
        Ok(plant)
    }

    /// Starts the agent and waits until it listens.
    pub(super) fn start_agent(&mut self) -> Result<()> {
        self.agent.start()?;
        wait_for(self.tcp, &mut self.agent)
    }

    /// Returns where the agent's spool is.
    pub(super) fn spool(&self) -> PathBuf {
        self.dir.path().join(NODE).join("logs/spool")
    }

    /// Returns where the station's logs are.
    pub(super) fn stored(&self) -> PathBuf {
        self.dir.path().join("central/logs")
    }
}

fn broker(programs: &Programs, port: u16) -> Vec<String> {
    let port = port.to_string();
    let broker = programs.broker.display().to_string();
    [&broker, "-a", "127.0.0.1", "-p", &port]
        .map(str::to_owned)
        .to_vec()
}

fn common(dir: &Path, name: &str, config: &Path, nats: u16) -> Vec<String> {
    [
        "--config".to_owned(),
        config.display().to_string(),
        "--state-dir".to_owned(),
        dir.join(name).display().to_string(),
        "--nats".to_owned(),
        format!("nats://127.0.0.1:{nats}"),
        "--allow-unsigned".to_owned(),
    ]
    .to_vec()
}

/// Every kind of input that needs nothing beside it; only heartbeats come sooner than usual, so that an outage is seen to
/// be over at once.
fn agent(dir: &Path, tcp: u16, udp: u16) -> String {
    let dir = dir.display();
    format!(
        r#"heartbeat = "500ms"

[[syslog]]
domain = "{STREAMS}"
input = "tcp://127.0.0.1:{tcp}"

[[syslog]]
domain = "{DATAGRAMS}"
input = "udp://127.0.0.1:{udp}"
receive_buffer = "128MiB"

[[syslog]]
domain = "streams"
input = "unix://{dir}/stream"

[[syslog]]
domain = "system"
input = "unixgram://{dir}/log"

[syslog_spool]
size = "{SPOOL}"
"#
    )
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}
