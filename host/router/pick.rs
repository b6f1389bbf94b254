//! From a snapshot's candidates to the one that a call goes to, or to why there is none.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use semver::VersionReq;

use super::choose::{self, Ask, Criterion, Decision, choose};
use super::explain::{Explanation, explain};
use super::facts::Facts;
use super::judge::{Barred, PATIENCE, Who, audit, denied};
use super::{Call, Router, Tried, no_name, no_verb, unknown};
use crate::capability::Capability;
use crate::error::{Code, Failure};
use crate::idempotency::Ran;
use crate::registry::{Candidate, Offer, Provider, Snapshot};
use crate::striped::{self, Handle};
use crate::worker::{Health, Offered, Starting};

/// What `explain` is asked: a call without an input.
#[derive(Debug, Default)]
pub struct Question {
    /// What is done.
    pub verb: String,
    /// To what. Absent: each name under the verb.
    pub name: Option<String>,
    /// Which versions will do.
    pub version: Option<VersionReq>,
    /// What has to run it.
    pub runtime: Option<String>,
    /// What kind of machine it has to suit.
    pub env_profile: Option<String>,
    /// Tokens that it may cost at most.
    pub max_cost: Option<f64>,
    /// How long the caller would wait.
    pub patience: Option<Duration>,
    /// SPIFFE id of who would call.
    pub caller: Option<String>,
}

/// Whom a call goes to.
pub(super) struct Chosen {
    pub candidate: Handle<Offer>,
    /// What was known of it.
    pub health: Health,
    pub explanation: Option<Box<Explanation>>,
}

impl Router {
    /// Why a call would go where it would go now, for each name that is meant.
    ///
    /// # Errors
    ///
    /// `unknown-capability`: there is no such verb or name. `deadline`: the policy has more to judge than there is time.
    pub async fn explain(&self, question: &Question) -> Result<Vec<Explanation>, Failure> {
        let Question { verb, name, .. } = question;
        let snapshot = self.registry().snapshot();
        let names = snapshot.names(verb).ok_or_else(|| no_verb(verb))?;
        let ask = Ask {
            version: question.version.as_ref(),
            runtime: question.runtime.as_deref(),
            env_profile: question.env_profile.as_deref(),
            max_cost: question.max_cost,
            patience: question.patience,
        };
        let until = Instant::now() + PATIENCE;
        let mut explained = Vec::new();
        for (key, candidates) in names {
            if name.as_ref().is_none_or(|name| name == key) {
                let who = Who::first(question.caller.as_deref());
                let barred = self.judge(candidates, who, until).await?;
                let facts = gather(candidates, &barred, true, |_| true);
                let decision = choose(&facts, &ask, self.seed());
                explained.push(explain(&format!("{verb}:{key}"), &facts, &ask, decision));
            }
        }
        if let (Some(name), true) = (name, explained.is_empty()) {
            let known: Vec<&str> = names.keys().map(String::as_str).collect();
            return Err(no_name(verb, name, &known));
        }
        Ok(explained)
    }

    /// Chooses among those who offer now what a call names, but for those that were tried. What else is
    /// offered may go before the call ends.
    pub(super) async fn find(
        &self,
        call: &Call,
        began: Instant,
        tried: &Tried,
    ) -> Result<Chosen, Failure> {
        let snapshot = self.registry().snapshot();
        let found = self.find_in(&snapshot, call, began, tried).await;
        found.map_err(|failure| match failure.code {
            Code::UnknownCapability => starting(&snapshot, call).unwrap_or(failure),
            _ => failure,
        })
    }

    async fn find_in(
        &self,
        snapshot: &Snapshot,
        call: &Call,
        began: Instant,
        tried: &Tried,
    ) -> Result<Chosen, Failure> {
        let names = snapshot
            .names(&call.verb)
            .ok_or_else(|| no_verb(&call.verb))?;
        let candidates = match &call.name {
            Some(name) => names.get(name).map(Vec::as_slice).ok_or_else(|| {
                let known: Vec<&str> = names.keys().map(String::as_str).collect();
                no_name(&call.verb, name, &known)
            })?,
            None => {
                let found = self.by_input(names, call, began).await;
                found.inspect_err(|failure| audit(call, failure))?
            }
        };
        let ask = call.ask();
        let barred = self.judge_call(candidates, call, began).await?;
        let facts = gather(
            candidates,
            &barred,
            call.explain,
            remaining(candidates, call, tried),
        );
        let decision = choose(&facts, &ask, self.seed());
        let found = winner(&facts, candidates, &barred, decision, call);
        let (fact, candidate) = found.inspect_err(|failure| audit(call, failure))?;
        let explanation = call.explain.then(|| {
            let mut told = explain(&candidate.offered.id, &facts, &ask, decision);
            told.before = tried.failure.as_ref().map(ToString::to_string);
            Box::new(told)
        });
        Ok(Chosen {
            candidate: candidate.handle(),
            health: fact.health,
            explanation,
        })
    }

    /// Whether the policy lets the call be made of anyone: whom it does not is told nothing of their keys.
    pub(super) async fn permit(&self, call: &Call, began: Instant) -> Result<(), Failure> {
        let snapshot = self.registry().snapshot();
        let mut refusal = None;
        for (name, candidates) in snapshot.names(&call.verb).into_iter().flatten() {
            if call.name.as_ref().is_some_and(|wanted| wanted != name) {
                continue;
            }
            let barred = self.judge_call(candidates, call, began).await?;
            let facts = gather(candidates, &barred, false, |_| true);
            if facts.iter().any(|facts| facts.denied.is_none()) {
                return Ok(());
            }
            refusal.get_or_insert_with(|| denied(&facts, &barred));
        }
        // What is not there at all is told where it is looked for.
        refusal.map_or(Ok(()), Err)
    }

    /// Whether the policy lets the call be made of who ran it before: an answer is not told again to who may no
    /// longer ask. Of a worker that is gone nothing is known but what [`Router::permit`] asks.
    pub(super) async fn permit_again(
        &self,
        call: &Call,
        began: Instant,
        by: &Ran,
    ) -> Result<(), Failure> {
        let snapshot = self.registry().snapshot();
        let ran = |candidate: &&Candidate| {
            *candidate.offered.id == *by.capability
                && **candidate.provider.worker_id() == *by.worker_id
        };
        let own: Vec<Candidate> = snapshot.offers().flatten().filter(ran).cloned().collect();
        let barred = self.judge_call(&own, call, began).await?;
        let facts = gather(&own, &barred, false, |_| true);
        // Which of its versions it was is not known.
        match facts.iter().any(|facts| facts.denied.is_some()) {
            true => Err(denied(&facts, &barred)),
            false => Ok(()),
        }
    }

    /// Whom the choice would fall on.
    pub(super) async fn pick<'a>(
        &self,
        candidates: &'a [Candidate],
        call: &Call,
        began: Instant,
    ) -> Result<&'a Candidate, Failure> {
        let barred = self.judge_call(candidates, call, began).await?;
        let facts = gather(candidates, &barred, false, |_| true);
        let decision = choose(&facts, &call.ask(), self.seed());
        Ok(winner(&facts, candidates, &barred, decision, call)?.1)
    }

    /// Judges the candidates of a call that began then, before the last of their deadlines.
    async fn judge_call(
        &self,
        candidates: &[Candidate],
        call: &Call,
        began: Instant,
    ) -> Result<Barred, Failure> {
        let deadlines = candidates
            .iter()
            .map(|at| call.deadline(&at.offered, began));
        let until = deadlines.max().unwrap_or(began);
        self.judge(candidates, Who::of(call), until).await
    }

    fn seed(&self) -> u64 {
        let count = self.shared.choices.mine().fetch_add(1, Relaxed);
        // Threads count each for itself.
        count << 16 | (striped::thread() as u64 & 0xffff)
    }
}

/// When to ask again for a worker that is starting: most drivers answer in less.
const SOON: Duration = Duration::from_secs(1);

/// That a call comes too early for the one who may serve it.
fn starting(snapshot: &Snapshot, call: &Call) -> Option<Failure> {
    let is_meant = |capability: &&Capability| {
        let (name, version) = (call.name.as_deref(), call.version.as_ref());
        capability.verb.as_str() == call.verb
            && name.is_none_or(|name| capability.name.as_str() == name)
            && version.is_none_or(|wanted| wanted.matches(&capability.version))
    };
    let meant = |at: &Arc<Starting>| at.capabilities.iter().find(is_meant).map(Capability::key);
    let (worker, key) = snapshot
        .starting()
        .iter()
        .find_map(|at| Some((at.worker_id.clone(), meant(at)?)))?;
    let message = format!("`{key}` is starting: the drivers are asked which GPUs there are");
    let mut failure = Failure::new(Code::Unavailable, message).retry_after(SOON);
    failure.worker_id = Some(worker);
    Some(failure)
}

/// Whether a candidate may still serve a call. A call that was forwarded to this host is meant for its
/// components, where one offers what it asks for: hosts that offer the same would else hand it back and
/// forth.
fn remaining(candidates: &[Candidate], call: &Call, tried: &Tried) -> impl Fn(&Candidate) -> bool {
    let version = call.version.as_ref();
    let is_meant = move |candidate: &Candidate| {
        matches!(candidate.provider, Provider::Local(_))
            && version.is_none_or(|wanted| wanted.matches(&candidate.offered.capability.version))
    };
    let own = !call.path.is_empty() && candidates.iter().any(is_meant);
    move |candidate| {
        let same = |tried: &Arc<Offered>| Arc::ptr_eq(tried, &candidate.offered);
        !tried.candidates.iter().any(same) && (!own || is_meant(candidate))
    }
}

/// The facts of those candidates that may serve; all facts, where they are shown or there are several to choose from.
fn gather<'a>(
    candidates: &'a [Candidate],
    barred: &'a Barred,
    shown: bool,
    may_serve: impl Fn(&Candidate) -> bool,
) -> Vec<Facts<'a>> {
    let (now, all) = (Instant::now(), shown || candidates.len() > 1);
    let mut gathered = Vec::with_capacity(candidates.len());
    for (number, candidate) in candidates.iter().enumerate() {
        if may_serve(candidate) {
            gathered.push(barred.facts(number, candidate, now, all));
        }
    }
    gathered
}

/// Whom a decision fell on, or why it fell on nobody.
fn winner<'a, 'b>(
    facts: &'b [Facts<'b>],
    candidates: &'a [Candidate],
    barred: &Barred,
    decision: Decision,
    call: &Call,
) -> Result<(&'b Facts<'b>, &'a Candidate), Failure> {
    let criterion = match decision {
        Decision::Chosen(at) => {
            let found = facts.get(at).and_then(|facts| {
                let candidate = candidates.get(facts.number)?;
                Some((facts, candidate))
            });
            return found.ok_or_else(|| Failure::internal("a choice fell on nobody"));
        }
        Decision::Nobody(criterion) => criterion,
    };
    Err(match criterion {
        Criterion::Policy => denied(facts, barred),
        Criterion::Health => {
            let down = facts.iter().find(|facts| facts.health == Health::Down);
            unreachable(down.and_then(|facts| candidates.get(facts.number)))
        }
        Criterion::Ceiling => {
            let ask = call.ask();
            let dear = |facts: &&Facts| choose::bar(facts, &ask) == Some(Criterion::Ceiling);
            let costs = facts.iter().filter(dear).map(|facts| facts.cost);
            let least = costs.min_by(f64::total_cmp).unwrap_or_default();
            let most = call.max_cost.unwrap_or_default();
            let message = format!(
                "it takes {least} tokens at the least, and {most} may be spent; raise the ceiling"
            );
            Failure::new(Code::CostCeiling, message)
        }
        _ => {
            let versions: Vec<String> = facts
                .iter()
                .map(|facts| facts.version.to_string())
                .collect();
            let name = call.name.as_deref().map(|name| format!(":{name}"));
            unknown(
                &format!("{}{}", call.verb, name.unwrap_or_default()),
                &format!("no version of it matches; there is {}", versions.join(", ")),
            )
        }
    })
}

/// Nobody who would do is alive.
fn unreachable(down: Option<&Candidate>) -> Failure {
    let mut failure = Failure::new(Code::Unavailable, "nobody who offers it can be reached");
    if let Some(Provider::Remote(remote)) = down.map(|down| &down.provider) {
        failure.worker_id = Some(remote.worker_id().to_string());
        failure.cause = remote.endpoint().condition().reason;
    }
    failure
}
