//! What an invocation's buffers take: counted before they are made, given back when nobody needs them.
//!
//! Two sums, since a GPU may still work with what its guest has let go of: the guest is refused by what it
//! holds itself, which is the same in every run, and waits for what the GPU still needs.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::limits::Held;

/// The memory of a GPU that one invocation may have.
pub struct Account {
    limit: u64,
    sums: Mutex<Sums>,
    /// Something has left the GPU.
    freed: Notify,
}

/// In bytes.
#[derive(Default)]
struct Sums {
    /// What the guest holds, and the most that it held.
    held: u64,
    peak: u64,
    /// What is on the GPU.
    there: u64,
}

/// What was taken for a buffer that is to be made.
#[cfg_attr(not(feature = "gpu"), allow(dead_code))]
pub struct Paid {
    pub(super) own: Own,
    pub(super) backing: Backing,
}

/// What a guest holds, until it lets go of it.
pub(super) struct Own(Arc<Account>, u64);

/// What memory on a GPU is charged to, for as long as it is there. A clone is for the same memory.
#[derive(Clone, Default)]
pub(super) struct Backing {
    _there: Option<Arc<There>>,
    /// The host's memory, where the GPU has none of its own.
    host: Option<Arc<Held>>,
}

struct There(Arc<Account>, u64);

impl Account {
    /// An empty account with a limit in bytes.
    pub fn new(limit: u64) -> Arc<Self> {
        Arc::new(Self {
            limit,
            sums: Mutex::default(),
            freed: Notify::new(),
        })
    }

    /// Takes so many bytes, perhaps after what was let go of has left the GPU; nothing, if there would never
    /// be so many.
    pub async fn take(self: &Arc<Self>, bytes: u64) -> Option<Paid> {
        loop {
            // Made before the sums are looked at: it then misses nothing.
            let freed = self.freed.notified();
            {
                let mut sums = self.sums();
                if sums.held.saturating_add(bytes) > self.limit {
                    return None;
                }
                if sums.there.saturating_add(bytes) <= self.limit {
                    sums.held += bytes;
                    sums.there += bytes;
                    sums.peak = sums.peak.max(sums.held);
                    return Some(Paid {
                        own: Own(self.clone(), bytes),
                        backing: Backing {
                            _there: Some(Arc::new(There(self.clone(), bytes))),
                            host: None,
                        },
                    });
                }
            }
            freed.await;
        }
    }

    /// Bytes that the guest may still take.
    pub fn left(&self) -> u64 {
        self.limit.saturating_sub(self.sums().held)
    }

    /// The most bytes that the guest held.
    pub fn peak(&self) -> u64 {
        self.sums().peak
    }

    fn sums(&self) -> MutexGuard<'_, Sums> {
        self.sums.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Paid {
    /// The same in the host's memory, which is charged too.
    #[must_use]
    pub fn in_host(mut self, held: Held) -> Self {
        self.backing.host = Some(Arc::new(held));
        self
    }
}

impl Backing {
    /// The same for memory that no invocation pays for.
    #[cfg(feature = "gpu")]
    pub fn without_account(&self) -> Self {
        Self {
            _there: None,
            host: self.host.clone(),
        }
    }
}

impl Drop for Own {
    fn drop(&mut self) {
        self.0.sums().held -= self.1;
    }
}

impl Drop for There {
    fn drop(&mut self) {
        self.0.sums().there -= self.1;
        self.0.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    #[test]
    fn what_a_guest_holds_refuses_and_what_the_gpu_still_needs_is_waited_for() {
        let account = Account::new(100);
        let take = |bytes| account.take(bytes).now_or_never();
        let first = take(60).expect("at once").expect("there is room");
        assert!(take(41).expect("at once").is_none());
        assert!(take(u64::MAX).expect("at once").is_none());
        let Paid { own, backing } = first;
        drop(own);
        assert_eq!((account.left(), account.peak()), (100, 60));
        // The guest has let go of it, the GPU has not.
        let mut waits = Box::pin(account.take(41));
        assert!((&mut waits).now_or_never().is_none());
        drop(backing);
        assert!(waits.now_or_never().expect("at once").is_some());
        assert_eq!((account.left(), account.peak()), (100, 60));
    }
}
