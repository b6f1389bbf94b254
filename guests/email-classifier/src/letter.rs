//! A mail, and what other workers say of it.

use crank_worker::{Bytes, Failure};
use mail::outside::Outside;
use mail::{Feature, Mail};
use serde::Deserialize;
use serde_json::json;

use crate::Word;

/// Bytes of a header block that are looked at.
const HEADERS: usize = 64 << 10;

/// A mail, read.
#[derive(Default)]
pub struct Letter {
    pub subject: String,
    pub text: String,
    pub headers: String,
}

impl Letter {
    /// Reads a message as it was sent: `convert:email_to_text` knows how, and the header block goes
    /// along as evidence.
    pub fn of_message(outside: &dyn Outside, message: &Bytes) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Converted {
            subject: Option<String>,
            text: String,
        }
        let answer = outside.call("convert:email_to_text", &json!({ "message": message }))?;
        let converted: Converted = understand("convert:email_to_text", answer)?;
        let end = ["\r\n\r\n", "\n\n"]
            .iter()
            .filter_map(|gap| {
                message
                    .windows(gap.len())
                    .take(HEADERS)
                    .position(|at| at == gap.as_bytes())
            })
            .min();
        let headers = message.get(..end.unwrap_or(0)).unwrap_or_default();
        Ok(Self {
            subject: converted.subject.unwrap_or_default(),
            text: mail::shorten(&converted.text).into_owned(),
            headers: String::from_utf8_lossy(headers).into_owned(),
        })
    }

    /// What it shows; `pointer` says where it stands in the input.
    pub fn features(&self, pointer: &str) -> Result<Vec<Feature>, Failure> {
        if [&self.subject, &self.text, &self.headers]
            .iter()
            .all(|part| part.trim().is_empty())
        {
            let message = "a mail needs a text, a subject or headers";
            return Err(Failure::invalid_input(pointer, message).code("empty"));
        }
        Ok(mail::evidence(&Mail {
            subject: &self.subject,
            text: &self.text,
            headers: &self.headers,
        }))
    }
}

fn understand<T: serde::de::DeserializeOwned>(
    capability: &str,
    answer: serde_json::Value,
) -> Result<T, Failure> {
    serde_json::from_value(answer).map_err(|error| {
        Failure::failed(format!(
            "{capability} answered otherwise than expected: {error}"
        ))
    })
}

/// How likely a mail is spam, and why.
pub fn ask_for_spam(outside: &dyn Outside, letter: &Letter) -> Result<(f64, Vec<Word>), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        probability: f64,
        #[serde(default)]
        reasons: Vec<Word>,
    }
    let question = json!({
        "email_text": letter.text,
        "subject": letter.subject,
        "headers": letter.headers,
    });
    let answer = outside.call("classify:spam_detection", &question)?;
    let answer: Answer = understand("classify:spam_detection", answer)?;
    Ok((answer.probability, answer.reasons))
}
