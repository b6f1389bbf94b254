//! Failures as problem documents (RFC 9457).

use std::time::Duration;

use axum::body::Body;
use axum::http::header::{CONTENT_LENGTH, CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderName, HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{Code, Failure};

/// Says who answered.
pub(super) const WORKER: HeaderName = HeaderName::from_static("crank-worker");
/// Says that an answer is the one that was given before under the same idempotency key.
pub(super) const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");

/// The HTTP status of a failure code.
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidRequest | Code::AmbiguousCapability => StatusCode::BAD_REQUEST,
        Code::Unauthenticated => StatusCode::UNAUTHORIZED,
        Code::Denied => StatusCode::FORBIDDEN,
        Code::UnknownCapability | Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::RequestTimeout => StatusCode::REQUEST_TIMEOUT,
        Code::Conflict | Code::IdempotencyInProgress | Code::IdempotencyUnanswered => {
            StatusCode::CONFLICT
        }
        Code::CostCeiling => StatusCode::PRECONDITION_FAILED,
        Code::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UriTooLong => StatusCode::URI_TOO_LONG,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::InvalidInput | Code::IdempotencyMismatch => StatusCode::UNPROCESSABLE_ENTITY,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::MemoryLimit
        | Code::CpuLimit
        | Code::OutputLimit
        | Code::StorageLimit
        | Code::GpuLimit
        | Code::Trapped
        | Code::WorkerFailed
        | Code::InvalidOutput => StatusCode::BAD_GATEWAY,
        Code::Overloaded | Code::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
        Code::Deadline => StatusCode::GATEWAY_TIMEOUT,
        Code::LoopDetected => StatusCode::LOOP_DETECTED,
    }
}

/// The problem's `title`: the same for every occurrence of a code.
fn title(code: Code) -> &'static str {
    match code {
        Code::InvalidRequest => "Malformed request",
        Code::AmbiguousCapability => "Several capabilities match",
        Code::Unauthenticated => "Who calls is not known",
        Code::Denied => "Not allowed",
        Code::UnknownCapability => "No such capability",
        Code::NotFound => "Not found",
        Code::MethodNotAllowed => "Method not allowed",
        Code::RequestTimeout => "Request too slow",
        Code::Conflict => "Conflict",
        Code::IdempotencyInProgress => "The first call is under way",
        Code::IdempotencyUnanswered => "No answer is known",
        Code::CostCeiling => "Too dear",
        Code::TooLarge => "Body too large",
        Code::UriTooLong => "Request target too long",
        Code::UnsupportedMediaType => "Media type not accepted",
        Code::InvalidInput => "Input not accepted",
        Code::IdempotencyMismatch => "The key is another call's",
        Code::RateLimited => "Too many calls",
        Code::HeadersTooLarge => "Headers too large",
        Code::Internal => "The host failed",
        Code::MemoryLimit => "Memory limit exceeded",
        Code::CpuLimit => "CPU limit exceeded",
        Code::OutputLimit => "Output limit exceeded",
        Code::StorageLimit => "Storage limit exceeded",
        Code::GpuLimit => "GPU limit exceeded",
        Code::Trapped => "The worker crashed",
        Code::WorkerFailed => "The worker failed",
        Code::InvalidOutput => "The worker broke its schema",
        Code::Overloaded => "Overloaded",
        Code::Unavailable => "Unavailable",
        Code::Deadline => "Deadline exceeded",
        Code::LoopDetected => "The call went in a circle",
    }
}

#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    errors: Vec<Place<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    worker_code: Option<&'a str>,
    /// Seconds. A stream whose head is out has no other place for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after: Option<u64>,
    request_id: &'a str,
}

#[derive(Serialize)]
struct Place<'a> {
    pointer: &'a str,
    detail: &'a str,
}

/// The problem document of a failure, as JSON on one line.
pub(super) fn document(failure: &Failure, request_id: &str) -> String {
    let problem = Problem {
        r#type: format!("urn:crank:problem:{}", failure.code),
        title: title(failure.code),
        status: status(failure.code).as_u16(),
        detail: &failure.message,
        code: failure.code.as_str(),
        errors: failure
            .faults
            .iter()
            .map(|fault| Place {
                pointer: &fault.pointer,
                detail: &fault.detail,
            })
            .collect(),
        worker_id: failure.worker_id.as_deref(),
        worker_code: failure.worker_code.as_deref(),
        retry_after: retry_after(failure),
        // Of the call that failed, so that a failure that is told again is the same to the byte.
        request_id: failure.replay_of.as_deref().unwrap_or(request_id),
    };
    // Strings and numbers always serialize; the fallback keeps a panic out of the error path.
    serde_json::to_string(&problem).unwrap_or_else(|_| "{}".to_owned())
}

/// A handler's failure. It travels as an extension of an empty response to the outermost layer, which
/// alone knows how to write it down: one place renders every failure.
pub(super) struct Refusal(pub Failure);

impl From<Failure> for Refusal {
    fn from(failure: Failure) -> Self {
        Self(failure)
    }
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let mut response = status(self.0.code).into_response();
        response.extensions_mut().insert(self.0);
        response
    }
}

/// Gives a response that stands for a failure its body and headers.
pub(super) fn render(failure: &Failure, request_id: &str, response: &mut Response) {
    *response.body_mut() = Body::from(document(failure, request_id));
    let headers = response.headers_mut();
    // Of the body that stood there before.
    headers.remove(CONTENT_LENGTH);
    headers.insert(
        CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    if let Some(worker) = failure
        .worker_id
        .as_deref()
        .and_then(|id| HeaderValue::from_str(id).ok())
    {
        headers.insert(WORKER, worker);
    }
    if failure.replay_of.is_some() {
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
    }
    if let Some(seconds) = retry_after(failure) {
        headers.insert(RETRY_AFTER, HeaderValue::from(seconds));
    }
}

/// When to try again, for failures that pass. `Retry-After` knows whole seconds only. Rounded up: who
/// waits too briefly is refused again.
pub(super) fn retry_after(failure: &Failure) -> Option<u64> {
    let passes = matches!(
        failure.code,
        Code::Overloaded | Code::Unavailable | Code::RateLimited | Code::IdempotencyInProgress
    );
    if !passes {
        return None;
    }
    let delay = failure.retry_after.unwrap_or(Duration::from_secs(1));
    let up = u64::from(delay.subsec_nanos() > 0);
    Some(delay.as_secs().saturating_add(up).max(1))
}
