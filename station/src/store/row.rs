//! Reading one column as the type it was written from.

use std::{fmt::Display, str::FromStr};

use jiff::Timestamp;
use rusqlite::{Row, types::FromSql};

use super::{StoreError, sql};

pub(super) fn corrupt(what: &'static str, error: &dyn Display) -> StoreError {
    StoreError::Corrupt {
        what,
        detail: error.to_string(),
    }
}

pub(super) fn get<T: FromSql>(row: &Row<'_>, column: usize) -> Result<T, StoreError> {
    row.get(column).map_err(sql("read a column"))
}

pub(super) fn parse<T>(row: &Row<'_>, column: usize, what: &'static str) -> Result<T, StoreError>
where
    T: FromStr<Err: Display>,
{
    let text: String = get(row, column)?;
    text.parse().map_err(|error| corrupt(what, &error))
}

pub(super) fn parse_optional<T>(
    row: &Row<'_>,
    column: usize,
    what: &'static str,
) -> Result<Option<T>, StoreError>
where
    T: FromStr<Err: Display>,
{
    let text: Option<String> = get(row, column)?;
    text.map(|text| text.parse().map_err(|error| corrupt(what, &error)))
        .transpose()
}

/// Times are kept as milliseconds since 1970, UTC.
pub(super) fn timestamp(milliseconds: i64) -> Result<Timestamp, StoreError> {
    Timestamp::from_millisecond(milliseconds).map_err(|error| corrupt("a time", &error))
}
