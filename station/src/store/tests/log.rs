//! Tests of the log: faults and what happened to messages, filtered, in order, to be followed.

use super::*;

fn fault(seconds: i64, number: u32, kind: &str) -> Record {
    Record::Fault(FaultRecord {
        kind: kind.to_owned(),
        ..FaultRecord::at(at(seconds), Some(ship(number)))
    })
}

fn filled() -> (tempfile::TempDir, Store, Reader) {
    let directory = tempfile::tempdir().expect("a folder");
    let mut store = open(&directory);
    store
        .commit(&[
            accepted(1),
            fault(1, 1, "panic"),
            fault(2, 2, "storage"),
            Record::CancelRequested {
                pos: 1,
                node: ship(2),
                at: at(3),
                by: "uid:7".to_owned(),
            },
            fault(4, 1, "storage"),
            Record::LanesReset {
                node: ship(1),
                at: at(5),
            },
        ])
        .expect("commits");
    let reader = Reader::open(store.path()).expect("opens");
    (directory, store, reader)
}

fn everything() -> LogFilter {
    LogFilter {
        limit: 100,
        scope: LogScope::Everything,
        ..LogFilter::default()
    }
}

fn kinds(page: &crate::view::LogPage) -> Vec<&str> {
    let entries = page.entries.iter();
    entries.map(|entry| entry.kind.as_str()).collect()
}

#[test]
fn the_log_is_filtered_and_stands_in_the_order_it_was_stored() {
    let (_directory, _store, reader) = filled();
    let all = [
        "accepted",
        "panic",
        "storage",
        "cancel_requested",
        "storage",
        "lanes_reset",
    ];
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect();
    for (filter, expected) in [
        (everything(), &all[..]),
        (
            LogFilter {
                limit: 100,
                ..LogFilter::default()
            },
            &["panic", "storage", "storage"],
        ),
        (
            LogFilter {
                limit: 2,
                ..everything()
            },
            &all[4..],
        ),
        (
            LogFilter {
                node: Some(ship(2)),
                ..everything()
            },
            &["accepted", "storage", "cancel_requested"],
        ),
        (
            LogFilter {
                node: Some(ship(3)),
                ..everything()
            },
            &[],
        ),
        (
            LogFilter {
                kinds: words(&["panic", "cancel_requested"]),
                ..everything()
            },
            &["panic", "cancel_requested"],
        ),
        (
            LogFilter {
                since: Some(at(4)),
                ..everything()
            },
            &all[4..],
        ),
        (
            LogFilter {
                after: Some((0, 0)),
                ..everything()
            },
            &all[..],
        ),
        (
            LogFilter {
                after: Some((2, 1)),
                ..everything()
            },
            &all[3..],
        ),
    ] {
        let page = reader.log(&filter).expect("readable");
        assert_eq!(kinds(&page), expected, "{filter:?}");
    }
    let page = reader.log(&everything()).expect("readable");
    assert_eq!(page.entries[0].node, None, "accepted for all its nodes");
    assert_eq!(page.entries[0].id, Some(id(1)));
    assert_eq!(page.entries[3].by.as_deref(), Some("uid:7"));
    assert_eq!(page.entries[5].id, None);
}

#[test]
fn whoever_follows_sees_everything_once_whatever_the_size_of_a_page() {
    for limit in 1..5 {
        let (_directory, mut store, reader) = filled();
        let (mut after, mut seen) = ((0, 0), Vec::new());
        for round in 0..20 {
            if round == 3 {
                let more = [fault(6, 1, "late"), fault(7, 2, "late")];
                store.commit(&more).expect("commits");
            }
            let filter = LogFilter {
                limit,
                after: Some(after),
                ..everything()
            };
            let page = reader.log(&filter).expect("readable");
            seen.extend(page.entries.into_iter().map(|entry| entry.key));
            after = (page.after_fault, page.after_event);
        }
        seen.sort();
        let expected = [
            "event-1", "event-2", "event-3", "fault-1", "fault-2", "fault-3", "fault-4", "fault-5",
        ];
        assert_eq!(seen, expected, "{limit} at a time");
    }
}

#[test]
fn the_faults_of_a_node_are_counted_and_listed_newest_first() {
    let (_directory, _store, reader) = filled();
    let counts = reader.fault_counts().expect("readable");
    assert_eq!(counts, [(ship(1), 2), (ship(2), 1)]);
    let faults = reader.faults(Some(&ship(1)), 5).expect("readable");
    let kinds: Vec<&str> = faults.iter().map(|fault| fault.kind.as_str()).collect();
    assert_eq!(kinds, ["storage", "panic"]);
}
