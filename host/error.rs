//! Why a call failed: one stable code, one message for the caller, one cause for the log.
//!
//! No protocol enters this room: `api` turns a code into a status, by an exhaustive match.

use std::fmt;
use std::time::Duration;

/// The failure codes, which programs match on. `docs/errors.md` has an anchor for each.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Code {
    /// The request itself is malformed: not JSON, a bad header, a bad query.
    InvalidRequest,
    /// A verb alone matches several names.
    AmbiguousCapability,
    /// Nobody knows who calls: no credentials, or some that do not hold.
    Unauthenticated,
    /// The caller may not do this.
    Denied,
    /// No loaded worker offers the capability.
    UnknownCapability,
    /// What the request names does not exist: a route, or something in the worker's own world.
    NotFound,
    /// The route exists, the method does not.
    MethodNotAllowed,
    /// The request did not arrive in time.
    RequestTimeout,
    /// What the caller believes no longer holds.
    Conflict,
    /// A call with the same idempotency key is under way.
    IdempotencyInProgress,
    /// A call with the same idempotency key was made, and there is no answer of it to give.
    IdempotencyUnanswered,
    /// Whoever could serve the call costs more than its caller gives.
    CostCeiling,
    /// The body is larger than the operator allows.
    TooLarge,
    /// The request target is longer than the host reads.
    UriTooLong,
    /// The capability does not take this media type.
    UnsupportedMediaType,
    /// The input breaks the capability's schema, or the worker cannot use it.
    InvalidInput,
    /// The idempotency key stands for another call.
    IdempotencyMismatch,
    /// The caller makes more calls than one caller may.
    RateLimited,
    /// The header block is larger than the host reads.
    HeadersTooLarge,
    /// The host's own fault.
    Internal,
    /// The invocation asked for more memory than the worker may have.
    MemoryLimit,
    /// The invocation used more CPU time than it may.
    CpuLimit,
    /// The worker handed the host more than it may.
    OutputLimit,
    /// The invocation stored more than the worker may.
    StorageLimit,
    /// The invocation asked for more of the GPU than the worker may have.
    GpuLimit,
    /// The guest died: a panic, an overflowing stack, an illegal access.
    Trapped,
    /// The worker says that it failed.
    WorkerFailed,
    /// The worker's answer breaks its own output schema.
    InvalidOutput,
    /// The host has no room now.
    Overloaded,
    /// No healthy worker, or the worker says "not now".
    Unavailable,
    /// The wall-clock deadline passed.
    Deadline,
    /// The call came back to a host that forwarded it, or was forwarded too often.
    LoopDetected,
}

impl Code {
    /// Every code, in the order of the documentation.
    pub const ALL: [Code; 32] = [
        Code::InvalidRequest,
        Code::AmbiguousCapability,
        Code::Unauthenticated,
        Code::Denied,
        Code::UnknownCapability,
        Code::NotFound,
        Code::MethodNotAllowed,
        Code::RequestTimeout,
        Code::Conflict,
        Code::IdempotencyInProgress,
        Code::IdempotencyUnanswered,
        Code::CostCeiling,
        Code::TooLarge,
        Code::UriTooLong,
        Code::UnsupportedMediaType,
        Code::InvalidInput,
        Code::IdempotencyMismatch,
        Code::RateLimited,
        Code::HeadersTooLarge,
        Code::Internal,
        Code::MemoryLimit,
        Code::CpuLimit,
        Code::OutputLimit,
        Code::StorageLimit,
        Code::GpuLimit,
        Code::Trapped,
        Code::WorkerFailed,
        Code::InvalidOutput,
        Code::Overloaded,
        Code::Unavailable,
        Code::Deadline,
        Code::LoopDetected,
    ];

    /// The code as it stands in answers, logs and documentation.
    pub const fn as_str(self) -> &'static str {
        match self {
            Code::InvalidRequest => "invalid-request",
            Code::AmbiguousCapability => "ambiguous-capability",
            Code::Unauthenticated => "unauthenticated",
            Code::Denied => "denied",
            Code::UnknownCapability => "unknown-capability",
            Code::NotFound => "not-found",
            Code::MethodNotAllowed => "method-not-allowed",
            Code::RequestTimeout => "request-timeout",
            Code::Conflict => "conflict",
            Code::IdempotencyInProgress => "idempotency-in-progress",
            Code::IdempotencyUnanswered => "idempotency-unanswered",
            Code::CostCeiling => "cost-ceiling",
            Code::TooLarge => "too-large",
            Code::UriTooLong => "uri-too-long",
            Code::UnsupportedMediaType => "unsupported-media-type",
            Code::InvalidInput => "invalid-input",
            Code::IdempotencyMismatch => "idempotency-mismatch",
            Code::RateLimited => "rate-limited",
            Code::HeadersTooLarge => "headers-too-large",
            Code::Internal => "internal",
            Code::MemoryLimit => "memory-limit",
            Code::CpuLimit => "cpu-limit",
            Code::OutputLimit => "output-limit",
            Code::StorageLimit => "storage-limit",
            Code::GpuLimit => "gpu-limit",
            Code::Trapped => "trapped",
            Code::WorkerFailed => "worker-failed",
            Code::InvalidOutput => "invalid-output",
            Code::Overloaded => "overloaded",
            Code::Unavailable => "unavailable",
            Code::Deadline => "deadline",
            Code::LoopDetected => "loop-detected",
        }
    }
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// One place in the input (or output) that is at fault.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// JSON pointer (RFC 6901); the empty string is the whole document.
    pub pointer: String,
    /// What is wrong there, for the caller.
    pub detail: String,
}

/// Why a call failed, for two audiences: `message` and `faults` go to the caller, `cause` to the log.
#[derive(Clone, Debug)]
pub struct Failure {
    /// What programs match on.
    pub code: Code,
    /// For the caller: a lower-case fragment without a full stop.
    pub message: String,
    /// Where in the input or output, if that is known.
    pub faults: Vec<Fault>,
    /// The worker's own code (`failure.code` in the contract), if it gave one.
    pub worker_code: Option<String>,
    /// The worker that was chosen, once one was.
    pub worker_id: Option<String>,
    /// When to try again.
    pub retry_after: Option<Duration>,
    /// The request that failed, where it is told again under its idempotency key.
    pub replay_of: Option<String>,
    /// For the log alone: what lies behind it.
    pub cause: Option<String>,
}

impl Failure {
    /// A failure with a code and a message; the rest is added with the methods below.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            faults: Vec::new(),
            worker_code: None,
            worker_id: None,
            retry_after: None,
            replay_of: None,
            cause: None,
        }
    }

    /// The host's own fault: the caller learns nothing but that, the log learns the cause.
    pub fn internal(cause: impl fmt::Display) -> Self {
        Self::new(Code::Internal, "the host failed; its log knows why").with_cause(cause)
    }

    /// Names the places that are at fault.
    pub fn with_faults(mut self, faults: Vec<Fault>) -> Self {
        self.faults = faults;
        self
    }

    /// Adds what the log should know.
    pub fn with_cause(mut self, cause: impl fmt::Display) -> Self {
        self.cause = Some(cause.to_string());
        self
    }

    /// Says when to try again.
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code, self.message)
    }
}

impl std::error::Error for Failure {}
