//! What is on the disk: tables of buckets, entries and long values, read and written in transactions.

mod edit;

use std::collections::BTreeMap;
use std::fs::File;
use std::path::Path;
use std::sync::{PoisonError, RwLock};

use redb::{
    Database, ReadOnlyTable, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};

use super::hold::Hold;
use super::writer::Job;
use super::{MAX_VALUES, PAGE_KEYS, Page, StateError, closed, failed};
pub use edit::Edit;
pub(super) use edit::Edits;

/// Buckets by name: number, and bytes of keys and values.
const BUCKETS: TableDefinition<&str, (u32, u64)> = TableDefinition::new("buckets");
/// Entries by bucket and key.
const ENTRIES: TableDefinition<(u32, &str), Entry<'static>> = TableDefinition::new("entries");
/// Pieces of long values, by the version of their entry and in order.
const PIECES: TableDefinition<(u64, u32), &[u8]> = TableDefinition::new("pieces");
/// The last version that was given.
const VERSION: TableDefinition<(), u64> = TableDefinition::new("version");
/// Version, length of the value, and the value itself if it is short. No version is given twice.
type Entry<'a> = (u64, u64, &'a [u8]);
/// The longest short value, in bytes. A change of one entry writes its neighbours on the same page
/// anew: with a long value among them, a thousand small entries took two minutes.
const SHORT: usize = 2 << 10;
/// A piece with its key fills a page of 64 KiB; pages are powers of two.
const PIECE: usize = (64 << 10) - 256;
/// Pages of the file that are kept in memory, in bytes; the system keeps more of them.
const CACHE: usize = 32 << 20;

/// The database, and the right to its directory.
#[derive(Debug)]
pub(super) struct Store {
    /// Taken for reading by all who use it, for writing by who opens or closes it.
    files: RwLock<Files>,
}

/// In this order: only a database that is closed leaves its directory to another host.
#[derive(Debug)]
struct Files {
    /// `None`: closed, or not to be opened again since the disk failed.
    database: Option<Database>,
    hold: Option<Hold>,
}

/// What one write asks for.
#[derive(Debug)]
pub(super) enum Change {
    Set(Vec<(String, Vec<u8>)>),
    Delete(Vec<String>),
    Increment(String, i64),
    Swap {
        key: String,
        version: u64,
        value: Vec<u8>,
    },
    Edit(Edits),
}

/// What came of it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Done {
    Nothing,
    Number(i64),
    Count(u64),
    /// The key has another version, this one; nothing was set.
    Stale(u64),
}

impl Store {
    pub fn open(hold: Hold) -> Result<Self, StateError> {
        let database = open(hold.dir())?;
        Ok(Self {
            files: RwLock::new(Files {
                database: Some(database),
                hold: Some(hold),
            }),
        })
    }

    /// Reads what the last transaction left.
    pub fn read<T>(
        &self,
        read: impl FnOnce(&Reader) -> Result<T, redb::Error>,
    ) -> Result<T, StateError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let database = files.database.as_ref().ok_or_else(closed)?;
        Reader::new(database)
            .and_then(|reader| read(&reader))
            .map_err(failed)
    }

    /// Does all of these in one transaction, and returns when it is on the disk: for each job what
    /// came of it. After an error nothing has been done, for no job.
    pub fn commit(&self, jobs: &[Job]) -> Result<Vec<Result<Done, StateError>>, StateError> {
        let files = self.files.read().unwrap_or_else(PoisonError::into_inner);
        let database = files.database.as_ref().ok_or_else(closed)?;
        let commit = || -> Result<_, redb::Error> {
            let transaction = database.begin_write()?;
            let mut writing = Writing::new(&transaction)?;
            let done: Result<Vec<_>, redb::Error> =
                jobs.iter().map(|job| writing.run(job)).collect();
            let done = done?;
            if writing.finish()? {
                transaction.commit()?;
            } else {
                transaction.abort()?;
            }
            Ok(done)
        };
        commit().map_err(failed)
    }

    /// Opens the database anew, which is the only way on after the disk has failed.
    pub fn reopen(&self) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        // Closed first: the file has a lock of its own.
        files.database = None;
        let Some(hold) = &files.hold else { return };
        match open(hold.dir()) {
            Ok(opened) => files.database = Some(opened),
            Err(error) => tracing::error!("the state cannot be opened again: {error}"),
        }
    }

    pub fn close(&self) {
        let mut files = self.files.write().unwrap_or_else(PoisonError::into_inner);
        files.database = None;
        files.hold = None;
    }
}

fn open(dir: &Path) -> Result<Database, StateError> {
    let open = || -> Result<Database, redb::Error> {
        let database = Database::builder()
            .set_cache_size(CACHE)
            .set_repair_callback(|repair| {
                let percent = repair.progress() * 100.0;
                tracing::info!(
                    "the last host did not stop in order: checking the state, {percent:.0} %"
                );
            })
            .create(dir.join("state.redb"))?;
        let transaction = database.begin_write()?;
        drop(Writing::new(&transaction)?);
        transaction.commit()?;
        // The file's name has to survive the machine too.
        File::open(dir).and_then(|dir| dir.sync_all())?;
        Ok(database)
    };
    open().map_err(|error| failed(format!("the state in {}: {error}", dir.display())))
}

/// One moment of the tables.
pub(super) struct Reader {
    buckets: ReadOnlyTable<&'static str, (u32, u64)>,
    entries: ReadOnlyTable<(u32, &'static str), Entry<'static>>,
    pieces: ReadOnlyTable<(u64, u32), &'static [u8]>,
}

impl Reader {
    fn new(database: &Database) -> Result<Self, redb::Error> {
        let transaction = database.begin_read()?;
        Ok(Self {
            buckets: transaction.open_table(BUCKETS)?,
            entries: transaction.open_table(ENTRIES)?,
            pieces: transaction.open_table(PIECES)?,
        })
    }

    pub fn get(&self, bucket: &str, key: &str) -> Result<Option<Vec<u8>>, redb::Error> {
        let Some(id) = self.id(bucket)? else {
            return Ok(None);
        };
        let entry = self.entries.get((id, key))?;
        entry.map(|entry| self.value(entry.value())).transpose()
    }

    fn value(&self, (version, length, short): Entry<'_>) -> Result<Vec<u8>, redb::Error> {
        if length <= SHORT as u64 {
            return Ok(short.to_vec());
        }
        let mut value = Vec::with_capacity(usize::try_from(length).unwrap_or_default());
        for piece in self.pieces.range((version, 0)..=(version, u32::MAX))? {
            value.extend_from_slice(piece?.1.value());
        }
        Ok(value)
    }

    pub fn version(&self, bucket: &str, key: &str) -> Result<u64, redb::Error> {
        let Some(id) = self.id(bucket)? else {
            return Ok(0);
        };
        let entry = self.entries.get((id, key))?;
        Ok(entry.map_or(0, |entry| entry.value().0))
    }

    /// `None` if the values are more than one call may carry.
    pub fn get_many(
        &self,
        bucket: &str,
        keys: &[String],
    ) -> Result<Option<Vec<Option<Vec<u8>>>>, redb::Error> {
        let Some(id) = self.id(bucket)? else {
            return Ok(Some(vec![None; keys.len()]));
        };
        let mut values = Vec::with_capacity(keys.len());
        let mut left = MAX_VALUES as u64;
        for key in keys {
            let entry = self.entries.get((id, key.as_str()))?;
            let length = entry.as_ref().map_or(0, |entry| entry.value().1);
            match left.checked_sub(length) {
                Some(rest) => left = rest,
                None => return Ok(None),
            }
            values.push(entry.map(|entry| self.value(entry.value())).transpose()?);
        }
        Ok(Some(values))
    }

    pub fn keys(&self, bucket: &str, after: &str) -> Result<Page, redb::Error> {
        let mut keys = Vec::new();
        let mut more = false;
        if let Some(id) = self.id(bucket)? {
            for entry in self.entries.range((id, after)..)? {
                let (key, _) = entry?;
                let (of, key) = key.value();
                if of != id {
                    break;
                }
                if keys.len() == PAGE_KEYS {
                    more = true;
                    break;
                }
                if key != after {
                    keys.push(key.to_owned());
                }
            }
        }
        let cursor = if more { keys.last().cloned() } else { None };
        Ok(Page { keys, cursor })
    }

    fn id(&self, bucket: &str) -> Result<Option<u32>, redb::Error> {
        Ok(self.buckets.get(bucket)?.map(|found| found.value().0))
    }
}

/// A transaction that is being written.
struct Writing<'t> {
    buckets: Table<'t, &'static str, (u32, u64)>,
    entries: Table<'t, (u32, &'static str), Entry<'static>>,
    pieces: Table<'t, (u64, u32), &'static [u8]>,
    versions: Table<'t, (), u64>,
    /// The last version given.
    version: u64,
    changed: bool,
}

/// What a job changes and when it may not.
struct Account<'j> {
    name: &'j str,
    id: u32,
    /// Bytes of keys and values.
    used: u64,
    quota: u64,
}

impl<'t> Writing<'t> {
    fn new(transaction: &'t WriteTransaction) -> Result<Self, redb::Error> {
        let versions = transaction.open_table(VERSION)?;
        let version = versions.get(())?.map_or(0, |version| version.value());
        Ok(Self {
            buckets: transaction.open_table(BUCKETS)?,
            entries: transaction.open_table(ENTRIES)?,
            pieces: transaction.open_table(PIECES)?,
            versions,
            version,
            changed: false,
        })
    }

    /// Whether there is anything to commit.
    fn finish(mut self) -> Result<bool, redb::Error> {
        if self.changed {
            self.versions.insert((), self.version)?;
        }
        Ok(self.changed)
    }

    /// One job. The outer error ends the whole transaction, the inner one concerns this job alone,
    /// which has then changed nothing.
    fn run(&mut self, job: &Job) -> Result<Result<Done, StateError>, redb::Error> {
        let account = self.account(&job.bucket, job.quota)?;
        match &job.change {
            Change::Set(entries) => {
                let entries = entries
                    .iter()
                    .map(|(key, value)| (&**key, &**value))
                    .collect();
                self.set(account, &entries)
            }
            Change::Delete(keys) => self.delete(account, keys),
            Change::Increment(key, delta) => self.increment(account, key, *delta),
            Change::Edit(edits) => Edit::run(self, account, edits),
            Change::Swap {
                key,
                version,
                value,
            } => {
                let entry = self.entries.get((account.id, key.as_str()))?;
                let found = entry.map_or(0, |entry| entry.value().0);
                if found == *version {
                    self.set(account, &BTreeMap::from([(&**key, &**value)]))
                } else {
                    Ok(Ok(Done::Stale(found)))
                }
            }
        }
    }

    fn account<'j>(&self, name: &'j str, quota: u64) -> Result<Account<'j>, redb::Error> {
        let (id, used) = match self.buckets.get(name)? {
            Some(found) => found.value(),
            // No bucket is ever removed: their number is the next one's.
            None => (
                u32::try_from(redb::ReadableTableMetadata::len(&self.buckets)?).unwrap_or(u32::MAX),
                0,
            ),
        };
        Ok(Account {
            name,
            id,
            used,
            quota,
        })
    }

    fn set(
        &mut self,
        account: Account<'_>,
        entries: &BTreeMap<&str, &[u8]>,
    ) -> Result<Result<Done, StateError>, redb::Error> {
        let mut after = account.used;
        for (key, value) in entries {
            let entry = self.entries.get((account.id, *key))?;
            let before = entry.map_or(0, |entry| key.len() as u64 + entry.value().1);
            after = after.saturating_sub(before) + (key.len() + value.len()) as u64;
        }
        // A bucket over its quota, since that was lowered, may still shrink.
        if after > account.quota && after > account.used {
            return Ok(Err(StateError::Quota));
        }
        for (key, value) in entries {
            self.put(account.id, key, value)?;
        }
        self.settle(&account, after)?;
        Ok(Ok(Done::Nothing))
    }

    fn delete(
        &mut self,
        account: Account<'_>,
        keys: &[String],
    ) -> Result<Result<Done, StateError>, redb::Error> {
        let mut after = account.used;
        for key in keys {
            after = after.saturating_sub(self.remove(account.id, key)?);
        }
        if after < account.used {
            self.settle(&account, after)?;
        }
        Ok(Ok(Done::Nothing))
    }

    fn increment(
        &mut self,
        account: Account<'_>,
        key: &str,
        delta: i64,
    ) -> Result<Result<Done, StateError>, redb::Error> {
        let number: Option<i64> = match self.entries.get((account.id, key))? {
            // A number is short.
            Some(entry) => std::str::from_utf8(entry.value().2)
                .ok()
                .and_then(|text| text.parse().ok()),
            None => Some(0),
        };
        let Some(number) = number else {
            return Ok(Err(StateError::Refused("the value is not a number")));
        };
        let Some(sum) = number.checked_add(delta) else {
            return Ok(Err(StateError::Refused("the sum is beyond 64 bits")));
        };
        let text = sum.to_string();
        let set = self.set(account, &BTreeMap::from([(key, text.as_bytes())]))?;
        Ok(set.map(|_| Done::Number(sum)))
    }

    fn settle(&mut self, account: &Account<'_>, used: u64) -> Result<(), redb::Error> {
        self.changed = true;
        self.buckets.insert(account.name, (account.id, used))?;
        Ok(())
    }

    fn put(&mut self, id: u32, key: &str, value: &[u8]) -> Result<(), redb::Error> {
        self.version += 1;
        let mut short = value;
        if value.len() > SHORT {
            short = &[];
            for (at, piece) in (0..).zip(value.chunks(PIECE)) {
                self.pieces.insert((self.version, at), piece)?;
            }
        }
        let entry = (self.version, value.len() as u64, short);
        let replaced = self.entries.insert((id, key), entry)?;
        let replaced = replaced.map(|entry| (entry.value().0, entry.value().1));
        match replaced {
            Some((version, length)) => self.forget(version, length),
            None => Ok(()),
        }
    }

    /// Removes the pieces of an entry that is gone.
    fn forget(&mut self, version: u64, length: u64) -> Result<(), redb::Error> {
        if length > SHORT as u64 {
            self.pieces
                .retain_in((version, 0)..=(version, u32::MAX), |_, _| false)?;
        }
        Ok(())
    }
}
