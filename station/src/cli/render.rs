//! How answers reach the reader: data on standard output, everything else on standard error.
//!
//! Knows formats, terminals and colours; the meaning of what it prints is its callers' business.

use std::{
    env,
    io::{self, IsTerminal, Write},
};

use anyhow::Result;
use jiff::Timestamp;
use serde::Serialize;

pub(crate) mod table;
pub(crate) mod text;

use self::table::{Cell, Column, Tone};

/// Width assumed where a terminal does not say.
const USUAL_WIDTH: usize = 80;

/// The output formats of every list and show.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Format {
    /// For people.
    #[default]
    Table,
    /// For people with wide terminals: every column.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// Only names or ids, one per line.
    Name,
}

/// Every way an answer can be written: those of lists and shows, and those of logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Written {
    /// For people.
    Table,
    /// For people with wide terminals: every column.
    Wide,
    /// One JSON document.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header (RFC 4180).
    Csv,
    /// Only names or ids, one per line.
    Name,
    /// Logs only: time, node, program and text of each message.
    Short,
    /// Logs only: the same with the whole time and its zone.
    ShortIso,
    /// Logs only: the text of each message.
    Cat,
    /// Logs only: each message as it came.
    Raw,
}

impl Written {
    /// Returns it as a format of lists, if it is one.
    pub(crate) fn format(self) -> Option<Format> {
        match self {
            Self::Table => Some(Format::Table),
            Self::Wide => Some(Format::Wide),
            Self::Json => Some(Format::Json),
            Self::Jsonl => Some(Format::Jsonl),
            Self::Csv => Some(Format::Csv),
            Self::Name => Some(Format::Name),
            Self::Short | Self::ShortIso | Self::Cat | Self::Raw => None,
        }
    }
}

/// Standard output was closed by its reader, which is not worth a word.
#[derive(Debug, thiserror::Error)]
#[error("write to standard output: its reader is gone")]
pub(crate) struct OutputClosed;

/// What is known of the place the answer is read at.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Screen {
    /// The format asked for.
    pub(crate) format: Format,
    /// The time ages are counted from.
    pub(crate) now: Timestamp,
    paint: Paint,
    terminal: bool,
}

/// Whether colours are used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paint {
    /// Words only.
    Plain,
    /// Words in colours.
    Colored,
}

/// What a list looks like.
#[derive(Debug)]
pub(crate) struct Listing<T: 'static> {
    /// Its columns.
    pub(crate) columns: &'static [Column<T>],
    /// The name or id of an entry, for `-o name`.
    pub(crate) name: fn(&T) -> String,
    /// What is said when there is nothing to list.
    pub(crate) empty: &'static str,
}

impl Screen {
    /// Looks at the process's own standard output and environment.
    pub(crate) fn of_this_process(format: Format) -> Self {
        let terminal = io::stdout().is_terminal();
        let paint = if terminal && colors_wanted() {
            Paint::Colored
        } else {
            Paint::Plain
        };
        Self {
            format,
            now: Timestamp::now(),
            paint,
            terminal,
        }
    }

    /// Returns a screen that is no terminal, at a time of the caller's choice.
    #[cfg(test)]
    pub(crate) fn plain(format: Format, now: Timestamp) -> Self {
        Self {
            format,
            now,
            paint: Paint::Plain,
            terminal: false,
        }
    }

    /// Tells whether standard output is a terminal.
    pub(crate) fn is_terminal(&self) -> bool {
        self.terminal
    }

    /// Tells whether colours are used.
    pub(crate) fn paint(&self) -> Paint {
        self.paint
    }

    /// Returns `word` in the colour of `tone`, where colours are used.
    pub(crate) fn tinted(&self, word: &str, tone: Tone) -> String {
        table::settle(&tone.mark(word), self.paint)
    }

    /// Returns what stands in one place of a table, alone.
    pub(crate) fn cell(&self, cell: &Cell) -> String {
        table::settle(&cell.shown(self.now), self.paint)
    }

    /// Prints a list in the format asked for.
    ///
    /// # Errors
    ///
    /// Fails when standard output does.
    pub(crate) fn list<T: Serialize>(&self, listing: &Listing<T>, items: &[T]) -> Result<()> {
        match self.format {
            Format::Json => return self.json(&items),
            Format::Table | Format::Wide if items.is_empty() => {
                notice(listing.empty);
                return Ok(());
            }
            Format::Table | Format::Wide | Format::Jsonl | Format::Csv | Format::Name => {}
        }
        emit(&self.lines(listing, items)?)
    }

    /// Prints what comes after a list in the same format: lines only, the heading stands above already.
    ///
    /// # Errors
    ///
    /// Fails when standard output does.
    pub(crate) fn more<T: Serialize>(&self, listing: &Listing<T>, items: &[T]) -> Result<()> {
        let lines = self.lines(listing, items)?;
        emit(match self.format {
            Format::Table | Format::Wide | Format::Csv => {
                lines.split_once('\n').map_or("", |(_, rest)| rest)
            }
            Format::Json | Format::Jsonl | Format::Name => &lines,
        })
    }

    fn lines<T: Serialize>(&self, listing: &Listing<T>, items: &[T]) -> Result<String> {
        Ok(match self.format {
            Format::Jsonl | Format::Json => json_lines(items)?,
            Format::Csv => table::csv(listing.columns, items),
            Format::Name => items
                .iter()
                .map(|item| format!("{}\n", text::escape(&(listing.name)(item))))
                .collect(),
            Format::Table | Format::Wide => self.table(listing.columns, items),
        })
    }

    /// Returns the table of `items`; with every column where the format is wide.
    pub(crate) fn table<T>(&self, columns: &[Column<T>], items: &[T]) -> String {
        table::settle(
            &table::table(columns, items, self.format == Format::Wide, self.now),
            self.paint,
        )
    }

    /// Prints one JSON document: pretty, or on one line where the format says so.
    ///
    /// # Errors
    ///
    /// Fails when standard output does.
    pub(crate) fn json<T: Serialize>(&self, item: &T) -> Result<()> {
        let json = match self.format {
            Format::Jsonl => serde_json::to_string(item)?,
            _ => serde_json::to_string_pretty(item)?,
        };
        emit(&format!("{}\n", text::escape_json(&json)))
    }
}

fn json_lines<T: Serialize>(items: &[T]) -> Result<String> {
    let mut lines = String::new();
    for item in items {
        lines.push_str(&text::escape_json(&serde_json::to_string(item)?));
        lines.push('\n');
    }
    Ok(lines)
}

/// Tells whether the environment leaves room for colours and cursor movements.
pub(crate) fn colors_wanted() -> bool {
    let set = |name: &str| env::var_os(name).is_some_and(|value| !value.is_empty());
    !set("NO_COLOR") && !is_dumb()
}

/// Tells whether the terminal cannot move its cursor.
pub(crate) fn is_dumb() -> bool {
    env::var_os("TERM").is_none_or(|term| term == "dumb")
}

/// Returns the width of the terminal that standard error is, if it is one that can redraw a line.
pub(crate) fn live_width() -> Option<usize> {
    if !io::stderr().is_terminal() || is_dumb() {
        return None;
    }
    let size = rustix::termios::tcgetwinsize(io::stderr());
    Some(match size {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        Ok(_) | Err(_) => USUAL_WIDTH,
    })
}

/// Returns the width of standard output, or the usual one.
pub(crate) fn stdout_width() -> usize {
    match rustix::termios::tcgetwinsize(io::stdout()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        Ok(_) | Err(_) => USUAL_WIDTH,
    }
}

/// Writes data to standard output.
///
/// # Errors
///
/// Fails with [`OutputClosed`] when the reader is gone.
pub(crate) fn emit(text: &str) -> Result<()> {
    emit_bytes(text.as_bytes())
}

/// Writes data to standard output, byte for byte.
///
/// # Errors
///
/// Fails with [`OutputClosed`] when the reader is gone.
pub(crate) fn emit_bytes(bytes: &[u8]) -> Result<()> {
    let mut stdout = io::stdout().lock();
    match stdout.write_all(bytes).and_then(|()| stdout.flush()) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(OutputClosed.into()),
        Err(error) => Err(anyhow::Error::new(error).context("write to standard output")),
    }
}

/// Says something on standard error, with a line end. Who has closed it does not want to know.
pub(crate) fn notice(line: &str) {
    say(&format!("{line}\n"));
}

/// Writes to standard error as it is.
pub(crate) fn say(text: &str) {
    say_bytes(text.as_bytes());
}

/// Writes to standard error, byte for byte.
pub(crate) fn say_bytes(bytes: &[u8]) {
    let mut stderr = io::stderr().lock();
    // There is no third place to complain to.
    stderr.write_all(bytes).and_then(|()| stderr.flush()).ok();
}
