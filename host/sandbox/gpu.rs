//! `crank:gpu/compute` for one invocation: its buffers, its work, its time.

use std::sync::Arc;
use std::time::{Duration, Instant};

use wasmtime::component::Resource;
use wasmtime_wasi::WasiView;

use super::Guest;
use crate::bindings::crank::gpu::compute;
use crate::capability::GpuType;
use crate::engine::Engine;
use crate::gpu::{
    Account, Binding, Buffer, Device, Dispatch, Error, Paid, Pipeline, Read, Run, Seat,
};
use crate::limits::{Held, Stop};

/// Pipelines that one invocation may compile: each takes a driver's time and memory.
const PIPELINES: usize = 64;
/// What a handle takes in the host and in the driver, in bytes.
const HANDLE: u64 = 4 << 10;

/// One invocation's part of its worker's GPU.
pub(super) struct Work {
    seat: Arc<Seat>,
    engine: Engine,
    /// Opened at the first call.
    device: Option<Device>,
    memory: Arc<Account>,
    deadline: Instant,
    /// Steps that it may still take, as far as the time is not shorter.
    steps: u64,
    pipelines: usize,
    took: Duration,
}

impl Work {
    /// Work within so many bytes of buffers, until the deadline.
    pub fn new(seat: Arc<Seat>, engine: Engine, limit: u64, deadline: Instant) -> Self {
        Self {
            seat,
            engine,
            device: None,
            memory: Account::new(limit),
            deadline,
            steps: u64::MAX,
            pipelines: 0,
            took: Duration::ZERO,
        }
    }

    /// The most bytes that its buffers had.
    pub fn peak(&self) -> u64 {
        self.memory.peak()
    }

    /// How long the GPU worked for it.
    pub fn took(&self) -> Duration {
        self.took
    }

    /// Steps that it may still take: no more than fit into the time that is left.
    fn left(&self) -> u64 {
        let left = self.deadline.saturating_duration_since(Instant::now());
        self.steps
            .min(self.seat.adapter.found.work(left.as_secs_f64()))
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

impl Guest {
    fn work(&mut self) -> wasmtime::Result<&mut Work> {
        let missing = "an invocation without a GPU was linked to one";
        self.gpu
            .as_deref_mut()
            .ok_or_else(|| wasmtime::Error::msg(missing))
    }

    async fn device(&mut self) -> wasmtime::Result<Device> {
        let work = self.work()?;
        if let Some(device) = &work.device {
            return Ok(device.clone());
        }
        let opened = work.seat.device().await;
        let device = opened.map_err(|_| Stop::Lost)?;
        work.device = Some(device.clone());
        Ok(device)
    }

    /// Pays for a buffer of so many bytes, before it is made.
    async fn pay(&mut self, device: &Device, bytes: u64) -> wasmtime::Result<Paid> {
        let work = self.work()?;
        let paid = device.alive(work.memory.take(bytes)).await;
        let paid = paid.map_err(|_| Stop::Lost)?.ok_or(Stop::Gpu)?;
        Ok(match work.seat.adapter.found.is_software() {
            true => paid.in_host(self.hold(bytes)?),
            false => paid,
        })
    }

    /// Charges the host for bytes that may be under way when the invocation is over.
    fn hold(&self, bytes: u64) -> Result<Held, Stop> {
        self.meter.budget().hold(bytes).ok_or(Stop::Budget)
    }

    /// Hands a buffer to the guest, if it was made.
    fn made(&mut self, made: Result<Buffer, Error>) -> Told<Resource<Buffer>> {
        match told(made)? {
            Ok(buffer) => Ok(Ok(self.entry(buffer)?)),
            Err(error) => Ok(Err(error)),
        }
    }

    /// A pipeline that was compiled before, or is now, in its turn.
    async fn compiled(
        &mut self,
        (engine, device): (&Engine, &Device),
        wgsl: String,
        entry: String,
    ) -> Result<Pipeline, Error> {
        if let Some(pipeline) = device.compiled(&wgsl, &entry) {
            return Ok(pipeline);
        }
        let turn = device.turn().await?;
        // Another invocation may have done so meanwhile.
        if let Some(pipeline) = device.compiled(&wgsl, &entry) {
            return Ok(pipeline);
        }
        if let Err(costly) = engine.read_shader(&wgsl, &entry).await {
            tracing::warn!(worker = %self.worker, request_id = %self.request, "a shader: {costly}");
            let message = "the shader costs more time or memory to read than it may";
            return Err(Error::Invalid(message.to_owned()));
        }
        device.compile(turn, wgsl, entry).await
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
            memory_left: work.memory.left(),
            work_left: work.left(),
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
                    buffer: table.get(&binding.buffer)?.memory(),
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
                buffer: table.get(&read.buffer)?.memory(),
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
        // Where the GPU puts it, and what the guest is handed.
        let held = self.hold(bytes.saturating_mul(2))?;
        let steps = device.work(&ready);
        let work = self.work()?;
        work.steps = work.left().checked_sub(steps).ok_or(Stop::Gpu)?;
        let run = Run {
            dispatches: ready,
            reads: reading,
            held,
        };
        Ok(match told(device.run(run).await)? {
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
        let engine = work.engine.clone();
        let compiled = self.compiled((&engine, &device), wgsl, entry).await;
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
        let device = self.device().await?;
        let paid = self.pay(&device, size).await?;
        let made = device.buffer(size, paid).await;
        self.made(made)
    }

    async fn write(&mut self, buffer: Resource<Buffer>, offset: u64, bytes: Vec<u8>) -> Told<()> {
        self.handed.hand(bytes.len())?;
        let device = self.device().await?;
        let memory = self.ctx().table.get(&buffer)?.memory();
        let held = self.hold(bytes.len() as u64)?;
        told(device.write(memory, offset, bytes, held).await)
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
        let device = self.device().await?;
        let paid = self.pay(&device, bytes.len() as u64).await?;
        let held = self.hold(bytes.len() as u64)?;
        let made = device.keep(bytes, paid, held).await;
        self.made(made)
    }

    fn drop(&mut self, buffer: Resource<Buffer>) -> wasmtime::Result<()> {
        self.ctx().table.delete(buffer)?;
        Ok(())
    }
}
