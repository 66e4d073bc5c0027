//! `steward logs`: what nodes log, with journalctl's habits.

use std::io::IsTerminal;

use anyhow::{Result, bail};
use clap::{Args, Subcommand};
use jiff::{Timestamp, Zoned};
use serde::de::DeserializeOwned;
use steward_protocol::{Domain, NodeName, syslog::Severities};

use self::show::Style;
use super::{
    Exit, Session,
    client::{Pieces, Query},
    exit::Misuse,
    render::{Written, emit, emit_bytes, notice, text},
};
use crate::view::logs::{LogFinding, LogLine};

mod findings;
mod show;
mod time;

/// Lines shown of what is there before what comes is followed.
const BEFORE_FOLLOWING: u32 = 10;

/// Bytes written at a time.
const PIECE: usize = 64 * 1024;

/// Printed under the help.
pub(super) const EXIT_CODES: &str = "Times: \"2026-11-21 08:00\", 08:00, today, yesterday, now, -1h, \"5 min ago\", @1795248000, RFC 3339. \
    Exit codes: 0 done, and with --gaps nothing is missing, with verify nothing is damaged; \
    1 something is missing or damaged, or anything else; 2 usage; 6 station out of reach.";

/// The arguments of `steward logs`.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true)]
pub(super) struct LogsArgs {
    #[command(subcommand)]
    verb: Option<LogsVerb>,
    #[command(flatten)]
    which: Which,
    /// Only of this severity and graver ones, or of a range: err, 3, warning..err
    #[arg(short, long, value_name = "SEVERITY", value_parser = priority)]
    priority: Option<String>,
    /// Only of this program
    #[arg(short = 't', long = "tag", value_name = "TAG", value_delimiter = ',')]
    tag: Vec<String>,
    /// Only what contains this regular expression, anywhere in the message as it came
    #[arg(short, long, value_name = "REGEX")]
    grep: Option<String>,
    /// Only the last lines [default with --follow: 10]
    #[arg(short = 'n', long, value_name = "N", value_parser = clap::value_parser!(u32).range(0..=100_000))]
    lines: Option<u32>,
    /// Go on with what comes
    #[arg(short, long, conflicts_with = "reverse")]
    follow: bool,
    /// The newest first
    #[arg(short, long)]
    reverse: bool,
    /// Say whether all is there that nodes had to log, or what is missing
    #[arg(long, conflicts_with_all = ["follow", "reverse", "lines", "grep", "tag", "priority", "stats"])]
    gaps: bool,
    /// Say how much there is
    #[arg(long, conflicts_with_all = ["follow", "reverse", "lines", "grep", "tag", "priority"])]
    stats: bool,
}

/// Which logs are meant.
#[derive(Debug, Args)]
struct Which {
    /// Only of these nodes
    #[arg(long, value_name = "NODE", value_delimiter = ',')]
    node: Vec<NodeName>,
    /// Only of these domains
    #[arg(long, value_name = "DOMAIN", value_delimiter = ',')]
    domain: Vec<Domain>,
    /// Only what was received at this time or later
    #[arg(short = 'S', long, value_name = "TIME", value_parser = at, allow_hyphen_values = true)]
    since: Option<Timestamp>,
    /// Only what was received at this time or earlier
    #[arg(short = 'U', long, value_name = "TIME", value_parser = at, allow_hyphen_values = true)]
    until: Option<Timestamp>,
}

#[derive(Debug, Subcommand)]
enum LogsVerb {
    /// Read every byte of what is stored again: checksums, records, order, index
    Verify(VerifyArgs),
}

#[derive(Debug, Args)]
struct VerifyArgs {
    #[command(flatten)]
    which: Which,
}

fn at(text: &str) -> Result<Timestamp, String> {
    time::time(text, &Zoned::now())
}

fn priority(text: &str) -> Result<String, String> {
    let read = text.parse::<Severities>();
    read.map(|_| text.to_owned())
        .map_err(|error| format!("cannot {error}"))
}

impl Which {
    fn query(&self) -> Query {
        let list = |names: Vec<&str>| (!names.is_empty()).then(|| names.join(","));
        Query::new()
            .with_some(
                "node",
                list(self.node.iter().map(NodeName::as_str).collect()),
            )
            .with_some(
                "domain",
                list(self.domain.iter().map(Domain::as_str).collect()),
            )
            .with_some("since", self.since)
            .with_some("until", self.until)
    }
}

pub(super) async fn logs(session: &Session, args: &LogsArgs) -> Result<Exit> {
    if let Some(LogsVerb::Verify(verify)) = &args.verb {
        return findings::show(session, &verify.which, findings::What::Damage).await;
    }
    if args.gaps {
        return findings::show(session, &args.which, findings::What::Gaps).await;
    }
    if args.stats {
        return findings::show(session, &args.which, findings::What::Extent).await;
    }
    lines(session, args).await
}

async fn lines(session: &Session, args: &LogsArgs) -> Result<Exit> {
    let shape = Shape::of(session.written, args.follow)?;
    let last = args.lines.or(args.follow.then_some(BEFORE_FOLLOWING));
    let raw = matches!(
        shape,
        Shape::People(Style::Raw) | Shape::Objects | Shape::Array
    );
    let query = args
        .which
        .query()
        .with_some("priority", args.priority.as_deref())
        .with_some("tag", (!args.tag.is_empty()).then(|| args.tag.join(",")))
        .with_some("grep", args.grep.as_deref())
        .with_some("lines", last)
        .with_some("reverse", args.reverse.then_some(true))
        .with_some("follow", args.follow.then_some(true))
        .with_some("raw", raw.then_some(true));
    let mut answer = Lines::new(session.client.open(&query.on("/logs")).await?);
    let mut printer = Printer::new(shape);
    while let Some(lines) = answer.next::<LogLine>().await? {
        for line in &lines {
            printer.put(line)?;
        }
        printer.flush()?;
    }
    printer.end()?;
    Ok(Exit::Success)
}

/// How lines are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    People(Style),
    Objects,
    Array,
}

impl Shape {
    fn of(written: Written, follow: bool) -> Result<Self> {
        Ok(match written {
            Written::Table | Written::Short => Self::People(Style::Short),
            Written::ShortIso => Self::People(Style::ShortIso),
            Written::Cat => Self::People(Style::Cat),
            Written::Raw => Self::People(Style::Raw),
            Written::Jsonl => Self::Objects,
            Written::Json if follow => bail!(Misuse(
                "one JSON document has an end and --follow has none; use -o jsonl".to_owned()
            )),
            Written::Json => Self::Array,
            Written::Wide | Written::Csv | Written::Name => bail!(Misuse(
                "logs are written as short, short-iso, cat, raw, json or jsonl".to_owned()
            )),
        })
    }
}

struct Printer {
    shape: Shape,
    zone: jiff::tz::TimeZone,
    terminal: bool,
    piece: Vec<u8>,
    count: u64,
}

impl Printer {
    fn new(shape: Shape) -> Self {
        Self {
            shape,
            zone: jiff::tz::TimeZone::system(),
            terminal: std::io::stdout().is_terminal(),
            piece: Vec::new(),
            count: 0,
        }
    }

    fn put(&mut self, line: &LogLine) -> Result<()> {
        match self.shape {
            // What is no message is not mixed with their texts.
            Shape::People(Style::Cat | Style::Raw) if line.gap.is_some() => {
                let said = show::gap(line).unwrap_or_default();
                notice(&format!("-- {}/{}: {said} --", line.node, line.domain));
            }
            Shape::People(style) => {
                let mut bytes = show::line(line, style, &self.zone, self.terminal);
                self.piece.append(&mut bytes);
            }
            Shape::Objects | Shape::Array => {
                let json = text::escape_json(&serde_json::to_string(line)?);
                let before = match (self.shape, self.count) {
                    (Shape::Array, 0) => "[\n",
                    (Shape::Array, _) => ",\n",
                    _ => "",
                };
                self.piece.extend_from_slice(before.as_bytes());
                self.piece.extend_from_slice(json.as_bytes());
                if self.shape == Shape::Objects {
                    self.piece.push(b'\n');
                }
            }
        }
        self.count += 1;
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<()> {
        let written = emit_bytes(&self.piece);
        self.piece.clear();
        written
    }

    fn end(&mut self) -> Result<()> {
        self.flush()?;
        match (self.shape, self.count) {
            (Shape::Array, 0) => emit("[]\n"),
            (Shape::Array, _) => emit("\n]\n"),
            (Shape::People(Style::Short | Style::ShortIso), 0) => {
                notice("-- no entries --");
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// An answer of one JSON object a line.
struct Lines {
    pieces: Pieces,
    rest: Vec<u8>,
}

impl Lines {
    fn new(pieces: Pieces) -> Self {
        Self {
            pieces,
            rest: Vec::new(),
        }
    }

    /// Returns the next objects, or nothing at the end.
    async fn next<T: DeserializeOwned>(&mut self) -> Result<Option<Vec<T>>> {
        let Some(piece) = self.pieces.next().await? else {
            return Ok(None);
        };
        self.rest.extend_from_slice(&piece);
        let whole = self
            .rest
            .iter()
            .rposition(|byte| *byte == b'\n')
            .map_or(0, |at| at + 1);
        let mut objects = Vec::new();
        for line in self
            .rest
            .get(..whole)
            .unwrap_or_default()
            .split(|byte| *byte == b'\n')
        {
            if !line.is_empty() {
                objects.push(serde_json::from_slice(line)?);
            }
        }
        self.rest.drain(..whole);
        Ok(Some(objects))
    }
}
