//! What the benches share.

#![allow(dead_code)]

use std::path::{Path, PathBuf};

use crank::config::Config;
use crank::toolchain::{BuildRequest, Terminal, build};
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// Xorshift (Marsaglia, 2003): the same numbers each time.
pub struct Random(pub u64);

impl Random {
    /// More than 0, at most 1.
    pub fn unit(&mut self) -> f64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        ((self.0 >> 11) + 1) as f64 / (1u64 << 53) as f64
    }
}

/// The cores that this process may use.
pub fn allowed_cores() -> Vec<usize> {
    let set = sched_getaffinity(None).expect("the kernel says");
    (0..CpuSet::MAX_CPU)
        .filter(|&core| set.is_set(core))
        .collect()
}

/// Keeps this thread, and those that it starts, on some cores.
pub fn pin(cores: &[usize]) {
    let mut set = CpuSet::new();
    for &core in cores {
        set.set(core);
    }
    sched_setaffinity(None, &set).expect("cores of our own");
}

/// The configuration that holds where nothing is configured.
pub fn config() -> Config {
    Config::load(&[], None, std::env::vars()).expect("the defaults hold")
}

/// The component of hello-world, alone in its directory.
pub fn hello() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("hello");
    let request = BuildRequest {
        crates: vec![root.join("guests/hello-world")],
        out: out.clone(),
        target_dir: root.join("target"),
        cache_dir: config().cache_dir,
        offline: false,
    };
    let terminal = Terminal::default();
    build(&request, &|event| terminal.show(event)).expect("hello-world builds");
    out.join("hello-world.wasm")
}
