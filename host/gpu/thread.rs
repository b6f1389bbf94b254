//! A device's own threads. What is asked of a driver takes its time, which a thread of the runtime has not
//! got; and wgpu remembers every thread that ever asked, so that they must be few.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::mpsc;

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::Error;

type Job = Box<dyn FnOnce() + Send>;

/// A thread that does one thing after the other; it ends when this is dropped.
pub struct Thread(mpsc::Sender<Job>);

impl Thread {
    /// Starts one with a stack of so many bytes. If it panics, the device is lost.
    ///
    /// # Errors
    ///
    /// The system has no more threads.
    pub fn start(name: &str, stack: usize, lost: CancellationToken) -> Result<Self, Error> {
        let (sender, jobs) = mpsc::channel::<Job>();
        let work = move || {
            for job in jobs {
                if catch_unwind(AssertUnwindSafe(job)).is_err() {
                    tracing::error!("GPU: the driver or its library panicked: the device is lost");
                    lost.cancel();
                    break;
                }
            }
        };
        std::thread::Builder::new()
            .name(name.to_owned())
            .stack_size(stack)
            .spawn(work)
            .map_err(|_| Error::Lost)?;
        Ok(Self(sender))
    }

    /// Does something there, in its turn and without waiting for it.
    pub fn tell(&self, job: impl FnOnce() + Send + 'static) -> Result<(), Error> {
        self.0.send(Box::new(job)).map_err(|_| Error::Lost)
    }

    /// Does something there and returns what it gave. It is done also if nobody waits any longer.
    pub async fn ask<T: Send + 'static>(
        &self,
        job: impl FnOnce() -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let (done, answer) = oneshot::channel();
        self.tell(move || {
            // Whoever asked may be gone.
            let _ = done.send(job());
        })?;
        answer.await.unwrap_or(Err(Error::Lost))
    }
}
