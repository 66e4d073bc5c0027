//! The sender's time as it is written: found and taken apart, not yet believed.
//!
//! It knows no clock and no zone; [`super::clock`] makes a moment of it.
//!
//! What is read: RFC 3339 (RFC 5424 §6.2.3; in a 3164 frame as rsyslog writes it to files), also without zone
//! or with `+0100`; `Mmm dd hh:mm:ss` (RFC 3164 §4.1.2) with the day as ` 1`, `01` or `1`; the year before the
//! time (Cisco ASA) or behind it (Linksys); fractions of a second behind a dot (Cisco IOS); `*` or `.` in
//! front (Cisco: the clock is not set) and a zone's name behind it (Cisco, only before `: %`).

use super::scan::{Digits, take_digits};

/// The sender's time, as written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp<'a> {
    text: &'a [u8],
    pub(super) year: Option<i16>,
    pub(super) month: i8,
    pub(super) day: i8,
    pub(super) hour: i8,
    pub(super) minute: i8,
    /// Up to 60: a leap second.
    pub(super) second: i8,
    pub(super) nanosecond: i32,
    /// Seconds east of Greenwich.
    pub(super) offset: Option<i32>,
}

impl<'a> Stamp<'a> {
    /// Returns it as the sender wrote it.
    pub fn as_bytes(&self) -> &'a [u8] {
        self.text
    }

    /// Tells whether the sender wrote a year.
    pub fn has_year(&self) -> bool {
        self.year.is_some()
    }

    /// Tells whether the sender wrote a zone.
    pub fn has_zone(&self) -> bool {
        self.offset.is_some()
    }
}

/// Years that are taken for one where a host's name could stand as well.
const LIKELY_YEARS: std::ops::RangeInclusive<u32> = 1970..=2099;

/// Reads RFC 3339 at the beginning of `bytes` and returns what follows it.
pub(super) fn rfc3339(bytes: &[u8]) -> Option<(Stamp<'_>, &[u8])> {
    let fixed = bytes.first_chunk::<19>()?;
    if [fixed[4], fixed[7], fixed[10], fixed[13], fixed[16]] != *b"--T::" {
        return None;
    }
    let two = |at: usize| two_digits(fixed[at], fixed[at + 1]);
    let year = i16::from(two(0)?) * 100 + i16::from(two(2)?);
    let (month, day) = (two(5)?, two(8)?);
    let (hour, minute, second) = clock(two(11)?, two(14)?, two(17)?)?;
    let (nanosecond, rest) = fraction(&bytes[19..])?;
    let (offset, rest) = offset(rest)?;
    let stamp = Stamp {
        text: &bytes[..bytes.len() - rest.len()],
        year: Some(year),
        month,
        day,
        hour,
        minute,
        second,
        nanosecond,
        offset,
    };
    is_date(month, day).then_some((stamp, rest))
}

/// Reads the time of RFC 3164 and its variants at the beginning of `bytes` and returns what follows it.
pub(super) fn rfc3164(bytes: &[u8]) -> Option<(Stamp<'_>, &[u8])> {
    let unset = usize::from(matches!(bytes.first(), Some(b'*' | b'.')));
    let bytes = &bytes[unset..];
    let month = month(bytes.first_chunk::<3>()?)?;
    let rest = bytes[3..].strip_prefix(b" ")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (day, rest) = small(rest, 1..=2)?;
    let rest = rest.strip_prefix(b" ")?;
    let rest = rest.strip_prefix(b" ").unwrap_or(rest);
    let (mut year, rest) = match year(rest) {
        Some((year, behind)) => (Some(year), behind.strip_prefix(b" ")?),
        None => (None, rest),
    };
    let (hour, rest) = small(rest, 1..=2)?;
    let fixed = rest.first_chunk::<6>()?;
    if [fixed[0], fixed[3]] != *b"::" {
        return None;
    }
    let (minute, second) = (
        two_digits(fixed[1], fixed[2])?,
        two_digits(fixed[4], fixed[5])?,
    );
    let (hour, minute, second) = clock(hour, minute, second)?;
    let (nanosecond, mut rest) = fraction(&rest[6..])?;
    if year.is_none()
        && let Some((behind, end)) = rest.strip_prefix(b" ").and_then(self::year)
        && matches!(end, [b' ', ..] | [b':', b' ', ..])
    {
        (year, rest) = (Some(behind), end);
    }
    let mut offset = None;
    if let Some((zone, end)) = named_zone(rest) {
        (offset, rest) = (zone, end);
    }
    let stamp = Stamp {
        text: &bytes[..bytes.len() - rest.len()],
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanosecond,
        offset,
    };
    is_date(month, day).then_some((stamp, rest))
}

fn clock(hour: i8, minute: i8, second: i8) -> Option<(i8, i8, i8)> {
    (hour < 24 && minute < 60 && second <= 60).then_some((hour, minute, second))
}

/// Whether a year exists that has the day.
fn is_date(month: i8, day: i8) -> bool {
    let days = match month {
        4 | 6 | 9 | 11 => 30,
        2 => 29,
        1..=12 => 31,
        _ => 0,
    };
    (1..=days).contains(&day)
}

fn digit(byte: u8) -> Option<i8> {
    let value = byte.wrapping_sub(b'0');
    (value < 10).then_some(value as i8)
}

fn two_digits(tens: u8, ones: u8) -> Option<i8> {
    Some(digit(tens)? * 10 + digit(ones)?)
}

fn small(bytes: &[u8], lengths: Digits) -> Option<(i8, &[u8])> {
    let (value, rest) = take_digits(bytes, lengths)?;
    Some((i8::try_from(value).ok()?, rest))
}

fn year(bytes: &[u8]) -> Option<(i16, &[u8])> {
    let (value, rest) = take_digits(bytes, 4..=4)?;
    let year = i16::try_from(value).ok()?;
    LIKELY_YEARS.contains(&value).then_some((year, rest))
}

fn month(name: &[u8; 3]) -> Option<i8> {
    // Some devices write JAN or jan.
    let name = [name[0] & !0x20, name[1] | 0x20, name[2] | 0x20];
    let month = match &name {
        b"Jan" => 1,
        b"Feb" => 2,
        b"Mar" => 3,
        b"Apr" => 4,
        b"May" => 5,
        b"Jun" => 6,
        b"Jul" => 7,
        b"Aug" => 8,
        b"Sep" => 9,
        b"Oct" => 10,
        b"Nov" => 11,
        b"Dec" => 12,
        _ => return None,
    };
    Some(month)
}

/// Reads `.` and digits, if they are there; digits behind the ninth do not count.
fn fraction(bytes: &[u8]) -> Option<(i32, &[u8])> {
    let Some(digits) = bytes.strip_prefix(b".") else {
        return Some((0, bytes));
    };
    let mut nanoseconds = 0;
    let mut unit = 100_000_000;
    let mut length = 0;
    while let Some(value) = digits.get(length).copied().and_then(digit) {
        nanoseconds += i32::from(value) * unit;
        unit /= 10;
        length += 1;
    }
    (length > 0).then_some((nanoseconds, &digits[length..]))
}

/// Reads `Z`, `+01:00` or `+0100`, if one is there.
fn offset(bytes: &[u8]) -> Option<(Option<i32>, &[u8])> {
    let sign = match bytes.first() {
        Some(b'Z' | b'z') => return Some((Some(0), &bytes[1..])),
        Some(b'+') => 1,
        Some(b'-') => -1,
        _ => return Some((None, bytes)),
    };
    let digits = bytes.get(1..)?;
    let hours = i32::from(two_digits(*digits.first()?, *digits.get(1)?)?);
    let rest = &digits[2..];
    let rest = rest.strip_prefix(b":").unwrap_or(rest);
    let minutes = i32::from(two_digits(*rest.first()?, *rest.get(1)?)?);
    let seconds = sign * (hours * 3600 + minutes * 60);
    (hours < 24 && minutes < 60).then_some((Some(seconds), &rest[2..]))
}

/// Reads a zone's name that stands before `: %`, as Cisco IOS writes it. Names other than these two mean
/// different things in different places and are left to the configured zone.
fn named_zone(bytes: &[u8]) -> Option<(Option<i32>, &[u8])> {
    let name = bytes.strip_prefix(b" ")?;
    let length = name.iter().take(6).position(|byte| *byte == b':')?;
    let (name, rest) = name.split_at(length);
    if length < 2 || !name.iter().all(u8::is_ascii_uppercase) || !rest.starts_with(b": %") {
        return None;
    }
    let zone = matches!(name, b"UTC" | b"GMT").then_some(0);
    Some((zone, rest))
}
