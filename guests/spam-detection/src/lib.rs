//! The worker that tells spam from mail: `classify:spam_detection`, and `learn:spam_detection`, with
//! which each caller improves a model of their own.

#[cfg(test)]
mod tests;

use crank_worker::{Capability, Constraints, Failure, Request, Slo, Worker};
use mail::outside::{self, Host, Outside};
use mail::{Feature, Letter, Model};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Made by `guests/mail-training`; judged in `docs/evaluation-mail.md`.
const MODEL: &[u8] = include_bytes!("../model.bin");

/// The classes that callers teach.
const SPAM: usize = 0;
const HAM: usize = 1;

/// What is to be thought of a mail.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Whether it is spam: more likely than not.
    spam: bool,
    /// How likely that is; calibrated.
    #[schemars(range(min = 0, max = 1))]
    probability: f64,
    /// What decided, the strongest first.
    reasons: Vec<Reason>,
    /// The version of the model.
    model: u32,
    /// How many mails the caller has taught.
    taught: u32,
}

/// Something that the mail shows.
#[derive(Serialize, JsonSchema)]
struct Reason {
    /// A word, two words in a row, `subject: word`, `link: word`, or `[an oddity]`.
    evidence: String,
    /// How strongly it speaks for spam, in log-odds; below zero it speaks against.
    weight: f64,
}

/// Mails that a person has judged.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lessons {
    /// The mails.
    #[schemars(length(min = 1, max = 1000))]
    mails: Vec<Lesson>,
}

/// A mail that a person has judged.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lesson {
    /// The mail.
    #[serde(flatten)]
    letter: Letter,
    /// Whether it is spam.
    spam: bool,
}

/// What has been taught so far.
#[derive(Serialize, JsonSchema)]
struct Learned {
    /// Mails in this request.
    learned: usize,
    /// Mails of the caller that were spam, fading with time.
    spam: u32,
    /// Mails of the caller that were none.
    ham: u32,
}

fn detect(letter: Letter, request: &Request) -> Result<Output, Failure> {
    detect_with(&Host, letter, request)
}

fn detect_with(
    outside: &dyn Outside,
    letter: Letter,
    request: &Request,
) -> Result<Output, Failure> {
    let model = Model::open(MODEL)?;
    let features = letter.features("/email_text")?;
    let learned = outside::recall(outside, request)?;
    let weighed = model.weigh(&features, &learned.between(&[SPAM], &[HAM]));
    let probability = model.probability(weighed.score);
    let reasons = weighed.reasons.into_iter().map(|reason| Reason {
        evidence: reason.name,
        weight: reason.weight,
    });
    Ok(Output {
        spam: probability >= 0.5,
        probability,
        reasons: reasons.collect(),
        model: model.version,
        taught: learned.mails().iter().sum(),
    })
}

fn learn(lessons: Lessons, request: &Request) -> Result<Learned, Failure> {
    learn_with(&Host, lessons, request)
}

fn learn_with(
    outside: &dyn Outside,
    lessons: Lessons,
    request: &Request,
) -> Result<Learned, Failure> {
    let mails = lessons.mails.iter().enumerate().map(|(at, mail)| {
        let pointer = format!("/mails/{at}/email_text");
        let features = mail.letter.features(&pointer)?;
        Ok((features, if mail.spam { SPAM } else { HAM }))
    });
    let mails: Vec<(Vec<Feature>, usize)> = mails.collect::<Result<_, Failure>>()?;
    let [spam, ham, _] = outside::learn(outside, request, &mails)?.mails();
    Ok(Learned {
        learned: mails.len(),
        spam,
        ham,
    })
}

fn spam_detection() -> Worker {
    Worker::new("worker-spam-detection")
        .offers(
            profile(Capability::new("classify", "spam_detection", "1.0.0", detect))
                .description("Says how likely a mail is spam, and why. What the caller taught counts.")
                .example("A pharmacy", r#"{"subject": "Cheap meds", "email_text": "V1agra without prescription, 80% off! http://best-pills.example"}"#)
                .example("A friend", r#"{"subject": "Sunday", "email_text": "Are you two coming for lunch on Sunday? Bring the kids!"}"#),
        )
        .offers(
            profile(Capability::new("learn", "spam_detection", "1.0.0", learn))
                .description("Takes mails that a person has judged, and improves the caller's own model.")
                .example("One mail", r#"{"mails": [{"subject": "Chess club", "email_text": "Round four is away.", "spam": false}]}"#),
        )
}

/// What the capabilities have in common.
fn profile(capability: Capability) -> Capability {
    capability
        .env_profile("cpu-optimized")
        .constraints(Constraints {
            min_memory_mb: Some(64),
            max_memory_mb: Some(256),
            cpu_shares: Some(2048),
            ..Constraints::default()
        })
        .slo(Slo {
            latency_p50_ms: Some(20),
            latency_p95_ms: Some(100),
            latency_p99_ms: Some(200),
            availability_pct: Some(99.9),
            error_budget_pct: Some(0.1),
        })
        .spiffe_id("spiffe://crank.local/worker/spam-detection")
        .required_capabilities(&["wasi:keyvalue/store"])
}

crank_worker::worker!(spam_detection);
