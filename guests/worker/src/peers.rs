//! Calls to other capabilities, through the host.
//!
//! A capability reaches what its own [`required_capabilities`](crate::Capability::required_capabilities) names as `verb:name` and nothing
//! else. Who called, the trace and the time that is left go along. In a native test nobody answers.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::bindings::crank::worker::peers;
use crate::{Failure, Payload};

pub use crate::bindings::crank::worker::peers::CallFailure;

/// When to try again what a peer could not do now and did not say when.
const RETRY: Duration = Duration::from_secs(1);

/// A call, ready to be made.
#[derive(Clone, Debug)]
pub struct Call(peers::Call);

/// A call that is under way. It ends when this is dropped.
pub struct Pending(peers::Pending);

/// Calls with JSON and waits for JSON: what most calls are.
///
/// # Errors
///
/// What the peer says, as a failure of this worker's own that names the peer: `unavailable` where the
/// peer may answer later, else `failed`. [`Call`] gives the code itself.
pub fn call<T: DeserializeOwned>(capability: &str, input: &impl Serialize) -> Result<T, Failure> {
    let payload = Call::json(capability, input)?
        .invoke()
        .map_err(|failure| of_peer(capability, failure))?;
    serde_json::from_slice(&payload.body).map_err(|error| {
        Failure::failed(format!(
            "{capability} answered what is not expected: {error}"
        ))
    })
}

impl Call {
    /// A call of `verb:name`, perhaps with `@` and a semver requirement, with bytes of a media type.
    pub fn new(
        capability: impl Into<String>,
        media_type: impl Into<String>,
        body: Vec<u8>,
    ) -> Self {
        Self(peers::Call {
            capability: capability.into(),
            input: Payload {
                media_type: media_type.into(),
                body,
            },
            parameters: Vec::new(),
            timeout_ms: None,
        })
    }

    /// A call with JSON.
    ///
    /// # Errors
    ///
    /// The input has no form in JSON.
    pub fn json(capability: impl Into<String>, input: &impl Serialize) -> Result<Self, Failure> {
        let body = serde_json::to_vec(input)
            .map_err(|error| Failure::failed(format!("a call has no form in json: {error}")))?;
        Ok(Self::new(capability, "application/json", body))
    }

    /// A query parameter, beside raw bytes.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.0.parameters.push((name.into(), value.into()));
        self
    }

    /// How long to wait; the time that is left to this request holds in any case.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.0.timeout_ms = Some(u32::try_from(timeout.as_millis()).unwrap_or(u32::MAX));
        self
    }

    /// Calls and waits.
    ///
    /// # Errors
    ///
    /// The host's failure code (docs/errors.md) and message.
    pub fn invoke(self) -> Result<Payload, CallFailure> {
        #[cfg(target_arch = "wasm32")]
        return peers::invoke(&self.0);

        #[cfg(not(target_arch = "wasm32"))]
        Err(CallFailure {
            code: "unavailable".into(),
            message: format!("no host answers {} in a native test", self.0.capability),
            retry_after_ms: None,
        })
    }

    /// Calls and goes on, so that several run at once.
    pub fn start(self) -> Pending {
        Pending(peers::start(&self.0))
    }
}

impl Pending {
    /// Waits for the answer.
    ///
    /// # Errors
    ///
    /// The host's failure code (docs/errors.md) and message.
    pub fn wait(self) -> Result<Payload, CallFailure> {
        self.0.wait()
    }
}

/// A peer's failure as this worker's own.
pub fn of_peer(capability: &str, failure: CallFailure) -> Failure {
    let message = format!("{capability}: {}", failure.message);
    let told = match failure.code.as_str() {
        "unavailable" | "overloaded" | "rate-limited" | "unknown-capability" | "deadline" => {
            let retry = failure
                .retry_after_ms
                .map(u64::from)
                .map(Duration::from_millis);
            Failure::unavailable(retry.unwrap_or(RETRY), message)
        }
        _ => Failure::failed(message),
    };
    told.code(failure.code)
}
