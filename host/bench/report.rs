//! What a run measured: the form that `--json` writes and `--compare` reads (docs/bench.md).

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// The version of the form. A field may be added under the same one; none changes its meaning.
pub const VERSION: u32 = 1;

/// A whole run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Report {
    /// [`VERSION`].
    pub version: u32,
    /// The version of this program.
    pub crank: String,
    /// Seconds since 1970, UTC.
    pub measured_at: u64,
    /// Where it ran.
    pub machine: Machine,
    /// What it was told.
    pub settings: Settings,
    /// What was measured, ordered by worker and capability.
    pub capabilities: Vec<Measured>,
    /// Capabilities that were not measured, since nobody gave an input.
    pub skipped: Vec<Left>,
    /// Capabilities whose input is not answered.
    pub failed: Vec<Left>,
    /// Files that may not serve.
    pub refused: Vec<Refused>,
}

/// The machine of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Machine {
    /// Cores that the process may use.
    pub cores: usize,
    /// The processor's name, where the kernel tells.
    pub cpu: Option<String>,
    /// `x86_64`.
    pub arch: String,
    /// `linux`.
    pub os: String,
}

/// The settings of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Settings {
    /// The directory of components.
    pub directory: PathBuf,
    /// Of the open-loop calls of each capability.
    pub duration_ms: f64,
    /// Parts in which they come.
    pub rounds: usize,
    /// Calls per second, where the operator said so.
    pub rate: Option<f64>,
    /// The capabilities that were asked for; none: all.
    pub capabilities: Vec<String>,
}

/// What was measured of one capability of one worker. Times are milliseconds.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measured {
    /// Who offers it.
    pub worker_id: String,
    /// `verb:name`.
    pub capability: String,
    /// Semantic version.
    pub version: String,
    /// What was sent, in turn: titles of examples, or where the input came from.
    pub inputs: Vec<String>,
    /// Calls per second.
    pub rate: f64,
    /// Who chose the rate.
    pub rate_from: RateFrom,
    /// Calls that were made.
    pub calls: u64,
    /// Calls that were answered.
    pub answered: u64,
    /// The others, by failure code.
    pub failures: BTreeMap<String, u64>,
    /// The first answer after each kind of start.
    pub temperatures: Temperatures,
    /// From when a call was due to its answer, over all rounds.
    pub latency_ms: Latency,
    /// The best round's percentiles: what `--compare` looks at.
    pub best_round_ms: Percentiles,
    /// How much later than due the calls were made; part of the latency.
    pub late_ms: Percentiles,
    /// Percentile and latency, for plots.
    pub curve: Vec<(f64, f64)>,
    /// Mean time spent running.
    pub cpu_ms_per_call: f64,
    /// Mean GPU time, where one was used.
    pub gpu_ms_per_call: Option<f64>,
    /// The most that one call had in memories and tables.
    pub memory_peak_bytes: u64,
    /// The engine alone, measured between the rounds.
    pub bare: Bare,
    /// The promises that the worker declares, held against this.
    pub slo: Vec<Verdict>,
}

/// Who chose a rate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RateFrom {
    /// The operator.
    Given,
    /// The run that this one is compared with.
    Compared,
    /// Half of what calls one after the other came to, or four at once where that is less, within a ceiling.
    Derived,
}

/// The four temperatures.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Temperatures {
    /// On a host that has never seen the component.
    pub uncompiled: Start,
    /// On a host that is started again.
    pub cached: Start,
    /// A new sandbox of a worker that is loaded: calls one after the other.
    pub fresh: Sampled,
    /// The first call of a loaded worker that uses a GPU.
    pub gpu_first: Option<Sampled>,
}

/// Times of several samples: their median, least and most.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Sampled {
    /// How many.
    pub samples: usize,
    /// The median.
    pub ms: f64,
    /// The least.
    pub least_ms: f64,
    /// The most.
    pub most_ms: f64,
}

/// From the start of an engine to the first answer, and the medians of its parts.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Start {
    /// All of it.
    #[serde(flatten)]
    pub total: Sampled,
    /// The engine's start.
    pub engine_ms: f64,
    /// Reading the component, compiling it or taking its code from the cache, and checking it.
    pub load_ms: f64,
    /// The first call.
    pub call_ms: f64,
}

/// A distribution of latencies.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Latency {
    /// Half of the calls took no longer.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
    /// 99.9 %.
    pub p99_9: f64,
    /// The longest.
    pub max: f64,
    /// The mean.
    pub mean: f64,
}

/// Percentiles that promises are made of.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Percentiles {
    /// Half of the calls took no longer.
    pub p50: f64,
    /// 95 %.
    pub p95: f64,
    /// 99 %.
    pub p99: f64,
}

/// What the machine made of the engine alone: an instance and a loop, called like a worker.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct Bare {
    /// The mean time of one run, in the best round.
    pub run_ms: f64,
    /// What its latency was beyond that, in the best round.
    pub wait_ms: Percentiles,
}

/// A promise beside what was measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Verdict {
    /// The declared field: `latency_p95_ms`.
    pub target: String,
    /// What was promised.
    pub declared: f64,
    /// What was measured.
    pub measured: f64,
    /// Whether the promise is kept.
    pub met: bool,
    /// What is left: percent of a declared time, points of a declared availability. Below zero where it
    /// is missed.
    pub margin: f64,
}

/// A capability that was not measured.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Left {
    /// Who offers it.
    pub worker_id: String,
    /// `verb:name`.
    pub capability: String,
    /// Why, and what would help.
    pub reason: String,
}

/// A file that may not serve.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Refused {
    /// The component.
    pub file: PathBuf,
    /// Each a line that names its fix where there is one.
    pub reasons: Vec<String>,
}

impl Report {
    /// Why the run falls short, a line each: promises missed, inputs that are not answered, nothing
    /// measured at all.
    pub fn shortfalls(&self) -> Vec<String> {
        let missed = self.capabilities.iter().flat_map(|measured| {
            let missed = measured.slo.iter().filter(|verdict| !verdict.met);
            missed.map(|verdict| {
                let Verdict {
                    target,
                    declared,
                    measured: found,
                    ..
                } = verdict;
                format!(
                    "{}: {target} is missed: {found:.2}, and {declared} is declared",
                    measured.capability
                )
            })
        });
        let failed = self
            .failed
            .iter()
            .map(|left| format!("{}: {}", left.capability, left.reason));
        let mut lines: Vec<String> = missed.chain(failed).collect();
        if self.capabilities.is_empty() && lines.is_empty() {
            lines.push(
                "nothing was measured: no capability has an example; give one with --input".into(),
            );
        }
        lines
    }
}

impl Sampled {
    /// What samples come to; `None` of none.
    pub fn of(mut samples: Vec<Duration>) -> Option<Self> {
        samples.sort_unstable();
        Some(Self {
            samples: samples.len(),
            ms: ms(*samples.get(samples.len() / 2)?),
            least_ms: ms(*samples.first()?),
            most_ms: ms(*samples.last()?),
        })
    }
}

/// Milliseconds, to the nanosecond.
pub(super) fn ms(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1e6
}
