//! A worker that makes random core modules, for the host's tests: a seed in, a valid module out.
//!
//! A worker and not a dependency of the tests: there, wasm-smith would switch on a feature of a crate
//! that wasmtime uses too, and everything would be compiled twice.

use arbitrary::Unstructured;
use crank_worker::{Capability, Failure, Payload, Worker};
use schemars::JsonSchema;
use serde::Deserialize;
use wasm_smith::{Config, Module};

/// `(module (func (export "run")))`: what every module exports.
const EXPORTS: &[u8] =
    b"\0asm\x01\0\0\0\x01\x04\x01\x60\0\0\x03\x02\x01\0\x07\x07\x01\x03run\0\0\x0a\x04\x01\x02\0\x0b";

#[derive(Deserialize, JsonSchema)]
struct Seed {
    /// Where the randomness comes from.
    seed: u64,
    /// Bytes of randomness: how large the module may become.
    bytes: u32,
}

fn make_module(input: Seed) -> Result<Payload, Failure> {
    let bytes = random(input.seed, input.bytes as usize);
    let module = Module::new(config(), &mut Unstructured::new(&bytes))
        .map_err(|error| Failure::failed(error.to_string()))?;
    Ok(Payload {
        media_type: "application/wasm".into(),
        body: module.to_bytes(),
    })
}

/// What the host's engine runs, and sizes around its limits: some modules are beyond them.
fn config() -> Config {
    Config {
        exports: Some(EXPORTS.to_vec()),
        // It would run in `declare` already, where one that loops takes two seconds.
        allow_start_export: false,
        max_imports: 0,
        max_memories: 1,
        max_memory32_bytes: 512 << 20,
        max_table_elements: 25_000,
        min_funcs: 4,
        max_instructions: 400,
        exceptions_enabled: false,
        gc_enabled: false,
        memory64_enabled: false,
        // `externref` needs a garbage collector.
        reference_types_enabled: false,
        relaxed_simd_enabled: false,
        threads_enabled: false,
        ..Config::default()
    }
}

/// Sebastiano Vigna's SplitMix64 (2015).
fn random(mut seed: u64, bytes: usize) -> Vec<u8> {
    let words = std::iter::repeat_with(|| {
        seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = seed;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    words.flat_map(u64::to_le_bytes).take(bytes).collect()
}

fn worker() -> Worker {
    Worker::new("worker-random-module").offers(
        Capability::new("make", "random_module", "1.0.0", make_module)
            .description("Makes a random core module. For tests.")
            .produces("application/wasm"),
    )
}

crank_worker::worker!(worker);
