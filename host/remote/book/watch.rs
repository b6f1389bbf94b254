//! What keeps the book true as time goes by, and over a restart.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tokio::task::spawn_blocking;

use super::super::address::Address;
use super::super::kept::Line;
use super::super::{Entry, Source, file, lock, now_ms};
use super::terms::Terms;
use super::{Remotes, Stamp};
use crate::error::Failure;
use crate::identity::SpiffeId;

/// Heartbeats reach the disk within this time; what is registered anew does at once.
const SAVE: Duration = Duration::from_secs(10);
/// How often the files are looked at that prove who remote workers are.
const LOOK: Duration = Duration::from_secs(1);

impl Remotes {
    /// Looks at the clock, the file and the workers. `true`: what the sources say has changed.
    pub async fn tick(self: &Arc<Self>) -> bool {
        let ran_out = self.drop_expired();
        let changed = self.reread().await;
        self.look().await;
        let late = lock(&self.saved).is_none_or(|saved| saved.elapsed() >= SAVE);
        if ran_out || (late && self.dirty.load(Relaxed)) {
            self.save().await;
        }
        self.probe();
        ran_out || changed
    }

    /// Looks at the files of `[identity]`, once in a while.
    async fn look(&self) {
        let Some(terms) = &self.terms else { return };
        let looked = *lock(&self.looked);
        if looked.is_some_and(|looked| looked.elapsed() < LOOK) {
            return;
        }
        *lock(&self.looked) = Some(Instant::now());
        let outgoing = terms.outgoing.clone();
        // A disk may take its time.
        let _panicked = spawn_blocking(move || outgoing.look()).await;
    }

    fn drop_expired(&self) -> bool {
        let now = now_ms();
        let mut entries = lock(&self.entries);
        let before = entries.len();
        entries.retain(|entry| {
            let lives = entry.expires.load(Relaxed) > now;
            if !lives {
                tracing::warn!(
                    worker = entry.worker_id(),
                    capability = entry.capability.key(),
                    "dropped: nobody renewed its registration"
                );
            }
            lives
        });
        entries.len() < before
    }

    /// Reads the capabilities file again if it is another. A broken one changes nothing.
    async fn reread(self: &Arc<Self>) -> bool {
        let Some(path) = self.file.clone() else {
            return false;
        };
        let remotes = self.clone();
        // A disk may take its time.
        let looked = spawn_blocking(move || {
            let now = stamp(&path);
            let mut last = lock(&remotes.stamp);
            if last.as_ref() == Some(&now) {
                return None;
            }
            *last = Some(now);
            drop(last);
            Some(remotes.read_file(&path))
        });
        match looked.await {
            Ok(Some(Ok(configured))) => {
                let mut entries = lock(&self.entries);
                let registered = entries
                    .iter()
                    .filter(|entry| entry.source == Source::Registered);
                *entries = configured.iter().chain(registered).cloned().collect();
                tracing::info!(
                    workers = configured.len(),
                    "the capabilities file is read again"
                );
                true
            }
            Ok(Some(Err(error))) => {
                tracing::error!(
                    "the capabilities file is not taken over, what was there stays: {error}"
                );
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    pub(super) fn read_file(&self, path: &Path) -> Result<Vec<Arc<Entry>>, String> {
        let terms = self.terms().map_err(|failure| failure.message)?;
        let registrations = file::read(path)?;
        let entries = registrations.into_iter().map(|registration| {
            let fail = |reason: &dyn std::fmt::Display| {
                let (worker, verb) = (&registration.worker_id, &registration.verb);
                format!(
                    "{}: worker {worker:?} of {verb:?}: {reason}",
                    path.display()
                )
            };
            let capability = registration.read().map_err(|problems| {
                let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                fail(&told.join("; "))
            })?;
            terms
                .owns(&capability)
                .map_err(|failure| fail(&failure.message))?;
            let address = Address::parse(&registration.url).map_err(|error| fail(&error))?;
            let endpoint = self
                .known(Source::Configured, &capability, &address)
                .unwrap_or_else(|| terms.endpoint(address, None, &capability));
            let source = Source::Configured;
            Ok(Arc::new(terms.entry(
                capability,
                registration,
                source,
                endpoint,
            )))
        });
        // One worker may stand under several capabilities: it has one health.
        entries.collect::<Result<Vec<_>, String>>().map(share)
    }

    /// Asks those workers whether they live whose turn it is.
    fn probe(&self) {
        let now = Instant::now();
        for entry in self.entries() {
            let endpoint = entry.endpoint.clone();
            if endpoint.is_probe_due(now) {
                tokio::spawn(async move { endpoint.probe().await });
            }
        }
    }

    /// Takes over what was registered before the last stop, as far as it still may be.
    pub(super) fn restore(&self) {
        let (Some(kept), Some(terms)) = (&self.kept, &self.terms) else {
            return;
        };
        let now = now_ms();
        for line in kept.load().into_iter().filter(|line| line.expires > now) {
            let worker = line.registration.worker_id.clone();
            match self.restored(terms, line) {
                Ok(entry) => lock(&self.entries).push(Arc::new(entry)),
                Err(reason) => tracing::warn!(worker, "not registered any more: {reason}"),
            }
        }
    }

    fn restored(&self, terms: &Terms, line: Line) -> Result<Entry, String> {
        let told = |failure: Failure| failure.message;
        let capability = line
            .registration
            .read()
            .map_err(|problems| format!("{problems:?}"))?;
        let id = |text: &Option<String>| {
            let id = text.as_deref().map(SpiffeId::parse).transpose();
            id.map_err(|error| error.to_string())
        };
        let (owner, operator) = (id(&line.owner)?, id(&line.operator)?);
        if let Some(owner) = &owner {
            terms.grants(owner, &capability).map_err(told)?;
        }
        if let Some(id) = operator.as_ref().filter(|id| !terms.is_operator(id)) {
            return Err(format!(
                "{id} does not stand in identity.operators and identity.registrars"
            ));
        }
        terms.owns(&capability).map_err(told)?;
        let address = Address::parse(&line.registration.url)?;
        let pinned = terms.allowed(&address, &line.pinned).map_err(told)?;
        let endpoint = self
            .known(Source::Registered, &capability, &address)
            .unwrap_or_else(|| terms.endpoint(address, Some(pinned), &capability));
        let mut entry = terms.entry(capability, line.registration, Source::Registered, endpoint);
        entry.owner = owner;
        entry.operator = operator;
        entry.expires.store(line.expires, Relaxed);
        Ok(entry)
    }

    /// Writes down what is registered.
    pub async fn save(self: &Arc<Self>) {
        if self.kept.is_none() {
            return;
        }
        let remotes = self.clone();
        let saved = spawn_blocking(move || {
            // One at a time, so that the newest is written last.
            let mut saved = lock(&remotes.saved);
            remotes.dirty.store(false, Relaxed);
            let lines: Vec<Line> = remotes
                .entries()
                .iter()
                .filter(|entry| entry.source == Source::Registered)
                .map(|entry| Line {
                    registration: entry.registration.clone(),
                    pinned: entry.endpoint.pinned().to_vec(),
                    expires: entry.expires.load(Relaxed),
                    owner: entry.owner.as_ref().map(ToString::to_string),
                    operator: entry.operator.as_ref().map(ToString::to_string),
                })
                .collect();
            *saved = Some(Instant::now());
            remotes
                .kept
                .as_ref()
                .map_or(Ok(()), |kept| kept.save(&lines))
        });
        if let Ok(Err(error)) = saved.await {
            tracing::error!("registrations are not kept: {error}");
        }
    }
}

/// Gives entries of the same worker at the same address the same endpoint.
fn share(entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let mut shared: Vec<Arc<Entry>> = Vec::new();
    for mut entry in entries {
        let same = shared.iter().find(|other| {
            other.worker_id() == entry.worker_id()
                && other.endpoint.is(
                    entry.endpoint.address(),
                    entry.capability.spiffe_id.as_ref(),
                )
        });
        if let (Some(same), Some(entry)) = (same, Arc::get_mut(&mut entry)) {
            entry.endpoint = same.endpoint.clone();
        }
        shared.push(entry);
    }
    shared
}

pub(super) fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some((found.modified().ok()?, found.len()))
}
