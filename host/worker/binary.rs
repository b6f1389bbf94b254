//! A component's file by its digest: what is judged is what is loaded, whatever the file becomes meanwhile.
//! Its bytes are kept by nobody: code that is in the cache needs them no more.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use bytes::Bytes;
use memchr::memmem::Finder;

use super::Refused;
use crate::config::Config;

/// What is read at once, in bytes: it stays in the core's own cache.
const CHUNK: usize = 64 << 10;
/// What the bytes of a component have that imports a bucket.
const BUCKETS: &[u8] = b"wasi:keyvalue/store@";

/// A component's file, as it was when it was read.
pub struct Binary {
    pub(super) file: PathBuf,
    pub(super) modified: Option<SystemTime>,
    /// The most bytes that it may have.
    cap: u64,
    digest: blake3::Hash,
    opens_buckets: bool,
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
        let read = tokio::task::spawn_blocking(move || {
            let (mut digest, mut opens_buckets) = (blake3::Hasher::new(), false);
            let buckets = Finder::new(BUCKETS);
            let modified = read(&path, cap, |chunk| {
                digest.update(chunk);
                opens_buckets |= buckets.find(chunk).is_some();
            })?;
            Ok((modified, digest.finalize(), opens_buckets))
        });
        let read = read.await;
        let read = read.unwrap_or_else(|panic| Err(format!("cannot be read: {panic}")));
        let (modified, digest, opens_buckets) = read.map_err(|reason| Refused {
            file: file.to_owned(),
            worker_id: None,
            reasons: vec![reason],
        })?;
        Ok(Self {
            file: file.to_owned(),
            modified,
            cap,
            digest,
            opens_buckets,
        })
    }

    /// Its bytes, if they are the same still.
    pub(super) async fn bytes(&self) -> Result<Bytes, String> {
        let (path, cap) = (self.file.clone(), self.cap);
        let read = tokio::task::spawn_blocking(move || {
            let mut bytes = Vec::new();
            read(&path, cap, |chunk| bytes.extend_from_slice(chunk))?;
            Ok((blake3::hash(&bytes), bytes))
        });
        let read = read.await;
        match read.unwrap_or_else(|panic| Err(format!("cannot be read: {panic}")))? {
            (digest, bytes) if digest == self.digest => Ok(bytes.into()),
            _ => Err("its file has changed meanwhile".to_owned()),
        }
    }

    /// What tells these bytes from all others.
    pub fn digest(&self) -> blake3::Hash {
        self.digest
    }

    /// Whether it seems to import the host's state: a hint, before anything is compiled. It may be missed where
    /// two pieces of the file meet.
    pub fn opens_buckets(&self) -> bool {
        self.opens_buckets
    }

    pub(super) fn refused(&self, worker_id: Option<String>, reasons: Vec<String>) -> Refused {
        Refused {
            file: self.file.clone(),
            worker_id,
            reasons,
        }
    }
}

/// Hands over a file piece by piece; says when it was last written.
fn read(file: &Path, cap: u64, mut take: impl FnMut(&[u8])) -> Result<Option<SystemTime>, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    let mut file = File::open(file).map_err(unreadable)?;
    let modified = file.metadata().and_then(|about| about.modified()).ok();
    let mut chunk = vec![0; CHUNK];
    let mut size = 0;
    loop {
        let read = file.read(&mut chunk).map_err(unreadable)?;
        let Some(read @ [_, ..]) = chunk.get(..read) else {
            return Ok(modified);
        };
        size += read.len() as u64;
        if size > cap {
            return Err(format!(
                "larger than {} MiB; raise `limits.component_mb` to load it",
                cap >> 20
            ));
        }
        take(read);
    }
}
