//! What the benches share.

#![allow(dead_code)]

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use crank::config::Config;
use crank::toolchain::{BuildRequest, Terminal, build};
use hyper::server::conn::http1;
use hyper_util::rt::TokioIo;
use hyper_util::service::TowerToHyperService;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use tokio::net::TcpListener;
use tokio::runtime::{Builder, Runtime};

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
    guest("hello-world")
}

/// The component of one of the guests, alone in its directory.
pub fn guest(name: &str) -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join(name);
    let request = BuildRequest {
        crates: vec![root.join("guests").join(name)],
        out: out.clone(),
        target_dir: root.join("target"),
        cache_dir: config().cache_dir,
        offline: false,
    };
    let terminal = Terminal::default();
    build(&request, &|event| terminal.show(event)).expect("it builds");
    out.join(format!("{name}.wasm"))
}

/// The argument that makes a bench a server, or one that calls when told to.
pub const SERVE: &str = "--serve";

/// Serves until the process is killed, and says where, as `crank serve` does.
pub fn listen(app: axum::Router) {
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
            let service = TowerToHyperService::new(app.clone());
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), service));
        }
    });
}

/// Tokio with so many workers.
pub fn runtime(threads: usize) -> Runtime {
    Builder::new_multi_thread()
        .worker_threads(threads)
        .enable_all()
        .build()
        .expect("threads")
}

/// The median.
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}

/// A server process.
pub struct Running {
    child: Child,
    pub address: SocketAddr,
}

impl Running {
    /// `crank` is `crank serve` of the component's directory; any other server is this program itself, given
    /// [`SERVE`], the server's name and the component. The process says where it listens as `crank serve` does.
    pub fn start(server: &str, component: &Path, core: usize) -> Self {
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
    pub fn cpu(&self) -> Duration {
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
