//! What the operator says of remote workers, and what follows for each.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use ipnet::IpNet;

use super::super::address::{Address, within};
use super::super::link::Proof;
use super::super::{Endpoint, Entry, Registration, Source, limits, may_offer};
use crate::auth::Outgoing;
use crate::capability::Capability;
use crate::config::{Config, Registrar, WorkerSettings};
use crate::error::{Code, Failure};
use crate::identity::{SpiffeId, TrustDomain};
use crate::limits::Limits;

/// What the operator says of remote workers.
pub struct Terms {
    trust_domain: TrustDomain,
    /// Ids that belong to files.
    bound: Vec<WorkerSettings>,
    ranges: Vec<IpNet>,
    registrars: Vec<Registrar>,
    operators: Vec<SpiffeId>,
    limits: Limits,
    max_bid: f64,
    /// What proves who remote workers are.
    pub outgoing: Arc<Outgoing>,
}

impl Terms {
    pub fn new(config: &Config) -> Result<Self, String> {
        // Who calls no other machine needs no key for it: not everyone who runs `crank invoke` may read the host's.
        let has_remotes = config.capabilities.is_some() || !config.remote_addresses.is_empty();
        let files = config.identity.tls.as_ref().filter(|_| has_remotes);
        Ok(Self {
            trust_domain: config.trust_domain.clone(),
            bound: config.workers.values().cloned().collect(),
            ranges: config.remote_addresses.clone(),
            registrars: config.identity.registrars.clone(),
            operators: config.identity.operators.clone(),
            limits: limits(config),
            max_bid: config.limits.max_slo_bid.into(),
            outgoing: Arc::new(Outgoing::open(files, &config.trust_domain)?),
        })
    }

    /// Whether a registrar may offer this, as the configuration is now.
    pub fn grants(&self, owner: &SpiffeId, capability: &Capability) -> Result<(), Failure> {
        let mut registrars = self.registrars.iter();
        match registrars.find(|registrar| registrar.id == *owner) {
            Some(registrar) => may_offer(registrar, capability),
            None => {
                let message = format!("{owner} does not stand in identity.registrars");
                Err(Failure::new(Code::Denied, message))
            }
        }
    }

    /// Whether who registered something as an operator might still.
    pub fn is_operator(&self, id: &SpiffeId) -> bool {
        let mut registrars = self.registrars.iter();
        registrars.any(|registrar| registrar.id == *id) && self.operators.contains(id)
    }

    /// Whether the ids that it claims may be a remote worker's.
    pub fn owns(&self, capability: &Capability) -> Result<(), Failure> {
        let worker_id = &capability.worker_id;
        if self
            .bound
            .iter()
            .any(|bound| bound.worker_id.as_ref() == Some(worker_id))
        {
            let message = format!(
                "worker id {worker_id} belongs to a file of this host: so says the configuration"
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        let Some(id) = &capability.spiffe_id else {
            return Ok(());
        };
        if !id.is_member_of(&self.trust_domain) {
            let message = format!(
                "spiffe_id {id} is outside the trust domain {}",
                self.trust_domain
            );
            return Err(Failure::new(Code::Denied, message));
        }
        if self
            .bound
            .iter()
            .any(|bound| bound.spiffe_id.as_ref() == Some(id))
        {
            let message =
                format!("spiffe_id {id} belongs to a file of this host: so says the configuration");
            return Err(Failure::new(Code::Conflict, message));
        }
        Ok(())
    }

    /// Those of the addresses that the operator allows.
    pub fn allowed(
        &self,
        address: &Address,
        found: &[SocketAddr],
    ) -> Result<Vec<SocketAddr>, Failure> {
        let allowed = within(found, &self.ranges);
        if allowed.is_empty() {
            let message = format!(
                "{} is at no address that the operator allows; remote_addresses in crank.toml names the ranges, such as [\"127.0.0.0/8\", \"::1/128\"]",
                address.url()
            );
            return Err(Failure::new(Code::Denied, message));
        }
        Ok(allowed)
    }

    /// Where a capability's worker is reached.
    pub fn endpoint(
        &self,
        address: Address,
        pinned: Option<Vec<SocketAddr>>,
        capability: &Capability,
    ) -> Arc<Endpoint> {
        let proof = Proof {
            outgoing: self.outgoing.clone(),
            id: capability.spiffe_id.clone(),
        };
        Arc::new(Endpoint::new(address, pinned, proof))
    }

    pub fn entry(
        &self,
        capability: Capability,
        registration: Registration,
        source: Source,
        endpoint: Arc<Endpoint>,
    ) -> Entry {
        let load = registration.load_score.unwrap_or_default();
        Entry {
            has_schema: registration.schema.is_some(),
            source,
            endpoint,
            owner: None,
            operator: None,
            limits: self.limits,
            bid: capability.slo_bid.unwrap_or_default().min(self.max_bid),
            load: AtomicU64::new(load.to_bits()),
            expires: AtomicU64::new(u64::MAX),
            capability,
            registration,
        }
    }
}
