//! How capabilities are shown, filtered and judged complete.

use std::collections::BTreeSet;

use semver::VersionReq;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Capability, Constraints, Runtime, Slo};

/// What `GET /capabilities` shows of one capability.
#[derive(Debug, Serialize)]
pub struct View<'a> {
    #[serde(flatten)]
    capability: &'a Capability,
    url: &'a str,
    load_score: f64,
    schema: SchemaView<'a>,
}

#[derive(Debug, Serialize)]
struct SchemaView<'a> {
    input: &'a Value,
    output: &'a Value,
}

impl<'a> View<'a> {
    /// Shows a capability; `url` is where it is invoked, `load_score` its load from 0 (idle) to 1.
    pub fn new(capability: &'a Capability, url: &'a str, load_score: f64) -> Self {
        let schema = SchemaView {
            input: capability.schemas.input.document(),
            output: capability.schemas.output.document(),
        };
        Self {
            capability,
            url,
            load_score,
            schema,
        }
    }
}

/// Which capabilities a caller asks to see; an absent field matches all.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Filter {
    /// Exactly this verb.
    pub verb: Option<String>,
    /// Exactly this name.
    pub name: Option<String>,
    /// A version that meets this.
    pub version: Option<VersionReq>,
    /// Exactly this worker.
    pub worker_id: Option<String>,
    /// Exactly this runtime.
    pub runtime: Option<String>,
    /// Exactly this profile.
    pub env_profile: Option<String>,
    /// Promises a 95th percentile of at most so many milliseconds; no promise, no match.
    pub max_latency_p95: Option<u32>,
}

impl Filter {
    /// True if the capability is asked for.
    pub fn matches(&self, capability: &Capability) -> bool {
        let same = |wanted: &Option<String>, is: Option<&str>| {
            wanted.as_deref().is_none_or(|text| is == Some(text))
        };
        same(&self.verb, Some(capability.verb.as_str()))
            && same(&self.name, Some(capability.name.as_str()))
            && same(&self.worker_id, Some(capability.worker_id.as_str()))
            && same(
                &self.runtime,
                capability.runtime.as_ref().map(Runtime::as_str),
            )
            && same(
                &self.env_profile,
                capability.env_profile.map(|profile| profile.as_str()),
            )
            && self
                .version
                .as_ref()
                .is_none_or(|wanted| wanted.matches(&capability.version))
            && self.max_latency_p95.is_none_or(|most| {
                capability
                    .slo
                    .and_then(|slo| slo.latency_p95_ms)
                    .is_some_and(|promised| promised <= most)
            })
    }
}

/// How complete a worker's metadata is, as in the seed's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum Tier {
    /// `runtime`, `env_profile` and `constraints`: what a worker must have.
    #[serde(rename = "FaaS")]
    Faas,
    /// `slo`.
    #[serde(rename = "SLO")]
    Slo,
    /// `spiffe_id`.
    Identity,
    /// `cost_tokens` and `slo_bid`.
    Economic,
    /// `controller_affinity`.
    #[serde(rename = "Multi-Controller")]
    MultiController,
}

impl Tier {
    /// Every tier, in the order of the table.
    pub const ALL: [Tier; 5] = [
        Tier::Faas,
        Tier::Slo,
        Tier::Identity,
        Tier::Economic,
        Tier::MultiController,
    ];

    /// The column's title.
    pub const fn title(self) -> &'static str {
        match self {
            Tier::Faas => "FaaS",
            Tier::Slo => "SLO",
            Tier::Identity => "Identity",
            Tier::Economic => "Economic",
            Tier::MultiController => "Multi-Controller",
        }
    }

    /// Reads a tier as the command line writes it: the title in lower case.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|tier| tier.title().eq_ignore_ascii_case(text))
    }

    fn is_complete(self, capability: &Capability) -> bool {
        match self {
            Tier::Faas => faas_fields(capability).next().is_none(),
            // An empty record says as little as an absent one.
            Tier::Slo => capability.slo.is_some_and(|slo| slo != Slo::default()),
            Tier::Identity => capability.spiffe_id.is_some(),
            Tier::Economic => capability.cost_tokens.is_some() && capability.slo_bid.is_some(),
            Tier::MultiController => capability
                .controller_affinity
                .as_ref()
                .is_some_and(|list| !list.is_empty()),
        }
    }
}

/// The tiers that every one of a worker's capabilities completes.
pub fn tiers(capabilities: &[Capability]) -> BTreeSet<Tier> {
    Tier::ALL
        .into_iter()
        .filter(|tier| {
            capabilities
                .iter()
                .all(|capability| tier.is_complete(capability))
        })
        .collect()
}

/// What is missing for the FaaS tier, in the seed's words: `pdf_to_text: missing runtime`.
pub fn missing_faas(capabilities: &[Capability]) -> Vec<String> {
    capabilities
        .iter()
        .flat_map(|capability| {
            faas_fields(capability).map(|field| format!("{}: missing {field}", capability.name))
        })
        .collect()
}

/// The FaaS fields that a capability lacks.
fn faas_fields(capability: &Capability) -> impl Iterator<Item = &'static str> {
    let constrained = capability
        .constraints
        .as_ref()
        .is_some_and(|given| *given != Constraints::default());
    [
        (capability.runtime.is_some(), "runtime"),
        (capability.env_profile.is_some(), "env_profile"),
        (constrained, "constraints"),
    ]
    .into_iter()
    .filter_map(|(given, field)| (!given).then_some(field))
}
