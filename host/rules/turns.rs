//! Turns to ask the policy: so many at once, first come first served, and no caller has more than a part of them.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Turns at once.
const TURNS: usize = 4;
/// Of these, those that one caller has at most or waits for: however many questions somebody has, another
/// stands behind two of them.
const OWN: usize = 2;

/// A caller, as far as the host knows: those that it does not are one.
type Who = Option<Box<str>>;

pub(super) struct Turns {
    all: Arc<Semaphore>,
    callers: Arc<Callers>,
}

/// Those who have a turn or wait for one: how many they are of each caller, and the caller's own turns.
#[derive(Default)]
struct Callers(Mutex<HashMap<Who, (usize, Arc<Semaphore>)>>);

/// A turn, until dropped.
pub(super) struct Turn {
    /// `None` were a semaphore that is closed, and none is.
    _turns: [Option<OwnedSemaphorePermit>; 2],
    _place: Place,
}

/// A place among those of its caller, until dropped.
struct Place {
    callers: Arc<Callers>,
    who: Who,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            all: Arc::new(Semaphore::new(TURNS)),
            callers: Arc::default(),
        }
    }
}

impl Turns {
    /// Waits for a turn. Who stops waiting leaves nothing behind.
    pub async fn take(&self, who: Option<&str>) -> Turn {
        let who: Who = who.map(Into::into);
        let own = {
            let mut callers = self.callers.lock();
            let new = || (0, Arc::new(Semaphore::new(OWN)));
            let (places, own) = callers.entry(who.clone()).or_insert_with(new);
            *places += 1;
            own.clone()
        };
        let callers = self.callers.clone();
        let place = Place { callers, who };
        let own = own.acquire_owned().await.ok();
        let all = self.all.clone().acquire_owned().await.ok();
        Turn {
            _turns: [all, own],
            _place: place,
        }
    }
}

impl Callers {
    fn lock(&self) -> MutexGuard<'_, HashMap<Who, (usize, Arc<Semaphore>)>> {
        // Each change is a number's.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut callers = self.callers.lock();
        if let Some((places, _)) = callers.get_mut(&self.who) {
            *places -= 1;
            if *places == 0 {
                callers.remove(&self.who);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn a_caller_has_two_turns_and_the_others_have_the_rest() {
        let turns = Turns::default();
        let now = |who: &str| turns.take(Some(who)).now_or_never();
        let held = [now("eve"), now("eve")];
        assert!(held.iter().all(Option::is_some));
        assert!(now("eve").is_none(), "a third has to wait");
        let mut waiting: Vec<_> = (0..100)
            .map(|_| Box::pin(turns.take(Some("eve"))))
            .collect();
        for wait in &mut waiting {
            assert!(wait.now_or_never().is_none());
        }
        let ada = now("ada").expect("nobody of hers is before her");
        let bob = now("bob").expect("nor of his");
        assert!(now("tom").is_none(), "there are four");
        drop(ada);
        assert!(now("tom").is_some());
        drop((bob, held));
        // They have their turns one after the other, and nothing is left of anybody.
        for wait in waiting {
            assert!(wait.now_or_never().is_some());
        }
        assert!(turns.callers.lock().is_empty());
    }
}
