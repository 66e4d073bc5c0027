//! Reads the journal's export format: bytes in, entries out. Pure; it knows neither journals nor processes.
//!
//! A field is `NAME=value` and LF, or NAME, LF, the value's length (64 bits, little endian), the value and LF; an empty
//! line ends an entry. Only the fields of [`Entry`] are kept, and of each only so much: memory is bounded whatever comes.

/// Longest name of a field; the journal takes 64 bytes.
const MAX_NAME: usize = 256;

/// Longest value with a length of its own; the journal takes 768 MiB. What says more is no length.
const MAX_VALUE: u64 = 1 << 30;

/// Bytes that are kept of a value other than a message: a unit's name has 255 at most, a cursor about 140.
const MAX_SMALL: usize = 512;

/// The output is not what it should be; where the next entry begins cannot be known.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum Broken {
    /// What should be a name is none.
    #[error("read a field's name: what stands there is none")]
    Name,
    /// What should be a length is none.
    #[error("read a field's length: it is {0} bytes")]
    Length(u64),
    /// A value goes on behind its end.
    #[error("read a field's value: it does not end where it should")]
    End,
}

/// A value: its beginning, and how long it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Value {
    /// As much as is kept.
    pub(super) bytes: Vec<u8>,
    /// Its whole length.
    pub(super) length: u64,
}

impl Value {
    /// Returns it, if there is one and all of it was kept.
    pub(super) fn whole(&self) -> Option<&[u8]> {
        let is_whole = self.bytes.len() as u64 == self.length;
        Some(self.bytes.as_slice()).filter(|bytes| is_whole && !bytes.is_empty())
    }

    fn clear(&mut self) {
        self.bytes.clear();
        self.length = 0;
    }
}

macro_rules! fields {
    ($($(#[$doc:meta])* $field:ident: $name:literal,)*) => {
        /// One entry, as far as it is needed. A field that is there more than once has its first value.
        #[derive(Debug, Clone, Default, PartialEq, Eq)]
        pub(super) struct Entry {
            $($(#[$doc])* pub(super) $field: Value,)*
        }

        /// The names of the fields, as in the journal.
        pub(super) const FIELDS: &[&str] = &[$($name,)*];

        impl Entry {
            fn field(&mut self, name: &[u8]) -> Option<&mut Value> {
                $(if name == $name.as_bytes() {
                    return Some(&mut self.$field);
                })*
                None
            }

            fn clear(&mut self) {
                $(self.$field.clear();)*
            }
        }
    };
}

fields! {
    /// Where it stands in the journal.
    cursor: "__CURSOR",
    /// When the journal took it: microseconds since 1970.
    realtime: "__REALTIME_TIMESTAMP",
    /// Its severity.
    priority: "PRIORITY",
    /// Its facility.
    facility: "SYSLOG_FACILITY",
    /// What its program calls itself.
    identifier: "SYSLOG_IDENTIFIER",
    /// What the system calls its program.
    command: "_COMM",
    /// The number of its process.
    pid: "_PID",
    /// The same, as its program says.
    said_pid: "SYSLOG_PID",
    /// The host.
    host: "_HOSTNAME",
    /// The unit of its process.
    unit: "_SYSTEMD_UNIT",
    /// What kind of message it is.
    message_id: "MESSAGE_ID",
    /// The message.
    message: "MESSAGE",
    /// The datagram it came as, where that is more than the message.
    raw: "SYSLOG_RAW",
}

impl Entry {
    fn is_empty(&self) -> bool {
        self.cursor.length == 0
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// In the name of a field, or at the end of an entry.
    Name,
    /// In a value that ends with its line.
    Text,
    /// In the length of a value.
    Length,
    /// In a value of which so much is to come.
    Data(u64),
    /// Behind such a value.
    End,
}

/// Reads entries from a stream of bytes.
#[derive(Debug)]
pub(super) struct Reader {
    state: State,
    name: Vec<u8>,
    length: Vec<u8>,
    entry: Entry,
    /// Whether the field that is read is the first of its name in its entry, and one that is kept.
    is_kept: bool,
    most: usize,
}

impl Reader {
    /// Returns a reader that keeps `most` bytes of a message.
    pub(super) fn new(most: usize) -> Self {
        Self {
            state: State::Name,
            name: Vec::new(),
            length: Vec::new(),
            entry: Entry::default(),
            is_kept: false,
            most,
        }
    }

    /// Takes bytes, and gives every entry that ends in them. What is no entry of a journal, for want of a cursor, is
    /// left out.
    ///
    /// # Errors
    ///
    /// Fails when the bytes are not in the format; nothing can be read from then on.
    pub(super) fn push(
        &mut self,
        mut input: &[u8],
        mut take: impl FnMut(&Entry),
    ) -> Result<(), Broken> {
        while !input.is_empty() {
            input = match self.state {
                State::Name => self.name(input, &mut take)?,
                State::Text => self.text(input),
                State::Length => self.length(input)?,
                State::Data(left) => self.data(input, left),
                State::End => {
                    if input[0] != b'\n' {
                        return Err(Broken::End);
                    }
                    self.state = State::Name;
                    &input[1..]
                }
            };
        }
        Ok(())
    }

    fn name<'i>(
        &mut self,
        input: &'i [u8],
        take: &mut impl FnMut(&Entry),
    ) -> Result<&'i [u8], Broken> {
        let end = input.iter().position(|byte| matches!(byte, b'=' | b'\n'));
        let part = &input[..end.unwrap_or(input.len())];
        let is_name = |byte: &u8| byte.is_ascii_alphanumeric() || *byte == b'_';
        if self.name.len() + part.len() > MAX_NAME || !part.iter().all(is_name) {
            return Err(Broken::Name);
        }
        self.name.extend_from_slice(part);
        let Some(end) = end else {
            return Ok(&[]);
        };
        match (input[end], self.name.is_empty()) {
            (b'\n', true) => {
                if !self.entry.is_empty() {
                    take(&self.entry);
                }
                self.entry.clear();
            }
            (_, true) => return Err(Broken::Name),
            (separator, false) => {
                let first = self.entry.field(&self.name);
                self.is_kept = first.is_some_and(|value| value.length == 0);
                self.state = match separator {
                    b'=' => State::Text,
                    _ => State::Length,
                };
            }
        }
        Ok(&input[end + 1..])
    }

    fn text<'i>(&mut self, input: &'i [u8]) -> &'i [u8] {
        let end = input.iter().position(|byte| *byte == b'\n');
        self.keep(&input[..end.unwrap_or(input.len())]);
        match end {
            Some(end) => {
                self.over();
                &input[end + 1..]
            }
            None => &[],
        }
    }

    fn length<'i>(&mut self, input: &'i [u8]) -> Result<&'i [u8], Broken> {
        const SIZE: usize = size_of::<u64>();
        let count = (SIZE - self.length.len()).min(input.len());
        self.length.extend_from_slice(&input[..count]);
        if let Ok(bytes) = <[u8; SIZE]>::try_from(self.length.as_slice()) {
            self.length.clear();
            let length = u64::from_le_bytes(bytes);
            if length > MAX_VALUE {
                return Err(Broken::Length(length));
            }
            self.state = State::Data(length);
            if length == 0 {
                self.over();
                self.state = State::End;
            }
        }
        Ok(&input[count..])
    }

    fn data<'i>(&mut self, input: &'i [u8], left: u64) -> &'i [u8] {
        let count = usize::try_from(left).map_or(input.len(), |left| left.min(input.len()));
        self.keep(&input[..count]);
        match left - count as u64 {
            0 => {
                self.over();
                self.state = State::End;
            }
            left => self.state = State::Data(left),
        }
        &input[count..]
    }

    /// Keeps a part of the value that is read, as far as it is needed.
    fn keep(&mut self, part: &[u8]) {
        if !self.is_kept {
            return;
        }
        let most = match self.name.as_slice() {
            b"MESSAGE" | b"SYSLOG_RAW" => self.most,
            _ => MAX_SMALL,
        };
        if let Some(value) = self.entry.field(&self.name) {
            let room = most.saturating_sub(value.bytes.len());
            value.bytes.extend_from_slice(&part[..room.min(part.len())]);
            value.length += part.len() as u64;
        }
    }

    /// The value has come to its end.
    fn over(&mut self) {
        self.name.clear();
        self.state = State::Name;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    type Field = (&'static str, Vec<u8>);

    fn coded(entries: &[Vec<Field>], is_binary: impl Fn(&Field) -> bool) -> Vec<u8> {
        let mut bytes = Vec::new();
        for entry in entries {
            for field in entry {
                let (name, value) = field;
                bytes.extend_from_slice(name.as_bytes());
                if is_binary(field) || value.contains(&b'\n') {
                    bytes.push(b'\n');
                    bytes.extend_from_slice(&(value.len() as u64).to_le_bytes());
                } else {
                    bytes.push(b'=');
                }
                bytes.extend_from_slice(value);
                bytes.push(b'\n');
            }
            bytes.push(b'\n');
        }
        bytes
    }

    fn read(most: usize, bytes: &[u8], piece: usize) -> (Vec<Entry>, Result<(), Broken>) {
        let (mut reader, mut found) = (Reader::new(most), Vec::new());
        for part in bytes.chunks(piece) {
            if let Err(broken) = reader.push(part, |entry| found.push(entry.clone())) {
                return (found, Err(broken));
            }
        }
        (found, Ok(()))
    }

    #[test]
    fn entries_are_read_with_text_and_binary_fields() {
        let bytes = [
            &b"__CURSOR=s=1;i=2\n__REALTIME_TIMESTAMP=17\nOTHER=x\nPRIORITY=3\nMESSAGE=one = 1\n\n"[..],
            b"__CURSOR=s=1;i=3\nBLOB\n\x03\0\0\0\0\0\0\0a\n=\nMESSAGE\n\x04\0\0\0\0\0\0\0\xff\0\n\n\n_PID=7\n\n",
            b"__CURSOR=s=1;i=4\nMESSAGE=\nEMPTY\n\0\0\0\0\0\0\0\0\nMESSAGE=second\n_PID=1\n_PID=2\n\n",
            b"\nMESSAGE=no cursor\n\n",
        ]
        .concat();
        for piece in [1, 2, 3, 7, bytes.len()] {
            let (found, end) = read(64, &bytes, piece);
            assert_eq!(end, Ok(()));
            let seen: Vec<_> = found
                .iter()
                .map(|entry| {
                    (
                        entry.cursor.bytes.as_slice(),
                        entry.message.bytes.as_slice(),
                        entry.pid.bytes.as_slice(),
                    )
                })
                .collect();
            assert_eq!(
                seen,
                [
                    (&b"s=1;i=2"[..], &b"one = 1"[..], &b""[..]),
                    (b"s=1;i=3", b"\xff\0\n\n", b"7"),
                    (b"s=1;i=4", b"second", b"1"),
                ],
                "in pieces of {piece}"
            );
        }
    }

    #[test]
    fn of_what_is_long_only_the_beginning_is_kept_and_the_length() {
        let long = vec![b'x'; 100_000];
        let entry: Vec<Field> = vec![
            ("__CURSOR", b"c".to_vec()),
            ("MESSAGE", long.clone()),
            ("IGNORED", long.clone()),
            ("_SYSTEMD_UNIT", long),
        ];
        for is_binary in [false, true] {
            let bytes = coded(std::slice::from_ref(&entry), |_| is_binary);
            let (found, end) = read(1000, &bytes, 4096);
            assert_eq!((found.len(), end), (1, Ok(())));
            let (message, unit) = (&found[0].message, &found[0].unit);
            assert_eq!((message.bytes.len(), message.length), (1000, 100_000));
            assert_eq!((unit.bytes.len(), unit.length), (MAX_SMALL, 100_000));
            assert_eq!(unit.whole(), None);
        }
    }

    #[test]
    fn what_is_not_the_format_is_said_to_be_so() {
        for (bytes, broken) in [
            (&b"=x\n"[..], Broken::Name),
            (b"no name=x\n", Broken::Name),
            (&[b'A'; MAX_NAME + 1], Broken::Name),
            (b"A\n\xff\xff\xff\xff\0\0\0\0", Broken::Length(0xffff_ffff)),
            (b"A\n\x01\0\0\0\0\0\0\0ab", Broken::End),
        ] {
            for piece in [1, bytes.len()] {
                assert_eq!(read(64, bytes, piece).1, Err(broken), "{bytes:?}");
            }
        }
    }

    fn fields() -> impl Strategy<Value = Vec<Field>> {
        let name = prop::sample::select(vec!["MESSAGE", "_PID", "OTHER", "SYSLOG_RAW", "A_B"]);
        let value = prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'='), any::<u8>()], 0..40);
        prop::collection::vec((name, value), 0..6).prop_map(|mut fields| {
            fields.insert(0, ("__CURSOR", b"s=1".to_vec()));
            fields
        })
    }

    proptest! {
        #[test]
        fn what_was_coded_is_read_however_it_is_cut(
            entries in prop::collection::vec(fields(), 0..5),
            piece in 1_usize..30,
        ) {
            let bytes = coded(&entries, |(_, value)| value.len() % 2 == 0);
            let (found, end) = read(64, &bytes, piece);
            prop_assert_eq!(end, Ok(()));
            prop_assert_eq!(found.len(), entries.len());
            for (entry, fields) in found.iter().zip(&entries) {
                let is_first = |field: &&Field| field.0 == "MESSAGE" && !field.1.is_empty();
                let message = fields.iter().find(is_first);
                let message = message.map_or(&[][..], |(_, value)| value);
                prop_assert_eq!(&entry.message.bytes, message);
            }
        }

        #[test]
        fn no_bytes_whatsoever_take_memory_or_break_it(
            bytes in prop::collection::vec(any::<u8>(), 0..400),
            piece in 1_usize..50,
        ) {
            let (mut reader, mut count) = (Reader::new(16), 0);
            for part in bytes.chunks(piece) {
                if reader.push(part, |_| count += 1).is_err() {
                    break;
                }
                prop_assert!(reader.name.len() <= MAX_NAME);
                prop_assert!(reader.entry.message.bytes.len() <= 16);
            }
            prop_assert!(count <= bytes.len());
        }
    }
}
