//! Runs on a device: checked before, metered while, read back after.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::sync::oneshot;
use wgpu::BufferUsages;

use super::device::{Compiled, invalid};
use super::shader::{METER_GROUP, Slot};
use super::{Binding, Device, Dispatch, Error, Ran, Read};

/// Dispatches of one run.
const DISPATCHES: usize = 1024;

impl Device {
    /// Runs dispatches in order and reads back what they made. Dropping the future leaves the work, which
    /// fuel bounds, to the GPU.
    ///
    /// # Errors
    ///
    /// A mistake of the worker's, fuel that was spent, or a GPU that failed.
    pub async fn run(&self, dispatches: &[Dispatch], reads: &[Read]) -> Result<Ran, Error> {
        self.check(dispatches, reads)?;
        // Never closed.
        let turn = self.turns.clone().acquire_owned().await;
        let (meters, layout) = (dispatches.len() as u64, Layout::new(dispatches, reads));
        let (staging, index) = self.scoped(|| self.submit(dispatches, reads, &layout))?;
        let (done, mapped) = oneshot::channel();
        staging.map_async(wgpu::MapMode::Read, .., move |result| {
            drop(turn);
            // Whoever asked may be gone.
            let _ = done.send(result);
        });
        self.waiter.send(index).map_err(|_| Error::Lost)?;
        mapped
            .await
            .map_err(|_| Error::Lost)?
            .map_err(|_| Error::Lost)?;
        let view = staging.get_mapped_range(..).map_err(|_| Error::Lost)?;
        let word = |at: u64| word(&view, at);
        if (0..meters).any(|meter| word(meter * 4) != 0) {
            return Err(Error::Fuel);
        }
        let bytes = layout
            .reads
            .iter()
            .map(|(at, size)| part(&view, *at, *size))
            .collect();
        let took = self.period.filter(|_| meters > 0).map(|period| {
            let [from, to] = [layout.clock, layout.clock + 8]
                .map(|at| u64::from(word(at)) | u64::from(word(at + 4)) << 32);
            Duration::from_nanos((to.saturating_sub(from) as f64 * f64::from(period)) as u64)
        });
        Ok(Ran { bytes, took })
    }

    fn check(&self, dispatches: &[Dispatch], reads: &[Read]) -> Result<(), Error> {
        if dispatches.len() > DISPATCHES || reads.len() > DISPATCHES {
            return Err(invalid(format!(
                "more than {DISPATCHES} dispatches or reads in one run"
            )));
        }
        for dispatch in dispatches {
            self.check_dispatch(dispatch)?;
        }
        for read in reads {
            read.buffer.part(read.offset, read.size, 4)?;
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
            let names = |slots: Vec<u32>| format!("{slots:?}");
            return Err(invalid(format!(
                "the shader uses the slots {}, bound are {}",
                names(slots.keys().copied().collect()),
                names(
                    dispatch
                        .bindings
                        .iter()
                        .map(|binding| binding.slot)
                        .collect()
                )
            )));
        }
        let mut written = Vec::new();
        for (slot, binding) in &bound {
            let stride = self.stride;
            binding.buffer.part(binding.offset, binding.size, 4)?;
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

    fn submit(
        &self,
        dispatches: &[Dispatch],
        reads: &[Read],
        layout: &Layout,
    ) -> (wgpu::Buffer, wgpu::SubmissionIndex) {
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

/// Where things lie in what is read back: the meters' words, the clock's two, then each read.
struct Layout {
    clock: u64,
    reads: Vec<(u64, u64)>,
    size: u64,
}

impl Layout {
    fn new(dispatches: &[Dispatch], reads: &[Read]) -> Self {
        let clock = (dispatches.len() as u64 * 4).next_multiple_of(8);
        let mut size = clock + 16;
        let mut place = |read: &Read| {
            let at = size;
            size += read.size;
            (at, read.size)
        };
        let reads = reads.iter().map(&mut place).collect();
        Self { clock, reads, size }
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
