//! Memory on a device, and what a worker keeps there.

use sha2::{Digest, Sha256};
use wgpu::BufferUsages;

use super::account::{Backing, Own};
use super::device::{Opened, invalid, locked};
use super::{Device, Error, Paid};
use crate::limits::Held;

/// What a guest holds: its invocation pays for it until this is dropped, unless an earlier one kept it.
pub struct Buffer {
    memory: Memory,
    _own: Option<Own>,
}

/// Memory of the GPU. A clone is another handle to the same.
#[derive(Clone)]
pub struct Memory {
    pub(super) buffer: wgpu::Buffer,
    /// It outlives the invocation, and is never written again.
    pub(super) kept: bool,
    pub(super) backing: Backing,
}

impl Buffer {
    /// What it names.
    pub fn memory(&self) -> Memory {
        self.memory.clone()
    }
}

impl Memory {
    fn size(&self) -> u64 {
        self.buffer.size()
    }

    /// Whether so many bytes at an offset can be: inside, and whole words.
    pub(super) fn part(&self, offset: u64, size: u64) -> Result<(), Error> {
        let end = offset
            .checked_add(size)
            .filter(|&end| end <= self.size() && offset < self.size());
        if end.is_none() || !offset.is_multiple_of(4) || !size.is_multiple_of(4) {
            return Err(invalid(format!(
                "{size} bytes at {offset} of a buffer of {}: both must be multiples of 4, and lie inside",
                self.size()
            )));
        }
        Ok(())
    }
}

impl Device {
    /// Memory that is all zeroes.
    ///
    /// # Errors
    ///
    /// The size is not possible, or the GPU has no more.
    pub async fn buffer(&self, size: u64, paid: Paid) -> Result<Buffer, Error> {
        self.ask(move |opened| {
            Ok(Buffer {
                memory: opened.memory(size, paid.backing)?,
                _own: Some(paid.own),
            })
        })
        .await
    }

    /// Fills a part of a buffer. The bytes are on their way when this ends; they are charged until they have
    /// arrived.
    ///
    /// # Errors
    ///
    /// It does not fit, or the buffer is kept.
    pub async fn write(
        &self,
        to: Memory,
        offset: u64,
        bytes: Vec<u8>,
        held: Held,
    ) -> Result<(), Error> {
        self.ask(move |opened| {
            if to.kept {
                return Err(invalid("a kept buffer is never written again"));
            }
            opened.write(&to, offset, &bytes, held)
        })
        .await
    }

    /// A buffer that this worker kept before.
    pub fn kept(&self, hash: &[u8; 32]) -> Option<Buffer> {
        self.0.kept(hash)
    }

    /// Keeps bytes on the GPU between invocations; found again by their SHA-256.
    ///
    /// # Errors
    ///
    /// As for [`Device::buffer`].
    pub async fn keep(&self, bytes: Vec<u8>, paid: Paid, held: Held) -> Result<Buffer, Error> {
        self.ask(move |opened| opened.keep(&bytes, paid, held))
            .await
    }
}

impl Opened {
    fn memory(&self, size: u64, backing: Backing) -> Result<Memory, Error> {
        if size == 0 || !size.is_multiple_of(4) || size > self.found.max_buffer {
            return Err(invalid(format!(
                "a buffer of {size} bytes; it must be a multiple of 4, and at most {}",
                self.found.max_buffer
            )));
        }
        let usage = BufferUsages::STORAGE
            | BufferUsages::UNIFORM
            | BufferUsages::COPY_SRC
            | BufferUsages::COPY_DST;
        Ok(Memory {
            buffer: self.scoped(|| self.plain(size, usage))?,
            kept: false,
            backing,
        })
    }

    fn write(&self, to: &Memory, offset: u64, bytes: &[u8], held: Held) -> Result<(), Error> {
        to.part(offset, bytes.len() as u64)?;
        let submission = self.scoped(|| {
            self.queue.write_buffer(&to.buffer, offset, bytes);
            // What waits for the next run takes memory of the host until then.
            self.queue.submit([])
        })?;
        self.after(submission, (to.backing.clone(), held));
        Ok(())
    }

    fn kept(&self, hash: &[u8; 32]) -> Option<Buffer> {
        Some(Buffer {
            memory: locked(&self.kept).get(hash)?,
            _own: None,
        })
    }

    fn keep(&self, bytes: &[u8], paid: Paid, held: Held) -> Result<Buffer, Error> {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(buffer) = self.kept(&hash) {
            return Ok(buffer);
        }
        let mut memory = self.memory(bytes.len() as u64, paid.backing)?;
        self.write(&memory, 0, bytes, held)?;
        memory.kept = true;
        let kept = Memory {
            backing: memory.backing.without_account(),
            ..memory.clone()
        };
        locked(&self.kept).insert(hash, kept, bytes.len() as u64);
        Ok(Buffer {
            memory,
            _own: Some(paid.own),
        })
    }
}
