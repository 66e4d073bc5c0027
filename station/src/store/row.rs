//! Reading rows, and one column of a row as the type it was written from.

use std::{fmt::Display, str::FromStr};

use jiff::Timestamp;
use rusqlite::{Connection, Row, ToSql, types::FromSql};

use super::{StoreError, sql};

/// A question to a database, and what it is for.
pub(super) struct Question<'a> {
    pub(super) connection: &'a Connection,
    pub(super) what: &'static str,
    pub(super) query: &'a str,
}

impl Question<'_> {
    /// Reads all rows of the answer.
    pub(super) fn collect<T>(
        &self,
        values: &[&dyn ToSql],
        mut read: impl FnMut(&Row<'_>) -> Result<T, StoreError>,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self
            .connection
            .prepare_cached(self.query)
            .map_err(sql(self.what))?;
        let mut rows = statement.query(values).map_err(sql(self.what))?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(sql(self.what))? {
            found.push(read(row)?);
        }
        Ok(found)
    }
}

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
