//! Which candidate serves a call: a pure function of what is known of each and of what is asked.
//!
//! What bars a candidate is looked at first. Those that are left are in a total order, criterion by
//! criterion; among those at its top, which are equal in all of them, the less loaded of two that a seed
//! draws is chosen. No clock, no lock and no memory but its own few words enter this room.

use std::cmp::Ordering;
use std::time::Duration;

use semver::{Version, VersionReq};

use super::facts::{Facts, Load};
use crate::worker::Health;

/// What a call asks of whoever serves it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Ask<'a> {
    /// Which versions will do.
    pub version: Option<&'a VersionReq>,
    /// What has to run it.
    pub runtime: Option<&'a str>,
    /// What kind of machine it has to suit.
    pub env_profile: Option<&'a str>,
    /// Tokens that it may cost at most.
    pub max_cost: Option<f64>,
    /// How long the caller waits.
    pub patience: Option<Duration>,
}

/// What candidates are held against, in this order: the first five bar, the others rank.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Criterion {
    /// The version, runtime and profile that are asked for.
    Asked,
    /// Whether the caller may call it.
    Policy,
    /// Whether it can be reached; then, whether it failed of late.
    Health,
    /// The most that it may cost.
    Ceiling,
    /// The highest version.
    Version,
    /// Its latency target, and what is left of its error budget.
    Slo,
    /// Whether it should run on this host.
    Affinity,
    /// The cheapest.
    Cost,
    /// The less loaded of two.
    Load,
}

/// Whom the choice fell on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The place in the slice.
    Chosen(usize),
    /// Nobody may serve it; this barred the one that came furthest.
    Nobody(Criterion),
}

/// Chooses. The same facts, ask and seed give the same worker, in whatever order the facts come.
pub fn choose(facts: &[Facts], ask: &Ask, seed: u64) -> Decision {
    let mut barred = Criterion::Asked;
    let mut top: Option<(Standing, Pair)> = None;
    for (index, facts) in facts.iter().enumerate() {
        // Most have the version of the best so far, which need not be looked at twice.
        let best = top.as_ref().map(|(best, _)| best.version);
        let same = best.filter(|best| same_version(best, facts.version));
        if let Some(criterion) = bar_known(facts, ask, same.is_some()) {
            barred = barred.max(criterion);
            continue;
        }
        let mut standing = Standing::of(facts, ask);
        standing.version = same.unwrap_or(facts.version);
        let order = top
            .as_ref()
            .map_or(Ordering::Less, |(best, _)| standing.cmp(best));
        if order.is_gt() {
            continue;
        }
        let drawn = Drawn {
            lot: lot(seed, facts.number),
            index,
        };
        match &mut top {
            Some((_, pair)) if order.is_eq() => pair.draw(drawn),
            _ => top = Some((standing, Pair(drawn, drawn))),
        }
    }
    match top {
        Some((_, pair)) => Decision::Chosen(pair.less_loaded(facts)),
        None => Decision::Nobody(barred),
    }
}

/// Whether two versions are one: the numbers first, since few versions have more than these.
#[inline(always)]
fn same_version(one: &Version, other: &Version) -> bool {
    (one.major, one.minor, one.patch) == (other.major, other.minor, other.patch)
        && (one.pre.is_empty() && other.pre.is_empty() || one.pre == other.pre)
        && (one.build.is_empty() && other.build.is_empty() || one.build == other.build)
}

/// What forbids a candidate, if anything does.
pub(super) fn bar(facts: &Facts, ask: &Ask) -> Option<Criterion> {
    bar_known(facts, ask, false)
}

/// The same; `fits`: its version is known to be among those that will do.
#[inline(always)]
fn bar_known(facts: &Facts, ask: &Ask, fits: bool) -> Option<Criterion> {
    let same = |wanted: Option<&str>, is: Option<&str>| wanted.is_none() || wanted == is;
    let fits = |wanted: &VersionReq| fits || wanted.matches(facts.version);
    let asked = ask.version.is_none_or(fits)
        && same(ask.runtime, facts.runtime)
        && same(ask.env_profile, facts.env_profile);
    if !asked {
        Some(Criterion::Asked)
    } else if facts.denied.is_some() {
        Some(Criterion::Policy)
    } else if facts.health == Health::Down {
        Some(Criterion::Health)
    } else if ask.max_cost.is_some_and(|most| facts.cost > most) {
        Some(Criterion::Ceiling)
    } else {
        None
    }
}

/// The latency that a candidate is held to: its own promise, or the caller's patience if that is shorter.
pub(super) fn target(facts: &Facts, ask: &Ask) -> Option<Duration> {
    match (facts.promised, ask.patience) {
        (Some(promised), Some(patience)) => Some(promised.min(patience)),
        (promised, patience) => promised.or(patience),
    }
}

fn suspect(facts: &Facts) -> bool {
    facts.health == Health::Suspect
}

/// By how much a candidate misses its SLO; 0 if it keeps it. A prediction of twice the target counts as
/// much as an error budget that is spent twice.
#[inline]
fn miss(facts: &Facts, ask: &Ask) -> f64 {
    let late = match (facts.predicted, target(facts, ask)) {
        (Some(predicted), Some(target)) if predicted > target => {
            nanos(predicted) / nanos(target).max(1.0) - 1.0
        }
        _ => 0.0,
    };
    let overspent = match facts.budget_left {
        Some(left) if left < 0.0 => -left,
        _ => 0.0,
    };
    late + overspent
}

/// By way of an integer, which a machine converts at once.
#[inline(always)]
fn nanos(duration: Duration) -> f64 {
    i64::try_from(duration.as_nanos()).unwrap_or(i64::MAX) as f64
}

/// Where a candidate stands by the criteria that rank; the better one is the less.
pub(super) struct Standing<'a> {
    facts: &'a Facts<'a>,
    version: &'a Version,
    pub miss: f64,
}

impl<'a> Standing<'a> {
    #[inline(always)]
    pub fn of(facts: &'a Facts<'a>, ask: &Ask) -> Self {
        Self {
            facts,
            version: facts.version,
            miss: miss(facts, ask),
        }
    }

    fn cmp(&self, other: &Self) -> Ordering {
        self.differs(other)
            .map_or(Ordering::Equal, |(_, order)| order)
    }

    /// The first criterion by which one stands before the other.
    #[inline(always)]
    pub fn differs(&self, other: &Self) -> Option<(Criterion, Ordering)> {
        let by = |criterion, order: Ordering| order.is_ne().then_some((criterion, order));
        let versions = || match std::ptr::eq(self.version, other.version) {
            true => Ordering::Equal,
            false => other.version.cmp(self.version),
        };
        let (mine, theirs) = (self.facts, other.facts);
        by(Criterion::Health, suspect(mine).cmp(&suspect(theirs)))
            .or_else(|| by(Criterion::Version, versions()))
            .or_else(|| by(Criterion::Slo, self.miss.total_cmp(&other.miss)))
            .or_else(|| by(Criterion::Affinity, mine.affinity.cmp(&theirs.affinity)))
            .or_else(|| by(Criterion::Cost, mine.cost.total_cmp(&theirs.cost)))
    }
}

/// One that takes part in the draw.
#[derive(Clone, Copy)]
struct Drawn {
    lot: u64,
    index: usize,
}

/// The two with the lowest lots so far, which is as good as any two: lots are random. Twice the same, where
/// there is one alone.
struct Pair(Drawn, Drawn);

impl Pair {
    #[inline(always)]
    fn draw(&mut self, drawn: Drawn) {
        if drawn.lot < self.0.lot {
            self.1 = std::mem::replace(&mut self.0, drawn);
        } else if drawn.lot < self.1.lot || self.0.index == self.1.index {
            self.1 = drawn;
        }
    }

    fn less_loaded(self, facts: &[Facts]) -> usize {
        let Self(first, second) = self;
        let load = |drawn: Drawn| facts.get(drawn.index).map(|facts| facts.load);
        match (load(first), load(second)) {
            (Some(one), Some(other)) if is_less(other, one) => second.index,
            _ => first.index,
        }
    }
}

/// Whether one is less loaded than another, each by what it can take.
fn is_less(one: Load, other: Load) -> bool {
    let part = |load: Load, of: Load| {
        let busy = load.in_flight.saturating_add(load.queued);
        (busy as u128) * (of.capacity.max(1) as u128)
    };
    part(one, other) < part(other, one)
}

/// A lot for each candidate: SplitMix64 (Steele, Lea and Flood, 2014), at its number's place.
fn lot(seed: u64, number: usize) -> u64 {
    let mut z = seed.wrapping_add((number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
