//! A call with its caller's key: it runs once, to its end, and its answer is kept before it is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::{JoinHandle, spawn_blocking};

use super::judge::audit;
use super::{Answer, Call, EVENTS_BUFFERED, Router};
use crate::error::{Code, Failure};
use crate::idempotency::{Answered, Claim, Fingerprint, Key, Scope, Told};
use crate::limits::{Turn, Usage};
use crate::sandbox::{Event, Payload};
use crate::telemetry::Temperature;

/// A body beyond this is digested on a thread of its own.
const LONG: usize = 1 << 20;

/// What makes a call run once.
#[derive(Debug)]
pub struct Once {
    /// The caller's name for it.
    pub key: Key,
    /// Its body's part of the memory that bodies may take: the call may outlive its request.
    pub body: Option<Arc<OwnedSemaphorePermit>>,
    /// Its place among those that its caller may have under way: who hangs up does not free it.
    pub turn: Option<Arc<Turn>>,
}

impl Router {
    /// Answers a call for the first time, or as it was answered then.
    pub(super) async fn invoke_once(&self, once: Once, mut call: Call) -> Result<Answer, Failure> {
        let Some(keys) = self.keys() else {
            let message = "this host keeps no idempotency keys; leave the key out";
            return Err(Failure::new(Code::InvalidRequest, message));
        };
        let began = Instant::now();
        let permitted = self.permit(&call, began).await;
        permitted.inspect_err(|failure| audit(&call, failure))?;
        let scope = Scope::new(
            call.caller.as_deref(),
            &call.verb,
            call.name.as_deref(),
            &once.key,
        );
        let fingerprint = fingerprint(&call).await?;
        let claim = keys.claim(once.key, scope, fingerprint)?;
        let router = self.clone();
        // In a task of its own: who hangs up wants the answer later, and half a call is nobody's.
        let running = tokio::spawn(async move {
            let request_id = call.request_id.clone();
            let events = call.events.take().map(|caller| relay(&mut call, caller));
            let answered = match claim.before().await? {
                Some((told, by)) => {
                    let permitted = router.permit_again(&call, began, &by).await;
                    permitted.inspect_err(|failure| audit(&call, failure))?;
                    return replay(told);
                }
                None => router.route(call, Some(&claim)).await,
            };
            keep(&claim, &answered, request_id).await?;
            // Those who listen get what was sent before the end of it.
            if let Some(events) = events {
                let _ = events.await;
            }
            drop((once.body, once.turn));
            answered
        });
        match running.await {
            Ok(answered) => answered,
            Err(error) => Err(Failure::internal(error)),
        }
    }
}

/// What tells the call from another one under the same key.
async fn fingerprint(call: &Call) -> Result<Fingerprint, Failure> {
    let version = call.version.as_ref().map(ToString::to_string);
    let mut head = vec![
        call.input.media_type.clone(),
        version.unwrap_or_default(),
        call.parameters.len().to_string(),
    ];
    for (name, value) in &call.parameters {
        head.extend([name.clone(), value.clone()]);
    }
    let body = call.input.body.clone();
    let digest = move || {
        let head = head.iter().map(String::as_bytes);
        Fingerprint::of(head.chain([&body[..]]))
    };
    if call.input.body.len() < LONG {
        return Ok(digest());
    }
    spawn_blocking(digest).await.map_err(Failure::internal)
}

/// Hands events on to a caller for as long as there is one. The call goes on without.
fn relay(call: &mut Call, caller: mpsc::Sender<Event>) -> JoinHandle<()> {
    let (sender, mut events) = mpsc::channel(EVENTS_BUFFERED);
    call.events = Some(sender);
    tokio::spawn(async move {
        while let Some(event) = events.recv().await {
            let _gone = caller.send(event).await;
        }
    })
}

async fn keep(
    claim: &Claim,
    answered: &Result<Answer, Failure>,
    request_id: String,
) -> Result<(), Failure> {
    let told = match answered {
        Ok(answer) => Told::Answered(Answered {
            worker_id: answer.worker_id.to_string(),
            media_type: answer.payload.media_type.clone(),
            body: answer.payload.body.clone(),
        }),
        Err(failure) => Told::Failed(Failure {
            replay_of: Some(request_id),
            ..failure.clone()
        }),
    };
    claim.end(&told).await
}

fn replay(told: Told) -> Result<Answer, Failure> {
    let Answered {
        worker_id,
        media_type,
        body,
    } = match told {
        Told::Answered(answered) => answered,
        Told::Failed(failure) => return Err(failure),
    };
    Ok(Answer {
        payload: Payload { media_type, body },
        worker_id: Arc::<str>::from(worker_id).into(),
        cold: Temperature::Fresh,
        queue: Duration::ZERO,
        usage: Usage::default(),
        explanation: None,
        replayed: true,
    })
}
