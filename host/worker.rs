//! A loaded component: what it declares, what it may use, and a sandbox ready to run it.
//!
//! A component becomes a `Worker` or is `Refused` with every reason at once. Several workers, and
//! which of them serves a call, must not enter this room.

mod applicant;
mod binary;
mod declared;
mod health;
mod held;
mod image;
mod load;
mod placement;
mod storage;
mod terms;

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, SystemTime};

use crate::admission::Lane;
use crate::capability::{Affinity, Capability};
use crate::config::Config;
use crate::engine::{self, Engine, Origin};
use crate::gpu::Seat;
use crate::limits::{Limits, Usage};
use crate::rules::{Rules, Verdicts};
use crate::sandbox::{Invocation, Outcome, Sandbox};
use crate::striped::{Handle, Shared, Striped};
use crate::telemetry::{Series, Temperature};

pub use binary::Binary;
pub use health::{Breaker, Health, Pass};
pub use held::Held;
pub use image::Snapshotted;

use load::Unready;

/// A component that is loaded and ready.
pub struct Worker {
    id: Shared<str>,
    file: PathBuf,
    digest: blake3::Hash,
    deployed_at: Option<SystemTime>,
    owner: Option<String>,
    offered: Vec<Arc<Offered>>,
    imports: Vec<String>,
    calls_peers: bool,
    sandbox: Sandbox,
    origin: Origin,
    /// What it declared, where a snapshot is to say the same.
    said: Option<blake3::Hash>,
    snapshotted: Mutex<Snapshotted>,
    called: AtomicBool,
    lane: Arc<Lane>,
    breaker: Breaker,
    load: Arc<Load>,
}

/// One capability of a loaded worker, with the limits that hold for it.
pub struct Offered {
    /// What the worker declared, checked, its schemas compiled.
    pub capability: Capability,
    /// What one invocation may use.
    pub limits: Limits,
    /// Every constraint, declared or not, and how it holds.
    pub constraints: Vec<Held>,
    /// What it bids for its place in the worker's line: its `slo_bid`, as far as the operator lets it
    /// count.
    pub bid: f64,
    /// Whether it should run on this host.
    pub affinity: Affinity,
    /// `verb:name`.
    pub id: Arc<str>,
    /// Where its calls are recorded, once a router has asked.
    pub series: OnceLock<Arc<Series>>,
    /// What the policy has said of its callers.
    pub verdicts: Verdicts,
}

/// A component that may not serve, and why.
#[derive(Clone, Debug)]
pub struct Refused {
    /// The component's file.
    pub file: PathBuf,
    /// The worker id that it claims, if it got as far as claiming one.
    pub worker_id: Option<String>,
    /// Every reason, each a line that names its fix where there is one.
    pub reasons: Vec<String>,
}

/// A component that waits to be placed: it may serve if the drivers offer the GPU that it asks for, and they
/// have not answered yet.
pub struct Starting {
    /// The component's file.
    pub file: PathBuf,
    /// The worker id that it claims.
    pub worker_id: String,
    /// What it would offer.
    pub capabilities: Vec<Capability>,
}

/// What a component became.
pub enum Begun {
    /// A worker.
    Ready(Box<Worker>),
    /// One that is still to be placed: [`Worker::begin`] again when the drivers have answered.
    Starting(Starting),
}

/// What grows with each invocation of a worker: times in nanoseconds.
#[derive(Debug, Default)]
struct Totals {
    calls: AtomicU64,
    cpu: AtomicU64,
    gpu: AtomicU64,
}

/// What a worker is doing and has done.
#[derive(Debug, Default)]
struct Load {
    totals: Striped<Totals>,
    memory_peak: AtomicU64,
    storage_peak: AtomicU64,
    gpu_memory_peak: AtomicU64,
    cpu_peak: AtomicU64,
    run_peak: AtomicU64,
    sent_peak: AtomicU64,
}

/// The highest use that one invocation of a worker has made, and how busy the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Invocations running now.
    pub in_flight: usize,
    /// Calls that wait for it now.
    pub queued: usize,
    /// Calls that were told to come back later.
    pub refused: u64,
    /// Invocations that have ended.
    pub calls: u64,
    /// Bytes of memories and tables.
    pub memory_peak: u64,
    /// Bytes in /tmp.
    pub storage_peak: u64,
    /// Bytes in buffers on a GPU.
    pub gpu_memory_peak: u64,
    /// GPU time of all invocations, where the GPU can tell.
    pub gpu_total: Duration,
    /// Time spent running.
    pub cpu_peak: Duration,
    /// Wall-clock time.
    pub wall_peak: Duration,
    /// Bytes sent to the caller.
    pub sent_peak: u64,
    /// Time spent running by all invocations that have ended, together.
    pub cpu_total: Duration,
}

impl Worker {
    /// Reads a component's file and loads it, as [`Worker::of`] does.
    ///
    /// # Errors
    ///
    /// Every reason why it may not serve.
    pub async fn load(engine: &Engine, config: &Config, file: &Path) -> Result<Self, Refused> {
        Self::of(engine, config, &Binary::read(config, file).await?).await
    }

    /// Loads one component: compiles it (or takes its code from the cache), asks what it offers,
    /// checks that against the contract, the operator's grants and this host.
    ///
    /// # Errors
    ///
    /// Every reason why it may not serve.
    pub async fn of(engine: &Engine, config: &Config, binary: &Binary) -> Result<Self, Refused> {
        let loading = load::Loading {
            engine,
            config,
            binary,
            waits: true,
        };
        loading.run().await.map_err(|unready| match unready {
            Unready::Refused(refused) => refused,
            // Not where it waits.
            Unready::Starting(starting) => {
                let reason = "the drivers have not said which GPUs there are";
                binary.refused(Some(starting.worker_id), vec![reason.to_owned()])
            }
        })
    }

    /// The same without waiting for the drivers to say which GPUs there are: where that decides and they
    /// have not answered, the worker is starting.
    ///
    /// # Errors
    ///
    /// Every reason why it may not serve.
    pub async fn begin(
        engine: &Engine,
        config: &Config,
        binary: &Binary,
    ) -> Result<Begun, Refused> {
        let loading = load::Loading {
            engine,
            config,
            binary,
            waits: false,
        };
        match loading.run().await {
            Ok(worker) => Ok(Begun::Ready(Box::new(worker))),
            Err(Unready::Starting(starting)) => Ok(Begun::Starting(starting)),
            Err(Unready::Refused(refused)) => Err(refused),
        }
    }

    /// Takes the place of an earlier version of the same file: its slots and its line, its accounts of CPU
    /// and bandwidth, and what has been counted. Calls of both versions together get no more than one
    /// worker's part.
    #[must_use]
    pub fn succeeding(mut self, before: &Self) -> Self {
        self.lane = before.lane.clone();
        self.load = before.load.clone();
        self.sandbox.succeed(&before.sandbox);
        self
    }

    /// The worker's id.
    pub fn id(&self) -> &Arc<str> {
        self.id.whole()
    }

    /// The same, as a handle of this thread.
    pub fn id_handle(&self) -> Handle<str> {
        self.id.handle()
    }

    /// The component's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What tells its component from all others.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// When its file was last written, where the file system tells.
    pub fn deployed_at(&self) -> Option<SystemTime> {
        self.deployed_at
    }

    /// Whose it is, where the operator says so.
    pub fn owner(&self) -> Option<&str> {
        self.owner.as_deref()
    }

    /// What it offers.
    pub fn offered(&self) -> &[Arc<Offered>] {
        &self.offered
    }

    /// What the component imports: interfaces with their versions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// Why the policy that holds now would not load it, a line for each reason.
    pub async fn barred(&self, rules: &Rules) -> Vec<String> {
        let capabilities = self.offered.iter().map(|offered| &offered.capability);
        let applicant = || applicant::document(&self.file, &self.id, capabilities, &self.imports);
        rules.refusals(applicant).await
    }

    /// Whether it may call other capabilities.
    pub fn calls_peers(&self) -> bool {
        self.calls_peers
    }

    /// Its place on a GPU, if it has one.
    pub fn seat(&self) -> Option<&Seat> {
        self.sandbox.seat()
    }

    /// Whether it may keep state that outlives its invocations.
    pub fn keeps_state(&self) -> bool {
        self.sandbox.keeps_state()
    }

    /// Whether an invocation leaves nothing behind but its answer: no state, no calls of others.
    pub fn leaves_nothing(&self) -> bool {
        !self.calls_peers() && !self.keeps_state()
    }

    /// How busy it is, from 0 (idle) to 1 (an invocation for each core, or more).
    pub fn load_score(&self) -> f64 {
        (self.lane.in_flight() as f64 / engine::cores() as f64).min(1.0)
    }

    /// Whether its code was compiled when it was loaded, or came from the cache.
    pub fn origin(&self) -> Origin {
        self.origin
    }

    /// How the code that answers the next call came to be ready. Asking counts as the call.
    pub fn temperature(&self) -> Temperature {
        if self.called.load(Relaxed) || self.called.swap(true, Relaxed) {
            return Temperature::Fresh;
        }
        match self.origin {
            _ if self.seat().is_some() => Temperature::GpuFirst,
            Origin::Compiled => Temperature::Uncompiled,
            Origin::Cached => Temperature::Cached,
        }
    }

    /// Where its calls are admitted.
    pub fn lane(&self) -> &Arc<Lane> {
        &self.lane
    }

    /// Whether it does its work.
    pub fn breaker(&self) -> &Breaker {
        &self.breaker
    }

    /// Gives each thread a copy of its own, as [`Sandbox::spread`] does.
    pub async fn spread(&self) -> bool {
        self.sandbox.spread().await
    }

    /// Runs one invocation of a capability that this worker offers; it has been admitted.
    pub async fn invoke(&self, invocation: Invocation<'_>, limits: Limits) -> Outcome {
        let outcome = self.sandbox.invoke(invocation, limits).await;
        self.load.record(&outcome.usage);
        outcome
    }

    /// What it is doing and has done.
    pub fn observed(&self) -> Observed {
        let totals = &self.load.totals;
        Observed {
            in_flight: self.lane.in_flight(),
            queued: self.lane.queued(),
            refused: self.lane.refused(),
            calls: totals.sum(|totals| &totals.calls),
            memory_peak: self.load.memory_peak.load(Relaxed),
            storage_peak: self.load.storage_peak.load(Relaxed),
            gpu_memory_peak: self.load.gpu_memory_peak.load(Relaxed),
            gpu_total: Duration::from_nanos(totals.sum(|totals| &totals.gpu)),
            cpu_peak: Duration::from_nanos(self.load.cpu_peak.load(Relaxed)),
            wall_peak: Duration::from_nanos(self.load.run_peak.load(Relaxed)),
            sent_peak: self.load.sent_peak.load(Relaxed),
            cpu_total: Duration::from_nanos(totals.sum(|totals| &totals.cpu)),
        }
    }
}

impl Load {
    fn record(&self, usage: &Usage) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let totals = self.totals.mine();
        totals.calls.fetch_add(1, Relaxed);
        totals.cpu.fetch_add(nanos(usage.cpu), Relaxed);
        raise(&self.memory_peak, usage.memory_peak);
        raise(&self.storage_peak, usage.storage_peak);
        raise(&self.gpu_memory_peak, usage.gpu_memory_peak);
        if usage.gpu > Duration::ZERO {
            totals.gpu.fetch_add(nanos(usage.gpu), Relaxed);
        }
        raise(&self.cpu_peak, nanos(usage.cpu));
        raise(&self.sent_peak, usage.sent);
        raise(&self.run_peak, nanos(usage.start + usage.run));
    }
}

/// `fetch_max` that does not write where nothing changes: the cache line stays shared.
fn raise(peak: &AtomicU64, value: u64) {
    if peak.load(Relaxed) < value {
        peak.fetch_max(value, Relaxed);
    }
}
