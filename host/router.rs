//! The way of a call: look up, choose, validate, admit, run, validate.
//!
//! Protocols must not enter this room: a call comes in as types and leaves as types.

mod alone;
mod check;
mod choose;
mod explain;
mod facts;
mod judge;
mod once;
mod peers;
mod pick;
mod remote;

use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use semver::VersionReq;
use tokio::sync::{Semaphore, mpsc};

pub use choose::{Ask, Criterion, Decision, choose};
pub use explain::{Explanation, Held, Weighed, explain};
pub use facts::{Facts, Load, Place, facts};
pub use judge::{Who, input as judged};
pub use once::Once;
pub use peers::Chain;
use peers::Peers;
use pick::Chosen;
pub use pick::Question;

use crate::admission::{Admission, Permit};
use crate::engine;
use crate::error::{Code, Failure};
use crate::idempotency::{Claim, Keys, Ran};
use crate::limits::Usage;
use crate::registry::{Offer, Provider, Registry};
use crate::remote::Unanswered;
use crate::sandbox::{Dispatch, Event, Invocation, Listener, Outcome, Payload};
use crate::striped::{Handle, Striped};
use crate::telemetry::{Asked, Key, Recording, Series, Telemetry, Temperature, Terms};
use crate::worker::{Offered, Pass, Worker};

/// Events that wait for a slow caller before the worker has to wait too.
pub const EVENTS_BUFFERED: usize = 64;

/// What a caller asks for.
#[derive(Debug)]
pub struct Call {
    /// Unique on this host.
    pub request_id: String,
    /// What is done.
    pub verb: String,
    /// To what. Absent: the one name under the verb whose schema takes the input.
    pub name: Option<String>,
    /// Which versions will do.
    pub version: Option<VersionReq>,
    /// Tokens that it may cost at most.
    pub max_cost: Option<f64>,
    /// Whether the answer is to say why its worker was chosen.
    pub explain: bool,
    /// The input as it arrived.
    pub input: Payload,
    /// Query parameters in order, decoded, `version` not among them.
    pub parameters: Vec<(String, String)>,
    /// SPIFFE id of who calls, where the host knows.
    pub caller: Option<String>,
    /// SPIFFE id of who called first, where another host says so whose word counts.
    pub origin: Option<String>,
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
    /// Its caller's key: with it the call runs once, and to its end whoever waits for it.
    pub once: Option<Once>,
}

/// What a worker answered, valid against its own schema.
#[derive(Debug)]
pub struct Answer {
    /// The answer itself.
    pub payload: Payload,
    /// Who answered.
    pub worker_id: Handle<str>,
    /// How the code that answered came to be ready.
    pub cold: Temperature,
    /// How long it waited to be admitted.
    pub queue: Duration,
    /// What it used.
    pub usage: Usage,
    /// Why its worker was chosen, if that was asked.
    pub explanation: Option<Box<Explanation>>,
    /// Whether it is an earlier call's, told again: then nothing was used.
    pub replayed: bool,
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
    /// Calls that may run once.
    keys: OnceLock<Arc<Keys>>,
    /// Turns to check a body that takes its time.
    checks: Semaphore,
    /// Counts choices: each draws with a number of its own.
    choices: Striped<AtomicU64>,
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
                keys: OnceLock::new(),
                checks: Semaphore::new(engine::cores()),
                choices: Striped::default(),
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

    /// Keeps the answers of calls with a key from now on. Said once, before the first call.
    pub fn keep(&self, keys: Arc<Keys>) {
        let _kept_already = self.shared.keys.set(keys);
    }

    /// Where those answers are kept, if anywhere.
    pub fn keys(&self) -> Option<&Arc<Keys>> {
        self.shared.keys.get()
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

    /// Answers one call. Dropping the future ends the invocation, but for a call with a key.
    ///
    /// # Errors
    ///
    /// Any failure code; once a worker was chosen, the failure names it.
    pub async fn invoke(&self, mut call: Call) -> Result<Answer, Failure> {
        match call.once.take() {
            // Boxed, so that a call without a key does not carry the room for it.
            Some(once) => Box::pin(self.invoke_once(once, call)).await,
            None => self.route(call, None).await,
        }
    }

    async fn route(&self, mut call: Call, claim: Option<&Claim>) -> Result<Answer, Failure> {
        let began = Instant::now();
        self.registry().remotes().check_path(&call.path)?;
        let mut tried = Tried::default();
        loop {
            let Chosen {
                candidate,
                health,
                explanation,
            } = match self.find(&call, began, &tried).await {
                Ok(chosen) => chosen,
                // Nobody else: what was said before stands.
                Err(failure) => return Err(tried.failure.unwrap_or(failure)),
            };
            let explained = |answer| Answer {
                explanation,
                ..answer
            };
            let named = |mut failure: Failure| {
                failure.worker_id = Some(candidate.provider.worker_id().to_string());
                failure
            };
            let deadline = call.deadline(&candidate.offered, began);
            let Unanswered {
                failure, elsewhere, ..
            } = match &candidate.provider {
                Provider::Local(worker) => {
                    // Somebody else may have become the one call that tries it: then the facts are others now.
                    let Some(pass) = worker.breaker().enter(health) else {
                        continue;
                    };
                    let mut recording = self.recording(&candidate.offered, &call, deadline, began);
                    match self
                        .admit(worker, &candidate.offered, &call, deadline)
                        .await
                    {
                        Ok(permit) => {
                            call.traceparent = recording.traceparent().or(call.traceparent);
                            let admitted = Admitted {
                                worker,
                                offered: &candidate.offered,
                                pass,
                                permit,
                                deadline,
                                claim,
                            };
                            let ran = self.run(admitted, call, &mut recording).await;
                            recording.end(ran.as_ref().err().map(|failure| failure.code));
                            return ran.map(explained).map_err(named);
                        }
                        Err(failure) => {
                            recording.end(Some(failure.code));
                            // Nothing has run, so another may, once. A nested call takes the host's own
                            // reserve, which is the same for all.
                            let elsewhere = call.chain.is_none()
                                && tried.candidates.is_empty()
                                && has_no_room(&failure);
                            Unanswered {
                                failure,
                                elsewhere,
                                untouched: true,
                            }
                        }
                    }
                }
                Provider::Remote(remote) => {
                    let mut recording = self.recording(&candidate.offered, &call, deadline, began);
                    // Boxed, so that a call of a component does not carry the room for it.
                    let forwarded = self.forward(remote, &call, claim, deadline, &mut recording);
                    let answered = Box::pin(forwarded).await;
                    let failed = answered.as_ref().err();
                    recording.end(failed.map(|unanswered| unanswered.failure.code));
                    match answered {
                        Ok(answer) => return Ok(explained(answer)),
                        Err(unanswered) => Unanswered {
                            elsewhere: unanswered.elsewhere
                                && self.registry().remotes().may_retry(),
                            ..unanswered
                        },
                    }
                }
            };
            let first = tried.note(&candidate, named(failure));
            if !elsewhere {
                return Err(first);
            }
        }
    }

    /// The record of a call to whoever offers this.
    fn recording<'a>(
        &'a self,
        offered: &'a Offered,
        call: &Call,
        deadline: Instant,
        began: Instant,
    ) -> Recording<'a> {
        let asked = Asked {
            request_id: &call.request_id,
            // Calls that a worker makes are paid by who called first.
            tenant: call.origin(),
            traceparent: call.traceparent.as_deref(),
            nested: call.chain.is_some(),
        };
        let mut recording = self.telemetry().record(self.series(offered), &asked);
        recording.given(deadline.saturating_duration_since(began));
        recording
    }

    /// Checks the input and waits for the worker's turn. Where this fails, nothing has run.
    async fn admit<'a>(
        &'a self,
        worker: &'a Worker,
        offered: &Arc<Offered>,
        call: &Call,
        deadline: Instant,
    ) -> Result<Permit<'a>, Failure> {
        let (input, parameters) = (&call.input, &call.parameters);
        check::input(&self.shared.checks, offered, input, parameters, deadline).await?;
        let admission = &self.shared.admission;
        match &call.chain {
            Some(_) => admission.admit_nested(worker.lane()),
            None => admission.admit(worker.lane(), offered.bid, deadline).await,
        }
    }

    /// Runs a call that has been admitted and checks its output.
    async fn run(
        &self,
        admitted: Admitted<'_>,
        call: Call,
        recording: &mut Recording<'_>,
    ) -> Result<Answer, Failure> {
        let Admitted {
            worker,
            offered,
            pass,
            permit,
            deadline,
            claim,
        } = admitted;
        if let Some(claim) = claim {
            let by = ran(worker.id(), offered);
            claim.start(by, worker.leaves_nothing()).await?;
        }
        let origin = call.origin().map(str::to_owned);
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
        let cold = worker.temperature();
        recording.started(cold, permit.waited());
        let events = match call.events {
            // An answer that is told again is told whole: events that are the answer are kept as one.
            Some(caller) if claim.is_none() || !offered.capability.produces.is_event_stream() => {
                Listener::Stream(caller)
            }
            _ if offered.capability.produces.is_event_stream() => Listener::Array,
            _ => Listener::Nobody,
        };
        let invocation = Invocation {
            id: call.request_id,
            capability: &offered.id,
            input: call.input,
            parameters: call.parameters,
            caller: call.caller,
            deadline,
            context: context(
                call.traceparent,
                origin,
                claim.map(|claim| claim.key().as_str().to_owned()),
            ),
            events,
            peers,
        };
        let Outcome {
            result,
            gathered,
            usage,
        } = Box::pin(worker.invoke(invocation, offered.limits)).await;
        recording.used(usage);
        if let Some(claim) = claim.filter(|_| usage.start.is_zero()) {
            // There was no instance.
            claim.untouched();
        }
        let checked = match result {
            Ok(output) => check::output(&self.shared.checks, offered, output, deadline).await,
            Err(failure) => Err(failure),
        };
        let code = checked.as_ref().err().map(|failure| failure.code);
        pass.ended(code, Instant::now());
        Ok(Answer {
            payload: gathered.unwrap_or(checked?),
            worker_id: worker.id_handle(),
            cold,
            queue: permit.waited(),
            usage,
            explanation: None,
            replayed: false,
        })
    }
}

impl Call {
    /// A call that asks for nothing beside its capability.
    pub fn new(request_id: String, verb: String, name: Option<String>, input: Payload) -> Self {
        Self {
            request_id,
            verb,
            name,
            version: None,
            max_cost: None,
            explain: false,
            input,
            parameters: Vec::new(),
            caller: None,
            origin: None,
            timeout: None,
            traceparent: None,
            events: None,
            chain: None,
            path: Vec::new(),
            once: None,
        }
    }

    /// SPIFFE id of who called first, where the host knows.
    pub fn origin(&self) -> Option<&str> {
        match &self.chain {
            Some(chain) => chain.origin.as_deref(),
            None => self.origin.as_deref().or(self.caller.as_deref()),
        }
    }

    /// What it asks of whoever serves it.
    fn ask(&self) -> Ask<'_> {
        let left = |chain: &Chain| chain.deadline.saturating_duration_since(Instant::now());
        let left = self.chain.as_ref().map(left);
        Ask {
            version: self.version.as_ref(),
            runtime: None,
            env_profile: None,
            max_cost: self.max_cost,
            patience: match (self.timeout, left) {
                (Some(timeout), Some(left)) => Some(timeout.min(left)),
                (timeout, left) => timeout.or(left),
            },
        }
    }

    /// When it has to be answered by whoever offers this, if it began then.
    fn deadline(&self, offered: &Offered, began: Instant) -> Instant {
        let wall = offered.limits.wall;
        let own = began + self.timeout.map_or(wall, |timeout| timeout.min(wall));
        self.chain
            .as_ref()
            .map_or(own, |chain| own.min(chain.deadline))
    }
}

/// A call's turn at a worker.
struct Admitted<'a> {
    worker: &'a Worker,
    offered: &'a Arc<Offered>,
    pass: Pass<'a>,
    /// Held until the output is checked: what it takes up until then is this invocation's.
    permit: Permit<'a>,
    deadline: Instant,
    claim: Option<&'a Claim>,
}

/// Who was asked for a call already, and what became of it.
#[derive(Default)]
struct Tried {
    candidates: Vec<Arc<Offered>>,
    failure: Option<Failure>,
}

impl Tried {
    /// Of a call that broke off the caller is told so, also if the next worker was never reached; else what
    /// the first one said stands. Answers with that.
    fn note(&mut self, candidate: &Offer, failure: Failure) -> Failure {
        let (worker, cause) = (&failure.worker_id, &failure.cause);
        tracing::debug!(worker, cause, "a worker did not answer: {failure}");
        self.candidates.push(candidate.offered.clone());
        let stands = match self.failure.take() {
            Some(first) if has_no_room(&failure) => first,
            _ => failure,
        };
        self.failure.insert(stands).clone()
    }
}

/// Whether a worker refused a call that another might take.
fn has_no_room(failure: &Failure) -> bool {
    matches!(failure.code, Code::Overloaded | Code::Unavailable)
}

/// Who runs a call with a key.
fn ran(worker_id: &str, offered: &Offered) -> Ran {
    Ran {
        worker_id: worker_id.to_owned(),
        capability: offered.id.to_string(),
    }
}

/// The context that a worker is given beside its request.
fn context(
    traceparent: Option<String>,
    origin: Option<String>,
    key: Option<String>,
) -> Vec<(String, String)> {
    let named = |name: &str, value: Option<String>| value.map(|value| (name.to_owned(), value));
    let named = [
        named("traceparent", traceparent),
        named("origin", origin),
        named("idempotency-key", key),
    ];
    named.into_iter().flatten().collect()
}

fn no_verb(verb: &str) -> Failure {
    unknown(verb, "no worker offers this verb")
}

fn no_name(verb: &str, name: &str, known: &[&str]) -> Failure {
    let known: Vec<String> = known
        .iter()
        .map(|known| format!("{verb}:{known}"))
        .collect();
    let why = format!("this verb has {}", known.join(", "));
    unknown(&format!("{verb}:{name}"), &why)
}

fn unknown(capability: &str, why: &str) -> Failure {
    Failure::new(
        Code::UnknownCapability,
        format!("unknown capability `{capability}`; {why}"),
    )
}
