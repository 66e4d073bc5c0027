//! What each method gets: one typed body per method, read in one place by station and agent alike.
//!
//! It knows the shape of a body and what contradicts itself in it. It does not know where it runs,
//! and on the wire it ignores fields it does not know (design section 4.2).

use serde::{Deserialize, Serialize, Serializer, de::DeserializeOwned};

use crate::{method::Method, name::MethodName};

mod check;
mod error;
mod file;
mod local;
mod shell;
mod unit;

pub use self::{
    error::{BodyError, Step},
    file::{FetchBody, HttpBody, IfMatch, Mode, SendBody, TailBody, TailFrom, WriteBody},
    local::{
        Missed, ProcessAction, ProcessesBody, ScheduleAction, ScheduleBody, Scheduled, TextBody,
    },
    shell::{Limits, ShellBody},
    unit::{Bytes, Quota, Span},
};

/// The body of a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    /// Of `shellcommand`, and of a method this program does not know: a newer node may.
    Shell(ShellBody),
    /// Of the methods that need none: `hello`, `ping`.
    Nothing,
    /// Of `filewrite` and `fileappend`.
    Write(WriteBody),
    /// Of `filefetch`.
    Fetch(FetchBody),
    /// Of `filesend`.
    Send(SendBody),
    /// Of `tailfile`.
    Tail(TailBody),
    /// Of `httpget`.
    Http(HttpBody),
    /// Of `processes`.
    Processes(ProcessesBody),
    /// Of `schedule`.
    Schedule(Box<ScheduleBody>),
    /// Of `textlogging`.
    Text(TextBody),
}

impl Serialize for Body {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Shell(body) => body.serialize(serializer),
            Self::Nothing => serializer.collect_map(std::iter::empty::<((), ())>()),
            Self::Write(body) => body.serialize(serializer),
            Self::Fetch(body) => body.serialize(serializer),
            Self::Send(body) => body.serialize(serializer),
            Self::Tail(body) => body.serialize(serializer),
            Self::Http(body) => body.serialize(serializer),
            Self::Processes(body) => body.serialize(serializer),
            Self::Schedule(body) => body.serialize(serializer),
            Self::Text(body) => body.serialize(serializer),
        }
    }
}

impl Body {
    /// Reads the body of `method` and checks that it does not contradict itself.
    ///
    /// # Errors
    ///
    /// Names the field that cannot be used, and why.
    pub fn read(method: &MethodName, text: &str) -> Result<Self, BodyError> {
        let body = match Method::from_name(method) {
            // Nothing of it is used, so nothing in it can be wrong.
            Some(Method::Hello | Method::Ping) => Self::Nothing,
            Some(Method::Filewrite | Method::Fileappend) => Self::Write(typed(text)?),
            Some(Method::Filefetch) => Self::Fetch(typed(text)?),
            Some(Method::Filesend) => Self::Send(typed(text)?),
            Some(Method::Tailfile) => Self::Tail(typed(text)?),
            Some(Method::Httpget) => Self::Http(typed(text)?),
            Some(Method::Processes) => Self::Processes(typed(text)?),
            Some(Method::Schedule) => Self::Schedule(Box::new(typed(text)?)),
            Some(Method::Textlogging) => Self::Text(typed(text)?),
            Some(
                Method::Shellcommand
                | Method::Welcome
                | Method::Ack
                | Method::Confirm
                | Method::Fault
                | Method::Cancel
                | Method::Report
                | Method::Output
                | Method::Want
                | Method::Content
                | Method::Syslogforwarding
                | Method::Kept,
            ) => Self::Shell(typed(text)?),
            // The rules of a method that is not known here are not known either.
            None => return typed(text).map(Self::Shell),
        };
        check::body(&body)?;
        Ok(body)
    }

    /// Returns the names of the fields that make up the body of `method`, in the order they are shown.
    pub fn fields(method: &MethodName) -> &'static [&'static str] {
        match Method::from_name(method) {
            Some(Method::Hello | Method::Ping) => &[],
            Some(Method::Filewrite | Method::Fileappend) => WriteBody::FIELDS,
            Some(Method::Filefetch) => FetchBody::FIELDS,
            Some(Method::Filesend) => SendBody::FIELDS,
            Some(Method::Tailfile) => TailBody::FIELDS,
            Some(Method::Httpget) => HttpBody::FIELDS,
            Some(Method::Processes) => ProcessesBody::FIELDS,
            Some(Method::Schedule) => ScheduleBody::FIELDS,
            Some(Method::Textlogging) => TextBody::FIELDS,
            Some(
                Method::Shellcommand
                | Method::Welcome
                | Method::Ack
                | Method::Confirm
                | Method::Fault
                | Method::Cancel
                | Method::Report
                | Method::Output
                | Method::Want
                | Method::Content
                | Method::Syslogforwarding
                | Method::Kept,
            )
            | None => ShellBody::FIELDS,
        }
    }
}

/// Reads a JSON object; the error names the way to the value that is wrong.
fn typed<T: DeserializeOwned>(text: &str) -> Result<T, BodyError> {
    // A list would be taken for the values of the fields in their order.
    if !text.trim_start().starts_with('{') {
        return Err(BodyError::whole("is not a JSON object"));
    }
    let mut reader = serde_json::Deserializer::from_str(text);
    let value = serde_path_to_error::deserialize(&mut reader).map_err(BodyError::from_serde)?;
    reader
        .end()
        .map_err(|error| BodyError::whole(format!("is followed by something else: {error}")))?;
    Ok(value)
}

/// Reads a value that may be `null` where it may be left out.
fn or_default<'de, D, T>(deserializer: D) -> Result<T, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Default + Deserialize<'de>,
{
    Option::<T>::deserialize(deserializer).map(Option::unwrap_or_default)
}

#[cfg(test)]
mod tests;
