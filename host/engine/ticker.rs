//! The epoch ticker: an OS thread that advances the engine's epoch while anything computes and parks
//! when nothing has for a while. A thread and not a task: a guest that loops must not be able to starve it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::thread::{self, Thread};
use std::time::Duration;

use super::Replicas;
use super::reserve::Reserve;
use crate::striped::Striped;

/// The time between two epochs while a guest computes: how long it goes on before the host looks at it.
pub const TICK: Duration = Duration::from_millis(1);

/// The same while no guest has computed for long: so late it is noticed that one does. Each tick interrupts what
/// runs on its core, which a host that is busy with short calls would otherwise pay a thousand times a second.
const SPARSE: Duration = Duration::from_millis(4);

/// How long a guest has computed that is no short call any more.
const LONG: Duration = Duration::from_micros(500);

/// Ticks at which nothing computes before the thread parks. Waking it costs a system call, which a busy
/// host would otherwise pay at each of its short calls.
const LINGER: u32 = 25;

/// So many ticks after one that met a guest that computes for long, a thread is held in [`Reserve`] again.
const CALM: u32 = 25;

/// One poll in [`Shared::running`], and the guests there.
const POLL: u64 = 1 << 32;
const POLLED: u64 = POLL - 1;

#[derive(Debug, Default)]
struct Shared {
    /// Guests that are polled, in the lower half; how often one was, in the upper.
    running: Striped<AtomicU64>,
    /// A guest that has computed for long was seen at the last tick.
    dense: AtomicBool,
    /// So did one that had met a tick before.
    long: AtomicBool,
    parked: AtomicBool,
    stop: AtomicBool,
    reserve: Reserve,
}

/// Owns the thread; dropping it ends the thread.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Keeps the ticker awake while it lives.
pub struct Running<'a>(&'a AtomicU64);

impl Shared {
    fn is_running(&self) -> bool {
        self.running
            .iter()
            .any(|running| running.load(SeqCst) & POLLED > 0)
    }

    /// How often a guest was polled.
    fn polls(&self) -> u64 {
        let polls = self
            .running
            .iter()
            .map(|running| running.load(Relaxed) / POLL);
        polls.fold(0, u64::wrapping_add)
    }
}

impl Ticker {
    pub fn start(engine: wasmtime::Engine, replicas: Arc<Replicas>) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let handle = thread::Builder::new()
            .name("crank-ticker".to_owned())
            .spawn({
                let shared = shared.clone();
                move || tick(&engine, &replicas, &shared)
            })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    pub fn running(&self) -> Running<'_> {
        let running = self.shared.running.mine();
        running.fetch_add(POLL | 1, SeqCst);
        // Sequentially consistent with `tick`: either it sees the count, or this sees it parked.
        if self.shared.parked.load(SeqCst) {
            self.thread.unpark();
        }
        Running(running)
    }

    /// Holds a thread of this runtime back while no guest computes for long, for hosts on a single core. Never ends.
    pub async fn keep_reserve(&self) {
        let polls = || self.shared.running.mine().load(Relaxed) / POLL;
        self.shared.reserve.keep(polls).await;
    }

    /// Says at a tick what CPU time a guest has used. What it has used at its first tick holds what its thread waited for the core.
    pub fn seen(&self, used: Duration, first: bool) {
        if used >= LONG {
            self.shared.dense.store(true, Relaxed);
            if !first {
                self.shared.long.store(true, Relaxed);
            }
        }
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn tick(engine: &wasmtime::Engine, replicas: &Replicas, shared: &Shared) {
    let (mut idle, mut calm, mut polls) = (0, CALM, 0);
    while !shared.stop.load(SeqCst) {
        let dense = shared.dense.swap(false, Relaxed);
        thread::sleep(if dense { TICK } else { SPARSE });
        // Also while nobody computes: a guest that waits at each tick must not escape them all.
        engine.increment_epoch();
        replicas.increment_epoch();
        let running = shared.is_running();
        // Whoever is polled was so at the last tick.
        let same = running && shared.polls() == polls;
        let long = shared.long.swap(false, Relaxed) || same;
        polls = shared.polls();
        calm = if long { 0 } else { calm.saturating_add(1) };
        shared.reserve.hold(calm >= CALM);
        if running {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle >= LINGER {
            shared.reserve.hold(false);
            shared.parked.store(true, SeqCst);
            while !shared.is_running() && !shared.stop.load(SeqCst) {
                thread::park();
            }
            shared.parked.store(false, SeqCst);
            idle = 0;
        }
    }
    shared.reserve.hold(false);
}
