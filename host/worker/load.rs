//! From a file to a worker, or to every reason why not.

use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};

use wasmtime::component::Component;

use super::held::Known;
use super::{
    Binary, Breaker, Load, Offered, Refused, Snapshotted, Starting, Worker, applicant, image,
    placement, storage, terms,
};
use crate::capability::{self, Capability, Required, WorkerId};
use crate::config::Config;
use crate::engine::{Engine, Image, Origin};
use crate::error::Failure;
use crate::gpu::{self, Adapter, Seat};
use crate::limits::{Handed, Limits};
use crate::policy::{self, Buckets, Grants, Import, Interface, OperatorGrants};
use crate::rules::Verdicts;
use crate::sandbox::{self, Rates, Sandbox, Shelf};
use crate::striped::Shared;

/// Limits of `declare`: it only builds a description. More wall time than CPU time, since a host that
/// starts may be busy compiling.
pub(super) const DECLARE: Limits = Limits {
    memory: 256 << 20,
    wall: Duration::from_secs(10),
    cpu: Duration::from_secs(2),
    input: 0,
    output: 4 << 20,
    handed: Handed {
        bytes: 4 << 20,
        items: 10_000,
    },
    storage: 0,
    files: 0,
    gpu_memory: 0,
};

/// One component on its way to being a worker.
pub(super) struct Loading<'a> {
    pub engine: &'a Engine,
    pub config: &'a Config,
    pub binary: &'a Binary,
    /// Whether it waits for the drivers' answer, where it needs that.
    pub waits: bool,
}

/// Why there is no worker.
pub(super) enum Unready {
    Refused(Refused),
    Starting(Starting),
}

impl From<Refused> for Unready {
    fn from(refused: Refused) -> Self {
        Self::Refused(refused)
    }
}

impl Loading<'_> {
    pub async fn run(&self) -> Result<Worker, Unready> {
        let stem = self.stem();
        let operator = self.config.workers.get(&stem);
        let wanted = operator
            .and_then(|operator| operator.snapshot)
            .unwrap_or(self.config.snapshot);
        let (component, mut origin, mut snapshotted) = self.prepared(wanted).await?;
        let declared = sandbox::declare(self.engine, stem.clone().into(), &component, DECLARE)
            .await
            .map_err(|failure| self.binary.refused(None, vec![declare_failed(&failure)]))?;
        let said = (snapshotted == Snapshotted::Pending).then(|| image::said(&declared));
        // An id that is none is not repeated to anyone.
        let claimed = WorkerId::parse(&declared.worker_id)
            .ok()
            .map(|id| id.to_string());
        let refused = |reasons| self.binary.refused(claimed.clone(), reasons);

        let capabilities = capability::check(declared.into())
            .map_err(|problems| refused(problems.iter().map(ToString::to_string).collect()))?;
        let operator = self.config.workers.get(&stem);
        let mut capabilities = capabilities;
        for capability in &mut capabilities {
            let granted = operator.and_then(|operator| operator.spiffe_id.as_ref());
            capability.spiffe_id = capability.spiffe_id.take().or(granted.cloned());
        }
        let imports = sandbox::imports(self.engine, &component);
        let mut reasons = terms::foreign_ids(self.config, &stem, &capabilities);
        let stolen = claimed
            .as_deref()
            .and_then(|id| terms::foreign_worker_id(self.config, &stem, id));
        reasons.extend(stolen);
        let id = claimed.as_deref().unwrap_or(&stem);
        let document = || applicant::document(&self.binary.file, id, capabilities.iter(), &imports);
        reasons.extend(self.engine.rules().refusals(document).await);
        let known = Known {
            weight: terms::weight(&self.config.limits, operator, &capabilities),
            megabits: terms::megabits(&self.config.limits, &capabilities),
            quotas: terms::quotas(&self.config.limits, &capabilities),
            machine: self.engine.machine(),
            relaxed: operator.map_or(&[], |operator| &operator.relax),
        };
        let limits = |capability: &Capability| {
            let declared = capability.constraints.as_ref();
            terms::limits(&self.config.limits, operator, declared, known.machine)
        };
        let asks = |at: &Capability| placement::asks_for_gpu(at, known.relaxed);
        let imported = |name: &String| name.starts_with("crank:gpu/");
        let adapters = match capabilities.iter().any(asks) || imports.iter().any(imported) {
            true if self.waits => self.engine.gpus().await,
            true => match self.engine.known_gpus() {
                Some(known) => known,
                // What is refused in any case need not wait.
                None if !reasons.is_empty() => return Err(refused(reasons).into()),
                None => {
                    return Err(Unready::Starting(Starting {
                        file: self.binary.file.clone(),
                        worker_id: id.to_owned(),
                        capabilities,
                    }));
                }
            },
            false => &[],
        };
        if let Some(machine) = known.machine {
            let found = adapters.iter().filter_map(|adapter| adapter.found.placed());
            let gpus = machine.gpus.clone().unwrap_or_else(|| found.collect());
            reasons.extend(capabilities.iter().flat_map(|capability| {
                let limits = limits(capability);
                placement::refusals(capability, &limits, machine, &gpus, known.relaxed, &stem)
            }));
        }
        let grants = match granted(
            &imports,
            &capabilities,
            &OperatorGrants::new(&stem, operator),
        ) {
            Ok(grants) if reasons.is_empty() => grants,
            Ok(_) => return Err(refused(reasons).into()),
            Err(refusals) => {
                reasons.extend(refusals);
                return Err(refused(reasons).into());
            }
        };
        let gpu = match grants.iter().any(|linked| linked == Interface::Gpu) {
            true => {
                Some(seat(adapters, &capabilities, limits).map_err(|lack| refused(vec![lack]))?)
            }
            false => None,
        };
        let files = storage::source(self.config, operator, &grants, &capabilities)
            .await
            .map_err(|reason| refused(vec![reason]))?;
        let id: Arc<str> = claimed.as_deref().unwrap_or(&stem).into();
        let id = Shared::from(id);
        let mut component = component;
        if snapshotted == Snapshotted::Used
            && let Err(reason) = image::fits(&component, capabilities.iter().map(limits))
        {
            snapshotted = Snapshotted::Refused(reason);
            (component, origin) = self.component().await?;
        }
        let sandbox = Sandbox::new(
            self.engine,
            id.clone(),
            &component,
            &grants,
            Rates {
                weight: known.weight,
                megabits: known.megabits,
            },
        )
        .map_err(|error| refused(vec![format!("does not link: {error:#}")]))?
        .with_files(files)
        .with_gpu(gpu);
        let sandbox = match self.engine.state() {
            Some(state)
                if grants
                    .iter()
                    .any(|linked| linked == Interface::WasiKeyvalue) =>
            {
                sandbox.with_shelf(Shelf {
                    state: state.clone(),
                    stem,
                    quotas: known.quotas,
                    buckets: capabilities.iter().map(buckets).collect(),
                })
            }
            _ => sandbox,
        };
        // A host without a name is meant by nobody.
        let controller_id = self.config.controller_id.as_deref().unwrap_or_default();
        let offered = capabilities
            .into_iter()
            .map(|capability| {
                let limits = limits(&capability);
                Arc::new(Offered {
                    id: capability.key().into(),
                    bid: terms::bid(&self.config.limits, capability.slo_bid),
                    affinity: capability.affinity(controller_id),
                    limits,
                    constraints: known.held(&capability, &limits),
                    series: OnceLock::new(),
                    verdicts: Verdicts::default(),
                    capability,
                })
            })
            .collect();
        Ok(Worker {
            id,
            file: self.binary.file.clone(),
            digest: self.binary.digest(),
            deployed_at: self.binary.modified,
            owner: operator.and_then(|operator| operator.owner.clone()),
            offered,
            imports,
            calls_peers: grants.iter().any(|granted| granted == Interface::Peers),
            sandbox,
            origin,
            said,
            snapshotted: Mutex::new(snapshotted),
            called: AtomicBool::new(false),
            lane: Arc::new(terms::lane(&self.config.limits, operator)),
            breaker: Breaker::default(),
            load: Arc::new(Load::default()),
        })
    }

    /// The component, or where it was taken before its init snapshot.
    async fn prepared(&self, wanted: bool) -> Result<(Component, Origin, Snapshotted), Refused> {
        let kept = match wanted {
            true => self.engine.kept_image(self.binary.digest()).await,
            false => Ok(None),
        };
        let snapshotted = match kept {
            Ok(Some(Image::Taken(image))) => {
                return Ok((image, Origin::Cached, Snapshotted::Used));
            }
            Ok(Some(Image::Refused(reason))) => Snapshotted::Refused(reason),
            _ if wanted => Snapshotted::Pending,
            _ => Snapshotted::Off,
        };
        let (component, origin) = self.component().await?;
        Ok((component, origin, snapshotted))
    }

    /// Takes the code from the cache, or compiles.
    async fn component(&self) -> Result<(Component, Origin), Refused> {
        let refused = |reason| self.binary.refused(None, vec![reason]);
        let digest = self.binary.digest();
        let kept = self.engine.kept_code(digest).await;
        if let Some(component) = kept.map_err(|error| refused(error.to_string()))? {
            return Ok((component, Origin::Cached));
        }
        let bytes = self.binary.bytes().await.map_err(refused)?;
        let name = self
            .binary
            .file
            .file_name()
            .unwrap_or_default()
            .to_string_lossy();
        let began = Instant::now();
        let kib = bytes.len() >> 10;
        let compiling = || tracing::info!("compiling {name} ({kib} KiB), once: the code is kept");
        let made = self.engine.component(bytes, digest, compiling).await;
        let component = made.map_err(|error| refused(error.to_string()))?;
        tracing::info!("compiled {name} in {:.1} s", began.elapsed().as_secs_f64());
        Ok((component, Origin::Compiled))
    }

    fn stem(&self) -> String {
        self.binary
            .file
            .file_stem()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned()
    }
}

/// A place on the best GPU of the kind that is asked for, else on the best there is: where that may not
/// be, placement has said so.
fn seat(
    adapters: &[Adapter],
    capabilities: &[Capability],
    limits: impl Fn(&Capability) -> Limits,
) -> Result<Seat, String> {
    let asked = capabilities
        .iter()
        .find_map(|capability| capability.constraints.as_ref()?.gpu_type);
    let fits = |adapter: &&Adapter| asked.is_none() || adapter.found.kind == asked;
    let adapter = adapters.iter().find(fits).or(adapters.first());
    let adapter = adapter.ok_or_else(|| {
        let none = gpu::NONE;
        format!("imports crank:gpu/compute, and {none}; `crank gpu` says what to do")
    })?;
    let kept = capabilities
        .iter()
        .map(|capability| limits(capability).gpu_memory);
    Ok(Seat::new(adapter.clone(), kept.max().unwrap_or_default()))
}

/// What one capability may open, which its operator has granted.
fn buckets(capability: &Capability) -> (Arc<str>, Buckets) {
    let required = capability.required_capabilities.as_deref();
    (
        capability.key().into(),
        Buckets::of(required.unwrap_or_default()),
    )
}

/// What the component may be linked to, or every reason why not.
fn granted(
    imports: &[String],
    capabilities: &[Capability],
    operator: &OperatorGrants<'_>,
) -> Result<Grants, Vec<String>> {
    let mut parsed = Vec::new();
    for name in imports {
        let unknown = || {
            vec![format!(
                "imports {name}, which is no interface; a component's world imports interfaces"
            )]
        };
        parsed.push(Import::parse(name).ok_or_else(unknown)?);
    }
    let declared: Vec<Required> = capabilities
        .iter()
        .filter_map(|capability| capability.required_capabilities.as_ref())
        .flatten()
        .cloned()
        .collect();
    policy::decide(&parsed, &declared, operator)
        .map_err(|refusals| refusals.iter().map(ToString::to_string).collect())
}

fn declare_failed(failure: &Failure) -> String {
    match &failure.cause {
        Some(cause) => format!("`declare` failed: {failure} ({cause})"),
        None => format!("`declare` failed: {failure}"),
    }
}
