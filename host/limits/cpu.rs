//! Time spent running.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// Time that one invocation has spent running, poll by poll.
///
/// `Instant` costs 20 ns and the thread's CPU clock 510 ns (measured), so short calls are counted by
/// the first; from an invocation's first tick on the second counts, which no busy machine can inflate.
///
/// Shared between the future that is polled and the Store's epoch callback, which run on one thread
/// at a time: relaxed atomics suffice.
#[derive(Debug)]
pub struct CpuClock {
    origin: Instant,
    /// Nanoseconds of polls that have ended.
    used: AtomicU64,
    /// When the poll under way began, in nanoseconds of the clock that is in force.
    since: AtomicU64,
    /// Whether the thread's CPU clock is in force.
    exact: AtomicBool,
}

impl CpuClock {
    /// A clock that has counted nothing, from `origin` on, which is now or was lately.
    pub fn new(origin: Instant) -> Self {
        Self {
            origin,
            used: AtomicU64::new(0),
            since: AtomicU64::new(0),
            exact: AtomicBool::new(false),
        }
    }

    /// A poll begins on this thread.
    pub fn enter(&self) {
        self.since.store(self.now(), Relaxed);
    }

    /// The poll that began on this thread ends.
    pub fn leave(&self) {
        let ran = self.now().saturating_sub(self.since.load(Relaxed));
        self.used
            .store(self.used.load(Relaxed).saturating_add(ran), Relaxed);
    }

    /// Called from within a poll, at a tick: what has been used so far. Switches to the exact clock.
    pub fn tick(&self) -> Duration {
        self.leave();
        self.exact.store(true, Relaxed);
        self.enter();
        self.used()
    }

    /// What polls that have ended used.
    pub fn used(&self) -> Duration {
        Duration::from_nanos(self.used.load(Relaxed))
    }

    fn now(&self) -> u64 {
        if self.exact.load(Relaxed) {
            let now = clock_gettime(ClockId::ThreadCPUTime);
            now.tv_sec as u64 * 1_000_000_000 + now.tv_nsec as u64
        } else {
            self.origin.elapsed().as_nanos() as u64
        }
    }
}
