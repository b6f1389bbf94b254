//! `POST /register` and `DELETE /register/{worker_id}`: where remote workers are.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_TYPE, ORIGIN};
use axum::{Extension, Json};
use bytes::Bytes;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde_json::{Value, json};

use super::problem::Refusal;
use super::routes::{Shared, bad_path, linger};
use crate::capability::{MediaType, WorkerId};
use crate::error::{Code, Failure, Fault};
use crate::identity::Caller as Identified;
use crate::remote::{Caller, Registration};
use crate::timeout::unless;
use tokio::time::sleep;

/// Longest registration, in bytes: two schemas of the most that a schema may have, and the rest.
const MAX_BYTES: usize = 256 << 10;

pub(super) async fn register(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Json<Value>, Refusal> {
    let (parts, body) = request.into_parts();
    if let Err(failure) = refuse_pages(&parts.headers).and_then(|()| is_json(&parts.headers)) {
        linger(body);
        return Err(failure.into());
    }
    let body = read(body, &shared).await?;
    let registration: Registration = serde_json::from_slice(&body).map_err(|error| {
        let message = format!("the body is no registration: {error}");
        Failure::new(Code::InvalidRequest, message)
    })?;
    let caller = parts.extensions.get::<Arc<Identified>>();
    let asking = asks(&shared, caller);
    let registry = shared.router.registry();
    let registered = registry.register(registration, &asking).await?;
    let capability = registered.capability();
    tracing::info!(
        target: "audit",
        caller = caller.map(|caller| caller.id.as_str()),
        worker = %capability.worker_id,
        capability = capability.key(),
        url = registered.endpoint().address().url(),
        "registered"
    );
    let condition = registered.endpoint().condition();
    Ok(Json(json!({
        "status": "registered",
        "worker_id": capability.worker_id,
        "capability": capability.key(),
        "version": capability.version.to_string(),
        "ttl": registered.ttl(),
        "kept": registered.is_kept,
        "health": condition.health,
        "reason": condition.reason,
    })))
}

pub(super) async fn unregister(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    headers: HeaderMap,
    caller: Option<Extension<Arc<Identified>>>,
) -> Result<Json<Value>, Refusal> {
    refuse_pages(&headers)?;
    let Path(text) = path.map_err(bad_path)?;
    let worker_id = worker_id(&text)?;
    let caller = caller.as_ref().map(|Extension(caller)| caller);
    let asking = asks(&shared, caller);
    let removed = shared.router.registry().unregister(&text, &asking).await?;
    let caller = caller.map(|caller| caller.id.as_str());
    tracing::info!(target: "audit", caller, worker = %worker_id, "unregistered");
    Ok(Json(json!({
        "status": "removed",
        "worker_id": worker_id,
        "capabilities": removed,
    })))
}

/// Where callers say who they are, those may whom the operator lists, and being on this machine is no proof. Who is an
/// operator besides registers for others too.
fn asks(shared: &Shared, caller: Option<&Arc<Identified>>) -> Caller {
    let Some(auth) = shared.credentials.auth() else {
        return shared.callers.clone();
    };
    match caller.and_then(|caller| Some((caller, auth.registrar(caller)?))) {
        Some((caller, _)) if auth.may_operate(caller) => Caller::Operator(Some(caller.id.clone())),
        Some((_, registrar)) => Caller::Registrar(registrar.clone()),
        None => Caller::Foreign,
    }
}

fn worker_id(text: &str) -> Result<WorkerId, Failure> {
    WorkerId::parse(text).map_err(|error| {
        let fault = Fault {
            pointer: "/worker_id".to_owned(),
            detail: error.to_string(),
        };
        let message = "the registration is not accepted";
        Failure::new(Code::InvalidRequest, message).with_faults(vec![fault])
    })
}

/// A web page, also one that may call capabilities, says nothing about where workers are.
fn refuse_pages(headers: &HeaderMap) -> Result<(), Failure> {
    match headers.contains_key(ORIGIN) {
        true => Err(Failure::new(Code::Denied, "no web page registers workers")),
        false => Ok(()),
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), Failure> {
    let given = headers
        .get(CONTENT_TYPE)
        .and_then(|value| value.to_str().ok());
    match given.map(MediaType::parse) {
        Some(Ok(media_type)) if media_type.is_json() => Ok(()),
        _ => Err(Failure::new(
            Code::UnsupportedMediaType,
            "a registration is application/json",
        )),
    }
}

async fn read(body: Body, shared: &Shared) -> Result<Bytes, Failure> {
    let collected = Limited::new(body, MAX_BYTES).collect();
    match unless(|| sleep(shared.body_timeout), collected).await {
        Some(Ok(body)) => Ok(body.to_bytes()),
        Some(Err(error)) if error.is::<LengthLimitError>() => Err(Failure::new(
            Code::TooLarge,
            format!("a registration has at most {MAX_BYTES} bytes"),
        )),
        Some(Err(_)) => Err(Failure::new(Code::InvalidRequest, "the body broke off")),
        None => {
            let message = format!("the body did not arrive within {:?}", shared.body_timeout);
            Err(Failure::new(Code::RequestTimeout, message))
        }
    }
}
