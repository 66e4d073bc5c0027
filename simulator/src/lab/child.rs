//! The laboratory's processes: started, frozen, killed and ended, each by its own id.
//!
//! It knows programs and logs; what a program is for is its owner's business.

use std::{
    env,
    fs::{self, File},
    io,
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use rustix::process::{Pid, Signal, kill_process};

/// How long a process may take to end when asked, before it is killed.
const DRAIN: Duration = Duration::from_secs(20);

/// How often an ending process is looked at.
const LOOK: Duration = Duration::from_millis(5);

/// Lines of a log shown when something went wrong.
const LAST_WORDS: usize = 12;

/// One process that can be started again and again; it ends when this is dropped.
#[derive(Debug)]
pub(crate) struct Member {
    name: String,
    /// The program and its arguments.
    command: Vec<String>,
    log: PathBuf,
    child: Option<Child>,
}

impl Member {
    /// Returns a process that has not been started.
    pub(crate) fn new(name: &str, command: Vec<String>, log: &Path) -> Self {
        Self {
            name: name.to_owned(),
            command,
            log: log.to_owned(),
            child: None,
        }
    }

    /// Changes what is started the next time.
    pub(crate) fn becomes(&mut self, command: Vec<String>) {
        self.command = command;
    }

    pub(crate) fn command(&self) -> &[String] {
        &self.command
    }

    /// Starts it, unless it runs.
    pub(crate) fn start(&mut self) -> Result<()> {
        if self.is_running() {
            return Ok(());
        }
        let Some((program, arguments)) = self.command.split_first() else {
            bail!("start {}: it has no command", self.name);
        };
        let open = || File::options().create(true).append(true).open(&self.log);
        let opening = || format!("open {}", self.log.display());
        let mut command = Command::new(program);
        for (variable, _) in env::vars_os() {
            let text = variable.to_string_lossy();
            if text.starts_with("STEWARD_") || text.starts_with("NATS_") {
                command.env_remove(&variable);
            }
        }
        // A group of its own: the Ctrl-C that ends the laboratory must not end its parts out of order.
        let child = command
            .args(arguments)
            .env("NO_COLOR", "1")
            .env("RUST_LOG", "info")
            .stdin(Stdio::null())
            .stdout(open().with_context(opening)?)
            .stderr(open().with_context(opening)?)
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {} ({program})", self.name))?;
        self.child = Some(child);
        Ok(())
    }

    pub(crate) fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        let child = self.child.as_mut();
        child.is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Returns how it ended, if it was started and has ended by itself.
    pub(crate) fn ended(&mut self) -> Option<ExitStatus> {
        let status = self.child.as_mut()?.try_wait().ok().flatten()?;
        self.child = None;
        Some(status)
    }

    /// Sends it a signal, if it runs. Its id stays ours until it has been waited for.
    pub(crate) fn signal(&mut self, signal: Signal) {
        if self.is_running()
            && let Some(child) = &self.child
        {
            kill_process(Pid::from_child(child), signal).ok();
        }
    }

    /// Kills it on the spot.
    pub(crate) fn kill(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().ok();
            child.wait().ok();
        }
    }

    /// Asks it to end and kills it after a deadline. Returns whether it ended by itself.
    pub(crate) fn stop(&mut self) -> bool {
        self.signal(Signal::TERM);
        let deadline = Instant::now() + DRAIN;
        while self.is_running() {
            if Instant::now() > deadline {
                self.kill();
                return false;
            }
            thread::sleep(LOOK);
        }
        self.child = None;
        true
    }

    /// Returns the end of its log.
    pub(crate) fn last_words(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines[lines.len().saturating_sub(LAST_WORDS)..].join("\n")
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs a tool to its end.
///
/// # Errors
///
/// Says what to install when it is missing, and what it said when it failed.
pub(crate) fn tool(command: &[&str], package: &str) -> Result<String> {
    let (program, arguments) = command.split_first().context("run a tool: no name given")?;
    let output = Command::new(program)
        .args(arguments)
        .stdin(Stdio::null())
        .output();
    let output = match output {
        Ok(output) => output,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            bail!("run {program}: it is not installed; on Debian: apt-get install {package}")
        }
        Err(error) => return Err(error).with_context(|| format!("run {program}")),
    };
    if !output.status.success() {
        bail!(
            "run `{}`: it ended with {}; it said: {}",
            command.join(" "),
            output.status,
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// A process that does nothing until this is dropped, or the laboratory dies: its input ends then.
#[derive(Debug)]
pub(crate) struct Holder {
    child: Child,
}

impl Holder {
    pub(crate) fn start(command: &[&str]) -> Result<Self> {
        let (program, arguments) = command
            .split_first()
            .context("start a holder: no name given")?;
        let child = Command::new(program)
            .args(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .process_group(0)
            .spawn()
            .with_context(|| format!("start {}", command.join(" ")))?;
        Ok(Self { child })
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Ends every process of one of `programs` that names `dir` on its command line, and returns their command lines.
///
/// A directory is one world's alone, so they are ours; a world that ended in order leaves none.
pub(crate) fn end_left_behind(dir: &Path, programs: &[PathBuf]) -> Vec<String> {
    let dir = dir.display().to_string();
    let mut ended = Vec::new();
    let processes = fs::read_dir("/proc").into_iter().flatten().flatten();
    for process in processes {
        let pid = process.file_name().to_string_lossy().parse().ok();
        let line = fs::read(process.path().join("cmdline")).unwrap_or_default();
        let line = String::from_utf8_lossy(&line).replace('\0', " ");
        let program = fs::read_link(process.path().join("exe"));
        if let Some(pid) = pid.and_then(Pid::from_raw)
            && line.contains(&dir)
            && program.is_ok_and(|program| programs.contains(&program))
        {
            kill_process(pid, Signal::KILL).ok();
            ended.push(line);
        }
    }
    ended
}

/// Runs this program again in `wrapper`, and returns its exit code.
pub(crate) fn again_in(wrapper: &[&str]) -> Result<i32> {
    let (program, arguments) = wrapper
        .split_first()
        .context("run again: no wrapper given")?;
    let status = Command::new(program)
        .args(arguments)
        .arg(env::current_exe().context("find this program")?)
        .args(env::args_os().skip(1))
        .status()
        .with_context(|| format!("run {program}"))?;
    Ok(status.code().unwrap_or(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_started_again_after_it_was_killed_and_ends_when_dropped() {
        let dir = tempfile::tempdir().expect("a folder");
        let command = ["sleep", "60"].map(str::to_owned).to_vec();
        let mut member = Member::new("sleeper", command, &dir.path().join("log"));
        member.start().expect("started");
        let first = member.pid().expect("it runs");
        member.kill();
        assert!(!member.is_running());
        member.start().expect("started again");
        let second = member.pid().expect("it runs");
        assert_ne!(first, second);
        drop(member);
        assert!(!Path::new(&format!("/proc/{second}")).exists());
    }

    #[test]
    fn what_still_names_a_directory_is_ended_if_it_is_one_of_ours() {
        let dir = tempfile::tempdir().expect("a folder");
        let shell = fs::canonicalize("/bin/sh").expect("a shell");
        let mut stray = Command::new(&shell)
            .args(["-c", "read line; true"])
            .arg(dir.path())
            .stdin(Stdio::piped())
            .spawn()
            .expect("started");
        assert!(end_left_behind(dir.path(), &[]).is_empty());
        let ended = end_left_behind(dir.path(), &[shell]);
        assert_eq!(ended.len(), 1, "{ended:?}");
        assert!(!stray.wait().expect("it ended").success());
    }

    #[test]
    fn a_missing_tool_says_what_to_install() {
        let error = tool(&["/nonexistent/nft"], "nftables").expect_err("not there");
        assert!(
            error.to_string().contains("apt-get install nftables"),
            "{error}"
        );
    }
}
