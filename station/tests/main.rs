//! The station's integration tests: one binary, one module per subject.

mod architecture;
mod broker_versions;
mod cancel_agent;
mod cancel_retry;
mod claiming;
mod cli;
mod end_to_end;
mod inbox_examples;
mod inbox_files;
mod inbox_intake;
mod inbox_laws;
mod support;
