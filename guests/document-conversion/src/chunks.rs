//! `convert:text_to_stream`.

use crank_worker::{Bytes, Failure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_segmentation::UnicodeSegmentation;

/// A text, and how it is to be divided. The text comes as `text` or, raw, as `document`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// The text.
    text: Option<String>,
    /// The text as a file in UTF-8, in place of `text`.
    #[schemars(extend("contentMediaType" = "text/plain"))]
    document: Option<Bytes>,
    /// What a chunk is.
    unit: Unit,
    /// A chunk with more characters (Unicode scalar values) is divided further, between words where
    /// that is possible, and never inside of what a reader sees as one character.
    #[schemars(range(min = 1))]
    max_chars: Option<usize>,
}

/// What a chunk is.
#[derive(Clone, Copy, Default, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Unit {
    /// A sentence, as Unicode (UAX 29) finds it. A paragraph's end also ends a sentence.
    #[default]
    Sentence,
    /// What stands between blank lines.
    Paragraph,
}

/// A text in chunks.
#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The chunks in order; white space is one space, and none at the ends.
    chunks: Vec<String>,
}

pub fn divide(input: Input) -> Result<Output, Failure> {
    let text = match (input.text, input.document) {
        (Some(text), None) => text,
        (None, Some(document)) => String::from_utf8(document.0).map_err(|_| {
            Failure::invalid_input("/document", "the text is not UTF-8").code("charset")
        })?,
        _ => return Err(Failure::invalid_input("", "give either text or document")),
    };
    let mut chunks = Vec::new();
    for paragraph in paragraphs(&text) {
        match input.unit {
            Unit::Paragraph => push(&mut chunks, &paragraph, input.max_chars),
            Unit::Sentence => {
                for sentence in paragraph.split_sentence_bounds() {
                    push(&mut chunks, sentence, input.max_chars);
                }
            }
        }
    }
    Ok(Output { chunks })
}

/// What stands between blank lines and form feeds, each on one line.
fn paragraphs(text: &str) -> impl Iterator<Item = String> {
    let lines: Vec<&str> = text
        .split(['\n', '\u{c}', '\u{2029}'])
        .map(str::trim)
        .collect();
    let paragraphs = lines
        .split(|line| line.is_empty())
        .filter(|lines| !lines.is_empty());
    let joined = paragraphs.map(|lines| {
        lines
            .join(" ")
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    });
    joined.collect::<Vec<_>>().into_iter()
}

/// Adds a unit, in as many pieces as it needs.
fn push(chunks: &mut Vec<String>, unit: &str, max_chars: Option<usize>) {
    let Some(max) = max_chars else {
        return add(chunks, unit);
    };
    let mut piece = String::new();
    let mut room = max;
    let words = unit
        .split_word_bounds()
        .map(|word| (word, word.chars().count()));
    for (word, length) in words {
        if length > room {
            add(chunks, &piece);
            piece.clear();
            room = max;
            if word.trim().is_empty() {
                continue;
            }
        }
        if length <= max {
            piece.push_str(word);
            room -= length;
            continue;
        }
        for grapheme in word.graphemes(true) {
            let length = grapheme.chars().count();
            if length > room {
                add(chunks, &piece);
                piece.clear();
                room = max;
            }
            piece.push_str(grapheme);
            room = room.saturating_sub(length);
        }
    }
    add(chunks, &piece);
}

fn add(chunks: &mut Vec<String>, piece: &str) {
    let piece = piece.trim();
    if !piece.is_empty() {
        chunks.push(piece.to_owned());
    }
}
