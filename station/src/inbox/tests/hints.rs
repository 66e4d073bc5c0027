//! What is said of a field that is wrong, and how far a right one may go: one row per field and slip.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::time::Duration;

use steward_protocol::{Kind, Message};

use crate::{
    inbox::{Format, MAX_ARGUMENT, MAX_DIRECTORY, MAX_LABEL, MAX_NAME, Unreadable, place, read},
    view::Problem,
};

fn json(text: &str) -> Result<Vec<Message>, Unreadable> {
    read(text.as_bytes(), Format::Json)
}

/// A message in canonical form with these fields more; its method is one that only the node may know.
fn with(fields: &str) -> String {
    format!("{{\"to\": \"ship1\", \"method\": \"survey\", \"domain\": \"os\", {fields}}}")
}

/// A message in the flat older shape with these fields more.
fn flat(fields: &str) -> String {
    format!("{{\"toNode\": \"ship1\", \"method\": \"hello\", {fields}}}")
}

fn problems(text: &str) -> Vec<Problem> {
    match json(text) {
        Err(Unreadable::Rejected(problems)) => problems,
        other => panic!("{text}: expected problems, got {other:?}"),
    }
}

/// Checks that there is one problem, and its words.
fn check(text: &str, reason: &str, hint: &str) {
    let problems = problems(text);
    assert_eq!(problems.len(), 1, "{text}\n{problems:?}");
    let problem = &problems[0];
    assert!(problem.reason.contains(reason), "{text}\n{problem:?}");
    let found = problem.hint.as_deref().unwrap_or_default();
    assert!(found.contains(hint), "{text}\n{problem:?}");
}

fn read_one(text: &str) -> Message {
    match json(text) {
        Ok(mut messages) => messages.remove(0),
        Err(error) => panic!("{text}: {error:?}"),
    }
}

#[test]
fn a_value_of_the_wrong_type_is_told_how_it_is_written() {
    let nodes = "\"method\": \"hello\", \"domain\": \"os\"";
    for (text, reason, hint) in [
        (
            format!("{{\"to\": 7, {nodes}}}"),
            "is a number; expected a list of node names",
            "write [\"ship1\", \"ship2\"]",
        ),
        (
            with("\"data\": {}"),
            "is an object; expected a list of strings",
            "write the program and its arguments: [\"uname\", \"-a\"]",
        ),
        (
            with("\"success_codes\": 3"),
            "is a number; expected a list of exit codes",
            "write [0, 3]",
        ),
        (
            with("\"success_codes\": [\"0\"]"),
            "is a string; expected an exit code from 0 to 255",
            "write a plain number such as 3, without quotes",
        ),
        (
            with("\"env\": []"),
            "is a list; expected an object whose values are strings",
            "write {\"NAME\": \"value\"}",
        ),
        (
            with("\"ordered\": 1"),
            "is a number; expected true or false",
            "write true or false, without quotes",
        ),
        (
            with("\"ordered\": \"false\""),
            "is a string; expected true or false",
            "write it without quotes: false",
        ),
        (
            with("\"ordered\": \"yes\""),
            "is a string; expected true or false",
            "write true or false, without quotes",
        ),
        (
            with("\"cwd\": []"),
            "is a list; expected a string",
            "write one text in double quotes",
        ),
        (
            with("\"cwd\": 5"),
            "is a number",
            "write it in quotes: \"5\"",
        ),
        (
            with("\"cwd\": 1.5"),
            "is a number",
            "write it in quotes: \"1.5\"",
        ),
        (
            with("\"cwd\": true"),
            "expected a string",
            "write it in quotes: \"true\"",
        ),
        (with("\"cwd\": null"), "is null", "leave the field out"),
        (
            with("\"timeout\": 30"),
            "expected a duration",
            "write \"30s\"",
        ),
        (
            with("\"timeout\": 0"),
            "expected a duration",
            "write a number and a unit",
        ),
        (
            with("\"timeout\": true"),
            "expected a duration",
            "write a number and a unit",
        ),
        (
            flat("\"retries\": \"3\""),
            "expected a whole number from 0",
            "write a plain number such as 3",
        ),
        (
            flat("\"retries\": -1"),
            "expected a whole number from 0",
            "plain number",
        ),
        (
            flat("\"ACKTimeout\": true"),
            "expected a number of seconds",
            "write a plain number such as 3",
        ),
        (
            "{\"subject\": {\"node\": \"a\", \"method\": \"hello\"}, \"message\": 7}".to_owned(),
            "is a number; expected an object",
            "write it with its fields in braces",
        ),
    ] {
        check(&text, reason, hint);
    }
}

#[test]
fn a_text_is_taken_up_to_its_limit() {
    let text = |length: usize| "x".repeat(length);
    type Row = (fn(&str) -> String, usize);
    let rows: [Row; 5] = [
        (|text| with(&format!("\"name\": \"{text}\"")), MAX_NAME),
        (|text| with(&format!("\"cwd\": \"{text}\"")), MAX_DIRECTORY),
        (
            |text| with(&format!("\"env\": {{\"{text}\": \"\"}}")),
            MAX_ARGUMENT,
        ),
        (
            |text| with(&format!("\"env\": {{\"A\": \"{text}\"}}")),
            MAX_ARGUMENT,
        ),
        (
            |text| with(&format!("\"data\": [\"{text}\"]")),
            MAX_ARGUMENT,
        ),
    ];
    for (write, limit) in rows {
        read_one(&write(&text(limit)));
        let problems = problems(&write(&text(limit + 1)));
        assert_eq!(problems.len(), 1, "{limit}: {problems:?}");
    }
    for (key, value, is_good) in [
        (text(MAX_LABEL), text(MAX_LABEL), true),
        (text(MAX_LABEL + 1), String::new(), false),
        ("æ".repeat(MAX_LABEL), "æ".repeat(MAX_LABEL), true),
        (text(1), text(MAX_LABEL + 1), false),
        (text(1), String::new(), true),
        (String::new(), text(1), false),
    ] {
        let labels = format!(
            "{{\"labels\": {{\"{key}\": \"{value}\"}}, \"method\": \"hello\", \"domain\": \"os\"}}"
        );
        assert_eq!(json(&labels).is_ok(), is_good, "{labels}");
    }
}

#[test]
fn a_text_that_cannot_be_carried_is_refused_for_what_is_wrong_with_it() {
    let labels = |labels: &str| {
        format!("{{\"labels\": {{{labels}}}, \"method\": \"hello\", \"domain\": \"os\"}}")
    };
    for (text, reason, hint) in [
        (
            with("\"name\": \"\""),
            "is empty",
            "leave the field out, or fill it",
        ),
        (
            with("\"name\": \"a\\tb\""),
            "a control character at position 2",
            "on one line",
        ),
        (
            with("\"cwd\": \"\""),
            "is empty",
            "the agent's own directory",
        ),
        (
            with("\"cwd\": \"/\\u0000\""),
            "a NUL character at position 2",
            "leave it out",
        ),
        (
            with("\"env\": {\"\": \"x\"}"),
            "\"\" cannot name a variable",
            "rename it",
        ),
        (
            with("\"env\": {\"A\\u0000\": \"x\"}"),
            "cannot name a variable",
            "rename it",
        ),
        (
            with("\"env\": {\"A\": \"x\\u0000\"}"),
            "a NUL character at position 2",
            "leave it out",
        ),
        (
            labels("\"a\\nb\": \"x\""),
            "cannot name a label: 1 to 63",
            "rename it",
        ),
        (
            labels("\"a\": \"x\\ny\""),
            "a control character at position 2",
            "on one line",
        ),
        (
            labels("\"a\": 7"),
            "is a number; expected a string",
            "in quotes",
        ),
        (
            with("\"id\": \"00000000-0000-0000-0000-000000000000\""),
            "is not a UUID",
            "the station draws one",
        ),
    ] {
        check(&text, reason, hint);
    }
}

#[test]
fn a_token_or_subject_that_is_none_is_told_what_to_write_instead() {
    let to = |node: &str| format!("{{\"to\": {node}, \"method\": \"hello\", \"domain\": \"os\"}}");
    let subject = |text: &str| format!("{{\"subject\": \"{text}\"}}");
    for (text, hint) in [
        (to("\" ship1\""), "write \"ship1\", without blanks"),
        (to("\"a b\""), "write letters, digits"),
        (to("\" a b\""), "write letters, digits"),
        (to("\"a,b\""), "write several nodes as a list"),
        (to("[\"*\", \"b\"]"), "and nothing else in it"),
        (subject("ship1.evnt.hello.os"), "did you mean event?"),
        (
            subject("ship1.zzzzzzz.hello.os"),
            "write it like \"ship1.command",
        ),
        (
            subject(" ship1.command.hello.os"),
            "remove the blanks around it",
        ),
        (subject("ship1.command"), "write it like \"ship1.command"),
        (
            subject("sh*p.command.hello.os"),
            "write it like \"ship1.command",
        ),
        (subject("*.command.hello.os"), "for every known node write"),
        (
            subject("ship1.command.*.os"),
            "write it like \"ship1.command",
        ),
        (with("\"kind\": \"evnt\""), "did you mean \"event\"?"),
        (
            with("\"kind\": \"nothing\""),
            "write \"command\", or leave the field out",
        ),
        (
            flat("\"commandOrEvent\": \"comandACK\""),
            "write \"command\", or leave the field out",
        ),
        (with("\"method\": \"x\""), "keep one"),
        (to("[\"a\", \"a\", \"b\"]"), "name each node once"),
    ] {
        check(&text, "", hint);
    }
}

#[test]
fn what_stands_beside_a_subject_is_one_problem_each() {
    for (field, value) in [
        ("to", "\"b\""),
        ("labels", "{\"a\": \"b\"}"),
        ("kind", "\"command\""),
        ("method", "\"hello\""),
        ("domain", "\"os\""),
    ] {
        let text = format!("{{\"subject\": \"a.command.hello.os\", \"{field}\": {value}}}");
        let reason = format!("\"{field}\" stands beside \"subject\"");
        check(&text, &reason, "write either");
    }
}

#[test]
fn a_field_that_is_not_there_is_told_where_it_belongs() {
    for (text, reason, hint) in [
        (
            flat("\"labels\": {}"),
            "no field \"labels\"",
            "it belongs to the form called \"canonical form\"",
        ),
        (
            with("\"zzzzzzzzzz\": 1"),
            "no field \"zzzzzzzzzz\"",
            "the fields are id, name, subject, to,",
        ),
        // A slip in a field that is needed is one problem, not two.
        (
            "{\"to\": \"a\", \"metod\": \"hello\", \"domain\": \"os\"}".to_owned(),
            "no field \"metod\"",
            "did you mean \"method\"?",
        ),
    ] {
        check(&text, reason, hint);
    }
    let list = problems(&with("\"zzzzzzzzzz\": 1")).remove(0).hint.unwrap();
    assert!(!list.contains('$'), "{list}");
}

#[test]
fn codes_are_taken_from_0_to_255() {
    let read = |codes: &str| json(&with(&format!("\"success_codes\": {codes}")));
    assert_eq!(read("[0, 255]").unwrap()[0].options.success_codes, [0, 255]);
    for (codes, reason) in [
        ("[256]", "is 256; exit codes go"),
        ("[-1]", "is -1; exit codes go"),
    ] {
        check(&with(&format!("\"success_codes\": {codes}")), reason, "$?");
    }
}

#[test]
fn durations_are_taken_within_their_bounds() {
    let millis = |text: &str| {
        let messages = json(text).ok()?;
        Some(messages[0].options.timeout.as_millis())
    };
    let long = |blanks: usize| format!("\"timeout\": \"1s{}\"", " ".repeat(blanks));
    let day = 24 * 3_600_000;
    for (fields, expected) in [
        ("\"timeout\": \"1ms\"".to_owned(), Some(1)),
        ("\"timeout\": \"24h\"".to_owned(), Some(day)),
        ("\"timeout\": \"24h 1ms\"".to_owned(), None),
        ("\"timeout\": \"1500us\"".to_owned(), None),
        ("\"timeout\": \"2000us\"".to_owned(), Some(2)),
        ("\"timeout\": \"00000000000000001s\"".to_owned(), Some(1000)),
        ("\"timeout\": \"000000000000000001s\"".to_owned(), None),
        (long(58), Some(1000)),
        (long(59), None),
    ] {
        assert_eq!(millis(&with(&fields)), expected, "{fields}");
    }
    for (value, expected) in [
        ("300", Some(300_000)),
        ("\"300\"", Some(300_000)),
        ("\" 30 \"", Some(30_000)),
        ("\"5m\"", Some(300_000)),
        ("1.5", Some(1500)),
        ("1.0009", Some(1000)),
        ("86400", Some(day)),
        ("86400.001", None),
        ("0", None),
        ("0.0001", None),
        ("-1", None),
        ("1e300", None),
    ] {
        let text = flat(&format!("\"methodTimeout\": {value}"));
        assert_eq!(millis(&text), expected, "{value}");
    }
    let message = read_one(&with("\"expires\": \"90d\""));
    assert_eq!(message.options.expires, Duration::from_secs(90 * 86_400));
    check(
        &with("\"expires\": \"90d 1ms\""),
        "is 90d 1ms; at most 90d",
        "",
    );
}

#[test]
fn the_older_shapes_are_read_as_they_were_meant() {
    for (written, expected) in [
        ("command", Kind::Command),
        ("EVENT", Kind::Event),
        ("eventACK", Kind::Event),
        ("CommandNACK", Kind::Command),
    ] {
        let message = read_one(&flat(&format!("\"commandOrEvent\": \"{written}\"")));
        assert_eq!(message.kind, expected, "{written}");
    }
    for (written, expected) in [
        ("cliCommand", "shellcommand"),
        ("REQShellCommand", "shellcommand"),
        ("REQHello", "hello"),
        ("Newer", "newer"),
    ] {
        let text = format!(
            "{{\"toNode\": \"a\", \"method\": \"{written}\", \"methodArgs\": [\"x\"], \"retries\": 0}}"
        );
        let message = read_one(&text);
        assert_eq!(message.method.as_str(), expected, "{written}");
        assert_eq!(message.domain.as_str(), "operatingsystem");
    }
    for (data, is_good) in [
        ("\"uptime\"", true),
        ("\"uptime now\"", false),
        ("\"up\\u0000\"", false),
        ("[\"uptime\", \"now\"]", true),
    ] {
        for field in ["data", "methodArgs"] {
            let text = flat(&format!("\"{field}\": {data}"));
            assert_eq!(json(&text).is_ok(), is_good, "{text}");
        }
    }
    let both = flat("\"data\": [\"a\"], \"methodArgs\": [\"b\"]");
    check(&both, "\"methodArgs\" stands beside \"data\"", "keep one");
    let named = read_one(&flat(
        "\"domain\": \"nginx\", \"name\": \"old\", \"id\": \"0190a000-0000-7000-8000-000000000001\"",
    ));
    assert_eq!(
        (named.domain.as_str(), named.name.as_deref()),
        ("nginx", Some("old"))
    );
    assert!(named.id.is_some());
}

#[test]
fn problems_found_later_are_placed_in_the_file() {
    let problem = |path: &str, line: Option<u64>| Problem {
        line,
        column: line,
        path: path.to_owned(),
        reason: "is used already".to_owned(),
        hint: None,
    };
    let single = "{\"to\": \"a\",\n \"id\": \"x\"}";
    let list = "[\n {\"to\": \"a\"},\n {\"to\": \"a\",\n  \"id\": \"x\"}]";
    let yaml = "- to: a\n- to: b\n  id: x\n";
    for (text, format, found, path, expected) in [
        (
            single,
            Format::Json,
            problem("/0/id", None),
            "/id",
            Some((2, 8)),
        ),
        (single, Format::Json, problem("/0", None), "", Some((1, 1))),
        (
            list,
            Format::Json,
            problem("/1/id", None),
            "/1/id",
            Some((4, 9)),
        ),
        (list, Format::Json, problem("/0", None), "/0", Some((2, 2))),
        (
            yaml,
            Format::Yaml,
            problem("/1/id", None),
            "/1/id",
            Some((3, 7)),
        ),
        (
            list,
            Format::Json,
            problem("/1/id", Some(7)),
            "/1/id",
            Some((7, 7)),
        ),
        (list, Format::Json, problem("", None), "", None),
        ("[", Format::Json, problem("/1/id", None), "/1/id", None),
    ] {
        let placed = place(vec![found], text.as_bytes(), format).remove(0);
        assert_eq!(placed.path, path, "{text}");
        assert_eq!(placed.line.zip(placed.column), expected, "{text} {path}");
    }
}
