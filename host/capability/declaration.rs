//! What a worker says of itself, word for word: one-to-one with the contract's record `worker`
//! (`wit/capabilities.wit`). Nothing here is believed before `check` has read it.

use super::Capability;
use super::check::{Checker, Problem};

/// The record `worker`.
#[derive(Clone, Debug, Default)]
pub struct Declaration {
    /// The worker's name.
    pub worker_id: String,
    /// What it offers.
    pub capabilities: Vec<RawCapability>,
}

/// The record `capability`.
#[derive(Clone, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the contract documents each field, with its unit"
)]
pub struct RawCapability {
    pub verb: String,
    pub name: String,
    pub version: String,
    pub description: String,
    pub input: String,
    pub output: String,
    pub accepts: Vec<String>,
    pub produces: String,
    pub examples: Vec<RawExample>,
    pub runtime: Option<String>,
    pub env_profile: Option<String>,
    pub constraints: Option<RawConstraints>,
    pub slo: Option<RawSlo>,
    pub spiffe_id: Option<String>,
    pub required_capabilities: Option<Vec<String>>,
    pub cost_tokens: Option<f64>,
    pub slo_bid: Option<f64>,
    pub controller_affinity: Option<Vec<String>>,
    pub extensions: Vec<(String, String)>,
}

/// The record `example`, its payload spread out.
#[derive(Clone, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the contract documents each field, with its unit"
)]
pub struct RawExample {
    pub title: String,
    pub media_type: String,
    pub body: Vec<u8>,
    pub parameters: Vec<(String, String)>,
}

/// The record `constraints`.
#[derive(Clone, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the contract documents each field, with its unit"
)]
pub struct RawConstraints {
    pub min_memory_mb: Option<u32>,
    pub max_memory_mb: Option<u32>,
    pub cpu_shares: Option<u32>,
    pub max_cpu_ms: Option<u32>,
    pub disk_type: Option<String>,
    pub tmp_storage_mb: Option<u32>,
    pub disk_storage_gb: Option<u32>,
    pub network_bandwidth_mbps: Option<u32>,
    pub model_storage_mb: Option<u32>,
    pub vector_index_mb: Option<u32>,
    pub gpu_count: Option<u32>,
    pub gpu_memory_mb: Option<u32>,
    pub gpu_type: Option<String>,
    pub other: Vec<(String, String)>,
}

/// The record `slo`.
#[derive(Clone, Copy, Debug, Default)]
#[allow(
    missing_docs,
    reason = "the contract documents each field, with its unit"
)]
pub struct RawSlo {
    pub latency_p50_ms: Option<u32>,
    pub latency_p95_ms: Option<u32>,
    pub latency_p99_ms: Option<u32>,
    pub availability_pct: Option<f64>,
    pub error_budget_pct: Option<f64>,
}

/// Reads a declaration into types and compiles its schemas, or says everything that is wrong with it.
pub fn check(declaration: Declaration) -> Result<Vec<Capability>, Vec<Problem>> {
    Checker::default().worker(declaration)
}
