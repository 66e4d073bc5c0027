//! One syslog message, read from arbitrary bytes: it is never a panic, every part lies where it was written, and the quick
//! ways say what the whole way says.

use jiff::{Timestamp, tz::TimeZone};
use steward_protocol::syslog::{self, Clock, Form, Message};

pub(crate) fn run(raw: &[u8]) {
    let message = Message::parse(raw);
    assert!(raw[message.text_offset()..].starts_with(message.text()));
    assert_eq!(message.app(), syslog::app(raw));
    assert_eq!(message.facility().zip(message.severity()), syslog::pri(raw));
    for part in [
        message.host(),
        message.app(),
        message.procid(),
        message.msgid(),
    ] {
        assert!(part.is_none_or(|part| !part.is_empty()));
    }
    if message.form() == Form::Unparsed {
        assert_eq!(message.text_offset(), 0);
    }
    let mut read = 0;
    for element in message.data() {
        read += element.id().len() + 2;
        for parameter in element.parameters() {
            assert!(parameter.value().len() <= parameter.raw_value().len());
            read += parameter.name().len() + parameter.raw_value().len() + 4;
        }
    }
    assert_eq!(read == 0, message.raw_data().is_empty());
    assert!(read <= message.raw_data().len());
    if let Some(stamp) = message.stamp() {
        let zone = TimeZone::UTC;
        let _ = Clock::new(Timestamp::UNIX_EPOCH, &zone).resolve(&stamp);
    }
}
