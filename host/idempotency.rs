//! Calls under a caller's key: who may run one, and what was answered before, also after a crash.
//!
//! A key is claimed in memory, which decides among calls at the same time; written down as started before
//! its call runs; and written down with the answer before anyone is told that. Each of these is on the disk
//! when it is done. Workers, protocols and WebAssembly must not enter this room.

mod key;
mod ledger;
mod record;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::config::IdempotencySettings;
use crate::error::{Code, Failure};
use crate::state::{Bucket, Edit, State, StateError};

pub use key::{Fingerprint, Key, Scope};
use ledger::{Place, SWEPT};
pub use record::{Answered, Ran, Told};
use record::{Ending, Record};

/// What is past its time goes once in a while, while keys are used.
const SWEEP: Duration = Duration::from_secs(60);
/// Bytes of what is written beside a record.
const BESIDE: usize = 256;

/// Calls that are under way, by scope.
type UnderWay = Mutex<BTreeMap<String, Fingerprint>>;

/// The keys of one host, in a directory of their own. Nothing is there until a key is used.
#[derive(Debug)]
pub struct Keys {
    state: Arc<State>,
    records: Bucket,
    ttl: Duration,
    max_answer: usize,
    /// For the thread that writes too.
    under_way: Arc<UnderWay>,
    /// When the next sweep is due, in milliseconds since 1970.
    sweep: AtomicU64,
}

/// The right to run the one call of a key, until dropped.
#[derive(Debug)]
pub struct Claim {
    keys: Arc<Keys>,
    key: Key,
    scope: Scope,
    fingerprint: Fingerprint,
    progress: Mutex<Progress>,
}

/// What is on the disk of a claim's call, and what it may have done.
#[derive(Clone, Debug, Default)]
struct Progress {
    /// When its key was first used, in milliseconds since 1970. `None`: nothing is on the disk.
    at: Option<u64>,
    /// It is written down as started, by whom.
    by: Option<Ran>,
    /// Whether to run it again does no harm.
    repeatable: bool,
}

impl Keys {
    /// The keys in a directory, which is made when the first one is used.
    pub fn at(dir: PathBuf, settings: &IdempotencySettings) -> Arc<Self> {
        let state = Arc::new(State::at(dir));
        Arc::new(Self {
            records: state.bucket("calls", Some(settings.max.get())),
            state,
            ttl: settings.ttl,
            max_answer: usize::try_from(settings.max_answer.get()).unwrap_or(usize::MAX),
            under_way: Arc::default(),
            sweep: AtomicU64::new(0),
        })
    }

    /// Takes the one place that a key's call has.
    ///
    /// # Errors
    ///
    /// `idempotency-in-progress`: the same call is under way. `idempotency-mismatch`: another one is.
    pub fn claim(
        self: &Arc<Self>,
        key: Key,
        scope: Scope,
        fingerprint: Fingerprint,
    ) -> Result<Claim, Failure> {
        let mut under_way = locked(&self.under_way);
        match under_way.get(scope.as_str()) {
            None => {}
            Some(first) if *first == fingerprint => {
                let message = "the first call with this idempotency key is under way";
                return Err(Failure::new(Code::IdempotencyInProgress, message)
                    .retry_after(Duration::from_secs(1)));
            }
            Some(_) => return Err(mismatch()),
        }
        under_way.insert(scope.as_str().to_owned(), fingerprint);
        drop(under_way);
        Ok(Claim {
            keys: self.clone(),
            key,
            scope,
            fingerprint,
            progress: Mutex::default(),
        })
    }

    /// Waits for what is being written, then gives the directory back.
    pub async fn close(&self) {
        self.state.close().await;
    }

    /// Removes what is past its time, if nobody has for a while.
    fn sweep(self: &Arc<Self>) {
        let (now, next) = (now(), self.sweep.load(Relaxed));
        let due = now + millis(SWEEP);
        if now < next
            || self
                .sweep
                .compare_exchange(next, due, Relaxed, Relaxed)
                .is_err()
        {
            return;
        }
        let keys = self.clone();
        tokio::spawn(async move {
            if let Err(error) = keys
                .remove_before(now.saturating_sub(millis(keys.ttl)))
                .await
            {
                tracing::warn!("idempotency keys past their time are still there: {error}");
            }
        });
    }

    async fn remove_before(&self, time: u64) -> Result<(), StateError> {
        loop {
            let swept = self.edit(0, move |edit, is_free| ledger::sweep(edit, time, is_free));
            if swept.await? < SWEPT as u64 {
                return Ok(());
            }
        }
    }

    async fn remove(&self, place: Place) -> Result<(), StateError> {
        let removed = self.edit(0, move |edit, _| ledger::remove(edit, &place));
        removed.await.map(drop)
    }

    /// One transaction, which can ask whether the call of a scope is under way, and so not to be touched.
    async fn edit(
        &self,
        bytes: usize,
        edits: impl Fn(&mut Edit<'_, '_>, &dyn Fn(&str) -> bool) -> Result<u64, StateError>
        + Send
        + 'static,
    ) -> Result<u64, StateError> {
        // Not all of `Keys`: the last one to have that closes the state, which its own thread must not.
        let under_way = self.under_way.clone();
        let edits = move |edit: &mut Edit<'_, '_>| {
            edits(edit, &|scope| !locked(&under_way).contains_key(scope))
        };
        self.records.edit(bytes + BESIDE, edits).await
    }
}

impl Claim {
    /// The caller's key.
    pub fn key(&self) -> &Key {
        &self.key
    }

    /// The key as other hosts may see it: no two callers or capabilities share one.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// What was answered before, if the key was used, and who ran it.
    ///
    /// # Errors
    ///
    /// The key is another call's, or what became of its call cannot be told.
    pub async fn before(&self) -> Result<Option<(Told, Ran)>, Failure> {
        self.keys.sweep();
        let name = ledger::record(self.scope.as_str());
        let Some(bytes) = self.keys.records.get(name).await.map_err(closed)? else {
            return Ok(None);
        };
        let Some((record, body)) = Record::read(&bytes) else {
            return Err(unanswered("its record cannot be read").with_cause("a broken record"));
        };
        if now() >= record.at.saturating_add(millis(self.keys.ttl)) {
            let place = Place::of(&self.scope, record.at);
            self.keys.remove(place).await.map_err(closed)?;
            return Ok(None);
        }
        if record.fingerprint != self.fingerprint.to_string() {
            return Err(mismatch());
        }
        match record.ending {
            // The host that began it is gone, and has told nobody anything.
            Ending::Started { repeatable: true } => {
                self.progress().at = Some(record.at);
                Ok(None)
            }
            Ending::Started { repeatable: false } => Err(unanswered(
                "the host stopped while the call ran, and it may have done what it was asked",
            )),
            Ending::TooLarge => Err(unanswered(
                "the call was answered once; the answer was too large to be kept",
            )),
            Ending::Told(told) => Ok(Some((told.with(body), record.by))),
        }
    }

    /// Writes down who runs the call from now on. `repeatable` says that it leaves nothing behind but
    /// its answer.
    ///
    /// # Errors
    ///
    /// It could not be written down; then it must not run.
    pub async fn start(&self, by: Ran, repeatable: bool) -> Result<(), Failure> {
        let at = self.progress().at.unwrap_or_else(now);
        let started = Ending::Started { repeatable };
        self.write(at, &by, started, &[]).await.map_err(closed)?;
        *self.progress() = Progress {
            at: Some(at),
            by: Some(by),
            repeatable,
        };
        Ok(())
    }

    /// Notes that the call, though started, cannot have done anything.
    pub fn untouched(&self) {
        self.progress().repeatable = true;
    }

    /// Writes down what is about to be told, unless nothing ran or it may as well be made again.
    ///
    /// # Errors
    ///
    /// It could not be written down; then it must not be told.
    pub async fn end(&self, told: &Told) -> Result<(), Failure> {
        let Progress { at, by, repeatable } = self.progress().clone();
        let (Some(at), Some(by)) = (at, by) else {
            return Ok(());
        };
        if repeatable && told.is_not_now() {
            let place = Place::of(&self.scope, at);
            // Where that fails, it stands as started and repeatable, which says the same.
            if let Err(error) = self.keys.remove(place).await {
                tracing::warn!("an idempotency key that may be used again is still there: {error}");
            }
            return Ok(());
        }
        let body = told.body();
        let mut written = Err(StateError::Quota);
        if body.len() <= self.keys.max_answer {
            written = self.write(at, &by, Ending::Told(told.head()), body).await;
        }
        if written == Err(StateError::Quota) {
            written = self.write(at, &by, Ending::TooLarge, &[]).await;
        }
        written.map_err(|error| {
            unanswered("the call ended; its answer could not be kept").with_cause(error)
        })
    }

    async fn write(
        &self,
        at: u64,
        by: &Ran,
        ending: Ending,
        body: &[u8],
    ) -> Result<(), StateError> {
        let record = Record {
            at,
            fingerprint: self.fingerprint.to_string(),
            by: by.clone(),
            ending,
        };
        let (place, bytes) = (Place::of(&self.scope, at), record.write(body));
        let written = self.keys.edit(bytes.len(), move |edit, is_free| {
            ledger::write(edit, &place, &bytes, is_free)
        });
        match written.await? {
            0 => {}
            records => tracing::debug!(records, "the oldest idempotency keys make room"),
        }
        Ok(())
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        locked(&self.progress)
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        locked(&self.keys.under_way).remove(self.scope.as_str());
    }
}

/// No lock here is held where anything could panic.
fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn mismatch() -> Failure {
    let message = "the idempotency key stands for another call: its body, media type, parameters or version differ; use a new key";
    Failure::new(Code::IdempotencyMismatch, message)
}

fn unanswered(why: &str) -> Failure {
    let message = format!("{why}; look at what it was to change, then use a new idempotency key");
    Failure::new(Code::IdempotencyUnanswered, message)
}

/// Nothing has run: without a record of it nothing may.
fn closed(error: StateError) -> Failure {
    let message = "this host cannot keep idempotency keys now; its log knows why";
    Failure::new(Code::Unavailable, message).with_cause(error)
}

fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    millis(since.unwrap_or_default())
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
