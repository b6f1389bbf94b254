//! What a request costs: a plain axum handler, axum with the bare engine behind it (a fresh instance for
//! each request, nothing checked), and `crank serve` (a fresh sandbox, validation both ways, limits,
//! metering). Each is a process of its own on one core; sixteen connections call it from the other cores.
//!
//!     cargo bench --bench http [-- SECONDS [ROUNDS]]
//!
//! In each round the servers take turns. CPU time is what the kernel charged the server for the requests
//! that it answered, user and system: unlike requests per second it does not depend on what else the machine does.

mod common;

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};
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
use common::{allowed_cores, config, hello, pin};
use crank::bindings::crank::worker::types;
use crank::bindings::exports::crank::worker::handler;
use crank::engine::{Engine, Settings};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::{TcpListener, TcpStream};
use wasmtime::Store;
use wasmtime::component::{Component, InstancePre, Linker};

/// The argument that makes this program a server.
const SERVE: &str = "--serve";
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
    let median = |of: &dyn Fn(&Figures) -> f64, figures: &[Figures]| {
        let mut values: Vec<f64> = figures.iter().map(of).collect();
        values.sort_by(f64::total_cmp);
        values[values.len() / 2]
    };
    for (server, figures) in SERVERS.iter().zip(&all) {
        println!(
            "{server:16} {:8.0} requests/s  {:6.1} us CPU each  p50 {:.2} ms  p99 {:.2} ms",
            median(&|f| f.per_second, figures),
            median(&|f| f.cpu_us, figures),
            median(&|f| f.p50.as_secs_f64() * 1e3, figures),
            median(&|f| f.p99.as_secs_f64() * 1e3, figures),
        );
    }
    // Of each round by itself: what slows a round down slows all of it.
    for (against, figures) in SERVERS.iter().zip(&all).take(2) {
        let ratio = |of: &dyn Fn(&Figures) -> f64| {
            let mut ratios: Vec<f64> = all[2]
                .iter()
                .zip(figures)
                .map(|(ours, theirs)| of(ours) / of(theirs))
                .collect();
            ratios.sort_by(f64::total_cmp);
            ratios[ratios.len() / 2]
        };
        println!(
            "crank against {against}: {:.2} of its requests/s, {:.2} times its CPU for each",
            ratio(&|f| f.per_second),
            ratio(&|f| f.cpu_us),
        );
    }
}

/// A server process.
struct Running {
    child: Child,
    address: SocketAddr,
}

impl Running {
    fn start(server: &str, component: &Path, core: usize) -> Self {
        let mut command = Command::new("taskset");
        command.args(["-c", &core.to_string()]);
        match server {
            "crank" => command
                .arg(env!("CARGO_BIN_EXE_crank"))
                .args(["serve", "--listen", "127.0.0.1:0"])
                .arg(component.parent().expect("a directory"))
                .stderr(Stdio::piped()),
            _ => command
                .arg(std::env::current_exe().expect("this program"))
                .args([SERVE, server])
                .arg(component)
                .stderr(Stdio::piped()),
        };
        let mut child = command.stdout(Stdio::null()).spawn().expect("taskset");
        let mut lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let address = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, address) = line.split_once("listening on http://")?;
            address
                .split_whitespace()
                .next()?
                .trim_end_matches('"')
                .parse()
                .ok()
        });
        // Somebody has to read what it goes on saying.
        std::thread::spawn(move || lines.for_each(drop));
        Self {
            address: address.expect("an address"),
            child,
        }
    }

    /// CPU time that it has taken so far, user and system.
    fn cpu(&self) -> Duration {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", self.child.id())).expect("it runs");
        let (_, fields) = stat.rsplit_once(')').expect("a name in brackets");
        let ticks: u64 = fields
            .split_whitespace()
            .skip(11)
            .take(2)
            .map(|field| field.parse::<u64>().expect("ticks"))
            .sum();
        Duration::from_millis(ticks * 1000 / rustix::param::clock_ticks_per_second())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
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
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    runtime.block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a loopback port");
        eprintln!(
            "listening on http://{}",
            listener.local_addr().expect("an address")
        );
        // As axum's own server does for HTTP/1, which this build leaves out.
        loop {
            let (stream, _) = listener.accept().await.expect("a connection");
            stream.set_nodelay(true).expect("a socket");
            let service = hyper_util::service::TowerToHyperService::new(app.clone());
            tokio::spawn(
                hyper::server::conn::http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service),
            );
        }
    });
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
