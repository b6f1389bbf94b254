//! A choice in words and numbers: each candidate, each criterion that it was held against, and what
//! became of it. Made from the very facts that the choice was made from.

use std::cmp::Ordering;
use std::time::Duration;

use serde::Serialize;
use serde_json::{Value, json};

use super::choose::{Ask, Criterion, Decision, Standing, bar, target};
use super::facts::{Facts, Load, Place};
use crate::capability::Affinity;
use crate::worker::Health;

/// Why a call of a capability goes where it goes.
#[derive(Clone, Debug, Serialize)]
pub struct Explanation {
    /// `verb:name`.
    pub capability: String,
    /// Who is chosen, if anybody is.
    pub chosen: Option<String>,
    /// The whole in one sentence.
    pub sentence: String,
    /// Who was asked before, and why it was not to be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub before: Option<String>,
    /// Everyone who offers it.
    pub candidates: Vec<Weighed>,
}

/// One candidate and what became of it.
#[derive(Clone, Debug, Serialize)]
pub struct Weighed {
    /// Who.
    pub worker_id: String,
    /// `chosen`, or the criterion by which it was passed over.
    pub verdict: &'static str,
    /// The same in a sentence.
    pub sentence: String,
    place: Place,
    version: String,
    runtime: Option<String>,
    env_profile: Option<String>,
    health: &'static str,
    predicted_p95_ms: Option<f64>,
    target_p95_ms: Option<f64>,
    error_budget_left: Option<f64>,
    affinity: Affinity,
    cost_tokens: f64,
    load: Load,
    /// Each criterion that it was held against, up to the one that it did not pass.
    pub criteria: Vec<Held>,
}

/// One candidate against one criterion.
#[derive(Clone, Debug, Serialize)]
pub struct Held {
    /// Which.
    pub criterion: &'static str,
    /// Whether it passed.
    pub passes: bool,
    /// What there is to say.
    pub says: String,
}

impl Criterion {
    const ALL: [Self; 9] = [
        Self::Asked,
        Self::Policy,
        Self::Health,
        Self::Ceiling,
        Self::Version,
        Self::Slo,
        Self::Affinity,
        Self::Cost,
        Self::Load,
    ];

    /// The word in answers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Asked => "asked",
            Self::Policy => "policy",
            Self::Health => "health",
            Self::Ceiling => "ceiling",
            Self::Version => "version",
            Self::Slo => "slo",
            Self::Affinity => "affinity",
            Self::Cost => "cost",
            Self::Load => "load",
        }
    }
}

/// Says why a decision fell as it did; `facts` and `ask` are those that it fell on.
pub fn explain(capability: &str, facts: &[Facts], ask: &Ask, decision: Decision) -> Explanation {
    let winner = match decision {
        Decision::Chosen(at) => facts.get(at),
        Decision::Nobody(_) => None,
    };
    let sentence = match (winner, decision) {
        (Some(winner), _) => chosen(winner, ask, facts.len()),
        (None, Decision::Nobody(criterion)) => format!(
            "nobody serves it: of {} candidates none got past {}",
            facts.len(),
            criterion.as_str()
        ),
        (None, Decision::Chosen(_)) => String::new(),
    };
    Explanation {
        capability: capability.to_owned(),
        chosen: winner.map(|winner| winner.worker_id.to_owned()),
        sentence,
        before: None,
        candidates: facts.iter().map(|one| weigh(one, ask, winner)).collect(),
    }
}

impl Explanation {
    /// The least that tells the choice, as JSON in ASCII of at most so many bytes: candidates that
    /// find no room are counted in `more`.
    pub fn brief(&self, bytes: usize) -> String {
        let mut shown: Vec<Value> = Vec::new();
        let text = |shown: &[Value]| {
            let more = self.candidates.len() - shown.len();
            json!({ "chosen": self.chosen, "before": self.before, "candidates": shown, "more": more })
                .to_string()
        };
        let mut told = text(&shown);
        for weighed in &self.candidates {
            shown.push(json!({
                "worker_id": weighed.worker_id,
                "verdict": weighed.verdict,
                "predicted_p95_ms": weighed.predicted_p95_ms,
                "target_p95_ms": weighed.target_p95_ms,
                "cost_tokens": weighed.cost_tokens,
            }));
            let longer = text(&shown);
            if longer.len() > bytes {
                break;
            }
            told = longer;
        }
        told
    }
}

fn weigh(facts: &Facts, ask: &Ask, winner: Option<&Facts>) -> Weighed {
    let lost = match (bar(facts, ask), winner) {
        (Some(criterion), _) => Some(criterion),
        (None, Some(winner)) if winner.number != facts.number => Some(
            Standing::of(winner, ask)
                .differs(&Standing::of(facts, ask))
                .filter(|(_, order)| *order == Ordering::Less)
                .map_or(Criterion::Load, |(criterion, _)| criterion),
        ),
        (None, _) => None,
    };
    let held = Criterion::ALL
        .into_iter()
        .take_while(|criterion| lost.is_none_or(|lost| *criterion <= lost));
    let criteria: Vec<Held> = held
        .map(|criterion| {
            let passes = lost != Some(criterion);
            Held {
                criterion: criterion.as_str(),
                passes,
                says: says(criterion, facts, ask, winner.filter(|_| !passes)),
            }
        })
        .collect();
    let (verdict, sentence) = match (lost, criteria.last()) {
        (Some(lost), Some(last)) => (
            lost.as_str(),
            format!("{} is passed over: {}", facts.worker_id, last.says),
        ),
        _ => ("chosen", format!("{} is chosen", facts.worker_id)),
    };
    Weighed {
        worker_id: facts.worker_id.to_owned(),
        verdict,
        sentence,
        place: facts.place,
        version: facts.version.to_string(),
        runtime: facts.runtime.map(str::to_owned),
        env_profile: facts.env_profile.map(str::to_owned),
        health: facts.health.as_str(),
        predicted_p95_ms: facts.predicted.map(ms),
        target_p95_ms: target(facts, ask).map(ms),
        error_budget_left: facts.budget_left,
        affinity: facts.affinity,
        cost_tokens: facts.cost,
        load: facts.load,
        criteria,
    }
}

/// What there is to say of a candidate by one criterion; `winner` is who passed it over by this.
fn says(criterion: Criterion, facts: &Facts, ask: &Ask, winner: Option<&Facts>) -> String {
    match criterion {
        Criterion::Asked => asked(facts, ask),
        Criterion::Policy => match facts.denied {
            None => "the caller may call it".to_owned(),
            Some(rules) => format!("the policy denies it: {rules}"),
        },
        Criterion::Health => match facts.health {
            Health::Well => "nothing speaks against it",
            Health::Trial => "it failed of late and has rested since: one call tries it",
            Health::Suspect => "it failed of late, so others go first",
            Health::Down => "it cannot be reached",
        }
        .to_owned(),
        Criterion::Ceiling => match ask.max_cost {
            None => "no ceiling is given".to_owned(),
            Some(most) => format!("it takes {}, and {most} may be spent", tokens(facts.cost)),
        },
        Criterion::Version => match winner {
            None => format!("version {}", facts.version),
            Some(winner) => format!("version {} is below {}", facts.version, winner.version),
        },
        Criterion::Slo => match winner {
            None => slo(facts, ask),
            Some(winner) => {
                let keeps = Standing::of(winner, ask).miss == 0.0;
                let does = if keeps {
                    "keeps its own"
                } else {
                    "comes nearer"
                };
                format!("{}; {} {does}", slo(facts, ask), winner.worker_id)
            }
        },
        Criterion::Affinity => match facts.affinity {
            Affinity::Here => "it should run on this host",
            Affinity::Anywhere => "it may run on any host",
            Affinity::Elsewhere => "it should run on other hosts",
        }
        .to_owned(),
        Criterion::Cost => {
            let than = winner.map(|winner| {
                let (id, cost) = (winner.worker_id, tokens(winner.cost));
                format!(", and {id} takes {cost} and stands as well in all before")
            });
            format!(
                "it takes {}{}",
                tokens(facts.cost),
                than.unwrap_or_default()
            )
        }
        Criterion::Load => {
            let Load {
                in_flight,
                queued,
                capacity,
            } = facts.load;
            let drawn = winner.map(|winner| {
                let id = winner.worker_id;
                format!("; equal in all else, the draw of two fell to {id}")
            });
            format!(
                "{in_flight} of {capacity} slots are taken and {queued} wait{}",
                drawn.unwrap_or_default()
            )
        }
    }
}

fn asked(facts: &Facts, ask: &Ask) -> String {
    let other = |what: &str, wanted: Option<&str>, is: Option<&str>| match wanted {
        Some(wanted) if is != Some(wanted) => Some(format!(
            "its {what} is {}, not {wanted}",
            is.unwrap_or("not declared")
        )),
        _ => None,
    };
    let version = ask.version.filter(|wanted| !wanted.matches(facts.version));
    version
        .map(|wanted| format!("version {} does not meet {wanted}", facts.version))
        .or_else(|| other("runtime", ask.runtime, facts.runtime))
        .or_else(|| other("env_profile", ask.env_profile, facts.env_profile))
        .unwrap_or_else(|| "it is what is asked for".to_owned())
}

fn slo(facts: &Facts, ask: &Ask) -> String {
    let budget = match facts.budget_left {
        Some(left) if left < 0.0 => ", and its error budget is overspent",
        _ => "",
    };
    let latency = match (facts.predicted, target(facts, ask)) {
        (_, None) => "it is held to no target".to_owned(),
        (None, Some(target)) => format!(
            "how long it takes now is not known, and {} ms is its target",
            ms(target)
        ),
        (Some(predicted), Some(target)) => format!(
            "95 of 100 calls would end within {} ms, and {} ms is its target",
            ms(predicted),
            ms(target)
        ),
    };
    latency + budget
}

fn chosen(winner: &Facts, ask: &Ask, candidates: usize) -> String {
    let among = match candidates {
        1 => "the only one that offers it".to_owned(),
        count => format!("of {count} that offer it"),
    };
    let keeps = match Standing::of(winner, ask).miss == 0.0 {
        true => "",
        false => "; nobody of its version keeps a target, and it comes nearest",
    };
    format!(
        "{} is chosen, {among}: version {}, {}, it takes {}{keeps}",
        winner.worker_id,
        winner.version,
        slo(winner, ask),
        tokens(winner.cost)
    )
}

fn tokens(cost: f64) -> String {
    match cost == 1.0 {
        true => "1 token".to_owned(),
        false => format!("{cost} tokens"),
    }
}

/// Milliseconds to the thousandth.
fn ms(time: Duration) -> f64 {
    (time.as_secs_f64() * 1e6).round() / 1e3
}
