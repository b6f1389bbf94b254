//! What a page's attributes would cost. html5ever 0.40 compares each attribute of a tag with all before it,
//! before anybody gets to see the tag.

/// Comparisons that one page may cost: about a second. A single tag may have some 23,000 attributes.
const MOST: usize = 1 << 28;

/// Where in a tag the tokenizer is: the states of the HTML standard, as far as attributes hang on them.
#[derive(Clone, Copy, PartialEq)]
enum State {
    TagName,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Unquoted,
    Single,
    Double,
}

use State::*;

impl State {
    /// The state after one more byte. `None`: the tag is over.
    fn after(self, byte: u8) -> Option<Self> {
        let is_space = matches!(byte, b' ' | b'\t' | b'\n' | b'\r' | b'\x0c');
        Some(match (self, byte) {
            (Single, b'\'') | (Double, b'"') => BeforeName,
            (Single | Double, _) => self,
            (_, b'>') => return None,
            (TagName | Unquoted, _) if is_space => BeforeName,
            (Name, _) if is_space => AfterName,
            (BeforeName | AfterName | BeforeValue, _) if is_space => self,
            (TagName | BeforeName | Name | AfterName, b'/') => BeforeName,
            (Name | AfterName, b'=') => BeforeValue,
            (BeforeValue, b'\'') => Single,
            (BeforeValue, b'"') => Double,
            (BeforeValue, _) => Unquoted,
            (BeforeName | AfterName, _) => Name,
            (TagName | Name | Unquoted, _) => self,
        })
    }

    fn begins_attribute(self, before: Self) -> bool {
        matches!((before, self), (BeforeName | AfterName, Name))
    }
}

/// Whether comparing them would cost too much. It is not known here what is a tag and what stands in a script or a
/// comment, so whatever looks like the beginning of a tag is followed; where two lead to the same state the one
/// with more attributes counts for both.
pub fn are_too_many(page: &str) -> bool {
    let page = page.as_bytes();
    let mut cost = 0_usize;
    // States of what may be tags, each at most once, with the attributes so far.
    let (mut tags, mut then) = (Vec::<(State, usize)>::new(), Vec::new());
    // Where the last name of a tag began.
    let mut named = None;
    let mut at = 0;
    while let Some(byte) = page.get(at) {
        if tags.is_empty() && *byte != b'<' && named < Some(at) {
            let next = page[at..].iter().position(|byte| *byte == b'<');
            at += next.unwrap_or(page.len());
            continue;
        }
        for (state, count) in tags.drain(..) {
            let Some(next) = state.after(*byte) else {
                continue;
            };
            let begun = usize::from(next.begins_attribute(state));
            cost += begun * count;
            put(&mut then, next, count + begun);
        }
        if named == Some(at) {
            put(&mut then, TagName, 0);
        }
        if *byte == b'<' {
            let name = at + 1 + usize::from(page.get(at + 1) == Some(&b'/'));
            let is_name = page.get(name).is_some_and(u8::is_ascii_alphabetic);
            named = Some(name).filter(|_| is_name);
        }
        if cost > MOST {
            return true;
        }
        std::mem::swap(&mut tags, &mut then);
        at += 1;
    }
    false
}

fn put(tags: &mut Vec<(State, usize)>, state: State, count: usize) {
    match tags.iter_mut().find(|(there, _)| *there == state) {
        Some((_, most)) => *most = count.max(*most),
        None => tags.push((state, count)),
    }
}
