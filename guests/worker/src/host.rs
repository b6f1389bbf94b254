//! Where the host enters the worker, and what the worker tells the host unasked.

use std::time::Duration;

use crate::bindings::exports::crank::worker::{capabilities, handler};
use crate::{Failure, Payload, Request, Worker};

/// The contract's `declare`.
pub fn declare(worker: fn() -> Worker) -> capabilities::Worker {
    enter();
    worker().declare()
}

/// The contract's `handle`.
pub fn handle(worker: fn() -> Worker, request: handler::Request) -> Result<Payload, Failure> {
    enter();
    let handler::Request {
        id,
        capability,
        input,
        parameters,
        caller,
        deadline_ms,
        context,
    } = request;
    let deadline = Duration::from_millis(deadline_ms.into());
    let request = Request {
        id,
        capability,
        parameters,
        caller,
        deadline,
        context,
    };
    worker().handle(&request, input)
}

/// Connects panics and the log to the host. A second call changes nothing.
fn enter() {
    std::panic::set_hook(Box::new(|panic| {
        crate::bindings::crank::worker::log::panicked(&panic.to_string());
    }));
    if log::set_logger(&HostLog).is_ok() {
        // Not `Debug`: parsers say something of every token, and each line is a call to the host.
        log::set_max_level(log::LevelFilter::Info);
    }
}

struct HostLog;

impl log::Log for HostLog {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        use crate::bindings::crank::worker::log::{Level, write};
        let level = match record.level() {
            log::Level::Error => Level::Error,
            log::Level::Warn => Level::Warn,
            log::Level::Info => Level::Info,
            log::Level::Debug => Level::Debug,
            log::Level::Trace => Level::Trace,
        };
        write(level, &record.args().to_string());
    }

    fn flush(&self) {}
}
