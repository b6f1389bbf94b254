//! An engine for each thread, for workers that are called often.
//!
//! For every instance wasmtime counts references to its engine and its component, and takes the locks of its pool. All
//! threads write these cache lines, and wait for each other's writes: the longer, the further apart the cores are. So
//! a worker that is called often is loaded once more for each thread, into an engine that this thread has for itself,
//! from memory that all of these map. Settings and epochs are those of the engine that serves all others.

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use wasmtime::component::Component;

use super::code;
use crate::striped::Striped;

/// Instances that one thread's engine has room for: one runs, others wait in host functions.
const INSTANCES: u32 = 16;
/// Components that are copied at one time. Each takes a file handle and what wasmtime knows of it for each thread.
const COMPONENTS: usize = 16;

/// The engines of all threads, made when the first worker is called often.
pub struct Replicas {
    each: OnceLock<Striped<Arc<Replica>>>,
    making: Mutex<()>,
    components: Arc<Semaphore>,
}

/// The engine of one thread. Others may use it, if what they run has moved to them.
pub struct Replica {
    wasm: wasmtime::Engine,
    /// Instances that live.
    taken: AtomicU32,
}

/// Room for one instance, until it is dropped.
pub struct Room<'a>(&'a Replica);

/// What a component is copied by.
pub type Copies = Vec<(Arc<Replica>, Component)>;

impl Default for Replicas {
    fn default() -> Self {
        Self {
            each: OnceLock::new(),
            making: Mutex::default(),
            components: Arc::new(Semaphore::new(COMPONENTS)),
        }
    }
}

impl Replicas {
    /// Loads a component into the engine of each thread, in the order of the stripes. `None`, if as many are as may be; each counts
    /// until its permit is dropped. Takes some milliseconds.
    ///
    /// # Errors
    ///
    /// There is no room for another engine, or the system forbids to map code from memory.
    pub fn copies(
        &self,
        component: &Component,
    ) -> wasmtime::Result<Option<(Copies, OwnedSemaphorePermit)>> {
        let Ok(permit) = self.components.clone().try_acquire_owned() else {
            return Ok(None);
        };
        let each = self.each()?;
        let engines = each.iter().map(|replica| &replica.wasm);
        let components = code::again(engines, component)?;
        let copies = each.iter().cloned().zip(components).collect();
        Ok(Some((copies, permit)))
    }

    fn each(&self) -> wasmtime::Result<&Striped<Arc<Replica>>> {
        // Nothing is half done, whoever panicked.
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        match self.each.get() {
            Some(each) => Ok(each),
            None => {
                let each = Striped::each(|| Replica::new().map(Arc::new))?;
                Ok(self.each.get_or_init(|| each))
            }
        }
    }

    /// Advances all epochs.
    pub(super) fn increment_epoch(&self) {
        for replica in self.each.get().iter().flat_map(|each| each.iter()) {
            replica.wasm.increment_epoch();
        }
    }
}

impl Replica {
    fn new() -> wasmtime::Result<Self> {
        Ok(Self {
            wasm: super::pooled(INSTANCES)?,
            taken: AtomicU32::new(0),
        })
    }

    /// Room for one instance more, if there is any.
    pub fn room(&self) -> Option<Room<'_>> {
        let room = Room(self);
        // Whoever finds none gives back what it took.
        (self.taken.fetch_add(1, Relaxed) < INSTANCES).then_some(room)
    }
}

impl Drop for Room<'_> {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Relaxed);
    }
}
