//! Memory: what one invocation takes, and what all of them take together.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::Stop;
use crate::striped::{Handle, Quota};

/// Bytes of one table element: a pointer, on the 64-bit hosts that wasmtime runs on.
const TABLE_ELEMENT: u64 = 8;
/// Meters take from the budget in steps of so many bytes, so that a short call touches what all cores
/// share twice and not at each of its memories and tables.
const STEP: u64 = 256 << 10;
/// Bytes that a thread keeps at hand, at the most: what a short call takes.
const AT_HAND: u64 = 16 << 20;

/// The memory that all invocations of this host may take together, in bytes.
#[derive(Debug)]
pub struct Budget(Quota);

impl Budget {
    /// So many bytes, none of them taken.
    pub fn new(limit: u64) -> Self {
        Self(Quota::new(limit, AT_HAND))
    }

    /// The most that may be taken, in bytes.
    pub fn limit(&self) -> u64 {
        self.0.limit()
    }

    /// What is taken, in bytes.
    pub fn used(&self) -> u64 {
        self.0.used()
    }

    /// Past the high-water mark, nine tenths: who starts now may have to end for want of memory.
    pub fn is_high(&self) -> bool {
        let high = self.limit() / 10 * 9;
        // For each call: mostly a look at what seldom changes.
        self.0.used_at_most() > high && self.used() > high
    }

    /// Takes so many bytes, given back when what it returns is dropped. `None` if they are not there.
    pub fn hold(self: &Arc<Self>, bytes: u64) -> Option<Held> {
        self.take(bytes).then(|| Held::Host(self.clone(), bytes))
    }

    fn take(&self, bytes: u64) -> bool {
        self.0.take(bytes)
    }

    fn give(&self, bytes: u64) {
        self.0.give(bytes);
    }
}

/// Bytes of host memory that are charged to someone for as long as this lives.
#[derive(Debug)]
pub enum Held {
    /// To the host's budget alone: the invocation may be over.
    Host(Arc<Budget>, u64),
    /// To one invocation, and through it to the budget.
    Invocation(Arc<AtomicU64>, u64),
}

impl Drop for Held {
    fn drop(&mut self) {
        match self {
            Held::Host(budget, bytes) => budget.give(*bytes),
            Held::Invocation(outside, bytes) => {
                outside.fetch_sub(*bytes, Relaxed);
            }
        }
    }
}

/// The memory account of one invocation: its memories and tables, and what the host keeps for it. What
/// it has is taken from the host's budget, and given back when it is dropped.
#[derive(Debug)]
pub struct Meter {
    limit: u64,
    used: u64,
    peak: u64,
    /// The charge of the grow under way, given back if the grow fails.
    last: u64,
    /// What the host keeps outside of the instance and gives back when it likes.
    outside: Option<Arc<AtomicU64>>,
    budget: Handle<Budget>,
    /// What has been taken from the budget: at least `used` and `outside`.
    taken: u64,
}

impl Meter {
    /// An empty account with a limit in bytes, on a host's budget.
    pub fn new(limit: u64, budget: Handle<Budget>) -> Self {
        Self {
            limit,
            used: 0,
            peak: 0,
            last: 0,
            outside: None,
            budget,
            taken: 0,
        }
    }

    /// The host's memory, of which this is a part.
    pub fn budget(&self) -> &Arc<Budget> {
        self.budget.whole()
    }

    /// The highest number of bytes that were charged at one time.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Charges host memory that lives as long as the invocation.
    ///
    /// # Errors
    ///
    /// The invocation's limit or the host's budget does not allow it; nothing is charged then.
    pub fn charge(&mut self, bytes: u64) -> Result<(), Stop> {
        self.cover(bytes)?;
        self.used += bytes;
        Ok(())
    }

    /// Charges host memory until what it returns is dropped.
    ///
    /// # Errors
    ///
    /// As [`Meter::charge`].
    pub fn hold(&mut self, bytes: u64) -> Result<Held, Stop> {
        self.cover(bytes)?;
        let outside = self.outside.get_or_insert_default();
        outside.fetch_add(bytes, Relaxed);
        Ok(Held::Invocation(outside.clone(), bytes))
    }

    /// Makes sure that there is room for so many bytes more.
    fn cover(&mut self, more: u64) -> Result<(), Stop> {
        let outside = self.outside.as_ref().map_or(0, |held| held.load(Relaxed));
        let total = self.used.saturating_add(outside).saturating_add(more);
        if total > self.limit {
            return Err(Stop::Memory);
        }
        if total > self.taken {
            let step = total.next_multiple_of(STEP) - self.taken;
            if !self.budget.take(step) {
                return Err(Stop::Budget);
            }
            self.taken += step;
        }
        self.peak = self.peak.max(total);
        Ok(())
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
        // An error and not `false`: the guest would see -1 and could make anything of it.
        self.charge(bytes)?;
        self.last = bytes;
        Ok(true)
    }

    fn refund(&mut self) {
        self.used -= self.last;
        self.last = 0;
        let outside = self.outside.as_ref().map_or(0, |held| held.load(Relaxed));
        let needed = (self.used + outside).next_multiple_of(STEP);
        self.budget.give(self.taken.saturating_sub(needed));
        self.taken = self.taken.min(needed);
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.budget.give(self.taken);
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
