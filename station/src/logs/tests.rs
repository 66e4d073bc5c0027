//! The store against a model: duplicates, holes, new generations, kills, power cuts, a disk that fails.

mod domains;
mod following;
mod mirroring;
mod ram;
mod reading;
mod relaying;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use proptest::{collection::vec, prelude::*};
use steward_protocol::{
    Generation,
    logs::{Batch, Builder, Entry as Message, Micros, Packer, Push, Stream},
};
use uuid::Uuid;

use self::ram::Ram;
use super::{
    disk::{Disk, Mode, read_from},
    index::Entry,
    name::{Line as Key, Name, path},
    read::catalog,
    store::{Arrived, Done, Store},
    take::Verdict,
};

const DAY: i64 = 86_400_000_000;

fn key(number: usize) -> Key {
    Key {
        node: format!("ship{number}").parse().expect("a name"),
        domain: "nginx".parse().expect("a domain"),
    }
}

fn generation(number: usize) -> Generation {
    Generation(Uuid::from_u128(number as u128 + 1))
}

/// Returns a batch of `count` messages, each with its generation and position in its text.
fn batch(line: usize, of: usize, first: u64, count: u64) -> Vec<u8> {
    at_time(
        line,
        of,
        (first, count),
        DAY * 20_000 + i64::try_from(first).expect("few") * 1000,
    )
}

fn at_time(line: usize, of: usize, (first, count): (u64, u64), time: i64) -> Vec<u8> {
    let mut builder = Builder::new(64 * 1024);
    for position in first..first + count {
        let text = format!("<13>line {line} generation {of} position {position}");
        let message = Message {
            received: Micros(time),
            source: "test",
            severity: u8::try_from(position % 8).expect("small"),
            app: Some(b"app"),
            unparsed: false,
            original: None,
            bytes: text.as_bytes(),
        };
        assert_eq!(builder.push(&message), Push::Taken);
    }
    let stream = Stream {
        generation: generation(of),
        after: of.checked_sub(1).map(generation),
        domain: key(line).domain,
    };
    let mut packer = Packer::new().expect("memory");
    packer
        .records(&stream, first, &builder)
        .expect("packed")
        .to_vec()
}

fn arrived(line: usize, payload: &[u8]) -> Arrived {
    Arrived {
        line: key(line),
        header: Batch::read(payload).expect("a batch").into_header(),
        payload: payload.to_vec(),
    }
}

fn commit(store: &mut Store<Ram>, batches: &[(usize, Vec<u8>)]) -> Done {
    let batches = batches
        .iter()
        .map(|(line, payload)| arrived(*line, payload));
    store.commit(batches.collect(), Duration::ZERO)
}

fn words(done: &Done) -> Vec<(u64, bool)> {
    done.words
        .iter()
        .map(|word| (word.kept.next, word.kept.again))
        .collect()
}

/// Reads all of a line: headers and payloads in their order.
fn stored(disk: &Ram, line: usize) -> Vec<(Entry, Vec<u8>)> {
    let dir = key(line).dir();
    let mut found = Vec::new();
    for segment in catalog::segments(disk, &dir).expect("segments") {
        let place = path(&dir, &segment.name.log());
        let file = disk.open(&place, Mode::Read).expect("opened");
        for entry in catalog::entries(disk, &dir, &segment).expect("entries") {
            let payload = read_from(disk, &file, entry.at + 16, u64::from(entry.bytes));
            found.push((entry, payload.expect("read")));
        }
    }
    found
}

#[test]
fn a_batch_is_stored_once_and_in_its_place() {
    let mut store = Store::new(Ram::default());
    for (what, first, count, expected) in [
        ("a beginning that is missing", 5, 5, vec![(0, true)]),
        ("the same hole again", 10, 5, vec![]),
        ("the first", 0, 5, vec![(5, false)]),
        ("the first again", 0, 5, vec![(5, false)]),
        ("the next", 5, 5, vec![(10, false)]),
        ("a hole", 15, 5, vec![(10, true)]),
        ("behind that hole", 20, 5, vec![]),
        ("an overlap", 8, 5, vec![]),
        ("what filled the hole", 10, 5, vec![(15, false)]),
        ("another hole", 20, 5, vec![(15, true)]),
    ] {
        let done = commit(&mut store, &[(0, batch(0, 0, first, count))]);
        assert_eq!(words(&done), expected, "{what}");
    }
    let positions: Vec<_> = stored(store.disk(), 0)
        .iter()
        .map(|(entry, _)| (entry.first, entry.count))
        .collect();
    assert_eq!(positions, [(0, 5), (5, 5), (10, 5)]);
}

#[test]
fn a_hole_is_told_again_when_the_word_was_lost() {
    let mut store = Store::new(Ram::default());
    let hole = || vec![arrived(0, &batch(0, 0, 5, 5))];
    for (millis, told) in [(0, 1), (10, 0), (999, 0), (1000, 1), (1500, 0)] {
        let done = store.commit(hole(), Duration::from_millis(millis));
        assert_eq!(done.words.len(), told, "after {millis} ms");
    }
}

#[test]
fn many_batches_of_a_commit_get_one_word_and_one_sync() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    commit(&mut store, &[(0, batch(0, 0, 0, 5))]);
    let before = disk.syncs();
    let window: Vec<_> = (1..50)
        .map(|number| (0, batch(0, 0, number * 5, 5)))
        .collect();
    let done = commit(&mut store, &window);
    assert_eq!(words(&done), [(250, false)]);
    assert_eq!(disk.syncs() - before, 1);
}

#[test]
fn a_generation_that_is_over_is_known_for_ever() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    let starts = 1200;
    for start in 0..starts {
        let done = commit(&mut store, &[(0, batch(0, start, 0, 3))]);
        assert_eq!(words(&done), [(3, false)]);
        assert!(done.lost.is_empty());
    }
    for reopen in [false, true] {
        if reopen {
            store = Store::new(disk.clone());
        }
        for old in [0, 1, 500, 1100, starts - 1] {
            let done = commit(&mut store, &[(0, batch(0, old, 0, 3))]);
            assert_eq!((done.stored, words(&done)), (0, vec![(3, false)]), "{old}");
        }
    }
    assert_eq!(stored(&disk, 0).len(), starts);
}

#[test]
fn a_node_that_does_not_know_what_came_before_has_lost_it() {
    let mut store = Store::new(Ram::default());
    for (what, of, after, lost) in [
        ("the very first", 5, Some(4), 0),
        ("the one behind it", 6, Some(5), 0),
        ("one behind another", 8, Some(7), 1),
        ("one behind none", 9, None, 1),
    ] {
        let stream = Stream {
            generation: generation(of),
            after: after.map(generation),
            domain: key(0).domain,
        };
        let mut builder = Builder::new(1024);
        let message = Message {
            received: Micros(DAY),
            source: "s",
            severity: 5,
            app: None,
            unparsed: false,
            original: None,
            bytes: b"x",
        };
        assert_eq!(builder.push(&message), Push::Taken);
        let mut packer = Packer::new().expect("memory");
        let payload = packer.records(&stream, 0, &builder).expect("packed");
        let done = store.commit(vec![arrived(0, payload)], Duration::ZERO);
        assert_eq!((done.stored, done.lost.len()), (1, lost), "{what}");
    }
}

#[test]
fn segments_follow_the_days_and_clocks_that_waver_make_no_files() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    for (number, day) in (0_u64..).zip([10, 10, 11, 10, 11, 10, 13, 1, 13]) {
        commit(&mut store, &[(0, at_time(0, 0, (number, 1), day * DAY))]);
    }
    let names: Vec<String> = catalog::segments(&disk, &key(0).dir())
        .expect("segments")
        .into_iter()
        .map(|segment| segment.name.log())
        .collect();
    assert_eq!(
        names,
        [
            "00000001-1970-01-11.log",
            "00000002-1970-01-12.log",
            "00000003-1970-01-14.log"
        ]
    );
    for name in names {
        assert_eq!(Name::read(&name).expect("a name").log(), name);
    }
}

#[test]
fn nothing_is_said_while_the_disk_fails_and_all_of_it_afterwards() {
    let disk = Ram::default();
    let mut store = Store::new(disk.clone());
    commit(&mut store, &[(0, batch(0, 0, 0, 5))]);
    for failing in 0..12 {
        disk.fail_after(failing, 3);
        let first = 5 + failing * 5;
        let window = [(0, batch(0, 0, first, 5)), (1, batch(1, 0, 0, 5))];
        for _ in 0..20 {
            let done = commit(&mut store, &window);
            for word in &done.words {
                let whole = if word.line == key(0) { first + 5 } else { 5 };
                assert_eq!(word.kept.next, whole, "{failing}");
            }
            if done.failed.is_empty() {
                break;
            }
        }
        disk.heal();
        assert_eq!(
            words(&commit(&mut store, &window)),
            [(first + 5, false), (5, false)]
        );
    }
    disk.power_loss(1);
    let recovered = Store::new(disk.clone())
        .recover()
        .expect("a disk that works");
    assert!(recovered.failed.is_empty());
    let ends: Vec<u64> = stored(&disk, 0)
        .iter()
        .map(|(entry, _)| entry.next())
        .collect();
    assert_eq!(ends, (1..=13).map(|number| number * 5).collect::<Vec<_>>());
}

#[test]
fn only_so_many_lines_are_open_and_all_of_them_are_served() {
    let disk = Ram::default();
    let mut store = Store::with_limit(disk.clone(), 3);
    for round in 0..3 {
        let window: Vec<_> = (0..10)
            .map(|line| (line, batch(line, 0, round * 5, 5)))
            .collect();
        let done = commit(&mut store, &window);
        assert_eq!(words(&done), [((round + 1) * 5, false); 10]);
    }
    for line in 0..10 {
        assert_eq!(stored(&disk, line).len(), 3);
    }
}

/// What happens to a store.
#[derive(Debug, Clone)]
enum Step {
    /// Batches of a line (0 to 2): how many generations back, and how far from what is due.
    Send(Vec<(usize, usize, i64)>),
    /// The agent of a line starts anew.
    Restart(usize),
    /// The station is killed.
    Kill,
    /// The power goes; the number says what of what was not synced is there afterwards.
    PowerLoss(u64),
    /// So many changes later, so many changes fail.
    Fail(u64, u64),
    /// A segment is to be closed.
    Close(usize, u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let pick = (
        0..3_usize,
        prop_oneof![4 => Just(0_usize), 1 => 0..3_usize],
        -2..3_i64,
    );
    vec(
        prop_oneof![
            8 => vec(pick, 1..6).prop_map(Step::Send),
            1 => (0..3_usize).prop_map(Step::Restart),
            1 => Just(Step::Kill),
            1 => any::<u64>().prop_map(Step::PowerLoss),
            1 => (0..12_u64, 1..6_u64).prop_map(|(after, count)| Step::Fail(after, count)),
            1 => (0..3_usize, 1..4_u64).prop_map(|(line, number)| Step::Close(line, number)),
        ],
        1..60,
    )
}

/// What the nodes know, and what they were told.
#[derive(Default)]
struct Model {
    starts: [usize; 3],
    /// By line and generation: the first position the node does not know to be stored.
    told: HashMap<(usize, usize), u64>,
}

impl Model {
    /// Batches have five messages; the one that is due, moved by `off` batches.
    fn payload(&self, line: usize, back: usize, off: i64) -> Vec<u8> {
        let of = self.starts[line].saturating_sub(back);
        let due = i64::try_from(self.told.get(&(line, of)).copied().unwrap_or(0) / 5).expect("few");
        let first = u64::try_from((due + off).max(0)).expect("above 0") * 5;
        batch(line, of, first, 5)
    }

    fn hear(&mut self, done: &Done) {
        for word in &done.words {
            let line = (0..3)
                .find(|line| key(*line) == word.line)
                .expect("one of three");
            let of = usize::try_from(word.kept.generation.0.as_u128() - 1).expect("few");
            let told = self.told.entry((line, of)).or_default();
            assert!(
                word.kept.next >= *told,
                "{line} {of}: {} after {told}",
                word.kept.next
            );
            *told = word.kept.next;
        }
    }

    /// Checks that all that was told is there, once, in order, and as it was.
    fn check(&self, disk: &Ram) {
        for line in 0..3 {
            let mut reached: BTreeMap<Generation, u64> = BTreeMap::new();
            for (entry, payload) in stored(disk, line) {
                let next = reached.entry(entry.generation).or_default();
                assert_eq!(entry.first, *next, "line {line}");
                *next = entry.next();
                let of = usize::try_from(entry.generation.0.as_u128() - 1).expect("few");
                assert_eq!(payload, batch(line, of, entry.first, entry.count));
            }
            for ((of_line, of), told) in &self.told {
                let here = reached.get(&generation(*of)).copied().unwrap_or(0);
                assert!(
                    *of_line != line || here >= *told,
                    "line {line}: {here} of {told}"
                );
            }
        }
    }
}

/// Takes the steps, and checks after them that all that was told is there.
fn play(steps: Vec<Step>) {
    let disk = Ram::default();
    let mut store = Store::with_limit(disk.clone(), 2);
    let mut model = Model::default();
    for step in steps {
        match step {
            Step::Send(picks) => {
                let batches: Vec<_> = picks
                    .into_iter()
                    .map(|(line, back, off)| (line, model.payload(line, back, off)))
                    .collect();
                let done = commit(&mut store, &batches);
                model.hear(&done);
            }
            Step::Restart(line) => model.starts[line] += 1,
            Step::Kill => {
                store = Store::with_limit(disk.clone(), 2);
                store.recover().ok();
            }
            Step::PowerLoss(seed) => {
                disk.power_loss(seed);
                store = Store::with_limit(disk.clone(), 2);
                store.recover().ok();
            }
            Step::Fail(after, count) => disk.fail_after(after, count),
            Step::Close(line, number) => drop(store.close(&key(line), number)),
        }
    }
    disk.heal();
    disk.power_loss(7);
    store = Store::with_limit(disk.clone(), 2);
    store.recover().expect("a disk that works");
    model.check(&disk);
    // What is due now is taken.
    for line in 0..3 {
        let done = commit(&mut store, &[(line, model.payload(line, 0, 0))]);
        assert_eq!(done.again, 0);
        model.hear(&done);
    }
    model.check(&disk);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_what_was_confirmed_is_there_once_and_in_order(steps in steps()) {
        play(steps);
    }
}

#[test]
fn generations_are_known_although_the_disk_forgot_them_once_and_then_said_that_all_is_well() {
    for after in 0..16 {
        play(vec![
            Step::Send(vec![(2, 0, 0), (0, 0, 0)]),
            Step::Fail(after, 1),
            Step::Send(vec![(2, 0, 1), (0, 0, 0), (1, 0, 1), (0, 0, 1)]),
            Step::Close(2, 1),
            Step::Close(2, 1),
        ]);
    }
}

#[test]
fn a_verdict_follows_from_positions_alone() {
    for (next, first, count, expected) in [
        (0, 0, 1, Verdict::Store),
        (5, 5, 5, Verdict::Store),
        (5, 0, 5, Verdict::Twice),
        (5, 0, 4, Verdict::Twice),
        (5, 0, 6, Verdict::Again),
        (5, 6, 1, Verdict::Again),
        (0, 1, 1, Verdict::Again),
    ] {
        let payload = batch(0, 0, first, count);
        let header = Batch::read(&payload).expect("a batch").into_header();
        assert_eq!(
            super::take::judge(next, &header),
            expected,
            "{next} {first} {count}"
        );
    }
}
