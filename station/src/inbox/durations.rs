//! Reads durations in message files, and writes them down in days, hours, minutes and seconds.
//!
//! It does not know which fields hold one, or how long each may be.

use std::time::Duration;

use super::{
    findings::{Findings, quote},
    tree::Value,
    values::Slot,
};

/// Longest text of a duration, in bytes.
const MAX_DURATION_TEXT: usize = 60;

/// Most digits of one number in a duration: enough for 90 days in nanoseconds, and far from overflow.
const MAX_DURATION_DIGITS: usize = 17;

const DURATION_HINT: &str = "write a number and a unit: \"500ms\", \"30s\", \"5m\", \"24h\"";

/// The units a duration is written in, in nanoseconds. A day is 24 hours; longer units differ in length.
const UNITS: [(&str, u128); 7] = [
    ("d", 86_400_000_000_000),
    ("h", 3_600_000_000_000),
    ("m", 60_000_000_000),
    ("s", 1_000_000_000),
    ("ms", 1_000_000),
    ("us", 1_000),
    ("ns", 1),
];

/// Returns a duration as it can be written in a message file: `90d`, `1h 30m`, `500ms`.
pub fn spell(duration: Duration) -> String {
    let mut rest = duration.as_nanos();
    let mut parts = Vec::new();
    for (unit, size) in UNITS {
        let count = rest / size;
        rest %= size;
        if count > 0 {
            parts.push(format!("{count}{unit}"));
        }
    }
    match parts.is_empty() {
        true => "0s".to_owned(),
        false => parts.join(" "),
    }
}

impl Slot<'_> {
    /// Reads a duration such as `30s`, more than nothing and at most `longest`.
    pub(super) fn duration(&self, longest: Duration, findings: &mut Findings) -> Option<Duration> {
        let Value::Text(text) = &self.node.value else {
            let hint = match &self.node.value {
                Value::Integer(number @ 1..) => format!("write \"{number}s\""),
                _ => DURATION_HINT.to_owned(),
            };
            let reason = format!("is {}; expected a duration", self.node.value.kind());
            findings.value(&self.path, reason, hint);
            return None;
        };
        let duration = self.parsed_duration(text, findings)?;
        self.bounded(duration, longest, findings)
    }

    /// Reads seconds as a number, or a duration as text.
    pub(super) fn old_duration(
        &self,
        longest: Duration,
        findings: &mut Findings,
    ) -> Option<Duration> {
        let seconds = match &self.node.value {
            Value::Integer(seconds) => *seconds as f64,
            Value::Float(seconds) => *seconds,
            Value::Text(text) => match text.trim().parse::<u32>() {
                Ok(seconds) => f64::from(seconds),
                Err(_) => return self.duration(longest, findings),
            },
            _ => {
                self.wrong_type("a number of seconds", findings);
                return None;
            }
        };
        match Duration::try_from_secs_f64(seconds) {
            Ok(duration) => {
                let whole =
                    Duration::from_millis(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX));
                self.bounded(whole, longest, findings)
            }
            Err(_) => {
                let reason = "is not a possible number of seconds";
                findings.value(&self.path, reason, "write 1 or more");
                None
            }
        }
    }

    fn parsed_duration(&self, text: &str, findings: &mut Findings) -> Option<Duration> {
        // The parser overflows on numbers nobody means, so they never reach it.
        let possible = text.len() <= MAX_DURATION_TEXT
            && text
                .split(|character: char| !character.is_ascii_digit())
                .all(|digits| digits.len() <= MAX_DURATION_DIGITS);
        let parsed = match possible {
            true => humantime::parse_duration(text).map_err(|error| error.to_string()),
            false => Err("is too long".to_owned()),
        };
        parsed
            .map_err(|error| {
                let reason = format!("{} is not a duration: {error}", quote(text));
                findings.value(&self.path, reason, DURATION_HINT);
            })
            .ok()
    }

    fn bounded(
        &self,
        duration: Duration,
        longest: Duration,
        findings: &mut Findings,
    ) -> Option<Duration> {
        let reason = if duration.is_zero() {
            "is no time at all".to_owned()
        } else if duration > longest {
            let longest = spell(longest);
            format!("is {}; at most {longest} is allowed", spell(duration))
        } else if !duration.subsec_nanos().is_multiple_of(1_000_000) {
            "is finer than a millisecond".to_owned()
        } else {
            return Some(duration);
        };
        findings.value(&self.path, reason, DURATION_HINT);
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_spelled_plainly_and_reads_back_the_same() {
        for (millis, expected) in [
            (0, "0s"),
            (500, "500ms"),
            (30_000, "30s"),
            (90 * 60_000, "1h 30m"),
            (24 * 3_600_000, "1d"),
            (90 * 86_400_000, "90d"),
            (91 * 86_400_000 + 1001, "91d 1s 1ms"),
        ] {
            let duration = Duration::from_millis(millis);
            assert_eq!(spell(duration), expected);
            assert_eq!(humantime::parse_duration(expected), Ok(duration));
        }
        let longest = Duration::MAX;
        assert_eq!(humantime::parse_duration(&spell(longest)), Ok(longest));
    }
}
