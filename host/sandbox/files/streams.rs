//! Streams into and out of files.
//!
//! What is written is charged when it is handed over, before a thread takes it to the disk, and no
//! stream has more than one write under way: none escapes the account.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

use bytes::Bytes;
use wasmtime_wasi::async_trait;
use wasmtime_wasi::p2::{
    DynInputStream, InputStream, OutputStream, Pollable, StreamError, StreamResult,
};
use wasmtime_wasi::runtime::{AbortOnDropJoinHandle, spawn_blocking};

use super::account::{Key, Shared, lock};

/// What one write may hand over, in bytes: as much as wasmtime-wasi's own streams take.
const CHUNK: usize = 64 << 10;

/// A stream into a file.
pub(super) struct Output {
    file: Arc<File>,
    key: Key,
    account: Shared,
    /// Where the next byte goes; `None`: to the end, wherever that is then.
    at: Option<u64>,
    state: State,
    _token: Arc<()>,
}

enum State {
    Ready,
    Writing(AbortOnDropJoinHandle<io::Result<()>>),
    Failed(io::Error),
    Closed,
}

impl Output {
    pub fn new(
        file: Arc<File>,
        key: Key,
        account: Shared,
        at: Option<u64>,
        token: Arc<()>,
    ) -> Self {
        Self {
            file,
            key,
            account,
            at,
            state: State::Ready,
            _token: token,
        }
    }

    /// The error that the last write met, once.
    fn error(&mut self) -> StreamError {
        match std::mem::replace(&mut self.state, State::Closed) {
            State::Failed(error) => StreamError::LastOperationFailed(error.into()),
            _ => StreamError::Closed,
        }
    }
}

#[async_trait]
impl Pollable for Output {
    async fn ready(&mut self) {
        if let State::Writing(task) = &mut self.state {
            self.state = match task.await {
                Ok(()) => State::Ready,
                Err(error) => State::Failed(error),
            };
        }
    }
}

#[async_trait]
impl OutputStream for Output {
    fn write(&mut self, bytes: Bytes) -> StreamResult<()> {
        match self.state {
            State::Ready => {}
            State::Closed => return Err(StreamError::Closed),
            State::Writing(_) | State::Failed(_) => {
                return Err(StreamError::trap(
                    "a write without the leave of check-write",
                ));
            }
        }
        let len = bytes.len() as u64;
        let at = lock(&self.account)
            .write(self.key, self.at, len)
            .map_err(|stop| StreamError::Trap(stop.into()))?;
        if let Some(at) = &mut self.at {
            *at = at.saturating_add(len);
        }
        let under_way = UnderWay {
            key: self.key,
            account: self.account.clone(),
            file: self.file.clone(),
        };
        self.state = State::Writing(spawn_blocking(move || {
            under_way.file.write_all_at(&bytes, at)
        }));
        Ok(())
    }

    fn flush(&mut self) -> StreamResult<()> {
        match self.state {
            State::Ready | State::Writing(_) => Ok(()),
            State::Failed(_) | State::Closed => Err(self.error()),
        }
    }

    fn check_write(&mut self) -> StreamResult<usize> {
        match self.state {
            State::Ready => Ok(CHUNK),
            State::Writing(_) => Ok(0),
            State::Failed(_) | State::Closed => Err(self.error()),
        }
    }

    async fn cancel(&mut self) {
        // Waits for a write that has begun, so that a guest cannot heap them up.
        if let State::Writing(task) = std::mem::replace(&mut self.state, State::Closed) {
            task.cancel().await;
        }
    }
}

/// A write that is on its way to the disk, also one that never gets there.
struct UnderWay {
    key: Key,
    account: Shared,
    /// Closed after the account has heard of the end: until then the key is this file's.
    file: Arc<File>,
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        lock(&self.account).written(self.key);
    }
}

/// A stream out of a file, wasmtime-wasi's own, with the token that counts it.
pub(super) struct Input {
    pub stream: DynInputStream,
    pub _token: Arc<()>,
}

#[async_trait]
impl Pollable for Input {
    async fn ready(&mut self) {
        self.stream.ready().await;
    }
}

#[async_trait]
impl InputStream for Input {
    fn read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream.read(size)
    }

    async fn blocking_read(&mut self, size: usize) -> StreamResult<Bytes> {
        self.stream.blocking_read(size).await
    }

    async fn cancel(&mut self) {
        self.stream.cancel().await;
    }
}
