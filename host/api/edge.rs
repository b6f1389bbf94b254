//! What holds for every request and every answer, whatever they are about: how many one caller may make,
//! headers that keep browsers and proxies from what is not theirs, no request behind one of unclear length.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::extract::Request;
use axum::http::header::{
    CACHE_CONTROL, CONNECTION, CONTENT_SECURITY_POLICY, REFERRER_POLICY, TRANSFER_ENCODING,
    X_CONTENT_TYPE_OPTIONS, X_FRAME_OPTIONS,
};
use axum::http::{HeaderName, HeaderValue, Uri};
use axum::response::Response;
use http_body_util::BodyExt;
use hyper::body::Body as _;

use crate::error::{Code, Failure};
use crate::limits::{Callers, Turn, Who};

/// Who a request's connection comes from.
#[derive(Clone, Copy)]
pub(super) struct Address(pub IpAddr);

/// What watches a host must get its answer, however busy its address is otherwise.
const PROBES: [&str; 2] = ["/healthz", "/readyz"];

/// On every answer. What a route says itself stands.
const HEADERS: [(HeaderName, &str); 4] = [
    (X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (REFERRER_POLICY, "no-referrer"),
    (X_FRAME_OPTIONS, "DENY"),
    (
        CONTENT_SECURITY_POLICY,
        "default-src 'none'; frame-ancestors 'none'",
    ),
];

/// A request's turn among those of its caller.
pub(super) fn admit(
    callers: Option<&Callers>,
    caller: Option<&str>,
    Address(address): Address,
    request: &Request,
) -> Result<Option<Turn>, Failure> {
    let Some(callers) = callers.filter(|_| !PROBES.contains(&request.uri().path())) else {
        return Ok(None);
    };
    let turn = callers.admit(Who::of(caller, address));
    turn.map(Some).map_err(|wait: Duration| {
        let message = "one caller may not make more requests than that; slow down";
        Failure::new(Code::RateLimited, message).retry_after(wait)
    })
}

/// Keeps a turn for as long as the answer goes on.
pub(super) fn hold(turn: Option<Arc<Turn>>, response: Response) -> Response {
    // An answer that is there already goes out at once.
    let Some(turn) = turn.filter(|_| response.body().size_hint().exact().is_none()) else {
        return response;
    };
    response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _turn = &turn;
            frame
        }))
    })
}

/// Whether the connection must end with this request's answer. Hyper reads a chunked request that also has a
/// `Content-Length` as chunked, as it may, and hides that it had one; a proxy before this host may have read the
/// other. So nothing behind a chunked request is taken for a request (RFC 9112, section 6.1).
pub(super) fn ends_connection(request: &Request) -> bool {
    request.headers().contains_key(TRANSFER_ENCODING)
}

/// Adds to an answer what every answer has.
pub(super) fn finish(response: &mut Response, uri: &Uri, closing: bool) {
    let headers = response.headers_mut();
    for (name, value) in HEADERS {
        headers
            .entry(name)
            .or_insert(HeaderValue::from_static(value));
    }
    // Answers are their caller's; the page is the same for all.
    let cache = match uri.path().starts_with("/docs") {
        true => "no-cache",
        false => "no-store",
    };
    headers.insert(CACHE_CONTROL, HeaderValue::from_static(cache));
    if closing {
        headers.insert(CONNECTION, HeaderValue::from_static("close"));
    }
}
