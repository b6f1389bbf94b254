//! What loading a component costs: the bare engine taking compiled code from memory and from a file it trusts,
//! the cache of code, which authenticates it first, and a whole worker, which is asked what it offers, checked
//! and linked besides. One run, so that the ratios hold whatever the machine.
//!
//!     cargo bench --bench load

mod common;

use common::{config, hello};
use crank::config::Config;
use crank::engine::{CodeCache, Engine, Kind, Settings};
use crank::worker::Worker;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use tokio::runtime::Runtime;
use wasmtime::component::Component;

fn load(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir().expect("a directory");
    let settings = Settings {
        instances: 100,
        ..Settings::new(&config().limits, env!("CARGO_BIN_EXE_crank"))
    };
    let engine = Engine::new(settings, Some(dir.path())).expect("an engine");
    // What is measured is code, not its snapshot.
    let off = [("snapshot", "false".to_owned())];
    let config = Config::load(&off, None, std::env::vars()).expect("the defaults hold");
    let file = hello();
    let loaded = runtime.block_on(Worker::load(&engine, &config, &file));
    let digest = loaded.expect("it serves").digest();

    let bytes = std::fs::read(&file).expect("a component");
    let code = engine
        .wasm()
        .precompile_component(&bytes)
        .expect("it compiles");
    let cwasm = dir.path().join("hello.bare");
    std::fs::write(&cwasm, &code).expect("a file");
    let wasm = engine.wasm();
    let cache = CodeCache::open(Some(dir.path()), u64::MAX, wasm);

    let mut group = c.benchmark_group("load");
    group.throughput(Throughput::Bytes(code.len() as u64));
    group.bench_function("bare wasmtime, from memory", |b| {
        // SAFETY: this very engine made it, a moment ago.
        #[allow(unsafe_code)]
        b.iter(|| unsafe { Component::deserialize(wasm, &code) }.expect("its own"));
    });
    group.bench_function("bare wasmtime, from a file", |b| {
        // SAFETY: this very engine made it, and nobody else knows of the file.
        #[allow(unsafe_code)]
        b.iter(|| unsafe { Component::deserialize_file(wasm, &cwasm) }.expect("its own"));
    });
    group.bench_function("code from the cache", |b| {
        b.iter(|| cache.load(wasm, &digest, Kind::Code).expect("it is kept"));
    });
    group.bench_function("a worker, its code from the cache", |b| {
        b.iter(|| {
            let loaded = runtime.block_on(Worker::load(&engine, &config, &file));
            loaded.expect("it serves")
        });
    });
    group.finish();
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = load
}
criterion_main!(benches);
