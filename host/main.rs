//! Parses the command line and calls; everything else is the library's.

use std::process::ExitCode;

fn main() -> ExitCode {
    crank::cli::run()
}
