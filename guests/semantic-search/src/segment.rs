//! A piece of the index: some documents, written once and never changed, in a few blobs.
//!
//! | key | what |
//! |---|---|
//! | `segment/7/documents` | ids, lengths, and where the texts are |
//! | `segment/7/terms/3` | of the terms of this piece the documents they stand in |
//! | `segment/7/vectors/5` | the documents' vectors by model 5, then their lengths |
//! | `segment/7/texts/2` | texts and metadata of some documents in a row |
//!
//! A search reads the first, of the second the pieces of its terms, the third, and texts for what it shows.

use std::collections::BTreeMap;

use crank_worker::Failure;
use serde::{Deserialize, Serialize};

use crate::model::{self, Model, Vector};
use crate::store::{Index, damaged};
use crate::words::{Purpose, terms};

/// What marks a metadata value among the terms: no word has it.
const METADATA: char = '\u{1}';
/// About how long a blob of texts is, in bytes.
const TEXT_BYTES: usize = 64 << 10;

/// A key and its value.
pub type Blob = (String, Vec<u8>);

/// What the manifest says of a segment.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Segment {
    /// Its number; none is given twice.
    pub id: u64,
    /// How many documents it was written with.
    pub documents: u32,
    /// How many terms these have together.
    pub words: u64,
    /// In how many pieces its terms are.
    pub shards: u32,
    /// What a search may read of it, without the texts, in bytes.
    pub hot: u64,
    /// All of it, in bytes.
    pub bytes: u64,
    /// Its vectors, in bytes.
    pub vectors: u64,
    /// The model of its vectors.
    pub model: Option<u64>,
    /// Documents that are no longer there, in order.
    pub deleted: Vec<u32>,
}

/// The blob `documents`.
#[derive(Serialize, Deserialize)]
pub struct Documents<'a> {
    /// Their ids.
    #[serde(borrow)]
    pub ids: Vec<&'a str>,
    /// How many terms each has.
    pub lengths: Vec<u32>,
    /// The first document of each blob of texts.
    pub texts: Vec<u32>,
}

/// What is kept of a document as it is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Kept {
    /// What it says.
    pub text: String,
    /// Its metadata, in JSON; empty if it has none.
    pub metadata: String,
}

impl Segment {
    /// What all keys of a segment or a model begin with.
    pub fn prefix(id: u64) -> String {
        format!("segment/{id}/")
    }

    /// The key of its documents.
    pub fn documents_key(&self) -> String {
        format!("segment/{}/documents", self.id)
    }

    /// The key of the piece that has a term.
    pub fn terms_key(&self, term: &str) -> String {
        let shard = model::shard_of(term, self.shards);
        format!("segment/{}/terms/{shard}", self.id)
    }

    /// The key of its vectors by a model.
    pub fn vectors_key(&self, model: u64) -> String {
        format!("segment/{}/vectors/{model}", self.id)
    }

    /// The key of the texts of a document.
    pub fn texts_key(&self, documents: &Documents<'_>, document: u32) -> (String, u32) {
        let behind = documents.texts.partition_point(|first| *first <= document);
        let blob = behind.saturating_sub(1);
        let first = documents.texts.get(blob).copied().unwrap_or_default();
        (
            format!("segment/{}/texts/{blob}", self.id),
            document - first.min(document),
        )
    }

    /// How many of its documents are there.
    pub fn live(&self) -> u32 {
        self.documents - (self.deleted.len() as u32).min(self.documents)
    }

    /// Whether a document is no longer there.
    pub fn lacks(&self, document: u32) -> bool {
        self.deleted.binary_search(&document).is_ok()
    }

    /// Notes that documents are no longer there; returns how many of them were.
    pub fn bury(&mut self, documents: &[u32]) -> usize {
        let before = self.deleted.len();
        self.deleted.extend(documents);
        self.deleted.sort_unstable();
        self.deleted.dedup();
        self.deleted.len() - before
    }
}

/// The term under which a metadata value is found.
pub fn metadata_term(key: &str, value: &impl Serialize) -> String {
    let pair = serde_json::to_string(&(key, value)).unwrap_or_default();
    format!("{METADATA}{pair}")
}

/// Whether a term is a word, not a metadata value.
pub fn is_word(term: &str) -> bool {
    !term.starts_with(METADATA)
}

/// A blob of terms with the documents they stand in, as it is read.
pub type Postings<'a> = Vec<(&'a str, &'a [u8])>;

/// The documents in which a term stands, and how often.
pub fn places(mut coded: &[u8]) -> Result<Vec<(u32, u32)>, Failure> {
    let mut places = Vec::new();
    let mut document = 0_u32;
    while !coded.is_empty() {
        let ((step, times), rest) =
            postcard::take_from_bytes::<(u32, u32)>(coded).map_err(damaged)?;
        document = document.wrapping_add(step);
        places.push((document, times));
        coded = rest;
    }
    Ok(places)
}

/// A segment before it is written.
#[derive(Default)]
pub struct Draft {
    ids: Vec<String>,
    lengths: Vec<u32>,
    kept: Vec<Kept>,
    postings: BTreeMap<String, Vec<(u32, u32)>>,
}

impl Draft {
    /// Adds a document, with the terms under which its metadata is found.
    pub fn add(&mut self, id: String, kept: Kept, metadata: Vec<String>) {
        let words = terms(&kept.text, Purpose::Index);
        self.lengths.push(words.len() as u32);
        let document = self.ids.len() as u32;
        for term in words.into_iter().chain(metadata) {
            let places = self.postings.entry(term).or_default();
            match places.last_mut() {
                Some((last, times)) if *last == document => *times += 1,
                _ => places.push((document, 1)),
            }
        }
        self.ids.push(id);
        self.kept.push(kept);
    }

    /// Adds what is left of a segment, and says where each document went. None if the segment is gone.
    pub fn absorb(
        &mut self,
        index: &Index,
        segment: &Segment,
    ) -> Result<Option<Vec<Option<u32>>>, Failure> {
        let Some(blob) = index.get(&segment.documents_key())? else {
            return Ok(None);
        };
        let documents: Documents<'_> = postcard::from_bytes(&blob).map_err(damaged)?;
        let mut moved = Vec::new();
        for (document, (id, length)) in documents.ids.iter().zip(&documents.lengths).enumerate() {
            let there = !segment.lacks(document as u32);
            moved.push(there.then_some(self.ids.len() as u32));
            if there {
                self.ids.push((*id).to_owned());
                self.lengths.push(*length);
            }
        }
        for blob in 0..documents.texts.len() {
            let first = documents.texts[blob];
            let Some(texts) = index.get(&format!("segment/{}/texts/{blob}", segment.id))? else {
                return Ok(None);
            };
            let texts: Vec<Kept> = postcard::from_bytes(&texts).map_err(damaged)?;
            let kept = (first..).zip(texts).filter(|(at, _)| !segment.lacks(*at));
            self.kept.extend(kept.map(|(_, kept)| kept));
        }
        let postings = &mut self.postings;
        let there = each_posting(index, segment, |term, at| {
            let at = at
                .iter()
                .filter_map(|(document, times)| Some(((*moved.get(*document as usize)?)?, *times)));
            let at: Vec<_> = at.collect();
            if !at.is_empty() {
                postings.entry(term.to_owned()).or_default().extend(at);
            }
        })?;
        Ok(there.then_some(moved))
    }

    /// The blobs of the segment, and what the manifest says of it.
    pub fn write(
        &self,
        id: u64,
        model: Option<(u64, &Model)>,
    ) -> Result<(Segment, Vec<Blob>), Failure> {
        let mut blobs = Vec::new();
        let coded = self.postings.iter().map(|(term, places)| {
            let mut coded = Vec::new();
            let mut before = 0;
            for (document, times) in places {
                coded = postcard::to_extend(&(document - before, *times), coded)?;
                before = *document;
            }
            Ok((term.as_str(), coded))
        });
        let coded: Vec<_> = coded.collect::<Result<_, _>>().map_err(damaged)?;
        let shards = model::shards(
            coded
                .iter()
                .map(|(term, coded)| term.len() + coded.len() + 4)
                .sum(),
        );
        let mut pieces = vec![Vec::new(); shards as usize];
        for (term, coded) in &coded {
            pieces[model::shard_of(term, shards) as usize].push((*term, coded.as_slice()));
        }
        for (shard, piece) in pieces.iter().enumerate() {
            let piece = postcard::to_allocvec(piece).map_err(damaged)?;
            blobs.push((format!("segment/{id}/terms/{shard}"), piece));
        }
        let mut segment = Segment {
            id,
            documents: self.ids.len() as u32,
            words: self.lengths.iter().map(|length| u64::from(*length)).sum(),
            shards,
            hot: 0,
            bytes: 0,
            vectors: 0,
            model: model.map(|(id, _)| id),
            deleted: Vec::new(),
        };
        if let Some((number, model)) = model {
            let vectors = self.vectors(model);
            segment.vectors = vectors.len() as u64;
            blobs.push((segment.vectors_key(number), vectors));
        }
        let texts = self.texts(id, &mut blobs)?;
        let documents = Documents {
            ids: self.ids.iter().map(String::as_str).collect(),
            lengths: self.lengths.clone(),
            texts,
        };
        let documents = postcard::to_allocvec(&documents).map_err(damaged)?;
        blobs.push((segment.documents_key(), documents));
        for (key, value) in &blobs {
            let bytes = (key.len() + value.len()) as u64;
            segment.bytes += bytes;
            segment.hot += if key.contains("/texts/") { 0 } else { bytes };
        }
        Ok((segment, blobs))
    }

    /// Puts the texts into blobs; returns the first document of each.
    fn texts(&self, id: u64, blobs: &mut Vec<Blob>) -> Result<Vec<u32>, Failure> {
        let mut firsts = Vec::new();
        let mut from = 0;
        while from < self.kept.len() {
            let mut bytes = 0;
            let fitting = self.kept[from..].iter().take_while(|kept| {
                let before = bytes;
                bytes += kept.text.len() + kept.metadata.len();
                before == 0 || bytes <= TEXT_BYTES
            });
            let behind = from + fitting.count();
            let blob = postcard::to_allocvec(&self.kept[from..behind]).map_err(damaged)?;
            blobs.push((format!("segment/{id}/texts/{}", firsts.len()), blob));
            firsts.push(from as u32);
            from = behind;
        }
        Ok(firsts)
    }

    /// The blob of vectors.
    fn vectors(&self, model: &Model) -> Vec<u8> {
        let postings = self.postings.iter();
        vectors(
            self.ids.len(),
            model,
            postings.map(|(term, at)| (term.as_str(), at.as_slice())),
        )
    }
}

/// Calls back with every term of a segment and where it stands, deleted documents included. False if the
/// segment is gone.
pub fn each_posting(
    index: &Index,
    segment: &Segment,
    mut call: impl FnMut(&str, &[(u32, u32)]),
) -> Result<bool, Failure> {
    for shard in 0..segment.shards {
        let Some(blob) = index.get(&format!("segment/{}/terms/{shard}", segment.id))? else {
            return Ok(false);
        };
        let postings: Postings<'_> = postcard::from_bytes(&blob).map_err(damaged)?;
        for (term, coded) in postings {
            call(term, &places(coded)?);
        }
    }
    Ok(true)
}

/// The blob of vectors of so many documents: the cells of one after the other, then for each the inverse
/// of its length, four bytes, little-endian; zero for a document of which the model knows no word.
pub fn vectors<'a>(
    documents: usize,
    model: &Model,
    postings: impl Iterator<Item = (&'a str, &'a [(u32, u32)])>,
) -> Vec<u8> {
    let width = model.dimensions;
    let mut sums = vec![0.0; documents * width];
    for (term, at) in postings {
        for (document, times) in at {
            let from = *document as usize * width;
            if let Some(sum) = sums.get_mut(from..from + width) {
                model.add(term, *times, sum);
            }
        }
    }
    let mut blob = Vec::with_capacity(documents * (width + 4));
    let mut lengths = Vec::with_capacity(documents * 4);
    for document in 0..documents {
        let vector = Vector::quantised(&sums[document * width..][..width]);
        lengths.extend(inverse_length(&vector.cells).to_le_bytes());
        blob.extend(vector.cells);
    }
    blob.extend(lengths);
    blob
}

/// One over the length of a vector, in its own steps; zero if it has none.
pub fn inverse_length(cells: &[u8]) -> f32 {
    let square = model::product(cells, cells);
    if square > 0 {
        1.0 / (square as f32).sqrt()
    } else {
        0.0
    }
}
