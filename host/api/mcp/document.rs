//! What there is to read of capabilities: each has a page, `crank://capabilities/{verb}/{name}`.

use std::fmt::Write;

use rmcp::model::{Resource, ResourceContents, ResourceTemplate};
use serde_json::Value;

use super::tool;
use crate::capability::Example;
use crate::registry::{self, Candidate, Snapshot};
use crate::worker::Offered;

const CAPABILITIES: &str = "crank://capabilities/";
const MARKDOWN: &str = "text/markdown";

/// Every page, ordered by its URI.
pub(super) fn all(snapshot: &Snapshot) -> Vec<Resource> {
    let newest = snapshot.offers().filter_map(registry::newest);
    let mut resources: Vec<Resource> = newest
        .map(|candidate| {
            let capability = &candidate.offered.capability;
            let uri = format!("{CAPABILITIES}{}/{}", capability.verb, capability.name);
            Resource::new(uri, &*candidate.offered.id)
                .with_description(capability.description.clone())
                .with_mime_type(MARKDOWN)
        })
        .collect();
    resources.sort_by(|a, b| a.uri.cmp(&b.uri));
    resources
}

/// How the URIs are made.
pub(super) fn template() -> ResourceTemplate {
    ResourceTemplate::new(format!("{CAPABILITIES}{{verb}}/{{name}}"), "capability")
        .with_description("What a capability does, takes, answers, may use and promises")
        .with_mime_type(MARKDOWN)
}

/// The capability whose page a URI names.
pub(super) fn find<'a>(snapshot: &'a Snapshot, uri: &str) -> Option<&'a Candidate> {
    let (verb, name) = uri.strip_prefix(CAPABILITIES)?.split_once('/')?;
    registry::newest(snapshot.names(verb)?.get(name)?)
}

/// What a client reads of a capability.
pub(super) fn contents(candidate: &Candidate, uri: &str) -> ResourceContents {
    ResourceContents::text(page(candidate), uri).with_mime_type(MARKDOWN)
}

/// What is said of a capability.
pub(super) fn page(candidate: &Candidate) -> String {
    let offered = &candidate.offered;
    let capability = &offered.capability;
    let accepts: Vec<String> = capability.accepts.iter().map(ToString::to_string).collect();
    let mut page = format!(
        "# {} {}\n\n{}\n\n* tool: `{}`\n* over HTTP: `POST /invoke/{}/{}`\n* worker: `{}`\n* takes: {}\n* answers: {}\n",
        offered.id,
        capability.version,
        capability.description,
        tool::name(capability),
        capability.verb,
        capability.name,
        capability.worker_id,
        accepts.join(", "),
        capability.produces,
    );
    if let Some(tokens) = capability.cost_tokens {
        line(&mut page, &format!("* cost: {tokens} tokens"));
    }
    section(&mut page, "Input", capability.schemas.input.document());
    section(&mut page, "Output", capability.schemas.output.document());
    if !capability.examples.is_empty() {
        line(&mut page, "\n## Examples\n");
        capability
            .examples
            .iter()
            .for_each(|shown| example(&mut page, shown));
    }
    line(&mut page, &limits(offered));
    if let Some(slo) = capability
        .slo
        .and_then(|slo| serde_json::to_value(slo).ok())
    {
        section(&mut page, "What it promises", &slo);
    }
    page
}

fn line(page: &mut String, text: &str) {
    // Writing to a string cannot fail.
    let _ = writeln!(page, "{text}");
}

fn section(page: &mut String, title: &str, json: &Value) {
    line(page, &format!("\n## {title}\n\n```json\n{json:#}\n```"));
}

/// What an example sends: text where it is text, else how much of what.
fn example(page: &mut String, example: &Example) {
    let media_type = &example.media_type;
    let parameters = example.parameters.iter();
    let parameters: String = parameters
        .map(|(name, value)| format!(", {name}={value}"))
        .collect();
    line(
        page,
        &format!("{} ({media_type}{parameters}):\n", example.title),
    );
    match std::str::from_utf8(&example.body) {
        // A fence that the text itself could not end.
        Ok(text) => line(page, &format!("~~~~~~~~\n{text}\n~~~~~~~~\n")),
        Err(_) => line(page, &format!("{} bytes\n", example.body.len())),
    }
}

/// What one invocation may use, as the host holds it.
fn limits(offered: &Offered) -> String {
    let limits = &offered.limits;
    format!(
        "\n## What one call may use\n\n* wall-clock time: {:?}\n* CPU time: {:?}\n* memory: {} MiB\n* answer: {} KiB",
        limits.wall,
        limits.cpu,
        limits.memory >> 20,
        limits.output >> 10,
    )
}
