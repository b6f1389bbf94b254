//! One worker's device: its pipelines, its kept buffers, and the runs on it.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use wgpu::{BufferUsages, ErrorFilter};

use super::cache::Cache;
use super::shader::{Shader, Slot};
use super::{Adapter, Found};

/// Runs of one worker that lie with its GPU at once.
const TURNS: usize = 4;
/// Shaders of one worker that are compiled at once.
const COMPILING: usize = 2;
/// What a dispatch takes beside what its threads do, in steps.
const DISPATCH: u64 = 100_000;
/// Pipelines that a worker keeps.
const PIPELINES: u64 = 64;

/// A device of a worker's own.
pub struct Device {
    /// The GPU that it is on.
    pub found: Found,
    /// Turns to have work under way: held until the GPU has done it, whoever still waits.
    pub(super) turns: Arc<Semaphore>,
    /// Turns to compile.
    pub compiling: Arc<Semaphore>,
    pub(super) device: wgpu::Device,
    pub(super) queue: wgpu::Queue,
    /// Nanoseconds of one turn of the GPU's clock, if it has one.
    pub(super) period: Option<f32>,
    /// Where one dispatch's meter may start after another's, in bytes.
    pub(super) stride: u64,
    lost: Arc<AtomicBool>,
    pipelines: Mutex<Cache<[u8; 32], Pipeline>>,
    kept: Mutex<Cache<[u8; 32], Buffer>>,
    /// To the thread that waits for the GPU.
    pub(super) waiter: mpsc::Sender<wgpu::SubmissionIndex>,
}

/// A metered shader, compiled for one device. A clone is another handle to the same.
#[derive(Clone)]
pub struct Pipeline(pub(super) Arc<Compiled>);

pub(super) struct Compiled {
    pub shader: Shader,
    pub pipeline: wgpu::ComputePipeline,
}

/// Memory of the GPU. A clone is another handle to the same.
#[derive(Clone)]
pub struct Buffer {
    pub(super) buffer: wgpu::Buffer,
    /// It outlives the invocation, and is never written again.
    pub(super) kept: bool,
    /// Whose invocation pays for it.
    charged: bool,
}

/// A buffer, or a part of it, where a shader expects it.
pub struct Binding {
    /// In group 0.
    pub slot: u32,
    /// The buffer.
    pub buffer: Buffer,
    /// In bytes.
    pub offset: u64,
    /// In bytes; 0 is the rest.
    pub size: u64,
}

/// One shader over many threads.
pub struct Dispatch {
    /// What runs.
    pub pipeline: Pipeline,
    /// What it works on.
    pub bindings: Vec<Binding>,
    /// How many workgroups in each dimension.
    pub workgroups: [u32; 3],
    /// Turns of loops that one thread may take.
    pub fuel: u32,
}

/// What is read back after a run.
pub struct Read {
    /// From where.
    pub buffer: Buffer,
    /// In bytes.
    pub offset: u64,
    /// In bytes.
    pub size: u64,
}

/// What a run gave.
#[derive(Debug)]
pub struct Ran {
    /// The bytes of each read.
    pub bytes: Vec<Vec<u8>>,
    /// How long the GPU took, where it can tell.
    pub took: Option<Duration>,
}

/// Why something did not happen.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The worker's mistake.
    #[error("{0}")]
    Invalid(String),
    /// A thread spent its fuel.
    #[error(
        "a thread spent its fuel: the shader's loops take more turns than the dispatch allowed"
    )]
    Fuel,
    /// No memory is left on the GPU.
    #[error("the GPU has no memory left")]
    Memory,
    /// The device is gone; the next one will do.
    #[error("the GPU was lost")]
    Lost,
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
    /// Opens a device on a GPU, for a worker that may keep so many bytes there.
    ///
    /// # Errors
    ///
    /// The driver refuses.
    pub async fn open(adapter: &Adapter, kept: u64) -> Result<Self, Error> {
        let found = adapter.found.clone();
        let clock = wgpu::Features::TIMESTAMP_QUERY;
        let descriptor = wgpu::DeviceDescriptor {
            label: None,
            required_features: if found.has_clock {
                clock
            } else {
                wgpu::Features::empty()
            },
            required_limits: adapter.adapter.limits(),
            memory_hints: wgpu::MemoryHints::MemoryUsage,
            ..Default::default()
        };
        let (device, queue) = adapter
            .adapter
            .request_device(&descriptor)
            .await
            .map_err(|_| Error::Lost)?;
        let lost = Arc::new(AtomicBool::new(false));
        let flag = lost.clone();
        device.set_device_lost_callback(move |_, _| flag.store(true, Relaxed));
        // Whatever no scope caught: the device is not to be trusted, but nobody dies of it.
        let flag = lost.clone();
        device.on_uncaptured_error(Arc::new(move |error| {
            tracing::error!("GPU: {error}");
            flag.store(true, Relaxed);
        }));
        Ok(Self {
            period: found.has_clock.then(|| queue.get_timestamp_period()),
            stride: u64::from(device.limits().min_storage_buffer_offset_alignment).max(8),
            waiter: waiter(device.clone(), lost.clone())?,
            found,
            turns: Arc::new(Semaphore::new(TURNS)),
            compiling: Arc::new(Semaphore::new(COMPILING)),
            device,
            queue,
            lost,
            pipelines: Mutex::new(Cache::new(PIPELINES)),
            kept: Mutex::new(Cache::new(kept)),
        })
    }

    /// Whether it can still be used.
    pub fn is_lost(&self) -> bool {
        self.lost.load(Relaxed)
    }

    /// A pipeline that was compiled before.
    pub fn compiled(&self, wgsl: &str, entry: &str) -> Option<Pipeline> {
        locked(&self.pipelines).get(&key(wgsl, entry))
    }

    /// The work of some dispatches, in steps.
    pub fn work(&self, dispatches: &[Dispatch]) -> u64 {
        let parallel = self.found.parallel();
        let one = |dispatch: &Dispatch| {
            let steps = dispatch
                .pipeline
                .steps(dispatch.workgroups, dispatch.fuel, parallel);
            steps.saturating_add(DISPATCH)
        };
        dispatches.iter().map(one).fold(0, u64::saturating_add)
    }

    /// A pipeline of a shader that may be read in this process. Takes its time, and stack.
    ///
    /// # Errors
    ///
    /// The shader may not run.
    pub fn pipeline(&self, wgsl: &str, entry: &str) -> Result<Pipeline, Error> {
        let shader = Shader::compile(wgsl, entry).map_err(Error::Invalid)?;
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

    /// Memory that is all zeroes.
    ///
    /// # Errors
    ///
    /// The size is not possible, or the GPU has no more.
    pub fn buffer(&self, size: u64) -> Result<Buffer, Error> {
        if size == 0 || !size.is_multiple_of(4) || size > self.found.max_buffer {
            return Err(invalid(format!(
                "a buffer of {size} bytes; it must be a multiple of 4, and at most {}",
                self.found.max_buffer
            )));
        }
        let usage = BufferUsages::STORAGE
            | BufferUsages::UNIFORM
            | BufferUsages::COPY_SRC
            | BufferUsages::COPY_DST;
        let buffer = self.scoped(|| self.plain(size, usage))?;
        Ok(Buffer {
            buffer,
            kept: false,
            charged: true,
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

    /// Fills a part of a buffer.
    ///
    /// # Errors
    ///
    /// It does not fit, or the buffer is kept.
    pub fn write(&self, to: &Buffer, offset: u64, bytes: &[u8]) -> Result<(), Error> {
        if to.kept {
            return Err(invalid("a kept buffer is never written again"));
        }
        to.part(offset, bytes.len() as u64, 4)?;
        self.scoped(|| {
            self.queue.write_buffer(&to.buffer, offset, bytes);
            // What waits for the next run takes memory of the host until then.
            self.queue.submit([]);
        })
    }

    /// A buffer that this worker kept before.
    pub fn kept(&self, hash: &[u8; 32]) -> Option<Buffer> {
        let found = locked(&self.kept).get(hash)?;
        Some(Buffer {
            charged: false,
            ..found
        })
    }

    /// Keeps bytes on the GPU between invocations; found again by their SHA-256.
    ///
    /// # Errors
    ///
    /// As for [`Device::buffer`].
    pub fn keep(&self, bytes: &[u8]) -> Result<Buffer, Error> {
        let hash: [u8; 32] = Sha256::digest(bytes).into();
        if let Some(buffer) = self.kept(&hash) {
            return Ok(buffer);
        }
        let mut buffer = self.buffer(bytes.len() as u64)?;
        self.write(&buffer, 0, bytes)?;
        buffer.kept = true;
        locked(&self.kept).insert(hash, buffer.clone(), bytes.len() as u64);
        Ok(buffer)
    }

    /// Does something with the driver; what it complains of is an error and no panic. Nothing waits
    /// between the beginning and the end.
    pub(super) fn scoped<T>(&self, act: impl FnOnce() -> T) -> Result<T, Error> {
        if self.is_lost() {
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
            let error = futures_util::FutureExt::now_or_never(scope.pop()).flatten();
            first = first.or(error);
        }
        match first {
            None if self.is_lost() => Err(Error::Lost),
            None => Ok(done),
            Some(wgpu::Error::OutOfMemory { .. }) => Err(Error::Memory),
            Some(wgpu::Error::Validation { description, .. }) => Err(invalid(description)),
            Some(wgpu::Error::Internal { description, .. }) => Err(invalid(description)),
        }
    }
}

impl Buffer {
    /// Whether the invocation that holds it pays for it: not what an earlier one kept.
    pub fn is_charged(&self) -> bool {
        self.charged
    }

    /// Its size in bytes.
    pub fn size(&self) -> u64 {
        self.buffer.size()
    }

    pub(super) fn part(&self, offset: u64, size: u64, align: u64) -> Result<(), Error> {
        let end = offset
            .checked_add(size)
            .filter(|&end| end <= self.size() && offset < self.size());
        if end.is_none() || !offset.is_multiple_of(align) || !size.is_multiple_of(align) {
            return Err(invalid(format!(
                "{size} bytes at {offset} of a buffer of {}: both must be multiples of {align}, and lie inside",
                self.size()
            )));
        }
        Ok(())
    }
}

impl Pipeline {
    /// The most that a dispatch of it does, in steps.
    fn steps(&self, workgroups: [u32; 3], fuel: u32, parallel: u64) -> u64 {
        self.0.shader.work(workgroups, fuel, parallel)
    }
}

/// The thread that waits for one device, so that no thread of the runtime does. It ends with the device.
fn waiter(
    device: wgpu::Device,
    lost: Arc<AtomicBool>,
) -> Result<mpsc::Sender<wgpu::SubmissionIndex>, Error> {
    let (sender, submissions) = mpsc::channel();
    let wait = move || {
        for submission in submissions {
            let poll = wgpu::PollType::Wait {
                submission_index: Some(submission),
                timeout: None,
            };
            // It panics where a device was lost.
            let polled = catch_unwind(AssertUnwindSafe(|| device.poll(poll)));
            if !matches!(polled, Ok(Ok(_))) {
                tracing::error!("GPU: what was submitted is not waited for: the device is lost");
                lost.store(true, Relaxed);
            }
        }
    };
    std::thread::Builder::new()
        .name("crank-gpu".to_owned())
        .spawn(wait)
        .map_err(|_| Error::Lost)?;
    Ok(sender)
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
