//! Answers and failures as results of tools.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{CallToolResult, ContentBlock, ErrorData, ResourceContents};
use serde_json::{Value, json};

use super::tool;
use crate::api::events::is_text;
use crate::api::problem;
use crate::capability::{Capability, MediaType};
use crate::error::Failure;
use crate::sandbox::Payload;

/// JSON as structured content, and as text for clients that know no other; anything else as what it is.
pub(super) fn answered(capability: &Capability, payload: Payload, id: &str) -> CallToolResult {
    let json = MediaType::parse(&payload.media_type).is_ok_and(|media| media.is_json());
    let value = json.then(|| serde_json::from_slice::<Value>(&payload.body));
    let content = content(payload, id);
    let mut result = CallToolResult::success(vec![content]);
    if let Some(Ok(value)) = value {
        result.structured_content = Some(tool::structure(capability, value));
    }
    result
}

fn content(payload: Payload, id: &str) -> ContentBlock {
    let Payload { media_type, body } = payload;
    let kind = media_type.split('/').next().unwrap_or_default();
    let is_json = MediaType::parse(&media_type).is_ok_and(|media| media.is_json());
    match (
        kind.to_ascii_lowercase().as_str(),
        std::str::from_utf8(&body),
    ) {
        ("text", Ok(text)) => ContentBlock::text(text),
        (_, Ok(text)) if is_json => ContentBlock::text(text),
        ("image", _) => ContentBlock::image(BASE64_STANDARD.encode(&body), media_type),
        ("audio", _) => ContentBlock::audio(BASE64_STANDARD.encode(&body), media_type),
        (_, _) => {
            // It is in the result and nowhere else: a name, not a place.
            let uri = format!("urn:uuid:{id}");
            let payload = Payload { media_type, body };
            ContentBlock::resource(contents(payload, uri))
        }
    }
}

/// What lies under a URI: text where it is text.
pub(super) fn contents(payload: Payload, uri: String) -> ResourceContents {
    let Payload { media_type, body } = payload;
    let contents = match std::str::from_utf8(&body) {
        Ok(text) if is_text(&media_type) => ResourceContents::text(text, uri),
        _ => ResourceContents::blob(BASE64_STANDARD.encode(&body), uri),
    };
    contents.with_mime_type(media_type)
}

/// A failure of what is no tool.
pub(super) fn error(failure: Failure) -> ErrorData {
    let code = json!({ "code": failure.code.as_str() });
    ErrorData::internal_error(failure.message, Some(code))
}

/// What the other protocols' problem documents say, for programs; the same in words, for models.
pub(super) fn failed(failure: &Failure, id: &str) -> CallToolResult {
    let mut text = failure.to_string();
    let mut structured = json!({
        "code": failure.code.as_str(),
        "message": failure.message,
        "request_id": failure.replay_of.as_deref().unwrap_or(id),
    });
    let faults = failure.faults.iter().map(|fault| {
        text.push_str(&format!("\nat `{}`: {}", fault.pointer, fault.detail));
        json!({ "pointer": fault.pointer, "detail": fault.detail })
    });
    let faults: Vec<Value> = faults.collect();
    let optional = [
        ("errors", (!faults.is_empty()).then(|| faults.into())),
        ("worker_id", failure.worker_id.clone().map(Value::from)),
        ("worker_code", failure.worker_code.clone().map(Value::from)),
        (
            "retry_after",
            problem::retry_after(failure).map(Value::from),
        ),
    ];
    if let Some(members) = structured.as_object_mut() {
        let given = optional
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)));
        members.extend(given);
    }
    if let Some(seconds) = problem::retry_after(failure) {
        text.push_str(&format!("\ntry again in {seconds} s"));
    }
    let mut result = CallToolResult::error(vec![ContentBlock::text(text)]);
    result.structured_content = Some(structured);
    result
}
