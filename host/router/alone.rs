//! A verb without a name: the name whose schema accepts the input.

use std::collections::BTreeMap;
use std::time::Instant;

use super::{Call, Router, check};
use crate::error::{Code, Failure, Fault};
use crate::registry::Candidate;

/// Names that a refusal lists with their reasons.
const LISTED: usize = 32;
/// Bytes of one reason.
const REASON: usize = 200;

impl Router {
    /// Who offers the one name under a verb that takes this input.
    pub(super) async fn by_input<'a>(
        &self,
        names: &'a BTreeMap<String, Vec<Candidate>>,
        call: &Call,
        began: Instant,
    ) -> Result<&'a [Candidate], Failure> {
        if names.len() == 1 {
            return Ok(names.values().next().map_or(&[], Vec::as_slice));
        }
        let mut fit: Vec<(&str, &[Candidate])> = Vec::new();
        let mut unfit = Vec::new();
        for (name, candidates) in names {
            match self.accepts(candidates, call, began).await {
                Ok(()) => fit.push((name, candidates)),
                // No name would take what is malformed, or has no time left.
                Err(failure) if matches!(failure.code, Code::InvalidRequest | Code::Deadline) => {
                    return Err(failure);
                }
                Err(failure) => unfit.push((name.as_str(), failure)),
            }
        }
        match fit.as_slice() {
            [(_, candidates)] => Ok(candidates),
            [] => Err(nobody(&call.verb, &unfit)),
            several => {
                let several: Vec<&str> = several.iter().map(|(name, _)| *name).collect();
                Err(ambiguous(&call.verb, &several))
            }
        }
    }

    /// Whether the one of these that would be chosen takes the input.
    async fn accepts(
        &self,
        candidates: &[Candidate],
        call: &Call,
        began: Instant,
    ) -> Result<(), Failure> {
        let offered = &self.pick(candidates, call, began).await?.offered;
        let (input, parameters) = (&call.input, &call.parameters);
        let deadline = call.deadline(offered, began);
        check::input(&self.shared.checks, offered, input, parameters, deadline).await
    }
}

fn ambiguous(verb: &str, names: &[&str]) -> Failure {
    let listed: Vec<String> = names.iter().map(|name| format!("{verb}:{name}")).collect();
    Failure::new(
        Code::AmbiguousCapability,
        format!(
            "several names under `{verb}` take this input, so name one: {}",
            listed.join(", ")
        ),
    )
}

/// Why no name will do: with the code that all reasons share, else as an input that nobody takes.
fn nobody(verb: &str, unfit: &[(&str, Failure)]) -> Failure {
    let mut codes = unfit.iter().map(|(_, failure)| failure.code);
    let shared = codes
        .next()
        .filter(|first| codes.all(|code| code == *first));
    let faults = unfit.iter().take(LISTED).map(|(name, failure)| {
        let fault = failure.faults.first();
        let reason = fault.map_or(&failure.message, |fault| &fault.detail);
        let reason = reason.get(..reason.floor_char_boundary(REASON));
        Fault {
            pointer: fault.map(|fault| fault.pointer.clone()).unwrap_or_default(),
            detail: format!("{verb}:{name}: {}", reason.unwrap_or_default()),
        }
    });
    Failure::new(
        shared.unwrap_or(Code::InvalidInput),
        format!(
            "of {} names under `{verb}` none takes this call",
            unfit.len()
        ),
    )
    .with_faults(faults.collect())
}
