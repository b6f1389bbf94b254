//! What is loaded at one moment, by verb and name.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{Local, Provider, claims, components, loading};
use crate::capability::{Filter, View};
use crate::config::Config;
use crate::engine::Engine;
use crate::remote::{self, Entry, Joined};
use crate::striped::{Handle, Shared};
use crate::worker::{Offered, Refused, Snapshotted, Starting, Worker};

/// A capability and the worker that offers it. A clone is another handle to the same.
#[derive(Clone)]
pub struct Candidate(Shared<Offer>);

/// A capability and the worker that offers it.
pub struct Offer {
    /// Who would run it.
    pub provider: Provider,
    /// What it would run.
    pub offered: Arc<Offered>,
}

impl Candidate {
    /// This worker, with what it offers.
    pub fn new(provider: Provider, offered: Arc<Offered>) -> Self {
        Self(Arc::new(Offer { provider, offered }).into())
    }

    /// A handle of this thread.
    pub fn handle(&self) -> Handle<Offer> {
        self.0.handle()
    }
}

impl Deref for Candidate {
    type Target = Offer;

    fn deref(&self) -> &Offer {
        &self.0
    }
}

/// Of all who offer a capability one with the highest version, which is the one that who names no version gets
/// to see; a component before a remote worker.
pub fn newest(candidates: &[Candidate]) -> Option<&Candidate> {
    candidates.iter().rev().max_by(|one, other| {
        let [one, other] = [one, other].map(|candidate| &candidate.offered.capability.version);
        one.cmp(other)
    })
}

/// What is loaded, and what was refused.
#[derive(Default)]
pub struct Snapshot {
    verbs: HashMap<String, BTreeMap<String, Vec<Candidate>>>,
    workers: Vec<Arc<Worker>>,
    refused: Vec<Refused>,
    starting: Vec<Arc<Starting>>,
    pub(super) remote: Joined,
}

impl Snapshot {
    /// Loads every `*.wasm` of a directory, in parallel. A bad worker is refused and listed; the
    /// others serve.
    ///
    /// # Errors
    ///
    /// The directory itself cannot be read.
    pub async fn load_dir(engine: &Engine, config: &Arc<Config>, dir: &Path) -> io::Result<Self> {
        Ok(Self::load(engine, config, components(dir)?).await)
    }

    /// Loads the components in these files, in parallel.
    pub async fn load(engine: &Engine, config: &Arc<Config>, files: Vec<PathBuf>) -> Self {
        let loads = files.into_iter().map(|file| {
            let (engine, config, path) = (engine.clone(), config.clone(), file.clone());
            let load = async move { Worker::load(&engine, &config, &path).await };
            (file, load)
        });
        let mut workers = Vec::new();
        let mut local = Local::default();
        for (file, loaded) in loading::in_parallel(loads).await {
            match loaded {
                Ok(Ok(worker)) => workers.push(worker),
                Ok(Err(refused)) => local.refused.push(refused),
                Err(error) => local.refused.push(loading::died(file, &error)),
            }
        }
        let (workers, contested) = claims::settle(workers, &[], &[]);
        local.workers = workers.into_iter().map(Arc::new).collect();
        local.refused.extend(contested);
        Self::compose(&local, &[])
    }

    /// A worker here whose init snapshot is still to be taken.
    pub(super) fn pending(&self) -> Option<Arc<Worker>> {
        let pending = |worker: &&Arc<Worker>| worker.snapshotted() == Snapshotted::Pending;
        self.workers.iter().find(pending).cloned()
    }

    /// What the parts of all sources make together.
    pub(super) fn compose(local: &Local, remote: &[Arc<Entry>]) -> Self {
        let mut workers = local.workers.clone();
        workers.sort_by(|a, b| (a.id(), a.file()).cmp(&(b.id(), b.file())));
        let mut refused = local.refused.clone();
        refused.sort_by(|a, b| a.file.cmp(&b.file));
        let remote = remote::join(&workers, remote);
        let here = workers.iter().flat_map(|worker| {
            worker
                .offered()
                .iter()
                .map(|offered| Candidate::new(Provider::Local(worker.clone()), offered.clone()))
        });
        let elsewhere = remote.remotes.iter().map(|remote| {
            Candidate::new(Provider::Remote(remote.clone()), remote.offered().clone())
        });
        Self {
            verbs: by_verb(here.chain(elsewhere)),
            workers,
            refused,
            starting: local.starting.clone(),
            remote,
        }
    }

    /// Of all that is offered no more than these, for those who may call no other.
    #[must_use]
    pub fn only(&self, candidates: Vec<Candidate>) -> Self {
        Self {
            verbs: by_verb(candidates),
            workers: self.workers.clone(),
            remote: Joined {
                remotes: self.remote.remotes.clone(),
                ..Joined::default()
            },
            ..Self::default()
        }
    }

    /// Whether this is among what is offered.
    pub(super) fn has(&self, offered: &Arc<Offered>) -> bool {
        let capability = &offered.capability;
        let names = self.names(capability.verb.as_str());
        let mut candidates = names
            .and_then(|names| names.get(capability.name.as_str()))
            .into_iter()
            .flatten();
        candidates.any(|candidate| Arc::ptr_eq(&candidate.offered, offered))
    }

    /// What of it the directory of components gives.
    pub(super) fn local(&self) -> Local {
        Local {
            workers: self.workers.clone(),
            refused: self.refused.clone(),
            starting: self.starting.clone(),
        }
    }

    /// The names under a verb, each with who offers it.
    pub fn names(&self, verb: &str) -> Option<&BTreeMap<String, Vec<Candidate>>> {
        self.verbs.get(verb)
    }

    /// Every capability, with who offers it; in no order.
    pub fn offers(&self) -> impl Iterator<Item = &[Candidate]> {
        let names = self.verbs.values().flat_map(BTreeMap::values);
        names.map(Vec::as_slice)
    }

    /// The workers that serve, ordered by id.
    pub fn workers(&self) -> &[Arc<Worker>] {
        &self.workers
    }

    /// The capabilities that a caller asks to see; `url` is this host's own.
    pub fn capabilities<'a>(&'a self, filter: &Filter, url: &'a str) -> Vec<View<'a>> {
        self.workers
            .iter()
            .flat_map(|worker| {
                worker
                    .offered()
                    .iter()
                    .map(move |offered| (worker, offered))
            })
            .filter(|(_, offered)| filter.matches(&offered.capability) && self.has(offered))
            .map(|(worker, offered)| View::new(&offered.capability, url, worker.load_score()))
            .chain(self.remote_capabilities(filter))
            .collect()
    }

    /// Components that wait to be placed.
    pub fn starting(&self) -> &[Arc<Starting>] {
        &self.starting
    }

    /// Whether there is anyone to serve a call.
    pub fn is_ready(&self) -> bool {
        !self.workers.is_empty() || !self.remote.remotes.is_empty()
    }

    /// What was refused, ordered by file. A file that serves may be among them: then it is a later version
    /// that was refused.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }
}

fn by_verb(
    candidates: impl IntoIterator<Item = Candidate>,
) -> HashMap<String, BTreeMap<String, Vec<Candidate>>> {
    let mut verbs: HashMap<String, BTreeMap<String, Vec<Candidate>>> = HashMap::new();
    for candidate in candidates {
        let capability = &candidate.offered.capability;
        let names = verbs.entry(capability.verb.to_string()).or_default();
        names
            .entry(capability.name.to_string())
            .or_default()
            .push(candidate);
    }
    verbs
}
