//! `POST /invoke/…`: a request becomes a call, an answer becomes a response.

use std::sync::Arc;
use std::time::Duration;

use axum::Extension;
use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::{ACCEPT, CONTENT_ENCODING, CONTENT_TYPE, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt;
use hyper::body::Body as _;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::caller;
use super::events;
use super::problem::{REPLAYED, Refusal, WORKER};
use super::routes::{RequestId, Shared, bad_path, linger, query, requirement};
use crate::error::{Code, Failure};
use crate::idempotency::Key;
use crate::limits::{Turn, Usage};
use crate::remote::read_path;
use crate::router::{Answer, Call, Once};
use crate::sandbox::Payload;
use crate::timeout::unless;
use tokio::time::sleep;

/// Bytes that the bodies of all calls may take up together, beyond the first of each.
pub(super) const BODIES: usize = 1 << 30;
/// Bytes of a body that are not counted.
const SMALL_BODY: usize = 64 << 10;

/// Bytes of an explanation in a header: many clients read heads of 8 KiB and no more.
const EXPLANATION: usize = 2 << 10;
/// What a host that forwards a call says: the hosts that it passed, and which version it chose.
const PATH: HeaderName = HeaderName::from_static("crank-path");
const VERSION: HeaderName = HeaderName::from_static("crank-version");

const TIMEOUT: HeaderName = HeaderName::from_static("crank-timeout-ms");
const MAX_COST: HeaderName = HeaderName::from_static("crank-max-cost");
const EXPLAIN: HeaderName = HeaderName::from_static("crank-explain");

/// What an answer says of its making.
const COLD: HeaderName = HeaderName::from_static("crank-cold");
const TIMING: HeaderName = HeaderName::from_static("server-timing");
/// Headers that an answer has: room for them is made once.
const DESCRIBED: usize = 12;

/// The headers of ours that a request may have.
const OFFERED: [HeaderName; 7] = [
    TIMEOUT,
    MAX_COST,
    EXPLAIN,
    PATH,
    VERSION,
    caller::CALLER,
    caller::ORIGIN,
];
const KEY: HeaderName = HeaderName::from_static("idempotency-key");

pub(super) async fn by_name(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    path: Result<Path<(String, String)>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path((verb, name)) = path.map_err(bad_path)?;
    Ok(named(&shared, id, verb, name, request).await)
}

pub(super) async fn by_verb(
    State(shared): State<Arc<Shared>>,
    Extension(id): Extension<RequestId>,
    path: Result<Path<String>, PathRejection>,
    request: Request,
) -> Result<Response, Refusal> {
    let Path(verb) = path.map_err(bad_path)?;
    Ok(invoke(&shared, id, verb, None, request).await?)
}

/// The verb and name of a call whose path needs no decoding. Most calls are such, and what a router does for any path
/// costs as much as some of them.
pub(super) fn plainly_named(request: &Request) -> Option<(&str, &str)> {
    let named = request.uri().path().strip_prefix("/invoke/")?;
    let (verb, name) = named.split_once('/')?;
    let plain = |text: &str| !text.is_empty() && !text.contains(['/', '%']);
    // What another origin asks for is answered in its own way.
    let simple = request.method() == Method::POST && !request.headers().contains_key(ORIGIN);
    (simple && plain(verb) && plain(name)).then_some((verb, name))
}

/// Answers a call.
pub(super) async fn named(
    shared: &Shared,
    id: RequestId,
    verb: String,
    name: String,
    request: Request,
) -> Response {
    let answered = invoke(shared, id, verb, Some(name), request).await;
    answered.map_err(Refusal).into_response()
}

async fn invoke(
    shared: &Shared,
    RequestId(id): RequestId,
    verb: String,
    name: Option<String>,
    request: Request,
) -> Result<Response, Failure> {
    let (parts, body) = request.into_parts();
    let head = match read_head(&parts.headers, &parts.uri) {
        Ok(head) => head,
        Err(failure) => {
            linger(body);
            return Err(failure);
        }
    };
    let Held { bytes, mut part } = read_body(body, shared).await?;
    let input = Payload {
        media_type: head.media_type,
        body: bytes,
    };
    let call = Call {
        version: head.version,
        max_cost: head.max_cost,
        explain: head.explain,
        parameters: head.parameters,
        timeout: head.timeout,
        traceparent: head.traceparent,
        path: head.path,
        once: head.key.map(|key| Once {
            key,
            body: part.take().map(Arc::new),
            turn: parts.extensions.get::<Arc<Turn>>().cloned(),
        }),
        caller: caller::id(&parts.extensions),
        origin: caller::origin(&parts.extensions),
        ..Call::new(id.to_string(), verb, name, input)
    };
    if wants_events(&parts.headers) {
        return events::answer(shared, call, id, part).await;
    }
    // Awaited here, not in a task: hyper drops this future as soon as the caller hangs up, and the
    // invocation with it.
    let answered = shared.router.invoke(call).await;
    drop(part);
    respond(answered?)
}

/// The answer to a caller who waits for the payload itself.
fn respond(answer: Answer) -> Result<Response, Failure> {
    let media_type = HeaderValue::from_str(&answer.payload.media_type).map_err(|error| {
        let mut failure =
            Failure::new(Code::InvalidOutput, "the worker's media type is none").with_cause(error);
        failure.worker_id = Some(answer.worker_id.to_string());
        failure
    })?;
    let mut headers = HeaderMap::with_capacity(DESCRIBED);
    describe(&answer, &mut headers);
    headers.insert(CONTENT_TYPE, media_type);
    let mut response = Response::new(Body::from(answer.payload.body));
    *response.headers_mut() = headers;
    Ok(response)
}

/// Says who answered and what it took.
pub(super) fn describe(answer: &Answer, headers: &mut HeaderMap) {
    if answer.replayed {
        if let Ok(worker) = HeaderValue::from_str(&answer.worker_id) {
            headers.insert(WORKER, worker);
        }
        headers.insert(REPLAYED, HeaderValue::from_static("true"));
        return;
    }
    let Usage {
        start,
        run,
        cpu,
        memory_peak,
        sent: _,
        storage_peak,
        gpu_memory_peak,
        gpu,
    } = &answer.usage;
    let mut timing = Timing::default();
    timing
        .dur("queue", answer.queue)
        .dur("start", *start)
        .dur("run", *run)
        .dur("cpu", *cpu)
        .desc("memory", *memory_peak)
        .desc("storage", *storage_peak);
    if *gpu_memory_peak > 0 {
        timing.dur("gpu", *gpu).desc("gpu-memory", *gpu_memory_peak);
    }
    let values = [
        (WORKER, HeaderValue::from_str(&answer.worker_id)),
        (COLD, Ok(HeaderValue::from_static(answer.cold.as_str()))),
        (TIMING, HeaderValue::try_from(timing.0)),
    ];
    for (name, value) in values {
        if let Ok(value) = value {
            headers.insert(name, value);
        }
    }
    let explanation = answer
        .explanation
        .as_ref()
        .map(|told| told.brief(EXPLANATION));
    if let Some(Ok(value)) = explanation.map(HeaderValue::try_from) {
        headers.insert(EXPLAIN, value);
    }
}

/// The value of a `Server-Timing` header. Written without the machinery of `format!`, which takes some 0.2 µs for it.
struct Timing(String);

impl Default for Timing {
    fn default() -> Self {
        Self(String::with_capacity(192))
    }
}

impl Timing {
    /// A time in milliseconds, to the microsecond.
    fn dur(&mut self, name: &str, time: Duration) -> &mut Self {
        let seconds_us = time.as_secs().saturating_mul(1_000_000);
        let us = seconds_us.saturating_add(time.subsec_micros().into());
        self.entry(name, ";dur=", us / 1000);
        let rest = us % 1000;
        let digits = [rest / 100, rest / 10 % 10, rest % 10];
        self.0.push('.');
        self.0
            .extend(digits.map(|digit| (b'0' + digit as u8) as char));
        self
    }

    /// A number of bytes.
    fn desc(&mut self, name: &str, bytes: u64) -> &mut Self {
        self.entry(name, ";desc=\"", bytes);
        self.0.push('"');
        self
    }

    fn entry(&mut self, name: &str, key: &str, number: u64) {
        if !self.0.is_empty() {
            self.0.push_str(", ");
        }
        self.0.push_str(name);
        self.0.push_str(key);
        self.0.push_str(itoa::Buffer::new().format(number));
    }
}

/// What a request says besides its body.
struct Head {
    version: Option<semver::VersionReq>,
    max_cost: Option<f64>,
    explain: bool,
    parameters: Vec<(String, String)>,
    media_type: String,
    timeout: Option<Duration>,
    traceparent: Option<String>,
    path: Vec<String>,
    key: Option<Key>,
}

fn read_head(headers: &HeaderMap, uri: &axum::http::Uri) -> Result<Head, Failure> {
    let has_ours = refuse_unknown(headers)?;
    refuse_resumption(headers)?;
    // Most requests have none of these: then nothing is looked up.
    let ours = |name: &HeaderName| match has_ours {
        true => single(headers, name),
        false => Ok(None),
    };
    let mut version = ours(&VERSION)?.map(requirement).transpose()?;
    let mut parameters = query(uri)?;
    for (_, value) in parameters.extract_if(.., |(name, _)| name == "version") {
        if version.replace(requirement(&value)?).is_some() {
            return Err(Failure::new(
                Code::InvalidRequest,
                "the version is named twice; it may stand once",
            ));
        }
    }
    Ok(Head {
        version,
        max_cost: ours(&MAX_COST)?.map(max_cost).transpose()?,
        explain: ours(&EXPLAIN)?.map(explain).transpose()?.is_some(),
        parameters,
        media_type: single(headers, &CONTENT_TYPE)?
            .unwrap_or("application/json")
            .to_owned(),
        timeout: ours(&TIMEOUT)?.map(timeout).transpose()?,
        traceparent: traceparent(headers),
        path: ours(&PATH)?.map(read_path).transpose()?.unwrap_or_default(),
        key: single(headers, &KEY)?.map(key).transpose()?,
    })
}

/// Whether there is any `crank-` header. A misspelt one asks for something that nobody would do.
fn refuse_unknown(headers: &HeaderMap) -> Result<bool, Failure> {
    let mut has_ours = false;
    for name in headers
        .keys()
        .filter(|name| name.as_str().starts_with("crank-"))
    {
        has_ours = true;
        if !OFFERED.contains(name) {
            let offered = OFFERED.map(|name| name.to_string()).join(", ");
            let message = format!(
                "the header {name} is unknown; of the crank- headers a request may have {offered}"
            );
            return Err(Failure::new(Code::InvalidRequest, message));
        }
    }
    match single(headers, &CONTENT_ENCODING)? {
        None | Some("identity") => Ok(has_ours),
        Some(encoding) => {
            let message = format!("the body is encoded as {encoding:?}; send it as it is");
            Err(Failure::new(Code::UnsupportedMediaType, message))
        }
    }
}

/// A client whose stream broke off asks to go on after an event, and no stream is kept. To run the call
/// again unasked could do twice what must be done once; any status but 200 makes such a client stop (WHATWG
/// HTML, section 9.2.3).
fn refuse_resumption(headers: &HeaderMap) -> Result<(), Failure> {
    if !headers.contains_key("last-event-id") {
        return Ok(());
    }
    let message = "streams are not kept, so none goes on after last-event-id; without that header the call is made anew";
    Err(Failure::new(Code::InvalidRequest, message))
}

/// The value of a header that may stand once.
pub(super) fn single<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Failure> {
    let invalid =
        |what: &str| Failure::new(Code::InvalidRequest, format!("the header {name} {what}"));
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid("stands twice; it may stand once"));
    }
    value
        .to_str()
        .map(Some)
        .map_err(|_| invalid("has characters beyond ascii"))
}

fn timeout(text: &str) -> Result<Duration, Failure> {
    // `parse` alone would take a leading plus sign.
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    match text.parse().ok().filter(|&ms| digits && ms > 0) {
        Some(ms) => Ok(Duration::from_millis(ms)),
        None => {
            let message = format!("{TIMEOUT} takes whole milliseconds from 1 up, not {text:?}");
            Err(Failure::new(Code::InvalidRequest, message))
        }
    }
}

/// The most that the call may cost, in tokens.
fn max_cost(text: &str) -> Result<f64, Failure> {
    // As JSON writes numbers: `parse` would take a leading plus sign and infinities.
    match serde_json::from_str(text)
        .ok()
        .filter(|cost: &f64| cost.is_sign_positive())
    {
        Some(cost) => Ok(cost),
        None => {
            let message = format!("{MAX_COST} takes a number of tokens, 0 or more, not {text:?}");
            Err(Failure::new(Code::InvalidRequest, message))
        }
    }
}

/// The caller's name for this call, if it is to run once.
fn key(text: &str) -> Result<Key, Failure> {
    Key::parse(text)
        .map_err(|wrong| Failure::new(Code::InvalidRequest, format!("the header {KEY} {wrong}")))
}

fn explain(text: &str) -> Result<(), Failure> {
    if text == "1" {
        return Ok(());
    }
    let message = format!("{EXPLAIN} takes 1, not {text:?}");
    Err(Failure::new(Code::InvalidRequest, message))
}

/// The caller's trace context. What breaks its form is ignored, as W3C Trace Context (section 3.2.2)
/// wants it: a trace that is lost must not lose the call.
fn traceparent(headers: &HeaderMap) -> Option<String> {
    let text = single(headers, &HeaderName::from_static("traceparent")).ok()??;
    let mut fields = text.split('-');
    let mut hex = |len: usize| {
        let field = fields.next()?;
        let valid = field.len() == len
            && field
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        valid.then_some(field)
    };
    let (version, trace, parent, _flags) = (hex(2)?, hex(32)?, hex(16)?, hex(2)?);
    let is_zero = |field: &str| field.bytes().all(|byte| byte == b'0');
    // Later versions may append fields; version 00 has exactly four.
    let valid = version != "ff"
        && !is_zero(trace)
        && !is_zero(parent)
        && (version != "00" || fields.next().is_none());
    valid.then(|| text.to_owned())
}

/// Whether the caller names `text/event-stream`. A wildcard does not: who takes anything gets the payload.
fn wants_events(headers: &HeaderMap) -> bool {
    let accepted = headers
        .get_all(ACCEPT)
        .iter()
        .filter_map(|value| value.to_str().ok());
    accepted.flat_map(|list| list.split(',')).any(|range| {
        let mut parts = range.split(';').map(str::trim);
        let named = parts
            .next()
            .is_some_and(|essence| essence.eq_ignore_ascii_case("text/event-stream"));
        let weight = parts.find_map(|part| part.strip_prefix("q="));
        named && weight.is_none_or(|weight| weight.parse::<f32>().is_ok_and(|weight| weight > 0.0))
    })
}

/// A body, and its part of what bodies may take up together: both go when the call is over.
pub(super) struct Held {
    pub bytes: Bytes,
    pub part: Option<OwnedSemaphorePermit>,
}

/// The body, if it is not too large, arrives in time, and there is room for it.
pub(super) async fn read_body(mut body: Body, shared: &Shared) -> Result<Held, Failure> {
    let limit = shared.input_bytes;
    let too_large = || {
        Failure::new(
            Code::TooLarge,
            format!("the body has more than {limit} bytes"),
        )
    };
    // What Content-Length says is refused before a byte of it is read.
    if body.size_hint().lower() > limit as u64 {
        linger(body);
        return Err(too_large());
    }
    let collected = collect(&mut body, limit, &shared.bodies);
    match unless(|| sleep(shared.body_timeout), collected).await {
        Some(Ok(held)) => Ok(held),
        Some(Err(Broken::Off)) => Err(Failure::new(Code::InvalidRequest, "the body broke off")),
        Some(Err(Broken::TooLarge)) => {
            linger(body);
            Err(too_large())
        }
        Some(Err(Broken::NoRoom)) => {
            linger(body);
            let message = "the bodies of other calls take up all the room there is";
            Err(Failure::new(Code::Overloaded, message).retry_after(Duration::from_secs(1)))
        }
        None => {
            let message = format!("the body did not arrive within {:?}", shared.body_timeout);
            Err(Failure::new(Code::RequestTimeout, message))
        }
    }
}

/// Why a body was not read to its end.
enum Broken {
    Off,
    TooLarge,
    NoRoom,
}

async fn collect(body: &mut Body, limit: usize, room: &Arc<Semaphore>) -> Result<Held, Broken> {
    let mut bytes = BytesMut::new();
    let mut part: Option<OwnedSemaphorePermit> = None;
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| Broken::Off)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > limit {
            return Err(Broken::TooLarge);
        }
        // Small bodies are not counted: a connection costs as much.
        let counted = |len: usize| len.saturating_sub(SMALL_BODY);
        let more = counted(bytes.len() + data.len()) - counted(bytes.len());
        if more > 0 {
            let more = u32::try_from(more).map_err(|_| Broken::TooLarge)?;
            let permit = room
                .clone()
                .try_acquire_many_owned(more)
                .map_err(|_| Broken::NoRoom)?;
            match &mut part {
                Some(part) => part.merge(permit),
                None => part = Some(permit),
            }
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Held {
        bytes: bytes.freeze(),
        part,
    })
}
