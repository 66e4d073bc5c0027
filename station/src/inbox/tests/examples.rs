//! The example files and the schema: every example is read, except the one that is wrong on purpose,
//! and the schema speaks of the same fields as the reader.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{fs, path::Path};

use crate::inbox::{Format, Unreadable, canonical, read, schema};
use serde_json::Value;
use steward_protocol::Method;

/// The one that shows what a rejection looks like.
const INVALID: &str = "demo-invalid.json";

fn examples() -> Vec<(String, Vec<u8>)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../example-inmessage");
    let mut files: Vec<(String, Vec<u8>)> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| {
            let entry = entry.unwrap();
            let name = entry.file_name().into_string().unwrap();
            (name, fs::read(entry.path()).unwrap())
        })
        .collect();
    files.sort();
    files
}

#[test]
fn every_example_is_read_and_only_the_invalid_one_is_refused() {
    let files = examples();
    assert!(files.len() >= 10);
    for (name, bytes) in &files {
        match read(bytes, Format::of_name(name.as_ref())) {
            Ok(messages) => {
                assert_ne!(name, INVALID);
                let text = canonical(&messages).to_string();
                assert_eq!(read(text.as_bytes(), Format::Json), Ok(messages), "{name}");
            }
            Err(error) => assert_eq!(name, INVALID, "{error:?}"),
        }
    }
    assert!(files.iter().any(|(name, _)| name == INVALID));
}

#[test]
fn the_invalid_example_is_refused_for_a_slip_of_the_pen() {
    let files = examples();
    let (_, bytes) = files.iter().find(|(name, _)| name == INVALID).unwrap();
    let Err(Unreadable::Rejected(problems)) = read(bytes, Format::Json) else {
        panic!("the invalid example was not rejected")
    };
    let slip = problems
        .iter()
        .find(|problem| problem.path == "/domian")
        .unwrap();
    assert_eq!((slip.line, slip.column), (Some(5), Some(3)));
    assert_eq!(slip.hint.as_deref(), Some("did you mean \"domain\"?"));
}

#[test]
fn every_field_of_every_example_is_in_the_schema() {
    let schema = schema();
    let shapes = schema["definitions"]["message"]["anyOf"]
        .as_array()
        .unwrap();
    for (name, bytes) in examples() {
        if name == INVALID {
            continue;
        }
        let value: Value = serde_json::from_slice(&bytes).unwrap();
        let messages = match value {
            Value::Array(messages) => messages,
            message => vec![message],
        };
        for message in messages {
            assert!(
                shapes.iter().any(|shape| fits(&message, shape)),
                "{name}: {message}"
            );
        }
    }
}

/// Whether an object has only fields of the shape, all of one of its required sets, and objects only
/// where objects belong.
fn fits(message: &Value, shape: &Value) -> bool {
    let fields = message.as_object().unwrap();
    let known = fields.iter().all(|(name, value)| {
        let property = &shape["properties"][name];
        match property["properties"].is_object() {
            true => value.is_object() && fits(value, property),
            false => property.is_object() && (!value.is_object() || property["type"] == "object"),
        }
    });
    let complete = shape["oneOf"].as_array().is_none_or(|sets| {
        sets.iter().any(|set| {
            let required = set["required"].as_array().unwrap();
            required
                .iter()
                .all(|name| fields.contains_key(name.as_str().unwrap()))
        })
    });
    known && complete && shape["additionalProperties"] == false
}

#[test]
fn every_field_of_the_schema_is_known_to_the_reader() {
    let schema = schema();
    let shapes = schema["definitions"]["message"]["anyOf"]
        .as_array()
        .unwrap();
    assert_eq!(shapes.len(), Method::ORDERABLE.len() + 2);
    let mut seen = 0;
    for shape in shapes {
        // What makes the reader see this shape; the fields beside it are then read against its table.
        let mark = match shape["title"].as_str().unwrap() {
            "canonical form" => "\"kind\": 1".to_owned(),
            "older shape: flat" => "\"retries\": 1".to_owned(),
            "older shape: subject and message" => "\"message\": 1".to_owned(),
            method => format!("\"method\": \"{method}\""),
        };
        for (name, property) in shape["properties"].as_object().unwrap() {
            assert!(property["description"].is_string(), "{name}");
            let text = format!("{{{mark}, \"{name}\": 1, \"surely not\": 1}}");
            let Err(Unreadable::Rejected(problems)) = read(text.as_bytes(), Format::Json) else {
                panic!("{text}")
            };
            let unknown: Vec<&str> = problems
                .iter()
                .filter(|problem| problem.reason.starts_with("there is no field"))
                .map(|problem| problem.path.as_str())
                .collect();
            assert_eq!(unknown, ["/surely not"], "{text}");
            seen += 1;
        }
    }
    assert!(seen > 30);
}

#[test]
fn the_schema_is_draft_07() {
    assert_eq!(
        schema()["$schema"],
        "http://json-schema.org/draft-07/schema#"
    );
}
