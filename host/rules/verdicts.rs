//! What the policy has said of a capability's callers: a table of a fixed size, read without a lock.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;

use super::Judgement;

/// Places for verdicts, of one capability of one worker.
const PLACES: usize = 512;
/// Places where the same caller's verdict may stand.
const WAYS: usize = 4;
/// Bytes that caller and origin together may have to be kept.
const KEPT: usize = 1024;
/// How long a judgement that failed holds: what took too long is not tried by each call.
const FAILED: Duration = Duration::from_secs(1);

/// Who asks. All that a decision depends on, beside the capability, its worker and the revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Asking<'a> {
    /// Number of the revision that judges.
    pub revision: u64,
    /// SPIFFE id of who calls, where the host knows.
    pub caller: Option<&'a str>,
    /// SPIFFE id of who called first, where the host knows.
    pub origin: Option<&'a str>,
    /// Calls that wait for this one; 0: no worker made it.
    pub depth: usize,
}

/// A refusal: which rules refuse, for the caller, and what they say, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Denial {
    /// The rules' names.
    pub rules: String,
    /// The whole reasons.
    pub reasons: String,
}

/// The verdicts on the callers of one capability of one worker. They go with it; those of an older revision
/// count for nothing.
#[derive(Default)]
pub struct Verdicts {
    places: OnceLock<Box<[ArcSwapOption<Verdict>]>>,
    /// Where the next one goes that finds no room.
    turn: AtomicUsize,
}

struct Verdict {
    hash: u64,
    revision: u64,
    caller: Option<Box<str>>,
    origin: Option<Box<str>>,
    depth: usize,
    denied: Option<Arc<Denial>>,
    /// A judgement that failed holds for a while.
    until: Option<Instant>,
}

impl Asking<'_> {
    /// Computed once for all candidates of a call. The seed is this process's own, so that nobody can choose
    /// ids that fall into one place.
    pub fn hash(&self) -> u64 {
        static SEED: LazyLock<RandomState> = LazyLock::new(RandomState::new);
        SEED.hash_one(self)
    }
}

impl Verdicts {
    /// What is known of who asks: `None`, nothing; else whether it is denied. `hash` is that of `asking`.
    pub fn get(&self, asking: &Asking<'_>, hash: u64) -> Option<Option<Arc<Denial>>> {
        let places = self.places.get()?;
        for place in places.get(set(hash)..)?.iter().take(WAYS) {
            let verdict = place.load();
            if let Some(verdict) = verdict.as_ref().filter(|at| at.is_of(asking, hash)) {
                return Some(verdict.denied.clone());
            }
        }
        None
    }

    /// Keeps what was said of who asks.
    pub fn put(&self, asking: &Asking<'_>, hash: u64, judged: &Judgement) -> Option<Arc<Denial>> {
        let denied = judged.denial().map(Arc::new);
        let long = [asking.caller, asking.origin].into_iter().flatten();
        if long.map(|id| id.len()).sum::<usize>() > KEPT {
            return denied;
        }
        let verdict = Verdict {
            hash,
            revision: asking.revision,
            caller: asking.caller.map(Into::into),
            origin: asking.origin.map(Into::into),
            depth: asking.depth,
            denied: denied.clone(),
            until: judged.failed.then(|| Instant::now() + FAILED),
        };
        let empty = || (0..PLACES).map(|_| ArcSwapOption::empty()).collect();
        let places = self.places.get_or_init(empty);
        let start = set(hash);
        let ways = || places.iter().skip(start).take(WAYS);
        let is_free = |place: &&ArcSwapOption<Verdict>| {
            let kept = place.load();
            kept.as_ref().is_none_or(|kept| {
                kept.revision != asking.revision || kept.hash == hash || kept.is_over()
            })
        };
        let turn = || self.turn.fetch_add(1, Relaxed) % WAYS;
        if let Some(place) = ways().find(is_free).or_else(|| ways().nth(turn())) {
            place.store(Some(Arc::new(verdict)));
        }
        denied
    }
}

impl Verdict {
    fn is_of(&self, asking: &Asking<'_>, hash: u64) -> bool {
        self.hash == hash
            && self.revision == asking.revision
            && self.depth == asking.depth
            && self.caller.as_deref() == asking.caller
            && self.origin.as_deref() == asking.origin
            && !self.is_over()
    }

    fn is_over(&self) -> bool {
        self.until.is_some_and(|until| Instant::now() >= until)
    }
}

/// The first place of those where a hash may stand.
fn set(hash: u64) -> usize {
    (hash as usize % (PLACES / WAYS)) * WAYS
}
