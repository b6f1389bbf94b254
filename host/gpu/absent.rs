//! The face of this room in a build without the feature `gpu`: no GPU is ever found, so none of these can be
//! had, and nothing of them can be called. What they are made of is private, or the compiler would call whatever
//! follows a use of them unreachable.

use super::{Dispatch, Error, Found, Paid, Ran, Run};
use crate::limits::Held;

/// A GPU: there is none.
#[derive(Clone)]
pub struct Adapter {
    /// What it is.
    pub found: Found,
    never: Never,
}

#[derive(Clone, Copy)]
enum Never {}

impl Adapter {
    /// None.
    pub fn find() -> Vec<Self> {
        Vec::new()
    }
}

/// A worker's device.
#[derive(Clone)]
pub struct Device(Never);

/// A shader.
#[derive(Clone)]
pub struct Pipeline(Never);

/// What a guest holds of a GPU's memory.
pub struct Buffer(Never);

/// Memory of a GPU.
#[derive(Clone)]
pub struct Memory(Never);

/// How a device is opened.
#[derive(Clone, Copy)]
pub struct Settings;

impl Settings {
    /// For a worker that may keep so many bytes.
    pub fn new(_kept: u64) -> Self {
        Self
    }
}

/// Reads no shader.
///
/// # Errors
///
/// Always.
pub fn read(_wgsl: &str, _entry: &str) -> Result<(), String> {
    Err(super::NONE.to_owned())
}

impl Buffer {
    /// What it names.
    pub fn memory(&self) -> Memory {
        match self.0 {}
    }
}

#[expect(missing_docs, clippy::missing_errors_doc, reason = "see `device`")]
impl Device {
    pub async fn open(adapter: &Adapter, _settings: Settings) -> Result<Self, Error> {
        match adapter.never {}
    }

    pub fn is_lost(&self) -> bool {
        match self.0 {}
    }

    pub fn lose(&self) {
        match self.0 {}
    }

    pub async fn alive<T>(&self, _wait: impl Future<Output = T>) -> Result<T, Error> {
        match self.0 {}
    }

    pub fn compiled(&self, _wgsl: &str, _entry: &str) -> Option<Pipeline> {
        match self.0 {}
    }

    pub async fn turn(&self) -> Result<(), Error> {
        match self.0 {}
    }

    pub async fn compile(
        &self,
        _turn: (),
        _wgsl: String,
        _entry: String,
    ) -> Result<Pipeline, Error> {
        match self.0 {}
    }

    pub fn work(&self, _dispatches: &[Dispatch]) -> u64 {
        match self.0 {}
    }

    pub async fn run(&self, _run: Run) -> Result<Ran, Error> {
        match self.0 {}
    }

    pub async fn buffer(&self, _size: u64, _paid: Paid) -> Result<Buffer, Error> {
        match self.0 {}
    }

    pub async fn write(
        &self,
        _to: Memory,
        _offset: u64,
        _bytes: Vec<u8>,
        _held: Held,
    ) -> Result<(), Error> {
        match self.0 {}
    }

    pub fn kept(&self, _hash: &[u8; 32]) -> Option<Buffer> {
        match self.0 {}
    }

    pub async fn keep(&self, _bytes: Vec<u8>, _paid: Paid, _held: Held) -> Result<Buffer, Error> {
        match self.0 {}
    }
}
