//! The report for a terminal.

use std::fmt::Write;

use super::report::{Measured, Report, Verdict};

/// Two tables, calls and starts, and what was not measured.
pub fn table(report: &Report) -> String {
    let mut text = String::new();
    if !report.capabilities.is_empty() {
        let heads = [
            "capability",
            "calls/s",
            "calls",
            "p50",
            "p95",
            "p99",
            "p99.9",
            "CPU",
            "memory",
            "SLO",
        ];
        let rows = report.capabilities.iter().map(calls);
        text.push_str(&aligned(&heads, rows.collect()));
        text.push('\n');
        let heads = ["capability", "uncompiled", "cached", "fresh", "gpu-first"];
        let rows = report.capabilities.iter().map(starts);
        text.push_str(&aligned(&heads, rows.collect()));
        text.push_str(
            "\nTimes in ms; calls come at random at the rate, each counts from when it was due.\n",
        );
    }
    // Writing to a String does not fail.
    for left in &report.failed {
        let _ = writeln!(text, "failed   {}: {}", left.capability, left.reason);
    }
    for left in &report.skipped {
        let _ = writeln!(text, "skipped  {}: {}", left.capability, left.reason);
    }
    for refused in &report.refused {
        let reasons = refused.reasons.join("; ");
        let _ = writeln!(text, "refused  {}: {reasons}", refused.file.display());
    }
    text
}

fn calls(of: &Measured) -> Vec<String> {
    let latency = &of.latency_ms;
    vec![
        of.capability.clone(),
        digits(of.rate),
        of.calls.to_string(),
        digits(latency.p50),
        digits(latency.p95),
        digits(latency.p99),
        digits(latency.p99_9),
        digits(of.cpu_ms_per_call),
        format!("{} KiB", of.memory_peak_bytes >> 10),
        verdict(&of.slo),
    ]
}

fn starts(of: &Measured) -> Vec<String> {
    let temperatures = &of.temperatures;
    let gpu = temperatures.gpu_first.as_ref();
    vec![
        of.capability.clone(),
        digits(temperatures.uncompiled.total.ms),
        digits(temperatures.cached.total.ms),
        digits(temperatures.fresh.ms),
        gpu.map_or_else(|| "-".to_owned(), |first| digits(first.ms)),
    ]
}

/// The promises in a word: what is missed, or how close the closest is.
pub(super) fn verdict(slo: &[Verdict]) -> String {
    let missed: Vec<&str> = slo
        .iter()
        .filter(|verdict| !verdict.met)
        .map(|verdict| verdict.target.as_str())
        .collect();
    let times = slo.iter().filter(|verdict| verdict.target.ends_with("_ms"));
    let least = times.map(|verdict| verdict.margin).reduce(f64::min);
    match (missed.is_empty(), least) {
        (false, _) => format!("missed: {}", missed.join(", ")),
        (true, Some(margin)) => format!("met, {margin:.0} % to spare"),
        (true, None) if slo.is_empty() => "none declared".to_owned(),
        (true, None) => "met".to_owned(),
    }
}

/// Three digits that count.
pub(super) fn digits(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

/// Columns of equal width: texts to the left, numbers to the right.
fn aligned(heads: &[&str], rows: Vec<Vec<String>>) -> String {
    let heads = heads.iter().map(|head| (*head).to_owned()).collect();
    let lines: Vec<Vec<String>> = std::iter::once(heads).chain(rows).collect();
    let columns = lines.first().map_or(0, Vec::len);
    let width = |column: usize| {
        let cells = lines.iter().filter_map(|line| line.get(column));
        cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = String::new();
    for line in &lines {
        let cells = line.iter().zip(&widths).enumerate();
        let cells = cells.map(|(at, (cell, &width))| match at {
            0 => format!("{cell:<width$}"),
            // The last is a text where there are so many.
            at if at + 1 == columns && columns > 5 => cell.clone(),
            _ => format!("{cell:>width$}"),
        });
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}
