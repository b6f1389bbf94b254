//! An invocation's pace: what it has computed, and whether it may go on.
//!
//! Shared between the future that is polled and the Store's epoch callback, which run on one thread
//! at a time: the mutex is never contended.

use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use wasmtime::UpdateDeadline;

use crate::engine::{Engine, Share, Tick, Ticker, Turn};
use crate::limits::CpuClock;
use crate::outbox;
use crate::striped::Handle;

/// The CPU clock and the turn at the gate of one invocation.
pub(crate) struct Pace {
    ticker: Handle<Ticker>,
    cpu: CpuClock,
    turn: Mutex<Turn>,
    /// The poll under way ends because the guest yields, and not because it waits.
    yielding: AtomicBool,
    /// The poll under way has seen a tick.
    ticked: AtomicBool,
    /// So has this invocation.
    ever: AtomicBool,
}

impl Pace {
    /// The pace of an invocation that begins now.
    pub fn new(engine: &Engine, share: Handle<Share>, now: Instant) -> Self {
        Self {
            ticker: engine.ticker(),
            cpu: CpuClock::new(now),
            turn: Mutex::new(Turn::new(share)),
            yielding: AtomicBool::new(false),
            ticked: AtomicBool::new(false),
            ever: AtomicBool::new(false),
        }
    }

    /// At a tick: CPU time used so far.
    pub fn used_at_tick(&self) -> Duration {
        self.cpu.tick()
    }

    /// CPU time used by the polls that have ended.
    pub fn used(&self) -> Duration {
        self.cpu.used()
    }

    /// At a tick, within every limit: how the guest goes on.
    pub fn next(&self, used: Duration) -> UpdateDeadline {
        if !self.ticked.swap(true, Relaxed) {
            wake_another_thread();
            outbox::send();
        }
        self.ticker.seen(used, !self.ever.swap(true, Relaxed));
        let mut turn = self.turn();
        let tick = turn.tick(used);
        self.yielding.store(tick == Tick::Yield, Relaxed);
        match tick {
            Tick::Run => UpdateDeadline::Continue(1),
            Tick::Yield => UpdateDeadline::Yield(1),
            Tick::Wait => UpdateDeadline::YieldCustom(1, Box::pin(turn.granted())),
        }
    }

    fn turn(&self) -> MutexGuard<'_, Turn> {
        self.turn.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Wakes a thread of the runtime that has nothing to do. Of those that wait for work one waits for sockets
/// and timers too; if that is the one that got this guest to run, nobody does any more, and a request
/// that arrives is not seen until this thread has run dozens of guests. Whoever wakes and finds nothing
/// to do takes that place.
fn wake_another_thread() {
    if let Ok(runtime) = tokio::runtime::Handle::try_current() {
        drop(runtime.spawn(std::future::ready(())));
    }
}

/// A guest's future at its pace.
pub(super) struct Paced<'a, F> {
    pub pace: &'a Pace,
    /// It will not be long until it first waits or ends, as far as one knows.
    pub brief: bool,
    pub future: Pin<&'a mut F>,
}

impl<F: Future> Future for Paced<'_, F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        if !std::mem::take(&mut self.brief) {
            outbox::send();
        }
        // Epochs matter while the guest computes: one that waits keeps no thread awake.
        let _running = self.pace.ticker.running();
        self.pace.ticked.store(false, Relaxed);
        self.pace.cpu.enter();
        let polled = self.future.as_mut().poll(cx);
        self.pace.cpu.leave();
        // Neither who waits in a host function nor who has ended keeps a token.
        if !self.pace.yielding.swap(false, Relaxed) {
            self.pace.turn().pause(self.pace.cpu.used());
        }
        polled
    }
}
