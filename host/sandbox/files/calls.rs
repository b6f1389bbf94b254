//! The host functions of `wasi:filesystem/types`.
//!
//! What writes is charged, then done by wasmtime-wasi, then settled; what reads is wasmtime-wasi's.

use wasmtime::component::Resource;
use wasmtime_wasi::filesystem::Descriptor;
use wasmtime_wasi::p2::bindings::filesystem::types::{
    self, Advice, DescriptorFlags, DescriptorStat, DescriptorType, DirectoryEntry,
    DirectoryEntryStream, ErrorCode, Filesize, HostDescriptor, HostDirectoryEntryStream,
    MetadataHashValue, NewTimestamp, OpenFlags, PathFlags,
};
use wasmtime_wasi::p2::{DynInputStream, DynOutputStream, FsError, FsResult};

use super::account::{Account, BLOCK, Facts, Kind, lock};
use super::streams::{Input, Output};
use super::{FilesView, again};
use crate::limits::Stop;

impl FilesView<'_> {
    /// Changes the account, or ends the invocation.
    fn account<T>(&self, change: impl FnOnce(&mut Account) -> Result<T, Stop>) -> FsResult<T> {
        change(&mut lock(&self.files.account)).map_err(FsError::trap)
    }

    /// Takes back what was charged for an operation that was not done.
    fn settle_entry<T>(&self, done: FsResult<T>, bytes: u64) -> FsResult<T> {
        if done.is_err() {
            lock(&self.files.account).refund(bytes, 1);
        }
        done
    }

    fn settle_removal(&self, done: FsResult<()>, facts: Option<Facts>) -> FsResult<()> {
        if let (Ok(()), Some(facts)) = (&done, facts) {
            lock(&self.files.account).removed(facts);
        }
        done
    }

    fn output(
        &mut self,
        fd: &Resource<Descriptor>,
        at: Option<Filesize>,
    ) -> FsResult<Resource<DynOutputStream>> {
        let (file, key) = self.file(fd)?;
        let account = self.files.account.clone();
        let token = lock(&account)
            .stream()
            .ok_or(ErrorCode::InsufficientMemory)?;
        let stream: DynOutputStream = Box::new(Output::new(file, key, account, at, token));
        Ok(self.table.push(stream)?)
    }
}

impl types::Host for FilesView<'_> {
    fn convert_error_code(&mut self, error: FsError) -> wasmtime::Result<ErrorCode> {
        error.downcast()
    }

    fn filesystem_error_code(
        &mut self,
        error: Resource<wasmtime::Error>,
    ) -> wasmtime::Result<Option<ErrorCode>> {
        self.wasi().filesystem_error_code(error)
    }
}

impl HostDescriptor for FilesView<'_> {
    async fn write(
        &mut self,
        fd: Resource<Descriptor>,
        buf: Vec<u8>,
        offset: Filesize,
    ) -> FsResult<Filesize> {
        let (_, key) = self.file(&fd)?;
        // Nothing, however far behind the end, adds nothing.
        if buf.is_empty() {
            return self.wasi().write(fd, buf, offset).await;
        }
        let end = offset.saturating_add(buf.len() as u64);
        let before = self.account(|account| account.grow(key, end))?;
        let written = self.wasi().write(fd, buf, offset).await;
        if written.is_err() {
            lock(&self.files.account).settle(key, before);
        }
        written
    }

    async fn set_size(&mut self, fd: Resource<Descriptor>, size: Filesize) -> FsResult<()> {
        let (_, key) = self.file(&fd)?;
        let before = self.account(|account| account.grow(key, size))?;
        let done = self.wasi().set_size(fd, size).await;
        let now = if done.is_ok() { size } else { before };
        lock(&self.files.account).settle(key, now);
        done
    }

    fn write_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.output(&fd, Some(offset))
    }

    fn append_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
    ) -> FsResult<Resource<DynOutputStream>> {
        self.output(&fd, None)
    }

    fn read_via_stream(
        &mut self,
        fd: Resource<Descriptor>,
        offset: Filesize,
    ) -> FsResult<Resource<DynInputStream>> {
        let token = lock(&self.files.account).stream();
        let token = token.ok_or(ErrorCode::InsufficientMemory)?;
        let stream = self.wasi().read_via_stream(fd, offset)?;
        let stream = self.table.delete(stream)?;
        let stream: DynInputStream = Box::new(Input {
            stream,
            _token: token,
        });
        Ok(self.table.push(stream)?)
    }

    async fn open_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        oflags: OpenFlags,
        flags: DescriptorFlags,
    ) -> FsResult<Resource<Descriptor>> {
        let counted = self.is_counted(&fd)?;
        if !lock(&self.files.account).has_handle() {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        // What is there now: whether there will be one more, and what a truncation frees.
        let truncates = oflags.contains(OpenFlags::TRUNCATE);
        let changes = truncates || oflags.contains(OpenFlags::CREATE);
        let before = match changes && counted {
            true => self
                .wasi()
                .stat_at(again(&fd), path_flags, path.clone())
                .await
                .ok(),
            false => None,
        };
        let creates = counted && oflags.contains(OpenFlags::CREATE) && before.is_none();
        if creates {
            self.account(|account| account.charge(0, 1))?;
        }
        let opened = self
            .wasi()
            .open_at(fd, path_flags, path, oflags, flags)
            .await;
        let opened = if creates {
            self.settle_entry(opened, 0)?
        } else {
            opened?
        };
        let mut facts = self.facts(&opened).await?;
        if let Some(before) = before.filter(|_| truncates) {
            facts.size = before.size;
        }
        let handle = match self.table.get(&opened)? {
            Descriptor::File(file) => &file.file,
            Descriptor::Dir(dir) => &dir.dir,
        };
        let mut account = lock(&self.files.account);
        account.opened(facts, handle);
        if truncates && facts.kind == Kind::File {
            account.settle(facts.key, 0);
        }
        drop(account);
        Ok(opened)
    }

    async fn create_directory_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        if !self.is_counted(&fd)? {
            return self.wasi().create_directory_at(fd, path).await;
        }
        self.account(|account| account.charge(BLOCK, 1))?;
        let done = self.wasi().create_directory_at(fd, path).await;
        self.settle_entry(done, BLOCK)
    }

    async fn symlink_at(
        &mut self,
        fd: Resource<Descriptor>,
        old_path: String,
        new_path: String,
    ) -> FsResult<()> {
        if !self.is_counted(&fd)? {
            return self.wasi().symlink_at(fd, old_path, new_path).await;
        }
        self.account(|account| account.charge(BLOCK, 1))?;
        let done = self.wasi().symlink_at(fd, old_path, new_path).await;
        self.settle_entry(done, BLOCK)
    }

    async fn link_at(
        &mut self,
        fd: Resource<Descriptor>,
        old_path_flags: PathFlags,
        old_path: String,
        new_fd: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        let counted = self.is_counted(&new_fd)?;
        if counted {
            self.account(|account| account.charge(0, 1))?;
        }
        let mut wasi = self.wasi();
        let done = wasi
            .link_at(fd, old_path_flags, old_path, new_fd, new_path)
            .await;
        if counted {
            self.settle_entry(done, 0)
        } else {
            done
        }
    }

    async fn rename_at(
        &mut self,
        fd: Resource<Descriptor>,
        old_path: String,
        new_fd: Resource<Descriptor>,
        new_path: String,
    ) -> FsResult<()> {
        names_an_entry(&old_path)?;
        names_an_entry(&new_path)?;
        let mut replaced = self.facts_at(&new_fd, &new_path).await;
        if let Some(target) = replaced {
            // Two names of the same file: nothing happens, says POSIX.
            let moved = self.facts_at(&fd, &old_path).await;
            replaced = replaced.filter(|_| moved.is_none_or(|moved| moved.key != target.key));
        }
        let done = self.wasi().rename_at(fd, old_path, new_fd, new_path).await;
        self.settle_removal(done, replaced)
    }

    async fn unlink_file_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<()> {
        names_an_entry(&path)?;
        let facts = self.facts_at(&fd, &path).await;
        let done = self.wasi().unlink_file_at(fd, path).await;
        self.settle_removal(done, facts)
    }

    async fn remove_directory_at(
        &mut self,
        fd: Resource<Descriptor>,
        path: String,
    ) -> FsResult<()> {
        names_an_entry(&path)?;
        let facts = self.facts_at(&fd, &path).await;
        let done = self.wasi().remove_directory_at(fd, path).await;
        self.settle_removal(done, facts)
    }

    async fn read_directory(
        &mut self,
        fd: Resource<Descriptor>,
    ) -> FsResult<Resource<DirectoryEntryStream>> {
        let models = self
            .files
            .source
            .as_ref()
            .and_then(|source| source.models.as_ref());
        let more = match self.is_counted(&fd)? {
            true => 0,
            false => models.map_or(0, |models| models.entries),
        };
        if !lock(&self.files.account).has_listing(more) {
            return Err(ErrorCode::InsufficientMemory.into());
        }
        let stream = self.wasi().read_directory(fd).await?;
        lock(&self.files.account).listed(stream.rep(), more);
        Ok(stream)
    }

    /// Nothing here outlives the invocation, so nobody has to wait for a disk; nor may a guest make
    /// its neighbours wait for one.
    async fn sync(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.table.get(&fd)?;
        Ok(())
    }

    async fn sync_data(&mut self, fd: Resource<Descriptor>) -> FsResult<()> {
        self.table.get(&fd)?;
        Ok(())
    }

    async fn advise(
        &mut self,
        fd: Resource<Descriptor>,
        offset: Filesize,
        len: Filesize,
        advice: Advice,
    ) -> FsResult<()> {
        self.wasi().advise(fd, offset, len, advice).await
    }

    async fn get_flags(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorFlags> {
        self.wasi().get_flags(fd).await
    }

    async fn get_type(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorType> {
        self.wasi().get_type(fd).await
    }

    async fn set_times(
        &mut self,
        fd: Resource<Descriptor>,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        self.wasi().set_times(fd, accessed, modified).await
    }

    async fn read(
        &mut self,
        fd: Resource<Descriptor>,
        len: Filesize,
        offset: Filesize,
    ) -> FsResult<(Vec<u8>, bool)> {
        self.wasi().read(fd, len, offset).await
    }

    async fn stat(&mut self, fd: Resource<Descriptor>) -> FsResult<DescriptorStat> {
        self.wasi().stat(fd).await
    }

    async fn stat_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
    ) -> FsResult<DescriptorStat> {
        self.wasi().stat_at(fd, path_flags, path).await
    }

    async fn set_times_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
        accessed: NewTimestamp,
        modified: NewTimestamp,
    ) -> FsResult<()> {
        let mut wasi = self.wasi();
        wasi.set_times_at(fd, path_flags, path, accessed, modified)
            .await
    }

    async fn readlink_at(&mut self, fd: Resource<Descriptor>, path: String) -> FsResult<String> {
        self.wasi().readlink_at(fd, path).await
    }

    async fn is_same_object(
        &mut self,
        a: Resource<Descriptor>,
        b: Resource<Descriptor>,
    ) -> wasmtime::Result<bool> {
        self.wasi().is_same_object(a, b).await
    }

    async fn metadata_hash(&mut self, fd: Resource<Descriptor>) -> FsResult<MetadataHashValue> {
        self.wasi().metadata_hash(fd).await
    }

    async fn metadata_hash_at(
        &mut self,
        fd: Resource<Descriptor>,
        path_flags: PathFlags,
        path: String,
    ) -> FsResult<MetadataHashValue> {
        self.wasi().metadata_hash_at(fd, path_flags, path).await
    }

    fn drop(&mut self, fd: Resource<Descriptor>) -> wasmtime::Result<()> {
        HostDescriptor::drop(&mut self.wasi(), fd)
    }
}

impl HostDirectoryEntryStream for FilesView<'_> {
    async fn read_directory_entry(
        &mut self,
        stream: Resource<DirectoryEntryStream>,
    ) -> FsResult<Option<DirectoryEntry>> {
        self.wasi().read_directory_entry(stream).await
    }

    fn drop(&mut self, stream: Resource<DirectoryEntryStream>) -> wasmtime::Result<()> {
        let number = stream.rep();
        HostDirectoryEntryStream::drop(&mut self.wasi(), stream)?;
        lock(&self.files.account).unlisted(number);
        Ok(())
    }
}

/// Refuses paths whose last part is no name: what they remove or replace is not what they say.
fn names_an_entry(path: &str) -> FsResult<()> {
    let path = path.trim_end_matches('/');
    match path.rsplit('/').next() {
        None | Some("" | "." | "..") => Err(ErrorCode::Invalid.into()),
        Some(_) => Ok(()),
    }
}
