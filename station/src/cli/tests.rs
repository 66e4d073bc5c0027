//! Tests of the command line itself: what parses, and what is usage.

use clap::{CommandFactory, Parser, error::ErrorKind};

use super::*;

fn parse(line: &str) -> Result<Cli, clap::Error> {
    Cli::try_parse_from(line.split_whitespace())
}

#[test]
fn the_definition_of_the_command_line_is_sound() {
    Cli::command().debug_assert();
}

#[test]
fn the_contract_for_scripts_is_understood() {
    for line in [
        "steward serve --state-dir /d --nats nats://127.0.0.1:1 --name central --http 127.0.0.1:1 --allow-unsigned",
        "steward submit a.json --wait --timeout 30s -o json",
        "steward submit - -o json",
        "steward submit a.json b.yaml",
        "steward run --to ship1,ship2 --timeout 5s --command-timeout 1s -o json -- echo -n x",
        "steward run --to * -o json -- true",
        "steward run --to ship1 --to ship2 -- true",
        "steward run -l site=harbour -l kind=ship -- true",
        "steward --state-dir /d msg show 0190 -o json",
        "steward node ls -o json --state-dir /d",
        "steward msg ls -o json --limit 0 --state failed --node ship1 --since 1h",
        "steward msg output 0190 ship1 --stream stderr",
        "steward msg watch 0190 --timeout 1m",
        "steward demo --nodes 5 --exit-when-done --keep -o jsonl --timeout 60s",
        "steward inbox explain a.json",
        "steward inbox ls -o csv",
        "steward config show",
        "steward config check --config /etc/x.toml",
        "steward completions bash",
        "steward schema",
        "steward status",
        "steward events --node ship1 --kind panic,storage --since 1h --limit 5 -o wide",
        "steward events --deliveries --follow -o jsonl",
    ] {
        if let Err(error) = parse(line) {
            panic!("{line}: {error}");
        }
    }
}

#[test]
fn what_cannot_be_meant_is_a_usage_error() {
    for (line, expected) in [
        ("steward run -- true", ErrorKind::MissingRequiredArgument),
        ("steward run --to ship1", ErrorKind::MissingRequiredArgument),
        ("steward run --to a.b -- true", ErrorKind::ValueValidation),
        (
            "steward run --to ship1 -l x -- true",
            ErrorKind::ValueValidation,
        ),
        (
            "steward submit a.json --timeout 3s",
            ErrorKind::MissingRequiredArgument,
        ),
        (
            "steward submit a.json --wait --timeout 3",
            ErrorKind::ValueValidation,
        ),
        ("steward msg ls --state done", ErrorKind::ValueValidation),
        (
            "steward msg ls --since tomorrow",
            ErrorKind::ValueValidation,
        ),
        ("steward events --limit 0", ErrorKind::ValueValidation),
        ("steward msg ls -o xml", ErrorKind::InvalidValue),
        ("steward demo --nodes 0", ErrorKind::ValueValidation),
        (
            "steward run --to a --command-timeout 25h -- true",
            ErrorKind::ValueValidation,
        ),
        (
            "steward run --to a --expires 91d -- true",
            ErrorKind::ValueValidation,
        ),
        (
            "steward run --to a --command-timeout 5us -- true",
            ErrorKind::ValueValidation,
        ),
    ] {
        let kind = parse(line).err().map(|error| error.kind());
        assert_eq!(kind, Some(expected), "{line}");
    }
}
