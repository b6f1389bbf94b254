//! `convert:markdown_to_html`.

use std::collections::HashSet;

use ammonia::Builder;
use crank_worker::{Bytes, Failure};
use pulldown_cmark::{Event, Options, Parser, html::push_html};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{html, source};

/// A text in Markdown. It comes as `markdown` or, raw, as `document`.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct Input {
    /// The text: CommonMark, with GitHub's tables, strikethrough and check boxes.
    markdown: Option<String>,
    /// The text as a file in UTF-8, in place of `markdown`.
    #[schemars(extend("contentMediaType" = "text/markdown"))]
    document: Option<Bytes>,
}

/// The text as HTML.
#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The body of a page. HTML in the Markdown stays if it is harmless; scripts, styles, forms,
    /// frames, event handlers and links to anything but known schemes are gone.
    html: String,
}

pub fn to_html(input: Input) -> Result<Output, Failure> {
    let pointer = if input.markdown.is_some() {
        "/markdown"
    } else {
        "/document"
    };
    let markdown = source::utf8("markdown", input.markdown, input.document)?;
    let options =
        Options::ENABLE_TABLES | Options::ENABLE_STRIKETHROUGH | Options::ENABLE_TASKLISTS;
    // No form element is let through, so a check box becomes its picture.
    let events = Parser::new_ext(&markdown, options).map(|event| match event {
        Event::TaskListMarker(true) => Event::Text("☑ ".into()),
        Event::TaskListMarker(false) => Event::Text("☐ ".into()),
        other => other,
    });
    let mut page = String::new();
    push_html(&mut page, events);
    html::check(&page, pointer)?;
    let mut cleaner = Builder::default();
    cleaner
        // The language of a code block; the alignment of a table's column.
        .add_tag_attributes("code", &["class"])
        .add_tag_attributes("td", &["style"])
        .add_tag_attributes("th", &["style"])
        .filter_style_properties(HashSet::from(["text-align"]));
    Ok(Output {
        html: cleaner.clean(&page).to_string(),
    })
}
