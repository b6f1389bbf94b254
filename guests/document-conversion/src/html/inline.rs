//! Text within a block: white space, emphasis, links, and what Markdown would misread.

use super::Format;
use super::tree::{Kind, Tree};

/// The text of one block, in the making.
pub struct Run {
    format: Format,
    pub text: String,
    /// Emphases that are open: `**` within `**` says nothing.
    open: Vec<&'static str>,
}

/// A schema that a link may have. Others are dropped, since `javascript:` is among them.
const SCHEMES: [&str; 5] = ["http", "https", "mailto", "tel", "ftp"];

impl Run {
    pub fn new(format: Format) -> Self {
        Self {
            format,
            text: String::new(),
            open: Vec::new(),
        }
    }

    /// What was written, without white space at its ends; the run is empty afterwards.
    pub fn take(&mut self) -> String {
        let text = std::mem::take(&mut self.text);
        let trimmed = text.trim_matches(is_space);
        let trimmed = trimmed
            .strip_suffix('\\')
            .filter(|rest| !rest.ends_with('\\'))
            .unwrap_or(trimmed);
        match self.format {
            Format::Text => trimmed.to_owned(),
            Format::Markdown => trimmed
                .split('\n')
                .map(guarded)
                .collect::<Vec<_>>()
                .join("\n"),
        }
    }

    /// Adds an element or a text, with all that is in it.
    pub fn add(&mut self, tree: &Tree, node: usize) {
        let found = &tree.nodes[node];
        if let Kind::Text(text) = &found.kind {
            return self.push(text);
        }
        let markdown = self.format == Format::Markdown;
        match found.tag() {
            tag if super::is_hidden(tag) => {}
            "br" => self.break_line(),
            "img" => self.image(found.attribute("alt"), found.attribute("src")),
            "input" => self.checkbox(
                found.attribute("type"),
                found.attribute("checked").is_some(),
            ),
            "b" | "strong" if markdown => self.emphasis(tree, node, "**"),
            "i" | "em" | "cite" | "var" | "dfn" if markdown => self.emphasis(tree, node, "*"),
            "del" | "s" | "strike" if markdown => self.emphasis(tree, node, "~~"),
            "code" | "kbd" | "samp" | "tt" if markdown => self.code(&tree.text(node)),
            "a" if markdown => self.link(tree, node, found.attribute("href")),
            "q" => {
                self.text.push('“');
                self.children(tree, node);
                self.text.push('”');
            }
            tag => {
                // A block where there is room for text alone: in a heading or a table's cell.
                let apart = super::is_block(tag);
                if apart {
                    self.space();
                }
                self.children(tree, node);
                if apart {
                    self.space();
                }
            }
        }
    }

    pub fn children(&mut self, tree: &Tree, node: usize) {
        for child in &tree.nodes[node].children {
            self.add(tree, *child);
        }
    }

    fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with([' ', '\n']) {
            self.text.push(' ');
        }
    }

    /// A line's end that the page asks for.
    fn break_line(&mut self) {
        let kept = self.text.trim_end_matches(is_space).len();
        self.text.truncate(kept);
        if kept > 0 {
            self.text.push_str(match self.format {
                Format::Text => "\n",
                Format::Markdown => "\\\n",
            });
        }
    }

    /// Adds text; white space of any length is one space.
    fn push(&mut self, text: &str) {
        let mut rest = text;
        while let Some(next) = rest.chars().next() {
            if is_space(next) {
                rest = rest.trim_start_matches(is_space);
                self.space();
                continue;
            }
            let (word, later) = rest.split_at(rest.find(is_space).unwrap_or(rest.len()));
            match self.format {
                Format::Text => self.text.extend(word.chars().map(plain)),
                Format::Markdown => escape(word, &mut self.text),
            }
            rest = later;
        }
    }

    /// The children, between marks that touch the text as Markdown wants it.
    fn emphasis(&mut self, tree: &Tree, node: usize, mark: &'static str) {
        if self.open.contains(&mark) {
            return self.children(tree, node);
        }
        self.open.push(mark);
        let inner = self.inner(tree, node);
        self.open.pop();
        self.wrap(&inner, mark, mark);
    }

    /// Writes a text between two marks; white space at its ends goes outside.
    fn wrap(&mut self, inner: &str, before: &str, after: &str) {
        let trimmed = inner.trim_matches(is_space);
        if inner.starts_with(is_space) {
            self.space();
        }
        if !trimmed.is_empty() {
            self.text.extend([before, trimmed, after]);
            if inner.ends_with(is_space) {
                self.space();
            }
        }
    }

    /// The children's text by itself.
    fn inner(&mut self, tree: &Tree, node: usize) -> String {
        // A letter before it keeps the white space at its start.
        let outer = std::mem::replace(&mut self.text, "x".to_owned());
        self.children(tree, node);
        let inner = std::mem::replace(&mut self.text, outer);
        inner.get(1..).unwrap_or_default().to_owned()
    }

    fn link(&mut self, tree: &Tree, node: usize, target: Option<&str>) {
        let target = target
            .and_then(address)
            .filter(|_| !self.open.contains(&"["));
        let Some(target) = target else {
            return self.children(tree, node);
        };
        self.open.push("[");
        let inner = self.inner(tree, node);
        self.open.pop();
        if tree.text(node).trim() == target.trim_matches(['<', '>']) && target.contains("://") {
            self.wrap(target.trim_matches(['<', '>']), "<", ">");
        } else {
            self.wrap(&inner, "[", &format!("]({target})"));
        }
    }

    fn image(&mut self, alt: Option<&str>, source: Option<&str>) {
        let alt = alt.unwrap_or_default();
        match (self.format, source.and_then(address)) {
            (Format::Markdown, Some(source)) => {
                self.text.push_str("![");
                self.push(alt.trim());
                self.text.extend(["](", &source, ")"]);
            }
            _ => self.push(alt),
        }
    }

    fn checkbox(&mut self, kind: Option<&str>, checked: bool) {
        if kind.is_some_and(|kind| kind.eq_ignore_ascii_case("checkbox")) {
            self.text.push_str(if checked { "[x] " } else { "[ ] " });
        }
    }

    fn code(&mut self, code: &str) {
        let code = code.split_whitespace().collect::<Vec<_>>().join(" ");
        if code.is_empty() {
            return;
        }
        let fence = fence(&code, 1);
        let apart = if code.starts_with('`') || code.ends_with('`') {
            " "
        } else {
            ""
        };
        self.text.extend([&fence, apart, &code, apart, &fence]);
    }
}

/// Backticks, one more than the text has in a row, and so many at least.
pub fn fence(text: &str, least: usize) -> String {
    let longest = text.split(|c| c != '`').map(str::len).max();
    "`".repeat(longest.map_or(least, |longest| least.max(longest + 1)))
}

/// White space of HTML. A space that does not break is text.
fn is_space(c: char) -> bool {
    matches!(c, ' ' | '\t' | '\n' | '\r' | '\u{c}')
}

/// In plain text a space that does not break is a space.
fn plain(c: char) -> char {
    if c == '\u{a0}' { ' ' } else { c }
}

/// A link's target as Markdown writes it: relative, or of a scheme that does nothing but lead there.
fn address(target: &str) -> Option<String> {
    // Browsers skip these too, before they look for the scheme.
    let target: String = target.trim().chars().filter(|c| !c.is_control()).collect();
    let scheme = target.split(['/', '?', '#']).next()?.split_once(':');
    let allowed =
        scheme.is_none_or(|(scheme, _)| SCHEMES.iter().any(|one| one.eq_ignore_ascii_case(scheme)));
    if target.is_empty() || !allowed {
        return None;
    }
    Some(match target.contains([' ', '(', ')', '<', '>', '\\']) {
        false => target,
        true => format!(
            "<{}>",
            target
                .replace('\\', "%5C")
                .replace('<', "%3C")
                .replace('>', "%3E")
        ),
    })
}

/// Adds a word so that Markdown reads it as it stands.
fn escape(word: &str, into: &mut String) {
    for (place, c) in word.char_indices() {
        let (before, after) = (&word[..place], &word[place + c.len_utf8()..]);
        let beside = |next: Option<char>| next.is_some_and(char::is_alphanumeric);
        let special = match c {
            '\\' | '`' | '*' | '[' | ']' | '<' => true,
            // Within a word it is a letter.
            '_' => !(beside(before.chars().next_back()) && beside(after.chars().next())),
            '~' => after.starts_with('~') || before.ends_with('~'),
            // An image's mark, if a link follows.
            '!' => after.is_empty(),
            '&' => is_entity(after),
            _ => false,
        };
        if special {
            into.push('\\');
        }
        into.push(c);
    }
}

/// Whether `amp;` or `#38;` begins a text. No name is longer than 32 bytes.
fn is_entity(text: &str) -> bool {
    let end = text
        .bytes()
        .take(33)
        .position(|byte| !(byte.is_ascii_alphanumeric() || byte == b'#'));
    end.is_some_and(|end| end > 0 && text.as_bytes()[end] == b';')
}

/// A line that Markdown would take for the start of a block does not start with that.
fn guarded(line: &str) -> String {
    let rest = line.trim_start_matches(|c: char| c.is_ascii_digit());
    let number = line.len() - rest.len();
    let mark = rest.trim_start_matches(['#', '+', '-', '=', '~', '.', ')']);
    let mark = &rest[..rest.len() - mark.len()];
    let alone = rest.len() == mark.len() || rest[mark.len()..].starts_with(' ');
    let begins = match mark {
        "." | ")" => alone && (1..10).contains(&number),
        _ if number > 0 => false,
        "" => rest.starts_with('>'),
        mark => {
            (alone && !mark.contains(['.', ')']))
                || mark.starts_with("~~~")
                || mark.starts_with("--")
        }
    };
    match begins {
        true => format!("{}\\{rest}", &line[..number]),
        false => line.to_owned(),
    }
}
