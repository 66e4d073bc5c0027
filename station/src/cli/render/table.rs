//! Tables and CSV from the same columns.
//!
//! Colours travel through the table as zero-width marks, so that they do not count as width; what
//! nodes say is escaped before and cannot contain such a mark. Pure.

use comfy_table::{Table, presets::NOTHING};
use jiff::Timestamp;
use steward_protocol::State;

use super::{Paint, text};
use crate::view::{InboxPlace, Presence};

/// Most characters of a name in a table that is not wide: half a usual terminal.
const MAX_NAME: usize = 40;

/// One column of a list.
#[derive(Debug)]
pub(crate) struct Column<T> {
    /// Its heading.
    pub(crate) title: &'static str,
    /// When it is shown.
    pub(crate) show: Show,
    /// What stands in it.
    pub(crate) cell: fn(&T) -> Cell,
}

/// When a column is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Show {
    /// In every table.
    Always,
    /// Only in wide tables and in CSV.
    Wide,
}

/// What stands in one place of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Cell {
    /// Nothing is known.
    Empty,
    /// A text of any origin.
    Text(String),
    /// A name of any origin and length; shortened where it would push the other columns away.
    Name(String),
    /// A word of ours, in a colour.
    Word(&'static str, Tone),
    /// A point in time.
    Time(Timestamp),
    /// A number.
    Number(i128),
}

impl Cell {
    /// Returns a text cell.
    pub(crate) fn text(text: impl ToString) -> Self {
        Self::Text(text.to_string())
    }

    /// Returns a text cell, or an empty one.
    pub(crate) fn maybe(text: Option<impl ToString>) -> Self {
        text.map_or(Self::Empty, Self::text)
    }

    /// Returns a number cell.
    pub(crate) fn number(number: impl Into<i128>) -> Self {
        Self::Number(number.into())
    }

    /// Returns a time cell, or an empty one.
    pub(crate) fn time(time: Option<Timestamp>) -> Self {
        time.map_or(Self::Empty, Self::Time)
    }

    /// Returns the word of a state in its colour.
    pub(crate) fn state(state: State) -> Self {
        Self::Word(state.as_str(), tone_of(state))
    }

    /// Returns the word of a presence in its colour.
    pub(crate) fn presence(presence: Presence) -> Self {
        let tone = match presence {
            Presence::Online => Tone::Good,
            Presence::Late => Tone::Busy,
            Presence::Offline => Tone::Bad,
            Presence::Unknown => Tone::Faint,
        };
        Self::Word(presence.as_str(), tone)
    }

    /// Returns the word of a place of the inbox in its colour.
    pub(crate) fn place(place: InboxPlace) -> Self {
        match place {
            InboxPlace::Waiting => Self::Word("waiting", Tone::Busy),
            InboxPlace::Processing => Self::Word("processing", Tone::Busy),
            InboxPlace::Rejected => Self::Word("rejected", Tone::Bad),
            InboxPlace::Done => Self::Word("done", Tone::Good),
            InboxPlace::Ignored => Self::Word("ignored", Tone::Faint),
        }
    }

    /// Returns it for people where no time stands in it, with marks where colours go.
    pub(crate) fn marked(&self) -> String {
        self.shown(Timestamp::UNIX_EPOCH)
    }

    /// Returns it for people, with marks where colours go.
    pub(super) fn shown(&self, now: Timestamp) -> String {
        match self {
            Self::Empty => "-".to_owned(),
            Self::Text(text) | Self::Name(text) if text.is_empty() => "-".to_owned(),
            Self::Text(text) | Self::Name(text) => text::escape(text),
            Self::Word(word, tone) => tone.mark(word),
            Self::Time(at) => text::time_and_age(*at, now),
            Self::Number(number) => number.to_string(),
        }
    }

    /// Returns it for a table that is read at usual widths.
    fn shortened(&self, now: Timestamp) -> String {
        match self {
            Self::Name(_) => text::cut(&self.shown(now), MAX_NAME),
            other => other.shown(now),
        }
    }

    fn bare(&self) -> String {
        match self {
            Self::Empty => String::new(),
            Self::Text(text) | Self::Name(text) => text.clone(),
            Self::Word(word, _) => (*word).to_owned(),
            Self::Time(at) => text::time(*at),
            Self::Number(number) => number.to_string(),
        }
    }
}

/// Returns the colour of a state; the word itself is always there too.
pub(crate) fn tone_of(state: State) -> Tone {
    match state {
        State::Succeeded => Tone::Good,
        State::Failed | State::TimedOut | State::Rejected | State::Expired | State::Interrupted => {
            Tone::Bad
        }
        State::Running | State::Received | State::Deferred | State::Unknown => Tone::Busy,
        State::Accepted | State::Sent | State::Cancelled => Tone::Faint,
    }
}

/// What a colour is to say besides the word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Tone {
    /// As asked.
    Good,
    /// Not as asked.
    Bad,
    /// Under way.
    Busy,
    /// Nothing to see yet.
    Faint,
}

/// Mark and colour of every tone. The marks are invisible operators of no width.
const TONES: [(Tone, char, &str); 4] = [
    (Tone::Good, '\u{2061}', "\x1b[32m"),
    (Tone::Bad, '\u{2062}', "\x1b[31m"),
    (Tone::Busy, '\u{2063}', "\x1b[33m"),
    (Tone::Faint, '\u{2064}', "\x1b[2m"),
];

/// Ends what any mark began.
const END: char = '\u{2060}';

impl Tone {
    /// Returns `word` between marks; [`settle`] turns them into colours or removes them.
    pub(crate) fn mark(self, word: &str) -> String {
        TONES
            .iter()
            .filter(|(tone, _, _)| *tone == self)
            .map(|(_, mark, _)| format!("{mark}{word}{END}"))
            .collect()
    }
}

/// Turns the marks in `text` into colours, or removes them.
pub(crate) fn settle(text: &str, paint: Paint) -> String {
    let mut settled = String::with_capacity(text.len());
    for character in text.chars() {
        let code = match character {
            END => Some("\x1b[0m"),
            mark => TONES
                .iter()
                .find(|(_, known, _)| *known == mark)
                .map(|(_, _, code)| *code),
        };
        match (code, paint) {
            (Some(code), Paint::Colored) => settled.push_str(code),
            (Some(_), Paint::Plain) => {}
            (None, _) => settled.push(character),
        }
    }
    settled
}

fn is_mark(character: char) -> bool {
    character == END || TONES.iter().any(|(_, mark, _)| *mark == character)
}

/// Returns how wide a text with marks is, in characters.
pub(crate) fn width_of(text: &str) -> usize {
    text.chars()
        .filter(|character| !is_mark(*character))
        .count()
}

/// Cuts a text with marks to `width`; the marks stay, so that no colour is left open.
pub(crate) fn fit(text: &str, width: usize) -> String {
    if width_of(text) <= width {
        return text.to_owned();
    }
    let mut fitted = String::with_capacity(text.len());
    let mut left = width;
    for character in text.chars() {
        match left {
            _ if is_mark(character) => fitted.push(character),
            0 => {}
            1 => {
                fitted.push('…');
                left = 0;
            }
            _ => {
                fitted.push(character);
                left -= 1;
            }
        }
    }
    fitted
}

/// Returns a table with marks in it; one line per item, columns two spaces apart.
pub(super) fn table<T>(columns: &[Column<T>], items: &[T], wide: bool, now: Timestamp) -> String {
    let shown: Vec<&Column<T>> = columns
        .iter()
        .filter(|column| wide || column.show == Show::Always)
        .collect();
    let rows = items.iter().map(|item| {
        shown.iter().map(|column| match (column.cell)(item) {
            cell if wide => cell.shown(now),
            cell => cell.shortened(now),
        })
    });
    grid(shown.iter().map(|column| column.title), rows)
}

/// Returns rows of ready texts under their headings.
pub(crate) fn grid<'a, R, C>(titles: impl Iterator<Item = &'a str>, rows: R) -> String
where
    R: IntoIterator<Item = C>,
    C: Iterator<Item = String>,
{
    let mut table = Table::new();
    table.load_style(NOTHING).set_header(titles);
    for row in rows {
        table.add_row(row);
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt() + "\n"
}

/// Returns every column as comma-separated values (RFC 4180) with a header.
pub(super) fn csv<T>(columns: &[Column<T>], items: &[T]) -> String {
    let header = line(
        columns
            .iter()
            .map(|column| column.title.to_lowercase().replace(' ', "_")),
    );
    items.iter().fold(header, |text, item| {
        text + &line(columns.iter().map(|column| (column.cell)(item).bare()))
    })
}

fn line(fields: impl Iterator<Item = String>) -> String {
    let quoted: Vec<String> = fields.map(|field| quote(&field)).collect();
    quoted.join(",") + "\r\n"
}

/// Quotes where the format asks for it, and where a spreadsheet would take the field for a formula.
fn quote(field: &str) -> String {
    // Line ends are data inside quotes; everything else that acts on a terminal is escaped.
    let mut field = text::escape_block(field);
    let is_number = field.parse::<f64>().is_ok();
    if field.starts_with(['=', '+', '-', '@', '\t']) && !is_number {
        field.insert(0, '\'');
    }
    if field.contains(['"', ',', '\n', '\r', '\'']) || field.trim() != field {
        return format!("\"{}\"", field.replace('"', "\"\""));
    }
    field
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Row(&'static str, State, Option<Timestamp>);

    const COLUMNS: &[Column<Row>] = &[
        Column {
            title: "NODE",
            show: Show::Always,
            cell: |row| Cell::text(row.0),
        },
        Column {
            title: "STATE",
            show: Show::Always,
            cell: |row| Cell::state(row.1),
        },
        Column {
            title: "SEEN",
            show: Show::Wide,
            cell: |row| Cell::time(row.2),
        },
        Column {
            title: "N",
            show: Show::Always,
            cell: |_| Cell::number(7),
        },
    ];

    fn now() -> Timestamp {
        "2026-11-21T08:00:00Z".parse().expect("a time")
    }

    fn rows() -> [Row; 3] {
        [
            Row("ship1", State::Succeeded, Some(now())),
            Row("ship\u{1b}2, the \"big\"\none", State::TimedOut, None),
            Row("", State::Sent, None),
        ]
    }

    #[test]
    fn a_table_lines_up_and_escapes() {
        let marked = table(COLUMNS, &rows(), false, now());
        let expected = "\
NODE                          STATE      N
ship1                         succeeded  7
ship\\x1b2, the \"big\"\\none  timed_out  7
-                             sent       7
";
        let plain = settle(&marked, Paint::Plain);
        let squeezed = |text: &str| {
            text.lines()
                .map(|line| {
                    line.split("  ")
                        .filter(|part| !part.is_empty())
                        .map(str::trim)
                        .collect::<Vec<_>>()
                        .join("|")
                })
                .collect::<Vec<_>>()
        };
        assert_eq!(squeezed(&plain), squeezed(expected));
        let columns: Vec<Option<usize>> = plain.lines().map(|line| line.rfind("  ")).collect();
        assert!(
            columns.iter().all(|column| *column == columns[0]),
            "{plain}"
        );
    }

    #[test]
    fn a_long_name_is_cut_only_where_it_would_push_the_rest_away() {
        const NAMED: &[Column<String>] = &[Column {
            title: "FILE",
            show: Show::Always,
            cell: |name| Cell::Name(name.clone()),
        }];
        let names = ["x".repeat(250), "é".repeat(MAX_NAME)];
        let narrow = table(NAMED, &names, false, now());
        let widths: Vec<usize> = narrow
            .lines()
            .skip(1)
            .map(|l| l.trim().chars().count())
            .collect();
        assert_eq!(widths, [MAX_NAME, MAX_NAME], "{narrow}");
        assert!(narrow.contains('…'));
        assert!(table(NAMED, &names, true, now()).contains(&names[0]));
        assert!(csv(NAMED, &names).contains(&names[0]));
    }

    #[test]
    fn colours_change_nothing_but_colours() {
        let marked = table(COLUMNS, &rows(), true, now());
        let colored = settle(&marked, Paint::Colored);
        assert!(colored.contains("\x1b[32msucceeded\x1b[0m"), "{colored}");
        let stripped = ["\x1b[32m", "\x1b[31m", "\x1b[33m", "\x1b[2m", "\x1b[0m"]
            .iter()
            .fold(colored, |text, code| text.replace(code, ""));
        assert_eq!(stripped, settle(&marked, Paint::Plain));
    }

    #[test]
    fn a_fitted_text_closes_its_colours() {
        let text = format!("{} and more", Tone::Bad.mark("failed"));
        for (width, expected) in [
            (40, "\x1b[31mfailed\x1b[0m and more"),
            (8, "\x1b[31mfailed\x1b[0m …"),
            (4, "\x1b[31mfai…\x1b[0m"),
            (0, "\x1b[31m\x1b[0m"),
        ] {
            assert_eq!(settle(&fit(&text, width), Paint::Colored), expected);
        }
    }

    #[test]
    fn csv_is_quoted_where_it_must_be() {
        assert_eq!(
            csv(COLUMNS, &rows()),
            "node,state,seen,n\r\nship1,succeeded,2026-11-21T08:00:00Z,7\r\n\"ship\\x1b2, the \"\"big\"\"\none\",timed_out,,7\r\n,sent,,7\r\n"
        );
        for (field, expected) in [
            ("=1+1", "\"'=1+1\""),
            ("-3", "-3"),
            ("-x", "\"'-x\""),
            (" a", "\" a\""),
            ("a", "a"),
        ] {
            assert_eq!(quote(field), expected);
        }
    }
}
