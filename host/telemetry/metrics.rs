//! The text format of Prometheus: names after OpenTelemetry's conventions for functions (`faas.*`) where
//! those have one, `crank_` before the others.
//!
//! Labels are what the operator's workers declare, and words of this program: nothing that a caller
//! writes becomes one.

use std::sync::Arc;

use prometheus::TextEncoder;
use prometheus::proto::{
    Bucket, Counter, Gauge, Histogram as Encoded, LabelPair, Metric, MetricFamily, MetricType,
};

use super::Requests;
use super::blame::{Blame, End};
use super::histogram::Recorded;
use super::report::{budget, targets};
use super::series::Series;
use super::tally::{Phase, Temperature};
use crate::error::Code;
use crate::striped::Striped;

/// Bounds of the buckets of times: powers of two of microseconds, 128 us to 33 s. At those the host's own
/// buckets end too, so nothing is estimated.
const TIMES: std::ops::RangeInclusive<u32> = 7..=25;
/// Bounds of the buckets of memory: powers of two of KiB, 64 KiB to 4 GiB.
const MEMORIES: std::ops::RangeInclusive<u32> = 6..=22;

/// A label's name and value.
type Label<'a> = (&'static str, &'a str);

pub(super) fn exposition(
    series: &[Arc<Series>],
    requests: &Striped<Requests>,
) -> Result<String, prometheus::Error> {
    let mut families = vec![answered(requests)];
    families.extend(calls(series));
    families.extend(durations(series));
    families.extend(uses(series));
    families.extend(objectives(series));
    // A family without a sample is no family.
    families.retain(|family| !family.get_metric().is_empty());
    TextEncoder::new().encode_to_string(&families)
}

fn answered(requests: &Striped<Requests>) -> MetricFamily {
    let outcomes = std::iter::once("ok").chain(Code::ALL.map(Code::as_str));
    let order = std::iter::once(0).chain(Code::ALL.map(|code| 1 + code as usize));
    let counted = outcomes.zip(order).map(|(outcome, at)| {
        let count = requests.sum(|requests| &requests.0[at]);
        counter(&[("outcome", outcome)], count as f64)
    });
    family(
        "crank_requests_total",
        "HTTP requests by outcome: ok, or the failure code.",
        MetricType::COUNTER,
        counted.collect(),
    )
}

fn calls(series: &[Arc<Series>]) -> Vec<MetricFamily> {
    let (mut answers, mut errors, mut timeouts, mut cancelled, mut cold, mut tokens) = (
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
        Vec::new(),
    );
    for series in series {
        let (live, labels) = (series.live(), labels(series));
        let mut late = 0;
        for end in End::all() {
            let count = live.count(end);
            match end {
                End::Answered => answers.push(counter(&labels, count as f64)),
                End::Cancelled => cancelled.push(counter(&labels, count as f64)),
                End::Failed(code, blame) => {
                    if code == Code::Deadline {
                        late += count;
                    }
                    // Only what happened: 75 samples for each capability would be mostly zeros.
                    if count > 0 {
                        errors.push(failed(&labels, code, blame, count));
                    }
                }
            }
        }
        timeouts.push(counter(&labels, late as f64));
        cold.push(counter(&labels, live.cold_starts() as f64));
        tokens.push(counter(&labels, series.tokens()));
    }
    let counted = |name, help, metrics| family(name, help, MetricType::COUNTER, metrics);
    vec![
        counted("faas_invocations_total", "Successful invocations.", answers),
        counted(
            "faas_errors_total",
            "Invocations that failed, by failure code and by whose fault that was.",
            errors,
        ),
        counted(
            "faas_timeouts_total",
            "Invocations whose deadline passed.",
            timeouts,
        ),
        counted(
            "faas_coldstarts_total",
            "First invocations of code that was just loaded.",
            cold,
        ),
        counted(
            "crank_cancelled_total",
            "Invocations whose caller hung up.",
            cancelled,
        ),
        counted("crank_cost_tokens_total", "Cost tokens charged.", tokens),
    ]
}

fn failed(labels: &[Label<'_>; 3], code: Code, blame: Blame, count: u64) -> Metric {
    let [worker, capability, version] = *labels;
    let all = [
        worker,
        capability,
        version,
        ("code", code.as_str()),
        ("blame", blame.as_str()),
    ];
    counter(&all, count as f64)
}

fn durations(series: &[Arc<Series>]) -> Vec<MetricFamily> {
    let phases = [
        (
            Phase::Run,
            "faas_invoke_duration_seconds",
            "From the instance to its answer.",
        ),
        (
            Phase::Start,
            "faas_init_duration_seconds",
            "From an empty sandbox to an instance.",
        ),
        (
            Phase::Queue,
            "crank_queue_duration_seconds",
            "Waiting to be admitted.",
        ),
        (
            Phase::Total,
            "crank_call_duration_seconds",
            "From the choice of the worker to the checked answer.",
        ),
    ];
    let one = |(phase, name, help)| {
        let mut metrics = Vec::new();
        for series in series {
            let [worker, capability, version] = labels(series);
            for temperature in Temperature::ALL {
                let labels = [
                    worker,
                    capability,
                    version,
                    ("temperature", temperature.as_str()),
                ];
                let times = series.live().times(temperature, phase);
                metrics.extend(times.map(|times| histogram(&labels, &times, TIMES, 1e6)));
            }
        }
        family(name, help, MetricType::HISTOGRAM, metrics)
    };
    phases.map(one).into()
}

fn uses(series: &[Arc<Series>]) -> Vec<MetricFamily> {
    let (mut memories, mut cpus) = (Vec::new(), Vec::new());
    for series in series {
        if let Some([memory, cpu]) = series.live().uses() {
            memories.push(histogram(&labels(series), &memory, MEMORIES, 1.0 / 1024.0));
            cpus.push(histogram(&labels(series), &cpu, TIMES, 1e6));
        }
    }
    let of = |name, help, metrics| family(name, help, MetricType::HISTOGRAM, metrics);
    vec![
        of(
            "faas_mem_usage_bytes",
            "Highest use of memory of an invocation.",
            memories,
        ),
        of("faas_cpu_usage_seconds", "CPU time of an invocation.", cpus),
    ]
}

fn objectives(series: &[Arc<Series>]) -> Vec<MetricFamily> {
    let (mut kept, mut declared, mut measured, mut left, mut burn) =
        (Vec::new(), Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for series in series {
        let (terms, tallies) = (series.terms(), series.windows());
        let [worker, capability, version] = labels(series);
        for target in targets(&terms, &tallies) {
            let named = [worker, capability, version, ("target", target.target)];
            declared.push(gauge(&named, target.declared));
            for (window, verdict) in target.windows.each() {
                let [worker, capability, version, target] = named;
                let labels = [worker, capability, version, target, ("window", window)];
                let is_kept = verdict.kept.map(|kept| f64::from(u8::from(kept)));
                kept.extend(is_kept.map(|value| gauge(&labels, value)));
                measured.extend(verdict.measured.map(|value| gauge(&labels, value)));
            }
        }
        if let Some(budget) = budget(&terms, &tallies) {
            left.push(gauge(&[worker, capability, version], budget.left));
            for (window, rate) in budget.burn_rate.each() {
                let labels = [worker, capability, version, ("window", window)];
                burn.extend(rate.map(|rate| gauge(&labels, rate)));
            }
        }
    }
    let of = |name, help, metrics| family(name, help, MetricType::GAUGE, metrics);
    vec![
        of(
            "crank_slo_declared",
            "What the worker promises, in the unit of the target's name.",
            declared,
        ),
        of(
            "crank_slo_measured",
            "What was measured of it within a window, in the same unit.",
            measured,
        ),
        of(
            "crank_slo_kept",
            "1 where the promise was kept within a window, else 0.",
            kept,
        ),
        of(
            "crank_slo_error_budget_left_ratio",
            "What the last 24 hours left of the error budget: 1 is all, below 0 it is overspent.",
            left,
        ),
        of(
            "crank_slo_burn_rate",
            "How fast the error budget is spent: at 1 it lasts for its window.",
            burn,
        ),
    ]
}

fn labels(series: &Series) -> [Label<'_>; 3] {
    let key = series.key();
    [
        ("worker", &key.worker_id),
        ("capability", &key.capability),
        ("version", &key.version),
    ]
}

fn family(name: &str, help: &str, kind: MetricType, metrics: Vec<Metric>) -> MetricFamily {
    let mut family = MetricFamily::default();
    family.set_name(name.to_owned());
    family.set_help(help.to_owned());
    family.set_field_type(kind);
    family.set_metric(metrics);
    family
}

fn metric(labels: &[Label<'_>]) -> Metric {
    let pair = |(name, value): &Label<'_>| {
        let mut pair = LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    Metric::from_label(labels.iter().map(pair).collect())
}

fn counter(labels: &[Label<'_>], value: f64) -> Metric {
    let (mut metric, mut counter) = (metric(labels), Counter::default());
    counter.set_value(value);
    metric.set_counter(counter);
    metric
}

fn gauge(labels: &[Label<'_>], value: f64) -> Metric {
    let (mut metric, mut gauge) = (metric(labels), Gauge::default());
    gauge.set_value(value);
    metric.set_gauge(gauge);
    metric
}

/// Buckets that end at powers of two. What is recorded is so many (`per`) to what is shown.
fn histogram(
    labels: &[Label<'_>],
    recorded: &Recorded,
    exponents: std::ops::RangeInclusive<u32>,
    per: f64,
) -> Metric {
    let counts = &recorded.counts;
    let bucket = |exponent: u32| {
        let (mut bucket, bound) = (Bucket::default(), 1_u64 << exponent);
        bucket.set_upper_bound(bound as f64 / per);
        bucket.set_cumulative_count(counts.below(bound));
        bucket
    };
    let (mut metric, mut encoded) = (metric(labels), Encoded::default());
    encoded.set_bucket(exponents.map(bucket).collect());
    encoded.set_sample_count(counts.total());
    encoded.set_sample_sum(recorded.sum as f64 / per);
    metric.set_histogram(encoded);
    metric
}
