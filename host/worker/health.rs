//! Whether a worker does its work: a circuit breaker, from how its own invocations end.
//!
//! Each invocation has a sandbox of its own, so one that dies breaks nothing for the next: a worker
//! that fails is one that others go before, and not one that is shut. Where there is no other it goes on
//! being called, or one caller's bad inputs would shut it for everybody.

use std::sync::atomic::{
    AtomicBool, AtomicU32, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::time::{Duration, Instant};

use crate::error::Code;

/// All of the recent calls, in the unit in which their faulty share is counted.
const ALL: u32 = 1 << 16;
/// What one call counts for: a part in so many. Six faults in a row open a breaker that knew none, and so
/// does a share of more than half among some eight.
const WEIGHT: u32 = 8;
const TOO_MANY: u32 = ALL / 2;
/// For how long others go first, at first; it doubles with each trial that fails, up to the second.
const REST: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(60));

/// How a worker is, for whoever chooses among several.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// Nothing speaks against it.
    Well,
    /// It failed of late, and has rested since: one call may try it.
    Trial,
    /// It failed of late: others go first.
    Suspect,
    /// Out of reach: no call goes there.
    Down,
}

impl Health {
    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Health::Well => "well",
            Health::Trial => "trial",
            Health::Suspect => "suspect",
            Health::Down => "down",
        }
    }
}

/// One worker's breaker. Calls that end well write nothing to it while it is well.
#[derive(Debug)]
pub struct Breaker {
    born: Instant,
    /// The share of recent calls that failed through the worker's fault: a moving one, of `ALL`. Two ends
    /// that meet may lose one of two: it is an estimate.
    faults: AtomicU32,
    /// Until when others go first, in nanoseconds after `born`; 0 while it is closed.
    until: AtomicU64,
    /// How often in a row it was opened.
    opened: AtomicU32,
    /// The one call that tries is under way.
    trying: AtomicBool,
}

/// One call's way past a breaker, until its end is known. Dropped without: it says nothing.
#[derive(Debug)]
pub struct Pass<'a> {
    breaker: &'a Breaker,
    was: Health,
}

/// What the end of an invocation says of its worker.
enum Verdict {
    Works,
    Fails,
    Nothing,
}

impl Default for Breaker {
    fn default() -> Self {
        Self {
            born: Instant::now(),
            faults: AtomicU32::new(0),
            until: AtomicU64::new(0),
            opened: AtomicU32::new(0),
            trying: AtomicBool::new(false),
        }
    }
}

impl Breaker {
    /// How the worker is.
    pub fn health(&self, now: Instant) -> Health {
        match self.until.load(SeqCst) {
            0 => Health::Well,
            until if self.age(now) < until || self.trying.load(SeqCst) => Health::Suspect,
            _ => Health::Trial,
        }
    }

    /// Lets a call through that was sent here because of this health. `None`: it was to be the one that
    /// tries, and another is.
    pub fn enter(&self, was: Health) -> Option<Pass<'_>> {
        let taken = was == Health::Trial && self.trying.swap(true, SeqCst);
        (!taken).then_some(Pass { breaker: self, was })
    }

    /// The share of recent calls that failed through the worker's fault, from 0 to 1.
    pub fn faults(&self) -> f64 {
        f64::from(self.faults.load(Relaxed)) / f64::from(ALL)
    }

    /// How long others still go first.
    pub fn rests(&self, now: Instant) -> Duration {
        Duration::from_nanos(self.until.load(SeqCst).saturating_sub(self.age(now)))
    }

    /// Counts one call and returns the share.
    fn count(&self, failed: bool) -> u32 {
        let share = self.faults.load(Relaxed);
        let next = match failed {
            true => share + (ALL - share) / WEIGHT,
            false => share - share.div_ceil(WEIGHT),
        };
        if next != share {
            self.faults.store(next, Relaxed);
        }
        next
    }

    fn open(&self, now: Instant) {
        let (first, longest) = REST;
        let times = self.opened.fetch_add(1, SeqCst).min(16);
        let rest = (first * (1 << times)).min(longest).as_nanos();
        let rest = u64::try_from(rest).unwrap_or(u64::MAX);
        self.until
            .store(self.age(now).saturating_add(rest).max(1), SeqCst);
    }

    fn close(&self) {
        self.faults.store(0, Relaxed);
        self.opened.store(0, SeqCst);
        self.until.store(0, SeqCst);
    }

    fn age(&self, now: Instant) -> u64 {
        let age = now.saturating_duration_since(self.born).as_nanos();
        u64::try_from(age).unwrap_or(u64::MAX)
    }
}

impl Pass<'_> {
    /// The call ended at `now`, with this code if it failed. `code` is that of the invocation itself: what
    /// was refused before it began is none of the worker's doing.
    pub fn ended(self, code: Option<Code>, now: Instant) {
        let breaker = self.breaker;
        match (self.was, verdict(code)) {
            (_, Verdict::Nothing) => {}
            (Health::Well, Verdict::Works) => {
                breaker.count(false);
            }
            (Health::Well, Verdict::Fails) => {
                if breaker.count(true) > TOO_MANY && breaker.until.load(SeqCst) == 0 {
                    breaker.open(now);
                }
            }
            (Health::Trial, Verdict::Fails) => breaker.open(now),
            // It is open already.
            (Health::Suspect | Health::Down, Verdict::Fails) => {}
            // Begun while it was open, and it works again.
            (_, Verdict::Works) => breaker.close(),
        }
    }
}

impl Drop for Pass<'_> {
    fn drop(&mut self) {
        if self.was == Health::Trial {
            self.breaker.trying.store(false, SeqCst);
        }
    }
}

/// What counts against a worker, what for it, and what says nothing.
fn verdict(code: Option<Code>) -> Verdict {
    let Some(code) = code else {
        return Verdict::Works;
    };
    match code {
        Code::Internal
        | Code::MemoryLimit
        | Code::CpuLimit
        | Code::OutputLimit
        | Code::StorageLimit
        | Code::GpuLimit
        | Code::Trapped
        | Code::WorkerFailed
        | Code::InvalidOutput => Verdict::Fails,
        // Its own answers to what the caller asked.
        Code::Denied | Code::NotFound | Code::Conflict | Code::InvalidInput => Verdict::Works,
        // The caller's own deadline may be too short for anyone; being slow shows in the times.
        Code::Deadline
        // No room, or it says that it cannot now: it did not try.
        | Code::Overloaded
        | Code::Unavailable
        // Never the end of an invocation.
        | Code::InvalidRequest
        | Code::AmbiguousCapability
        | Code::Unauthenticated
        | Code::UnknownCapability
        | Code::MethodNotAllowed
        | Code::RequestTimeout
        | Code::CostCeiling
        | Code::TooLarge
        | Code::UriTooLong
        | Code::UnsupportedMediaType
        | Code::HeadersTooLarge
        | Code::IdempotencyInProgress
        | Code::IdempotencyUnanswered
        | Code::IdempotencyMismatch
        | Code::RateLimited
        | Code::LoopDetected => Verdict::Nothing,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(breaker: &Breaker, now: Instant, code: Option<Code>) -> Option<Health> {
        let pass = breaker.enter(breaker.health(now))?;
        pass.ended(code, now);
        Some(breaker.health(now))
    }

    #[test]
    fn six_faults_in_a_row_open_it_and_a_trial_that_succeeds_closes_it() {
        let (breaker, now) = (Breaker::default(), Instant::now());
        for _ in 0..5 {
            assert_eq!(end(&breaker, now, Some(Code::Trapped)), Some(Health::Well));
        }
        assert_eq!(
            end(&breaker, now, Some(Code::Trapped)),
            Some(Health::Suspect)
        );

        let rested = now + breaker.rests(now);
        assert_eq!(breaker.health(rested), Health::Trial);
        let trial = breaker.enter(Health::Trial).expect("the first may try");
        assert_eq!(
            breaker.health(rested),
            Health::Suspect,
            "one tries at a time"
        );
        assert!(breaker.enter(Health::Trial).is_none());
        drop(trial);
        assert_eq!(
            breaker.health(rested),
            Health::Trial,
            "who hangs up says nothing"
        );
        assert_eq!(
            end(&breaker, rested, Some(Code::NotFound)),
            Some(Health::Well)
        );
        assert_eq!(breaker.faults(), 0.0);
    }

    #[test]
    fn a_trial_that_fails_doubles_the_rest_up_to_a_minute() {
        let (breaker, mut now) = (Breaker::default(), Instant::now());
        while end(&breaker, now, Some(Code::InvalidOutput)) == Some(Health::Well) {}
        let mut rests = Vec::new();
        for _ in 0..8 {
            rests.push(breaker.rests(now).as_secs_f64().round());
            now += breaker.rests(now);
            assert_eq!(
                end(&breaker, now, Some(Code::Trapped)),
                Some(Health::Suspect)
            );
        }
        assert_eq!(rests, [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]);
        // Called all the same, where nobody else is: what works is believed.
        assert_eq!(end(&breaker, now, None), Some(Health::Well));
        assert_eq!(breaker.opened.load(SeqCst), 0);
    }

    #[test]
    fn faults_among_answers_open_it_from_a_half_on_and_callers_faults_never() {
        let now = Instant::now();
        let open = |pattern: &[Option<Code>]| {
            let breaker = Breaker::default();
            let mut turns = pattern.iter().cycle().take(1000);
            turns.any(|code| end(&breaker, now, *code) != Some(Health::Well))
        };
        let (trap, fine) = (Some(Code::Trapped), None);
        assert!(open(&[trap, trap, fine]));
        assert!(!open(&[trap, fine, fine]));
        assert!(!open(&[Some(Code::InvalidInput)]));
        assert!(!open(&[Some(Code::Deadline)]));
        assert!(!open(&[Some(Code::Overloaded)]));
    }
}
