//! `convert:docx_to_text`.

mod body;
mod package;
mod styles;

use crank_worker::{Bytes, Failure};
use quick_xml::Reader;
use quick_xml::events::{BytesStart, Event};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use body::Body;
use package::Package;
use styles::Styles;

/// A document of a word processor.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The file in Office Open XML, as Word, LibreOffice and others write it.
    #[schemars(extend("contentMediaType" = "application/vnd.openxmlformats-officedocument.wordprocessingml.document"))]
    document: Bytes,
}

/// The text of a document.
#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The text in blocks with blank lines between them. Headings start with `#`, items of lists with
    /// `-` or a number; cells of a table are divided by ` | `, its rows are lines. Foot- and endnotes
    /// follow at the end, as `[1]`. What was deleted under revision is left out.
    text: String,
    /// The title that the file gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    title: Option<String>,
    /// The author whom the file names.
    #[serde(skip_serializing_if = "Option::is_none")]
    author: Option<String>,
}

pub fn to_text(input: Input) -> Result<Output, Failure> {
    let mut package = Package::open(&input.document)?;
    let parts = package.parts()?;
    let styles = Styles::read(parts.styles.as_deref(), parts.numbering.as_deref())?;
    let mut body = Body::new(&styles);
    body.read(&parts.document)?;
    for notes in [parts.footnotes, parts.endnotes].into_iter().flatten() {
        body.read(&notes)?;
    }
    let (mut title, mut author) = (None, None);
    if let Some(core) = parts.core {
        let mut inside = None;
        read(&core, |event| match event {
            Xml::Start(name, _) => inside = Some(name.to_owned()),
            Xml::End(_) => inside = None,
            Xml::Text(text) => match inside.as_deref() {
                Some("title") => title.get_or_insert_with(String::new).push_str(text),
                Some("creator") => author.get_or_insert_with(String::new).push_str(text),
                _ => {}
            },
        })?;
    }
    let named = |text: Option<String>| {
        text.map(|text| text.trim().to_owned())
            .filter(|text| !text.is_empty())
    };
    Ok(Output {
        text: body.into_text(),
        title: named(title),
        author: named(author),
    })
}

/// What a part is made of; names without their namespace's prefix.
enum Xml<'a> {
    Start(&'a str, &'a BytesStart<'a>),
    End(&'a str),
    Text(&'a str),
}

/// Reads a part from its start to its end. Entities that XML does not know by itself are left out:
/// Office Open XML has none, and none can be defined that grow.
fn read(part: &str, mut take: impl FnMut(Xml<'_>)) -> Result<(), Failure> {
    let mut reader = Reader::from_str(part);
    reader.config_mut().expand_empty_elements = true;
    loop {
        match reader.read_event() {
            Ok(Event::Start(tag)) => take(Xml::Start(tag.local_name().as_ref(), &tag)),
            Ok(Event::End(tag)) => take(Xml::End(tag.local_name().as_ref())),
            Ok(Event::Text(text)) => take(Xml::Text(&text.xml10_content())),
            Ok(Event::CData(text)) => take(Xml::Text(&text.xml10_content())),
            Ok(Event::GeneralRef(entity)) => {
                let mut buffer = [0; 4];
                let text = match entity.resolve_char_ref() {
                    Ok(Some(c)) => Some(&*c.encode_utf8(&mut buffer)),
                    _ => quick_xml::escape::resolve_predefined_entity(&entity),
                };
                take(Xml::Text(text.unwrap_or_default()));
            }
            Ok(Event::Eof) => return Ok(()),
            Ok(_) => {}
            Err(error) => return Err(broken(&format!("its XML is damaged: {error}"))),
        }
    }
}

/// The value of an attribute, whatever its prefix.
fn attribute(tag: &BytesStart<'_>, name: &str) -> Option<String> {
    let mut attributes = tag.attributes();
    let mut attributes = attributes.with_checks(false).flatten();
    let found = attributes.find(|attribute| attribute.key.local_name().as_ref() == name)?;
    let value = found
        .normalized_value(quick_xml::XmlVersion::Implicit1_0)
        .ok()?;
    Some(value.into_owned())
}

fn broken(message: &str) -> Failure {
    fault(
        "broken",
        &format!("the file is no DOCX, or is damaged: {message}"),
    )
}

fn fault(code: &str, message: &str) -> Failure {
    Failure::invalid_input("/document", message).code(code)
}
