//! What passes between guest and host: how much in all, and how fast.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use super::Stop;

/// What one invocation may still hand to the host's functions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Handed {
    /// Bytes, over all calls.
    pub bytes: u64,
    /// Things: log lines, events, writes.
    pub items: u64,
}

impl Handed {
    /// One more thing of so many bytes.
    ///
    /// # Errors
    ///
    /// It is one too many.
    pub fn hand(&mut self, bytes: usize) -> Result<(), Stop> {
        let left = (
            self.bytes.checked_sub(bytes as u64),
            self.items.checked_sub(1),
        );
        let (Some(bytes), Some(items)) = left else {
            return Err(Stop::Output);
        };
        *self = Self { bytes, items };
        Ok(())
    }
}

/// A token bucket that holds what flows in one second, shared by all invocations of a worker.
///
/// Kept as the time at which the bucket would be full again (the generic cell rate algorithm, ITU-T
/// I.371): one number, so no lock.
#[derive(Debug)]
pub struct Bandwidth {
    origin: Instant,
    /// Picoseconds that one byte takes.
    byte_ps: u64,
    /// When the bucket is full again, in nanoseconds from `origin`.
    full_at: AtomicU64,
}

/// What the bucket holds, as time.
const BURST_NS: u64 = 1_000_000_000;

impl Bandwidth {
    /// A full bucket that refills at so many megabits (10^6) per second, at least one.
    pub fn new(megabits: u32) -> Self {
        Self {
            origin: Instant::now(),
            byte_ps: 8_000_000 / u64::from(megabits.max(1)),
            full_at: AtomicU64::new(0),
        }
    }

    /// Takes so many bytes now and says how long they have to wait. `None`, and nothing taken, if that
    /// would be longer than `most`.
    pub fn take(&self, bytes: usize, now: Instant, most: Duration) -> Option<Duration> {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let cost = (bytes as u64).saturating_mul(self.byte_ps) / 1000;
        let now = nanos(now.saturating_duration_since(self.origin));
        let latest = now.saturating_add(BURST_NS).saturating_add(nanos(most));
        let full_at = |full_at: u64| {
            let full_at = full_at.max(now).saturating_add(cost);
            (full_at <= latest).then_some(full_at)
        };
        let before = self.full_at.fetch_update(Relaxed, Relaxed, full_at).ok()?;
        let full_at = before.max(now).saturating_add(cost);
        Some(Duration::from_nanos(
            full_at.saturating_sub(now).saturating_sub(BURST_NS),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_lets_one_second_through_at_once_and_the_rest_at_its_rate() {
        // 8 Mbit/s are a million bytes a second.
        let bandwidth = Bandwidth::new(8);
        let (now, most) = (Instant::now(), Duration::from_secs(10));
        assert_eq!(bandwidth.take(999_000, now, most), Some(Duration::ZERO));
        let wait = bandwidth
            .take(500_000, now, most)
            .expect("it fits into ten seconds");
        assert!(
            (Duration::from_millis(400)..Duration::from_millis(500)).contains(&wait),
            "{wait:?}"
        );
        // What cannot go in time takes nothing.
        assert_eq!(bandwidth.take(20_000_000, now, most), None);
        let wait = bandwidth
            .take(500_000, now, most)
            .expect("it fits into ten seconds");
        assert!(wait < Duration::from_secs(1), "{wait:?}");
    }
}
