//! What many threads count at once. Each thread has a stripe of its own, and who reads adds them up: an addition to
//! what another core has just written waits for its cache line, some dozen nanoseconds within a processor and
//! hundreds between two.
//!
//! What is counted must not enter this room.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

use crossbeam_utils::CachePadded;

use crate::machine::cores;

/// Stripes at most: of more threads some share one.
const MOST: usize = 16;

/// One value for each thread that writes, or for few of them.
#[derive(Debug)]
pub struct Striped<T>(Box<[CachePadded<T>]>);

impl<T: Default> Default for Striped<T> {
    fn default() -> Self {
        // A runtime has some threads more than there are cores.
        let stripes = (cores() + 2).next_power_of_two().min(MOST);
        Self((0..stripes).map(|_| CachePadded::default()).collect())
    }
}

impl<T> Striped<T> {
    /// The stripe of this thread.
    pub fn mine(&self) -> &T {
        &self.0[thread() % self.0.len()]
    }

    /// All stripes.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.0.iter().map(|stripe| &**stripe)
    }

    /// What all stripes have counted together.
    pub fn sum(&self, count: impl Fn(&T) -> &AtomicU64) -> u64 {
        self.iter().map(|stripe| count(stripe).load(Relaxed)).sum()
    }
}

/// A number of this thread's own.
pub fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Relaxed);
    }
    NUMBER.with(|number| *number)
}
