//! A call that another machine answers: the same checks as for a component, no admission.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::{Answer, Call, Router, check, ran};
use crate::error::{Code, Failure};
use crate::idempotency::Claim;
use crate::limits::Usage;
use crate::remote::{Forward, Remote, Unanswered};
use crate::sandbox::Payload;
use crate::telemetry::{Recording, Temperature};

impl Router {
    /// Checks, forwards and checks, all before one deadline. It takes no slot of this host: whoever runs it
    /// is elsewhere, and two hosts that wait for each other's slots would wait for ever.
    pub(super) async fn forward(
        &self,
        remote: &Arc<Remote>,
        call: &Call,
        claim: Option<&Claim>,
        deadline: Instant,
        recording: &mut Recording<'_>,
    ) -> Result<Answer, Unanswered> {
        let offered = remote.offered();
        let checks = &self.shared.checks;
        let (input, parameters) = (&call.input, &call.parameters);
        let checked = check::input(checks, offered, input, parameters, deadline).await;
        checked.map_err(here)?;
        let remotes = self.registry().remotes();
        let path = remotes.onward(&call.path).map_err(here)?;
        if let Some(claim) = claim {
            let by = ran(remote.worker_id(), offered);
            let started = claim.start(by, remote.is_idempotent()).await;
            started.map_err(here)?;
        }
        remotes.note_call();
        recording.started(Temperature::Fresh, Duration::ZERO);
        let traceparent = recording.traceparent();
        let sent = Instant::now();
        let forward = Forward {
            request_id: &call.request_id,
            input: &call.input,
            parameters: &call.parameters,
            caller: call.caller.as_deref(),
            origin: call.origin(),
            deadline,
            traceparent: traceparent.as_deref().or(call.traceparent.as_deref()),
            path: &path,
            key: claim.map(|claim| claim.scope().as_str()),
        };
        let output = match remote.call(forward).await {
            Ok(output) => output,
            Err(unanswered) => {
                // Nobody there has seen the call.
                if let Some(claim) = claim.filter(|_| unanswered.untouched) {
                    claim.untouched();
                }
                return Err(unanswered);
            }
        };
        let payload = if offered.capability.produces.is_event_stream() {
            events(output).map_err(here)?
        } else {
            let checked = check::output(checks, offered, output, deadline).await;
            checked.map_err(here)?
        };
        let usage = Usage {
            run: sent.elapsed(),
            sent: payload.body.len() as u64,
            ..Usage::default()
        };
        recording.used(usage);
        Ok(Answer {
            payload,
            worker_id: remote.worker_id().clone().into(),
            cold: Temperature::Fresh,
            queue: Duration::ZERO,
            usage,
            explanation: None,
            replayed: false,
        })
    }
}

/// A failure that another worker could not mend.
fn here(failure: Failure) -> Unanswered {
    Unanswered {
        failure,
        elsewhere: false,
        untouched: false,
    }
}

/// Events come from another host as it gives them to who reads no stream: as an array, at the end.
fn events(output: Payload) -> Result<Payload, Failure> {
    match serde_json::from_slice::<Vec<serde::de::IgnoredAny>>(&output.body) {
        Ok(_) => Ok(output),
        Err(error) => {
            let message = "the remote worker promised events, and answered no array of them";
            Err(Failure::new(Code::InvalidOutput, message).with_cause(error))
        }
    }
}
