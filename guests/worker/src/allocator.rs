//! The worker's heap: `dlmalloc` over the memory that the host has mapped already.
//!
//! Every invocation gets a fresh memory. The allocator that the standard library brings grows it at
//! the first allocation, which costs the host two system calls that hold a lock of the whole
//! process: with it four cores answer fewer calls than one. This one hands out first what lies
//! between the end of the static data and the end of the initial memory (1 MiB, see
//! `guests/.cargo/config.toml`), and when that is used up grows by 1 MiB at least.
//!
//! The only room of this crate with `unsafe` code.

use std::alloc::{GlobalAlloc, Layout};
use std::arch::wasm32::{memory_grow, memory_size};
use std::cell::{Cell, UnsafeCell};
use std::ptr;

use dlmalloc::{Allocator, Dlmalloc};

/// Bytes of a WebAssembly page.
const PAGE: usize = 64 << 10;

/// Pages by which the memory grows at least.
const GROWTH: usize = 16;

#[global_allocator]
static HEAP: Heap = Heap(UnsafeCell::new(Dlmalloc::new_with_allocator(Memory {
    initial_taken: Cell::new(false),
})));

unsafe extern "C" {
    /// Set by the linker: its address is where the static data ends.
    static __heap_base: u8;
}

struct Heap(UnsafeCell<Dlmalloc<Memory>>);

// SAFETY: a worker has one thread; the host's engine knows no shared memories.
unsafe impl Sync for Heap {}

// SAFETY: `dlmalloc` keeps `GlobalAlloc`'s contract. No call into it can begin while another one
// runs (one thread, and `Memory` does not allocate), so the exclusive reference is exclusive.
unsafe impl GlobalAlloc for Heap {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).malloc(layout.size(), layout.align()) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        unsafe { (*self.0.get()).calloc(layout.size(), layout.align()) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { (*self.0.get()).free(pointer, layout.size(), layout.align()) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        unsafe { (*self.0.get()).realloc(pointer, layout.size(), layout.align(), size) }
    }
}

/// Where `dlmalloc` takes its pages from.
struct Memory {
    /// The initial memory has been handed out.
    initial_taken: Cell<bool>,
}

impl Memory {
    /// What lies between the static data and the end of the memory, once.
    fn initial(&self, size: usize) -> Option<(*mut u8, usize)> {
        if self.initial_taken.replace(true) {
            return None;
        }
        let start = &raw const __heap_base;
        let length = (memory_size(0) * PAGE).checked_sub(start.addr())?;
        (length >= size).then_some((start.cast_mut(), length))
    }
}

/// Grows the memory by so many pages, and returns how many there were before; none if the host
/// refuses.
fn grow(pages: usize) -> Option<(usize, usize)> {
    let before = memory_grow(0, pages);
    (before != usize::MAX).then_some((before, pages))
}

// SAFETY: what `alloc` returns is memory of this instance that nobody else uses: the linker puts
// nothing behind `__heap_base`, and pages that were grown are new.
unsafe impl Allocator for Memory {
    fn alloc(&self, size: usize) -> (*mut u8, usize, u32) {
        if let Some((start, length)) = self.initial(size) {
            return (start, length, 0);
        }
        // Close to the worker's limit less may be had than is worth asking for.
        let needed = size.div_ceil(PAGE);
        let Some((before, pages)) = [needed.max(GROWTH), needed].into_iter().find_map(grow) else {
            return (ptr::null_mut(), 0, 0);
        };
        let start = before * PAGE;
        let length = pages * PAGE;
        // A pointer must not wrap around: the last bytes of the address space stay unused.
        let length = if start.wrapping_add(length) == 0 {
            length - 16
        } else {
            length
        };
        (ptr::with_exposed_provenance_mut(start), length, 0)
    }

    fn remap(&self, _: *mut u8, _: usize, _: usize, _: bool) -> *mut u8 {
        ptr::null_mut()
    }

    fn free_part(&self, _: *mut u8, _: usize, _: usize) -> bool {
        false
    }

    fn free(&self, _: *mut u8, _: usize) -> bool {
        false
    }

    fn can_release_part(&self, _: u32) -> bool {
        false
    }

    fn allocates_zeros(&self) -> bool {
        true
    }

    fn page_size(&self) -> usize {
        PAGE
    }
}
