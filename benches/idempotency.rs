//! What an idempotency key costs: the same call over HTTP without one and with one of its own each, in turn.
//!
//!     cargo bench --bench idempotency [-- DIR [SECONDS]]
//!
//! `hello-world`, sixteen connections, each sends its next call when the last is answered; client and host on
//! the same cores. Keys lie in DIR (or in the system's place for temporary files): what they cost is what that
//! disk takes to be flushed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::config::Config;
use crank::engine::{self, Engine, Settings};
use crank::idempotency::Keys;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::toolchain::{self, BuildRequest, Terminal};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

const CONNECTIONS: usize = 16;
const ROUNDS: usize = 5;
const BODY: &str = "{\"name\": \"Ada\"}";

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|given| given != "--bench");
    let place = arguments
        .next()
        .map_or_else(std::env::temp_dir, PathBuf::from);
    let seconds = arguments
        .next()
        .map_or(3, |text| text.parse().expect("seconds"));
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(engine::threads())
        .enable_all()
        .build()
        .expect("threads");
    let dir = tempfile::tempdir_in(place).expect("a directory");
    let address = runtime.block_on(serve(dir.path()));
    println!("| round | key | calls per second | p50 | p99 |\n|---|---|---|---|---|");
    for round in 0..ROUNDS {
        for keyed in [false, true] {
            let mut times = runtime.block_on(load(address, keyed, Duration::from_secs(seconds)));
            times.sort_unstable();
            let at = |part: f64| times[(times.len() as f64 * part) as usize].as_secs_f64() * 1e3;
            println!(
                "| {} | {} | {:.0} | {:.2} ms | {:.2} ms |",
                round + 1,
                if keyed { "of its own" } else { "none" },
                times.len() as f64 / seconds as f64,
                at(0.5),
                at(0.99)
            );
        }
    }
}

async fn serve(dir: &Path) -> SocketAddr {
    let config = Arc::new(Config::load(&[], None, std::env::vars()).expect("the defaults hold"));
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let request = BuildRequest {
        crates: vec![root.join("guests/hello-world")],
        out: dir.join("workers"),
        target_dir: root.join("target"),
        cache_dir: config.cache_dir.clone(),
        offline: false,
    };
    let terminal = Terminal::default();
    let built = toolchain::build(&request, &|event| terminal.show(event)).expect("it builds");
    let settings = Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"));
    let engine = Engine::new(settings, Some(dir)).expect("an engine");
    let snapshot = Snapshot::load(&engine, &config, vec![built[0].component.clone()]).await;
    let router = Arc::new(Router::new(Registry::new(snapshot)));
    router.keep(Keys::at(dir.join("keys"), &config.idempotency));
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("an address");
    let settings = crank::api::Settings::from(&*config);
    tokio::spawn(crank::api::serve(
        listener,
        router,
        settings,
        std::future::pending(),
    ));
    address
}

/// How long each call took.
async fn load(address: SocketAddr, keyed: bool, lasts: Duration) -> Vec<Duration> {
    let connections = (0..CONNECTIONS).map(|_| tokio::spawn(connection(address, keyed, lasts)));
    let connections: Vec<_> = connections.collect();
    let mut times = Vec::new();
    for connection in connections {
        times.extend(connection.await.expect("no panic"));
    }
    times
}

async fn connection(address: SocketAddr, keyed: bool, lasts: Duration) -> Vec<Duration> {
    let mut stream = TcpStream::connect(address).await.expect("it accepts");
    stream.set_nodelay(true).expect("a socket");
    let (mut times, mut answer, began) = (Vec::new(), vec![0; 4096], Instant::now());
    while began.elapsed() < lasts {
        let key = match keyed {
            true => format!("idempotency-key: {}\r\n", uuid::Uuid::now_v7()),
            false => String::new(),
        };
        let request = format!(
            "POST /invoke/greet/hello_world HTTP/1.1\r\nhost: localhost\r\n{key}content-type: application/json\r\ncontent-length: {}\r\n\r\n{BODY}",
            BODY.len()
        );
        let sent = Instant::now();
        stream
            .write_all(request.as_bytes())
            .await
            .expect("it reads");
        let mut length = 0;
        // The answer is short and ends with the greeting.
        while !answer[..length].ends_with(b"Ada!\"}") {
            let read = stream
                .read(&mut answer[length..])
                .await
                .expect("it answers");
            assert!(read > 0, "{}", String::from_utf8_lossy(&answer[..length]));
            length += read;
        }
        times.push(sent.elapsed());
    }
    times
}
