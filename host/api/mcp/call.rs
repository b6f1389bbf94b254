//! One call of a tool, or of a resource that is a capability: arguments in, events on the way, a result or a
//! failure out.

use std::sync::Arc;
use std::time::Instant;

use axum::http::request::Parts;
use rmcp::model::{
    CallToolRequestParams, CallToolResponse, ErrorData, JsonObject, ProgressNotificationParam,
    ProgressToken, RequestMetaObject, ResourceContents,
};
use rmcp::service::RequestContext;
use rmcp::{Peer, RoleServer};
use semver::{Comparator, Op, Version, VersionReq};
use serde_json::{Value, json};
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio_util::task::AbortOnDropHandle;

use super::{Gone, outcome, tool};
use crate::api::routes::{RequestId, Unanswered, log_cause, panic_message};
use crate::error::{Code, Failure};
use crate::idempotency::Key;
use crate::limits::Turn;
use crate::registry;
use crate::router::{Answer, Call, EVENTS_BUFFERED, Once, Router};
use crate::sandbox::{Event, Payload};
use crate::worker::Offered;

/// Runs the capability that the tool is.
pub(super) async fn call(
    router: &Arc<Router>,
    caller: Option<String>,
    request: CallToolRequestParams,
    context: RequestContext<RoleServer>,
) -> Result<CallToolResponse, ErrorData> {
    let snapshot = router.registry().snapshot();
    let candidates = tool::find(&snapshot, &request.name).unwrap_or_default();
    // The version that the caller was shown. Who was shown none is told by the router why.
    let shown = router.callable(candidates, caller.as_deref()).await;
    let shown = shown.map_err(outcome::error)?;
    let Some(candidate) = registry::newest(&shown).or_else(|| registry::newest(candidates)) else {
        let message = format!(
            "unknown tool {:?}; tools/list has those that there are",
            request.name
        );
        return Err(ErrorData::invalid_params(message, None));
    };
    let offered = candidate.offered.clone();
    drop((shown, snapshot));

    let mut running = Running::of(router, &offered, caller, &context)?;
    let arguments = request.arguments.unwrap_or_default();
    let outcome = running.run_while_wanted(arguments, &context).await?;
    let result = match outcome {
        Ok(answer) => outcome::answered(&offered.capability, answer.payload, &running.id),
        Err(failure) => outcome::failed(&failure, &running.id),
    };
    Ok(result.into())
}

/// Runs a capability for who reads the resource that it is.
pub(super) async fn read(
    router: &Arc<Router>,
    caller: Option<String>,
    offered: &Offered,
    input: JsonObject,
    uri: String,
    context: &RequestContext<RoleServer>,
) -> Result<ResourceContents, ErrorData> {
    let mut running = Running::of(router, offered, caller, context)?;
    match running.run_while_wanted(input, context).await? {
        Ok(answer) => Ok(outcome::contents(answer.payload, uri)),
        Err(failure) => Err(outcome::error(failure)),
    }
}

/// The member of `_meta` that is the header `Idempotency-Key` elsewhere.
const KEY: &str = "idempotency-key";

fn key(meta: &RequestMetaObject) -> Result<Option<Key>, ErrorData> {
    let Some(value) = meta.get(KEY) else {
        return Ok(None);
    };
    let key = value
        .as_str()
        .ok_or("must be a string")
        .and_then(Key::parse);
    key.map(Some)
        .map_err(|wrong| ErrorData::invalid_params(format!("{KEY} in _meta {wrong}"), None))
}

struct Running<'a> {
    router: &'a Arc<Router>,
    offered: &'a Offered,
    id: Arc<str>,
    caller: Option<String>,
    peer: &'a Peer<RoleServer>,
    progress: Option<ProgressToken>,
    /// A call with a key is told whole, at the end: what it told on the way is not kept.
    once: Option<Once>,
    started: Instant,
    unanswered: Unanswered,
}

impl<'a> Running<'a> {
    fn of(
        router: &'a Arc<Router>,
        offered: &'a Offered,
        caller: Option<String>,
        context: &'a RequestContext<RoleServer>,
    ) -> Result<Self, ErrorData> {
        let http = context.extensions.get::<Parts>();
        let http = http.map(|parts| &parts.extensions);
        let id = http.and_then(|http| http.get::<RequestId>()).cloned();
        let id = id.unwrap_or_else(RequestId::new).0;
        let once = key(&context.meta)?.map(|key| Once {
            key,
            body: http.and_then(|http| http.get::<Option<Arc<OwnedSemaphorePermit>>>().cloned()?),
            turn: http.and_then(|http| http.get::<Arc<Turn>>().cloned()),
        });
        Ok(Self {
            router,
            offered,
            id: id.clone(),
            caller,
            peer: &context.peer,
            progress: context.meta.get_progress_token().filter(|_| once.is_none()),
            once,
            started: Instant::now(),
            unanswered: Unanswered(Some(id)),
        })
    }

    /// Ends it when the client cancels or is gone.
    async fn run_while_wanted(
        &mut self,
        arguments: JsonObject,
        context: &RequestContext<RoleServer>,
    ) -> Result<Result<Answer, Failure>, ErrorData> {
        let http = context.extensions.get::<Parts>();
        let gone = http.and_then(|parts| parts.extensions.get::<Gone>());
        tokio::select! {
            outcome = self.run(arguments) => Ok(outcome),
            // Nobody gets these two answers.
            () = context.ct.cancelled() => Err(ErrorData::internal_error("cancelled", None)),
            () = async {
                match gone {
                    Some(Gone(gone)) => gone.cancelled().await,
                    None => std::future::pending().await,
                }
            } => Err(ErrorData::internal_error("the client is gone", None)),
        }
    }

    async fn run(&mut self, arguments: JsonObject) -> Result<Answer, Failure> {
        let capability = &self.offered.capability;
        let outcome = match tool::input(capability, arguments) {
            Ok((input, parameters)) => {
                let call = Call {
                    once: self.once.take(),
                    ..self.call(input, parameters)
                };
                let answered = self.invoke(call).await;
                answered.map_err(|failure| tool::in_arguments(capability, failure))
            }
            Err(failure) => Err(failure),
        };
        self.unanswered.0 = None;
        let (code, worker) = match &outcome {
            Ok(answer) => (None, Some(answer.worker_id.to_string())),
            Err(failure) => {
                log_cause(failure, &self.id);
                (Some(failure.code.as_str()), failure.worker_id.clone())
            }
        };
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        tracing::info!(
            request_id = &*self.id,
            capability = &*self.offered.id,
            code,
            worker,
            caller = self.caller,
            ms,
            "tool called"
        );
        outcome
    }

    fn call(&self, input: Payload, parameters: Vec<(String, String)>) -> Call {
        let capability = &self.offered.capability;
        let (verb, name) = (capability.verb.to_string(), capability.name.to_string());
        Call {
            version: Some(exactly(&capability.version)),
            parameters,
            caller: self.caller.clone(),
            ..Call::new(self.id.to_string(), verb, Some(name), input)
        }
    }

    /// Runs the call in a task of its own: its deadline must fire also while the client reads no events.
    async fn invoke(&self, mut call: Call) -> Result<Answer, Failure> {
        let (sender, mut events) = mpsc::channel(EVENTS_BUFFERED);
        call.events = self.progress.is_some().then_some(sender);
        let router = self.router.clone();
        let task = tokio::spawn(async move { router.invoke(call).await });
        let task = AbortOnDropHandle::new(task);
        let mut told = Told::default();
        if let Some(token) = &self.progress {
            while let Some(event) = events.recv().await {
                let progress = told.progress(token, &event);
                // A client that is gone cancels the whole call.
                let _ = self.peer.notify_progress(progress).await;
                self.keep(&mut told, event)?;
            }
        }
        let mut answer = match task.await {
            Ok(outcome) => outcome?,
            Err(error) => {
                return Err(Failure::internal(match error.try_into_panic() {
                    Ok(panic) => panic_message(&*panic),
                    Err(error) => error.to_string(),
                }));
            }
        };
        if call_answers_events(self.offered, &self.progress) {
            answer.payload = told.payload();
        }
        Ok(answer)
    }

    /// Keeps events that are the answer, as far as an answer may go. Each is charged to the invocation for as
    /// long as it is kept.
    fn keep(&self, told: &mut Told, event: Event) -> Result<(), Failure> {
        if !call_answers_events(self.offered, &self.progress) {
            return Ok(());
        }
        told.bytes += event.data.len();
        told.kept.push(event);
        if told.bytes > self.offered.limits.output {
            let message = "the worker's events are more than an answer may hold";
            let mut failure = Failure::new(Code::OutputLimit, message);
            failure.worker_id = Some(self.offered.capability.worker_id.to_string());
            return Err(failure);
        }
        Ok(())
    }
}

/// Whether the events that the client is told are the answer too. Without a token the sandbox gathers them.
fn call_answers_events(offered: &Offered, progress: &Option<ProgressToken>) -> bool {
    progress.is_some() && offered.capability.produces.is_event_stream()
}

/// The events so far.
#[derive(Default)]
struct Told {
    count: u32,
    kept: Vec<Event>,
    bytes: usize,
}

impl Told {
    /// How many there are is all that is known of how far the worker is.
    fn progress(&mut self, token: &ProgressToken, event: &Event) -> ProgressNotificationParam {
        self.count += 1;
        ProgressNotificationParam::new(token.clone(), f64::from(self.count))
            .with_message(event.data.clone())
    }

    /// The same array as of a caller who reads no events.
    fn payload(self) -> Payload {
        let events = self.kept.iter().map(|event| {
            let mut item = json!({ "data": event.data });
            for (name, value) in [("id", &event.id), ("event", &event.event)] {
                if let (Some(item), Some(value)) = (item.as_object_mut(), value) {
                    item.insert(name.to_owned(), Value::from(value.as_str()));
                }
            }
            item
        });
        Payload {
            media_type: "application/json".to_owned(),
            body: Value::from_iter(events).to_string().into(),
        }
    }
}

/// This version and no other: the client has seen its schemas.
fn exactly(version: &Version) -> VersionReq {
    VersionReq {
        comparators: vec![Comparator {
            op: Op::Exact,
            major: version.major,
            minor: Some(version.minor),
            patch: Some(version.patch),
            pre: version.pre.clone(),
        }],
    }
}
