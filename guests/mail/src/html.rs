//! Markup in a mail's text: what a reader sees of it, and what it hides.

use html5gum::emitters::default::DefaultEmitter;
use html5gum::{StartTag, Token, Tokenizer};

use crate::evidence::Marks;
use crate::words::host_of;

/// Elements that divide words; all others may stand inside of one.
const BLOCKS: [&str; 22] = [
    "address",
    "article",
    "blockquote",
    "body",
    "br",
    "center",
    "div",
    "dl",
    "footer",
    "h1",
    "h2",
    "h3",
    "head",
    "header",
    "hr",
    "li",
    "ol",
    "p",
    "section",
    "table",
    "td",
    "tr",
];

/// Elements whose content nobody reads.
const UNREAD: [&str; 4] = ["script", "style", "template", "title"];

/// Some of the elements that stand inside of lines.
const INLINE: [&str; 10] = [
    "a", "b", "em", "font", "html", "i", "img", "span", "strong", "u",
];

/// Whether a text is HTML, or holds pieces of it: a tag, a comment or a numeric reference. An address
/// in angle brackets is none of these.
fn is_html(text: &str) -> bool {
    text.match_indices(['<', '&']).any(|(at, sign)| {
        let rest = text.get(at + 1..).unwrap_or_default();
        if sign == "&" {
            return rest.starts_with('#');
        }
        let tag = rest.trim_start_matches('/');
        let end = tag.find(|c: char| !c.is_ascii_alphanumeric());
        let name = tag.get(..end.unwrap_or(tag.len())).unwrap_or_default();
        let known = |names: &[&str]| names.iter().any(|known| known.eq_ignore_ascii_case(name));
        rest.starts_with('!') || known(&BLOCKS) || known(&INLINE) || known(&UNREAD)
    })
}

/// The text that a reader sees. Links are left in it, behind their words.
pub fn visible(text: &str, marks: &mut Marks) -> String {
    if !is_html(text) {
        return text.to_owned();
    }
    let mut page = Page::default();
    let mut emitter = DefaultEmitter::default();
    emitter.naively_switch_states(true);
    for token in Tokenizer::new_with_emitter(text, emitter) {
        let Ok(token) = token;
        page.add(token, marks);
    }
    page.text
}

#[derive(Default)]
struct Page {
    text: String,
    /// The element whose content is left out, and how many of its name lie inside each other.
    hidden: Option<(String, usize)>,
    /// What stands between the last letter and what comes next.
    joint: Option<&'static str>,
    /// The target of the link that is open, and where its words begin.
    link: Option<(String, usize)>,
}

impl Page {
    fn add(&mut self, token: Token, marks: &mut Marks) {
        match token {
            Token::StartTag(tag) => self.open(&tag),
            Token::EndTag(tag) => self.close(&text_of(&tag.name), marks),
            Token::Comment(_) => self.joint = Some("[a comment inside a word]"),
            Token::String(string) if self.hidden.is_none() => {
                let string = text_of(&string.value);
                let joins = |c: Option<char>| c.is_some_and(char::is_alphabetic);
                if let Some(mark) = self.joint.take()
                    && joins(self.text.chars().next_back())
                    && joins(string.chars().next())
                {
                    marks.add(mark);
                }
                self.text.push_str(&string);
            }
            _ => {}
        }
    }

    fn open(&mut self, tag: &StartTag<()>) {
        let name = text_of(&tag.name);
        if let Some((hidden, depth)) = &mut self.hidden {
            *depth += usize::from(*hidden == name);
            return;
        }
        let attribute = |name: &[u8]| {
            tag.attributes
                .iter()
                .find(|(key, _)| key.as_slice() == name)
                .map(|(_, value)| text_of(&value.value))
        };
        let style: String = attribute(b"style")
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_whitespace())
            .collect();
        let invisible = ["display:none", "font-size:0", "visibility:hidden"]
            .iter()
            .any(|sign| style.contains(sign));
        // Only where no closing tag may be left out: else text that a reader sees could be hidden
        // from us.
        if UNREAD.contains(&name.as_str())
            || (invisible && matches!(name.as_str(), "div" | "span") && !tag.self_closing)
        {
            self.hidden = Some((name, 1));
            return;
        }
        if name.contains(['@', ':']) {
            // An address that someone wrote in angle brackets.
            self.text.push_str(&format!(" {name} "));
        } else if BLOCKS.contains(&name.as_str()) {
            self.text.push('\n');
        } else {
            self.joint = Some("[tags inside a word]");
        }
        if name == "a"
            && let Some(target) = attribute(b"href")
        {
            self.link = Some((target, self.text.len()));
        }
    }

    fn close(&mut self, name: &str, marks: &mut Marks) {
        if let Some((hidden, depth)) = &mut self.hidden {
            *depth -= usize::from(hidden == name);
            if *depth == 0 {
                self.hidden = None;
            }
            return;
        }
        if BLOCKS.contains(&name) {
            self.text.push('\n');
        }
        if name == "a"
            && let Some((target, start)) = self.link.take()
        {
            let shown = self.text.get(start..).and_then(host_of);
            if shown.is_some_and(|shown| host_of(&target).is_some_and(|host| host != shown)) {
                marks.add("[a link shows another address than it opens]");
            }
            self.text.push_str(&format!(" {target} "));
        }
    }
}

fn text_of(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}
