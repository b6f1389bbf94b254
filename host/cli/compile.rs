//! `crank compile`, which the host's engine starts and nobody else.

use std::process::ExitCode;

use clap::Args;

use crate::engine::{self, Job};

/// Compile a component from standard input to standard output, within bounds.
#[derive(Args)]
pub struct Compile {
    /// CPU time, in seconds
    cpu: u64,
    /// Memory, in bytes
    memory: u64,
    /// Read a shader with this entry point instead
    #[arg(long, conflicts_with = "image")]
    shader: Option<String>,
    /// Initialise the component instead, and write it as a component
    #[arg(long)]
    image: bool,
}

impl Compile {
    pub fn run(self) -> ExitCode {
        let job = match &self.shader {
            Some(entry) => Job::Shader(entry),
            None if self.image => Job::Image,
            None => Job::Code,
        };
        engine::compile(self.cpu, self.memory, job)
    }
}
