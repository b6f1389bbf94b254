//! The terms under which a worker runs here: its limits, its identity, and what cannot be had.

use std::time::Duration;

use crate::admission::Lane;
use crate::capability::{Capability, Constraints};
use crate::config::{ByteCount, Config, LimitSettings, WorkerSettings};
use crate::engine::DEFAULT_WEIGHT;
use crate::limits::{Handed, Limits};
use crate::machine::Machine;
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
        } else if bound.is_none() && owner.is_none() && config.identity.is_required() {
            // Where ids open doors a component does not choose its own.
            reasons.push(format!(
                "spiffe_id {id} is not granted to this file; set [workers.{stem:?}] spiffe_id = {:?}",
                id.as_str()
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

/// Why a worker may not have the id that it claims: the operator gave its file another, or gave the id to
/// another file.
pub(super) fn foreign_worker_id(config: &Config, stem: &str, claimed: &str) -> Option<String> {
    let bound = |(_, settings): &(&String, &WorkerSettings)| {
        let id = settings.worker_id.as_ref();
        id.is_some_and(|id| id.as_str() == claimed)
    };
    let own = config.workers.get(stem);
    if own.is_some_and(|own| {
        own.worker_id
            .as_ref()
            .is_some_and(|id| id.as_str() != claimed)
    }) {
        return Some(format!(
            "worker id {claimed} is not the one that the operator gave to this file"
        ));
    }
    let (owner, _) = config.workers.iter().find(bound)?;
    (owner != stem).then(|| {
        format!("worker id {claimed} belongs to the file {owner:?}: so says the configuration")
    })
}

/// The operator's word for this file, else the worker's up to the operator's ceiling, else the
/// operator's default. A minimum that is declared without a maximum raises the default. No invocation
/// may have more memory than the machine has for all of them: a maximum beyond that is no demand.
pub(super) fn limits(
    default: &LimitSettings,
    operator: Option<&WorkerSettings>,
    declared: Option<&Constraints>,
    machine: Option<&Machine>,
) -> Limits {
    let memory = declared
        .and_then(|declared| {
            let least = declared.min_memory_mb.map(ByteCount::mib);
            let most = declared.max_memory_mb.map(ByteCount::mib);
            most.or(least.filter(|least| *least > default.memory))
        })
        .map(|most| most.min(default.max_memory));
    let memory = operator
        .and_then(|operator| operator.memory)
        .or(memory)
        .unwrap_or(default.memory);
    let cpu = declared
        .and_then(|declared| declared.max_cpu_ms)
        .map(|ms| Duration::from_millis(ms.into()));
    let storage = declared
        .and_then(|declared| declared.tmp_storage_mb)
        .map(|mb| ByteCount::mib(mb).min(default.max_tmp));
    let gpu = declared
        .and_then(|declared| declared.gpu_memory_mb)
        .map(|mb| ByteCount::mib(mb).min(default.max_gpu));
    Limits {
        memory: machine
            .map_or(memory, |machine| memory.min(machine.budget))
            .get(),
        wall: operator
            .and_then(|operator| operator.wall)
            .unwrap_or(default.wall),
        cpu: operator
            .and_then(|operator| operator.cpu)
            .or(cpu)
            .unwrap_or(default.cpu),
        input: usize::try_from(default.input.get()).unwrap_or(usize::MAX),
        output: usize::try_from(default.output.get()).unwrap_or(usize::MAX),
        handed: Handed {
            bytes: default.hostcall.get(),
            items: default.hostcalls,
        },
        storage: storage.unwrap_or(default.tmp).get(),
        files: default.tmp_files,
        gpu_memory: gpu.unwrap_or(default.gpu).get(),
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

/// What a capability bids for its place in the worker's line, up to the operator's ceiling.
pub(super) fn bid(default: &LimitSettings, declared: Option<f64>) -> f64 {
    declared.unwrap_or_default().min(default.max_slo_bid.into())
}

/// How many invocations of the worker run at once, and how many calls wait for it.
pub(super) fn lane(default: &LimitSettings, operator: Option<&WorkerSettings>) -> Lane {
    let concurrency = operator.and_then(|operator| operator.concurrency);
    Lane::new(
        concurrency.unwrap_or(default.worker_concurrency),
        default.queue,
    )
}

/// The worker's weight against other workers: the operator's word for this file, else what its
/// capabilities agree on up to the operator's ceiling, else the default.
pub(super) fn weight(
    default: &LimitSettings,
    operator: Option<&WorkerSettings>,
    capabilities: &[Capability],
) -> u32 {
    let declared = capabilities
        .iter()
        .find_map(|capability| capability.constraints.as_ref()?.cpu_shares);
    operator
        .and_then(|operator| operator.cpu_shares)
        .unwrap_or_else(|| {
            declared
                .unwrap_or(DEFAULT_WEIGHT)
                .min(default.max_cpu_shares)
        })
}
