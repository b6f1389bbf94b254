//! One capability of one worker, over time.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::time::Duration;

use arc_swap::ArcSwap;

use super::blame::End;
use super::clock::Clock;
use super::costs::{Account, Ledger, TENANTS, micros, tokens};
use super::tally::{Live, Outcomes, Past, Ring, Tally, Temperature, Window};
use crate::capability::Slo;
use crate::limits::Usage;
use crate::striped::Striped;

/// Fewer calls than this in the last minute say too little: then the last five minutes are asked.
const ENOUGH: u64 = 20;
/// How far below zero a budget is told: what may never fail has none that a failure could be held against.
const OVERDRAWN: f64 = -1000.0;
/// Milliseconds for which the figures that the router asks for are kept.
const FRESH_MS: u64 = 1000;

/// What a series belongs to. It outlives the worker's code: a reload goes on with the same series.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Who serves.
    pub worker_id: Arc<str>,
    /// `verb:name`.
    pub capability: Arc<str>,
    /// Its version.
    pub version: Arc<str>,
}

/// What a worker promises of a capability and asks for it, as it is now.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Terms {
    /// What is promised.
    pub slo: Slo,
    /// How long an invocation may take at most.
    pub wall: Duration,
    /// What an invocation costs, in the operator's units.
    pub cost_tokens: f64,
}

/// Latencies and outcomes of one capability of one worker. Recording takes no lock.
#[derive(Debug)]
pub struct Series {
    key: Key,
    clock: Clock,
    terms: ArcSwap<Terms>,
    live: Live,
    past: Mutex<Past>,
    figures: Figures,
    /// All that was charged since the start, in millionths of a token.
    charged: Striped<AtomicU64>,
    /// Those who have paid for a call, by tenant: found without the ledger's lock.
    accounts: ArcSwap<HashMap<Box<str>, Arc<Account>>>,
}

/// What the router asks for, ready to be read. Each is the bits of an `f64`, NaN where there is none.
#[derive(Debug)]
struct Figures {
    /// Milliseconds since the Unix epoch from which on they are made anew.
    due: AtomicU64,
    /// Seconds.
    p95: AtomicU64,
    error_rate: AtomicU64,
    budget: AtomicU64,
}

impl Terms {
    /// What the worker promises to need for an invocation at most; without a promise all that it may.
    pub(super) fn promised(&self) -> Duration {
        let promised = [
            self.slo.latency_p99_ms,
            self.slo.latency_p95_ms,
            self.slo.latency_p50_ms,
        ];
        let ms = promised.into_iter().flatten().next();
        ms.map_or(self.wall, |ms| Duration::from_millis(ms.into()))
            .min(self.wall)
    }

    /// The share of calls that may fail.
    pub(super) fn allowed(&self) -> Option<f64> {
        let from_availability = || Some(100.0 - self.slo.availability_pct?);
        let percent = self.slo.error_budget_pct.or_else(from_availability)?;
        Some(percent / 100.0)
    }

    /// How much of the error budget this leaves, from 1 (all) down past 0.
    pub(super) fn budget_left(&self, outcomes: &Outcomes) -> Option<f64> {
        let allowed = self.allowed()?;
        Some(match outcomes.error_rate() {
            Some(rate) if rate > 0.0 => (1.0 - rate / allowed).max(OVERDRAWN),
            _ => 1.0,
        })
    }

    /// How fast the error budget is spent: at 1 it lasts exactly for its window.
    pub(super) fn burn_rate(&self, outcomes: &Outcomes) -> Option<f64> {
        let allowed = self.allowed()?;
        Some(match outcomes.error_rate()? {
            0.0 => 0.0,
            rate => (rate / allowed).min(1.0 - OVERDRAWN),
        })
    }
}

impl Default for Figures {
    fn default() -> Self {
        let none = || AtomicU64::new(f64::NAN.to_bits());
        Self {
            due: AtomicU64::new(0),
            p95: none(),
            error_rate: none(),
            budget: none(),
        }
    }
}

impl Series {
    pub(super) fn new(key: Key, clock: Clock, rings: [Ring; 3]) -> Self {
        Self {
            key,
            clock,
            terms: ArcSwap::default(),
            live: Live::default(),
            past: Mutex::new(Past::of(rings, clock.now().as_secs())),
            figures: Figures::default(),
            charged: Striped::default(),
            accounts: ArcSwap::default(),
        }
    }

    /// What it belongs to.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// How long 95 % of the answers of the last minute took at most, waiting for admission included; of the
    /// last five minutes where those of the last are few. `None` where there were none. At most a second
    /// old; a load and no more.
    pub fn predicted_p95(&self) -> Option<Duration> {
        let seconds = read(&self.figures.p95)?;
        Duration::try_from_secs_f64(seconds).ok()
    }

    /// The share of the calls of the last five minutes that failed by the worker's fault, from 0 to 1.
    pub fn error_rate(&self) -> f64 {
        read(&self.figures.error_rate).unwrap_or(0.0)
    }

    /// How much of the error budget the last 24 hours left: 1 is all, below 0 more is spent than there
    /// was. `None` where the worker promises neither an availability nor an error budget.
    pub fn error_budget_left(&self) -> Option<f64> {
        read(&self.figures.budget)
    }

    /// Brings the figures that the router asks for up to date, now instead of within a second.
    pub fn refresh(&self) {
        self.refresh_at(self.clock.now(), self.past());
    }

    pub(super) fn offer(&self, terms: Terms) {
        if **self.terms.load() != terms {
            self.terms.store(Arc::new(terms));
            self.refresh();
        }
    }

    pub(super) fn terms(&self) -> Terms {
        **self.terms.load()
    }

    pub(super) fn live(&self) -> &Live {
        &self.live
    }

    /// Counts a call. The times of a call count where it got an answer, and where it was given up
    /// because the worker took too long: else a worker that hangs would look fast.
    pub(super) fn record(&self, end: End, times: Option<(Temperature, [Duration; 4])>) {
        let now = self.clock.now();
        let due = millis(now) >= self.figures.due.load(Relaxed);
        // Where somebody else is at it, this call does without: it waits for no lock.
        let mut past = match due.then(|| self.past.try_lock()) {
            Some(Ok(past)) => Some(past),
            Some(Err(TryLockError::Poisoned(past))) => Some(past.into_inner()),
            Some(Err(TryLockError::WouldBlock)) | None => None,
        };
        if let Some(past) = &mut past {
            // Before this call is counted, which does not belong to an earlier slot.
            past.advance(&self.live, now.as_secs());
        }
        self.live.end(end);
        if let Some((temperature, phases)) = times {
            self.live.took(temperature, phases);
        }
        if let Some(past) = past {
            self.refresh_at(now, past);
        }
    }

    /// Tokens charged since the start.
    pub(super) fn tokens(&self) -> f64 {
        tokens(self.charged.sum(|charged| charged))
    }

    pub(super) fn used(&self, usage: &Usage) {
        self.live.used(usage.memory_peak, usage.cpu);
    }

    pub(super) fn charge(&self, ledger: &Ledger, tenant: &str) {
        let tokens = self.terms.load().cost_tokens;
        self.charged.mine().fetch_add(micros(tokens), Relaxed);
        let accounts = self.accounts.load();
        if let Some(account) = accounts.get(tenant) {
            return account.charge(tokens);
        }
        let account = ledger.account(tenant, &self.key.capability);
        account.charge(tokens);
        if accounts.len() < TENANTS {
            self.accounts.rcu(|accounts| {
                let mut more = HashMap::clone(accounts);
                more.insert(tenant.into(), account.clone());
                more
            });
        }
    }

    /// What happened within each window.
    pub(super) fn windows(&self) -> [Tally; 3] {
        let mut past = self.past();
        past.advance(&self.live, self.clock.now().as_secs());
        let current = past.current(&self.live);
        Window::ALL.map(|window| past.window(&current, window))
    }

    /// What is kept over a restart; empty where nothing happened within a day.
    pub(super) fn rings(&self) -> [Ring; 3] {
        let mut past = self.past();
        past.advance(&self.live, self.clock.now().as_secs());
        past.rings(&self.live)
    }

    fn refresh_at(&self, now: Duration, mut past: MutexGuard<'_, Past>) {
        past.advance(&self.live, now.as_secs());
        let current = past.current(&self.live);
        // The last minute and half a minute before it, at most.
        let mut times = past.total_times(&current, 2);
        if times.total() < ENOUGH {
            times = past.total_times(&current, 10);
        }
        let [lately, _, day] = Window::ALL.map(|window| past.outcomes(&current, window));
        let figures = &self.figures;
        write(
            &figures.p95,
            times.quantile(0.95).map(|micros| micros * 1e-6),
        );
        write(&figures.error_rate, lately.error_rate());
        write(&figures.budget, self.terms().budget_left(&day));
        figures.due.store(millis(now) + FRESH_MS, Relaxed);
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn read(figure: &AtomicU64) -> Option<f64> {
    Some(f64::from_bits(figure.load(Relaxed))).filter(|figure| !figure.is_nan())
}

fn write(figure: &AtomicU64, value: Option<f64>) {
    figure.store(value.unwrap_or(f64::NAN).to_bits(), Relaxed);
}

fn millis(now: Duration) -> u64 {
    u64::try_from(now.as_millis()).unwrap_or(u64::MAX)
}
