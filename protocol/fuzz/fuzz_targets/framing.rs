//! Throws what libFuzzer finds at `bodies/framing.rs`, which says what must hold.

#![no_main]

#[path = "../bodies/framing.rs"]
mod framing;

libfuzzer_sys::fuzz_target!(|input: &[u8]| framing::run(input));
