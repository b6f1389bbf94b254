//! `network:run`: a model and an input as bytes, all outputs as numbers. For tests against another
//! implementation, which want neither an image's decoder nor a softmax between.

use crank_worker::{Bytes, Capability, Constraints, Failure, Worker, gpu};
use gpu_kernels::Model;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is run.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Program {
    /// A model file.
    model: Bytes,
    /// The network's input: 32-bit floating-point numbers, little-endian, channels of rows.
    input: Bytes,
    /// The SHA-256 of the weights, if they are to be found on the GPU.
    #[serde(default)]
    kept: Bytes,
}

/// What came of it.
#[derive(Serialize, JsonSchema)]
struct Done {
    /// The last layer's output.
    output: Vec<f32>,
    /// Steps that it was charged, without what the time took.
    steps: u64,
    /// Bytes of buffers that it held.
    memory: u64,
}

fn run(program: Program) -> Result<Done, Failure> {
    let model = Model::read(&program.model)
        .map_err(|broken| Failure::invalid_input("/model", broken.to_string()))?;
    let values: Vec<f32> = program
        .input
        .chunks_exact(4)
        .map(|word| f32::from_le_bytes([word[0], word[1], word[2], word[3]]))
        .collect();
    let kept = Some(&program.kept[..]).filter(|kept| !kept.is_empty());
    let before = gpu::get_info();
    let output = model.run(&values, kept)?;
    let after = gpu::get_info();
    Ok(Done {
        output,
        steps: before.work_left - after.work_left,
        memory: before.memory_left - after.memory_left,
    })
}

fn lab() -> Worker {
    Worker::new("worker-network-lab").offers(
        Capability::new("network", "run", "1.0.0", run)
            .description("Runs the network that it is given.")
            .constraints(Constraints {
                max_memory_mb: Some(512),
                gpu_memory_mb: Some(256),
                ..Constraints::default()
            })
            .required_capabilities(&["crank:gpu/compute"]),
    )
}

crank_worker::worker!(lab);
