//! Programs of Debian that are not installed: taken from where `.ci/peers` unpacks them (`target/peers`, or what
//! `STEWARD_PEERS` names), else from the system. One that is missing skips a test with words, and fails it where
//! `STEWARD_PEERS` promises that it is there.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
};

use tempfile::TempDir;

/// Where programs are, below where the packages are unpacked.
const PLACES: &[&str] = &["usr/sbin", "usr/bin", "lib/systemd", "usr/lib/systemd"];

/// A program that is ended with its test.
pub(crate) struct Peer {
    child: Child,
}

impl Peer {
    pub(crate) fn start(mut command: Command) -> Self {
        let child = command.spawn().expect("the program starts");
        Self { child }
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// Where the packages are unpacked.
pub(crate) fn root() -> PathBuf {
    let root = match std::env::var_os("STEWARD_PEERS") {
        Some(root) => PathBuf::from(root),
        None => Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/peers"),
    };
    root.canonicalize().unwrap_or(root)
}

/// Returns the directory of libraries below a place.
pub(crate) fn libraries(root: &Path) -> PathBuf {
    let machine = format!("{}-linux-gnu", std::env::consts::ARCH);
    root.join("usr/lib").join(machine)
}

/// Returns a command that starts a program; nothing, if it is missing.
pub(crate) fn command(program: &str) -> Option<Command> {
    let root = root();
    let unpacked = PLACES.iter().map(|place| root.join(place).join(program));
    if let Some(path) = unpacked.into_iter().find(|path| path.is_file()) {
        let mut command = Command::new(path);
        let old = root
            .join("lib")
            .join(format!("{}-linux-gnu", std::env::consts::ARCH));
        let paths = [
            libraries(&root).join("systemd"),
            libraries(&root),
            root.join("usr/lib/syslog-ng"),
            old.join("systemd"),
            old,
        ];
        let paths = std::env::join_paths(paths).expect("no colon in a path");
        command.env("LD_LIBRARY_PATH", paths);
        return Some(quiet(command));
    }
    let installed = PLACES
        .iter()
        .map(|place| Path::new("/").join(place).join(program));
    match installed.into_iter().find(|path| path.is_file()) {
        Some(path) => Some(quiet(Command::new(path))),
        None => {
            assert!(
                std::env::var_os("STEWARD_PEERS").is_none(),
                "{program} is missing in {}; `.ci/peers` unpacks it",
                root.display()
            );
            let words = format!("SKIPPED: {program} is missing; `.ci/peers` unpacks it\n");
            std::io::stderr().write_all(words.as_bytes()).ok();
            None
        }
    }
}

fn quiet(mut command: Command) -> Command {
    command.env("TZ", "UTC").stdin(Stdio::null());
    command.stdout(Stdio::null()).stderr(Stdio::null());
    command
}

/// Returns the directory of syslog-ng's modules, and its version.
pub(crate) fn syslog_ng_modules() -> Option<(PathBuf, String)> {
    let parents = [
        root().join("usr/lib/syslog-ng"),
        "/usr/lib/syslog-ng".into(),
    ];
    let entries = parents
        .iter()
        .filter_map(|parent| fs::read_dir(parent).ok());
    let mut names = entries.flatten().flatten().map(|entry| entry.path());
    names.find_map(|path| {
        let version = path.file_name()?.to_str()?.to_owned();
        version.starts_with(['3', '4']).then_some((path, version))
    })
}

/// Returns the directory of rsyslog's modules.
pub(crate) fn rsyslog_modules() -> PathBuf {
    let unpacked = libraries(&root()).join("rsyslog");
    match unpacked.is_dir() {
        true => unpacked,
        false => libraries(Path::new("/")).join("rsyslog"),
    }
}

/// Writes entries into a journal file as the system's own tools do. An entry is its fields.
pub(crate) fn write_journal(file: &Path, entries: &[Vec<(&str, Vec<u8>)>]) -> Option<()> {
    let mut command = command("systemd-journal-remote")?;
    let mut bytes = Vec::new();
    for entry in entries {
        for (name, value) in entry {
            bytes.extend_from_slice(name.as_bytes());
            if value.iter().any(|byte| *byte < b' ') || str::from_utf8(value).is_err() {
                bytes.push(b'\n');
                bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
            } else {
                bytes.push(b'=');
            }
            bytes.extend_from_slice(value);
            bytes.push(b'\n');
        }
        bytes.push(b'\n');
    }
    let dir = TempDir::new().expect("a directory");
    let export = dir.path().join("export");
    fs::write(&export, bytes).expect("written");
    command.arg("-o").arg(file).arg(&export);
    let output = command.stderr(Stdio::piped()).output().expect("it starts");
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "{words}");
    Some(())
}
