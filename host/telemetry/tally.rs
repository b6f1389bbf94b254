//! What is counted of the calls of one capability: since the start, and how much of it when.
//!
//! Counters only grow, so recording needs no lock and no clock. Every half minute what came on top is
//! put aside as a slot; a window is the slots that it covers and what came since the last.

use std::collections::{BTreeMap, VecDeque};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::blame::{Blame, End};
use super::histogram::{Counts, Histogram, Recorded};
use crate::striped::Striped;

/// How the code that answers a call came to be ready.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Temperature {
    /// First call since the component was compiled.
    Uncompiled,
    /// First call since its code was loaded from the cache.
    Cached,
    /// A new sandbox of a worker that has answered before: the normal case.
    Fresh,
    /// First call of a worker that has a GPU: whatever its code needed, its device is opened too.
    GpuFirst,
}

/// A part of a call's time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// Waiting to be admitted.
    Queue,
    /// From an empty sandbox to an instance.
    Start,
    /// From the instance to its answer.
    Run,
    /// From the choice of the worker to the checked answer: the other three and what the host does.
    Total,
}

/// A stretch of time up to now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Window {
    FiveMinutes,
    Hour,
    Day,
}

/// Since the start, recorded by many at once. Made when first needed: an idle capability costs next to nothing.
#[derive(Debug, Default)]
pub(super) struct Live(Striped<OnceLock<Box<Stripe>>>);

#[derive(Debug)]
struct Stripe {
    ends: [AtomicU64; End::COUNT],
    cold: AtomicU64,
    times: [OnceLock<Box<[Histogram; 4]>>; 4],
    used: OnceLock<Box<[Histogram; 2]>>,
}

/// How calls ended and how long they took, in microseconds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Tally {
    ends: BTreeMap<String, u64>,
    times: [[Counts; 4]; 4],
}

/// The calls that a worker could have answered: what its availability is measured by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Outcomes {
    pub answered: u64,
    /// By the worker's fault.
    pub failed: u64,
}

/// Slots of half a minute, five minutes and an hour: enough of each for a window.
#[derive(Debug, Default)]
pub(super) struct Past {
    /// What was counted when the current slot began.
    base: Tally,
    /// The number of the current slot of half a minute.
    slot: u64,
    rings: [Ring; 3],
}

/// Slots by their number: the time since the Unix epoch in lengths of a slot.
pub(super) type Ring = VecDeque<(u64, Tally)>;

impl Temperature {
    pub(super) const ALL: [Self; 4] = [Self::Uncompiled, Self::Cached, Self::Fresh, Self::GpuFirst];

    /// As metrics, reports and the header `Crank-Cold` write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Uncompiled => "uncompiled",
            Self::Cached => "cached",
            Self::Fresh => "fresh",
            Self::GpuFirst => "gpu-first",
        }
    }

    /// Whether the worker had answered before.
    pub fn is_fresh(self) -> bool {
        self == Self::Fresh
    }
}

impl Phase {
    pub const ALL: [Phase; 4] = [Phase::Queue, Phase::Start, Phase::Run, Phase::Total];

    pub const fn as_str(self) -> &'static str {
        match self {
            Phase::Queue => "queue",
            Phase::Start => "start",
            Phase::Run => "run",
            Phase::Total => "total",
        }
    }
}

impl Window {
    pub const ALL: [Window; 3] = [Window::FiveMinutes, Window::Hour, Window::Day];

    pub const fn as_str(self) -> &'static str {
        match self {
            Window::FiveMinutes => "5m",
            Window::Hour => "1h",
            Window::Day => "24h",
        }
    }

    /// Seconds of a slot.
    const fn slot(self) -> u64 {
        match self {
            Window::FiveMinutes => SLOT,
            Window::Hour => 300,
            Window::Day => 3600,
        }
    }

    /// Slots that are kept beside the current one: the window is covered whole.
    const fn slots(self) -> u64 {
        match self {
            Window::FiveMinutes => 10,
            Window::Hour => 12,
            Window::Day => 24,
        }
    }
}

/// Seconds of the shortest slot.
const SLOT: u64 = 30;

impl Default for Stripe {
    fn default() -> Self {
        Self {
            ends: std::array::from_fn(|_| AtomicU64::new(0)),
            cold: AtomicU64::new(0),
            times: Default::default(),
            used: OnceLock::new(),
        }
    }
}

impl Live {
    pub fn end(&self, end: End) {
        self.mine().ends[end.index()].fetch_add(1, Relaxed);
    }

    /// The worker was started.
    pub fn started(&self, temperature: Temperature) {
        if !temperature.is_fresh() {
            self.mine().cold.fetch_add(1, Relaxed);
        }
    }

    pub fn cold_starts(&self) -> u64 {
        let cold = self.stripes().map(|stripe| stripe.cold.load(Relaxed));
        cold.sum()
    }

    /// The phases in their order.
    pub fn took(&self, temperature: Temperature, phases: [Duration; 4]) {
        let made = self.mine().times[temperature as usize].get_or_init(Box::default);
        for (histogram, time) in made.iter().zip(phases) {
            histogram.record(micros(time));
        }
    }

    pub fn used(&self, memory: u64, cpu: Duration) {
        let [memories, cpus] = &**self.mine().used.get_or_init(Box::default);
        memories.record(memory >> 10);
        cpus.record(micros(cpu));
    }

    pub fn count(&self, end: End) -> u64 {
        let ends = self.stripes().map(|stripe| &stripe.ends[end.index()]);
        ends.map(|count| count.load(Relaxed)).sum()
    }

    pub fn times(&self, temperature: Temperature, phase: Phase) -> Option<Recorded> {
        let times = self
            .stripes()
            .filter_map(|stripe| stripe.times[temperature as usize].get());
        recorded(times.map(|times| &times[phase as usize]))
    }

    /// KiB of memory and microseconds of CPU time that invocations took.
    pub fn uses(&self) -> Option<[Recorded; 2]> {
        let used = |which: usize| {
            let used = self.stripes().filter_map(|stripe| stripe.used.get());
            recorded(used.map(move |used| &used[which]))
        };
        Some([used(0)?, used(1)?])
    }

    fn mine(&self) -> &Stripe {
        self.0.mine().get_or_init(Box::default)
    }

    fn stripes(&self) -> impl Iterator<Item = &Stripe> {
        self.0.iter().filter_map(|stripe| Some(&**stripe.get()?))
    }

    fn tally(&self) -> Tally {
        let ends = End::all().map(|end| (end, self.count(end)));
        let counts = |temperature| {
            Phase::ALL.map(|phase| {
                let times = self.times(temperature, phase);
                times.map(|times| times.counts).unwrap_or_default()
            })
        };
        Tally {
            ends: ends
                .filter(|(_, count)| *count > 0)
                .map(|(end, count)| (end.to_text(), count))
                .collect(),
            times: Temperature::ALL.map(counts),
        }
    }
}

impl Tally {
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty() && self.times.iter().flatten().all(Counts::is_empty)
    }

    pub fn add(&mut self, other: &Tally) {
        for (end, count) in &other.ends {
            *self.ends.entry(end.clone()).or_default() += count;
        }
        let pairs = self
            .times
            .iter_mut()
            .flatten()
            .zip(other.times.iter().flatten());
        pairs.for_each(|(mine, theirs)| mine.add(theirs));
    }

    fn since(&self, earlier: &Tally) -> Tally {
        let grown = self.ends.iter().map(|(end, count)| {
            let before = earlier.ends.get(end).copied().unwrap_or_default();
            (end.clone(), count.saturating_sub(before))
        });
        let mut times = self.times.clone();
        let pairs = times
            .iter_mut()
            .flatten()
            .zip(earlier.times.iter().flatten());
        pairs.for_each(|(mine, theirs)| *mine = mine.since(theirs));
        Tally {
            ends: grown.filter(|(_, count)| *count > 0).collect(),
            times,
        }
    }

    pub fn count(&self, end: End) -> u64 {
        self.ends.get(&end.to_text()).copied().unwrap_or_default()
    }

    pub fn calls(&self) -> u64 {
        self.ends.values().sum()
    }

    /// Failures that somebody is to blame for.
    pub fn failed(&self, blame: Blame) -> u64 {
        let suffix = format!("/{}", blame.as_str());
        let blamed = self.ends.iter().filter(|(end, _)| end.ends_with(&suffix));
        blamed.map(|(_, count)| count).sum()
    }

    pub fn outcomes(&self) -> Outcomes {
        Outcomes {
            answered: self.count(End::Answered),
            failed: self.failed(Blame::Worker),
        }
    }

    pub fn times(&self, temperature: Temperature, phase: Phase) -> &Counts {
        &self.times[temperature as usize][phase as usize]
    }

    /// All temperatures together.
    pub fn total_times(&self) -> Counts {
        let mut all = Counts::default();
        for temperature in Temperature::ALL {
            all.add(self.times(temperature, Phase::Total));
        }
        all
    }
}

impl Outcomes {
    /// All that count.
    pub fn calls(&self) -> u64 {
        self.answered + self.failed
    }

    /// The share that failed. `None` without any.
    pub fn error_rate(&self) -> Option<f64> {
        (self.calls() > 0).then(|| self.failed as f64 / self.calls() as f64)
    }
}

impl Past {
    /// Past that another process has seen, up to now.
    pub fn of(rings: [Ring; 3], now: u64) -> Self {
        let mut past = Self {
            base: Tally::default(),
            slot: now / SLOT,
            rings,
        };
        past.forget(now);
        past
    }

    /// Puts aside what is older than half a minute, and forgets what no window needs. `now` is in seconds
    /// since the Unix epoch.
    pub fn advance(&mut self, live: &Live, now: u64) {
        if now / SLOT <= self.slot {
            return;
        }
        let tally = live.tally();
        let grown = tally.since(&self.base);
        if !grown.is_empty() {
            for (ring, window) in self.rings.iter_mut().zip(Window::ALL) {
                put(ring, self.slot * SLOT / window.slot(), &grown);
            }
        }
        self.base = tally;
        self.slot = now / SLOT;
        self.forget(now);
    }

    fn forget(&mut self, now: u64) {
        for (ring, window) in self.rings.iter_mut().zip(Window::ALL) {
            ring.retain(|(slot, _)| slot + window.slots() >= now / window.slot());
        }
    }

    /// What happened since the current slot began.
    pub fn current(&self, live: &Live) -> Tally {
        live.tally().since(&self.base)
    }

    /// What happened within a window, of which `current` is the end.
    pub fn window(&self, current: &Tally, window: Window) -> Tally {
        let mut tally = current.clone();
        self.slots(window).for_each(|slot| tally.add(slot));
        tally
    }

    /// The same of the outcomes alone: much less to add up.
    pub fn outcomes(&self, current: &Tally, window: Window) -> Outcomes {
        let mut all = current.outcomes();
        for outcomes in self.slots(window).map(Tally::outcomes) {
            all.answered += outcomes.answered;
            all.failed += outcomes.failed;
        }
        all
    }

    /// How long calls took in the current slot and in so many half minutes before it.
    pub fn total_times(&self, current: &Tally, slots: u64) -> Counts {
        let mut times = current.total_times();
        let [ring, ..] = &self.rings;
        for (_, tally) in ring.iter().filter(|(slot, _)| slot + slots >= self.slot) {
            times.add(&tally.total_times());
        }
        times
    }

    fn slots(&self, window: Window) -> impl Iterator<Item = &Tally> {
        self.rings[window as usize].iter().map(|(_, tally)| tally)
    }

    /// All slots, the current one among them.
    pub fn rings(&self, live: &Live) -> [Ring; 3] {
        let current = self.current(live);
        let mut rings = self.rings.clone();
        if !current.is_empty() {
            for (ring, window) in rings.iter_mut().zip(Window::ALL) {
                put(ring, self.slot * SLOT / window.slot(), &current);
            }
        }
        rings
    }
}

fn put(ring: &mut Ring, slot: u64, tally: &Tally) {
    match ring.back_mut() {
        Some((last, kept)) if *last == slot => kept.add(tally),
        _ => ring.push_back((slot, tally.clone())),
    }
}

/// What these hold together. `None` where there are none.
fn recorded<'a>(histograms: impl Iterator<Item = &'a Histogram>) -> Option<Recorded> {
    let mut all = None;
    for histogram in histograms {
        all.get_or_insert_with(Recorded::default).add(histogram);
    }
    all
}

fn micros(time: Duration) -> u64 {
    u64::try_from(time.as_micros()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_window_covers_its_time_and_forgets_what_is_older() {
        let (live, start) = (Live::default(), 1_000_000_000);
        let mut past = Past::of(Default::default(), start);
        let mut seen = |now: u64, calls: u64| {
            past.advance(&live, now);
            for _ in 0..calls {
                live.end(End::Answered);
                live.took(Temperature::Fresh, [Duration::from_millis(1); 4]);
            }

            let current = past.current(&live);
            Window::ALL.map(|window| {
                let tally = past.window(&current, window);
                assert_eq!(tally.outcomes(), past.outcomes(&current, window));
                assert_eq!(tally.total_times().total(), tally.calls());
                tally.calls()
            })
        };
        assert_eq!(seen(start, 1), [1, 1, 1]);
        assert_eq!(seen(start + 300, 2), [3, 3, 3]);
        assert_eq!(seen(start + 700, 0), [0, 3, 3]);
        assert_eq!(seen(start + 3500, 4), [4, 7, 7]);
        assert_eq!(seen(start + 5000, 0), [0, 4, 7]);
        assert_eq!(seen(start + 86_000, 0), [0, 0, 7]);
        assert_eq!(seen(start + 95_000, 0), [0, 0, 0]);
        assert_eq!(live.count(End::Answered), 7);
    }

    #[test]
    fn what_is_kept_is_all_there_is() {
        let (live, start) = (Live::default(), 1_000_000_000);
        let mut past = Past::of(Default::default(), start);
        live.end(End::Answered);
        past.advance(&live, start + 40);
        live.end(End::Cancelled);
        let text = serde_json::to_string(&past.rings(&live)).expect("JSON");
        let kept = Past::of(serde_json::from_str(&text).expect("the same"), start + 60);
        let nothing = kept.current(&Live::default());
        for window in Window::ALL {
            assert_eq!(kept.window(&nothing, window).calls(), 2, "{window:?}");
        }
    }
}
