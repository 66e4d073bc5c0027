//! Starts the command a warden is there for, in the surroundings that were asked for.
//!
//! Knows nothing of its end. Whatever keeps it from starting is an outcome with the exit code a shell
//! would give, and words.

use std::{
    env, io,
    os::unix::process::CommandExt,
    path::Path,
    process::{Child, Command, Stdio},
};

use nix::unistd::{Gid, Group, Uid, User};
use rustix::process::{getpriority_process, getuid, setpriority_process};
use steward_protocol::body::Limits;

use super::{
    ATTEMPT, MESSAGE_ID, NODE, NotStarted, Spec,
    cgroup::{self, Insist},
    is_shortage,
};

/// Variables of the agent's own environment that a command does not get: they hold the agent's
/// secrets and its line to the service manager.
const WITHHELD_PREFIXES: [&str; 2] = ["NATS_", "STEWARD_"];
const WITHHELD: [&str; 2] = ["NOTIFY_SOCKET", "CREDENTIALS_DIRECTORY"];

/// A command that was started.
#[derive(Debug)]
pub(super) struct Launched {
    /// Its first process, all three streams in pipes of ours; without text for it, its input is empty.
    pub(super) child: Child,
    /// The group that holds its limits, if it has any.
    pub(super) group: Option<cgroup::Group>,
    /// What could not be done as asked.
    pub(super) notes: Vec<String>,
}

/// Starts the command.
pub(super) fn launch(spec: &Spec) -> Result<Launched, NotStarted> {
    let mut command = prepare(spec)?;
    let (group, notes) = confine(spec)?;
    let own = getpriority_process(None).unwrap_or(0);
    let spawned = match spec.nice.map_or(Ok(()), renice) {
        Ok(()) => command
            .spawn()
            .map_err(|error| not_started(&spec.argv, spec, &error)),
        Err(reason) => Err(reason),
    };
    if spec.nice.is_some() {
        // Only root may go back; a warden as slow as its command does no harm.
        setpriority_process(None, own).ok();
    }
    if let Some(group) = &group {
        let left = group.leave();
        if spawned.is_err() {
            group.remove();
        } else if let Err(error) = left {
            tracing::debug!(%error, "a warden stays in the group of its command");
        }
    }
    Ok(Launched {
        child: spawned?,
        group,
        notes,
    })
}

fn prepare(spec: &Spec) -> Result<Command, NotStarted> {
    let (program, arguments) = spec.argv.split_first().ok_or_else(|| NotStarted {
        exit_code: Some(127),
        reason: "the command is empty".to_owned(),
    })?;
    check_directory(spec.cwd.as_deref())?;
    let mut command = Command::new(program);
    command.args(arguments).process_group(0);
    command.stdin(match spec.stdin {
        Some(_) => Stdio::piped(),
        None => Stdio::null(),
    });
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    if let Some(cwd) = &spec.cwd {
        command.current_dir(cwd);
    }
    surround(&mut command, spec);
    become_user(&mut command, spec)?;
    Ok(command)
}

/// Enters a group that holds the command's limits, so that it is born there.
fn confine(spec: &Spec) -> Result<(Option<cgroup::Group>, Vec<String>), NotStarted> {
    if spec.limits == Limits::default() {
        return Ok((None, Vec::new()));
    }
    let missing = spec.cgroups.missing(&spec.limits);
    let lacking = (!missing.is_empty()).then(|| cgroup::lacking(&missing));
    if let (Some(reason), Insist::Require) = (&lacking, spec.insist) {
        return Err(unconfined(reason.clone()));
    }
    let name = cgroup::name(&spec.node, &format!("{}-{}", spec.message_id, spec.attempt));
    let made = spec.cgroups.make(&name, &spec.limits).and_then(|group| {
        group.enter().inspect_err(|_| {
            group.leave().ok();
            group.remove();
        })?;
        Ok(group)
    });
    match (made, spec.insist) {
        (Ok(group), _) => Ok((Some(group), lacking.into_iter().collect())),
        (Err(error), Insist::Require) => Err(unconfined(error.to_string())),
        (Err(error), Insist::BestEffort) => {
            let note = format!("its limits could not be held: {error}");
            Ok((None, vec![note]))
        }
    }
}

fn unconfined(reason: String) -> NotStarted {
    NotStarted {
        exit_code: Some(126),
        reason: format!("its limits could not be held: {reason}"),
    }
}

/// The command inherits it, so that nothing it starts has ever run without it.
fn renice(nice: i8) -> Result<(), NotStarted> {
    setpriority_process(None, i32::from(nice)).map_err(|error| NotStarted {
        exit_code: Some(126),
        reason: format!("cannot be run with nice {nice}: {error}"),
    })
}

fn check_directory(cwd: Option<&str>) -> Result<(), NotStarted> {
    let Some(cwd) = cwd else { return Ok(()) };
    let reason = match Path::new(cwd).metadata() {
        Ok(found) if found.is_dir() => return Ok(()),
        Ok(_) => "is not a directory".to_owned(),
        Err(error) => format!("cannot be used: {error}"),
    };
    Err(NotStarted {
        exit_code: Some(126),
        reason: format!("working directory {cwd:?} {reason}"),
    })
}

fn not_started(argv: &[String], spec: &Spec, error: &io::Error) -> NotStarted {
    let exit_code = match error.kind() {
        io::ErrorKind::NotFound => Some(127),
        _ if is_shortage(error) => None,
        _ => Some(126),
    };
    let what = match exit_code {
        Some(127) => "was not found",
        Some(_) => "cannot be executed",
        None => "could not be started",
    };
    let program = argv.first().map_or("", String::as_str);
    let user = spec.user.as_ref().map(|user| format!(" as user {user:?}"));
    NotStarted {
        exit_code,
        reason: format!("{program:?} {what}{}: {error}", user.unwrap_or_default()),
    }
}

fn surround(command: &mut Command, spec: &Spec) {
    for (name, _) in env::vars_os() {
        let text = name.to_string_lossy();
        let withheld = WITHHELD.contains(&&*text)
            || WITHHELD_PREFIXES
                .iter()
                .any(|prefix| text.starts_with(prefix));
        if withheld {
            command.env_remove(&name);
        }
    }
    command
        .envs(&spec.env)
        .env(NODE, spec.node.as_str())
        .env(MESSAGE_ID, spec.message_id.to_string())
        .env(ATTEMPT, spec.attempt.to_string());
}

/// Makes the command run as the user and group asked for, without any other group.
fn become_user(command: &mut Command, spec: &Spec) -> Result<(), NotStarted> {
    if spec.user.is_none() && spec.group.is_none() {
        return Ok(());
    }
    let refuse = |reason: String| NotStarted {
        exit_code: Some(126),
        reason,
    };
    if !getuid().is_root() {
        return Err(refuse(
            "cannot run as another user or group: the agent itself does not run as root".to_owned(),
        ));
    }
    if let Some(name) = &spec.user {
        let user = user(name).map_err(refuse)?;
        command.uid(user.uid.as_raw()).gid(user.gid.as_raw());
        let home = user.dir.to_string_lossy().into_owned();
        for (variable, value) in [
            ("HOME", &home),
            ("USER", &user.name),
            ("LOGNAME", &user.name),
        ] {
            if !spec.env.contains_key(variable) {
                command.env(variable, value);
            }
        }
    }
    if let Some(name) = &spec.group {
        command.gid(group(name).map_err(refuse)?);
    }
    Ok(())
}

fn user(name: &str) -> Result<User, String> {
    let found = match name.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(name),
    };
    match found {
        Ok(Some(user)) => Ok(user),
        Ok(None) => Err(format!("user {name:?} does not exist on this node")),
        Err(error) => Err(format!("user {name:?} cannot be looked up: {error}")),
    }
}

fn group(name: &str) -> Result<u32, String> {
    let found = match name.parse() {
        Ok(number) => Group::from_gid(Gid::from_raw(number)),
        Err(_) => Group::from_name(name),
    };
    match found {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) => Err(format!("group {name:?} does not exist on this node")),
        Err(error) => Err(format!("group {name:?} cannot be looked up: {error}")),
    }
}
