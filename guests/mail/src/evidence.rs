//! What a mail shows: the words, pairs of words and marks that models count.

use std::borrow::Cow;
use std::collections::{BTreeSet, HashSet};

use crate::words::{Piece, host_of, pieces};
use crate::{folding, headers, html};

/// A mail, as far as it is looked at.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mail<'a> {
    /// The subject, decoded.
    pub subject: &'a str,
    /// The text, plain or HTML.
    pub text: &'a str,
    /// The header block as it was sent (RFC 5322), or nothing.
    pub headers: &'a str,
}

/// Something that a mail shows, counted once however often it does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Feature {
    /// For people: a word, two words in a row, `subject: word`, `link: word`, or `[what is odd]`.
    pub name: String,
    /// What models know it by: FNV-1a, 32 bits.
    pub hash: u32,
}

impl Feature {
    /// The feature of this name.
    pub fn new(name: String) -> Self {
        let fnv = |hash: u32, byte: u8| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193);
        let hash = name.bytes().fold(0x811c_9dc5, fnv);
        Self { name, hash }
    }
}

/// Bytes of a text that are looked at, from its beginning and from its end: enough for any letter,
/// and a bound on the time that a mail of many megabytes takes.
const HEAD: usize = 192 << 10;
const TAIL: usize = 64 << 10;

/// Features of one mail, at most.
const MOST: usize = 4000;

/// Oddities, each noted once.
#[derive(Debug, Default)]
pub(crate) struct Marks(BTreeSet<&'static str>);

impl Marks {
    pub fn add(&mut self, mark: &'static str) {
        self.0.insert(mark);
    }
}

/// Everything that a mail shows, each thing once, in the order of the text; its marks come first.
pub fn evidence(mail: &Mail<'_>) -> Vec<Feature> {
    let mut marks = Marks::default();
    headers::read(mail.headers, &mut marks);
    let mut names = Vec::new();
    let subject = folding::normalise(mail.subject, &mut marks);
    shape_of_subject(&subject, &mut marks);
    for piece in pieces(&subject, &mut marks) {
        if let Piece::Word(word) = &piece {
            names.push(format!("subject: {word}"));
        }
        name(&piece, None, &mut names);
    }
    let text = html::visible(&shorten(mail.text), &mut marks);
    let text = folding::normalise(&text, &mut marks);
    let pieces = pieces(&text, &mut marks);
    shape(&text, &pieces, &mut marks);
    for (at, piece) in pieces.iter().enumerate() {
        name(piece, pieces.get(at + 1), &mut names);
    }
    let mut seen = HashSet::new();
    let marks = marks.0.into_iter().map(str::to_owned);
    marks
        .chain(names)
        .map(Feature::new)
        .filter(|feature| seen.insert(feature.hash))
        .take(MOST)
        .collect()
}

/// The names of one piece, and of it with the one that follows.
fn name(piece: &Piece, next: Option<&Piece>, names: &mut Vec<String>) {
    match piece {
        Piece::Word(word) => {
            if word.chars().nth(1).is_some() {
                names.push(word.clone());
            }
            match next {
                Some(Piece::Word(next)) => names.push(format!("{word} {next}")),
                Some(Piece::Number(number)) => names.push(format!("{word} {number}")),
                _ => {}
            }
        }
        Piece::Number(number) => names.push(number.clone()),
        Piece::Link(link) => {
            // The scheme says nothing: spammers have certificates too.
            let address = link
                .split_once("://")
                .map_or(link.as_str(), |(_, rest)| rest);
            let words = address.split(|c: char| !c.is_alphanumeric());
            let telling = |word: &&str| word.len() > 2 && word.chars().all(char::is_alphabetic);
            names.extend(words.filter(telling).map(|word| format!("link: {word}")));
        }
        Piece::Break => {}
    }
}

/// The beginning and the end of a long text, the whole of others: what is looked at.
pub fn shorten(text: &str) -> Cow<'_, str> {
    if text.len() <= HEAD + TAIL {
        return Cow::Borrowed(text);
    }
    let head = text.get(..text.floor_char_boundary(HEAD));
    let tail = text.get(text.ceil_char_boundary(text.len() - TAIL)..);
    Cow::Owned([head, tail].map(Option::unwrap_or_default).join("\n"))
}

fn shape_of_subject(subject: &str, marks: &mut Marks) {
    if subject.trim().is_empty() {
        marks.add("[no subject]");
    }
    if shouts(subject) {
        marks.add("[a subject in capitals]");
    }
    if subject.contains("!!") {
        marks.add("[a subject with exclamation marks]");
    }
    if subject.to_ascii_lowercase().starts_with("re:") {
        marks.add("[an answer, by its subject]");
    }
}

fn shape(text: &str, pieces: &[Piece], marks: &mut Marks) {
    if text.contains("!!") {
        marks.add("[exclamation marks]");
    }
    if shouts(text) {
        marks.add("[capitals]");
    }
    let words = pieces
        .iter()
        .filter(|piece| matches!(piece, Piece::Word(_)))
        .count();
    marks.add(match words {
        0..=12 => "[a line]",
        13..=40 => "[a few lines]",
        41..=120 => "[a letter]",
        _ => "[a long letter]",
    });
    let links: Vec<&String> = pieces
        .iter()
        .filter_map(|piece| match piece {
            Piece::Link(link) => Some(link),
            _ => None,
        })
        .collect();
    if !links.is_empty() {
        marks.add("[links]");
    }
    for link in links {
        let Some(host) = host_of(link) else { continue };
        if host.chars().all(|c| c.is_ascii_digit() || c == '.') {
            marks.add("[a link to a number]");
        }
        if link.contains("xn--") || !link.is_ascii() {
            marks.add("[a link to an address in another alphabet]");
        }
        if [
            "bit.ly",
            "tinyurl.com",
            "goo.gl",
            "is.gd",
            "cutt.ly",
            "t.co",
        ]
        .contains(&host.as_str())
        {
            marks.add("[a shortened link]");
        }
    }
}

/// More capitals than small letters, in words long enough to be no abbreviations.
fn shouts(text: &str) -> bool {
    let words = text.split(|c: char| !c.is_alphabetic());
    let (loud, all) = words
        .filter(|word| {
            word.chars().nth(3).is_some()
                && word.chars().any(|c| c.is_lowercase() || c.is_uppercase())
        })
        .take(2000)
        .fold((0, 0), |(loud, all), word| {
            (
                loud + usize::from(word.chars().all(char::is_uppercase)),
                all + 1,
            )
        });
    loud >= 2 && 3 * loud > all
}
