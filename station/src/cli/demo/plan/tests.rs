//! Tests of what the demo expects, and what it makes of what it sees.

use crate::view::InboxFileView;

use super::*;

fn message(file: &str, states: &[(&str, State)]) -> MessageView {
    let deliveries: Vec<Value> = states
        .iter()
        .map(|(node, state)| {
            json!({
                "node": node,
                "subject": format!("{node}.command.shellcommand.operatingsystem"),
                "state": state,
                "since": "2026-11-21T08:00:00Z",
                "observed_by": node,
                "attempts": 1,
            })
        })
        .collect();
    serde_json::from_value(json!({
        "id": "0190f000-0000-7000-8000-000000000001",
        "name": null,
        "source": format!("inbox:{file}"),
        "submitted_by": "uid:0",
        "accepted_at": "2026-11-21T08:00:00Z",
        "expires_at": "2026-11-22T08:00:00Z",
        "version": 1,
        "deliveries": deliveries,
    }))
    .expect("a message")
}

fn file(name: &str, place: InboxPlace) -> InboxFileView {
    InboxFileView {
        name: name.to_owned(),
        place,
        since: "2026-11-21T08:00:00Z".parse().expect("a time"),
        bytes: 1,
        reason: None,
        problems: Vec::new(),
        messages: Vec::new(),
    }
}

/// Two nodes; the states of the first and of the second example, and where the third file is.
fn scene(first: [State; 2], second: [State; 2], third: InboxPlace) -> Scene {
    let on = |[one, two]: [State; 2]| [("ship1", one), ("ship2", two)];
    Scene {
        messages: vec![
            message("demo-succeeds-everywhere.json", &on(first)),
            message("demo-fails-on-one-node.json", &on(second)),
        ],
        files: vec![
            file("0190--demo-succeeds-everywhere.json", InboxPlace::Done),
            file("demo-invalid.json", third),
        ],
        ..Scene::default()
    }
}

#[test]
fn the_embedded_examples_are_json_and_the_plan_readdresses_them() {
    for count in [1, 2, 3, 100] {
        let plan = Plan::new(count);
        assert_eq!(plan.nodes().len(), usize::from(count));
        for example in plan.examples() {
            if example.expected == Expected::Rejection {
                continue;
            }
            let file: Value = serde_json::from_str(&example.text).expect("JSON");
            let messages = match file {
                Value::Array(messages) => messages,
                message => vec![message],
            };
            for message in messages {
                assert_eq!(message["to"], json!(plan.nodes()), "{}", example.file);
            }
        }
    }
}

#[test]
fn a_demo_is_judged_by_what_the_examples_are_meant_to_do() {
    use InboxPlace::{Done, Rejected, Waiting};
    use State::{Failed, Running, Succeeded, TimedOut};
    for (first, second, third, expected) in [
        ([Succeeded; 2], [Succeeded, Failed], Rejected, "as expected"),
        ([Succeeded; 2], [Succeeded, Failed], Waiting, "waiting"),
        (
            [Succeeded, Running],
            [Succeeded, Failed],
            Rejected,
            "waiting",
        ),
        ([Failed, Running], [Succeeded, Failed], Rejected, "waiting"),
        ([Succeeded; 2], [Succeeded; 2], Rejected, "otherwise"),
        ([Succeeded; 2], [Failed; 2], Rejected, "otherwise"),
        (
            [Succeeded, Failed],
            [Succeeded, Failed],
            Rejected,
            "otherwise",
        ),
        ([Succeeded; 2], [Succeeded, TimedOut], Rejected, "otherwise"),
        ([Succeeded; 2], [Succeeded, Failed], Done, "otherwise"),
    ] {
        let verdict = Plan::new(2).judge(&scene(first, second, third));
        let word = match &verdict {
            Verdict::Waiting(_) => "waiting",
            Verdict::AsExpected => "as expected",
            Verdict::Otherwise(_) => "otherwise",
        };
        assert_eq!(
            word, expected,
            "{first:?} {second:?} {third:?}: {verdict:?}"
        );
    }
}

#[test]
fn with_one_node_nothing_is_meant_to_fail() {
    let scene = Scene {
        messages: vec![
            message(
                "demo-succeeds-everywhere.json",
                &[("ship1", State::Succeeded)],
            ),
            message(
                "demo-fails-on-one-node.json",
                &[("ship1", State::Succeeded)],
            ),
        ],
        files: vec![file("demo-invalid.json", InboxPlace::Rejected)],
        ..Scene::default()
    };
    assert_eq!(Plan::new(1).judge(&scene), Verdict::AsExpected);
}

#[test]
fn an_example_that_was_refused_is_told() {
    let mut scene = scene(
        [State::Succeeded; 2],
        [State::Succeeded, State::Failed],
        InboxPlace::Rejected,
    );
    scene.messages.remove(0);
    scene.files[0] = file("demo-succeeds-everywhere.json", InboxPlace::Rejected);
    assert_eq!(
        Plan::new(2).judge(&scene),
        Verdict::Otherwise(vec![
            "demo-succeeds-everywhere.json was rejected".to_owned()
        ])
    );
}
