//! Control groups: what a command and its descendants may use together, held by the kernel.
//!
//! One group per command that asks for limits, in the unified hierarchy where that was delegated to us,
//! else in the older ones where we may write. A command is born inside its group: its warden enters,
//! starts it, and leaves again. Knows nothing of commands but a name for their group.

use std::{
    fs,
    io::{self, ErrorKind},
    path::{Path, PathBuf},
    thread::sleep,
    time::Duration,
};

use rustix::process::{geteuid, getpid};
use serde::{Deserialize, Serialize};
use steward_protocol::{NodeName, body::Limits};

pub(super) mod layout;

use self::layout::{Hierarchy, Version};

/// The leaf a unified hierarchy's agent lives in: groups with controllers hold no processes themselves.
/// A service manager may have put us there already.
const LEAF: &str = "agent";

/// The period a share of a processor is measured in, in microseconds; the kernel's own default.
const PERIOD: u64 = 100_000;

/// Least memory that can be held: in less, not even the start of a program fits.
pub const LEAST_MEMORY: u64 = 4 << 20;

/// Tries to remove a group whose last process has just been reaped, and the wait between them.
const TRIES: u32 = 50;
const PAUSE: Duration = Duration::from_millis(2);

/// Where the groups for one kind of limit are made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Home {
    /// The directory the groups are made in.
    groups: PathBuf,
    /// The group that who has entered one goes back to.
    back: PathBuf,
    version: Version,
}

/// Which limits can be held on this node, and where.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cgroups {
    memory: Option<Home>,
    cpu: Option<Home>,
    tasks: Option<Home>,
}

/// What becomes of a command whose limits cannot be held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Insist {
    /// It is refused.
    Require,
    /// It runs, and its end says which were not.
    BestEffort,
}

impl Cgroups {
    /// Looks where groups can be made, and makes room for them in a unified hierarchy.
    pub fn open() -> Self {
        let hierarchies = layout::read();
        let home = |controller: &str| {
            let found = hierarchies
                .iter()
                .find(|hierarchy| hierarchy.has(controller))?;
            Home::open(found, controller)
        };
        Self {
            memory: home("memory"),
            cpu: home("cpu"),
            tasks: home("pids"),
        }
    }

    /// Returns those of the limits that cannot be held here, by name.
    pub fn missing(&self, limits: &Limits) -> Vec<&'static str> {
        let rows = [
            ("memory", limits.memory.is_some(), &self.memory),
            ("cpu", limits.cpu.is_some(), &self.cpu),
            ("tasks", limits.tasks.is_some(), &self.tasks),
        ];
        let missing = rows
            .into_iter()
            .filter(|(_, asked, home)| *asked && home.is_none());
        missing.map(|(name, ..)| name).collect()
    }

    /// Makes a group with those of the limits that can be held.
    pub(super) fn make(&self, name: &str, limits: &Limits) -> io::Result<Group> {
        if let Some(bytes) = limits.memory.filter(|bytes| bytes.0 < LEAST_MEMORY) {
            return Err(io::Error::other(format!(
                "a memory limit of {} bytes is below {LEAST_MEMORY}, in which no program starts",
                bytes.0
            )));
        }
        let mut group = Group {
            members: Vec::new(),
            tasks: None,
        };
        let asked = [
            (&self.memory, limits.memory.is_some()),
            (&self.cpu, limits.cpu.is_some()),
            (&self.tasks, limits.tasks.is_some()),
        ];
        for home in asked
            .into_iter()
            .filter_map(|(home, asked)| home.as_ref().filter(|_| asked))
        {
            let member = (home.groups.join(name), home.back.clone());
            // Two limits may share a hierarchy.
            if !group.members.contains(&member) {
                fs::create_dir(&member.0)?;
                group.members.push(member);
            }
        }
        match self.set(&mut group, name, limits) {
            Ok(()) => Ok(group),
            Err(error) => {
                group.remove();
                Err(error)
            }
        }
    }

    fn set(&self, group: &mut Group, name: &str, limits: &Limits) -> io::Result<()> {
        if let Some((home, bytes)) = self.memory.as_ref().zip(limits.memory) {
            let (dir, bytes) = (home.groups.join(name), bytes.0.to_string());
            let (limit, swap, swapped) = match home.version {
                Version::One => (
                    "memory.limit_in_bytes",
                    "memory.memsw.limit_in_bytes",
                    &*bytes,
                ),
                Version::Two => ("memory.max", "memory.swap.max", "0"),
            };
            write(&dir, limit, &bytes)?;
            // Not there without swap accounting; then there is none to limit.
            match write(&dir, swap, swapped) {
                Err(error)
                    if !matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::PermissionDenied
                    ) =>
                {
                    return Err(error);
                }
                Ok(()) | Err(_) => {}
            }
        }
        if let Some((home, share)) = self.cpu.as_ref().zip(limits.cpu) {
            let dir = home.groups.join(name);
            let quota = u64::from(share.0) * PERIOD / 100;
            match home.version {
                Version::One => {
                    write(&dir, "cpu.cfs_period_us", &PERIOD.to_string())?;
                    write(&dir, "cpu.cfs_quota_us", &quota.to_string())?;
                }
                Version::Two => write(&dir, "cpu.max", &format!("{quota} {PERIOD}"))?,
            }
        }
        if let Some((home, tasks)) = self.tasks.as_ref().zip(limits.tasks) {
            let dir = home.groups.join(name);
            // One more while its warden is in it.
            write(&dir, TASKS, &(u64::from(tasks) + 1).to_string())?;
            group.tasks = Some((dir, tasks));
        }
        Ok(())
    }

    /// Removes the groups of `node` that nobody is in: those of wardens that were killed.
    pub fn tidy(&self, node: &NodeName) {
        let prefix = prefix(node);
        for home in [&self.memory, &self.cpu, &self.tasks].into_iter().flatten() {
            let listing = fs::read_dir(&home.groups).into_iter().flatten().flatten();
            for entry in listing {
                if entry.file_name().to_string_lossy().starts_with(&prefix) {
                    // Refused by the kernel while somebody is in it.
                    fs::remove_dir(entry.path()).ok();
                }
            }
        }
    }
}

/// Says which limits cannot be held.
pub fn lacking(missing: &[&str]) -> String {
    format!(
        "this node cannot hold a limit on {}: no control group was given to the agent (under systemd: Delegate=yes and DelegateSubgroup=agent in its unit)",
        missing.join(", ")
    )
}

/// Returns the name of a command's group.
pub(super) fn name(node: &NodeName, command: &str) -> String {
    prefix(node) + command
}

fn prefix(node: &NodeName) -> String {
    format!("steward.{node}.")
}

/// Where the number of tasks is limited, in both versions.
const TASKS: &str = "pids.max";

impl Home {
    fn open(hierarchy: &Hierarchy, controller: &str) -> Option<Self> {
        let own = &hierarchy.own;
        let home = match hierarchy.version {
            Version::One => Self {
                groups: own.clone(),
                back: own.clone(),
                version: Version::One,
            },
            Version::Two => {
                let above = own.parent().filter(|_| own.ends_with(LEAF));
                let groups = above.unwrap_or(own).to_owned();
                if !is_ours(&groups, hierarchy) {
                    return None;
                }
                let back = groups.join(LEAF);
                settle(&groups, &back, controller).ok()?;
                Self {
                    groups,
                    back,
                    version: Version::Two,
                }
            }
        };
        // Tried, because a directory may look writable and not be.
        let probe = home.groups.join(format!("steward-probe-{}", getpid()));
        fs::create_dir(&probe).ok()?;
        fs::remove_dir(&probe).ok()?;
        Some(home)
    }
}

/// Tells whether a part of the unified hierarchy was given to us: by an owner's mark, or by being
/// nobody else's. A service manager does not like others in its own part.
fn is_ours(dir: &Path, hierarchy: &Hierarchy) -> bool {
    use std::os::unix::fs::MetadataExt;
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|mark| {
        let mut value = [0_u8; 8];
        let found = rustix::fs::getxattr(dir, *mark, &mut value);
        found.is_ok_and(|length| value.get(..length) == Some(b"1"))
    });
    let owner = fs::metadata(dir).map(|found| found.uid()).ok();
    let mine = owner == Some(geteuid().as_raw()) && !geteuid().is_root();
    let alone = !Path::new("/run/systemd/system").exists() || dir == hierarchy.mount;
    marked || mine || (alone && geteuid().is_root())
}

/// Moves this process into a leaf and hands the controller down to its neighbours.
fn settle(groups: &Path, leaf: &Path, controller: &str) -> io::Result<()> {
    match fs::create_dir(leaf) {
        Err(error) if error.kind() != ErrorKind::AlreadyExists => return Err(error),
        Ok(()) | Err(_) => {}
    }
    write(leaf, PROCESSES, "0")?;
    write(groups, "cgroup.subtree_control", &format!("+{controller}"))
}

/// Where the processes of a group are listed, and enter it.
const PROCESSES: &str = "cgroup.procs";

fn write(dir: &Path, file: &str, text: &str) -> io::Result<()> {
    let path = dir.join(file);
    fs::write(&path, text)
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// The group of one command.
#[derive(Debug)]
pub(super) struct Group {
    /// Its directories, and where who leaves them goes.
    members: Vec<(PathBuf, PathBuf)>,
    tasks: Option<(PathBuf, u32)>,
}

impl Group {
    /// Puts this process into the group, so that what it starts is born there.
    pub(super) fn enter(&self) -> io::Result<()> {
        self.members
            .iter()
            .try_for_each(|(dir, _)| write(dir, PROCESSES, "0"))
    }

    /// Takes this process out again; from here on the limits are the command's alone.
    pub(super) fn leave(&self) -> io::Result<()> {
        self.members
            .iter()
            .try_for_each(|(_, back)| write(back, PROCESSES, "0"))?;
        match &self.tasks {
            Some((dir, tasks)) => write(dir, TASKS, &tasks.to_string()),
            None => Ok(()),
        }
    }

    /// Kills everybody in the group in one step, where the kernel can.
    pub(super) fn kill(&self) {
        for (dir, _) in &self.members {
            // Not there in the older hierarchies; whoever calls this looks for the rest.
            fs::write(dir.join("cgroup.kill"), "1").ok();
        }
    }

    /// Says which limits the command ran into.
    pub(super) fn notes(&self, limits: &Limits) -> Vec<String> {
        let count = |file: &str, key: &str| -> u64 {
            let counts = self.members.iter().filter_map(|(dir, _)| {
                let text = fs::read_to_string(dir.join(file)).ok()?;
                let line = text.lines().find_map(|line| line.strip_prefix(key))?;
                line.trim().parse::<u64>().ok()
            });
            counts.sum()
        };
        let killed = count("memory.events", "oom_kill ") + count("memory.oom_control", "oom_kill ");
        let refused = count("pids.events", "max ");
        let mut notes = Vec::new();
        if let Some(bytes) = limits.memory.filter(|_| killed > 0) {
            notes.push(format!(
                "{killed} of its processes were killed at the memory limit of {} bytes",
                bytes.0
            ));
        }
        if let Some(tasks) = limits.tasks.filter(|_| refused > 0) {
            notes.push(format!("it ran into its limit of {tasks} tasks"));
        }
        notes
    }

    /// Removes the group; nobody may be left in it.
    pub(super) fn remove(&self) {
        for (dir, _) in &self.members {
            for _ in 0..TRIES {
                match fs::remove_dir(dir) {
                    Err(error) if error.kind() == ErrorKind::ResourceBusy => sleep(PAUSE),
                    Ok(()) | Err(_) => break,
                }
            }
        }
    }
}
