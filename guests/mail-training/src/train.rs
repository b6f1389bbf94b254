//! Counts what mails show, by family, and calibrates on mails that were not counted.

use std::collections::{BTreeMap, BTreeSet};

use mail::{Feature, Model, Taught};

use crate::{Class, Sample, VERSION, grammar, written};

/// A feature counts if families show it as often as this many whole families.
const RAREST: f64 = 0.12;

/// What was not seen in a side may still come: this many families.
const UNSEEN: f64 = 0.35;

/// Families are dealt into so many folds, and each is judged by a model that saw none of it.
pub const FOLDS: usize = 10;

/// Both models' files, and what came of cross-validation.
pub struct Trained {
    pub spam: Vec<u8>,
    pub importance: Vec<u8>,
    pub crossed: Vec<Crossed>,
}

/// A mail, judged by models that saw nothing of its family.
pub struct Crossed {
    pub class: Class,
    pub family: String,
    /// Of being spam.
    pub spam: f64,
    /// Of being important, if it is not spam.
    pub important: f64,
}

/// A mail with what it shows.
pub struct Seen {
    pub sample: Sample,
    pub features: Vec<Feature>,
}

/// Which of two sides a class is on: the first, the second, or neither.
type Side = fn(Class) -> Option<bool>;

pub const SPAM: Side = |class| Some(class == Class::Spam);
pub const IMPORTANCE: Side = |class| match class {
    Class::Spam => None,
    class => Some(class == Class::Important),
};

pub fn seen(samples: Vec<Sample>) -> Vec<Seen> {
    samples
        .into_iter()
        .map(|sample| Seen {
            features: sample.features(),
            sample,
        })
        .collect()
}

pub fn train() -> Trained {
    let made = seen(grammar::samples());
    let development = seen(written::development());
    let (spam, spam_scores) = model(&made, &development, SPAM);
    let (importance, importance_scores) = model(&made, &development, IMPORTANCE);
    let [spam_model, importance_model] =
        [&spam, &importance].map(|file| Model::parse(file).expect("a model"));
    let crossed = made
        .iter()
        .enumerate()
        .map(|(at, seen)| Crossed {
            class: seen.sample.class,
            family: seen.sample.family.clone(),
            spam: spam_model.probability(spam_scores[&at]),
            // Of spam the second model has seen nothing: it needs no fold.
            important: importance_model.probability(
                importance_scores.get(&at).copied().unwrap_or_else(|| {
                    importance_model
                        .weigh(&seen.features, &Taught::default())
                        .score
                }),
            ),
        })
        .collect();
    Trained {
        spam,
        importance,
        crossed,
    }
}

/// One model's file, calibrated, and every mail's score by a model that did not see its family.
fn model(made: &[Seen], development: &[Seen], side: Side) -> (Vec<u8>, BTreeMap<usize, f64>) {
    let families: BTreeSet<&str> = made
        .iter()
        .filter(|seen| side(seen.sample.class).is_some())
        .map(|seen| seen.sample.family.as_str())
        .collect();
    let fold: BTreeMap<&str, usize> = families
        .iter()
        .enumerate()
        .map(|(at, family)| (*family, at % FOLDS))
        .collect();
    let mut scores = BTreeMap::new();
    for held in 0..FOLDS {
        let file = mail::write(
            VERSION,
            1.0,
            0.0,
            rows(made, side, |family| fold[family] != held),
        );
        let model = Model::parse(&file).expect("a model");
        for (at, seen) in made.iter().enumerate() {
            if side(seen.sample.class).is_some() && fold[seen.sample.family.as_str()] == held {
                scores.insert(at, model.weigh(&seen.features, &Taught::default()).score);
            }
        }
    }
    let rows = rows(made, side, |_| true);
    let file = mail::write(VERSION, 1.0, 0.0, rows.clone());
    let plain = Model::parse(&file).expect("a model");
    // Half of the weight is what the folds left out, half what a person wrote.
    let mut points: Vec<(f64, bool, f64)> = scores
        .iter()
        .filter_map(|(at, score)| {
            Some((
                *score,
                side(made[*at].sample.class)?,
                1.0 / scores.len() as f64,
            ))
        })
        .collect();
    let judged: Vec<(f64, bool)> = development
        .iter()
        .filter_map(|seen| {
            Some((
                plain.weigh(&seen.features, &Taught::default()).score,
                side(seen.sample.class)?,
            ))
        })
        .collect();
    points.extend(
        judged
            .iter()
            .map(|(score, first)| (*score, *first, 1.0 / judged.len() as f64)),
    );
    let (slope, offset) = platt(&points);
    (mail::write(VERSION, slope, offset, rows), scores)
}

/// Every feature's weight and frequency. A family's share of mails that show a feature counts, not
/// its mails: sixty mails from one rule are not sixty witnesses.
fn rows(made: &[Seen], side: Side, counted: impl Fn(&str) -> bool) -> Vec<(u32, f64, f64)> {
    let mut sizes: BTreeMap<&str, f64> = BTreeMap::new();
    let mut families = [BTreeSet::new(), BTreeSet::new()];
    let among: Vec<(&Seen, usize)> = made
        .iter()
        .filter_map(|seen| Some((seen, usize::from(!side(seen.sample.class)?))))
        .filter(|(seen, _)| counted(&seen.sample.family))
        .collect();
    for (seen, side) in &among {
        *sizes.entry(&seen.sample.family).or_default() += 1.0;
        families[*side].insert(seen.sample.family.as_str());
    }
    let mut shown: BTreeMap<u32, [f64; 2]> = BTreeMap::new();
    for (seen, side) in &among {
        for feature in &seen.features {
            shown.entry(feature.hash).or_default()[*side] +=
                1.0 / sizes[seen.sample.family.as_str()];
        }
    }
    let silent = silent();
    let [first, second] = families.map(|families| families.len() as f64);
    shown
        .into_iter()
        .filter(|(_, [a, b])| a + b >= RAREST)
        .map(|(hash, [a, b])| {
            let frequency = (a / first + b / second) / 2.0;
            if silent.contains(&hash) {
                return (hash, 0.0, frequency);
            }
            let weight = libm::log((a + UNSEEN) / (first + 2.0 * UNSEEN))
                - libm::log((b + UNSEEN) / (second + 2.0 * UNSEEN));
            (hash, weight, frequency)
        })
        // What takes no side stays if it is common: who teaches must know that it is.
        .filter(|(_, weight, frequency)| weight.abs() >= 0.1 || *frequency >= 0.02)
        .collect()
}

/// Words that carry no matter. How often the rules use them is their author's style, and would be
/// taken for a sign of one side.
const SILENT: &str = "a about after all also an and any are as at be been before but by can could did do does for from get had has have he her here him his how i if in into is it its just may me more my no not of off on one only or other our out over she so some than that the their them then there these they this to too up us very was we were what when where which who will with would you your \
    als am an auf aus bei bis da das dass dem den der des die durch ein eine einem einen einer er es fur hat haben ich ihr ihre ihnen im in ist ja kann mit nach nicht noch nur oder sich sie sind so um und uns unser von vor war was wenn wie wir wird zu zum zur \
    au aux avec ce ces dans de des du elle en est et il je la le les leur mais ne nous on ou par pas plus pour que qui sa se ses son sont sur un une vous votre vos \
    al con cual de del el ella en es esta este ha las lo los mas me mi no o para pero por que se si sin sobre son su sus un una y ya \
    che ci di e gli i il in la le lo ma ne nel non per piu sono un una uno da em nao os as seu sua um uma het een van dat niet op te voor zijn \
    и в на не что с по для к у от за из как это до же или вы мы я он";

/// [`SILENT`], alone, in a subject, and in pairs with each other.
fn silent() -> BTreeSet<u32> {
    let words: BTreeSet<&str> = SILENT.split_whitespace().collect();
    let single = words
        .iter()
        .flat_map(|word| [word.to_string(), format!("subject: {word}")]);
    let pairs = words
        .iter()
        .flat_map(|word| words.iter().map(move |next| format!("{word} {next}")));
    single
        .chain(pairs)
        .map(|name| Feature::new(name).hash)
        .collect()
}

/// Slope and offset of the logistic curve that fits best (Platt), by Newton's method.
fn platt(points: &[(f64, bool, f64)]) -> (f64, f64) {
    let (mut slope, mut offset) = (1.0, 0.0);
    for _ in 0..60 {
        let mut gradient = [0.0; 2];
        let mut hessian = [1e-6, 0.0, 1e-6];
        for (score, first, weight) in points {
            let p = 1.0 / (1.0 + libm::exp(-(slope * score + offset)));
            // Platt's targets: never quite sure.
            let target = if *first { 0.995 } else { 0.005 };
            let (error, spread) = ((p - target) * weight, p * (1.0 - p) * weight);
            gradient[0] += error * score;
            gradient[1] += error;
            hessian[0] += spread * score * score;
            hessian[1] += spread * score;
            hessian[2] += spread;
        }
        let [a, b, c] = hessian;
        let determinant = a * c - b * b;
        let step = [
            (c * gradient[0] - b * gradient[1]) / determinant,
            (a * gradient[1] - b * gradient[0]) / determinant,
        ];
        slope -= step[0].clamp(-0.5, 0.5);
        offset -= step[1].clamp(-0.5, 0.5);
    }
    (slope, offset)
}
