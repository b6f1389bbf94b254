//! What a Store holds for its guest, and the host functions that the guest may call.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::Level;
use wasmtime::UpdateDeadline;
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxBuilder, WasiCtxView, WasiView};

use super::events::Outlet;
use super::files::{Files, FilesView, Source};
use super::gpu::Work;
use super::keyvalue::Shelved;
use super::pace::Pace;
use super::peers::Peers;
use crate::bindings::crank::worker::{log, types};
use crate::limits::{Bandwidth, Handed, Limits, Meter, Stop};
use crate::striped::Handle;

/// The longest log line, in bytes; the rest is cut.
const LOG_LINE: usize = 8 << 10;
/// What one invocation may log in all, in bytes; further lines are dropped and counted.
const LOG_TOTAL: usize = 64 << 10;
/// Host objects (streams, descriptors) that one invocation may hold.
pub(super) const RESOURCES: usize = 1024;
/// What those objects take at most, in bytes: charged when the first could be made.
const RESOURCES_BYTES: u64 = 512 << 10;
/// Random bytes that one call may ask for.
const RANDOM: u64 = 1 << 20;

/// A Store's data: one invocation's accounts and the ends of its channels.
pub(crate) struct Guest {
    pub meter: Meter,
    pub pace: Arc<Pace>,
    pub limits: Limits,
    pub deadline: Instant,
    /// The guest's last words, if it panicked.
    pub panic: Option<String>,
    /// Bytes of events that have gone to the caller.
    pub sent: u64,
    pub(super) handed: Handed,
    pub(super) peers: Option<Peers>,
    /// Its part of the GPU, if it has one.
    pub(super) gpu: Option<Box<Work>>,
    /// The buckets that it may open.
    pub(super) keyvalue: Option<Shelved>,
    /// A limit that was reached where a host function could not say so: it ends the invocation at its
    /// next tick, or when it answers.
    pub stopped: Option<Stop>,
    /// What its files are made of, if it may have any, until it asks for them.
    pub(super) source: Option<Source>,
    files: Option<Box<Files>>,
    pub(super) worker: Handle<str>,
    pub(super) request: String,
    pub(super) events: Outlet,
    logged: usize,
    log_dropped: usize,
    wasi: Option<Box<Wasi>>,
}

struct Wasi {
    ctx: WasiCtx,
    table: ResourceTable,
}

impl Guest {
    /// `names`: the worker's id and the request's.
    pub(super) fn new(
        pace: Arc<Pace>,
        (worker, request): (Handle<str>, String),
        limits: Limits,
        meter: Meter,
        deadline: Instant,
        events: Outlet,
    ) -> Self {
        Self {
            meter,
            pace,
            limits,
            deadline,
            panic: None,
            sent: 0,
            handed: limits.handed,
            peers: None,
            gpu: None,
            keyvalue: None,
            stopped: None,
            source: None,
            files: None,
            worker,
            request,
            events,
            logged: 0,
            log_dropped: 0,
            wasi: None,
        }
    }

    /// Asked at every tick: the limit that has been reached, or how the guest goes on.
    pub fn tick(&self) -> Result<UpdateDeadline, Stop> {
        let used = self.pace.used_at_tick();
        if let Some(stop) = self.stopped {
            Err(stop)
        } else if used >= self.limits.cpu {
            Err(Stop::Cpu)
        } else if Instant::now() >= self.deadline {
            Err(Stop::Deadline)
        } else {
            Ok(self.pace.next(used))
        }
    }

    /// The highest number of bytes that lay in /tmp.
    pub fn storage_peak(&self) -> u64 {
        self.files.as_ref().map_or(0, |files| files.peak())
    }

    /// Files and the table that they are opened in.
    pub fn files(&mut self) -> FilesView<'_> {
        let Self {
            files,
            source,
            limits,
            wasi,
            meter,
            stopped,
            ..
        } = self;
        // As with WASI: most never ask.
        let files = files.get_or_insert_with(|| Box::new(Files::new(source.take(), limits)));
        FilesView::new(files, &mut Wasi::made(wasi, meter, stopped).table)
    }
}

impl Wasi {
    /// Made when the guest first asks, since most never do.
    fn made<'a>(
        wasi: &'a mut Option<Box<Self>>,
        meter: &mut Meter,
        stopped: &mut Option<Stop>,
    ) -> &'a mut Self {
        wasi.get_or_insert_with(|| {
            *stopped = meter.charge(RESOURCES_BYTES).err();
            let mut table = ResourceTable::new();
            table.set_max_capacity(RESOURCES);
            Box::new(Self {
                ctx: WasiCtxBuilder::new().max_random_size(RANDOM).build(),
                table,
            })
        })
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        if let (Some(files), Some(wasi)) = (&mut self.files, self.wasi.take()) {
            files.close(wasi.table);
        }
        if self.log_dropped > 0 {
            tracing::warn!(
                target: "worker", worker = %self.worker, request_id = %self.request,
                lines = self.log_dropped, "log lines dropped: over {LOG_TOTAL} bytes in one invocation"
            );
        }
    }
}

/// WASI with nothing in it: no arguments, no variables, no files, closed standard streams.
impl WasiView for Guest {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        let wasi = Wasi::made(&mut self.wasi, &mut self.meter, &mut self.stopped);
        WasiCtxView {
            ctx: &mut wasi.ctx,
            table: &mut wasi.table,
        }
    }
}

impl types::Host for Guest {}

impl log::Host for Guest {
    fn write(&mut self, level: log::Level, message: String) -> wasmtime::Result<()> {
        self.handed.hand(message.len())?;
        let line = escaped(&message);
        self.logged = self.logged.saturating_add(line.len());
        if self.logged > LOG_TOTAL {
            self.log_dropped += 1;
            return Ok(());
        }
        // A macro and not a function: tracing wants the level at compile time.
        macro_rules! emit {
            ($level:expr) => {
                tracing::event!(target: "worker", $level, worker = %self.worker, request_id = %self.request, "{line}")
            };
        }
        match level {
            log::Level::Trace => emit!(Level::TRACE),
            log::Level::Debug => emit!(Level::DEBUG),
            log::Level::Info => emit!(Level::INFO),
            log::Level::Warn => emit!(Level::WARN),
            log::Level::Error => emit!(Level::ERROR),
        }
        Ok(())
    }

    fn panicked(&mut self, message: String) -> wasmtime::Result<()> {
        self.handed.hand(message.len())?;
        self.panic = Some(escaped(&message));
        Ok(())
    }
}

/// Waits until so many bytes may go out.
pub(super) async fn paced(
    bandwidth: &Bandwidth,
    bytes: usize,
    deadline: Instant,
) -> Result<(), Stop> {
    let now = Instant::now();
    match bandwidth.take(bytes, now, deadline.saturating_duration_since(now)) {
        None => Err(Stop::Bandwidth),
        Some(Duration::ZERO) => Ok(()),
        Some(wait) => {
            tokio::time::sleep(wait).await;
            Ok(())
        }
    }
}

/// A guest's text as one line of a log: cut, control characters escaped.
pub(super) fn escaped(text: &str) -> String {
    let cut = text.floor_char_boundary(LOG_LINE);
    let mut line = String::with_capacity(cut);
    for c in text[..cut].chars() {
        if c.is_control() {
            line.extend(c.escape_default());
        } else {
            line.push(c);
        }
    }
    if cut < text.len() {
        line.push('…');
    }
    line
}
