//! Which worker offers what: one immutable snapshot at a time, read without a lock.

use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use arc_swap::ArcSwap;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;

use crate::capability::{Filter, View};
use crate::config::Config;
use crate::engine::{self, Engine};
use crate::worker::{Offered, Refused, Worker};

/// The current snapshot, swapped whole.
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    changed: watch::Sender<()>,
}

/// A capability and the worker that offers it.
#[derive(Clone)]
pub struct Candidate {
    /// Who would run it.
    pub worker: Arc<Worker>,
    /// What it would run.
    pub offered: Arc<Offered>,
}

/// What is loaded, and what was refused.
#[derive(Default)]
pub struct Snapshot {
    verbs: HashMap<String, BTreeMap<String, Vec<Candidate>>>,
    workers: Vec<Arc<Worker>>,
    refused: Vec<Refused>,
}

impl Registry {
    /// A registry of what a snapshot holds.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            snapshot: ArcSwap::from_pointee(snapshot),
            changed: watch::Sender::default(),
        }
    }

    /// What is loaded now. Whoever holds it sees no later change.
    pub fn snapshot(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// Puts another snapshot in place. Calls in flight end with the one that they began with.
    pub fn replace(&self, snapshot: Snapshot) {
        self.snapshot.store(Arc::new(snapshot));
        self.changed.send_replace(());
    }

    /// Sees each change of the snapshot from now on; of several in a row perhaps only the last.
    pub fn changes(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }
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
        // Each may keep a core busy: as many at once as there are cores. The engine bounds compilers.
        let turns = Arc::new(Semaphore::new(engine::cores()));
        let mut loading = JoinSet::new();
        let mut files_of = HashMap::new();
        for file in files {
            let (engine, config, turns) = (engine.clone(), config.clone(), turns.clone());
            let path = file.clone();
            let task = loading.spawn(async move {
                // The semaphore is never closed; a permit is there sooner or later.
                let _turn = turns.acquire().await;
                Worker::load(&engine, &config, &path).await
            });
            files_of.insert(task.id(), file);
        }
        let mut workers = Vec::new();
        let mut refused = Vec::new();
        while let Some(joined) = loading.join_next_with_id().await {
            match joined {
                Ok((_, Ok(worker))) => workers.push(worker),
                Ok((_, Err(reasons))) => refused.push(reasons),
                // A library that panics on a stranger's metadata costs that stranger its place.
                Err(error) => refused.push(Refused {
                    file: files_of.remove(&error.id()).unwrap_or_default(),
                    worker_id: None,
                    reasons: vec![format!("checking it failed: {error}")],
                }),
            }
        }
        Self::new(workers, refused)
    }

    fn new(workers: Vec<Worker>, mut refused: Vec<Refused>) -> Self {
        let workers = without_shared_ids(workers, &mut refused);
        refused.sort_by(|a, b| a.file.cmp(&b.file));
        let mut verbs: HashMap<String, BTreeMap<String, Vec<Candidate>>> = HashMap::new();
        for worker in &workers {
            for offered in worker.offered() {
                verbs
                    .entry(offered.capability.verb.to_string())
                    .or_default()
                    .entry(offered.capability.name.to_string())
                    .or_default()
                    .push(Candidate {
                        worker: worker.clone(),
                        offered: offered.clone(),
                    });
            }
        }
        Self {
            verbs,
            workers,
            refused,
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
            .filter(|(_, offered)| filter.matches(&offered.capability))
            .map(|(worker, offered)| View::new(&offered.capability, url, worker.load_score()))
            .collect()
    }

    /// Whether there is anyone to serve a call.
    pub fn is_ready(&self) -> bool {
        !self.workers.is_empty()
    }

    /// What was refused, ordered by file.
    pub fn refused(&self) -> &[Refused] {
        &self.refused
    }
}

/// The components of a directory (`*.wasm`, not hidden), ordered by name.
///
/// # Errors
///
/// The directory cannot be read.
pub fn components(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let hidden = path
            .file_name()
            .is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path
                .extension()
                .is_some_and(|extension| extension == "wasm")
            && path.is_file()
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

/// A worker id or a SPIFFE id that two files claim belongs to neither: both are refused.
fn without_shared_ids(mut workers: Vec<Worker>, refused: &mut Vec<Refused>) -> Vec<Arc<Worker>> {
    workers.sort_by(|a, b| (a.id(), a.file()).cmp(&(b.id(), b.file())));
    let mut claims: HashMap<String, Vec<PathBuf>> = HashMap::new();
    for worker in &workers {
        for id in ids(worker) {
            claims.entry(id).or_default().push(worker.file().to_owned());
        }
    }
    let mut kept = Vec::new();
    for worker in workers {
        let reasons: Vec<String> = ids(&worker)
            .into_iter()
            .filter(|id| claims.get(id).is_some_and(|files| files.len() > 1))
            .map(|id| {
                let others: Vec<String> = claims[&id]
                    .iter()
                    .filter(|file| *file != worker.file())
                    .map(|file| {
                        file.file_name()
                            .unwrap_or_default()
                            .to_string_lossy()
                            .into_owned()
                    })
                    .collect();
                format!(
                    "{id} is claimed by {} too; an id belongs to one file",
                    others.join(", ")
                )
            })
            .collect();
        if reasons.is_empty() {
            kept.push(Arc::new(worker));
        } else {
            refused.push(Refused {
                file: worker.file().to_owned(),
                worker_id: Some(worker.id().to_string()),
                reasons,
            });
        }
    }
    kept
}

/// The identities that a worker claims, each once.
fn ids(worker: &Worker) -> Vec<String> {
    let mut ids: Vec<String> = worker
        .offered()
        .iter()
        .filter_map(|offered| {
            Some(format!(
                "spiffe id {}",
                offered.capability.spiffe_id.as_ref()?
            ))
        })
        .collect();
    ids.push(format!("worker id {}", worker.id()));
    ids.sort();
    ids.dedup();
    ids
}
