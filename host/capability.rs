//! What a worker offers, needs and promises: the extended capability schema, held as types.
//!
//! Pure: text in, types or problems out. No protocol, no engine and no file enters this room.

mod check;
mod constraint;
mod cost;
mod declaration;
mod raw;
mod required;
mod schema;
mod view;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use semver::Version;
use serde::{Serialize, Serializer};

use crate::identity::SpiffeId;

pub use check::{CPU_SHARES, Problem};
pub use declaration::{Declaration, RawCapability, RawConstraints, RawExample, RawSlo, check};
pub use raw::Schemas;
pub use required::{InterfaceEntry, Required, RequiredError};
pub use schema::{MAX_SCHEMA_BYTES, Schema, resolve};
pub use view::{Filter, Tier, View, missing_faas, tiers};

/// Why a text is no name, worker id or media type.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct NameError(pub(crate) &'static str);

/// A verb or the name of what it is done to: `[a-z][a-z0-9_]*`, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(Box<str>);

/// A worker's id: `[a-z][a-z0-9-]*`, at most 64 bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct WorkerId(Box<str>);

impl Name {
    /// Reads a verb or a name.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if is_word(text, b'_') {
            Ok(Self(text.into()))
        } else {
            Err(NameError("must match [a-z][a-z0-9_]*, at most 64 bytes"))
        }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl WorkerId {
    /// Reads a worker id.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        if is_word(text, b'-') {
            Ok(Self(text.into()))
        } else {
            Err(NameError("must match [a-z][a-z0-9-]*, at most 64 bytes"))
        }
    }

    /// The text itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_word(text: &str, joint: u8) -> bool {
    text.len() <= 64
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == joint)
}

/// A media type (RFC 9110, section 8.3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MediaType(mime::Mime);

impl MediaType {
    /// Reads a media type; a range (`image/*`) is none.
    pub fn parse(text: &str) -> Result<Self, NameError> {
        // What nearly every call has is not parsed each time.
        if text == mime::APPLICATION_JSON.as_ref() {
            return Ok(Self::json());
        }
        let short = if text.len() <= 256 { text } else { "" };
        match short.parse::<mime::Mime>() {
            Ok(media) if media.type_() != mime::STAR && media.subtype() != mime::STAR => {
                Ok(Self(media))
            }
            _ => Err(NameError(
                "must be a media type such as \"application/pdf\", at most 256 bytes",
            )),
        }
    }

    /// `application/json`.
    pub fn json() -> Self {
        Self(mime::APPLICATION_JSON)
    }

    /// True for JSON: `application/json`, and what ends in `+json`.
    pub fn is_json(&self) -> bool {
        self.essence() == "application/json" || self.0.suffix() == Some(mime::JSON)
    }

    /// `text/event-stream`: the output is the worker's events.
    pub fn is_event_stream(&self) -> bool {
        self.essence() == "text/event-stream"
    }

    /// Type and subtype without parameters, in lower case: what is compared.
    pub fn essence(&self) -> &str {
        self.0.essence_str()
    }

    /// True if both are the same but for their parameters.
    pub fn matches(&self, other: &MediaType) -> bool {
        self.essence() == other.essence()
    }
}

/// Reads a semantic version; `1.0` is read as `1.0.0`.
pub fn parse_version(text: &str) -> Result<Version, semver::Error> {
    let short = text.bytes().filter(|b| *b == b'.').count() == 1 && !text.contains(['-', '+']);
    Version::parse(&if short {
        format!("{text}.0")
    } else {
        text.to_owned()
    })
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for WorkerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for MediaType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl Serialize for Name {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for WorkerId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl Serialize for MediaType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// A choice from a fixed vocabulary, read from and written as the contract's text.
macro_rules! vocabulary {
    ($(#[$doc:meta])* $name:ident { $($(#[$variant_doc:meta])* $variant:ident = $text:literal),+ $(,)? }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
        pub enum $name {
            $($(#[$variant_doc])* #[serde(rename = $text)] $variant),+
        }

        impl $name {
            /// Every word that is allowed.
            pub const WORDS: &[&str] = &[$($text),+];

            /// Every choice, in the same order.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// Reads a word of the vocabulary.
            pub fn parse(text: &str) -> Option<Self> {
                match text {
                    $($text => Some(Self::$variant),)+
                    _ => None,
                }
            }

            /// The word itself.
            pub const fn as_str(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }
        }
    };
}

/// What runs a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Runtime {
    /// A WebAssembly component: of a worker that the host loads itself.
    WasmComponent,
    /// Whatever a remote worker says: `python3.11`.
    Remote(Box<str>),
}

impl Runtime {
    /// Every word that a component may say.
    pub const WORDS: &[&str] = &["wasm-component"];

    /// Reads the word of a component.
    pub fn parse(text: &str) -> Option<Self> {
        (text == "wasm-component").then_some(Self::WasmComponent)
    }

    /// Reads the word of a remote worker.
    pub fn of_remote(text: &str) -> Result<Self, NameError> {
        let fits = (1..=64).contains(&text.len())
            && text
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_' | b'+'));
        match Self::parse(text) {
            Some(runtime) => Ok(runtime),
            None if fits => Ok(Self::Remote(text.into())),
            None => Err(NameError(
                "must be a word such as \"python3.11\", at most 64 bytes",
            )),
        }
    }

    /// The word itself.
    pub fn as_str(&self) -> &str {
        match self {
            Self::WasmComponent => "wasm-component",
            Self::Remote(text) => text,
        }
    }
}

impl Serialize for Runtime {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.as_str())
    }
}

vocabulary! {
    /// What kind of machine suits a worker.
    EnvProfile {
        /// CPU above all.
        CpuOptimized = "cpu-optimized",
        /// Does not work without a GPU.
        GpuRequired = "gpu-required",
        /// Memory above all.
        MemoryIntensive = "memory-intensive",
    }
}

vocabulary! {
    /// The kind of disk under a worker's storage.
    DiskType {
        /// No matter.
        Any = "any",
        /// Solid state.
        Ssd = "ssd",
        /// Rotating.
        Hdd = "hdd",
        /// Solid state on PCIe.
        Nvme = "nvme",
    }
}

vocabulary! {
    /// The maker of a GPU.
    GpuType {
        /// NVIDIA.
        Nvidia = "nvidia",
        /// AMD.
        Amd = "amd",
        /// Intel.
        Intel = "intel",
        /// Apple.
        AppleMetal = "apple-metal",
        /// None: computed on the CPU.
        Software = "software",
    }
}

vocabulary! {
    /// The name of a constraint. The profile counts as one, since it too is held against the host.
    Constraint {
        /// `Constraints::min_memory_mb`
        MinMemoryMb = "min_memory_mb",
        /// `Constraints::max_memory_mb`
        MaxMemoryMb = "max_memory_mb",
        /// `Constraints::cpu_shares`
        CpuShares = "cpu_shares",
        /// `Constraints::max_cpu_ms`
        MaxCpuMs = "max_cpu_ms",
        /// `Constraints::disk_type`
        DiskType = "disk_type",
        /// `Constraints::tmp_storage_mb`
        TmpStorageMb = "tmp_storage_mb",
        /// `Constraints::disk_storage_gb`
        DiskStorageGb = "disk_storage_gb",
        /// `Constraints::network_bandwidth_mbps`
        NetworkBandwidthMbps = "network_bandwidth_mbps",
        /// `Constraints::model_storage_mb`
        ModelStorageMb = "model_storage_mb",
        /// `Constraints::vector_index_mb`
        VectorIndexMb = "vector_index_mb",
        /// `Constraints::gpu_count`
        GpuCount = "gpu_count",
        /// `Constraints::gpu_memory_mb`
        GpuMemoryMb = "gpu_memory_mb",
        /// `Constraints::gpu_type`
        GpuType = "gpu_type",
        /// `Capability::env_profile`
        EnvProfile = "env_profile",
    }
}

/// Hard requirements; units are in the names, as in the contract. MB and GB are powers of two.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Constraints {
    /// MiB that the host's budget must cover.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_memory_mb: Option<u32>,
    /// MiB over all memories and tables of one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_memory_mb: Option<u32>,
    /// Weight when workers compete for CPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cpu_shares: Option<u32>,
    /// Milliseconds of CPU time of one invocation.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_cpu_ms: Option<u32>,
    /// Kind of disk.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_type: Option<DiskType>,
    /// MiB in one invocation's /tmp.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tmp_storage_mb: Option<u32>,
    /// GiB of persistent state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub disk_storage_gb: Option<u32>,
    /// Megabits (10^6) per second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_bandwidth_mbps: Option<u32>,
    /// MiB of models.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model_storage_mb: Option<u32>,
    /// MiB of vector index.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vector_index_mb: Option<u32>,
    /// GPUs that the host must have.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_count: Option<u32>,
    /// MiB of GPU memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_memory_mb: Option<u32>,
    /// Maker of the GPU.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub gpu_type: Option<GpuType>,
}

/// Service level objective: what a worker promises.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize)]
pub struct Slo {
    /// Milliseconds within which half of the invocations answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p50_ms: Option<u32>,
    /// Milliseconds for 95 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p95_ms: Option<u32>,
    /// Milliseconds for 99 %.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub latency_p99_ms: Option<u32>,
    /// Percentage that does not fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_pct: Option<f64>,
    /// Percentage that may fail.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error_budget_pct: Option<f64>,
}

/// A call that works: for documentation, demo and bench.
#[derive(Clone, Debug, PartialEq)]
pub struct Example {
    /// What it shows.
    pub title: String,
    /// Media type of the body.
    pub media_type: MediaType,
    /// The input, as bytes.
    pub body: Vec<u8>,
    /// Query parameters of a raw input.
    pub parameters: Vec<(String, String)>,
}

/// One thing that a worker can do, checked.
#[derive(Clone, Debug, Serialize)]
pub struct Capability {
    /// What is done.
    pub verb: Name,
    /// To what.
    pub name: Name,
    /// Semantic version.
    pub version: Version,
    /// Who does it.
    pub worker_id: WorkerId,
    /// One or two sentences.
    pub description: String,
    /// Media types of inputs; never empty.
    pub accepts: Vec<MediaType>,
    /// Media type of the output.
    pub produces: MediaType,
    /// Both schemas, compiled.
    #[serde(skip)]
    pub schemas: Arc<Schemas>,
    /// Calls that work.
    #[serde(skip)]
    pub examples: Vec<Example>,
    /// What runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runtime: Option<Runtime>,
    /// What kind of machine suits it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub env_profile: Option<EnvProfile>,
    /// Hard requirements.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub constraints: Option<Constraints>,
    /// What it promises.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo: Option<Slo>,
    /// Its identity.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spiffe_id: Option<SpiffeId>,
    /// What it may use.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub required_capabilities: Option<Vec<Required>>,
    /// Cost of one invocation, in the operator's units.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cost_tokens: Option<f64>,
    /// Priority under contention.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub slo_bid: Option<f64>,
    /// Hosts on which it should run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub controller_affinity: Option<Vec<String>>,
    /// Kept and shown, never interpreted.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub extensions: BTreeMap<String, String>,
}

/// What a capability's `controller_affinity` says of one host; the better one is the less.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Affinity {
    /// It names this host.
    Here,
    /// It names none.
    Anywhere,
    /// It names others alone.
    Elsewhere,
}

impl Capability {
    /// `verb:name`, as callers write it.
    pub fn key(&self) -> String {
        format!("{}:{}", self.verb, self.name)
    }

    /// How much it belongs on a host.
    pub fn affinity(&self, controller_id: &str) -> Affinity {
        match self.controller_affinity.as_deref() {
            None | Some([]) => Affinity::Anywhere,
            Some(named) if named.iter().any(|name| name == controller_id) => Affinity::Here,
            Some(_) => Affinity::Elsewhere,
        }
    }
}

/// The first `bytes` bytes of a text, cut between characters.
fn shorten(text: &str, bytes: usize) -> &str {
    text.get(..text.floor_char_boundary(bytes)).unwrap_or(text)
}

#[cfg(test)]
mod tests;
