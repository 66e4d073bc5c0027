//! Entry point of `steward`: reads the command line, runs it, ends with its exit code.

use std::process::ExitCode;

use clap::Parser;
use steward_station::cli::{Cli, run};

fn main() -> ExitCode {
    match Cli::try_parse() {
        Ok(cli) => run(cli).into(),
        Err(usage) => {
            // Help goes to standard output and ends well; when its reader is gone there is nobody to tell.
            usage.print().ok();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
        }
    }
}
