//! A component's file, read once: what is judged is what is loaded, whatever the file becomes meanwhile.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;

use super::Refused;
use crate::config::Config;

/// The bytes of a component's file.
pub struct Binary {
    pub(super) file: PathBuf,
    pub(super) bytes: Bytes,
    pub(super) modified: Option<SystemTime>,
    digest: blake3::Hash,
}

impl Binary {
    /// Reads a file, on a thread where it may take its time.
    ///
    /// # Errors
    ///
    /// It cannot be read, or is larger than the operator lets a component be.
    pub async fn read(config: &Config, file: &Path) -> Result<Self, Refused> {
        let cap = config.limits.component.get();
        let path = file.to_owned();
        let read = tokio::task::spawn_blocking(move || read(&path, cap)).await;
        let read = read.unwrap_or_else(|panic| Err(format!("cannot be read: {panic}")));
        let (bytes, modified, digest) = read.map_err(|reason| Refused {
            file: file.to_owned(),
            worker_id: None,
            reasons: vec![reason],
        })?;
        Ok(Self {
            file: file.to_owned(),
            bytes,
            modified,
            digest,
        })
    }

    /// What tells these bytes from all others.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    pub(super) fn refused(&self, worker_id: Option<String>, reasons: Vec<String>) -> Refused {
        Refused {
            file: self.file.clone(),
            worker_id,
            reasons,
        }
    }
}

fn read(file: &Path, cap: u64) -> Result<(Bytes, Option<SystemTime>, blake3::Hash), String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let opened = File::open(file).map_err(unreadable)?;
    let about = opened.metadata().map_err(unreadable)?;
    let modified = about.modified().ok();
    // All at once, and a byte to see the end: to grow is to copy.
    let size = about.len().min(cap).saturating_add(1);
    let mut bytes = Vec::with_capacity(usize::try_from(size).unwrap_or_default());
    opened
        .take(cap.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > cap {
        return Err(format!(
            "larger than {} MiB; raise `limits.component_mb` to load it",
            cap >> 20
        ));
    }
    let digest = blake3::hash(&bytes);
    Ok((bytes.into(), modified, digest))
}
