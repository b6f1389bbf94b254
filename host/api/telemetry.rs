//! `GET /slo`, `/costs` and `/metrics`, and what every request leaves behind there and in the audit log.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};

use super::problem::Refusal;
use super::routes::Shared;
use crate::error::{Code, Failure};
use crate::identity::{Caller, SpiffeId};
use crate::telemetry::Report;

/// The media type of the text format.
const EXPOSITION: &str = "text/plain; version=0.0.4; charset=utf-8";

/// What every capability that is served promises, and whether it kept that.
pub(super) async fn slo(State(shared): State<Arc<Shared>>) -> Response {
    let snapshot = shared.router.registry().snapshot();
    let offered = snapshot
        .workers()
        .iter()
        .flat_map(|worker| worker.offered());
    let reports = offered.map(|offered| shared.router.series(offered).report());
    let reports: Vec<Report> = reports.collect();
    Json(BTreeMap::from([("capabilities", reports)])).into_response()
}

/// Who spent what.
pub(super) async fn costs(State(shared): State<Arc<Shared>>) -> Response {
    Json(shared.router.telemetry().costs()).into_response()
}

/// Everything in the text format of Prometheus.
pub(super) async fn metrics(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    let text = shared.router.telemetry().exposition();
    let text = text.map_err(Failure::internal)?;
    Ok(([(CONTENT_TYPE, EXPOSITION)], text).into_response())
}

/// Counts a request that was answered, and audits it where it was refused.
pub(super) fn note(
    shared: &Shared,
    failure: Option<&Failure>,
    caller: Option<&Caller>,
    request_id: &str,
    path: &str,
) {
    let code = failure.map(|failure| failure.code);
    shared.router.telemetry().count_request(code);
    let is_refusal =
        |failure: &&Failure| matches!(failure.code, Code::Denied | Code::Unauthenticated);
    let Some(failure) = failure.filter(is_refusal) else {
        return;
    };
    let capability = path
        .strip_prefix("/invoke/")
        .map(|path| path.replace('/', ":"));
    tracing::warn!(
        target: "audit", request_id, caller = caller.map(|caller| caller.id.as_str()),
        proof = caller.map(|caller| caller.proof.as_str()),
        via = caller.and_then(|caller| caller.via.as_ref()).map(SpiffeId::as_str), capability, path, code = %failure.code,
        worker = failure.worker_id, reason = failure.cause.as_deref().filter(|_| caller.is_none()).unwrap_or(&failure.message),
        "refused"
    );
}
