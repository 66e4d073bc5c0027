//! Throws what libFuzzer finds at `bodies/body.rs`, which says what must hold.

#![no_main]

#[path = "../bodies/body.rs"]
mod body;

libfuzzer_sys::fuzz_target!(|input: &[u8]| body::run(input));
