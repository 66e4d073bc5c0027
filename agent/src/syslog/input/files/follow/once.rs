//! Every line once, whenever the agent is killed: what the spool has, what was noted, and what is read again.

use std::{collections::BTreeMap, fs, io::Write, path::PathBuf};

use proptest::{collection::vec, prelude::*};
use tempfile::TempDir;

use super::{
    super::{note::Notes, settle::SEARCHES},
    tests::input,
    *,
};

/// Three of them fill a buffer.
const LINE: usize = READ / 3 - 100;

/// Clocks: a right one, and one that was set back.
const CLOCKS: [fn() -> Micros; 2] = [feed::now, || Micros(feed::now().0 - 3_600_000_000)];

/// What happens.
#[derive(Debug, Clone)]
enum Step {
    /// A program writes these lines to a file.
    Write(usize, Vec<u8>),
    /// A file is renamed; the next write makes another.
    Rotate(usize),
    /// Everything is listed.
    Scan,
    /// One portion is read and handed over.
    Turn,
    /// So many portions become durable, and it is noted.
    Land(usize),
    /// What waits for its time is looked at, and what is left is noted.
    Rest,
    /// So many portions become durable, then the agent is killed, and starts with a clock that is set back or not.
    Kill(usize, usize),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..2_usize, vec(0..4_u8, 1..5)).prop_map(|(file, lines)| Step::Write(file, lines)),
        1 => (0..2_usize).prop_map(Step::Rotate),
        1 => Just(Step::Scan),
        6 => Just(Step::Turn),
        2 => (1..3_usize).prop_map(Step::Land),
        1 => Just(Step::Rest),
        2 => (0..5_usize, 0..CLOCKS.len()).prop_map(|(count, clock)| Step::Kill(count, clock)),
    ];
    vec(step, 1..60)
}

/// An agent with one input, its disk and its spool.
struct World {
    dir: TempDir,
    files: (Input, Files),
    notes: Notes,
    follower: Follower,
    flights: VecDeque<Turn>,
    /// What is durable: source, time and text, in its order.
    spool: Vec<(String, Micros, Vec<u8>)>,
    written: BTreeMap<String, Vec<String>>,
    rotations: usize,
}

impl World {
    fn new(multiline: Option<&str>) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = input(format!("{}/*.log", dir.path().display()));
        files.0.max_message = READ;
        files.1.multiline = multiline.map(str::to_owned);
        let notes = Notes::of(&dir.path().join("notes"), "x");
        let noted = notes.load().expect("notes");
        let follower = Follower::new(&files.0, &files.1, noted, Seen::default());
        Self {
            dir,
            files,
            notes,
            follower,
            flights: VecDeque::new(),
            spool: Vec::new(),
            written: BTreeMap::new(),
            rotations: 0,
        }
    }

    fn path(&self, file: usize) -> PathBuf {
        self.dir.path().join(format!("{file}.log"))
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Write(file, lines) => self.write(file, &lines),
            Step::Rotate(file) => {
                self.rotations += 1;
                let old = self
                    .dir
                    .path()
                    .join(format!("{file}.log.{}", self.rotations));
                fs::rename(self.path(file), old).ok();
            }
            Step::Scan => drop(self.follower.scan()),
            Step::Turn => self.flights.extend(self.follower.turn()),
            Step::Land(count) => self.land(count),
            Step::Rest => {
                self.follower.tick();
                if self.flights.is_empty() && self.follower.is_idle() {
                    let names = self.follower.give_up();
                    self.save(names);
                }
            }
            Step::Kill(count, clock) => self.kill(count, clock),
        }
    }

    fn write(&mut self, file: usize, lines: &[u8]) {
        let path = self.path(file);
        let mut text = String::new();
        if !path.exists() {
            // No two files are the same.
            text = format!("A{}\n", self.rotations);
        }
        for kind in lines {
            // Many lines are the same; with several of them in a message, only some begin one.
            let begin = ["A", " b", " c", "D"][usize::from(*kind)];
            text.push_str(begin);
            text.push_str(&"x".repeat(LINE));
            text.push('\n');
        }
        let mut options = fs::OpenOptions::new();
        let mut opened = options
            .append(true)
            .create(true)
            .open(&path)
            .expect("a file");
        opened.write_all(text.as_bytes()).expect("it is written");
        let lines = text.lines().map(short);
        self.written.entry(source(&path)).or_default().extend(lines);
    }

    /// Puts what was handed over first into the spool.
    fn store(&mut self) -> Option<Flight> {
        let Turn { portion, flight } = self.flights.pop_front()?;
        assert_eq!(portion.gaps, []);
        for piece in &portion.messages {
            let bytes = portion.bytes_of(piece).to_vec();
            self.spool
                .push((portion.source.to_string(), portion.received, bytes));
        }
        Some(flight)
    }

    fn land(&mut self, count: usize) {
        let mut names = BTreeSet::new();
        for _ in 0..count {
            let Some(flight) = self.store() else { break };
            self.follower.landed(&flight);
            names.insert(flight.log);
        }
        self.save(names);
    }

    fn save(&mut self, names: BTreeSet<PathBuf>) {
        let saved = self.notes.save(&self.follower.book, names.into_iter());
        saved.expect("it is noted");
    }

    fn kill(&mut self, count: usize, clock: usize) {
        for _ in 0..count {
            self.store();
        }
        self.flights.clear();
        self.notes = Notes::of(&self.dir.path().join("notes"), "x");
        let (book, found) = self.notes.load().expect("notes");
        let mut seen = Seen::default();
        for (name, received, bytes) in &self.spool {
            let mut logs = book.logs.iter();
            let log = logs.find(|(path, _)| source(path) == *name);
            let until = log.map_or(book.stamp, |(_, log)| Micros(log.stamp));
            if *received > until {
                seen.add(name, *received, bytes);
            }
        }
        self.follower = Follower::new(&self.files.0, &self.files.1, (book, found), seen);
        self.follower.clock = CLOCKS[clock];
        // As the input does.
        self.follower.scan();
        let names = self.follower.book.logs.keys().cloned().collect();
        self.save(names);
    }

    /// Reads to the end, and checks that every line was taken once and in order.
    fn check(mut self) {
        for _ in 0..SEARCHES {
            self.follower.scan();
            while let Some(turn) = self.follower.turn() {
                self.flights.push_back(turn);
                self.land(1);
            }
            self.land(usize::MAX);
            self.step(Step::Rest);
        }
        assert!(self.follower.has_all());
        let mut taken = BTreeMap::<String, Vec<String>>::new();
        for (source, _, bytes) in &self.spool {
            let text = String::from_utf8_lossy(bytes);
            let lines = text.lines().map(short);
            taken.entry(source.clone()).or_default().extend(lines);
        }
        assert_eq!(taken, self.written);
    }
}

/// A line as it is shown when something is wrong.
fn short(line: &str) -> String {
    line.chars().take(2).collect()
}

fn play(multiline: Option<&str>, steps: Vec<Step>) {
    let mut world = World::new(multiline);
    // What was rotated before the first look is not its business.
    for file in 0..2 {
        world.write(file, &[0]);
    }
    world.follower.scan();
    world.save(BTreeSet::new());
    for step in steps {
        world.step(step);
    }
    world.check();
}

#[test]
fn what_a_second_start_did_not_meet_again_a_third_still_knows() {
    let all = [vec![Step::Scan], vec![Step::Turn; 4]].concat();
    let steps = [
        vec![Step::Write(0, vec![3; 9]), Step::Write(1, vec![0; 9])],
        all.clone(),
        vec![Step::Kill(4, 0)],
        // It notes how far it is with one file, and nothing of the other, and only a part of what there is of the first.
        vec![Step::Turn, Step::Land(1), Step::Kill(0, 1)],
        vec![Step::Turn, Step::Write(0, vec![3; 2]), Step::Land(1)],
        vec![Step::Kill(0, 1)],
        all,
        vec![Step::Kill(2, 0)],
    ];
    play(None, steps.concat());
}

#[test]
fn lines_that_were_several_messages_are_known_as_one() {
    let write = |kind| Step::Write(0, vec![kind]);
    let steps = vec![
        write(0),
        Step::Scan,
        Step::Turn,
        write(1),
        Step::Scan,
        Step::Turn,
        Step::Kill(2, 0),
        write(2),
        Step::Scan,
        Step::Turn,
        Step::Kill(1, 0),
    ];
    play(Some("^[A-Z]"), steps);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 96, ..ProptestConfig::default() })]

    #[test]
    fn every_line_is_taken_once_whenever_it_is_killed(steps in steps()) {
        play(None, steps);
    }

    #[test]
    fn every_message_of_several_lines_is_taken_once_whenever_it_is_killed(steps in steps()) {
        play(Some("^[A-Z]"), steps);
    }
}
