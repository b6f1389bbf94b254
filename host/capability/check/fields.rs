//! The groups of fields of a capability, each with its bounds.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use super::super::declaration::{RawConstraints, RawExample, RawSlo};
use super::super::{
    Constraints, DiskType, Example, GpuType, MediaType, Required, Schemas, Slo, shorten,
};
use super::{Checker, MAX_PROBLEMS};
use crate::error::Fault;

/// Weights that cgroups take as well: 1024 is the default.
pub const CPU_SHARES: RangeInclusive<u32> = 2..=262_144;

/// Caps, as in `check`.
const MAX_EXAMPLES: usize = 16;
const MAX_TITLE_BYTES: usize = 256;
const MAX_EXAMPLE_BYTES: usize = 1 << 20;
const MAX_REQUIRED: usize = 128;
const MAX_AFFINITIES: usize = 16;
const MAX_EXTENSION_BYTES: usize = 16 << 10;

impl Checker {
    pub(super) fn examples(
        &mut self,
        path: &str,
        raw: Vec<RawExample>,
        accepts: &[MediaType],
        schemas: Option<&Schemas>,
    ) -> Vec<Example> {
        self.size(
            format!("{path}.examples"),
            raw.len(),
            MAX_EXAMPLES,
            "examples",
        );
        let mut examples = Vec::new();
        for (at, raw) in raw.into_iter().take(MAX_EXAMPLES).enumerate() {
            let path = format!("{path}.examples[{at}]");
            self.size(
                format!("{path}.title"),
                raw.title.len(),
                MAX_TITLE_BYTES,
                "bytes",
            );
            self.size(
                format!("{path}.input.body"),
                raw.body.len(),
                MAX_EXAMPLE_BYTES,
                "bytes",
            );
            let Some(media_type) = self.read(
                &format!("{path}.input.media_type"),
                &raw.media_type,
                MediaType::parse,
            ) else {
                continue;
            };
            let known = media_type.is_json()
                || accepts.iter().any(|accepted| accepted.matches(&media_type));
            if !known {
                self.add(
                    format!("{path}.input.media_type"),
                    format!("{media_type} is not among what the capability accepts"),
                );
            } else if let Some(schemas) = schemas {
                for fault in example_faults(&media_type, &raw, schemas) {
                    self.add(
                        format!("{path}.input"),
                        format!(
                            "does not match the schema at \"{}\": {}",
                            fault.pointer, fault.detail
                        ),
                    );
                }
            }
            examples.push(Example {
                title: raw.title,
                media_type,
                body: raw.body,
                parameters: raw.parameters,
            });
        }
        examples
    }

    pub(super) fn constraints(&mut self, path: &str, raw: RawConstraints) -> Constraints {
        let field = |name: &str| format!("{path}.{name}");
        for (name, _) in raw.other.iter().take(MAX_PROBLEMS) {
            self.add(
                field(&shorten(name, 64).escape_debug().to_string()),
                "is not a constraint that this host knows; remove it, since nothing would hold it",
            );
        }
        if let (Some(min), Some(max)) = (raw.min_memory_mb, raw.max_memory_mb)
            && min > max
        {
            self.add(
                field("min_memory_mb"),
                format!("{min} is more than max_memory_mb, which is {max}"),
            );
        }
        if raw
            .cpu_shares
            .is_some_and(|shares| !CPU_SHARES.contains(&shares))
        {
            self.add(
                field("cpu_shares"),
                format!(
                    "must be from {} to {}",
                    CPU_SHARES.start(),
                    CPU_SHARES.end()
                ),
            );
        }
        for (name, value) in [
            ("max_memory_mb", raw.max_memory_mb),
            ("max_cpu_ms", raw.max_cpu_ms),
            ("network_bandwidth_mbps", raw.network_bandwidth_mbps),
        ] {
            if value == Some(0) {
                self.add(
                    field(name),
                    "must be at least 1; leave it out for the operator's default",
                );
            }
        }
        Constraints {
            min_memory_mb: raw.min_memory_mb,
            max_memory_mb: raw.max_memory_mb,
            cpu_shares: raw.cpu_shares,
            max_cpu_ms: raw.max_cpu_ms,
            disk_type: self.word(
                field("disk_type"),
                raw.disk_type,
                DiskType::parse,
                DiskType::WORDS,
            ),
            tmp_storage_mb: raw.tmp_storage_mb,
            disk_storage_gb: raw.disk_storage_gb,
            network_bandwidth_mbps: raw.network_bandwidth_mbps,
            model_storage_mb: raw.model_storage_mb,
            vector_index_mb: raw.vector_index_mb,
            gpu_count: raw.gpu_count,
            gpu_memory_mb: raw.gpu_memory_mb,
            gpu_type: self.word(
                field("gpu_type"),
                raw.gpu_type,
                GpuType::parse,
                GpuType::WORDS,
            ),
        }
    }

    pub(super) fn slo(&mut self, path: &str, raw: RawSlo) -> Slo {
        let latencies = [
            ("latency_p50_ms", raw.latency_p50_ms),
            ("latency_p95_ms", raw.latency_p95_ms),
            ("latency_p99_ms", raw.latency_p99_ms),
        ];
        let mut below: Option<(&str, u32)> = None;
        for (name, value) in latencies
            .into_iter()
            .filter_map(|(name, value)| Some((name, value?)))
        {
            if value == 0 {
                self.add(format!("{path}.{name}"), "must be at least 1");
            }
            if let Some((lower, least)) = below.filter(|(_, least)| value < *least) {
                self.add(
                    format!("{path}.{name}"),
                    format!("{value} is less than {lower}, which is {least}"),
                );
            }
            below = Some((name, value));
        }
        self.number(
            format!("{path}.availability_pct"),
            raw.availability_pct,
            0.0..=100.0,
        );
        self.number(
            format!("{path}.error_budget_pct"),
            raw.error_budget_pct,
            0.0..=100.0,
        );
        Slo {
            latency_p50_ms: raw.latency_p50_ms,
            latency_p95_ms: raw.latency_p95_ms,
            latency_p99_ms: raw.latency_p99_ms,
            availability_pct: raw.availability_pct,
            error_budget_pct: raw.error_budget_pct,
        }
    }

    pub(super) fn required(&mut self, path: &str, texts: &[String]) -> Vec<Required> {
        self.size(path.to_owned(), texts.len(), MAX_REQUIRED, "entries");
        let texts = texts.iter().take(MAX_REQUIRED).enumerate();
        texts
            .filter_map(|(at, text)| self.read(&format!("{path}[{at}]"), text, Required::parse))
            .collect()
    }

    pub(super) fn affinity(&mut self, path: String, names: &[String]) {
        let well_formed = |name: &String| {
            (1..=128).contains(&name.len())
                && name
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        };
        if names.len() > MAX_AFFINITIES || !names.iter().all(well_formed) {
            self.add(path, format!("is a list of at most {MAX_AFFINITIES} names of letters, digits, '-', '_' and '.'"));
        }
    }

    pub(super) fn extensions(
        &mut self,
        path: String,
        pairs: Vec<(String, String)>,
    ) -> BTreeMap<String, String> {
        let bytes = pairs
            .iter()
            .map(|(name, text)| name.len() + text.len())
            .sum();
        self.size(path.clone(), bytes, MAX_EXTENSION_BYTES, "bytes");
        let count = pairs.len();
        let extensions: BTreeMap<_, _> = pairs.into_iter().collect();
        if extensions.len() < count {
            self.add(path, "names the same extension twice");
        }
        extensions
    }
}

fn example_faults(media_type: &MediaType, raw: &RawExample, schemas: &Schemas) -> Vec<Fault> {
    if !media_type.is_json() {
        return schemas
            .validate_raw(&raw.parameters)
            .err()
            .unwrap_or_default();
    }
    match serde_json::from_slice(&raw.body) {
        Ok(value) => schemas.input.validate(&value).err().unwrap_or_default(),
        Err(error) => vec![Fault {
            pointer: String::new(),
            detail: format!("is not JSON: {error}"),
        }],
    }
}
