//! What terms mean: a vector for each, learnt from the documents that were there.

use std::collections::HashMap;
use std::hash::Hasher;

use fnv::FnvHasher;
use serde::{Deserialize, Serialize};

use crate::lsa::{self, Matrix};
use crate::words;

/// Terms that a model knows at most: those in most documents.
const MAX_TERMS: usize = 32_768;
/// Directions at most.
const MAX_DIMENSIONS: usize = 128;
/// So many documents for one more direction: with more, a small collection is learnt by heart.
const DOCUMENTS_PER_DIMENSION: usize = 2;
/// Directions at least, as far as there are documents.
const MIN_DIMENSIONS: usize = 8;
/// About how long a piece of a stored table is, in bytes: one is read for each term of a question.
pub const SHARD_BYTES: usize = 64 << 10;

/// The vectors of terms: all of a model's, or those that were read.
pub struct Model {
    /// How long each vector is.
    pub dimensions: usize,
    terms: HashMap<String, Vector>,
}

/// Eight bits for each coordinate.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Vector {
    /// What a step of a coordinate is worth.
    pub step: f32,
    /// The coordinates, signed.
    pub cells: Vec<u8>,
}

impl Vector {
    /// The nearest vector of eight-bit steps.
    pub fn quantised(cells: &[f32]) -> Self {
        let largest = cells.iter().fold(0.0_f32, |most, x| most.max(x.abs()));
        let step = if largest > 0.0 { largest / 127.0 } else { 1.0 };
        let cell = |x: &f32| (x / step).round() as i8 as u8;
        Self {
            step,
            cells: cells.iter().map(cell).collect(),
        }
    }
}

/// The product of two vectors' cells.
pub fn product(left: &[u8], right: &[u8]) -> i32 {
    let cells = left.iter().zip(right);
    cells
        .map(|(x, y)| i32::from(*x as i8) * i32::from(*y as i8))
        .sum()
}

impl Model {
    /// One that knows no term yet.
    pub fn empty(dimensions: usize) -> Self {
        Self {
            dimensions,
            terms: HashMap::new(),
        }
    }

    /// Learns from documents, given for each term by where it stands, (document, times).
    pub fn learn(documents: usize, postings: &[(&str, Vec<(u32, u32)>)]) -> Self {
        let mut known: Vec<_> = postings
            .iter()
            .filter(|(term, at)| !at.is_empty() && !words::silent(term))
            .collect();
        known.sort_by(|a, b| b.1.len().cmp(&a.1.len()).then(a.0.cmp(b.0)));
        known.truncate(MAX_TERMS);
        let weights: Vec<f32> = known.iter().map(|(_, at)| rarity(documents, at)).collect();
        let mut rows = vec![Vec::new(); documents];
        for (term, ((_, at), weight)) in known.iter().zip(&weights).enumerate() {
            for (document, times) in at {
                if let Some(row) = rows.get_mut(*document as usize) {
                    row.push((term as u32, emphasis(*times) * weight));
                }
            }
        }
        // A long document is one witness, as a short one is.
        for row in &mut rows {
            let length = row.iter().map(|(_, x)| x * x).sum::<f32>().sqrt();
            if length > 0.0 {
                row.iter_mut().for_each(|(_, x)| *x /= length);
            }
        }
        let count = (documents / DOCUMENTS_PER_DIMENSION).clamp(MIN_DIMENSIONS, MAX_DIMENSIONS);
        let matrix = Matrix {
            rows,
            terms: known.len(),
        };
        let found = lsa::directions(&matrix, count);
        let vectors = found.terms.chunks_exact(found.count.max(1));
        let terms = known.iter().zip(vectors).zip(&weights);
        Self {
            dimensions: found.count,
            terms: terms
                .map(|(((term, _), cells), weight)| {
                    let cells: Vec<f32> = cells.iter().map(|x| x * weight).collect();
                    ((*term).to_owned(), Vector::quantised(&cells))
                })
                .collect(),
        }
    }

    /// In how many pieces it is stored.
    pub fn shards(&self) -> u32 {
        shards(self.terms.len() * (self.dimensions + 16))
    }

    /// A piece, to be stored.
    pub fn shard(&self, shard: u32, shards: u32) -> Result<Vec<u8>, postcard::Error> {
        let mut terms: Vec<_> = self
            .terms
            .iter()
            .filter(|(term, _)| shard_of(term, shards) == shard)
            .collect();
        terms.sort_by_key(|(term, _)| *term);
        postcard::to_allocvec(&terms)
    }

    /// Adds the terms of a stored piece for which `wanted` holds.
    pub fn read(
        &mut self,
        shard: &[u8],
        wanted: impl Fn(&str) -> bool,
    ) -> Result<(), postcard::Error> {
        #[derive(Deserialize)]
        struct Stored<'a>(&'a str, f32, &'a [u8]);

        let (mut left, mut rest) = postcard::take_from_bytes::<u32>(shard)?;
        while left > 0 {
            let (stored, behind) = postcard::take_from_bytes::<Stored<'_>>(rest)?;
            if wanted(stored.0) {
                let vector = Vector {
                    step: stored.1,
                    cells: stored.2.to_vec(),
                };
                self.terms.insert(stored.0.to_owned(), vector);
            }
            (left, rest) = (left - 1, behind);
        }
        Ok(())
    }

    /// Adds a term that stands somewhere so many times to the sum of what stands there.
    pub fn add(&self, term: &str, times: u32, sum: &mut [f32]) {
        if let Some(vector) = self.terms.get(term) {
            let factor = emphasis(times) * vector.step;
            for (cell, x) in sum.iter_mut().zip(&vector.cells) {
                *cell += factor * f32::from(*x as i8);
            }
        }
    }
}

/// How much a term counts that stands somewhere so many times.
fn emphasis(times: u32) -> f32 {
    (times as f32).ln_1p()
}

/// How much a term counts that stands in these documents. The square keeps what is in every other document
/// from taking a direction for itself.
fn rarity(documents: usize, at: &[(u32, u32)]) -> f32 {
    let rarity = ((documents as f32 + 1.0) / (at.len() as f32 + 0.5)).ln();
    rarity.max(0.0).powi(2)
}

/// In how many pieces so many bytes are stored.
pub fn shards(bytes: usize) -> u32 {
    u32::try_from(bytes.div_ceil(SHARD_BYTES)).map_or(256, |shards| shards.clamp(1, 256))
}

/// In which piece a term is.
pub fn shard_of(term: &str, shards: u32) -> u32 {
    let mut hasher = FnvHasher::default();
    hasher.write(term.as_bytes());
    (hasher.finish() % u64::from(shards.max(1))) as u32
}
