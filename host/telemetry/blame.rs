//! How a call ended, and whose fault it was: the table of `docs/slo.md`, in code.

use std::time::Duration;

use crate::error::Code;

/// Whose fault a failure was.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Blame {
    /// The worker's: it counts against its availability and spends its error budget.
    Worker,
    /// The host's, or that of too many callers at once: the worker was not to blame.
    Host,
    /// The caller's: it counts against nobody's budget.
    Caller,
}

/// How a call ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum End {
    /// With an answer that is valid.
    Answered,
    /// The caller hung up, or the host stopped.
    Cancelled,
    /// With a failure.
    Failed(Code, Blame),
}

/// What has to be known of a call to say whose fault its failure was.
#[derive(Clone, Copy, Debug)]
pub(super) struct Course {
    /// Whether the worker was started.
    pub started: bool,
    /// How long the worker had, once it was started.
    pub had: Duration,
    /// How long it may take by its own promise.
    pub promised: Duration,
    /// Whether the caller gave it less than its own limit.
    pub shortened: bool,
}

impl Blame {
    /// As metrics and reports write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Blame::Worker => "worker",
            Blame::Host => "host",
            Blame::Caller => "caller",
        }
    }

    pub(super) const ALL: [Blame; 3] = [Blame::Worker, Blame::Host, Blame::Caller];

    pub(super) fn of(code: Code, course: &Course) -> Self {
        match code {
            Code::MemoryLimit
            | Code::CpuLimit
            | Code::OutputLimit
            | Code::StorageLimit
            | Code::GpuLimit
            | Code::Trapped
            | Code::WorkerFailed
            | Code::InvalidOutput
            | Code::Unavailable => Blame::Worker,
            // Hosts that forward to each other in a circle are the operators' work.
            Code::Internal | Code::Overloaded | Code::LoopDetected => Blame::Host,
            // Who gives a worker less time than it promises to need cannot hold that against it; nor
            // is it the worker's fault that its turn came late.
            Code::Deadline if course.started && course.had >= course.promised => Blame::Worker,
            Code::Deadline if course.shortened => Blame::Caller,
            Code::Deadline => Blame::Host,
            Code::InvalidRequest
            | Code::AmbiguousCapability
            | Code::Unauthenticated
            | Code::Denied
            | Code::UnknownCapability
            | Code::IdempotencyInProgress
            | Code::IdempotencyUnanswered
            | Code::IdempotencyMismatch
            | Code::RateLimited
            | Code::NotFound
            | Code::MethodNotAllowed
            | Code::RequestTimeout
            | Code::CostCeiling
            | Code::Conflict
            | Code::TooLarge
            | Code::UriTooLong
            | Code::UnsupportedMediaType
            | Code::InvalidInput
            | Code::HeadersTooLarge => Blame::Caller,
        }
    }
}

impl End {
    /// How many there are.
    pub(super) const COUNT: usize = 2 + Code::ALL.len() * Blame::ALL.len();

    /// Its place among all.
    pub(super) fn index(self) -> usize {
        match self {
            End::Answered => 0,
            End::Cancelled => 1,
            End::Failed(code, blame) => 2 + code as usize * Blame::ALL.len() + blame as usize,
        }
    }

    pub(super) fn all() -> impl Iterator<Item = End> {
        let failures = Code::ALL
            .into_iter()
            .flat_map(|code| Blame::ALL.map(|blame| End::Failed(code, blame)));
        [End::Answered, End::Cancelled].into_iter().chain(failures)
    }

    /// As it is kept: `answered`, `cancelled` or `trapped/worker`.
    pub(super) fn to_text(self) -> String {
        match self {
            End::Answered => "answered".to_owned(),
            End::Cancelled => "cancelled".to_owned(),
            End::Failed(code, blame) => format!("{code}/{}", blame.as_str()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_end_has_a_place_and_a_text_of_its_own() {
        let mut places: Vec<usize> = End::all().map(End::index).collect();
        places.sort_unstable();
        assert_eq!(places, (0..End::COUNT).collect::<Vec<_>>());
        let texts: std::collections::BTreeSet<String> = End::all().map(End::to_text).collect();
        assert_eq!(texts.len(), End::COUNT);
    }

    #[test]
    fn a_deadline_is_the_fault_of_who_took_or_gave_too_little_time() {
        let ms = Duration::from_millis;
        let course = |started, had, shortened| Course {
            started,
            had: ms(had),
            promised: ms(100),
            shortened,
        };
        for (course, blamed) in [
            (course(true, 100, false), Blame::Worker),
            (course(true, 100, true), Blame::Worker),
            (course(true, 99, true), Blame::Caller),
            (course(true, 99, false), Blame::Host),
            (course(false, 500, false), Blame::Host),
            (course(false, 500, true), Blame::Caller),
        ] {
            assert_eq!(Blame::of(Code::Deadline, &course), blamed, "{course:?}");
        }
    }
}
