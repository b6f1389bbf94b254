//! What outlives the host: one small file, written whole or not at all.

use std::fs::{self, DirBuilder, TryLockError};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tempfile::NamedTempFile;

use super::clock::Clock;
use super::costs::{Accounts, Ledger};
use super::series::{Key, Series};
use super::tally::Ring;

/// The form of the file. Another one is not read.
const FORM: u32 = 2;
const NAME: &str = "telemetry.json";

/// The file, which belongs to this host as long as it runs.
#[derive(Debug)]
pub(super) struct File {
    dir: PathBuf,
    /// What was written last: nothing is written twice.
    last: Mutex<Option<blake3::Hash>>,
    _lock: fs::File,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Kept {
    form: u32,
    series: Vec<KeptSeries>,
    costs: Accounts,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct KeptSeries {
    worker_id: Arc<str>,
    capability: Arc<str>,
    version: Arc<str>,
    /// Of half a minute, five minutes and an hour.
    slots: [Ring; 3],
}

/// Takes the directory's file and reads what it has kept. Whatever is wrong with it, the host serves: it
/// begins anew, and the log says why.
pub(super) fn open(dir: &Path, clock: Clock) -> (Option<File>, Vec<Series>, Ledger) {
    let file = match File::take(dir) {
        Ok(file) => file,
        Err(error) => {
            tracing::warn!(
                "the figures of calls are not kept: {}: {error}; set `state_dir` to a directory of this host's own",
                dir.display()
            );
            return (None, Vec::new(), Ledger::default());
        }
    };
    let kept = file.read().unwrap_or_else(|error| {
        let (path, aside) = (dir.join(NAME), dir.join(format!("{NAME}.broken")));
        let moved = fs::rename(&path, &aside);
        let became = match moved {
            Ok(()) => format!("it is set aside as {}", aside.display()),
            Err(error) => format!("it cannot be set aside: {error}"),
        };
        tracing::warn!(
            "{} cannot be read: {error}; {became}, and the figures of calls begin anew",
            path.display()
        );
        None
    });
    let Some(kept) = kept else {
        return (Some(file), Vec::new(), Ledger::default());
    };
    let series = kept.series.into_iter().map(|kept| {
        let key = Key {
            worker_id: kept.worker_id,
            capability: kept.capability,
            version: kept.version,
        };
        Series::new(key, clock, kept.slots)
    });
    (Some(file), series.collect(), Ledger::of(kept.costs))
}

impl File {
    fn take(dir: &Path) -> io::Result<Self> {
        DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        let lock = fs::File::options()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(dir.join("telemetry.lock"))?;
        lock.try_lock().map_err(|error| match error {
            TryLockError::WouldBlock => io::Error::other("another host keeps its own there"),
            TryLockError::Error(error) => error,
        })?;
        Ok(Self {
            dir: dir.to_owned(),
            last: Mutex::default(),
            _lock: lock,
        })
    }

    fn read(&self) -> io::Result<Option<Kept>> {
        let bytes = match fs::read(self.dir.join(NAME)) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let kept: Kept = serde_json::from_slice(&bytes)?;
        match kept.form {
            FORM => Ok(Some(kept)),
            other => Err(io::Error::other(format!(
                "it has the form {other}, not {FORM}"
            ))),
        }
    }

    pub fn save(&self, series: &[Arc<Series>], ledger: &Ledger) -> io::Result<()> {
        let series = series.iter().map(|series| {
            let Key {
                worker_id,
                capability,
                version,
            } = series.key().clone();
            KeptSeries {
                worker_id,
                capability,
                version,
                slots: series.rings(),
            }
        });
        let bytes = serde_json::to_vec(&Kept {
            form: FORM,
            series: series.collect(),
            costs: ledger.accounts(),
        })?;
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let hash = blake3::hash(&bytes);
        if *last == Some(hash) {
            return Ok(());
        }
        // For nobody but this user to read, as `tempfile` makes it.
        let mut file = NamedTempFile::with_prefix_in(".telemetry", &self.dir)?;
        file.write_all(&bytes)?;
        file.as_file().sync_data()?;
        file.persist(self.dir.join(NAME))?;
        *last = Some(hash);
        Ok(())
    }
}
