//! `convert:html_to_text` and `convert:html_to_markdown`.

mod attributes;
mod inline;
mod layout;
mod render;
mod tree;

use crank_worker::{Bytes, Failure};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::source;
use tree::{Kind, Tree};

/// A page. It comes as `html` or, raw, as `document`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// The page.
    html: Option<String>,
    /// The page as a file, in place of `html`.
    #[schemars(extend("contentMediaType" = "text/html"))]
    document: Option<Bytes>,
    /// The file's character set, `windows-1252`. By default what the file itself says, and else what
    /// its bytes look like.
    charset: Option<String>,
}

/// The text of a page.
#[derive(Serialize, JsonSchema)]
pub struct Text {
    /// The text in blocks with blank lines between them. Headings start with `#`, items of lists with
    /// `-` or a number, quotes with `>`; cells of a table are divided by ` | `, its rows are lines.
    text: String,
    /// The page's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
}

/// A page as Markdown.
#[derive(Serialize, JsonSchema)]
pub struct Markdown {
    /// CommonMark with GitHub's tables, strikethrough and check boxes; no HTML in it. Links lead to
    /// `http`, `https`, `mailto`, `tel`, `ftp`, or are relative; others are their text.
    markdown: String,
    /// The page's title.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Text,
    Markdown,
}

pub fn to_text(input: Input) -> Result<Text, Failure> {
    let (text, title) = convert(input, Format::Text)?;
    Ok(Text { text, title })
}

pub fn to_markdown(input: Input) -> Result<Markdown, Failure> {
    let (markdown, title) = convert(input, Format::Markdown)?;
    Ok(Markdown { markdown, title })
}

fn convert(input: Input, format: Format) -> Result<(String, Option<String>), Failure> {
    let (pointer, page) = match (input.html, input.document) {
        (Some(html), None) => ("/html", html),
        (None, Some(document)) => {
            let declared = || declared(&document);
            (
                "/document",
                source::decode(&document, input.charset.as_deref(), declared)?.0,
            )
        }
        _ => return Err(source::one_of("html")),
    };
    let tree = Tree::parse(&page).map_err(|_| too_complex(pointer))?;
    let title = tree
        .walk()
        .find(|(node, _)| tree.nodes[*node].tag() == "title")
        .map(|(node, _)| tree.text(node));
    let title = title.map(|title| title.split_whitespace().collect::<Vec<_>>().join(" "));
    let title = title.filter(|title| !title.is_empty());
    Ok((render::render(&tree, format), title))
}

/// The text of a page that is part of something else. `pointer` says where that came from.
pub fn text(page: &str, pointer: &str) -> Result<String, Failure> {
    let tree = Tree::parse(page).map_err(|_| too_complex(pointer))?;
    Ok(render::render(&tree, Format::Text))
}

/// What the writing of one page may cost, in bytes that are looked at: a second or two.
const WRITING: usize = 1 << 30;

/// Refuses a page that would cost too much to read, or to write again: html5ever 0.40 looks at the
/// rest of a text anew at each of the characters that it may have to escape.
pub fn check(page: &str, pointer: &str) -> Result<(), Failure> {
    let tree = Tree::parse(page).map_err(|_| too_complex(pointer))?;
    let cost = |text: &str| {
        let stops = text.bytes().filter(|byte| matches!(byte, b'&' | 0xc2));
        stops.count().saturating_mul(text.len())
    };
    let costs = tree.nodes.iter().map(|node| match &node.kind {
        Kind::Text(text) => cost(text),
        Kind::Element(attributes) => {
            let values = attributes.iter().map(|one| cost(&one.value));
            values.fold(0, usize::saturating_add)
        }
        Kind::Other => 0,
    });
    match costs.fold(0, usize::saturating_add) {
        0..=WRITING => Ok(()),
        _ => Err(too_complex(pointer)),
    }
}

fn too_complex(pointer: &str) -> Failure {
    Failure::invalid_input(
        pointer,
        "the elements are nested too deeply, formatting is left open too often, a tag has too many attributes, or a text too many ampersands; simplify the page",
    )
    .code("too-complex")
}

/// The character set that a page names in its first kilobyte, in whatever element.
fn declared(page: &[u8]) -> Option<String> {
    let head = page.get(..1024).unwrap_or(page).to_ascii_lowercase();
    let head = String::from_utf8_lossy(&head);
    let (_, rest) = head.split_once("charset")?;
    let rest = rest.trim_start().strip_prefix('=')?.trim_start();
    let name = rest.trim_start_matches(['"', '\'']);
    let end = name.find(|c: char| !(c.is_ascii_alphanumeric() || "-_:.".contains(c)));
    Some(name[..end.unwrap_or(name.len())].to_owned())
}

/// Elements that nobody reads.
fn is_hidden(tag: &str) -> bool {
    matches!(
        tag,
        "head"
            | "title"
            | "script"
            | "style"
            | "template"
            | "svg"
            | "iframe"
            | "noembed"
            | "noframes"
            | "canvas"
            | "audio"
            | "video"
            | "datalist"
    )
}

/// Elements that begin on a line of their own.
fn is_block(tag: &str) -> bool {
    matches!(
        tag,
        "html"
            | "body"
            | "address"
            | "article"
            | "aside"
            | "blockquote"
            | "caption"
            | "center"
            | "dd"
            | "details"
            | "dialog"
            | "dir"
            | "div"
            | "dl"
            | "dt"
            | "fieldset"
            | "figcaption"
            | "figure"
            | "footer"
            | "form"
            | "h1"
            | "h2"
            | "h3"
            | "h4"
            | "h5"
            | "h6"
            | "header"
            | "hgroup"
            | "hr"
            | "legend"
            | "li"
            | "listing"
            | "main"
            | "menu"
            | "nav"
            | "ol"
            | "optgroup"
            | "option"
            | "p"
            | "pre"
            | "search"
            | "section"
            | "summary"
            | "table"
            | "tbody"
            | "td"
            | "tfoot"
            | "th"
            | "thead"
            | "tr"
            | "ul"
            | "xmp"
    )
}
