//! The terms under which a worker runs here: its limits, its identity, and what cannot be had.

use std::time::Duration;

use crate::capability::{Capability, Constraints, EnvProfile};
use crate::config::{ByteCount, Config, LimitSettings, WorkerSettings};
use crate::engine::DEFAULT_WEIGHT;
use crate::limits::{Handed, Limits};
use crate::sandbox::Quotas;

/// Identities that a worker may not claim: outside the trust domain, not the one that the operator
/// gave to its file, or one that the operator gave to another.
pub(super) fn foreign_ids(config: &Config, stem: &str, capabilities: &[Capability]) -> Vec<String> {
    let domain = &config.trust_domain;
    let bound = config
        .workers
        .get(stem)
        .and_then(|operator| operator.spiffe_id.as_ref());
    let mut reasons = Vec::new();
    for capability in capabilities {
        let Some(id) = &capability.spiffe_id else {
            continue;
        };
        let owner = config
            .workers
            .iter()
            .find(|(other, settings)| *other != stem && settings.spiffe_id.as_ref() == Some(id));
        if !id.is_member_of(domain) {
            reasons.push(format!(
                "spiffe_id {id} is outside the trust domain {domain}"
            ));
        } else if bound.is_some_and(|bound| bound != id) {
            reasons.push(format!(
                "spiffe_id {id} is not the one that the operator gave to this file"
            ));
        } else if let Some((owner, _)) = owner {
            reasons.push(format!(
                "spiffe_id {id} belongs to the file {owner:?}: so says the configuration"
            ));
        }
    }
    reasons.dedup();
    reasons
}

/// Constraints that this version of the host cannot hold: a worker that declares one is refused,
/// since a limit that nobody enforces is worse than none.
pub(super) fn not_offered(capabilities: &[Capability]) -> Vec<String> {
    let mut reasons = Vec::new();
    for capability in capabilities {
        let mut refuse = |name: &str| {
            reasons.push(format!(
                "{}: {name} is not offered by this version of the host; remove it, or wait for one that does",
                capability.key()
            ));
        };
        let given = capability.constraints.clone().unwrap_or_default();
        for (name, declared) in [
            (
                "model_storage_mb",
                given.model_storage_mb.is_some_and(|mb| mb > 0),
            ),
            ("gpu_count", given.gpu_count.is_some_and(|count| count > 0)),
            (
                "gpu_memory_mb",
                given.gpu_memory_mb.is_some_and(|mb| mb > 0),
            ),
            ("gpu_type", given.gpu_type.is_some()),
        ] {
            if declared {
                refuse(name);
            }
        }
        if capability.env_profile == Some(EnvProfile::GpuRequired) {
            refuse("env_profile gpu-required");
        }
    }
    reasons
}

/// The operator's word for this file, else the worker's up to the operator's ceiling, else the
/// operator's default.
pub(super) fn limits(
    default: &LimitSettings,
    operator: Option<&WorkerSettings>,
    declared: Option<&Constraints>,
) -> Limits {
    let memory = declared
        .and_then(|declared| declared.max_memory_mb)
        .map(|mb| ByteCount::mib(mb).min(default.max_memory));
    let cpu = declared
        .and_then(|declared| declared.max_cpu_ms)
        .map(|ms| Duration::from_millis(ms.into()));
    Limits {
        memory: operator
            .and_then(|operator| operator.memory)
            .or(memory)
            .unwrap_or(default.memory)
            .get(),
        wall: operator
            .and_then(|operator| operator.wall)
            .unwrap_or(default.wall),
        cpu: operator
            .and_then(|operator| operator.cpu)
            .or(cpu)
            .unwrap_or(default.cpu),
        output: usize::try_from(default.output.get()).unwrap_or(usize::MAX),
        handed: Handed {
            bytes: default.hostcall.get(),
            items: default.hostcalls,
        },
    }
}

/// What the buckets that the worker writes to may hold: its capabilities agree on it, up to the
/// operator's ceiling.
pub(super) fn quotas(default: &LimitSettings, capabilities: &[Capability]) -> Quotas {
    let declared = |pick: fn(&Constraints) -> Option<u32>| {
        let mut constraints = capabilities
            .iter()
            .filter_map(|capability| capability.constraints.as_ref());
        constraints.find_map(pick).map(u64::from)
    };
    let ceiling = default.max_state.get();
    let storage = declared(|constraints| constraints.disk_storage_gb).map(|gb| gb << 30);
    let index = declared(|constraints| constraints.vector_index_mb).map(|mb| mb << 20);
    Quotas {
        storage: storage.map_or(default.state.get(), |storage| storage.min(ceiling)),
        index: index.map(|index| index.min(ceiling)),
    }
}

/// Megabits per second to the worker's callers; its capabilities agree on it.
pub(super) fn megabits(default: &LimitSettings, capabilities: &[Capability]) -> u32 {
    let declared = capabilities
        .iter()
        .find_map(|capability| capability.constraints.as_ref()?.network_bandwidth_mbps);
    declared.unwrap_or(default.network_mbps)
}

/// The worker's weight against other workers; its capabilities agree on it.
pub(super) fn weight(capabilities: &[Capability]) -> u32 {
    let declared = capabilities
        .iter()
        .find_map(|capability| capability.constraints.as_ref()?.cpu_shares);
    declared.unwrap_or(DEFAULT_WEIGHT)
}
