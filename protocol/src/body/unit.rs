//! Values with a unit, as people write them: durations, sizes, shares of a processor.

use std::{fmt, time::Duration};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A duration, written like `"30s"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&humantime::format_duration(self.0))
    }
}

/// Longest text of a unit that is looked at, in bytes.
const MAX_TEXT: usize = 64;

/// Longest duration that can be meant: a hundred years.
const MAX_SPAN: Duration = Duration::from_secs(100 * 366 * 24 * 3600);

/// Most digits of one number in a duration: the parser overflows on far longer ones.
const MAX_DIGITS: usize = 17;

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let long = text
            .split(|character: char| !character.is_ascii_digit())
            .any(|digits| digits.len() > MAX_DIGITS);
        if text.len() > MAX_TEXT || long {
            return Err(de::Error::custom(
                "is not a duration; write it like \"30s\"",
            ));
        }
        match humantime::parse_duration(&text) {
            Ok(span) if span > MAX_SPAN => Err(de::Error::custom("is longer than a hundred years")),
            Ok(span) => Ok(Self(span)),
            Err(_) => Err(de::Error::custom(format!(
                "{text:?} is not a duration; write it like \"30s\""
            ))),
        }
    }
}

/// A number of bytes, written as a number or like `"64MiB"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct Bytes(pub u64);

/// The suffixes of a size, and what they stand for.
const SUFFIXES: [(&str, u64); 4] = [
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("B", 1),
];

impl Bytes {
    fn parse(text: &str) -> Option<Self> {
        let (digits, unit) = SUFFIXES
            .into_iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, unit)))
            .unwrap_or((text, 1));
        let number: u64 = digits.trim_end().parse().ok()?;
        number.checked_mul(unit).map(Self)
    }
}

struct BytesVisitor;

impl de::Visitor<'_> for BytesVisitor {
    type Value = Bytes;

    fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("a number of bytes, or a text like \"64MiB\"")
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<Bytes, E> {
        Ok(Bytes(number))
    }

    fn visit_str<E: de::Error>(self, text: &str) -> Result<Bytes, E> {
        Bytes::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
    }
}

impl<'de> Deserialize<'de> for Bytes {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(BytesVisitor)
    }
}

/// A share of one processor in percent, written like `"50%"`; two processors are `"200%"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Quota(pub u32);

/// Most processors that can be meant, in percent.
const MAX_QUOTA: u32 = 1024 * 100;

impl Serialize for Quota {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&format_args!("{}%", self.0))
    }
}

impl<'de> Deserialize<'de> for Quota {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        let percent = text
            .strip_suffix('%')
            .and_then(|digits| digits.parse().ok());
        match percent {
            Some(percent @ 1..=MAX_QUOTA) => Ok(Self(percent)),
            _ => Err(de::Error::custom(format!(
                "{text:?} is not a share of a processor; write it like \"50%\", two processors are \"200%\""
            ))),
        }
    }
}
