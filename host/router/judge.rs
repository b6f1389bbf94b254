//! What the policy says of a call: of each candidate, by what is known already or by asking now.

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::facts::{Facts, facts};
use super::{Call, Router};
use crate::error::{Code, Failure};
use crate::registry::{Candidate, Provider, Snapshot};
use crate::rules::{Asking, Denial, Late};

/// How long questions may take that no call with a deadline asks: lists, explanations.
pub(super) const PATIENCE: Duration = Duration::from_secs(2);

/// Candidates that the caller may not call, by their places, and why.
#[derive(Default)]
pub(super) struct Barred(Vec<(usize, Arc<Denial>)>);

impl Barred {
    /// Why a candidate is barred, if it is.
    pub fn denial(&self, number: usize) -> Option<&Denial> {
        let mut denials = self.0.iter();
        let (_, denial) = denials.find(|(at, _)| *at == number)?;
        Some(denial)
    }

    /// The facts of a candidate, with what the policy says.
    pub fn facts<'a>(
        &'a self,
        number: usize,
        candidate: &'a Candidate,
        now: Instant,
        all: bool,
    ) -> Facts<'a> {
        Facts {
            denied: self.denial(number).map(|denial| denial.rules.as_str()),
            ..facts(number, candidate, now, all)
        }
    }
}

impl Router {
    /// Judges all candidates of a call. What was judged before costs a look into a table.
    ///
    /// # Errors
    ///
    /// `deadline`: it was not done until then.
    pub(super) async fn judge(
        &self,
        candidates: &[Candidate],
        who: Who<'_>,
        until: Instant,
    ) -> Result<Barred, Failure> {
        let rules = self.registry().rules();
        let Some(revision) = rules.revision() else {
            return Ok(Barred::default());
        };
        let asking = who.asks(revision);
        let hash = asking.hash();
        let mut barred = Barred::default();
        let mut unknown = Vec::new();
        for (number, candidate) in candidates.iter().enumerate() {
            match candidate.offered.verdicts.get(&asking, hash) {
                Some(denied) => barred.0.extend(denied.map(|denial| (number, denial))),
                None => unknown.push(number),
            }
        }
        if unknown.is_empty() {
            return Ok(barred);
        }
        let unknown: Vec<(usize, &Candidate)> = unknown
            .into_iter()
            .filter_map(|number| Some((number, candidates.get(number)?)))
            .collect();
        let inputs = unknown.iter().map(|(_, at)| input(&who, at)).collect();
        // Calls that a worker makes are its caller's.
        let judged = rules.invoke(inputs, who.origin, until).await;
        let (revision, judged) = judged.map_err(|Late| {
            let message = "the deadline passed before the policy had judged the call";
            Failure::new(Code::Deadline, message)
        })?;
        // Another may have come to hold meanwhile.
        let asking = who.asks(revision);
        let hash = asking.hash();
        for ((number, candidate), judgement) in unknown.into_iter().zip(judged) {
            let denied = candidate.offered.verdicts.put(&asking, hash, &judgement);
            barred.0.extend(denied.map(|denial| (number, denial)));
        }
        Ok(barred)
    }

    /// What is offered now, as far as a caller may call it. Whom the host does not know is shown everything.
    ///
    /// # Errors
    ///
    /// `deadline`: the policy has more to judge than there is time.
    pub async fn shown(&self, caller: Option<&str>) -> Result<Arc<Snapshot>, Failure> {
        let until = Instant::now() + PATIENCE;
        let snapshot = self.registry().snapshot();
        let mut shown = Vec::new();
        let mut offered = 0;
        for candidates in snapshot.offers() {
            offered += candidates.len();
            shown.extend(self.callable_by(candidates, caller, until).await?);
        }
        if shown.len() == offered {
            return Ok(Arc::clone(&snapshot));
        }
        Ok(Arc::new(snapshot.only(shown)))
    }

    /// Of those who offer a capability the ones that a caller may call.
    ///
    /// # Errors
    ///
    /// As of [`Router::shown`].
    pub async fn callable(
        &self,
        candidates: &[Candidate],
        caller: Option<&str>,
    ) -> Result<Vec<Candidate>, Failure> {
        let until = Instant::now() + PATIENCE;
        self.callable_by(candidates, caller, until).await
    }

    async fn callable_by(
        &self,
        candidates: &[Candidate],
        caller: Option<&str>,
        until: Instant,
    ) -> Result<Vec<Candidate>, Failure> {
        if caller.is_none() {
            return Ok(candidates.to_vec());
        }
        let who = Who::first(caller);
        let barred = self.judge(candidates, who, until).await?;
        let numbered = candidates.iter().enumerate();
        let callable = numbered.filter(|(number, _)| barred.denial(*number).is_none());
        Ok(callable.map(|(_, candidate)| candidate.clone()).collect())
    }
}

/// Who calls, as far as a policy can tell callers apart.
#[derive(Clone, Copy, Debug, Default)]
pub struct Who<'a> {
    /// SPIFFE id of who calls, where the host knows.
    pub caller: Option<&'a str>,
    /// SPIFFE id of who called first, where the host knows.
    pub origin: Option<&'a str>,
    /// Calls that wait for this one; 0: no worker made it.
    pub depth: usize,
}

impl<'a> Who<'a> {
    /// Who begins a chain of calls.
    pub(super) fn first(caller: Option<&'a str>) -> Self {
        Self {
            caller,
            origin: caller,
            depth: 0,
        }
    }

    pub(super) fn of(call: &'a Call) -> Self {
        Self {
            caller: call.caller.as_deref(),
            origin: call.origin(),
            depth: call.chain.as_ref().map_or(0, |chain| chain.path.len()),
        }
    }

    fn asks(&self, revision: u64) -> Asking<'a> {
        Asking {
            revision,
            caller: self.caller,
            origin: self.origin,
            depth: self.depth,
        }
    }
}

/// The document of `crank.invoke`.
pub fn input(who: &Who<'_>, candidate: &Candidate) -> Value {
    let capability = &candidate.offered.capability;
    let (place, file) = match &candidate.provider {
        Provider::Local(worker) => ("local", worker.file().file_stem()),
        Provider::Remote(_) => ("remote", None),
    };
    let required = capability.required_capabilities.iter().flatten();
    json!({
        "caller": who.caller,
        "origin": who.origin,
        "nested": who.depth > 0,
        "depth": who.depth,
        "capability": {
            "verb": capability.verb.to_string(),
            "name": capability.name.to_string(),
            "version": capability.version.to_string(),
        },
        "worker": {
            "id": &**candidate.provider.worker_id(),
            "spiffe_id": capability.spiffe_id.as_ref().map(ToString::to_string),
            "file": file.map(|stem| stem.to_string_lossy()),
            "place": place,
            "required_capabilities": required.map(ToString::to_string).collect::<Vec<_>>(),
        },
    })
}

/// The refusal of a call: its rules for the caller, their reasons for the log.
pub(super) fn denied(facts: &[Facts<'_>], barred: &Barred) -> Failure {
    let denials = facts.iter().filter_map(|facts| barred.denial(facts.number));
    let mut denials: Vec<&Denial> = denials.collect();
    denials.dedup();
    let all = |text: fn(&Denial) -> &str| {
        let texts: Vec<&str> = denials.iter().map(|denial| text(denial)).collect();
        texts.join("; ")
    };
    let message = format!("the policy denies it: {}", all(|denial| &denial.rules));
    Failure::new(Code::Denied, message).with_cause(all(|denial| &denial.reasons))
}

/// Writes down who was refused what.
pub(super) fn audit(call: &Call, failure: &Failure) {
    if failure.code != Code::Denied {
        return;
    }
    let who = Who::of(call);
    let name = call.name.as_deref().map(|name| format!(":{name}"));
    let capability = format!("{}{}", call.verb, name.unwrap_or_default());
    let reason = failure.cause.as_deref().unwrap_or(&failure.message);
    tracing::warn!(
        target: "audit", request_id = call.request_id, caller = who.caller, origin = who.origin,
        capability, code = %failure.code, rule = failure.message, reason, "refused"
    );
}
