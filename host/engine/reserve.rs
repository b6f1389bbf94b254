//! The second thread of a host on a single core, out of the way while it is not needed.
//!
//! Two threads on one core take turns of some milliseconds, which callers of short calls wait for. But a guest that
//! computes for long must not hold up all others, so there have to be two. So the second is held back while
//! every call is short: by a task that keeps it from looking for work.

use std::future::poll_fn;
use std::sync::{Condvar, Mutex, PoisonError};
use std::task::Poll;
use std::time::Duration;

use tokio::sync::Notify;

use crate::outbox;

/// What this thread was about to do when it was held back, and the other had no time to take from it, waits for so long.
const LONGEST: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub struct Reserve {
    held: Mutex<bool>,
    changed: Condvar,
    holding: Notify,
}

impl Reserve {
    /// Whether a thread is held back from now on.
    pub fn hold(&self, hold: bool) {
        let mut held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
        if std::mem::replace(&mut *held, hold) == hold {
            return;
        }
        drop(held);
        self.changed.notify_all();
        if hold {
            self.holding.notify_one();
        }
    }

    /// Holds the thread back that this runs on, whenever one is to be. `polls` is how often it has polled a guest.
    pub async fn keep(&self, polls: impl Fn() -> u64) {
        let mut seen = None;
        loop {
            while !self.is_held() {
                self.holding.notified().await;
            }
            let polls = Some(polls());
            // Nobody stood behind this when it was woken.
            if std::mem::replace(&mut seen, polls) == polls {
                outbox::send();
                let held = self.held.lock().unwrap_or_else(PoisonError::into_inner);
                drop(self.changed.wait_timeout_while(held, LONGEST, |held| *held));
            }
            stand_behind().await;
        }
    }

    fn is_held(&self) -> bool {
        *self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Ready when this thread has run what is ready now.
async fn stand_behind() {
    let mut woken = false;
    poll_fn(|context| {
        if std::mem::replace(&mut woken, true) {
            return Poll::Ready(());
        }
        // Unlike `yield_now`, of which tokio runs first what it woke last.
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
