//! The wasmtime engine, its clock, and compiled code.
//!
//! One `Engine` serves every worker: a slot of 4 GiB of address space fits any 32-bit component.
//! What runs, for whom and with which powers must not enter this room.

mod cache;
mod gate;
mod ticker;

use std::path::Path;
use std::sync::Arc;

use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

pub use cache::{CodeCache, Origin};
pub use gate::{DEFAULT_WEIGHT, Gate, Share, Tick, Turn};
pub use ticker::{Running, TICK};

use crate::limits::Budget;
use crate::state::State;
use ticker::Ticker;

/// The engine settings that are an operator's to choose.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Instances that may live at once; each costs about 4 GiB of address space and nothing else
    /// until it is used. 10,000 took 42 TiB and 35 ms at start, 30,000 failed (measured).
    pub instances: u32,
    /// Memory that all guests may take together, in bytes.
    pub memory: u64,
}

/// Threads that a runtime needs for this engine's guests: more than there are tokens to compute, so
/// that one is left for short calls and for the host itself.
pub fn threads() -> usize {
    cores() + 2
}

/// Cores that this process may use.
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Wasmtime's engine with the ticker that drives its epochs and the cache of compiled code.
#[derive(Clone)]
pub struct Engine {
    wasm: wasmtime::Engine,
    ticker: Arc<Ticker>,
    cache: Arc<CodeCache>,
    gate: Arc<Gate>,
    budget: Arc<Budget>,
    state: Option<Arc<State>>,
}

/// Why a component could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bytes are a core module, or no WebAssembly at all, or use what this engine leaves out.
    #[error("{0}")]
    Refused(String),
}

impl Engine {
    /// Starts the engine. `cache` is the directory of compiled code, made if absent; without one
    /// every component is compiled anew.
    ///
    /// # Errors
    ///
    /// The address space for the pool cannot be had, or the ticker's thread not started.
    pub fn new(settings: Settings, cache: Option<&Path>) -> wasmtime::Result<Self> {
        let wasm = wasmtime::Engine::new(&config(settings))?;
        let ticker = Ticker::start(wasm.clone())?;
        let cache = CodeCache::open(cache, &wasm);
        // One core is never the guests': with a token for each, the 99th percentile of a short call
        // beside 32 loops was 2.9 ms and not 0.24.
        let gate = Gate::new(cores().saturating_sub(1));
        Ok(Self {
            wasm,
            ticker: Arc::new(ticker),
            cache: Arc::new(cache),
            gate,
            budget: Arc::new(Budget::new(settings.memory)),
            state: None,
        })
    }

    /// The same engine, on a host that keeps state for its workers.
    #[must_use]
    pub fn with_state(self, state: State) -> Self {
        Self {
            state: Some(Arc::new(state)),
            ..self
        }
    }

    /// The state that workers may be granted; without it every bucket is denied.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.state.as_ref()
    }

    /// Who computes when more guests want to than there are cores.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The memory that all guests have together.
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    /// The engine itself, for Stores and Linkers.
    pub fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// Keeps epochs advancing, one every [`TICK`], as long as the guard lives.
    pub fn running(&self) -> Running {
        self.ticker.running()
    }

    /// Makes a component ready to run: from the cache where it holds this very component for this
    /// very engine, else by compiling. Takes up to minutes of CPU time: not for an async thread.
    /// `compiling` is called before a compilation starts.
    ///
    /// # Errors
    ///
    /// The bytes are no component that this engine runs.
    pub fn component(
        &self,
        bytes: &[u8],
        compiling: impl FnOnce(),
    ) -> Result<(Component, Origin), CompileError> {
        if let Some(component) = self.cache.load(&self.wasm, bytes) {
            return Ok((component, Origin::Cached));
        }
        if !is_component(bytes) {
            return Err(CompileError::Refused(
                "not a WebAssembly component; a core module becomes one with `crank build` (its \
                 linker is wasm-component-ld) or `wasm-tools component new`"
                    .to_owned(),
            ));
        }
        compiling();
        let component = Component::from_binary(&self.wasm, bytes)
            .map_err(|error| CompileError::Refused(format!("does not compile: {error:#}")))?;
        self.cache.store(&component, bytes);
        Ok((component, Origin::Compiled))
    }
}

/// Whether the preamble is a component's: the magic, then version 13 of layer 1 (Binary.md of the
/// component model).
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x0d\0\x01\0")
}

/// The engine's settings, each with its reason. Figures were measured on wasmtime 48.0.8.
fn config(settings: Settings) -> Config {
    let n = settings.instances;
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(n)
        .total_stacks(n)
        // A component made by wasm-component-ld holds up to four core instances (main, shim, fixups).
        .total_core_instances(n.saturating_mul(4))
        .total_memories(n)
        .total_tables(n.saturating_mul(2))
        // What one component may hold: room for composed ones, an end for hostile ones.
        .max_core_instances_per_component(16)
        .max_memories_per_component(4)
        .max_tables_per_component(8)
        .max_memories_per_module(1)
        .max_tables_per_module(4)
        .table_elements(20_000)
        // All that 32 bits can address; the meter holds each worker to its own limit.
        .max_memory_size(4 << 30)
        // Pages kept and zeroed by hand instead of given back: cheaper than faulting them in anew.
        .linear_memory_keep_resident(1 << 20)
        .table_keep_resident(64 << 10)
        // Zeroes only what was touched, where the kernel can tell: a Rust guest from 35 to 14 us.
        .pagemap_scan(Enabled::Auto);

    let mut config = Config::new();
    config
        .allocation_strategy(InstanceAllocationStrategy::Pooling(pool))
        // Component-model async costs 2.5 to 6 times as much per fresh call: 15 us became 6 without.
        .concurrency_support(false)
        // The only brake on a loop that costs next to nothing in straight code.
        .epoch_interruption(true)
        // Bounds checks by guard pages: no memory ever moves, none needs a compare.
        .memory_reservation(4 << 30)
        .memory_guard_size(32 << 20)
        .memory_init_cow(true)
        // Half a stack for the guest, the rest for host functions that it calls.
        .max_wasm_stack(512 << 10)
        .async_stack_size(1 << 20)
        // No worker needs these, and each is surface. Custom page sizes in particular: their refund
        // path lets a guest over its memory limit.
        .wasm_memory64(false)
        .wasm_multi_memory(false)
        .wasm_custom_page_sizes(false)
        .wasm_relaxed_simd(false)
        .shared_memory(false)
        .gc_support(false)
        // A trap's backtrace is the author's; sixteen frames tell where.
        .wasm_backtrace_max_frames(std::num::NonZeroUsize::new(16));
    config
}
