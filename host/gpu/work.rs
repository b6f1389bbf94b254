//! What can be asked of a device, and what it answers.

use std::time::Duration;

use super::{Memory, Pipeline};
use crate::limits::Held;

/// A buffer, or a part of it, where a shader expects it.
pub struct Binding {
    /// In group 0.
    pub slot: u32,
    /// The buffer.
    pub buffer: Memory,
    /// In bytes.
    pub offset: u64,
    /// In bytes; 0 is the rest.
    pub size: u64,
}

/// One shader over many threads.
pub struct Dispatch {
    /// What runs.
    pub pipeline: Pipeline,
    /// What it works on.
    pub bindings: Vec<Binding>,
    /// How many workgroups in each dimension.
    pub workgroups: [u32; 3],
    /// Turns of loops that one thread may take.
    pub fuel: u32,
}

/// What is read back after a run.
pub struct Read {
    /// From where.
    pub buffer: Memory,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// Dispatches in order, then reads.
pub struct Run {
    /// What is done.
    pub dispatches: Vec<Dispatch>,
    /// What is read back.
    pub reads: Vec<Read>,
    /// The host's memory that what is read comes through.
    pub held: Held,
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    /// The bytes of each read.
    pub bytes: Vec<Vec<u8>>,
    /// How long the GPU took, where it can tell.
    pub took: Option<Duration>,
}

/// Why something did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The worker's mistake.
    #[error("{0}")]
    Invalid(String),
    /// A thread spent its fuel.
    #[error(
        "a thread spent its fuel: the shader's loops take more turns than the dispatch allowed"
    )]
    Fuel,
    /// No memory is left on the GPU.
    #[error("the GPU has no memory left")]
    Memory,
    /// The device is gone; the next one will do.
    #[error("the GPU was lost")]
    Lost,
}
