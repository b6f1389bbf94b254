//! How a worker says that it could not do what it was asked.

use std::time::Duration;

use crate::{Failure, FailureKind};

/// `message` is for the caller: a lower-case fragment without a full stop.
impl Failure {
    /// The input matches the schema, but the worker cannot use it (HTTP 422). `pointer` is a JSON
    /// pointer (RFC 6901) to what is at fault: `/document`; the empty text is the whole input.
    pub fn invalid_input(pointer: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            pointer: Some(pointer.into()),
            ..Self::new(FailureKind::InvalidInput, message)
        }
    }

    /// What the input names does not exist (HTTP 404).
    pub fn not_found(message: impl Into<String>) -> Self {
        Self::new(FailureKind::NotFound, message)
    }

    /// The caller may not do this (HTTP 403).
    pub fn denied(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Denied, message)
    }

    /// What the caller believes no longer holds, a version for example (HTTP 409).
    pub fn conflict(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Conflict, message)
    }

    /// Not now; the caller may try again after `retry_after` (HTTP 503). It travels in milliseconds.
    pub fn unavailable(retry_after: Duration, message: impl Into<String>) -> Self {
        let milliseconds = u32::try_from(retry_after.as_millis()).unwrap_or(u32::MAX);
        Self {
            retry_after_ms: Some(milliseconds),
            ..Self::new(FailureKind::Unavailable, message)
        }
    }

    /// The worker failed, and the caller can do nothing about it (HTTP 502).
    pub fn failed(message: impl Into<String>) -> Self {
        Self::new(FailureKind::Failed, message)
    }

    /// Adds the worker's own code for programs to match on: `[a-z][a-z0-9-]*`, at most 64 bytes.
    pub fn code(mut self, code: impl Into<String>) -> Self {
        self.code = Some(code.into());
        self
    }

    fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            code: None,
            message: message.into(),
            pointer: None,
            retry_after_ms: None,
        }
    }
}
