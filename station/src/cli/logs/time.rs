//! The times `steward logs` understands: what journalctl understands. Pure.

use jiff::{SignedDuration, Timestamp, Zoned, civil};

use crate::config::values;

/// Reads a point in time, seen from `now`, in whose zone it is meant.
///
/// # Errors
///
/// Says how a time is written.
pub(super) fn time(text: &str, now: &Zoned) -> Result<Timestamp, String> {
    let text = text.trim();
    let day = |days: i64| {
        let date = now.date().checked_add(jiff::Span::new().days(days)).ok()?;
        start(date, now)
    };
    let found = match text {
        "now" => Some(now.timestamp()),
        "today" => day(0),
        "yesterday" => day(-1),
        "tomorrow" => day(1),
        _ => seconds(text)
            .or_else(|| relative(text, now))
            .or_else(|| absolute(text, now)),
    };
    found.ok_or_else(|| {
        format!(
            "{text:?} is not a time; write for example \"2026-11-21 08:00\", 08:00, today, yesterday, now, -1h, \"5 min ago\" or @1795248000"
        )
    })
}

fn start(date: civil::Date, now: &Zoned) -> Option<Timestamp> {
    Some(date.to_zoned(now.time_zone().clone()).ok()?.timestamp())
}

/// `@1795248000`, seconds since 1970.
fn seconds(text: &str) -> Option<Timestamp> {
    Timestamp::from_second(text.strip_prefix('@')?.parse().ok()?).ok()
}

/// `-1h`, `+5m`, `1h ago`, and a duration alone, which is counted back.
fn relative(text: &str, now: &Zoned) -> Option<Timestamp> {
    let (span, ahead) = match (text.strip_prefix('+'), text.strip_prefix('-')) {
        (Some(span), _) => (span, true),
        (_, Some(span)) => (span, false),
        _ => (text.strip_suffix("ago").unwrap_or(text), false),
    };
    let span = SignedDuration::try_from(values::duration(span).ok()?).ok()?;
    let at = now.timestamp();
    match ahead {
        true => at.checked_add(span).ok(),
        false => at.checked_sub(span).ok(),
    }
}

/// RFC 3339; or a day, a time of today, or both, in the zone at hand.
fn absolute(text: &str, now: &Zoned) -> Option<Timestamp> {
    if let Ok(at) = text.parse::<Timestamp>() {
        return Some(at);
    }
    let zone = now.time_zone().clone();
    let local = |at: civil::DateTime| Some(at.to_zoned(zone).ok()?.timestamp());
    if text.contains('-') {
        // A day alone is its midnight; the civil parser knows both, seconds or not.
        return local(text.parse::<civil::DateTime>().ok()?);
    }
    let time: civil::Time = text.contains(':').then(|| text.parse().ok())??;
    local(now.date().to_datetime(time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_understood_as_journalctl_understands_them() {
        let now: Zoned = "2026-11-21T10:30:00+01:00[Europe/Oslo]"
            .parse()
            .expect("a time");
        for (text, expected) in [
            ("now", Some("2026-11-21T09:30:00Z")),
            ("today", Some("2026-11-20T23:00:00Z")),
            ("yesterday", Some("2026-11-19T23:00:00Z")),
            ("tomorrow", Some("2026-11-21T23:00:00Z")),
            ("-1h", Some("2026-11-21T08:30:00Z")),
            ("1h", Some("2026-11-21T08:30:00Z")),
            ("+90s", Some("2026-11-21T09:31:30Z")),
            ("5 min ago", Some("2026-11-21T09:25:00Z")),
            ("-1h 30m", Some("2026-11-21T08:00:00Z")),
            ("2026-11-21T08:00:00Z", Some("2026-11-21T08:00:00Z")),
            ("2026-11-21T08:00:00+02:00", Some("2026-11-21T06:00:00Z")),
            ("2026-11-21 08:00:00", Some("2026-11-21T07:00:00Z")),
            ("2026-11-21 08:00", Some("2026-11-21T07:00:00Z")),
            ("2026-07-01 08:00", Some("2026-07-01T06:00:00Z")),
            ("2026-11-21", Some("2026-11-20T23:00:00Z")),
            ("08:00", Some("2026-11-21T07:00:00Z")),
            ("08:00:30", Some("2026-11-21T07:00:30Z")),
            ("@0", Some("1970-01-01T00:00:00Z")),
            ("", None),
            ("-", None),
            ("soon", None),
            ("8", None),
            ("2026-13-01", None),
            ("25:00", None),
            ("@x", None),
        ] {
            let expected = expected.map(|at| at.parse::<Timestamp>().expect("a time"));
            assert_eq!(time(text, &now).ok(), expected, "{text:?}");
        }
    }
}
