//! Several changes of a bucket as one: made on the thread that writes, by what is there at that moment.

use std::fmt;
use std::ops::ControlFlow;

use redb::ReadableTable;

use super::{Account, Done, Writing};
use crate::state::{StateError, check, check_values, failed};

/// What makes them. Answers what it counts.
type Function = dyn Fn(&mut Edit<'_, '_>) -> Result<u64, StateError> + Send;

/// Changes that are to be made.
pub struct Edits(pub Box<Function>);

/// A bucket while it is changed. What was changed stays, also if an error follows: who changes looks first.
pub struct Edit<'e, 't> {
    writing: &'e mut Writing<'t>,
    account: Account<'e>,
    /// Bytes of keys and values by now.
    used: u64,
    is_changed: bool,
    /// What ended the transaction, for all who share it.
    broken: Option<redb::Error>,
}

impl<'e, 't> Edit<'e, 't> {
    pub(super) fn run(
        writing: &'e mut Writing<'t>,
        account: Account<'e>,
        edits: &Edits,
    ) -> Result<Result<Done, StateError>, redb::Error> {
        let mut edit = Self {
            used: account.used,
            writing,
            account,
            is_changed: false,
            broken: None,
        };
        let done = (edits.0)(&mut edit);
        if let Some(error) = edit.broken {
            return Err(error);
        }
        if edit.is_changed {
            edit.writing.settle(&edit.account, edit.used)?;
        }
        Ok(done.map(Done::Count))
    }

    /// What the bucket may hold, in bytes.
    pub fn quota(&self) -> u64 {
        self.account.quota
    }

    /// Bytes that still fit.
    pub fn free(&self) -> u64 {
        self.account.quota.saturating_sub(self.used)
    }

    /// Bytes that a key and its value take; 0 where it is not there.
    pub fn size(&mut self, key: &str) -> Result<u64, StateError> {
        let size = self.writing.size(self.account.id, key);
        self.note(size)
    }

    /// The number that a key has as decimal text; 0 where it has none.
    pub fn number(&mut self, key: &str) -> Result<u64, StateError> {
        let number = self.writing.number(self.account.id, key);
        self.note(number)
    }

    /// Visits the keys that begin so, in the order of their bytes, each with its value where that is short,
    /// until the visitor breaks off.
    pub fn each(
        &mut self,
        prefix: &str,
        visit: impl FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), StateError> {
        let visited = self.writing.each(self.account.id, prefix, visit);
        self.note(visited)
    }

    /// Sets a key, if that fits.
    pub fn set(&mut self, key: &str, value: &[u8]) -> Result<(), StateError> {
        check(key)?;
        check_values(value.len())?;
        let rest = self.used.saturating_sub(self.size(key)?);
        let used = rest + (key.len() + value.len()) as u64;
        if used > self.account.quota && used > self.used {
            return Err(StateError::Quota);
        }
        let put = self.writing.put(self.account.id, key, value);
        self.note(put)?;
        (self.used, self.is_changed) = (used, true);
        Ok(())
    }

    /// Deletes a key. Answers how many bytes that frees; 0 where it was not there.
    pub fn delete(&mut self, key: &str) -> Result<u64, StateError> {
        let freed = self.writing.remove(self.account.id, key);
        let freed = self.note(freed)?;
        self.used = self.used.saturating_sub(freed);
        self.is_changed |= freed > 0;
        Ok(freed)
    }

    fn note<T>(&mut self, result: Result<T, redb::Error>) -> Result<T, StateError> {
        result.map_err(|error| {
            let told = failed(&error);
            self.broken = Some(error);
            told
        })
    }
}

impl Writing<'_> {
    fn size(&self, id: u32, key: &str) -> Result<u64, redb::Error> {
        let entry = self.entries.get((id, key))?;
        Ok(entry.map_or(0, |entry| key.len() as u64 + entry.value().1))
    }

    fn number(&self, id: u32, key: &str) -> Result<u64, redb::Error> {
        let entry = self.entries.get((id, key))?;
        // A number is short.
        let number =
            entry.and_then(|entry| std::str::from_utf8(entry.value().2).ok()?.parse().ok());
        Ok(number.unwrap_or_default())
    }

    fn each(
        &self,
        id: u32,
        prefix: &str,
        mut visit: impl FnMut(&str, &[u8]) -> ControlFlow<()>,
    ) -> Result<(), redb::Error> {
        for entry in self.entries.range((id, prefix)..)? {
            let (key, entry) = entry?;
            let (of, key) = key.value();
            let is_one = of == id && key.starts_with(prefix);
            if !is_one || visit(key, entry.value().2).is_break() {
                break;
            }
        }
        Ok(())
    }

    /// Removes an entry. Answers its bytes.
    pub(super) fn remove(&mut self, id: u32, key: &str) -> Result<u64, redb::Error> {
        let removed = self.entries.remove((id, key))?;
        let removed = removed.map(|entry| (entry.value().0, entry.value().1));
        let Some((version, length)) = removed else {
            return Ok(0);
        };
        self.forget(version, length)?;
        Ok(key.len() as u64 + length)
    }
}

impl fmt::Debug for Edits {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Edits")
    }
}
