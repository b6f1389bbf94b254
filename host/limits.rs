//! What one invocation may use, and what it has used.
//!
//! `Limits` come from a capability's constraints and the operator's defaults. A `Meter` sits in the
//! invocation's Store and is asked at every `memory.grow` and `table.grow`; a `CpuClock` counts time
//! spent running. No clock here knows tokio, and nothing but the `ResourceLimiter` impl knows wasmtime.

use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rustix::time::{ClockId, clock_gettime};

/// What one invocation may use.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes over all memories and tables of the instance.
    pub memory: u64,
    /// Wall-clock time, waiting in host calls included.
    pub wall: Duration,
    /// Time spent running.
    pub cpu: Duration,
    /// Bytes that the worker may hand the host at once: its answer, one event, one log line.
    pub output: usize,
    /// Bytes in the invocation's /tmp; none: there is no /tmp.
    pub storage: u64,
    /// Files, directories and links in it.
    pub files: u64,
}

/// What one invocation has used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// From an empty Store to an instance.
    pub start: Duration,
    /// From the instance to its answer, waiting in host calls included.
    pub run: Duration,
    /// Time spent running, of `start` and `run` together.
    pub cpu: Duration,
    /// The highest number of bytes in memories and tables.
    pub memory_peak: u64,
    /// The highest number of bytes in /tmp, in whole blocks.
    pub storage_peak: u64,
}

/// The limit that ended an invocation. It travels through the guest's stack as a typed error, so that
/// whatever the guest makes of it, the reason arrives whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stop {
    /// A grow beyond `Limits::memory`.
    Memory,
    /// More time running than `Limits::cpu`.
    Cpu,
    /// The wall-clock deadline.
    Deadline,
    /// Something handed to the host that is longer than the contract allows.
    Output,
    /// More in /tmp than `Limits::storage` or `Limits::files`.
    Storage,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Stop::Memory => "memory limit reached",
            Stop::Cpu => "cpu limit reached",
            Stop::Deadline => "deadline passed",
            Stop::Output => "output limit reached",
            Stop::Storage => "storage limit reached",
        })
    }
}

impl std::error::Error for Stop {}

/// The memory account of one invocation, over all its memories and tables.
#[derive(Debug)]
pub struct Meter {
    limit: u64,
    used: u64,
    peak: u64,
    /// The charge of the grow under way, given back if the grow fails.
    last: u64,
}

/// Bytes of one table element: a pointer, on the 64-bit hosts that wasmtime runs on.
const TABLE_ELEMENT: u64 = 8;

impl Meter {
    /// An empty account with a limit in bytes.
    pub fn new(limit: u64) -> Self {
        Self {
            limit,
            used: 0,
            peak: 0,
            last: 0,
        }
    }

    /// The highest number of bytes that were charged at one time.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Asked before a memory or table grows; `unit` is the bytes of what the sizes count.
    fn growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
        unit: u64,
    ) -> wasmtime::Result<bool> {
        self.last = 0;
        // The module's own maximum refuses first and costs nothing.
        if maximum.is_some_and(|maximum| desired > maximum) {
            return Ok(false);
        }
        let bytes = (desired.saturating_sub(current) as u64).saturating_mul(unit);
        let used = self.used.saturating_add(bytes);
        if used > self.limit {
            // An error and not `false`: the guest would see -1 and could make anything of it.
            return Err(wasmtime::Error::from(Stop::Memory));
        }
        self.used = used;
        self.last = bytes;
        self.peak = self.peak.max(used);
        Ok(true)
    }

    fn refund(&mut self) {
        self.used -= self.last;
        self.last = 0;
    }
}

impl wasmtime::ResourceLimiter for Meter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growing(current, desired, maximum, 1)
    }

    fn memory_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund();
        Ok(())
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        self.growing(current, desired, maximum, TABLE_ELEMENT)
    }

    fn table_grow_failed(&mut self, _error: wasmtime::Error) -> wasmtime::Result<()> {
        self.refund();
        Ok(())
    }
}

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
    /// A clock that has counted nothing.
    pub fn new() -> Self {
        Self {
            origin: Instant::now(),
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

impl Default for CpuClock {
    fn default() -> Self {
        Self::new()
    }
}
