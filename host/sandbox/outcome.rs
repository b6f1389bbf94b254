//! From what wasmtime says to what the caller is told.

use std::time::Duration;

use wasmtime::{PoolConcurrencyLimitError, Trap};

use super::Payload;
use super::files::NoTmp;
use super::guest::escaped;
use crate::bindings::crank::worker::types;
use crate::error::{Code, Failure, Fault};
use crate::limits::Stop;

/// The longest message of a worker's own failure, in bytes.
const MESSAGE: usize = 4 << 10;
/// The longest code of a worker's own failure, in bytes.
const WORKER_CODE: usize = 64;
/// The longest JSON pointer, in bytes.
const POINTER: usize = 1 << 10;
/// When to come back if all instances are taken and nothing better is known.
const RETRY: Duration = Duration::from_secs(1);

/// What the worker returned.
pub fn answer(
    answer: Result<types::Payload, types::Failure>,
    output: usize,
) -> Result<Payload, Failure> {
    match answer {
        Ok(payload) if payload.body.len() > output => Err(too_much()),
        Ok(payload) => Ok(payload.into()),
        Err(failure) => Err(own_failure(failure)),
    }
}

/// Why the guest did not return: a limit, a trap, or a host without room.
pub fn failed(error: &wasmtime::Error, panic: Option<&str>) -> Failure {
    if let Some(stop) = error.downcast_ref::<Stop>() {
        let (code, message) = match stop {
            Stop::Memory => (
                Code::MemoryLimit,
                "the worker asked for more memory than it may have",
            ),
            Stop::Cpu => (Code::CpuLimit, "the worker used more CPU time than it may"),
            Stop::Deadline => (Code::Deadline, "the worker did not answer in time"),
            Stop::Output => return too_much(),
            Stop::Budget => {
                return Failure::new(
                    Code::Overloaded,
                    "the memory that this host gives to workers is taken",
                )
                .retry_after(RETRY);
            }
            Stop::Bandwidth => (
                Code::Deadline,
                "what the worker sends does not fit through its network bandwidth in time",
            ),
            Stop::Storage => (Code::StorageLimit, "the worker stored more than it may"),
            Stop::Lost => {
                return Failure::new(
                    Code::Unavailable,
                    "the GPU was lost; the next call has it again",
                )
                .retry_after(RETRY);
            }
            Stop::Gpu => (
                Code::GpuLimit,
                "the worker asked for more of the GPU than it may have",
            ),
        };
        return Failure::new(code, message);
    }
    if let Some(error) = error.downcast_ref::<NoTmp>() {
        return Failure::internal(error);
    }
    if let Some(panic) = panic {
        return Failure::new(Code::Trapped, "the worker panicked").with_cause(panic);
    }
    if error.is::<PoolConcurrencyLimitError>() {
        return Failure::new(Code::Overloaded, "every instance of this host is taken")
            .retry_after(RETRY);
    }
    if is_hostcall_fuel(error) {
        return too_much();
    }
    let message = match error.downcast_ref::<Trap>() {
        Some(Trap::StackOverflow) => "the worker overflowed its stack",
        Some(_) => "the worker trapped",
        None => "the worker broke the contract",
    };
    // Names of functions, the guest's choice, are in it.
    Failure::new(Code::Trapped, message).with_cause(escaped(&format!("{error:#}")))
}

fn too_much() -> Failure {
    Failure::new(
        Code::OutputLimit,
        "the worker handed the host more than it may",
    )
}

/// Whether the guest ran out of what it may hand the host in one call. Wasmtime 48 keeps the type of
/// this error to itself, so its text decides; a test with a worker that returns too much holds it.
fn is_hostcall_fuel(error: &wasmtime::Error) -> bool {
    error
        .root_cause()
        .to_string()
        .contains("fuel allocated for hostcalls")
}

/// A worker's own failure, its texts cut to what the contract allows.
fn own_failure(failure: types::Failure) -> Failure {
    use types::FailureKind;
    let code = match failure.kind {
        FailureKind::InvalidInput => Code::InvalidInput,
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Denied => Code::Denied,
        FailureKind::Conflict => Code::Conflict,
        FailureKind::Unavailable => Code::Unavailable,
        FailureKind::Failed => Code::WorkerFailed,
    };
    // People read these in terminals and logs: what moves a cursor or begins a line is escaped.
    let mut told = Failure::new(code, cut(escaped(&failure.message), MESSAGE));
    told.worker_code = failure.code.filter(|code| is_code(code));
    if code == Code::InvalidInput
        && let Some(pointer) = failure.pointer
    {
        let detail = told.message.clone();
        told.faults = vec![Fault {
            pointer: cut(escaped(&pointer), POINTER),
            detail,
        }];
    }
    if code == Code::Unavailable {
        told.retry_after = Some(
            failure
                .retry_after_ms
                .map_or(RETRY, |ms| Duration::from_millis(ms.into())),
        );
    }
    told
}

/// Whether it has the form that the contract gives a worker's own code.
fn is_code(text: &str) -> bool {
    text.len() <= WORKER_CODE
        && text.starts_with(|c: char| c.is_ascii_lowercase())
        && text
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

fn cut(mut text: String, bytes: usize) -> String {
    text.truncate(text.floor_char_boundary(bytes));
    text
}
