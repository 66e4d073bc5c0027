//! When a crontab's five fields come next: minute, hour, day of the month, month, day of the week.
//!
//! Pure: the moment and the time zone are given. It knows nothing of schedules or orders.
//!
//! Of an hour that the clocks skip, runs are left out; of one that comes twice, they come the first
//! time, except where the hour is `*`: then they come in both.

use std::{fmt, str::FromStr};

use jiff::{
    Timestamp,
    civil::Date,
    tz::{AmbiguousOffset, TimeZone},
};

/// Days that are looked at for the next run: some dates come only every eighth year (29 February
/// around 2100), and a day of the week narrows that further.
const HORIZON_DAYS: u32 = 366 * 30;

/// Longest text that is looked at.
const MAX_TEXT: usize = 256;

const MONTHS: [&str; 12] = [
    "jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec",
];

const WEEKDAYS: [&str; 7] = ["sun", "mon", "tue", "wed", "thu", "fri", "sat"];

/// One of the five fields.
struct Field {
    name: &'static str,
    low: u8,
    high: u8,
    /// What numbers are called, from `low` on.
    names: &'static [&'static str],
}

const FIELDS: [Field; 5] = [
    Field {
        name: "minute",
        low: 0,
        high: 59,
        names: &[],
    },
    Field {
        name: "hour",
        low: 0,
        high: 23,
        names: &[],
    },
    Field {
        name: "day of the month",
        low: 1,
        high: 31,
        names: &[],
    },
    Field {
        name: "month",
        low: 1,
        high: 12,
        names: &MONTHS,
    },
    Field {
        // 7 is Sunday as well.
        name: "day of the week",
        low: 0,
        high: 7,
        names: &WEEKDAYS,
    },
];

/// Why a text is not five fields of a crontab.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// Too few or too many.
    #[error("has {found} fields; a crontab has five: minute hour day-of-month month day-of-week")]
    Fields {
        /// How many there are.
        found: usize,
    },
    /// One of them cannot be read.
    #[error("{text:?} is no {field}: {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What stands there.
        text: String,
        /// What is wrong with it.
        problem: String,
    },
    /// Such a day does not exist, like 31 February.
    #[error("never comes: there is no such day")]
    Never,
}

/// The values of a field, as bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Values {
    bits: u64,
    /// Whether the field begins with `*`, so that it restricts nothing by itself.
    star: bool,
}

impl Values {
    fn has(self, value: i8) -> bool {
        u32::try_from(value).is_ok_and(|value| self.bits >> value & 1 == 1)
    }

    fn iter(self) -> impl Iterator<Item = i8> {
        (0..60).filter(move |value| self.has(*value))
    }
}

/// Five fields of a crontab.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cron {
    minutes: Values,
    hours: Values,
    days: Values,
    months: Values,
    weekdays: Values,
    text: String,
}

impl fmt::Display for Cron {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

impl FromStr for Cron {
    type Err = CronError;

    fn from_str(text: &str) -> Result<Self, CronError> {
        let words: Vec<&str> = text
            .split_ascii_whitespace()
            .take(FIELDS.len() + 1)
            .collect();
        let [minute, hour, day, month, weekday] = words[..] else {
            let found = text.split_ascii_whitespace().count();
            return Err(CronError::Fields { found });
        };
        if text.len() > MAX_TEXT {
            let problem = format!("the five fields are longer than {MAX_TEXT} bytes");
            return Err(wrong(&FIELDS[0], minute, problem));
        }
        let mut weekdays = values(&FIELDS[4], weekday)?;
        if weekdays.has(7) {
            weekdays.bits |= 1;
        }
        let cron = Self {
            minutes: values(&FIELDS[0], minute)?,
            hours: values(&FIELDS[1], hour)?,
            days: values(&FIELDS[2], day)?,
            months: values(&FIELDS[3], month)?,
            weekdays,
            text: words.join(" "),
        };
        match cron.next_after(Timestamp::UNIX_EPOCH, &TimeZone::UTC) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never),
        }
    }
}

fn wrong(field: &Field, text: &str, problem: impl Into<String>) -> CronError {
    CronError::Field {
        field: field.name,
        text: text.chars().take(40).collect(),
        problem: problem.into(),
    }
}

/// Reads a list of ranges with steps.
fn values(field: &Field, text: &str) -> Result<Values, CronError> {
    let mut bits = 0;
    for part in text.split(',') {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(step)),
            None => (part, None),
        };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" => (field.low, field.high.min(field.low + 59)),
            Some((first, last)) => (number(field, first)?, number(field, last)?),
            None => {
                let value = number(field, range)?;
                // A step after a single number goes on to the end.
                (value, if step.is_some() { field.high } else { value })
            }
        };
        if first > last {
            return Err(wrong(field, part, "the range runs backwards"));
        }
        let step = match step.map(str::parse::<u8>) {
            None => 1,
            Some(Ok(step)) if (1..=field.high).contains(&step) => step,
            Some(_) => return Err(wrong(field, part, "the step is no number, or out of range")),
        };
        for value in (first..=last).step_by(usize::from(step)) {
            // The second name of Sunday must not shift the steps of all days.
            if !(field.high == 7 && value == 7 && range == "*") {
                bits |= 1_u64 << value;
            }
        }
    }
    Ok(Values {
        bits,
        star: text.starts_with('*'),
    })
}

fn number(field: &Field, text: &str) -> Result<u8, CronError> {
    let named = |name: &&&str| name.eq_ignore_ascii_case(text);
    if let Some(place) = field.names.iter().position(|name| named(&name)) {
        return Ok(field.low + u8::try_from(place).unwrap_or(0));
    }
    let digits = !text.is_empty() && text.len() <= 2 && text.bytes().all(|b| b.is_ascii_digit());
    match text.parse::<u8>() {
        Ok(value) if digits && (field.low..=field.high).contains(&value) => Ok(value),
        _ => Err(wrong(
            field,
            text,
            format!("write {} to {}", field.low, field.high),
        )),
    }
}

impl Cron {
    /// Returns the first moment after `after` that the five fields mean in `zone`; none when there is
    /// none for thirty years.
    pub fn next_after(&self, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let from = after.to_zoned(zone.clone());
        let mut date = from.date();
        for _ in 0..HORIZON_DAYS {
            if self.is_day(date)
                && let Some(found) = self.on_day(date, after, zone)
            {
                return Some(found);
            }
            date = date.tomorrow().ok()?;
        }
        None
    }

    /// A day counts by either of its two fields when both are restricted, as in every crontab.
    fn is_day(&self, date: Date) -> bool {
        let day = self.days.has(date.day());
        let weekday = self.weekdays.has(date.weekday().to_sunday_zero_offset());
        let meant = if self.days.star || self.weekdays.star {
            day && weekday
        } else {
            day || weekday
        };
        meant && self.months.has(date.month())
    }

    /// The first run of a day after a moment.
    fn on_day(&self, date: Date, after: Timestamp, zone: &TimeZone) -> Option<Timestamp> {
        let mut best: Option<Timestamp> = None;
        for hour in self.hours.iter() {
            for minute in self.minutes.iter() {
                let ambiguous = zone.to_ambiguous_timestamp(date.at(hour, minute, 0, 0));
                if matches!(ambiguous.offset(), AmbiguousOffset::Gap { .. }) {
                    continue;
                }
                let first = ambiguous.earlier().ok();
                let second = ambiguous.later().ok().filter(|_| self.hours.star);
                for time in [first, second].into_iter().flatten() {
                    if time > after {
                        best = Some(best.map_or(time, |best| best.min(time)));
                    }
                }
            }
            // Later hours of a day come later, except where an hour comes twice.
            if best.is_some() && !changes(date, zone) {
                break;
            }
        }
        best
    }
}

/// Tells whether the clocks change on a day.
fn changes(date: Date, zone: &TimeZone) -> bool {
    let offset = |date: Date| {
        let midnight = zone
            .to_ambiguous_timestamp(date.at(0, 0, 0, 0))
            .compatible();
        midnight.ok().map(|midnight| zone.to_offset(midnight))
    };
    let tomorrow = date.tomorrow().ok().and_then(offset);
    tomorrow.is_none() || offset(date) != tomorrow
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(cron: &str, zone: &str, rows: &[(&str, &str)]) {
        let cron: Cron = cron
            .parse()
            .unwrap_or_else(|error| panic!("{cron}: {error}"));
        let zone = TimeZone::get(zone).expect("a zone of this machine");
        for (after, expected) in rows {
            let next = cron.next_after(after.parse().expect("a time"), &zone);
            let shown = next.map(|next| next.to_string());
            assert_eq!(shown.as_deref(), Some(*expected), "{cron} after {after}");
        }
    }

    #[test]
    fn the_next_run_is_found() {
        check(
            "* * * * *",
            "UTC",
            &[
                ("2026-11-21T07:59:59.5Z", "2026-11-21T08:00:00Z"),
                ("2026-11-21T08:00:00Z", "2026-11-21T08:01:00Z"),
                ("2026-12-31T23:59:00Z", "2027-01-01T00:00:00Z"),
            ],
        );
        check(
            "*/15 8-17 * * mon-fri",
            "UTC",
            &[
                ("2026-11-20T17:45:00Z", "2026-11-23T08:00:00Z"),
                ("2026-11-23T08:01:00Z", "2026-11-23T08:15:00Z"),
            ],
        );
        check(
            "5/20 1,3 * * *",
            "UTC",
            &[
                ("2026-11-21T01:45:00Z", "2026-11-21T03:05:00Z"),
                ("2026-11-21T01:25:00Z", "2026-11-21T01:45:00Z"),
            ],
        );
        check(
            "0 0 29 FEB *",
            "UTC",
            &[("2026-01-01T00:00:00Z", "2028-02-29T00:00:00Z")],
        );
        check(
            "0 12 * * 7",
            "UTC",
            &[("2026-11-21T12:00:00Z", "2026-11-22T12:00:00Z")],
        );
        check(
            "0 12 * * */2",
            "UTC",
            &[
                ("2026-11-21T00:00:00Z", "2026-11-21T12:00:00Z"),
                ("2026-11-21T13:00:00Z", "2026-11-22T12:00:00Z"),
                ("2026-11-22T13:00:00Z", "2026-11-24T12:00:00Z"),
            ],
        );
    }

    #[test]
    fn two_restricted_days_mean_either_and_one_star_means_both() {
        // 13 November 2026 is a Friday.
        check(
            "0 0 13 * fri",
            "UTC",
            &[
                ("2026-11-01T00:00:00Z", "2026-11-06T00:00:00Z"),
                ("2026-11-06T00:00:00Z", "2026-11-13T00:00:00Z"),
                ("2026-12-11T00:00:00Z", "2026-12-13T00:00:00Z"),
            ],
        );
        check(
            "0 0 */2 * fri",
            "UTC",
            &[("2026-11-01T00:00:00Z", "2026-11-13T00:00:00Z")],
        );
    }

    #[test]
    fn an_hour_that_is_skipped_has_no_run_and_one_that_comes_twice_has_one() {
        // In Berlin 02:00 to 03:00 is skipped on 29 March 2026 and comes twice on 25 October.
        check(
            "30 2 * * *",
            "Europe/Berlin",
            &[
                ("2026-03-28T12:00:00Z", "2026-03-30T00:30:00Z"),
                ("2026-10-24T12:00:00Z", "2026-10-25T00:30:00Z"),
                ("2026-10-25T00:30:00Z", "2026-10-26T01:30:00Z"),
            ],
        );
        check(
            "30 * * * *",
            "Europe/Berlin",
            &[
                ("2026-03-29T00:30:00Z", "2026-03-29T01:30:00Z"),
                ("2026-10-25T00:30:00Z", "2026-10-25T01:30:00Z"),
                ("2026-10-25T01:30:00Z", "2026-10-25T02:30:00Z"),
            ],
        );
        check(
            "0 12 * * *",
            "Europe/Berlin",
            &[("2026-03-28T11:00:00Z", "2026-03-29T10:00:00Z")],
        );
    }

    #[test]
    fn what_is_no_crontab_is_refused_with_the_field() {
        for (text, expected) in [
            ("", "has 0 fields"),
            ("* * * *", "has 4 fields"),
            ("* * * * * *", "has 6 fields"),
            ("60 * * * *", "\"60\" is no minute: write 0 to 59"),
            ("* 24 * * *", "\"24\" is no hour"),
            ("* * 0 * *", "\"0\" is no day of the month"),
            ("* * * 13 *", "\"13\" is no month"),
            ("* * * * 8", "\"8\" is no day of the week"),
            ("* * * * mo", "\"mo\" is no day of the week"),
            ("5-1 * * * *", "the range runs backwards"),
            ("*/0 * * * *", "the step"),
            ("*/ * * * *", "the step"),
            ("1,,2 * * * *", "\"\" is no minute"),
            ("+1 * * * *", "\"+1\" is no minute"),
            ("-1 * * * *", "\"\" is no minute"),
            ("0 0 31 2 *", "never comes"),
        ] {
            let error = text.parse::<Cron>().expect_err(text).to_string();
            assert!(error.contains(expected), "{text:?}: {error}");
        }
    }
}
