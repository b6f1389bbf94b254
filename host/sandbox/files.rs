//! A guest's files: a private `/tmp` with a quota, and a directory of models to read.
//!
//! Paths are wasmtime-wasi's: every operation goes through it, below a directory that no path leaves
//! (cap-std). What is added here is the account of what is written. Where nothing is preopened, none
//! of this can be reached.

mod account;
mod calls;
mod streams;

use std::fmt;
use std::fs::File;
use std::path::Path;
use std::sync::{Arc, Mutex};

use wasmtime::component::{HasData, Resource, ResourceTable};
use wasmtime_wasi::filesystem::{Descriptor, Dir, WasiFilesystemCtx, WasiFilesystemCtxView};
use wasmtime_wasi::p2::FsResult;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    DescriptorStat, DescriptorType, ErrorCode, HostDescriptor, PathFlags,
};
use wasmtime_wasi::{FsPerms, OpenMode};

use crate::limits::Limits;
use crate::tmp::{Scratch, Spool};
use account::{Account, Facts, Key, Kind, Shared, lock};

/// Where a worker's files come from.
#[derive(Clone)]
pub struct Source {
    /// Makes its /tmp.
    pub spool: Arc<Spool>,
    /// Its models.
    pub models: Option<Models>,
}

/// A directory that a worker may read.
#[derive(Clone)]
pub struct Models {
    dir: Dir,
    entries: u64,
}

impl Models {
    /// Opens the directory; `entries` is how many files and directories are in it.
    ///
    /// # Errors
    ///
    /// It cannot be opened.
    pub fn open(path: &Path, entries: u64) -> std::io::Result<Self> {
        let dir = File::open(path)?;
        Ok(Self {
            dir: Dir::new(dir, FsPerms::ReadOnly, OpenMode::READ, false),
            entries,
        })
    }
}

/// The files of one invocation.
pub(crate) struct Files {
    source: Option<Source>,
    account: Shared,
    quota: u64,
    tmp: Option<(Scratch, Dir)>,
    ctx: WasiFilesystemCtx,
}

impl Files {
    /// Without a source, nothing is preopened. Nothing is made before the guest asks.
    pub fn new(source: Option<Source>, limits: &Limits) -> Self {
        Self {
            source,
            account: Arc::new(Mutex::new(Account::new(limits.storage, limits.files))),
            quota: limits.storage,
            tmp: None,
            ctx: WasiFilesystemCtx::default(),
        }
    }

    /// The highest number of bytes that lay in /tmp.
    pub fn peak(&self) -> u64 {
        lock(&self.account).peak()
    }

    /// Leaves what is still open to the thread that removes /tmp, if there is one.
    pub fn close(&mut self, table: ResourceTable) {
        if let Some((scratch, dir)) = self.tmp.take() {
            let mut scratch = scratch;
            scratch.close((table, dir));
        }
    }

    async fn tmp(&mut self) -> wasmtime::Result<Option<Dir>> {
        if let Some((_, dir)) = &self.tmp {
            return Ok(Some(dir.clone()));
        }
        let Some(source) = self.source.as_ref().filter(|_| self.quota > 0) else {
            return Ok(None);
        };
        let spool = source.spool.clone();
        // Dropped half-way, the directory goes as any other does.
        let made = tokio::task::spawn_blocking(move || spool.make()).await;
        let (scratch, dir) = made
            .map_err(std::io::Error::from)
            .flatten()
            .map_err(|error| wasmtime::Error::from(NoTmp(error.to_string())))?;
        let dir = Dir::new(
            dir,
            FsPerms::ReadWrite,
            OpenMode::READ | OpenMode::WRITE,
            false,
        );
        self.tmp = Some((scratch, dir.clone()));
        Ok(Some(dir))
    }
}

/// The host could not make a /tmp, and why: nothing that the guest has done.
#[derive(Debug)]
pub(super) struct NoTmp(String);

impl fmt::Display for NoTmp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "no directory for /tmp can be made: {}", self.0)
    }
}

impl std::error::Error for NoTmp {}

/// Files and resource table, as the data of the host functions of `wasi:filesystem`.
pub(crate) struct FilesView<'a> {
    files: &'a mut Files,
    table: &'a mut ResourceTable,
}

/// Names [`FilesView`] to the linker.
pub(super) struct HasFiles;

impl HasData for HasFiles {
    type Data<'a> = FilesView<'a>;
}

impl<'a> FilesView<'a> {
    pub fn new(files: &'a mut Files, table: &'a mut ResourceTable) -> Self {
        Self { files, table }
    }

    /// What is open from the start, and under which names.
    pub async fn preopens(&mut self) -> wasmtime::Result<Vec<(Resource<Descriptor>, String)>> {
        let tmp = self.files.tmp().await?;
        let models = self
            .files
            .source
            .as_ref()
            .and_then(|source| source.models.as_ref());
        let models = models.map(|models| models.dir.clone());
        let mut preopens = Vec::new();
        for (dir, name) in [(tmp, "/tmp"), (models, "/models")] {
            if let Some(dir) = dir {
                preopens.push((self.table.push(Descriptor::Dir(dir))?, name.to_owned()));
            }
        }
        Ok(preopens)
    }

    /// The same, as wasmtime-wasi has it.
    fn wasi(&mut self) -> WasiFilesystemCtxView<'_> {
        WasiFilesystemCtxView {
            ctx: &mut self.files.ctx,
            table: self.table,
        }
    }

    /// Whether what is done through a descriptor is counted: models cannot be written.
    fn is_counted(&self, fd: &Resource<Descriptor>) -> FsResult<bool> {
        let perms = match self.table.get(fd)? {
            Descriptor::File(file) => file.perms,
            Descriptor::Dir(dir) => dir.perms,
        };
        Ok(perms == FsPerms::ReadWrite)
    }

    /// The file that a descriptor writes to. `Err`: as wasmtime-wasi says, it writes to none.
    fn file(&self, fd: &Resource<Descriptor>) -> FsResult<(Arc<File>, Key)> {
        match self.table.get(fd)? {
            Descriptor::Dir(_) => Err(ErrorCode::BadDescriptor.into()),
            Descriptor::File(file) if file.perms.write_not_permitted() => {
                Err(ErrorCode::NotPermitted.into())
            }
            Descriptor::File(file) => {
                let key = lock(&self.files.account).key(&file.file);
                // Every file of /tmp is opened here, so that there is none without.
                let key = key.ok_or(ErrorCode::BadDescriptor)?;
                Ok((file.file.clone(), key))
            }
        }
    }

    /// What the disk says of an open file or directory.
    async fn facts(&mut self, fd: &Resource<Descriptor>) -> FsResult<Facts> {
        let stat = self.wasi().stat(again(fd)).await?;
        let hash = self.wasi().metadata_hash(again(fd)).await?;
        Ok(Facts::new(&stat, hash.lower))
    }

    /// What the disk says of a name, if it is there. The name and not what a link leads to: that is
    /// what an operation on names acts on.
    async fn facts_at(&mut self, fd: &Resource<Descriptor>, path: &str) -> Option<Facts> {
        // With a slash at its end, a link would be followed.
        let path = path.trim_end_matches('/').to_owned();
        let flags = PathFlags::empty();
        let stat = self.wasi().stat_at(again(fd), flags, path.clone()).await;
        let stat = stat.ok()?;
        let hash = self.wasi().metadata_hash_at(again(fd), flags, path).await;
        Some(Facts::new(&stat, hash.ok()?.lower))
    }
}

impl Facts {
    fn new(stat: &DescriptorStat, key: Key) -> Self {
        Self {
            key,
            kind: match stat.type_ {
                DescriptorType::RegularFile => Kind::File,
                DescriptorType::Directory => Kind::Directory,
                _ => Kind::Other,
            },
            size: stat.size,
            links: stat.link_count,
        }
    }
}

/// The same resource: each call takes its own.
fn again<T: 'static>(resource: &Resource<T>) -> Resource<T> {
    Resource::new_borrow(resource.rep())
}
