//! A worker as its author and the host see it.

use crank_worker::{Bytes, Capability, Failure, FailureKind, Payload, Request, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    picture: Bytes,
    width: Option<u32>,
    #[serde(default)]
    scale: f64,
    #[serde(default)]
    grey: bool,
    #[serde(default)]
    fit: Option<Fit>,
    #[serde(default)]
    tags: Vec<u8>,
    #[serde(default)]
    title: String,
}

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Fit {
    /// As large as possible.
    Inside,
    Outside,
}

#[derive(Serialize, JsonSchema)]
struct Output {
    seen: String,
    thumbnail: Bytes,
}

fn describe(input: Input, request: &Request) -> Result<Output, Failure> {
    let Input {
        picture,
        width,
        scale,
        grey,
        fit,
        tags,
        title,
    } = input;
    let seen = format!(
        "{width:?} {scale} {grey} {fit:?} {tags:?} {title:?} {:?}",
        request.caller
    );
    Ok(Output {
        seen,
        thumbnail: picture,
    })
}

fn copy(input: Input) -> Result<Payload, Failure> {
    Ok(Payload {
        media_type: "image/png".into(),
        body: input.picture.0,
    })
}

fn worker() -> Worker {
    Worker::new("worker-pictures")
        .offers(Capability::new("describe", "picture", "1.0.0", describe))
        .offers(Capability::new("copy", "picture", "1.0.0", copy).produces("image/png"))
}

crank_worker::worker!(worker);

fn call(
    capability: &str,
    media_type: &str,
    body: &[u8],
    parameters: &[(&str, &str)],
) -> Result<Payload, Failure> {
    let request = Request {
        capability: capability.into(),
        parameters: parameters
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()))
            .collect(),
        caller: Some("spiffe://crank.local/me".into()),
        ..Request::default()
    };
    worker().handle(
        &request,
        Payload {
            media_type: media_type.into(),
            body: body.into(),
        },
    )
}

fn json(answer: Payload) -> Value {
    assert_eq!(answer.media_type, "application/json");
    serde_json::from_slice(&answer.body).unwrap()
}

#[test]
fn a_raw_body_and_parameters_are_the_same_input_as_json() {
    let body = json!({
        "picture": "iVBO", "width": 30, "scale": 0.5, "grey": true, "fit": "inside", "tags": [1, 2], "title": "12",
    });
    let from_json = call(
        "describe:picture",
        "application/json; charset=utf-8",
        body.to_string().as_bytes(),
        &[],
    );
    let from_raw = call(
        "describe:picture",
        "image/png",
        b"\x89PN",
        &[
            ("width", "30"),
            ("scale", "0.5"),
            ("grey", "true"),
            ("fit", "inside"),
            ("tags", "1"),
            ("tags", "2"),
            ("title", "12"),
        ],
    );
    let expected = json!({
        "seen": r#"Some(30) 0.5 true Some(Inside) [1, 2] "12" Some("spiffe://crank.local/me")"#,
        "thumbnail": "iVBO",
    });
    assert_eq!(json(from_json.unwrap()), expected);
    assert_eq!(json(from_raw.unwrap()), expected);
}

#[test]
fn a_parameter_that_does_not_fit_is_invalid_input() {
    for parameters in [
        [("width", "wide")],
        [("colour", "red")],
        [("fit", "sideways")],
    ] {
        let failure = call("describe:picture", "image/png", b"", &parameters).unwrap_err();
        assert_eq!(failure.kind, FailureKind::InvalidInput, "{parameters:?}");
    }
}

#[test]
fn bytes_are_not_read_from_text_that_is_not_base64() {
    let failure = call(
        "describe:picture",
        "application/json",
        br#"{"picture": "no!"}"#,
        &[],
    )
    .unwrap_err();
    assert!(
        failure.message.starts_with("not base64"),
        "{}",
        failure.message
    );
}

#[test]
fn a_payload_is_sent_as_it_is() {
    let answer = call("copy:picture", "image/png", b"\x89PNG", &[]).unwrap();
    assert_eq!(
        (answer.media_type.as_str(), answer.body.as_slice()),
        ("image/png", b"\x89PNG".as_slice())
    );
}

#[test]
fn a_capability_that_is_not_offered_is_not_found() {
    let failure = call("eat:picture", "image/png", b"", &[]).unwrap_err();
    assert_eq!(failure.kind, FailureKind::NotFound);
}

#[test]
fn failures_carry_what_their_kind_allows() {
    let failure =
        Failure::unavailable(std::time::Duration::from_secs(2), "the queue is full").code("full");
    assert_eq!(
        (failure.retry_after_ms, failure.pointer),
        (Some(2000), None)
    );
    assert_eq!(failure.code.as_deref(), Some("full"));
    assert_eq!(
        Failure::invalid_input("/a", "no").pointer.as_deref(),
        Some("/a")
    );
}
