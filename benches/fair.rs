//! Who gets the CPU when more guests want it than there are cores, in one run: shares, a short call
//! over HTTP beside guests that compute, the throughput that scheduling costs, and bursts.
//!
//!     cargo bench --bench fair [-- short]
//!
//! `short`: the short calls alone.

#[allow(dead_code)]
#[path = "../tests/it/support/component.rs"]
mod component;

mod common;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use common::{config, hello};
use component::{Wat, bursting, runaway};
use crank::engine::{self, Engine, Settings};
use crank::registry::{Registry, Snapshot};
use crank::router::{Answer, Call, Router};
use crank::sandbox::Payload;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

/// Calls per second of the load generator, and for how long.
const RATE: u32 = 200;
const LOAD: Duration = Duration::from_secs(8);
/// Connections of the load generator: calls that are late do not hold up those after them.
const CONNECTIONS: u32 = 32;
/// The argument that asks for the short calls alone.
const SHORT: &str = "short";
/// How long guests compute for a figure.
const TIME: Duration = Duration::from_secs(6);

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [mode, address, core] = &arguments[..]
        && mode == "generate"
    {
        let address = address.parse().expect("an address");
        return generate(address, core.parse().expect("a core"));
    }
    let only_short = arguments.iter().any(|argument| argument == SHORT);
    if let Some(core) = arguments.iter().position(|argument| argument == "beside") {
        let core = arguments.get(core + 1).expect("the generator's core");
        return short_calls(core);
    }
    if !only_short {
        println!("{} cores", engine::cores());
        shares();
        bursts();
        throughput();
    }
    apart();
}

/// A host in this process, without HTTP.
struct Host {
    runtime: Runtime,
    router: Arc<Router>,
}

impl Host {
    fn new(fair: bool, wats: &[(&str, Wat)], others: &[PathBuf]) -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        let mut files = others.to_vec();
        for (name, wat) in wats {
            let file = dir.path().join(format!("{name}.wasm"));
            std::fs::write(&file, wat.build()).expect("a file");
            files.push(file);
        }
        let config = Arc::new(config());
        let settings = Settings {
            instances: 100,
            fair,
            ..Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"))
        };
        let engine = Engine::new(settings, None).expect("an engine");
        // Without the gate, as many threads as tokio would start of itself.
        let threads = if fair {
            engine::threads()
        } else {
            engine::cores()
        };
        let runtime = common::runtime(threads);
        let snapshot = runtime.block_on(Snapshot::load(&engine, &config, files));
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        let router = Arc::new(Router::new(Registry::new(snapshot)));
        Self { runtime, router }
    }

    /// Starts invocations of `misbehave:NAME` that have so much time.
    fn start(&self, name: &str, count: usize, time: Duration) -> Vec<JoinHandle<Option<Answer>>> {
        let invocation = |_| {
            let (router, call) = (self.router.clone(), call(name, time));
            self.runtime
                .spawn(async move { router.invoke(call).await.ok() })
        };
        (0..count).map(invocation).collect()
    }

    fn wait(&self, running: Vec<JoinHandle<Option<Answer>>>) -> Vec<Option<Answer>> {
        let running = running.into_iter();
        running
            .map(|invocation| self.runtime.block_on(invocation).expect("it ends"))
            .collect()
    }

    /// Seconds of CPU time that a worker has used.
    fn cpu(&self, name: &str) -> f64 {
        let snapshot = self.router.registry().snapshot();
        let id = format!("worker-{name}");
        let mut workers = snapshot.workers().iter();
        let worker = workers.find(|worker| **worker.id() == *id);
        worker
            .expect("it is loaded")
            .observed()
            .cpu_total
            .as_secs_f64()
    }
}

fn call(name: &str, time: Duration) -> Call {
    let input = Payload {
        media_type: "application/json".to_owned(),
        body: "{}".into(),
    };
    let verb = "misbehave".to_owned();
    Call {
        timeout: Some(time),
        ..Call::new(name.to_owned(), verb, Some(name.to_owned()), input)
    }
}

/// Workers of the weights 1:2:4:8 that all compute, the lightest with twice as many invocations.
fn shares() {
    println!("\nCPU by shares, {TIME:?}:");
    let weights = [("a", 512), ("b", 1024), ("c", 2048), ("d", 4096)];
    let wats = weights.map(|(name, weight)| (name, runaway(name, weight)));
    let host = Host::new(true, &wats, &[]);
    // The heaviest first: what the first computes before anyone competes is its own.
    let running = wats.iter().zip([8, 4, 4, 4]).rev();
    let running = running.flat_map(|((name, _), count)| host.start(name, count, TIME));
    host.wait(running.collect());
    let total: f64 = weights.iter().map(|(name, _)| host.cpu(name)).sum();
    for (name, weight) in weights {
        let (got, due) = (host.cpu(name) / total, f64::from(weight) / 7680.0);
        println!(
            "  share {weight}: {:.2} %, due {:.2} %, off by {:+.1} %",
            got * 100.0,
            due * 100.0,
            (got / due - 1.0) * 100.0
        );
    }
}

/// Workers that compute in bursts, in competition with a plain loop of equal share.
fn bursts() {
    println!("\nbursts beside a plain loop of equal share (8 invocations), {TIME:?}:");
    for (micros, count) in [(800, 8), (800, 24), (800, 80), (400, 80), (100, 80)] {
        let wats = [
            ("bursts", bursting("bursts", 1024, micros)),
            ("plain", runaway("plain", 1024)),
        ];
        let host = Host::new(true, &wats, &[]);
        let mut running = host.start("bursts", count, TIME);
        running.extend(host.start("plain", 8, TIME));
        host.wait(running);
        let (bursts, plain) = (host.cpu("bursts"), host.cpu("plain"));
        println!(
            "  {count} invocations of {micros} µs: {:.1} % of the CPU ({bursts:.2} s to {plain:.2} s)",
            bursts / (bursts + plain) * 100.0
        );
    }
}

/// A worker that computes for [`TIME`] and answers how much it got done, in rounds.
fn counting(name: &str) -> Wat {
    let mut wat = bursting(name, 1024, 0);
    wat.items =
        r#"(data (i32.const 60032) "application/json") (data (i32.const 60096) "1")"#.to_owned();
    // The answer is laid out by hand: `ok`, a media type and a body that is a 1 and eleven digits.
    wat.handle = format!(
        "(local $end i64) (local $done i64) (local $left i32)
        (local.set $end (i64.add (call $now) (i64.const {})))
        (loop $rounds
            (local.set $left (i32.const 100000))
            (loop $work (br_if $work (local.tee $left (i32.sub (local.get $left) (i32.const 1)))))
            (local.set $done (i64.add (local.get $done) (i64.const 1)))
            (br_if $rounds (i64.lt_u (call $now) (local.get $end))))
        (local.set $left (i32.const 60107))
        (loop $digits
            (i64.store8 (local.get $left)
                (i64.add (i64.const 48) (i64.rem_u (local.get $done) (i64.const 10))))
            (local.set $done (i64.div_u (local.get $done) (i64.const 10)))
            (br_if $digits (i32.gt_u
                (local.tee $left (i32.sub (local.get $left) (i32.const 1))) (i32.const 60096))))
        (i32.store (i32.const 60004) (i32.const 60032))
        (i32.store (i32.const 60008) (i32.const 16))
        (i32.store (i32.const 60012) (i32.const 60096))
        (i32.store (i32.const 60016) (i32.const 12))
        (return (i32.const 60000))",
        TIME.as_nanos()
    );
    wat
}

/// What guests get done that compete at the gate, to as many as may compute at once with a core each
/// and nothing else.
fn throughput() {
    println!("\nwork done in {TIME:?}, in rounds:");
    let names = ["a", "b", "c", "d"];
    // Rounds, and rounds for each second of CPU time that the process got: the machine's own noise, which
    // takes from the first, is not in the second.
    let done = |fair, each: [usize; 4]| -> (f64, f64) {
        let wats = names.map(|name| (name, counting(name)));
        let host = Host::new(fair, &wats, &[]);
        let began = cpu_time();
        let running = names.into_iter().zip(each);
        let running = running.flat_map(|(name, count)| host.start(name, count, 4 * TIME));
        let answers = host.wait(running.collect());
        let rounds = answers.into_iter().map(|answer| {
            let body = answer.expect("it answers").payload.body;
            let text = std::str::from_utf8(&body).expect("digits");
            text.parse::<f64>().expect("a number") - 1e11
        });
        let rounds: f64 = rounds.sum();
        (rounds, rounds / (cpu_time() - began))
    };
    let cores = engine::cores();
    let mut ratios = Vec::new();
    for _ in 0..3 {
        let (alone, alone_each) = done(false, [cores - 1, 0, 0, 0]);
        let (competing, competing_each) = done(true, [8; 4]);
        println!(
            "  {} alone: {alone}; 32 at the gate: {competing}; {:.1} %, for each second of CPU time {:.1} %",
            cores - 1,
            competing / alone * 100.0,
            competing_each / alone_each * 100.0
        );
        ratios.push((competing / alone, competing_each / alone_each));
    }
    ratios.sort_by(|a, b| a.0.total_cmp(&b.0));
    let median = ratios[1].0;
    ratios.sort_by(|a, b| a.1.total_cmp(&b.1));
    println!(
        "  median {:.1} %, for each second of CPU time {:.1} %",
        median * 100.0,
        ratios[1].1 * 100.0
    );
    let (all, _) = done(false, [cores, 0, 0, 0]);
    println!("  for comparison, {cores} alone, with no core left to the host: {all}");
}

/// CPU time of this process, in seconds.
fn cpu_time() -> f64 {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    time.tv_sec as f64 + time.tv_nsec as f64 * 1e-9
}

/// Measures short calls in a process of its own. The load generator has the last core for itself, the host
/// has the others, and must find it so when it starts, as under `taskset`: it gives out tokens by the cores
/// that it saw then.
fn apart() {
    let mine = sched_getaffinity(None).expect("cores");
    let cores: Vec<usize> = (0..CpuSet::MAX_CPU)
        .filter(|core| mine.is_set(*core))
        .collect();
    let [others @ .., last] = &cores[..] else {
        panic!("no core")
    };
    let mut host = CpuSet::new();
    for core in others {
        host.set(*core);
    }
    sched_setaffinity(None, &host).expect("cores of this process");
    let program = std::env::current_exe().expect("this program");
    let ended = Command::new(program)
        .args(["beside", &last.to_string()])
        .status();
    assert!(ended.expect("it starts").success());
}

/// A short call over HTTP beside guests that compute, with the gate and with plain yields.
fn short_calls(core: &str) {
    println!(
        "\ngreet:hello_world over HTTP, {RATE} calls a second, the host on {} cores, the generator on one more:",
        engine::cores()
    );
    let hello = hello();
    for loops in [0, 4, 32] {
        let mut medians = Vec::new();
        for (fair, how) in [(true, "gate"), (false, "plain yields")] {
            let wats = [("loop", runaway("loop", 1024))];
            let host = Host::new(fair, &wats, std::slice::from_ref(&hello));
            let listener = host
                .runtime
                .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"));
            let listener = listener.expect("a loopback port");
            let address = listener.local_addr().expect("an address");
            let settings = crank::api::Settings::from(&config());
            let serving = crank::api::serve(
                listener,
                host.router.clone(),
                settings,
                std::future::pending(),
            );
            host.runtime.spawn(serving);
            let running = host.start("loop", loops, LOAD + Duration::from_secs(2));
            thread::sleep(Duration::from_millis(500));
            let program = std::env::current_exe().expect("this program");
            let told = Command::new(program)
                .args(["generate", &address.to_string(), core])
                .output()
                .expect("the generator runs");
            assert!(told.status.success(), "{told:?}");
            let told = String::from_utf8(told.stdout).expect("figures");
            let figures: Vec<f64> = told
                .split(' ')
                .map(|text| text.trim().parse().expect("ms"))
                .collect();
            println!(
                "  beside {loops} loops, {how}: p50 {:.2} ms, p99 {:.2} ms, most {:.2} ms",
                figures[0], figures[1], figures[2]
            );
            medians.push((figures[0], figures[1]));
            host.wait(running);
        }
        println!(
            "  sooner with the gate: {:.1} times at p50, {:.1} at p99",
            medians[1].0 / medians[0].0,
            medians[1].1 / medians[0].1
        );
    }
}

/// The load generator: calls at a fixed rate, each timed from the moment when it was due.
fn generate(address: SocketAddr, core: usize) {
    let mut own = CpuSet::new();
    own.set(core);
    sched_setaffinity(None, &own).expect("a core");
    let calls = RATE * u32::try_from(LOAD.as_secs()).expect("seconds");
    let began = Instant::now() + Duration::from_millis(200);
    let connection = move |first: u32| {
        let mut stream = TcpStream::connect(address).expect("the host listens");
        stream.set_nodelay(true).expect("a socket");
        let mut times = Vec::new();
        for at in (first..calls).step_by(CONNECTIONS as usize) {
            let due = began + Duration::from_secs(1) * at / RATE;
            thread::sleep(due.saturating_duration_since(Instant::now()));
            greet(&mut stream);
            times.push(due.elapsed());
        }
        times
    };
    let connections: Vec<_> = (0..CONNECTIONS)
        .map(|first| thread::spawn(move || connection(first)))
        .collect();
    let joined = connections.into_iter();
    let mut times: Vec<Duration> = joined
        .flat_map(|connection| connection.join().expect("each call is answered"))
        .collect();
    times.sort();
    let ms = |part: usize| times[(times.len() - 1) * part / 100].as_secs_f64() * 1e3;
    println!("{} {} {}", ms(50), ms(99), ms(100));
}

fn greet(stream: &mut TcpStream) {
    let body = r#"{"name": "Ada"}"#;
    let request = format!(
        "POST /invoke/greet/hello_world HTTP/1.1\r\nhost: localhost\r\n\
         content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    stream
        .write_all(request.as_bytes())
        .expect("the host reads");
    let mut answer = Vec::new();
    while !answer.ends_with(br#"{"greeting":"Hello, Ada!"}"#) {
        let mut part = [0; 4096];
        let read = stream.read(&mut part).expect("the host answers");
        assert!(read > 0, "{}", String::from_utf8_lossy(&answer));
        answer.extend_from_slice(&part[..read]);
    }
    assert!(answer.starts_with(b"HTTP/1.1 200"));
}
