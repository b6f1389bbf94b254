//! What a caller teaches: how many mails of each class showed a feature.
//!
//! The file: `CML1`, then in little endian the mails of each class (3 × u32), the number of features
//! (u32), and for each, ascending by hash, the hash (u32) and its counts (3 × u16).

use crate::evidence::Feature;

/// Classes of mail. A worker that knows two leaves the third empty.
const CLASSES: usize = 3;

/// Mails of a class.
type Counts = [u16; CLASSES];

/// Features that are kept: with 10 bytes for each, 200 kB for a caller.
const MOST: usize = 20_000;

/// After so many mails the old ones count half: what is taught now outweighs what was.
const FADES: u32 = 4096;

/// The model that a worker comes with counts as much as this many mails of each side.
const GIVEN: f64 = 12.0;

/// What has never been seen may still come: this many mails.
const UNSEEN: f64 = 0.25;

/// A feature's weight changes by at most this much.
const FARTHEST: f64 = 4.0;

/// What a caller has taught.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Learned {
    /// Mails of each class.
    mails: [u32; CLASSES],
    /// Ascending by hash.
    features: Vec<(u32, Counts)>,
}

impl Learned {
    /// Reads what [`Learned::to_bytes`] wrote. Nothing taught is an empty file.
    pub fn parse(file: &[u8]) -> Option<Self> {
        if file.is_empty() {
            return Some(Self::default());
        }
        let rest = file.strip_prefix(b"CML1")?;
        let (mails, rest) = rest.split_first_chunk::<{ 4 * CLASSES }>()?;
        let (count, rest) = rest.split_first_chunk()?;
        let (rows, []) = rest.as_chunks::<{ 4 + 2 * CLASSES }>() else {
            return None;
        };
        if usize::try_from(u32::from_le_bytes(*count)) != Ok(rows.len()) {
            return None;
        }
        let mut learned = Self::default();
        for (mails, bytes) in learned.mails.iter_mut().zip(mails.as_chunks().0) {
            *mails = u32::from_le_bytes(*bytes);
        }
        for row in rows {
            let (hash, rest) = row.split_first_chunk()?;
            let mut counts = Counts::default();
            for (count, bytes) in counts.iter_mut().zip(rest.as_chunks().0) {
                *count = u16::from_le_bytes(*bytes);
            }
            learned.features.push((u32::from_le_bytes(*hash), counts));
        }
        learned
            .features
            .is_sorted_by(|a, b| a.0 < b.0)
            .then_some(learned)
    }

    /// The file.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut file = b"CML1".to_vec();
        file.extend(self.mails.iter().flat_map(|mails| mails.to_le_bytes()));
        let count = u32::try_from(self.features.len()).unwrap_or(u32::MAX);
        file.extend(count.to_le_bytes());
        for (hash, counts) in &self.features {
            file.extend(hash.to_le_bytes());
            file.extend(counts.iter().flat_map(|count| count.to_le_bytes()));
        }
        file
    }

    /// How many mails there were, of each class.
    pub fn mails(&self) -> [u32; CLASSES] {
        self.mails
    }

    /// Adds one mail of a class.
    pub fn add(&mut self, features: &[Feature], class: usize) {
        let Some(mails) = self.mails.get_mut(class) else {
            return;
        };
        *mails += 1;
        let mut new = Vec::new();
        for feature in features {
            let place = self
                .features
                .binary_search_by_key(&feature.hash, |row| row.0);
            let mut fresh = (feature.hash, Counts::default());
            let row = match place {
                Ok(at) => self.features.get_mut(at),
                Err(_) => Some(&mut fresh),
            };
            if let Some(count) = row.and_then(|row| row.1.get_mut(class)) {
                *count = count.saturating_add(1);
            }
            if place.is_err() {
                new.push(fresh);
            }
        }
        self.features.append(&mut new);
        self.features.sort_unstable_by_key(|row| row.0);
        self.features.dedup_by_key(|row| row.0);
        if self.mails.iter().sum::<u32>() > FADES {
            self.fade();
        }
        self.prune();
    }

    /// Halves every count.
    fn fade(&mut self) {
        for mails in &mut self.mails {
            *mails = mails.div_ceil(2);
        }
        for (_, counts) in &mut self.features {
            for count in counts {
                *count /= 2;
            }
        }
        self.features
            .retain(|(_, counts)| counts.iter().any(|count| *count > 0));
    }

    /// Drops the rarest features where there are too many.
    fn prune(&mut self) {
        let total = |counts: &Counts| counts.iter().map(|count| u32::from(*count)).sum::<u32>();
        let mut least = 1;
        while self.features.len() > MOST {
            self.features.retain(|(_, counts)| total(counts) > least);
            least += 1;
        }
    }

    /// What was taught, seen as two sides: the classes of the first, and those of the second.
    pub fn between<'a>(&'a self, first: &'a [usize], second: &'a [usize]) -> Taught<'a> {
        Taught {
            learned: Some(self),
            first,
            second,
        }
    }
}

/// What a caller taught about two sides.
#[derive(Clone, Copy, Debug, Default)]
pub struct Taught<'a> {
    learned: Option<&'a Learned>,
    first: &'a [usize],
    second: &'a [usize],
}

impl Taught<'_> {
    /// How a feature's weight changes, in log-odds: Bayes, with the model that the worker comes with
    /// as [`GIVEN`] mails that were seen before.
    pub(crate) fn change(&self, hash: u32, weight: f64, frequency: f64) -> f64 {
        let Some(learned) = self.learned else {
            return 0.0;
        };
        let Ok(at) = learned.features.binary_search_by_key(&hash, |row| row.0) else {
            return 0.0;
        };
        let counts = learned.features.get(at).map_or([0; CLASSES], |row| row.1);
        let sum = |classes: &[usize], of: &dyn Fn(usize) -> f64| {
            classes.iter().map(|class| of(*class)).sum::<f64>()
        };
        let shown = |class: usize| counts.get(class).map_or(0.0, |count| f64::from(*count));
        let mails = |class: usize| {
            learned
                .mails
                .get(class)
                .map_or(0.0, |mails| f64::from(*mails))
        };
        // The shares of the two sides' mails that show it, from their mean and their ratio.
        let odds = weight.exp();
        let given = [
            frequency * 2.0 * odds / (1.0 + odds),
            frequency * 2.0 / (1.0 + odds),
        ];
        let [first, second] =
            [(self.first, given[0]), (self.second, given[1])].map(|(side, share)| {
                let before = (share * GIVEN + UNSEEN) / GIVEN;
                let after =
                    (sum(side, &shown) + share * GIVEN + UNSEEN) / (sum(side, &mails) + GIVEN);
                (after / before).ln()
            });
        (first - second).clamp(-FARTHEST, FARTHEST)
    }
}
