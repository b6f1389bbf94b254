//! What is written down of a call: a line of JSON, and the body of its answer.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use crate::error::{Code, Failure, Fault};

/// What a caller was told.
#[derive(Clone, Debug)]
pub enum Told {
    /// The worker's answer.
    Answered(Answered),
    /// Why there is none. Its `replay_of` names the request that failed.
    Failed(Failure),
}

/// An answer, as far as it is kept.
#[derive(Clone, Debug)]
pub struct Answered {
    /// Who answered.
    pub worker_id: String,
    /// Of the body.
    pub media_type: String,
    /// The answer itself.
    pub body: Bytes,
}

impl Told {
    /// Whether it says no more than that another time may be better.
    pub(super) fn is_not_now(&self) -> bool {
        match self {
            Self::Answered(_) => false,
            Self::Failed(failure) => matches!(
                failure.code,
                Code::Overloaded
                    | Code::Unavailable
                    | Code::RateLimited
                    | Code::IdempotencyInProgress
            ),
        }
    }

    pub(super) fn body(&self) -> &[u8] {
        match self {
            Self::Answered(answered) => &answered.body,
            Self::Failed(_) => &[],
        }
    }

    pub(super) fn head(&self) -> Head {
        match self {
            Self::Answered(answered) => Head::Answered {
                worker_id: answered.worker_id.clone(),
                media_type: answered.media_type.clone(),
            },
            Self::Failed(failure) => Head::Failed {
                code: failure.code.as_str().to_owned(),
                message: failure.message.clone(),
                faults: failure
                    .faults
                    .iter()
                    .map(|fault| (fault.pointer.clone(), fault.detail.clone()))
                    .collect(),
                worker_code: failure.worker_code.clone(),
                worker_id: failure.worker_id.clone(),
                retry_after: failure.retry_after,
                request_id: failure.replay_of.clone().unwrap_or_default(),
            },
        }
    }
}

/// Who ran a call: by this, whether its answer may be told again is judged.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ran {
    /// The worker.
    pub worker_id: String,
    /// Its capability: `verb:name`.
    pub capability: String,
}

/// One key's call.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Record {
    /// When the key was first used, in milliseconds since 1970.
    pub at: u64,
    pub fingerprint: String,
    /// Who ran it, or was to.
    pub by: Ran,
    pub ending: Ending,
}

/// How far it came.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Ending {
    Started { repeatable: bool },
    TooLarge,
    Told(Head),
}

/// What was told, but for the body.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Head {
    Answered {
        worker_id: String,
        media_type: String,
    },
    Failed {
        code: String,
        message: String,
        faults: Vec<(String, String)>,
        worker_code: Option<String>,
        worker_id: Option<String>,
        retry_after: Option<Duration>,
        request_id: String,
    },
}

impl Record {
    pub fn write(&self, body: &[u8]) -> Vec<u8> {
        // Strings and numbers always serialize; without a line it reads as broken.
        let mut bytes = serde_json::to_vec(self).unwrap_or_default();
        bytes.push(b'\n');
        bytes.extend_from_slice(body);
        bytes
    }

    pub fn read(bytes: &[u8]) -> Option<(Self, &[u8])> {
        let mut parts = bytes.splitn(2, |byte| *byte == b'\n');
        let record = serde_json::from_slice(parts.next()?).ok()?;
        Some((record, parts.next()?))
    }
}

impl Head {
    pub fn with(self, body: &[u8]) -> Told {
        match self {
            Self::Answered {
                worker_id,
                media_type,
            } => Told::Answered(Answered {
                worker_id,
                media_type,
                body: Bytes::copy_from_slice(body),
            }),
            Self::Failed {
                code,
                message,
                faults,
                worker_code,
                worker_id,
                retry_after,
                request_id,
            } => {
                let known = Code::ALL.into_iter().find(|known| known.as_str() == code);
                let faults = faults
                    .into_iter()
                    .map(|(pointer, detail)| Fault { pointer, detail });
                Told::Failed(Failure {
                    faults: faults.collect(),
                    worker_code,
                    worker_id,
                    retry_after,
                    replay_of: Some(request_id),
                    ..Failure::new(known.unwrap_or(Code::Internal), message)
                })
            }
        }
    }
}
