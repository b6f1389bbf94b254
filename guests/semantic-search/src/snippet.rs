//! The part of a text that answers a question best, to be shown.

use std::collections::{HashMap, HashSet};

use unicode_segmentation::UnicodeSegmentation;

use crate::words::{Purpose, terms};

/// How long a snippet is at most, in characters as people count them.
const LENGTH: usize = 240;
/// The same in bytes, since one character can have any number of accents.
const MAX_BYTES: usize = 8 << 10;
/// What stands before the first word that was looked for, where a sentence is too long.
const BEFORE: usize = 60;
/// What of a text is looked at, in bytes: a snippet from further behind is not worth the time.
const LOOKED_AT: usize = 64 << 10;

/// The sentences of a text and their terms.
pub fn sentences(text: &str) -> Vec<(&str, Vec<String>)> {
    let text = &text[..text.floor_char_boundary(LOOKED_AT)];
    let sentences = text
        .split_sentence_bounds()
        .filter(|sentence| !sentence.trim().is_empty());
    sentences
        .map(|sentence| (sentence, terms(sentence, Purpose::Index)))
        .collect()
}

/// Around the sentence with the most of what was looked for, each word by its weight; none if no sentence
/// has any of it.
pub fn by_words(text: &str, weights: &HashMap<&str, f32>) -> Option<String> {
    let sentences = sentences(text);
    let fit = |terms: &[String]| {
        let different: HashSet<&str> = terms.iter().map(String::as_str).collect();
        different.iter().filter_map(|term| weights.get(term)).sum()
    };
    if !sentences.iter().any(|(_, terms)| fit(terms) > 0.0) {
        return None;
    }
    let best = place(&sentences, fit);
    let (sentence, _) = sentences.get(best)?;
    let graphemes = sentence.graphemes(true).count();
    if graphemes <= LENGTH {
        return Some(around(text, &sentences, best));
    }
    let words = sentence.split_word_bound_indices();
    let known = |word: &str| {
        terms(word, Purpose::Index)
            .iter()
            .any(|term| weights.contains_key(term.as_str()))
    };
    let first = words
        .into_iter()
        .find(|(_, word)| known(word))
        .map_or(0, |(at, _)| at);
    let lead: Vec<(usize, &str)> = sentence[..first]
        .grapheme_indices(true)
        .rev()
        .take(BEFORE)
        .collect();
    let from = lead.last().map_or(first, |(at, _)| *at);
    Some(clip(&sentence[from..], from > 0 || best > 0))
}

/// Around the sentence that fits best.
pub fn best(
    text: &str,
    sentences: &[(&str, Vec<String>)],
    fit: impl Fn(&[String]) -> f32,
) -> String {
    around(text, sentences, place(sentences, fit))
}

/// The beginning of a text.
pub fn start(text: &str) -> String {
    clip(text, false)
}

/// The first of the sentences that fit best.
fn place(sentences: &[(&str, Vec<String>)], fit: impl Fn(&[String]) -> f32) -> usize {
    let mut best = (0, f32::NEG_INFINITY);
    for (at, (_, terms)) in sentences.iter().enumerate() {
        let fits = fit(terms);
        if fits > best.1 {
            best = (at, fits);
        }
    }
    best.0
}

/// From a sentence on, as much as a snippet holds.
fn around(text: &str, sentences: &[(&str, Vec<String>)], best: usize) -> String {
    let before: usize = sentences
        .iter()
        .take(best)
        .map(|(sentence, _)| sentence.len())
        .sum();
    // Blank sentences are not among them, so this is where it stands or a little before.
    let from = sentences
        .get(best)
        .and_then(|(sentence, _)| text.get(before..)?.find(*sentence));
    clip(
        text.get(before + from.unwrap_or(0)..).unwrap_or(text),
        best > 0,
    )
}

/// The beginning of a text as one line, with a sign where something is left out.
fn clip(text: &str, behind: bool) -> String {
    let mut bytes = 0;
    let shown = text.graphemes(true).take_while(|letter| {
        bytes += letter.len();
        bytes <= MAX_BYTES
    });
    // Twice as much as is shown, since blanks in a row become one.
    let line = shown.take(2 * LENGTH).collect::<String>();
    let whole = line.len() == text.len();
    let line = line.split_whitespace().collect::<Vec<_>>().join(" ");
    let end = line
        .grapheme_indices(true)
        .nth(LENGTH)
        .map_or(line.len(), |(at, _)| at);
    let cut = end < line.len() || !whole;
    // Between words, if that is not far.
    let end = match line[..end].rfind(' ') {
        Some(space) if cut && end - space < 40 => space,
        _ => end,
    };
    let (lead, trail) = (if behind { "… " } else { "" }, if cut { " …" } else { "" });
    format!("{lead}{}{trail}", &line[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn by(text: &str, words: &[&str]) -> Option<String> {
        by_words(text, &words.iter().map(|word| (*word, 1.0)).collect())
    }

    #[test]
    fn a_snippet_begins_with_the_sentence_that_has_most_of_what_was_looked_for() {
        let text = "Cats sleep. Dogs bark at cats and wake them. Birds sing.";
        assert_eq!(
            by(text, &["dog", "cat"]).unwrap(),
            "… Dogs bark at cats and wake them. Birds sing."
        );
        assert_eq!(by(text, &["sleep"]).unwrap(), text);
        assert_eq!(by(text, &["fish"]), None);
        assert_eq!(by("", &["fish"]), None);
        assert_eq!(start(" a\n b "), "a b");
    }

    #[test]
    fn a_long_sentence_is_cut_around_the_word_and_never_inside_a_character() {
        let long = format!("{}needle {}", "straw ".repeat(200), "hay ".repeat(200));
        let snippet = by(&long, &["needl"]).unwrap();
        assert!(snippet.contains("needle") && snippet.starts_with("… ") && snippet.ends_with(" …"));
        assert!(snippet.chars().count() <= LENGTH + 4);
        let family = "👨‍👩‍👧".repeat(5_000);
        assert!(
            start(&family)
                .graphemes(true)
                .all(|g| g == "👨‍👩‍👧" || g == " " || g == "…")
        );
        let chinese = "猫".repeat(3_000);
        assert!(by(&chinese, &["猫猫"]).is_some());
        let arabic = "قطة ".repeat(3_000);
        assert!(by(&arabic, &["قطة"]).is_some());
    }
}
