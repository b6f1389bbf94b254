//! The one thread that writes, and the queue before it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{Builder, JoinHandle};

use tokio::sync::{AcquireError, OwnedSemaphorePermit, oneshot};

use super::store::{Change, Done, Store};
use super::{StateError, closed, failed};

/// Jobs of one transaction: more would keep the first of them waiting.
const BATCH: usize = 1024;

/// One write, and who waits for it.
#[derive(Debug)]
pub(super) struct Job {
    pub bucket: Arc<str>,
    pub quota: u64,
    pub change: Change,
    pub answer: oneshot::Sender<Result<Done, StateError>>,
    /// Its part of the memory that waiting writes may take.
    pub room: Result<OwnedSemaphorePermit, AcquireError>,
}

enum Message {
    Write(Job),
    Close(oneshot::Sender<()>),
}

/// The way to the thread. Dropped, it waits until all is written and closed.
#[derive(Debug)]
pub(super) struct Writer {
    messages: Sender<Message>,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    pub fn start(store: Arc<Store>) -> Result<Self, StateError> {
        let (messages, received) = channel();
        let thread = Builder::new()
            .name("crank-state".to_owned())
            .spawn(move || run(&store, &received))
            .map_err(failed)?;
        Ok(Self {
            messages,
            thread: Some(thread),
        })
    }

    pub fn write(&self, job: Job) -> Result<(), StateError> {
        let sent = self.messages.send(Message::Write(job));
        sent.map_err(|_| closed())
    }

    pub async fn close(&self) {
        let (answer, answered) = oneshot::channel();
        if self.messages.send(Message::Close(answer)).is_ok() {
            // An error says as much: the thread is gone.
            let _ = answered.await;
        }
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        let (answer, _) = oneshot::channel();
        let _closed_before = self.messages.send(Message::Close(answer));
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn run(store: &Store, messages: &Receiver<Message>) {
    while let Ok(first) = messages.recv() {
        let mut jobs = Vec::new();
        let mut closing = None;
        let mut next = Some(first);
        while let Some(message) = next {
            match message {
                Message::Write(job) => jobs.push(job),
                Message::Close(answer) => {
                    closing = Some(answer);
                    break;
                }
            }
            next = if jobs.len() < BATCH {
                messages.try_recv().ok()
            } else {
                None
            };
        }
        commit(store, jobs);
        if let Some(answer) = closing {
            store.close();
            let _ = answer.send(());
            return;
        }
    }
}

/// Writes all of them and answers: nobody hears of anything that is not on the disk.
fn commit(store: &Store, jobs: Vec<Job>) {
    if jobs.is_empty() {
        return;
    }
    // Who no longer waits is not in the way of a send: a receiver that is gone is no error.
    match store.commit(&jobs) {
        Ok(done) => {
            for (Job { answer, room, .. }, done) in jobs.into_iter().zip(done) {
                drop(room);
                let _ = answer.send(done);
            }
        }
        Err(error) => {
            tracing::error!("{} writes of state failed: {error}", jobs.len());
            for job in jobs {
                let _ = job.answer.send(Err(error.clone()));
            }
            store.reopen();
        }
    }
}
