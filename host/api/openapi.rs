//! `GET /openapi.json`: this host's interface as an OpenAPI 3.1 document, with a path for each capability that
//! its caller may call now; and `GET /docs`, the page that shows it, out of this binary.
//!
//! What is the same on every host stands in `openapi/base.json`; what capabilities add is made here.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};

use axum::extract::{Path, Request, State};
use axum::http::HeaderValue;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Redirect, Response};
use serde_json::{Map, Value, json};
use utoipa_swagger_ui::Config;

use super::caller;
use super::problem::{self, Refusal};
use super::routes::Shared;
use crate::capability::{Capability, Example, MediaType};
use crate::error::{Code, Failure};
use crate::registry::{self, Snapshot};

/// Everything but the capabilities. A test holds that it names each route.
const BASE: &str = include_str!("openapi/base.json");

/// Of each answer of a worker.
const HEADERS: [&str; 5] = [
    "Crank-Worker",
    "Crank-Request-Id",
    "Crank-Cold",
    "Server-Timing",
    "Idempotency-Replayed",
];

/// Scripts and styles of this host alone; the page's own pictures are data.
const PAGE_POLICY: &str = "default-src 'self'; img-src 'self' data:; style-src 'self' 'unsafe-inline'; frame-ancestors 'none'";

static PAGE: LazyLock<Arc<Config<'static>>> = LazyLock::new(|| {
    let config = Config::from("/openapi.json").validator_url("none");
    Arc::new(config.try_it_out_enabled(true))
});

pub(super) async fn document(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = caller::id(request.extensions());
    let snapshot = shared.router.shown(caller.as_deref()).await?;
    let document = of(&snapshot).map_err(Failure::internal)?;
    Ok(axum::Json(document).into_response())
}

/// The page is at `/docs/`, so that what it loads is beside it.
pub(super) async fn page() -> Redirect {
    Redirect::permanent("/docs/")
}

pub(super) async fn index() -> Result<Response, Refusal> {
    file("index.html")
}

pub(super) async fn asset(Path(path): Path<String>) -> Result<Response, Refusal> {
    file(&path)
}

fn file(path: &str) -> Result<Response, Refusal> {
    let file = utoipa_swagger_ui::serve(path, PAGE.clone())
        .map_err(|error| Failure::internal(error.to_string()))?
        .ok_or_else(|| Failure::new(Code::NotFound, "the documentation has no such file"))?;
    let mut response = file.bytes.into_owned().into_response();
    let headers = response.headers_mut();
    if let Ok(content_type) = HeaderValue::from_str(&file.content_type) {
        headers.insert(CONTENT_TYPE, content_type);
    }
    headers.insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(PAGE_POLICY),
    );
    Ok(response)
}

/// The document of what a snapshot offers.
fn of(snapshot: &Snapshot) -> serde_json::Result<Value> {
    let mut document: Value = serde_json::from_str(BASE)?;
    document["info"]["version"] = json!(env!("CARGO_PKG_VERSION"));
    document["components"]["schemas"]["Problem"]["properties"]["code"]["enum"] =
        Code::ALL.map(Code::as_str).to_vec().into();
    let mut paths = Map::new();
    let mut schemas = Map::new();
    let mut verbs: BTreeMap<&str, Vec<&Capability>> = BTreeMap::new();
    for capability in newest(snapshot).into_values() {
        verbs
            .entry(capability.verb.as_str())
            .or_default()
            .push(capability);
        let operation = operation(capability, &capability.key());
        paths.insert(path(capability), json!({ "post": operation }));
        for (side, schema) in [
            ("input", &capability.schemas.input),
            ("output", &capability.schemas.output),
        ] {
            let name = component(capability, side);
            let mut schema = schema.document().clone();
            point_into(&mut schema, &name);
            schemas.insert(name, schema);
        }
    }
    for (verb, names) in verbs {
        // With several names it depends on the input, or is ambiguous; `info.description` says so.
        if let [only] = &names[..] {
            let operation = operation(only, verb);
            paths.insert(format!("/invoke/{verb}"), json!({ "post": operation }));
        }
    }
    let failures = failures();
    for item in paths.values_mut() {
        add(&mut item["post"]["responses"], failures.clone());
    }
    add(&mut document["paths"], paths);
    add(&mut document["components"]["schemas"], schemas);
    Ok(document)
}

/// Of each capability the version that answers who names none, in the order of their names.
fn newest(snapshot: &Snapshot) -> BTreeMap<String, &Capability> {
    let newest = snapshot.offers().filter_map(registry::newest);
    let capabilities = newest.map(|candidate| &candidate.offered.capability);
    capabilities
        .map(|capability| (capability.key(), capability))
        .collect()
}

fn path(capability: &Capability) -> String {
    format!("/invoke/{}/{}", capability.verb, capability.name)
}

fn component(capability: &Capability, side: &str) -> String {
    format!("{}.{}.{side}", capability.verb, capability.name)
}

fn operation(capability: &Capability, id: &str) -> Value {
    let mut description = capability.description.clone();
    description.push_str(&format!(
        "\n\nVersion {} of worker `{}`.",
        capability.version, capability.worker_id
    ));
    if let Some(slo) = &capability.slo {
        description.push_str(&format!(" Promises: `{}`.", json!(slo)));
    }
    if let Some(cost) = capability.cost_tokens {
        description.push_str(&format!(" Costs {cost} tokens."));
    }
    let mut parameters = vec![
        json!({ "$ref": "#/components/parameters/version" }),
        json!({ "$ref": "#/components/parameters/timeout" }),
        json!({ "$ref": "#/components/parameters/max_cost" }),
        json!({ "$ref": "#/components/parameters/explain" }),
        json!({ "$ref": "#/components/parameters/traceparent" }),
        json!({ "$ref": "#/components/parameters/idempotency_key" }),
    ];
    let raw = capability.schemas.raw_property();
    let takes_json = capability.accepts.iter().any(MediaType::is_json);
    if let (Some(property), false) = (raw, takes_json) {
        parameters.extend(query(capability, property));
    } else if let Some(property) = raw {
        description.push_str(&format!(
            "\n\nA body that is not JSON stands for the property `{property}`; the others are then query parameters."
        ));
    }
    let body: Map<String, Value> = capability
        .accepts
        .iter()
        .map(|accepted| (accepted.to_string(), body(capability, accepted)))
        .collect();
    json!({
        "operationId": id.replace(':', "."),
        "tags": [capability.verb.as_str()],
        "summary": id,
        "description": description,
        "parameters": parameters,
        "requestBody": { "required": true, "content": body },
        "responses": { "200": answer(capability) },
    })
}

/// One media type of a capability's input, with the examples that its worker declares.
fn body(capability: &Capability, accepted: &MediaType) -> Value {
    let mut body = Map::new();
    if accepted.is_json() {
        let schema = format!("#/components/schemas/{}", component(capability, "input"));
        body.insert("schema".to_owned(), json!({ "$ref": schema }));
    } else {
        body.insert("schema".to_owned(), json!({}));
    }
    let of_this_type = |example: &&Example| example.media_type.matches(accepted);
    let examples: Map<String, Value> = capability
        .examples
        .iter()
        .filter(of_this_type)
        .enumerate()
        .filter_map(|(at, example)| {
            let value: Value = serde_json::from_slice(&example.body).ok()?;
            let example = json!({ "summary": example.title, "value": value });
            Some((format!("example-{}", at + 1), example))
        })
        .collect();
    if !examples.is_empty() {
        body.insert("examples".to_owned(), examples.into());
    }
    body.into()
}

/// The properties beside the body, as query parameters.
fn query(capability: &Capability, body: &str) -> Vec<Value> {
    let schema = capability.schemas.input.document();
    let required = |name: &str| {
        let mut names = schema["required"].as_array().into_iter().flatten();
        names.any(|required| required == name)
    };
    let properties = schema["properties"].as_object().into_iter().flatten();
    let beside = properties.filter(|(name, _)| *name != body);
    beside
        .map(|(name, _)| {
            let pointer = name.replace('~', "~0").replace('/', "~1");
            let schema = format!(
                "#/components/schemas/{}/properties/{pointer}",
                component(capability, "input")
            );
            json!({
                "name": name, "in": "query", "required": required(name),
                "schema": { "$ref": schema },
            })
        })
        .collect()
}

fn answer(capability: &Capability) -> Value {
    let mut content = Map::new();
    if capability.produces.is_json() {
        let schema = format!("#/components/schemas/{}", component(capability, "output"));
        content.insert(
            capability.produces.to_string(),
            json!({ "schema": { "$ref": schema } }),
        );
    } else if capability.produces.is_event_stream() {
        content.insert(
            "application/json".to_owned(),
            json!({ "schema": { "type": "array" } }),
        );
    } else {
        content.insert(capability.produces.to_string(), json!({ "schema": {} }));
    }
    content.insert(
        "text/event-stream".to_owned(),
        json!({ "schema": { "type": "string" } }),
    );
    json!({
        "description": "The worker's answer. Who names `text/event-stream` in `Accept` gets its events first.",
        "headers": HEADERS.map(|name| (name, json!({ "$ref": format!("#/components/headers/{name}") })))
            .into_iter().collect::<BTreeMap<_, _>>(),
        "content": content,
    })
}

/// A response for each status that a failure can have, with the codes behind it.
fn failures() -> Map<String, Value> {
    let mut codes: BTreeMap<u16, Vec<&str>> = BTreeMap::new();
    for code in Code::ALL {
        codes
            .entry(problem::status(code).as_u16())
            .or_default()
            .push(code.as_str());
    }
    let response = |codes: Vec<&str>| {
        json!({
            "description": format!("`{}`", codes.join("`, `")),
            "content": { "application/problem+json": { "schema": { "$ref": "#/components/schemas/Problem" } } },
        })
    };
    codes
        .into_iter()
        .map(|(status, codes)| (status.to_string(), response(codes)))
        .collect()
}

/// Makes the references of a schema hold where it now stands: they point from the document's root.
fn point_into(schema: &mut Value, component: &str) {
    match schema {
        Value::Object(object) => {
            for (key, value) in object {
                match (key.as_str(), value) {
                    ("$ref", Value::String(reference)) => {
                        // A name (`#anchor`) is found wherever it stands.
                        let pointer = reference
                            .strip_prefix('#')
                            .filter(|rest| rest.is_empty() || rest.starts_with('/'));
                        if let Some(pointer) = pointer {
                            *reference = format!("#/components/schemas/{component}{pointer}");
                        }
                    }
                    // Names of the author's own choice, each with a schema.
                    (
                        "properties" | "patternProperties" | "$defs" | "dependentSchemas",
                        Value::Object(named),
                    ) => {
                        named
                            .values_mut()
                            .for_each(|schema| point_into(schema, component));
                    }
                    // Data, and no schema.
                    ("const" | "enum" | "examples" | "default", _) => {}
                    (_, value) => point_into(value, component),
                }
            }
        }
        Value::Array(items) => items
            .iter_mut()
            .for_each(|item| point_into(item, component)),
        _ => {}
    }
}

fn add(object: &mut Value, entries: Map<String, Value>) {
    if let Some(object) = object.as_object_mut() {
        object.extend(entries);
    }
}
