//! One call to a remote worker: the request that it is sent, and what its response means.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::header::{CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, RETRY_AFTER};
use hyper::http::request::Builder;
use hyper::{Request, Response, StatusCode};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde::Deserialize;
use tokio::time::timeout_at;

use super::Remote;
use super::endpoint::Broken;
use crate::error::{Code, Failure, Fault};
use crate::sandbox::Payload;

/// Longest problem document that is read, in bytes.
const MAX_PROBLEM: usize = 64 << 10;
/// What is taken over of one, in bytes and entries.
const MAX_MESSAGE: usize = 4 << 10;
const MAX_POINTER: usize = 1 << 10;
const MAX_FAULTS: usize = 16;
/// When to come back if the remote does not say, and at the most.
const RETRY: Duration = Duration::from_secs(1);
const MAX_RETRY: Duration = Duration::from_secs(600);

/// In whose name the call is made, and who began the chain where that is another. Only a remote that has proven who
/// it is learns them, and that knows which host says so.
const CALLER: HeaderName = HeaderName::from_static("crank-caller");
const ORIGIN: HeaderName = HeaderName::from_static("crank-origin");

/// A call on its way to a remote worker; its input has been validated.
#[derive(Clone, Copy, Debug)]
pub struct Forward<'a> {
    /// The request's id here.
    pub request_id: &'a str,
    /// The input.
    pub input: &'a Payload,
    /// Query parameters of a raw input.
    pub parameters: &'a [(String, String)],
    /// SPIFFE id of who calls, where the host knows.
    pub caller: Option<&'a str>,
    /// SPIFFE id of who called first, where the host knows.
    pub origin: Option<&'a str>,
    /// When the caller gives up.
    pub deadline: Instant,
    /// W3C trace context.
    pub traceparent: Option<&'a str>,
    /// The controllers that forwarded it, this one last.
    pub path: &'a [String],
    /// What tells the call from all others, where it may run once.
    pub key: Option<&'a str>,
}

/// Why a remote worker gave no answer.
#[derive(Debug)]
pub struct Unanswered {
    /// What the caller is told.
    pub failure: Failure,
    /// Whether another worker may be asked: this one cannot have done anything, or doing it twice does
    /// no harm.
    pub elsewhere: bool,
    /// Whether it is known that nobody saw the call.
    pub untouched: bool,
}

impl Remote {
    /// Calls the worker. What it answers is bounded, and not yet validated.
    ///
    /// # Errors
    ///
    /// It cannot be reached, breaks off, or says that it failed.
    pub async fn call(&self, forward: Forward<'_>) -> Result<Payload, Unanswered> {
        let final_failure = |failure| Unanswered {
            failure,
            elsewhere: false,
            untouched: false,
        };
        let request = self
            .request(&forward)
            .map_err(|error| final_failure(Failure::internal(error)))?;
        let endpoint = self.endpoint();
        let behalf = forward.behalf();
        let called = endpoint.call(request, &behalf, self.offered().limits.output);
        let Ok(answered) = timeout_at(forward.deadline.into(), called).await else {
            endpoint.note_silent();
            let message = "the remote worker did not answer in time";
            return Err(final_failure(Failure::new(Code::Deadline, message)));
        };
        match answered {
            Ok(response) => self.answer(response),
            Err(broken) => Err(self.broken(broken)),
        }
    }

    fn request(&self, forward: &Forward<'_>) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let capability = &self.offered().capability;
        let mut path = format!("/invoke/{}", capability.verb);
        if !self.is_nameless() {
            path.push('/');
            path.push_str(capability.name.as_str());
        }
        for (at, (name, value)) in forward.parameters.iter().enumerate() {
            path.push(if at == 0 { '?' } else { '&' });
            path.extend(utf8_percent_encode(name, NON_ALPHANUMERIC));
            path.push('=');
            path.extend(utf8_percent_encode(value, NON_ALPHANUMERIC));
        }
        let left = forward.deadline.saturating_duration_since(Instant::now());
        let request: Builder = Request::post(self.endpoint().address().target(&path))
            .header(CONTENT_TYPE, &forward.input.media_type)
            .header("accept", "*/*")
            .header("user-agent", concat!("crank/", env!("CARGO_PKG_VERSION")))
            .header("x-request-id", forward.request_id)
            .header("crank-timeout-ms", left.as_millis().max(1).to_string())
            .header("crank-version", format!("^{}", capability.version))
            .header("crank-path", forward.path.join(", "));
        let request = match forward.traceparent {
            Some(traceparent) => request.header("traceparent", traceparent),
            None => request,
        };
        let request = match forward.key {
            Some(key) => request.header("idempotency-key", format!("\"{key}\"")),
            None => request,
        };
        request.body(Full::new(forward.input.body.clone()))
    }

    fn broken(&self, broken: Broken) -> Unanswered {
        let untouched = matches!(broken, Broken::Unsent(_) | Broken::Busy);
        let (failure, elsewhere) = match broken {
            Broken::Unsent(reason) => {
                let message = "the remote worker cannot be reached; nothing was sent to it";
                let failure = Failure::new(Code::Unavailable, message).retry_after(RETRY);
                (failure.with_cause(reason), true)
            }
            Broken::Busy => {
                let message = "as many calls are under way to the remote worker as may be";
                (
                    Failure::new(Code::Overloaded, message).retry_after(RETRY),
                    true,
                )
            }
            Broken::Lost(reason) => {
                let message = "the remote worker broke off in the middle of the call; whether it did what it was asked is not known";
                let failure = Failure::new(Code::WorkerFailed, message).with_cause(reason);
                (failure, self.is_idempotent())
            }
            Broken::TooLarge => {
                let message = "the remote worker answered more than it may";
                (Failure::new(Code::OutputLimit, message), false)
            }
        };
        Unanswered {
            failure,
            elsewhere,
            untouched,
        }
    }

    fn answer(&self, response: Response<Bytes>) -> Result<Payload, Unanswered> {
        let (head, body) = response.into_parts();
        let media_type = head
            .headers
            .get(CONTENT_TYPE)
            .map_or(Some("application/json"), |value| value.to_str().ok());
        let media_type = media_type.unwrap_or_default();
        if head.status.is_success() {
            return Ok(Payload {
                media_type: media_type.to_owned(),
                body,
            });
        }
        let retry_after = retry_after(&head.headers);
        let is_problem = media_type.starts_with("application/problem+json");
        let problem = Some(&body).filter(|body| is_problem && body.len() <= MAX_PROBLEM);
        let problem = problem.and_then(|body| serde_json::from_slice::<Problem>(body).ok());
        Err(match problem {
            Some(problem) => problem.read(retry_after),
            None => plain(head.status, retry_after),
        })
    }
}

impl Forward<'_> {
    fn behalf(&self) -> HeaderMap {
        let named = [
            (CALLER, self.caller),
            (ORIGIN, self.origin.filter(|_| self.origin != self.caller)),
        ];
        let named = named.into_iter().filter_map(|(name, id)| {
            let id = HeaderValue::from_str(id?).ok()?;
            Some((name, id))
        });
        named.collect()
    }
}

/// A status without a problem document: of a worker that is no Crank host.
fn plain(status: StatusCode, retry_after: Option<Duration>) -> Unanswered {
    let told = |code, what: &str| {
        let message = format!("the remote worker answered {}{what}", status.as_u16());
        Failure::new(code, message)
    };
    let failure = match status {
        StatusCode::UNPROCESSABLE_ENTITY => told(Code::InvalidInput, ": it cannot use this input"),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            told(Code::Unavailable, ": not now").retry_after(retry_after.unwrap_or(RETRY))
        }
        status if status.is_redirection() => {
            told(Code::WorkerFailed, ", and redirects are not followed")
        }
        _ => told(Code::WorkerFailed, ""),
    };
    Unanswered {
        failure,
        elsewhere: false,
        untouched: false,
    }
}

/// What is read of a problem document (RFC 9457) of another Crank host.
#[derive(Deserialize)]
struct Problem {
    code: Option<String>,
    detail: Option<String>,
    worker_code: Option<String>,
    #[serde(default)]
    errors: Vec<Place>,
}

#[derive(Deserialize)]
struct Place {
    pointer: String,
    detail: String,
}

impl Problem {
    fn read(self, retry_after: Option<Duration>) -> Unanswered {
        let named = self.code.unwrap_or_default();
        let code = Code::ALL.into_iter().find(|code| code.as_str() == named);
        let detail = clean(
            self.detail.as_deref().unwrap_or("it does not say why"),
            MAX_MESSAGE,
        );
        // Of these the remote host says itself that no worker of its saw the call.
        let elsewhere = matches!(
            code,
            Some(Code::UnknownCapability | Code::LoopDetected | Code::RateLimited)
        );
        // And where it said "not now" to a key, it knows by that key what may be run again.
        let untouched = elsewhere
            || matches!(
                code,
                Some(Code::Overloaded | Code::Unavailable | Code::IdempotencyInProgress)
            );
        let mut failure = match code {
            Some(Code::UnknownCapability) => {
                let message = "the remote host no longer offers the capability";
                Failure::new(Code::Unavailable, message).with_cause(detail)
            }
            Some(Code::RateLimited) => {
                let message = "the remote host takes no more calls of this one now";
                Failure::new(Code::Unavailable, message).with_cause(detail)
            }
            Some(code) if is_about_the_call(code) => Failure::new(code, detail),
            // What passed between the two hosts is not the caller's to put right.
            _ => Failure::new(
                Code::WorkerFailed,
                "the remote host refused or lost the call",
            )
            .with_cause(format!("{}: {detail}", clean(&named, 64))),
        };
        if matches!(failure.code, Code::Unavailable | Code::Overloaded) {
            failure.retry_after = Some(retry_after.unwrap_or(RETRY));
        }
        let well_formed = |code: &String| {
            code.len() <= 64
                && code.starts_with(|c: char| c.is_ascii_lowercase())
                && code.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-')
        };
        failure.worker_code = self.worker_code.filter(well_formed);
        let places = self.errors.into_iter().take(MAX_FAULTS);
        failure.faults = places
            .map(|place| Fault {
                pointer: clean(&place.pointer, MAX_POINTER),
                detail: clean(&place.detail, MAX_MESSAGE),
            })
            .collect();
        Unanswered {
            failure,
            elsewhere,
            untouched,
        }
    }
}

/// Whether a failure of another host says something about this call and its worker, and not about how
/// the two hosts speak to each other.
fn is_about_the_call(code: Code) -> bool {
    !matches!(
        code,
        Code::InvalidRequest
            | Code::AmbiguousCapability
            | Code::Unauthenticated
            | Code::MethodNotAllowed
            | Code::RequestTimeout
            | Code::UriTooLong
            | Code::HeadersTooLarge
            | Code::Internal
    )
}

fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    let seconds: u64 = headers.get(RETRY_AFTER)?.to_str().ok()?.parse().ok()?;
    Some(Duration::from_secs(seconds).min(MAX_RETRY))
}

/// A stranger's text, cut, with what moves a cursor or begins a line escaped.
fn clean(text: &str, most: usize) -> String {
    let mut clean = String::new();
    for c in text.chars() {
        if c.is_control() {
            clean.extend(c.escape_default());
        } else {
            clean.push(c);
        }
        if clean.len() >= most {
            break;
        }
    }
    clean.truncate(clean.floor_char_boundary(most));
    clean
}
