//! `convert:text_to_stream`.

use crank_worker::{Bytes, Failure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_segmentation::{GraphemeCursor, UnicodeSegmentation};

use crate::source;

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

/// Marks in a row, without a letter or a digit between them: a line of dots, not a sentence.
const MARKS: usize = 100;

pub fn divide(input: Input) -> Result<Output, Failure> {
    let text = source::utf8("text", input.text, input.document)?;
    let mut chunks = Vec::new();
    for paragraph in paragraphs(&text) {
        match input.unit {
            Unit::Paragraph => push(&mut chunks, &paragraph, input.max_chars),
            Unit::Sentence => {
                for piece in tame(&paragraph) {
                    for sentence in cut(piece, ends(piece.split_sentence_bound_indices())) {
                        push(&mut chunks, sentence, input.max_chars);
                    }
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

/// The text in pieces without endless rows of marks: at each of them the search for a sentence's end
/// looks at all the others.
fn tame(text: &str) -> impl Iterator<Item = &str> {
    let mut rest = text;
    // Nearly every text is one piece, and characters are counted faster than graphemes.
    let mut row = 0;
    let rows = text.chars().any(|c| {
        row = if c.is_alphanumeric() { 0 } else { row + 1 };
        row > MARKS
    });
    std::iter::from_fn(move || {
        let (mut row, mut end) = (0, rest.len());
        for (place, grapheme) in rest.grapheme_indices(true).take_while(|_| rows) {
            row = if grapheme.starts_with(char::is_alphanumeric) {
                0
            } else {
                row + 1
            };
            if row > MARKS {
                end = place;
                break;
            }
        }
        let (piece, later) = rest.split_at(end);
        rest = later;
        (!piece.is_empty()).then_some(piece)
    })
}

/// Where parts of a text end.
fn ends<'a>(parts: impl Iterator<Item = (usize, &'a str)>) -> impl Iterator<Item = usize> {
    parts.map(|(start, part)| start + part.len())
}

/// A text in pieces that end at these places and where it ends, but for places within what a reader
/// sees as one character: between Thai letters for example there is always a word's end for UAX 29.
fn cut(text: &str, ends: impl Iterator<Item = usize>) -> impl Iterator<Item = &str> {
    let mut start = 0;
    ends.chain([text.len()]).filter_map(move |end| {
        // From the last cut on: further back, a row of flags would be counted again for each of them.
        let rest = &text[start..];
        let is_cut = GraphemeCursor::new(end - start, rest.len(), true).is_boundary(rest, 0);
        let piece = &rest[..end - start];
        (is_cut == Ok(true) && !piece.is_empty()).then(|| {
            start = end;
            piece
        })
    })
}

/// Adds a unit, in as many pieces as it needs.
fn push(chunks: &mut Vec<String>, unit: &str, max_chars: Option<usize>) {
    let Some(max) = max_chars else {
        return add(chunks, unit);
    };
    let mut piece = String::new();
    let mut room = max;
    let mut fill = |part: &str, keep: bool| {
        let length = part.chars().count();
        if length > room {
            add(chunks, &piece);
            piece.clear();
            room = max;
        }
        if length <= max || keep {
            piece.push_str(part);
            room = room.saturating_sub(length);
        }
        length <= max || keep
    };
    // Where white space is too far apart, at the end of a word, and of a character for want of that.
    for spaced in cut(unit, ends(unit.match_indices(char::is_whitespace))) {
        if fill(spaced.trim_end(), false) {
            fill(&spaced[spaced.trim_end().len()..], true);
            continue;
        }
        for word in cut(spaced, ends(spaced.split_word_bound_indices())) {
            if !fill(word, false) {
                for grapheme in word.graphemes(true) {
                    fill(grapheme, true);
                }
            }
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
