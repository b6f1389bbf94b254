//! Running a guest: the Store, the brakes, the clock.

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::time::sleep_until;
use wasmtime::Store;
use wasmtime::component::InstancePre;

use super::events::Outlet;
use super::gpu::Work;
use super::guest::paced;
use super::keyvalue::Shelved;
use super::pace::{Pace, Paced};
use super::peers::Peers;
use super::{Declared, Guest, Invocation, Outcome, Payload, Sandbox, outcome};
use crate::bindings::crank::worker::types;
use crate::bindings::exports::crank::worker::{capabilities, handler};
use crate::engine::{DEFAULT_WEIGHT, Engine};
use crate::error::Failure;
use crate::limits::{Held, Limits, Stop, Usage};
use crate::timeout::unless;

/// Beyond the body, an answer carries a media type, a failure its texts: they count too.
const ENVELOPE: usize = 64 << 10;

pub async fn invoke(sandbox: &Sandbox, invocation: Invocation<'_>, limits: Limits) -> Outcome {
    let (began, deadline) = (Instant::now(), invocation.deadline);
    let left = deadline.saturating_duration_since(began);
    let Invocation {
        id,
        capability,
        input,
        parameters,
        caller,
        context,
        events,
        peers,
        ..
    } = invocation;
    let request = handler::Request {
        id: id.clone(),
        capability: capability.as_ref().to_owned(),
        input: types::Payload {
            media_type: input.media_type,
            body: input.body.into(),
        },
        parameters,
        caller,
        deadline_ms: u32::try_from(left.as_millis()).unwrap_or(u32::MAX),
        context,
    };
    let pace = Arc::new(Pace::new(&sandbox.engine, sandbox.share.handle(), began));
    let worker = sandbox.worker.handle();
    let events = Outlet::new(events, &sandbox.bandwidth);
    let meter = sandbox.engine.meter(limits.memory);
    let mut guest = Guest::new(pace.clone(), (worker, id), limits, meter, deadline, events);
    guest.peers = peers.map(Peers::new);
    let shelf = sandbox.shelf.clone();
    guest.keyvalue = shelf.map(|shelf| Shelved::new(shelf, capability.clone()));
    guest.source = sandbox.files.clone();
    let work = |seat| {
        Box::new(Work::new(
            seat,
            sandbox.engine.clone(),
            limits.gpu_memory,
            deadline,
        ))
    };
    guest.gpu = sandbox.gpu.clone().map(work);
    let heat = sandbox.heat.mine();
    if heat.count(sandbox.made, began) {
        // It goes on by itself.
        drop(sandbox.spread());
    }
    // Dropped after the instance, which is in it.
    let (ready, _room) = sandbox.linked().here();
    let mut store = store(ready.pre.engine(), guest);
    let mut start = Duration::ZERO;
    let ended = braked(&pace, heat.brief(), deadline, async {
        let instance = ready.pre.instantiate_async(&mut store).await?;
        start = began.elapsed();
        let handler = ready.handler.load(&mut store, &instance)?;
        handler.call_handle(&mut store, &request).await
    })
    .await;
    let mut usage = Usage {
        start,
        run: began.elapsed().saturating_sub(start),
        cpu: pace.used(),
        memory_peak: store.data().meter.peak(),
        sent: store.data().sent,
        storage_peak: store.data().storage_peak(),
        gpu_memory_peak: store.data().gpu.as_ref().map_or(0, |work| work.peak()),
        gpu: store
            .data()
            .gpu
            .as_ref()
            .map_or(Duration::ZERO, |work| work.took()),
    };
    let ended = match store.data().stopped {
        Some(stop) => Err(stop.into()),
        None => ended,
    };
    let mut result = match ended {
        Ok(answer) => outcome::answer(answer, limits.output),
        Err(error) => Err(outcome::failed(&error, store.data().panic.as_deref())),
    };
    // The answer is the host's from here on: the guest's memory goes before anyone waits for anything.
    let events = std::mem::replace(&mut store.data_mut().events, Outlet::Nowhere);
    drop(store);
    let mut gathered = events.gathered();
    if let Ok(payload) = &mut result {
        let sent = gathered.as_mut().unwrap_or(payload);
        match send(sandbox, sent, deadline).await {
            Ok(()) => usage.sent += sent.body.len() as u64,
            Err(stop) => result = Err(outcome::failed(&stop.into(), None)),
        }
    }
    Outcome {
        result,
        gathered,
        usage,
    }
}

/// Lets an answer go out: at the worker's bandwidth, and charged to the host for as long as anyone
/// holds it.
async fn send(sandbox: &Sandbox, payload: &mut Payload, deadline: Instant) -> Result<(), Stop> {
    let bytes = payload.body.len();
    if bytes > SMALL_ANSWER {
        let held = sandbox.engine.budget().hold(bytes as u64);
        let body = std::mem::take(&mut payload.body);
        payload.body = Bytes::from_owner(Kept {
            body,
            _held: held.ok_or(Stop::Budget)?,
        });
    }
    paced(&sandbox.bandwidth, bytes, deadline).await
}

/// Bytes of an answer that are not charged: the call's other traces in the host take as much.
const SMALL_ANSWER: usize = 64 << 10;

/// A body with its charge.
struct Kept {
    body: Bytes,
    _held: Held,
}

impl AsRef<[u8]> for Kept {
    fn as_ref(&self) -> &[u8] {
        &self.body
    }
}

pub async fn declare(
    engine: &Engine,
    worker: Arc<str>,
    pre: &InstancePre<Guest>,
    indices: &capabilities::GuestIndices,
    limits: Limits,
) -> Result<Declared, Failure> {
    let began = Instant::now();
    let deadline = began + limits.wall;
    let share = engine.gate().share(DEFAULT_WEIGHT);
    let pace = Arc::new(Pace::new(engine, share.handle(), began));
    let guest = Guest::new(
        pace.clone(),
        (worker.into(), "declare".to_owned()),
        limits,
        engine.meter(limits.memory),
        deadline,
        Outlet::Nowhere,
    );
    let mut store = store(engine.wasm(), guest);
    let ended = braked(&pace, false, deadline, async {
        let instance = pre.instantiate_async(&mut store).await?;
        indices
            .load(&mut store, &instance)?
            .call_declare(&mut store)
            .await
    })
    .await;
    ended.map_err(|error| outcome::failed(&error, store.data().panic.as_deref()))
}

/// A fresh Store with every brake on.
fn store(engine: &wasmtime::Engine, guest: Guest) -> Store<Guest> {
    // A body for a peer may be as large as one that a caller sends.
    let peers = guest.peers.as_ref().map_or(0, |_| guest.limits.input);
    let most = guest.limits.output.max(peers);
    let mut store = Store::new(engine, guest);
    store.limiter(|guest| &mut guest.meter);
    // What the guest hands the host in one call is copied into the host's memory: capped here,
    // before the copy.
    store.set_hostcall_fuel(most.saturating_add(ENVELOPE));
    store.set_epoch_deadline(1);
    store.epoch_deadline_callback(|store| store.data().tick().map_err(Into::into));
    store
}

/// Runs a guest's future under the ticker, the deadline (which also holds while the guest waits in a
/// host function, where no epoch reaches it) and the CPU clock.
async fn braked<T>(
    pace: &Pace,
    brief: bool,
    deadline: Instant,
    guest: impl Future<Output = wasmtime::Result<T>>,
) -> wasmtime::Result<T> {
    let paced = Paced {
        pace,
        brief,
        future: pin!(guest),
    };
    let ended = unless(|| sleep_until(deadline.into()), paced).await;
    ended.unwrap_or_else(|| Err(Stop::Deadline.into()))
}

impl From<types::Payload> for Payload {
    fn from(payload: types::Payload) -> Self {
        Self {
            media_type: payload.media_type,
            body: payload.body.into(),
        }
    }
}
