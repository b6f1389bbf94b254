//! One invocation in, one outcome out.
//!
//! Each invocation gets a Store, an instance and a Meter of its own; all of it is gone when the
//! outcome is there, or when the future is dropped half-way. What is linked is what was granted.
//! Registries, schemas and protocols must not enter this room.

mod events;
mod files;
mod gpu;
mod guest;
mod keyvalue;
mod link;
mod linked;
mod outcome;
mod pace;
mod peers;
mod run;

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use bytes::Bytes;
use tokio::sync::mpsc;
use wasmtime::component::Component;

use crate::bindings::exports::crank::worker::capabilities;
use crate::engine::{Engine, Share};
use crate::error::Failure;
use crate::gpu::Seat;
use crate::limits::{Bandwidth, Held, Limits, Usage};
use crate::policy::Grants;
use crate::striped::{Shared, Striped, cores};

pub use crate::bindings::exports::crank::worker::capabilities::Worker as Declared;

pub use files::{Models, Source};
pub(crate) use guest::Guest;
pub use keyvalue::{Quotas, Shelf};
pub use link::imports;
pub use peers::{Dispatch, Dispatched, PeerCall};

use linked::{Heat, Linked};

/// A body with its media type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Media type as in RFC 9110, section 8.3.1.
    pub media_type: String,
    /// The bytes, not encoded.
    pub body: Bytes,
}

/// One Server-Sent Event. `id` and `event` hold no line breaks; `event` is never the host's own
/// `result` or `error`.
#[derive(Debug)]
pub struct Event {
    /// The event's id.
    pub id: Option<String>,
    /// The event's type.
    pub event: Option<String>,
    /// The event's text.
    pub data: String,
    /// Its memory, charged to the invocation for as long as the event waits for the caller.
    _held: Held,
}

/// What one invocation is asked to do. The input has been validated.
pub struct Invocation<'a> {
    /// The request's id.
    pub id: String,
    /// `verb:name`.
    pub capability: &'a Arc<str>,
    /// The input.
    pub input: Payload,
    /// Query parameters of a raw input.
    pub parameters: Vec<(String, String)>,
    /// SPIFFE id of who calls, where the host knows.
    pub caller: Option<String>,
    /// When the host gives up on it.
    pub deadline: Instant,
    /// What travels along: `traceparent`.
    pub context: Vec<(String, String)>,
    /// Who gets its events.
    pub events: Listener,
    /// Who takes its calls to other capabilities.
    pub peers: Option<Arc<dyn Dispatch>>,
}

/// Who gets an invocation's events.
#[derive(Debug)]
pub enum Listener {
    /// Nobody: they are dropped.
    Nobody,
    /// A caller who reads them as they come; the worker waits for one who is slower.
    Stream(mpsc::Sender<Event>),
    /// A caller who gets them all at last, as one JSON array within the limit of an answer.
    Array,
}

/// How an invocation ended and what it used.
#[derive(Debug)]
pub struct Outcome {
    /// The worker's answer, not yet validated, or why there is none.
    pub result: Result<Payload, Failure>,
    /// Its events, where [`Listener::Array`] asked for them.
    pub gathered: Option<Payload>,
    /// What it used, also where it failed.
    pub usage: Usage,
}

/// A component that is compiled, linked to what it was granted, and ready to be instantiated.
pub struct Sandbox {
    engine: Engine,
    worker: Shared<str>,
    grants: Grants,
    linked: Arc<Linked>,
    /// The same with the state after `declare`, once there is one.
    image: OnceLock<Arc<Linked>>,
    heat: Striped<Heat>,
    made: Instant,
    rates: Rates,
    share: Shared<Share>,
    bandwidth: Arc<Bandwidth>,
    files: Option<Source>,
    shelf: Option<Arc<Shelf>>,
    gpu: Option<Arc<Seat>>,
}

/// What all invocations of a worker have together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rates {
    /// Its share of the CPU against other workers.
    pub weight: u32,
    /// Megabits (10^6) per second to its callers.
    pub megabits: u32,
}

impl Sandbox {
    /// Links a component to what it was granted, and to nothing else.
    ///
    /// # Errors
    ///
    /// It imports what was not granted, or exports no handler of a version that this host speaks.
    pub fn new(
        engine: &Engine,
        worker: Shared<str>,
        component: &Component,
        grants: &Grants,
        rates: Rates,
    ) -> wasmtime::Result<Self> {
        Ok(Self {
            engine: engine.clone(),
            worker,
            linked: Arc::new(Linked::new(engine, component, grants)?),
            grants: grants.clone(),
            image: OnceLock::new(),
            heat: Striped::default(),
            made: Instant::now(),
            rates,
            share: engine.gate().share(rates.weight),
            bandwidth: Arc::new(Bandwidth::new(rates.megabits)),
            shelf: None,
            gpu: None,
            files: None,
        })
    }

    /// Starts invocations from this component from now on: the same with the state after `declare`. Those
    /// that run end as they began.
    ///
    /// # Errors
    ///
    /// It does not link, as the first one did.
    pub fn start_from(&self, image: &Component) -> wasmtime::Result<()> {
        let linked = Linked::new(&self.engine, image, &self.grants)?;
        // Only one is ever taken.
        let _ = self.image.set(Arc::new(linked));
        Ok(())
    }

    /// What invocations start from.
    fn linked(&self) -> &Arc<Linked> {
        self.image.get().unwrap_or(&self.linked)
    }

    /// Gives each thread a copy of its own of what invocations start from, as soon as it is there: threads that run
    /// short calls are in each other's way otherwise. Done by itself for a worker that is called often. Says
    /// whether there are copies then that were not there before.
    pub fn spread(&self) -> impl Future<Output = bool> + Send + 'static {
        // One core waits for no other.
        let due = cores() > 1 && self.linked().ask();
        let (linked, engine) = (self.linked().clone(), self.engine.clone());
        let (grants, worker) = (self.grants.clone(), self.worker.clone());
        let copying = move || match linked.spread(&engine, &grants) {
            Ok(true) => {
                tracing::debug!(worker = &*worker, "called often: each thread has a copy");
                true
            }
            Ok(false) => false,
            Err(error) => {
                tracing::debug!(worker = &*worker, "called often, and not copied: {error:#}");
                false
            }
        };
        let copying = due.then(|| tokio::task::spawn_blocking(copying));
        async move {
            match copying {
                Some(copying) => copying.await.unwrap_or(false),
                None => false,
            }
        }
    }

    /// Gives its guests files.
    pub fn with_files(self, files: Option<Source>) -> Self {
        Self { files, ..self }
    }

    /// Lets the guest open what is on its shelf; without one every bucket is denied.
    #[must_use]
    pub fn with_shelf(self, shelf: Shelf) -> Self {
        Self {
            shelf: Some(Arc::new(shelf)),
            ..self
        }
    }

    /// Gives its guests a GPU.
    #[must_use]
    pub fn with_gpu(self, gpu: Option<Seat>) -> Self {
        Self {
            gpu: gpu.map(Arc::new),
            ..self
        }
    }

    /// Its place on a GPU, if it has one.
    pub fn seat(&self) -> Option<&Seat> {
        self.gpu.as_deref()
    }

    /// Goes on with the accounts of an earlier version of the same worker: what it has used of the CPU and
    /// of its bandwidth stays used. Its weight is from now on this version's; a rate that has changed
    /// begins anew.
    pub fn succeed(&mut self, before: &Self) {
        self.share = before.share.clone();
        self.share.reweigh(self.rates.weight);
        if self.rates.megabits == before.rates.megabits {
            self.bandwidth = before.bandwidth.clone();
        }
    }

    /// Whether it keeps state.
    pub fn keeps_state(&self) -> bool {
        self.shelf.is_some()
    }

    /// Runs one invocation within its limits. Dropping the future ends it at once, wherever it is.
    pub fn invoke(
        &self,
        invocation: Invocation<'_>,
        limits: Limits,
    ) -> impl Future<Output = Outcome> + Send {
        run::invoke(self, invocation, limits)
    }
}

/// Asks a component what it offers, in a sandbox with no power at all: what it imports beyond the
/// powerless interfaces traps when called.
///
/// # Errors
///
/// It exports no `declare` of a version that this host speaks, or `declare` failed.
pub async fn declare(
    engine: &Engine,
    worker: Arc<str>,
    component: &Component,
    limits: Limits,
) -> Result<Declared, Failure> {
    let pre = link::powerless(engine, component).map_err(|error| outcome::failed(&error, None))?;
    let indices =
        capabilities::GuestIndices::new(&pre).map_err(|error| outcome::failed(&error, None))?;
    run::declare(engine, worker, &pre, &indices, limits).await
}
