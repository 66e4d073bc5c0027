//! Runs a real program and harms it at its n-th durable step: a call that changes a folder's files.
//!
//! The program is watched with ptrace, so it needs no hooks and no special build. It knows nothing of
//! stations and agents. Where ptrace is not permitted the tests fail and say so.
//!
//! ```text
//!   test ── start ──▶ tracer thread ══ ptrace ══▶ every thread of the program
//!        ◀─ Report ──        (its children are not watched)
//! ```

use std::{
    fmt, fs,
    io::{BufRead, BufReader, Write},
    os::unix::fs::FileExt,
    path::PathBuf,
    process::{Child, ChildStdin, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicI32, Ordering},
        mpsc,
    },
    thread::JoinHandle,
};

use nix::{
    errno::Errno,
    libc::{self, user_regs_struct},
    sys::{
        ptrace::{self, Options},
        signal::{Signal, kill},
        wait::{WaitPidFlag, WaitStatus, waitpid},
    },
    unistd::Pid,
};

/// What happens at the step that was aimed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Harm {
    /// The program dies before the step.
    Kill,
    /// Of a write only the first half happens, then the program dies; other steps it dies before.
    Tear,
    /// The step fails, once.
    Fail(Errno),
    /// This step and every later one fails until [`Traced::heal`].
    FailOn(Errno),
}

/// Which step of which program.
#[derive(Debug, Clone)]
pub(crate) struct Aim {
    /// Only steps that touch files below it are counted.
    pub(crate) folder: PathBuf,
    /// Which step, from 1.
    pub(crate) at: usize,
    /// What happens there.
    pub(crate) harm: Harm,
}

/// A call that changes files.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Step {
    /// Its kind; calls that do the same have one name.
    pub(crate) call: &'static str,
    /// What it changes; of a rename, what it makes.
    pub(crate) path: PathBuf,
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.call, self.path.display())
    }
}

/// What the tracer has seen so far.
#[derive(Debug, Default)]
struct Seen {
    steps: Mutex<Vec<Step>>,
    hit: AtomicBool,
    healed: AtomicBool,
    ended: AtomicBool,
    code: Mutex<Option<i32>>,
    pid: AtomicI32,
}

/// A watched program; killed when dropped.
pub(crate) struct Traced {
    seen: Arc<Seen>,
    thread: Option<JoinHandle<()>>,
    lines: Mutex<mpsc::Receiver<String>>,
    log: Arc<Mutex<String>>,
}

impl Traced {
    /// Starts `command` under watch.
    pub(crate) fn start(command: &Command, aim: Aim) -> Self {
        let seen = Arc::new(Seen::default());
        let log = Arc::new(Mutex::new(String::new()));
        let (said, lines) = mpsc::channel();
        let shell = held_back(command);
        let (report, tracer_log) = (Arc::clone(&seen), Arc::clone(&log));
        let (started, ready) = mpsc::channel();
        // Only the thread that began to watch may go on with it.
        let thread = std::thread::spawn(move || {
            let gate = Tracer::begin(shell, aim, &report, said, tracer_log);
            started.send(()).ok();
            gate.run();
        });
        let traced = Self {
            seen,
            thread: Some(thread),
            lines: Mutex::new(lines),
            log,
        };
        assert!(
            ready.recv().is_ok(),
            "the program cannot be watched: ptrace is not permitted here (see the panic above); \
             allow it, in a container with --cap-add SYS_PTRACE"
        );
        traced
    }

    /// Tells whether the step aimed at was reached.
    pub(crate) fn was_hit(&self) -> bool {
        self.seen.hit.load(Ordering::Acquire)
    }

    /// Tells whether the program has ended.
    pub(crate) fn has_ended(&self) -> bool {
        self.seen.ended.load(Ordering::Acquire)
    }

    /// Returns the exit code of a program that has ended by itself.
    pub(crate) fn code(&self) -> Option<i32> {
        *self.seen.code.lock().expect("no panic")
    }

    /// Lets steps succeed again.
    pub(crate) fn heal(&self) {
        self.seen.healed.store(true, Ordering::Release);
    }

    /// Returns a line the program has printed since the last call.
    pub(crate) fn line(&self) -> Option<String> {
        self.lines.lock().expect("no panic").try_recv().ok()
    }

    /// Returns what it has logged.
    pub(crate) fn log(&self) -> String {
        self.log.lock().expect("no panic").clone()
    }

    /// Returns the steps taken.
    pub(crate) fn steps(&self) -> Vec<Step> {
        self.seen.steps.lock().expect("no panic").clone()
    }

    /// Ends it without a word and returns its steps.
    pub(crate) fn kill(mut self) -> Vec<Step> {
        self.end();
        self.steps()
    }

    fn end(&mut self) {
        let pid = self.seen.pid.load(Ordering::Acquire);
        if pid != 0 && !self.has_ended() {
            kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
        }
        if let Some(thread) = self.thread.take() {
            thread.join().ok();
        }
    }
}

impl Drop for Traced {
    fn drop(&mut self) {
        self.end();
    }
}

/// Returns a shell that becomes `command` once it has read a line, so that nothing is missed.
fn held_back(command: &Command) -> Command {
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "read -r _; exec \"$@\" </dev/null", "sh"])
        .arg(command.get_program())
        .args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => shell.env(name, value),
            None => shell.env_remove(name),
        };
    }
    shell
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    shell
}

/// What is to be done when a call that was let in comes out again.
enum Leaving {
    Nothing,
    Die,
    Answer(Errno, Box<user_regs_struct>),
}

/// A thread of the program between two stops.
struct Inside {
    pid: Pid,
    leaving: Leaving,
}

struct Tracer<'seen> {
    child: Child,
    leader: Pid,
    aim: Aim,
    seen: &'seen Seen,
    count: usize,
    inside: Vec<Inside>,
}

impl<'seen> Tracer<'seen> {
    fn begin(
        mut shell: Command,
        aim: Aim,
        seen: &'seen Seen,
        said: mpsc::Sender<String>,
        log: Arc<Mutex<String>>,
    ) -> Self {
        let mut child = shell.spawn().expect("there is a shell");
        let leader = Pid::from_raw(child.id().cast_signed());
        seen.pid.store(leader.as_raw(), Ordering::Release);
        let options = Options::PTRACE_O_TRACESYSGOOD
            | Options::PTRACE_O_TRACECLONE
            | Options::PTRACE_O_EXITKILL;
        ptrace::seize(leader, options).expect("ptrace is permitted");
        ptrace::interrupt(leader).expect("ptrace is permitted");
        let stdout = child.stdout.take().expect("stdout is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                said.send(line).ok();
            }
        });
        let stderr = child.stderr.take().expect("stderr is piped");
        std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines().map_while(Result::ok) {
                let mut log = log.lock().expect("no panic");
                log.push_str(&line);
                log.push('\n');
            }
        });
        release(child.stdin.take().expect("stdin is piped"));
        Self {
            child,
            leader,
            aim,
            seen,
            count: 0,
            inside: Vec::new(),
        }
    }

    /// Follows every thread until the program has ended.
    fn run(mut self) {
        // Other tests have children as well; this thread has only its own.
        let flags = WaitPidFlag::__WALL | WaitPidFlag::__WNOTHREAD;
        loop {
            match waitpid(None, Some(flags)) {
                Ok(WaitStatus::PtraceSyscall(pid)) => self.syscall(pid),
                Ok(WaitStatus::Stopped(pid, signal)) => resume(pid, Some(signal)),
                Ok(WaitStatus::PtraceEvent(pid, _, _)) => resume(pid, None),
                Ok(status @ (WaitStatus::Exited(pid, _) | WaitStatus::Signaled(pid, _, _))) => {
                    self.inside.retain(|inside| inside.pid != pid);
                    if pid == self.leader {
                        self.note(status);
                        break;
                    }
                }
                Ok(_) | Err(Errno::EINTR) => {}
                Err(_) => break,
            }
        }
        // It has been waited for above; this only says so.
        self.child.wait().ok();
        self.seen.ended.store(true, Ordering::Release);
    }

    fn note(&self, status: WaitStatus) {
        if let WaitStatus::Exited(_, code) = status {
            *self.seen.code.lock().expect("no panic") = Some(code);
        }
    }

    fn syscall(&mut self, pid: Pid) {
        match self.inside.iter().position(|inside| inside.pid == pid) {
            Some(index) => {
                let inside = self.inside.swap_remove(index);
                self.leave(pid, inside.leaving);
            }
            None => {
                let leaving = self.enter(pid);
                self.inside.push(Inside { pid, leaving });
            }
        }
        resume(pid, None);
    }

    /// Judges a call before it happens.
    fn enter(&mut self, pid: Pid) -> Leaving {
        let Ok(registers) = ptrace::getregs(pid) else {
            return Leaving::Nothing;
        };
        let Some(step) = self.step(pid, &registers) else {
            return Leaving::Nothing;
        };
        self.count += 1;
        self.seen.steps.lock().expect("no panic").push(step.clone());
        let exact = self.count == self.aim.at;
        if exact {
            self.seen.hit.store(true, Ordering::Release);
        }
        match self.aim.harm {
            Harm::Kill if exact => self.die(),
            Harm::Tear if exact => return self.tear(pid, &step, registers),
            Harm::Fail(errno) if exact => return refuse(pid, registers, errno),
            Harm::FailOn(errno) if self.count >= self.aim.at && !self.is_healed() => {
                return refuse(pid, registers, errno);
            }
            Harm::Kill | Harm::Tear | Harm::Fail(_) | Harm::FailOn(_) => {}
        }
        Leaving::Nothing
    }

    fn tear(&self, pid: Pid, step: &Step, registers: user_regs_struct) -> Leaving {
        if step.call != "write" || registers.rdx < 2 {
            self.die();
            return Leaving::Nothing;
        }
        let torn = user_regs_struct {
            rdx: registers.rdx / 2,
            ..registers
        };
        ptrace::setregs(pid, torn).expect("the registers can be set");
        Leaving::Die
    }

    fn leave(&self, pid: Pid, leaving: Leaving) {
        match leaving {
            Leaving::Nothing => {}
            Leaving::Die => self.die(),
            Leaving::Answer(errno, mut registers) => {
                registers.rax = (-i64::from(errno as i32)).cast_unsigned();
                ptrace::setregs(pid, *registers).ok();
            }
        }
    }

    fn die(&self) {
        kill(self.leader, Signal::SIGKILL).ok();
    }

    fn is_healed(&self) -> bool {
        self.seen.healed.load(Ordering::Acquire)
    }

    /// Returns the step a call is, if it changes a file below the folder.
    fn step(&self, pid: Pid, registers: &user_regs_struct) -> Option<Step> {
        let [first, second, third, fourth] =
            [registers.rdi, registers.rsi, registers.rdx, registers.r10];
        let here = i64::from(libc::AT_FDCWD).cast_unsigned();
        let number = registers.orig_rax.cast_signed();
        let (call, path) = match number {
            libc::SYS_write | libc::SYS_pwrite64 | libc::SYS_writev | libc::SYS_pwritev => {
                ("write", of_descriptor(pid, first))
            }
            libc::SYS_fsync | libc::SYS_fdatasync => ("sync", of_descriptor(pid, first)),
            libc::SYS_ftruncate | libc::SYS_fallocate => ("truncate", of_descriptor(pid, first)),
            libc::SYS_fchmod => ("chmod", of_descriptor(pid, first)),
            libc::SYS_fchown => ("chown", of_descriptor(pid, first)),
            libc::SYS_rename => ("rename", at(pid, here, second)),
            libc::SYS_renameat | libc::SYS_renameat2 => ("rename", at(pid, third, fourth)),
            libc::SYS_link => ("link", at(pid, here, second)),
            libc::SYS_linkat => ("link", at(pid, third, fourth)),
            libc::SYS_unlink => ("unlink", at(pid, here, first)),
            libc::SYS_unlinkat => ("unlink", at(pid, first, second)),
            libc::SYS_mkdir => ("mkdir", missing(at(pid, here, first))),
            libc::SYS_mkdirat => ("mkdir", missing(at(pid, first, second))),
            libc::SYS_rmdir => ("rmdir", at(pid, here, first)),
            libc::SYS_chmod => ("chmod", at(pid, here, first)),
            libc::SYS_fchmodat => ("chmod", at(pid, first, second)),
            libc::SYS_open if creates(second) => ("create", missing(at(pid, here, first))),
            libc::SYS_openat if creates(third) => ("create", missing(at(pid, first, second))),
            _ => return None,
        };
        let path = path.filter(|path| path.starts_with(&self.aim.folder))?;
        Some(Step { call, path })
    }
}

/// Lets the shell become the program.
fn release(mut stdin: ChildStdin) {
    stdin.write_all(b"\n").expect("the shell reads");
}

fn resume(pid: Pid, signal: Option<Signal>) {
    // It may have been killed meanwhile.
    ptrace::syscall(pid, signal).ok();
}

/// Lets the call fail without any effect: it gets neither a descriptor nor a path.
fn refuse(pid: Pid, registers: user_regs_struct, errno: Errno) -> Leaving {
    let void = user_regs_struct {
        rdi: u64::MAX,
        rsi: 0,
        orig_rax: u64::MAX,
        ..registers
    };
    ptrace::setregs(pid, void).expect("the registers can be set");
    Leaving::Answer(errno, Box::new(registers))
}

fn creates(flags: u64) -> bool {
    flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0
}

fn missing(path: Option<PathBuf>) -> Option<PathBuf> {
    path.filter(|path| !path.exists())
}

fn of_descriptor(pid: Pid, descriptor: u64) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/fd/{descriptor}")).ok()
}

/// Returns the path a call names, which may begin at a directory the program has open.
fn at(pid: Pid, directory: u64, address: u64) -> Option<PathBuf> {
    let path = text(pid, address)?;
    if path.is_absolute() {
        return Some(path);
    }
    // Its upper half is of no meaning.
    let directory = match directory as u32 == libc::AT_FDCWD.cast_unsigned() {
        true => fs::read_link(format!("/proc/{pid}/cwd")).ok(),
        false => of_descriptor(pid, u64::from(directory as u32)),
    };
    Some(directory?.join(path))
}

/// Reads a path from the program's memory.
fn text(pid: Pid, address: u64) -> Option<PathBuf> {
    let memory = fs::File::open(format!("/proc/{pid}/mem")).ok()?;
    let mut bytes = Vec::new();
    // A path may lie at the end of what can be read, hence the small steps.
    while bytes.len() < 4096 {
        let mut chunk = [0; 64];
        let offset = address + u64::try_from(bytes.len()).ok()?;
        let room = 64 - usize::try_from(offset % 64).ok()?;
        memory.read_exact_at(&mut chunk[..room], offset).ok()?;
        match chunk[..room].iter().position(|byte| *byte == 0) {
            Some(end) => {
                bytes.extend_from_slice(&chunk[..end]);
                let path = String::from_utf8(bytes).ok()?;
                return Some(path.into());
            }
            None => bytes.extend_from_slice(&chunk[..room]),
        }
    }
    None
}
