//! Laws of message files: printing and reading are inverses, and no bytes make the reader panic.

#![expect(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::{collections::BTreeMap, time::Duration};

use crate::inbox::{Format, Unreadable, canonical, read};
use proptest::{collection, option, prelude::*, sample};
use steward_protocol::{
    Body, Kind, Message, MessageId, Method, MethodName, Options, ShellBody, Target,
};
use uuid::Uuid;

fn token() -> impl Strategy<Value = String> {
    "[A-Za-z0-9][A-Za-z0-9_-]{0,10}"
}

fn method() -> impl Strategy<Value = String> {
    // The words of station and agent cannot be ordered, and the other methods have bodies of their own.
    token().prop_filter("known", |method| {
        let name: MethodName = method.parse().expect("a token");
        Method::from_name(&name).is_none_or(|method| method == Method::Shellcommand)
    })
}

fn text() -> impl Strategy<Value = String> {
    collection::vec(any::<char>(), 0..12).prop_map(|characters| {
        characters
            .into_iter()
            .filter(|character| *character != '\0')
            .collect()
    })
}

fn line() -> impl Strategy<Value = String> {
    text().prop_map(|text| {
        let line: String = text.chars().filter(|c| !c.is_control()).collect();
        format!("n{line}")
    })
}

fn labels() -> impl Strategy<Value = BTreeMap<String, String>> {
    let value = prop_oneof![Just(String::new()), line()];
    collection::btree_map(line(), value, 0..4)
}

fn target() -> impl Strategy<Value = Target> {
    let nodes = collection::btree_set(token(), 1..5)
        .prop_map(|nodes| Target::Nodes(nodes.iter().map(|node| node.parse().unwrap()).collect()));
    prop_oneof![nodes, labels().prop_map(Target::Labels)]
}

fn options() -> impl Strategy<Value = Options> {
    (
        1_u64..=24 * 3_600_000,
        1_u64..=90 * 24 * 3_600_000,
        any::<bool>(),
        any::<bool>(),
        sample::subsequence((0..256).collect::<Vec<i32>>(), 1..5),
        any::<bool>(),
    )
        .prop_map(
            |(timeout, expires, ordered, idempotent, success_codes, standard)| {
                if standard {
                    return Options::standard();
                }
                Options {
                    timeout: Duration::from_millis(timeout),
                    expires: Duration::from_millis(expires),
                    ordered,
                    idempotent,
                    success_codes,
                    ..Options::standard()
                }
            },
        )
}

fn body() -> impl Strategy<Value = Body> {
    let variable = text().prop_map(|text| format!("V{}", text.replace('=', "")));
    (
        text(),
        collection::vec(text(), 0..4),
        option::of(text().prop_map(|text| format!("/{text}"))),
        collection::btree_map(variable, text(), 0..4),
        option::of(any::<String>()),
    )
        .prop_map(|(program, arguments, cwd, env, stdin)| {
            Body::Shell(ShellBody {
                data: std::iter::once(format!("p{program}"))
                    .chain(arguments)
                    .collect(),
                cwd,
                env,
                stdin,
                ..ShellBody::default()
            })
        })
}

fn message() -> impl Strategy<Value = Message> {
    (
        option::of(1_u128..),
        option::of(line()),
        target(),
        any::<bool>(),
        (method(), token()),
        options(),
        body(),
    )
        .prop_map(
            |(id, name, target, event, (method, domain), options, body)| Message {
                id: id.map(|id| MessageId(Uuid::from_u128(id))),
                name,
                target,
                kind: if event { Kind::Event } else { Kind::Command },
                method: method.parse().unwrap(),
                domain: domain.parse().unwrap(),
                options,
                body,
            },
        )
}

/// Pieces of message files, so that random texts come near to being one.
fn nearly() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        Just("{".to_owned()),
        Just("}".to_owned()),
        Just("[".to_owned()),
        Just("]".to_owned()),
        Just(",".to_owned()),
        Just(":".to_owned()),
        Just("\n- ".to_owned()),
        Just("&a *a !x ---".to_owned()),
        sample::select(vec![
            "subject",
            "to",
            "labels",
            "method",
            "domain",
            "data",
            "message",
            "node",
            "toNode",
            "toNodes",
            "methodArgs",
            "methodTimeout",
            "timeout",
            "success_codes",
            "env",
            "id",
            "$schema",
            "ship1",
            "shellcommand",
            "ship1.command.shellcommand.os",
            "99999999999999999999s",
            "*",
        ])
        .prop_map(|word| format!("\"{word}\"")),
        any::<f64>().prop_map(|number| number.to_string()),
        any::<i64>().prop_map(|number| number.to_string()),
        any::<String>(),
    ];
    collection::vec(piece, 0..40).prop_map(|pieces| pieces.concat())
}

/// A well-formed JSON value built of the words of message files.
fn value() -> impl Strategy<Value = serde_json::Value> {
    use serde_json::Value;
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        sample::select(vec!["*", "ship1", "30s", "command", "1.5d", "\0", "a b"])
            .prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    let key = sample::select(vec![
        "subject",
        "message",
        "to",
        "labels",
        "method",
        "domain",
        "data",
        "env",
        "toNode",
        "toNodes",
        "methodTimeout",
        "timeout",
        "expires",
        "success_codes",
        "id",
        "name",
        "kind",
        "node",
        "x/~y",
    ]);
    leaf.prop_recursive(4, 40, 6, move |inner| {
        prop_oneof![
            collection::vec(inner.clone(), 0..5).prop_map(Value::from),
            collection::vec((key.clone(), inner), 0..8).prop_map(|entries| {
                Value::Object(
                    entries
                        .into_iter()
                        .map(|(k, v)| (k.to_owned(), v))
                        .collect(),
                )
            }),
        ]
    })
}

proptest! {
    #[test]
    fn reading_the_canonical_form_gives_the_same_messages(messages in collection::vec(message(), 1..4)) {
        let mut messages = messages;
        // Two contents under one id cannot be written in one file.
        let mut seen = std::collections::HashSet::new();
        messages.retain(|message| message.id.is_none_or(|id| seen.insert(id)));
        let compact = canonical(&messages).to_string();
        prop_assert_eq!(read(compact.as_bytes(), Format::Json), Ok(messages.clone()));
        let pretty = format!("{:#}", canonical(&messages));
        prop_assert_eq!(read(pretty.as_bytes(), Format::Json), Ok(messages));
    }

    #[test]
    fn no_bytes_make_the_reader_panic(bytes in collection::vec(any::<u8>(), 0..300)) {
        drop(read(&bytes, Format::Json));
        drop(read(&bytes, Format::Yaml));
    }

    #[test]
    fn no_text_like_a_message_file_makes_the_reader_panic(text in nearly()) {
        drop(read(text.as_bytes(), Format::Json));
        drop(read(text.as_bytes(), Format::Yaml));
    }

    #[test]
    fn every_problem_of_valid_json_has_a_place_in_it(value in value()) {
        let text = format!("{value:#}");
        if let Err(Unreadable::Rejected(problems)) = read(text.as_bytes(), Format::Json) {
            for problem in problems.iter().filter(|problem| !problem.reason.ends_with("not shown")) {
                let line = usize::try_from(problem.line.unwrap()).unwrap();
                let column = usize::try_from(problem.column.unwrap()).unwrap();
                let found = text.lines().nth(line - 1).unwrap();
                prop_assert!(column <= found.chars().count());
                prop_assert!(value.pointer(&problem.path).is_some(), "{:?}", problem);
            }
        }
    }

    #[test]
    fn a_cut_file_is_never_a_different_message(messages in collection::vec(message(), 1..3), cut in 0.0..1.0_f64) {
        let text = format!("{:#}\n", canonical(&messages));
        let length = (text.len() as f64 * cut) as usize;
        match read(&text.as_bytes()[..length], Format::Json) {
            Ok(read) => prop_assert_eq!(read, messages),
            Err(Unreadable::Incomplete) => {}
            Err(Unreadable::Rejected(problems)) => prop_assert!(false, "{:?}", problems),
        }
    }
}
