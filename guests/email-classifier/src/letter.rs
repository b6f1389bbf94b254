//! A mail, and what other workers say of it.

use crank_worker::{Bytes, Failure, Output, Payload};
use mail::Letter;
use mail::outside::Outside;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::Word;

/// Bytes of a header block that are looked at.
const HEADERS: usize = 64 << 10;

/// Reads a message as it was sent: `convert:email_to_text` knows how, and the header block goes along
/// as evidence.
pub fn of_message(outside: &dyn Outside, message: Bytes) -> Result<Letter, Failure> {
    #[derive(Deserialize)]
    struct Converted {
        subject: Option<String>,
        text: String,
    }
    const CONVERT: &str = "convert:email_to_text";
    let headers = headers(&message);
    // Raw: in JSON it would be a third longer, and there several times.
    let input = Payload {
        media_type: "message/rfc822".into(),
        body: message.0,
    };
    let answer = outside.call(CONVERT, input).map_err(unreadable)?;
    let converted: Converted = understand(CONVERT, &answer)?;
    Ok(Letter {
        email_text: mail::shorten(&converted.text).into_owned(),
        subject: converted.subject.unwrap_or_default(),
        headers,
    })
}

fn headers(message: &[u8]) -> String {
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
    String::from_utf8_lossy(headers).into_owned()
}

/// The message is handed on as it came: what is wrong with it is wrong with our own input.
fn unreadable(failure: Failure) -> Failure {
    if failure.code.as_deref() == Some("invalid-input") {
        return Failure::invalid_input("/message", failure.message).code("unreadable");
    }
    failure
}

fn understand<T: DeserializeOwned>(capability: &str, answer: &Payload) -> Result<T, Failure> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        Failure::failed(format!(
            "{capability} answered otherwise than expected: {error}"
        ))
    })
}

/// How likely a mail is spam, and why.
pub fn ask_for_spam(outside: &dyn Outside, letter: Letter) -> Result<(f64, Vec<Word>), Failure> {
    #[derive(Deserialize)]
    struct Answer {
        probability: f64,
        #[serde(default)]
        reasons: Vec<Word>,
    }
    const DETECT: &str = "classify:spam_detection";
    let answer = outside.call(DETECT, letter.into_payload()?)?;
    let answer: Answer = understand(DETECT, &answer)?;
    Ok((answer.probability, answer.reasons))
}
