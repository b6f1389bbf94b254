//! `convert:email_to_text`.

use crank_worker::{Bytes, Failure};
use mail_parser::{Addr, Address, MessageParser, MessagePart, MimeHeaders, PartType};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::html;

/// An e-mail.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The message as it was sent (RFC 5322), headers and all.
    #[schemars(extend("contentMediaType" = "message/rfc822"))]
    message: Bytes,
}

/// What an e-mail says.
#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The subject, decoded.
    subject: Option<String>,
    /// Who wrote it: `Name <address>`, or the address alone. Several are rare.
    from: Vec<String>,
    /// To whom.
    to: Vec<String>,
    /// Who got a copy.
    cc: Vec<String>,
    /// When it was sent (RFC 3339).
    #[schemars(extend("format" = "date-time"))]
    date: Option<String>,
    /// The text for reading: the plain text, or that of the HTML where there is nothing else.
    text: String,
    /// What came with it.
    attachments: Vec<Attachment>,
}

/// A file that came with an e-mail.
#[derive(Serialize, JsonSchema)]
struct Attachment {
    /// The file's name.
    name: Option<String>,
    /// Its media type, as the sender calls it.
    media_type: String,
    /// Its size in bytes, decoded.
    bytes: usize,
}

pub fn to_text(input: Input) -> Result<Output, Failure> {
    let Some(message) = MessageParser::default().parse(&*input.message) else {
        return Err(
            Failure::invalid_input("/message", "this is no e-mail: it has no headers")
                .code("broken"),
        );
    };
    let bodies: Vec<String> = message
        .text_bodies()
        .filter_map(body)
        .collect::<Result<_, _>>()?;
    let attachments = message.attachments().map(|part| Attachment {
        name: part.attachment_name().map(str::to_owned),
        media_type: part.content_type().map_or_else(
            || "application/octet-stream".to_owned(),
            |media| {
                format!("{}/{}", media.ctype(), media.subtype().unwrap_or("*")).to_ascii_lowercase()
            },
        ),
        bytes: part.len(),
    });
    Ok(Output {
        subject: message.subject().map(str::to_owned),
        from: addresses(message.from()),
        to: addresses(message.to()),
        cc: addresses(message.cc()),
        date: message
            .date()
            .filter(|date| date.is_valid())
            .map(|date| date.to_rfc3339()),
        text: bodies.join("\n\n"),
        attachments: attachments.collect(),
    })
}

/// The text of a part that is meant for reading.
fn body(part: &MessagePart<'_>) -> Option<Result<String, Failure>> {
    let text = match &part.body {
        PartType::Text(text) => Ok(text.replace("\r\n", "\n")),
        PartType::Html(page) => html::text(page, "/message"),
        _ => return None,
    };
    Some(text.map(|text| text.trim().to_owned()))
}

fn addresses(addresses: Option<&Address<'_>>) -> Vec<String> {
    let text = |each: &Addr<'_>| match (&each.name, &each.address) {
        (Some(name), Some(address)) => Some(format!("{name} <{address}>")),
        (None, Some(text)) | (Some(text), None) => Some(text.to_string()),
        (None, None) => None,
    };
    addresses
        .into_iter()
        .flat_map(Address::iter)
        .filter_map(text)
        .collect()
}
