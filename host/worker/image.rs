//! A worker's init snapshot: what its calls start from, and why not.
//!
//! A worker serves as it is as soon as it is compiled. Its snapshot is taken beside the calls, takes
//! over when it is ready, and is there from the start when the host starts again.

use std::sync::PoisonError;
use std::time::Instant;

use wasmtime::component::Component;

use super::load::DECLARE;
use super::{Binary, Worker};
use crate::config::Config;
use crate::engine::{Engine, Image};
use crate::limits::Limits;
use crate::sandbox::{self, Declared};

/// How much of what an invocation may use its image may take: the rest is for the work itself.
const SHARE: u64 = 2;
/// Bytes of a page of WebAssembly.
const PAGE: u64 = 64 << 10;

/// Whether a worker's calls start from an init snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Snapshotted {
    /// The operator does not want it.
    Off,
    /// Not yet.
    Pending,
    /// They do.
    Used,
    /// There can be none: why.
    Refused(String),
}

impl Snapshotted {
    /// As `GET /workers` writes it.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Pending => "pending",
            Self::Used => "used",
            Self::Refused(_) => "refused",
        }
    }
}

impl Worker {
    /// Whether its calls start from an init snapshot.
    pub fn snapshotted(&self) -> Snapshotted {
        // It is replaced whole: nothing is half there, whoever panicked.
        let state = self.snapshotted.lock();
        state.unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Takes its init snapshot, if it is to have one, and lets later calls start from it. In any case it
    /// is no longer pending then.
    pub async fn take_snapshot(&self, engine: &Engine, config: &Config) {
        if self.snapshotted() != Snapshotted::Pending {
            return;
        }
        let began = Instant::now();
        let state = match self.snapshot(engine, config).await {
            Ok(()) => Snapshotted::Used,
            Err(reason) => Snapshotted::Refused(reason),
        };
        match &state {
            Snapshotted::Refused(reason) => {
                tracing::info!(worker = %self.id(), "no init snapshot: {reason}");
            }
            _ => {
                let took = began.elapsed().as_secs_f64();
                tracing::info!(worker = %self.id(), "init snapshot taken in {took:.1} s: calls start from it");
            }
        }
        *self
            .snapshotted
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = state;
    }

    async fn snapshot(&self, engine: &Engine, config: &Config) -> Result<(), String> {
        // Read again, so that no worker keeps the bytes of its file.
        let binary = Binary::read(config, &self.file).await;
        let binary = binary.map_err(|refused| refused.reasons.join("; "))?;
        if binary.digest() != self.digest {
            return Err("its file has changed meanwhile".to_owned());
        }
        let image = match engine.take_image(binary.bytes().await?).await {
            Ok(Image::Taken(image)) => image,
            Ok(Image::Refused(reason)) => return Err(reason),
            Err(error) => return Err(error.to_string()),
        };
        fits(&image, self.offered.iter().map(|offered| offered.limits))?;
        if let Err(reason) = self.says_the_same(engine, &image).await {
            // So that no later start believes it.
            let kept = engine.refuse_image(self.digest, &reason).await;
            return Err(kept.err().map_or(reason, |error| error.to_string()));
        }
        let linked = self.sandbox.start_from(&image);
        linked.map_err(|error| format!("it does not link: {error:#}"))
    }

    /// A snapshot that says of itself what the component said can be instantiated, and has kept its wits.
    async fn says_the_same(&self, engine: &Engine, image: &Component) -> Result<(), String> {
        match sandbox::declare(engine, self.id().clone(), image, DECLARE).await {
            Ok(declared) if self.said == Some(said(&declared)) => Ok(()),
            Ok(_) => Err("`declare` says something else when it is called twice".to_owned()),
            Err(failure) => Err(format!(
                "`declare` fails when it is called twice: {failure}"
            )),
        }
    }
}

/// What tells one declaration from all others.
pub(super) fn said(declared: &Declared) -> blake3::Hash {
    blake3::hash(format!("{declared:?}").as_bytes())
}

/// Whether the image leaves every invocation the larger part of its memory.
pub(super) fn fits(image: &Component, limits: impl Iterator<Item = Limits>) -> Result<(), String> {
    let needed = image.resources_required();
    let pages = needed.and_then(|needed| needed.max_initial_memory_size);
    let needed = pages.unwrap_or_default().saturating_mul(PAGE);
    let least = limits.map(|limits| limits.memory).min();
    match least {
        Some(least) if needed > least / SHARE => Err(format!(
            "its memory after `declare` is {} KiB, more than half of the {} MiB that an invocation may use",
            needed >> 10,
            least >> 20
        )),
        _ => Ok(()),
    }
}
