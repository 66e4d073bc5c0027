//! Message files as bytes: what is accepted, what is refused, where and why.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use crate::inbox::{
    Format, MAX_ARGUMENT, MAX_BODY, MAX_DEPTH, MAX_FILE, MAX_MESSAGES, MAX_PROBLEMS, Unreadable,
    canonical, content_digest, read, unused,
};
use crate::view::Problem;
use steward_protocol::{Body, Kind, Message, Target};

mod limits;
mod meaning;

const GOOD: &str =
    r#"{"subject": "ship1.command.shellcommand.operatingsystem", "data": ["uname", "-a"]}"#;

fn json(text: &str) -> Result<Vec<Message>, Unreadable> {
    read(text.as_bytes(), Format::Json)
}

fn problems(result: Result<Vec<Message>, Unreadable>) -> Vec<Problem> {
    match result {
        Err(Unreadable::Rejected(problems)) => problems,
        other => panic!("expected problems, got {other:?}"),
    }
}

/// Checks that `bytes` are refused with, first, a problem at this place (`line:column`, or empty)
/// with these words in its reason and its hint.
fn check(bytes: impl AsRef<[u8]>, format: Format, place: &str, reason: &str, hint: &str) {
    let bytes = bytes.as_ref();
    let problems = problems(read(bytes, format));
    let first = &problems[0];
    let found = match (first.line, first.column) {
        (Some(line), Some(column)) => format!("{line}:{column}"),
        _ => String::new(),
    };
    let text = String::from_utf8_lossy(&bytes[..bytes.len().min(200)]).into_owned();
    assert_eq!(found, place, "{text}\n{first:?}");
    assert!(first.reason.contains(reason), "{text}\n{first:?}");
    let shown = first.hint.as_deref().unwrap_or_default();
    assert!(shown.contains(hint), "{text}\n{first:?}");
    for problem in &problems {
        let hint = problem.hint.as_deref().unwrap_or_default();
        assert!(!hint.is_empty(), "no hint: {text}\n{problem:?}");
    }
}

/// The program and arguments of a shell body.
fn program(body: &Body) -> &[String] {
    match body {
        Body::Shell(body) => &body.data,
        other => panic!("{other:?} runs no program"),
    }
}

#[test]
fn a_bad_file_is_refused_with_place_reason_and_hint() {
    let node = "\"to\": \"ship1\", \"method\": \"shellcommand\", \"domain\": \"system\"";
    let rows: &[(&str, &str, &str, &str)] = &[
        // Not JSON.
        (
            "[1,]",
            "1:4",
            "is not JSON: trailing comma",
            "remove the comma",
        ),
        ("{\n  data: 1}", "2:3", "key must be a string", ""),
        ("{} {}", "1:4", "trailing characters", "one list"),
        ("{\"name\": \"a\nb\"}", "2:1", "control character", "\\n"),
        ("'", "1:1", "expected value", ""),
        (
            "{\"name\": \"\\ud800\"}",
            "1:17",
            "end of hex escape",
            "both",
        ),
        (
            "{\"name\": 1e999}",
            "1:14",
            "number out of range",
            "smaller",
        ),
        // Not messages.
        ("null", "1:1", "is null; expected a message", "shellcommand"),
        (
            "\"x\"",
            "1:1",
            "is a string; expected a message",
            "shellcommand",
        ),
        ("7", "1:1", "is a number; expected a message", ""),
        ("[]", "1:1", "holds no message", "at least one"),
        ("[\n  7]", "2:3", "is a number; expected a message", ""),
        // No target.
        ("{\"data\": [\"uname\"]}", "1:1", "has no target", "\"to\""),
        (
            "{\"to\": [], \"method\": \"hello\", \"domain\": \"os\"}",
            "1:8",
            "names no node",
            "\"to\"",
        ),
        (
            "{\"labels\": {}, \"method\": \"hello\", \"domain\": \"os\"}",
            "1:12",
            "names no label",
            "\"*\"",
        ),
        (
            "{\"to\": \"ship1\", \"domain\": \"os\"}",
            "1:1",
            "has no \"method\"",
            "shellcommand",
        ),
        (
            "{\"to\": \"ship1\", \"method\": \"hello\"}",
            "1:1",
            "has no \"domain\"",
            "operatingsystem",
        ),
        // Unknown and repeated fields.
        (
            "[\n  {NODE,\n   \"domian\": \"os\"}]",
            "3:4",
            "no field \"domian\"",
            "did you mean \"domain\"?",
        ),
        (
            "{NODE, \"Data\": [\"x\"]}",
            "1:63",
            "no field \"Data\"",
            "\"data\"",
        ),
        (
            "{NODE, \"banana\": 1}",
            "1:63",
            "no field \"banana\"",
            "the fields are id, name, subject",
        ),
        (
            "{NODE, \"data\": [\"x\"],\n \"data\": [\"y\"]}",
            "2:2",
            "writes \"data\" a second time",
            "keep one",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"env\": {\"A\": \"1\", \"A\": \"2\"}}",
            "1:96",
            "writes \"A\" a second time",
            "keep one",
        ),
        // Wrong types.
        (
            "{NODE, \"data\": \"uname\"}",
            "1:71",
            "is a string; expected a list of strings",
            "[\"uname\"]",
        ),
        (
            "{NODE, \"data\": \"uname -a\"}",
            "1:71",
            "is a string; expected a list of strings",
            "of its own",
        ),
        (
            "{NODE, \"data\": [\"sleep\", 5]}",
            "1:81",
            "is a number; expected a string",
            "\"5\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"cwd\": null}",
            "1:85",
            "is null; expected a string",
            "leave the field out",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"ordered\": \"true\"}",
            "1:89",
            "is a string; expected true or false",
            "without quotes",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"env\": [1]}",
            "1:85",
            "expected an object",
            "",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"env\": {\"A\": 1}}",
            "1:91",
            "is a number",
            "\"1\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"timeout\": 30}",
            "1:89",
            "expected a duration",
            "\"30s\"",
        ),
        // Empty data.
        ("{NODE, \"data\": []}", "1:71", "nothing to run", "uname"),
        ("{NODE}", "1:1", "nothing to run", "uname"),
        (
            "{NODE, \"data\": [\"\", \"x\"]}",
            "1:71",
            "first string of \"data\" is empty",
            "uname",
        ),
        // Tokens.
        (
            "{\"subject\": \"ship 1.command.shellcommand.os\", \"data\": [\"x\"]}",
            "1:13",
            "node \"ship 1\" has ' ' at position 5",
            "ship1.command",
        ),
        (
            "{\"subject\": \"ship1.command.shellcommand\", \"data\": [\"x\"]}",
            "1:13",
            "has 3 tokens; expected 4",
            "ship1.command",
        ),
        (
            "{\"subject\": \"ship1.comand.shellcommand.os\", \"data\": [\"x\"]}",
            "1:13",
            "has \"comand\" as its second token",
            "did you mean command?",
        ),
        (
            "{\"subject\": \"*.command.shellcommand.os\", \"data\": [\"x\"]}",
            "1:13",
            "'*' at position 1",
            "\"to\": \"*\"",
        ),
        (
            "{\"to\": \"ship1,ship2\", \"method\": \"hello\", \"domain\": \"os\"}",
            "1:8",
            "',' at position 6",
            "[\"ship1\", \"ship2\"]",
        ),
        (
            "{\"to\": [\"ship1\", \"*\"], \"method\": \"hello\", \"domain\": \"os\"}",
            "1:18",
            "'*' at position 1",
            "nothing else",
        ),
        (
            "{\"to\": [\"a\", \"b\", \"a\"], \"method\": \"hello\", \"domain\": \"os\"}",
            "1:19",
            "names node a again; it is item 1",
            "once",
        ),
        (
            "{\"to\": \"ship1\", \"method\": \"shell>\", \"domain\": \"os\"}",
            "1:27",
            "'>' at position 6",
            "",
        ),
        (
            "{\"to\": \"ship1\", \"method\": \"confirm\", \"domain\": \"os\"}",
            "1:27",
            "between station and agent",
            "hello",
        ),
        (
            "{\"to\": \"ship1\", \"kind\": \"evnt\", \"method\": \"hello\", \"domain\": \"os\"}",
            "1:25",
            "\"evnt\"",
            "\"event\"",
        ),
        (
            "{\"subject\": \"\\u001b[2J\", \"data\": [\"x\"]}",
            "1:13",
            "\"\\u{1b}[2J\" has 1 tokens",
            "ship1.command",
        ),
        // Fields that exclude each other.
        (
            "{NODE, \"labels\": {\"a\": \"b\"}}",
            "1:63",
            "one kind of target",
            "keep one",
        ),
        (
            "{\"subject\": \"a.command.hello.os\", \"to\": \"b\"}",
            "1:35",
            "which says it already",
            "either",
        ),
        (
            "{\"toNode\": \"a\", \"toNodes\": [\"b\"], \"method\": \"hello\"}",
            "1:17",
            "means the same",
            "keep one",
        ),
        (
            "{\"toNode\": \"a\", \"to\": \"b\", \"method\": \"hello\"}",
            "1:17",
            "no field \"to\"",
            "canonical form",
        ),
        // Options.
        (
            "{NODE, \"data\": [\"x\"], \"timeout\": \"soon\"}",
            "1:89",
            "\"soon\" is not a duration",
            "\"30s\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"timeout\": \"0s\"}",
            "1:89",
            "no time at all",
            "\"30s\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"timeout\": \"25h\"}",
            "1:89",
            "is 1d 1h; at most 1d",
            "\"30s\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"timeout\": \"5us\"}",
            "1:89",
            "finer than a millisecond",
            "\"30s\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"timeout\": \"18446744073709551615s 1000ms\"}",
            "1:89",
            "too long",
            "\"30s\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"expires\": \"91days\"}",
            "1:89",
            "is 91d; at most 90d",
            "\"30s\"",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"success_codes\": []}",
            "1:95",
            "holds no exit code",
            "only 0",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"success_codes\": [0, 256]}",
            "1:99",
            "is 256",
            "",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"success_codes\": [1, 1]}",
            "1:99",
            "repeats exit code 1",
            "once",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"id\": \"17\"}",
            "1:84",
            "\"17\" is not a UUID",
            "leave",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"name\": \"\\u001b]0;x\"}",
            "1:86",
            "control character at position 1",
            "",
        ),
        // NUL in strings.
        (
            "{NODE, \"data\": [\"a\\u0000b\"]}",
            "1:72",
            "NUL character at position 2",
            "leave it out",
        ),
        (
            "{NODE, \"data\": [\"x\"], \"env\": {\"A=B\": \"\"}}",
            "1:86",
            "\"A=B\" cannot name a variable",
            "",
        ),
        // Older shapes.
        (
            "{\"subject\": {\"node\": \"a\"}, \"message\": {\"data\": [\"x\"]}}",
            "1:13",
            "has no \"method\"",
            "shellcommand",
        ),
        (
            "{\"subject\": {\"node\": \"a\", \"method\": \"hello\", \"mesageType\": \"command\"}, \"message\": {}}",
            "1:46",
            "no field \"mesageType\"",
            "messageType",
        ),
        (
            "{\"subject\": {\"node\": \"a\", \"method\": \"hello\"}}",
            "1:1",
            "has no \"message\"",
            "data",
        ),
        (
            "{\"toNode\": \"a\", \"method\": \"cliCommand\", \"methodArgs\": [\"x\"], \"methodTimeout\": -1}",
            "1:79",
            "not a possible number of seconds",
            "1 or more",
        ),
        (
            "{\"toNode\": \"a\", \"method\": \"cliCommand\", \"methodArgs\": []}",
            "1:55",
            "nothing to run",
            "uname",
        ),
        (
            "{\"methodArgs\": [\"x\"], \"method\": \"cliCommand\"}",
            "1:1",
            "has no target",
            "toNode",
        ),
    ];
    for (text, place, reason, hint) in rows {
        let text = text.replace("NODE", node);
        check(text, Format::Json, place, reason, hint);
    }
}

#[test]
fn bytes_that_are_not_text_are_refused_with_their_place() {
    for (bytes, place, reason, hint) in [
        (
            &b"[\n {\"name\": \"\xc3\xa6\xff\"}]"[..],
            "2:13",
            "byte 0xff",
            "UTF-8",
        ),
        (b"{\"name\": \"\0\"}", "1:11", "NUL byte", "cut short"),
        (b"\0\0\0\0", "1:1", "NUL byte", "cut short"),
        (b"\xff\xfe[\0]\0", "", "UTF-16", "UTF-8"),
        (b"\xfe\xff\0[\0]", "", "UTF-16", "UTF-8"),
    ] {
        check(bytes, Format::Json, place, reason, hint);
    }
}

#[test]
fn a_byte_order_mark_at_the_start_is_ignored() {
    assert_eq!(json(&format!("\u{feff}{GOOD}")), json(GOOD));
    check("\u{feff}[7]", Format::Json, "1:2", "is a number", "");
}

#[test]
fn a_file_that_ends_too_early_is_incomplete() {
    for bytes in [
        &b""[..],
        b" \n",
        b"\xef\xbb\xbf",
        b"[{\"name\": \"\xc3",
        b"\xef\xbb",
    ] {
        assert_eq!(
            read(bytes, Format::Json),
            Err(Unreadable::Incomplete),
            "{bytes:?}"
        );
    }
    assert_eq!(read(b" \n", Format::Yaml), Err(Unreadable::Incomplete));
}

#[test]
fn a_file_that_will_not_grow_any_more_is_refused_where_it_ends() {
    for (bytes, place, reason) in [
        (&b""[..], (1, 1), "is empty"),
        (b" \n", (1, 1), "is empty"),
        (b"[\n {\"to\": \"x\n", (2, 11), "ends too early"),
        (b"\xef\xbb\xbf[{\"name\": \"\xc3", (1, 12), "ends too early"),
    ] {
        let problem = Unreadable::Incomplete.into_problems(bytes).remove(0);
        let found = (problem.line, problem.column);
        assert_eq!(found, (Some(place.0), Some(place.1)), "{bytes:?}");
        assert!(problem.reason.starts_with(reason), "{problem:?}");
        assert!(problem.hint.is_some());
    }
}

#[test]
fn fields_that_have_no_effect_are_named() {
    let flat = r#"{"toNode": "a", "method": "cliCommand", "methodArgs": ["x"], "ACKTimeout": 3}"#;
    let nested = r#"{"subject": {"node": "a", "method": "cliCommand"}, "message": {"data": ["x"], "retries": 3}}"#;
    let both = format!("[{flat}, {nested}]");
    for (text, expected) in [
        (GOOD, &[][..]),
        (flat, &["ACKTimeout"]),
        (nested, &["retries"]),
        (&both, &["retries", "ACKTimeout"]),
        ("[", &[]),
    ] {
        assert_eq!(unused(text.as_bytes(), Format::Json), expected, "{text}");
    }
}

#[test]
fn no_prefix_of_a_file_is_a_different_message() {
    let text = format!("\u{feff}[\n {GOOD},\n {{\"to\": [\"a\", \"b\"], \"method\": \"hello\", \"domain\": \"øs\", \"timeout\": \"30s\"}}\n]\n")
        .replace("øs", "os");
    let whole = json(&text).unwrap();
    for length in 0..text.len() {
        match read(&text.as_bytes()[..length], Format::Json) {
            Ok(messages) => assert_eq!(messages, whole, "{length}"),
            Err(Unreadable::Incomplete) => {}
            Err(Unreadable::Rejected(problems)) => panic!("{length}: {problems:?}"),
        }
    }
}

#[test]
fn every_problem_of_a_file_is_told_at_once() {
    let text = r#"[
  {"to": "ship 1", "method": "shellcommand", "domain": "os", "data": [1, "x"], "timeout": 3},
  {"to": "ship1", "method": "shellcommand", "domain": "os", "data": []},
  {"subject": "x", "tiemout": "3s"}
]"#;
    let found: Vec<(u64, String)> = problems(json(text))
        .into_iter()
        .map(|problem| (problem.line.unwrap(), problem.path))
        .collect();
    let expected = [
        (2, "/0/to"),
        (2, "/0/data/0"),
        (2, "/0/timeout"),
        (3, "/1/data"),
        (4, "/2/subject"),
        (4, "/2/tiemout"),
    ];
    assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
}
