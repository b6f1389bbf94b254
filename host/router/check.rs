//! Inputs and outputs against the capability's schemas, which were compiled at load.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use serde_json::Value;
use tokio::sync::Semaphore;
use tokio::time::error::Elapsed;
use tokio::time::timeout_at;

use crate::capability::{MediaType, Schema, Schemas};
use crate::error::{Code, Failure};
use crate::sandbox::Payload;
use crate::worker::Offered;

/// Whether the capability accepts the input.
pub async fn input(
    turns: &Semaphore,
    offered: &Arc<Offered>,
    input: &Payload,
    parameters: &[(String, String)],
    deadline: Instant,
) -> Result<(), Failure> {
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
        return capability
            .schemas
            .validate_raw(parameters)
            .map_err(|faults| {
                Failure::new(Code::InvalidInput, "the parameters do not match the schema")
                    .with_faults(faults)
            });
    }
    if let Some((name, _)) = parameters.first() {
        return Err(Failure::new(
            Code::InvalidRequest,
            format!(
                "query parameter `{name}` with a JSON body; parameters go with raw bodies, JSON holds them itself"
            ),
        ));
    }
    let schema: fn(&Schemas) -> &Schema = |schemas| &schemas.input;
    json(
        turns,
        offered,
        schema,
        &input.body,
        deadline,
        |schema, body| {
            let value = serde_json::from_slice::<Value>(body).map_err(|error| {
                Failure::new(
                    Code::InvalidRequest,
                    format!("the body is not JSON: {error}"),
                )
            })?;
            schema.validate(&value).map_err(|faults| {
                Failure::new(Code::InvalidInput, "the input does not match the schema")
                    .with_faults(faults)
            })
        },
    )
    .await
}

/// The output, if it is what the capability promises.
pub async fn output(
    turns: &Semaphore,
    offered: &Arc<Offered>,
    output: Payload,
    deadline: Instant,
) -> Result<Payload, Failure> {
    let produces = &offered.capability.produces;
    let kept =
        MediaType::parse(&output.media_type).is_ok_and(|answered| produces.matches(&answered));
    if !kept {
        return Err(Failure::new(
            Code::InvalidOutput,
            format!("the worker promised {produces} and answered another media type"),
        ));
    }
    if produces.is_event_stream() && !output.body.is_empty() {
        return Err(Failure::new(
            Code::InvalidOutput,
            format!("what produces {produces} answers with events, and the worker with a body"),
        ));
    }
    if produces.is_json() {
        let schema: fn(&Schemas) -> &Schema = |schemas| &schemas.output;
        json(
            turns,
            offered,
            schema,
            &output.body,
            deadline,
            |schema, body| {
                let value = serde_json::from_slice::<Value>(body).map_err(|error| {
                    Failure::new(Code::InvalidOutput, "the worker's answer is not JSON")
                        .with_cause(error)
                })?;
                schema.validate(&value).map_err(|faults| {
                    Failure::new(
                        Code::InvalidOutput,
                        "the worker's answer does not match its own schema",
                    )
                    .with_faults(faults)
                })
            },
        )
        .await?;
    }
    Ok(output)
}

/// Runs a check of a body here if that is quick, else on a thread where it may take its time. Of the
/// latter only as many at once as there are turns: each may hold many times the body's size.
async fn json(
    turns: &Semaphore,
    offered: &Arc<Offered>,
    schema: fn(&Schemas) -> &Schema,
    body: &Bytes,
    deadline: Instant,
    check: fn(&Schema, &[u8]) -> Result<(), Failure>,
) -> Result<(), Failure> {
    if schema(&offered.capability.schemas).is_quick(body.len()) {
        return check(schema(&offered.capability.schemas), body);
    }
    // Boxed, so that a call whose bodies are small does not carry the room for it.
    let slow = Box::pin(async {
        let _turn = turns.acquire().await.map_err(Failure::internal)?;
        let (offered, body) = (offered.clone(), body.clone());
        tokio::task::spawn_blocking(move || check(schema(&offered.capability.schemas), &body))
            .await
            .unwrap_or_else(|panic| Err(Failure::internal(panic)))
    });
    timeout_at(deadline.into(), slow).await.map_err(late)?
}

fn late(_: Elapsed) -> Failure {
    Failure::new(
        Code::Deadline,
        "the deadline passed while a body was being checked",
    )
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
