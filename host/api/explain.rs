//! `GET /explain/{verb}[/{name}]`: why a call would go where it would go now.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Query, State};
use axum::http::Uri;
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::json;

use super::problem::Refusal;
use super::routes::{Shared, bad_path, bad_query, requirement};
use crate::error::Failure;
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
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path((verb, name)) = path.map_err(bad_path)?;
    let explained = shared
        .router
        .explain(&question(verb, Some(name), &uri)?)
        .await?;
    Ok(Json(explained.into_iter().next()).into_response())
}

pub(super) async fn by_verb(
    State(shared): State<Arc<Shared>>,
    path: Result<Path<String>, PathRejection>,
    uri: Uri,
) -> Result<Response, Refusal> {
    let Path(verb) = path.map_err(bad_path)?;
    let explained = shared.router.explain(&question(verb, None, &uri)?).await?;
    let sentence = match explained.as_slice() {
        [one] => format!("a call of the verb alone goes to {}", one.capability),
        _ => "a call of the verb alone goes to the name whose input schema takes its input"
            .to_owned(),
    };
    Ok(Json(json!({ "sentence": sentence, "names": explained })).into_response())
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
