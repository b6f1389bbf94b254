//! Who starts now, who waits, and who is told to come back later.
//!
//! Every worker has a [`Lane`]: how many of its invocations may run, and a bounded line of those that
//! wait, ordered by what their capability bids and then by whose deadline is nearest. [`Admission`]
//! adds what all workers share: the host's own slots and its memory. A call that finds room while
//! nobody waits takes it with two atomics, mostly its thread's own; the mutex is for those who wait. What an invocation does,
//! and which worker serves it, must not enter this room.
//!
//! No wake-up is lost: who waits first says so (in `Lane::queued` and `contended`) and looks for room
//! then; who ends first gives back its slots and looks for waiters then.

mod lane;
mod queue;

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::time::timeout_at;

use crate::error::{Code, Failure};
use crate::striped::Quota;

pub use lane::{Lane, Service};

use queue::{Queue, Rank, Reason, Verdict};

/// Slots that a thread keeps at hand, at the most.
const AT_HAND: u64 = 4;

/// What the workers of a host share.
pub struct Admission {
    slots: Quota,
    /// For calls that workers make of each other.
    nested: Quota,
    /// Somebody waits though its worker has a free slot: for one of the host, or for memory. Only then
    /// do other workers' calls come to the queue.
    contended: AtomicBool,
    memory_high: Box<dyn Fn() -> bool + Send + Sync>,
    queue: Mutex<Queue>,
}

/// The right to run one invocation, until it is dropped.
#[must_use = "dropping it gives the slot back"]
pub struct Permit<'a> {
    admission: &'a Admission,
    lane: &'a Lane,
    began: Instant,
    waited: Duration,
    is_nested: bool,
}

impl Admission {
    /// Lets so many invocations run at once. While `memory_high` says that the host is short of
    /// memory, a worker may start one only if it has none in flight.
    pub fn new(limit: usize, memory_high: impl Fn() -> bool + Send + Sync + 'static) -> Self {
        Self {
            slots: slots(limit.max(1)),
            nested: slots(usize::MAX),
            contended: AtomicBool::new(false),
            memory_high: Box::new(memory_high),
            queue: Mutex::default(),
        }
    }

    /// The same, with so many invocations at once beside them for calls that workers make of each other.
    #[must_use]
    pub fn with_reserve(self, reserve: usize) -> Self {
        Self {
            nested: slots(reserve),
            ..self
        }
    }

    /// Invocations that run now, but for nested ones.
    pub fn in_flight(&self) -> usize {
        usize::try_from(self.slots.used()).unwrap_or(usize::MAX)
    }

    /// A permit, now or after waiting in the worker's line; a higher bid waits less. Dropping the
    /// future leaves the line at once.
    ///
    /// # Errors
    ///
    /// `overloaded`, with when to come back: the line is full of those who bid more or have less time,
    /// or the answer would come too late. `deadline`: it has passed already.
    pub async fn admit<'a>(
        &'a self,
        lane: &'a Arc<Lane>,
        bid: f64,
        deadline: Instant,
    ) -> Result<Permit<'a>, Failure> {
        let now = Instant::now();
        if deadline <= now {
            let message = "the deadline passed before the worker could start";
            return Err(Failure::new(Code::Deadline, message));
        }
        if lane.queued() == 0 && !self.contended.load(SeqCst) && self.take(lane) {
            return Ok(self.permit(lane, now, now));
        }
        match self.wait(lane, bid, deadline).await {
            Verdict::Start(began) => Ok(self.permit(lane, now, began)),
            Verdict::Refuse(reason) => Err(lane.refuse(reason)),
        }
    }

    /// A permit for a call that a running invocation makes. It takes no slot of the host and waits for
    /// none of the worker's: those may be held by the very ones who wait for it.
    ///
    /// # Errors
    ///
    /// `overloaded`: the host has no more room for such calls.
    pub fn admit_nested<'a>(&'a self, lane: &'a Lane) -> Result<Permit<'a>, Failure> {
        if !self.nested.take(1) {
            return Err(lane.refuse(Reason::Nested));
        }
        lane.enter();
        let now = Instant::now();
        let mut permit = self.permit(lane, now, now);
        permit.is_nested = true;
        Ok(permit)
    }

    async fn wait(&self, lane: &Arc<Lane>, bid: f64, deadline: Instant) -> Verdict {
        let mut waiting = self.enqueue(lane, bid, deadline);
        // Who is late is told before the deadline: there may be time to ask elsewhere.
        let mut until = lane.last_start(deadline);
        loop {
            if let Ok(Ok(verdict)) = timeout_at(until.into(), &mut waiting.verdict).await {
                return verdict;
            }
            if lane.is_late(deadline, Instant::now(), 0) {
                return waiting.give_up();
            }
            until = deadline;
        }
    }

    fn enqueue<'a>(&'a self, lane: &'a Arc<Lane>, bid: f64, deadline: Instant) -> Waiting<'a> {
        let (decided, verdict) = oneshot::channel();
        let mut queue = self.queue();
        let rank = queue.join(lane, bid, deadline, decided);
        self.dispatch(&mut queue);
        queue.shed(lane, rank);
        drop(queue);
        Waiting {
            admission: self,
            lane,
            rank,
            verdict,
        }
    }

    /// Starts whoever may start, best first.
    fn dispatch(&self, queue: &mut Queue) {
        // From here on, who gives back a slot of the host comes to the mutex.
        self.contended.store(true, SeqCst);
        let now = Instant::now();
        while let Some(next) = queue.best(|lane| lane.has_room(self.most(lane))) {
            if next.lane().is_late(next.deadline(), now, 0) {
                next.decide(Verdict::Refuse(Reason::Late));
            } else if self.take(next.lane()) {
                next.decide(Verdict::Start(now));
            } else {
                break;
            }
        }
        let contended = queue.waits_for_more_than_its_lane();
        self.contended.store(contended, SeqCst);
    }

    /// A slot of the worker and one of the host, or neither.
    fn take(&self, lane: &Lane) -> bool {
        if !lane.take(self.most(lane)) {
            return false;
        }
        let took = self.slots.take(1);
        if !took {
            // Whoever took the slot for taken is looked after by the dispatch that follows.
            lane.give_back();
        }
        took
    }

    /// How many invocations of a worker may run at this moment.
    fn most(&self, lane: &Lane) -> usize {
        if (self.memory_high)() {
            1
        } else {
            lane.limit()
        }
    }

    fn release(&self, lane: &Lane, slots: &Quota) {
        lane.give_back();
        slots.give(1);
        if lane.queued() > 0 || self.contended.load(SeqCst) {
            self.dispatch(&mut self.queue());
        }
    }

    fn permit<'a>(&'a self, lane: &'a Lane, asked: Instant, began: Instant) -> Permit<'a> {
        Permit {
            admission: self,
            lane,
            began,
            waited: began.saturating_duration_since(asked),
            is_nested: false,
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        // Nothing panics while it is held, and the queue is whole at any line.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Permit<'_> {
    /// How long it was waited for.
    pub fn waited(&self) -> Duration {
        self.waited
    }
}

impl Drop for Permit<'_> {
    fn drop(&mut self) {
        let now = Instant::now();
        self.lane
            .record(now.saturating_duration_since(self.began), now);
        let admission = self.admission;
        let slots = match self.is_nested {
            true => &admission.nested,
            false => &admission.slots,
        };
        admission.release(self.lane, slots);
    }
}

/// A place in a line. Dropping it leaves the line; a slot that was given to it at that very moment goes
/// to the next.
struct Waiting<'a> {
    admission: &'a Admission,
    lane: &'a Arc<Lane>,
    rank: Rank,
    verdict: oneshot::Receiver<Verdict>,
}

impl Waiting<'_> {
    /// It is too late: what was decided meanwhile, else a refusal.
    fn give_up(mut self) -> Verdict {
        let late = Verdict::Refuse(Reason::Late);
        if self.admission.queue().leave(self.lane, self.rank) {
            return late;
        }
        self.verdict.try_recv().unwrap_or(late)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        // Verdicts are sent under the mutex: who is not in line any more has one, or took it.
        let left = self.admission.queue().leave(self.lane, self.rank);
        if !left && let Ok(Verdict::Start(_)) = self.verdict.try_recv() {
            let admission = self.admission;
            admission.release(self.lane, &admission.slots);
        }
    }
}

/// So many slots.
fn slots(count: usize) -> Quota {
    Quota::new(count as u64, AT_HAND)
}
