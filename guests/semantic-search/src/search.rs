//! Finding: BM25 over the terms, cosines over the vectors, and the two together.

use std::collections::{BTreeSet, HashMap};

use crank_worker::Failure;

use crate::model::{self, Vector};
use crate::segment::{self, Documents, Postings, Segment};
use crate::show;
use crate::store::{Index, Known, Manifest, damaged};
use crate::words::{Purpose, terms};

/// BM25's usual constants: how soon a repeated word says nothing new, and how much a long document is
/// held back.
const K1: f32 = 1.2;
const B: f32 = 0.75;
/// What words count beside meaning, where both do; docs/evaluation-search.md says how it was chosen.
pub const WORDS: f32 = 0.5;
/// Different terms of a question that count.
const MAX_TERMS: usize = 64;
/// What is read at once, in bytes.
const BATCH_BYTES: u64 = 12 << 20;

/// What a document is judged by.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum By {
    /// BM25.
    Words,
    /// The cosine between its vector and the question's.
    Meaning,
    /// Both.
    Both,
}

/// What is looked for.
pub struct Question {
    /// Its terms, each once.
    pub terms: Vec<String>,
    /// Of each of these lists a document must have one of the metadata terms.
    pub filter: Vec<Vec<String>>,
    /// What documents are judged by.
    pub by: By,
    /// How many are wanted.
    pub top_k: usize,
}

/// A document that was found.
pub struct Hit {
    /// Its id.
    pub id: String,
    /// How well it fits.
    pub score: f32,
    /// The part of it that fits best.
    pub snippet: String,
    /// Its metadata, in JSON; empty if it has none.
    pub metadata: String,
}

impl Question {
    /// The different terms of a text, at most 64.
    pub fn terms(text: &str) -> Vec<String> {
        let mut seen = BTreeSet::new();
        let mut terms = terms(text, Purpose::Query);
        terms.retain(|term| seen.insert(term.clone()));
        terms.truncate(MAX_TERMS);
        terms
    }

    /// Whether documents are judged by their vectors.
    fn means(&self) -> bool {
        self.by != By::Words
    }
}

/// The documents that fit best.
pub fn search(index: &Index, question: &Question) -> Result<Vec<Hit>, Failure> {
    index.steady(|manifest| search_in(index, manifest, question))
}

/// None if something that the manifest names is gone.
fn search_in(
    index: &Index,
    manifest: &Manifest,
    question: &Question,
) -> Result<Option<Vec<Hit>>, Failure> {
    let mut meanings = HashMap::new();
    for known in manifest.models.iter().filter(|_| question.means()) {
        let Some(meaning) = meaning(index, known, &question.terms)? else {
            return Ok(None);
        };
        meanings.insert(known.id, meaning);
    }
    let Some(found) = read(index, manifest, question, &meanings)? else {
        return Ok(None);
    };
    let weights = weights(manifest, question, &found);
    let mut ranked = Vec::new();
    for (at, found) in found.iter().enumerate() {
        found.score(at, manifest, question, &weights, &mut ranked)?;
    }
    ranked.sort_unstable_by(|a, b| b.0.total_cmp(&a.0).then((a.1, a.2).cmp(&(b.1, b.2))));
    ranked.truncate(question.top_k);
    show::show(index, manifest, question, &weights, &found, &ranked)
}

/// What a question means to a model. None if the model is gone.
fn meaning(index: &Index, known: &Known, terms: &[String]) -> Result<Option<Vec<f32>>, Failure> {
    let keys: BTreeSet<String> = terms
        .iter()
        .map(|term| known.key(model::shard_of(term, known.shards)))
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    let Some(model) = index.read_model(known, &keys, |term| terms.iter().any(|t| t == term))?
    else {
        return Ok(None);
    };
    let mut sum = vec![0.0; model.dimensions];
    terms.iter().for_each(|term| model.add(term, 1, &mut sum));
    Ok(Some(sum))
}

/// What a search has read of a segment.
pub struct Found {
    /// The blob `documents`.
    documents: Vec<u8>,
    /// For each term of the question where it stands.
    places: Vec<Vec<(u32, u32)>>,
    /// Which documents pass the filter; all, if there is none.
    passing: Option<Vec<bool>>,
    /// The blob of vectors, and the question's in the same steps.
    vectors: Option<(Vec<u8>, Vec<u8>)>,
}

/// Reads of all segments what the question asks for, as many as may be in one call.
fn read(
    index: &Index,
    manifest: &Manifest,
    question: &Question,
    meanings: &HashMap<u64, Vec<f32>>,
) -> Result<Option<Vec<Found>>, Failure> {
    let mut found = Vec::with_capacity(manifest.segments.len());
    let mut rest = manifest.segments.as_slice();
    while !rest.is_empty() {
        let mut bytes = 0;
        let fitting = rest.iter().take_while(|segment| {
            let before = bytes;
            bytes += segment.hot;
            before == 0 || bytes <= BATCH_BYTES
        });
        let (batch, behind) = rest.split_at(fitting.count());
        rest = behind;
        let keys: Vec<Vec<String>> = batch
            .iter()
            .map(|segment| keys(segment, question, meanings))
            .collect();
        let flat: Vec<String> = keys.iter().flatten().cloned().collect();
        let hot = batch.iter().map(|segment| segment.hot).sum();
        let mut blobs = index.get_all(&flat, hot)?.into_iter();
        for (segment, keys) in batch.iter().zip(&keys) {
            let blobs: Option<HashMap<&String, Vec<u8>>> = keys
                .iter()
                .zip(&mut blobs)
                .map(|(key, blob)| Some((key, blob?)))
                .collect();
            let Some(blobs) = blobs else {
                return Ok(None);
            };
            found.push(Found::new(segment, question, meanings, blobs)?);
        }
    }
    Ok(Some(found))
}

/// The blobs of a segment that a question asks for, each once.
fn keys(segment: &Segment, question: &Question, meanings: &HashMap<u64, Vec<f32>>) -> Vec<String> {
    let terms = question
        .terms
        .iter()
        .chain(question.filter.iter().flatten());
    let mut keys: BTreeSet<String> = terms.map(|term| segment.terms_key(term)).collect();
    keys.insert(segment.documents_key());
    let model = segment.model.filter(|model| meanings.contains_key(model));
    keys.extend(model.map(|model| segment.vectors_key(model)));
    keys.into_iter().collect()
}

impl Found {
    fn new(
        segment: &Segment,
        question: &Question,
        meanings: &HashMap<u64, Vec<f32>>,
        mut blobs: HashMap<&String, Vec<u8>>,
    ) -> Result<Self, Failure> {
        let mut taken = |key: &String| blobs.remove(key).unwrap_or_default();
        let documents = taken(&segment.documents_key());
        let meant = segment
            .model
            .and_then(|model| Some((model, meanings.get(&model)?)));
        let vectors = meant.map(|(model, meant)| {
            (
                taken(&segment.vectors_key(model)),
                Vector::quantised(meant).cells,
            )
        });
        let mut tables: HashMap<&String, Postings<'_>> = HashMap::new();
        for (key, blob) in &blobs {
            tables.insert(key, postcard::from_bytes(blob).map_err(damaged)?);
        }
        let places = |term: &String| {
            let table = tables.get(&segment.terms_key(term));
            let coded = table.and_then(|table| {
                let at = table
                    .binary_search_by(|(stored, _)| (*stored).cmp(term))
                    .ok()?;
                table.get(at)
            });
            coded.map_or_else(|| Ok(Vec::new()), |(_, coded)| segment::places(coded))
        };
        let mut passing = None;
        for any in &question.filter {
            let mut here = vec![false; segment.documents as usize];
            for term in any {
                for (document, _) in places(term)? {
                    if let Some(here) = here.get_mut(document as usize) {
                        *here = true;
                    }
                }
            }
            passing = Some(match passing {
                None => here,
                Some(before) => here
                    .into_iter()
                    .zip(before)
                    .map(|(a, b): (bool, bool)| a && b)
                    .collect(),
            });
        }
        Ok(Self {
            documents,
            places: question
                .terms
                .iter()
                .map(places)
                .collect::<Result<_, _>>()?,
            passing,
            vectors,
        })
    }

    /// Its blob of documents.
    pub fn documents(&self) -> Result<Documents<'_>, Failure> {
        postcard::from_bytes(&self.documents).map_err(damaged)
    }

    /// Adds those documents that fit at all: score, segment, document.
    fn score(
        &self,
        at: usize,
        manifest: &Manifest,
        question: &Question,
        weights: &Weights,
        ranked: &mut Vec<Ranked>,
    ) -> Result<(), Failure> {
        let Some(segment) = manifest.segments.get(at) else {
            return Ok(());
        };
        let lengths = self.documents()?.lengths;
        let mut words = vec![0.0_f32; segment.documents as usize];
        if question.by != By::Meaning {
            for (places, weight) in self.places.iter().zip(&weights.terms) {
                for &(document, times) in places {
                    let of = document as usize;
                    if let (Some(score), Some(length)) = (words.get_mut(of), lengths.get(of)) {
                        let long = 1.0 - B + B * *length as f32 / weights.length;
                        *score += weight * times as f32 * (K1 + 1.0) / (times as f32 + K1 * long);
                    }
                }
            }
        }
        let meaning = self.cosines(words.len());
        for (document, (words, meaning)) in (0..).zip(words.iter().zip(&meaning)) {
            let score = match question.by {
                By::Words => *words,
                By::Meaning => *meaning,
                By::Both => WORDS * words / weights.all + (1.0 - WORDS) * meaning,
            };
            let passes = || {
                self.passing
                    .as_ref()
                    .is_none_or(|passing| passing.get(document as usize) == Some(&true))
            };
            if score > 0.0 && passes() && !segment.lacks(document) {
                ranked.push((score, at, document));
            }
        }
        Ok(())
    }

    /// For each document the cosine between its vector and the question's; nothing below zero.
    fn cosines(&self, documents: usize) -> Vec<f32> {
        let mut cosines = vec![0.0; documents];
        if let Some((blob, question)) = &self.vectors
            && let Some((cells, lengths)) = blob.split_at_checked(documents * question.len())
            && !question.is_empty()
        {
            let own = segment::inverse_length(question);
            let vectors = cells
                .chunks_exact(question.len())
                .zip(lengths.as_chunks().0);
            for (cosine, (cells, inverse)) in cosines.iter_mut().zip(vectors) {
                let product = model::product(cells, question) as f32;
                *cosine = (product * own * f32::from_le_bytes(*inverse)).max(0.0);
            }
        }
        cosines
    }
}

/// A document's score, the place of its segment in the manifest, and its number there.
pub type Ranked = (f32, usize, u32);

/// How much each term of a question counts.
pub struct Weights {
    /// Each term's, by how rare it is.
    pub terms: Vec<f32>,
    /// What a document cannot get beyond.
    all: f32,
    /// The usual length of a document, in terms.
    length: f32,
}

fn weights(manifest: &Manifest, question: &Question, found: &[Found]) -> Weights {
    let documents = manifest.documents() as f32;
    let rarity = |term: usize| {
        let places = found.iter().zip(&manifest.segments);
        let standing = places.map(|(found, segment)| {
            let places = found.places.get(term).map_or(&[][..], Vec::as_slice);
            places
                .iter()
                .filter(|(document, _)| !segment.lacks(*document))
                .count()
        });
        let standing = standing.sum::<usize>() as f32;
        ((documents - standing + 0.5).max(0.0) / (standing + 0.5)).ln_1p()
    };
    let terms: Vec<f32> = (0..question.terms.len()).map(rarity).collect();
    let words: u64 = manifest.segments.iter().map(|segment| segment.words).sum();
    let written: u64 = manifest
        .segments
        .iter()
        .map(|segment| u64::from(segment.documents))
        .sum();
    Weights {
        all: (terms.iter().sum::<f32>() * (K1 + 1.0)).max(f32::MIN_POSITIVE),
        terms,
        length: (words as f32 / written.max(1) as f32).max(1.0),
    }
}
