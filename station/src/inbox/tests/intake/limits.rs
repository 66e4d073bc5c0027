//! Limits of a file, of its messages and of what is in them.

use super::*;

#[test]
fn problems_beyond_the_limit_are_counted() {
    let many = format!("[{}]", vec!["7"; MAX_PROBLEMS + 3].join(","));
    let found = problems(json(&many));
    assert_eq!(found.len(), MAX_PROBLEMS + 1);
    assert_eq!(found[MAX_PROBLEMS].reason, "3 more problems are not shown");
    let few = format!("[{}]", vec!["7"; MAX_PROBLEMS].join(","));
    assert_eq!(problems(json(&few)).len(), MAX_PROBLEMS);
}

#[test]
fn the_number_of_messages_is_limited() {
    for count in [MAX_MESSAGES - 1, MAX_MESSAGES] {
        let text = format!("[{}]", vec![GOOD; count].join(","));
        assert_eq!(json(&text).unwrap().len(), count);
    }
    let text = format!("[{}]", vec![GOOD; MAX_MESSAGES + 1].join(",\n"));
    check(
        text,
        Format::Json,
        "1001:1",
        "holds 1001 messages; at most 1000",
        "split",
    );
}

#[test]
fn the_size_of_a_file_is_limited() {
    for size in [MAX_FILE - 1, MAX_FILE] {
        let text = format!("{GOOD}{}", " ".repeat(size - GOOD.len()));
        assert_eq!(json(&text), json(GOOD));
    }
    let text = format!("{GOOD}{}", " ".repeat(MAX_FILE + 1 - GOOD.len()));
    check(
        text,
        Format::Json,
        "",
        "is 1048577 bytes; at most 1048576",
        "split",
    );
}

#[test]
fn the_depth_of_a_file_is_limited() {
    let nested = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    for depth in [MAX_DEPTH - 2, MAX_DEPTH - 1] {
        check(
            nested(depth),
            Format::Json,
            "1:2",
            "is a list; expected a message",
            "",
        );
    }
    for depth in [MAX_DEPTH, MAX_DEPTH + 1, 200, 100_000] {
        check(
            nested(depth),
            Format::Json,
            "1:128",
            "nested 128 levels deep",
            "three",
        );
    }
    // A file nested too deep does not wait for an end that would not help.
    check(
        "[".repeat(200),
        Format::Json,
        "1:128",
        "nested 128 levels deep",
        "three",
    );
}

#[test]
fn the_size_of_an_argument_and_of_a_body_is_limited() {
    let with = |argument: usize| {
        let argument = "x".repeat(argument);
        format!("{{\"subject\": \"a.command.shellcommand.os\", \"data\": [\"{argument}\"]}}")
    };
    for size in [MAX_ARGUMENT - 1, MAX_ARGUMENT] {
        assert!(json(&with(size)).is_ok());
    }
    check(
        with(MAX_ARGUMENT + 1),
        Format::Json,
        "1:51",
        "is 131072 bytes long",
        "",
    );

    let empty = "{\"data\":[\"cat\"],\"stdin\":\"\"}".len();
    let with = |stdin: usize| {
        let stdin = "x".repeat(stdin);
        format!(
            "{{\"subject\": \"a.command.shellcommand.os\", \"data\": [\"cat\"], \"stdin\": \"{stdin}\"}}"
        )
    };
    for size in [MAX_BODY - empty - 1, MAX_BODY - empty] {
        assert!(json(&with(size)).is_ok());
    }
    check(
        with(MAX_BODY - empty + 1),
        Format::Json,
        "1:1",
        "as it travels",
        "script",
    );
}
