//! GPUs: what there is, a device for each worker, and the meter on what runs there.
//!
//! Bytes and WGSL in, bytes out. Nothing here knows of guests or of wasmtime; `sandbox` puts it behind
//! the interface `crank:gpu/compute`. A build without the feature `gpu` has the same face (`absent`) and no GPU
//! behind it.

mod account;
mod seat;
mod work;

#[cfg(feature = "gpu")]
mod adapter;
#[cfg(feature = "gpu")]
mod buffer;
#[cfg(feature = "gpu")]
mod cache;
#[cfg(feature = "gpu")]
mod device;
#[cfg(feature = "gpu")]
mod hidden;
#[cfg(feature = "gpu")]
mod memory;
#[cfg(feature = "gpu")]
mod run;
#[cfg(feature = "gpu")]
mod shader;
#[cfg(feature = "gpu")]
mod thread;

#[cfg(not(feature = "gpu"))]
mod absent;

use std::fmt;

use crate::capability::GpuType;
use crate::config::ByteCount;
use crate::machine;

pub use account::{Account, Paid};
pub use seat::Seat;
pub use work::{Binding, Dispatch, Error, Ran, Read, Run};

#[cfg(feature = "gpu")]
pub use {
    adapter::Adapter,
    buffer::{Buffer, Memory},
    device::{Device, Pipeline, Settings},
    shader::read,
};

#[cfg(not(feature = "gpu"))]
pub use absent::{Adapter, Buffer, Device, Memory, Pipeline, Settings, read};

/// Why there may be no GPU: whether this program could use one at all, or no driver offers one.
pub const NONE: &str = if cfg!(feature = "gpu") {
    "no driver offers a GPU"
} else {
    "this crank was built without the feature gpu"
};

/// What is known of a GPU.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// As its driver calls it.
    pub name: String,
    /// Who made it; `None` for makers that no worker can ask for.
    pub kind: Option<GpuType>,
    /// The programming interface that it is reached by: `vulkan`, `metal`, `gl`.
    pub backend: String,
    /// The driver with its version.
    pub driver: String,
    /// The largest buffer, in bytes.
    pub max_buffer: u64,
    /// Threads of a workgroup at most.
    pub max_threads: u32,
    /// Workgroups of one dispatch at most, in each dimension.
    pub max_workgroups: u32,
    /// Its own memory, in bytes: the CPU's for a software GPU, and where the driver does not say, the
    /// largest buffer.
    pub memory: u64,
    /// Whether it says how long its work took.
    pub has_clock: bool,
}

impl Found {
    /// Steps that it does in a second at the least, over all its threads.
    fn steps_per_second(&self) -> u64 {
        match self.kind {
            Some(GpuType::Software) => 4_000_000_000,
            _ => 1_000_000_000_000,
        }
    }

    /// The most fuel that one dispatch may be given: the software driver silently ends a loop at its
    /// 65,536th turn.
    pub fn most_fuel(&self) -> u32 {
        match self.kind {
            Some(GpuType::Software) => 65_000,
            _ => 1 << 24,
        }
    }

    /// Threads that it needs to be at its rate: fewer take as long as these.
    pub fn parallel(&self) -> u64 {
        match self.kind {
            Some(GpuType::Software) => 32,
            _ => 1 << 16,
        }
    }

    /// The work that fits into so many seconds, in steps.
    pub fn work(&self, seconds: f64) -> u64 {
        (self.steps_per_second() as f64 * seconds) as u64
    }

    /// Whether it is the CPU, and its memory the host's.
    pub fn is_software(&self) -> bool {
        self.kind == Some(GpuType::Software)
    }

    /// Who made it, as a worker can ask for it.
    pub fn maker(&self) -> &'static str {
        self.kind.map_or("other", GpuType::as_str)
    }

    /// What placement looks at; `None` for a maker that no worker can ask for.
    pub fn placed(&self) -> Option<machine::Gpu> {
        Some(machine::Gpu {
            maker: self.kind?,
            memory: ByteCount::bytes(self.memory),
        })
    }
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (name, maker, mib) = (&self.name, self.maker(), self.memory >> 20);
        write!(
            f,
            "{name}: {maker} with {mib} MiB, by {} ({})",
            self.backend, self.driver
        )
    }
}
