//! What a worker may keep and read on a disk.

use std::io;
use std::path::Path;

use crate::capability::Capability;
use crate::config::{ByteCount, Config, WorkerSettings};
use crate::policy::Grants;
use crate::sandbox::{Models, Source};
use crate::tmp;

/// Where its files come from, if it may have any.
///
/// # Errors
///
/// The operator's directory of models cannot be read, or holds more than the worker declares.
pub(super) async fn source(
    config: &Config,
    operator: Option<&WorkerSettings>,
    grants: &Grants,
    capabilities: &[Capability],
) -> Result<Option<Source>, String> {
    let models = match operator.and_then(|operator| operator.models.clone()) {
        Some(path) => {
            let declared = capabilities
                .iter()
                .find_map(|capability| capability.constraints.as_ref()?.model_storage_mb);
            let cap = ByteCount::mib(declared.unwrap_or(0));
            // On a thread where it may take its time.
            let opened = tokio::task::spawn_blocking(move || open(&path, cap)).await;
            Some(opened.unwrap_or_else(|panic| Err(format!("models: {panic}")))?)
        }
        None => None,
    };
    Ok(grants.files().then(|| Source {
        spool: tmp::spool(&config.tmp_dir),
        models,
    }))
}

fn open(path: &Path, cap: ByteCount) -> Result<Models, String> {
    let unreadable =
        |error: io::Error| format!("models: {} cannot be read: {error}", path.display());
    let (bytes, entries) = measure(path).map_err(unreadable)?;
    if bytes > cap.get() {
        return Err(format!(
            "models: {} holds {bytes} bytes, and model_storage_mb allows {} ({} MiB); the worker declares more, or the directory holds less",
            path.display(),
            cap.get(),
            cap.get() >> 20
        ));
    }
    Models::open(path, entries).map_err(unreadable)
}

/// Bytes in the files below a directory, and how many entries there are. Links are not followed: a
/// guest cannot follow one out either.
fn measure(path: &Path) -> io::Result<(u64, u64)> {
    let (mut bytes, mut entries) = (0u64, 0u64);
    let mut dirs = vec![path.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in dir.read_dir()? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            entries = entries.saturating_add(1);
            if metadata.is_dir() {
                dirs.push(entry.path());
            } else if metadata.is_file() {
                bytes = bytes.saturating_add(metadata.len());
            }
        }
    }
    Ok((bytes, entries))
}
