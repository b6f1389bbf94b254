//! From text to terms: Unicode words, folded, English endings taken off, scripts without spaces in pairs.

use std::borrow::Cow;

use caseless::default_case_fold_str;
use rust_stemmers::{Algorithm, Stemmer};
use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// What the terms are for.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// To be found: of a script without spaces, each letter and each pair of letters.
    Index,
    /// To find: the pairs only, since a letter alone is in too many words. Words without matter are
    /// left out, unless there are no others.
    Query,
}

/// Longer words are cut, in bytes: a key of the index and no more.
const MAX_TERM: usize = 64;

/// English words that ask and mean nothing. They are indexed; only questions leave them out.
const SILENT: [&str; 76] = [
    "a", "about", "after", "all", "an", "and", "any", "are", "as", "at", "be", "been", "but", "by",
    "can", "did", "do", "does", "for", "from", "had", "has", "have", "he", "her", "his", "how",
    "i", "if", "in", "into", "is", "it", "its", "me", "my", "no", "not", "of", "on", "one", "or",
    "our", "out", "over", "she", "should", "so", "some", "someone", "such", "than", "that", "the",
    "their", "them", "then", "there", "they", "this", "to", "was", "we", "were", "what", "when",
    "where", "which", "while", "who", "why", "will", "with", "you", "your", "without",
];

/// The terms of a text, in order, repeated as often as they stand there.
pub fn terms(text: &str, purpose: Purpose) -> Vec<String> {
    let folded = fold(text);
    let stemmer = Stemmer::create(Algorithm::English);
    let mut terms = Vec::new();
    let mut run = Run::default();
    for (at, word) in folded.unicode_word_indices() {
        if word.chars().next().is_some_and(unspaced) {
            if run.end != at {
                run.flush(purpose, &mut terms);
            }
            run.letters.extend(word.graphemes(true));
            run.end = at + word.len();
        } else {
            run.flush(purpose, &mut terms);
            terms.push(stem(&stemmer, word).into_owned());
        }
    }
    run.flush(purpose, &mut terms);
    if purpose == Purpose::Query && !terms.iter().all(|term| silent(term)) {
        terms.retain(|term| !silent(term));
    }
    terms
}

/// Whether a term means nothing by itself.
pub fn silent(term: &str) -> bool {
    SILENT.contains(&term)
}

/// Neighbouring letters of scripts that put no spaces between words.
#[derive(Default)]
struct Run<'a> {
    letters: Vec<&'a str>,
    /// Where it ends in the text.
    end: usize,
}

impl Run<'_> {
    fn flush(&mut self, purpose: Purpose, terms: &mut Vec<String>) {
        if purpose == Purpose::Index || self.letters.len() == 1 {
            terms.extend(self.letters.iter().map(|letter| cut(letter).to_owned()));
        }
        let pairs = self.letters.windows(2).map(<[&str]>::concat);
        terms.extend(pairs.map(|pair| cut(&pair).to_owned()));
        self.letters.clear();
    }
}

/// Compatible forms are one (NFKC), upper and lower case too, accents of Latin, Greek and Cyrillic and
/// the vowel marks of Hebrew and Arabic are left out.
fn fold(text: &str) -> Cow<'_, str> {
    if text.is_ascii() {
        return Cow::Owned(text.to_ascii_lowercase());
    }
    let plain = text.nfkd().filter(|letter| {
        !matches!(letter, '\u{300}'..='\u{36f}' | '\u{591}'..='\u{5c7}' | '\u{64b}'..='\u{65f}' | '\u{670}')
    });
    let plain: String = plain
        .nfc()
        .map(|letter| if letter == '’' { '\'' } else { letter })
        .collect();
    Cow::Owned(default_case_fold_str(&plain))
}

fn stem<'a>(stemmer: &Stemmer, word: &'a str) -> Cow<'a, str> {
    if word
        .bytes()
        .all(|byte| byte.is_ascii_lowercase() || byte == b'\'')
    {
        match stemmer.stem(word) {
            Cow::Borrowed(stem) => Cow::Borrowed(cut(stem)),
            Cow::Owned(stem) => Cow::Owned(cut(&stem).to_owned()),
        }
    } else {
        Cow::Borrowed(cut(word))
    }
}

fn cut(term: &str) -> &str {
    &term[..term.floor_char_boundary(MAX_TERM)]
}

/// Han, Kana, Hangul, Thai, Lao, Burmese and Khmer. Korean has spaces, and endings that pairs get past.
fn unspaced(letter: char) -> bool {
    matches!(letter,
        '\u{e00}'..='\u{eff}' | '\u{1000}'..='\u{109f}' | '\u{1100}'..='\u{11ff}'
        | '\u{1780}'..='\u{17ff}' | '\u{2e80}'..='\u{2fdf}' | '\u{3005}'..='\u{3007}'
        | '\u{3041}'..='\u{30ff}' | '\u{3131}'..='\u{318e}' | '\u{31f0}'..='\u{31ff}'
        | '\u{3400}'..='\u{4dbf}' | '\u{4e00}'..='\u{9fff}' | '\u{ac00}'..='\u{d7af}'
        | '\u{f900}'..='\u{faff}' | '\u{20000}'..='\u{323af}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_folded_and_english_ones_lose_their_endings() {
        let terms = |text: &str| terms(text, Purpose::Index);
        assert_eq!(terms("Running, RUNS; (run)!"), ["run", "run", "run"]);
        assert_eq!(terms("Café ＣＡＦÉ cafe\u{301}"), ["cafe", "cafe", "cafe"]);
        assert_eq!(terms("Straße STRASSE"), ["strass", "strass"]);
        assert_eq!(terms("the dog’s dog's"), ["the", "dog", "dog"]);
        assert_eq!(terms("שָׁלוֹם עולם"), ["שלום", "עולם"]);
        assert_eq!(terms("كِتَاب كتاب"), ["كتاب", "كتاب"]);
        assert_eq!(terms("3.5 km/h, 2024"), ["3.5", "km", "h", "2024"]);
        assert_eq!(terms(&"a".repeat(500))[0].len(), MAX_TERM);
        assert!(terms(" \u{200b}--- 🙂 \0").is_empty());
    }

    #[test]
    fn scripts_without_spaces_become_pairs() {
        assert_eq!(
            terms("東京都", Purpose::Index),
            ["東", "京", "都", "東京", "京都"]
        );
        assert_eq!(terms("東京都、猫", Purpose::Query), ["東京", "京都", "猫"]);
        assert_eq!(terms("コーヒー", Purpose::Query), ["コー", "ーヒ", "ヒー"]);
        assert_eq!(
            terms("한국어 학교", Purpose::Query),
            ["한국", "국어", "학교"]
        );
        assert_eq!(terms("ไทย", Purpose::Query).len(), 2);
        assert_eq!(terms("iPhone用", Purpose::Query), ["iphon", "用"]);
    }

    #[test]
    fn questions_leave_out_words_without_matter_unless_there_are_no_others() {
        assert_eq!(
            terms("How do I bake the bread?", Purpose::Query),
            ["bake", "bread"]
        );
        assert_eq!(terms("to be or not to be", Purpose::Query).len(), 6);
    }
}
