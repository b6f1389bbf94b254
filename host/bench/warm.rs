//! A host that serves: calls one after the other, then as they come.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use hdrhistogram::Histogram;

use super::arrivals::{self, Arrived, Random};
use super::report::{Bare, Latency, Percentiles, RateFrom, Sampled, ms};
use super::target::Target;
use super::{Lab, ROUNDS};
use crate::admission::Admission;
use crate::error::{Code, Failure};
use crate::router::{Answer, Router};

/// How often the engine alone is called before each round, and at which rate.
const PROBES: usize = 100;
const PROBE_RATE: f64 = 1000.0;
/// A derived rate is no higher: beyond it this process measures how it makes calls.
const MOST: f64 = 1000.0;
/// Of what calls sustain, one after the other or a few at once, the part that a derived rate asks for.
const PART: f64 = 0.5;
/// Callers at once.
const CROWD: usize = 4;
/// Calls one after the other: so many at least, and for so long at most.
const ALONE: usize = 3;
const ALONE_FOR: Duration = Duration::from_secs(1);
/// What a histogram tells apart: three digits, up to an hour.
const DIGITS: u8 = 3;
const HOUR_NS: u64 = 3_600_000_000_000;
/// Percentiles of the curve: each halves what is left of 100, four points to a half.
const POINTS: i32 = 60;

/// What was measured of calls as they come.
pub(super) struct Warm {
    pub calls: u64,
    pub answered: u64,
    pub failures: BTreeMap<String, u64>,
    pub latency: Latency,
    pub best: Percentiles,
    pub late: Percentiles,
    pub curve: Vec<(f64, f64)>,
    pub cpu_ms: f64,
    pub gpu_ms: Option<f64>,
    pub memory_peak: u64,
    pub bare: Bare,
}

/// What is gathered from round to round.
struct Tally {
    latency: Histogram<u64>,
    late: Histogram<u64>,
    best: Option<Percentiles>,
    calls: u64,
    answered: u64,
    failures: BTreeMap<String, u64>,
    cpu: Duration,
    gpu: Duration,
    memory_peak: u64,
    bare: Option<Bare>,
}

impl Lab {
    /// Calls one after the other.
    pub(super) async fn alone(&self, target: &Target, router: &Router) -> Result<Sampled, String> {
        let time = ALONE_FOR.min(self.plan.duration / 5);
        let began = Instant::now();
        let mut took = Vec::new();
        while took.len() < ALONE || began.elapsed() < time {
            let call = Instant::now();
            let answer = target.call(router, took.len()).await;
            answer.map_err(|failure| failure.to_string())?;
            took.push(call.elapsed());
        }
        Sampled::of(took).ok_or_else(|| "no call was made".to_owned())
    }

    /// Answers per second to a few callers at once, each with one call after the other: less than one alone
    /// gets, where calls stand in each other's way.
    async fn crowd(&self, target: &Target, router: &Router) -> f64 {
        let time = ALONE_FOR.min(self.plan.duration / 5);
        let began = Instant::now();
        let callers = (0..CROWD).map(|caller| {
            let (target, router) = (target.clone(), router.clone());
            tokio::spawn(async move {
                let (mut made, mut answered) = (0, 0usize);
                while made < ALONE || began.elapsed() < time {
                    answered += usize::from(target.call(&router, caller + made).await.is_ok());
                    made += 1;
                }
                answered
            })
        });
        let mut answered = 0;
        for caller in callers.collect::<Vec<_>>() {
            answered += caller.await.unwrap_or(0);
        }
        answered.max(1) as f64 / began.elapsed().as_secs_f64()
    }

    /// The rate of a target: the operator's, else that of the run it is compared with, else half of what calls
    /// sustain.
    pub(super) async fn rate(
        &self,
        target: &Target,
        router: &Router,
        alone: &Sampled,
    ) -> (f64, RateFrom) {
        let compared = self.plan.rates.get(&*target.offered.id).copied();
        match (self.plan.rate, compared) {
            (Some(rate), _) => (rate, RateFrom::Given),
            (None, Some(rate)) => (rate, RateFrom::Compared),
            (None, None) => {
                let sustained = 1e3 / alone.ms.max(1e-3);
                let sustained = sustained.min(self.crowd(target, router).await);
                ((sustained * PART).min(MOST), RateFrom::Derived)
            }
        }
    }

    /// Calls as they come, in rounds, with calls of the engine alone between them.
    pub(super) async fn flow(
        &self,
        target: &Target,
        router: &Router,
        rate: f64,
    ) -> Result<Warm, String> {
        let each = rate * self.plan.duration.as_secs_f64() / ROUNDS as f64;
        let calls = (each.round() as usize).max(1);
        let mut random = Random::new();
        let mut tally = Tally::new()?;
        for _ in 0..ROUNDS {
            self.probe(&mut random, &mut tally).await?;
            let due = arrivals::due(calls, rate, &mut random);
            let (target, router) = (target.clone(), router.clone());
            let call = move |at| target.call(&router, at);
            let arrived = arrivals::open_loop(due, call).await.map_err(thread)?;
            tally.round(calls, arrived)?;
        }
        tally.sum()
    }

    /// The engine alone, by the same way.
    async fn probe(&self, random: &mut Random, tally: &mut Tally) -> Result<(), String> {
        let due = arrivals::due(PROBES, PROBE_RATE, random);
        let bare = self.bare.clone();
        let call = move |_| {
            let bare = bare.clone();
            async move { bare.run().await }
        };
        let arrived = arrivals::open_loop(due, call).await.map_err(thread)?;
        let mut waits = histogram()?;
        let (mut sum, mut count) = (Duration::ZERO, 0u32);
        for Arrived { took, answer, .. } in arrived {
            let run = answer.map_err(|error| format!("the engine alone fails: {error:#}"))?;
            waits.saturating_record(nanos(took.saturating_sub(run)));
            sum += run;
            count += 1;
        }
        let run_ms = ms(sum / count.max(1));
        let wait_ms = percentiles(&waits);
        tally.bare = Some(tally.bare.map_or(Bare { run_ms, wait_ms }, |best| Bare {
            run_ms: best.run_ms.min(run_ms),
            wait_ms: least(best.wait_ms, wait_ms),
        }));
        Ok(())
    }
}

impl Tally {
    fn new() -> Result<Self, String> {
        Ok(Self {
            latency: histogram()?,
            late: histogram()?,
            best: None,
            calls: 0,
            answered: 0,
            failures: BTreeMap::new(),
            cpu: Duration::ZERO,
            gpu: Duration::ZERO,
            memory_peak: 0,
            bare: None,
        })
    }

    fn round(
        &mut self,
        calls: usize,
        arrived: Vec<Arrived<Result<Answer, Failure>>>,
    ) -> Result<(), String> {
        let mut round = histogram()?;
        self.calls += calls as u64;
        for Arrived { late, took, answer } in arrived {
            self.late.saturating_record(nanos(late));
            match answer {
                Ok(answer) => {
                    self.answered += 1;
                    self.cpu += answer.usage.cpu;
                    self.gpu += answer.usage.gpu;
                    self.memory_peak = self.memory_peak.max(answer.usage.memory_peak);
                }
                Err(failure) => {
                    let code = failure.code.as_str().to_owned();
                    *self.failures.entry(code).or_default() += 1;
                    // As in GET /slo: a worker that hangs must not look fast, one that refuses not either.
                    if failure.code != Code::Deadline {
                        continue;
                    }
                }
            }
            round.saturating_record(nanos(took));
        }
        let found = percentiles(&round);
        if !round.is_empty() {
            self.best = Some(self.best.map_or(found, |best| least(best, found)));
        }
        self.latency
            .add(round)
            .map_err(|error| format!("latencies do not add up: {error}"))
    }

    fn sum(self) -> Result<Warm, String> {
        let (Some(best), Some(bare)) = (self.best, self.bare) else {
            let codes: Vec<&str> = self.failures.keys().map(String::as_str).collect();
            return Err(format!("no call was answered: {}", codes.join(", ")));
        };
        let answered = u32::try_from(self.answered).unwrap_or(u32::MAX).max(1);
        let at = |percentile| value(&self.latency, percentile);
        Ok(Warm {
            calls: self.calls,
            answered: self.answered,
            failures: self.failures,
            best,
            bare,
            latency: Latency {
                p50: at(50.0),
                p95: at(95.0),
                p99: at(99.0),
                p99_9: at(99.9),
                max: self.latency.max() as f64 / 1e6,
                mean: self.latency.mean() / 1e6,
            },
            late: percentiles(&self.late),
            curve: curve(&self.latency),
            cpu_ms: ms(self.cpu / answered),
            gpu_ms: (self.gpu > Duration::ZERO).then(|| ms(self.gpu / answered)),
            memory_peak: self.memory_peak,
        })
    }
}

/// Latency by percentile, as far as there are calls to tell the points apart.
fn curve(latency: &Histogram<u64>) -> Vec<(f64, f64)> {
    let most = 100.0 - 100.0 / latency.len().max(1) as f64;
    let percentiles = (0..POINTS).map(|point| 100.0 - 100.0 / 2f64.powf(f64::from(point) / 4.0));
    let mut points: Vec<f64> = percentiles.take_while(|&at| at < most).collect();
    points.push(most);
    points
        .into_iter()
        .map(|at| (at, value(latency, at)))
        .collect()
}

fn histogram() -> Result<Histogram<u64>, String> {
    Histogram::new_with_bounds(1, HOUR_NS, DIGITS).map_err(|error| format!("no histogram: {error}"))
}

fn percentiles(of: &Histogram<u64>) -> Percentiles {
    Percentiles {
        p50: value(of, 50.0),
        p95: value(of, 95.0),
        p99: value(of, 99.0),
    }
}

/// The lesser of each.
fn least(a: Percentiles, b: Percentiles) -> Percentiles {
    Percentiles {
        p50: a.p50.min(b.p50),
        p95: a.p95.min(b.p95),
        p99: a.p99.min(b.p99),
    }
}

/// Milliseconds at a percentile; never more than the most that was recorded.
fn value(of: &Histogram<u64>, percentile: f64) -> f64 {
    of.value_at_percentile(percentile).min(of.max()) as f64 / 1e6
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

fn thread(error: std::io::Error) -> String {
    format!("no thread to make calls: {error}")
}

/// How the calls of a target share the host: as `crank serve` has it.
pub(super) fn admission(lab: &Lab) -> Admission {
    let budget = lab.engine.budget().clone();
    let limits = &lab.config.limits;
    let reserve = (limits.instances as usize).saturating_sub(limits.concurrency);
    Admission::new(limits.concurrency, move || budget.is_high()).with_reserve(reserve)
}
