//! A model on the GPU: one run, whatever the number of layers.

use std::collections::BTreeMap;

use crank_worker::Failure;
use crank_worker::gpu::{self, Binding, Buffer, Dispatch, Pipeline, Readback};

use crate::Model;

/// Where the parameters of one layer may begin after another's, in bytes: no GPU asks for more.
const STRIDE: usize = 256;

impl Model<'_> {
    /// Runs the network on one image: `3 x height x width` values, as [`crate::Input`] says. The weights
    /// stay on the GPU between invocations; with `sha256`, that of [`Model::weights`], they are
    /// found there without a look at them.
    ///
    /// # Errors
    ///
    /// The image has not the size of the input, or the GPU does not take the network.
    pub fn run(&self, image: &[f32], sha256: Option<&[u8]>) -> Result<Vec<f32>, Failure> {
        let plan = &self.plan;
        let values = 3 * self.input.height * self.input.width;
        if image.len() != values {
            return Err(Failure::failed(format!(
                "an image of {} values for a network that takes {values}",
                image.len()
            )));
        }
        let kept = sha256.and_then(Buffer::kept);
        let weights = match kept {
            Some(kept) => Some(kept),
            None if self.weights.is_empty() => None,
            None => Some(Buffer::keep(&self.weights)?),
        };
        let mut pipelines = BTreeMap::new();
        for step in &plan.steps {
            if let std::collections::btree_map::Entry::Vacant(entry) = pipelines.entry(step.kernel)
            {
                entry.insert(Pipeline::compile(&step.kernel.wgsl(), "main")?);
            }
        }
        let mut params = vec![0; plan.steps.len() * STRIDE];
        for (step, place) in plan.steps.iter().zip(params.chunks_mut(STRIDE)) {
            let bytes = step.params.bytes();
            place[..bytes.len()].copy_from_slice(&bytes);
        }
        let params = Buffer::keep(&params)?;
        let flow: Vec<Buffer> = plan
            .buffers
            .iter()
            .map(|values| Buffer::create(4 * *values as u64))
            .collect::<Result<_, _>>()?;
        let bytes: Vec<u8> = image.iter().flat_map(|value| value.to_le_bytes()).collect();
        flow[0].write(0, &bytes)?;

        let all = |slot, buffer| Binding {
            slot,
            buffer,
            offset: 0,
            size: 0,
        };
        let dispatches: Vec<Dispatch<'_>> = plan
            .steps
            .iter()
            .enumerate()
            .map(|(at, step)| {
                let own = Binding {
                    slot: 0,
                    buffer: &params,
                    offset: (at * STRIDE) as u64,
                    size: STRIDE as u64,
                };
                let mut bindings = vec![own, all(1, &flow[step.from]), all(3, &flow[step.to])];
                if let Some(weights) = weights.as_ref().filter(|_| step.kernel.has_weights()) {
                    bindings.push(all(2, weights));
                }
                if let Some(with) = step.with {
                    bindings.push(all(4, &flow[with]));
                }
                Dispatch {
                    pipeline: &pipelines[&step.kernel],
                    bindings,
                    workgroups: step.groups,
                    fuel: step.fuel,
                }
            })
            .collect();
        let (output, values) = plan.output;
        let read = Readback {
            buffer: &flow[output],
            offset: 0,
            size: 4 * values as u64,
        };
        let read = gpu::run(&dispatches, &[read])?;
        let words = read
            .first()
            .map(Vec::as_slice)
            .unwrap_or_default()
            .chunks_exact(4);
        Ok(words
            .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
            .collect())
    }
}
