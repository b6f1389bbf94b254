//! What remote sources say, held against each other and against the components that are loaded: who
//! may offer what, under which schema. Pure, so that a snapshot can be made again at any time.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::agree::{disagreement, is_promised};
use super::{Entry, Refused, Remote, Source};
use crate::capability::Capability;
use crate::identity::SpiffeId;
use crate::worker::Worker;

/// What came of it.
#[derive(Default)]
pub struct Joined {
    /// Who may be called, ordered by worker and capability.
    pub remotes: Vec<Arc<Remote>>,
    /// Who may not, and why.
    pub refused: Vec<Refused>,
}

impl Joined {
    /// Why an entry may not be called.
    pub fn refusal(&self, entry: &Arc<Entry>) -> Option<&Refused> {
        let of = |refused: &&Refused| Arc::ptr_eq(&refused.entry, entry);
        self.refused.iter().find(of)
    }
}

/// Joins what the sources say, the earlier before the later: a component before all, the operator's file
/// before what was registered.
pub fn join(workers: &[Arc<Worker>], entries: &[Arc<Entry>]) -> Joined {
    let mut joining = Joining::new(workers, entries);
    let mut joined = Joined::default();
    let (own, bare): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| entry.has_schema);
    // Those with a schema first: those without take theirs over.
    for entry in own.into_iter().chain(bare) {
        match joining.admit(entry) {
            Ok(remote) => joined.remotes.push(Arc::new(remote)),
            Err(reason) => joined.refused.push(Refused {
                entry: entry.clone(),
                reason,
            }),
        }
    }
    joined.remotes.sort_by(|a, b| a.order().cmp(&b.order()));
    joined
}

#[derive(Default)]
struct Joining {
    loaded: BTreeSet<String>,
    configured: BTreeSet<String>,
    /// Who has which SPIFFE id.
    identities: BTreeMap<String, String>,
    /// Capabilities whose schemas hold, with who brought them.
    known: BTreeMap<String, Vec<(Arc<Capability>, String)>>,
}

impl Joining {
    fn new(workers: &[Arc<Worker>], entries: &[Arc<Entry>]) -> Self {
        let mut joining = Self::default();
        for worker in workers {
            joining.loaded.insert(worker.id().to_string());
            for offered in worker.offered() {
                joining.note(&offered.capability, worker.id(), worker.id());
            }
        }
        let configured = entries
            .iter()
            .filter(|entry| entry.source == Source::Configured);
        joining.configured = configured
            .map(|entry| entry.worker_id().to_owned())
            .collect();
        joining
    }

    fn note(&mut self, capability: &Capability, worker_id: &str, holder: &str) {
        if let Some(id) = &capability.spiffe_id {
            self.identities.insert(id.to_string(), holder.to_owned());
        }
        let known = self.known.entry(capability.key()).or_default();
        known.push((Arc::new(capability.clone()), worker_id.to_owned()));
    }

    fn admit(&mut self, entry: &Arc<Entry>) -> Result<Remote, String> {
        let worker_id = entry.worker_id();
        if self.loaded.contains(worker_id) {
            return Err(format!("worker id {worker_id} is a loaded component's"));
        }
        if entry.source == Source::Registered && self.configured.contains(worker_id) {
            return Err(format!(
                "worker id {worker_id} belongs to a worker of the capabilities file"
            ));
        }
        let capability = &entry.capability;
        // Who registers workers under their own id has it for all of them.
        let own = entry
            .owner
            .as_ref()
            .filter(|_| capability.spiffe_id.is_some());
        let holder = own.map_or(worker_id, SpiffeId::as_str);
        if let Some(id) = &capability.spiffe_id
            && let Some(owner) = self.identities.get(id.as_str())
            && owner != holder
        {
            return Err(format!("spiffe id {id} is {owner}'s"));
        }
        let known = self.known.get(&capability.key());
        let known = known.map(Vec::as_slice).unwrap_or_default();
        if entry.has_schema {
            for (other, owner) in known {
                let disagrees = disagreement(
                    (&capability.version, &capability.schemas),
                    (&other.version, &other.schemas),
                );
                if let Some(place) = disagrees {
                    return Err(format!(
                        "the schema of {} {} does not agree with that of {owner} ({}): {place}; change both, or raise the major version",
                        capability.key(),
                        capability.version,
                        other.version
                    ));
                }
            }
            self.note(capability, worker_id, holder);
            return Ok(Remote::new(entry.clone(), capability.clone()));
        }
        // The last of equals wins there, and the first is to.
        let known = known.iter().rev().map(|(known, _)| &**known);
        let inherited = inherit(capability, known);
        if capability.spiffe_id.is_some() {
            let id = capability.spiffe_id.iter().map(ToString::to_string);
            self.identities.extend(id.map(|id| (id, holder.to_owned())));
        }
        Ok(Remote::new(entry.clone(), inherited))
    }
}

/// The capability with the schemas of the same version, else of the highest that semver takes for
/// compatible; with none it accepts everything.
fn inherit<'a>(capability: &Capability, known: impl Iterator<Item = &'a Capability>) -> Capability {
    let version = &capability.version;
    let compatible =
        |other: &&Capability| is_promised(version.min(&other.version), version.max(&other.version));
    let best = known
        .filter(compatible)
        .max_by_key(|other| (other.version == *version, other.version.clone()));
    let mut inherited = capability.clone();
    if let Some(best) = best {
        inherited.schemas = best.schemas.clone();
        inherited.accepts.clone_from(&best.accepts);
        inherited.produces = best.produces.clone();
        if inherited.description.is_empty() {
            inherited.description.clone_from(&best.description);
        }
    }
    inherited
}
