//! The GPUs that this host's drivers offer.

use futures_util::FutureExt;

use super::hidden::Hidden;
use super::{Found, memory};
use crate::capability::GpuType;

/// A GPU that this host can use.
#[derive(Clone)]
pub struct Adapter {
    pub(super) adapter: Hidden<wgpu::Adapter>,
    /// What it is.
    pub found: Found,
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
        // Some drivers leave functions to be run when the process exits. With the last handle they would be unloaded
        // before that, and the process would end in a fault.
        std::mem::forget(instance);
        // A stable order: hardware before software, then as the drivers list them.
        adapters.sort_by_key(|adapter| adapter.found.is_software());
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
}
