//! The header of RFC 5424.
//!
//! Version 1 only: another version may mean anything. The timestamp decides: behind `1 ` stands `-` or RFC 3339, or
//! the message is of another kind. Fields may be longer than the RFC allows and of any bytes but space.

use super::{
    Form, Header,
    scan::{trim_spaces, word},
    stamp,
};

/// Reads what follows the PRI; none when it is not this format.
pub(super) fn header(bytes: &[u8]) -> Option<Header<'_>> {
    let rest = bytes.strip_prefix(b"1 ")?;
    let (stamp, rest) = match rest.strip_prefix(b"- ") {
        Some(rest) => (None, rest),
        None => {
            let (stamp, rest) = stamp::rfc3339(rest)?;
            (Some(stamp), rest.strip_prefix(b" ")?)
        }
    };
    let (host, rest) = field(rest)?;
    let (app, rest) = field(rest)?;
    let (procid, rest) = field(rest)?;
    // Some senders end here, without the `-` for no structured data.
    let (msgid, rest) = match word(trim_spaces(rest)) {
        (field, Some(rest)) => (field, rest),
        (field, None) => (field, &field[field.len()..]),
    };
    Some(Header {
        form: Form::Rfc5424,
        stamp,
        host,
        app,
        procid,
        msgid: nil(msgid),
        rest,
    })
}

/// A field and what follows it; `None` within for the nil value.
type Field<'a> = (Option<&'a [u8]>, &'a [u8]);

fn field(bytes: &[u8]) -> Option<Field<'_>> {
    let (field, rest) = word(trim_spaces(bytes));
    Some((nil(field), rest?))
}

fn nil(field: &[u8]) -> Option<&[u8]> {
    (!matches!(field, b"-" | b"")).then_some(field)
}
