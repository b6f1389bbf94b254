//! GPUs: what there is, a device for each worker, and the meter on what runs there.
//!
//! Bytes and WGSL in, bytes out. Nothing here knows of guests or of wasmtime; `sandbox` puts it behind
//! the interface `crank:gpu/compute`.

mod cache;
mod device;
mod memory;
mod run;
mod seat;
mod shader;

use std::fmt;
use std::ops::Deref;
use std::sync::Arc;

use futures_util::FutureExt;

use crate::capability::GpuType;
use crate::config::ByteCount;
use crate::machine;

pub use device::{Binding, Buffer, Device, Dispatch, Error, Pipeline, Ran, Read};
pub use seat::Seat;

/// Something of wgpu's, whose types are nested so deep that a compiler gives up on asking whether they may
/// cross threads. Asked once, where one is hidden, and of nobody who holds it.
pub struct Hidden<T>(Arc<dyn Hides<T>>);

trait Hides<T>: Send + Sync {
    fn shown(&self) -> &T;
}

impl<T: Send + Sync> Hides<T> for T {
    fn shown(&self) -> &T {
        self
    }
}

impl<T: Send + Sync + 'static> Hidden<T> {
    fn new(hidden: T) -> Self {
        Self(Arc::new(hidden))
    }
}

impl<T> Clone for Hidden<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Deref for Hidden<T> {
    type Target = T;

    fn deref(&self) -> &T {
        (*self.0).shown()
    }
}

/// A GPU that this host can use.
#[derive(Clone)]
pub struct Adapter {
    adapter: Hidden<wgpu::Adapter>,
    /// What it is.
    pub found: Found,
}

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

/// Steps that a GPU does in a second at the least, over all its threads.
fn steps_per_second(kind: Option<GpuType>) -> u64 {
    match kind {
        Some(GpuType::Software) => 4_000_000_000,
        _ => 1_000_000_000_000,
    }
}

impl Found {
    /// The most fuel that one dispatch may be given: the software driver silently ends a loop at its
    /// 65,536th turn.
    pub fn most_fuel(&self) -> u32 {
        match self.kind {
            Some(GpuType::Software) => 65_000,
            _ => 1 << 24,
        }
    }

    /// Threads that it needs to be at its rate: fewer take as long as these.
    fn parallel(&self) -> u64 {
        match self.kind {
            Some(GpuType::Software) => 32,
            _ => 1 << 16,
        }
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

/// Reads a shader and throws the result away.
///
/// # Errors
///
/// Why it may not run, for its author.
pub fn read(wgsl: &str, entry: &str) -> Result<(), String> {
    shader::Shader::compile(wgsl, entry).map(drop)
}

impl Adapter {
    /// Every GPU that a driver offers for computing, the best first. No driver is no error.
    pub fn find() -> Vec<Self> {
        let instance = wgpu::Instance::new(wgpu::InstanceDescriptor {
            backends: wgpu::Backends::PRIMARY,
            flags: wgpu::InstanceFlags::empty(),
            ..wgpu::InstanceDescriptor::new_without_display_handle()
        });
        // Ready at once where there is no browser.
        let all = instance.enumerate_adapters(wgpu::Backends::PRIMARY);
        let all = all.now_or_never().unwrap_or_default();
        let mut adapters: Vec<Self> = all.into_iter().map(Self::new).collect();
        // A stable order: hardware before software, then as the drivers list them.
        adapters.sort_by_key(|adapter| adapter.found.kind == Some(GpuType::Software));
        adapters
    }

    fn new(adapter: wgpu::Adapter) -> Self {
        let info = adapter.get_info();
        let limits = adapter.limits();
        let kind = match (info.device_type, info.backend, info.vendor) {
            (wgpu::DeviceType::Cpu, ..) => Some(GpuType::Software),
            (_, wgpu::Backend::Metal, _) => Some(GpuType::AppleMetal),
            // PCI vendors.
            (_, _, 0x10de) => Some(GpuType::Nvidia),
            (_, _, 0x1002) => Some(GpuType::Amd),
            (_, _, 0x8086) => Some(GpuType::Intel),
            _ => None,
        };
        let found = Found {
            name: info.name,
            kind,
            backend: info.backend.to_string(),
            driver: format!("{} {}", info.driver, info.driver_info)
                .trim()
                .to_owned(),
            max_buffer: limits
                .max_buffer_size
                .min(limits.max_storage_buffer_binding_size),
            max_threads: limits.max_compute_invocations_per_workgroup,
            max_workgroups: limits.max_compute_workgroups_per_dimension,
            memory: memory::of(&adapter, kind).unwrap_or(limits.max_buffer_size),
            has_clock: adapter.features().contains(wgpu::Features::TIMESTAMP_QUERY),
        };
        Self {
            adapter: Hidden::new(adapter),
            found,
        }
    }

    /// The work that fits into so many seconds, in steps.
    pub fn work(&self, seconds: f64) -> u64 {
        (steps_per_second(self.found.kind) as f64 * seconds) as u64
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
