//! From glyphs to lines and paragraphs.
//!
//! Glyphs are taken in the order in which the file draws them, which is the order of reading in what
//! producers of text write, over columns too; geometry only says where spaces and lines are.

use kurbo::{Point, Vec2};
use unicode_normalization::UnicodeNormalization;
use unicode_normalization::char::compose;

use super::glyphs::Glyph;

/// Widths, in font sizes. Justified text shrinks a space to 0.22 at least; kerning stays below 0.1.
const SPACE: f64 = 0.13;
/// How far a glyph may lie off the baseline, as a superscript does, and still be on the line.
const RISE: f64 = 0.5;
/// How far a glyph may lie behind the end of the one before it: kerning, accents.
const OVERLAP: f64 = 1.0;

/// The lines of one page.
#[derive(Default)]
pub struct Lines {
    lines: Vec<Line>,
    last: Option<Glyph>,
}

struct Line {
    text: String,
    origin: Point,
    along: Vec2,
    size: f64,
}

impl Lines {
    /// Adds the next glyph.
    pub fn push(&mut self, mut glyph: Glyph) {
        glyph.text = spelled(&glyph.text);
        match (&self.last, self.lines.last_mut()) {
            (Some(last), Some(line)) if continues(last, &glyph) => {
                let gap = (glyph.origin - last.end).dot(last.along) / glyph.size.max(1e-6);
                let spaced = line.text.ends_with(char::is_whitespace)
                    || glyph.text.starts_with(char::is_whitespace);
                if overlaps(last, &glyph) && accent(&mut line.text, &mut glyph.text) {
                    // One letter now.
                } else if gap > SPACE && !spaced && !line.text.is_empty() {
                    line.text.push(' ');
                }
                line.text.push_str(&glyph.text);
                line.size = line.size.max(glyph.size);
            }
            _ => self.lines.push(Line {
                text: glyph.text.clone(),
                origin: glyph.origin,
                along: glyph.along,
                size: glyph.size,
            }),
        }
        self.last = Some(glyph);
    }

    /// The page's text: words that were divided at the end of a line are joined, and a blank line
    /// stands between paragraphs: where more space lies between two lines than between most, and
    /// before a line that is indented.
    pub fn into_text(self) -> String {
        let lines: Vec<Line> = self
            .lines
            .into_iter()
            .filter(|line| !line.text.trim().is_empty())
            .collect();
        let pairs = lines.iter().zip(lines.iter().skip(1));
        let mut gaps: Vec<f64> = pairs
            .filter_map(|(above, below)| gap(above, below))
            .collect();
        gaps.sort_by(f64::total_cmp);
        let usual = gaps.get(gaps.len() / 2).copied().unwrap_or_default();
        let mut text = String::new();
        for (index, line) in lines.iter().enumerate() {
            let mut words = line.text.trim();
            if let Some(before) = index.checked_sub(1).and_then(|before| lines.get(before)) {
                words = rejoin(&mut text, words).unwrap_or(words);
                if words.is_empty() {
                    continue;
                }
                let wide = gap(before, line).is_some_and(|gap| gap > usual * 1.3);
                let begins = wide || indented(before, line, lines.get(index + 1));
                text.push_str(if begins { "\n\n" } else { "\n" });
            }
            text.push_str(words);
        }
        text
    }
}

/// Whether a glyph stands on the line of the one before it.
fn continues(last: &Glyph, glyph: &Glyph) -> bool {
    let size = last.size.max(glyph.size);
    let step = glyph.origin - last.end;
    last.along.dot(glyph.along) > 0.9
        && step.cross(last.along).abs() <= RISE * size
        && step.dot(last.along) >= -OVERLAP * size
}

/// Whether a glyph is printed over the one before it.
fn overlaps(last: &Glyph, glyph: &Glyph) -> bool {
    (glyph.origin - last.end).dot(last.along) < -0.1 * glyph.size
}

/// How far below a line the next one lies, in font sizes; none if it lies above, or elsewhere.
fn gap(above: &Line, below: &Line) -> Option<f64> {
    let step = below.origin - above.origin;
    let gap = step.cross(above.along) / above.size.max(below.size).max(1e-6);
    (gap > 0.0 && above.along.dot(below.along) > 0.9).then_some(gap)
}

/// Whether a line begins further right than the lines before and after it: the first of a paragraph.
fn indented(before: &Line, line: &Line, after: Option<&Line>) -> bool {
    let right_of =
        |other: &Line| (line.origin - other.origin).dot(line.along) / line.size.max(1e-6);
    let range = 0.7..4.0;
    range.contains(&right_of(before)) && after.is_none_or(|after| range.contains(&right_of(after)))
}

/// The text without what only typography needs: ligatures, odd spaces, hyphens that may show.
fn spelled(text: &str) -> String {
    let mut spelled = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '\u{fb00}'..='\u{fb06}' => spelled.extend(c.nfkd()),
            '\u{a0}' | '\u{2000}'..='\u{200a}' | '\u{202f}' => spelled.push(' '),
            '\u{ad}' => spelled.push(SOFT_HYPHEN),
            c if c.is_control() => spelled.push(' '),
            c => spelled.push(c),
        }
    }
    spelled
}

const SOFT_HYPHEN: char = '\u{ad}';

/// Takes the second half of a word that the text so far ends with the first half of, and returns
/// what remains of the line. A hyphen before a capital or a digit stays: that one was written.
pub fn rejoin<'a>(text: &mut String, line: &'a str) -> Option<&'a str> {
    let hyphen = text
        .chars()
        .next_back()
        .filter(|c| ['-', '\u{2010}', SOFT_HYPHEN].contains(c))?;
    let mut half = text.chars().rev().skip(1);
    let divided =
        half.next().is_some_and(char::is_alphabetic) && line.starts_with(char::is_lowercase);
    if !divided {
        return None;
    }
    text.truncate(text.len() - hyphen.len_utf8());
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    text.push_str(word);
    Some(rest)
}

/// Makes one letter of an accent and a letter that are printed over each other, in either order.
fn accent(line: &mut String, glyph: &mut String) -> bool {
    let (Some(first), Some(second)) = (line.chars().next_back(), glyph.chars().next()) else {
        return false;
    };
    let letter = match (combining(first), combining(second)) {
        (Some(mark), None) => compose(if second == 'ı' { 'i' } else { second }, mark),
        (None, Some(mark)) => compose(if first == 'ı' { 'i' } else { first }, mark),
        _ => None,
    };
    let Some(letter) = letter else { return false };
    line.truncate(line.len() - first.len_utf8());
    let rest = glyph.split_off(second.len_utf8());
    *glyph = letter.to_string() + &rest;
    true
}

/// The combining form of an accent that stands alone.
fn combining(c: char) -> Option<char> {
    Some(match c {
        '`' => '\u{300}',
        '´' | '\u{2ca}' => '\u{301}',
        '^' | 'ˆ' => '\u{302}',
        '~' | '˜' => '\u{303}',
        '¯' | 'ˉ' => '\u{304}',
        '˘' => '\u{306}',
        '˙' => '\u{307}',
        '¨' => '\u{308}',
        '˚' | '°' => '\u{30a}',
        '˝' => '\u{30b}',
        'ˇ' => '\u{30c}',
        '¸' => '\u{327}',
        '˛' => '\u{328}',
        '\u{300}'..='\u{36f}' => c,
        _ => return None,
    })
}
