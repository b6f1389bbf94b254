//! `GET /explain/{verb}[/{name}]`: why a call would go where it would go now.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::json;

use super::problem::Refusal;
use super::routes::{Shared, bad_path, bad_query, requirement};
use crate::error::{Code, Failure};
use crate::identity::Caller;
use crate::router::Question;

/// What may stand in the query.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    version: Option<String>,
    runtime: Option<String>,
    env_profile: Option<String>,
    max_cost: Option<f64>,
    timeout_ms: Option<u64>,
    caller: Option<String>,
}

pub(super) async fn by_name(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<(String, String)>, PathRejection>,
    caller: Option<Extension<Arc<Caller>>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path((verb, name)) = path.map_err(bad_path)?;
    let question = question(verb, Some(name), &uri)?;
    check(&shared, caller.as_deref(), &question)?;
    let explained = shared.router.explain(&question).await?;
    Ok(Json(explained.into_iter().next()).into_response())
}

pub(super) async fn by_verb(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    caller: Option<Extension<Arc<Caller>>>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path(verb) = path.map_err(bad_path)?;
    let question = question(verb, None, &uri)?;
    check(&shared, caller.as_deref(), &question)?;
    let explained = shared.router.explain(&question).await?;
    let sentence = match explained.as_slice() {
        [one] => format!("a call of the verb alone goes to {}", one.capability),
        _ => "a call of the verb alone goes to the name whose input schema takes its input"
            .to_owned(),
    };
    Ok(Json(json!({ "sentence": sentence, "names": explained })).into_response())
}

/// What others may call is theirs and the operators' to know.
fn check(
    shared: &Shared,
    caller: Option<&Arc<Caller>>,
    question: &Question,
) -> Result<(), Failure> {
    let caller = caller.map(AsRef::as_ref);
    let own = caller.map(|caller: &Caller| caller.id.as_str());
    let asked = question.caller.as_deref();
    if asked.is_none() || asked == own || shared.credentials.may_operate(caller) {
        return Ok(());
    }
    let message = "what another caller may is told to those who stand in identity.operators";
    Err(Failure::new(Code::Denied, message))
}

fn question(verb: String, name: Option<String>, uri: &Uri) -> Result<Question, Failure> {
    let Query(asked) = Query::<Asked>::try_from_uri(uri).map_err(bad_query)?;
    let version = asked.version.as_deref().map(requirement).transpose()?;
    Ok(Question {
        verb,
        name,
        version,
        runtime: asked.runtime,
        env_profile: asked.env_profile,
        max_cost: asked.max_cost,
        patience: asked.timeout_ms.map(Duration::from_millis),
        caller: asked.caller,
    })
}
