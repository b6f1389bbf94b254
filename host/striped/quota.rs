//! So much of something that all threads take from and give back to.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};
use std::sync::{Mutex, PoisonError};

use crossbeam_utils::CachePadded;

use super::Striped;

/// A bounded amount. What a thread gives back it keeps at hand, up to a bound, and takes again where no other thread
/// writes. Before anyone is refused, all that lies at hand is gathered.
#[derive(Debug)]
pub struct Quota {
    limit: u64,
    /// What a thread keeps at hand, at most.
    keep: u64,
    /// What is in use or at hand.
    taken: CachePadded<AtomicU64>,
    at_hand: Striped<AtomicU64>,
    /// Held while what lies at hand goes back: meanwhile it is nowhere.
    gathering: Mutex<()>,
}

impl Quota {
    /// So much; threads keep at hand no more than `keep` each, and all of them together no more than a quarter.
    pub fn new(limit: u64, keep: u64) -> Self {
        let at_hand = Striped::default();
        Self {
            limit,
            keep: keep.min(limit / 4 / at_hand.len() as u64),
            taken: CachePadded::default(),
            at_hand,
            gathering: Mutex::default(),
        }
    }

    /// All there is.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// What is in use.
    pub fn used(&self) -> u64 {
        // Between the two somebody may gather what is at hand.
        let taken = self.taken.load(SeqCst);
        taken.saturating_sub(self.at_hand.sum(|at_hand| at_hand))
    }

    /// What is in use at the most: it may be less. For who asks often.
    pub fn used_at_most(&self) -> u64 {
        self.taken.load(SeqCst)
    }

    /// Takes so much, if it is there.
    pub fn take(&self, amount: u64) -> bool {
        let less = |at_hand: u64| at_hand.checked_sub(amount);
        let at_hand = self.at_hand.mine();
        (self.keep > 0 && at_hand.fetch_update(SeqCst, SeqCst, less).is_ok())
            || self.raise(amount, self.limit)
            || self.take_within(amount, self.limit)
    }

    /// Takes so much, if no more than `most` is in use then.
    pub fn take_within(&self, amount: u64, most: u64) -> bool {
        self.gathered(|| self.raise(amount, most.min(self.limit)))
    }

    /// Takes so much, whatever the limit.
    pub fn take_beyond(&self, amount: u64) {
        self.taken.fetch_add(amount, SeqCst);
    }

    /// Whether so much could be taken now while no more than `most` were in use.
    pub fn has(&self, amount: u64, most: u64) -> bool {
        let room = || self.taken.load(SeqCst).saturating_add(amount) <= most.min(self.limit);
        room() || self.gathered(room)
    }

    /// Gives back what was taken.
    pub fn give(&self, amount: u64) {
        let more = |at_hand: u64| at_hand.checked_add(amount).filter(|all| *all <= self.keep);
        let at_hand = self.at_hand.mine();
        // What was taken beyond the limit is not for others to take.
        let kept = self.keep > 0
            && self.taken.load(SeqCst) <= self.limit
            && at_hand.fetch_update(SeqCst, SeqCst, more).is_ok();
        if !kept {
            self.taken.fetch_sub(amount, SeqCst);
        }
    }

    fn raise(&self, amount: u64, most: u64) -> bool {
        let more = |taken: u64| taken.checked_add(amount).filter(|all| *all <= most);
        self.taken.fetch_update(SeqCst, SeqCst, more).is_ok()
    }

    /// Does it while nothing lies at hand but what is given back meanwhile.
    fn gathered<T>(&self, then: impl FnOnce() -> T) -> T {
        let _gathering = self
            .gathering
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if self.keep > 0 {
            for at_hand in self.at_hand.iter() {
                self.taken.fetch_sub(at_hand.swap(0, SeqCst), SeqCst);
            }
        }
        then()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;
    use std::thread;

    use super::*;

    #[test]
    fn never_more_than_all_is_in_use_and_whatever_lies_at_hand_is_there_for_who_needs_it() {
        const LIMIT: u64 = 256;
        let (quota, in_use) = (Quota::new(LIMIT, 4), AtomicU64::new(0));
        let refused = AtomicUsize::new(0);
        thread::scope(|scope| {
            for thread in 0..8 {
                let (quota, in_use, refused) = (&quota, &in_use, &refused);
                scope.spawn(move || {
                    for turn in 0..20_000_u64 {
                        // Now little, so that much lies at hand, now so much that there is not enough for all.
                        let amount = if turn % 64 == thread { 60 } else { 1 };
                        if !quota.take(amount) {
                            refused.fetch_add(1, SeqCst);
                            continue;
                        }
                        assert!(in_use.fetch_add(amount, SeqCst) + amount <= LIMIT);
                        in_use.fetch_sub(amount, SeqCst);
                        quota.give(amount);
                    }
                });
            }
        });
        println!("{refused:?} of 160,000 refused");
        assert_eq!(quota.used(), 0);
        assert!(quota.used_at_most() > 0, "nothing lies at hand");
        assert!(quota.has(LIMIT, LIMIT) && quota.take(LIMIT));
        assert!(!quota.take(1) && !quota.has(1, LIMIT));
    }

    #[test]
    fn what_was_taken_beyond_the_limit_is_nobody_elses() {
        let quota = Quota::new(64, 1);
        assert!(quota.take(64));
        quota.take_beyond(1);
        quota.give(1);
        assert_eq!(quota.used(), 64);
        assert!(!quota.take(1));
        quota.give(1);
        assert!(quota.take_within(1, 64) && !quota.take_within(1, 10));
    }
}
