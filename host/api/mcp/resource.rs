//! Capabilities that are resources too: their authors say under which URI, and who reads one has it called.

use percent_encoding::percent_decode_str;
use rmcp::model::{JsonObject, Resource, ResourceTemplate};

use crate::capability::Capability;
use crate::registry::{self, Candidate, Snapshot};

/// The extension that names a capability's URI. `{name}` in it stands for a member of the input: a text, which ends
/// at the next slash.
const EXTENSION: &str = "mcp.resource";
/// URIs of this host's own.
pub(super) const OWN: &str = "crank:";

fn uri(capability: &Capability) -> Option<&str> {
    let uri = capability.extensions.get(EXTENSION)?.as_str();
    (!uri.starts_with(OWN)).then_some(uri)
}

/// Those of the newest versions that are resources, each with its URI, ordered by that.
fn all(snapshot: &Snapshot) -> Vec<(&str, &Candidate)> {
    let newest = snapshot.offers().filter_map(registry::newest);
    let named = newest.filter_map(|at| Some((uri(&at.offered.capability)?, at)));
    let mut named: Vec<_> = named.collect();
    named.sort_by(|(a, one), (b, other)| (a, &one.offered.id).cmp(&(b, &other.offered.id)));
    named
}

/// Those with a URI of their own.
pub(super) fn single(snapshot: &Snapshot) -> Vec<Resource> {
    let all = all(snapshot).into_iter();
    let single = all.filter(|(uri, _)| !uri.contains('{'));
    let described = single.map(|(uri, candidate)| {
        let capability = &candidate.offered.capability;
        Resource::new(uri, &*candidate.offered.id)
            .with_description(capability.description.clone())
            .with_mime_type(capability.produces.essence())
    });
    described.collect()
}

/// Those with many.
pub(super) fn templates(snapshot: &Snapshot) -> Vec<ResourceTemplate> {
    let all = all(snapshot).into_iter();
    let templates = all.filter(|(uri, _)| uri.contains('{'));
    let described = templates.map(|(uri, candidate)| {
        let capability = &candidate.offered.capability;
        ResourceTemplate::new(uri, &*candidate.offered.id)
            .with_description(capability.description.clone())
            .with_mime_type(capability.produces.essence())
    });
    described.collect()
}

/// The capability that a URI names, with its input. What two claim is neither's.
pub(super) fn find<'a>(snapshot: &'a Snapshot, uri: &str) -> Option<(&'a Candidate, JsonObject)> {
    let all = all(snapshot).into_iter();
    let mut named = all.filter_map(|(template, at)| Some((at, input(template, uri)?)));
    let found = named.next()?;
    named.next().is_none().then_some(found)
}

/// What a template's names stand for in a URI, if it is one of the template's.
fn input(mut template: &str, mut uri: &str) -> Option<JsonObject> {
    let mut input = JsonObject::new();
    while let Some((text, rest)) = template.split_once('{') {
        let (name, after) = rest.split_once('}')?;
        uri = uri.strip_prefix(text)?;
        let (value, left) = uri.split_at(uri.find('/').unwrap_or(uri.len()));
        let value = percent_decode_str(value).decode_utf8().ok()?;
        if value.is_empty() {
            return None;
        }
        input.insert(name.to_owned(), value.as_ref().into());
        (template, uri) = (after, left);
    }
    (template == uri).then_some(input)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_template_reads_its_names_out_of_a_uri() {
        let read = |template, uri| input(template, uri).map(serde_json::Value::Object);
        let notes = "notes://{folder}/{id}/text";
        assert_eq!(
            read(notes, "notes://a%20b/7/text"),
            Some(json!({ "folder": "a b", "id": "7" }))
        );
        for other in [
            "notes://a/7",
            "notes:///7/text",
            "notes://a/b/7/text",
            "x",
            "",
        ] {
            assert_eq!(read(notes, other), None, "{other}");
        }
        assert_eq!(read("a://b", "a://b"), Some(json!({})));
        assert_eq!(read("a://{b", "a://b"), None);
        assert_eq!(read("a://{b}", "a://%ff"), None);
    }
}
