//! Tests of the roster: silence, and who is who.

use steward_protocol::version;
use uuid::Uuid;

use super::*;

const LEDGER: LedgerId = LedgerId(Uuid::from_u128(1));

fn at(seconds: u64) -> Moment {
    Moment {
        mono: Duration::from_secs(seconds),
        wall: Timestamp::from_second(1_800_000_000 + seconds.cast_signed()).expect("a time"),
        dice: 0,
    }
}

fn ship() -> NodeName {
    "ship1".parse().expect("a name")
}

fn origin(journal: u128, instance: u128) -> Origin {
    Origin {
        v: version::CURRENT,
        instance: InstanceId(Uuid::from_u128(instance)),
        journal_id: JournalId(Uuid::from_u128(journal)),
        ledger_id: None,
    }
}

/// The hello of a first start, said at that second.
fn hello_at(second: u64) -> Hello {
    Hello {
        at: at(second).wall,
        ..hello(1)
    }
}

fn hello(counter: u64) -> Hello {
    Hello {
        counter,
        boot_id: "boot".to_owned(),
        version: "0.1.0".to_owned(),
        at: at(0).wall,
        started_at: at(0).wall,
        interval_ms: 10_000,
        round_trip_us: None,
        labels: BTreeMap::from([("site".to_owned(), "bergen".to_owned())]),
        lanes: BTreeMap::new(),
        open: Vec::new(),
        unconfirmed: Vec::new(),
        processes: Vec::new(),
        counters: BTreeMap::new(),
        leaving: false,
        facts: None,
        budgets: BTreeMap::new(),
    }
}

fn listening(records: Vec<NodeRecord>) -> Roster {
    let mut roster = Roster::new(LEDGER, records, at(0));
    roster.listening(Some(Duration::ZERO));
    roster
}

fn presence(roster: &Roster) -> Presence {
    roster.get(&ship()).expect("known").presence()
}

#[test]
fn silence_makes_a_node_late_and_then_offline_at_two_and_a_half_and_three_and_a_half_heartbeats() {
    let mut roster = listening(Vec::new());
    assert_eq!(
        roster.hello(&ship(), &origin(1, 1), &hello(1), at(0)),
        Greeting::Started
    );
    for (second, expected) in [
        (25, Presence::Online),
        (26, Presence::Late),
        (35, Presence::Late),
        (36, Presence::Offline),
    ] {
        roster.tick(at(second));
        assert_eq!(presence(&roster), expected, "after {second} s");
    }
    assert_eq!(roster.get(&ship()).expect("known").since(), at(36).wall);
    assert_eq!(
        roster.hello(&ship(), &origin(1, 1), &hello(1), at(40)),
        Greeting::Same
    );
    assert_eq!(
        (
            presence(&roster),
            roster.get(&ship()).expect("known").since()
        ),
        (Presence::Online, at(40).wall)
    );
}

#[test]
fn silence_proves_nothing_while_we_cannot_hear() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    roster.listening(None);
    assert!(roster.tick(at(1000)).is_empty());
    roster.listening(Some(Duration::from_secs(1000)));
    roster.tick(at(1020));
    assert_eq!(presence(&roster), Presence::Online);
    roster.tick(at(1026));
    assert_eq!(presence(&roster), Presence::Late);
}

#[test]
fn a_node_known_from_before_the_restart_is_unknown_until_it_speaks() {
    let mut first = listening(Vec::new());
    first.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    let record = first.get(&ship()).expect("known").record.clone();
    let roster = listening(vec![record]);
    assert_eq!(presence(&roster), Presence::Unknown);
}

#[test]
fn a_leaving_node_is_offline_at_once() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    roster.hello(
        &ship(),
        &origin(1, 1),
        &Hello {
            leaving: true,
            ..hello(1)
        },
        at(1),
    );
    assert_eq!(presence(&roster), Presence::Offline);
}

#[test]
fn a_restart_supersedes_at_once_and_the_superseded_start_is_held_back() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    assert_eq!(
        roster.hello(&ship(), &origin(1, 2), &hello(2), at(1)),
        Greeting::Started
    );
    let old = roster.hello(&ship(), &origin(1, 1), &hello(1), at(2));
    assert!(
        matches!(old, Greeting::Conflict { first: true, .. }),
        "{old:?}"
    );
    let again = roster.hello(&ship(), &origin(1, 1), &hello(1), at(3));
    assert!(
        matches!(again, Greeting::Conflict { first: false, .. }),
        "{again:?}"
    );
    let known = roster.get(&ship()).expect("known");
    assert_eq!(known.record.instance, Some(origin(1, 2).instance));
    assert!(known.view(0).conflict.is_some());
}

#[test]
fn a_clone_is_held_back_while_the_first_is_there() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    let clone = roster.hello(&ship(), &origin(1, 9), &hello(1), at(1));
    assert!(matches!(clone, Greeting::Conflict { .. }), "{clone:?}");
}

#[test]
fn another_journal_is_a_conflict_while_the_first_is_there_and_a_new_image_when_it_is_gone() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(7), at(0));
    let early = roster.hello(&ship(), &origin(2, 2), &hello(1), at(10));
    assert!(matches!(early, Greeting::Conflict { .. }), "{early:?}");
    for second in [26, 36] {
        roster.tick(at(second));
    }
    let late = roster.hello(&ship(), &origin(2, 2), &hello_at(37), at(37));
    assert!(matches!(late, Greeting::Reimaged { .. }), "{late:?}");
    assert_eq!(
        roster.get(&ship()).expect("known").record.journal_id,
        Some(origin(2, 2).journal_id)
    );
}

#[test]
fn nobody_takes_the_place_of_a_silent_node_by_one_hello() {
    type Said = (Origin, u64);
    let known = || (origin(1, 2), hello(2));
    let (old, new, newer) = (origin(1, 1), origin(2, 3), origin(3, 4));
    let rows: [(&str, &[Said], bool); 7] = [
        ("one", &[(old.clone(), 0)], false),
        (
            "the same twice",
            &[(old.clone(), 0), (old.clone(), 0)],
            false,
        ),
        (
            "an earlier one behind it",
            &[(old.clone(), 5), (old.clone(), 0)],
            false,
        ),
        ("another", &[(old.clone(), 0), (old.clone(), 5)], true),
        ("one each of two", &[(old, 0), (new.clone(), 5)], false),
        (
            "another start of a new journal",
            &[(new.clone(), 0), (origin(2, 9), 5)],
            true,
        ),
        (
            "two that take turns",
            &[(new.clone(), 0), (newer.clone(), 1), (new, 2), (newer, 3)],
            true,
        ),
    ];
    for (what, said, is_believed) in rows {
        let mut roster = listening(Vec::new());
        let (origin, first) = known();
        roster.hello(&ship(), &origin, &first, at(0));
        for second in [26, 36] {
            roster.tick(at(second));
        }
        let mut believed = false;
        for (origin, second) in said {
            let greeting = roster.hello(&ship(), origin, &hello_at(*second), at(40));
            believed |= matches!(greeting, Greeting::Reimaged { .. });
        }
        assert_eq!(believed, is_believed, "{what}");
    }
}

#[test]
fn a_start_that_is_over_stays_so_after_a_restart_of_the_station() {
    let mut first = listening(Vec::new());
    first.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    first.hello(&ship(), &origin(1, 2), &hello(2), at(1));
    let record = first.get(&ship()).expect("known").record.clone();
    let mut roster = listening(vec![record]);
    for second in [60, 70, 80] {
        let late = roster.hello(&ship(), &origin(1, 1), &hello_at(second), at(second));
        assert!(matches!(late, Greeting::Conflict { .. }), "{late:?}");
    }
    let back = roster.hello(&ship(), &origin(1, 2), &hello(2), at(90));
    assert_eq!(back, Greeting::Same);
}

#[test]
fn after_a_restart_another_journal_waits_until_the_first_had_time_to_speak() {
    let mut first = listening(Vec::new());
    first.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    let record = first.get(&ship()).expect("known").record.clone();
    let mut roster = listening(vec![record]);
    assert!(matches!(
        roster.hello(&ship(), &origin(2, 2), &hello(1), at(5)),
        Greeting::Conflict { .. }
    ));
    assert!(matches!(
        roster.hello(&ship(), &origin(2, 2), &hello_at(60), at(60)),
        Greeting::Reimaged { .. }
    ));
}

#[test]
fn a_name_that_differs_only_in_case_is_refused() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    let twin: NodeName = "Ship1".parse().expect("a name");
    assert!(matches!(
        roster.hello(&twin, &origin(2, 2), &hello(1), at(1)),
        Greeting::Conflict { .. }
    ));
    assert!(roster.get(&twin).is_none());
    let shown = roster
        .get(&ship())
        .expect("known")
        .view(0)
        .conflict
        .expect("a conflict");
    assert!(shown.contains("Ship1"), "{shown}");
}

#[test]
fn a_name_that_was_only_written_in_a_message_is_in_nobodys_way() {
    let mut roster = listening(Vec::new());
    roster.mention(&"Ship1".parse().expect("a name"), at(0));
    assert_eq!(
        roster.hello(&ship(), &origin(1, 1), &hello(1), at(1)),
        Greeting::Started
    );
}

#[test]
fn an_agent_of_another_ledger_is_shown_as_a_conflict() {
    let mut roster = listening(Vec::new());
    let other = Origin {
        ledger_id: Some(LedgerId(Uuid::from_u128(2))),
        ..origin(1, 1)
    };
    roster.hello(&ship(), &other, &hello(1), at(0));
    let conflict = roster
        .get(&ship())
        .expect("known")
        .view(0)
        .conflict
        .expect("a conflict");
    assert!(conflict.contains("--accept-ledger"), "{conflict}");
}

#[test]
fn labels_choose_nodes_that_were_heard() {
    let mut roster = listening(Vec::new());
    roster.mention(&"ghost".parse().expect("a name"), at(0));
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    let label = |value: &str| BTreeMap::from([("site".to_owned(), value.to_owned())]);
    assert_eq!(roster.labelled(&BTreeMap::new()), vec![ship()]);
    assert_eq!(roster.labelled(&label("bergen")), vec![ship()]);
    assert_eq!(roster.labelled(&label("oslo")), Vec::new());
}

fn known(roster: &Roster) -> &Node {
    roster.get(&ship()).expect("known")
}

/// A roster that knows the ship from before a restart, and listens since so many seconds.
fn remembered(listening_since: Option<u64>) -> Roster {
    let mut first = listening(Vec::new());
    first.hello(&ship(), &origin(1, 1), &hello(5), at(0));
    let record = known(&first).record.clone();
    let mut roster = Roster::new(LEDGER, vec![record], at(0));
    roster.listening(listening_since.map(Duration::from_secs));
    roster
}

#[test]
fn the_roster_has_room_for_a_hundred_thousand_nodes() {
    let record = |number: usize| NodeRecord::named(format!("n{number}").parse().expect("a name"));
    let records: Vec<_> = (0..MAX_NODES - 1).map(record).collect();
    let mut roster = listening(records);
    let (last, beyond) = (record(MAX_NODES).name, record(MAX_NODES + 1).name);
    assert!(roster.mention(&last, at(0)));
    assert!(!roster.mention(&last, at(0)), "it is known already");
    assert!(!roster.mention(&beyond, at(0)), "there is no room");
    assert_eq!(
        roster.hello(&beyond, &origin(1, 1), &hello(1), at(0)),
        Greeting::Full
    );
    assert_eq!(roster.iter().count(), MAX_NODES);
    assert_eq!(
        roster.hello(&last, &origin(1, 1), &hello(1), at(0)),
        Greeting::Started,
        "who is known may speak"
    );
}

#[test]
fn what_a_hello_says_is_kept_and_shown() {
    let mut roster = listening(Vec::new());
    let said = Hello {
        at: at(7).wall,
        round_trip_us: Some(1234),
        ..hello(3)
    };
    roster.hello(&ship(), &origin(1, 2), &said, at(10));
    let later = Hello {
        at: at(21).wall,
        ..hello(3)
    };
    let view = known(&roster).view(4);
    assert_eq!(
        (view.skew_ms, view.round_trip_us),
        (Some(-3000), Some(1234))
    );
    assert_eq!((view.open, view.since, view.reason), (4, at(10).wall, None));
    roster.hello(&ship(), &origin(1, 2), &later, at(20));
    let node = known(&roster);
    let view = node.view(0);
    assert_eq!(
        (view.skew_ms, view.round_trip_us),
        (Some(1000), Some(1234)),
        "a round trip that was not measured leaves the last one"
    );
    assert_eq!(
        (view.since, view.last_seen),
        (at(10).wall, Some(at(20).wall)),
        "it is online since it was first heard"
    );
    assert_eq!(view.labels.get("site").map(String::as_str), Some("bergen"));
    assert_eq!(
        (
            node.record.counter,
            node.record.journal_id,
            node.record.instance
        ),
        (
            3,
            Some(origin(1, 2).journal_id),
            Some(origin(1, 2).instance)
        )
    );
    assert_eq!(
        (view.boot_id.as_deref(), view.version.as_deref()),
        (Some("boot"), Some("0.1.0"))
    );
}

#[test]
fn a_heartbeat_is_believed_within_bounds() {
    for (interval_ms, heartbeat) in [
        (0, Duration::from_millis(100)),
        (99, Duration::from_millis(100)),
        (101, Duration::from_millis(101)),
        (86_399_999, Duration::from_millis(86_399_999)),
        (86_400_001, Duration::from_secs(24 * 3600)),
        (u64::MAX, Duration::from_secs(24 * 3600)),
    ] {
        let mut roster = listening(Vec::new());
        let said = Hello {
            interval_ms,
            ..hello(1)
        };
        roster.hello(&ship(), &origin(1, 1), &said, at(0));
        assert_eq!(known(&roster).record.heartbeat, heartbeat, "{interval_ms}");
    }
}

#[test]
fn silence_is_told_in_words_and_of_whom() {
    let mut roster = listening(Vec::new());
    roster.mention(&"ghost".parse().expect("a name"), at(0));
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    for (second, changed, reason) in [
        (25, vec![], None),
        (
            26,
            vec![ship()],
            Some("silent for 26.0 s, heartbeat 10.0 s"),
        ),
        (27, vec![], Some("silent for 26.0 s, heartbeat 10.0 s")),
        (
            36,
            vec![ship()],
            Some("silent for 36.0 s, heartbeat 10.0 s"),
        ),
        (99, vec![], Some("silent for 36.0 s, heartbeat 10.0 s")),
    ] {
        assert_eq!(roster.tick(at(second)), changed, "{second}");
        assert_eq!(known(&roster).reason(), reason, "{second}");
    }
}

#[test]
fn any_word_of_the_start_we_believe_counts_and_nobody_elses_does() {
    for (origin, name, is_heard) in [
        (origin(1, 1), ship(), true),
        (origin(1, 2), ship(), false),
        (origin(2, 1), ship(), false),
        (origin(1, 1), "ship2".parse().expect("a name"), false),
    ] {
        let mut roster = listening(Vec::new());
        roster.hello(&ship(), &self::origin(1, 1), &hello(1), at(0));
        assert_eq!(roster.heard(&name, &origin, at(20)), is_heard, "{origin:?}");
        roster.tick(at(40));
        let expected = match is_heard {
            true => Presence::Online,
            false => Presence::Late,
        };
        assert_eq!(presence(&roster), expected, "{origin:?}");
    }
}

#[test]
fn after_a_restart_word_is_believed_but_only_a_hello_makes_a_node_present() {
    let mut roster = remembered(Some(0));
    assert!(roster.heard(&ship(), &origin(1, 1), at(1)));
    assert_eq!(presence(&roster), Presence::Unknown);
    assert!(
        roster.tick(at(1000)).is_empty(),
        "silence before proves nothing"
    );
    roster.hello(&ship(), &origin(1, 1), &hello(5), at(1001));
    assert_eq!(presence(&roster), Presence::Online);
}

#[test]
fn another_journal_waits_for_three_and_a_half_heartbeats_of_listening() {
    for (listening_since, second, is_conflict) in [
        (None, 1000, true),
        (Some(0), 34, true),
        (Some(0), 35, false),
        (Some(100), 134, true),
        (Some(100), 135, false),
    ] {
        let mut roster = remembered(listening_since);
        let greeting = roster.hello(&ship(), &origin(2, 2), &hello(1), at(second));
        assert_eq!(
            matches!(greeting, Greeting::Conflict { .. }),
            is_conflict,
            "{listening_since:?} {second}: {greeting:?}"
        );
    }
}

#[test]
fn a_conflict_says_what_is_wrong_and_is_forgotten_when_it_is_over() {
    for (other, counter, reason) in [
        (
            origin(1, 9),
            4,
            "shows the journal's start 4, but start 5 has been heard",
        ),
        (
            origin(1, 9),
            5,
            "a clone, a restored backup or a superseded agent",
        ),
        (
            origin(2, 2),
            9,
            "has the journal 00000000-0000-0000-0000-000000000002, but 00000000-0000-0000-0000-000000000001 is known",
        ),
    ] {
        let mut roster = listening(Vec::new());
        roster.hello(&ship(), &origin(1, 1), &hello(5), at(0));
        let Greeting::Conflict {
            reason: told,
            first,
        } = roster.hello(&ship(), &other, &hello(counter), at(10))
        else {
            panic!("expected a conflict: {reason}")
        };
        assert!(first && told.contains(reason), "{told}");
        assert_eq!(known(&roster).view(0).conflict, Some(told));
        roster.hello(&ship(), &origin(1, 1), &hello(5), at(45));
        roster.tick(at(45));
        assert!(known(&roster).view(0).conflict.is_some(), "35 s later");
        roster.tick(at(46));
        assert_eq!(known(&roster).view(0).conflict, None, "36 s later");
    }
}

#[test]
fn a_second_stranger_is_a_conflict_of_its_own() {
    let mut roster = listening(Vec::new());
    roster.hello(&ship(), &origin(1, 1), &hello(1), at(0));
    let twin: NodeName = "SHIP1".parse().expect("a name");
    for (name, other, is_first) in [
        (ship(), origin(2, 2), true),
        (ship(), origin(2, 2), false),
        (ship(), origin(3, 3), true),
        (twin.clone(), origin(4, 4), true),
        (twin, origin(4, 4), false),
    ] {
        let greeting = roster.hello(&name, &other, &hello(1), at(1));
        let Greeting::Conflict { first, .. } = greeting else {
            panic!("expected a conflict, got {greeting:?}")
        };
        assert_eq!(first, is_first, "{other:?}");
    }
}

#[test]
fn an_agent_of_this_ledger_or_of_none_is_no_conflict() {
    for ledger_id in [None, Some(LEDGER)] {
        let mut roster = listening(Vec::new());
        let origin = Origin {
            ledger_id,
            ..origin(1, 1)
        };
        roster.hello(&ship(), &origin, &hello(1), at(0));
        assert_eq!(known(&roster).view(0).conflict, None, "{ledger_id:?}");
    }
}
