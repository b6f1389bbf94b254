//! What the choice reads, gathered from where it is known.

use std::time::{Duration, Instant};

use semver::Version;
use serde::Serialize;

use crate::capability::{Affinity, Runtime};
use crate::registry::{Candidate, Offer, Provider};
use crate::remote;
use crate::worker::Health;

/// Everything that the choice knows of one candidate, at one moment.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Its place among all that offer the capability, which no other has: for the draw.
    pub number: usize,
    /// Who it is.
    pub worker_id: &'a str,
    /// Where it runs.
    pub place: Place,
    /// Which version it offers.
    pub version: &'a Version,
    /// What runs it.
    pub runtime: Option<&'a str>,
    /// What kind of machine suits it.
    pub env_profile: Option<&'a str>,
    /// The rules of the policy by which the caller may not call it, where there are any.
    pub denied: Option<&'a str>,
    /// Whether it does its work.
    pub health: Health,
    /// Within which 95 of 100 calls that come now would be answered, waiting included. `None`: not
    /// known, and nothing speaks against it.
    pub predicted: Option<Duration>,
    /// Within which it promises to answer 95 of 100, if it does.
    pub promised: Option<Duration>,
    /// What is left of its error budget: 1 all, 0 nothing, less than that overspent.
    pub budget_left: Option<f64>,
    /// Whether it should run on this host.
    pub affinity: Affinity,
    /// Tokens for one call; who declares none takes none.
    pub cost: f64,
    /// How busy it is.
    pub load: Load,
}

/// Where a candidate runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Place {
    /// In this host.
    Local,
    /// Behind an address.
    Remote,
}

/// How busy a candidate is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Load {
    /// Invocations that run.
    pub in_flight: usize,
    /// Calls that wait.
    pub queued: usize,
    /// Invocations that may run at once.
    pub capacity: usize,
}

/// Calls at once that a remote worker is taken to do.
const REMOTE: usize = 32;

/// The facts of a candidate now; `number` is its place among all that offer the capability. But for `all` how busy
/// it is and how it does is left out, for who has no choice: to ask takes cache lines from the threads that run its
/// calls.
pub fn facts(number: usize, candidate: &Candidate, now: Instant, all: bool) -> Facts<'_> {
    let Offer { provider, offered } = &**candidate;
    let (capability, series) = (&offered.capability, offered.series.get());
    let promised = capability.slo.and_then(|slo| slo.latency_p95_ms);
    Facts {
        number,
        worker_id: provider.worker_id(),
        place: match provider {
            Provider::Local(_) => Place::Local,
            Provider::Remote(_) => Place::Remote,
        },
        version: &capability.version,
        runtime: capability.runtime.as_ref().map(Runtime::as_str),
        env_profile: capability.env_profile.map(|profile| profile.as_str()),
        // Whom the policy says nothing of, the policy lets in.
        denied: None,
        health: match provider {
            Provider::Local(worker) => worker.breaker().health(now),
            Provider::Remote(remote) => match remote.endpoint().health() {
                remote::Health::Healthy => Health::Well,
                remote::Health::Suspect => Health::Suspect,
                remote::Health::Down => Health::Down,
            },
        },
        predicted: match provider {
            _ if !all => None,
            Provider::Local(worker) => worker.lane().predicted(now),
            Provider::Remote(_) => series.and_then(|series| series.predicted_p95()),
        },
        promised: promised.map(|ms| Duration::from_millis(ms.into())),
        budget_left: series
            .filter(|_| all)
            .and_then(|series| series.error_budget_left()),
        affinity: offered.affinity,
        cost: capability.cost_tokens.unwrap_or_default(),
        load: match all {
            true => load(provider),
            false => Load::default(),
        },
    }
}

/// How busy it is. What a remote worker can take is not known: as much as a component by default, of which
/// it says how much is taken; and the way there counts as one call, so that of two idle ones this host's own
/// is the less loaded.
fn load(provider: &Provider) -> Load {
    match provider {
        Provider::Local(worker) => {
            let lane = worker.lane();
            Load {
                in_flight: lane.in_flight(),
                queued: lane.queued(),
                capacity: lane.limit(),
            }
        }
        Provider::Remote(remote) => Load {
            in_flight: remote.endpoint().in_flight() + 1,
            queued: (remote.load_score() * REMOTE as f64) as usize,
            capacity: REMOTE,
        },
    }
}
