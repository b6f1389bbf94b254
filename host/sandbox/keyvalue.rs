//! `wasi:keyvalue` for one invocation: the buckets that its capability declares, and nothing else.

use std::collections::HashMap;
use std::sync::Arc;

use wasmtime::component::Resource;
use wasmtime_wasi::WasiView;

use super::Guest;
use crate::bindings::wasi::keyvalue::{atomics, batch, store};
use crate::limits::{Held, Stop};
use crate::policy::{Access, Buckets, INDEX, OWN};
use crate::state::{Bucket, Cas, MAX_KEY, State, StateError};

use atomics::CasError;
use store::{Error, KeyResponse};

/// The keys of all handles that one invocation may have, in bytes: charged when the first bucket is
/// opened.
const HANDLES: u64 = (super::guest::RESOURCES * MAX_KEY) as u64;
/// What a key on a list takes beside its text, in bytes.
const ITEM: usize = size_of::<(String, Vec<u8>)>();

/// The buckets of one worker.
pub struct Shelf {
    /// Where they are kept.
    pub state: Arc<State>,
    /// The stem of the worker's file, to which its own buckets belong.
    pub stem: String,
    /// What they may hold.
    pub quotas: Quotas,
    /// What each capability, `verb:name`, may open.
    pub buckets: HashMap<Arc<str>, Buckets>,
}

/// What a bucket may hold after a worker has written to it: keys and values, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Quotas {
    /// Its own bucket, and each of those that it shares.
    pub storage: u64,
    /// Its index bucket, which it has if it declares one.
    pub index: Option<u64>,
}

/// What one invocation may open, and what it has read last.
pub(super) struct Shelved {
    shelf: Arc<Shelf>,
    capability: Arc<str>,
    opened: bool,
    /// What the last call read is the host's memory until the guest has taken it, and no one says when
    /// that is: it counts until the next call.
    read: Option<Held>,
}

impl Shelved {
    pub fn new(shelf: Arc<Shelf>, capability: Arc<str>) -> Self {
        Self {
            shelf,
            capability,
            opened: false,
            read: None,
        }
    }

    fn bucket(&self, identifier: &str) -> Option<Bucket> {
        let Shelf {
            state,
            stem,
            quotas,
            buckets,
        } = &*self.shelf;
        let (name, access) = buckets.get(&self.capability)?.access(identifier)?;
        let (place, quota) = match name {
            INDEX => (format!("worker/{stem}/{INDEX}"), quotas.index?),
            OWN => (format!("worker/{stem}/{OWN}"), quotas.storage),
            shared => (format!("shared/{shared}"), quotas.storage),
        };
        Some(state.bucket(place, (access == Access::Write).then_some(quota)))
    }
}

/// The outer error ends the invocation, the inner one is the guest's to handle.
type Told<T> = wasmtime::Result<Result<T, Error>>;

impl Guest {
    /// A call on a bucket begins: what it hands over is counted, what it was handed before is its own.
    fn call(&mut self, bucket: &Resource<Bucket>, bytes: usize) -> wasmtime::Result<Bucket> {
        self.handed.hand(bytes)?;
        self.forget();
        Ok(self.ctx().table.get(bucket)?.clone())
    }

    fn forget(&mut self) {
        if let Some(shelved) = &mut self.keyvalue {
            shelved.read = None;
        }
    }

    /// Hands over what was read, so many bytes.
    fn hand_over<T>(
        &mut self,
        read: Result<T, StateError>,
        bytes: impl FnOnce(&T) -> usize,
    ) -> Told<T> {
        match read {
            Ok(read) => {
                let held = self.meter.hold(bytes(&read) as u64)?;
                if let Some(shelved) = &mut self.keyvalue {
                    shelved.read = Some(held);
                }
                Ok(Ok(read))
            }
            Err(error) => self.refuse(error).map(Err),
        }
    }

    fn refuse(&self, error: StateError) -> wasmtime::Result<Error> {
        match error {
            StateError::Quota => Err(Stop::Storage.into()),
            StateError::ReadOnly => Ok(Error::AccessDenied),
            StateError::Refused(why) => Ok(Error::Other(why.to_owned())),
            StateError::Held { .. } | StateError::Failed(_) => {
                tracing::error!(worker = %self.worker, request_id = %self.request, "{error}");
                Ok(Error::Other("the host's state is not available".to_owned()))
            }
        }
    }

    fn told<T>(&self, done: Result<T, StateError>) -> Told<T> {
        match done {
            Ok(done) => Ok(Ok(done)),
            Err(error) => self.refuse(error).map(Err),
        }
    }
}

impl store::Host for Guest {
    async fn open(&mut self, identifier: String) -> Told<Resource<Bucket>> {
        self.handed.hand(identifier.len())?;
        let Some(shelved) = &mut self.keyvalue else {
            return Ok(Err(Error::AccessDenied));
        };
        let Some(bucket) = shelved.bucket(&identifier) else {
            return Ok(Err(Error::AccessDenied));
        };
        let state = shelved.shelf.state.clone();
        if !std::mem::replace(&mut shelved.opened, true) {
            self.meter.charge(HANDLES)?;
        }
        match state.open().await {
            Ok(()) => Ok(Ok(self.ctx().table.push(bucket)?)),
            Err(error) => self.refuse(error).map(Err),
        }
    }
}

impl store::HostBucket for Guest {
    async fn get(&mut self, bucket: Resource<Bucket>, key: String) -> Told<Option<Vec<u8>>> {
        let read = self.call(&bucket, key.len())?.get(key).await;
        self.hand_over(read, |value| value.as_ref().map_or(0, Vec::len))
    }

    async fn set(&mut self, bucket: Resource<Bucket>, key: String, value: Vec<u8>) -> Told<()> {
        let bytes = key.len() + value.len();
        let bucket = self.call(&bucket, bytes)?;
        let _held = self.meter.hold(bytes as u64)?;
        let set = bucket.set(key, value).await;
        self.told(set)
    }

    async fn delete(&mut self, bucket: Resource<Bucket>, key: String) -> Told<()> {
        let deleted = self.call(&bucket, key.len())?.delete(key).await;
        self.told(deleted)
    }

    async fn exists(&mut self, bucket: Resource<Bucket>, key: String) -> Told<bool> {
        let exists = self.call(&bucket, key.len())?.exists(key).await;
        self.told(exists)
    }

    async fn list_keys(
        &mut self,
        bucket: Resource<Bucket>,
        cursor: Option<String>,
    ) -> Told<KeyResponse> {
        let bytes = cursor.as_ref().map_or(0, String::len);
        let page = self.call(&bucket, bytes)?.keys(cursor).await;
        let page = page.map(|page| KeyResponse {
            keys: page.keys,
            cursor: page.cursor,
        });
        self.hand_over(page, |page| {
            page.keys.iter().map(|key| key.len() + ITEM).sum()
        })
    }

    fn drop(&mut self, bucket: Resource<Bucket>) -> wasmtime::Result<()> {
        self.ctx().table.delete(bucket)?;
        Ok(())
    }
}

impl atomics::Host for Guest {
    async fn increment(&mut self, bucket: Resource<Bucket>, key: String, delta: i64) -> Told<i64> {
        let sum = self.call(&bucket, key.len())?.increment(key, delta).await;
        self.told(sum)
    }

    async fn swap(
        &mut self,
        cas: Resource<Cas>,
        value: Vec<u8>,
    ) -> wasmtime::Result<Result<(), CasError>> {
        self.handed.hand(value.len())?;
        self.forget();
        let cas = self.ctx().table.delete(cas)?;
        let _held = self.meter.hold(value.len() as u64)?;
        match cas.swap(value).await {
            Ok(Ok(())) => Ok(Ok(())),
            Ok(Err(again)) => Ok(Err(CasError::CasFailed(self.ctx().table.push(again)?))),
            Err(error) => Ok(Err(CasError::StoreError(self.refuse(error)?))),
        }
    }
}

impl atomics::HostCas for Guest {
    async fn new(&mut self, bucket: Resource<Bucket>, key: String) -> Told<Resource<Cas>> {
        match self.call(&bucket, key.len())?.cas(key).await {
            Ok(cas) => Ok(Ok(self.ctx().table.push(cas)?)),
            Err(error) => self.refuse(error).map(Err),
        }
    }

    async fn current(&mut self, cas: Resource<Cas>) -> Told<Option<Vec<u8>>> {
        self.handed.hand(0)?;
        self.forget();
        let cas = self.ctx().table.get(&cas)?.clone();
        let read = cas.current().await;
        self.hand_over(read, |value| value.as_ref().map_or(0, Vec::len))
    }

    fn drop(&mut self, cas: Resource<Cas>) -> wasmtime::Result<()> {
        self.ctx().table.delete(cas)?;
        Ok(())
    }
}

impl batch::Host for Guest {
    async fn get_many(
        &mut self,
        bucket: Resource<Bucket>,
        keys: Vec<String>,
    ) -> Told<Vec<Option<(String, Vec<u8>)>>> {
        let named = keys.iter().map(|key| key.len() + ITEM).sum();
        let bucket = self.call(&bucket, named)?;
        let _held = self.meter.hold(named as u64)?;
        let read = bucket.get_many(keys.clone()).await.map(|values| {
            let entries = keys.into_iter().zip(values);
            entries
                .map(|(key, value)| Some((key, value?)))
                .collect::<Vec<_>>()
        });
        self.hand_over(read, |entries| {
            let value = |entry: &Option<(_, Vec<u8>)>| entry.as_ref().map_or(0, |(_, v)| v.len());
            named + entries.iter().map(value).sum::<usize>()
        })
    }

    async fn set_many(
        &mut self,
        bucket: Resource<Bucket>,
        entries: Vec<(String, Vec<u8>)>,
    ) -> Told<()> {
        let size = |(key, value): &(String, Vec<u8>)| key.len() + value.len() + ITEM;
        let bytes = entries.iter().map(size).sum();
        let bucket = self.call(&bucket, bytes)?;
        let _held = self.meter.hold(bytes as u64)?;
        let set = bucket.set_many(entries).await;
        self.told(set)
    }

    async fn delete_many(&mut self, bucket: Resource<Bucket>, keys: Vec<String>) -> Told<()> {
        let bytes = keys.iter().map(|key| key.len() + ITEM).sum();
        let bucket = self.call(&bucket, bytes)?;
        let _held = self.meter.hold(bytes as u64)?;
        let deleted = bucket.delete_many(keys).await;
        self.told(deleted)
    }
}
