//! The targets of the fuzzer, for a moment and without it: each gets its seeds and some thousand changes of them, the same in
//! every run. What must hold, `fuzz/bodies/` says; the fuzzer itself looks further and needs a nightly compiler.

use std::{
    fs,
    panic::{AssertUnwindSafe, catch_unwind},
    path::Path,
};

#[path = "../fuzz/bodies/batch.rs"]
mod batch;
#[path = "../fuzz/bodies/body.rs"]
mod body;
#[path = "../fuzz/bodies/frame.rs"]
mod frame;
#[path = "../fuzz/bodies/framing.rs"]
mod framing;
#[path = "../fuzz/bodies/syslog.rs"]
mod syslog;

/// Changed inputs for each target: a second or two of a build without optimisation.
const CHANGED: usize = 50_000;

/// Changes of one input, at most.
const CHANGES: usize = 4;

/// Longest run of bytes that is taken out, repeated or put in.
const RUN: usize = 40;

/// Bytes that mean something to one of the targets.
const TELLING: &[u8] = b"\0\n\r \"\\[]{}<>:,=-.019aZ\x1b\x7f\x80\xc3\xef\xff";

/// Numbers that look like chance, and are the same in every run (splitmix64).
struct Dice(u64);

impl Dice {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut number = self.0;
        number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        let number = (number ^ (number >> 31)) >> 1;
        usize::try_from(number).expect("63 bits") % end.max(1)
    }

    /// A run of the bytes of a slice.
    fn run(&mut self, bytes: &[u8]) -> std::ops::Range<usize> {
        let begin = self.below(bytes.len() + 1);
        let end = begin + self.below(RUN);
        begin..end.min(bytes.len())
    }

    fn byte(&mut self) -> u8 {
        match self.below(2) {
            0 => TELLING[self.below(TELLING.len())],
            _ => u8::try_from(self.below(256)).expect("a byte"),
        }
    }
}

/// Changes an input in one way.
fn change(input: &mut Vec<u8>, seeds: &[Vec<u8>], dice: &mut Dice) {
    let at = dice.below(input.len());
    match dice.below(7) {
        0 if !input.is_empty() => input[at] ^= 1 << dice.below(8),
        1 if !input.is_empty() => input[at] = dice.byte(),
        2 => input.truncate(at),
        3 => drop(input.drain(dice.run(input))),
        4 => {
            let run = input[dice.run(input)].to_vec();
            input.splice(at..at, run);
        }
        5 => {
            let other = &seeds[dice.below(seeds.len())];
            let run = other[dice.run(other)].to_vec();
            input.splice(at..at, run);
        }
        _ => input.insert(at, dice.byte()),
    }
}

/// Returns the inputs the fuzzer begins with.
fn seeds(target: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("fuzz/seeds")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&dir)
        .expect("a directory of seeds")
        .map(|entry| entry.expect("an entry").path())
        .collect();
    // So that every run is the same.
    paths.sort();
    let read = |path| fs::read(path).expect("a seed");
    paths.into_iter().map(read).collect()
}

/// Returns the samples of the wire whose names begin so, behind a byte that says how they are to be read.
fn samples(kind: u8, beginning: &str) -> Vec<Vec<u8>> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/wire/v1");
    let mut paths: Vec<_> = fs::read_dir(&dir)
        .expect("a directory of samples")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|name| name.starts_with(beginning))
        })
        .collect();
    paths.sort();
    assert!(!paths.is_empty(), "there is no sample {beginning}");
    let read = |path| [vec![kind], fs::read(path).expect("a sample")].concat();
    paths.into_iter().map(read).collect()
}

/// Runs a target over its seeds and what comes of them, and names the input that it does not bear.
fn check(target: &str, seeds: &[Vec<u8>], run: fn(&[u8])) {
    let attempt = |input: &[u8]| {
        let ended = catch_unwind(AssertUnwindSafe(|| run(input)));
        assert!(ended.is_ok(), "{target}: {}", input.escape_ascii());
    };
    for seed in seeds {
        attempt(seed);
    }
    let mut dice = Dice(1);
    for _ in 0..CHANGED {
        let mut input = seeds[dice.below(seeds.len())].clone();
        for _ in 0..=dice.below(CHANGES) {
            change(&mut input, seeds, &mut dice);
        }
        attempt(&input);
    }
}

#[test]
fn fuzzed_batches_keep_to_their_limits() {
    let mut seeds = seeds("batch");
    seeds.extend(samples(0, "log-"));
    check("batch", &seeds, batch::run);
}

#[test]
fn fuzzed_bodies_are_read_as_they_are_written() {
    check("body", &seeds("body"), body::run);
}

#[test]
fn fuzzed_frames_are_read_as_they_are_written() {
    let mut seeds = seeds("frame");
    for (kind, beginning) in [
        (0, "order"),
        (1, "ack"),
        (2, "hello"),
        (3, "fault"),
        (4, "welcome"),
        (5, "confirm"),
        (6, "kept"),
        (7, "cancel"),
    ] {
        seeds.extend(samples(kind, beginning));
    }
    check("frame", &seeds, frame::run);
}

#[test]
fn fuzzed_streams_are_cut_alike_however_they_come() {
    check("framing", &seeds("framing"), framing::run);
}

#[test]
fn fuzzed_messages_have_their_parts_where_they_were_written() {
    check("syslog", &seeds("syslog"), syslog::run);
}

#[test]
#[should_panic(expected = "fragile: ")]
fn an_input_that_a_target_does_not_bear_is_found_and_named() {
    let fragile = |input: &[u8]| assert!(!input.windows(2).any(|two| two == b"<<"));
    check("fragile", &seeds("syslog"), fragile);
}
