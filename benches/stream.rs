//! What events cost from a worker's `send` to the wire: how soon the first arrives, and how many a second
//! pass through one core, beside a plain axum handler that writes the same bytes.
//!
//!     cargo bench --bench stream [-- EVENTS [ROUNDS]]
//!
//! Each server is a process of its own on one core, and is read from the others. The first event is timed
//! from the request, so that start and lookup are in the figure; sending it took less.

mod common;

use std::convert::Infallible;
use std::time::{Duration, Instant};

use axum::Json;
use axum::Router;
use axum::body::Body;
use axum::http::header::CONTENT_TYPE;
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use bytes::Bytes;
use common::{Running, SERVE, allowed_cores, guest, listen, median, pin};
use futures_util::stream;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{SendRequest, handshake};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpStream;

const SERVERS: [&str; 2] = ["axum", "crank"];
/// A worker for tests: sends as many events as it is asked to, of as many bytes.
const PATH: &str = "/invoke/misbehave/send_events";
const BYTES: usize = 32;
/// Streams at once, where they share the core.
const STREAMS: usize = 16;
/// Calls for one event.
const FIRSTS: usize = 500;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|given| given != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some(SERVE) {
        return listen(Router::new().route(PATH, post(events)));
    }
    let events = first.map_or(1_000_000, |text| text.parse().expect("a number of events"));
    let rounds = arguments
        .next()
        .map_or(5, |text| text.parse().expect("a number of rounds"));
    measure(events, rounds);
}

/// The same bytes, an event at a time.
async fn events(Json(input): Json<Value>) -> Response {
    let count = input["count"].as_u64().unwrap_or_default();
    let event = format!("event: news\ndata: {}\n\n", "x".repeat(BYTES));
    let done = "event: result\ndata: {}\n\n";
    let lines = (0..=count).map(move |number| {
        let line = if number < count {
            event.clone()
        } else {
            done.to_owned()
        };
        Ok::<_, Infallible>(Bytes::from(line))
    });
    let body = Body::from_stream(stream::iter(lines));
    ([(CONTENT_TYPE, "text/event-stream")], body).into_response()
}

/// What one server did in one round.
struct Figures {
    first_p50: f64,
    first_p99: f64,
    /// Events a second and microseconds of CPU for each: one stream, then many.
    rates: [(f64, f64); 2],
}

fn measure(events: usize, rounds: usize) {
    let component = guest("hostile");
    let cores = allowed_cores();
    let [first, others @ ..] = &cores[..] else {
        unreachable!("a machine has a core")
    };
    if !others.is_empty() {
        pin(others);
    }
    let runtime = tokio::runtime::Runtime::new().expect("threads");
    let mut all: Vec<Vec<Figures>> = SERVERS.iter().map(|_| Vec::new()).collect();
    for round in 0..rounds {
        for (server, figures) in SERVERS.iter().zip(&mut all) {
            let running = Running::start(server, &component, *first);
            let found = runtime.block_on(stand(&running, events));
            eprintln!(
                "round {}: {server}: {:.0} events a second",
                round + 1,
                found.rates[0].0
            );
            figures.push(found);
        }
    }
    println!(
        "\none core for the server, events of {BYTES} bytes, {events} in all, medians of {rounds} rounds:"
    );
    for (server, figures) in SERVERS.iter().zip(&all) {
        let middle = |of: &dyn Fn(&Figures) -> f64| median(figures.iter().map(of).collect());
        println!(
            "{server:6} first event p50 {:.3} ms, p99 {:.3} ms; one stream {:.0} events/s, {:.2} us CPU each; \
             {STREAMS} streams {:.0} events/s, {:.2} us CPU each",
            middle(&|f| f.first_p50),
            middle(&|f| f.first_p99),
            middle(&|f| f.rates[0].0),
            middle(&|f| f.rates[0].1),
            middle(&|f| f.rates[1].0),
            middle(&|f| f.rates[1].1),
        );
    }
}

async fn stand(server: &Running, events: usize) -> Figures {
    let mut connection = connect(server).await;
    let mut firsts = Vec::with_capacity(FIRSTS);
    for call in 0..FIRSTS + 50 {
        let (first, _) = read(&mut connection, 1).await;
        // The first calls warm the server up.
        if call >= 50 {
            firsts.push(first.as_secs_f64() * 1e3);
        }
    }
    firsts.sort_by(f64::total_cmp);
    let mut rates = [(0.0, 0.0); 2];
    for (rate, streams) in rates.iter_mut().zip([1, STREAMS]) {
        let (cpu, began) = (server.cpu(), Instant::now());
        let each = events / streams;
        let mut reading = Vec::new();
        for _ in 0..streams {
            let mut connection = connect(server).await;
            reading.push(tokio::spawn(
                async move { read(&mut connection, each).await.1 },
            ));
        }
        let mut seen = 0;
        for one in reading {
            seen += one.await.expect("a stream");
        }
        let cpu = (server.cpu() - cpu).as_secs_f64();
        *rate = (
            seen as f64 / began.elapsed().as_secs_f64(),
            cpu * 1e6 / seen as f64,
        );
    }
    Figures {
        first_p50: firsts[FIRSTS / 2],
        first_p99: firsts[FIRSTS * 99 / 100],
        rates,
    }
}

async fn connect(server: &Running) -> SendRequest<Full<Bytes>> {
    let stream = TcpStream::connect(server.address)
        .await
        .expect("it listens");
    stream.set_nodelay(true).expect("a socket");
    let (sender, connection) = handshake(TokioIo::new(stream)).await.expect("HTTP");
    tokio::spawn(connection);
    sender
}

/// Reads a stream to its end: when the first event came, and how many came but for the result.
async fn read(connection: &mut SendRequest<Full<Bytes>>, count: usize) -> (Duration, usize) {
    let input = json!({ "count": count, "event": "news", "bytes": BYTES }).to_string();
    let request = Request::post(PATH)
        .header("host", "localhost")
        .header("content-type", "application/json")
        .header("accept", "text/event-stream")
        .body(Full::new(Bytes::from(input)))
        .expect("a request");
    connection.ready().await.expect("an open connection");
    let began = Instant::now();
    let mut answer = connection.send_request(request).await.expect("an answer");
    assert!(answer.status().is_success(), "{}", answer.status());
    let (mut first, mut seen, mut last) = (None, 0, 0);
    while let Some(frame) = answer.body_mut().frame().await {
        let bytes = frame.expect("a frame").into_data().expect("data");
        first.get_or_insert_with(|| began.elapsed());
        for &byte in &bytes {
            seen += usize::from(byte == b'\n' && last == b'\n');
            last = byte;
        }
    }
    assert_eq!(seen, count + 1, "each event and the result");
    (first.expect("an event"), count)
}
