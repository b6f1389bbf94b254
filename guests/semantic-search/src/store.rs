//! The index in the state: blobs that never change, and a manifest that says which of them hold.
//!
//! A search reads the manifest and then what it names; if some of that is gone meanwhile, it begins again.
//! Who writes reserves a number, writes blobs under it, and then changes the manifest by compare-and-swap:
//! before that nobody sees the blobs, and no one's change is lost.

use crank_worker::Failure;
use crank_worker::state::Bucket;
use serde::{Deserialize, Serialize};

use crate::model::Model;
use crate::segment::Segment;

/// The key of the manifest.
const MANIFEST: &str = "manifest";
/// What one call reads or writes at most, in bytes: below the 16 MiB that the state allows.
const BATCH_BYTES: u64 = 12 << 20;
/// Keys of one call, below the 10,000 that the state allows.
const BATCH_KEYS: usize = 5_000;
/// Writers at once. One more pushes out the oldest, which has most likely died.
const MAX_RESERVED: usize = 64;

/// What the index consists of.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Manifest {
    /// The next number for a segment or a model.
    pub next: u64,
    /// Numbers that someone is writing under.
    pub reserved: Vec<Reserved>,
    /// The documents.
    pub segments: Vec<Segment>,
    /// What terms mean; the last is the one for what is written from now on.
    pub models: Vec<Known>,
    /// How many documents there were when a model was last begun.
    pub learnt_from: u64,
}

/// A number that someone is writing under.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Reserved {
    /// The number.
    pub id: u64,
    /// The segments that are being merged.
    pub merging: Vec<u64>,
}

/// A model that is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Known {
    /// Its number.
    pub id: u64,
    /// How long its vectors are.
    pub dimensions: u32,
    /// In how many pieces it is.
    pub shards: u32,
    /// All of it, in bytes.
    pub bytes: u64,
}

impl Known {
    /// What all its keys begin with.
    pub fn prefix(id: u64) -> String {
        format!("model/{id}/")
    }

    /// The key of a piece.
    pub fn key(&self, shard: u32) -> String {
        format!("model/{}/{shard}", self.id)
    }
}

impl Manifest {
    /// How many documents there are.
    pub fn documents(&self) -> u64 {
        self.segments
            .iter()
            .map(|segment| u64::from(segment.live()))
            .sum()
    }

    /// What all of it takes, in bytes.
    pub fn bytes(&self) -> u64 {
        let segments = self.segments.iter().map(|segment| segment.bytes);
        let models = self.models.iter().map(|model| model.bytes);
        segments.chain(models).fold(0, u64::saturating_add)
    }

    /// Takes a number to write under. The second is one whose writer has been pushed out, if any was.
    pub fn reserve(&mut self, merging: Vec<u64>) -> (u64, Option<u64>) {
        let id = self.next;
        self.next += 1;
        self.reserved.push(Reserved { id, merging });
        let dead = (self.reserved.len() > MAX_RESERVED).then(|| self.reserved.remove(0).id);
        (id, dead)
    }

    /// Gives a number back; false if its writer had been pushed out.
    pub fn release(&mut self, id: u64) -> bool {
        let before = self.reserved.len();
        self.reserved.retain(|reserved| reserved.id != id);
        self.reserved.len() < before
    }
}

/// The index as it is kept.
pub struct Index {
    bucket: Bucket,
}

impl Index {
    /// Opens it; it may be empty.
    pub fn open() -> Result<Self, Failure> {
        let bucket = Bucket::open("index")?;
        Ok(Self { bucket })
    }

    /// What it consists of now.
    pub fn manifest(&self) -> Result<Manifest, Failure> {
        read_manifest(self.bucket.get(MANIFEST)?.as_deref())
    }

    /// Changes what it consists of. `change` may be called again, on what others made of it meanwhile; where
    /// it says None, something that the manifest named was gone, which means that there is a newer one.
    pub fn change<T>(
        &self,
        mut change: impl FnMut(&mut Manifest) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        for _ in 0..ATTEMPTS {
            let mut done = None;
            self.bucket.update(MANIFEST, |value| {
                let mut manifest = read_manifest(value.as_deref())?;
                done = change(&mut manifest)?;
                match (&done, value) {
                    (None, Some(value)) => Ok(value),
                    _ => postcard::to_allocvec(&manifest).map_err(damaged),
                }
            })?;
            if let Some(done) = done {
                return Ok(done);
            }
        }
        Err(moving())
    }

    /// Reads the index until nothing was gone while it was read.
    pub fn steady<T>(
        &self,
        mut read: impl FnMut(&Manifest) -> Result<Option<T>, Failure>,
    ) -> Result<T, Failure> {
        for _ in 0..ATTEMPTS {
            if let Some(read) = read(&self.manifest()?)? {
                return Ok(read);
            }
        }
        Err(moving())
    }

    /// A blob; none if it is gone.
    pub fn get(&self, key: &str) -> Result<Option<Vec<u8>>, Failure> {
        self.bucket.get(key)
    }

    /// Blobs that together have at most so many bytes, in as few calls as may be.
    pub fn get_all(&self, keys: &[String], bytes: u64) -> Result<Vec<Option<Vec<u8>>>, Failure> {
        let batch = if bytes <= BATCH_BYTES { BATCH_KEYS } else { 1 };
        let mut blobs = Vec::with_capacity(keys.len());
        for keys in keys.chunks(batch) {
            match keys {
                [key] => blobs.push(self.bucket.get(key)?),
                keys => blobs.extend(self.bucket.get_many(keys)?),
            }
        }
        Ok(blobs)
    }

    /// Writes blobs.
    pub fn put(&self, mut blobs: Vec<(String, Vec<u8>)>) -> Result<(), Failure> {
        while !blobs.is_empty() {
            let mut bytes = 0;
            let fitting = blobs.iter().take(BATCH_KEYS).take_while(|(_, blob)| {
                let before = bytes;
                bytes += blob.len() as u64;
                before == 0 || bytes <= BATCH_BYTES
            });
            let rest = blobs.split_off(fitting.count());
            self.bucket.set_many(&blobs)?;
            blobs = rest;
        }
        Ok(())
    }

    /// Deletes everything whose key begins so.
    pub fn remove(&self, prefix: &str) -> Result<(), Failure> {
        let keys: Vec<String> = self.bucket.keys(prefix).collect::<Result<_, _>>()?;
        for keys in keys.chunks(BATCH_KEYS) {
            self.bucket.delete_many(keys)?;
        }
        Ok(())
    }

    /// Deletes one blob.
    pub fn remove_one(&self, key: &str) -> Result<(), Failure> {
        self.bucket.delete(key)
    }

    /// Takes a number to write under.
    pub fn reserve(&self) -> Result<u64, Failure> {
        let (id, dead) = self.change(|manifest| Ok(Some(manifest.reserve(Vec::new()))))?;
        self.forget(dead)?;
        Ok(id)
    }

    /// Removes what someone left who has been pushed out.
    pub fn forget(&self, dead: Option<u64>) -> Result<(), Failure> {
        if let Some(dead) = dead {
            self.remove(&Segment::prefix(dead))?;
            self.remove(&Known::prefix(dead))?;
        }
        Ok(())
    }

    /// Gives up what was being written under a number.
    pub fn abandon(&self, id: u64) -> Result<(), Failure> {
        self.forget(Some(id))?;
        self.change(|manifest| Ok(Some(manifest.release(id))))?;
        Ok(())
    }

    /// The whole of a model. None if it is gone.
    pub fn model(&self, known: &Known) -> Result<Option<Model>, Failure> {
        let keys: Vec<String> = (0..known.shards).map(|shard| known.key(shard)).collect();
        self.read_model(known, &keys, |_| true)
    }

    /// Of a model the terms that are wanted, from these of its pieces. None if it is gone.
    pub fn read_model(
        &self,
        known: &Known,
        keys: &[String],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<Model>, Failure> {
        let mut model = Model::empty(known.dimensions as usize);
        for blob in self.get_all(keys, known.bytes)? {
            let Some(blob) = blob else {
                return Ok(None);
            };
            model.read(&blob, &wanted).map_err(damaged)?;
        }
        Ok(Some(model))
    }
}

/// How often it is tried to read what others rewrite.
const ATTEMPTS: usize = 10;

fn moving() -> Failure {
    let after = std::time::Duration::from_millis(200);
    Failure::unavailable(
        after,
        "the index changes faster than it can be read; try again",
    )
}

fn read_manifest(value: Option<&[u8]>) -> Result<Manifest, Failure> {
    value.map_or_else(
        || Ok(Manifest::default()),
        |value| postcard::from_bytes(value).map_err(damaged),
    )
}

/// What is kept is not what was written.
pub fn damaged(error: postcard::Error) -> Failure {
    Failure::failed(format!(
        "the index cannot be read: {error}; index the documents anew"
    ))
    .code("index-damaged")
}
