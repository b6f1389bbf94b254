//! Words, as they are looked for.
//!
//! Folded (NFKC, lower case) and cut by Unicode's rules (UAX 29). Scripts without spaces come out of those
//! rules character by character: where words touch, each two neighbours are a term as well, so that a word of
//! several characters can be asked for.

use unicode_normalization::UnicodeNormalization;
use unicode_segmentation::UnicodeSegmentation;

/// Longer is no word but data, in bytes.
const LONGEST: usize = 64;
/// A word of the title counts like so many in the text.
const TITLE: u32 = 3;

/// The terms of a zettel with how often each occurs, and how many there are in all.
pub fn count(title: &str, text: &str) -> (Vec<u8>, u32) {
    let (title, text) = (fold(title), fold(text));
    let mut terms: Vec<(&str, u32)> = Vec::new();
    for (text, weight) in [(&title, TITLE), (&text, 1)] {
        for run in runs(text) {
            terms.extend(run.iter().map(|word| (word.text, weight)));
            terms.extend(pairs(text, &run).map(|pair| (pair, weight)));
        }
    }
    let total = terms.iter().map(|(_, count)| count).sum();
    terms.sort_unstable();
    terms.dedup_by(|(term, count), (kept, sum)| {
        let same = term == kept;
        *sum += if same { *count } else { 0 };
        same
    });
    let bytes = terms.iter().fold(Vec::new(), |bytes, term| {
        // Writing into memory does not fail.
        postcard::to_extend(term, bytes).unwrap_or_default()
    });
    (bytes, total)
}

/// What a question asks for: terms that all have to be there. In their order, without repetition.
pub fn asked(question: &str) -> Vec<String> {
    let question = fold(question);
    let mut terms: Vec<String> = Vec::new();
    for run in runs(&question) {
        match run.as_slice() {
            [word] => terms.push(word.text.to_owned()),
            run => terms.extend(pairs(&question, run).map(str::to_owned)),
        }
    }
    terms.sort_unstable();
    terms.dedup();
    terms
}

/// The terms that [`count`] wrote, in the order of their bytes.
#[derive(Clone)]
pub struct Terms<'a>(pub &'a [u8]);

impl<'a> Iterator for Terms<'a> {
    type Item = (&'a str, u32);

    fn next(&mut self) -> Option<Self::Item> {
        let (term, rest) = postcard::take_from_bytes(self.0).ok()?;
        self.0 = rest;
        Some(term)
    }
}

struct Word<'a> {
    at: usize,
    text: &'a str,
}

impl Word<'_> {
    fn end(&self) -> usize {
        self.at + self.text.len()
    }
}

fn fold(text: &str) -> String {
    if text.is_ascii() {
        text.to_ascii_lowercase()
    } else {
        text.nfkc().flat_map(char::to_lowercase).collect()
    }
}

/// Words that touch each other, together.
fn runs(text: &str) -> Vec<Vec<Word<'_>>> {
    let mut runs: Vec<Vec<Word<'_>>> = Vec::new();
    for (at, text) in text.unicode_word_indices() {
        let word = Word { at, text };
        if text.len() > LONGEST {
            continue;
        }
        match runs.last_mut() {
            Some(run) if run.last().is_some_and(|last| last.end() == at) => run.push(word),
            _ => runs.push(vec![word]),
        }
    }
    runs
}

fn pairs<'a>(text: &'a str, run: &[Word<'_>]) -> impl Iterator<Item = &'a str> {
    run.windows(2).filter_map(|pair| match pair {
        [first, second] => text.get(first.at..second.end()),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_found_in_any_script() {
        for (text, question, found) in [
            ("The lighthouse, at NIGHT.", "night Lighthouse", true),
            ("The lighthouse", "light", false),
            ("Straße nach Zürich", "ZÜRICH", true),
            ("東京都の灯台", "灯台", true),
            ("東京都の灯台", "京都の", true),
            ("東京都の灯台", "灯都", false),
            ("東京都の灯台", "台", true),
            ("מגדלור בלילה", "בלילה", true),
            ("منارة في الليل", "الليل", true),
            ("ﬁne ｗｉｄｅ", "fine wide", true),
        ] {
            let (bytes, _) = count("", text);
            let terms: Vec<&str> = Terms(&bytes).map(|(term, _)| term).collect();
            let all = asked(question)
                .iter()
                .all(|term| terms.contains(&term.as_str()));
            assert_eq!(all, found, "{question} in {text}");
        }
        assert_eq!(asked("… !"), Vec::<String>::new());
    }

    #[test]
    fn terms_are_counted_and_those_of_the_title_more() {
        let (bytes, total) = count("Light", "light and shade and light");
        let terms: Vec<_> = Terms(&bytes).collect();
        assert_eq!(terms, [("and", 2), ("light", 5), ("shade", 1)]);
        assert_eq!(total, 8);
    }
}
