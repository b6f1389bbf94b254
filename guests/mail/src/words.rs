//! Words, numbers and links of a text.

use crate::evidence::Marks;
use crate::folding::{fold, is_mostly_latin, is_unspaced, spelled_out};

/// A piece of a text.
#[derive(Clone, Debug, PartialEq)]
pub enum Piece {
    /// A word, folded.
    Word(String),
    /// A number, by its kind and its digits: `money:5`.
    Number(String),
    /// A link's target, as it stands.
    Link(String),
    /// Where a sentence or a line ends, or something stands that is no word.
    Break,
}

/// Letters beyond which a word is none.
const LONGEST: usize = 24;

/// So many single letters in a row are one word, spelled with spaces or points.
const SPELLED: usize = 4;

/// Divides a text that is normalised.
pub fn pieces(text: &str, marks: &mut Marks) -> Vec<Piece> {
    let latin = is_mostly_latin(text);
    let mut found = Vec::new();
    for line in text.lines() {
        let mut run = Vec::new();
        // Two spaces part words even where one parts letters.
        for group in line.split("  ") {
            for chunk in group.split_whitespace() {
                divide(chunk, latin, &mut run, marks);
            }
            join_letters(&mut run, &mut found, marks);
        }
        found.push(Piece::Break);
    }
    found
}

/// Divides what stands between two spaces.
fn divide(chunk: &str, latin: bool, found: &mut Vec<Piece>, marks: &mut Marks) {
    let lower = chunk.to_ascii_lowercase();
    if let Some(at) = lower.find("://").or_else(|| lower.find("www.")) {
        let start = lower.get(..at).map_or(0, |before| {
            before.len()
                - before
                    .chars()
                    .rev()
                    .take_while(char::is_ascii_alphabetic)
                    .count()
        });
        found.push(Piece::Link(
            lower.get(start..).unwrap_or_default().to_owned(),
        ));
        return;
    }
    if let Some((before, after)) = chunk.split_once('@')
        && !before.is_empty()
        && after
            .trim_end_matches(|c: char| !c.is_alphanumeric())
            .contains('.')
    {
        found.push(Piece::Break);
        return;
    }
    if let Some(number) = number(chunk) {
        found.push(Piece::Number(number));
        return;
    }
    let chars: Vec<char> = chunk.chars().collect();
    let is_letter = |at: Option<usize>| {
        at.and_then(|at| chars.get(at))
            .is_some_and(|c| c.is_alphanumeric())
    };
    let mut word = String::new();
    for (at, &c) in chars.iter().enumerate() {
        let stands_for_letter = matches!(c, '@' | '$' | '!' | '|' | '€' | '+')
            && is_letter(Some(at + 1))
            && (is_letter(at.checked_sub(1)) || matches!(c, '@' | '$' | '€'));
        if c.is_alphanumeric()
            || stands_for_letter
            || unicode_normalization::char::is_combining_mark(c)
        {
            word.push(c);
        } else if !matches!(c, '\'' | '’') {
            add_word(&std::mem::take(&mut word), latin, found, marks);
        }
    }
    add_word(&word, latin, found, marks);
    if chunk.ends_with(['.', ',', ';', ':', '!', '?', ')', '。', '、', '！', '？']) {
        // A single letter with a point may be part of a word that is spelled out.
        if chars.len() > 2 {
            found.push(Piece::Break);
        }
    }
}

fn add_word(word: &str, latin: bool, found: &mut Vec<Piece>, marks: &mut Marks) {
    if word.is_empty() {
        return;
    }
    // Before it is folded, since that takes time.
    if word.len() > 16 * LONGEST && !word.chars().any(is_unspaced) {
        found.push(Piece::Break);
        return;
    }
    if word.chars().any(is_unspaced) {
        let chars: Vec<char> = word.chars().collect();
        for pair in chars.windows(2) {
            found.push(Piece::Word(pair.iter().collect()));
            found.push(Piece::Break);
        }
        return;
    }
    let folded = fold(word, latin, marks);
    if folded.chars().count() > LONGEST || !folded.chars().any(char::is_alphabetic) {
        found.push(Piece::Break);
        return;
    }
    match spelled_out(&folded) {
        Some(meant) => found.push(Piece::Word(meant)),
        None => found.push(Piece::Word(folded)),
    }
}

/// Moves a run of pieces over, and makes words of letters that stand alone.
fn join_letters(run: &mut Vec<Piece>, found: &mut Vec<Piece>, marks: &mut Marks) {
    let letter = |piece: &Piece| match piece {
        Piece::Word(word) if word.chars().count() == 1 => Some(word.clone()),
        _ => None,
    };
    let mut rest = run.as_slice();
    while let Some((first, others)) = rest.split_first() {
        let letters: Vec<String> = rest.iter().map_while(letter).collect();
        if letters.len() >= SPELLED {
            marks.add("[a word spelled with gaps]");
            found.push(Piece::Word(letters.concat()));
            rest = rest.get(letters.len()..).unwrap_or_default();
        } else {
            found.push(first.clone());
            rest = others;
        }
    }
    run.clear();
}

/// What a number is and how many digits it has before its decimals, if a chunk is one.
fn number(chunk: &str) -> Option<String> {
    let core = chunk
        .trim_matches(|c: char| matches!(c, '.' | ',' | '!' | '?' | ':' | ';' | '(' | ')' | '"'));
    let money = core.contains(['$', '€', '£', '¥']);
    let allowed = |c: char| c.is_numeric() || ".,:/-+%#$€£¥'’".contains(c);
    if core.is_empty() || !core.chars().all(allowed) || !core.contains(char::is_numeric) {
        return None;
    }
    let whole = match core.rfind(['.', ',']) {
        Some(at) if core.len() - at <= 3 => core.get(..at)?,
        _ => core,
    };
    let digits = whole.chars().filter(|c| c.is_numeric()).count();
    let kind = match () {
        () if money => "money",
        () if core.ends_with('%') => "percent",
        () if core.contains(':') => "time",
        () if core.contains(['/', '-']) => "date",
        () => "number",
    };
    Some(format!("{kind}:{}", digits.min(10)))
}

/// The host that a text names, if it is or begins with an address of the web: the last two labels.
pub fn host_of(text: &str) -> Option<String> {
    let text = text.trim().to_ascii_lowercase();
    let rest = match text.split_once("://") {
        Some((_, rest)) => rest,
        None => text.strip_prefix("www.")?,
    };
    let host = rest.split(['/', '?', '#', ':', ' ']).next()?;
    Some(domain(host.rsplit('@').next()?))
}

/// The last two labels of a host's name.
pub fn domain(host: &str) -> String {
    let mut labels: Vec<&str> = host.trim_matches('.').rsplit('.').take(2).collect();
    labels.reverse();
    labels.join(".")
}
