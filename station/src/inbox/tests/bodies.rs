//! Tests of reading the bodies of methods in message files: where a problem is, its words, and the way back.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use serde_json::{Value, json};
use steward_protocol::{Method, Options, ReplyTo, limits};

use crate::inbox::{Format, Unreadable, canonical, read, schema};

/// Reads one message for ship1 with these fields.
fn one(method: &str, fields: &str) -> Result<steward_protocol::Message, (String, String, String)> {
    let text =
        format!("{{\"to\": \"ship1\", \"method\": \"{method}\", \"domain\": \"os\", {fields}}}");
    match read(text.as_bytes(), Format::Json) {
        Ok(mut messages) => Ok(messages.remove(0)),
        Err(Unreadable::Rejected(problems)) => {
            assert_eq!(problems.len(), 1, "{text}\n{problems:?}");
            let problem = problems.into_iter().next().unwrap();
            Err((problem.path, problem.reason, problem.hint.unwrap()))
        }
        Err(other) => panic!("{text}: {other:?}"),
    }
}

/// Each row: method, fields, and where in the file the one problem is, with a part of its words and its hint.
#[test]
fn a_problem_of_a_body_is_told_where_it_stands() {
    for (method, fields, path, reason, hint) in [
        (
            "filewrite",
            r#""content": "x""#,
            "",
            "missing field `path`",
            "the fields of filewrite are path, content, base64",
        ),
        (
            "filewrite",
            r#""path": "/a""#,
            "",
            "is missing; it or \"base64\"",
            "the fields of filewrite are",
        ),
        (
            "filewrite",
            r#""path": "a", "content": "x""#,
            "/path",
            "is not absolute",
            "the fields of",
        ),
        (
            "filewrite",
            r#""path": "/a", "content": 5"#,
            "/content",
            "expected a string",
            "the fields of",
        ),
        (
            "filewrite",
            r#""path": "/a", "content": "x", "moed": "0644""#,
            "/moed",
            "there is no field \"moed\"",
            "did you mean \"mode\"?",
        ),
        (
            "filewrite",
            r#""path": "/a", "content": "x", "data": []"#,
            "/data",
            "there is no field \"data\"",
            "canonical form",
        ),
        (
            "filefetch",
            r#""path": "/a\u001b[2J/""#,
            "/path",
            "names a directory",
            "the fields of filefetch are path",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "nice": 40"#,
            "/nice",
            "is not between -20 and 19",
            "the fields of shellcommand are data, shell",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "limits": {"memory": "1 pound"}"#,
            "/limits/memory",
            "a number of bytes",
            "the fields of",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "limits": {"memry": 1}"#,
            "/limits/memry",
            "there is no field \"memry\"",
            "did you mean \"memory\"?",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "limits": {"weight": 1}"#,
            "/limits/weight",
            "there is no field",
            "the fields are memory, cpu, tasks",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "shell": "y""#,
            "/shell",
            "stands beside \"data\"",
            "the fields of",
        ),
        (
            "schedule",
            r#""schedule": "s", "every": "1h", "run": {"method": "shellcommand", "domain": "os", "data": ["a", 1]}"#,
            "/run/data/1",
            "expected a string",
            "the fields of schedule are",
        ),
        (
            "schedule",
            r#""schedule": "s", "every": "1h", "run": {"method": "shellcommand", "domain": "os", "data": ["a"], "dta": 1}"#,
            "/run/dta",
            "there is no field \"dta\"",
            "did you mean \"data\"?",
        ),
        (
            "schedule",
            r#""schedule": "s", "every": "1h", "run": {"method": "filewrite", "domain": "os", "path": "/a", "content": "", "zzzzzz": 1}"#,
            "/run/zzzzzz",
            "there is no field",
            "the fields are method, domain, timeout, path, content",
        ),
        (
            "processes",
            r#""action": "dance""#,
            "/action",
            "unknown variant `dance`",
            "the fields of processes are action, process",
        ),
        (
            "hello",
            r#""data": ["x"]"#,
            "/data",
            "there is no field \"data\"",
            "canonical form",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "reply": {"to": "nowhere"}"#,
            "/reply",
            "unknown variant `nowhere`",
            "write {\"to\": \"file\"",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "reply": {"to": "file", "directory": "../x"}"#,
            "/reply",
            "has a \"directory\" that is not a plain name",
            "write {\"to\"",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "reply": {"to": "file", "file_name": "a//b"}"#,
            "/reply",
            "has a \"file_name\"",
            "write {\"to\"",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "reply": {"to": "file", "file_name": "./b"}"#,
            "/reply",
            "has a \"file_name\"",
            "write {\"to\"",
        ),
        (
            "shellcommand",
            r#""data": ["x"], "reply": {"to": "file", "file_name": "a\nb"}"#,
            "/reply",
            "has a \"file_name\"",
            "write {\"to\"",
        ),
    ] {
        let found = one(method, fields).expect_err(fields);
        assert_eq!(found.0, path, "{fields}\n{found:?}");
        assert!(found.1.contains(reason), "{fields}\n{found:?}");
        assert!(found.2.contains(hint), "{fields}\n{found:?}");
        assert!(!found.1.contains(char::is_control), "{fields}\n{found:?}");
    }
}

#[test]
fn a_long_name_below_results_is_refused_and_a_plain_one_taken() {
    let reply = |name: &str| {
        let fields =
            format!(r#""data": ["x"], "reply": {{"to": "append", "directory": "{name}"}}"#);
        one("shellcommand", &fields)
    };
    for name in ["a", "a/b.c", &"x".repeat(255)] {
        let taken = reply(name).unwrap().options.reply.unwrap();
        assert_eq!(
            (taken.to, taken.directory.as_deref()),
            (ReplyTo::Append, Some(name))
        );
    }
    assert!(reply(&"x".repeat(256)).is_err());
}

/// Each row is a message as it is written in canonical form, and so it comes out again.
#[test]
fn every_method_reads_back_from_its_canonical_form() {
    for (method, body) in [
        (
            "shellcommand",
            json!({"shell": "a | b", "user": "nobody", "group": "adm", "grace": "2s", "nice": 5,
            "limits": {"memory": 1024, "cpu": "50%", "tasks": 3}, "stream": true,
            "reply": {"to": "file", "directory": "d", "file_name": "f"}}),
        ),
        ("hello", json!({})),
        ("ping", json!({"timeout": "10s"})),
        (
            "filewrite",
            json!({"path": "/a", "content": "x", "mode": "0600", "owner": "u:g", "if_match": "absent", "parents": true}),
        ),
        ("fileappend", json!({"path": "/a", "base64": "eA=="})),
        ("filefetch", json!({"path": "/a"})),
        ("filesend", json!({"source": "a/b", "path": "/a"})),
        ("tailfile", json!({"path": "/a", "lines": 3, "for": "5m"})),
        (
            "tailfile",
            json!({"path": "/a", "from": "start", "timeout": "1h", "stream": false}),
        ),
        (
            "httpget",
            json!({"url": "http://a/", "headers": {"A": "b"}, "max_bytes": 10}),
        ),
        (
            "processes",
            json!({"action": "stop", "process": "ship1.command.shellcommand.os"}),
        ),
        (
            "schedule",
            json!({"action": "set", "schedule": "s", "cron": "30 3 * * *", "jitter": "5m", "missed": "once",
            "run": {"method": "shellcommand", "domain": "os", "timeout": "1m", "data": ["a"]}}),
        ),
        ("textlogging", json!({"data": ["a", "b"]})),
    ] {
        let mut message = json!({"subject": format!("ship1.command.{method}.os")});
        let fields = message.as_object_mut().unwrap();
        fields.extend(body.as_object().unwrap().clone());
        let text = Value::Array(vec![message.clone()]).to_string();
        let read = read(text.as_bytes(), Format::Json).unwrap();
        assert_eq!(canonical(&read), json!([message]), "{text}");
    }
}

#[test]
fn following_a_file_takes_as_long_as_it_is_wanted_and_is_wanted_while_it_goes_on() {
    let options = |fields: &str| one("tailfile", fields).unwrap().options;
    let plain = options(r#""path": "/a""#);
    assert_eq!((plain.timeout, plain.stream), (limits::MAX_TIMEOUT, true));
    let given = options(r#""path": "/a", "timeout": "5m", "stream": false"#);
    assert_eq!(
        (given.timeout, given.stream),
        (Options::standard().timeout, false)
    );
}

/// Returns the schema of the shape with this title.
fn shape(title: &str) -> Value {
    let schema = schema();
    let shapes = schema["definitions"]["message"]["anyOf"]
        .as_array()
        .unwrap();
    shapes
        .iter()
        .find(|shape| shape["title"] == title)
        .unwrap()
        .clone()
}

#[test]
fn the_schema_ties_each_method_to_its_fields() {
    for method in Method::ORDERABLE {
        if method == Method::Shellcommand {
            continue;
        }
        let shape = shape(method.as_str());
        assert_eq!(shape["properties"]["method"]["const"], method.as_str());
    }
    let others = &shape("canonical form")["properties"]["method"];
    assert_eq!(others["type"], "string");
    let not = others["not"]["enum"].as_array().unwrap();
    assert!(not.contains(&json!("filewrite")) && !not.contains(&json!("shellcommand")));
    // The older shapes have no method of their own.
    let flat = shape("older shape: flat");
    assert!(flat["properties"]["method"]["not"].is_null());
    let nested = shape("older shape: subject and message");
    assert!(nested["properties"]["subject"]["properties"]["method"]["not"].is_null());
}
