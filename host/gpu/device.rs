//! One worker's device: its pipelines, its threads, and how it is lost.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use sha2::{Digest, Sha256};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use wgpu::{BufferUsages, ErrorFilter};

use super::buffer::Memory;
use super::cache::Cache;
use super::hidden::Hidden;
use super::shader::{Shader, Slot};
use super::thread::Thread;
use super::{Adapter, Dispatch, Error, Found};

/// Runs of one worker that lie with its GPU at once.
const TURNS: usize = 4;
/// What a dispatch takes beside what its threads do, in steps.
const DISPATCH: u64 = 100_000;
/// Pipelines that a worker keeps.
const PIPELINES: u64 = 64;
/// The stack of the thread that compiles, in bytes: naga and drivers recurse over what they read.
const DEEP: usize = 64 << 20;
/// The stack of the others, as Rust has it by default.
const STACK: usize = 2 << 20;

/// How a device is opened.
#[derive(Clone, Copy, Debug)]
pub struct Settings {
    /// Bytes that its worker may keep there between invocations.
    pub kept: u64,
    /// Whether loops take fuel. Without it nothing ends them: for comparison alone.
    pub metered: bool,
}

impl Settings {
    /// For a worker that may keep so many bytes.
    pub fn new(kept: u64) -> Self {
        Self {
            kept,
            metered: true,
        }
    }
}

/// A device of a worker's own. A clone is another handle to the same.
#[derive(Clone)]
pub struct Device(pub(super) Hidden<Opened>);

/// What a device is made of: used on its own threads.
pub(super) struct Opened {
    pub found: Found,
    /// Turns to have work under way: held until the GPU has done it, whoever still waits.
    pub turns: Arc<Semaphore>,
    /// The turn to compile.
    compiling: Arc<Semaphore>,
    pub device: wgpu::Device,
    pub queue: wgpu::Queue,
    /// Nanoseconds of one turn of the GPU's clock, if it has one.
    pub period: Option<f32>,
    /// Where one dispatch's meter may start after another's, in bytes.
    pub stride: u64,
    metered: bool,
    pub lost: CancellationToken,
    pipelines: Mutex<Cache<[u8; 32], Pipeline>>,
    pub kept: Mutex<Cache<[u8; 32], Memory>>,
    /// Asks the driver for memory and hands it work.
    hands: Thread,
    compiler: Thread,
    /// Waits for the GPU.
    waiter: Thread,
}

/// A metered shader, compiled for one device. A clone is another handle to the same.
#[derive(Clone)]
pub struct Pipeline(pub(super) Arc<Compiled>);

pub(super) struct Compiled {
    pub shader: Shader,
    pub pipeline: wgpu::ComputePipeline,
}

pub(super) fn invalid(message: impl Into<String>) -> Error {
    Error::Invalid(message.into())
}

/// What a pipeline is found by.
fn key(wgsl: &str, entry: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(entry.as_bytes());
    hash.update([0]);
    hash.update(wgsl.as_bytes());
    hash.finalize().into()
}

impl Device {
    /// Opens a device on a GPU.
    ///
    /// # Errors
    ///
    /// The driver refuses.
    pub async fn open(adapter: &Adapter, settings: Settings) -> Result<Self, Error> {
        let adapter = adapter.clone();
        let open = move || Opened::new(&adapter, settings).map(|opened| Self(Hidden::new(opened)));
        let opened = tokio::task::spawn_blocking(open).await;
        opened.unwrap_or(Err(Error::Lost))
    }

    /// Whether it can no longer be used.
    pub fn is_lost(&self) -> bool {
        self.0.lost.is_cancelled()
    }

    /// Loses it, as a driver does that is reset: what is under way ends as lost, and the next one who asks for a
    /// device gets another. No guest can ask for it.
    pub fn lose(&self) {
        self.0.device.destroy();
        self.0.lost.cancel();
    }

    /// Waits for something, and no longer than there is a device.
    ///
    /// # Errors
    ///
    /// It is lost: what was waited for may never come.
    pub async fn alive<T>(&self, wait: impl Future<Output = T>) -> Result<T, Error> {
        let waited = self.0.lost.run_until_cancelled(wait).await;
        waited.ok_or(Error::Lost)
    }

    /// A pipeline that was compiled before.
    pub fn compiled(&self, wgsl: &str, entry: &str) -> Option<Pipeline> {
        locked(&self.0.pipelines).get(&key(wgsl, entry))
    }

    /// The turn to compile: there is one. It may have been compiled meanwhile.
    ///
    /// # Errors
    ///
    /// The device is lost.
    pub async fn turn(&self) -> Result<OwnedSemaphorePermit, Error> {
        let turn = self.alive(self.0.compiling.clone().acquire_owned()).await?;
        turn.map_err(|_| Error::Lost)
    }

    /// A pipeline of a shader that may be read in this process; the turn ends when it is compiled, also
    /// if nobody waits any longer.
    ///
    /// # Errors
    ///
    /// The shader may not run.
    pub async fn compile(
        &self,
        turn: OwnedSemaphorePermit,
        wgsl: String,
        entry: String,
    ) -> Result<Pipeline, Error> {
        let opened = self.0.clone();
        let compile = move || {
            let _turn = turn;
            opened.pipeline(&wgsl, &entry)
        };
        self.alive(self.0.compiler.ask(compile)).await?
    }

    /// The work of some dispatches, in steps.
    pub fn work(&self, dispatches: &[Dispatch]) -> u64 {
        let parallel = self.0.found.parallel();
        let one = |dispatch: &Dispatch| {
            let shader = &dispatch.pipeline.0.shader;
            let steps = shader.work(dispatch.workgroups, dispatch.fuel, parallel);
            steps.saturating_add(DISPATCH)
        };
        dispatches.iter().map(one).fold(0, u64::saturating_add)
    }

    /// Does something with the driver, on the thread that is there for it.
    pub(super) async fn ask<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Opened) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let opened = self.0.clone();
        self.alive(self.0.hands.ask(move || act(&opened))).await?
    }
}

impl Opened {
    fn new(adapter: &Adapter, settings: Settings) -> Result<Self, Error> {
        let found = adapter.found.clone();
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: if found.has_clock {
                wgpu::Features::TIMESTAMP_QUERY
            } else {
                wgpu::Features::empty()
            },
            required_limits: adapter.adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        // Ready at once where there is no browser.
        let opened = adapter.adapter.request_device(&descriptor).now_or_never();
        let (device, queue) = opened.and_then(Result::ok).ok_or(Error::Lost)?;
        let lost = CancellationToken::new();
        let flag = lost.clone();
        device.set_device_lost_callback(move |_, _| flag.cancel());
        // Whatever no scope caught: the device is not to be trusted, but nobody dies of it.
        let flag = lost.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            tracing::error!("GPU: {error}");
            flag.cancel();
        }));
        let thread = |name, stack| Thread::start(name, stack, lost.clone());
        Ok(Self {
            period: found.has_clock.then(|| queue.get_timestamp_period()),
            stride: u64::from(device.limits().min_storage_buffer_offset_alignment).max(8),
            hands: thread("crank-gpu", STACK)?,
            compiler: thread("crank-shader", DEEP)?,
            waiter: thread("crank-gpu-wait", STACK)?,
            found,
            turns: Arc::new(Semaphore::new(TURNS)),
            compiling: Arc::new(Semaphore::new(1)),
            device,
            queue,
            metered: settings.metered,
            lost,
            pipelines: Mutex::new(Cache::new(PIPELINES)),
            kept: Mutex::new(Cache::new(settings.kept)),
        })
    }

    fn pipeline(&self, wgsl: &str, entry: &str) -> Result<Pipeline, Error> {
        let shader = Shader::compile(wgsl, entry, self.metered).map_err(Error::Invalid)?;
        if shader.threads > u64::from(self.found.max_threads) {
            return Err(invalid(format!(
                "{} threads in a workgroup; this GPU has {}",
                shader.threads, self.found.max_threads
            )));
        }
        let pipeline = self.scoped(|| self.build(&shader))?;
        let pipeline = Pipeline(Arc::new(Compiled { shader, pipeline }));
        locked(&self.pipelines).insert(key(wgsl, entry), pipeline.clone(), 1);
        Ok(pipeline)
    }

    fn build(&self, shader: &Shader) -> wgpu::ComputePipeline {
        let module = self
            .device
            .create_shader_module(wgpu::ShaderModuleDescriptor {
                label: None,
                source: wgpu::ShaderSource::Naga(std::borrow::Cow::Owned(shader.module.clone())),
            });
        let entry = |binding, ty| wgpu::BindGroupLayoutEntry {
            binding,
            visibility: wgpu::ShaderStages::COMPUTE,
            ty: wgpu::BindingType::Buffer {
                ty,
                has_dynamic_offset: false,
                min_binding_size: None,
            },
            count: None,
        };
        let slots: Vec<_> = shader
            .slots
            .iter()
            .map(|(&slot, kind)| match kind {
                Slot::Uniform => entry(slot, wgpu::BufferBindingType::Uniform),
                Slot::Read => entry(slot, wgpu::BufferBindingType::Storage { read_only: true }),
                Slot::Write => entry(slot, wgpu::BufferBindingType::Storage { read_only: false }),
            })
            .collect();
        let meter = [entry(
            0,
            wgpu::BufferBindingType::Storage { read_only: false },
        )];
        let layout = |entries: &[_]| {
            let descriptor = wgpu::BindGroupLayoutDescriptor {
                label: None,
                entries,
            };
            self.device.create_bind_group_layout(&descriptor)
        };
        let groups = [layout(&slots), layout(&meter)];
        let groups = &groups[..if shader.counters > 0 { 2 } else { 1 }];
        let groups: Vec<_> = groups.iter().map(Some).collect();
        let layout = self
            .device
            .create_pipeline_layout(&wgpu::PipelineLayoutDescriptor {
                label: None,
                bind_group_layouts: &groups,
                ..Default::default()
            });
        self.device
            .create_compute_pipeline(&wgpu::ComputePipelineDescriptor {
                label: None,
                layout: Some(&layout),
                module: &module,
                entry_point: None,
                compilation_options: wgpu::PipelineCompilationOptions::default(),
                cache: None,
            })
    }

    pub(super) fn plain(&self, size: u64, usage: BufferUsages) -> wgpu::Buffer {
        self.device.create_buffer(&wgpu::BufferDescriptor {
            label: None,
            size,
            usage,
            mapped_at_creation: false,
        })
    }

    /// Does something with the driver; what it complains of is an error and no panic. Nothing waits
    /// between the beginning and the end.
    pub(super) fn scoped<T>(&self, act: impl FnOnce() -> T) -> Result<T, Error> {
        if self.lost.is_cancelled() {
            return Err(Error::Lost);
        }
        let scopes = [
            ErrorFilter::Validation,
            ErrorFilter::OutOfMemory,
            ErrorFilter::Internal,
        ]
        .map(|filter| self.device.push_error_scope(filter));
        let done = act();
        let mut first = None;
        // The last one that was pushed goes first.
        for scope in scopes.into_iter().rev() {
            let error = scope.pop().now_or_never().flatten();
            first = first.or(error);
        }
        match first {
            None if self.lost.is_cancelled() => Err(Error::Lost),
            None => Ok(done),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::Memory),
            Some(wgpu::Error::Validation { description, .. }) => Err(invalid(description)),
            Some(wgpu::Error::Internal { description, .. }) => Err(invalid(description)),
        }
    }

    /// Lets go of something when the GPU has done what was handed to it last, as this submission.
    pub fn after(&self, submission: wgpu::SubmissionIndex, hold: impl Send + 'static) {
        self.queue.on_submitted_work_done(move || drop(hold));
        // A device without its thread is lost, and with it what it holds.
        let _ = self.wait(submission);
    }

    /// Waits, elsewhere, until the GPU has done what was handed to it: what has to happen then happens there.
    pub fn wait(&self, submission: wgpu::SubmissionIndex) -> Result<(), Error> {
        let (device, lost) = (self.device.clone(), self.lost.clone());
        // Whoever drops a queue last waits for what is on it: then it is that thread.
        let queue = self.queue.clone();
        self.waiter.tell(move || {
            let _queue = queue;
            let poll = wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            };
            // Where a device was lost it panics.
            if device.poll(poll).is_err() {
                lost.cancel();
            }
        })
    }
}

pub(super) fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
