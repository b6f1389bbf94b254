//! Whose an id is: a worker id or a SPIFFE id belongs to one file.

use std::collections::{BTreeSet, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::capability::Capability;
use crate::worker::{Refused, Starting, Worker};

/// The newcomers whose ids are theirs alone, and why the others are refused. An id that two newcomers claim
/// belongs to neither, also where one of them is still starting; one that a worker has who serves already
/// stays with it.
pub(super) fn settle(
    mut newcomers: Vec<Worker>,
    serving: &[Arc<Worker>],
    starting: &[Arc<Starting>],
) -> (Vec<Worker>, Vec<Refused>) {
    newcomers.sort_by(|a, b| (a.id(), a.file()).cmp(&(b.id(), b.file())));
    let mut owners: HashMap<String, &Path> = HashMap::new();
    for worker in serving {
        owners.extend(ids(worker).into_iter().map(|id| (id, worker.file())));
    }
    let mut claims: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for worker in &newcomers {
        for id in ids(worker) {
            claims.entry(id).or_default().push(worker.file().to_owned());
        }
    }
    for starting in starting {
        for id in claimed(&starting.worker_id, starting.capabilities.iter()) {
            claims.entry(id).or_default().push(starting.file.clone());
        }
    }
    let mut kept = Vec::new();
    let mut refused = Vec::new();
    for worker in newcomers {
        let reason = |id: String| {
            if let Some(owner) = owners.get(&id) {
                let owner = name(owner);
                return Some(format!(
                    "{id} is that of {owner}, which serves; an id belongs to one file"
                ));
            }
            let others = claims.get(&id)?.iter();
            let others: Vec<String> = others
                .filter(|file| *file != worker.file())
                .map(|file| name(file))
                .collect();
            (!others.is_empty()).then(|| {
                let others = others.join(", ");
                format!("{id} is claimed by {others} too; an id belongs to one file")
            })
        };
        let reasons: Vec<String> = ids(&worker).into_iter().filter_map(reason).collect();
        if reasons.is_empty() {
            kept.push(worker);
        } else {
            refused.push(refusal(&worker, reasons));
        }
    }
    (kept, refused)
}

/// A file keeps its ids for as long as the host runs: who trusts an id trusts what the operator placed
/// when it was first seen. `before` is what it had.
pub(super) fn unchanged(worker: &Worker, before: Option<&BTreeSet<String>>) -> Result<(), Refused> {
    let now = ids(worker);
    let Some(before) = before.filter(|before| **before != now) else {
        return Ok(());
    };
    let listed = |ids: &BTreeSet<String>| {
        let ids: Vec<&str> = ids.iter().map(String::as_str).collect();
        ids.join(", ")
    };
    let reason = format!(
        "a file keeps its ids while the host runs: this one had {}, and claims {}; restart the host, or place it under another name",
        listed(before),
        listed(&now)
    );
    Err(refusal(worker, vec![reason]))
}

/// The identities that a worker claims.
pub(super) fn ids(worker: &Worker) -> BTreeSet<String> {
    let offered = worker.offered().iter();
    claimed(worker.id(), offered.map(|offered| &offered.capability))
}

fn claimed<'a>(
    worker: &str,
    capabilities: impl Iterator<Item = &'a Capability>,
) -> BTreeSet<String> {
    let spiffe = capabilities.filter_map(|capability| {
        let id = capability.spiffe_id.as_ref()?;
        Some(format!("spiffe id {id}"))
    });
    let mut ids: BTreeSet<String> = spiffe.collect();
    ids.insert(format!("worker id {worker}"));
    ids
}

fn refusal(worker: &Worker, reasons: Vec<String>) -> Refused {
    Refused {
        file: worker.file().to_owned(),
        worker_id: Some(worker.id().to_string()),
        reasons,
    }
}

fn name(file: &Path) -> String {
    let name = file.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}
