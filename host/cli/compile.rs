//! `crank compile`, which the host's engine starts and nobody else.

use std::process::ExitCode;

use clap::Args;

use crate::engine;

/// Compile a component from standard input to standard output, within bounds.
#[derive(Args)]
pub struct Compile {
    /// CPU time, in seconds
    cpu: u64,
    /// Memory, in bytes
    memory: u64,
    /// Read a shader with this entry point instead
    #[arg(long)]
    shader: Option<String>,
}

impl Compile {
    pub fn run(self) -> ExitCode {
        engine::compile(self.cpu, self.memory, self.shader.as_deref())
    }
}
