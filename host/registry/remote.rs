//! The remote part of a snapshot, and what changes it.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use super::{Registry, Snapshot};
use crate::capability::{Filter, View};
use crate::error::{Code, Failure};
use crate::remote::{self, Entry, Joined, Registered, Registration, Remote, Remotes};
use crate::worker::Worker;

/// Between two looks at the clock, the capabilities file and the workers.
const TICK: Duration = Duration::from_millis(250);

/// Who offers a capability.
#[derive(Clone)]
pub enum Provider {
    /// A component of this host.
    Local(Arc<Worker>),
    /// A worker elsewhere.
    Remote(Arc<Remote>),
}

impl Provider {
    /// The worker's id.
    pub fn worker_id(&self) -> &Arc<str> {
        match self {
            Self::Local(worker) => worker.id(),
            Self::Remote(remote) => remote.worker_id(),
        }
    }
}

impl Registry {
    /// The same registry, and remote workers.
    #[must_use]
    pub fn joined_by(self, remotes: Remotes) -> Self {
        let registry = Self {
            remotes: Arc::new(remotes),
            ..self
        };
        registry.replace_remote(&registry.remotes.entries());
        registry
    }

    /// What the remote sources say, and how this host is called among others.
    pub fn remotes(&self) -> &Remotes {
        &self.remotes
    }

    /// Swaps in a snapshot with these remote workers in the place of those before.
    pub fn replace_remote(&self, entries: &[Arc<Entry>]) {
        self.replace(|parts| parts.remote = entries.to_vec());
        for refused in &self.snapshot().remote.refused {
            let (worker, url) = (refused.worker_id(), refused.url());
            tracing::error!(worker, url, "refused: {}", refused.reason());
        }
    }

    /// Registers a remote worker's capability, or renews it.
    ///
    /// # Errors
    ///
    /// It is malformed, not allowed, or contradicts what is there.
    pub async fn register(
        &self,
        registration: Registration,
        caller: &remote::Caller,
    ) -> Result<Registered, Failure> {
        let owner = caller.owner()?;
        let remotes = &self.remotes;
        if let Some(renewed) = remotes.renew(&registration, owner) {
            // What was accepted may contradict a component that was loaded since.
            return match self.snapshot().remote.refusal(&renewed.entry) {
                Some(refused) => Err(Failure::new(Code::Conflict, refused.reason())),
                None => Ok(renewed),
            };
        }
        let entry = remotes.prepare(registration, caller).await?;
        let _turn = self.turn.lock().await;
        let entries = remotes.with(&entry)?;
        let tried = remote::join(self.snapshot().workers(), &entries);
        if let Some(refused) = tried.refusal(&entry) {
            return Err(Failure::new(Code::Conflict, refused.reason()));
        }
        remotes.commit(entries.clone()).await;
        self.replace_remote(&entries);
        Ok(remotes.registered(entry))
    }

    /// Removes what a remote worker registered; answers how many capabilities that was.
    ///
    /// # Errors
    ///
    /// It registered nothing, or is another's.
    pub async fn unregister(
        &self,
        worker_id: &str,
        caller: &remote::Caller,
    ) -> Result<usize, Failure> {
        let owner = caller.owner()?;
        let _turn = self.turn.lock().await;
        if self
            .snapshot()
            .workers()
            .iter()
            .any(|worker| **worker.id() == *worker_id)
        {
            let message = format!(
                "worker {worker_id} is a component of this host; the operator takes its file away"
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        let before = self.remotes.entries().len();
        let entries = self.remotes.without(worker_id, owner)?;
        let removed = before.saturating_sub(entries.len());
        self.remotes.commit(entries.clone()).await;
        self.replace_remote(&entries);
        Ok(removed)
    }

    /// Keeps the remote part true, for as long as it is polled.
    pub async fn keep_remote(&self) -> Infallible {
        loop {
            let turn = self.turn.lock().await;
            if self.remotes.tick().await {
                self.replace_remote(&self.remotes.entries());
            }
            drop(turn);
            tokio::time::sleep(TICK).await;
        }
    }
}

impl Snapshot {
    /// The remote part: who may be called, and who may not.
    pub fn remote(&self) -> &Joined {
        &self.remote
    }

    pub(super) fn remote_capabilities(&self, filter: &Filter) -> Vec<View<'_>> {
        let remotes = self.remote.remotes.iter();
        let asked_for = remotes.filter(|remote| filter.matches(&remote.offered().capability));
        asked_for
            .filter(|remote| self.has(remote.offered()))
            .map(|remote| {
                View::new(
                    &remote.offered().capability,
                    remote.url(),
                    remote.load_score(),
                )
            })
            .collect()
    }
}
