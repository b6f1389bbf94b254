//! What one invocation has in its /tmp.
//!
//! Everything is charged before it is done, by the most that it can come to, and given back when it
//! has not come to that: the account is never below what is on the disk. Sizes are kept here for what
//! is open; what is closed cannot change, so the disk knows. No clock and no system call, but for one
//! limit of the process that is asked once.

use std::collections::HashMap;
use std::fs::File;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};

use rustix::process::{Resource, getrlimit};

use crate::limits::Stop;

/// What sizes are rounded up to, in bytes: on a disk, one byte takes a block.
pub(super) const BLOCK: u64 = 4096;
/// Files and directories that one invocation may have open. Each is a handle of this process.
const HANDLES: usize = 64;
/// Streams that one invocation may have open: each may hold 64 KiB, and a thread for as long as the
/// disk takes.
const STREAMS: usize = 64;
/// Listings of directories lie in the host's memory. Those that are open at once may have as many
/// entries as this many times the file quota; one alone is always possible.
const LISTINGS: u64 = 4;

/// Handles that all invocations have open together.
static OPEN: AtomicUsize = AtomicUsize::new(0);
/// Half of what the system gives this process: the other half is for connections.
static MOST_OPEN: LazyLock<usize> = LazyLock::new(|| {
    let most = getrlimit(Resource::Nofile).current;
    most.map_or(usize::MAX, |most| {
        usize::try_from(most / 2).unwrap_or(usize::MAX)
    })
});

/// Which file it is, whatever its names: a hash of device and inode.
pub(super) type Key = u64;

/// What the disk says of a file.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts {
    pub key: Key,
    pub kind: Kind,
    /// Bytes.
    pub size: u64,
    /// Names that it has.
    pub links: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    File,
    Directory,
    Other,
}

impl Facts {
    /// The bytes that are charged for it.
    fn charged(&self) -> u64 {
        match self.kind {
            Kind::File => blocks(self.size),
            Kind::Directory | Kind::Other => BLOCK,
        }
    }

    /// Whether it is gone once one of its names is.
    fn last_name(&self) -> bool {
        self.kind == Kind::Directory || self.links <= 1
    }
}

/// A file or directory that is open.
#[derive(Debug)]
struct Node {
    facts: Facts,
    /// Streams that are writing to it now: until they are done, it is no smaller than they will
    /// have made it.
    writing: usize,
    /// It has no name any more, and goes when the last handle is closed.
    orphan: bool,
}

/// The storage account of one invocation.
#[derive(Debug)]
pub(super) struct Account {
    limit: u64,
    files: u64,
    used: u64,
    entries: u64,
    peak: u64,
    nodes: HashMap<Key, Node>,
    handles: Vec<(Key, Weak<File>)>,
    streams: Arc<()>,
    listings: HashMap<u32, u64>,
}

/// The account as the invocation's files and their streams share it. Held for nanoseconds.
pub(super) type Shared = Arc<Mutex<Account>>;

pub(super) fn lock(account: &Shared) -> MutexGuard<'_, Account> {
    account.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Account {
    /// An empty account: bytes, and files, directories and links.
    pub fn new(limit: u64, files: u64) -> Self {
        Self {
            limit,
            files,
            used: 0,
            entries: 0,
            peak: 0,
            nodes: HashMap::new(),
            handles: Vec::new(),
            streams: Arc::new(()),
            listings: HashMap::new(),
        }
    }

    /// The highest number of bytes that were charged at one time.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// Charges bytes and entries.
    pub fn charge(&mut self, bytes: u64, entries: u64) -> Result<(), Stop> {
        let fits = |account: &Self| {
            account.used.saturating_add(bytes) <= account.limit
                && account.entries.saturating_add(entries) <= account.files
        };
        if !fits(self) {
            self.prune();
            if !fits(self) {
                return Err(Stop::Storage);
            }
        }
        self.used += bytes;
        self.entries += entries;
        self.peak = self.peak.max(self.used);
        Ok(())
    }

    /// Gives back what was charged.
    pub fn refund(&mut self, bytes: u64, entries: u64) {
        self.used = self.used.saturating_sub(bytes);
        self.entries = self.entries.saturating_sub(entries);
    }

    /// Whether another handle may be opened.
    pub fn has_handle(&mut self) -> bool {
        self.prune();
        self.handles.len() < HANDLES && OPEN.load(Relaxed) < *MOST_OPEN
    }

    /// A handle was opened, of a file that is charged with the size in `facts`.
    pub fn opened(&mut self, facts: Facts, handle: &Arc<File>) {
        // First, since a file that has gone may have left its number to this one.
        self.prune();
        self.nodes.entry(facts.key).or_insert(Node {
            facts,
            writing: 0,
            orphan: false,
        });
        self.handles.push((facts.key, Arc::downgrade(handle)));
        OPEN.fetch_add(1, Relaxed);
    }

    /// Which file a handle is of.
    pub fn key(&self, handle: &Arc<File>) -> Option<Key> {
        let known =
            |(_, weak): &&(Key, Weak<File>)| std::ptr::eq(weak.as_ptr(), Arc::as_ptr(handle));
        self.handles.iter().find(known).map(|(key, _)| *key)
    }

    /// Charges a file as if it had at least `size` bytes; returns how many it had.
    pub fn grow(&mut self, key: Key, size: u64) -> Result<u64, Stop> {
        // Unknown: it was opened past this account, which must not be.
        let before = self.nodes.get(&key).ok_or(Stop::Storage)?.facts.size;
        if size > before {
            self.charge(blocks(size).saturating_sub(blocks(before)), 0)?;
            if let Some(node) = self.nodes.get_mut(&key) {
                node.facts.size = size;
            }
        }
        Ok(before)
    }

    /// A file has no more than `size` bytes.
    pub fn settle(&mut self, key: Key, size: u64) {
        if let Some(node) = self.nodes.get_mut(&key)
            && node.writing == 0
            && size < node.facts.size
        {
            let less = blocks(node.facts.size) - blocks(size);
            node.facts.size = size;
            self.refund(less, 0);
        }
    }

    /// Charges what a stream is about to write, at a place or at the end; returns the place.
    pub fn write(&mut self, key: Key, at: Option<u64>, len: u64) -> Result<u64, Stop> {
        let at = match at {
            Some(at) => at,
            None => self.nodes.get(&key).ok_or(Stop::Storage)?.facts.size,
        };
        if len > 0 {
            self.grow(key, at.saturating_add(len))?;
        }
        if let Some(node) = self.nodes.get_mut(&key) {
            node.writing += 1;
        }
        Ok(at)
    }

    /// A stream's write has ended.
    pub fn written(&mut self, key: Key) {
        if let Some(node) = self.nodes.get_mut(&key) {
            node.writing = node.writing.saturating_sub(1);
        }
    }

    /// A name was removed, of what the disk said these facts before.
    pub fn removed(&mut self, facts: Facts) {
        if !facts.last_name() {
            return self.refund(0, 1);
        }
        self.prune();
        match self.nodes.get_mut(&facts.key) {
            Some(node) => node.orphan = true,
            None => self.refund(facts.charged(), 1),
        }
    }

    /// A token for one more stream, if there may be one.
    pub fn stream(&self) -> Option<Arc<()>> {
        (Arc::strong_count(&self.streams) <= STREAMS).then(|| self.streams.clone())
    }

    /// Whether another directory may be listed; `more` is what it may have besides what is counted.
    pub fn has_listing(&self, more: u64) -> bool {
        let open: u64 = self.listings.values().sum();
        let all = open.saturating_add(self.entries).saturating_add(more);
        self.listings.is_empty() || all <= self.files.saturating_mul(LISTINGS)
    }

    /// A directory is being listed, by the number of the stream that lists it.
    pub fn listed(&mut self, stream: u32, more: u64) {
        self.listings
            .insert(stream, self.entries.saturating_add(more));
    }

    /// A listing was closed.
    pub fn unlisted(&mut self, stream: u32) {
        self.listings.remove(&stream);
    }

    /// Forgets what is closed, and gives back what went with it.
    fn prune(&mut self) {
        let before = self.handles.len();
        self.handles.retain(|(_, handle)| handle.strong_count() > 0);
        let closed = before - self.handles.len();
        if closed == 0 {
            return;
        }
        OPEN.fetch_sub(closed, Relaxed);
        let handles = &self.handles;
        let mut gone = (0, 0);
        self.nodes.retain(|key, node| {
            let open = handles.iter().any(|(of, _)| of == key);
            if !open && node.orphan {
                gone = (gone.0 + node.facts.charged(), gone.1 + 1);
            }
            open
        });
        self.refund(gone.0, gone.1);
    }
}

impl Drop for Account {
    fn drop(&mut self) {
        OPEN.fetch_sub(self.handles.len(), Relaxed);
    }
}

/// A size in whole blocks.
fn blocks(size: u64) -> u64 {
    size.checked_next_multiple_of(BLOCK).unwrap_or(u64::MAX)
}
