//! Throws what libFuzzer finds at `bodies/batch.rs`, which says what must hold.

#![no_main]

#[path = "../bodies/batch.rs"]
mod batch;

libfuzzer_sys::fuzz_target!(|input: &[u8]| batch::run(input));
