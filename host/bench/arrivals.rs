//! Calls that come when they come: at random, at a rate, whatever becomes of those before.
//!
//! Whoever waits for an answer before he asks again asks least where it is slowest, and his
//! percentiles leave out just those calls (coordinated omission). Here each call is due at a time that was
//! drawn beforehand, and its latency counts from then.

use std::io;
use std::num::NonZeroU64;
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::Handle;
use tokio::sync::{mpsc, oneshot};

/// A call that came and was answered.
pub(super) struct Arrived<T> {
    /// From when it was due to when it was made.
    pub late: Duration,
    /// From when it was due to its answer.
    pub took: Duration,
    /// The answer.
    pub answer: T,
}

/// Xorshift (Marsaglia, 2003): the same numbers each time, so that two runs get the same arrivals.
pub(super) struct Random(u64);

impl Random {
    pub fn new() -> Self {
        Self(0x2545_F491_4F6C_DD1D)
    }

    /// More than 0, at most 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// When so many calls are due: a Poisson process of this rate, given that it brings just so many within
/// the time that they take on average.
pub(super) fn due(calls: usize, rate: f64, random: &mut Random) -> Vec<Duration> {
    let mut sum = 0.0;
    let mut next = || {
        sum -= random.unit().ln();
        sum
    };
    let at: Vec<f64> = (0..calls).map(|_| next()).collect();
    let scale = calls as f64 / rate / next();
    at.into_iter()
        .map(|at| Duration::from_secs_f64(at * scale))
        .collect()
}

/// Makes calls when they are due and waits for all of them. One that panics is missing.
///
/// # Errors
///
/// The thread that makes them does not start.
pub(super) async fn open_loop<T, F>(
    due: Vec<Duration>,
    call: impl Fn(usize) -> F + Send + 'static,
) -> io::Result<Vec<Arrived<T>>>
where
    T: Send + 'static,
    F: Future<Output = T> + Send + 'static,
{
    let runtime = Handle::current();
    let (answers, mut answered) = mpsc::unbounded_channel();
    let (ended, over) = oneshot::channel::<()>();
    let made = due.len();
    // A thread of its own: the runtime's timers go by whole milliseconds.
    thread::Builder::new()
        .name("arrivals".to_owned())
        .spawn(move || {
            // Wakes when asked to, not up to 50 us later to save power. Without it the calls are only later.
            let _ = rustix::thread::set_current_timer_slack(NonZeroU64::new(1));
            let began = Instant::now();
            for (at, due) in due.into_iter().enumerate() {
                let due = began + due;
                thread::sleep(due.saturating_duration_since(Instant::now()));
                let late = due.elapsed();
                let (answer, answers) = (call(at), answers.clone());
                runtime.spawn(async move {
                    let answer = answer.await;
                    let took = due.elapsed();
                    // Nobody listens only where the run was given up.
                    let _ = answers.send(Arrived { late, took, answer });
                });
            }
            drop(ended);
        })?;
    // Not before the last is made: nobody is woken for each answer while others are measured.
    let _ = over.await;
    let mut arrived = Vec::with_capacity(made);
    while let Some(answer) = answered.recv().await {
        arrived.push(answer);
    }
    Ok(arrived)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arrivals_are_random_in_order_and_as_many_as_the_rate_says() {
        let due = due(1000, 100.0, &mut Random::new());
        assert_eq!(due.len(), 1000);
        assert!(due.is_sorted());
        let last = due.last().unwrap().as_secs_f64();
        assert!((9.5..=10.0).contains(&last), "{last}");
        // Of a Poisson process 39 % of the gaps are shorter than half of the mean.
        let short = due
            .windows(2)
            .filter(|pair| pair[1] - pair[0] < Duration::from_millis(5));
        let short = short.count();
        assert!((330..460).contains(&short), "{short}");
    }

    #[tokio::test]
    async fn a_call_that_has_to_wait_for_another_counts_from_when_it_was_due() {
        // One at a time, each 20 ms, all due at once: the last one is answered after 60 ms and not after 20.
        let turn = std::sync::Arc::new(tokio::sync::Semaphore::new(1));
        let call = move |_| {
            let turn = turn.clone();
            async move {
                let _turn = turn.acquire().await;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let arrived = open_loop(vec![Duration::ZERO; 3], call).await.unwrap();
        let longest = arrived.iter().map(|arrived| arrived.took).max();
        assert!(
            longest >= Some(Duration::from_millis(60)),
            "{longest:?} leaves the waiting out"
        );
    }
}
