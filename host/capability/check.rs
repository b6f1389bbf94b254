//! From what a worker says to types, or to everything that is wrong with it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;

use super::declaration::{Declaration, RawCapability, RawConstraints, RawExample, RawSlo};
use super::{
    Capability, Constraints, DiskType, EnvProfile, Example, GpuType, MediaType, Name, Required,
    Runtime, Schema, Schemas, Slo, WorkerId, parse_version, shorten,
};
use crate::error::Fault;
use crate::identity::SpiffeId;

/// Weights that cgroups take as well: 1024 is the default.
pub const CPU_SHARES: RangeInclusive<u32> = 2..=262_144;

/// Caps on what a worker may say of itself. Beyond them lies no honest worker.
const MAX_CAPABILITIES: usize = 64;
const MAX_DESCRIPTION_BYTES: usize = 4 << 10;
const MAX_MEDIA_TYPES: usize = 16;
const MAX_EXAMPLES: usize = 16;
const MAX_TITLE_BYTES: usize = 256;
const MAX_EXAMPLE_BYTES: usize = 1 << 20;
const MAX_REQUIRED: usize = 128;
const MAX_AFFINITIES: usize = 16;
const MAX_EXTENSION_BYTES: usize = 16 << 10;
/// Over all of a worker's schemas: what compiling them may cost at load.
const MAX_PATTERNS: usize = 256;
const MAX_SCHEMAS_BYTES: usize = 512 << 10;
/// Cost and bid: enough for any unit, far from where sums lose digits.
const MAX_TOKENS: f64 = 1e9;
/// Problems that are told; more help nobody.
const MAX_PROBLEMS: usize = 64;

/// One thing that is wrong with a declaration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// The field: `capabilities[1].constraints.min_memory_mb`.
    pub path: String,
    /// What is wrong and what is allowed.
    pub detail: String,
}

impl Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.path, self.detail)
    }
}

/// Gathers problems while it reads on.
#[derive(Default)]
pub(super) struct Checker {
    problems: Vec<Problem>,
    patterns: usize,
    schema_bytes: usize,
}

impl Checker {
    pub(super) fn worker(
        mut self,
        declaration: Declaration,
    ) -> Result<Vec<Capability>, Vec<Problem>> {
        let id = self.read("worker_id", &declaration.worker_id, WorkerId::parse);
        let count = declaration.capabilities.len();
        if count == 0 || count > MAX_CAPABILITIES {
            self.add(
                "capabilities",
                format!("has {count} entries; 1 to {MAX_CAPABILITIES} are allowed"),
            );
        }
        let mut seen = BTreeSet::new();
        let mut checked = Vec::new();
        for (at, raw) in declaration
            .capabilities
            .into_iter()
            .take(MAX_CAPABILITIES)
            .enumerate()
        {
            let path = format!("capabilities[{at}]");
            if !seen.insert((raw.verb.clone(), raw.name.clone())) {
                let key = format!("{}:{}", shorten(&raw.verb, 64), shorten(&raw.name, 64));
                self.add(
                    format!("{path}.name"),
                    format!("{key} is declared twice; a worker offers each capability once"),
                );
            }
            checked.push(self.capability(&path, id.as_ref(), raw));
        }
        let capabilities: Vec<Capability> = checked.into_iter().flatten().collect();
        self.agree(&capabilities);
        if self.problems.is_empty() {
            Ok(capabilities)
        } else {
            Err(self.problems)
        }
    }

    fn add(&mut self, path: impl Into<String>, detail: impl Into<String>) {
        if self.problems.len() < MAX_PROBLEMS {
            self.problems.push(Problem {
                path: path.into(),
                detail: detail.into(),
            });
        }
    }

    /// Reads a text with one of the types' own readers.
    fn read<T, E: Display>(
        &mut self,
        path: &str,
        text: &str,
        parse: impl Fn(&str) -> Result<T, E>,
    ) -> Option<T> {
        parse(text)
            .map_err(|error| {
                self.add(
                    path,
                    format!("\"{}\": {error}", shorten(text, 64).escape_debug()),
                )
            })
            .ok()
    }

    /// Reads a word of a vocabulary.
    fn word<T>(
        &mut self,
        path: String,
        text: Option<String>,
        parse: impl Fn(&str) -> Option<T>,
        words: &[&str],
    ) -> Option<T> {
        let text = text?;
        let word = parse(&text);
        if word.is_none() {
            let shown = shorten(&text, 64).escape_debug();
            self.add(
                path,
                format!(
                    "\"{shown}\" is none of the allowed values: {}",
                    words.join(", ")
                ),
            );
        }
        word
    }

    fn size(&mut self, path: String, size: usize, most: usize, unit: &str) {
        if size > most {
            self.add(
                path,
                format!("has {size} {unit}; at most {most} are allowed"),
            );
        }
    }

    fn number(&mut self, path: String, value: Option<f64>, allowed: RangeInclusive<f64>) {
        if value.is_some_and(|value| !allowed.contains(&value)) {
            self.add(
                path,
                format!(
                    "must be a number from {} to {}",
                    allowed.start(),
                    allowed.end()
                ),
            );
        }
    }

    /// `None` if the capability cannot even be built; its problems are noted in any case.
    fn capability(
        &mut self,
        path: &str,
        worker_id: Option<&WorkerId>,
        raw: RawCapability,
    ) -> Option<Capability> {
        let field = |name: &str| format!("{path}.{name}");
        let verb = self.read(&field("verb"), &raw.verb, Name::parse);
        let name = self.read(&field("name"), &raw.name, Name::parse);
        let version = self.read(&field("version"), &raw.version, parse_version);
        self.size(
            field("description"),
            raw.description.len(),
            MAX_DESCRIPTION_BYTES,
            "bytes",
        );

        let accepts = self.media_types(path, &raw.accepts);
        let produces = match raw.produces.as_str() {
            "" => Some(MediaType::json()),
            text => self.read(&field("produces"), text, MediaType::parse),
        };
        let json_out = produces.as_ref().is_none_or(MediaType::is_json);
        // Only JSON is checked against the output schema, so other media types may leave it out.
        let output = if !json_out && raw.output.is_empty() {
            "true"
        } else {
            &raw.output
        };
        let input = self.schema(field("input"), &raw.input);
        let output = self.schema(field("output"), output);
        let schemas = match (input, output) {
            (Some(input), Some(output)) => self.join(field("input"), input, output, &accepts),
            _ => None,
        };
        let examples = self.examples(path, raw.examples, &accepts, schemas.as_ref());

        let runtime = self.word(
            field("runtime"),
            raw.runtime,
            Runtime::parse,
            Runtime::WORDS,
        );
        let env_profile = self.word(
            field("env_profile"),
            raw.env_profile,
            EnvProfile::parse,
            EnvProfile::WORDS,
        );
        let constraints = raw
            .constraints
            .map(|raw| self.constraints(&field("constraints"), raw));
        let slo = raw.slo.map(|raw| self.slo(&field("slo"), raw));
        let spiffe_id = raw
            .spiffe_id
            .and_then(|text| self.read(&field("spiffe_id"), &text, SpiffeId::parse));
        let required_capabilities = raw
            .required_capabilities
            .map(|list| self.required(&field("required_capabilities"), &list));
        self.number(field("cost_tokens"), raw.cost_tokens, 0.0..=MAX_TOKENS);
        self.number(field("slo_bid"), raw.slo_bid, 0.0..=MAX_TOKENS);
        self.affinity(
            field("controller_affinity"),
            raw.controller_affinity.as_deref().unwrap_or_default(),
        );
        let extensions = self.extensions(field("extensions"), raw.extensions);

        Some(Capability {
            verb: verb?,
            name: name?,
            version: version?,
            worker_id: worker_id?.clone(),
            description: raw.description,
            accepts,
            produces: produces?,
            schemas: Arc::new(schemas?),
            examples,
            runtime,
            env_profile,
            constraints,
            slo,
            spiffe_id,
            required_capabilities,
            cost_tokens: raw.cost_tokens,
            slo_bid: raw.slo_bid,
            controller_affinity: raw.controller_affinity,
            extensions,
        })
    }

    fn media_types(&mut self, path: &str, texts: &[String]) -> Vec<MediaType> {
        self.size(
            format!("{path}.accepts"),
            texts.len(),
            MAX_MEDIA_TYPES,
            "media types",
        );
        if texts.is_empty() {
            return vec![MediaType::json()];
        }
        let texts = texts.iter().take(MAX_MEDIA_TYPES).enumerate();
        texts
            .filter_map(|(at, text)| {
                self.read(&format!("{path}.accepts[{at}]"), text, MediaType::parse)
            })
            .collect()
    }

    fn schema(&mut self, path: String, text: &str) -> Option<Schema> {
        self.schema_bytes = self.schema_bytes.saturating_add(text.len());
        if self.schema_bytes > MAX_SCHEMAS_BYTES || self.patterns > MAX_PATTERNS {
            self.add(
                path,
                format!("a worker's schemas have at most {MAX_SCHEMAS_BYTES} bytes and {MAX_PATTERNS} regular expressions together"),
            );
            return None;
        }
        match Schema::parse(text) {
            Ok(schema) => {
                self.patterns += schema.patterns();
                Some(schema)
            }
            Err(details) => {
                details
                    .into_iter()
                    .for_each(|detail| self.add(path.clone(), detail));
                None
            }
        }
    }

    fn join(
        &mut self,
        path: String,
        input: Schema,
        output: Schema,
        accepts: &[MediaType],
    ) -> Option<Schemas> {
        Schemas::new(input, output, accepts)
            .map_err(|details| {
                details
                    .into_iter()
                    .for_each(|detail| self.add(path.clone(), detail))
            })
            .ok()
    }

    fn examples(
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

    fn constraints(&mut self, path: &str, raw: RawConstraints) -> Constraints {
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

    fn slo(&mut self, path: &str, raw: RawSlo) -> Slo {
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

    fn required(&mut self, path: &str, texts: &[String]) -> Vec<Required> {
        self.size(path.to_owned(), texts.len(), MAX_REQUIRED, "entries");
        let texts = texts.iter().take(MAX_REQUIRED).enumerate();
        texts
            .filter_map(|(at, text)| self.read(&format!("{path}[{at}]"), text, Required::parse))
            .collect()
    }

    fn affinity(&mut self, path: String, names: &[String]) {
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

    fn extensions(
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

    /// Shares, quotas and identity are the worker's: its capabilities may not contradict each other.
    fn agree(&mut self, capabilities: &[Capability]) {
        let number = |pick: fn(&Constraints) -> Option<u32>| {
            move |capability: &Capability| {
                capability
                    .constraints
                    .as_ref()
                    .and_then(pick)
                    .map(|value| value.to_string())
            }
        };
        self.same(
            capabilities,
            "constraints.cpu_shares",
            number(|c| c.cpu_shares),
        );
        self.same(
            capabilities,
            "constraints.disk_storage_gb",
            number(|c| c.disk_storage_gb),
        );
        self.same(
            capabilities,
            "constraints.model_storage_mb",
            number(|c| c.model_storage_mb),
        );
        self.same(
            capabilities,
            "constraints.vector_index_mb",
            number(|c| c.vector_index_mb),
        );
        self.same(capabilities, "spiffe_id", |capability| {
            capability.spiffe_id.as_ref().map(ToString::to_string)
        });
    }

    fn same(
        &mut self,
        capabilities: &[Capability],
        field: &str,
        pick: impl Fn(&Capability) -> Option<String>,
    ) {
        let values: BTreeSet<String> = capabilities.iter().filter_map(pick).collect();
        if values.len() > 1 {
            let values: Vec<String> = values.into_iter().collect();
            self.add(
                format!("capabilities[*].{field}"),
                format!(
                    "differs between this worker's capabilities ({}); it must be the same in all",
                    shorten(&values.join(", "), 256)
                ),
            );
        }
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
