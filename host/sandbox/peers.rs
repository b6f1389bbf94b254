//! `crank:worker/peers`: a guest calls other capabilities, through whoever dispatches calls.

use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinError;
use tokio_util::task::AbortOnDropHandle;
use wasmtime::component::Resource;
use wasmtime_wasi::WasiView;

use super::{Guest, Payload};
use crate::bindings::crank::worker::peers::Pending;
use crate::bindings::crank::worker::{peers, types};
use crate::error::{Code, Failure};
use crate::limits::Stop;

/// Calls that one invocation may have running at once; those beyond wait for one of them to end.
const AT_ONCE: usize = 16;

/// What a guest asks of another capability.
#[derive(Debug)]
pub struct PeerCall {
    /// As the guest wrote it: `verb:name`, perhaps with `@` and a requirement.
    pub capability: String,
    /// The input, not yet validated.
    pub input: Payload,
    /// Query parameters of a raw input.
    pub parameters: Vec<(String, String)>,
    /// Lowers the deadline that is left; never raises it.
    pub timeout: Option<Duration>,
}

/// The answer to a peer's call, later.
pub type Dispatched = Pin<Box<dyn Future<Output = Result<Payload, Failure>> + Send>>;

/// Who takes an invocation's calls to others. Workers know nothing of each other, and this room
/// nothing of routing: `router` implements it.
pub trait Dispatch: Send + Sync {
    /// Answers one call, or says why not. Dropping the future ends the call.
    fn dispatch(self: Arc<Self>, call: PeerCall) -> Dispatched;
}

/// One invocation's way to its peers.
pub(super) struct Peers {
    dispatch: Arc<dyn Dispatch>,
    turns: Arc<Semaphore>,
}

/// A call that runs in a task of its own: the guest's clock does not count it, and it goes on while
/// the guest computes. It ends when this is dropped.
type Running = AbortOnDropHandle<Result<Payload, Failure>>;

/// What stands in the table for the contract's resource `pending`; empty once its answer was waited for.
struct Waited(Option<Running>);

/// The same entry under the name that the table knows.
fn entry(pending: &Resource<Pending>) -> Resource<Waited> {
    Resource::new_own(pending.rep())
}

impl Peers {
    pub fn new(dispatch: Arc<dyn Dispatch>) -> Self {
        Self {
            dispatch,
            turns: Arc::new(Semaphore::new(AT_ONCE)),
        }
    }
}

impl Guest {
    fn begin(&mut self, call: peers::Call) -> Result<Running, Stop> {
        let parameters = call
            .parameters
            .iter()
            .map(|(name, value)| name.len() + value.len());
        let bytes = call.capability.len() + call.input.body.len() + parameters.sum::<usize>();
        self.handed.hand(bytes)?;
        let held = self.meter.hold(bytes as u64)?;
        let peers = self
            .peers
            .as_ref()
            .map(|peers| (peers.dispatch.clone(), peers.turns.clone()));
        let call = PeerCall {
            capability: call.capability,
            input: call.input.into(),
            parameters: call.parameters,
            timeout: call.timeout_ms.map(|ms| Duration::from_millis(ms.into())),
        };
        Ok(AbortOnDropHandle::new(tokio::spawn(async move {
            let _held = held;
            let Some((dispatch, turns)) = peers else {
                return Err(Failure::internal(
                    "an invocation without peers was linked to them",
                ));
            };
            // Never closed.
            let _turn = turns.acquire().await;
            dispatch.dispatch(call).await
        })))
    }

    /// One deadline over a whole chain: a peer that ran out of it ends its caller too, before that can
    /// make a failure of its own of it.
    fn in_time(&self) -> Result<(), Stop> {
        match Instant::now() < self.deadline {
            true => Ok(()),
            false => Err(Stop::Deadline),
        }
    }
}

impl peers::Host for Guest {
    async fn invoke(
        &mut self,
        call: peers::Call,
    ) -> wasmtime::Result<Result<types::Payload, peers::CallFailure>> {
        let ended = self.begin(call)?.await;
        self.in_time()?;
        Ok(answer(ended))
    }

    fn start(&mut self, call: peers::Call) -> wasmtime::Result<Resource<Pending>> {
        let pending = Waited(Some(self.begin(call)?));
        let entry = self.ctx().table.push(pending)?;
        Ok(Resource::new_own(entry.rep()))
    }
}

impl peers::HostPending for Guest {
    async fn wait(
        &mut self,
        pending: Resource<Pending>,
    ) -> wasmtime::Result<Result<types::Payload, peers::CallFailure>> {
        Ok(match self.ctx().table.get_mut(&entry(&pending))?.0.take() {
            Some(running) => {
                let ended = running.await;
                self.in_time()?;
                answer(ended)
            }
            None => Err(failed(Failure::new(
                Code::Conflict,
                "the answer to this call was waited for before",
            ))),
        })
    }

    fn drop(&mut self, pending: Resource<Pending>) -> wasmtime::Result<()> {
        self.ctx().table.delete(entry(&pending))?;
        Ok(())
    }
}

fn answer(
    ended: Result<Result<Payload, Failure>, JoinError>,
) -> Result<types::Payload, peers::CallFailure> {
    ended
        .unwrap_or_else(|error| Err(Failure::internal(error)))
        .map(|payload| types::Payload {
            media_type: payload.media_type,
            body: payload.body.into(),
        })
        .map_err(failed)
}

fn failed(failure: Failure) -> peers::CallFailure {
    peers::CallFailure {
        code: failure.code.as_str().to_owned(),
        message: failure.message,
        retry_after_ms: failure
            .retry_after
            .map(|delay| u32::try_from(delay.as_millis()).unwrap_or(u32::MAX)),
    }
}
