//! A model: how strongly each feature speaks for one of two sides, and how often mails show it.
//!
//! The file: `CMM1`, then in little endian the version (u32), the number of features (u32), slope and
//! offset (f32), and three columns: hashes (u32, ascending), weights (i8), frequencies (u8). It is
//! read where it lies; nothing is unpacked.

use crank_worker::Failure;

use crate::evidence::Feature;
use crate::learned::Taught;

/// Weights are counted in this share of a unit of log-odds.
const WEIGHT: f64 = 1.0 / 28.0;

/// Frequencies fall by this power of e for each step.
const FREQUENCY: f64 = -1.0 / 24.0;

/// So many features, the strongest, decide.
const STRONGEST: usize = 60;

/// Features weaker than this say nothing.
const WEAKEST: f64 = 0.15;

/// Features of the text that make a part, and those from one part's beginning to the next.
const PART: usize = 80;
const STEP: usize = 40;

/// What a part's score must have over that of the whole: of many parts one always stands out.
const DISCOUNT: f64 = 0.5;

/// Reasons that are told.
const REASONS: usize = 8;

/// Fewer features than this are not enough to be sure: they count as if these were so many.
const FEW: f64 = 12.0;

/// A model in its file.
#[derive(Clone, Copy, Debug)]
pub struct Model<'a> {
    /// Counts up with every training that is published.
    pub version: u32,
    slope: f64,
    offset: f64,
    hashes: &'a [[u8; 4]],
    weights: &'a [u8],
    frequencies: &'a [u8],
}

/// Why a side was taken: a feature, and how strongly it speaks for the first side (above zero) or for
/// the second, in log-odds.
#[derive(Clone, Debug, PartialEq)]
pub struct Reason {
    /// See [`Feature::name`].
    pub name: String,
    /// In log-odds.
    pub weight: f64,
}

/// What the evidence comes to.
#[derive(Clone, Debug, Default)]
pub struct Weighed {
    /// The sum, tempered, before it is calibrated.
    pub score: f64,
    /// The strongest reasons first.
    pub reasons: Vec<Reason>,
}

impl<'a> Model<'a> {
    /// The model that a worker carries.
    pub fn open(file: &'a [u8]) -> Result<Self, Failure> {
        Self::parse(file)
            .ok_or_else(|| Failure::failed("the model is damaged").code("model-damaged"))
    }

    /// Reads a model's file. None where it is not one.
    pub fn parse(file: &'a [u8]) -> Option<Self> {
        let (magic, rest) = file.split_first_chunk::<4>()?;
        let (version, rest) = rest.split_first_chunk()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (slope, rest) = rest.split_first_chunk()?;
        let (offset, rest) = rest.split_first_chunk()?;
        let count = usize::try_from(u32::from_le_bytes(*count)).ok()?;
        let (hashes, rest) = rest.split_at_checked(count.checked_mul(4)?)?;
        let (weights, frequencies) = rest.split_at_checked(count)?;
        (magic == b"CMM1" && frequencies.len() == count).then(|| Self {
            version: u32::from_le_bytes(*version),
            slope: f32::from_le_bytes(*slope).into(),
            offset: f32::from_le_bytes(*offset).into(),
            hashes: hashes.as_chunks().0,
            weights,
            frequencies,
        })
    }

    /// The same model, which takes no side: only how common each feature is.
    pub fn impartial(self) -> Self {
        Self {
            weights: &[],
            ..self
        }
    }

    /// The first side's weight, in log-odds, and the share of mails that show a feature; zero for one
    /// that is not known.
    pub fn look_up(&self, hash: u32) -> (f64, f64) {
        let Ok(at) = self
            .hashes
            .binary_search_by_key(&hash, |bytes| u32::from_le_bytes(*bytes))
        else {
            return (0.0, 0.0);
        };
        let weight = self.weights.get(at).map_or(0, |byte| byte.cast_signed());
        let frequency = self.frequencies.get(at).map_or(0, |byte| *byte);
        (
            f64::from(weight) * WEIGHT,
            (f64::from(frequency) * FREQUENCY).exp(),
        )
    }

    /// Weighs what a mail shows, with what the caller taught. The most telling part of a mail counts,
    /// so that what matters, or is unwanted, cannot be drowned in other words.
    pub fn weigh(&self, features: &[Feature], taught: &Taught<'_>) -> Weighed {
        let weighed: Vec<(&Feature, f64)> = features
            .iter()
            .map(|feature| {
                let (weight, frequency) = self.look_up(feature.hash);
                let weight = weight + taught.change(feature.hash, weight, frequency);
                (feature, weight)
            })
            .collect();
        let whole = strongest(weighed.iter());
        let mut best = (score(&whole), whole);
        // Marks come first, and belong to every part.
        let marks = features
            .iter()
            .take_while(|feature| feature.name.starts_with('['))
            .count();
        let (marks, text) = weighed.split_at(marks);
        let mut rest = text;
        while rest.len() > STEP {
            let part = strongest(marks.iter().chain(rest.iter().take(PART)));
            let score = score(&part) - DISCOUNT;
            if score > best.0 {
                best = (score, part);
            }
            rest = rest.get(STEP..).unwrap_or_default();
        }
        let (score, reasons) = best;
        let told = reasons
            .iter()
            .take(REASONS)
            .map(|(feature, weight)| Reason {
                name: feature.name.clone(),
                weight: *weight,
            });
        Weighed {
            score,
            reasons: told.collect(),
        }
    }

    /// The probability of the first side, calibrated (Platt).
    pub fn probability(&self, score: f64) -> f64 {
        probability(self.slope * score + self.offset)
    }
}

/// The features that say most, the strongest first.
fn strongest<'a, 'f: 'a>(
    weighed: impl Iterator<Item = &'a (&'f Feature, f64)>,
) -> Vec<(&'f Feature, f64)> {
    let mut telling: Vec<_> = weighed
        .filter(|(_, weight)| weight.abs() >= WEAKEST)
        .copied()
        .collect();
    telling.sort_by(|a, b| b.1.abs().total_cmp(&a.1.abs()));
    telling.truncate(STRONGEST);
    telling
}

/// Words of one mail depend on each other, so that the sum of their log-odds claims too much, the more
/// the longer the mail.
fn score(telling: &[(&Feature, f64)]) -> f64 {
    let sum: f64 = telling.iter().map(|(_, weight)| weight).sum();
    sum / (telling.len() as f64).max(FEW).sqrt()
}

/// The probability that log-odds stand for.
pub fn probability(log_odds: f64) -> f64 {
    1.0 / (1.0 + (-log_odds).exp())
}

/// Writes a model's file. `rows`: hash, weight in log-odds, frequency; in any order, each hash once.
pub fn write(version: u32, slope: f64, offset: f64, mut rows: Vec<(u32, f64, f64)>) -> Vec<u8> {
    rows.sort_by_key(|(hash, ..)| *hash);
    let count = u32::try_from(rows.len()).unwrap_or(u32::MAX);
    let mut file = b"CMM1".to_vec();
    file.extend(version.to_le_bytes());
    file.extend(count.to_le_bytes());
    file.extend((slope as f32).to_le_bytes());
    file.extend((offset as f32).to_le_bytes());
    file.extend(rows.iter().flat_map(|(hash, ..)| hash.to_le_bytes()));
    // `as` saturates.
    file.extend(
        rows.iter()
            .map(|(_, weight, _)| ((weight / WEIGHT).round() as i8).cast_unsigned()),
    );
    file.extend(
        rows.iter()
            .map(|(_, _, frequency)| (frequency.ln() / FREQUENCY).round() as u8),
    );
    file
}
