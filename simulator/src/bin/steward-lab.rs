//! The laboratory's command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    steward_simulator::lab::main()
}
