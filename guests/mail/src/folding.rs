//! One spelling for what looks alike: compatibility forms, invisible characters, look-alike letters,
//! accents, digits in the place of letters.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};
use unicode_security::confusable_detection::skeleton;

use crate::evidence::Marks;

/// Compatibility forms made one (NFKC), and invisible characters taken out.
pub fn normalise(text: &str, marks: &mut Marks) -> String {
    let text = match is_nfkc_quick(text.chars()) {
        IsNormalized::Yes => Cow::Borrowed(text),
        _ => Cow::Owned(text.nfkc().collect()),
    };
    let mut clean = String::with_capacity(text.len());
    let mut hidden = false;
    for c in text.chars() {
        if is_invisible(c) {
            hidden = true;
            continue;
        }
        // Other scripts need joiners inside of words, newsletters fill lines with them: only between
        // two Latin letters have they no business.
        if hidden && is_latin(c) && clean.chars().next_back().is_some_and(is_latin) {
            marks.add("[an invisible character inside a word]");
        }
        hidden = false;
        clean.push(c);
    }
    clean
}

/// Takes up no place where it stands: UAX #44, Default_Ignorable_Code_Point, without those that
/// other scripts write.
fn is_invisible(c: char) -> bool {
    matches!(c,
        '\u{AD}' | '\u{34F}' | '\u{61C}' | '\u{180B}'..='\u{180E}' | '\u{200B}'..='\u{200F}'
        | '\u{202A}'..='\u{202E}' | '\u{2060}'..='\u{206F}' | '\u{FE00}'..='\u{FE0F}'
        | '\u{FEFF}' | '\u{E0000}'..='\u{E0FFF}')
}

/// A Latin letter, with accents or without.
pub fn is_latin(c: char) -> bool {
    c.is_ascii_alphabetic()
        || (c.is_alphabetic() && matches!(c, '\u{C0}'..='\u{24F}' | '\u{1E00}'..='\u{1EFF}'))
}

/// Whether most letters of a text are Latin: then a word of other letters that all look Latin is
/// meant to be read as Latin.
pub fn is_mostly_latin(text: &str) -> bool {
    let letters = text.chars().filter(|c| c.is_alphabetic());
    let (latin, others): (Vec<_>, Vec<_>) = letters.take(4000).partition(|c| is_latin(*c));
    latin.len() > 2 * others.len()
}

/// A word as it is counted: look-alikes made Latin, small letters, no accents.
pub fn fold(word: &str, in_latin_text: bool, marks: &mut Marks) -> String {
    if word.is_ascii() {
        return word.to_ascii_lowercase();
    }
    let foreign = |c: &char| c.is_alphabetic() && !is_latin(*c);
    let mut foreigners = word.chars().filter(foreign).peekable();
    let disguised = foreigners.peek().is_some()
        && if word.chars().any(is_latin) {
            foreigners.any(|c| look_alike(c).is_some())
        } else {
            in_latin_text && foreigners.all(|c| look_alike(c).is_some())
        };
    let letters = word.chars().count();
    if disguised && letters > 2 {
        marks.add("[letters of another alphabet inside a word]");
    }
    let mut folded = String::with_capacity(word.len());
    for c in word.chars() {
        match look_alike(c).filter(|_| disguised && foreign(&c)) {
            Some(latin) => folded.push(latin),
            None => folded.extend(c.to_lowercase()),
        }
    }
    folded
        .nfd()
        .filter(|c| !matches!(c, '\u{300}'..='\u{36F}'))
        .collect()
}

/// The small Latin letter that a letter of another alphabet looks like (UTS #39), if there is one.
fn look_alike(c: char) -> Option<char> {
    let mut buffer = [0; 4];
    match skeleton(c.encode_utf8(&mut buffer)).next()? {
        // Where the skeleton is a small capital.
        'ʙ' => Some('b'),
        'ʜ' => Some('h'),
        'ĸ' | 'ᴋ' => Some('k'),
        'ᴍ' => Some('m'),
        'ᴛ' => Some('t'),
        letter if letter.is_ascii_alphabetic() => Some(letter.to_ascii_lowercase()),
        _ => None,
    }
}

/// The word that digits and signs in the place of letters spell: `v1agra`, `fr33`, `c@sh`. None where
/// nothing stands for a letter, or hardly a letter stands for itself.
pub fn spelled_out(word: &str) -> Option<String> {
    let letters = word.chars().filter(|c| c.is_alphabetic()).count();
    let length = word.chars().count();
    if letters == length || letters < 2 || 2 * letters < length {
        return None;
    }
    word.chars()
        .map(|c| match c {
            '0' => Some('o'),
            '1' | '!' | '|' => Some('i'),
            '3' | '€' => Some('e'),
            '4' | '@' => Some('a'),
            '5' | '$' => Some('s'),
            '7' | '+' => Some('t'),
            '8' => Some('b'),
            c if c.is_alphabetic() => Some(c),
            _ => None,
        })
        .collect()
}

/// Written without spaces between words: every two neighbours count as a word.
pub fn is_unspaced(c: char) -> bool {
    matches!(c, '\u{E00}'..='\u{E7F}' | '\u{3040}'..='\u{30FF}' | '\u{3400}'..='\u{9FFF}' | '\u{F900}'..='\u{FAFF}' | '\u{20000}'..='\u{3FFFF}')
}
