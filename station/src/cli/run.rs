//! `steward run`: one command on many nodes, as a message like any other.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use anyhow::Result;
use clap::Args;
use serde_json::{Value, json};
use steward_protocol::{limits, name::check_token};

use super::{
    Exit, Session,
    client::Query,
    render::notice,
    submit::{accept, report_refusal, wait_and_show},
    wait::Patience,
};
use crate::{
    config::values,
    inbox::{MAX_LABEL, MAX_NAME, spell},
    view::Receipt,
};

/// The arguments of `steward run`.
#[derive(Debug, Args)]
pub(super) struct RunArgs {
    /// Nodes to run it on: names separated by commas, or '*' for every node the station knows
    #[arg(long, value_name = "NODE,…", value_delimiter = ',', value_parser = target, required_unless_present = "labels")]
    to: Vec<String>,
    /// Run it on every known node with this label; several must all match
    #[arg(short = 'l', long = "label", value_name = "LABEL=VALUE", value_parser = label)]
    labels: Vec<(String, String)>,
    /// How long to wait for the nodes, or none; the command itself is not touched by it
    #[arg(long, value_name = "TIME", default_value = "5m", value_parser = Patience::parse)]
    timeout: Patience,
    /// How long the command may run on a node [default: 300s]
    #[arg(long, value_name = "TIME", value_parser = command_timeout)]
    command_timeout: Option<Duration>,
    /// How long the message may wait for a node that is away [default: 24h]
    #[arg(long, value_name = "TIME", value_parser = expires)]
    expires: Option<Duration>,
    /// What to call it in lists
    #[arg(long, value_name = "TEXT", value_parser = name)]
    name: Option<String>,
    /// Send it and do not wait
    #[arg(long)]
    no_wait: bool,
    /// The program and its arguments; no shell looks at them
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    command: Vec<String>,
}

fn target(text: &str) -> Result<String, String> {
    if text != "*" {
        check_token(text).map_err(|error| format!("a node's name {error}"))?;
    }
    Ok(text.to_owned())
}

fn label(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => {
            for part in [key, value] {
                line_of(part, MAX_LABEL)?;
            }
            Ok((key.to_owned(), value.to_owned()))
        }
        Some(_) | None => Err("write LABEL=VALUE, for example site=harbour".to_owned()),
    }
}

fn name(text: &str) -> Result<String, String> {
    if text.is_empty() {
        return Err("a name has at least one character; or leave it out".to_owned());
    }
    line_of(text, MAX_NAME)
}

fn line_of(text: &str, limit: usize) -> Result<String, String> {
    let length = text.chars().count();
    if length > limit {
        return Err(format!(
            "{length} characters are too many; at most {limit} are allowed"
        ));
    }
    match text.chars().any(char::is_control) {
        true => Err("control characters are not allowed in it".to_owned()),
        false => Ok(text.to_owned()),
    }
}

fn command_timeout(text: &str) -> Result<Duration, String> {
    bounded(text, limits::MAX_TIMEOUT)
}

fn expires(text: &str) -> Result<Duration, String> {
    bounded(text, limits::MAX_EXPIRY)
}

/// Reads a duration as the station would accept it.
fn bounded(text: &str, longest: Duration) -> Result<Duration, String> {
    let duration = values::duration(text)?;
    if duration > longest {
        return Err(format!("at most {} is allowed", spell(longest)));
    }
    if !duration.subsec_nanos().is_multiple_of(1_000_000) {
        return Err("it is finer than a millisecond".to_owned());
    }
    Ok(duration)
}

pub(super) async fn run(session: &Session, args: &RunArgs) -> Result<Exit> {
    let message = message(args).map_err(super::exit::Misuse)?;
    let body = serde_json::to_vec(&json!([message]))?;
    let path = Query::new()
        .with("name", "run")
        .with("format", "json")
        .on("/messages");
    let receipt: Receipt = match session.client.post(&path, body).await {
        Ok(receipt) => receipt,
        Err(error) => return report_refusal("run", None, error),
    };
    if args.no_wait {
        return accept(session, &receipt);
    }
    let ids: Vec<_> = receipt.messages.iter().map(|line| line.id).collect();
    if let [id] = ids.as_slice() {
        notice(&format!("message {id}"));
    }
    wait_and_show(session, &ids, args.timeout).await
}

/// Returns the message file's one entry.
fn message(args: &RunArgs) -> Result<Value, String> {
    let everyone = args.to.iter().any(|node| node == "*");
    if everyone && args.to.len() > 1 {
        return Err("--to '*' already means every node; leave out the names".to_owned());
    }
    if !args.labels.is_empty() && !args.to.is_empty() && !everyone {
        return Err("give either names with --to or labels with -l, not both".to_owned());
    }
    let mut named = BTreeSet::new();
    if let Some(twice) = args.to.iter().find(|node| !named.insert(*node)) {
        return Err(format!("--to names {twice} twice; name each node once"));
    }
    if args.command.first().is_some_and(String::is_empty) {
        return Err("CMD is empty; write the program to run after --".to_owned());
    }
    let mut message = json!({
        "method": "shellcommand",
        "domain": "operatingsystem",
        "data": args.command,
    });
    if args.labels.is_empty() {
        message["to"] = if everyone { json!("*") } else { json!(args.to) };
    } else {
        let mut labels = BTreeMap::new();
        for (key, value) in &args.labels {
            if labels
                .insert(key, value)
                .is_some_and(|other| other != value)
            {
                return Err(format!("no node carries two values of the label {key}"));
            }
        }
        message["labels"] = json!(labels);
    }
    for (field, value) in [
        ("timeout", args.command_timeout.map(spell)),
        ("expires", args.expires.map(spell)),
        ("name", args.name.clone()),
    ] {
        if let Some(value) = value {
            message[field] = json!(value);
        }
    }
    Ok(message)
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Only {
        #[command(flatten)]
        args: RunArgs,
    }

    fn check(line: &str, expected: Result<&str, &str>) {
        let words = line.split_whitespace();
        let only = Only::try_parse_from(std::iter::once("run").chain(words)).expect("it parses");
        let message = message(&only.args).map(|message| message.to_string());
        assert_eq!(
            message.as_deref().map_err(String::as_str),
            expected,
            "{line}"
        );
    }

    #[test]
    fn a_run_is_a_message_in_canonical_form() {
        let common =
            r#""method":"shellcommand","domain":"operatingsystem","data":["echo","-n","x"]"#;
        for (flags, rest) in [
            ("--to ship1,ship2", r#""to":["ship1","ship2"]"#),
            ("--to *", r#""to":"*""#),
            ("-l a=b -l c=d", r#""labels":{"a":"b","c":"d"}"#),
            ("--to * -l a=b", r#""labels":{"a":"b"}"#),
            (
                "--to s --command-timeout 5s --expires 1h --name n",
                r#""to":["s"],"timeout":"5s","expires":"1h","name":"n""#,
            ),
        ] {
            let expected = format!("{{{common},{rest}}}");
            check(&format!("{flags} -- echo -n x"), Ok(&expected));
        }
    }

    #[test]
    fn targets_that_contradict_each_other_are_refused() {
        check(
            "--to *,ship1 -- true",
            Err("--to '*' already means every node; leave out the names"),
        );
        check(
            "--to ship1 -l a=b -- true",
            Err("give either names with --to or labels with -l, not both"),
        );
        check(
            "--to ship1,ship2 --to ship1 -- true",
            Err("--to names ship1 twice; name each node once"),
        );
        check(
            "-l a=b -l a=c -- true",
            Err("no node carries two values of the label a"),
        );
    }
}
