//! A component that is linked, and its copies: one for each thread, once it is called often.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use tokio::sync::OwnedSemaphorePermit;
use wasmtime::component::{Component, InstancePre};

use super::{Guest, link};
use crate::bindings::exports::crank::worker::handler;
use crate::engine::{Engine, Replica, Room};
use crate::policy::Grants;
use crate::striped::Striped;

/// So many calls on one thread within [`WHILE`] are often.
const OFTEN: u32 = 1024;
const WHILE: Duration = Duration::from_secs(1);
/// Calls of which a thread does [`OFTEN`] in this time are brief: 0.1 ms each, and whatever else it does.
const BRIEF: Duration = Duration::from_millis(100);

/// A component, linked, and where its handler is.
pub(super) struct Linked {
    own: Ready,
    copies: OnceLock<Copies>,
    /// Copies were asked for: there are some, or there can be none.
    asked: AtomicBool,
}

/// What an invocation starts from.
pub(super) struct Ready {
    pub pre: InstancePre<Guest>,
    pub handler: handler::GuestIndices,
}

struct Copies {
    each: Striped<(Arc<Replica>, Ready)>,
    _permit: OwnedSemaphorePermit,
}

/// How often one thread is called.
#[derive(Debug, Default)]
pub(super) struct Heat {
    calls: AtomicU32,
    /// When the last [`OFTEN`] calls were full, in nanoseconds.
    full: AtomicU64,
    brief: AtomicBool,
}

impl Ready {
    fn new(
        engine: &wasmtime::Engine,
        component: &Component,
        grants: &Grants,
    ) -> wasmtime::Result<Self> {
        let pre = link::granted(engine, grants)?.instantiate_pre(component)?;
        let handler = handler::GuestIndices::new(&pre)?;
        Ok(Self { pre, handler })
    }
}

impl Linked {
    pub fn new(engine: &Engine, component: &Component, grants: &Grants) -> wasmtime::Result<Self> {
        Ok(Self {
            own: Ready::new(engine.wasm(), component, grants)?,
            copies: OnceLock::new(),
            asked: AtomicBool::new(false),
        })
    }

    /// What starts an invocation on this thread. The room is held until its instance is gone.
    pub fn here(&self) -> (&Ready, Option<Room<'_>>) {
        let copy = self.copies.get().map(|copies| copies.each.mine());
        match copy.and_then(|(replica, ready)| Some((ready, replica.room()?))) {
            Some((ready, room)) => (ready, Some(room)),
            None => (&self.own, None),
        }
    }

    /// Whether nobody has asked for copies before.
    pub fn ask(&self) -> bool {
        !self.asked.swap(true, Relaxed)
    }

    /// Makes a copy for each thread; `false` where there is no room for more at present.
    ///
    /// # Errors
    ///
    /// There is no room for another engine, or the system forbids to map code from memory.
    pub fn spread(&self, engine: &Engine, grants: &Grants) -> wasmtime::Result<bool> {
        let Some((copies, permit)) = engine.replicas().copies(self.own.pre.component())? else {
            self.asked.store(false, Relaxed);
            return Ok(false);
        };
        let ready = copies.into_iter().map(|(replica, component)| {
            let ready = Ready::new(component.engine(), &component, grants)?;
            Ok((replica, ready))
        });
        let copies = Copies {
            each: ready.collect::<wasmtime::Result<_>>()?,
            _permit: permit,
        };
        // Nobody else has asked.
        let _ = self.copies.set(copies);
        Ok(true)
    }
}

impl Heat {
    /// Counts a call at this moment, and says whether there are many.
    pub fn count(&self, since: Instant, now: Instant) -> bool {
        if self.calls.fetch_add(1, Relaxed) % OFTEN < OFTEN - 1 {
            return false;
        }
        let now = now.saturating_duration_since(since);
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        let took = now.saturating_sub(self.full.swap(now, Relaxed));
        let took = Duration::from_nanos(took);
        self.brief.store(took < BRIEF, Relaxed);
        took < WHILE
    }

    /// Whether this thread does many calls in little time.
    pub fn brief(&self) -> bool {
        self.brief.load(Relaxed)
    }
}
