//! What a page's attributes would cost. html5ever 0.40 compares each attribute of a tag with all before it,
//! before anybody gets to see the tag.

/// Comparisons that one page may cost: about a second. A single tag may have some 23,000 attributes.
const MOST: usize = 1 << 28;

/// Where in a tag the tokenizer is: the states of the HTML standard, as far as attributes hang on them.
#[derive(Clone, Copy)]
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

const STATES: [State; 8] = [
    TagName,
    BeforeName,
    Name,
    AfterName,
    BeforeValue,
    Unquoted,
    Single,
    Double,
];

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
    let mut cost = 0_usize;
    // By state: one more than the attributes so far; 0 where no tag is in that state.
    let mut tags = [0_usize; STATES.len()];
    let mut last = [0, 0];
    for byte in page.bytes() {
        let mut then = [0; STATES.len()];
        for (state, count) in STATES.into_iter().zip(tags).filter(|(_, count)| *count > 0) {
            let Some(next) = state.after(byte) else {
                continue;
            };
            let mut count = count;
            if next.begins_attribute(state) {
                cost += count;
                count += 1;
            }
            let there = &mut then[next as usize];
            *there = count.max(*there);
        }
        if byte.is_ascii_alphabetic() && matches!(last, [_, b'<'] | [b'<', b'/']) {
            let there = &mut then[TagName as usize];
            *there = 1.max(*there);
        }
        if cost > MOST {
            return true;
        }
        tags = then;
        last = [last[1], byte];
    }
    false
}
