//! The directory of components as a source of workers: looked at again whenever something may have
//! changed, and swapped in whole.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tokio::sync::Mutex;
use tokio::task::{JoinError, spawn_blocking};

use super::seen::{Due, Seen, Stamp, note, scan};
use super::{Local, claims, loading};
use crate::config::Config;
use crate::engine::Engine;
use crate::rules::Looked;
use crate::worker::{Begun, Binary, Refused, Starting, Worker};

/// How often a reload that is asked for waits until files are still.
pub(super) const PATIENCE: u32 = 10;

/// A directory of components, and what is known of each file that it has or had.
pub(super) struct Directory {
    engine: Engine,
    config: Arc<Config>,
    path: PathBuf,
    /// Held for a whole look: one after the other, so that the last state wins.
    files: Mutex<BTreeMap<PathBuf, Seen>>,
    /// The revision of the policy that all that serves was judged by.
    revision: AtomicU64,
}

/// Why the directory is looked at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Look {
    /// The host starts: whatever is there is loaded.
    First,
    /// Something may have changed.
    Changed,
    /// Somebody asks for it: what was refused is tried again.
    Again,
}

/// What a look at the directory has changed.
#[derive(Default)]
pub struct Changes {
    /// New files that serve now.
    pub loaded: Vec<Arc<Worker>>,
    /// New versions that serve now in the place of older ones.
    pub replaced: Vec<Arc<Worker>>,
    /// Those whose file is gone: they get no more calls.
    pub removed: Vec<Arc<Worker>>,
    /// What was looked at and may not serve.
    pub refused: Vec<Refused>,
    /// What serves once the drivers have said which GPUs there are, if one of them suits.
    pub starting: Vec<Arc<Starting>>,
    /// Files that are being written: they are looked at again.
    pub unsettled: Vec<PathBuf>,
    /// Why the policy stays as it was before its files changed.
    pub policy: Option<String>,
}

/// A file that is to be loaded.
struct Load {
    engine: Engine,
    config: Arc<Config>,
    file: PathBuf,
    stamp: Stamp,
    /// Digests that need no judgement: of what serves, and of what was judged last.
    serving: Option<blake3::Hash>,
    judged: Option<blake3::Hash>,
    /// The host starts.
    is_first: bool,
}

/// What became of it.
enum Loaded {
    /// It changed while it was read.
    Unsettled,
    /// The same as what was judged last.
    Same,
    /// The same as what serves.
    Serving,
    New(Box<Worker>),
    Starting(blake3::Hash, Starting),
    /// With its digest, if it could be read.
    Refused(Option<blake3::Hash>, Refused),
}

impl Directory {
    pub fn new(engine: &Engine, config: &Arc<Config>, path: &Path) -> Self {
        Self {
            engine: engine.clone(),
            config: config.clone(),
            path: path.to_owned(),
            files: Mutex::default(),
            revision: AtomicU64::new(engine.rules().current().number()),
        }
    }

    /// Loads what is new or changed and still, drops what is gone, and hands over what there is now, if that
    /// is something else. Until then nothing is changed that cannot be done again.
    pub async fn look(&self, look: Look, swap: impl FnOnce(Local)) -> io::Result<Changes> {
        let mut files = self.files.lock().await;
        let path = self.path.clone();
        let found = spawn_blocking(move || scan(&path));
        note(&mut files, found.await.map_err(io::Error::other)??);

        let mut changes = Changes::default();
        self.revise(look, &mut changes).await;
        // Whoever another policy may let in is tried again, and whoever it does not goes.
        let revision = self.engine.rules().current().number();
        let revised = self.revision.load(Relaxed) != revision;
        let again = look == Look::Again || revised;
        let mut barred = Vec::new();
        for worker in files.values().filter_map(|seen| seen.serving.as_ref()) {
            if revised {
                barred.extend(self.barred(worker).await);
            }
        }
        let mut gone = Vec::new();
        let mut loads = Vec::new();
        for (file, seen) in &*files {
            let placed = seen.starting.is_some() && self.engine.known_gpus().is_some();
            let retried = (placed || again && seen.refused.is_some()) && seen.stamp.is_some();
            match seen.due(look == Look::First) {
                Due::Drain => gone.push(file.clone()),
                Due::Wait => changes.unsettled.push(file.clone()),
                Due::Load => loads.extend(self.load(file, seen, look, retried)),
                Due::Nothing if retried => loads.extend(self.load(file, seen, look, true)),
                Due::Nothing => {}
            }
        }
        if gone.is_empty() && loads.is_empty() && barred.is_empty() {
            self.revision.store(revision, Relaxed);
            return Ok(changes);
        }
        // Whom another file stood in the way of may be free now.
        let due = |file: &PathBuf| loads.iter().any(|load| load.file == *file);
        let contested: Vec<Load> = files
            .iter()
            .filter(|(file, seen)| seen.contested && !due(file))
            .filter(|(_, seen)| seen.due(false) == Due::Nothing)
            .filter_map(|(file, seen)| self.load(file, seen, look, true))
            .collect();
        loads.extend(contested);

        let loads = loads
            .into_iter()
            .map(|load| (load.file.clone(), load.run()));
        let loaded = loading::in_parallel(loads).await;
        // From here on nothing waits: a look that is given up has changed nothing.
        let mut turn = Turn {
            files: &mut files,
            changes,
            is_other: false,
        };
        for file in gone {
            turn.drain(&file);
        }
        turn.judge(loaded);
        for (worker, refused) in barred {
            turn.bar(&worker, refused);
        }
        self.revision.store(revision, Relaxed);
        let Turn {
            changes, is_other, ..
        } = turn;
        if is_other {
            swap(local(&files));
        }
        changes.log();
        Ok(changes)
    }

    /// Looks at the policy.
    async fn revise(&self, look: Look, changes: &mut Changes) {
        if look == Look::First {
            return;
        }
        let rules = self.engine.rules().clone();
        let looked = spawn_blocking(move || rules.refresh(look == Look::Again)).await;
        match looked {
            Ok(Looked::Revised | Looked::Same) => {}
            Ok(Looked::Unsettled(file)) => changes.unsettled.push(file),
            Ok(Looked::Broken(why)) => changes.policy = Some(why),
            Err(panic) => changes.policy = Some(panic.to_string()),
        }
    }

    /// Why a worker that serves may do so no longer, if that is so.
    async fn barred(&self, worker: &Arc<Worker>) -> Option<(Arc<Worker>, Refused)> {
        let reasons = worker.barred(self.engine.rules()).await;
        let refused = |reasons| Refused {
            file: worker.file().to_owned(),
            worker_id: Some(worker.id().to_string()),
            reasons,
        };
        (!reasons.is_empty()).then(|| (worker.clone(), refused(reasons)))
    }

    /// Waits until the drivers have said which GPUs there are.
    pub async fn ask_gpus(&self) {
        self.engine.gpus().await;
    }

    /// Takes the init snapshot of a worker of this directory.
    pub async fn take_snapshot(&self, worker: &Worker) {
        worker.take_snapshot(&self.engine, &self.config).await;
    }

    fn load(&self, file: &Path, seen: &Seen, look: Look, anew: bool) -> Option<Load> {
        Some(Load {
            engine: self.engine.clone(),
            config: self.config.clone(),
            file: file.to_owned(),
            stamp: seen.stamp?,
            serving: seen.serving.as_ref().map(|worker| worker.digest()),
            judged: seen.digest.filter(|_| !anew),
            is_first: look == Look::First,
        })
    }
}

impl Load {
    async fn run(self) -> Loaded {
        let read = Binary::read(&self.config, &self.file).await;
        let file = self.file.clone();
        let stamp = spawn_blocking(move || Stamp::of(&file)).await;
        if !stamp.is_ok_and(|stamp| stamp == Some(self.stamp)) {
            return Loaded::Unsettled;
        }
        let binary = match read {
            Ok(binary) => binary,
            Err(refused) => return Loaded::Refused(None, refused),
        };
        let digest = binary.digest();
        if self.serving == Some(digest) {
            return Loaded::Serving;
        }
        if self.judged == Some(digest) {
            return Loaded::Same;
        }
        // A new state costs some flushes of the disk, meanwhile. Whoever needs it asks again, and hears why not.
        let state = self.engine.state().filter(|_| self.is_first);
        if let Some(state) = state.filter(|_| binary.opens_buckets()).cloned() {
            tokio::spawn(async move { state.open().await });
        }
        match self.begun(&binary).await {
            Ok(Begun::Ready(worker)) => Loaded::New(worker),
            Ok(Begun::Starting(starting)) => Loaded::Starting(digest, starting),
            Err(refused) => Loaded::Refused(Some(digest), refused),
        }
    }

    async fn begun(&self, binary: &Binary) -> Result<Begun, Refused> {
        let worker = match Worker::begin(&self.engine, &self.config, binary).await? {
            Begun::Ready(worker) => worker,
            starting @ Begun::Starting(_) => return Ok(starting),
        };
        // A host that starts opens its state by itself, and does not start where it cannot.
        let state = self.engine.state().filter(|_| !self.is_first);
        if let Some(state) = state.filter(|_| worker.keeps_state()) {
            state.open().await.map_err(|error| Refused {
                file: self.file.clone(),
                worker_id: Some(worker.id().to_string()),
                reasons: vec![error.to_string()],
            })?;
        }
        Ok(Begun::Ready(worker))
    }
}

/// The part of a look that changes what is known.
struct Turn<'a> {
    files: &'a mut BTreeMap<PathBuf, Seen>,
    changes: Changes,
    /// What there is, is something else than before.
    is_other: bool,
}

impl Turn<'_> {
    fn drain(&mut self, file: &Path) {
        let Some(seen) = self.files.get_mut(file) else {
            return;
        };
        (seen.judged, seen.digest, seen.refused, seen.contested) = (None, None, None, false);
        seen.starting = None;
        self.changes.removed.extend(seen.serving.take());
        self.is_other = true;
    }

    fn judge(&mut self, loaded: Vec<(PathBuf, Result<Loaded, JoinError>)>) {
        let mut newcomers = Vec::new();
        for (file, loaded) in loaded {
            let Some(seen) = self.files.get_mut(&file) else {
                continue;
            };
            let loaded = loaded
                .unwrap_or_else(|error| Loaded::Refused(None, loading::died(file.clone(), &error)));
            if !matches!(loaded, Loaded::Unsettled) {
                seen.judged = seen.stamp;
                self.is_other |= seen.starting.take().is_some();
            }
            match loaded {
                Loaded::Unsettled => self.changes.unsettled.push(file),
                Loaded::Same => {}
                Loaded::Serving => {
                    seen.digest = seen.serving.as_ref().map(|worker| worker.digest());
                    self.is_other |= seen.refused.take().is_some();
                }
                Loaded::Refused(digest, refused) => {
                    seen.digest = digest;
                    self.refuse(refused, false);
                }
                Loaded::Starting(digest, starting) => {
                    let starting = Arc::new(starting);
                    (seen.digest, seen.refused, seen.contested) = (Some(digest), None, false);
                    seen.starting = Some(starting.clone());
                    self.changes.starting.push(starting);
                    self.is_other = true;
                }
                Loaded::New(worker) => {
                    seen.digest = Some(worker.digest());
                    match claims::unchanged(&worker, seen.ids.as_ref()) {
                        Err(refused) => self.refuse(refused, false),
                        Ok(()) if seen.serving.is_some() => self.accept(*worker),
                        Ok(()) => newcomers.push(*worker),
                    }
                }
            }
        }
        let there = local(self.files);
        let (newcomers, contested) = claims::settle(newcomers, &there.workers, &there.starting);
        for refused in contested {
            self.refuse(refused, true);
        }
        for worker in newcomers {
            self.accept(worker);
        }
    }

    /// What serves of this file, if anything, goes on serving.
    fn refuse(&mut self, refused: Refused, contested: bool) {
        if let Some(seen) = self.files.get_mut(&refused.file) {
            (seen.refused, seen.contested) = (Some(refused.clone()), contested);
        }
        self.changes.refused.push(refused);
        self.is_other = true;
    }

    /// A worker that may serve no longer ends, if no new version has taken its place.
    fn bar(&mut self, worker: &Arc<Worker>, refused: Refused) {
        let seen = self.files.get_mut(worker.file());
        let ends = seen.and_then(|seen| {
            let serving = &mut seen.serving;
            serving.take_if(|serving| Arc::ptr_eq(serving, worker))
        });
        if let Some(worker) = ends {
            self.changes.removed.push(worker);
            self.refuse(refused, false);
        }
    }

    fn accept(&mut self, worker: Worker) {
        let Some(seen) = self.files.get_mut(worker.file()) else {
            return;
        };
        // Also one whose file was gone for a while: calls may hold it still.
        let worker = Arc::new(match seen.last.upgrade() {
            Some(before) => worker.succeeding(&before),
            None => worker,
        });
        (seen.refused, seen.contested) = (None, false);
        seen.ids = Some(claims::ids(&worker));
        seen.last = Arc::downgrade(&worker);
        match seen.serving.replace(worker.clone()) {
            Some(_) => self.changes.replaced.push(worker),
            None => self.changes.loaded.push(worker),
        }
        self.is_other = true;
    }
}

fn local(files: &BTreeMap<PathBuf, Seen>) -> Local {
    let serving = files.values().filter_map(|seen| seen.serving.clone());
    let refused = files.values().filter_map(|seen| seen.refused.clone());
    let starting = files.values().filter_map(|seen| seen.starting.clone());
    Local {
        workers: serving.collect(),
        refused: refused.collect(),
        starting: starting.collect(),
    }
}

impl Changes {
    /// What a later look has changed, too.
    pub(super) fn extend(&mut self, later: Self) {
        self.loaded.extend(later.loaded);
        self.replaced.extend(later.replaced);
        self.removed.extend(later.removed);
        self.refused.extend(later.refused);
        (self.starting, self.unsettled) = (later.starting, later.unsettled);
        self.policy = later.policy.or(self.policy.take());
    }

    fn log(&self) {
        let changed = [
            ("loaded", &self.loaded),
            ("replaced", &self.replaced),
            ("removed", &self.removed),
        ];
        for (what, workers) in changed {
            for worker in workers {
                let offered = worker.offered().iter().map(|offered| &*offered.id);
                let capabilities: Vec<&str> = offered.collect();
                tracing::info!(worker = %worker.id(), capabilities = capabilities.join(" "), "{what}");
            }
        }
        for starting in &self.starting {
            let worker = &starting.worker_id;
            tracing::info!(%worker, "starting: the drivers are asked which GPUs there are");
        }
        for refused in &self.refused {
            for reason in &refused.reasons {
                tracing::error!(file = %refused.file.display(), "refused: {reason}");
            }
        }
    }
}
