//! One host to a directory.

use std::fs::{DirBuilder, File, TryLockError};
use std::io::{Read, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::StateError;

/// The right to a directory of state, until dropped. The system ends it with the process, however that
/// ends.
#[derive(Debug)]
pub(super) struct Hold {
    dir: PathBuf,
    _lock: File,
}

impl Hold {
    /// Takes the directory, which is made if absent, for nobody but this user to read.
    pub fn take(dir: &Path) -> Result<Self, StateError> {
        let failed = |error: std::io::Error| {
            StateError::Failed(format!("the state directory {}: {error}", dir.display()))
        };
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let mut lock = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                let mut pid = String::new();
                let _unreadable = lock.read_to_string(&mut pid);
                return Err(StateError::Held {
                    dir: dir.display().to_string(),
                    pid: pid
                        .parse()
                        .map_or("?".to_owned(), |pid: u32| pid.to_string()),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0)
            .and_then(|()| write!(lock, "{}", std::process::id()))
            .map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }
}
