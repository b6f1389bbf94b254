//! What one invocation may use, and what it has used.
//!
//! `Limits` come from a capability's constraints and the operator's defaults. A `Meter` sits in the
//! invocation's Store and is asked at every `memory.grow` and `table.grow`; a `CpuClock` counts time
//! spent running; a worker's `Bandwidth` says how long its output has to wait. No clock here knows
//! tokio, and nothing but the `ResourceLimiter` impl knows wasmtime.

mod callers;
mod cpu;
mod flow;
mod memory;

use std::fmt;
use std::time::Duration;

pub use callers::{Callers, Turn, Who};
pub use cpu::CpuClock;
pub use flow::{Bandwidth, Handed};
pub use memory::{Budget, Held, Meter};

/// What one invocation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes over all memories and tables of the instance, and what the host keeps for it.
    pub memory: u64,
    /// Wall-clock time, waiting in host calls included.
    pub wall: Duration,
    /// Time spent running.
    pub cpu: Duration,
    /// Bytes that the worker may hand another worker at once, where it calls any.
    pub input: usize,
    /// Bytes that the worker may hand the host at once: its answer, one event, one log line.
    pub output: usize,
    /// What it may hand the host's functions in all.
    pub handed: Handed,
    /// Bytes in the invocation's /tmp; none: there is no /tmp.
    pub storage: u64,
    /// Files, directories and links in it.
    pub files: u64,
    /// Bytes of buffers on a GPU.
    pub gpu_memory: u64,
}

/// What one invocation has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From an empty Store to an instance.
    pub start: Duration,
    /// From the instance to its answer, waiting in host calls included.
    pub run: Duration,
    /// Time spent running, of `start` and `run` together.
    pub cpu: Duration,
    /// The highest number of bytes in memories and tables, and kept by the host for the instance.
    pub memory_peak: u64,
    /// Bytes sent to the caller, events and answer together.
    pub sent: u64,
    /// The highest number of bytes in /tmp, in whole blocks.
    pub storage_peak: u64,
    /// The highest number of bytes in its buffers on a GPU.
    pub gpu_memory_peak: u64,
    /// How long the GPU worked for it, where it can tell.
    pub gpu: Duration,
}

/// The limit that ended an invocation. It travels through the guest's stack as a typed error, so that
/// whatever the guest makes of it, the reason arrives whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A grow beyond `Limits::memory`.
    Memory,
    /// More time running than `Limits::cpu`.
    Cpu,
    /// The wall-clock deadline.
    Deadline,
    /// Something handed to the host that is longer than the contract allows, or one thing too many.
    Output,
    /// Memory within the worker's limit that the host has not got.
    Budget,
    /// More to send than the worker's bandwidth lets through before the deadline.
    Bandwidth,
    /// More in /tmp or in a bucket than its quota allows.
    Storage,
    /// More of the GPU's memory or of its time than there is for it.
    Gpu,
    /// A GPU that is gone.
    Lost,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Memory => "memory limit reached",
            Stop::Cpu => "cpu limit reached",
            Stop::Deadline => "deadline passed",
            Stop::Output => "output limit reached",
            Stop::Budget => "the host's memory budget is spent",
            Stop::Bandwidth => "bandwidth limit reached",
            Stop::Storage => "storage limit reached",
            Stop::Gpu => "gpu limit reached",
            Stop::Lost => "the GPU was lost",
        })
    }
}

impl std::error::Error for Stop {}
