//! Following the directory of components: who notices that something may have changed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::Notify;
use tokio::time::{sleep, timeout};

use super::Registry;
use super::seen::SETTLE;

/// How often the directory is looked at, whatever the system tells: it tells nothing of what links lead to,
/// of network file systems, and of a directory that another took the place of.
const POLL: Duration = Duration::from_secs(2);
/// What comes within this time is looked at together.
const GATHER: Duration = Duration::from_millis(50);

/// A directory that is watched until this is dropped.
pub struct Watch {
    woken: Arc<Notify>,
    _watcher: Option<RecommendedWatcher>,
}

impl Watch {
    /// Watches a directory. Where the system tells of no changes, it is looked at every other second.
    pub fn start(dir: &Path) -> Self {
        let woken = Arc::new(Notify::new());
        let wake = woken.clone();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // To look is to read, which is an event too.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                wake.notify_one();
            }
        });
        let watcher = watcher.and_then(|mut watcher| {
            watcher.watch(dir, RecursiveMode::NonRecursive)?;
            Ok(watcher)
        });
        if let Err(error) = &watcher {
            tracing::warn!("{} is polled, not watched: {error}", dir.display());
        }
        Self {
            woken,
            _watcher: watcher.ok(),
        }
    }

    /// Keeps a registry as its directory is, until the future is dropped.
    pub async fn follow(&self, registry: &Registry) {
        let mut pause = POLL;
        let mut failed = false;
        loop {
            // Woken or not: it is looked at.
            let _ = timeout(pause, self.woken.notified()).await;
            sleep(GATHER).await;
            let looked = registry.refresh().await;
            pause = match &looked {
                Ok(changes) if !changes.unsettled.is_empty() => SETTLE,
                _ => POLL,
            };
            if let Err(error) = &looked
                && !failed
            {
                tracing::error!("what is loaded goes on serving: {error}");
            }
            failed = looked.is_err();
        }
    }
}
