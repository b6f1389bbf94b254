//! The tools that the MCP conformance suite names, and shapes of input and output that the other workers do
//! not have. For tests.

use crank_worker::{Bytes, Capability, Event, Failure, Payload, Request, Worker, events};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// One red pixel.
const PIXEL: &[u8] = include_bytes!("pixel.png");
/// A hundredth of a second of silence.
const SILENCE: &[u8] = include_bytes!("silence.wav");

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

/// What a template's URI names.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Named {
    id: String,
}

/// Who lives where.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Person {
    /// The name.
    name: Option<String>,
    /// The address.
    address: Option<Address>,
}

#[derive(Deserialize, JsonSchema)]
#[schemars(rename = "address")]
struct Address {
    street: Option<String>,
    city: Option<String>,
}

/// A number, or a tree of them: no object, and it refers to itself.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
enum Tree {
    Leaf(i64),
    Branches(Vec<Tree>),
}

/// Bytes that are measured.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Measured {
    /// The bytes.
    document: Bytes,
    /// How often they are counted.
    times: u32,
    /// What is said with the count.
    words: Option<Vec<String>>,
}

#[derive(Serialize, JsonSchema)]
struct Measure {
    bytes: usize,
    words: Vec<String>,
    parameters: usize,
}

fn payload(media_type: &str, body: &[u8]) -> Result<Payload, Failure> {
    Ok(Payload {
        media_type: media_type.into(),
        body: body.into(),
    })
}

fn simple_text(_: Nothing) -> Result<Payload, Failure> {
    payload("text/plain", b"This is a simple text response for testing.")
}

fn image(_: Nothing) -> Result<Payload, Failure> {
    payload("image/png", PIXEL)
}

fn audio(_: Nothing) -> Result<Payload, Failure> {
    payload("audio/wav", SILENCE)
}

fn resource(_: Nothing) -> Result<Payload, Failure> {
    payload("application/octet-stream", &[0, 159, 146, 150])
}

fn error(_: Nothing) -> Result<Payload, Failure> {
    Err(Failure::failed(
        "This tool intentionally returns an error for testing",
    ))
}

fn progress(_: Nothing) -> Result<Payload, Failure> {
    for percent in ["0", "50", "100"] {
        // A client that is gone is none of this worker's business.
        let _ = events::send(Event::new("percent", percent));
    }
    payload("text/plain", b"All done.")
}

fn named(input: Named) -> Result<String, Failure> {
    Ok(format!("Data for ID: {}", input.id))
}

fn person(input: Person) -> Result<String, Failure> {
    let address = input.address;
    let parts = address.map(|address| [address.street, address.city]);
    let words: Vec<String> = parts
        .into_iter()
        .flatten()
        .flatten()
        .chain(input.name)
        .collect();
    Ok(words.join(", "))
}

fn sum(tree: Tree) -> Result<i64, Failure> {
    match tree {
        Tree::Leaf(13) => Err(Failure::invalid_input("", "not this one")),
        Tree::Leaf(number) => Ok(number),
        Tree::Branches(trees) => trees.into_iter().map(sum).sum(),
    }
}

fn measure(input: Measured, request: &Request) -> Result<Measure, Failure> {
    Ok(Measure {
        bytes: input.document.len() * input.times as usize,
        words: input.words.unwrap_or_default(),
        parameters: request.parameters.len(),
    })
}

fn conformance() -> Worker {
    Worker::new("worker-mcp-conformance")
        .offers(tool("test_simple_text", simple_text).produces("text/plain"))
        .offers(tool("test_image_content", image).produces("image/png"))
        .offers(tool("test_audio_content", audio).produces("audio/wav"))
        .offers(tool("test_embedded_resource", resource).produces("application/octet-stream"))
        .offers(tool("test_error_handling", error).produces("text/plain"))
        .offers(tool("test_tool_with_progress", progress).produces("text/plain"))
        .offers(tool("json_schema_2020_12_tool", person))
        .offers(
            readable("static_text", simple_text)
                .produces("text/plain")
                .extensions(&[("mcp.resource", "test://static-text")]),
        )
        .offers(
            readable("watched", simple_text)
                .produces("text/plain")
                .extensions(&[("mcp.resource", "test://watched-resource")]),
        )
        .offers(
            readable("static_binary", image)
                .produces("image/png")
                .extensions(&[("mcp.resource", "test://static-binary")]),
        )
        .offers(
            readable("template", named)
                .extensions(&[("mcp.resource", "test://template/{id}/data")]),
        )
        .offers(
            Capability::new("sum", "tree", "1.0.0", sum)
                .description("Adds up a tree of numbers.")
                .extensions(&[("mcp.idempotentHint", "true")]),
        )
        .offers(
            Capability::new("measure", "bytes", "1.0.0", measure)
                .description("Counts bytes that come as they are and never as JSON.")
                .accepts(&["image/png", "audio/wav"]),
        )
}

/// A tool that is named by its verb alone.
fn tool<A, F: crank_worker::Function<A>>(name: &'static str, function: F) -> Capability {
    Capability::new(name, name, "1.0.0", function)
        .description("What the conformance suite asks for.")
}

/// A capability that is a resource too.
fn readable<A, F: crank_worker::Function<A>>(name: &'static str, function: F) -> Capability {
    Capability::new("read", name, "1.0.0", function)
        .description("What the conformance suite reads.")
}

crank_worker::worker!(conformance);
