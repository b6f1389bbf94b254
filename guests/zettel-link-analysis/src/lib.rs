//! The worker that says how zettels hang together: `analyze:zettel_links`.

mod graph;
mod suggest;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crank_worker::{Capability, Failure, Worker};
use graph::Graph;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zettel::{SlipBox, profile};

/// Hubs and suggestions, if nothing is said.
const LIMIT: usize = 20;

/// What is wanted.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Input {
    /// `dot` for the links as Graphviz draws them, beside the rest.
    format: Format,
    /// How many hubs and how many suggestions at most; 20 if absent.
    #[schemars(range(min = 0, max = 1000))]
    limit: Option<usize>,
}

#[derive(Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Format {
    /// Without the drawing.
    #[default]
    Json,
    /// With `dot`.
    Dot,
}

/// How the zettels hang together. Lists are in the order of ids where nothing else is said.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// How many zettels there are.
    zettels: usize,
    /// How many links there are between them, each pair in each direction once, self links not counted.
    links: usize,
    /// For each zettel that others link to, those others.
    backlinks: BTreeMap<String, Vec<String>>,
    /// Zettels that neither link to another nor are linked from one.
    orphans: Vec<String>,
    /// Links to zettels that are not there.
    broken: Vec<Broken>,
    /// Zettels with the highest PageRank, the highest first.
    hubs: Vec<Hub>,
    /// Zettels that hang together more than with others, the largest cluster first.
    clusters: Vec<Cluster>,
    /// Zettels that are not linked and seem to belong together, the strongest first.
    suggestions: Vec<Suggestion>,
    /// The links in the language of Graphviz; dashed are those to what is not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    dot: Option<String>,
}

/// A link to a zettel that is not there.
#[derive(Debug, Serialize, JsonSchema)]
struct Broken {
    /// Which zettel has it.
    from: String,
    /// The id that it names.
    to: String,
}

/// A zettel to which links lead.
#[derive(Debug, Serialize, JsonSchema)]
struct Hub {
    /// The zettel.
    id: String,
    /// Its title.
    title: String,
    /// Its PageRank; those of all zettels together are one.
    rank: f64,
    /// How many link to it.
    backlinks: usize,
    /// To how many it links.
    links: usize,
}

/// Zettels that hang together.
#[derive(Debug, Serialize, JsonSchema)]
struct Cluster {
    /// The one with the highest PageRank.
    centre: String,
    /// All of them.
    zettels: Vec<String>,
}

/// Two zettels that might be linked.
#[derive(Debug, Serialize, JsonSchema)]
struct Suggestion {
    /// The one.
    from: String,
    /// The other.
    to: String,
    /// How much they share, 0 to 1.
    score: f64,
    /// Words that they share and few others have, the most telling first.
    words: Vec<String>,
    /// Zettels that both are linked with.
    neighbours: Vec<String>,
}

fn analyze(input: Input) -> Result<Output, Failure> {
    let graph = Graph::read(&SlipBox::open()?)?;
    let limit = input.limit.unwrap_or(LIMIT);
    let ids = |numbers: &[usize]| numbers.iter().map(|number| graph.id(*number)).collect();
    let ranks = graph.ranks();
    let rank = |number: usize| ranks.get(number).copied().unwrap_or(0.0);
    let linked = graph.nodes.iter().filter(|node| !node.into.is_empty());
    let alone = graph
        .nodes
        .iter()
        .filter(|node| node.neighbours().next().is_none());
    let mut hubs: Vec<usize> = (0..graph.nodes.len()).collect();
    // Stable: of the same rank the first id first.
    hubs.sort_by(|a, b| rank(*b).total_cmp(&rank(*a)));
    let hubs = hubs.into_iter().take(limit);
    let hub = |number: usize| {
        graph.nodes.get(number).map(|node| Hub {
            id: node.id.clone(),
            title: node.title.clone(),
            rank: rank(number),
            backlinks: node.into.len(),
            links: node.out.len(),
        })
    };
    let clusters = graph.clusters().into_iter().map(|zettels| Cluster {
        centre: zettels
            .iter()
            .copied()
            .reduce(|best, other| {
                if rank(other) > rank(best) {
                    other
                } else {
                    best
                }
            })
            .map_or(String::new(), |centre| graph.id(centre)),
        zettels: ids(&zettels),
    });
    let suggestions = suggest::suggest(&graph, limit).into_iter();
    Ok(Output {
        zettels: graph.nodes.len(),
        links: graph.nodes.iter().map(|node| node.out.len()).sum(),
        backlinks: linked
            .map(|node| (node.id.clone(), ids(&node.into)))
            .collect(),
        orphans: alone.map(|node| node.id.clone()).collect(),
        broken: graph
            .broken
            .iter()
            .map(|(from, to)| Broken {
                from: graph.id(*from),
                to: to.clone(),
            })
            .collect(),
        hubs: hubs.filter_map(hub).collect(),
        clusters: clusters.collect(),
        suggestions: suggestions
            .map(|suggestion| Suggestion {
                from: graph.id(suggestion.from),
                to: graph.id(suggestion.to),
                score: suggestion.score,
                words: suggestion.words,
                neighbours: ids(&suggestion.neighbours),
            })
            .collect(),
        dot: (input.format == Format::Dot).then(|| graph.dot()),
    })
}

fn zettel_link_analysis() -> Worker {
    Worker::new("worker-zettel-link-analysis").offers(
        profile(Capability::new("analyze", "zettel_links", "1.0.0", analyze))
            .description("Says how zettels hang together: backlinks, orphans, broken links, hubs, clusters, suggested links; a drawing for Graphviz.")
            .example("Everything", "{}")
            .example("With a drawing", r#"{"format": "dot", "limit": 5}"#)
            .required_capabilities(&["wasi:keyvalue/store[zettel:ro]"]),
    )
}

crank_worker::worker!(zettel_link_analysis);
