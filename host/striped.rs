//! What many threads write at once: counters, counts of references, bounded amounts. Each thread has a stripe of its
//! own, and who reads adds them up: an addition to what another core has just written waits for its cache line, some
//! dozen nanoseconds within a processor and hundreds between two.
//!
//! What is counted, referred to or bounded must not enter this room.

mod quota;

use std::fmt;
use std::ops::Deref;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};

use crossbeam_utils::CachePadded;

pub use quota::Quota;

/// Stripes at most: of more threads some share one.
const MOST: usize = 16;

/// One value for each thread that writes, or for few of them.
#[derive(Debug)]
pub struct Striped<T>(Box<[CachePadded<T>]>);

impl<T: Default> Default for Striped<T> {
    fn default() -> Self {
        (0..stripes()).map(|_| T::default()).collect()
    }
}

/// For values made for each stripe of another, in their order.
impl<T> FromIterator<T> for Striped<T> {
    fn from_iter<I: IntoIterator<Item = T>>(values: I) -> Self {
        Self(values.into_iter().map(CachePadded::new).collect())
    }
}

impl<T> Striped<T> {
    /// The stripe of this thread.
    pub fn mine(&self) -> &T {
        &self.0[thread() % self.0.len()]
    }

    /// A value for each stripe.
    ///
    /// # Errors
    ///
    /// One could not be made.
    pub fn each<E>(mut make: impl FnMut() -> Result<T, E>) -> Result<Self, E> {
        (0..stripes()).map(|_| make()).collect()
    }

    /// How many stripes there are.
    fn len(&self) -> usize {
        self.0.len()
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

/// A value that every call needs a reference to: each thread takes its own handle, and counts references where no
/// other does.
#[derive(Debug)]
pub struct Shared<T: ?Sized>(Arc<[Handle<T>]>);

/// A reference to a value, counted among those of the thread that took it.
pub struct Handle<T: ?Sized>(Arc<CachePadded<Arc<T>>>);

impl<T: ?Sized> From<Arc<T>> for Shared<T> {
    fn from(value: Arc<T>) -> Self {
        Self((0..stripes()).map(|_| value.clone().into()).collect())
    }
}

impl<T: ?Sized> Shared<T> {
    /// A handle of this thread.
    pub fn handle(&self) -> Handle<T> {
        self.0[thread() % self.0.len()].clone()
    }

    /// The value, for who keeps it.
    pub fn whole(&self) -> &Arc<T> {
        self.0[0].whole()
    }
}

impl<T: ?Sized> Clone for Shared<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for Shared<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.whole()
    }
}

impl<T: ?Sized> From<Arc<T>> for Handle<T> {
    fn from(value: Arc<T>) -> Self {
        Self(Arc::new(CachePadded::new(value)))
    }
}

impl<T: ?Sized> Handle<T> {
    /// The value, for who keeps it.
    pub fn whole(&self) -> &Arc<T> {
        &self.0
    }
}

impl<T: ?Sized> Clone for Handle<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T: ?Sized> Deref for Handle<T> {
    type Target = T;

    fn deref(&self) -> &T {
        self.whole()
    }
}

impl<T: ?Sized + fmt::Display> fmt::Display for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole().fmt(f)
    }
}

impl<T: ?Sized + fmt::Debug> fmt::Debug for Handle<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.whole().fmt(f)
    }
}

/// Cores that this process may use: asked once, since the kernel tells it in several files.
pub fn cores() -> usize {
    static CORES: OnceLock<usize> = OnceLock::new();
    *CORES.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from))
}

/// How many there are: a runtime has some threads more than there are cores.
fn stripes() -> usize {
    (cores() + 2).next_power_of_two().min(MOST)
}

/// A number of this thread's own.
pub fn thread() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static NUMBER: usize = NEXT.fetch_add(1, Relaxed);
    }
    NUMBER.with(|number| *number)
}
