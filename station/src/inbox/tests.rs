//! Tests of reading and printing message files: bytes in, messages or problems out. The folder itself is
//! tested from outside, in `tests/inbox_files.rs`.

mod bodies;
mod examples;
mod hints;
mod intake;
mod laws;
