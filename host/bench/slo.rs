//! Promises held against what was measured.

use super::report::{Latency, Verdict};
use crate::capability::Slo;

/// Every promise that is declared, with its verdict. `availability` is the part of the calls that was answered,
/// in percent.
pub(super) fn judge(slo: &Slo, latency: &Latency, availability: f64) -> Vec<Verdict> {
    let times = [
        ("latency_p50_ms", slo.latency_p50_ms, latency.p50),
        ("latency_p95_ms", slo.latency_p95_ms, latency.p95),
        ("latency_p99_ms", slo.latency_p99_ms, latency.p99),
    ];
    let times = times
        .into_iter()
        .filter_map(|(target, declared, measured)| {
            let declared = f64::from(declared?);
            // A promise of no time at all is missed by a great deal, and not by infinity, which JSON lacks.
            let left = (declared - measured) / declared.max(1e-3) * 100.0;
            Some(verdict(target, declared, measured, left))
        });
    let answered = [
        ("availability_pct", slo.availability_pct, availability),
        (
            "error_budget_pct",
            slo.error_budget_pct,
            100.0 - availability,
        ),
    ];
    let answered = answered
        .into_iter()
        .filter_map(|(target, declared, measured)| {
            let declared = declared?;
            let left = match target {
                "availability_pct" => measured - declared,
                _ => declared - measured,
            };
            Some(verdict(target, declared, measured, left))
        });
    times.chain(answered).collect()
}

fn verdict(target: &str, declared: f64, measured: f64, margin: f64) -> Verdict {
    Verdict {
        target: target.to_owned(),
        declared,
        measured,
        met: margin >= 0.0,
        margin,
    }
}
