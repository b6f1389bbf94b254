//! Keys and values that outlive an invocation.
//!
//! A worker declares what it opens in `required_capabilities`: `wasi:keyvalue/store` is its own bucket,
//! `wasi:keyvalue/store[zettel]` one that workers share and the operator grants, `[zettel:ro]` the same
//! only to be read. When a write has returned, it is on the disk. A write that would take a bucket over
//! its quota ends the invocation as `storage-limit`.
//!
//! A key has 1 to 512 bytes, a value at most 16 MiB. State of one caller and not of all: that is a
//! prefix of the key, and the worker's matter. In a native test a bucket is in the thread's memory.

#[cfg(target_arch = "wasm32")]
mod host;
#[cfg(target_arch = "wasm32")]
use host::Store;

#[cfg(not(target_arch = "wasm32"))]
mod memory;
#[cfg(not(target_arch = "wasm32"))]
use memory::Store;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::Failure;

/// A bucket of keys and values, kept by the host.
pub struct Bucket(Store);

impl Bucket {
    /// The worker's own bucket.
    pub fn own() -> Result<Self, Failure> {
        Self::open("default")
    }

    /// A bucket by its name: one that workers share, or `index`, the worker's own with the quota
    /// `vector_index_mb`. Fails if the capability does not declare it.
    pub fn open(name: &str) -> Result<Self, Failure> {
        Store::open(name).map(Self)
    }

    /// The value of a key.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.0.get(key)
    }

    /// Sets a key.
    pub fn set(&self, key: &str, value: &[u8]) -> Result<(), Failure> {
        self.0.set(key, value)
    }

    /// Deletes a key, if it is there.
    pub fn delete(&self, key: &str) -> Result<(), Failure> {
        self.0.delete(key)
    }

    /// Whether a key has a value.
    pub fn exists(&self, key: &str) -> Result<bool, Failure> {
        self.0.exists(key)
    }

    /// The keys that begin with `prefix`, in the order of their bytes, fetched as they are asked for. What
    /// others write meanwhile may be among them or not.
    pub fn keys(&self, prefix: &str) -> Keys<'_> {
        Keys {
            bucket: self,
            prefix: prefix.to_owned(),
            page: Vec::new().into_iter(),
            next: Next::First,
        }
    }

    /// Changes a value: calls `change` with what is there and sets what it returns, unless someone
    /// else has written the key meanwhile; then again, with what is there now. No write of others is
    /// lost. Returns what was set.
    pub fn update(
        &self,
        key: &str,
        mut change: impl FnMut(Option<Vec<u8>>) -> Result<Vec<u8>, Failure>,
    ) -> Result<Vec<u8>, Failure> {
        self.0.update(key, &mut change)
    }

    /// Adds to a number and returns the sum. It is kept as decimal text; without a value it is 0.
    pub fn increment(&self, key: &str, delta: i64) -> Result<i64, Failure> {
        self.0.increment(key, delta)
    }

    /// The values of keys, in their order: at most 10,000, and 16 MiB together.
    pub fn get_many(&self, keys: &[String]) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        self.0.get_many(keys)
    }

    /// Sets all of these keys or, if it does not return, none: at most 10,000, and 16 MiB together.
    pub fn set_many(&self, entries: &[(String, Vec<u8>)]) -> Result<(), Failure> {
        self.0.set_many(entries)
    }

    /// Deletes those of these keys that are there, all or none: at most 10,000.
    pub fn delete_many(&self, keys: &[String]) -> Result<(), Failure> {
        self.0.delete_many(keys)
    }

    /// The value of a key, read from JSON.
    pub fn get_as<T: DeserializeOwned>(&self, key: &str) -> Result<Option<T>, Failure> {
        read(key, self.get(key)?)
    }

    /// Sets a key to a value, written as JSON.
    pub fn set_as<T: Serialize>(&self, key: &str, value: &T) -> Result<(), Failure> {
        self.set(key, &write(key, value)?)
    }

    /// As [`Bucket::update`], with values in JSON.
    pub fn update_as<T: Serialize + DeserializeOwned>(
        &self,
        key: &str,
        mut change: impl FnMut(Option<T>) -> Result<T, Failure>,
    ) -> Result<T, Failure> {
        let set = self.update(key, |value| write(key, &change(read(key, value)?)?))?;
        serde_json::from_slice(&set).map_err(|error| unlike(key, &error))
    }
}

fn read<T: DeserializeOwned>(key: &str, value: Option<Vec<u8>>) -> Result<Option<T>, Failure> {
    let read = value.map(|value| serde_json::from_slice(&value));
    read.transpose().map_err(|error| unlike(key, &error))
}

fn write<T: Serialize>(key: &str, value: &T) -> Result<Vec<u8>, Failure> {
    serde_json::to_vec(value).map_err(|error| unlike(key, &error))
}

fn unlike(key: &str, error: &serde_json::Error) -> Failure {
    Failure::failed(format!(
        "the value of `{key}` is not what it should be: {error}"
    ))
}

/// Keys of a bucket, fetched page by page.
pub struct Keys<'a> {
    bucket: &'a Bucket,
    prefix: String,
    page: std::vec::IntoIter<String>,
    next: Next,
}

enum Next {
    First,
    After(String),
    End,
}

impl Keys<'_> {
    fn fetch(&mut self) -> Result<(), Failure> {
        let mut keys = Vec::new();
        let after = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(()),
            Next::After(key) => Some(key),
            Next::First if self.prefix.is_empty() => None,
            // A page begins after the text it is given, which may be a key itself.
            Next::First => {
                if self.bucket.exists(&self.prefix)? {
                    keys.push(self.prefix.clone());
                }
                Some(self.prefix.clone())
            }
        };
        let (page, cursor) = self.bucket.0.page(after.as_deref())?;
        keys.extend(page);
        if let Some(cursor) = cursor.filter(|cursor| cursor.starts_with(&self.prefix)) {
            self.next = Next::After(cursor);
        }
        keys.retain(|key| key.starts_with(&self.prefix));
        self.page = keys.into_iter();
        Ok(())
    }
}

impl Iterator for Keys<'_> {
    type Item = Result<String, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(key) = self.page.next() {
                return Some(Ok(key));
            }
            if matches!(self.next, Next::End) {
                return None;
            }
            if let Err(failure) = self.fetch() {
                return Some(Err(failure));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_of_a_native_test_does_what_the_hosts_does() {
        let bucket = Bucket::own().unwrap();
        let numbers: Vec<_> = (0..25).map(|n| (format!("n/{n:02}"), vec![n])).collect();
        bucket.set_many(&numbers).unwrap();
        bucket.set("n", b"").unwrap();
        bucket.set("n/", b"").unwrap();
        bucket.set("o", b"").unwrap();
        let keys: Vec<String> = bucket.keys("n/").map(Result::unwrap).collect();
        assert_eq!(keys[0], "n/");
        assert!(keys[1..].iter().eq(numbers.iter().map(|(key, _)| key)));
        assert_eq!(bucket.keys("").count(), 28);
        assert_eq!(bucket.keys("p").count(), 0);

        let sum = |sum: Option<u32>| Ok(sum.unwrap_or(40) + 1);
        assert_eq!(bucket.update_as("sum", sum).unwrap(), 41);
        assert_eq!(bucket.update_as("sum", sum).unwrap(), 42);
        assert_eq!(bucket.increment("sum", -2).unwrap(), 40);
        assert_eq!(bucket.get_as::<u32>("sum").unwrap(), Some(40));
        assert!(bucket.get_as::<u32>("n").is_err());
        assert!(bucket.increment("n", 1).is_err());
        // Another bucket, the same thread; and the same bucket, opened again.
        assert_eq!(Bucket::open("other").unwrap().keys("").count(), 0);
        bucket
            .delete_many(&["sum".to_owned(), "gone".to_owned()])
            .unwrap();
        assert!(!Bucket::own().unwrap().exists("sum").unwrap());
    }
}
