//! One build at a time in one place.

use std::fs::{self, File, TryLockError};
use std::io::{Read, Write};
use std::path::Path;
use std::process;

use super::{BuildError, Progress, step};

/// Held until dropped. The system frees it if the process is killed, so a lock is never stale.
pub(super) struct Lock {
    _file: File,
}

impl Lock {
    /// Takes the lock on `path`, whose file tells those who wait what it is held for.
    pub fn take(path: &Path, purpose: &str, progress: Progress<'_>) -> Result<Self, BuildError> {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent).map_err(BuildError::io("create", parent))?;
        }
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .map_err(BuildError::io("open", path))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => wait(&mut file, path, progress)?,
            Err(TryLockError::Error(source)) => return Err(BuildError::io("lock", path)(source)),
        }
        file.set_len(0)
            .and_then(|()| {
                file.write_all(format!("process {}, which {purpose}", process::id()).as_bytes())
            })
            .map_err(BuildError::io("write", path))?;
        Ok(Self { _file: file })
    }
}

fn wait(file: &mut File, path: &Path, progress: Progress<'_>) -> Result<(), BuildError> {
    let mut holder = String::new();
    // Whom we wait for is a courtesy: an unreadable file is no reason to fail.
    if file.read_to_string(&mut holder).is_err() || holder.is_empty() {
        holder = "another build".to_owned();
    }
    step(progress, &format!("waiting for {holder}"), || {
        file.lock().map_err(BuildError::io("lock", path))
    })?;
    std::io::Seek::rewind(file).map_err(BuildError::io("write", path))
}
