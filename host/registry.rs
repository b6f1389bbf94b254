//! Which worker offers what: one immutable snapshot at a time, read without a lock.
//!
//! Each source of workers has its part, and a snapshot is composed of all of them. A source hands over its
//! whole part anew (`replace_local`), and the snapshot is swapped; a call holds the one that it
//! began with, and the workers in it, to its end.

mod claims;
mod directory;
mod loading;
mod manifest;
mod remote;
mod seen;
mod snapshot;
mod watch;

use std::convert::Infallible;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::{fs, io};

use arc_swap::{ArcSwap, Guard};

use crate::config::Config;
use crate::engine::Engine;
use crate::remote::{Entry, Remotes};
use crate::rules::Rules;
use crate::worker::{Refused, Starting, Worker};

pub use directory::Changes;
pub use manifest::{Manifest, Manifests};
pub use remote::Provider;
pub use snapshot::{Candidate, Offer, Snapshot, newest};
pub use watch::Watch;

use directory::{Directory, Look, PATIENCE};
use seen::SETTLE;

/// The current snapshot, swapped whole.
pub struct Registry {
    snapshot: ArcSwap<Snapshot>,
    /// What the snapshot was made of. Locked by who replaces a part, never by who reads.
    parts: Mutex<Parts>,
    directory: Option<Directory>,
    remotes: Arc<Remotes>,
    rules: Arc<Rules>,
    /// The turn to change what is remote.
    turn: tokio::sync::Mutex<()>,
    /// Tells that there is another snapshot or policy.
    changed: tokio::sync::watch::Sender<()>,
}

/// What each source has.
#[derive(Default)]
struct Parts {
    local: Local,
    remote: Vec<Arc<Entry>>,
}

/// What the directory of components gives.
#[derive(Clone, Default)]
pub struct Local {
    /// Those that serve.
    pub workers: Vec<Arc<Worker>>,
    /// Files that may not serve. A file of `workers` may be among them: then it is a later version that
    /// was refused, and the earlier one serves.
    pub refused: Vec<Refused>,
    /// Files that wait to be placed.
    pub starting: Vec<Arc<Starting>>,
}

impl Registry {
    /// A registry of what a snapshot holds, without remote workers.
    pub fn new(snapshot: Snapshot) -> Self {
        Self {
            parts: Mutex::new(Parts {
                local: snapshot.local(),
                remote: Vec::new(),
            }),
            snapshot: ArcSwap::from_pointee(snapshot),
            directory: None,
            remotes: Arc::new(Remotes::none()),
            rules: Arc::default(),
            turn: tokio::sync::Mutex::default(),
            changed: tokio::sync::watch::Sender::default(),
        }
    }

    /// A registry of the components in a directory, loaded in parallel, which can be looked at again. A bad
    /// worker is refused and listed; the others serve. One that asks for a GPU is starting until
    /// [`Registry::place`] has placed it.
    ///
    /// # Errors
    ///
    /// The directory cannot be read.
    pub async fn open(engine: &Engine, config: &Arc<Config>, dir: &Path) -> io::Result<Self> {
        let registry = Self {
            directory: Some(Directory::new(engine, config, dir)),
            rules: engine.rules().clone(),
            ..Self::new(Snapshot::default())
        };
        registry.look(Look::First).await?;
        Ok(registry)
    }

    /// What is loaded now. Whoever holds it sees no later change.
    pub fn snapshot(&self) -> Guard<Arc<Snapshot>> {
        self.snapshot.load()
    }

    /// The same registry, under a policy.
    #[must_use]
    pub fn ruled_by(self, rules: Arc<Rules>) -> Self {
        Self { rules, ..self }
    }

    /// The policy that its workers are called under.
    pub fn rules(&self) -> &Rules {
        &self.rules
    }

    /// Sees each change of the snapshot and of the policy from now on; of several in a row perhaps only the last.
    pub fn changes(&self) -> tokio::sync::watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// Looks at the policy and the directory again: loads what is new or changed and drains what is gone, all at once. What
    /// was refused is tried again; files that are being written are waited for, but not for long.
    ///
    /// Dropping the future leaves everything as it was.
    ///
    /// # Errors
    ///
    /// The directory cannot be read. What is loaded goes on serving.
    pub async fn reload(&self) -> io::Result<Changes> {
        let mut changes = self.look(Look::Again).await?;
        for _ in 0..PATIENCE {
            if changes.unsettled.is_empty() {
                break;
            }
            tokio::time::sleep(SETTLE).await;
            changes.extend(self.look(Look::Changed).await?);
        }
        if !self.snapshot().starting().is_empty() {
            changes.extend(self.place().await?);
        }
        Ok(changes)
    }

    /// The same for what has changed and come to rest since the last look, without waiting.
    ///
    /// # Errors
    ///
    /// The directory cannot be read. What is loaded goes on serving.
    pub async fn refresh(&self) -> io::Result<Changes> {
        self.look(Look::Changed).await
    }

    /// Asks the drivers which GPUs there are, if a worker waits for that, and places it.
    ///
    /// # Errors
    ///
    /// The directory cannot be read. What is loaded goes on serving.
    pub async fn place(&self) -> io::Result<Changes> {
        match &self.directory {
            Some(directory) if !self.snapshot().starting().is_empty() => {
                directory.ask_gpus().await;
                self.look(Look::Changed).await
            }
            _ => Ok(Changes::default()),
        }
    }

    /// Places whoever is starting, for as long as the future lives.
    pub async fn keep_placed(&self) -> Infallible {
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            if let Err(error) = self.place().await {
                tracing::error!("what is starting goes on waiting: {error}");
            }
            // The sender is this registry's own.
            let _ = changes.changed().await;
        }
    }

    /// Takes the init snapshots of workers that are to have one and do not yet: one after the other, for
    /// as long as the future lives.
    pub async fn keep_snapshots(&self) -> Infallible {
        let Some(directory) = &self.directory else {
            return std::future::pending().await;
        };
        let mut changes = self.changes();
        loop {
            changes.mark_unchanged();
            // Taken anew each time: who is gone meanwhile needs none.
            while let Some(worker) = self.snapshot().pending() {
                directory.take_snapshot(&worker).await;
            }
            // The sender is this registry's own.
            let _ = changes.changed().await;
        }
    }

    async fn look(&self, look: Look) -> io::Result<Changes> {
        let Some(directory) = &self.directory else {
            return Ok(Changes::default());
        };
        let before = self.rules.current().number();
        let looked = directory.look(look, |local| self.replace_local(local));
        let looked = looked.await;
        // Other callers may call other things now, though all workers may be the same.
        if self.rules.current().number() != before {
            self.changed.send_replace(());
        }
        looked
    }

    /// What the directory of components gives from now on.
    pub fn replace_local(&self, local: Local) {
        self.replace(|parts| parts.local = local);
    }

    /// Changes a part and puts the new snapshot in place. One after the other, so that none is lost.
    fn replace(&self, change: impl FnOnce(&mut Parts)) {
        // A part is replaced whole: nothing is half there, whoever panicked.
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        change(&mut parts);
        self.snapshot
            .store(Arc::new(Snapshot::compose(&parts.local, &parts.remote)));
        self.changed.send_replace(());
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
