//! What is looked for.

use std::ops::Range;

use regex::bytes::Regex;
use steward_protocol::{
    logs::{Micros, Record},
    syslog::Severities,
};

use super::super::index::Entry;

/// In which direction time goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// The oldest first.
    Forward,
    /// The newest first.
    Backward,
}

/// What is looked for. Gaps are found whatever severity, program or text is.
#[derive(Debug, Clone)]
pub struct Query {
    /// Received at this time or later.
    pub since: Option<Micros>,
    /// Received at this time or earlier.
    pub until: Option<Micros>,
    /// Of these severities.
    pub severities: Severities,
    /// Of one of these programs; of any if there are none.
    pub tags: Vec<String>,
    /// Containing this.
    pub grep: Option<Regex>,
    /// Which comes first.
    pub direction: Direction,
}

impl Query {
    /// Returns one that finds everything, the oldest first.
    pub fn everything() -> Self {
        Self {
            since: None,
            until: None,
            severities: Severities::ALL,
            tags: Vec::new(),
            grep: None,
            direction: Direction::Forward,
        }
    }

    /// Tells whether something in a batch may be looked for, by its header alone.
    pub fn may_be_in(&self, entry: &Entry) -> bool {
        let has_gaps = entry.gaps > 0 || entry.gap.is_some();
        // A gap that knows no time may be of any.
        let is_dateless = entry.gap.is_some() && entry.to == Micros::default();
        let in_time = self.since.is_none_or(|since| entry.to >= since)
            && self.until.is_none_or(|until| entry.from <= until);
        let has_app = match &entry.apps {
            Some(apps) if !self.tags.is_empty() => apps.iter().any(|app| self.tags.contains(app)),
            _ => true,
        };
        (in_time || is_dateless)
            && (has_gaps || (self.severities.meets(entry.severities) && has_app))
    }

    /// Returns where, from `from` on in a batch's records, unpacked, what is looked for begins first and ends. Looking through
    /// all of them at once is much faster than through each; what is found across two of them says nothing, but never
    /// hides what is in one, since that begins later.
    pub(super) fn candidate(&self, raw: &[u8], from: usize) -> Option<Range<usize>> {
        match &self.grep {
            Some(grep) if is_local(grep.as_str()) => Some(grep.find_at(raw, from)?.range()),
            _ => Some(from..from),
        }
    }

    /// Tells whether a record is looked for.
    pub(super) fn finds(&self, record: &Record<'_>) -> bool {
        let in_time = self.since.is_none_or(|since| record.received >= since)
            && self.until.is_none_or(|until| record.received <= until);
        if !in_time || record.is_gap() {
            return in_time;
        }
        self.severities.contains(record.severity)
            && self
                .grep
                .as_ref()
                .is_none_or(|grep| grep.is_match(record.bytes))
            && (self.tags.is_empty() || self.has_tag(record.bytes))
    }

    fn has_tag(&self, bytes: &[u8]) -> bool {
        let app = steward_protocol::syslog::app(bytes);
        app.is_some_and(|app| self.tags.iter().any(|tag| tag.as_bytes() == app))
    }
}

/// Tells whether what an expression matches does not depend on what stands around it. If in doubt, it does.
fn is_local(expression: &str) -> bool {
    let (mut before, mut characters) = (None, expression.chars());
    while let Some(character) = characters.next() {
        before = match (character, before) {
            // Not a look back but all other characters: `[^"]`.
            ('^', Some('[')) => Some('^'),
            ('^' | '$', _) => return false,
            ('\\', _) => match characters.next() {
                Some('b' | 'B' | 'A' | 'z' | '<' | '>') => return false,
                _ => None,
            },
            (other, _) => Some(other),
        };
    }
    true
}

#[cfg(test)]
mod tests {
    use super::is_local;

    #[test]
    fn an_expression_that_looks_around_is_known_by_its_letters() {
        for (expression, expected) in [
            ("status=50[0-9] .* upstream=10\\.1\\.", true),
            ("agent=\"[^\"]*\"", true),
            ("\\^\\$\\\\", true),
            ("a\\[b", true),
            ("^a", false),
            ("a$", false),
            ("\\[^a", false),
            ("[a](^b)", false),
            ("\\\\\\b", false),
            ("\\b{start}a", false),
            ("(?m:^)a", false),
            ("[$]", false),
        ] {
            assert_eq!(is_local(expression), expected, "{expression}");
        }
    }
}
