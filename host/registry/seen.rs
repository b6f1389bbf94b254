//! What is known of a file in the directory of components.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use super::components;
use crate::worker::{Refused, Starting, Worker};

/// How long a file must have been still before it counts: who copies or saves is done by then.
pub(super) const SETTLE: Duration = Duration::from_millis(200);

/// What changes when a file is written, moved or replaced, as far as the file system tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Stamp {
    file: (u64, u64),
    size: u64,
    modified: Option<SystemTime>,
    changed: (i64, i64),
}

/// A file, there or gone.
pub(super) struct Seen {
    /// As it was at the last look; `None`: it is not there.
    pub stamp: Option<Stamp>,
    /// Since when it is as it was at the last look.
    since: Instant,
    /// The stamp of what was judged last.
    pub judged: Option<Stamp>,
    /// The digest of what was judged last, if it could be read.
    pub digest: Option<blake3::Hash>,
    /// The version that serves.
    pub serving: Option<Arc<Worker>>,
    /// The version that served last: calls may hold it long after the file is gone.
    pub last: Weak<Worker>,
    /// The ids that it had when it first served.
    pub ids: Option<BTreeSet<String>>,
    /// Why what was judged last may not serve.
    pub refused: Option<Refused>,
    /// What was judged last waits to be placed.
    pub starting: Option<Arc<Starting>>,
    /// It is refused for what another file claims: the next change may free it.
    pub contested: bool,
}

/// What is to be done about a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Due {
    Nothing,
    /// It has changed, perhaps not for the last time.
    Wait,
    Load,
    Drain,
}

impl Stamp {
    /// `None` where there is no file.
    pub fn of(path: &Path) -> Option<Self> {
        let about = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
        Some(Self {
            file: (about.dev(), about.ino()),
            size: about.size(),
            modified: about.modified().ok(),
            changed: (about.ctime(), about.ctime_nsec()),
        })
    }

    /// Nobody has written to it for a while. A time in the future says nothing.
    fn is_old(&self) -> bool {
        let age = self.modified.and_then(|modified| modified.elapsed().ok());
        age.is_some_and(|age| age >= SETTLE)
    }
}

impl Seen {
    fn new(now: Instant) -> Self {
        Self {
            stamp: None,
            since: now,
            judged: None,
            digest: None,
            serving: None,
            last: Weak::new(),
            ids: None,
            refused: None,
            starting: None,
            contested: false,
        }
    }

    /// Nothing of it is left.
    fn is_gone(&self) -> bool {
        self.serving.is_none() && self.refused.is_none() && self.starting.is_none()
    }

    /// What is to be done, where nothing need be waited for (`first`) or else.
    pub fn due(&self, first: bool) -> Due {
        let is_still = first
            || self.since.elapsed() >= SETTLE
            || self.stamp.as_ref().is_some_and(Stamp::is_old);
        let due = match self.stamp {
            None if self.is_gone() => return Due::Nothing,
            None => Due::Drain,
            Some(_) if self.stamp == self.judged => return Due::Nothing,
            Some(_) => Due::Load,
        };
        if is_still { due } else { Due::Wait }
    }
}

/// The components in a directory.
pub(super) fn scan(dir: &Path) -> io::Result<BTreeMap<PathBuf, Stamp>> {
    let stamped = |path: PathBuf| {
        let stamp = Stamp::of(&path)?;
        Some((path, stamp))
    };
    Ok(components(dir)?.into_iter().filter_map(stamped).collect())
}

/// Takes note of what there is now.
pub(super) fn note(files: &mut BTreeMap<PathBuf, Seen>, mut found: BTreeMap<PathBuf, Stamp>) {
    let now = Instant::now();
    for (path, seen) in files.iter_mut() {
        let stamp = found.remove(path);
        if seen.stamp != stamp {
            (seen.stamp, seen.since) = (stamp, now);
        }
    }
    for (path, stamp) in found {
        let mut seen = Seen::new(now);
        seen.stamp = Some(stamp);
        files.insert(path, seen);
    }
}
