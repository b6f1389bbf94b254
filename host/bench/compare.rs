//! A run held against an earlier one, on a machine that is never as idle as it was.
//!
//! Four things keep noise from looking like a regression. The best round counts on both sides: what
//! else runs makes single rounds slow, a program that became slower makes all of them so. What is allowed grows as
//! the engine alone became slower, and by what it had to wait longer; it never shrinks, since a baseline from a
//! busy machine is no promise for an idle one. Where the engine alone had to wait much longer, somebody else has
//! the cores: then latencies, and starts, which compile at a low priority, tell of him and are not judged; the fastest
//! fresh call, CPU time and memory are. And what lies within a clock's own error is no difference.

use super::report::{Measured, Percentiles, Report};

/// Differences below these are none, in milliseconds and KiB.
const CALL_MS: f64 = 0.05;
const CPU_MS: f64 = 0.05;
const START_MS: f64 = 2.0;
const MEMORY_KIB: f64 = 64.0;
/// A machine is busier if the engine alone waited so many times as long at its 99th percentile, and so many
/// milliseconds more.
const BUSIER: f64 = 2.0;
const BUSIER_MS: f64 = 0.2;

/// What a comparison found.
#[derive(Clone, Debug)]
pub struct Comparison {
    /// Figures that are worse than they may be.
    pub regressions: Vec<Regression>,
    /// What the earlier run measured and this one should have, and has not.
    pub missing: Vec<String>,
    /// Capabilities that both runs measured.
    pub compared: usize,
    /// What makes the comparison less than it could be.
    pub notes: Vec<String>,
}

/// A figure that is worse than it may be.
#[derive(Clone, Debug)]
pub struct Regression {
    /// `verb:name`.
    pub capability: String,
    /// What: `p95 of the best round`.
    pub figure: &'static str,
    /// `ms` or `KiB`.
    pub unit: &'static str,
    /// What it was.
    pub old: f64,
    /// What it might be, tolerance and machine considered.
    pub allowed: f64,
    /// What it is.
    pub new: f64,
}

/// One figure of two runs.
struct Figure {
    name: &'static str,
    unit: &'static str,
    old: f64,
    new: f64,
    /// What the machine alone may have made of `old`.
    expected: f64,
    /// Whether it tells of the program on a machine that others use, too.
    steady: bool,
    least: f64,
}

/// Holds a run against an earlier one; `tolerance` in percent.
pub fn compare(old: &Report, new: &Report, tolerance: f64) -> Comparison {
    let mut comparison = Comparison {
        regressions: Vec::new(),
        missing: Vec::new(),
        compared: 0,
        notes: Vec::new(),
    };
    if (&old.machine.cpu, old.machine.cores) != (&new.machine.cpu, new.machine.cores) {
        comparison.notes.push(
            "the two runs are of different machines: only great differences mean something".into(),
        );
    }
    for before in &old.capabilities {
        let same = |now: &&Measured| {
            (&now.worker_id, &now.capability) == (&before.worker_id, &before.capability)
        };
        let Some(now) = new.capabilities.iter().find(same) else {
            let chosen = &new.settings.capabilities;
            if chosen.is_empty() || chosen.contains(&before.capability) {
                let missing = format!("{} of {}", before.capability, before.worker_id);
                comparison.missing.push(missing);
            }
            continue;
        };
        comparison.compared += 1;
        if before.inputs != now.inputs {
            let note = format!("{}: the inputs are others", now.capability);
            comparison.notes.push(note);
        }
        let busier = is_busier(before, now);
        if busier {
            comparison.notes.push(format!(
                "{}: the machine was busier than in the earlier run: its latencies and starts are not judged, its fastest fresh call, CPU time and memory are",
                now.capability
            ));
        }
        let figures = figures(before, now).into_iter();
        let judged = figures.filter(|figure| figure.steady || !busier);
        let worse = judged.filter_map(|figure| {
            let allowed =
                (figure.expected * (1.0 + tolerance / 100.0)).max(figure.old + figure.least);
            (figure.new > allowed).then(|| Regression {
                capability: now.capability.clone(),
                figure: figure.name,
                unit: figure.unit,
                old: figure.old,
                allowed,
                new: figure.new,
            })
        });
        comparison.regressions.extend(worse);
    }
    comparison
}

/// Whether somebody else has more of the cores than before.
fn is_busier(old: &Measured, new: &Measured) -> bool {
    let (old, new) = (old.bare.wait_ms.p99, new.bare.wait_ms.p99);
    new > old * BUSIER && new > old + BUSIER_MS
}

fn figures(old: &Measured, new: &Measured) -> Vec<Figure> {
    // How much slower the same instructions are, and how much longer whoever is due waits for a core.
    let slower = (new.bare.run_ms / old.bare.run_ms.max(1e-6)).max(1.0);
    let waits = |pick: fn(&Percentiles) -> f64| {
        (pick(&new.bare.wait_ms) - pick(&old.bare.wait_ms)).max(0.0)
    };
    let call = |name, pick: fn(&Percentiles) -> f64, steady| {
        let was = pick(&old.best_round_ms);
        Figure {
            name,
            unit: "ms",
            old: was,
            new: pick(&new.best_round_ms),
            expected: was * slower + waits(pick),
            steady,
            least: CALL_MS,
        }
    };
    let time = |name, old: f64, new: f64, least, steady| Figure {
        name,
        unit: "ms",
        old,
        new,
        expected: old * slower,
        steady,
        least,
    };
    let (before, now) = (&old.temperatures, &new.temperatures);
    let kib = |bytes: u64| bytes as f64 / 1024.0;
    vec![
        call("p50 of the best round", |of| of.p50, false),
        call("p95 of the best round", |of| of.p95, false),
        call("p99 of the best round", |of| of.p99, false),
        time(
            "uncompiled, the least",
            before.uncompiled.total.least_ms,
            now.uncompiled.total.least_ms,
            START_MS,
            false,
        ),
        time(
            "cached, the least",
            before.cached.total.least_ms,
            now.cached.total.least_ms,
            START_MS,
            false,
        ),
        time(
            "fresh, the least",
            before.fresh.least_ms,
            now.fresh.least_ms,
            CALL_MS,
            true,
        ),
        time(
            "CPU per call",
            old.cpu_ms_per_call,
            new.cpu_ms_per_call,
            CPU_MS,
            true,
        ),
        Figure {
            name: "memory peak",
            unit: "KiB",
            old: kib(old.memory_peak_bytes),
            new: kib(new.memory_peak_bytes),
            expected: kib(old.memory_peak_bytes),
            steady: true,
            least: MEMORY_KIB,
        },
    ]
}

impl Comparison {
    /// Why the new run is worse, a line each.
    pub fn shortfalls(&self) -> Vec<String> {
        let worse = self.regressions.iter().map(|worse| {
            let Regression {
                capability,
                figure,
                unit,
                old,
                allowed,
                new,
            } = worse;
            format!(
                "{capability}: {figure} was {old:.3} {unit} and is {new:.3}; up to {allowed:.3} would pass"
            )
        });
        let missing = self
            .missing
            .iter()
            .map(|what| format!("{what} was measured earlier and is not now"));
        worse.chain(missing).collect()
    }
}
