//! `POST /reload`: looks at the directory of components at once, and tells what that changed.
//!
//! A power of whoever the door lets in: nobody gains by it but time, since only files of the operator's own
//! directory are loaded.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::problem::Refusal;
use super::routes::Shared;
use super::workers::{file_name, refusal};
use crate::error::{Code, Failure};
use crate::worker::Worker;

/// Answers when all is loaded that could be.
pub(super) async fn reload(State(shared): State<Arc<Shared>>) -> Result<Json<Value>, Refusal> {
    let changes = shared.router.registry().reload().await.map_err(|error| {
        let message = "the directory of workers cannot be read; what is loaded goes on serving";
        Failure::new(Code::Unavailable, message).with_cause(error)
    })?;
    let unsettled = changes.unsettled.iter().map(|file| file_name(file));
    Ok(Json(json!({
        "loaded": named(&changes.loaded),
        "replaced": named(&changes.replaced),
        "removed": named(&changes.removed),
        "refused": changes.refused.iter().map(refusal).collect::<Vec<_>>(),
        "unsettled": unsettled.collect::<Vec<_>>(),
        // Where the files lie is nobody's business out there: the log names them.
        "policy": changes.policy.is_some().then_some("broken: the one before holds; see the log"),
    })))
}

fn named(workers: &[Arc<Worker>]) -> Vec<Value> {
    let name = |worker: &Arc<Worker>| json!({ "worker_id": &**worker.id(), "file": file_name(worker.file()) });
    workers.iter().map(name).collect()
}
