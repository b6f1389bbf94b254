//! What is shown of the documents that were found.

use std::collections::{BTreeSet, HashMap};

use crank_worker::Failure;

use crate::model;
use crate::search::{Found, Hit, Question, Ranked, Weights};
use crate::segment::Kept;
use crate::snippet;
use crate::store::{Index, Manifest, damaged};

/// Reads what is shown of the documents. None if something is gone.
pub fn show(
    index: &Index,
    manifest: &Manifest,
    question: &Question,
    weights: &Weights,
    found: &[Found],
    ranked: &[Ranked],
) -> Result<Option<Vec<Hit>>, Failure> {
    let mut texts: HashMap<String, Vec<Kept>> = HashMap::new();
    let mut shown = Vec::with_capacity(ranked.len());
    let mut silent = Vec::new();
    let weights = question
        .terms
        .iter()
        .map(String::as_str)
        .zip(weights.terms.iter().copied())
        .collect();
    for &(score, at, document) in ranked {
        let (Some(found), Some(segment)) = (found.get(at), manifest.segments.get(at)) else {
            continue;
        };
        let documents = found.documents()?;
        let (key, place) = segment.texts_key(&documents, document);
        if !texts.contains_key(&key) {
            let Some(blob) = index.get(&key)? else {
                return Ok(None);
            };
            texts.insert(key.clone(), postcard::from_bytes(&blob).map_err(damaged)?);
        }
        let kept = texts.get(&key).and_then(|kept| kept.get(place as usize));
        let (Some(kept), Some(id)) = (kept, documents.ids.get(document as usize)) else {
            continue;
        };
        let snippet = snippet::by_words(&kept.text, &weights);
        if snippet.is_none() {
            silent.push((shown.len(), kept.text.clone()));
        }
        shown.push(Hit {
            id: (*id).to_owned(),
            score,
            snippet: snippet.unwrap_or_default(),
            metadata: kept.metadata.clone(),
        });
    }
    if !silent.is_empty() {
        let Some(snippets) = by_meaning(index, manifest, question, &silent)? else {
            return Ok(None);
        };
        for ((at, _), snippet) in silent.iter().zip(snippets) {
            if let Some(hit) = shown.get_mut(*at) {
                hit.snippet = snippet;
            }
        }
    }
    Ok(Some(shown))
}

/// The snippets of documents that share no word with the question. None if the model is gone.
fn by_meaning(
    index: &Index,
    manifest: &Manifest,
    question: &Question,
    silent: &[(usize, String)],
) -> Result<Option<Vec<String>>, Failure> {
    let Some(known) = manifest.models.last() else {
        let starts = silent.iter().map(|(_, text)| snippet::start(text));
        return Ok(Some(starts.collect()));
    };
    let texts: Vec<Vec<(&str, Vec<String>)>> = silent
        .iter()
        .map(|(_, text)| snippet::sentences(text))
        .collect();
    let words = texts.iter().flatten().flat_map(|(_, terms)| terms);
    let wanted: BTreeSet<&str> = words.chain(&question.terms).map(String::as_str).collect();
    let keys: BTreeSet<String> = wanted
        .iter()
        .map(|term| known.key(model::shard_of(term, known.shards)))
        .collect();
    let keys: Vec<String> = keys.into_iter().collect();
    let Some(model) = index.read_model(known, &keys, |term| wanted.contains(term))? else {
        return Ok(None);
    };
    let sum = |terms: &[String]| {
        let mut sum = vec![0.0; model.dimensions];
        terms.iter().for_each(|term| model.add(term, 1, &mut sum));
        sum
    };
    let asked = sum(&question.terms);
    let snippets = texts.iter().zip(silent).map(|(sentences, (_, text))| {
        let fit = |terms: &[String]| {
            let said = sum(terms);
            let product: f32 = said.iter().zip(&asked).map(|(x, y)| x * y).sum();
            let length = said.iter().map(|x| x * x).sum::<f32>().sqrt();
            if length > 0.0 { product / length } else { 0.0 }
        };
        snippet::best(text, sentences, fit)
    });
    Ok(Some(snippets.collect()))
}
