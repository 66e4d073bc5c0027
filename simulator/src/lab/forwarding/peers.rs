//! rsyslog and syslog-ng as forwarders, from where `.ci/peers` unpacks them or from the system: TCP in, TCP out.
//!
//! Each is set up as fast as its manual allows: no name lookups, large queues and batches, flow control so that nothing
//! is dropped. It measures nothing.

use std::{
    env, fs,
    net::TcpStream,
    path::{Path, PathBuf},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};

use super::super::child::Member;

/// How long a peer may take to listen.
const PATIENCE: Duration = Duration::from_secs(20);

/// How often it is asked.
const LOOK: Duration = Duration::from_millis(20);

/// A forwarder to compare with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Peer {
    /// rsyslog, its queue in memory: what it has, a crash takes.
    RsyslogMemory,
    /// rsyslog, its queue going to the disk when the receiver is away.
    RsyslogDisk,
    /// syslog-ng with `disk-buffer(reliable(yes))`.
    SyslogNg,
}

impl Peer {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::RsyslogMemory => "rsyslog, queue in memory",
            Self::RsyslogDisk => "rsyslog, queue disk-assisted",
            Self::SyslogNg => "syslog-ng, disk-buffer reliable",
        }
    }

    fn program(self) -> &'static str {
        match self {
            Self::RsyslogMemory | Self::RsyslogDisk => "rsyslogd",
            Self::SyslogNg => "syslog-ng",
        }
    }
}

/// Other forwarders one might ask for; they are not packages of Debian.
pub(super) const ABSENT: &[&str] = &["vector", "fluent-bit"];

/// Tells whether a program is on the path.
pub(super) fn is_on_path(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// Where the peers are.
#[derive(Debug, Clone)]
pub(super) struct Root {
    root: PathBuf,
    libraries: PathBuf,
}

impl Root {
    /// Finds them below a directory, or in the system.
    pub(super) fn find(given: Option<&Path>) -> Option<Self> {
        let roots = match given {
            Some(given) => vec![given.to_owned()],
            None => vec![PathBuf::from("target/peers"), PathBuf::from("/")],
        };
        let has = |root: &PathBuf| {
            ["rsyslogd", "syslog-ng"]
                .iter()
                .all(|program| root.join("usr/sbin").join(program).is_file())
        };
        let root = roots.into_iter().find(has)?.canonicalize().ok()?;
        let triplet = format!("{}-linux-gnu", env::consts::ARCH);
        Some(Self {
            libraries: root.join("usr/lib").join(triplet),
            root,
        })
    }

    /// Starts a peer that forwards what comes in at one port to another.
    pub(super) fn start(&self, peer: Peer, dir: &Path, from: u16, to: u16) -> Result<Member> {
        let config = dir.join(format!("{}.conf", peer.program()));
        let arguments = match peer {
            Peer::RsyslogMemory | Peer::RsyslogDisk => {
                self.rsyslog(peer, dir, &config, (from, to))?
            }
            Peer::SyslogNg => self.syslog_ng(dir, &config, (from, to))?,
        };
        let mut command = vec!["env".to_owned(), "TZ=UTC".to_owned()];
        if self.root != Path::new("/") {
            let triplet = self.libraries.file_name().unwrap_or_default();
            let paths = [
                self.libraries.clone(),
                self.root.join("usr/lib/syslog-ng"),
                self.root.join("lib").join(triplet),
            ];
            let paths = env::join_paths(paths).context("name the peers' libraries")?;
            command.push(format!("LD_LIBRARY_PATH={}", paths.display()));
        }
        let program = self.root.join("usr/sbin").join(peer.program());
        command.push(program.display().to_string());
        command.extend(arguments);
        let mut member = Member::new(peer.name(), command, &dir.join("peer.log"));
        member.start()?;
        wait_for(from, &mut member)?;
        Ok(member)
    }

    fn rsyslog(
        &self,
        peer: Peer,
        dir: &Path,
        config: &Path,
        (from, to): (u16, u16),
    ) -> Result<Vec<String>> {
        let place = dir.display();
        let queue = match peer {
            Peer::RsyslogDisk => {
                "queue.type=\"LinkedList\" queue.filename=\"q\" queue.maxDiskSpace=\"8g\" queue.maxFileSize=\"64m\"
    queue.size=\"100000\" queue.dequeueBatchSize=\"1024\" queue.saveOnShutdown=\"on\" queue.timeoutEnqueue=\"600000\""
            }
            Peer::RsyslogMemory | Peer::SyslogNg => "",
        };
        let text = format!(
            r#"global(workDirectory="{place}" net.enableDNS="off" maxMessageSize="64k")
main_queue(queue.type="FixedArray" queue.size="100000" queue.dequeueBatchSize="1024" queue.timeoutEnqueue="600000")
module(load="imptcp")
input(type="imptcp" port="{from}" address="127.0.0.1")
template(name="raw" type="string" string="%rawmsg%\n")
action(type="omfwd" target="127.0.0.1" port="{to}" protocol="tcp" template="raw" action.resumeRetryCount="-1"
    action.resumeInterval="1" {queue})
"#
        );
        write(config, &text)?;
        let text = |path: PathBuf| path.display().to_string();
        Ok(vec![
            "-n".to_owned(),
            "-i".to_owned(),
            text(dir.join("peer.pid")),
            "-f".to_owned(),
            text(config.to_owned()),
            "-M".to_owned(),
            text(self.libraries.join("rsyslog")),
        ])
    }

    fn syslog_ng(&self, dir: &Path, config: &Path, (from, to): (u16, u16)) -> Result<Vec<String>> {
        let modules = fs::read_dir(self.root.join("usr/lib/syslog-ng"))
            .context("find syslog-ng's modules")?
            .filter_map(Result::ok)
            .find(|entry| {
                let name = entry.file_name();
                name.to_string_lossy().starts_with(['3', '4'])
            })
            .context("find syslog-ng's modules: there are none")?;
        let version = modules.file_name().to_string_lossy().into_owned();
        let place = dir.display();
        let text = format!(
            r#"@version: {version}
options {{ keep-hostname(yes); use-dns(no); dns-cache(no); stats-freq(0); time-reopen(1); log-msg-size(65536); }};
source s {{ network(ip(127.0.0.1) port({from}) transport(tcp) log-iw-size(100000) log-fetch-limit(1000)); }};
destination d {{ network("127.0.0.1" port({to}) transport(tcp)
    disk-buffer(reliable(yes) disk-buf-size(4294967296) mem-buf-size(134217728) dir("{place}"))); }};
log {{ source(s); destination(d); flags(flow-control); }};
"#
        );
        write(config, &text)?;
        let path = |name: &str| dir.join(name).display().to_string();
        Ok(vec![
            "-F".to_owned(),
            "--no-caps".to_owned(),
            "--module-path".to_owned(),
            modules.path().display().to_string(),
            "-f".to_owned(),
            config.display().to_string(),
            "-R".to_owned(),
            path("peer.persist"),
            "-p".to_owned(),
            path("peer.pid"),
            "-c".to_owned(),
            path("peer.ctl"),
        ])
    }
}

fn write(path: &Path, text: &str) -> Result<()> {
    fs::write(path, text).with_context(|| format!("write {}", path.display()))
}

/// Waits until somebody listens on a port.
pub(super) fn wait_for(port: u16, member: &mut Member) -> Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        if !member.is_running() || Instant::now() > deadline {
            bail!(
                "see somebody listen on port {port}; the log says:\n{}",
                member.last_words()
            );
        }
        thread::sleep(LOOK);
    }
    Ok(())
}
