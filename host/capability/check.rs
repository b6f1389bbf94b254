//! From what a worker says to types, or to everything that is wrong with it.

mod fields;

use std::collections::BTreeSet;
use std::fmt::{self, Display};
use std::ops::RangeInclusive;
use std::sync::Arc;

use serde::Serialize;

use super::declaration::{Declaration, RawCapability};
use super::{
    Capability, Constraints, EnvProfile, MediaType, Name, Runtime, Schema, Schemas, WorkerId,
    parse_version, shorten,
};

use crate::identity::SpiffeId;
pub use fields::CPU_SHARES;

/// Caps on what a worker may say of itself. Beyond them lies no honest worker.
const MAX_CAPABILITIES: usize = 64;
const MAX_DESCRIPTION_BYTES: usize = 4 << 10;
const MAX_MEDIA_TYPES: usize = 16;
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
