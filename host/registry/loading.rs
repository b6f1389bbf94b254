//! Loads side by side.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use tokio::sync::Semaphore;
use tokio::task::{JoinError, JoinSet};

use crate::engine;
use crate::worker::Refused;

/// Runs what is to be done for each file, as many at once as there are cores: each may keep one busy.
/// Dropping the future ends them all.
pub(super) async fn in_parallel<T: Send + 'static>(
    loads: impl IntoIterator<Item = (PathBuf, impl Future<Output = T> + Send + 'static)>,
) -> Vec<(PathBuf, Result<T, JoinError>)> {
    let turns = Arc::new(Semaphore::new(engine::cores()));
    let mut loading = JoinSet::new();
    let mut files = HashMap::new();
    for (file, load) in loads {
        let turns = turns.clone();
        let task = loading.spawn(async move {
            // The semaphore is never closed; a permit is there sooner or later.
            let _turn = turns.acquire().await;
            load.await
        });
        files.insert(task.id(), file);
    }
    let mut done = Vec::new();
    while let Some(joined) = loading.join_next_with_id().await {
        let (id, result) = match joined {
            Ok((id, value)) => (id, Ok(value)),
            Err(error) => (error.id(), Err(error)),
        };
        done.push((files.remove(&id).unwrap_or_default(), result));
    }
    done
}

/// A library that panics on a stranger's metadata costs that stranger its place.
pub(super) fn died(file: PathBuf, error: &JoinError) -> Refused {
    Refused {
        file,
        worker_id: None,
        reasons: vec![format!("checking it failed: {error}")],
    }
}
