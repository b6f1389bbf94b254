//! Who may do what, for policies outside of this host: `worker_manifests.json`.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Serialize;

use super::Snapshot;
use crate::worker::{Offered, Worker};

/// The manifests of all workers that have an identity, by SPIFFE id.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifests {
    /// By SPIFFE id.
    pub workers: BTreeMap<String, Manifest>,
}

/// One worker's manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Manifest {
    /// The worker's id.
    pub worker_id: String,
    /// What its capabilities may use, in the order of their declarations, each once.
    pub required_capabilities: Vec<String>,
    /// Whose it is, where the operator says so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub owner: Option<String>,
    /// When its file was last written: UTC in the form of RFC 3339, to the second.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deployed_at: Option<String>,
}

impl Manifests {
    /// The manifests of what is offered. A worker without a SPIFFE id has none: there is nothing to know it by.
    pub fn of(snapshot: &Snapshot) -> Self {
        let mut workers = BTreeMap::new();
        for worker in snapshot.workers() {
            let offered = worker.offered().iter();
            let offered: Vec<&Offered> = offered
                .filter(|offered| snapshot.has(offered))
                .map(AsRef::as_ref)
                .collect();
            for id in offered
                .iter()
                .filter_map(|at| at.capability.spiffe_id.as_ref())
            {
                workers
                    .entry(id.to_string())
                    .or_insert_with(|| Manifest::of(worker, &offered));
            }
        }
        Self { workers }
    }
}

impl Manifest {
    fn of(worker: &Worker, offered: &[&Offered]) -> Self {
        let mut required: Vec<String> = Vec::new();
        for offered in offered {
            for entry in offered.capability.required_capabilities.iter().flatten() {
                let entry = entry.to_string();
                if !required.contains(&entry) {
                    required.push(entry);
                }
            }
        }
        Self {
            worker_id: worker.id().to_string(),
            required_capabilities: required,
            owner: worker.owner().map(str::to_owned),
            deployed_at: worker.deployed_at().and_then(timestamp),
        }
    }
}

/// A time as `2025-11-16T10:00:00Z`; none before 1970.
fn timestamp(time: SystemTime) -> Option<String> {
    let seconds = time.duration_since(UNIX_EPOCH).ok()?.as_secs();
    let (year, month, day) = date(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    Some(format!(
        "{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z"
    ))
}

/// Year, month and day of a day after 1 January 1970, in the Gregorian calendar: `civil_from_days` of
/// Howard Hinnant's "chrono-Compatible Low-Level Date Algorithms". Years begin in March there, so that
/// the day of a leap year comes last.
fn date(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, day) = (days / 146_097, days % 146_097);
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day = day - (365 * year + year / 4 - year / 100);
    let month = (5 * day + 2) / 153;
    let day = day - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (era * 400 + year + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    /// As `date -u -d @SECONDS` writes them.
    #[test]
    fn a_time_is_written_as_rfc_3339_has_it() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_399, "2000-02-28T23:59:59Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (951_868_800, "2000-03-01T00:00:00Z"),
            (1_763_287_200, "2025-11-16T10:00:00Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            let time = UNIX_EPOCH + Duration::from_secs(seconds);
            assert_eq!(timestamp(time).as_deref(), Some(text));
        }
        assert_eq!(timestamp(UNIX_EPOCH - Duration::from_secs(1)), None);
    }
}
