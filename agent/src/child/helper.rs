//! Programs of the system that work for the agent itself, such as `journalctl`: started without a shell, read from, ended
//! with the agent. They are no commands: nobody asked for them, they have no warden, and nothing of them is kept.
//!
//! An agent that is killed closes the pipe they write to; a helper must be one that ends then.

use std::{
    ffi::OsStr,
    io,
    process::{ExitStatus, Stdio},
    time::Duration,
};

use tokio::{
    io::AsyncReadExt,
    process::{Child, ChildStderr, ChildStdout, Command},
    task::JoinHandle,
    time::timeout,
};

use super::sweep::{Leader, Leaders};

/// Bytes of what it says on standard error that are kept: the last ones, for an error message.
const WORDS: usize = 1024;

/// How long its end is waited for once it was killed, and its last words once it has ended.
const PATIENCE: Duration = Duration::from_secs(2);

/// A helper that runs. Dropped, it is killed.
#[derive(Debug)]
pub struct Helper {
    child: Child,
    output: ChildStdout,
    words: JoinHandle<Vec<u8>>,
    /// Keeps the sweeps of commands off it.
    _leader: Leader,
}

impl Helper {
    /// Starts a program that is found in `PATH`.
    ///
    /// # Errors
    ///
    /// Fails when it is not there, or the system gives no process.
    pub fn start<W: AsRef<OsStr>>(program: &str, words: &[W]) -> io::Result<Self> {
        let mut command = Command::new(program);
        command
            .args(words)
            // Its words go into error messages, and are the same everywhere.
            .env("LC_ALL", "C.UTF-8")
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // What a terminal sends to the agent is not for it.
            .process_group(0)
            .kill_on_drop(true);
        // Held until it is registered: a sweep must not take it for an orphan.
        let leaders = Leaders::hold();
        let mut child = command.spawn()?;
        let pid = child.id().and_then(|pid| i32::try_from(pid).ok());
        let pipes = child.stdout.take().zip(child.stderr.take());
        let (Some(pid), Some((output, errors))) = (pid, pipes) else {
            return Err(io::Error::other("the system gave it no number or no pipe"));
        };
        Ok(Self {
            child,
            output,
            words: tokio::spawn(last(errors)),
            _leader: leaders.add_helper(pid),
        })
    }

    /// Reads what it writes to standard output; 0 means that it has ended. Safe to drop and call again.
    ///
    /// # Errors
    ///
    /// Fails when the pipe does.
    pub async fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.output.read(buffer).await
    }

    /// Ends it, and returns how it ended, where that can be known, and its last words.
    pub async fn end(self) -> (Option<ExitStatus>, String) {
        let Self {
            mut child,
            output,
            mut words,
            _leader,
        } = self;
        // Nobody reads it any more: one that writes ends.
        drop(output);
        let status = match timeout(PATIENCE / 10, child.wait()).await {
            Ok(status) => status.ok(),
            Err(_) => {
                // One that has just ended cannot be killed, which is as good.
                child.start_kill().ok();
                let killed = timeout(PATIENCE, child.wait()).await;
                killed.ok().and_then(Result::ok)
            }
        };
        let said = timeout(PATIENCE, &mut words).await;
        words.abort();
        let said = said.ok().and_then(Result::ok).unwrap_or_default();
        (status, String::from_utf8_lossy(&said).trim().to_owned())
    }
}

/// Reads to the end, and keeps the last of it.
async fn last(mut errors: ChildStderr) -> Vec<u8> {
    let (mut kept, mut buffer) = (Vec::new(), [0; WORDS]);
    while let Ok(count @ 1..) = errors.read(&mut buffer).await {
        kept.extend_from_slice(&buffer[..count]);
        let excess = kept.len().saturating_sub(WORDS);
        kept.drain(..excess);
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_helper_is_read_to_its_end_and_says_why_it_ended() {
        let words = ["-c", "echo out; echo first >&2; echo last >&2; exit 3"];
        let mut helper = Helper::start("sh", &words).expect("it starts");
        let (mut read, mut buffer) = (Vec::new(), [0; 16]);
        while let Ok(count @ 1..) = helper.read(&mut buffer).await {
            read.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(read, b"out\n");
        let (status, words) = helper.end().await;
        assert_eq!(status.and_then(|status| status.code()), Some(3));
        assert_eq!(words, "first\nlast");
    }

    #[tokio::test]
    async fn a_helper_that_goes_on_is_killed_and_one_that_is_not_there_is_not_started() {
        let helper = Helper::start("sleep", &["1000"]).expect("it starts");
        let (status, _) = helper.end().await;
        let status = status.expect("it has ended");
        assert_eq!(status.code(), None);
        let missing = Helper::start("there-is-no-such-program", &["x"]);
        let kind = missing.map(drop).map_err(|error| error.kind());
        assert_eq!(kind, Err(io::ErrorKind::NotFound));
    }
}
