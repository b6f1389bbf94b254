//! The worker that finds documents by their words and by what they mean: `index:semantic_documents`,
//! `search:semantic_documents` and `delete:semantic_documents` over one index in the worker's state.

mod index;
mod lsa;
mod model;
mod search;
mod segment;
mod show;
mod snippet;
mod store;
#[cfg(test)]
mod tests;
mod upkeep;
mod words;

use std::collections::{BTreeMap, HashSet};

use crank_worker::{Capability, Constraints, Failure, Slo, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use search::{By, Question};
use segment::{Draft, Kept};
use store::Index;

/// What the index may take, in MiB.
const VECTOR_INDEX_MB: u32 = 2048;
/// The longest value of metadata, in bytes.
const MAX_VALUE: usize = 256;
/// Values of one document's metadata.
const MAX_VALUES: usize = 64;

/// Documents to be found.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Documents {
    /// The documents. All of them are indexed, or none.
    #[schemars(length(min = 1, max = 10_000))]
    documents: Vec<Document>,
}

/// A document.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Document {
    /// Its id. A document with the same id is replaced.
    #[schemars(length(min = 1, max = 256))]
    id: String,
    /// What it says, plain.
    #[schemars(length(max = 1_000_000))]
    text: String,
    /// What filters look at, and what results give back: at most 64 values in all, each at most 256 bytes.
    #[serde(default)]
    metadata: BTreeMap<String, Values>,
}

/// One value, or a list of them.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Values {
    /// One.
    One(Value),
    /// Several.
    Several(Vec<Value>),
}

/// A text, a number, or true or false.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(untagged)]
enum Value {
    /// A text.
    Text(String),
    /// A number; 1 and 1.0 are the same.
    Number(f64),
    /// True or false.
    Flag(bool),
}

impl Values {
    fn all(&self) -> &[Value] {
        match self {
            Self::One(value) => std::slice::from_ref(value),
            Self::Several(values) => values,
        }
    }
}

/// What was indexed.
#[derive(Serialize, JsonSchema)]
struct Indexed {
    /// How many documents of this request can be found now.
    indexed: usize,
}

/// What is looked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Query {
    /// A question or some words.
    #[schemars(length(min = 1, max = 10_000))]
    query: String,
    /// How many documents at most.
    #[serde(default = "ten")]
    #[schemars(range(min = 1, max = 100))]
    top_k: usize,
    /// Only documents whose metadata has, for every key of this, the value; of a list, one of the values.
    /// Where a document has a list, one of its values must be it.
    #[serde(default)]
    filter: BTreeMap<String, Values>,
    /// What documents are judged by.
    #[serde(default)]
    mode: Mode,
}

fn ten() -> usize {
    10
}

/// What documents are judged by.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Mode {
    /// Words and meaning.
    #[default]
    Both,
    /// Their words alone.
    Bm25,
    /// Their meaning alone.
    Vectors,
}

/// What was found.
#[derive(Serialize, JsonSchema)]
struct Results {
    /// The documents that fit, the best first.
    results: Vec<Found>,
}

/// A document that was found.
#[derive(Serialize, JsonSchema)]
struct Found {
    /// Its id.
    id: String,
    /// How well it fits: to be compared within one answer. Up to 1, but for `bm25`.
    score: f32,
    /// From the sentence on that fits best.
    snippet: String,
    /// Its metadata, if it has any.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    metadata: BTreeMap<String, Values>,
}

/// Documents that shall no longer be found.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Ids {
    /// Their ids.
    #[schemars(length(min = 1, max = 10_000))]
    ids: Vec<String>,
}

/// What was deleted.
#[derive(Serialize, JsonSchema)]
struct Deleted {
    /// How many of these documents were there.
    deleted: usize,
}

fn index(input: Documents) -> Result<Indexed, Failure> {
    let mut ids = HashSet::new();
    let mut draft = Draft::default();
    for (at, document) in input.documents.iter().enumerate() {
        if !ids.insert(document.id.as_str()) {
            let pointer = format!("/documents/{at}/id");
            return Err(Failure::invalid_input(
                pointer,
                "this id is there twice; send each document once",
            ));
        }
        let metadata = metadata_terms(at, document)?;
        let kept = Kept {
            text: document.text.clone(),
            metadata: if metadata.is_empty() {
                String::new()
            } else {
                json(&document.metadata)?
            },
        };
        draft.add(document.id.clone(), kept, metadata);
    }
    index::add(&Index::open()?, &draft, &ids)?;
    Ok(Indexed { indexed: ids.len() })
}

fn metadata_terms(at: usize, document: &Document) -> Result<Vec<String>, Failure> {
    let mut terms = Vec::new();
    for (key, values) in &document.metadata {
        for value in values.all() {
            let long = matches!(value, Value::Text(text) if text.len() > MAX_VALUE);
            if long || key.len() > MAX_VALUE || terms.len() == MAX_VALUES {
                let pointer = format!("/documents/{at}/metadata");
                let message = format!(
                    "metadata has at most {MAX_VALUES} values, each of them and each key at most {MAX_VALUE} bytes; what is longer belongs into the text"
                );
                return Err(Failure::invalid_input(pointer, message));
            }
            terms.push(segment::metadata_term(key, value));
        }
    }
    Ok(terms)
}

fn json(metadata: &BTreeMap<String, Values>) -> Result<String, Failure> {
    serde_json::to_string(metadata).map_err(|error| Failure::failed(error.to_string()))
}

fn search(input: Query) -> Result<Results, Failure> {
    let terms = Question::terms(&input.query);
    if terms.is_empty() {
        return Err(Failure::invalid_input("/query", "a query needs a word").code("empty"));
    }
    let filter = input.filter.iter().map(|(key, values)| {
        let terms = values
            .all()
            .iter()
            .map(|value| segment::metadata_term(key, value));
        terms.collect()
    });
    let question = Question {
        terms,
        filter: filter.collect(),
        by: match input.mode {
            Mode::Both => By::Both,
            Mode::Bm25 => By::Words,
            Mode::Vectors => By::Meaning,
        },
        top_k: input.top_k,
    };
    let hits = search::search(&Index::open()?, &question)?;
    let results = hits.into_iter().map(|hit| Found {
        id: hit.id,
        score: hit.score,
        snippet: hit.snippet,
        metadata: serde_json::from_str(&hit.metadata).unwrap_or_default(),
    });
    Ok(Results {
        results: results.collect(),
    })
}

fn delete(input: Ids) -> Result<Deleted, Failure> {
    let ids = input.ids.iter().map(String::as_str).collect();
    let deleted = index::delete(&Index::open()?, &ids)?;
    Ok(Deleted { deleted })
}

fn semantic_search() -> Worker {
    Worker::new("worker-semantic-search")
        .offers(
            profile(Capability::new("search", "semantic_documents", "1.0.0", search))
                .description("Finds the documents that answer a question, by their words and by what they mean.")
                .example("A question", r#"{"query": "how do I keep bread fresh?", "top_k": 3}"#)
                .example("Filtered", r#"{"query": "bread", "filter": {"language": ["en", "de"], "draft": false}}"#),
        )
        .offers(
            profile(Capability::new("index", "semantic_documents", "1.0.0", index))
                .description("Adds documents, or replaces those with the same ids; answers when they can be found.")
                .example("One document", r#"{"documents": [{"id": "bread", "text": "Keep a loaf in linen, never in the fridge.", "metadata": {"language": "en", "draft": false}}]}"#),
        )
        .offers(
            profile(Capability::new("delete", "semantic_documents", "1.0.0", delete))
                .description("Removes documents.")
                .example("One document", r#"{"ids": ["bread"]}"#),
        )
}

/// What the capabilities have in common.
fn profile(capability: Capability) -> Capability {
    capability
        .env_profile("memory-intensive")
        .constraints(Constraints {
            min_memory_mb: Some(4096),
            max_memory_mb: Some(8192),
            cpu_shares: Some(4096),
            vector_index_mb: Some(VECTOR_INDEX_MB),
            ..Constraints::default()
        })
        .slo(Slo {
            latency_p50_ms: Some(500),
            latency_p95_ms: Some(2000),
            latency_p99_ms: Some(5000),
            availability_pct: Some(99.0),
            error_budget_pct: Some(1.0),
        })
        .required_capabilities(&["wasi:keyvalue/store"])
}

crank_worker::worker!(semantic_search);
