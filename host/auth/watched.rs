//! What is read from files, and read again when they change.

use std::fmt;
use std::io::Read as _;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwap;

/// Longest file, in bytes.
const MAX_FILE: u64 = 1 << 20;

/// What a file's mode may not say where it holds secrets: that its group or others may read, write or run it.
const OTHERS: u32 = 0o077;

/// A file by its path.
pub(super) struct File {
    path: PathBuf,
    is_secret: bool,
}

impl File {
    /// One that anybody may read.
    pub fn open_to_all(path: impl Into<PathBuf>) -> Self {
        let (path, is_secret) = (path.into(), false);
        Self { path, is_secret }
    }

    /// One that the host's user alone may read: else it is not used.
    pub fn secret(path: impl Into<PathBuf>) -> Self {
        let (path, is_secret) = (path.into(), true);
        Self { path, is_secret }
    }
}

type Read<T> = Box<dyn Fn(&[Vec<u8>]) -> Result<T, String> + Send + Sync>;

/// The last state of some files that could be understood.
pub(super) struct Watched<T> {
    files: Vec<File>,
    read: Read<T>,
    /// What the files held when they were last looked at, understood or not.
    seen: Mutex<blake3::Hash>,
    now: ArcSwap<T>,
}

impl<T> Watched<T> {
    /// Reads the files; all of them make one thing.
    pub fn open(files: Vec<File>, read: Read<T>) -> Result<Self, String> {
        let held = gather(&files);
        let seen = print(&held);
        let now = ArcSwap::from_pointee(understand(&files, held, &read)?);
        Ok(Self {
            files,
            read,
            seen: Mutex::new(seen),
            now,
        })
    }

    /// What holds.
    pub fn now(&self) -> Arc<T> {
        self.now.load_full()
    }

    /// Reads the files again, and tells whether something else holds now. Times of change are not asked for: two
    /// changes may share one.
    pub fn look(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let held = gather(&self.files);
        let print = print(&held);
        if std::mem::replace(&mut *seen, print) == print {
            return false;
        }
        match understand(&self.files, held, &self.read) {
            Ok(read) => {
                self.now.store(Arc::new(read));
                tracing::info!(target: "audit", files = %names(&self.files), "identities have changed");
                true
            }
            Err(error) => {
                tracing::error!("what was known of identities goes on: {error}");
                false
            }
        }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&names(&self.files)).finish()
    }
}

type Held = Vec<Result<Vec<u8>, String>>;

fn gather(files: &[File]) -> Held {
    files.iter().map(content).collect()
}

fn content(file: &File) -> Result<Vec<u8>, String> {
    let path = file.path.display();
    let failed = |error: std::io::Error| format!("{path}: {error}");
    let mut opened = std::fs::File::open(&file.path).map_err(failed)?;
    let found = opened.metadata().map_err(failed)?;
    let mode = found.mode() & 0o777;
    if file.is_secret && mode & OTHERS != 0 {
        return Err(format!(
            "{path}: has mode {mode:03o}, so others may read or change it; chmod 600 {path}"
        ));
    }
    if found.len() > MAX_FILE {
        return Err(format!("{path}: has more than {MAX_FILE} bytes"));
    }
    let mut bytes = Vec::new();
    opened.read_to_end(&mut bytes).map_err(failed)?;
    Ok(bytes)
}

fn understand<T>(files: &[File], held: Held, read: &Read<T>) -> Result<T, String> {
    let contents = held.into_iter().collect::<Result<Vec<_>, String>>()?;
    read(&contents).map_err(|error| format!("{}: {error}", names(files)))
}

fn print(held: &Held) -> blake3::Hash {
    let mut hasher = blake3::Hasher::new();
    for content in held {
        let bytes = match content {
            Ok(bytes) => bytes.as_slice(),
            Err(error) => error.as_bytes(),
        };
        hasher.update(blake3::hash(bytes).as_bytes());
    }
    hasher.finalize()
}

fn names(files: &[File]) -> String {
    let names: Vec<String> = files
        .iter()
        .map(|file| file.path.display().to_string())
        .collect();
    names.join(", ")
}
