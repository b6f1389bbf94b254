//! How much memory a GPU has: wgpu does not say, the driver does.

use wgpu::hal::api::Vulkan;

use crate::capability::GpuType;
use crate::machine;

/// Bytes of a GPU's own memory; the CPU's for a GPU that is one. `None` where nothing says.
pub fn of(adapter: &wgpu::Adapter, kind: Option<GpuType>) -> Option<u64> {
    if kind == Some(GpuType::Software) {
        return Some(machine::memory());
    }
    device_local(adapter)
}

/// The heaps that lie on the GPU itself.
#[expect(
    unsafe_code,
    reason = "the driver is asked past wgpu, which does not say"
)]
fn device_local(adapter: &wgpu::Adapter) -> Option<u64> {
    // SAFETY: nothing of the adapter is changed or destroyed, and the guard outlives all that is read.
    let adapter = unsafe { adapter.as_hal::<Vulkan>() }?;
    let instance = adapter.shared_instance().raw_instance();
    // SAFETY: the physical device is of this very instance.
    let memory =
        unsafe { instance.get_physical_device_memory_properties(adapter.raw_physical_device()) };
    let heaps = memory
        .memory_heaps
        .iter()
        .take(memory.memory_heap_count as usize);
    // VK_MEMORY_HEAP_DEVICE_LOCAL_BIT is the first bit.
    let own = heaps.filter(|heap| heap.flags.as_raw() & 1 != 0);
    Some(own.map(|heap| heap.size).sum())
}
