//! Runs on a device: checked before, metered while, read back after.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, oneshot};
use wgpu::BufferUsages;

use super::account::Backing;
use super::device::{Compiled, Opened, invalid};
use super::shader::{METER_GROUP, Slot};
use super::{Binding, Device, Dispatch, Error, Ran, Read, Run};
use crate::limits::Held;

/// Dispatches of one run.
const DISPATCHES: usize = 1024;

/// Where what is read back will lie, and word that it does.
struct Started {
    staging: wgpu::Buffer,
    layout: Layout,
    mapped: oneshot::Receiver<Result<(), wgpu::BufferAsyncError>>,
    _held: Arc<Held>,
}

impl Device {
    /// Runs dispatches in order and reads back what they made. Dropping the future leaves the work, which
    /// fuel bounds, to the GPU.
    ///
    /// # Errors
    ///
    /// A mistake of the worker's, fuel that was spent, or a GPU that failed.
    pub async fn run(&self, run: Run) -> Result<Ran, Error> {
        self.0.check(&run)?;
        let turn = self.alive(self.0.turns.clone().acquire_owned()).await?;
        let turn = turn.map_err(|_| Error::Lost)?;
        let Started {
            staging,
            layout,
            mapped,
            _held,
        } = self.ask(move |opened| opened.start(run, turn)).await?;
        let mapped = self.alive(mapped).await?.map_err(|_| Error::Lost)?;
        let view = mapped.and_then(|()| {
            let view = staging.get_mapped_range(..);
            view.map_err(|_| wgpu::BufferAsyncError)
        });
        let Ok(view) = view else {
            self.0.lost.cancel();
            return Err(Error::Lost);
        };
        layout.read(&view, self.0.period)
    }
}

impl Opened {
    /// Hands a run to the GPU. Its turn and what it takes are held until the GPU has done it, whoever still
    /// waits.
    fn start(&self, run: Run, turn: OwnedSemaphorePermit) -> Result<Started, Error> {
        let layout = Layout::new(&run);
        let (staging, submission) = self.scoped(|| self.submit(&run, &layout))?;
        let held = Arc::new(run.held);
        let (done, mapped) = oneshot::channel();
        let taken = (turn, backings(run.dispatches, run.reads), held.clone());
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            drop(taken);
            // Whoever asked may be gone.
            let _ = done.send(result);
        });
        self.wait(submission)?;
        Ok(Started {
            staging,
            layout,
            mapped,
            _held: held,
        })
    }

    fn check(&self, run: &Run) -> Result<(), Error> {
        let Run {
            dispatches, reads, ..
        } = run;
        if dispatches.len() > DISPATCHES || reads.len() > DISPATCHES {
            return Err(invalid(format!(
                "more than {DISPATCHES} dispatches or reads in one run"
            )));
        }
        for dispatch in dispatches {
            self.check_dispatch(dispatch)?;
        }
        for read in reads {
            read.buffer.part(read.offset, read.size)?;
        }
        Ok(())
    }

    fn check_dispatch(&self, dispatch: &Dispatch) -> Result<(), Error> {
        let most = self.found.max_workgroups;
        if dispatch
            .workgroups
            .iter()
            .any(|&count| count == 0 || count > most)
        {
            return Err(invalid(format!(
                "{:?} workgroups; this GPU takes 1 to {most} in each dimension",
                dispatch.workgroups
            )));
        }
        if dispatch.fuel > self.found.most_fuel() {
            return Err(invalid(format!(
                "{} of fuel; a thread may have {} on this GPU",
                dispatch.fuel,
                self.found.most_fuel()
            )));
        }
        let slots = &dispatch.pipeline.0.shader.slots;
        let bound: BTreeMap<u32, &Binding> = dispatch
            .bindings
            .iter()
            .map(|binding| (binding.slot, binding))
            .collect();
        if bound.len() != dispatch.bindings.len() || !bound.keys().eq(slots.keys()) {
            let used: Vec<u32> = slots.keys().copied().collect();
            let given = dispatch.bindings.iter().map(|binding| binding.slot);
            let given: Vec<u32> = given.collect();
            return Err(invalid(format!(
                "the shader uses the slots {used:?}, bound are {given:?}"
            )));
        }
        let mut written = Vec::new();
        for (slot, binding) in &bound {
            let stride = self.stride;
            binding.buffer.part(binding.offset, binding.size)?;
            if !binding.offset.is_multiple_of(stride) {
                return Err(invalid(format!(
                    "slot {slot}: the offset must be a multiple of {stride}"
                )));
            }
            if slots.get(slot) == Some(&Slot::Write) {
                if binding.buffer.kept {
                    return Err(invalid(format!(
                        "slot {slot}: the shader would write a kept buffer"
                    )));
                }
                written.push(&binding.buffer.buffer);
            }
        }
        let read = bound
            .iter()
            .filter(|(slot, _)| slots.get(slot) != Some(&Slot::Write));
        for (slot, binding) in read {
            if written.contains(&&binding.buffer.buffer) {
                return Err(invalid(format!(
                    "slot {slot}: a buffer is read and written in one dispatch"
                )));
            }
        }
        Ok(())
    }

    fn submit(&self, run: &Run, layout: &Layout) -> (wgpu::Buffer, wgpu::SubmissionIndex) {
        let Run {
            dispatches, reads, ..
        } = run;
        let usage = BufferUsages::MAP_READ | BufferUsages::COPY_DST;
        let staging = self.plain(layout.size, usage);
        let meters = self.plain(
            self.stride * (dispatches.len() as u64).max(1),
            BufferUsages::STORAGE | BufferUsages::COPY_SRC | BufferUsages::COPY_DST,
        );
        let clock = self.period.map(|_| {
            self.device.create_query_set(&wgpu::QuerySetDescriptor {
                label: None,
                ty: wgpu::QueryType::Timestamp,
                count: 2,
            })
        });
        let mut encoder = self.device.create_command_encoder(&Default::default());
        if !dispatches.is_empty() {
            let writes = clock
                .as_ref()
                .map(|query_set| wgpu::ComputePassTimestampWrites {
                    query_set,
                    beginning_of_pass_write_index: Some(0),
                    end_of_pass_write_index: Some(1),
                });
            let descriptor = wgpu::ComputePassDescriptor {
                label: None,
                timestamp_writes: writes,
            };
            let mut pass = encoder.begin_compute_pass(&descriptor);
            for (at, dispatch) in dispatches.iter().enumerate() {
                self.dispatch(&mut pass, dispatch, &meters, at as u64 * self.stride);
            }
        }
        for at in 0..dispatches.len() as u64 {
            encoder.copy_buffer_to_buffer(&meters, at * self.stride + 4, &staging, at * 4, 4);
        }
        if let (Some(clock), false) = (&clock, dispatches.is_empty()) {
            let times = self.plain(16, BufferUsages::QUERY_RESOLVE | BufferUsages::COPY_SRC);
            encoder.resolve_query_set(clock, 0..2, &times, 0);
            encoder.copy_buffer_to_buffer(&times, 0, &staging, layout.clock, 16);
        }
        for (read, (at, size)) in reads.iter().zip(&layout.reads) {
            encoder.copy_buffer_to_buffer(&read.buffer.buffer, read.offset, &staging, *at, *size);
        }
        (staging, self.queue.submit([encoder.finish()]))
    }

    fn dispatch(
        &self,
        pass: &mut wgpu::ComputePass<'_>,
        dispatch: &Dispatch,
        meters: &wgpu::Buffer,
        meter: u64,
    ) {
        let Compiled { shader, pipeline } = &*dispatch.pipeline.0;
        let group = |index, entries: &[_]| {
            self.device.create_bind_group(&wgpu::BindGroupDescriptor {
                label: None,
                layout: &pipeline.get_bind_group_layout(index),
                entries,
            })
        };
        let entry = |binding, buffer, offset, size| wgpu::BindGroupEntry {
            binding,
            resource: wgpu::BindingResource::Buffer(wgpu::BufferBinding {
                buffer,
                offset,
                size: std::num::NonZeroU64::new(size),
            }),
        };
        let entries: Vec<_> = dispatch
            .bindings
            .iter()
            .map(|at| entry(at.slot, &at.buffer.buffer, at.offset, at.size))
            .collect();
        pass.set_pipeline(pipeline);
        pass.set_bind_group(0, &group(0, &entries), &[]);
        if shader.counters > 0 {
            self.queue
                .write_buffer(meters, meter, &dispatch.fuel.to_le_bytes());
            pass.set_bind_group(
                METER_GROUP,
                &group(METER_GROUP, &[entry(0, meters, meter, 8)]),
                &[],
            );
        }
        let [x, y, z] = dispatch.workgroups;
        pass.dispatch_workgroups(x, y, z);
    }
}

/// What the memory that a run works on is charged to.
fn backings(dispatches: Vec<Dispatch>, reads: Vec<Read>) -> Vec<Backing> {
    let bindings = dispatches.into_iter().flat_map(|at| at.bindings);
    let bound = bindings.map(|binding| binding.buffer.backing);
    let read = reads.into_iter().map(|read| read.buffer.backing);
    bound.chain(read).collect()
}

/// Where things lie in what is read back: the meters' words, the clock's two, then each read.
struct Layout {
    meters: u64,
    clock: u64,
    reads: Vec<(u64, u64)>,
    size: u64,
}

impl Layout {
    fn new(run: &Run) -> Self {
        let meters = run.dispatches.len() as u64;
        let clock = (meters * 4).next_multiple_of(8);
        let mut size = clock + 16;
        let place = |read: &Read| {
            let at = size;
            size += read.size;
            (at, read.size)
        };
        Self {
            meters,
            clock,
            reads: run.reads.iter().map(place).collect(),
            size,
        }
    }

    /// What it says, in bytes that came back; `period` is a turn of the GPU's clock in nanoseconds.
    fn read(&self, bytes: &[u8], period: Option<f32>) -> Result<Ran, Error> {
        let word = |at: u64| word(bytes, at);
        if (0..self.meters).any(|meter| word(meter * 4) != 0) {
            return Err(Error::Fuel);
        }
        let took = period.filter(|_| self.meters > 0).map(|period| {
            let [from, to] = [self.clock, self.clock + 8]
                .map(|at| u64::from(word(at)) | u64::from(word(at + 4)) << 32);
            Duration::from_nanos((to.saturating_sub(from) as f64 * f64::from(period)) as u64)
        });
        let parts = self.reads.iter().map(|(at, size)| part(bytes, *at, *size));
        Ok(Ran {
            bytes: parts.collect(),
            took,
        })
    }
}

fn word(bytes: &[u8], at: u64) -> u32 {
    let at = usize::try_from(at).unwrap_or(usize::MAX);
    let word = bytes.get(at..).and_then(|rest| rest.first_chunk());
    u32::from_le_bytes(word.copied().unwrap_or_default())
}

fn part(bytes: &[u8], at: u64, size: u64) -> Vec<u8> {
    let [from, to] = [at, at + size].map(|at| usize::try_from(at).unwrap_or(usize::MAX));
    bytes.get(from..to).unwrap_or_default().to_vec()
}
