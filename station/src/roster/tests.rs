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
    let late = roster.hello(&ship(), &origin(2, 2), &hello(1), at(37));
    assert!(matches!(late, Greeting::Reimaged { .. }), "{late:?}");
    assert_eq!(
        roster.get(&ship()).expect("known").record.journal_id,
        Some(origin(2, 2).journal_id)
    );
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
        roster.hello(&ship(), &origin(2, 2), &hello(1), at(60)),
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
