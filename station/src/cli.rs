//! The command line: what can be asked, and who answers.
//!
//! `serve` and `demo` run things; every other verb talks to a running station over its socket, or
//! to nobody at all. Nothing here knows how a station works.

use std::{future::Future, path::PathBuf};

use anyhow::{Context, Result, bail};
use clap::{Args, Parser, Subcommand};

use self::{
    client::Client,
    exit::{Misuse, explain},
    render::{Format, Screen, Written, notice},
};
use crate::config::{DEFAULT_STATE_DIR, LogFormat};

mod broker;
mod check;
mod client;
mod completions;
mod config;
mod demo;
mod events;
mod exit;
mod inbox;
mod logging;
mod logs;
mod msg;
mod node;
mod outcome;
mod progress;
mod render;
mod run;
mod schema;
mod serve;
mod status;
mod submit;
mod wait;

pub use self::exit::Exit;

/// Printed under the help of every verb that has targets.
const EXIT_CODES: &str = "Exit codes: 0 all targeted nodes succeeded, 1 anything else, 2 usage, \
    3 some delivery did not succeed, 4 some delivery was not final when waiting ended, \
    5 nothing was accepted, 6 station or broker out of reach.";

/// Manages edge nodes over links that are sometimes not there.
#[derive(Debug, Parser)]
#[command(name = "steward", version, after_help = EXIT_CODES)]
pub struct Cli {
    #[command(flatten)]
    globals: Globals,
    #[command(subcommand)]
    verb: Verb,
}

/// What every verb understands.
#[derive(Debug, Args)]
struct Globals {
    /// Directory of the station's state [env: STEWARD_STATE_DIR] [default: /var/lib/steward]
    #[arg(long, global = true, value_name = "DIR")]
    state_dir: Option<String>,
    /// How the answer is written
    #[arg(
        short,
        long,
        global = true,
        value_name = "FORMAT",
        default_value = "table"
    )]
    output: Written,
    /// How a line of the log on standard error looks [env: STEWARD_LOG_FORMAT] [default: text]
    #[arg(long, global = true, value_name = "FORMAT")]
    log_format: Option<LogFormat>,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Run a station
    Serve(config::StationFlags),
    /// Run a broker, a station and agents in a temporary directory, and show them at work
    Demo(demo::DemoArgs),
    /// Show the station itself; exits with 0 when it is ready, 1 when not, 6 when out of reach
    Status,
    /// Hand message files to the station
    #[command(after_help = EXIT_CODES)]
    Submit(submit::SubmitArgs),
    /// Run one command on nodes and wait for what comes of it
    #[command(after_help = EXIT_CODES)]
    Run(run::RunArgs),
    /// Read message files without sending anything, and show them in canonical form
    Check(check::CheckArgs),
    /// Messages and what became of them
    #[command(subcommand)]
    Msg(msg::MsgVerb),
    /// Nodes and what is believed of them
    #[command(subcommand)]
    Node(node::NodeVerb),
    /// Show faults and verdicts, and what happened to messages
    Events(events::EventsArgs),
    /// Show what nodes have logged
    #[command(after_help = logs::EXIT_CODES)]
    Logs(logs::LogsArgs),
    /// The folder message files are dropped into
    #[command(subcommand)]
    Inbox(inbox::InboxVerb),
    /// The station's configuration
    #[command(subcommand)]
    Config(config::ConfigVerb),
    /// The nats-server at hand
    #[command(subcommand)]
    Broker(broker::BrokerVerb),
    /// Print the JSON Schema of message files
    Schema,
    /// Print the completions for a shell
    Completions(completions::CompletionsArgs),
}

/// What a verb needs to talk to the station and to the operator.
struct Session {
    client: Client,
    screen: Screen,
    /// How the answer is to be written, where it is of logs.
    written: Written,
    /// How this station is addressed, for commands the operator is told to type.
    command: String,
}

impl Globals {
    fn state_dir(&self) -> PathBuf {
        let variable = || std::env::var_os("STEWARD_STATE_DIR").filter(|dir| !dir.is_empty());
        match &self.state_dir {
            Some(dir) => PathBuf::from(dir),
            None => variable().map_or_else(|| PathBuf::from(DEFAULT_STATE_DIR), PathBuf::from),
        }
    }

    fn screen(&self) -> Screen {
        Screen::of_this_process(self.format())
    }

    /// Returns how lists are written; what is of logs only is a table there.
    fn format(&self) -> Format {
        self.output.format().unwrap_or_default()
    }

    fn session(&self) -> Session {
        Session {
            client: Client::new(&self.state_dir()),
            screen: self.screen(),
            written: self.output,
            command: match &self.state_dir {
                Some(dir) => format!("steward --state-dir {}", quoted(dir)),
                None => "steward".to_owned(),
            },
        }
    }
}

/// Runs what was asked and returns how to end. Errors have been printed by then.
pub fn run(cli: Cli) -> Exit {
    match answer(cli) {
        Ok(exit) => exit,
        Err(error) => {
            if let Some(text) = explain(&error) {
                notice(&render::text::escape_block(&text));
            }
            Exit::of_error(&error)
        }
    }
}

fn answer(Cli { globals, verb }: Cli) -> Result<Exit> {
    match verb {
        // Logging waits for the configuration.
        Verb::Serve(flags) => many_threads(serve::serve(&globals, &flags)),
        verb => {
            logging::for_a_verb(globals.log_format)?;
            ask(&globals, verb)
        }
    }
}

fn ask(globals: &Globals, verb: Verb) -> Result<Exit> {
    if globals.output.format().is_none() && !matches!(verb, Verb::Logs(_)) {
        bail!(Misuse(
            "only `steward logs` writes short, short-iso, cat or raw".to_owned()
        ));
    }
    match verb {
        Verb::Serve(flags) => many_threads(serve::serve(globals, &flags)),
        Verb::Demo(args) => many_threads(demo::demo(globals, &args)),
        Verb::Status => one_thread(status::status(&globals.session())),
        Verb::Submit(args) => one_thread(submit::submit(&globals.session(), &args)),
        Verb::Run(args) => one_thread(run::run(&globals.session(), &args)),
        Verb::Check(args) => check::check(globals, &args),
        Verb::Msg(verb) => one_thread(msg::msg(&globals.session(), verb)),
        Verb::Node(verb) => one_thread(node::node(&globals.session(), verb)),
        Verb::Events(args) => one_thread(events::events(&globals.session(), &args)),
        Verb::Logs(args) => one_thread(logs::logs(&globals.session(), &args)),
        Verb::Inbox(verb) => one_thread(inbox::inbox(&globals.session(), verb)),
        Verb::Config(verb) => config::config(globals, &verb),
        Verb::Broker(verb) => broker::broker(&verb),
        Verb::Schema => schema::schema(),
        Verb::Completions(args) => completions::completions(&args),
    }
}

/// Returns `text` so that a shell takes it for one word.
fn quoted(text: &str) -> String {
    let plain =
        |character: char| character.is_ascii_alphanumeric() || "/._-+:@%".contains(character);
    if !text.is_empty() && text.chars().all(plain) {
        return text.to_owned();
    }
    format!("'{}'", text.replace('\'', "'\\''"))
}

fn many_threads(future: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(future)
}

/// A verb only asks and prints; threads would cost more than the question.
fn one_thread(future: impl Future<Output = Result<Exit>>) -> Result<Exit> {
    tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(future)
}

#[cfg(test)]
mod tests;
