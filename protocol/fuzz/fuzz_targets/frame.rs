//! Throws what libFuzzer finds at `bodies/frame.rs`, which says what must hold.

#![no_main]

#[path = "../bodies/frame.rs"]
mod frame;

libfuzzer_sys::fuzz_target!(|input: &[u8]| frame::run(input));
