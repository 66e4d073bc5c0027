//! Entry point of `steward-agent`: arguments, configuration, logging, run, exit code.

use std::{
    collections::BTreeMap,
    env,
    ffi::OsStr,
    fs,
    io::{self, Write},
    path::{Path, PathBuf},
    process::ExitCode,
};

use clap::{Parser, Subcommand};
use steward_agent::{
    child,
    config::{self, Config, DEFAULT_FILE, Flags, Sources},
    keeper::chain,
    status::{self, Format},
    syslog, work,
};
use tracing_subscriber::EnvFilter;

/// Runs on every edge node: executes orders under supervision and answers with what happened.
#[derive(Debug, Parser)]
#[command(name = "steward-agent", version)]
struct Arguments {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run the agent until it is told to stop
    Run {
        #[command(flatten)]
        flags: Flags,
        /// Config file [default: /etc/steward/agent.toml, if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// What to log, like info or steward_agent=debug [env: RUST_LOG]
        #[arg(long, value_name = "FILTER")]
        log: Option<String>,
    },
    /// Check the configuration and say what it makes the agent listen to; opens nothing
    Check {
        #[command(flatten)]
        flags: Flags,
        /// Config file [default: /etc/steward/agent.toml, if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
    },
    /// Show how the agent running on this machine is
    #[command(after_help = STATUS_CODES)]
    Status {
        /// Directory for the journal [env: STEWARD_STATE_DIR]
        #[arg(long, value_name = "DIR")]
        state_dir: Option<String>,
        /// Config file [default: /etc/steward/agent.toml, if it is there]
        #[arg(long, value_name = "FILE")]
        config: Option<PathBuf>,
        /// How the answer is written
        #[arg(short, long, value_name = "FORMAT", default_value = "table")]
        output: Format,
    },
}

/// Printed under the help of `status`.
const STATUS_CODES: &str = "Exit codes: 0 it runs and its station has welcomed it, 3 it runs but is \
    not connected or not welcomed, 6 it does not run, 1 it cannot be asked, 2 usage.";

/// Fewest threads that processes share; idle ones cost a few pages each.
const LEAST_WORKERS: usize = 4;

fn main() -> ExitCode {
    // Before anything else: a warden is started for every command and must cost next to nothing, and so
    // must what it runs of ours.
    let mut words = env::args_os().skip(1);
    let verb = words.next().unwrap_or_default();
    if verb == child::VERB {
        return ward(&words.next().unwrap_or_default());
    }
    if verb == work::VERB {
        return ExitCode::from(work::run(&words.next().unwrap_or_default()));
    }
    match Arguments::parse().verb {
        Verb::Run { flags, config, log } => run_verb(flags, config, log),
        Verb::Check { flags, config } => check_verb(flags, config),
        Verb::Status {
            state_dir,
            config,
            output,
        } => status_verb(state_dir, config, output),
    }
}

fn run_verb(flags: Flags, config: Option<PathBuf>, log: Option<String>) -> ExitCode {
    let resolved = sources(flags, config)
        .and_then(|sources| config::resolve(&sources).map_err(|error| chain(&error)))
        .and_then(|config| Ok((config, start_logging(log)?)));
    let config = match resolved {
        Ok((config, ())) => config,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(2);
        }
    };
    match run(config) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(1)
        }
    }
}

fn check_verb(flags: Flags, config: Option<PathBuf>) -> ExitCode {
    let resolved = sources(flags, config)
        .and_then(|sources| config::resolve(&sources).map_err(|error| chain(&error)));
    match resolved {
        Ok(config) => {
            let logs = config.logs.as_ref().map(syslog::described);
            let mut text = format!("{}: the configuration is fine\n", config.node);
            for line in logs.unwrap_or_default() {
                text += &format!("{line}\n");
            }
            // Nobody need be reading.
            drop(io::stdout().write_all(text.as_bytes()));
            ExitCode::SUCCESS
        }
        Err(problem) => {
            complain(&problem);
            ExitCode::from(2)
        }
    }
}

/// Watches over the one command that this directory describes; nobody types this.
fn ward(dir: &OsStr) -> ExitCode {
    match child::warden::run(Path::new(dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&chain(&error));
            ExitCode::from(1)
        }
    }
}

fn status_verb(state_dir: Option<String>, config: Option<PathBuf>, output: Format) -> ExitCode {
    let flags = Flags {
        state_dir,
        ..Flags::default()
    };
    let dir = sources(flags, config)
        .and_then(|sources| config::state_dir(&sources).map_err(|error| chain(&error)));
    let dir = match dir {
        Ok(dir) => dir,
        Err(problem) => {
            complain(&problem);
            return ExitCode::from(2);
        }
    };
    match status::answer(&dir, output) {
        Ok((text, code)) => {
            // Nobody need be reading.
            drop(io::stdout().write_all(text.as_bytes()));
            ExitCode::from(code)
        }
        Err(error) => {
            complain(&chain(&error));
            ExitCode::from(error.code())
        }
    }
}

fn run(config: Config) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(workers())
        .enable_all()
        .build()?;
    let result = runtime.block_on(steward_agent::run(config, ready));
    // A command that cannot be ended must not keep the agent from ending.
    runtime.shutdown_background();
    Ok(result?)
}

/// Returns how many threads processes share: one that blocks its own must leave some to the others,
/// also on a machine with a single core.
fn workers() -> usize {
    std::thread::available_parallelism()
        .map_or(LEAST_WORKERS, |cores| cores.get().max(LEAST_WORKERS))
}

/// Says on standard output that the agent is ready; nothing else is ever written there.
fn ready(line: &str) {
    let mut stdout = io::stdout();
    // Nobody need be listening.
    drop(writeln!(stdout, "{line}").and_then(|()| stdout.flush()));
}

fn complain(problem: &str) {
    drop(writeln!(io::stderr(), "steward-agent: failed to {problem}"));
}

/// Gathers everything a configuration is made of.
fn sources(flags: Flags, given: Option<PathBuf>) -> Result<Sources, String> {
    let standard = PathBuf::from(DEFAULT_FILE);
    let path = given.or_else(|| standard.exists().then_some(standard));
    let file = match path {
        Some(path) => match fs::read_to_string(&path) {
            Ok(text) => Some((path, text)),
            Err(error) => return Err(format!("read the config {}: {error}", path.display())),
        },
        None => None,
    };
    let env: BTreeMap<String, String> = env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Ok(Sources { flags, env, file })
}

fn start_logging(given: Option<String>) -> Result<(), String> {
    let filter = given
        .or_else(|| env::var("RUST_LOG").ok())
        .unwrap_or_else(|| steward_agent::bus::DEFAULT_LOG.to_owned());
    let filter = EnvFilter::try_new(&filter)
        .map_err(|error| format!("use the log filter {filter:?}: {error}"))?;
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(io::stderr)
        .with_ansi(io::IsTerminal::is_terminal(&io::stderr()))
        .init();
    Ok(())
}
