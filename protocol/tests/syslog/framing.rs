//! Framing: what each kind of stream comes to, however its bytes are portioned.

use proptest::{collection::vec, prelude::*, sample::select};
use steward_protocol::syslog::framing::{Ends, Framer, Frames, Limits};

const LIMITS: Limits = Limits {
    keep: 16,
    count: 64,
    ends: Ends::Any,
};

/// A stream, and what it comes to.
type Row<'a> = (&'a [u8], &'a [(&'a str, &'a str)]);

/// Text, and what is said of it: `c` counted, `o` out of step, `u` unfinished, a number the original length.
fn told(frames: &Frames) -> Vec<(String, String)> {
    let tell = |(frame, bytes): (&steward_protocol::syslog::framing::Frame, &[u8])| {
        let mut marks = String::new();
        for (is, mark) in [
            (frame.is_counted(), 'c'),
            (frame.is_out_of_step(), 'o'),
            (frame.is_unfinished(), 'u'),
        ] {
            if is {
                marks.push(mark);
            }
        }
        if let Some(length) = frame.cut_from() {
            marks.push_str(&length.to_string());
        }
        (bytes.escape_ascii().to_string(), marks)
    };
    frames.iter().map(tell).collect()
}

fn framed<'a>(limits: Limits, portions: impl IntoIterator<Item = &'a [u8]>) -> Frames {
    let (mut framer, mut frames) = (Framer::new(limits), Frames::default());
    for portion in portions {
        framer.push(portion, &mut frames);
        assert!(framer.held() <= limits.keep);
    }
    framer.finish(&mut frames);
    assert_eq!(framer.held(), 0);
    let astray = frames.list.iter().filter(|frame| frame.is_out_of_step());
    assert_eq!(framer.out_of_step(), astray.count() as u64);
    frames
}

#[track_caller]
fn check(limits: Limits, stream: &[u8], expected: &[(&str, &str)]) {
    let expected: Vec<_> = expected
        .iter()
        .map(|(text, marks)| ((*text).to_owned(), (*marks).to_owned()))
        .collect();
    let name = stream.escape_ascii();
    assert_eq!(told(&framed(limits, [stream])), expected, "{name}");
    let bytes = framed(limits, stream.chunks(1));
    assert_eq!(told(&bytes), expected, "byte by byte: {name}");
}

#[test]
fn each_kind_of_framing_is_told_apart_per_message() {
    let rows: &[Row<'_>] = &[
        (b"", &[]),
        (b"<13>a\n<14>b\n", &[("<13>a", ""), ("<14>b", "")]),
        (b"<13>a\r\n<14>b\r\n", &[("<13>a", ""), ("<14>b", "")]),
        // Python's SysLogHandler.
        (b"<13>a\0<14>b\0", &[("<13>a", ""), ("<14>b", "")]),
        (b"5 <13>a5 <14>b", &[("<13>a", "c"), ("<14>b", "c")]),
        // RFC 6587 §3.4.1: a counted message may hold LF and NUL.
        (b"8 <13>a\n\0b", &[("<13>a\\n\\x00b", "c")]),
        // rsyslog and syslog-ng: a LF behind a counted message belongs to no message.
        (
            b"5 <13>a\n5 <14>b\r\n5 <15>c",
            &[("<13>a", "c"), ("<14>b", "c"), ("<15>c", "c")],
        ),
        (
            b"<13>a\n5 <14>b<15>c\r\n<16>d\x005 <17>e",
            &[
                ("<13>a", ""),
                ("<14>b", "c"),
                ("<15>c", ""),
                ("<16>d", ""),
                ("<17>e", "c"),
            ],
        ),
        (b"\n\r\n\0\n<13>a\n\n\n", &[("<13>a", "")]),
        (b"no pri\n<13>a\n", &[("no pri", ""), ("<13>a", "")]),
        // Only the CR of a CRLF is framing.
        (
            b"<13>a\r\r\n<13>b\r\0<13>\rc\n",
            &[("<13>a\\r", ""), ("<13>b\\r", ""), ("<13>\\rc", "")],
        ),
        (b"5 <13>a4 <13>", &[("<13>a", "c"), ("<13>", "c")]),
        (b"5 <999>5 <13>a", &[("<999>", "c"), ("<13>a", "c")]),
    ];
    for (stream, expected) in rows {
        check(LIMITS, stream, expected);
    }
}

#[test]
fn a_line_that_begins_with_digits_is_a_line() {
    let rows: &[Row<'_>] = &[
        (b"2024 was\n<13>a\n", &[("2024 was", ""), ("<13>a", "")]),
        (b"12\n<13>a\n", &[("12", ""), ("<13>a", "")]),
        (
            b"12 <b>x</b>\n<13>a\n",
            &[("12 <b>x</b>", ""), ("<13>a", "")],
        ),
        (b"12 <1234>\n<13>a\n", &[("12 <1234>", ""), ("<13>a", "")]),
        (b"12 <>\n<13>a\n", &[("12 <>", ""), ("<13>a", "")]),
        (b"12  <13>\n<13>a\n", &[("12  <13>", ""), ("<13>a", "")]),
        (b"012 <13>\n<13>a\n", &[("012 <13>", ""), ("<13>a", "")]),
        (b"12345678901 <13>\n", &[("12345678901 <13>", "")]),
        (b"7\r\n7 \0", &[("7", ""), ("7 ", "")]),
    ];
    for (stream, expected) in rows {
        check(LIMITS, stream, expected);
    }
}

#[test]
fn a_wrong_count_costs_the_messages_it_touches_and_is_counted() {
    let rows: &[Row<'_>] = &[
        // Too small: a rest is left.
        (
            b"5 <13>abc5 <14>b5 <15>c",
            &[("<13>a", "c"), ("bc", "o"), ("<14>b", "c"), ("<15>c", "c")],
        ),
        // Too small, and the rest looks like the beginning of a count.
        (
            b"5 <13>a12 b5 <14>c",
            &[("<13>a", "c"), ("12 b", "o"), ("<14>c", "c")],
        ),
        (
            b"5 <13>a12 <5 <14>c",
            &[("<13>a", "c"), ("12 <", "o"), ("<14>c", "c")],
        ),
        // Too large: the next one's count is swallowed, and it stands there with nothing but its PRI.
        (
            b"7 <13>a5 <14>b5 <15>c",
            &[("<13>a5 ", "c"), ("<14>b", "o"), ("<15>c", "c")],
        ),
        // Larger still.
        (
            b"9 <13>a5 <14>b5 <15>c",
            &[("<13>a5 <1", "c"), ("4>b", "o"), ("<15>c", "c")],
        ),
        // In step again at the end of a line, too.
        (
            b"5 <13>abc\n5 <14>b",
            &[("<13>a", "c"), ("bc", "o"), ("<14>b", "c")],
        ),
        (
            b"5 <13>abc\n<14>b 5 <15>c\n",
            &[("<13>a", "c"), ("bc", "o"), ("<14>b ", "o"), ("<15>c", "c")],
        ),
        // A whole line ends the watch.
        (
            b"5 <13>a<14>b\n<15>c 5 <16>d\n",
            &[("<13>a", "c"), ("<14>b", ""), ("<15>c 5 <16>d", "")],
        ),
        // Larger than is believed.
        (b"65 <13>a\n5 <14>b", &[("65 <13>a", "o"), ("<14>b", "c")]),
        (b"65 <13>a5 <14>b", &[("65 <13>a", "o"), ("<14>b", "c")]),
        // Smaller than its own PRI.
        (b"3 <13>a5 <14>b", &[("3 <13>a", "o"), ("<14>b", "c")]),
    ];
    for (stream, expected) in rows {
        check(LIMITS, stream, expected);
    }
}

#[test]
fn what_is_too_long_is_cut_and_its_length_kept() {
    let long = "x".repeat(40);
    let keep = &long[..12];
    let rows = [
        (
            format!("<13>{long}\n<14>b\n"),
            vec![(format!("<13>{keep}"), "44"), ("<14>b".into(), "")],
        ),
        (
            format!("<13>{long}\r\n<14>b\n"),
            vec![(format!("<13>{keep}"), "44"), ("<14>b".into(), "")],
        ),
        (
            format!("44 <13>{long}5 <14>b"),
            vec![(format!("<13>{keep}"), "c44"), ("<14>b".into(), "c")],
        ),
        // The count that ends it does not belong to it.
        (
            format!("5 <13>a{long}5 <14>b"),
            vec![
                ("<13>a".into(), "c"),
                (long[..16].into(), "o40"),
                ("<14>b".into(), "c"),
            ],
        ),
        // Exactly what is kept.
        (format!("<13>{keep}\r\n"), vec![(format!("<13>{keep}"), "")]),
        (
            format!("<13>{keep}\r"),
            vec![(format!("<13>{keep}"), "u17")],
        ),
    ];
    for (stream, expected) in &rows {
        let expected: Vec<_> = expected
            .iter()
            .map(|(text, marks)| (text.as_str(), *marks))
            .collect();
        check(LIMITS, stream.as_bytes(), &expected);
    }
}

#[test]
fn the_end_of_a_stream_ends_what_is_open() {
    let rows: &[Row<'_>] = &[
        (b"<13>a", &[("<13>a", "u")]),
        (b"9 <13>a", &[("<13>a", "cu")]),
        (b"12 <1", &[("12 <1", "u")]),
        (b"5 <13>a5 <1", &[("<13>a", "c"), ("5 <1", "ou")]),
        (b"<13>a\n", &[("<13>a", "")]),
    ];
    for (stream, expected) in rows {
        check(LIMITS, stream, expected);
    }
}

#[test]
fn a_stream_that_ends_with_nul_only_keeps_its_line_ends() {
    let limits = Limits {
        ends: Ends::Nul,
        ..LIMITS
    };
    check(
        limits,
        b"<13>a\nb\0<14>c\r\n\x005 <15>d<16>e\nf\0",
        &[
            ("<13>a\\nb", ""),
            ("<14>c\\r\\n", ""),
            ("<15>d", "c"),
            ("<16>e\\nf", ""),
        ],
    );
}

#[test]
fn a_message_that_never_ends_takes_no_more_than_is_kept() {
    let limits = Limits::default();
    let (mut framer, mut frames) = (Framer::new(limits), Frames::default());
    for _ in 0..1024 {
        framer.push(&[b'x'; 4096], &mut frames);
        assert!(framer.held() <= limits.keep);
    }
    assert!(frames.list.is_empty() && frames.arena.is_empty());
    framer.push(b"\n<13>a\n", &mut frames);
    assert_eq!(frames.list[0].cut_from(), Some(4096 * 1024));
    assert_eq!(frames.list[0].range().len(), limits.keep);
    assert_eq!(&frames.arena[frames.list[1].range()], b"<13>a");
}

/// The rules again, slowly, over a stream that is there as a whole.
struct Model<'a> {
    stream: &'a [u8],
    counting: bool,
    told: Vec<(String, String)>,
}

impl<'a> Model<'a> {
    fn read(stream: &'a [u8]) -> Vec<(String, String)> {
        let mut model = Self {
            stream,
            counting: false,
            told: Vec::new(),
        };
        let mut at = 0;
        while at < stream.len() {
            at = match stream[at] {
                b'\n' | 0 => at + 1,
                _ => model.message(at),
            };
        }
        model.told
    }

    /// Count, and where its PRI is, if there is one.
    fn count(&self, at: usize) -> Option<(u64, usize, usize)> {
        let text = &self.stream[at..];
        let digits = text.iter().take_while(|byte| byte.is_ascii_digit()).count();
        if !(1..=10).contains(&digits) || text[0] == b'0' {
            return None;
        }
        let pri = text.get(digits..)?.strip_prefix(b" <")?;
        let length = pri.iter().take_while(|byte| byte.is_ascii_digit()).count();
        let whole = (1..=3).contains(&length) && pri.get(length) == Some(&b'>');
        let value = std::str::from_utf8(&text[..digits])
            .unwrap()
            .parse()
            .unwrap();
        whole.then_some((value, at + digits + 1, length + 2))
    }

    fn tell(&mut self, from: usize, until: usize, marks: &str) {
        let kept = (until - from).min(LIMITS.keep);
        let mut marks = marks.to_owned();
        if until - from > kept {
            marks += &(until - from).to_string();
        }
        if until > from {
            let text = self.stream[from..from + kept].escape_ascii().to_string();
            self.told.push((text, marks));
        }
    }

    fn message(&mut self, from: usize) -> usize {
        let mut astray = false;
        for at in from..self.stream.len() {
            let byte = self.stream[at];
            if matches!(byte, b'\n' | 0) {
                let cr = at > from && byte == b'\n' && self.stream[at - 1] == b'\r';
                let whole = self.stream[from] == b'<' && !astray;
                // A CR alone is an empty line.
                let until = at - usize::from(cr);
                let lost = astray || self.counting && !whole;
                self.tell(from, until, if lost { "o" } else { "" });
                self.counting &= !whole;
                return at + 1;
            }
            // A run of digits is one number, but for zeros in front.
            let run = self.stream[from..at]
                .iter()
                .rev()
                .take_while(|byte| byte.is_ascii_digit());
            if run.copied().any(|digit| digit != b'0') {
                continue;
            }
            let Some((value, pri, length)) = self.count(at).filter(|_| self.counting || at == from)
            else {
                continue;
            };
            if value < length as u64 || value > LIMITS.count as u64 {
                (self.counting, astray) = (true, true);
                continue;
            }
            self.tell(from, at, "o");
            let until = pri + value as usize;
            let end = until.min(self.stream.len());
            self.tell(pri, end, if until > end { "cu" } else { "c" });
            self.counting = true;
            return end;
        }
        let lost = astray || self.counting && self.stream[from] != b'<';
        self.tell(from, self.stream.len(), if lost { "ou" } else { "u" });
        self.stream.len()
    }
}

fn stream() -> impl Strategy<Value = Vec<u8>> {
    let pieces: Vec<&[u8]> = vec![
        b"<13>",
        b"<191>",
        b"5 <13>a",
        b"12 <134>",
        b"17 ",
        b"20 ",
        b"4 ",
        b"<",
        b">",
        b"1",
        b"0",
        b"9",
        b" ",
        b"a",
        b"text that is longer",
        b"\n",
        b"\n",
        b"\r\n",
        b"\r",
        b"\0",
        b"99999999 <13>",
        b"12345678901 <13>",
    ];
    vec(select(pieces), 0..30).prop_map(|pieces| pieces.concat())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(4000))]

    #[test]
    fn frames_are_those_of_the_rules_however_the_bytes_come(
        stream in stream(),
        sizes in vec(1_usize..12, 1..8),
    ) {
        let expected = Model::read(&stream);
        prop_assert_eq!(&told(&framed(LIMITS, [stream.as_slice()])), &expected);
        prop_assert_eq!(&told(&framed(LIMITS, stream.chunks(1))), &expected);
        let mut portions = Vec::new();
        let (mut rest, mut sizes) = (stream.as_slice(), sizes.iter().cycle());
        while !rest.is_empty() {
            let size = (*sizes.next().unwrap()).min(rest.len());
            let (portion, behind) = rest.split_at(size);
            portions.push(portion);
            rest = behind;
        }
        prop_assert_eq!(&told(&framed(LIMITS, portions)), &expected);
    }

    #[test]
    fn any_bytes_are_framed_alike_however_they_come(stream in vec(any::<u8>(), 0..400), size in 1_usize..40) {
        let whole = told(&framed(LIMITS, [stream.as_slice()]));
        prop_assert_eq!(&told(&framed(LIMITS, stream.chunks(size))), &whole);
        prop_assert_eq!(&whole, &Model::read(&stream));
    }

    #[test]
    fn what_a_counting_sender_sends_arrives_as_it_is(messages in vec(vec(any::<u8>(), 0..40), 0..20)) {
        let limits = Limits { keep: 64, ..LIMITS };
        let messages: Vec<_> = messages.iter().map(|text| [b"<13>", text.as_slice()].concat()).collect();
        let stream: Vec<u8> = messages.iter().flat_map(|message| {
            [format!("{} ", message.len()).as_bytes(), message].concat()
        }).collect();
        let frames = framed(limits, stream.chunks(7));
        let got: Vec<_> = frames.iter().map(|(_, bytes)| bytes.to_vec()).collect();
        prop_assert_eq!(got, messages);
        prop_assert!(frames.list.iter().all(|frame| frame.is_counted() && !frame.is_unfinished()));
    }
}
