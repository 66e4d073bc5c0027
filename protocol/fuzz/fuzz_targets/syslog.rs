//! Throws what libFuzzer finds at `bodies/syslog.rs`, which says what must hold.

#![no_main]

#[path = "../bodies/syslog.rs"]
mod syslog;

libfuzzer_sys::fuzz_target!(|input: &[u8]| syslog::run(input));
