//! The hash by which the default model's weights are found on a GPU: 10 µs here, milliseconds in a sandbox.

use std::path::Path;
use std::{env, fs};

use sha2::{Digest, Sha256};

const MODEL: &str = "model/default.safetensors";

fn main() {
    println!("cargo::rerun-if-changed={MODEL}");
    let model = fs::read(MODEL).unwrap_or_else(|error| panic!("{MODEL}: {error}"));
    // As in `gpu_kernels::Model`: the length of the header, the header, the weights.
    let header = model
        .first_chunk()
        .map_or(0, |size| u64::from_le_bytes(*size));
    let weights = usize::try_from(header)
        .ok()
        .and_then(|header| model.get(8 + header..));
    let weights = weights.unwrap_or_else(|| panic!("{MODEL} is no safetensors file"));
    let out = env::var("OUT_DIR").unwrap_or_default();
    let hash = Path::new(&out).join("weights.sha256");
    fs::write(&hash, Sha256::digest(weights))
        .unwrap_or_else(|error| panic!("{}: {error}", hash.display()));
}
