//! What became of calls: latencies, failures and whose fault they were, service level objectives and
//! what they leave of their error budgets, who spent how many tokens.
//!
//! Each capability of each worker has a `Series`, which outlives the worker's code and, where a file is
//! given, the host. The way of a call takes no lock here. Workers, registries and protocols must not
//! enter this room; it decides nothing.

mod audit;
mod blame;
mod clock;
mod costs;
mod histogram;
mod kept;
mod metrics;
mod report;
mod series;
mod tally;
mod traces;

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;
use tokio::time::MissedTickBehavior;

use crate::error::Code;
use crate::limits::Usage;
use crate::striped::Striped;

pub use audit::layer as audit_layer;
pub use blame::{Blame, End};
pub use report::{Costs, Kept as KeptInShort, Report};
pub use series::{Key, Series, Terms};
pub use tally::Temperature;

use blame::Course;
use clock::Clock;
use costs::{ANONYMOUS, Ledger};
use kept::File;
use traces::{Traced, Traces};

/// How often figures are brought up to date while nobody calls.
const REFRESH: Duration = Duration::from_secs(1);
/// How often they are kept, in turns of the above.
const TURNS: u32 = 30;

/// What is known of all calls of a host. A clone is another handle to the same.
#[derive(Clone, Debug, Default)]
pub struct Telemetry {
    shared: Arc<Shared>,
    traces: Option<Arc<Traces>>,
}

#[derive(Debug, Default)]
struct Shared {
    clock: Clock,
    series: Mutex<BTreeMap<Key, Entry>>,
    ledger: Ledger,
    /// Requests by how they were answered: first those that did not fail, then by code.
    requests: Striped<Requests>,
    file: Option<File>,
}

#[derive(Debug)]
struct Entry {
    series: Arc<Series>,
    /// Whether somebody asked for it in this process, and did not only leave it in the file.
    used: bool,
}

#[derive(Debug)]
struct Requests([AtomicU64; 1 + Code::ALL.len()]);

/// Who asks for a call.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// The request's id.
    pub request_id: &'a str,
    /// SPIFFE id of who pays for it, where that is known.
    pub tenant: Option<&'a str>,
    /// The span that it belongs to (W3C Trace Context).
    pub traceparent: Option<&'a str>,
    /// Whether a worker makes it.
    pub nested: bool,
}

/// One call that is under way. Dropped before its end it counts as one whose caller hung up.
#[derive(Debug)]
pub struct Recording<'a> {
    telemetry: &'a Telemetry,
    series: &'a Series,
    span: Option<Traced>,
    tenant: Option<String>,
    began: Instant,
    given: Duration,
    start: Option<Start>,
    usage: Option<Usage>,
    ended: bool,
}

#[derive(Clone, Copy, Debug)]
struct Start {
    temperature: Temperature,
    queue: Duration,
    after: Duration,
}

impl Default for Requests {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

impl Telemetry {
    /// What a file in this directory has kept, and what will be kept there. A file that cannot be read
    /// is set aside, and the log says so.
    pub fn kept_in(dir: &Path) -> Self {
        let clock = Clock::default();
        let (file, series, ledger) = kept::open(dir, clock);
        let series = series.into_iter().map(|series| {
            let entry = Entry {
                series: Arc::new(series),
                used: false,
            };
            (entry.series.key().clone(), entry)
        });
        Self {
            shared: Arc::new(Shared {
                clock,
                series: Mutex::new(series.collect()),
                ledger,
                requests: Striped::default(),
                file,
            }),
            traces: None,
        }
    }

    /// The same, with a span for each call that goes to an OTLP collector, `http://localhost:4318`. It is
    /// sent on the runtime that this is called on.
    ///
    /// # Errors
    ///
    /// The exporter's, for people.
    pub fn traced(self, endpoint: &str) -> Result<Self, String> {
        Ok(Self {
            traces: Some(Arc::new(Traces::to(endpoint)?)),
            ..self
        })
    }

    /// The series of a capability, which goes on where it stood if it is known already.
    pub fn series(&self, key: Key, terms: Terms) -> Arc<Series> {
        let mut all = self.all();
        let entry = all.entry(key).or_insert_with_key(|key| Entry {
            series: Arc::new(Series::new(
                key.clone(),
                self.shared.clock,
                Default::default(),
            )),
            used: true,
        });
        entry.used = true;
        entry.series.offer(terms);
        entry.series.clone()
    }

    /// Begins to record a call.
    pub fn record<'a>(&'a self, series: &'a Series, asked: &Asked<'_>) -> Recording<'a> {
        let begin = |traces: &Arc<Traces>| {
            traces.begin(
                series.key(),
                asked.request_id,
                asked.nested,
                asked.traceparent,
            )
        };
        Recording {
            telemetry: self,
            series,
            span: self.traces.as_ref().map(begin),
            tenant: asked.tenant.map(str::to_owned),
            began: Instant::now(),
            given: Duration::MAX,
            start: None,
            usage: None,
            ended: false,
        }
    }

    /// Counts a request of any kind by how it was answered: `None` where it did not fail.
    pub fn count_request(&self, code: Option<Code>) {
        let at = code.map_or(0, |code| 1 + code as usize);
        self.shared.requests.mine().0[at].fetch_add(1, Relaxed);
    }

    /// What each tenant has spent, by capability.
    pub fn costs(&self) -> Costs {
        Costs::of(self.shared.ledger.accounts())
    }

    /// Everything in the text format of Prometheus.
    ///
    /// # Errors
    ///
    /// The encoder's, which are bugs of this room.
    pub fn exposition(&self) -> Result<String, prometheus::Error> {
        metrics::exposition(&self.used(), &self.shared.requests)
    }

    /// Keeps the figures fresh while nobody calls, and keeps them on the disk.
    pub async fn tend(&self) -> Infallible {
        let mut turns = tokio::time::interval(REFRESH);
        turns.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            for _ in 0..TURNS {
                turns.tick().await;
                self.used().iter().for_each(|series| series.refresh());
            }
            let telemetry = self.clone();
            // Only a panic ends it early, and that was printed.
            let _ = spawn_blocking(move || telemetry.save()).await;
        }
    }

    /// Keeps what there is and sends the last spans. Blocks until that is done or given up.
    pub fn close(&self) {
        self.save();
        if let Some(traces) = &self.traces {
            traces.close();
        }
    }

    /// Writes what there is to the file, whole or not at all. What fails is logged.
    pub fn save(&self) {
        let Some(file) = &self.shared.file else {
            return;
        };
        self.prune();
        let series: Vec<_> = self
            .all()
            .values()
            .map(|entry| entry.series.clone())
            .collect();
        if let Err(error) = file.save(&series, &self.shared.ledger) {
            tracing::warn!("the figures of calls are not kept: {error}");
        }
    }

    /// Drops what nobody offers any more and no window holds.
    fn prune(&self) {
        self.all().retain(|_, entry| {
            let held = Arc::strong_count(&entry.series) > 1;
            held || entry.series.rings().iter().any(|ring| !ring.is_empty())
        });
    }

    fn used(&self) -> Vec<Arc<Series>> {
        let all = self.all();
        let used = all.values().filter(|entry| entry.used);
        used.map(|entry| entry.series.clone()).collect()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<Key, Entry>> {
        let series = &self.shared.series;
        series.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Recording<'_> {
    /// What happens within the call belongs to this span; `None` where no spans are made.
    pub fn traceparent(&self) -> Option<String> {
        self.span.as_ref().map(Traced::traceparent)
    }

    /// How long the call may take in all.
    pub fn given(&mut self, time: Duration) {
        self.given = time;
    }

    /// The worker starts now, after so long a wait for its turn.
    pub fn started(&mut self, temperature: Temperature, queue: Duration) {
        self.start = Some(Start {
            temperature,
            queue,
            after: self.began.elapsed(),
        });
    }

    /// What the invocation has used.
    pub fn used(&mut self, usage: Usage) {
        self.usage = Some(usage);
    }

    /// The call has ended, with an answer or with a failure of this code.
    pub fn end(mut self, code: Option<Code>) {
        let took = self.began.elapsed();
        let end = code.map_or(End::Answered, |code| {
            End::Failed(code, self.blame(code, took))
        });
        self.count(end, took);
    }

    fn blame(&self, code: Code, took: Duration) -> Blame {
        let terms = self.series.terms();
        let after = self.start.map(|start| start.after);
        Blame::of(
            code,
            &Course {
                started: after.is_some(),
                had: took.saturating_sub(after.unwrap_or_default()),
                promised: terms.promised(),
                shortened: self.given < terms.wall,
            },
        )
    }

    fn count(&mut self, end: End, took: Duration) {
        self.ended = true;
        if let Some(span) = &mut self.span {
            span.end(end, self.start.map(|start| start.temperature));
        }
        let usage = self.usage.unwrap_or_default();
        let timed = matches!(
            end,
            End::Answered | End::Failed(Code::Deadline, Blame::Worker)
        );
        let times = self.start.filter(|_| timed);
        let times = times.map(|at| (at.temperature, [at.queue, usage.start, usage.run, took]));
        self.series.record(end, times);
        if let Some(usage) = &self.usage {
            self.series.used(usage);
        }
        let Some(start) = self.start else { return };
        self.series.live().started(start.temperature);
        // A worker that did its part, or would have, is paid; a failure of its own is not.
        if matches!(
            end,
            End::Answered | End::Cancelled | End::Failed(_, Blame::Caller)
        ) {
            let tenant = self.tenant.as_deref().unwrap_or(ANONYMOUS);
            self.series.charge(&self.telemetry.shared.ledger, tenant);
        }
    }
}

impl Drop for Recording<'_> {
    fn drop(&mut self) {
        if !self.ended {
            self.count(End::Cancelled, self.began.elapsed());
        }
    }
}

#[cfg(test)]
mod tests;
