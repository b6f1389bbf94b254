//! The epoch ticker: an OS thread that advances the engine's epoch while anything computes and parks
//! when nothing has for a while. A thread and not a task: a guest that loops must not be able to starve it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::thread::{self, Thread};
use std::time::Duration;

/// The time between two epochs: how long a guest runs before the host looks at it.
pub const TICK: Duration = Duration::from_millis(1);

/// Ticks at which nothing computes before the thread parks. Waking it costs a system call, which a busy
/// host would otherwise pay at each of its short calls.
const LINGER: u32 = 100;

#[derive(Debug, Default)]
struct Shared {
    running: AtomicUsize,
    parked: AtomicBool,
    stop: AtomicBool,
}

/// Owns the thread; dropping it ends the thread.
pub struct Ticker {
    shared: Arc<Shared>,
    thread: Thread,
}

/// Keeps the ticker awake while it lives.
pub struct Running(Arc<Shared>);

impl Ticker {
    pub fn start(engine: wasmtime::Engine) -> io::Result<Self> {
        let shared = Arc::new(Shared::default());
        let handle = thread::Builder::new()
            .name("crank-ticker".to_owned())
            .spawn({
                let shared = shared.clone();
                move || tick(&engine, &shared)
            })?;
        Ok(Self {
            shared,
            thread: handle.thread().clone(),
        })
    }

    pub fn running(&self) -> Running {
        self.shared.running.fetch_add(1, SeqCst);
        // Sequentially consistent with `tick`: either it sees the count, or this sees it parked.
        if self.shared.parked.load(SeqCst) {
            self.thread.unpark();
        }
        Running(self.shared.clone())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.0.running.fetch_sub(1, SeqCst);
    }
}

impl Drop for Ticker {
    fn drop(&mut self) {
        self.shared.stop.store(true, SeqCst);
        self.thread.unpark();
    }
}

fn tick(engine: &wasmtime::Engine, shared: &Shared) {
    let mut idle = 0;
    while !shared.stop.load(SeqCst) {
        thread::sleep(TICK);
        // Also while nobody computes: a guest that waits at each tick must not escape them all.
        engine.increment_epoch();
        if shared.running.load(SeqCst) > 0 {
            idle = 0;
            continue;
        }
        idle += 1;
        if idle >= LINGER {
            shared.parked.store(true, SeqCst);
            while shared.running.load(SeqCst) == 0 && !shared.stop.load(SeqCst) {
                thread::park();
            }
            shared.parked.store(false, SeqCst);
            idle = 0;
        }
    }
}
