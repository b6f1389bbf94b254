//! The worker that sorts mail: `classify:email_category`, and `learn:email_category`, with which each
//! caller improves a model of their own.
//!
//! Whether a mail is spam, it asks `classify:spam_detection`; whether one that is not is important,
//! its own model says.

mod letter;
#[cfg(test)]
mod tests;

use crank_worker::{Bytes, Capability, Constraints, Failure, Request, Slo, Worker};
use letter::{ask_for_spam, of_message};
use mail::outside::{self, Host, Outside};
use mail::{Letter, Model, probability};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Made by `guests/mail-training`; judged in `docs/evaluation-mail.md`.
const MODEL: &[u8] = include_bytes!("../model.bin");

/// Reasons that are told.
const REASONS: usize = 8;

/// Where a mail belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum Category {
    /// Nobody asked for it.
    Spam,
    /// It asks something of the reader that has consequences, mostly soon.
    Important,
    /// Everything else.
    Normal,
}

/// The classes that callers teach.
const SPAM: usize = Category::Spam as usize;
const IMPORTANT: usize = Category::Important as usize;
const NORMAL: usize = Category::Normal as usize;

/// A mail: its text, or the message as it was sent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// What it says, plain or HTML.
    email_text: Option<String>,
    /// Its subject, decoded.
    subject: Option<String>,
    /// Its header block as it was sent (RFC 5322).
    headers: Option<String>,
    /// In place of all that: the message as it was sent.
    #[schemars(extend("contentMediaType" = "message/rfc822"))]
    message: Option<Bytes>,
}

/// Where a mail belongs, and why.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// Where it belongs: the most likely of the three.
    category: Category,
    /// How likely that is; calibrated.
    #[schemars(range(min = 0, max = 1))]
    confidence: f64,
    /// How likely each category is; together they are one.
    scores: Scores,
    /// What decided, the strongest first.
    words: Vec<Word>,
    /// The version of the model.
    model: u32,
    /// How many mails the caller has taught.
    taught: u32,
}

/// How likely each category is.
#[derive(Serialize, JsonSchema)]
struct Scores {
    /// Nobody asked for it.
    spam: f64,
    /// It asks something of the reader that has consequences.
    important: f64,
    /// Everything else.
    normal: f64,
}

/// Something that the mail shows.
#[derive(Debug, Serialize, Deserialize, JsonSchema)]
struct Word {
    /// A word, two words in a row, `subject: word`, `link: word`, or `[an oddity]`.
    #[serde(alias = "evidence")]
    word: String,
    /// How strongly it speaks for the category, in log-odds; below zero it speaks against.
    weight: f64,
}

/// Mails that a person has sorted: many, or one as it was sent.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lessons {
    /// The mails.
    #[serde(default)]
    #[schemars(length(max = 1000))]
    mails: Vec<Lesson>,
    /// In place of that: one message as it was sent.
    #[schemars(extend("contentMediaType" = "message/rfc822"))]
    message: Option<Bytes>,
    /// Where that one belongs.
    category: Option<Category>,
}

/// A mail that a person has sorted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Lesson {
    /// The mail.
    #[serde(flatten)]
    letter: Letter,
    /// Where it belongs.
    category: Category,
}

/// What has been taught so far, fading with time.
#[derive(Serialize, JsonSchema)]
struct Learned {
    /// Mails in this request.
    learned: usize,
    /// Mails of the caller that were spam.
    spam: u32,
    /// Mails of the caller that were important.
    important: u32,
    /// Mails of the caller that were neither.
    normal: u32,
}

fn classify(input: Input, request: &Request) -> Result<Output, Failure> {
    classify_with(&Host, input, request)
}

fn classify_with(
    outside: &dyn Outside,
    input: Input,
    request: &Request,
) -> Result<Output, Failure> {
    let model = Model::open(MODEL)?;
    let (letter, pointer) = match input {
        Input {
            email_text: None,
            subject: None,
            headers: None,
            message: Some(message),
        } => (of_message(outside, message)?, "/message"),
        Input {
            message: Some(_), ..
        } => {
            let message = "either the message as it was sent or its text, not both";
            return Err(Failure::invalid_input("/message", message));
        }
        Input {
            email_text,
            subject,
            headers,
            message: None,
        } => {
            let letter = Letter {
                email_text: mail::shorten(&email_text.unwrap_or_default()).into_owned(),
                subject: subject.unwrap_or_default(),
                headers: headers.unwrap_or_default(),
            };
            (letter, "/email_text")
        }
    };
    let features = letter.features(pointer)?;
    let learned = outside::recall(outside, request)?;
    let (spam, reasons) = ask_for_spam(outside, letter)?;

    // What the caller taught about spam comes on top of what the detector says.
    let about_spam = learned.between(&[SPAM], &[IMPORTANT, NORMAL]);
    let taught = model.impartial().weigh(&features, &about_spam);
    let spam = probability(log_odds(spam) + taught.score);
    let about_importance = learned.between(&[IMPORTANT], &[NORMAL]);
    let weighed = model.weigh(&features, &about_importance);
    let important = model.probability(weighed.score);

    let scores = Scores {
        spam,
        important: (1.0 - spam) * important,
        normal: (1.0 - spam) * (1.0 - important),
    };
    let (category, confidence) = scores.best();
    let sign = if category == Category::Normal {
        -1.0
    } else {
        1.0
    };
    let own = if category == Category::Spam {
        taught.reasons
    } else {
        weighed.reasons
    };
    let mut words: Vec<Word> = own
        .into_iter()
        .map(|reason| Word {
            word: reason.name,
            weight: sign * reason.weight,
        })
        .collect();
    if category == Category::Spam {
        words.extend(reasons);
        words.sort_by(|a, b| b.weight.abs().total_cmp(&a.weight.abs()));
        words.truncate(REASONS);
    }
    Ok(Output {
        category,
        confidence,
        scores,
        words,
        model: model.version,
        taught: learned.mails().iter().sum(),
    })
}

impl Scores {
    fn best(&self) -> (Category, f64) {
        let others = [
            (Category::Important, self.important),
            (Category::Spam, self.spam),
        ];
        let normal = (Category::Normal, self.normal);
        others.into_iter().fold(
            normal,
            |best, next| if next.1 > best.1 { next } else { best },
        )
    }
}

/// The log-odds of a probability, kept finite.
fn log_odds(probability: f64) -> f64 {
    let probability = probability.clamp(1e-6, 1.0 - 1e-6);
    (probability / (1.0 - probability)).ln()
}

fn learn(lessons: Lessons, request: &Request) -> Result<Learned, Failure> {
    learn_with(&Host, lessons, request)
}

fn learn_with(
    outside: &dyn Outside,
    lessons: Lessons,
    request: &Request,
) -> Result<Learned, Failure> {
    let mut mails = Vec::new();
    for (at, lesson) in lessons.mails.iter().enumerate() {
        let pointer = format!("/mails/{at}/email_text");
        mails.push((lesson.letter.features(&pointer)?, lesson.category as usize));
    }
    match (lessons.message, lessons.category) {
        (Some(message), Some(category)) => {
            let letter = of_message(outside, message)?;
            mails.push((letter.features("/message")?, category as usize));
        }
        (None, None) => {}
        _ => {
            let message = "a message needs its category, and a category its message";
            return Err(Failure::invalid_input("/category", message));
        }
    }
    if mails.is_empty() {
        return Err(
            Failure::invalid_input("/mails", "there is no mail to learn from").code("empty"),
        );
    }
    let [spam, important, normal] = outside::learn(outside, request, &mails)?.mails();
    Ok(Learned {
        learned: mails.len(),
        spam,
        important,
        normal,
    })
}

fn email_classifier() -> Worker {
    Worker::new("worker-email-classifier")
        .offers(
            profile(Capability::new("classify", "email_category", "2.0.0", classify))
                .description("Sorts a mail: spam, important or normal, with the words that decided. What the caller taught counts.")
                .accepts(&["application/json", "message/rfc822"])
                .required_capabilities(&[
                    "convert:email_to_text",
                    "classify:spam_detection",
                    "wasi:keyvalue/store",
                ])
                .example("A bill", r#"{"subject": "Invoice 4417 is due on Friday", "email_text": "Please transfer the amount by Friday to avoid a reminder fee."}"#)
                .raw_example("A message in parts", "message/rfc822", include_bytes!("../../../tests/data/nested.eml"), &[]),
        )
        .offers(
            profile(Capability::new("learn", "email_category", "2.0.0", learn))
                .description("Takes mails that a person has sorted, and improves the caller's own model.")
                .accepts(&["application/json", "message/rfc822"])
                .required_capabilities(&["convert:email_to_text", "wasi:keyvalue/store"])
                .example("One mail", r#"{"mails": [{"subject": "Chess club", "email_text": "Round four is away.", "category": "normal"}]}"#),
        )
}

/// What the capabilities have in common.
fn profile(capability: Capability) -> Capability {
    capability
        .env_profile("cpu-optimized")
        .constraints(Constraints {
            min_memory_mb: Some(2048),
            max_memory_mb: Some(4096),
            cpu_shares: Some(4096),
            model_storage_mb: Some(500),
            ..Constraints::default()
        })
        .slo(Slo {
            latency_p50_ms: Some(200),
            latency_p95_ms: Some(500),
            latency_p99_ms: Some(1000),
            availability_pct: Some(99.9),
            error_budget_pct: Some(0.1),
        })
        .spiffe_id("spiffe://crank.local/worker/email-classifier")
}

crank_worker::worker!(email_classifier);
