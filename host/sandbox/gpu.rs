//! `crank:gpu/compute` for one invocation: its buffers, its work, its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;
use tokio::task::JoinError;
use wasmtime::component::Resource;
use wasmtime_wasi::WasiView;

use super::Guest;
use crate::bindings::crank::gpu::compute;
use crate::capability::GpuType;
use crate::engine::Engine;
use crate::gpu::{Binding, Buffer, Device, Dispatch, Error, Hidden, Pipeline, Read, Seat};
use crate::limits::{Budget, Held, Stop};

/// Pipelines that one invocation may compile: each takes a driver's time and memory.
const PIPELINES: usize = 64;
/// The stack of a thread that compiles: naga and drivers recurse over what they read.
const STACK: usize = 64 << 20;
/// What a handle takes in the host and in the driver, in bytes.
const HANDLE: u64 = 4 << 10;

/// One invocation's part of its worker's GPU.
pub(super) struct Work {
    seat: Arc<Seat>,
    engine: Engine,
    /// Opened at the first call.
    device: Option<Hidden<Device>>,
    /// Bytes in its buffers, and the most that there were.
    memory: u64,
    peak: u64,
    limit: u64,
    /// Steps that it may still take.
    left: u64,
    pipelines: usize,
    took: Duration,
    /// The host's memory that the buffers of a software GPU lie in, as far as they have come at once.
    held: Vec<Held>,
}

impl Work {
    /// Work within so many bytes of buffers, until the deadline.
    pub fn new(seat: Arc<Seat>, engine: Engine, limit: u64, deadline: Instant) -> Self {
        let left = deadline.saturating_duration_since(Instant::now());
        Self {
            left: seat.adapter.work(left.as_secs_f64()),
            seat,
            engine,
            device: None,
            memory: 0,
            peak: 0,
            limit,
            pipelines: 0,
            took: Duration::ZERO,
            held: Vec::new(),
        }
    }

    /// The most bytes that its buffers had.
    pub fn peak(&self) -> u64 {
        self.peak
    }

    /// How long the GPU worked for it.
    pub fn took(&self) -> Duration {
        self.took
    }

    fn take(&mut self, bytes: u64, budget: &Arc<Budget>) -> Result<(), Stop> {
        let memory = self.memory.saturating_add(bytes);
        if memory > self.limit {
            return Err(Stop::Gpu);
        }
        let more = memory.saturating_sub(self.peak);
        if more > 0 && self.seat.adapter.found.kind == Some(GpuType::Software) {
            self.held.push(budget.hold(more).ok_or(Stop::Budget)?);
        }
        self.memory = memory;
        self.peak = self.peak.max(memory);
        Ok(())
    }
}

/// The outer error ends the invocation, the inner one is the guest's to handle.
type Told<T> = wasmtime::Result<Result<T, compute::Error>>;

/// What became of something on the GPU.
fn told<T>(done: Result<T, Error>) -> Told<T> {
    match done {
        Ok(done) => Ok(Ok(done)),
        Err(Error::Invalid(message)) => Ok(Err(compute::Error::Invalid(message))),
        Err(Error::Fuel | Error::Memory) => Err(Stop::Gpu.into()),
        Err(Error::Lost) => Err(Stop::Lost.into()),
    }
}

/// What a thread beside the runtime's has done.
fn joined<T>(done: Result<Result<T, Error>, JoinError>) -> Told<T> {
    told(done.unwrap_or_else(|panic| {
        tracing::error!("GPU: {panic}");
        Err(Error::Lost)
    }))
}

impl Guest {
    fn work(&mut self) -> wasmtime::Result<&mut Work> {
        let missing = "an invocation without a GPU was linked to one";
        self.gpu
            .as_deref_mut()
            .ok_or_else(|| wasmtime::Error::msg(missing))
    }

    async fn device(&mut self) -> wasmtime::Result<Hidden<Device>> {
        let work = self.work()?;
        if let Some(device) = &work.device {
            return Ok(device.clone());
        }
        let opened = work.seat.device().await;
        let device = opened.map_err(|_| Stop::Lost)?;
        work.device = Some(device.clone());
        Ok(device)
    }

    /// A buffer of so many bytes: counted before it is made, and given back if it is not.
    async fn made(
        &mut self,
        bytes: u64,
        make: impl FnOnce(&Device) -> Result<Buffer, Error> + Send + 'static,
    ) -> Told<Resource<Buffer>> {
        let device = self.device().await?;
        let budget = self.meter.budget().clone();
        self.work()?.take(bytes, &budget)?;
        let made = tokio::task::spawn_blocking(move || make(&device)).await;
        Ok(match joined(made)? {
            Ok(buffer) => {
                if !buffer.is_charged() {
                    self.work()?.memory -= bytes;
                }
                Ok(self.entry(buffer)?)
            }
            Err(error) => {
                self.work()?.memory -= bytes;
                Err(error)
            }
        })
    }

    /// A place in the table for what the guest holds.
    fn entry<T: Send + 'static>(&mut self, value: T) -> wasmtime::Result<Resource<T>> {
        self.meter.charge(HANDLE)?;
        Ok(self.ctx().table.push(value)?)
    }
}

impl compute::Host for Guest {
    async fn get_info(&mut self) -> wasmtime::Result<compute::Info> {
        let work = self.work()?;
        let found = &work.seat.adapter.found;
        Ok(compute::Info {
            name: found.name.clone(),
            gpu_type: match found.kind {
                Some(GpuType::Nvidia) => compute::GpuType::Nvidia,
                Some(GpuType::Amd) => compute::GpuType::Amd,
                Some(GpuType::Intel) => compute::GpuType::Intel,
                Some(GpuType::AppleMetal) => compute::GpuType::AppleMetal,
                Some(GpuType::Software) => compute::GpuType::Software,
                None => compute::GpuType::Other,
            },
            backend: found.backend.clone(),
            memory_left: work.limit - work.memory,
            work_left: work.left,
            max_buffer_bytes: found.max_buffer,
            max_workgroup_invocations: found.max_threads,
            max_workgroups_per_dimension: found.max_workgroups,
            max_fuel: found.most_fuel(),
        })
    }

    async fn run(
        &mut self,
        dispatches: Vec<compute::Dispatch>,
        reads: Vec<compute::Readback>,
    ) -> Told<Vec<Vec<u8>>> {
        let device = self.device().await?;
        let table = self.ctx().table;
        let mut ready = Vec::with_capacity(dispatches.len());
        for dispatch in dispatches {
            let mut bindings = Vec::with_capacity(dispatch.bindings.len());
            for binding in dispatch.bindings {
                bindings.push(Binding {
                    slot: binding.slot,
                    buffer: table.get(&binding.buffer)?.clone(),
                    offset: binding.offset,
                    size: binding.size,
                });
            }
            let (x, y, z) = dispatch.workgroups;
            ready.push(Dispatch {
                pipeline: table.get(&dispatch.pipeline)?.clone(),
                bindings,
                workgroups: [x, y, z],
                fuel: dispatch.fuel,
            });
        }
        let mut reading = Vec::with_capacity(reads.len());
        for read in reads {
            reading.push(Read {
                buffer: table.get(&read.buffer)?.clone(),
                offset: read.offset,
                size: read.size,
            });
        }
        // A read that is too long is a mistake, told by the device; here it is only not to overflow.
        let bytes = reading
            .iter()
            .fold(0_u64, |sum, read| sum.saturating_add(read.size));
        let most = self.limits.output as u64;
        if bytes > most {
            return Ok(Err(compute::Error::Invalid(format!(
                "{bytes} bytes to read in one run; the most is {most}"
            ))));
        }
        self.handed
            .hand(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        let _held = self.meter.hold(bytes.saturating_mul(2))?;
        let steps = device.work(&ready);
        let left = self.deadline.saturating_duration_since(Instant::now());
        let work = self.work()?;
        let left = work.left.min(work.seat.adapter.work(left.as_secs_f64()));
        work.left = left.checked_sub(steps).ok_or(Stop::Gpu)?;
        let ran = told(device.run(&ready, &reading).await)?;
        Ok(match ran {
            Ok(ran) => {
                self.work()?.took += ran.took.unwrap_or_default();
                Ok(ran.bytes)
            }
            Err(error) => Err(error),
        })
    }
}

impl compute::HostPipeline for Guest {
    async fn compile(&mut self, wgsl: String, entry: String) -> Told<Resource<Pipeline>> {
        self.handed.hand(wgsl.len() + entry.len())?;
        let device = self.device().await?;
        let work = self.work()?;
        work.pipelines += 1;
        if work.pipelines > PIPELINES {
            return Err(Stop::Gpu.into());
        }
        if let Some(pipeline) = device.compiled(&wgsl, &entry) {
            return Ok(Ok(self.entry(pipeline)?));
        }
        let engine = work.engine.clone();
        // Never closed; held by the thread, which goes on when the invocation has ended.
        let turn = device.compiling.clone().acquire_owned().await;
        if let Err(costly) = engine.read_shader(&wgsl, &entry).await {
            tracing::warn!(worker = %self.worker, request_id = %self.request, "a shader: {costly}");
            let message = "the shader costs more time or memory to read than it may";
            return Ok(Err(compute::Error::Invalid(message.to_owned())));
        }
        let (done, compiled) = oneshot::channel();
        let compile = move || {
            let _turn = turn;
            // Whoever asked may be gone.
            let _ = done.send(device.pipeline(&wgsl, &entry));
        };
        std::thread::Builder::new()
            .name("crank-shader".to_owned())
            .stack_size(STACK)
            .spawn(compile)
            .map_err(|_| Stop::Lost)?;
        let compiled = compiled.await.unwrap_or(Err(Error::Lost));
        Ok(match told(compiled)? {
            Ok(pipeline) => Ok(self.entry(pipeline)?),
            Err(error) => Err(error),
        })
    }

    fn drop(&mut self, pipeline: Resource<Pipeline>) -> wasmtime::Result<()> {
        self.ctx().table.delete(pipeline)?;
        Ok(())
    }
}

impl compute::HostBuffer for Guest {
    async fn create(&mut self, size: u64) -> Told<Resource<Buffer>> {
        self.made(size, move |device| device.buffer(size)).await
    }

    async fn write(&mut self, buffer: Resource<Buffer>, offset: u64, bytes: Vec<u8>) -> Told<()> {
        self.handed.hand(bytes.len())?;
        let device = self.device().await?;
        let buffer = self.ctx().table.get(&buffer)?.clone();
        let _held = self.meter.hold(bytes.len() as u64)?;
        let written = tokio::task::spawn_blocking(move || device.write(&buffer, offset, &bytes));
        joined(written.await)
    }

    async fn kept(&mut self, sha256: Vec<u8>) -> wasmtime::Result<Option<Resource<Buffer>>> {
        let Ok(hash) = <[u8; 32]>::try_from(sha256) else {
            return Ok(None);
        };
        match self.device().await?.kept(&hash) {
            Some(buffer) => Ok(Some(self.entry(buffer)?)),
            None => Ok(None),
        }
    }

    async fn keep(&mut self, bytes: Vec<u8>) -> Told<Resource<Buffer>> {
        self.handed.hand(bytes.len())?;
        let _held = self.meter.hold(bytes.len() as u64)?;
        self.made(bytes.len() as u64, move |device| device.keep(&bytes))
            .await
    }

    fn drop(&mut self, buffer: Resource<Buffer>) -> wasmtime::Result<()> {
        let buffer = self.ctx().table.delete(buffer)?;
        if buffer.is_charged() {
            let work = self.work()?;
            work.memory = work.memory.saturating_sub(buffer.size());
        }
        Ok(())
    }
}
