//! `GET /workers`: who serves, what each may use and has used at most, and who was refused and why.

use std::ffi::OsStr;
use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::capability::Constraint;
use crate::engine::Origin;
use crate::remote::Remote;
use crate::router::Router;
use crate::worker::{Observed, Offered, Refused, Snapshotted, Starting, Worker};

/// Everything that the snapshot holds. Files appear by name: the host's paths are nobody's business.
pub(super) fn view(router: &Router) -> Value {
    let snapshot = router.registry().snapshot();
    let workers: Vec<Value> = snapshot
        .workers()
        .iter()
        .map(|worker| loaded(router, worker, snapshot.refused()))
        .collect();
    let refused: Vec<Value> = snapshot.refused().iter().map(refusal).collect();
    let starting = snapshot.starting().iter();
    let starting: Vec<Value> = starting.map(|starting| waiting(starting)).collect();
    let called = snapshot
        .remote()
        .remotes
        .iter()
        .map(|remote| remote_worker(remote));
    let not_called = snapshot.remote().refused.iter().map(|refused| {
        json!({
            "worker_id": refused.worker_id(),
            "url": refused.url(),
            "source": refused.source().as_str(),
            "capability": refused.capability().key(),
            "version": refused.capability().version.to_string(),
            "health": "refused",
            "reason": refused.reason(),
        })
    });
    let remote: Vec<Value> = called.chain(not_called).collect();
    json!({ "workers": workers, "starting": starting, "refused": refused, "remote": remote })
}

fn remote_worker(remote: &Remote) -> Value {
    let condition = remote.endpoint().condition();
    let capability = &remote.offered().capability;
    let mut view = json!({
        "worker_id": &**remote.worker_id(),
        "url": remote.url(),
        "source": remote.source().as_str(),
        "capability": &*remote.offered().id,
        "version": capability.version.to_string(),
        "load_score": remote.load_score(),
        "idempotent": remote.is_idempotent(),
        "health": condition.health,
        "in_flight": condition.in_flight,
        "calls": condition.calls,
        "broken": condition.broken,
    });
    if let Some(reason) = condition.reason {
        view["reason"] = reason.into();
    }
    if let Some(left) = remote.expires_in() {
        view["expires_in_s"] = left.as_secs().into();
    }
    view
}

fn loaded(router: &Router, worker: &Worker, refused: &[Refused]) -> Value {
    let observed = worker.observed();
    // A file that serves and is refused has a later version that may not.
    let update = refused.iter().find(|update| update.file == worker.file());
    json!({
        "worker_id": &**worker.id(),
        "file": file_name(worker.file()),
        "refused_update": update.map(|update| &update.reasons),
        "code": match worker.origin() {
            Origin::Compiled => "compiled",
            Origin::Cached => "cached",
        },
        "snapshot": snapshot(&worker.snapshotted()),
        "imports": worker.imports(),
        "load_score": worker.load_score(),
        "health": health(worker),
        "in_flight": observed.in_flight,
        "calls": observed.calls,
        "cpu_ms": ms(observed.cpu_total),
        "gpu_ms": ms(observed.gpu_total),
        "highest_use": {
            "memory_bytes": observed.memory_peak,
            "cpu_ms": ms(observed.cpu_peak),
            "wall_ms": ms(observed.wall_peak),
        },
        "capabilities": worker.offered().iter().map(|offered| capability(router, offered, &observed)).collect::<Vec<_>>(),
    })
}

fn waiting(starting: &Starting) -> Value {
    let capabilities = starting.capabilities.iter();
    json!({
        "worker_id": starting.worker_id,
        "file": file_name(&starting.file),
        "capabilities": capabilities.map(|capability| capability.key()).collect::<Vec<_>>(),
        "reason": "the drivers are asked which GPUs there are",
    })
}

fn snapshot(snapshotted: &Snapshotted) -> Value {
    let mut view = json!({ "state": snapshotted.as_str() });
    if let Snapshotted::Refused(reason) = snapshotted {
        view["reason"] = reason.as_str().into();
    }
    view
}

fn health(worker: &Worker) -> Value {
    let (breaker, now) = (worker.breaker(), Instant::now());
    json!({
        "state": breaker.health(now).as_str(),
        "recent_faults": breaker.faults(),
        "rests_ms": ms(breaker.rests(now)),
    })
}

fn capability(router: &Router, offered: &Offered, observed: &Observed) -> Value {
    let constraints = offered.constraints.iter().map(|held| {
        json!({
            "name": held.constraint,
            "declared": held.declared,
            "in_force": held.in_force,
            "enforced": held.enforced,
            "highest_use": highest_use(held.constraint, observed),
        })
    });
    json!({
        "capability": &*offered.id,
        "version": offered.capability.version.to_string(),
        "enforced": {
            "memory_bytes": offered.limits.memory,
            "wall_ms": ms(offered.limits.wall),
            "cpu_ms": ms(offered.limits.cpu),
            "output_bytes": offered.limits.output,
        },
        "constraints": constraints.collect::<Vec<_>>(),
        "slo": router.series(offered).kept(),
    })
}

/// The most that one invocation of the worker has used of what a constraint limits, in its unit.
fn highest_use(constraint: Constraint, observed: &Observed) -> Option<f64> {
    match constraint {
        Constraint::MaxMemoryMb => Some(observed.memory_peak as f64 / f64::from(1 << 20)),
        Constraint::TmpStorageMb => Some(observed.storage_peak as f64 / f64::from(1 << 20)),
        Constraint::GpuMemoryMb => Some(observed.gpu_memory_peak as f64 / f64::from(1 << 20)),
        Constraint::MaxCpuMs => Some(ms(observed.cpu_peak)),
        // The constraint is a rate, of which a bucket holds a second: the most that one invocation sent.
        Constraint::NetworkBandwidthMbps => Some(observed.sent_peak as f64 * 8e-6),
        _ => None,
    }
}

pub(super) fn refusal(refused: &Refused) -> Value {
    json!({
        "worker_id": refused.worker_id,
        "file": file_name(&refused.file),
        "reasons": refused.reasons,
    })
}

pub(super) fn file_name(path: &Path) -> String {
    path.file_name()
        .map(OsStr::to_string_lossy)
        .unwrap_or_default()
        .into_owned()
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
