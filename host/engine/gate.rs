//! The fair gate: who computes when more guests want to than there are cores.
//!
//! Workers compete by weight (`cpu_shares`), as under Linux's completely fair scheduler: each has a
//! virtual runtime, which grows with the CPU time that its invocations use divided by its weight, and
//! the worker with the least goes first. An invocation that computes beyond its free ticks needs a
//! token. There are fewer tokens than threads, so that short calls and the host's own work always
//! find a thread.
//!
//! One mutex guards it. Only invocations beyond their free ticks take it, every few milliseconds
//! each; a short call adds what it used to an atomic and never sees it.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::TICK;
use crate::striped::{Handle, Shared, Striped};

/// Ticks that an invocation may run before it needs a token. Of the invocation and not of each poll:
/// a guest that computes in bursts between host calls would evade that.
const FREE_TICKS: u32 = 2;
/// Ticks that a token is good for before a worker with less virtual runtime may have it.
const QUANTUM_TICKS: u32 = 4;
/// The same as CPU time in nanoseconds: paid when the token is granted, settled when it comes back.
const QUANTUM: i64 = TICK.as_nanos() as i64 * QUANTUM_TICKS as i64;
/// How far behind the others a worker may come back after it has waited for something else: idling
/// saves up no turn that would starve them.
const LAG: i64 = 2 * QUANTUM;
/// What a worker pays at most for CPU time that it used without a token: its short calls may have run
/// up hours of it while nobody else wanted to compute.
const MAX_DEBT: i64 = 25 * QUANTUM;
/// The weight of a worker that declares none, as in cgroups. Virtual runtime is in nanoseconds of a
/// worker of this weight.
pub const DEFAULT_WEIGHT: u32 = 1024;

/// Hands out tokens.
pub struct Gate {
    /// Nobody needs a token.
    open: bool,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    free: usize,
    places: Vec<Option<Place>>,
    /// The least virtual runtime among workers that want to compute. Never goes back.
    clock: i64,
}

/// One worker.
struct Place {
    weight: i64,
    runtime: i64,
    holding: usize,
    waiting: VecDeque<Arc<Seat>>,
}

/// A worker's share of the CPU. Dropping it gives up its place.
pub struct Share {
    gate: Arc<Gate>,
    place: usize,
    /// Nanoseconds used without a token that its virtual runtime does not hold yet.
    debt: Striped<AtomicU64>,
}

/// One invocation's part. Dropping it leaves the gate, wherever it stands.
pub struct Turn {
    share: Handle<Share>,
    seat: Arc<Seat>,
    ticks: u32,
    /// Ticks since the token was granted.
    held: u32,
    /// CPU time at the last look, in nanoseconds.
    seen: u64,
    /// CPU time since the token was granted, in nanoseconds.
    used: i64,
}

/// Where an invocation stands. Changed under the gate's mutex alone.
#[derive(Default)]
struct Seat(Mutex<Standing>);

#[derive(Default)]
enum Standing {
    #[default]
    Outside,
    Waiting(Option<Waker>),
    /// It has a token and has not been polled since.
    Granted,
    Holding,
}

/// What an invocation does after a tick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tick {
    /// It goes on.
    Run,
    /// It lets its task look at other things, a caller who hung up for one, and goes on.
    Yield,
    /// It waits for a token: see [`Share::granted`].
    Wait,
}

impl Gate {
    /// A gate with so many tokens, one at least; or one that is open, where guests yield at every tick.
    pub fn new(tokens: Option<usize>) -> Arc<Self> {
        let state = State {
            free: tokens.unwrap_or(0).max(1),
            ..State::default()
        };
        Arc::new(Self {
            open: tokens.is_none(),
            state: Mutex::new(state),
        })
    }

    /// A place for a worker.
    pub fn share(self: &Arc<Self>, weight: u32) -> Shared<Share> {
        let mut state = self.state();
        let place = Place {
            weight: i64::from(weight.max(1)),
            runtime: state.clock,
            holding: 0,
            waiting: VecDeque::new(),
        };
        let free = state.places.iter().position(Option::is_none);
        let index = free.unwrap_or(state.places.len());
        match state.places.get_mut(index) {
            Some(slot) => *slot = Some(place),
            None => state.places.push(Some(place)),
        }
        Arc::new(Share {
            gate: self.clone(),
            place: index,
            debt: Striped::default(),
        })
        .into()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Nothing panics while it is held, and a count is right at any line.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn place(&mut self, index: usize) -> Option<&mut Place> {
        self.places.get_mut(index)?.as_mut()
    }

    /// Adds CPU time to a worker's virtual runtime; a worker that comes back from doing nothing
    /// starts near the others.
    fn charge(&mut self, index: usize, nanos: i64) {
        let clock = self.clock;
        let Some(place) = self.place(index) else {
            return;
        };
        if place.holding == 0 && place.waiting.is_empty() {
            place.runtime = place
                .runtime
                .max(clock - LAG * i64::from(DEFAULT_WEIGHT) / place.weight);
        }
        place.runtime += nanos * i64::from(DEFAULT_WEIGHT) / place.weight;
    }

    /// The worker that waits with the least virtual runtime.
    fn next(&self) -> Option<(usize, i64)> {
        let waiting = self.places.iter().enumerate().filter_map(|(index, place)| {
            let place = place.as_ref().filter(|place| !place.waiting.is_empty())?;
            Some((index, place.runtime))
        });
        waiting.min_by_key(|(_, runtime)| *runtime)
    }

    /// Moves the clock to the least virtual runtime of those who compute or want to.
    fn advance(&mut self) {
        let active = self.places.iter().flatten();
        let active = active.filter(|place| place.holding > 0 || !place.waiting.is_empty());
        if let Some(least) = active.map(|place| place.runtime).min() {
            self.clock = self.clock.max(least);
        }
    }

    /// Gives out the tokens that are free.
    fn dispatch(&mut self) {
        self.advance();
        while self.free > 0
            && let Some((index, _)) = self.next()
        {
            let Some(place) = self.place(index) else {
                return;
            };
            let Some(seat) = place.waiting.pop_front() else {
                return;
            };
            place.holding += 1;
            self.free -= 1;
            self.charge(index, QUANTUM);
            if let Standing::Waiting(Some(waker)) = seat.replace(Standing::Granted) {
                waker.wake();
            }
        }
    }

    fn release(&mut self, index: usize, used: i64) {
        self.charge(index, used - QUANTUM);
        if let Some(place) = self.place(index) {
            place.holding -= 1;
        }
        self.free += 1;
    }
}

impl Seat {
    fn standing(&self) -> MutexGuard<'_, Standing> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn replace(&self, standing: Standing) -> Standing {
        std::mem::replace(&mut *self.standing(), standing)
    }

    /// Takes up a token that was granted.
    fn take_up(&self) -> bool {
        let mut standing = self.standing();
        let granted = matches!(*standing, Standing::Granted);
        if granted {
            *standing = Standing::Holding;
        }
        granted
    }

    fn holds(&self) -> bool {
        matches!(*self.standing(), Standing::Holding)
    }
}

impl Share {
    /// Another weight, from now on.
    pub fn reweigh(&self, weight: u32) {
        if let Some(place) = self.gate.state().place(self.place) {
            place.weight = i64::from(weight.max(1));
        }
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(slot) = self.gate.state().places.get_mut(self.place) {
            *slot = None;
        }
    }
}

impl Turn {
    /// An invocation that has used nothing.
    pub fn new(share: Handle<Share>) -> Self {
        Self {
            share,
            seat: Arc::default(),
            ticks: 0,
            held: 0,
            seen: 0,
            used: 0,
        }
    }

    /// Counts CPU time: `used` is what the invocation has used in all.
    fn count(&mut self, used: Duration) {
        let used = u64::try_from(used.as_nanos()).unwrap_or(u64::MAX);
        let more = used.saturating_sub(self.seen);
        self.seen = used;
        if self.seat.holds() {
            self.used += i64::try_from(more).unwrap_or(i64::MAX);
        } else {
            self.share.debt.mine().fetch_add(more, Relaxed);
        }
    }

    /// A tick has passed while it ran; `used` is the CPU time that the invocation has used in all.
    pub fn tick(&mut self, used: Duration) -> Tick {
        self.count(used);
        if self.share.gate.open {
            return Tick::Yield;
        }
        self.ticks += 1;
        if self.ticks <= FREE_TICKS {
            return Tick::Run;
        }
        if !self.seat.holds() {
            return self.ask();
        }
        self.held += 1;
        if self.held < QUANTUM_TICKS {
            return Tick::Run;
        }
        let mut state = self.share.gate.state();
        let index = self.share.place;
        let used = std::mem::take(&mut self.used);
        state.charge(index, used - QUANTUM);
        state.advance();
        let own = state.place(index).map_or(0, |place| place.runtime);
        self.held = 0;
        if state.next().is_some_and(|(_, least)| least <= own) {
            // Settled above: a quantum that was not used is given back with the token.
            state.release(index, QUANTUM);
            self.seat.replace(Standing::Outside);
            drop(state);
            return self.ask();
        }
        state.charge(index, QUANTUM);
        Tick::Yield
    }

    /// Takes a token if one is free and nobody waits, else a place in the queue.
    fn ask(&mut self) -> Tick {
        let mut state = self.share.gate.state();
        let debts = self.share.debt.iter();
        let debt: u64 = debts.map(|debt| debt.swap(0, Relaxed)).sum();
        let debt = i64::try_from(debt).map_or(MAX_DEBT, |debt| debt.min(MAX_DEBT));
        state.charge(self.share.place, debt);
        self.seat.replace(Standing::Waiting(None));
        if let Some(place) = state.place(self.share.place) {
            place.waiting.push_back(self.seat.clone());
        }
        state.dispatch();
        (self.used, self.held) = (0, 0);
        drop(state);
        if self.seat.take_up() {
            Tick::Run
        } else {
            Tick::Wait
        }
    }

    /// Ready when this invocation holds a token.
    pub fn granted(&self) -> impl Future<Output = ()> + Send + 'static {
        let seat = self.seat.clone();
        std::future::poll_fn(move |context| poll_granted(&seat, context))
    }

    /// A poll has ended in which it neither yielded nor came to the gate: it waits in a host function
    /// and gives back its token. Who stands at the gate, polled for whatever reason, stays in line.
    pub fn pause(&mut self, used: Duration) {
        self.count(used);
        if self.seat.holds() {
            self.leave();
        }
    }

    /// Leaves the gate, wherever it stands.
    fn leave(&mut self) {
        if matches!(*self.seat.standing(), Standing::Outside) {
            return;
        }
        let mut state = self.share.gate.state();
        match self.seat.replace(Standing::Outside) {
            Standing::Outside => {}
            Standing::Waiting(_) => {
                if let Some(place) = state.place(self.share.place) {
                    place.waiting.retain(|seat| !Arc::ptr_eq(seat, &self.seat));
                }
            }
            Standing::Granted | Standing::Holding => {
                let used = std::mem::take(&mut self.used);
                state.release(self.share.place, used);
                state.dispatch();
            }
        }
    }
}

fn poll_granted(seat: &Seat, context: &mut Context<'_>) -> Poll<()> {
    if let Standing::Waiting(waker) = &mut *seat.standing() {
        *waker = Some(context.waker().clone());
        return Poll::Pending;
    }
    seat.take_up();
    Poll::Ready(())
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.leave();
    }
}
