//! `gpu:run`: buffers, shaders and dispatches as JSON; what was read back as the answer.

use crank_worker::gpu::{self, Binding, Buffer, Dispatch, Pipeline, Readback};
use crank_worker::{Capability, Constraints, Failure, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What is to be done.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Program {
    /// Made in this order; each has a number.
    #[serde(default)]
    buffers: Vec<Memory>,
    /// WGSL with an entry point `main`.
    #[serde(default)]
    shaders: Vec<String>,
    /// Run in this order.
    #[serde(default)]
    dispatches: Vec<Step>,
    /// Buffers to read, from an offset, so many bytes.
    #[serde(default)]
    read: Vec<(usize, u64, u64)>,
    /// How often all of it is done.
    #[serde(default)]
    again: u32,
    /// Whether the worker dies afterwards.
    #[serde(default)]
    trap: bool,
}

/// A buffer.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Memory {
    /// Bytes.
    #[serde(default)]
    size: u64,
    /// What it starts with; its size, if none is given.
    #[serde(default)]
    words: Vec<u32>,
    /// Whether it starts with as many zeroes as it has bytes, handed over like words.
    #[serde(default)]
    zeroes: bool,
    /// Where the words go, in bytes.
    #[serde(default)]
    at: u64,
    /// Whether it is kept.
    #[serde(default)]
    keep: bool,
    /// The SHA-256 by which it may be found, if it was kept before.
    #[serde(default)]
    sha256: Vec<u8>,
    /// Whether what it starts with is written once more.
    #[serde(default)]
    rewrite: bool,
}

/// A dispatch.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Step {
    /// The number of a shader.
    #[serde(default)]
    shader: usize,
    /// Slots and numbers of buffers.
    bind: Vec<(u32, usize)>,
    /// Workgroups.
    groups: (u32, u32, u32),
    /// Turns of loops.
    #[serde(default)]
    fuel: u32,
}

/// What was read.
#[derive(Serialize, JsonSchema)]
struct Done {
    /// Of each read.
    words: Vec<Vec<u32>>,
    /// The GPU.
    kind: String,
    /// Bytes that the invocation could still have.
    memory_left: u64,
}

fn run(program: Program) -> Result<Done, Failure> {
    let mut words = Vec::new();
    for _ in 0..=program.again {
        words = once(&program)?;
    }
    assert!(!program.trap, "as it was told");
    let info = gpu::get_info();
    Ok(Done {
        words,
        kind: format!("{:?}", info.gpu_type),
        memory_left: info.memory_left,
    })
}

fn once(program: &Program) -> Result<Vec<Vec<u32>>, Failure> {
    let buffers = program
        .buffers
        .iter()
        .map(buffer)
        .collect::<Result<Vec<_>, _>>()?;
    let shaders = program
        .shaders
        .iter()
        .map(|wgsl| Pipeline::compile(wgsl, "main"))
        .collect::<Result<Vec<_>, _>>()?;
    let at = |number: usize| &buffers[number];
    let dispatches: Vec<_> = program
        .dispatches
        .iter()
        .map(|step| Dispatch {
            pipeline: &shaders[step.shader],
            bindings: step
                .bind
                .iter()
                .map(|&(slot, number)| Binding {
                    slot,
                    buffer: at(number),
                    offset: 0,
                    size: 0,
                })
                .collect(),
            workgroups: step.groups,
            fuel: step.fuel,
        })
        .collect();
    let reads: Vec<_> = program
        .read
        .iter()
        .map(|&(number, offset, size)| Readback {
            buffer: at(number),
            offset,
            size,
        })
        .collect();
    let read = gpu::run(&dispatches, &reads)?;
    let word = |bytes: &[u8]| bytes.try_into().map_or(0, u32::from_le_bytes);
    Ok(read
        .iter()
        .map(|bytes| bytes.chunks(4).map(word).collect())
        .collect())
}

fn buffer(memory: &Memory) -> Result<Buffer, Failure> {
    if let Some(kept) = Buffer::kept(&memory.sha256) {
        return Ok(kept);
    }
    let words = memory.words.iter();
    let mut bytes: Vec<u8> = words.flat_map(|word| word.to_le_bytes()).collect();
    if memory.zeroes {
        bytes.resize(memory.size as usize, 0);
    }
    let buffer = if memory.keep {
        Buffer::keep(&bytes)?
    } else {
        let size = match memory.size {
            0 => bytes.len() as u64,
            size => size,
        };
        let buffer = Buffer::create(size)?;
        if !bytes.is_empty() {
            buffer.write(memory.at, &bytes)?;
        }
        buffer
    };
    if memory.rewrite {
        buffer.write(memory.at, &bytes)?;
    }
    Ok(buffer)
}

fn lab() -> Worker {
    Worker::new("worker-gpu-lab").offers(
        Capability::new("gpu", "run", "1.0.0", run)
            .description("Does on a GPU what it is told.")
            .constraints(Constraints {
                max_memory_mb: Some(512),
                gpu_memory_mb: Some(64),
                ..Constraints::default()
            })
            .required_capabilities(&["crank:gpu/compute"]),
    )
}

crank_worker::worker!(lab);
