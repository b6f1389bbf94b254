//! A loaded component: what it declares, what it may use, and a sandbox ready to run it.
//!
//! A component becomes a `Worker` or is `Refused` with every reason at once. Several workers, and
//! which of them serves a call, must not enter this room.

mod declared;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::time::{Duration, Instant};

use crate::capability::{self, Capability, Constraints, Required};
use crate::config::{ByteCount, Config, LimitSettings, WorkerSettings};
use crate::engine::{Engine, Origin};
use crate::error::Failure;
use crate::limits::{Limits, Usage};
use crate::policy::{self, Grants, Import, OperatorGrants};
use crate::sandbox::{self, Invocation, Outcome, Sandbox};

/// Limits of `declare`: it only builds a description.
const DECLARE: Limits = Limits {
    memory: 256 << 20,
    wall: Duration::from_secs(2),
    cpu: Duration::from_secs(2),
    output: 4 << 20,
};

/// A component that is loaded and ready.
pub struct Worker {
    id: Arc<str>,
    file: PathBuf,
    offered: Vec<Arc<Offered>>,
    imports: Vec<String>,
    sandbox: Sandbox,
    origin: Origin,
    called: AtomicBool,
    load: Load,
}

/// One capability of a loaded worker, with the limits that hold for it.
pub struct Offered {
    /// What the worker declared, checked, its schemas compiled.
    pub capability: Capability,
    /// What one invocation may use.
    pub limits: Limits,
    /// `verb:name`.
    pub id: Arc<str>,
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

/// How the code that answers a call came to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// First call since the component was compiled.
    Uncompiled,
    /// First call since its code was loaded from the cache.
    Cached,
    /// A new sandbox of a worker that has answered before: the normal case.
    Fresh,
}

impl Temperature {
    /// The value of the `Crank-Cold` header.
    pub const fn as_str(self) -> &'static str {
        match self {
            Temperature::Uncompiled => "uncompiled",
            Temperature::Cached => "cached",
            Temperature::Fresh => "fresh",
        }
    }
}

/// What a worker is doing and has done.
#[derive(Debug, Default)]
struct Load {
    in_flight: AtomicUsize,
    calls: AtomicU64,
    memory_peak: AtomicU64,
    cpu_peak: AtomicU64,
    run_peak: AtomicU64,
}

/// The highest use that one invocation of a worker has made, and how busy the worker is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Observed {
    /// Invocations running now.
    pub in_flight: usize,
    /// Invocations that have ended.
    pub calls: u64,
    /// Bytes of memories and tables.
    pub memory_peak: u64,
    /// Time spent running.
    pub cpu_peak: Duration,
    /// Wall-clock time.
    pub wall_peak: Duration,
}

impl Worker {
    /// Loads one component: compiles it (or takes its code from the cache), asks what it offers,
    /// checks that against the contract, the operator's grants and this host.
    ///
    /// # Errors
    ///
    /// Every reason why it may not serve.
    pub async fn load(engine: &Engine, config: &Config, file: &Path) -> Result<Self, Refused> {
        Loading {
            engine,
            config,
            file,
        }
        .run()
        .await
    }

    /// The worker's id.
    pub fn id(&self) -> &Arc<str> {
        &self.id
    }

    /// The component's file.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// What it offers.
    pub fn offered(&self) -> &[Arc<Offered>] {
        &self.offered
    }

    /// What the component imports: interfaces with their versions.
    pub fn imports(&self) -> &[String] {
        &self.imports
    }

    /// How busy it is, from 0 (idle) to 1 (an invocation for each core, or more).
    pub fn load_score(&self) -> f64 {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        (self.load.in_flight.load(Relaxed) as f64 / cores as f64).min(1.0)
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
            Origin::Compiled => Temperature::Uncompiled,
            Origin::Cached => Temperature::Cached,
        }
    }

    /// Runs one invocation of a capability that this worker offers.
    pub async fn invoke(&self, invocation: Invocation, limits: Limits) -> Outcome {
        let _in_flight = InFlight::enter(&self.load.in_flight);
        let outcome = self.sandbox.invoke(invocation, limits).await;
        self.load.record(&outcome.usage);
        outcome
    }

    /// What it is doing and has done.
    pub fn observed(&self) -> Observed {
        Observed {
            in_flight: self.load.in_flight.load(Relaxed),
            calls: self.load.calls.load(Relaxed),
            memory_peak: self.load.memory_peak.load(Relaxed),
            cpu_peak: Duration::from_nanos(self.load.cpu_peak.load(Relaxed)),
            wall_peak: Duration::from_nanos(self.load.run_peak.load(Relaxed)),
        }
    }
}

impl Load {
    fn record(&self, usage: &Usage) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        self.calls.fetch_add(1, Relaxed);
        raise(&self.memory_peak, usage.memory_peak);
        raise(&self.cpu_peak, nanos(usage.cpu));
        raise(&self.run_peak, nanos(usage.start + usage.run));
    }
}

/// `fetch_max` that does not write where nothing changes: the cache line stays shared.
fn raise(peak: &AtomicU64, value: u64) {
    if peak.load(Relaxed) < value {
        peak.fetch_max(value, Relaxed);
    }
}

/// Counts an invocation in flight, also one whose future is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl<'a> InFlight<'a> {
    fn enter(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// One component on its way to being a worker.
struct Loading<'a> {
    engine: &'a Engine,
    config: &'a Config,
    file: &'a Path,
}

impl Loading<'_> {
    async fn run(&self) -> Result<Worker, Refused> {
        let (component, origin) = self.component().await?;
        let stem = self.stem();
        let declared = sandbox::declare(self.engine, stem.clone().into(), &component, DECLARE)
            .await
            .map_err(|failure| self.refused(None, vec![declare_failed(&failure)]))?;
        let claimed = declared.worker_id.clone();
        let refused = |reasons| self.refused(Some(claimed.clone()), reasons);

        let capabilities = capability::check(declared.into())
            .map_err(|problems| refused(problems.iter().map(ToString::to_string).collect()))?;
        let operator = self.config.workers.get(&stem);
        let imports = sandbox::imports(self.engine, &component);
        let mut reasons = self.foreign_ids(&capabilities, operator);
        let grants = match granted(
            &imports,
            &capabilities,
            &OperatorGrants::new(&stem, operator),
        ) {
            Ok(grants) if reasons.is_empty() => grants,
            Ok(_) => return Err(refused(reasons)),
            Err(refusals) => {
                reasons.extend(refusals);
                return Err(refused(reasons));
            }
        };
        let id: Arc<str> = claimed.as_str().into();
        let sandbox = Sandbox::new(self.engine, id.clone(), &component, &grants)
            .map_err(|error| refused(vec![format!("does not link: {error:#}")]))?;
        let offered = capabilities
            .into_iter()
            .map(|capability| {
                Arc::new(Offered {
                    id: capability.key().into(),
                    limits: limits(
                        &self.config.limits,
                        operator,
                        capability.constraints.as_ref(),
                    ),
                    capability,
                })
            })
            .collect();
        Ok(Worker {
            id,
            file: self.file.to_owned(),
            offered,
            imports,
            sandbox,
            origin,
            called: AtomicBool::new(false),
            load: Load::default(),
        })
    }

    /// Reads and compiles, on a thread where that may take its time.
    async fn component(&self) -> Result<(wasmtime::component::Component, Origin), Refused> {
        let engine = self.engine.clone();
        let file = self.file.to_owned();
        let cap = self.config.limits.component.get();
        let made = tokio::task::spawn_blocking(move || {
            let bytes = read(&file, cap)?;
            let name = file
                .file_name()
                .unwrap_or_default()
                .to_string_lossy()
                .into_owned();
            let began = Instant::now();
            let kib = bytes.len() >> 10;
            let (component, origin) = engine
                .component(&bytes, || {
                    tracing::info!("compiling {name} ({kib} KiB), once: the code is kept")
                })
                .map_err(|error| error.to_string())?;
            if origin == Origin::Compiled {
                tracing::info!("compiled {name} in {:.1} s", began.elapsed().as_secs_f64());
            }
            Ok((component, origin))
        })
        .await
        .unwrap_or_else(|panic| Err(format!("does not compile: {panic}")));
        made.map_err(|reason| self.refused(None, vec![reason]))
    }

    /// Identities that the worker may not claim: outside the trust domain, or not the one that the
    /// operator gave to this file.
    fn foreign_ids(
        &self,
        capabilities: &[Capability],
        operator: Option<&WorkerSettings>,
    ) -> Vec<String> {
        let domain = &self.config.trust_domain;
        let bound = operator.and_then(|operator| operator.spiffe_id.as_ref());
        let mut reasons = Vec::new();
        for capability in capabilities {
            let Some(id) = &capability.spiffe_id else {
                continue;
            };
            if !id.is_member_of(domain) {
                reasons.push(format!(
                    "spiffe_id {id} is outside the trust domain {domain}"
                ));
            } else if bound.is_some_and(|bound| bound != id) {
                reasons.push(format!(
                    "spiffe_id {id} is not the one that the operator gave to this file"
                ));
            }
        }
        reasons.dedup();
        reasons
    }

    fn stem(&self) -> String {
        self.file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }

    fn refused(&self, worker_id: Option<String>, reasons: Vec<String>) -> Refused {
        Refused {
            file: self.file.to_owned(),
            worker_id,
            reasons,
        }
    }
}

/// What the component may be linked to, or every reason why not.
fn granted(
    imports: &[String],
    capabilities: &[Capability],
    operator: &OperatorGrants<'_>,
) -> Result<Grants, Vec<String>> {
    let mut parsed = Vec::new();
    for name in imports {
        let unknown = || {
            vec![format!(
                "imports {name}, which is no interface; a component's world imports interfaces"
            )]
        };
        parsed.push(Import::parse(name).ok_or_else(unknown)?);
    }
    let declared: Vec<Required> = capabilities
        .iter()
        .filter_map(|capability| capability.required_capabilities.as_ref())
        .flatten()
        .cloned()
        .collect();
    policy::decide(&parsed, &declared, operator)
        .map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

/// The operator's word, else the worker's, else the operator's default.
fn limits(
    default: &LimitSettings,
    operator: Option<&WorkerSettings>,
    declared: Option<&Constraints>,
) -> Limits {
    let memory = declared
        .and_then(|declared| declared.max_memory_mb)
        .map(ByteCount::mib);
    let cpu = declared
        .and_then(|declared| declared.max_cpu_ms)
        .map(|ms| Duration::from_millis(ms.into()));
    Limits {
        memory: operator
            .and_then(|operator| operator.memory)
            .or(memory)
            .unwrap_or(default.memory)
            .get(),
        wall: operator
            .and_then(|operator| operator.wall)
            .unwrap_or(default.wall),
        cpu: operator
            .and_then(|operator| operator.cpu)
            .or(cpu)
            .unwrap_or(default.cpu),
        output: usize::try_from(default.output.get()).unwrap_or(usize::MAX),
    }
}

fn read(file: &Path, cap: u64) -> Result<Vec<u8>, String> {
    use std::io::Read;
    let mut bytes = Vec::new();
    let opened = std::fs::File::open(file).map_err(|error| format!("cannot be read: {error}"))?;
    opened
        .take(cap.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(|error| format!("cannot be read: {error}"))?;
    if bytes.len() as u64 > cap {
        return Err(format!(
            "larger than {} MiB; raise `limits.component_mb` to load it",
            cap >> 20
        ));
    }
    Ok(bytes)
}

fn declare_failed(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("`declare` failed: {failure} ({cause})"),
        None => format!("`declare` failed: {failure}"),
    }
}
