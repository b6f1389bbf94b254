//! What spammers do to a text so that people read it and filters do not.

use crate::random::Random;

/// Changes a text.
type Way = fn(&str, &mut Random) -> String;

/// The ways, by name.
pub const WAYS: [(&str, Way); 7] = [
    ("look-alike letters", look_alikes),
    ("zero-width characters", zero_width),
    ("HTML comments in words", comments),
    ("empty tags in words", tags),
    ("digits for letters", digits),
    ("letters set apart", set_apart),
    ("innocent words appended", padding),
];

/// Changes some words of a text.
fn words(
    text: &str,
    share: usize,
    random: &mut Random,
    change: impl Fn(&str, &mut Random) -> String,
) -> String {
    text.split_inclusive([' ', '\n'])
        .map(|word| {
            let plain = word.trim_end().chars().all(char::is_alphabetic);
            if plain && word.trim_end().chars().count() > 3 && random.percent(share) {
                let space = &word[word.trim_end().len()..];
                format!("{}{space}", change(word.trim_end(), random))
            } else {
                word.to_owned()
            }
        })
        .collect()
}

fn look_alikes(text: &str, random: &mut Random) -> String {
    let pairs = [
        ('a', 'а'),
        ('c', 'с'),
        ('e', 'е'),
        ('o', 'о'),
        ('p', 'р'),
        ('i', 'і'),
        ('y', 'у'),
        ('x', 'х'),
        ('s', 'ѕ'),
        ('A', 'А'),
        ('B', 'В'),
        ('E', 'Е'),
        ('O', 'О'),
        ('v', 'ν'),
    ];
    words(text, 60, random, |word, _| {
        word.chars()
            .map(|c| {
                pairs
                    .iter()
                    .find(|(plain, _)| *plain == c)
                    .map_or(c, |(_, other)| *other)
            })
            .collect()
    })
}

/// Puts something into the middle of some words.
fn insert(text: &str, what: &str, random: &mut Random) -> String {
    words(text, 60, random, |word, random| {
        let chars: Vec<char> = word.chars().collect();
        let at = 1 + random.below(chars.len() - 1);
        let (before, after) = chars.split_at(at);
        format!(
            "{}{what}{}",
            String::from_iter(before),
            String::from_iter(after)
        )
    })
}

fn zero_width(text: &str, random: &mut Random) -> String {
    insert(text, "\u{200B}", random)
}

fn comments(text: &str, random: &mut Random) -> String {
    insert(text, "<!-- q7 -->", random)
}

fn tags(text: &str, random: &mut Random) -> String {
    insert(text, "<b></b>", random)
}

fn digits(text: &str, random: &mut Random) -> String {
    words(text, 60, random, |word, _| {
        word.replace('a', "4")
            .replace('e', "3")
            .replace('i', "1")
            .replace('o', "0")
    })
}

fn set_apart(text: &str, random: &mut Random) -> String {
    words(text, 25, random, |word, _| {
        let letters: Vec<String> = word.chars().map(String::from).collect();
        letters.join(".")
    })
}

fn padding(text: &str, _: &mut Random) -> String {
    format!(
        "{text}\n\nmeeting notes draft chapter seminar library garden soup choir rehearsal weekend photos grandma minutes attached thanks training club recipe slides holiday parcel neighbours school coffee lake"
    )
}
