//! What came in as text or as a file, as text.

use chardetng::{EncodingDetector, Iso2022JpDetection, Utf8Detection};
use crank_worker::{Bytes, Failure};
use encoding_rs::{Encoding, UTF_8};

/// The byte order mark in UTF-8.
const MARK: &[u8] = b"\xef\xbb\xbf";

/// A text that came as itself, or as a file in UTF-8, whose byte order mark is no part of it.
pub fn utf8(name: &str, text: Option<String>, document: Option<Bytes>) -> Result<String, Failure> {
    match (text, document) {
        (Some(text), None) => Ok(text),
        (None, Some(mut document)) => {
            if document.starts_with(MARK) {
                document.0.drain(..MARK.len());
            }
            String::from_utf8(document.0).map_err(|_| {
                Failure::invalid_input("/document", "the text is not UTF-8").code("charset")
            })
        }
        _ => Err(one_of(name)),
    }
}

/// Neither, or both.
pub fn one_of(name: &str) -> Failure {
    Failure::invalid_input("", format!("give either {name} or document"))
}

/// A file as text, and the name of its character set: that of its byte order mark, else the one that
/// the caller names, else UTF-8 if it is that, else the one that the file declares, else what the
/// bytes look like. What does not belong to the character set becomes U+FFFD.
pub fn decode(
    document: &[u8],
    charset: Option<&str>,
    declared: impl Fn() -> Option<String>,
) -> Result<(String, &'static str), Failure> {
    let named = |name: &str| Encoding::for_label(name.as_bytes());
    let asked = match charset {
        Some(name) => Some(named(name).ok_or_else(|| {
            Failure::invalid_input("/charset", format!("no character set is named {name:?}"))
                .code("charset")
        })?),
        None => None,
    };
    let marked = Encoding::for_bom(document).map(|(encoding, _)| encoding);
    let plain = || std::str::from_utf8(document).is_ok().then_some(UTF_8);
    let encoding = marked
        .or(asked)
        .or_else(plain)
        .or_else(|| named(&declared()?))
        .unwrap_or_else(|| guess(document));
    let (text, _, _) = encoding.decode(document);
    Ok((text.into_owned(), encoding.name()))
}

fn guess(document: &[u8]) -> &'static Encoding {
    let mut detector = EncodingDetector::new(Iso2022JpDetection::Allow);
    detector.feed(document, true);
    detector.guess(None, Utf8Detection::Allow)
}
