//! The way of a call: look up, choose, validate, admit, run, validate.
//!
//! Protocols must not enter this room: a call comes in as types and leaves as types.

mod check;
mod peers;
mod remote;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use semver::VersionReq;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;

pub use peers::Chain;
use peers::Peers;

use crate::admission::Admission;
use crate::engine;
use crate::error::{Code, Failure};
use crate::limits::Usage;
use crate::registry::{Candidate, Provider, Registry};
use crate::remote::Health;
use crate::sandbox::{Dispatch, Event, Invocation, Listener, Outcome, Payload};
use crate::worker::{Offered, Temperature, Worker};

/// Events that wait for a slow caller before the worker has to wait too.
pub const EVENTS_BUFFERED: usize = 64;

/// What a caller asks for.
#[derive(Debug)]
pub struct Call {
    /// Unique on this host.
    pub request_id: String,
    /// What is done.
    pub verb: String,
    /// To what. Absent: the only name under the verb.
    pub name: Option<String>,
    /// Which versions will do.
    pub version: Option<VersionReq>,
    /// The input as it arrived.
    pub input: Payload,
    /// Query parameters in order, decoded, `version` not among them.
    pub parameters: Vec<(String, String)>,
    /// SPIFFE id of who calls, where the host knows.
    pub caller: Option<String>,
    /// Lowers the worker's wall-clock limit for this call; never raises it.
    pub timeout: Option<Duration>,
    /// W3C trace context, handed on to the worker.
    pub traceparent: Option<String>,
    /// Where events go, [`EVENTS_BUFFERED`] of them. Without it they are dropped, unless they are what
    /// the capability produces: then they are the answer, as an array.
    pub events: Option<mpsc::Sender<Event>>,
    /// How it came about, where a worker made it.
    pub chain: Option<Chain>,
    /// The hosts that forwarded it to this one, the first one first.
    pub path: Vec<String>,
}

/// What a worker answered, valid against its own schema.
#[derive(Debug)]
pub struct Answer {
    /// The answer itself.
    pub payload: Payload,
    /// Who answered.
    pub worker_id: Arc<str>,
    /// How the code that answered came to be ready.
    pub cold: Temperature,
    /// How long it waited to be admitted.
    pub queue: Duration,
    /// What it used.
    pub usage: Usage,
}

/// Routes calls to the workers of a registry. A clone is another handle to the same.
#[derive(Clone)]
pub struct Router {
    shared: Arc<Shared>,
}

struct Shared {
    registry: Registry,
    admission: Admission,
    /// Turns to check a body that takes its time.
    checks: Semaphore,
}

impl Router {
    /// A router over a registry, which admits calls as each worker's own limits say.
    pub fn new(registry: Registry) -> Self {
        Self::with(registry, Admission::new(usize::MAX, || false))
    }

    /// A router over a registry, with what its workers share.
    pub fn with(registry: Registry, admission: Admission) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                admission,
                checks: Semaphore::new(engine::cores()),
            }),
        }
    }

    /// What calls are routed by.
    pub fn registry(&self) -> &Registry {
        &self.shared.registry
    }

    /// What its workers share.
    pub fn admission(&self) -> &Admission {
        &self.shared.admission
    }

    /// Answers one call. Dropping the future ends the invocation.
    ///
    /// # Errors
    ///
    /// Any failure code; once a worker was chosen, the failure names it.
    pub async fn invoke(&self, call: Call) -> Result<Answer, Failure> {
        let began = Instant::now();
        self.registry().remotes().check_path(&call.path)?;
        let snapshot = self.registry().snapshot();
        let names = snapshot
            .names(&call.verb)
            .ok_or_else(|| unknown(&call, "no worker offers this verb"))?;
        let candidates = candidates(names, &call)?;
        let mut tried = Tried::default();
        loop {
            let candidate = match choose(candidates, &call, &tried.candidates) {
                Ok(candidate) => candidate,
                Err(failure) => return Err(tried.failure.unwrap_or(failure)),
            };
            let named = |mut failure: Failure| {
                failure.worker_id = Some(candidate.provider.worker_id().to_string());
                failure
            };
            let remote = match &candidate.provider {
                Provider::Local(worker) => {
                    let served = self.serve(worker, &candidate.offered, call, began);
                    return served.await.map_err(named);
                }
                Provider::Remote(remote) => remote,
            };
            match self.forward(remote, &call, began).await {
                Ok(answer) => return Ok(answer),
                Err(unanswered) => {
                    tried.note(candidate, named(unanswered.failure));
                    if !unanswered.elsewhere || !self.registry().remotes().may_retry() {
                        return Err(tried.failure.unwrap_or_else(|| unavailable(candidate)));
                    }
                }
            }
        }
    }

    /// Checks, admits, runs and checks, all before one deadline.
    async fn serve(
        &self,
        worker: &Arc<Worker>,
        offered: &Arc<Offered>,
        call: Call,
        began: Instant,
    ) -> Result<Answer, Failure> {
        let deadline = deadline(&call, offered, began);
        let input = check::input(&self.shared.checks, offered, call.input, &call.parameters);
        let input = timeout_at(deadline.into(), input).await.map_err(late)??;
        let is_nested = call.chain.is_some();
        let origin = match &call.chain {
            Some(chain) => chain.origin.clone(),
            None => call.caller.clone(),
        };
        let peers = worker.calls_peers().then(|| {
            let mut path = call.chain.map(|chain| chain.path).unwrap_or_default();
            path.push(offered.id.clone());
            let forwarded = call.path;
            Arc::new(Peers {
                router: self.clone(),
                offered: offered.clone(),
                request_id: call.request_id.clone(),
                traceparent: call.traceparent.clone(),
                chain: Chain {
                    origin: origin.clone(),
                    path,
                    forwarded,
                    deadline,
                },
            }) as Arc<dyn Dispatch>
        });
        // Held until the output is checked: what it takes up until then is this invocation's.
        let admission = &self.shared.admission;
        let permit = if is_nested {
            admission.admit_nested(worker.lane())?
        } else {
            let admitted = admission.admit(worker.lane(), offered.bid, deadline);
            admitted.await?
        };
        let cold = worker.temperature();
        let events = match call.events {
            Some(caller) => Listener::Stream(caller),
            None if offered.capability.produces.is_event_stream() => Listener::Array,
            None => Listener::Nobody,
        };
        let invocation = Invocation {
            id: call.request_id,
            capability: offered.id.clone(),
            input,
            parameters: call.parameters,
            caller: call.caller,
            deadline,
            context: context(call.traceparent, origin),
            events,
            peers,
        };
        let Outcome {
            result,
            gathered,
            usage,
        } = worker.invoke(invocation, offered.limits).await;
        let output = check::output(&self.shared.checks, offered, result?);
        let payload = timeout_at(deadline.into(), output).await.map_err(late)??;
        Ok(Answer {
            payload: gathered.unwrap_or(payload),
            worker_id: worker.id().clone(),
            cold,
            queue: permit.waited(),
            usage,
        })
    }
}

/// Who was asked for a call already, and what became of it.
#[derive(Default)]
struct Tried {
    candidates: Vec<Arc<Offered>>,
    failure: Option<Failure>,
}

impl Tried {
    /// Of a call that broke off the caller is told so, also if the next worker was never reached.
    fn note(&mut self, candidate: &Candidate, failure: Failure) {
        let (worker, cause) = (&failure.worker_id, &failure.cause);
        tracing::debug!(worker, cause, "a remote worker did not answer: {failure}");
        self.candidates.push(candidate.offered.clone());
        let unsent = matches!(failure.code, Code::Unavailable | Code::Overloaded);
        if self.failure.is_none() || !unsent {
            self.failure = Some(failure);
        }
    }
}

/// When a call that began then has to be answered.
fn deadline(call: &Call, offered: &Offered, began: Instant) -> Instant {
    let wall = offered.limits.wall;
    let deadline = began + call.timeout.map_or(wall, |timeout| timeout.min(wall));
    match &call.chain {
        Some(chain) => deadline.min(chain.deadline),
        None => deadline,
    }
}

fn late(_: Elapsed) -> Failure {
    let message = "the deadline passed while a body was being checked";
    Failure::new(Code::Deadline, message)
}

/// Everyone who offers what the call names.
fn candidates<'a>(
    names: &'a BTreeMap<String, Vec<Candidate>>,
    call: &Call,
) -> Result<&'a [Candidate], Failure> {
    let known = || {
        names
            .keys()
            .map(|name| format!("{}:{name}", call.verb))
            .collect::<Vec<_>>()
            .join(", ")
    };
    match &call.name {
        Some(name) => names
            .get(name)
            .map(Vec::as_slice)
            .ok_or_else(|| unknown(call, &format!("this verb has {}", known()))),
        None if names.len() == 1 => Ok(names.values().next().map_or(&[], Vec::as_slice)),
        None => Err(Failure::new(
            Code::AmbiguousCapability,
            format!(
                "`{}` alone names several capabilities: {}",
                call.verb,
                known()
            ),
        )),
    }
}

/// The highest version that will do, by a healthy worker before one in doubt, by the one with the fewest
/// calls, by a component before a remote worker. A call that was forwarded to this host is meant for
/// its components, where one offers it: hosts that offer the same would else hand it back and forth.
fn choose<'a>(
    candidates: &'a [Candidate],
    call: &Call,
    tried: &[Arc<Offered>],
) -> Result<&'a Candidate, Failure> {
    let will_do = |candidate: &&Candidate| match &call.version {
        Some(wanted) => wanted.matches(&candidate.offered.capability.version),
        None => true,
    };
    let fits = |candidate: &&Candidate| {
        let is_new = !tried
            .iter()
            .any(|tried| Arc::ptr_eq(tried, &candidate.offered));
        is_new && candidate.provider.health() != Health::Down
    };
    let fitting = candidates.iter().filter(will_do).filter(fits);
    let best = fitting.max_by_key(|candidate| {
        let provider = &candidate.provider;
        let is_local = matches!(provider, Provider::Local(_));
        (
            is_local && !call.path.is_empty(),
            &candidate.offered.capability.version,
            provider.health(),
            Reverse(provider.calls()),
            is_local,
        )
    });
    best.ok_or_else(|| match candidates.iter().find(will_do) {
        Some(down) => unavailable(down),
        None => {
            let versions: Vec<String> = candidates
                .iter()
                .map(|candidate| candidate.offered.capability.version.to_string())
                .collect();
            unknown(
                call,
                &format!("no version of it matches; there is {}", versions.join(", ")),
            )
        }
    })
}

/// Nobody who would do is alive.
fn unavailable(down: &Candidate) -> Failure {
    let worker = down.provider.worker_id();
    let message = format!(
        "no worker that offers {} is alive; {worker} is down",
        down.offered.id
    );
    let mut failure = Failure::new(Code::Unavailable, message);
    failure.worker_id = Some(worker.to_string());
    failure.cause = match &down.provider {
        Provider::Remote(remote) => remote.endpoint().condition().reason,
        Provider::Local(_) => None,
    };
    failure
}

/// The context that a worker is given beside its request.
fn context(traceparent: Option<String>, origin: Option<String>) -> Vec<(String, String)> {
    let named = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    [named("traceparent", traceparent), named("origin", origin)]
        .into_iter()
        .flatten()
        .collect()
}

fn unknown(call: &Call, why: &str) -> Failure {
    let name = call
        .name
        .as_deref()
        .map(|name| format!(":{name}"))
        .unwrap_or_default();
    Failure::new(
        Code::UnknownCapability,
        format!("unknown capability `{}{name}`; {why}", call.verb),
    )
}
