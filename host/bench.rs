//! `crank bench`: what each capability costs, cold and warm, and whether it keeps its promises.
//!
//! Everything runs in this process, by the way that calls take in `crank serve` without its socket: router,
//! validation, admission, sandbox. Arguments, terminals and exit codes must not enter this room.

mod arrivals;
mod cold;
mod compare;
mod html;
mod plot;
mod report;
mod slo;
mod table;
mod target;
mod warm;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

pub use compare::{Comparison, Regression, compare};
pub use html::html;
pub use report::{
    Bare, Latency, Left, Measured, Percentiles, RateFrom, Refused, Report, Sampled, Settings,
    Start, Temperatures, VERSION, Verdict,
};
pub use table::table;
pub use target::Input;

use crate::config::Config;
use crate::engine::{self, Engine};
use crate::machine::{self, Machine};
use crate::registry::{Registry, Snapshot};
use crate::router::Router;
use crate::telemetry::Telemetry;
use crate::toolchain::{Event, Progress};
use crate::worker::Worker;
use target::Target;

/// Parts in which the calls of a capability come: the best one tells most of the program, and least of what
/// else the machine did.
const ROUNDS: usize = 5;

/// What is to be measured.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The directory of components.
    pub dir: PathBuf,
    /// Capabilities, `verb:name`; none: all that there are.
    pub capabilities: Vec<String>,
    /// Inputs by capability, in place of its examples.
    pub inputs: BTreeMap<String, Input>,
    /// Calls per second; `None`: derived for each capability.
    pub rate: Option<f64>,
    /// Calls per second by capability, of an earlier run. `rate` goes before.
    pub rates: BTreeMap<String, f64>,
    /// How long each capability is called, as calls come.
    pub duration: Duration,
}

/// A host to measure on.
struct Lab {
    plan: Plan,
    config: Arc<Config>,
    machine: Machine,
    engine: Engine,
    snapshot: Snapshot,
    bare: engine::Bare,
}

/// Measures. The configuration's `cache_dir`, `state_dir` and `tmp_dir` are written to, and its cache must be
/// new: whoever calls gives directories of his own.
///
/// # Errors
///
/// The plan names what is not there, or the machine does not allow a host.
pub async fn bench(
    plan: Plan,
    config: Arc<Config>,
    progress: Progress<'_>,
) -> Result<Report, String> {
    progress(Event::Started("loading the workers"));
    let lab = Lab::open(plan, config).await;
    progress(Event::Finished { ok: lab.is_ok() });
    let lab = lab?;
    let mut report = lab.empty();
    let targets = lab.targets(&mut report)?;
    lab.acquaint(&targets).await;
    let count = targets.len();
    for (at, target) in targets.iter().enumerate() {
        let id = &target.offered.id;
        progress(Event::Started(&format!("{} of {count}: {id}", at + 1)));
        let measured = lab.measure(target).await;
        progress(Event::Finished {
            ok: measured.is_ok(),
        });
        match measured {
            Ok(measured) => report.capabilities.push(measured),
            Err(reason) => report.failed.push(left(target, reason)),
        }
    }
    if let Some(state) = lab.engine.state() {
        state.close().await;
    }
    Ok(report)
}

impl Lab {
    async fn open(plan: Plan, config: Arc<Config>) -> Result<Self, String> {
        std::fs::create_dir_all(&config.state_dir)
            .map_err(|error| format!("{}: {error}", config.state_dir.display()))?;
        let machine = Machine::read(&config, &config.tmp_dir).map_err(|error| error.to_string())?;
        let state = config.state_dir.join("served");
        let engine = cold::engine(&config, &machine, &cold::code(&config), &state)?;
        let bare = engine::Bare::new(&engine).map_err(|error| format!("{error:#}"))?;
        let snapshot = Snapshot::load_dir(&engine, &config, &plan.dir)
            .await
            .map_err(|error| format!("{}: {error}", plan.dir.display()))?;
        let mut workers = snapshot.workers().iter();
        let state = engine.state();
        if let Some(state) = state.filter(|_| workers.any(|worker| worker.keeps_state())) {
            state.open().await.map_err(|error| error.to_string())?;
        }
        Ok(Self {
            plan,
            config,
            machine,
            engine,
            snapshot,
            bare,
        })
    }

    /// A report in which nothing is measured yet.
    fn empty(&self) -> Report {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        let refused = self.snapshot.refused().iter().map(|refused| Refused {
            file: refused.file.clone(),
            reasons: refused.reasons.clone(),
        });
        Report {
            version: VERSION,
            crank: env!("CARGO_PKG_VERSION").to_owned(),
            measured_at: since.map_or(0, |since| since.as_secs()),
            machine: report::Machine {
                cores: machine::cores(),
                cpu: cpu(),
                arch: std::env::consts::ARCH.to_owned(),
                os: std::env::consts::OS.to_owned(),
            },
            settings: Settings {
                directory: self.plan.dir.clone(),
                duration_ms: report::ms(self.plan.duration),
                rounds: ROUNDS,
                rate: self.plan.rate,
                capabilities: self.plan.capabilities.clone(),
            },
            capabilities: Vec::new(),
            skipped: Vec::new(),
            failed: Vec::new(),
            refused: refused.collect(),
        }
    }

    fn workers(&self) -> &[Arc<Worker>] {
        self.snapshot.workers()
    }

    /// What is measured; what has no input is noted as skipped.
    fn targets(&self, report: &mut Report) -> Result<Vec<Target>, String> {
        let named = self.plan.capabilities.iter().chain(self.plan.inputs.keys());
        let mut known: Vec<&str> = self
            .workers()
            .iter()
            .flat_map(|worker| worker.offered())
            .map(|offered| &*offered.id)
            .collect();
        known.sort_unstable();
        known.dedup();
        for name in named {
            if !known.contains(&name.as_str()) {
                return Err(unknown(name, &known, self.snapshot.refused().len()));
            }
        }
        let mut targets = Vec::new();
        for worker in self.workers() {
            for offered in worker.offered() {
                let id = offered.id.to_string();
                if !self.plan.capabilities.is_empty() && !self.plan.capabilities.contains(&id) {
                    continue;
                }
                let inputs = match self.plan.inputs.get(&id) {
                    Some(input) => vec![input.clone()],
                    None => target::examples(offered),
                };
                let target = Target {
                    worker: worker.clone(),
                    offered: offered.clone(),
                    inputs: inputs.into(),
                };
                if target.inputs.is_empty() {
                    let reason = format!(
                        "no example is declared; give an input: --input '{id}=JSON' or --input {id}=@FILE"
                    );
                    report.skipped.push(left(&target, reason));
                } else {
                    targets.push(target);
                }
            }
        }
        Ok(targets)
    }

    fn router(&self, target: &Target) -> Router {
        let registry: Registry = target.registry(&target.worker, self.workers());
        Router::watched(registry, warm::admission(self), Telemetry::default())
    }

    /// Calls everything once, so that what one example needs of another's is there.
    async fn acquaint(&self, targets: &[Target]) {
        for target in targets {
            let router = self.router(target);
            for at in 0..target.inputs.len() {
                // Whether it works is seen when it is measured.
                let _ = target.call(&router, at).await;
            }
        }
    }

    async fn measure(&self, target: &Target) -> Result<Measured, String> {
        let router = self.router(target);
        let alone = self.alone(target, &router).await?;
        let (rate, rate_from) = self.rate(target, &router, &alone).await;
        let warm = self.flow(target, &router, rate).await?;
        let uncompiled = self.uncompiled(target).await?;
        let cached = self.cached(target).await?;
        let none = || "no start was measured".to_owned();
        let capability = &target.offered.capability;
        let availability = warm.answered as f64 / warm.calls.max(1) as f64 * 100.0;
        let slo = capability.slo.unwrap_or_default();
        Ok(Measured {
            worker_id: target.worker.id().to_string(),
            capability: target.offered.id.to_string(),
            version: capability.version.to_string(),
            inputs: target.titles(),
            rate,
            rate_from,
            slo: slo::judge(&slo, &warm.latency, availability),
            temperatures: Temperatures {
                uncompiled: cold::summed(&uncompiled).ok_or_else(none)?,
                cached: cold::summed(&cached).ok_or_else(none)?,
                fresh: alone,
                gpu_first: cold::gpu_first(&cached),
            },
            calls: warm.calls,
            answered: warm.answered,
            failures: warm.failures,
            latency_ms: warm.latency,
            best_round_ms: warm.best,
            late_ms: warm.late,
            curve: warm.curve,
            cpu_ms_per_call: warm.cpu_ms,
            gpu_ms_per_call: warm.gpu_ms,
            memory_peak_bytes: warm.memory_peak,
            bare: warm.bare,
        })
    }
}

fn left(target: &Target, reason: String) -> Left {
    Left {
        worker_id: target.worker.id().to_string(),
        capability: target.offered.id.to_string(),
        reason,
    }
}

fn unknown(name: &str, known: &[&str], refused: usize) -> String {
    let known = match known {
        [] => "none".to_owned(),
        known => known.join(", "),
    };
    let refused = match refused {
        0 => String::new(),
        count => format!("; {count} of the files may not serve, `crank check` says why"),
    };
    format!("no worker offers `{name}`; there are: {known}{refused}")
}

/// The processor's name, as Linux tells it.
fn cpu() -> Option<String> {
    let about = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = about.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
