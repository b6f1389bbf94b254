//! What makes a capability of a plain function.

use std::time::Duration;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, json_schema};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, Payload, raw};

/// What a function may know of its request, apart from the input: it takes `&Request` as its second
/// argument, if it wants to.
#[derive(Clone, Debug, Default)]
pub struct Request {
    /// The request's id, unique on the host; the same in logs and in `Crank-Request-Id`.
    pub id: String,
    /// `verb:name` of the capability that is asked for.
    pub capability: String,
    /// Query parameters of a raw input, in order, as text. They are in the input already.
    pub parameters: Vec<(String, String)>,
    /// SPIFFE id of who calls; absent where the host has no identities configured.
    pub caller: Option<String>,
    /// What was left at the start until the host ends this invocation.
    pub deadline: Duration,
    /// What travels along: `traceparent`, `idempotency-key`, `origin`.
    pub context: Vec<(String, String)>,
}

/// A function that can be a capability: `fn(Input) -> Result<Output, Failure>`, with `&Request` as a
/// second argument or without. `Arguments` only tells the two apart; no one names it.
pub trait Function<Arguments>: 'static {
    /// Comes from JSON, or from a raw body and query parameters.
    type Input: DeserializeOwned + JsonSchema;
    /// Becomes the answer.
    type Output: Output;

    /// Calls the function.
    fn call(&self, input: Self::Input, request: &Request) -> Result<Self::Output, Failure>;
}

impl<F, I, O> Function<(I,)> for F
where
    F: Fn(I) -> Result<O, Failure> + 'static,
    I: DeserializeOwned + JsonSchema,
    O: Output,
{
    type Input = I;
    type Output = O;

    fn call(&self, input: I, _: &Request) -> Result<O, Failure> {
        self(input)
    }
}

impl<F, I, O> Function<(I, &Request)> for F
where
    F: Fn(I, &Request) -> Result<O, Failure> + 'static,
    I: DeserializeOwned + JsonSchema,
    O: Output,
{
    type Input = I;
    type Output = O;

    fn call(&self, input: I, request: &Request) -> Result<O, Failure> {
        self(input, request)
    }
}

/// What a function may return: a type that `serde` can write and `schemars` can describe, which is
/// sent as JSON; or a [`Payload`], which is sent as it is, for capabilities that
/// [produce](crate::Capability::produces) another media type.
pub trait Output {
    /// The output's schema.
    fn schema() -> Schema;

    /// The answer's body.
    fn into_payload(self) -> Result<Payload, Failure>;
}

impl<T: Serialize + JsonSchema> Output for T {
    fn schema() -> Schema {
        SchemaSettings::draft2020_12()
            .for_serialize()
            .into_generator()
            .into_root_schema_for::<T>()
    }

    fn into_payload(self) -> Result<Payload, Failure> {
        match serde_json::to_vec(&self) {
            Ok(body) => Ok(Payload {
                media_type: JSON.into(),
                body,
            }),
            Err(error) => Err(Failure::failed(format!(
                "the answer cannot be written as JSON: {error}"
            ))),
        }
    }
}

impl Output for Payload {
    fn schema() -> Schema {
        json_schema!({})
    }

    fn into_payload(self) -> Result<Payload, Failure> {
        Ok(self)
    }
}

/// The media type of JSON.
pub(crate) const JSON: &str = "application/json";

/// The schema of an input.
pub(crate) fn input_schema<T: JsonSchema>() -> Schema {
    SchemaSettings::draft2020_12()
        .for_deserialize()
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Reads a request's input: JSON, or a raw body with parameters.
pub(crate) fn read<T: DeserializeOwned + JsonSchema>(
    request: &Request,
    input: Payload,
) -> Result<T, Failure> {
    let read = if is_json(&input.media_type) {
        serde_json::from_slice(&input.body)
    } else {
        raw::read(&input_schema::<T>(), input.body, &request.parameters)
    };
    read.map_err(|error| Failure::invalid_input("", error.to_string()))
}

/// Whether a media type is JSON: `application/json` or a type with the suffix `+json` (RFC 6839).
fn is_json(media_type: &str) -> bool {
    let essence = media_type
        .split(';')
        .next()
        .unwrap_or_default()
        .trim_ascii()
        .to_ascii_lowercase();
    essence == JSON || essence.ends_with("+json")
}
