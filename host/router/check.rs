//! Inputs and outputs against the capability's schemas, which were compiled at load.

use std::sync::Arc;

use bytes::Bytes;
use serde_json::Value;

use crate::capability::MediaType;
use crate::error::{Code, Failure};
use crate::sandbox::Payload;
use crate::worker::Offered;

/// Bodies beyond this many bytes are parsed and checked on a thread of their own, so that a large one
/// does not keep the small ones waiting.
const INLINE: usize = 128 << 10;

/// The input, if the capability accepts it.
pub async fn input(
    offered: &Arc<Offered>,
    input: Payload,
    parameters: &[(String, String)],
) -> Result<Payload, Failure> {
    let capability = &offered.capability;
    let media_type = MediaType::parse(&input.media_type)
        .map_err(|error| Failure::new(Code::InvalidRequest, format!("content-type {error}")))?;
    if !capability
        .accepts
        .iter()
        .any(|accepted| accepted.matches(&media_type))
    {
        return Err(unsupported(offered, &media_type));
    }
    if !media_type.is_json() {
        capability
            .schemas
            .validate_raw(parameters)
            .map_err(|faults| {
                Failure::new(Code::InvalidInput, "the parameters do not match the schema")
                    .with_faults(faults)
            })?;
        return Ok(input);
    }
    if let Some((name, _)) = parameters.first() {
        return Err(Failure::new(
            Code::InvalidRequest,
            format!(
                "query parameter `{name}` with a JSON body; parameters go with raw bodies, JSON holds them itself"
            ),
        ));
    }
    json(offered, &input.body, |offered, body| {
        let value = serde_json::from_slice::<Value>(body).map_err(|error| {
            Failure::new(
                Code::InvalidRequest,
                format!("the body is not JSON: {error}"),
            )
        })?;
        offered
            .capability
            .schemas
            .input
            .validate(&value)
            .map_err(|faults| {
                Failure::new(Code::InvalidInput, "the input does not match the schema")
                    .with_faults(faults)
            })
    })
    .await?;
    Ok(input)
}

/// The output, if it is what the capability promises.
pub async fn output(offered: &Arc<Offered>, output: Payload) -> Result<Payload, Failure> {
    let produces = &offered.capability.produces;
    let kept =
        MediaType::parse(&output.media_type).is_ok_and(|answered| produces.matches(&answered));
    if !kept {
        return Err(Failure::new(
            Code::InvalidOutput,
            format!("the worker promised {produces} and answered another media type"),
        ));
    }
    if produces.is_json() {
        json(offered, &output.body, |offered, body| {
            let value = serde_json::from_slice::<Value>(body).map_err(|error| {
                Failure::new(Code::InvalidOutput, "the worker's answer is not JSON")
                    .with_cause(error)
            })?;
            offered
                .capability
                .schemas
                .output
                .validate(&value)
                .map_err(|faults| {
                    Failure::new(
                        Code::InvalidOutput,
                        "the worker's answer does not match its own schema",
                    )
                    .with_faults(faults)
                })
        })
        .await?;
    }
    Ok(output)
}

/// Runs a check of a body here if that is quick, else where it may take its time.
async fn json(
    offered: &Arc<Offered>,
    body: &Bytes,
    check: fn(&Offered, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if body.len() <= INLINE {
        return check(offered, body);
    }
    let (offered, body) = (offered.clone(), body.clone());
    tokio::task::spawn_blocking(move || check(&offered, &body))
        .await
        .unwrap_or_else(|panic| Err(Failure::internal(panic)))
}

fn unsupported(offered: &Offered, got: &MediaType) -> Failure {
    let accepted: Vec<&str> = offered
        .capability
        .accepts
        .iter()
        .map(MediaType::essence)
        .collect();
    Failure::new(
        Code::UnsupportedMediaType,
        format!(
            "{} takes {}, not {}",
            offered.id,
            accepted.join(" or "),
            got.essence()
        ),
    )
}
