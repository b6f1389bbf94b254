//! Parses the command line and calls; everything else is the library's.

use std::process::ExitCode;

/// A call makes some hundred small allocations on whatever thread it happens to run, which glibc's allocator
/// makes dear.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

fn main() -> ExitCode {
    crank::cli::run()
}
