//! Which moment a sender means, given when its message was received and where.
//!
//! It reads no clock: the time of receipt and the zone are handed in. The time of receipt always stands beside what
//! comes out of here, and never gives way to it.
//!
//! 1. A zone that is written holds. One that is not is the configured one; when the clocks of that zone are set back
//!    or forward, of the two readings the one nearer to the receipt.
//! 2. A year that is written holds. One that is not is the latest that puts the message into the month after the receipt
//!    or before it: on 1 January `Dec 31` was yesterday, on 31 December `Jan 1` is a sender whose clock is ahead, and what is
//!    read late is old and not of the future. rsyslog and syslog-ng choose the same wherever they agree. `Feb 29` is of
//!    the last leap year.
//! 3. The second 60 is the first one of the next minute.
//! 4. A time further from the receipt than [`Clock::ahead`] or [`Clock::behind`] is kept and marked, not mended: the
//!    sender's clock may be wrong, or the message may be old.

use std::cmp::Ordering;

use jiff::{SignedDuration, Timestamp, civil, tz::TimeZone};

use super::stamp::Stamp;

/// How far ahead of the receipt a sender's time may be: clocks that are kept differ by less, and a wrong zone
/// makes more.
pub const AHEAD: SignedDuration = SignedDuration::from_mins(10);

/// How far behind the receipt a sender's time may be: a file may be read when its program has been at it
/// for a day.
pub const BEHIND: SignedDuration = SignedDuration::from_hours(24);

/// Years around the receipt in which a day without a year is looked for: between two leap years there are up to eight.
const YEARS: std::ops::RangeInclusive<i16> = -8..=1;

/// When and where a message was received.
#[derive(Debug, Clone, Copy)]
pub struct Clock<'z> {
    /// When it was received.
    pub received: Timestamp,
    /// The zone of senders that name none.
    pub zone: &'z TimeZone,
    /// How far ahead a time may be without a mark.
    pub ahead: SignedDuration,
    /// How far behind a time may be without a mark.
    pub behind: SignedDuration,
}

impl<'z> Clock<'z> {
    /// Returns one with the usual bounds.
    pub fn new(received: Timestamp, zone: &'z TimeZone) -> Self {
        Self {
            received,
            zone,
            ahead: AHEAD,
            behind: BEHIND,
        }
    }

    /// Returns the moment that is meant, or none when it lies outside of the calendar.
    pub fn resolve(&self, stamp: &Stamp<'_>) -> Option<Sent> {
        let at = match stamp.year {
            Some(year) => self.in_year(stamp, year)?,
            None => self.in_latest_year(stamp)?,
        };
        let gap = at.duration_since(self.received);
        let doubt = if gap > self.ahead {
            Some(Doubt::Ahead)
        } else if gap < -self.behind {
            Some(Doubt::Behind)
        } else {
            None
        };
        Some(Sent { at, doubt })
    }

    fn in_latest_year(&self, stamp: &Stamp<'_>) -> Option<Timestamp> {
        let here = self.zone.to_datetime(self.received);
        let is_later = here.month() == 12 && stamp.month == 1;
        let may_be = |years: i16| match years.cmp(&0) {
            Ordering::Less => true,
            Ordering::Equal => stamp.month <= here.month() + 1,
            Ordering::Greater => is_later,
        };
        YEARS
            .rev()
            .filter(|years| may_be(*years))
            .filter_map(|years| here.year().checked_add(years))
            .find_map(|year| self.in_year(stamp, year))
    }

    fn in_year(&self, stamp: &Stamp<'_>, year: i16) -> Option<Timestamp> {
        let date = civil::Date::new(year, stamp.month, stamp.day).ok()?;
        let second = stamp.second.min(59);
        let time = civil::Time::new(stamp.hour, stamp.minute, second, stamp.nanosecond).ok()?;
        let at = self.in_zone(date.to_datetime(time), stamp.offset)?;
        let leap = SignedDuration::from_secs(i64::from(stamp.second - second));
        at.checked_add(leap).ok()
    }

    fn in_zone(&self, local: civil::DateTime, offset: Option<i32>) -> Option<Timestamp> {
        if let Some(seconds) = offset {
            let offset = jiff::tz::Offset::from_seconds(seconds).ok()?;
            return offset.to_timestamp(local).ok();
        }
        let readings = self.zone.to_ambiguous_timestamp(local);
        if !readings.is_ambiguous() {
            return readings.compatible().ok();
        }
        let (one, other) = (readings.earlier().ok()?, readings.later().ok()?);
        let nearer = self.distance(one) <= self.distance(other);
        Some(if nearer { one } else { other })
    }

    fn distance(&self, at: Timestamp) -> SignedDuration {
        at.duration_since(self.received).abs()
    }
}

/// The moment a sender means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Sent {
    /// When it says it sent.
    pub at: Timestamp,
    /// Why that is hard to believe, if it is.
    pub doubt: Option<Doubt>,
}

/// Why a sender's time is hard to believe.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Doubt {
    /// It is too far ahead of the receipt.
    Ahead,
    /// It is too far behind the receipt.
    Behind,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::syslog::Message;

    #[track_caller]
    fn check(zone: &str, received: &str, written: &str, expected: (&str, Option<Doubt>)) {
        let zone = TimeZone::get(zone).expect("a zone");
        let clock = Clock::new(received.parse().expect("a time"), &zone);
        let line = format!("<13>{written} host app: text");
        let message = Message::parse(line.as_bytes());
        let stamp = message.stamp().expect("a time");
        assert_eq!(stamp.as_bytes(), written.as_bytes());
        let sent = clock.resolve(&stamp).expect("a moment");
        let expected = Sent {
            at: expected.0.parse().expect("a time"),
            doubt: expected.1,
        };
        assert_eq!(sent, expected, "{written} at {received}");
    }

    #[test]
    fn a_missing_year_is_the_latest_that_does_not_lie_ahead() {
        for (received, written, expected, doubt) in [
            (
                "2026-07-01T12:00:00Z",
                "Jul  1 11:59:59",
                "2026-07-01T11:59:59Z",
                None,
            ),
            // New Year, from both sides.
            (
                "2026-01-01T00:00:05Z",
                "Dec 31 23:59:58",
                "2025-12-31T23:59:58Z",
                None,
            ),
            (
                "2025-12-31T23:59:58Z",
                "Jan  1 00:00:05",
                "2026-01-01T00:00:05Z",
                None,
            ),
            // A month is of the past, unless it is the next one.
            (
                "2026-07-01T00:00:00Z",
                "Jan  2 00:00:00",
                "2026-01-02T00:00:00Z",
                Some(Doubt::Behind),
            ),
            (
                "2026-07-10T00:00:00Z",
                "Aug  2 00:00:00",
                "2026-08-02T00:00:00Z",
                Some(Doubt::Ahead),
            ),
            (
                "2026-07-10T00:00:00Z",
                "Sep  2 00:00:00",
                "2025-09-02T00:00:00Z",
                Some(Doubt::Behind),
            ),
            (
                "2026-11-30T00:00:00Z",
                "Jan  2 00:00:00",
                "2026-01-02T00:00:00Z",
                Some(Doubt::Behind),
            ),
            (
                "2026-12-01T00:00:00Z",
                "Jan 31 00:00:00",
                "2027-01-31T00:00:00Z",
                Some(Doubt::Ahead),
            ),
            // A day that this year does not have.
            (
                "2026-03-01T00:00:00Z",
                "Feb 29 00:00:00",
                "2024-02-29T00:00:00Z",
                Some(Doubt::Behind),
            ),
            (
                "2028-03-02T00:00:00Z",
                "Feb 29 00:00:00",
                "2028-02-29T00:00:00Z",
                Some(Doubt::Behind),
            ),
            (
                "2028-01-31T00:00:00Z",
                "Feb 29 00:00:00",
                "2028-02-29T00:00:00Z",
                Some(Doubt::Ahead),
            ),
            (
                "2103-03-01T00:00:00Z",
                "Feb 29 00:00:00",
                "2096-02-29T00:00:00Z",
                Some(Doubt::Behind),
            ),
        ] {
            check("UTC", received, written, (expected, doubt));
        }
    }

    #[test]
    fn a_missing_zone_is_the_configured_one_and_a_written_one_holds() {
        for (received, written, expected) in [
            (
                "2026-07-01T12:00:00Z",
                "Jul  1 14:00:00",
                "2026-07-01T12:00:00Z",
            ),
            (
                "2026-01-10T12:00:00Z",
                "Jan 10 13:00:00",
                "2026-01-10T12:00:00Z",
            ),
            // The year at the receiver's, not in London.
            (
                "2025-12-31T23:30:00Z",
                "Jan  1 00:30:00",
                "2025-12-31T23:30:00Z",
            ),
            // Clocks were set back: the hour came twice.
            (
                "2026-10-25T00:30:05Z",
                "Oct 25 02:30:00",
                "2026-10-25T00:30:00Z",
            ),
            (
                "2026-10-25T01:30:05Z",
                "Oct 25 02:30:00",
                "2026-10-25T01:30:00Z",
            ),
            // Clocks were set forward: the hour never came.
            (
                "2026-03-29T00:30:00Z",
                "Mar 29 02:30:00",
                "2026-03-29T00:30:00Z",
            ),
            (
                "2026-03-29T01:30:00Z",
                "Mar 29 02:30:00",
                "2026-03-29T01:30:00Z",
            ),
            (
                "2026-07-01T12:00:00Z",
                "2026-07-01T12:00:00Z",
                "2026-07-01T12:00:00Z",
            ),
            (
                "2026-07-01T12:00:00Z",
                "2026-07-01T12:00:00.5-00:30",
                "2026-07-01T12:30:00.5Z",
            ),
            (
                "2026-07-01T12:00:00Z",
                "2026-07-01T14:00:00",
                "2026-07-01T12:00:00Z",
            ),
        ] {
            let doubt = written.contains("-00:30").then_some(Doubt::Ahead);
            check("Europe/Berlin", received, written, (expected, doubt));
        }
    }

    #[test]
    fn a_time_beyond_the_bounds_is_kept_and_marked() {
        let received = "2026-07-02T12:00:00Z";
        for (written, expected, doubt) in [
            ("2026-07-02T12:10:00Z", "2026-07-02T12:10:00Z", None),
            (
                "2026-07-02T12:10:00.000001Z",
                "2026-07-02T12:10:00.000001Z",
                Some(Doubt::Ahead),
            ),
            ("2026-07-01T12:00:00Z", "2026-07-01T12:00:00Z", None),
            (
                "2026-07-01T11:59:59.999999Z",
                "2026-07-01T11:59:59.999999Z",
                Some(Doubt::Behind),
            ),
            (
                "1970-01-01T00:00:00Z",
                "1970-01-01T00:00:00Z",
                Some(Doubt::Behind),
            ),
            (
                "Jun 30 2016 23:59:60",
                "2016-07-01T00:00:00Z",
                Some(Doubt::Behind),
            ),
        ] {
            check("UTC", received, written, (expected, doubt));
        }
    }

    #[test]
    fn a_time_outside_of_the_calendar_is_no_moment() {
        let zone = TimeZone::UTC;
        let clock = Clock::new(Timestamp::UNIX_EPOCH, &zone);
        for written in ["9999-12-31T23:59:60-23:59", "2025-02-29T00:00:00Z"] {
            let line = format!("<13>{written} host app: text");
            let message = Message::parse(line.as_bytes());
            let stamp = message.stamp().expect("a time");
            assert_eq!(clock.resolve(&stamp), None, "{written}");
        }
        // Before the calendar there is no leap year.
        for (received, is_some) in [(Timestamp::MIN, false), (Timestamp::MAX, true)] {
            let clock = Clock::new(received, &zone);
            let message = Message::parse(b"<13>Feb 29 00:00:00 host app: text");
            let sent = clock.resolve(&message.stamp().expect("a time"));
            assert_eq!(sent.is_some(), is_some);
        }
    }
}
