//! The wasmtime engine, its clock, and compiled code.
//!
//! One `Engine` serves every worker, and one for each thread those that are called often: a slot of 4 GiB of address
//! space fits any 32-bit component.
//! What runs, for whom and with which powers must not enter this room.

mod bare;
mod cache;
mod code;
mod compile;
mod gate;
mod image;
mod replicas;
mod reserve;
mod ticker;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OnceCell, Semaphore};
use wasmtime::component::Component;
use wasmtime::{Config, Enabled, InstanceAllocationStrategy, PoolingAllocationConfig};

pub use crate::machine::cores;
pub use bare::Bare;
pub use cache::{
    CodeCache, Entry as CacheEntry, Kind, Origin, clear as clear_cache, entries as cache_entries,
};
pub use compile::{COMMAND as COMPILE, Compiler, Job, child as compile};
pub use gate::{DEFAULT_WEIGHT, Gate, Share, Tick, Turn};
pub use replicas::{Copies, Replica, Replicas, Room};
pub use ticker::TICK;
pub(crate) use ticker::Ticker;

use crate::config::LimitSettings;
use crate::gpu::Adapter;
use crate::limits::{Budget, Meter};
use crate::machine::{self, Machine};
use crate::rules::Rules;
use crate::state::State;
use crate::striped::{Handle, Shared};

/// The engine settings that are an operator's to choose.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Instances that may live at once; each costs about 4 GiB of address space and nothing else
    /// until it is used. 10,000 took 42 TiB and 35 ms at start, 30,000 failed (measured).
    pub instances: u32,
    /// What compiles components.
    pub compiler: Compiler,
    /// Whether guests that compute wait for a token of the [`Gate`]. Without it they yield at every
    /// tick and nothing else, and `cpu_shares` mean nothing: for comparison alone.
    pub fair: bool,
    /// Bytes that the cache of compiled code may take.
    pub cache: u64,
}

impl Settings {
    /// What the operator's limits say; `program` is an executable of this very program.
    pub fn new(limits: &LimitSettings, program: impl Into<PathBuf>) -> Self {
        Self {
            instances: limits.instances,
            compiler: Compiler {
                program: program.into(),
                cpu: limits.compile,
                memory: limits.compile_memory.get(),
                artifact: limits.artifact.get(),
            },
            fair: true,
            cache: limits.cache.get(),
        }
    }
}

/// What reading a shader may cost: CPU time, and bytes of memory.
const SHADER_CPU: Duration = Duration::from_secs(2);
const SHADER_MEMORY: u64 = 256 << 20;

/// Threads that a runtime needs for this engine's guests: more than there are tokens to compute, so
/// that one is left for short calls and for the host itself. No more than two for each core: where three share
/// one, whatever one of them holds waits for the turns of two others, some milliseconds each.
pub fn threads() -> usize {
    (cores() + 2).min(2 * cores())
}

/// Compilers at once: one per core, and no more than fit into half of the machine's memory.
fn compilers(each: u64) -> usize {
    let fit = usize::try_from(machine::memory() / 2 / each.max(1)).unwrap_or(usize::MAX);
    fit.clamp(1, cores())
}

/// Wasmtime's engine with the ticker that drives its epochs and the cache of compiled code.
#[derive(Clone)]
pub struct Engine {
    wasm: wasmtime::Engine,
    replicas: Arc<Replicas>,
    ticker: Shared<Ticker>,
    cache: Arc<CodeCache>,
    gate: Arc<Gate>,
    budget: Shared<Budget>,
    machine: Option<Arc<Machine>>,
    compiler: Arc<Compiler>,
    compilers: Arc<Semaphore>,
    state: Option<Arc<State>>,
    rules: Arc<Rules>,
    gpus: Arc<OnceCell<Vec<Adapter>>>,
}

/// Why a component could not be made ready to run.
#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    /// The bytes are a core module, or no WebAssembly at all, or use what this engine leaves out.
    #[error("{0}")]
    Refused(String),
    /// Seconds of CPU time.
    #[error("takes more than {0} s of CPU time to compile; raise `limits.compile_ms` to load it")]
    Cpu(u64),
    /// Wall-clock time.
    #[error("did not compile within {} s; raise `limits.compile_ms` to load it", .0.as_secs())]
    Wall(Duration),
    /// MiB.
    #[error(
        "takes more than {0} MiB of memory to compile; raise `limits.compile_memory_mb` to load it"
    )]
    Memory(u64),
    /// MiB.
    #[error("compiles to more than {0} MiB of code; raise `limits.artifact_mb` to load it")]
    Artifact(u64),
    /// The compiler crashed, or was killed by someone else: how, and its last words.
    #[error("the compiler died of it: {0}")]
    Died(String),
}

impl Engine {
    /// Starts the engine. `cache` is the directory of compiled code, made if absent; without one
    /// every component is compiled anew.
    ///
    /// # Errors
    ///
    /// The address space for the pool cannot be had, or the ticker's thread not started.
    pub fn new(settings: Settings, cache: Option<&Path>) -> wasmtime::Result<Self> {
        let wasm = pooled(settings.instances)?;
        let replicas = Arc::new(Replicas::default());
        let ticker = Ticker::start(wasm.clone(), replicas.clone())?;
        let cache = CodeCache::open(cache, settings.cache, &wasm);
        // One core is never the guests': with a token for each, the 99th percentile of a short call
        // beside 32 loops was 2.9 ms and not 0.24.
        let tokens = settings.fair.then(|| cores().saturating_sub(1));
        Ok(Self {
            wasm,
            replicas,
            ticker: Arc::new(ticker).into(),
            cache: Arc::new(cache),
            gate: Gate::new(tokens),
            compilers: Arc::new(Semaphore::new(compilers(settings.compiler.memory))),
            compiler: Arc::new(settings.compiler),
            budget: Arc::new(Budget::new(u64::MAX)).into(),
            machine: None,
            state: None,
            rules: Arc::default(),
            gpus: Arc::default(),
        })
    }

    /// The same engine, on this machine: a worker that asks for more than it has is refused, and all
    /// guests together get no more than its memory budget.
    #[must_use]
    pub fn on(self, machine: Machine) -> Self {
        Self {
            budget: Arc::new(Budget::new(machine.budget.get())).into(),
            machine: Some(Arc::new(machine)),
            ..self
        }
    }

    /// The same engine, on a host that keeps state for its workers.
    #[must_use]
    pub fn with_state(self, state: State) -> Self {
        Self {
            state: Some(Arc::new(state)),
            ..self
        }
    }

    /// The same engine, on a host whose operator has a policy.
    #[must_use]
    pub fn with_rules(self, rules: Rules) -> Self {
        Self {
            rules: Arc::new(rules),
            ..self
        }
    }

    /// The policy that workers are loaded under and called under.
    pub fn rules(&self) -> &Arc<Rules> {
        &self.rules
    }

    /// The machine that workers are placed on; without one, placement is not looked at.
    pub fn machine(&self) -> Option<&Machine> {
        self.machine.as_deref()
    }

    /// The state that workers may be granted; without it every bucket is denied.
    pub fn state(&self) -> Option<&Arc<State>> {
        self.state.as_ref()
    }

    /// The GPUs that the drivers offer, the best first. They are asked once, when the first worker wants
    /// one: to open every driver takes its time.
    pub async fn gpus(&self) -> &[Adapter] {
        let find = async || {
            let found = tokio::task::spawn_blocking(Adapter::find).await;
            found.unwrap_or_else(|panic| {
                tracing::error!("no GPU is used: its driver died: {panic}");
                Vec::new()
            })
        };
        self.gpus.get_or_init(find).await
    }

    /// Those GPUs, if the drivers have answered.
    pub fn known_gpus(&self) -> Option<&[Adapter]> {
        self.gpus.get().map(Vec::as_slice)
    }

    /// Who computes when more guests want to than there are cores.
    pub fn gate(&self) -> &Arc<Gate> {
        &self.gate
    }

    /// The memory that all guests have together.
    pub fn budget(&self) -> &Arc<Budget> {
        self.budget.whole()
    }

    /// An empty account of memory with a limit in bytes.
    pub(crate) fn meter(&self, limit: u64) -> Meter {
        Meter::new(limit, self.budget.handle())
    }

    /// The engine itself, for Stores and Linkers.
    pub fn wasm(&self) -> &wasmtime::Engine {
        &self.wasm
    }

    /// The engines of threads.
    pub(crate) fn replicas(&self) -> &Replicas {
        &self.replicas
    }

    /// What advances epochs while a guest is polled.
    pub(crate) fn ticker(&self) -> Handle<Ticker> {
        self.ticker.handle()
    }

    /// Makes sure that a shader may be read in this process: a text of fifty bytes can stand for
    /// gigabytes of constants. A child process, bounded, reads it first.
    ///
    /// # Errors
    ///
    /// Reading it costs more than it may.
    pub async fn read_shader(&self, wgsl: &str, entry: &str) -> Result<(), CompileError> {
        let reader = Compiler {
            cpu: SHADER_CPU,
            memory: SHADER_MEMORY,
            ..(*self.compiler).clone()
        };
        let wgsl = Bytes::copy_from_slice(wgsl.as_bytes());
        reader.read_shader(wgsl, entry).await
    }

    /// Compiles a component and keeps its code, for who found none ([`Engine::kept_code`]): in a child process
    /// that is killed if this future is dropped. `digest` is that of the bytes; `compiling` is called
    /// before it starts.
    ///
    /// # Errors
    ///
    /// The bytes are no component that this engine runs, or compiling them costs more than it may.
    pub async fn component(
        &self,
        bytes: Bytes,
        digest: blake3::Hash,
        compiling: impl FnOnce(),
    ) -> Result<Component, CompileError> {
        if !is_component(&bytes) {
            return Err(CompileError::Refused(
                "not a WebAssembly component; a core module becomes one with `crank build` (its \
                 linker is wasm-component-ld) or `wasm-tools component new`"
                    .to_owned(),
            ));
        }
        // The semaphore is never closed; a permit is there sooner or later.
        let _turn = self.compilers.acquire().await;
        compiling();
        self.compiled(bytes, digest, Kind::Code).await
    }

    /// The code of a component, if the cache holds it for this very engine.
    ///
    /// # Errors
    ///
    /// Whoever looked for it died.
    pub async fn kept_code(&self, digest: blake3::Hash) -> Result<Option<Component>, CompileError> {
        self.cached(digest, Kind::Code).await
    }

    /// The init snapshot of a component, if it was taken before, or why there can be none.
    ///
    /// # Errors
    ///
    /// Whoever looked for it died.
    pub async fn kept_image(&self, digest: blake3::Hash) -> Result<Option<Image>, CompileError> {
        if let Some(component) = self.cached(digest, Kind::Snapshot).await? {
            return Ok(Some(Image::Taken(component)));
        }
        let cache = self.cache.clone();
        let reason = off_thread(move || cache.refusal(&digest)).await?;
        Ok(reason.map(Image::Refused))
    }

    /// Takes the init snapshot of a component: runs its `declare` in a child process, and compiles the
    /// component with the state that this leaves. What comes of it is kept.
    ///
    /// # Errors
    ///
    /// It costs more than it may, or a child died. A component of which no snapshot can be taken is
    /// an [`Image::Refused`].
    pub async fn take_image(&self, bytes: Bytes) -> Result<Image, CompileError> {
        // The semaphore is never closed; a permit is there sooner or later.
        let _turn = self.compilers.acquire().await;
        let digest = blake3::hash(&bytes);
        let initialised = match self.compiler.image(bytes).await {
            Err(CompileError::Refused(reason)) => {
                self.refuse_image(digest, &reason).await?;
                return Ok(Image::Refused(reason));
            }
            initialised => initialised?,
        };
        let made = self.compiled(initialised.into(), digest, Kind::Snapshot);
        made.await.map(Image::Taken)
    }

    /// Keeps no init snapshot of a component, and why.
    ///
    /// # Errors
    ///
    /// Whoever wrote it down died.
    pub async fn refuse_image(
        &self,
        component: blake3::Hash,
        reason: &str,
    ) -> Result<(), CompileError> {
        let (cache, reason) = (self.cache.clone(), reason.to_owned());
        off_thread(move || cache.refuse(&component, &reason)).await
    }

    /// What the cache has of a component.
    async fn cached(
        &self,
        digest: blake3::Hash,
        kind: Kind,
    ) -> Result<Option<Component>, CompileError> {
        let (wasm, cache) = (self.wasm.clone(), self.cache.clone());
        off_thread(move || cache.load(&wasm, &digest, kind)).await
    }

    /// Compiles, and keeps the code under the digest of the component that it stands for.
    async fn compiled(
        &self,
        bytes: Bytes,
        digest: blake3::Hash,
        kind: Kind,
    ) -> Result<Component, CompileError> {
        let code = self.compiler.compile(bytes).await?;
        let (wasm, cache) = (self.wasm.clone(), self.cache.clone());
        let component = off_thread(move || cache.keep(&wasm, &digest, kind, &code)).await?;
        component.map_err(|error| CompileError::Refused(format!("does not load: {error:#}")))
    }
}

/// What became of the wish for an init snapshot.
pub enum Image {
    /// The component, compiled, with the state that `declare` leaves.
    Taken(Component),
    /// There can be none: why.
    Refused(String),
}

/// Runs what takes its time where no call waits for it.
async fn off_thread<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, CompileError> {
    let done = tokio::task::spawn_blocking(work).await;
    done.map_err(|panic| CompileError::Died(panic.to_string()))
}

/// Whether the preamble is a component's: the magic, then version 13 of layer 1 (Binary.md of the
/// component model).
pub fn is_component(bytes: &[u8]) -> bool {
    bytes.starts_with(b"\0asm\x0d\0\x01\0")
}

/// An engine with room for so many instances at once.
fn pooled(instances: u32) -> wasmtime::Result<wasmtime::Engine> {
    let mut config = code();
    config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(instances)));
    wasmtime::Engine::new(&config)
}

/// Where instances live, for so many at once. Nothing here changes the code that is compiled. Figures,
/// here and below, were measured on wasmtime 48.0.8.
fn pool(n: u32) -> PoolingAllocationConfig {
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(n)
        .total_stacks(n)
        // As many as that many components of the largest kind hold, so that one kind of worker cannot
        // take what the others need to start. Only a memory costs much address space, 4 GiB, and
        // 10,000 of them are the most that were tried.
        .total_core_instances(n.saturating_mul(16))
        .total_memories(n.saturating_mul(4).min(10_000))
        .total_tables(n.saturating_mul(8))
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
    pool
}

/// What compiled code depends on, each with its reason: one for the host and for the child that
/// compiles.
fn code() -> Config {
    let mut config = Config::new();
    config
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
