//! An end to waiting, which costs nothing where nobody waits.

use std::future::poll_fn;
use std::pin::pin;
use std::task::Poll;

use tokio::task::unconstrained;
use tokio::time::Sleep;

/// What a future ends with, unless a timer ends first; a future that is ready at that moment is. Unlike tokio's own
/// function this makes the timer when the future first waits, which most do not.
pub async fn unless<F: Future>(timer: impl FnOnce() -> Sleep, future: F) -> Option<F::Output> {
    let (mut future, mut waiting) = (pin!(future), pin!(None));
    let mut timer = Some(timer);
    poll_fn(move |context| {
        if let Poll::Ready(output) = future.as_mut().poll(context) {
            return Poll::Ready(Some(output));
        }
        if let Some(timer) = timer.take() {
            // A future that has used up its task's turn must not take the timer's.
            waiting.set(Some(unconstrained(timer())));
        }
        match waiting.as_mut().as_pin_mut() {
            Some(waiting) => waiting.poll(context).map(|()| None),
            None => Poll::Pending,
        }
    })
    .await
}
