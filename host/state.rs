//! Key-value state that outlives invocations: embedded, crash-safe, one host to a directory.
//!
//! A write is answered when it is on the disk: `kill -9` at any moment loses nothing that was answered,
//! and no write is ever half there. One thread writes; what waits for it goes into one transaction, so
//! that many writers share the disk's flush. Reads see the last transaction and wait for nobody.
//! Every future here may be dropped at any time; a write under way then happens whole or not at all.
//! Workers, grants and WebAssembly must not enter this room.

mod hold;
mod store;
mod writer;

use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use tokio::sync::{Semaphore, oneshot};
use tokio::task::spawn_blocking;

use hold::Hold;
pub use store::Edit;
use store::{Change, Done, Edits, Reader, Store};
use writer::{Job, Writer};

/// The longest key, in bytes.
pub const MAX_KEY: usize = 512;
/// What the values of one call have together at most, in bytes.
pub const MAX_VALUES: usize = 16 << 20;
/// Keys that one call may name.
pub const MAX_KEYS: usize = 10_000;
/// Keys on one page of a list.
const PAGE_KEYS: usize = 1000;

/// Reads at once. What they hold is charged to no one until it is handed over: 128 MiB at most.
const READS: usize = 8;
/// Writes that wait for the disk, in KiB: the host's memory, whoever has gone away meanwhile.
const ROOM_KIB: u32 = 64 << 10;

/// Why the state did not do as it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StateError {
    /// Another host holds the directory.
    #[error(
        "the state in {dir} is held by process {pid}; stop that host, or set `state_dir` to another directory"
    )]
    Held {
        /// The directory.
        dir: String,
        /// The holder's process id, or `?` where it has not written it yet.
        pid: String,
    },
    /// The bucket would be larger than its quota allows.
    #[error("the bucket's quota is reached")]
    Quota,
    /// A write to a bucket that is only to be read.
    #[error("the bucket is only to be read")]
    ReadOnly,
    /// A key, a value or a number that cannot be; the text is for who asked.
    #[error("{0}")]
    Refused(&'static str),
    /// The disk or the store failed; the text is for the log.
    #[error("{0}")]
    Failed(String),
}

/// The state of one host, in one directory. Nothing is there until something is asked of it.
#[derive(Debug)]
pub struct State {
    dir: PathBuf,
    opened: Arc<OnceLock<Opened>>,
    /// The turn to open it. It stays with the thread that opens, also if nobody waits for that.
    opening: Arc<Semaphore>,
}

#[derive(Debug)]
struct Opened {
    store: Arc<Store>,
    writer: Writer,
    reads: Arc<Semaphore>,
    room: Arc<Semaphore>,
}

/// A named collection of keys and values. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Bucket {
    state: Arc<State>,
    name: Arc<str>,
    quota: Option<u64>,
}

/// A key at the version that it had: what a compare-and-swap holds on to.
#[derive(Clone, Debug)]
pub struct Cas {
    bucket: Bucket,
    key: String,
    version: u64,
}

/// Keys in the order of their bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The keys.
    pub keys: Vec<String>,
    /// The last of them, if more may follow: the next page begins after it.
    pub cursor: Option<String>,
}

impl State {
    /// The state in a directory, which is made when it is first needed.
    pub fn at(dir: PathBuf) -> Self {
        Self {
            dir,
            opened: Arc::default(),
            opening: Arc::new(Semaphore::new(1)),
        }
    }

    /// Takes the directory and opens what is in it, once. After a crash this checks all that is there.
    ///
    /// # Errors
    ///
    /// Another host holds the directory, or it cannot be written.
    pub async fn open(&self) -> Result<(), StateError> {
        self.opened().await.map(|_| ())
    }

    /// Waits for the writes under way, then gives the directory back. What is asked later fails.
    pub async fn close(&self) {
        if let Some(opened) = self.opened.get() {
            opened.writer.close().await;
        }
    }

    /// A bucket, which exists from its first write on. `quota` is what its keys and values may take
    /// together, in bytes; without one it is only to be read.
    pub fn bucket(self: &Arc<Self>, name: impl Into<Arc<str>>, quota: Option<u64>) -> Bucket {
        Bucket {
            state: self.clone(),
            name: name.into(),
            quota,
        }
    }

    async fn opened(&self) -> Result<&Opened, StateError> {
        if let Some(opened) = self.opened.get() {
            return Ok(opened);
        }
        let turn = self.opening.clone().acquire_owned().await;
        let (dir, slot) = (self.dir.clone(), self.opened.clone());
        let opening = spawn_blocking(move || {
            let _turn = turn;
            if slot.get().is_none() {
                let _first = slot.set(Opened::new(&dir)?);
            }
            Ok(())
        });
        opening.await.unwrap_or_else(|error| Err(failed(error)))?;
        self.opened.get().ok_or_else(closed)
    }

    async fn read<T: Send + 'static>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, redb::Error> + Send + 'static,
    ) -> Result<T, StateError> {
        let opened = self.opened().await?;
        let turn = opened.reads.clone().acquire_owned().await;
        let store = opened.store.clone();
        // The turn comes back with what was read: only when someone takes that is it another's.
        let reading = spawn_blocking(move || (store.read(read), turn));
        let (read, _turn) = reading.await.map_err(failed)?;
        read
    }

    async fn write(
        &self,
        bucket: &Bucket,
        bytes: usize,
        change: Change,
    ) -> Result<Done, StateError> {
        let quota = bucket.quota.ok_or(StateError::ReadOnly)?;
        let opened = self.opened().await?;
        let kib = u32::try_from(bytes >> 10).map_or(ROOM_KIB, |kib| (kib + 1).min(ROOM_KIB));
        let room = opened.room.clone().acquire_many_owned(kib).await;
        let (answer, answered) = oneshot::channel();
        opened.writer.write(Job {
            bucket: bucket.name.clone(),
            quota,
            change,
            answer,
            room,
        })?;
        answered.await.unwrap_or_else(|_| Err(closed()))
    }
}

impl Opened {
    fn new(dir: &Path) -> Result<Self, StateError> {
        let store = Arc::new(Store::open(Hold::take(dir)?)?);
        let writer = Writer::start(store.clone())?;
        Ok(Self {
            store,
            writer,
            reads: Arc::new(Semaphore::new(READS)),
            room: Arc::new(Semaphore::new(ROOM_KIB as usize)),
        })
    }
}

impl Bucket {
    /// The value of a key.
    pub async fn get(&self, key: String) -> Result<Option<Vec<u8>>, StateError> {
        check(&key)?;
        let name = self.name.clone();
        self.state
            .read(move |entries| entries.get(&name, &key))
            .await
    }

    /// Whether a key has a value.
    pub async fn exists(&self, key: String) -> Result<bool, StateError> {
        Ok(self.version(key).await? > 0)
    }

    /// The values of keys, in their order.
    pub async fn get_many(&self, keys: Vec<String>) -> Result<Vec<Option<Vec<u8>>>, StateError> {
        check_all(keys.iter())?;
        let name = self.name.clone();
        let read = self
            .state
            .read(move |entries| entries.get_many(&name, &keys))
            .await?;
        read.ok_or(TOO_MUCH)
    }

    /// A page of keys, from the one after `after` on. Any text will do for that: `notes/` begins
    /// with the first key that follows it.
    pub async fn keys(&self, after: Option<String>) -> Result<Page, StateError> {
        if after.as_ref().is_some_and(|after| after.len() > MAX_KEY) {
            return Err(KEY);
        }
        let name = self.name.clone();
        self.state
            .read(move |entries| entries.keys(&name, after.as_deref().unwrap_or("")))
            .await
    }

    /// Sets a key.
    pub async fn set(&self, key: String, value: Vec<u8>) -> Result<(), StateError> {
        self.set_many(vec![(key, value)]).await
    }

    /// Sets all of these keys or none; of a key that is named twice the last value stays.
    pub async fn set_many(&self, entries: Vec<(String, Vec<u8>)>) -> Result<(), StateError> {
        check_all(entries.iter().map(|(key, _)| key))?;
        let values: usize = entries.iter().map(|(_, value)| value.len()).sum();
        check_values(values)?;
        let bytes = values + entries.iter().map(|(key, _)| key.len()).sum::<usize>();
        self.write(bytes, Change::Set(entries)).await.map(|_| ())
    }

    /// Deletes a key, if it is there.
    pub async fn delete(&self, key: String) -> Result<(), StateError> {
        self.delete_many(vec![key]).await
    }

    /// Deletes those of these keys that are there.
    pub async fn delete_many(&self, keys: Vec<String>) -> Result<(), StateError> {
        check_all(keys.iter())?;
        let bytes = keys.iter().map(String::len).sum();
        self.write(bytes, Change::Delete(keys)).await.map(|_| ())
    }

    /// Adds to a number, which is kept as decimal text; a key without a value counts as 0. Returns
    /// the sum.
    pub async fn increment(&self, key: String, delta: i64) -> Result<i64, StateError> {
        check(&key)?;
        match self.write(key.len(), Change::Increment(key, delta)).await? {
            Done::Number(sum) => Ok(sum),
            _ => Err(closed()),
        }
    }

    /// Makes several changes as one, by what is there when they are made: `edits` runs on the thread that writes,
    /// so it is brief, and what it changed is on the disk when this returns. `bytes` is how much it carries.
    /// Answers what it counts.
    pub async fn edit(
        &self,
        bytes: usize,
        edits: impl Fn(&mut Edit<'_, '_>) -> Result<u64, StateError> + Send + 'static,
    ) -> Result<u64, StateError> {
        match self
            .write(bytes, Change::Edit(Edits(Box::new(edits))))
            .await?
        {
            Done::Count(count) => Ok(count),
            _ => Err(closed()),
        }
    }

    /// Notes the version of a key, there or not, for [`Cas::swap`].
    pub async fn cas(&self, key: String) -> Result<Cas, StateError> {
        let version = self.version(key.clone()).await?;
        Ok(Cas {
            bucket: self.clone(),
            key,
            version,
        })
    }

    /// Unlike for every write of the key, 0 where it has no value.
    async fn version(&self, key: String) -> Result<u64, StateError> {
        check(&key)?;
        let name = self.name.clone();
        self.state
            .read(move |entries| entries.version(&name, &key))
            .await
    }

    async fn write(&self, bytes: usize, change: Change) -> Result<Done, StateError> {
        self.state.write(self, bytes, change).await
    }
}

impl Cas {
    /// The key's value now. If it is no longer the one that the handle was made for, the swap fails.
    pub async fn current(&self) -> Result<Option<Vec<u8>>, StateError> {
        self.bucket.get(self.key.clone()).await
    }

    /// Sets the key if nobody has written it since the handle was made; if someone has, returns a
    /// handle for what is there now.
    pub async fn swap(self, value: Vec<u8>) -> Result<Result<(), Cas>, StateError> {
        check_values(value.len())?;
        let change = Change::Swap {
            key: self.key.clone(),
            version: self.version,
            value,
        };
        let bytes = match &change {
            Change::Swap { key, value, .. } => key.len() + value.len(),
            _ => 0,
        };
        match self.bucket.write(bytes, change).await? {
            Done::Stale(version) => Ok(Err(Self { version, ..self })),
            _ => Ok(Ok(())),
        }
    }
}

const KEY: StateError = StateError::Refused("a key has 1 to 512 bytes");
const TOO_MUCH: StateError = StateError::Refused("the values of one call have at most 16 MiB");

fn check(key: &str) -> Result<(), StateError> {
    if (1..=MAX_KEY).contains(&key.len()) {
        Ok(())
    } else {
        Err(KEY)
    }
}

fn check_all<'a>(keys: impl ExactSizeIterator<Item = &'a String>) -> Result<(), StateError> {
    if keys.len() > MAX_KEYS {
        return Err(StateError::Refused("one call names at most 10,000 keys"));
    }
    keys.into_iter().try_for_each(|key| check(key))
}

fn check_values(bytes: usize) -> Result<(), StateError> {
    if bytes <= MAX_VALUES {
        Ok(())
    } else {
        Err(TOO_MUCH)
    }
}

fn failed(error: impl std::fmt::Display) -> StateError {
    StateError::Failed(error.to_string())
}

fn closed() -> StateError {
    failed("the state is closed")
}

#[cfg(test)]
mod tests;
