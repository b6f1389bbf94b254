//! What a client knows of the tools and of the resources that it watches, so that it is told what changes.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rmcp::model::ErrorData;
use serde_json::json;
use tokio::sync::watch;

use super::{document, resource, tool};
use crate::registry::Snapshot;
use crate::router::Router;

/// Resources that a client may watch.
const WATCHED: usize = 256;

/// The resources that a client watches, each with what stands for its capability; `None`: there is none.
#[derive(Default)]
pub(super) struct Watched(Mutex<BTreeMap<String, Option<u64>>>);

impl Watched {
    /// Those of these that one may watch.
    pub fn of(uris: &[String], snapshot: &Snapshot) -> Self {
        let uris = uris.iter().take(WATCHED);
        let watched = uris.map(|uri| (uri.clone(), print(snapshot, uri)));
        Self(Mutex::new(watched.collect()))
    }

    /// One more.
    ///
    /// # Errors
    ///
    /// There is no such resource, or there are too many.
    pub fn add(&self, uri: String, snapshot: &Snapshot) -> Result<(), ErrorData> {
        let Some(print) = print(snapshot, &uri) else {
            return Err(nothing(&uri));
        };
        let mut watched = self.lock();
        if watched.len() >= WATCHED && !watched.contains_key(&uri) {
            let message = format!("at most {WATCHED} resources are watched; unsubscribe from some");
            return Err(ErrorData::invalid_params(message, None));
        }
        watched.insert(uri, Some(print));
        Ok(())
    }

    /// One less, if it is one.
    pub fn remove(&self, uri: &str) {
        self.lock().remove(uri);
    }

    /// Those that are others now.
    fn changed(&self, snapshot: &Snapshot) -> Vec<String> {
        let mut changed = Vec::new();
        for (uri, known) in &mut *self.lock() {
            let now = print(snapshot, uri);
            if std::mem::replace(known, now) != now {
                changed.push(uri.clone());
            }
        }
        changed
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<String, Option<u64>>> {
        // Each change is one entry's.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a client is to be told.
pub(super) struct News {
    /// That the tools and the resources are others.
    pub list: bool,
    /// Resources that it watches and that are others.
    pub resources: Vec<String>,
}

/// What a client knows.
pub(super) struct Seen {
    caller: Option<String>,
    changes: watch::Receiver<()>,
    list: Option<u64>,
    watched: Arc<Watched>,
}

impl Seen {
    pub async fn now(router: &Router, caller: Option<String>, watched: Arc<Watched>) -> Self {
        let changes = router.registry().changes();
        let shown = router.shown(caller.as_deref()).await;
        Self {
            changes,
            list: shown.ok().map(|snapshot| list(&snapshot)),
            caller,
            watched,
        }
    }

    /// Resolves once there is news. Most changes of the registry are none.
    pub async fn change(&mut self, router: &Router) -> News {
        while self.changes.changed().await.is_ok() {
            let shown = router.shown(self.caller.as_deref()).await;
            let (now, resources) = match &shown {
                Ok(snapshot) => (Some(list(snapshot)), self.watched.changed(snapshot)),
                // What is not known now may be another list.
                Err(_) => (None, Vec::new()),
            };
            let before = std::mem::replace(&mut self.list, now);
            let list = now.is_none() || now != before;
            if list || !resources.is_empty() {
                return News { list, resources };
            }
        }
        std::future::pending().await
    }
}

/// Stands for the list of tools in as little room as many clients' lists should take.
fn list(snapshot: &Snapshot) -> u64 {
    hash(&serde_json::to_vec(&tool::all(snapshot)).unwrap_or_default())
}

/// Stands for the capability behind a resource. What it would answer nobody knows who does not ask.
fn print(snapshot: &Snapshot, uri: &str) -> Option<u64> {
    let named = || resource::find(snapshot, uri).map(|(candidate, _)| candidate);
    let candidate = document::find(snapshot, uri).or_else(named)?;
    Some(hash(document::page(candidate).as_bytes()))
}

fn hash(bytes: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(bytes);
    hasher.finish()
}

/// That there is no such resource.
pub(super) fn nothing(uri: &str) -> ErrorData {
    ErrorData::resource_not_found(
        "no such resource; resources/list has those that there are",
        Some(json!({ "uri": uri })),
    )
}
