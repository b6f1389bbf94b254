//! From the contract's records to `capability`'s, word for word. Taken apart by name, so that a
//! field that the contract gains cannot be forgotten here.

use crate::bindings::exports::crank::worker::capabilities as wit;
use crate::capability::{Declaration, RawCapability, RawConstraints, RawExample, RawSlo};

impl From<wit::Worker> for Declaration {
    fn from(worker: wit::Worker) -> Self {
        let wit::Worker {
            worker_id,
            capabilities,
        } = worker;
        Self {
            worker_id,
            capabilities: capabilities.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<wit::Capability> for RawCapability {
    fn from(capability: wit::Capability) -> Self {
        let wit::Capability {
            verb,
            name,
            version,
            description,
            input,
            output,
            accepts,
            produces,
            examples,
            runtime,
            env_profile,
            constraints,
            slo,
            spiffe_id,
            required_capabilities,
            cost_tokens,
            slo_bid,
            controller_affinity,
            extensions,
        } = capability;
        Self {
            verb,
            name,
            version,
            description,
            input,
            output,
            accepts,
            produces,
            examples: examples.into_iter().map(Into::into).collect(),
            runtime,
            env_profile,
            constraints: constraints.map(Into::into),
            slo: slo.map(Into::into),
            spiffe_id,
            required_capabilities,
            cost_tokens,
            slo_bid,
            controller_affinity,
            extensions,
        }
    }
}

impl From<wit::Example> for RawExample {
    fn from(example: wit::Example) -> Self {
        let wit::Example {
            title,
            input,
            parameters,
        } = example;
        Self {
            title,
            media_type: input.media_type,
            body: input.body,
            parameters,
        }
    }
}

impl From<wit::Constraints> for RawConstraints {
    fn from(constraints: wit::Constraints) -> Self {
        let wit::Constraints {
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
        Self {
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
        }
    }
}

impl From<wit::Slo> for RawSlo {
    fn from(slo: wit::Slo) -> Self {
        let wit::Slo {
            latency_p50_ms,
            latency_p95_ms,
            latency_p99_ms,
            availability_pct,
            error_budget_pct,
        } = slo;
        Self {
            latency_p50_ms,
            latency_p95_ms,
            latency_p99_ms,
            availability_pct,
            error_budget_pct,
        }
    }
}
