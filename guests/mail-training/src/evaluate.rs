//! The figures of docs/evaluation-mail.md.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::{self, Write};

use mail::{Feature, Model, Taught};

use crate::obfuscate::WAYS;
use crate::random::Random;
use crate::train::{Seen, Trained, seen};
use crate::{Class, Sample, grammar, written};

/// A mail's class, and the probabilities of spam, important, normal that were given to it.
struct Judged {
    class: Class,
    given: [f64; 3],
}

const CLASSES: [Class; 3] = [Class::Spam, Class::Important, Class::Normal];

impl Judged {
    fn new(class: Class, spam: f64, important: f64) -> Self {
        Self {
            class,
            given: [
                spam,
                (1.0 - spam) * important,
                (1.0 - spam) * (1.0 - important),
            ],
        }
    }

    fn best(&self) -> (Class, f64) {
        CLASSES
            .into_iter()
            .zip(self.given)
            .max_by(|a, b| a.1.total_cmp(&b.1))
            .expect("three classes")
    }
}

/// All of them, as Markdown.
pub fn page(trained: &Trained) -> String {
    let mut page = String::new();
    let out = &mut page;
    let crossed: Vec<Judged> = trained
        .crossed
        .iter()
        .map(|crossed| Judged::new(crossed.class, crossed.spam, crossed.important))
        .collect();
    line(
        out,
        format_args!("## Made mails, cross-validated by families\n"),
    );
    table(out, &crossed);
    worst_families(out, trained);

    let models =
        [&trained.spam, &trained.importance].map(|file| Model::parse(file).expect("a model"));
    for (title, samples) in [
        (
            "development set (calibration saw it)",
            written::development(),
        ),
        ("held-out set", written::held_out()),
    ] {
        line(out, format_args!("\n## Hand-written mails, {title}\n"));
        let seen = seen(samples);
        let judged: Vec<Judged> = seen
            .iter()
            .map(|seen| judge(&models, seen.sample.class, &seen.features))
            .collect();
        table(out, &judged);
        mistakes(out, &models, &seen, &judged);
    }
    line(
        out,
        format_args!("\n## What weighs most: weight times the root of how common it is\n"),
    );
    for (model, sides) in models
        .iter()
        .zip([["spam", "no spam"], ["important", "normal"]])
    {
        heaviest(out, model, sides);
    }
    line(
        out,
        format_args!("\n## Disguise: held-out spam that is still found\n"),
    );
    disguise(out, &models[0]);
    line(
        out,
        format_args!("\n## Likeness: runs of words of held-out mails that stand in made mails\n"),
    );
    likeness(out, &models);
    page
}

fn line(out: &mut String, text: fmt::Arguments<'_>) {
    writeln!(out, "{text}").expect("a string takes all");
}

fn judge([spam, importance]: &[Model<'_>; 2], class: Class, features: &[Feature]) -> Judged {
    let of = |model: &Model<'_>| model.probability(model.weigh(features, &Taught::default()).score);
    Judged::new(class, of(spam), of(importance))
}

fn table(out: &mut String, judged: &[Judged]) {
    let total = judged.len() as f64;
    let right = judged
        .iter()
        .filter(|judged| judged.best().0 == judged.class)
        .count();
    line(
        out,
        format_args!(
            "{} mails, {:.1} % in the right category of three\n",
            judged.len(),
            100.0 * right as f64 / total
        ),
    );
    line(
        out,
        format_args!("| | spam | important | normal |\n|---|---|---|---|"),
    );
    for class in CLASSES {
        let counts = CLASSES.map(|found| {
            judged
                .iter()
                .filter(|judged| judged.class == class && judged.best().0 == found)
                .count()
                .to_string()
        });
        line(
            out,
            format_args!("| is {class:?} | {} |", counts.join(" | ")),
        );
    }
    for class in CLASSES {
        let both = judged
            .iter()
            .filter(|judged| judged.class == class && judged.best().0 == class)
            .count() as f64;
        let found = judged
            .iter()
            .filter(|judged| judged.best().0 == class)
            .count() as f64;
        let are = judged.iter().filter(|judged| judged.class == class).count() as f64;
        line(
            out,
            format_args!(
                "{class:?}: precision {:.1} %, recall {:.1} %",
                100.0 * both / found,
                100.0 * both / are
            ),
        );
    }
    // As spam_detection answers: spam from a probability of one half.
    let spam: Vec<(f64, bool)> = judged
        .iter()
        .map(|judged| (judged.given[0], judged.class == Class::Spam))
        .collect();
    let hams = spam.iter().filter(|(_, is)| !is).count() as f64;
    let share = |at: f64, of: bool| {
        100.0 * spam.iter().filter(|(p, is)| *is == of && *p >= at).count() as f64
            / if of { total - hams } else { hams }
    };
    for at in [0.5, 0.9] {
        line(
            out,
            format_args!(
                "spam_detection at {at}: finds {:.1} % of spam, false positives {:.1} % of the others",
                share(at, true),
                share(at, false)
            ),
        );
    }
    line(
        out,
        format_args!(
            "spam_detection: Brier {:.3}, ECE {:.3}",
            brier(&spam),
            ece(&spam)
        ),
    );
    let best: Vec<(f64, bool)> = judged
        .iter()
        .map(|judged| (judged.best().1, judged.best().0 == judged.class))
        .collect();
    line(
        out,
        format_args!(
            "email_category's confidence: Brier {:.3}, ECE {:.3}",
            brier(&best),
            ece(&best)
        ),
    );
}

fn brier(points: &[(f64, bool)]) -> f64 {
    let square = |(p, is): &(f64, bool)| (p - f64::from(u8::from(*is))).powi(2);
    points.iter().map(square).sum::<f64>() / points.len() as f64
}

/// Expected calibration error over ten bins of equal width.
fn ece(points: &[(f64, bool)]) -> f64 {
    let mut bins: BTreeMap<usize, (f64, f64)> = BTreeMap::new();
    for (p, is) in points {
        let bin = bins.entry(((p * 10.0) as usize).min(9)).or_default();
        bin.0 += p;
        bin.1 += f64::from(u8::from(*is));
    }
    bins.values()
        .map(|(claimed, true_)| (claimed - true_).abs())
        .sum::<f64>()
        / points.len() as f64
}

fn worst_families(out: &mut String, trained: &Trained) {
    let mut families: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for crossed in &trained.crossed {
        let family = families.entry(&crossed.family).or_default();
        family.0 += usize::from((crossed.spam >= 0.5) != (crossed.class == Class::Spam));
        family.1 += 1;
    }
    let mut worst: Vec<_> = families
        .into_iter()
        .filter(|(_, (wrong, _))| *wrong > 0)
        .collect();
    worst.sort_by_key(|(_, (wrong, _))| std::cmp::Reverse(*wrong));
    let worst: Vec<String> = worst
        .iter()
        .take(10)
        .map(|(family, (wrong, of))| format!("{family} {wrong}/{of}"))
        .collect();
    line(
        out,
        format_args!("\nspam or not, wrong most often: {}", worst.join(", ")),
    );
}

fn mistakes(
    out: &mut String,
    [spam, importance]: &[Model<'_>; 2],
    seen: &[Seen],
    judged: &[Judged],
) {
    line(out, format_args!("\nwrong:"));
    for (seen, judged) in seen.iter().zip(judged) {
        let (found, confidence) = judged.best();
        if found == judged.class {
            continue;
        }
        let model = if Class::Spam == found || Class::Spam == judged.class {
            spam
        } else {
            importance
        };
        let reasons = model.weigh(&seen.features, &Taught::default()).reasons;
        let reasons: Vec<String> = reasons
            .iter()
            .take(5)
            .map(|reason| format!("{} {:+.1}", reason.name, reason.weight))
            .collect();
        line(
            out,
            format_args!(
                "* \"{}\" ({}) is {:?}, taken for {found:?} ({confidence:.2}): {}",
                seen.sample.subject,
                seen.sample.family,
                judged.class,
                reasons.join(", ")
            ),
        );
    }
}

fn heaviest(out: &mut String, model: &Model<'_>, sides: [&str; 2]) {
    let names: BTreeMap<u32, String> = grammar::samples()
        .iter()
        .flat_map(Sample::features)
        .map(|feature| (feature.hash, feature.name))
        .collect();
    let mut known: Vec<(f64, String)> = names
        .into_iter()
        .map(|(hash, name)| {
            let (weight, frequency) = model.look_up(hash);
            (weight * frequency.sqrt(), format!("{name} {weight:+.1}"))
        })
        .collect();
    known.sort_by(|a, b| b.0.total_cmp(&a.0));
    let first: Vec<String> = known
        .iter()
        .take(25)
        .map(|(_, name)| name.clone())
        .collect();
    let second: Vec<String> = known
        .iter()
        .rev()
        .take(25)
        .map(|(_, name)| name.clone())
        .collect();
    line(out, format_args!("* {}: {}", sides[0], first.join(", ")));
    line(out, format_args!("* {}: {}", sides[1], second.join(", ")));
}

fn disguise(out: &mut String, model: &Model<'_>) {
    let spam: Vec<Sample> = written::held_out()
        .into_iter()
        .filter(|sample| sample.class == Class::Spam)
        .collect();
    let found = |samples: &[Sample], with_marks: bool| {
        let is_spam = |sample: &&Sample| {
            let mut features = sample.features();
            features.retain(|feature| with_marks || !feature.name.starts_with('['));
            model.probability(model.weigh(&features, &Taught::default()).score) >= 0.5
        };
        100.0 * samples.iter().filter(is_spam).count() as f64 / samples.len() as f64
    };
    line(
        out,
        format_args!("| disguise | found | found by words alone |\n|---|---|---|"),
    );
    line(
        out,
        format_args!(
            "| none | {:.1} % | {:.1} % |",
            found(&spam, true),
            found(&spam, false)
        ),
    );
    for (name, way) in WAYS {
        let mut random = Random::new(1729);
        let disguised: Vec<Sample> = spam
            .iter()
            .map(|sample| Sample {
                text: way(&sample.text, &mut random),
                subject: way(&sample.subject, &mut random),
                ..sample.clone()
            })
            .collect();
        line(
            out,
            format_args!(
                "| {name} | {:.1} % | {:.1} % |",
                found(&disguised, true),
                found(&disguised, false)
            ),
        );
    }
}

/// How much of the held-out mails the made mails know already, and how those fare that they do not
/// know.
fn likeness(out: &mut String, models: &[Model<'_>; 2]) {
    let words = |text: &str| -> Vec<String> {
        text.split(|c: char| !c.is_alphanumeric())
            .filter(|word| !word.is_empty())
            .map(str::to_lowercase)
            .collect()
    };
    let made: Vec<Vec<String>> = grammar::samples()
        .iter()
        .map(|sample| words(&sample.text))
        .collect();
    for length in [4, 6, 8] {
        let known: BTreeSet<&[String]> = made
            .iter()
            .flat_map(|words| words.windows(length))
            .collect();
        let (mut found, mut all) = (0_u32, 0_u32);
        let mut strangers = Vec::new();
        for sample in written::held_out() {
            let words = words(&sample.text);
            let runs = words
                .windows(length)
                .filter(|run| known.contains(run))
                .count();
            found += u32::try_from(runs).unwrap_or(u32::MAX);
            all += u32::try_from(words.windows(length).count()).unwrap_or(u32::MAX);
            if runs == 0 {
                strangers.push(judge(models, sample.class, &sample.features()));
            }
        }
        let right = strangers
            .iter()
            .filter(|judged| judged.best().0 == judged.class)
            .count();
        line(
            out,
            format_args!(
                "* of {length} words: {found} of {all} ({:.2} %); {right} of the {} mails without one are in the right category",
                100.0 * f64::from(found) / f64::from(all),
                strangers.len()
            ),
        );
    }
}
