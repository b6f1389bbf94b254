//! What a request costs: a plain axum handler, axum with the bare engine behind it (a fresh instance for
//! each request, nothing checked), and `crank serve` (a fresh sandbox, validation both ways, limits,
//! metering). Each is a process of its own on one core; sixteen connections call it from the other cores.
//!
//!     cargo bench --bench http [-- SECONDS [ROUNDS]]
//!
//! In each round the servers take turns. CPU time is what the kernel charged the server for the requests
//! that it answered, user and system: unlike requests per second it does not depend on what else the machine does.

mod common;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::CONTENT_TYPE;
use axum::response::Response;
use axum::routing::post;
use axum::{Json, Router};
use bytes::Bytes;
use common::{Running, SERVE, allowed_cores, config, hello, listen, median, pin};
use crank::bindings::crank::worker::types;
use crank::bindings::exports::crank::worker::handler;
use crank::engine::{Engine, Settings};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

const SERVERS: [&str; 3] = ["axum", "axum + wasmtime", "crank"];
const CONNECTIONS: usize = 16;
const PATH: &str = "/invoke/greet/hello_world";
const INPUT: &str = r#"{"name":"Ada"}"#;
/// Before anything is counted.
const WARM_UP: Duration = Duration::from_millis(500);

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|given| given != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some(SERVE) {
        let server = arguments.next().expect("which server");
        return serve(&server, Path::new(&arguments.next().expect("a component")));
    }
    let seconds = first.map_or(3, |text| text.parse().expect("a number of seconds"));
    let rounds = arguments
        .next()
        .map_or(5, |text| text.parse().expect("a number of rounds"));
    measure(Duration::from_secs(seconds), rounds);
}

/// What one server did in one round.
#[derive(Clone, Copy)]
struct Figures {
    per_second: f64,
    cpu_us: f64,
    p50: Duration,
    p99: Duration,
}

fn measure(time: Duration, rounds: usize) {
    let component = hello();
    let cores = allowed_cores();
    let [first, others @ ..] = &cores[..] else {
        unreachable!("a machine has a core")
    };
    if !others.is_empty() {
        pin(others);
    }
    let mut all: Vec<Vec<Figures>> = vec![Vec::new(); SERVERS.len()];
    for round in 0..rounds {
        for (server, figures) in SERVERS.iter().zip(&mut all) {
            let running = Running::start(server, &component, *first);
            figures.push(call(&running, time));
            eprintln!(
                "round {}: {server}: {:.0} a second",
                round + 1,
                figures[round].per_second
            );
        }
    }
    println!(
        "\n{CONNECTIONS} connections, one core for the server, medians of {rounds} rounds of {time:?}:"
    );
    let middle = |of: &dyn Fn(&Figures) -> f64, figures: &[Figures]| {
        median(figures.iter().map(of).collect())
    };
    for (server, figures) in SERVERS.iter().zip(&all) {
        println!(
            "{server:16} {:8.0} requests/s  {:6.1} us CPU each  p50 {:.2} ms  p99 {:.2} ms",
            middle(&|f| f.per_second, figures),
            middle(&|f| f.cpu_us, figures),
            middle(&|f| f.p50.as_secs_f64() * 1e3, figures),
            middle(&|f| f.p99.as_secs_f64() * 1e3, figures),
        );
    }
    // Of each round by itself: what slows a round down slows all of it.
    for (against, figures) in SERVERS.iter().zip(&all).take(2) {
        let ratio = |of: &dyn Fn(&Figures) -> f64| {
            let rounds = all[2].iter().zip(figures);
            median(rounds.map(|(ours, theirs)| of(ours) / of(theirs)).collect())
        };
        println!(
            "crank against {against}: {:.2} of its requests/s, {:.2} times its CPU for each",
            ratio(&|f| f.per_second),
            ratio(&|f| f.cpu_us),
        );
    }
}

/// Calls on all connections for some time.
fn call(server: &Running, time: Duration) -> Figures {
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let (counting, over) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicBool::new(false)),
        );
        let connections: Vec<_> = (0..CONNECTIONS)
            .map(|_| tokio::spawn(connection(server.address, counting.clone(), over.clone())))
            .collect();
        tokio::time::sleep(WARM_UP).await;
        let (cpu, began) = (server.cpu(), Instant::now());
        counting.store(true, Ordering::Relaxed);
        tokio::time::sleep(time).await;
        over.store(true, Ordering::Relaxed);
        let (cpu, took) = (server.cpu() - cpu, began.elapsed());
        let mut latencies = Vec::new();
        for connection in connections {
            latencies.extend(connection.await.expect("answers"));
        }
        latencies.sort_unstable();
        let count = latencies.len();
        Figures {
            per_second: count as f64 / took.as_secs_f64(),
            cpu_us: cpu.as_secs_f64() * 1e6 / count as f64,
            p50: latencies[count / 2],
            p99: latencies[count * 99 / 100],
        }
    })
}

async fn connection(
    address: SocketAddr,
    counting: Arc<AtomicBool>,
    over: Arc<AtomicBool>,
) -> Vec<Duration> {
    let stream = TcpStream::connect(address).await.expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    let mut latencies = Vec::new();
    while !over.load(Ordering::Relaxed) {
        let request = Request::post(PATH)
            .header("host", address.to_string())
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(Bytes::from_static(INPUT.as_bytes())))
            .expect("a request");
        let began = Instant::now();
        let answer = sender.send_request(request).await.expect("an answer");
        let status = answer.status();
        let body = answer
            .into_body()
            .collect()
            .await
            .expect("a body")
            .to_bytes();
        assert!(status.is_success(), "{status}: {body:?}");
        if counting.load(Ordering::Relaxed) {
            latencies.push(began.elapsed());
        }
    }
    latencies
}

/// Runs as one of the servers that `crank serve` is held against.
fn serve(server: &str, component: &Path) {
    let app = match server {
        "axum" => Router::new().route(PATH, post(greet)),
        _ => Router::new()
            .route(PATH, post(run))
            .with_state(Arc::new(Floor::new(component))),
    };
    listen(app);
}

/// What hello-world does, in the host.
async fn greet(Json(input): Json<Value>) -> Json<Value> {
    let name = input["name"].as_str().unwrap_or("world");
    Json(json!({ "greeting": format!("Hello, {name}!") }))
}

/// The engine with our settings and nothing of ours around it.
struct Floor {
    engine: Engine,
    pre: InstancePre<()>,
    indices: handler::GuestIndices,
}

impl Floor {
    fn new(file: &Path) -> Self {
        let settings = Settings::new(&config().limits, env!("CARGO_BIN_EXE_crank"));
        let engine = Engine::new(settings, None).expect("an engine");
        let component = Component::from_file(engine.wasm(), file).expect("it compiles");
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
}

async fn run(State(floor): State<Arc<Floor>>, body: Bytes) -> Response {
    let request = handler::Request {
        id: "00000000000000000000000000000000".to_owned(),
        capability: "greet:hello_world".to_owned(),
        input: types::Payload {
            media_type: "application/json".to_owned(),
            body: body.to_vec(),
        },
        parameters: Vec::new(),
        caller: None,
        deadline_ms: 30_000,
        context: Vec::new(),
    };
    let mut store = Store::new(floor.engine.wasm(), ());
    store.set_epoch_deadline(u64::MAX / 2);
    let instance = floor
        .pre
        .instantiate_async(&mut store)
        .await
        .expect("instantiates");
    let handler = floor
        .indices
        .load(&mut store, &instance)
        .expect("a handler");
    let answer = handler
        .call_handle(&mut store, &request)
        .await
        .expect("answers")
        .expect("greets");
    let mut response = Response::new(Body::from(answer.body));
    let media_type = answer.media_type.try_into().expect("a media type");
    response.headers_mut().insert(CONTENT_TYPE, media_type);
    response
}
