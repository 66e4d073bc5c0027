//! The station's integration tests: one binary, one module per subject.

mod architecture;
mod broker_versions;
mod cancel_agent;
mod cancel_retry;
mod claiming;
mod cli;
mod crash_points;
mod end_to_end;
mod identity;
mod inbox_examples;
mod inbox_files;
mod inbox_intake;
mod inbox_laws;
mod poison;
mod support;
mod tracer;
