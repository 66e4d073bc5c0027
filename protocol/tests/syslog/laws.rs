//! Laws: what holds for every message, whatever its bytes.

use jiff::{Timestamp, tz::TimeZone};
use proptest::{collection::vec, option, prelude::*, sample::select};
use steward_protocol::syslog::{self, Clock, Facility, Form, Message, Severity};

/// Bytes that look like parts of messages.
fn pieces() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"<13>",
        b"<191>",
        b"<192>",
        b"<",
        b">",
        b"1 ",
        b"- ",
        b"-",
        b" ",
        b"  ",
        b":",
        b": ",
        b"[",
        b"]",
        b"=",
        b"\"",
        b"\\",
        b"\\\"",
        b"[a b=\"c\"]",
        b"Jun 30 10:00:00",
        b"Feb 29 23:59:60",
        b"Jun 30 2026 10:00:00",
        b"2026-06-30T10:00:00Z",
        b"2026-06-30T10:00:00.123+02:00",
        b".5",
        b"*",
        b"29: ",
        b"host",
        b"app",
        b"[12]",
        b" UTC: %",
        b"\xef\xbb\xbf",
        b"\xff",
        b"\0",
        b"\n",
        b"\r",
        b"9999",
        b"2026",
        b"0",
    ];
    vec(select(pieces), 0..16).prop_map(|pieces| pieces.concat())
}

fn any_message() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![pieces(), vec(any::<u8>(), 0..200)]
}

/// Whether `part` lies within `whole`, in memory.
fn is_within(part: &[u8], whole: &[u8]) -> bool {
    let (part, whole) = (part.as_ptr_range(), whole.as_ptr_range());
    part.start >= whole.start && part.end <= whole.end
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3000))]

    #[test]
    fn whatever_comes_is_read_and_nothing_is_made_up(raw in any_message()) {
        let message = Message::parse(&raw);
        for part in [message.host(), message.app(), message.procid(), message.msgid()].into_iter().flatten() {
            prop_assert!(!part.is_empty() && is_within(part, &raw));
        }
        prop_assert!(is_within(message.text(), &raw) || message.text().is_empty());
        prop_assert!(raw[message.text_offset()..].starts_with(message.text()));
        let rest = &raw[message.text_offset() + message.text().len()..];
        prop_assert!(rest.iter().all(|byte| matches!(byte, 0 | b'\n' | b'\r')));
        if message.form() == Form::Unparsed {
            prop_assert_eq!(message.text_offset(), 0);
            prop_assert!(message.severity().is_none() && message.stamp().is_none() && message.app().is_none());
        }
        prop_assert_eq!(message.app(), syslog::app(&raw));
        prop_assert_eq!(message.facility().zip(message.severity()), syslog::pri(&raw));
        let data: usize = message.data().map(|element| {
            let within = |parameter: syslog::Parameter<'_>| {
                let value = parameter.value();
                assert!(value.len() <= parameter.raw_value().len());
                parameter.name().len() + parameter.raw_value().len() + 4
            };
            element.id().len() + 2 + element.parameters().map(within).sum::<usize>()
        }).sum();
        // Only spaces stand between parameters.
        prop_assert!(data <= message.raw_data().len());
        prop_assert_eq!(data == 0, message.raw_data().is_empty());
    }

    #[test]
    fn whatever_time_is_written_is_resolved_or_is_none(raw in any_message(), at in any::<i64>()) {
        let zone = TimeZone::UTC;
        let received = Timestamp::from_second(at % 200_000_000_000).unwrap();
        if let Some(stamp) = Message::parse(&raw).stamp()
            && let Some(sent) = Clock::new(received, &zone).resolve(&stamp)
            && !stamp.has_year()
        {
            // At most into the next month, and a year back; to the last 29 February it may be eight.
            let days = sent.at.duration_since(received).as_hours() / 24;
            let leap = stamp.as_bytes().starts_with(b"Feb 29");
            let back = if leap { -2922 } else { -366 };
            prop_assert!((back..=62).contains(&days), "{} days", days);
        }
    }

    #[test]
    fn what_is_written_by_rfc_5424_is_read_as_it_was_meant(
        pri in 0_u8..=191,
        fields in vec(option::of("[!-,.-~][!-~]{0,20}"), 4),
        data in vec(("[!#-<>-Z^-~]{1,8}", vec(("[!#-<>-Z^-~]{1,8}", "[ -~äß]{0,12}"), 0..3)), 0..3),
        text in "[ -~äß]{0,40}",
    ) {
        let nil = |field: &Option<String>| field.clone().unwrap_or_else(|| "-".to_owned());
        let mut written = String::new();
        for (id, parameters) in &data {
            written += &format!("[{id}");
            for (name, value) in parameters {
                let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace(']', "\\]");
                written += &format!(" {name}=\"{value}\"");
            }
            written += "]";
        }
        if written.is_empty() {
            written += "-";
        }
        let fields_written: Vec<_> = fields.iter().map(nil).collect();
        let line = format!("<{pri}>1 2026-06-30T10:00:00.5Z {} {written} {text}", fields_written.join(" "));
        let message = Message::parse(line.as_bytes());
        prop_assert_eq!(message.form(), Form::Rfc5424);
        prop_assert_eq!(message.facility().map(Facility::number), Some(pri / 8));
        prop_assert_eq!(message.severity().map(Severity::number), Some(pri % 8));
        let read = [message.host(), message.app(), message.procid(), message.msgid()];
        for (field, read) in fields.iter().zip(read) {
            prop_assert_eq!(field.as_deref().map(str::as_bytes), read);
        }
        let read: Vec<_> = message.data().map(|element| {
            let parameters = element.parameters().map(|parameter| {
                (string(parameter.name()), string(&parameter.value()))
            });
            (string(element.id()), parameters.collect::<Vec<_>>())
        }).collect();
        prop_assert_eq!(data, read);
        prop_assert_eq!(string(message.text()), text);
    }
}

fn string(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}
