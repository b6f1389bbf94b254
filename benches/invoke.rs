//! What an invocation costs: the bare engine running the same component, our invocation in process
//! (validation both ways, limits, metering), the same over HTTP; and what initialisation costs that an init
//! snapshot has done before. One run, so that the ratios hold whatever the machine; the first three rows in
//! turn, before criterion takes each by itself. And what all cores do together beside one, and beside as many
//! processes, which share nothing.
//!
//!     cargo bench --bench invoke
//!     cargo bench --bench invoke -- --list      # in turn, and all cores, alone

mod common;
#[path = "../tests/it/support/component.rs"]
#[allow(dead_code)]
mod component;

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use bytes::Bytes;
use common::{SERVE, config, guest, hello, median};
use component::{Wat, capability};
use crank::bindings::crank::worker::types;
use crank::bindings::exports::crank::worker::handler;
use crank::engine::{Engine, Settings, cores, threads};
use crank::registry::{Registry, Snapshot};
use crank::router::{Call, Router};
use crank::rules::{Asking, Rules};
use crank::sandbox::{Invocation, Listener, Payload};
use crank::worker::Snapshotted;
use criterion::{BatchSize, Criterion, Throughput, criterion_group};
use crossbeam_utils::CachePadded;
use serde_json::json;
use tokio::runtime::Runtime;
use tokio::task::JoinSet;
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

const INPUT: &[u8] = br#"{"name": "Ada"}"#;
/// Few at a time: criterion keeps the inputs and the answers of a batch, and of a large one each call would find
/// its own fallen out of the cache.
const BATCH: BatchSize = BatchSize::NumIterations(16);

fn engine() -> Engine {
    let settings = Settings::new(&config().limits, env!("CARGO_BIN_EXE_crank"));
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

/// The bare engine: instantiate, call, drop, as wasmtime asks for it, on the same engine settings.
struct Bare {
    engine: Engine,
    pre: InstancePre<()>,
    indices: handler::GuestIndices,
}

impl Bare {
    fn new() -> Self {
        let engine = engine();
        let component = Component::from_file(engine.wasm(), hello()).expect("hello-world compiles");
        let mut linker = Linker::<()>::new(engine.wasm());
        linker
            .define_unknown_imports_as_traps(&component)
            .expect("traps");
        let pre = linker.instantiate_pre(&component).expect("links");
        let indices = handler::GuestIndices::new(&pre).expect("a handler");
        Self {
            engine,
            pre,
            indices,
        }
    }

    async fn call(&self, request: handler::Request) -> types::Payload {
        let mut store = Store::new(self.engine.wasm(), ());
        store.set_epoch_deadline(u64::MAX / 2);
        let instance = self.pre.instantiate_async(&mut store).await;
        let instance = instance.expect("instantiates");
        let handler = self.indices.load(&mut store, &instance).expect("a handler");
        let answer = handler.call_handle(&mut store, &request).await;
        answer.expect("answers").expect("greets")
    }
}

fn request() -> handler::Request {
    handler::Request {
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
    }
}

/// The bare engine, one invocation without validation and routing, and one with both, a few hundred calls each in
/// turn: what slows the machine down for a while slows all three down.
fn in_turn() {
    const ROUNDS: usize = 101;
    const CALLS: u32 = 200;
    let runtime = Runtime::new().expect("a runtime");
    let (bare, engine) = (Bare::new(), engine());
    let config = Arc::new(config());
    let snapshot = runtime.block_on(Snapshot::load(&engine, &config, vec![hello()]));
    let worker = snapshot.workers()[0].clone();
    let offered = worker.offered()[0].clone();
    let router = Router::new(Registry::new(snapshot));
    let invocation = || Invocation {
        id: "00000000000000000000000000000000".to_owned(),
        capability: &offered.id,
        input: call().input,
        parameters: Vec::new(),
        caller: None,
        deadline: Instant::now() + offered.limits.wall,
        context: Vec::new(),
        events: Listener::Nobody,
        peers: None,
    };
    let mut took = [const { Vec::new() }; 3];
    for _ in 0..ROUNDS {
        for (which, took) in took.iter_mut().enumerate() {
            let began = Instant::now();
            runtime.block_on(async {
                for _ in 0..CALLS {
                    match which {
                        0 => drop(bare.call(request()).await),
                        1 => {
                            let outcome = worker.invoke(invocation(), offered.limits).await;
                            drop(outcome.result.expect("greets"));
                        }
                        _ => drop(router.invoke(call()).await.expect("greets")),
                    }
                }
            });
            took.push(began.elapsed().as_secs_f64() * 1e6 / f64::from(CALLS));
        }
    }
    let names = [
        "bare wasmtime",
        "crank, validation aside",
        "crank in process",
    ];
    println!("hello in turn, {ROUNDS} rounds of {CALLS} calls:");
    for (name, ours) in names.iter().zip(&took) {
        let ratios = ours.iter().zip(&took[0]).map(|(ours, bare)| ours / bare);
        println!(
            "{name:24} median {:.1} us, least {:.1} us; to bare in the same round, median {:.2}",
            median(ours.clone()),
            ours.iter().copied().fold(f64::INFINITY, f64::min),
            median(ratios.collect()),
        );
    }
}

/// A page of some 100 kB: its text takes more memory than the sandbox begins with.
fn page() -> Call {
    let line = "<p>The <b>lamp</b> is lit, the wind comes from the northwest.</p>\n";
    let input = Payload {
        media_type: "text/html".to_owned(),
        body: line.repeat(1500).into(),
    };
    Call {
        verb: "convert".to_owned(),
        name: Some("html_to_text".to_owned()),
        input,
        ..call()
    }
}

/// Calls per second of so many callers at once.
type Rate = Box<dyn Fn(usize) -> f64>;

const BARE: &str = "bare wasmtime";
const PAGE: &str = "a page to text";
const TOGETHER: [&str; 3] = [BARE, "crank in process", PAGE];

fn rate(what: &str) -> Rate {
    if what == BARE {
        // For as long as the process lives: no call counts a reference to it.
        let bare: &Bare = Box::leak(Box::new(Bare::new()));
        return callers(move || async move { drop(bare.call(request()).await) });
    }
    let (file, call) = match what {
        PAGE => (guest("document-conversion"), page as fn() -> Call),
        _ => (hello(), call as fn() -> Call),
    };
    let router = router(&Runtime::new().expect("a runtime"), &engine(), &file);
    let router: &Router = Box::leak(Box::new(router));
    callers(move || async move { drop(router.invoke(call()).await.expect("answers")) })
}

fn callers<F: Future<Output = ()> + Send>(call: impl Fn() -> F + Clone + Send + 'static) -> Rate {
    const TIME: Duration = Duration::from_millis(300);
    let runtime = common::runtime(threads());
    Box::new(move |callers| {
        runtime.block_on(async {
            let began = Instant::now();
            let mut calling = JoinSet::new();
            for _ in 0..callers {
                let call = call.clone();
                calling.spawn(async move {
                    let mut calls = 0;
                    while began.elapsed() < TIME {
                        call().await;
                        calls += 1;
                    }
                    calls
                });
            }
            let calls: u32 = calling.join_all().await.into_iter().sum();
            f64::from(calls) / began.elapsed().as_secs_f64()
        })
    })
}

/// Nanoseconds that an addition takes to one of some counters that all cores add to: what a cache line costs that
/// one core has after another. In a virtual machine it changes with the cores that it is given.
fn shared_line() -> f64 {
    const TIME: Duration = Duration::from_millis(50);
    let counters: [CachePadded<AtomicU64>; 16] = Default::default();
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for _ in 0..cores() {
            scope.spawn(|| {
                while !over.load(Relaxed) {
                    for counter in &counters {
                        counter.fetch_add(1, Relaxed);
                    }
                }
            });
        }
        std::thread::sleep(TIME);
        over.store(true, Relaxed);
    });
    let added = counters
        .iter()
        .map(|counter| counter.load(Relaxed))
        .sum::<u64>();
    TIME.as_nanos() as f64 * cores() as f64 / added as f64
}

/// What all cores do together, in turn: one caller; one for each core; and one for each core in a process of its
/// own. Those share nothing but the machine: what they do is the most that it can.
fn on_all_cores() {
    const ROUNDS: usize = 9;
    for what in TOGETHER {
        let rate = rate(what);
        let mut alone: Vec<Alone> = (0..cores()).map(|_| Alone::start(what)).collect();
        let mut rounds: [Vec<f64>; 4] = Default::default();
        for _ in 0..ROUNDS {
            alone.iter_mut().for_each(Alone::begin);
            let apart = alone.iter_mut().map(Alone::rate).sum();
            let now = [rate(1), rate(cores()), apart, shared_line()];
            rounds
                .iter_mut()
                .zip(now)
                .for_each(|(all, now)| all.push(now));
        }
        let [one, all, apart, line] = &rounds;
        let ratio = |ours: &[f64], to: &[f64]| {
            median(ours.iter().zip(to).map(|(ours, to)| ours / to).collect())
        };
        println!(
            "{what}: one caller {:.0} calls/s, {} callers {:.0}: {:.2} times as many ({:.2} in processes of their own), \
             median of {ROUNDS} rounds; a shared line {:.0} ns",
            median(one.clone()),
            cores(),
            median(all.clone()),
            ratio(all, one),
            ratio(apart, one),
            median(line.clone()),
        );
    }
}

/// This program once more, calling on its own when told to.
struct Alone {
    child: Child,
    says: Lines<BufReader<ChildStdout>>,
}

impl Alone {
    fn start(what: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().expect("this program"))
            .args([SERVE, what])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("a process");
        let says = BufReader::new(child.stdout.take().expect("piped")).lines();
        let mut alone = Self { child, says };
        // Once for nothing: then it is ready.
        alone.begin();
        alone.rate();
        alone
    }

    fn begin(&mut self) {
        let told = self.child.stdin.as_mut().expect("piped").write_all(b"\n");
        told.expect("it listens");
    }

    fn rate(&mut self) -> f64 {
        let line = self.says.next().expect("it goes on").expect("a line");
        line.parse().expect("a rate")
    }

    /// Runs as one.
    fn serve(what: &str) {
        let rate = rate(what);
        for _ in std::io::stdin().lines() {
            println!("{}", rate(1));
        }
    }
}

impl Drop for Alone {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The bare engine alone.
fn bare(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let bare = Bare::new();
    let mut group = c.benchmark_group("hello");
    group.throughput(Throughput::Elements(1));
    group.bench_function("bare wasmtime", |b| {
        b.to_async(&runtime)
            .iter_batched(request, |request| bare.call(request), BATCH);
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
            BATCH,
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
            BATCH,
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
                BATCH,
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
fn main() {
    let mut arguments = std::env::args().skip(1);
    if arguments.next().as_deref() == Some(SERVE) {
        return Alone::serve(&arguments.next().expect("what to call"));
    }
    in_turn();
    on_all_cores();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
