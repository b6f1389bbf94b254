//! What an invocation costs: the bare engine running the same component, our invocation in process
//! (validation both ways, limits, metering), the same over HTTP; and what initialisation costs that an init
//! snapshot has done before. One run, so that the ratios
//! hold whatever the machine.
//!
//!     cargo bench --bench invoke

mod common;
#[path = "../tests/it/support/component.rs"]
#[allow(dead_code)]
mod component;

use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use common::{config, hello};
use component::{Wat, capability};
use crank::bindings::crank::worker::types;
use crank::bindings::exports::crank::worker::handler;
use crank::engine::{Engine, Settings};
use crank::registry::{Registry, Snapshot};
use crank::router::{Call, Router};
use crank::rules::{Asking, Rules};
use crank::sandbox::Payload;
use crank::worker::Snapshotted;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};
use serde_json::json;
use tokio::runtime::Runtime;
use wasmtime::Store;
use wasmtime::component::{Component, Linker};

const INPUT: &[u8] = br#"{"name": "Ada"}"#;

fn engine() -> Engine {
    let settings = Settings {
        instances: 100,
        ..Settings::new(&config().limits, env!("CARGO_BIN_EXE_crank"))
    };
    Engine::new(settings, None).expect("an engine")
}

fn router(runtime: &Runtime, engine: &Engine, file: &Path) -> Router {
    let snapshot = runtime.block_on(Snapshot::load(
        engine,
        &Arc::new(config()),
        vec![file.to_owned()],
    ));
    assert_eq!(snapshot.workers().len(), 1, "{:?}", snapshot.refused());
    Router::new(Registry::new(snapshot))
}

fn call() -> Call {
    let input = Payload {
        media_type: "application/json".to_owned(),
        body: Bytes::from_static(INPUT),
    };
    let id = "00000000000000000000000000000000".to_owned();
    Call::new(
        id,
        "greet".to_owned(),
        Some("hello_world".to_owned()),
        input,
    )
}

/// Instantiate, call, drop: what wasmtime asks for, on the same engine settings, nothing else.
fn bare(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let engine = engine();
    let component = Component::from_file(engine.wasm(), hello()).expect("hello-world compiles");
    let mut linker = Linker::<()>::new(engine.wasm());
    linker
        .define_unknown_imports_as_traps(&component)
        .expect("traps");
    let pre = linker.instantiate_pre(&component).expect("links");
    let indices = handler::GuestIndices::new(&pre).expect("a handler");
    let (engine, pre, indices) = (&engine, &pre, &indices);
    let mut group = c.benchmark_group("hello");
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare wasmtime", |b| {
        b.to_async(&runtime).iter_batched(
            || handler::Request {
                id: "00000000000000000000000000000000".to_owned(),
                capability: "greet:hello_world".to_owned(),
                input: types::Payload {
                    media_type: "application/json".to_owned(),
                    body: INPUT.to_vec(),
                },
                parameters: Vec::new(),
                caller: None,
                deadline_ms: 30_000,
                context: Vec::new(),
            },
            |request| async move {
                let mut store = Store::new(engine.wasm(), ());
                store.set_epoch_deadline(u64::MAX / 2);
                let instance = pre
                    .instantiate_async(&mut store)
                    .await
                    .expect("instantiates");
                let handler = indices.load(&mut store, &instance).expect("a handler");
                let answer = handler
                    .call_handle(&mut store, &request)
                    .await
                    .expect("answers");
                answer.expect("greets")
            },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

/// The same, under a policy that has to be asked: what it said is known from the second call on.
fn under_a_policy(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let rules = Rules::open(Some(&root.join("docs/examples/policies"))).expect("a policy");
    let engine = engine().with_rules(rules);
    let config = Arc::new(config());
    let snapshot = runtime.block_on(Snapshot::load(&engine, &config, vec![hello()]));
    let offered = snapshot.workers()[0].offered()[0].clone();
    let router = Router::new(Registry::new(snapshot).ruled_by(engine.rules().clone()));
    let ada = "spiffe://crank.local/agent/ada";
    let mut group = c.benchmark_group("hello");
    group.throughput(Throughput::Elements(1));
    group.bench_function("crank in process, under a policy", |b| {
        b.to_async(&runtime).iter_batched(
            || Call {
                caller: Some(ada.to_owned()),
                ..call()
            },
            |call| async { router.invoke(call).await.expect("greets") },
            BatchSize::SmallInput,
        );
    });
    group.bench_function("a decision that is known", |b| {
        let revision = engine.rules().revision().expect("it has to be asked");
        b.iter(|| {
            let asking = Asking {
                revision,
                caller: Some(ada),
                origin: Some(ada),
                depth: 0,
            };
            offered.verdicts.get(&asking, asking.hash()).expect("known")
        });
    });
    group.finish();
}

fn in_process(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let engine = engine();
    let router = router(&runtime, &engine, &hello());
    let mut group = c.benchmark_group("hello");
    group.throughput(Throughput::Elements(1));
    group.bench_function("crank in process", |b| {
        b.to_async(&runtime).iter_batched(
            call,
            |call| async { router.invoke(call).await.expect("greets") },
            BatchSize::SmallInput,
        );
    });
    group.finish();
}

fn over_http(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let engine = engine();
    let router = Arc::new(router(&runtime, &engine, &hello()));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a loopback port");
    let url = format!(
        "http://{}/invoke/greet/hello_world",
        listener.local_addr().expect("an address")
    );
    let settings = crank::api::Settings::from(&config());
    runtime.spawn(crank::api::serve(
        listener,
        router,
        settings,
        std::future::pending(),
    ));
    let client = reqwest::Client::new();
    let mut group = c.benchmark_group("hello");
    group.throughput(Throughput::Elements(1));
    group.bench_function("crank over HTTP", |b| {
        b.to_async(&runtime).iter(|| async {
            let answer = client
                .post(&url)
                .body(INPUT)
                .send()
                .await
                .expect("an answer");
            assert!(answer.status().is_success());
            answer.bytes().await.expect("a body")
        });
    });
    group.finish();
}

/// A worker that has to compute and write for some 50 ms before its first answer, and one that has not.
fn initialised(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let engine = engine();
    let dir = tempfile::tempdir().expect("a directory");
    let mut group = c.benchmark_group("a fresh sandbox");
    let ready = "(global $ready (mut i32) (i32.const 0))";
    // 4 MiB of tables, written 24 times over.
    let init = "(func $init (local $turn i32) (local $at i32)
        (if (i32.eqz (global.get $ready)) (then
            (drop (memory.grow (i32.const 64)))
            (local.set $turn (i32.const 24))
            (loop $again
                (local.set $at (i32.const 4194304))
                (loop $next
                    (local.set $at (i32.sub (local.get $at) (i32.const 4)))
                    (i32.store offset=65536 (local.get $at)
                        (i32.mul (i32.load offset=65536 (local.get $at)) (local.get $turn)))
                    (br_if $next (local.get $at)))
                (local.set $turn (i32.sub (local.get $turn) (i32.const 1)))
                (br_if $again (local.get $turn)))
            (global.set $ready (i32.const 1)))))";
    let cases = [
        ("without initialisation", "(func $init)".to_owned(), true),
        (
            "initialised in its snapshot",
            format!("{ready} {init}"),
            true,
        ),
        (
            "initialised in each sandbox",
            format!("{ready} {init}"),
            false,
        ),
    ];
    for (number, (name, items, snapshot)) in cases.into_iter().enumerate() {
        let mut wat = Wat::new(&format!("worker-{number}"), json!([capability("start")]));
        wat.items = items;
        wat.declare = "(call $init)".to_owned();
        wat.handle = "(call $init)".to_owned();
        let file = dir.path().join(format!("worker-{number}.wasm"));
        std::fs::write(&file, wat.build()).expect("a file");
        let config = Arc::new(config());
        let loaded = runtime.block_on(Snapshot::load(&engine, &config, vec![file]));
        assert_eq!(loaded.workers().len(), 1, "{:?}", loaded.refused());
        if snapshot {
            let worker = &loaded.workers()[0];
            runtime.block_on(worker.take_snapshot(&engine, &config));
            assert_eq!(worker.snapshotted(), Snapshotted::Used);
        }
        let router = Router::new(Registry::new(loaded));
        group.sample_size(if snapshot { 100 } else { 10 });
        group.bench_function(name, |b| {
            b.to_async(&runtime).iter_batched(
                || Call {
                    verb: "misbehave".to_owned(),
                    name: Some("start".to_owned()),
                    input: Payload {
                        media_type: "application/json".to_owned(),
                        body: Bytes::from_static(b"{}"),
                    },
                    ..call()
                },
                |call| async { router.invoke(call).await.expect("answers") },
                BatchSize::SmallInput,
            );
        });
    }
    group.finish();
}

criterion_group!(
    benches,
    bare,
    in_process,
    under_a_policy,
    initialised,
    over_http
);
criterion_main!(benches);
