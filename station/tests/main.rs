//! The station's integration tests: one binary, one module per subject.

mod architecture;
mod beside;
mod broker_versions;
mod cancel_agent;
mod cancel_retry;
mod claiming;
mod cli;
mod crash_points;
mod end_to_end;
mod faults;
mod identity;
mod inbox_files;
mod keeping;
mod local;
mod logs;
mod logs_outlets;
mod poison;
mod support;
mod thousand;
mod tracer;
mod transfer;
