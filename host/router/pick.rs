//! From a snapshot's candidates to the one that a call goes to, or to why there is none.

use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use semver::VersionReq;

use super::choose::{self, Ask, Criterion, Decision, choose};
use super::explain::{Explanation, explain};
use super::facts::{Facts, facts};
use super::{Call, Router, no_name, no_verb, unknown};
use crate::error::{Code, Failure};
use crate::registry::Candidate;
use crate::worker::Pass;

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
}

/// Whom a call goes to.
pub(super) struct Chosen<'a> {
    pub candidate: &'a Candidate,
    /// Its place among all that offer the capability.
    pub number: usize,
    pub pass: Pass<'a>,
    pub explanation: Option<Box<Explanation>>,
}

impl Router {
    /// Why a call would go where it would go now, for each name that is meant.
    ///
    /// # Errors
    ///
    /// `unknown-capability`: there is no such verb or name.
    pub fn explain(&self, question: &Question) -> Result<Vec<Explanation>, Failure> {
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
        let mut explained = Vec::new();
        for (key, candidates) in names {
            if name.as_ref().is_none_or(|name| name == key) {
                let facts = gather(candidates, None);
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

    /// Chooses among those who offer what a call names, but for one that had no room.
    pub(super) fn choose<'a>(
        &self,
        candidates: &'a [Candidate],
        call: &Call,
        before: Option<&(usize, Failure)>,
    ) -> Result<Chosen<'a>, Failure> {
        let ask = call.ask();
        loop {
            let facts = gather(candidates, before.map(|(number, _)| *number));
            let decision = choose(&facts, &ask, self.seed());
            let (fact, candidate) = winner(&facts, candidates, decision, call)?;
            // Somebody else may have become the one call that tries it: then the facts are others now.
            let Some(pass) = candidate.worker.breaker().enter(fact.health) else {
                continue;
            };
            let explanation = call.explain.then(|| {
                let mut told = explain(&candidate.offered.id, &facts, &ask, decision);
                told.before = before.map(|(_, failure)| failure.to_string());
                Box::new(told)
            });
            return Ok(Chosen {
                candidate,
                number: fact.number,
                pass,
                explanation,
            });
        }
    }

    /// Whom the choice would fall on.
    pub(super) fn pick<'a>(
        &self,
        candidates: &'a [Candidate],
        call: &Call,
    ) -> Result<&'a Candidate, Failure> {
        let facts = gather(candidates, None);
        let decision = choose(&facts, &call.ask(), self.seed());
        Ok(winner(&facts, candidates, decision, call)?.1)
    }

    fn seed(&self) -> u64 {
        self.shared.choices.fetch_add(1, Relaxed)
    }
}

/// The facts of all but one that was tried before.
fn gather(candidates: &[Candidate], before: Option<usize>) -> Vec<Facts<'_>> {
    let now = Instant::now();
    let mut gathered = Vec::with_capacity(candidates.len());
    for (number, candidate) in candidates.iter().enumerate() {
        if before != Some(number) {
            gathered.push(facts(number, candidate, now));
        }
    }
    gathered
}

/// Whom a decision fell on, or why it fell on nobody.
fn winner<'a, 'b>(
    facts: &'b [Facts<'a>],
    candidates: &'a [Candidate],
    decision: Decision,
    call: &Call,
) -> Result<(&'b Facts<'a>, &'a Candidate), Failure> {
    let barred = match decision {
        Decision::Chosen(at) => {
            let found = facts.get(at).and_then(|facts| {
                let candidate = candidates.get(facts.number)?;
                Some((facts, candidate))
            });
            return found.ok_or_else(|| Failure::internal("a choice fell on nobody"));
        }
        Decision::Nobody(criterion) => criterion,
    };
    Err(match barred {
        Criterion::Policy => Failure::new(Code::Denied, "the caller may not call it"),
        Criterion::Health => {
            let message = "nobody who offers it can be reached";
            Failure::new(Code::Unavailable, message)
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
