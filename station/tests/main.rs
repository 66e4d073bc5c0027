//! The station's integration tests: one binary, one module per subject.

mod architecture;
mod beside;
mod broker_versions;
mod cancel_agent;
mod cancel_retry;
mod claiming;
mod cli;
mod clients;
mod crash_points;
mod end_to_end;
mod faults;
mod identity;
mod inbox_files;
mod keeping;
mod local;
mod logs;
mod logs_nodes;
mod logs_outlets;
#[path = "../../agent/tests/support/peers.rs"]
#[expect(
    dead_code,
    reason = "the agent's file is used as it is, and not all of it here"
)]
mod peers;
mod poison;
mod support;
mod thousand;
mod tracer;
mod transfer;
