//! One worker: its slots, how many wait for them, and how long it takes.

use std::sync::atomic::{
    AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

use crossbeam_utils::CachePadded;

use super::queue::Reason;
use crate::error::{Code, Failure};
use crate::striped::Quota;

/// When to come back, at the least and at the most.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(60));

/// For how long after the last of its invocations an idle worker's times are taken for true.
const FRESH: Duration = Duration::from_secs(3);

/// The time between two samples of how long a slot is held: threads that end many calls would else wait for each
/// other to note it.
const BETWEEN: Duration = Duration::from_micros(100);

/// A worker's slots and its line.
pub struct Lane {
    slots: Quota,
    /// How many may wait.
    pub(super) places: usize,
    queued: AtomicUsize,
    refused: AtomicU64,
    service: CachePadded<Service>,
    born: Instant,
}

/// How long a slot is held: mean and mean deviation, both moving, in nanoseconds, as TCP follows round
/// trips (RFC 6298, section 2). Of many ends one in [`BETWEEN`] counts, and two that meet may lose one of two: it
/// is an estimate.
#[derive(Debug, Default)]
pub struct Service {
    mean: AtomicU64,
    deviation: AtomicU64,
    /// When a slot was last given back.
    ended: AtomicU64,
}

impl Lane {
    /// For a worker that runs so many invocations at once while at most `places` wait.
    pub fn new(limit: usize, places: usize) -> Self {
        Self {
            slots: super::slots(limit.max(1)),
            places,
            queued: AtomicUsize::new(0),
            refused: AtomicU64::new(0),
            service: CachePadded::default(),
            born: Instant::now(),
        }
    }

    /// Invocations that may run at once.
    pub fn limit(&self) -> usize {
        usize::try_from(self.slots.limit()).unwrap_or(usize::MAX)
    }

    /// Invocations that run now.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.slots.used()).unwrap_or(usize::MAX)
    }

    /// Calls that wait now.
    pub fn queued(&self) -> usize {
        self.queued.load(SeqCst)
    }

    /// Calls that were told to come back later.
    pub fn refused(&self) -> u64 {
        self.refused.load(Relaxed)
    }

    pub(super) fn set_queued(&self, count: usize) {
        self.queued.store(count, SeqCst);
    }

    pub(super) fn has_room(&self, most: usize) -> bool {
        self.slots.has(1, most as u64)
    }

    pub(super) fn take(&self, most: usize) -> bool {
        match most < self.limit() {
            true => self.slots.take_within(1, most as u64),
            false => self.slots.take(1),
        }
    }

    /// One more, whatever the limit.
    pub(super) fn enter(&self) {
        self.slots.take_beyond(1);
    }

    pub(super) fn give_back(&self) {
        self.slots.give(1);
    }

    /// A slot was held for so long until `now`.
    pub(super) fn record(&self, held: Duration, now: Instant) {
        let now = now.saturating_duration_since(self.born);
        self.service.record(held, now);
    }

    /// Within which 95 of 100 calls that come now would end, as [`Service::predicted`] says.
    pub fn predicted(&self, now: Instant) -> Option<Duration> {
        let now = now.saturating_duration_since(self.born);
        let (running, queued) = (self.in_flight(), self.queued());
        self.service.predicted(running, queued, self.limit(), now)
    }

    /// Whether an answer is not likely to be there by `deadline`, if so many slots must come free before.
    /// A worker that runs nothing may try: what is known of it may be long out of date, and only an
    /// invocation that runs can put it right.
    pub(super) fn is_late(&self, deadline: Instant, now: Instant, slots: usize) -> bool {
        let left = deadline.saturating_duration_since(now);
        let needed = || self.wait_for(slots) + self.service.likely();
        left.is_zero() || (self.in_flight() > 0 && left <= needed())
    }

    /// The moment from which a call that has not started is late.
    pub(super) fn last_start(&self, deadline: Instant) -> Instant {
        deadline
            .checked_sub(self.service.likely())
            .unwrap_or(deadline)
    }

    /// How long it takes until so many slots have come free.
    fn wait_for(&self, count: usize) -> Duration {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let slots = u32::try_from(self.in_flight().max(1)).unwrap_or(u32::MAX);
        self.service.mean().saturating_mul(count) / slots
    }

    pub(super) fn refuse(&self, reason: Reason) -> Failure {
        self.refused.fetch_add(1, Relaxed);
        let message = match reason {
            Reason::Full => "as many calls wait for the worker as may wait",
            Reason::Nested => "workers make as many calls of each other as this host has room for",
            Reason::Late => "the worker is busy, and the answer would come too late",
        };
        let (least, most) = RETRY;
        let delay = self.wait_for(self.queued() + 1).clamp(least, most);
        Failure::new(Code::Overloaded, message).retry_after(delay)
    }
}

impl Service {
    /// A slot was held for so long, until `now` on any clock that starts at 0.
    pub fn record(&self, held: Duration, now: Duration) {
        let ended = self.ended.load(Relaxed);
        if ended > 0 && nanos(now).saturating_sub(ended) < nanos(BETWEEN) {
            return;
        }
        self.ended.store(nanos(now), Relaxed);
        let held = i64::try_from(held.as_nanos()).unwrap_or(i64::MAX >> 8);
        let mean = self.mean.load(Relaxed) as i64;
        let (mean, deviation) = if mean == 0 {
            (held, held / 2)
        } else {
            let deviation = self.deviation.load(Relaxed) as i64;
            let off = held - mean;
            (mean + off / 8, deviation + (off.abs() - deviation) / 4)
        };
        self.mean.store(mean.max(1) as u64, Relaxed);
        self.deviation.store(deviation.max(0) as u64, Relaxed);
    }

    /// Within which 95 of 100 newcomers would end, where so many of the slots are taken and so many
    /// calls wait. Three mean deviations above the mean: 2.1 were enough where times are normally
    /// distributed, 2.7 where they are exponentially. `None`: not known, since no slot was held yet, or
    /// nothing runs and what is known is old. Whoever chooses by this may then try it, or a wrong estimate
    /// could never be put right.
    pub fn predicted(
        &self,
        running: usize,
        queued: usize,
        slots: usize,
        now: Duration,
    ) -> Option<Duration> {
        let mean = self.mean.load(Relaxed);
        let old = nanos(now).saturating_sub(self.ended.load(Relaxed)) > nanos(FRESH);
        if mean == 0 || (running == 0 && old) {
            return None;
        }
        let held = mean.saturating_add(self.deviation.load(Relaxed).saturating_mul(3));
        let wait = match running < slots && queued == 0 {
            true => 0,
            false => mean.saturating_mul(queued as u64 + 1) / slots.max(1) as u64,
        };
        Some(Duration::from_nanos(held.saturating_add(wait)))
    }

    fn mean(&self) -> Duration {
        Duration::from_nanos(self.mean.load(Relaxed))
    }

    /// Within which most end. While calls wait, each that is started and ends too late costs another
    /// its turn: with the nearest deadline first, a line that is too long would serve few but those.
    fn likely(&self) -> Duration {
        self.mean() + Duration::from_nanos(self.deviation.load(Relaxed))
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}
