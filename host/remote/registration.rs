//! What a remote worker says of itself, word for word: the seed's fields. Nothing here is believed
//! before `capability` has read it.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::capability::{
    Capability, Declaration, Problem, RawCapability, RawConstraints, RawSlo, Runtime, check,
};

/// Seconds after which a registration that nobody renews is dropped, where it names no other time.
const TTL: u64 = 300;
/// The most that it may name: a day.
const MAX_TTL: u64 = 86_400;

/// The body of `POST /register`. What `GET /capabilities` shows of a capability is one too.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(
    missing_docs,
    reason = "docs/remote.md documents each field, with its unit"
)]
pub struct Registration {
    pub verb: String,
    pub name: Option<String>,
    pub version: String,
    pub worker_id: String,
    pub url: String,
    pub load_score: Option<f64>,
    pub runtime: Option<String>,
    pub env_profile: Option<String>,
    pub constraints: Option<Map<String, Value>>,
    pub slo: Option<SloText>,
    pub spiffe_id: Option<String>,
    pub required_capabilities: Option<Vec<String>>,
    #[serde(alias = "cost_tokens_per_invocation")]
    pub cost_tokens: Option<f64>,
    pub slo_bid: Option<f64>,
    pub controller_affinity: Option<Vec<String>>,
    pub schema: Option<SchemaText>,
    pub ttl: Option<u64>,
    pub idempotent: Option<bool>,
    pub description: Option<String>,
    pub accepts: Option<Vec<String>>,
    pub produces: Option<String>,
    pub extensions: Option<BTreeMap<String, String>>,
}

/// Its `slo`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "as in `capability::Slo`")]
pub struct SloText {
    pub latency_p50_ms: Option<u32>,
    pub latency_p95_ms: Option<u32>,
    pub latency_p99_ms: Option<u32>,
    pub availability_pct: Option<f64>,
    pub error_budget_pct: Option<f64>,
}

/// Its `schema`. A part that is absent accepts everything.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[allow(missing_docs, reason = "two JSON Schemas")]
pub struct SchemaText {
    pub input: Option<Value>,
    pub output: Option<Value>,
}

impl Registration {
    /// Seconds until it is dropped.
    pub fn ttl(&self) -> u64 {
        self.ttl.unwrap_or(TTL)
    }

    /// Whether both say the same, but for what a heartbeat may change.
    pub fn is_renewed_by(&self, later: &Registration) -> bool {
        let steady = |of: &Registration| Registration {
            load_score: None,
            ttl: None,
            ..of.clone()
        };
        steady(self) == steady(later)
    }

    /// Reads it into types and compiles its schemas, or says everything that is wrong with it. Without
    /// a schema it accepts everything.
    pub fn read(&self) -> Result<Capability, Vec<Problem>> {
        let mut problems = Vec::new();
        let mut add = |path: &str, detail: String| {
            problems.push(Problem {
                path: path.to_owned(),
                detail,
            });
        };
        let runtime = self.runtime.as_deref().map(Runtime::of_remote);
        if let Some(Err(error)) = &runtime {
            add("runtime", error.to_string());
        }
        if self
            .load_score
            .is_some_and(|load| !(0.0..=1.0).contains(&load))
        {
            add("load_score", "must be a number from 0 to 1".to_owned());
        }
        if !(1..=MAX_TTL).contains(&self.ttl()) {
            add("ttl", format!("must be 1 to {MAX_TTL} seconds"));
        }
        let declared = check(Declaration {
            worker_id: self.worker_id.clone(),
            capabilities: vec![self.declared()],
        });
        match declared {
            Ok(mut capabilities) if problems.is_empty() => {
                let mut capability = capabilities.pop().ok_or_else(Vec::new)?;
                capability.runtime = runtime.and_then(Result::ok);
                Ok(capability)
            }
            Ok(_) => Err(problems),
            Err(more) => {
                problems.extend(more.into_iter().map(|problem| Problem {
                    path: problem.path.replacen("capabilities[0].", "", 1),
                    ..problem
                }));
                Err(problems)
            }
        }
    }

    fn declared(&self) -> RawCapability {
        let schema = |part: fn(&SchemaText) -> &Option<Value>| {
            let part = self
                .schema
                .as_ref()
                .and_then(|schema| part(schema).as_ref());
            part.map_or_else(|| "true".to_owned(), Value::to_string)
        };
        RawCapability {
            verb: self.verb.clone(),
            name: self.name.clone().unwrap_or_else(|| self.verb.clone()),
            version: self.version.clone(),
            description: self.description.clone().unwrap_or_default(),
            input: schema(|schema| &schema.input),
            output: schema(|schema| &schema.output),
            accepts: match &self.schema {
                Some(_) => self.accepts.clone().unwrap_or_default(),
                // They come with the schema that says which property a raw body is.
                None => Vec::new(),
            },
            produces: self.produces.clone().unwrap_or_default(),
            examples: Vec::new(),
            runtime: None,
            env_profile: self.env_profile.clone(),
            constraints: self.constraints.as_ref().map(constraints),
            slo: self.slo.map(|slo| RawSlo {
                latency_p50_ms: slo.latency_p50_ms,
                latency_p95_ms: slo.latency_p95_ms,
                latency_p99_ms: slo.latency_p99_ms,
                availability_pct: slo.availability_pct,
                error_budget_pct: slo.error_budget_pct,
            }),
            spiffe_id: self.spiffe_id.clone(),
            required_capabilities: self.required_capabilities.clone(),
            cost_tokens: self.cost_tokens,
            slo_bid: self.slo_bid,
            controller_affinity: self.controller_affinity.clone(),
            extensions: self
                .extensions
                .clone()
                .unwrap_or_default()
                .into_iter()
                .collect(),
        }
    }
}

/// The constraints by name. One that is no number where a number belongs, or has an unknown name, goes
/// where `capability` refuses it with its name.
fn constraints(given: &Map<String, Value>) -> RawConstraints {
    let mut raw = RawConstraints::default();
    for (name, value) in given.iter().filter(|(_, value)| !value.is_null()) {
        let number = value.as_u64().and_then(|number| u32::try_from(number).ok());
        let text = value.as_str().map(str::to_owned);
        let known = match name.as_str() {
            "disk_type" => set(&mut raw.disk_type, text),
            "gpu_type" => set(&mut raw.gpu_type, text),
            "min_memory_mb" => set(&mut raw.min_memory_mb, number),
            "max_memory_mb" => set(&mut raw.max_memory_mb, number),
            "cpu_shares" => set(&mut raw.cpu_shares, number),
            "max_cpu_ms" => set(&mut raw.max_cpu_ms, number),
            "tmp_storage_mb" => set(&mut raw.tmp_storage_mb, number),
            "disk_storage_gb" => set(&mut raw.disk_storage_gb, number),
            "network_bandwidth_mbps" => set(&mut raw.network_bandwidth_mbps, number),
            "model_storage_mb" => set(&mut raw.model_storage_mb, number),
            "vector_index_mb" => set(&mut raw.vector_index_mb, number),
            "gpu_count" => set(&mut raw.gpu_count, number),
            "gpu_memory_mb" => set(&mut raw.gpu_memory_mb, number),
            _ => false,
        };
        if !known {
            raw.other.push((name.clone(), value.to_string()));
        }
    }
    raw
}

/// Whether there is such a value.
fn set<T>(field: &mut Option<T>, value: Option<T>) -> bool {
    *field = value;
    field.is_some()
}
