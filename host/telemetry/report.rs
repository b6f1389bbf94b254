//! Whether promises were kept: what was declared beside what was measured, in each window.

use std::collections::BTreeMap;

use serde::Serialize;

use super::blame::{Blame, End};
use super::costs::{Accounts, Spent};
use super::series::{Series, Terms};
use super::tally::{Phase, Tally, Temperature, Window};

/// One capability of one worker: its promises, and what became of its calls.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    worker_id: String,
    capability: String,
    version: String,
    targets: Vec<Target>,
    error_budget: Option<Budget>,
    windows: Windows<Figures>,
}

/// Whether the promises of a capability were kept within the last 24 hours.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Kept {
    /// Names of the targets that were missed.
    missed: Vec<&'static str>,
    error_budget_left: Option<f64>,
    /// Calls that count: answered, or failed by the worker's fault.
    samples: u64,
}

/// One promise.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Target {
    pub target: &'static str,
    pub declared: f64,
    pub windows: Windows<Verdict>,
}

/// What was measured, in the unit of the target, and whether that keeps it. Nothing without samples.
#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Verdict {
    pub measured: Option<f64>,
    pub kept: Option<bool>,
    pub samples: u64,
}

/// What may fail, and how much of that has.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Budget {
    pub allowed_pct: f64,
    /// Of the last 24 hours.
    pub left: f64,
    pub burn_rate: Windows<Option<f64>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
pub(super) struct Windows<T> {
    #[serde(rename = "5m")]
    pub five_minutes: T,
    #[serde(rename = "1h")]
    pub hour: T,
    #[serde(rename = "24h")]
    pub day: T,
}

#[derive(Clone, Debug, Serialize)]
struct Figures {
    calls: u64,
    answered: u64,
    failed: Failed,
    cancelled: u64,
    availability_pct: Option<f64>,
    served_pct: Option<f64>,
    /// Failures by code.
    codes: BTreeMap<String, u64>,
    latency_ms: BTreeMap<&'static str, BTreeMap<&'static str, Latency>>,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Failed {
    worker: u64,
    host: u64,
    caller: u64,
}

#[derive(Clone, Copy, Debug, Serialize)]
struct Latency {
    p50: Option<f64>,
    p95: Option<f64>,
    p99: Option<f64>,
    samples: u64,
}

/// What tenants spent.
#[derive(Clone, Debug, Serialize)]
pub struct Costs {
    tenants: Vec<Tenant>,
}

#[derive(Clone, Debug, Serialize)]
struct Tenant {
    tenant: String,
    calls: u64,
    tokens: f64,
    capabilities: Vec<Position>,
}

#[derive(Clone, Debug, Serialize)]
struct Position {
    capability: String,
    calls: u64,
    tokens: f64,
}

impl<T> Windows<T> {
    fn of(each: [T; 3]) -> Self {
        let [five_minutes, hour, day] = each;
        Self {
            five_minutes,
            hour,
            day,
        }
    }

    /// With the names of the windows.
    pub fn each(&self) -> [(&'static str, &T); 3] {
        let [short, hour, day] = Window::ALL.map(Window::as_str);
        [
            (short, &self.five_minutes),
            (hour, &self.hour),
            (day, &self.day),
        ]
    }
}

impl Series {
    /// Everything that is known of the capability.
    pub fn report(&self) -> Report {
        let (terms, tallies) = (self.terms(), self.windows());
        let key = self.key();
        Report {
            worker_id: key.worker_id.to_string(),
            capability: key.capability.to_string(),
            version: key.version.to_string(),
            targets: targets(&terms, &tallies),
            error_budget: budget(&terms, &tallies),
            windows: Windows::of(tallies.map(|tally| Figures::of(&tally))),
        }
    }

    /// Whether its promises were kept. `None` where it makes none.
    pub fn kept(&self) -> Option<Kept> {
        let (terms, tallies) = (self.terms(), self.windows());
        let targets = targets(&terms, &tallies);
        let missed = |target: &&Target| target.windows.day.kept == Some(false);
        let [_, _, day] = &tallies;
        (!targets.is_empty()).then(|| Kept {
            missed: targets
                .iter()
                .filter(missed)
                .map(|target| target.target)
                .collect(),
            error_budget_left: terms.budget_left(&day.outcomes()),
            samples: day.outcomes().calls(),
        })
    }
}

pub(super) fn targets(terms: &Terms, tallies: &[Tally; 3]) -> Vec<Target> {
    let slo = &terms.slo;
    let latencies = [
        ("latency_p50_ms", slo.latency_p50_ms, 0.50),
        ("latency_p95_ms", slo.latency_p95_ms, 0.95),
        ("latency_p99_ms", slo.latency_p99_ms, 0.99),
    ];
    let latencies = latencies.into_iter().filter_map(|(target, declared, q)| {
        let declared = f64::from(declared?);
        let verdict = |tally: &Tally| {
            let times = tally.total_times();
            let measured = times.quantile(q).map(|micros| round(micros / 1e3));
            Verdict {
                measured,
                kept: measured.map(|measured| measured <= declared),
                samples: times.total(),
            }
        };
        Some(Target {
            target,
            declared,
            windows: Windows::of(tallies.each_ref().map(verdict)),
        })
    });
    let shares = [
        ("availability_pct", slo.availability_pct, true),
        ("error_budget_pct", slo.error_budget_pct, false),
    ];
    let shares = shares.into_iter().filter_map(|(target, declared, good)| {
        let declared = declared?;
        let verdict = |tally: &Tally| {
            let outcomes = tally.outcomes();
            let failed = outcomes.error_rate().map(|rate| rate * 100.0);
            let kept = |failed| match good {
                true => 100.0 - failed >= declared,
                false => failed <= declared,
            };
            Verdict {
                measured: failed.map(|failed| if good { 100.0 - failed } else { failed }),
                kept: failed.map(kept),
                samples: outcomes.calls(),
            }
        };
        Some(Target {
            target,
            declared,
            windows: Windows::of(tallies.each_ref().map(verdict)),
        })
    });
    latencies.chain(shares).collect()
}

pub(super) fn budget(terms: &Terms, tallies: &[Tally; 3]) -> Option<Budget> {
    let outcomes = tallies.each_ref().map(Tally::outcomes);
    let [_, _, day] = &outcomes;
    Some(Budget {
        allowed_pct: terms.allowed()? * 100.0,
        left: terms.budget_left(day)?,
        burn_rate: Windows::of(outcomes.map(|outcomes| terms.burn_rate(&outcomes))),
    })
}

impl Figures {
    fn of(tally: &Tally) -> Self {
        let outcomes = tally.outcomes();
        let failed = Failed {
            worker: outcomes.failed,
            host: tally.failed(Blame::Host),
            caller: tally.failed(Blame::Caller),
        };
        // What callers saw, whoever is to blame but they themselves.
        let wanted = outcomes.calls() + failed.host;
        let mut codes = BTreeMap::new();
        for end in End::all() {
            if let (End::Failed(code, _), count @ 1..) = (end, tally.count(end)) {
                *codes.entry(code.to_string()).or_default() += count;
            }
        }
        let phases = |temperature| {
            let one = |phase: Phase| (phase.as_str(), Latency::of(tally, temperature, phase));
            Phase::ALL
                .map(one)
                .into_iter()
                .filter(|(_, latency)| latency.samples > 0)
        };
        let temperatures = Temperature::ALL
            .map(|temperature| (temperature.as_str(), phases(temperature).collect()));
        Self {
            calls: tally.calls(),
            answered: outcomes.answered,
            failed,
            cancelled: tally.count(End::Cancelled),
            availability_pct: outcomes.error_rate().map(|rate| 100.0 * (1.0 - rate)),
            served_pct: (wanted > 0).then(|| 100.0 * outcomes.answered as f64 / wanted as f64),
            codes,
            latency_ms: BTreeMap::from(temperatures),
        }
    }
}

impl Latency {
    fn of(tally: &Tally, temperature: Temperature, phase: Phase) -> Self {
        let times = tally.times(temperature, phase);
        let at = |q| times.quantile(q).map(|micros| round(micros / 1e3));
        Self {
            p50: at(0.50),
            p95: at(0.95),
            p99: at(0.99),
            samples: times.total(),
        }
    }
}

impl Costs {
    pub(super) fn of(accounts: Accounts) -> Self {
        let tenants = accounts.into_iter().map(|(tenant, accounts)| Tenant {
            tenant,
            calls: accounts.values().map(|spent| spent.calls).sum(),
            tokens: whole_micros(accounts.values().map(|spent| spent.tokens).sum()),
            capabilities: accounts
                .into_iter()
                .map(|(capability, Spent { calls, tokens })| Position {
                    capability,
                    calls,
                    tokens,
                })
                .collect(),
        });
        Self {
            tenants: tenants.collect(),
        }
    }
}

/// Milliseconds to the microsecond: what lies beyond is not known.
fn round(ms: f64) -> f64 {
    (ms * 1e3).round() / 1e3
}

/// A sum without what adding binary fractions leaves beyond the millionths.
fn whole_micros(tokens: f64) -> f64 {
    (tokens * 1e6).round() / 1e6
}
