//! Calls of workers to other capabilities: what may be called, by whom, and how deep.

use std::sync::Arc;
use std::time::Instant;

use semver::VersionReq;

use super::{Answer, Call, Router};
use crate::capability::Required;
use crate::error::{Code, Failure};
use crate::sandbox::{Dispatch, Dispatched, Payload, PeerCall};
use crate::worker::Offered;

/// Calls within calls.
const DEPTH: usize = 8;

/// How a call came about, where a worker made it.
#[derive(Clone, Debug)]
pub struct Chain {
    /// SPIFFE id of who called first, where the host knows.
    pub origin: Option<String>,
    /// The capabilities that wait for this call, the first one first.
    pub path: Vec<Arc<str>>,
    /// The hosts that forwarded the first one of them here.
    pub forwarded: Vec<String>,
    /// When the one that waits for it has to end.
    pub deadline: Instant,
}

/// One invocation's way to its peers.
pub(super) struct Peers {
    pub router: Router,
    pub offered: Arc<Offered>,
    pub request_id: String,
    pub traceparent: Option<String>,
    /// Up to and including this invocation.
    pub chain: Chain,
}

impl Dispatch for Peers {
    fn dispatch(self: Arc<Self>, call: PeerCall) -> Dispatched {
        Box::pin(async move { self.call(call).await })
    }
}

impl Peers {
    async fn call(&self, call: PeerCall) -> Result<Payload, Failure> {
        let began = Instant::now();
        let path = format!(
            "{} > {}",
            self.chain.path.join(" > "),
            call.capability.escape_debug()
        );
        let answered = match self.allowed(&call.capability) {
            Ok((verb, name, version)) => {
                self.router
                    .invoke(self.nested(call, verb, name, version))
                    .await
            }
            Err(failure) => {
                tracing::warn!(
                    target: "audit", request_id = self.request_id, caller = self.spiffe_id(),
                    capability = call.capability, path, code = %failure.code,
                    reason = failure.message, "refused"
                );
                Err(failure)
            }
        };
        let ms = began.elapsed().as_secs_f64() * 1e3;
        let (code, cause, worker) = match &answered {
            Ok(answer) => (None, None, Some(&*answer.worker_id)),
            Err(failure) => (
                Some(failure.code.as_str()),
                failure.cause.as_deref(),
                failure.worker_id.as_deref(),
            ),
        };
        tracing::info!(
            request_id = self.request_id,
            path,
            worker,
            code,
            cause,
            ms,
            "peer call"
        );
        answered.map(|Answer { payload, .. }| payload)
    }

    /// What the guest may call: of what its capability lists, at a version that both ask for.
    fn allowed(&self, capability: &str) -> Result<(String, String, Option<VersionReq>), Failure> {
        let denied = |message| Err(Failure::new(Code::Denied, message));
        let Ok(Required::Capability {
            verb,
            name,
            requirement,
        }) = Required::parse(capability)
        else {
            return Err(Failure::new(
                Code::InvalidRequest,
                format!(
                    "{capability:?} is no capability; it is written verb:name, perhaps with @ and a requirement"
                ),
            ));
        };
        let listed = self
            .offered
            .capability
            .required_capabilities
            .iter()
            .flatten();
        let Some(declared) = listed.into_iter().find_map(|required| match required {
            Required::Capability {
                verb: listed_verb,
                name: listed_name,
                requirement,
            } if (listed_verb, listed_name) == (&verb, &name) => Some(requirement),
            _ => None,
        }) else {
            return denied(format!(
                "{} does not list {verb}:{name} in its required_capabilities",
                self.offered.id
            ));
        };
        let id = format!("{verb}:{name}");
        if self.chain.path.iter().any(|above| **above == *id) {
            return denied(format!(
                "{id} waits for this call itself: calls go in no circle"
            ));
        }
        if self.chain.path.len() >= DEPTH {
            return denied(format!("calls within calls go no deeper than {DEPTH}"));
        }
        let comparators: Vec<_> = [declared, &requirement]
            .into_iter()
            .flatten()
            .flat_map(|wanted| wanted.comparators.clone())
            .collect();
        let version = (!comparators.is_empty()).then_some(VersionReq { comparators });
        Ok((verb.to_string(), name.to_string(), version))
    }

    fn nested(
        &self,
        call: PeerCall,
        verb: String,
        name: String,
        version: Option<VersionReq>,
    ) -> Call {
        Call {
            version,
            parameters: call.parameters,
            caller: self.spiffe_id().map(str::to_owned),
            timeout: call.timeout,
            traceparent: self.traceparent.clone(),
            path: self.chain.forwarded.clone(),
            chain: Some(self.chain.clone()),
            ..Call::new(self.request_id.clone(), verb, Some(name), call.input)
        }
    }

    fn spiffe_id(&self) -> Option<&str> {
        self.offered
            .capability
            .spiffe_id
            .as_ref()
            .map(|id| id.as_str())
    }
}
