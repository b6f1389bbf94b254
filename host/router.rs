//! The way of a call: look up, choose, validate, admit, run, validate.
//!
//! Protocols must not enter this room: a call comes in as types and leaves as types.

mod check;
mod peers;

use std::cmp::Reverse;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use semver::VersionReq;
use tokio::sync::{Semaphore, mpsc};
use tokio::time::timeout_at;

pub use peers::Chain;
use peers::Peers;

use crate::admission::Admission;
use crate::engine;
use crate::error::{Code, Failure};
use crate::limits::Usage;
use crate::registry::{Candidate, Registry};
use crate::sandbox::{Dispatch, Event, Invocation, Listener, Outcome, Payload};
use crate::telemetry::{Asked, Heat, Key, Recording, Series, Telemetry, Terms};
use crate::worker::{Offered, Temperature};

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
    telemetry: Telemetry,
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
        Self::watched(registry, admission, Telemetry::default())
    }

    /// The same, with where its calls are recorded.
    pub fn watched(registry: Registry, admission: Admission, telemetry: Telemetry) -> Self {
        Self {
            shared: Arc::new(Shared {
                registry,
                admission,
                telemetry,
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

    /// Where its calls are recorded.
    pub fn telemetry(&self) -> &Telemetry {
        &self.shared.telemetry
    }

    /// The records of a capability: a load and no more, but for the first time.
    pub fn series<'a>(&self, offered: &'a Offered) -> &'a Arc<Series> {
        offered.series.get_or_init(|| {
            let capability = &offered.capability;
            let key = Key {
                worker_id: capability.worker_id.to_string().into(),
                capability: offered.id.clone(),
                version: capability.version.to_string().into(),
            };
            let terms = Terms {
                slo: capability.slo.unwrap_or_default(),
                wall: offered.limits.wall,
                cost_tokens: capability.cost_tokens.unwrap_or_default(),
            };
            self.telemetry().series(key, terms)
        })
    }

    /// Answers one call. Dropping the future ends the invocation.
    ///
    /// # Errors
    ///
    /// Any failure code; once a worker was chosen, the failure names it.
    pub async fn invoke(&self, mut call: Call) -> Result<Answer, Failure> {
        let snapshot = self.registry().snapshot();
        let names = snapshot
            .names(&call.verb)
            .ok_or_else(|| unknown(&call, "no worker offers this verb"))?;
        let candidate = choose(candidates(names, &call)?, &call)?;
        let worker = &candidate.worker;
        let asked = Asked {
            request_id: &call.request_id,
            // Calls that a worker makes are paid by who called first.
            tenant: match &call.chain {
                Some(chain) => chain.origin.as_deref(),
                None => call.caller.as_deref(),
            },
            traceparent: call.traceparent.as_deref(),
            nested: call.chain.is_some(),
        };
        let series = self.series(&candidate.offered);
        let mut recording = self.telemetry().record(series, &asked);
        call.traceparent = recording.traceparent().or(call.traceparent);
        let answered = self.serve(candidate, call, &mut recording).await;
        recording.end(answered.as_ref().err().map(|failure| failure.code));
        answered.map_err(|mut failure| {
            failure.worker_id = Some(worker.id().to_string());
            failure
        })
    }

    /// Checks, admits, runs and checks, all before one deadline.
    async fn serve(
        &self,
        candidate: &Candidate,
        call: Call,
        recording: &mut Recording<'_>,
    ) -> Result<Answer, Failure> {
        let Candidate { worker, offered } = candidate;
        let wall = call.timeout.map_or(offered.limits.wall, |timeout| {
            timeout.min(offered.limits.wall)
        });
        let began = Instant::now();
        let mut deadline = began + wall;
        if let Some(chain) = &call.chain {
            deadline = deadline.min(chain.deadline);
        }
        recording.given(deadline.saturating_duration_since(began));
        let late = |_| {
            Failure::new(
                Code::Deadline,
                "the deadline passed while a body was being checked",
            )
        };
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
            Arc::new(Peers {
                router: self.clone(),
                offered: offered.clone(),
                request_id: call.request_id.clone(),
                traceparent: call.traceparent.clone(),
                chain: Chain {
                    origin: origin.clone(),
                    path,
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
        recording.started(heat(cold), permit.waited());
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
        recording.used(usage);
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

/// The highest version that will do, by the worker with the fewest invocations in flight and waiting.
fn choose<'a>(candidates: &'a [Candidate], call: &Call) -> Result<&'a Candidate, Failure> {
    candidates
        .iter()
        .filter(|candidate| match &call.version {
            Some(wanted) => wanted.matches(&candidate.offered.capability.version),
            None => true,
        })
        .max_by_key(|candidate| {
            let lane = candidate.worker.lane();
            (
                &candidate.offered.capability.version,
                Reverse(lane.in_flight() + lane.queued()),
            )
        })
        .ok_or_else(|| {
            let versions: Vec<String> = candidates
                .iter()
                .map(|candidate| candidate.offered.capability.version.to_string())
                .collect();
            unknown(
                call,
                &format!("no version of it matches; there is {}", versions.join(", ")),
            )
        })
}

fn heat(temperature: Temperature) -> Heat {
    match temperature {
        Temperature::Uncompiled | Temperature::Cached => Heat::Cold,
        Temperature::Fresh => Heat::Warm,
    }
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
