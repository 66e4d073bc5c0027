//! What a file means, however it is written.

use super::*;

#[test]
fn every_form_of_a_message_means_the_same() {
    let expected = json(GOOD).unwrap();
    for text in [
        r#"[{"to": "ship1", "method": "shellcommand", "domain": "operatingsystem", "data": ["uname", "-a"]}]"#,
        r#"{"$schema": "message.schema.json", "to": ["ship1"], "kind": "command", "method": "shellcommand", "domain": "operatingsystem", "data": ["uname", "-a"], "timeout": "5m", "ordered": true, "success_codes": [0]}"#,
        r#"{"subject": {"node": "ship1", "messageType": "Command", "method": "shellCommand", "domain": "operatingsystem"}, "message": {"data": ["uname", "-a"]}}"#,
        r#"{"subject": {"node": "ship1", "commandOrEvent": "commandACK", "method": "cliCommand"}, "message": {"data": ["uname", "-a"], "retries": 3}}"#,
        r#"{"toNode": "ship1", "method": "REQCliCommand", "methodArgs": ["uname", "-a"], "retries": 3, "ACKTimeout": 10, "methodTimeout": 300}"#,
        r#"{"toNodes": ["ship1"], "commandOrEvent": "CommandNACK", "method": "ShellCommand", "data": ["uname", "-a"], "methodTimeout": "300"}"#,
    ] {
        assert_eq!(json(text), Ok(expected.clone()), "{text}");
    }
    let single = r#"{"toNode": "ship1", "method": "cliCommand", "methodArgs": "uptime", "methodTimeout": 1.5}"#;
    let message = &json(single).unwrap()[0];
    assert_eq!(program(&message.body), ["uptime"]);
    assert_eq!(message.options.timeout, Duration::from_millis(1500));
}

#[test]
fn targets_are_read_as_they_are_meant() {
    let target = |text: &str| {
        let text =
            format!("{{{text}, \"method\": \"hello\", \"domain\": \"node\", \"kind\": \"event\"}}");
        let message = json(&text).unwrap().remove(0);
        assert_eq!(message.kind, Kind::Event);
        message.target
    };
    let all = Target::Labels([].into());
    assert_eq!(target("\"to\": \"*\""), all);
    assert_eq!(target("\"to\": [\"*\"]"), all);
    let labels = [
        ("zone".to_owned(), "north".to_owned()),
        ("spare".to_owned(), String::new()),
    ];
    assert_eq!(
        target("\"labels\": {\"zone\": \"north\", \"spare\": \"\"}"),
        Target::Labels(labels.into())
    );
}

#[test]
fn yaml_means_the_same_and_has_places_too() {
    let text = "- subject: ship1.command.shellcommand.operatingsystem\n  data: [uname, -a]\n";
    assert_eq!(read(text.as_bytes(), Format::Yaml), json(GOOD));
    for (text, place, reason, hint) in [
        (
            "- to: ship1\n  domian: os\n  method: hello\n",
            "2:3",
            "there is no field \"domian\"",
            "did you mean \"domain\"?",
        ),
        (
            "to: ship1\nmethod: shellcommand\ndomain: os\ndata: [sleep, 5]\n",
            "4:15",
            "is a number",
            "\"5\"",
        ),
        ("to: ship1\nto: ship2\n", "2:1", "is not YAML", ""),
        ("to: ship1\n---\nto: ship2\n", "2:1", "is not YAML", ""),
        ("to: [ship1\nmethod: x", "2:7", "is not YAML", ""),
        ("just words", "1:1", "is a string; expected a message", ""),
    ] {
        check(text, Format::Yaml, place, reason, hint);
    }
}

#[test]
fn one_id_may_stand_for_one_content_only() {
    let id = "\"id\": \"0190a000-0000-7000-8000-000000000001\"";
    let one = GOOD.replace('{', &format!("{{{id}, "));
    let other = one.replace("-a", "-r");
    assert_eq!(json(&format!("[{one}, {one}]")).unwrap().len(), 2);
    check(
        format!("[{one},\n{other}]"),
        Format::Json,
        "2:1",
        "which another message of this file has",
        "own id",
    );
}

#[test]
fn the_content_digest_is_over_what_is_asked_and_not_how_it_is_written() {
    let digest = |text: &str| content_digest(&json(text).unwrap()[0]);
    let with_id = GOOD.replace(
        '{',
        "{\"id\": \"0190a000-0000-7000-8000-000000000001\", \"timeout\": \"300s\", ",
    );
    assert_eq!(digest(GOOD), digest(&with_id));
    assert_ne!(digest(GOOD), digest(&GOOD.replace("-a", "-r")));
    assert_ne!(
        digest(GOOD),
        digest(&GOOD.replace('{', "{\"timeout\": \"301s\", "))
    );
}

#[test]
fn strings_made_to_hurt_are_carried_or_refused_but_never_obeyed() {
    for hostile in [
        "$(reboot)",
        "`id`; rm -rf / #",
        "../../etc/passwd",
        "%s%n%x",
        "'; DROP TABLE messages; --",
        "<script>alert(1)</script>",
        "\u{202e}gnp.exe",
        "\u{1b}]0;owned\u{7}",
        "Z̮̞̠͙͔ͅḀ̗̞͈̻̗Ḷ͙͎̯̹̞͓G̻O̭̗̮",
        "👩‍👩‍👧‍👦",
        "\u{fffe}\u{10ffff}",
    ] {
        let quoted = serde_json::to_string(hostile).unwrap();
        let data = GOOD.replace("\"-a\"", &quoted);
        let message = json(&data).unwrap().remove(0);
        assert_eq!(program(&message.body)[1], hostile);
        assert_eq!(
            json(&canonical(std::slice::from_ref(&message)).to_string()),
            Ok(vec![message])
        );
        let field = GOOD.replace("\"data\"", &quoted);
        for problem in problems(json(&field)) {
            assert!(
                !problem.reason.contains(['\u{1b}', '\u{202e}']),
                "{problem:?}"
            );
        }
        let node = format!("{{\"to\": {quoted}, \"method\": \"hello\", \"domain\": \"os\"}}");
        assert!(json(&node).is_err());
    }
}

#[test]
fn the_canonical_form_says_no_more_than_it_must() {
    for text in [
        r#"[{"subject":"a.command.hello.os"}]"#,
        r#"[{"subject":"a.event.hello.os","name":"x"}]"#,
        r#"[{"to":["a","b"],"method":"hello","domain":"os"}]"#,
        r#"[{"to":"*","kind":"event","method":"hello","domain":"os"}]"#,
        r#"[{"labels":{"a":"b"},"method":"hello","domain":"os","ordered":false}]"#,
        r#"[{"subject":"a.command.survey.os","data":["x"],"cwd":"/","env":{"A":""},"stdin":"","timeout":"1m","expires":"1h","idempotent":true,"success_codes":[1]}]"#,
    ] {
        let messages = json(text).unwrap();
        let value: serde_json::Value = serde_json::from_str(text).unwrap();
        assert_eq!(canonical(&messages), value);
    }
}
