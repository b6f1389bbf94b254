//! Scratch directories: below `tmp_dir` one for this process, in it one for each invocation that
//! asks for it.
//!
//! The process's directory is locked for as long as the process lives. The system frees a lock however
//! its holder ends, so what a killed host left behind is known by a lock that nobody holds. A thread
//! removes what is no longer needed: no caller waits for a disk. Quotas must not enter this room.

mod tree;

use std::any::Any;
use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{DirBuilder, File, Permissions, TryLockError};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

/// How the directories of processes are called, so that a sweep touches nothing else.
const PREFIX: &str = "crank-host-";
/// Held while directories of processes are made or looked through: between its making and its
/// locking, a directory looks as if nobody held it.
const GATE: &str = "crank-host.lock";
/// How long the end of the process waits for what is still to be removed. What is left then, the next
/// start sweeps.
const FINISH: Duration = Duration::from_secs(5);

/// One for each `tmp_dir`, until the process ends: what holds the lock is the process, and not one
/// of the registries that come and go in it.
static SPOOLS: Mutex<BTreeMap<PathBuf, Arc<Spool>>> = Mutex::new(BTreeMap::new());

/// Where this process makes scratch directories. Nothing is on the disk before the first is made.
#[derive(Debug)]
pub struct Spool {
    base: PathBuf,
    home: Mutex<Option<Arc<Home>>>,
}

/// The directory of this process.
#[derive(Debug)]
struct Home {
    dir: Arc<File>,
    made: AtomicU64,
    remover: Sender<Job>,
}

enum Job {
    /// Removes a scratch directory, after what was still open in it.
    Remove(OsString, Option<Box<dyn Any + Send>>),
    /// Removes everything, and says so.
    Finish(Sender<()>),
}

/// The spool below a directory.
pub fn spool(base: &Path) -> Arc<Spool> {
    let mut spools = locked(&SPOOLS);
    let spool = spools.entry(base.to_owned()).or_insert_with(|| {
        Arc::new(Spool {
            base: base.to_owned(),
            home: Mutex::new(None),
        })
    });
    spool.clone()
}

/// Removes what hosts that are gone have left below a directory, on a thread of its own.
///
/// # Errors
///
/// The directory is there and cannot be read.
pub fn sweep(base: &Path) -> io::Result<()> {
    let gate = match gate(base) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        gate => gate?,
    };
    let abandoned = abandoned(base)?;
    drop(gate);
    if abandoned.is_empty() {
        return Ok(());
    }
    let parent = File::open(base)?;
    thread::Builder::new()
        .name("crank-sweep".to_owned())
        .spawn(move || {
            // The locks are held until the directories are gone: no two hosts sweep the same.
            for (name, _lock) in &abandoned {
                report(tree::remove(&parent, name));
            }
        })?;
    Ok(())
}

/// Removes all that this process has made, whoever still uses it. For the end of the process.
pub fn finish() {
    let spools: Vec<Arc<Spool>> = locked(&SPOOLS).values().cloned().collect();
    for spool in spools {
        let Some(home) = locked(&spool.home).take() else {
            continue;
        };
        let (done, finished) = channel();
        if home.remover.send(Job::Finish(done)).is_ok() && finished.recv_timeout(FINISH).is_err() {
            tracing::warn!("scratch files are left; the next start removes them");
        }
    }
}

impl Spool {
    /// Makes a directory that only its owner may enter. May wait for the disk.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    pub fn make(&self) -> io::Result<(Scratch, File)> {
        let home = self.home()?;
        let name = home.made.fetch_add(1, Relaxed).to_string();
        let dir = tree::make(&home.dir, name.as_ref())?;
        let scratch = Scratch {
            home,
            name: name.into(),
            held: None,
        };
        Ok((scratch, dir))
    }

    fn home(&self) -> io::Result<Arc<Home>> {
        let mut home = locked(&self.home);
        if let Some(home) = &*home {
            return Ok(home.clone());
        }
        let base = &self.base;
        DirBuilder::new().recursive(true).mode(0o700).create(base)?;
        if let Err(error) = sweep(base) {
            tracing::warn!("{} is not swept: {error}", base.display());
        }
        let gate = gate(base)?;
        let path = tempfile::Builder::new()
            .prefix(PREFIX)
            .permissions(Permissions::from_mode(0o700))
            .tempdir_in(base)?
            .keep();
        let dir = Arc::new(File::open(&path)?);
        dir.try_lock().map_err(io::Error::from)?;
        drop(gate);
        let (remover, jobs) = channel();
        let parent = File::open(base)?;
        let name = path.file_name().unwrap_or_default().to_owned();
        let own = dir.clone();
        thread::Builder::new()
            .name("crank-tmp".to_owned())
            .spawn(move || work(&parent, &name, &own, &jobs))?;
        let made = Arc::new(Home {
            dir,
            made: AtomicU64::new(0),
            remover,
        });
        *home = Some(made.clone());
        Ok(made)
    }
}

/// A directory of one invocation, gone soon after it is dropped.
#[derive(Debug)]
pub struct Scratch {
    home: Arc<Home>,
    name: OsString,
    held: Option<Box<dyn Any + Send>>,
}

impl Scratch {
    /// Hands over what is open in it, to be closed before it is removed, where nobody waits: to
    /// close the last handle of a large file takes its time.
    pub fn close(&mut self, held: impl Any + Send) {
        self.held = Some(Box::new(held));
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let job = Job::Remove(std::mem::take(&mut self.name), self.held.take());
        // Refused where the process has finished with them all.
        let _ = self.home.remover.send(job);
    }
}

fn work(parent: &File, name: &OsString, own: &File, jobs: &Receiver<Job>) {
    for job in jobs {
        match job {
            Job::Remove(name, held) => {
                drop(held);
                report(tree::remove(own, &name));
            }
            Job::Finish(done) => {
                report(tree::remove(parent, name));
                let _ = done.send(());
            }
        }
    }
}

/// Directories below `base` whose lock nobody held, and their locks.
fn abandoned(base: &Path) -> io::Result<Vec<(OsString, File)>> {
    let parent = File::open(base)?;
    let mut abandoned = Vec::new();
    for entry in base.read_dir()? {
        let name = entry?.file_name();
        if !name.to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        // Whatever is no directory is not ours.
        let Ok(dir) = tree::open(&parent, &name) else {
            continue;
        };
        match dir.try_lock() {
            Ok(()) => abandoned.push((name, dir)),
            Err(TryLockError::WouldBlock) => {}
            Err(TryLockError::Error(error)) => return Err(error),
        }
    }
    Ok(abandoned)
}

fn gate(base: &Path) -> io::Result<File> {
    let gate = File::options()
        .write(true)
        .create(true)
        .truncate(false)
        .open(base.join(GATE))?;
    gate.lock()?;
    Ok(gate)
}

fn report(removed: io::Result<()>) {
    if let Err(error) = removed {
        tracing::warn!("scratch files are left: {error}; the next start tries again");
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
