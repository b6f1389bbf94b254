//! From the author's declaration to the contract's.

use crate::Payload;
use crate::bindings::exports::crank::worker::capabilities as wit;
use crate::capability::{Capability, Constraints, Example, Slo, Worker};

impl Worker {
    /// What the contract's `declare` answers.
    pub(crate) fn declare(&self) -> wit::Worker {
        wit::Worker {
            worker_id: self.worker_id.into(),
            capabilities: self.capabilities.iter().map(capability).collect(),
        }
    }
}

fn capability(offered: &Capability) -> wit::Capability {
    wit::Capability {
        verb: offered.verb.into(),
        name: offered.name.into(),
        version: offered.version.into(),
        description: offered.description.into(),
        input: (offered.input)().to_value().to_string(),
        output: (offered.output)().to_value().to_string(),
        accepts: texts(offered.accepts),
        produces: offered.produces.into(),
        examples: offered.examples.iter().map(example).collect(),
        runtime: Some(offered.runtime.into()),
        env_profile: offered.env_profile.map(Into::into),
        constraints: offered.constraints.map(constraints),
        slo: offered.slo.map(slo),
        spiffe_id: offered.spiffe_id.map(Into::into),
        required_capabilities: offered.required_capabilities.map(texts),
        cost_tokens: offered.cost_tokens,
        slo_bid: offered.slo_bid,
        controller_affinity: offered.controller_affinity.map(texts),
        extensions: pairs(offered.extensions),
    }
}

fn example(example: &Example) -> wit::Example {
    wit::Example {
        title: example.title.into(),
        input: Payload {
            media_type: example.media_type.into(),
            body: example.body.into(),
        },
        parameters: pairs(example.parameters),
    }
}

fn constraints(constraints: Constraints) -> wit::Constraints {
    // Taken apart by name, so that a field that is added cannot be forgotten here.
    let Constraints {
        min_memory_mb,
        max_memory_mb,
        cpu_shares,
        max_cpu_ms,
        disk_type,
        tmp_storage_mb,
        disk_storage_gb,
        network_bandwidth_mbps,
        model_storage_mb,
        vector_index_mb,
        gpu_count,
        gpu_memory_mb,
        gpu_type,
        other,
    } = constraints;
    wit::Constraints {
        min_memory_mb,
        max_memory_mb,
        cpu_shares,
        max_cpu_ms,
        disk_type: disk_type.map(Into::into),
        tmp_storage_mb,
        disk_storage_gb,
        network_bandwidth_mbps,
        model_storage_mb,
        vector_index_mb,
        gpu_count,
        gpu_memory_mb,
        gpu_type: gpu_type.map(Into::into),
        other: pairs(other),
    }
}

fn slo(slo: Slo) -> wit::Slo {
    let Slo {
        latency_p50_ms,
        latency_p95_ms,
        latency_p99_ms,
        availability_pct,
        error_budget_pct,
    } = slo;
    wit::Slo {
        latency_p50_ms,
        latency_p95_ms,
        latency_p99_ms,
        availability_pct,
        error_budget_pct,
    }
}

fn texts(texts: &[&str]) -> Vec<String> {
    texts.iter().map(|text| (*text).to_owned()).collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Bytes, Failure};
    use schemars::JsonSchema;
    use serde::{Deserialize, Serialize};
    use serde_json::{Value, json};

    #[derive(Deserialize, JsonSchema)]
    #[expect(dead_code, reason = "only its schema is looked at")]
    struct Input {
        /// A picture.
        #[schemars(extend("contentMediaType" = "image/png"))]
        picture: Bytes,
    }

    #[derive(Serialize, JsonSchema)]
    struct Output {
        words: u32,
    }

    #[test]
    fn schemas_come_from_the_types() {
        let worker = Worker::new("worker-count").offers(
            Capability::new("count", "words", "1.0.0", |_: Input| {
                Ok::<_, Failure>(Output { words: 0 })
            })
            .constraints(Constraints {
                gpu_count: Some(1),
                ..Constraints::default()
            })
            .required_capabilities(&[]),
        );
        let declared = worker.declare().capabilities.remove(0);
        let schema: Value = serde_json::from_str(&declared.input).unwrap();
        assert_eq!(
            schema["properties"]["picture"],
            json!({
                "description": "A picture.", "type": "string",
                "contentEncoding": "base64", "contentMediaType": "image/png",
            })
        );
        assert_eq!(
            schema["$schema"],
            "https://json-schema.org/draft/2020-12/schema"
        );
        let schema: Value = serde_json::from_str(&declared.output).unwrap();
        assert_eq!(schema["properties"]["words"]["type"], "integer");
        assert_eq!(
            declared
                .constraints
                .and_then(|constraints| constraints.gpu_count),
            Some(1)
        );
        assert_eq!(declared.required_capabilities, Some(Vec::new()));
    }
}
