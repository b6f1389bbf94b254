//! Time since the Unix epoch that never goes back while the host runs.

use std::time::{Duration, Instant, SystemTime};

/// The time of day at the start, and how long ago that is: a clock that somebody sets does not move it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    started: Instant,
    unix: Duration,
}

impl Default for Clock {
    fn default() -> Self {
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
        Self {
            started: Instant::now(),
            unix: unix.unwrap_or_default(),
        }
    }
}

impl Clock {
    pub fn now(&self) -> Duration {
        self.unix + self.started.elapsed()
    }
}
