//! Answers as Server-Sent Events (WHATWG HTML, section 9.2): the worker's events, then `result` or
//! `error`.

use std::convert::Infallible;
use std::fmt::Write;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::http::HeaderValue;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use futures_util::stream;
use serde_json::json;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::task::JoinHandle;

use super::invoke::describe;
use super::problem;
use super::routes::{Shared, Unanswered, log_cause, panic_message};
use crate::error::Failure;
use crate::router::{Answer, Call, EVENTS_BUFFERED};
use crate::sandbox::{Event, Payload};

/// How long the response's head waits for the first event. A call that fails before its worker starts
/// (unknown capability, invalid input) fails within a millisecond: it is then answered with its own
/// status and not with `200` and an `error` event. A caller who waits for a slow worker is told after
/// this time, too short for anyone to notice, that the stream is open.
const HEAD: Duration = Duration::from_millis(100);

/// Runs the call and answers with its events.
///
/// The call has a task of its own: its deadline must fire also while nobody reads the response. The
/// response's body owns the task, so a caller who hangs up ends the invocation.
pub(super) async fn answer(
    shared: &Shared,
    mut call: Call,
    id: Arc<str>,
    part: Option<OwnedSemaphorePermit>,
) -> Result<Response, Failure> {
    let (sender, mut events) = mpsc::channel(EVENTS_BUFFERED);
    call.events = Some(sender);
    let router = shared.router.clone();
    let mut call = Running(tokio::spawn(async move {
        let answered = router.invoke(call).await;
        drop(part);
        answered
    }));

    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));

    let mut text = Text::default();
    let first = tokio::select! {
        // Events first: those of a call that has already ended must come before its result.
        biased;
        Some(event) = events.recv() => Some(event),
        outcome = &mut call => {
            let answer = outcome?;
            describe(&answer, headers);
            result(&mut text.text, &answer.payload);
            *response.body_mut() = Body::from(text.text);
            return Ok(response);
        }
        () = tokio::time::sleep(HEAD) => None,
    };
    text.add(first.into_iter().collect());
    let unanswered = Unanswered(Some(id.clone()));
    let feed = Feed {
        text,
        events,
        call,
        id,
        unanswered,
        started: Instant::now(),
        heartbeat: shared.heartbeat,
    };
    *response.body_mut() = Body::from_stream(stream::unfold(Some(feed), Feed::next));
    Ok(response)
}

/// An invocation in a task of its own, which ends when this is dropped.
struct Running(JoinHandle<Result<Answer, Failure>>);

impl Drop for Running {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Future for Running {
    type Output = Result<Answer, Failure>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0)
            .poll(context)
            .map(|joined| match joined {
                Ok(outcome) => outcome,
                Err(error) => Err(Failure::internal(match error.try_into_panic() {
                    Ok(panic) => panic_message(&*panic),
                    Err(error) => error.to_string(),
                })),
            })
    }
}

/// Events as they go out, with their charge to the invocation until they are on the wire.
#[derive(Default)]
struct Text {
    text: String,
    events: Vec<Event>,
}

impl Text {
    fn add(&mut self, events: Vec<Event>) {
        for event in &events {
            write(
                &mut self.text,
                event.id.as_deref(),
                event.event.as_deref(),
                &event.data,
            );
        }
        self.events = events;
    }
}

impl AsRef<[u8]> for Text {
    fn as_ref(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

/// What is left to send of a stream.
struct Feed {
    /// Written already, to be sent next.
    text: Text,
    events: mpsc::Receiver<Event>,
    call: Running,
    id: Arc<str>,
    unanswered: Unanswered,
    started: Instant,
    heartbeat: Duration,
}

type Chunk = Result<Bytes, Infallible>;

impl Feed {
    /// The next piece of the body, and what is left after it. `None` is the end.
    async fn next(feed: Option<Self>) -> Option<(Chunk, Option<Self>)> {
        let mut feed = feed?;
        if feed.text.text.is_empty() && !feed.wait().await {
            let outcome = (&mut feed.call).await;
            feed.end(outcome);
            return Some((Ok(feed.text.text.into()), None));
        }
        let text = std::mem::take(&mut feed.text);
        Some((Ok(Bytes::from_owner(text)), Some(feed)))
    }

    /// Waits for events and writes them down; without any, a heartbeat. `false` when the call has ended
    /// and all its events are out.
    async fn wait(&mut self) -> bool {
        let mut events = Vec::new();
        let received = tokio::select! {
            biased;
            received = self.events.recv_many(&mut events, EVENTS_BUFFERED) => received,
            () = tokio::time::sleep(self.heartbeat) => {
                self.text.text.push_str(":\n\n");
                return true;
            }
        };
        self.text.add(events);
        received > 0
    }

    fn end(&mut self, outcome: Result<Answer, Failure>) {
        self.unanswered.0 = None;
        let (code, worker) = match outcome {
            Ok(answer) => {
                result(&mut self.text.text, &answer.payload);
                (None, Some(answer.worker_id.to_string()))
            }
            Err(failure) => {
                write(
                    &mut self.text.text,
                    None,
                    Some("error"),
                    &problem::document(&failure, &self.id),
                );
                log_cause(&failure, &self.id);
                (Some(failure.code.as_str()), failure.worker_id)
            }
        };
        let ms = self.started.elapsed().as_secs_f64() * 1e3;
        tracing::info!(request_id = &*self.id, code, worker, ms, "stream ended");
    }
}

/// The last event of a call that succeeded. Text goes as it is, anything else as base64 in JSON.
fn result(out: &mut String, payload: &Payload) {
    match std::str::from_utf8(&payload.body) {
        Ok(text) if is_text(&payload.media_type) => write(out, None, Some("result"), text),
        _ => {
            let body = BASE64_STANDARD.encode(&payload.body);
            let wrapped = json!({"media_type": payload.media_type, "body": body});
            write(out, None, Some("result"), &wrapped.to_string());
        }
    }
}

pub(super) fn is_text(media_type: &str) -> bool {
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim()
        .to_ascii_lowercase();
    essence.starts_with("text/")
        || matches!(essence.as_str(), "application/json" | "application/xml")
        || essence.ends_with("+json")
        || essence.ends_with("+xml")
}

/// Writes one event. `id` and `event` have no line breaks: `sandbox` refuses those that do.
fn write(out: &mut String, id: Option<&str>, event: Option<&str>, data: &str) {
    for (field, value) in [("id", id), ("event", event)] {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = writeln!(out, "{field}: {value}");
        }
    }
    // Each of the three line breaks of the format ends a `data` field; a reader puts them together again.
    for line in data.replace("\r\n", "\n").split(['\n', '\r']) {
        let _ = writeln!(out, "data: {line}");
    }
    out.push('\n');
}
