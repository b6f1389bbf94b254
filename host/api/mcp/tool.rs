//! A capability as a tool: its name, its schemas, and what a tool's arguments are as an input.
//!
//! Tools take objects and answer objects. A schema that is none is wrapped as `{"value": …}`.

use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use rmcp::model::{JsonObject, Tool, ToolAnnotations};
use serde_json::{Value, json};

use crate::capability::{Capability, MediaType};
use crate::error::{Code, Failure, Fault};
use crate::registry::{self, Candidate, Provider, Snapshot};
use crate::sandbox::Payload;

/// The argument that names the input's media type, where a capability takes several and JSON is none
/// of them.
const MEDIA_TYPE: &str = "media_type";
/// The one member of a wrapped input or output.
const VALUE: &str = "value";

/// Packages with which a worker changes nothing but its own invocation and reaches nobody but its caller.
const POWERLESS: [&str; 9] = [
    "crank:gpu/",
    "crank:worker/events",
    "crank:worker/log",
    "crank:worker/types",
    "wasi:cli/",
    "wasi:clocks/",
    "wasi:filesystem/",
    "wasi:io/",
    "wasi:random/",
];

/// Every tool, ordered by name.
pub(super) fn all(snapshot: &Snapshot) -> Vec<Tool> {
    let mut tools: Vec<Tool> = snapshot
        .offers()
        .filter_map(registry::newest)
        .map(describe)
        .collect();
    tools.sort_by(|a, b| a.name.cmp(&b.name));
    tools
}

/// Who offers the capability that a tool's name stands for.
pub(super) fn find<'a>(snapshot: &'a Snapshot, tool: &str) -> Option<&'a [Candidate]> {
    let (verb, of) = tool.split_once('-').unwrap_or((tool, tool));
    let candidates = snapshot.names(verb)?.get(of)?;
    let capability = &candidates.first()?.offered.capability;
    (name(capability) == tool).then_some(candidates)
}

/// `verb-name`, or the verb alone where both are equal. Neither holds a hyphen.
pub(super) fn name(capability: &Capability) -> String {
    if capability.verb == capability.name {
        return capability.verb.to_string();
    }
    format!("{}-{}", capability.verb, capability.name)
}

/// The tool that a candidate is.
pub(super) fn describe(candidate: &Candidate) -> Tool {
    let capability = &candidate.offered.capability;
    let mut tool = Tool::new(
        name(capability),
        capability.description.clone(),
        input_schema(capability),
    );
    tool.annotations = annotations(candidate);
    if answers_json(capability) {
        let document = capability.schemas.output.document();
        tool.output_schema = Some(Arc::new(match as_object(document) {
            Some(object) => object.clone(),
            None => wrap(document),
        }));
    }
    tool
}

/// Whether a tool's answer is JSON, which is then its structured content.
fn answers_json(capability: &Capability) -> bool {
    // The events of a capability that answers with nothing else come as an array.
    capability.produces.is_json() || capability.produces.is_event_stream()
}

/// JSON as a tool's structured content.
pub(super) fn structure(capability: &Capability, value: Value) -> Value {
    match as_object(capability.schemas.output.document()) {
        Some(_) => value,
        None => json!({ VALUE: value }),
    }
}

/// The schema, if all that it allows are objects and it says so at once: clients look no further.
fn as_object(document: &Value) -> Option<&JsonObject> {
    let object = document.as_object()?;
    (object.get("type")? == "object").then_some(object)
}

/// What is known of a tool's effects: what the worker's author says (`mcp.readOnlyHint` and its kin among
/// the extensions), else what the sandbox proves.
fn annotations(candidate: &Candidate) -> Option<ToolAnnotations> {
    let extensions = &candidate.offered.capability.extensions;
    let said = |hint: &str| extensions.get(&format!("mcp.{hint}"))?.parse::<bool>().ok();
    let is_powerless = match &candidate.provider {
        Provider::Local(worker) => worker
            .imports()
            .iter()
            .all(|import| POWERLESS.iter().any(|package| import.starts_with(package))),
        // Nobody here knows what it can do.
        Provider::Remote(_) => false,
    };
    let mut annotations = ToolAnnotations::new();
    annotations.read_only_hint = said("readOnlyHint").or(is_powerless.then_some(true));
    annotations.open_world_hint = said("openWorldHint").or(is_powerless.then_some(false));
    annotations.destructive_hint = said("destructiveHint");
    annotations.idempotent_hint = said("idempotentHint");
    (annotations != ToolAnnotations::new()).then_some(annotations)
}

/// The media type of JSON that a capability takes, if it takes any.
fn json_type(capability: &Capability) -> Option<&MediaType> {
    capability.accepts.iter().find(|media| media.is_json())
}

fn input_schema(capability: &Capability) -> JsonObject {
    let document = capability.schemas.input.document();
    let Some(object) = as_object(document) else {
        return wrap(document);
    };
    let mut object = object.clone();
    if json_type(capability).is_none()
        && capability.accepts.len() > 1
        && let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut)
    {
        let types: Vec<&str> = capability.accepts.iter().map(MediaType::essence).collect();
        properties.entry(MEDIA_TYPE).or_insert(json!({
            "description": "What the bytes are.",
            "enum": types,
            "default": types.first(),
        }));
    }
    object
}

/// The schema of `{"value": …}`, with references within the schema led to where they now stand.
fn wrap(document: &Value) -> JsonObject {
    let mut value = document.clone();
    retarget(&mut value);
    let dialect = value
        .as_object_mut()
        .and_then(|object| object.remove("$schema"));
    let mut object = JsonObject::new();
    object.extend(dialect.map(|dialect| ("$schema".to_owned(), dialect)));
    object.insert("type".to_owned(), "object".into());
    object.insert("properties".to_owned(), json!({ VALUE: value }));
    object.insert("required".to_owned(), json!([VALUE]));
    object.insert("additionalProperties".to_owned(), false.into());
    object
}

fn retarget(schema: &mut Value) {
    match schema {
        Value::Array(items) => items.iter_mut().for_each(retarget),
        Value::Object(members) => {
            for (name, member) in members {
                match (name.as_str(), &mut *member) {
                    ("$ref" | "$dynamicRef", Value::String(target)) => {
                        let pointer = target.strip_prefix('#');
                        if let Some(rest) = pointer.filter(|p| p.is_empty() || p.starts_with('/')) {
                            *target = format!("#/properties/{VALUE}{rest}");
                        }
                    }
                    _ => retarget(member),
                }
            }
        }
        _ => {}
    }
}

/// A tool's arguments as a capability's input, with the parameters of a raw one.
pub(super) fn input(
    capability: &Capability,
    mut arguments: JsonObject,
) -> Result<(Payload, Vec<(String, String)>), Failure> {
    let Some(json) = json_type(capability) else {
        return raw(capability, arguments);
    };
    let value = match as_object(capability.schemas.input.document()) {
        Some(_) => Value::Object(arguments),
        None => match (arguments.remove(VALUE), arguments.is_empty()) {
            (Some(value), true) => value,
            _ => {
                return Err(fault("", "must have the member \"value\" and no other"));
            }
        },
    };
    let payload = Payload {
        media_type: json.to_string(),
        body: value.to_string().into(),
    };
    Ok((payload, Vec::new()))
}

/// A body that came as base64, and the other arguments as texts, which the router reads by the schema's types.
fn raw(
    capability: &Capability,
    mut arguments: JsonObject,
) -> Result<(Payload, Vec<(String, String)>), Failure> {
    let property = capability.schemas.raw_property().unwrap_or_default();
    let at = format!("/{property}");
    let body = match arguments.remove(property) {
        Some(Value::String(text)) => text,
        _ => return Err(fault(&at, "must be the body's bytes, in base64")),
    };
    let body = BASE64_STANDARD
        .decode(body)
        .map_err(|error| fault(&at, &format!("is not base64: {error}")))?;
    let declared = capability.schemas.input.document();
    let is_own = declared.pointer("/properties/media_type").is_some();
    let named = match arguments.get(MEDIA_TYPE) {
        Some(Value::String(_)) if !is_own => arguments.remove(MEDIA_TYPE),
        _ => None,
    };
    let media_type = match named {
        Some(Value::String(named)) => named,
        _ => capability
            .accepts
            .first()
            .map(ToString::to_string)
            .unwrap_or_default(),
    };
    let mut parameters = Vec::new();
    for (name, value) in arguments {
        let values = match value {
            Value::Array(items) => items,
            Value::Null => Vec::new(),
            one => vec![one],
        };
        parameters.extend(values.into_iter().map(|value| match value {
            Value::String(text) => (name.clone(), text),
            other => (name.clone(), other.to_string()),
        }));
    }
    let body = body.into();
    Ok((Payload { media_type, body }, parameters))
}

fn fault(pointer: &str, detail: &str) -> Failure {
    Failure::new(
        Code::InvalidInput,
        "the arguments do not match the tool's schema",
    )
    .with_faults(vec![Fault {
        pointer: pointer.to_owned(),
        detail: detail.to_owned(),
    }])
}

/// A failure whose faults are places in the arguments, and not in what they were unwrapped to.
pub(super) fn in_arguments(capability: &Capability, mut failure: Failure) -> Failure {
    let is_wrapped = as_object(capability.schemas.input.document()).is_none();
    if is_wrapped && failure.code == Code::InvalidInput {
        for fault in &mut failure.faults {
            fault.pointer.insert_str(0, "/value");
        }
    }
    failure
}
