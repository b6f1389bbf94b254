//! What the tests share: guests that are built once, an engine, hosts, and a log to look into.

pub mod component;

use std::collections::BTreeMap;
use std::future::Future;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};
use std::time::Duration;

use crank::api;
use crank::capability::DiskType;
use crank::config::{ByteCount, Config};
use crank::engine::{Engine, Settings};
use crank::error::{Code, Failure};
use crank::machine::{Disk, Machine};
use crank::registry::{Registry, Snapshot};
use crank::router::{Answer, Call, Router};
use crank::sandbox::Payload;
use crank::toolchain::{self, BuildRequest, Terminal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tracing_subscriber::EnvFilter;

/// Invocations that may live at once: more than the tests need, little address space.
pub const INSTANCES: u32 = 64;

/// The names that document-conversion offers.
pub const CONVERSIONS: [&str; 8] = [
    "csv_to_json",
    "docx_to_text",
    "email_to_text",
    "html_to_markdown",
    "html_to_text",
    "markdown_to_html",
    "pdf_to_text",
    "text_to_stream",
];

/// The runtime of all tests, so that a test knows which threads are there.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(crank::engine::threads())
        .max_blocking_threads(crank::engine::threads())
        .enable_all()
        .build()
        .expect("threads")
});

/// The engine of all tests. Its cache outlives them: what did not change is compiled once. A process
/// that must be alone with its cache names another folder, by the same variable.
pub static ENGINE: LazyLock<Engine> = LazyLock::new(|| {
    let scratch = std::env::var("CARGO_TARGET_TMPDIR");
    let scratch = scratch.as_deref().unwrap_or(env!("CARGO_TARGET_TMPDIR"));
    engine(&Path::new(scratch).join("code"))
});

/// The guests of this repository that were asked for so far, by the name of their folder: the
/// component, or why there is none.
static GUESTS: Mutex<BTreeMap<String, Result<PathBuf, String>>> = Mutex::new(BTreeMap::new());

/// What the host wrote to its log, from the first call of [`log`] on.
static LOG: LazyLock<Arc<Mutex<Vec<u8>>>> = LazyLock::new(|| {
    let lines = Arc::new(Mutex::new(Vec::new()));
    let writer = Lines(lines.clone());
    tracing_subscriber::fmt()
        .with_env_filter(EnvFilter::new("crank=debug,worker=trace,audit=info"))
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .init();
    lines
});

#[derive(Clone)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0
            .lock()
            .expect("no test died here")
            .extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Runs a test on the shared runtime.
pub fn run<T>(test: impl Future<Output = T>) -> T {
    LazyLock::force(&LOG);
    RUNTIME.block_on(test)
}

/// What the kernel says of a process's memory: `/proc/self`, `VmRSS`. In KiB.
pub fn kib(process: &str, field: &str) -> u64 {
    let status = std::fs::read_to_string(format!("{process}/status")).expect("procfs");
    let value = status.lines().find_map(|line| {
        let value = line.strip_prefix(field)?.strip_prefix(':')?;
        value.trim().strip_suffix(" kB")
    });
    let value = value.expect("a field");
    value.parse().expect("a number")
}

/// The log so far, all tests of this process together: look for a name that only one test uses.
pub fn log() -> String {
    let lines = LOG.lock().expect("no test died here");
    String::from_utf8(lines.clone()).expect("the log is UTF-8")
}

/// An engine of its own, with its code cache in a directory.
pub fn engine(cache: &Path) -> Engine {
    engine_with(&config(""), cache)
}

/// The same with the bounds of a configuration for compiling.
pub fn engine_with(config: &Config, cache: &Path) -> Engine {
    let settings = Settings {
        instances: INSTANCES,
        ..Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"))
    };
    Engine::new(settings, Some(cache)).expect("the engine starts")
}

/// A machine that has so much memory for workers, and not much else.
pub fn machine(budget_mb: u32) -> Machine {
    Machine {
        cores: 4,
        memory: None,
        budget: ByteCount::mib(budget_mb),
        disk: Disk {
            kind: Some(DiskType::Hdd),
            from: "this test".to_owned(),
        },
        disk_type: None,
        gpus: Some(Vec::new()),
    }
}

/// The component of a guest of this repository, `hello-world`: built once in this process.
pub fn guest(name: &str) -> PathBuf {
    let built = GUESTS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .entry(name.to_owned())
        .or_insert_with(|| build(name))
        .clone();
    built.unwrap_or_else(|error| panic!("guests/{name} does not build: {error}"))
}

fn build(name: &str) -> Result<PathBuf, String> {
    let guests = Path::new(env!("CARGO_MANIFEST_DIR")).join("guests");
    // The folder for tests in the target directory, wherever that is: cargo names no other.
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let request = BuildRequest {
        crates: vec![guests.join(name)],
        // Not where `crank demo` serves from: there a hostile worker has no place.
        out: scratch.join("workers"),
        target_dir: scratch.parent().expect("it lies in target/").to_owned(),
        cache_dir: config("").cache_dir.clone(),
        offline: false,
    };
    let terminal = Terminal::default();
    match toolchain::build(&request, &|event| terminal.show(event)).as_deref() {
        Ok([built]) => Ok(built.component.clone()),
        Ok(built) => Err(format!("it is {} components", built.len())),
        Err(error) => Err(error.to_string()),
    }
}

/// A configuration from lines of `crank.toml`, with nothing of this machine's environment but where
/// caches go.
pub fn config(toml: &str) -> Arc<Config> {
    let dir = dir();
    let file = dir.path().join("crank.toml");
    std::fs::write(&file, toml).expect("a file in a temporary directory");
    let places = ["HOME", "XDG_CACHE_HOME"];
    let environment = std::env::vars().filter(|(name, _)| places.contains(&name.as_str()));
    Arc::new(Config::load(&[], Some(&file), environment).expect("the test's configuration holds"))
}

/// The checksum of ZIP files and PNGs, for files that tests write themselves.
pub fn crc32(bytes: &[u8]) -> u32 {
    let step = |crc: u32, byte: &u8| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & 0_u32.wrapping_sub(crc & 1))
        })
    };
    !bytes.iter().fold(u32::MAX, step)
}

/// A directory that is gone after the test.
pub fn dir() -> TempDir {
    tempfile::tempdir().expect("a temporary directory")
}

/// Writes a component into a directory and returns its path.
pub fn place(dir: &TempDir, stem: &str, component: &[u8]) -> PathBuf {
    let file = dir.path().join(format!("{stem}.wasm"));
    std::fs::write(&file, component).expect("a file in a temporary directory");
    file
}

/// Loads components with the shared engine.
pub async fn load(files: Vec<PathBuf>, toml: &str) -> Snapshot {
    Snapshot::load(&ENGINE, &config(toml), files).await
}

/// Loads components of which none is refused, and routes calls to them, without HTTP.
pub async fn router(files: Vec<PathBuf>, toml: &str) -> Arc<Router> {
    let snapshot = load(files, toml).await;
    assert!(
        snapshot.refused().is_empty(),
        "refused: {:#?}",
        snapshot.refused()
    );
    Arc::new(Router::new(Registry::new(snapshot)))
}

/// A call of `verb:name` with a JSON input.
pub fn call(capability: &str, input: &str) -> Call {
    static CALLS: AtomicU64 = AtomicU64::new(0);
    let (verb, name) = capability.split_once(':').expect("verb:name");
    let input = Payload {
        media_type: "application/json".to_owned(),
        body: input.to_owned().into(),
    };
    let id = format!("test-{}", CALLS.fetch_add(1, Relaxed));
    Call::new(id, verb.to_owned(), Some(name.to_owned()), input)
}

/// Calls `verb:name` with a JSON input.
pub async fn invoke(router: &Router, capability: &str, input: &str) -> Result<Answer, Failure> {
    router.invoke(call(capability, input)).await
}

/// How a call fails that must not succeed.
pub async fn failure(router: &Router, capability: &str, input: &str) -> Failure {
    invoke(router, capability, input)
        .await
        .expect_err("it misbehaves")
}

/// The code with which a call fails that must not succeed.
pub async fn code(router: &Router, capability: &str, input: &str) -> Code {
    failure(router, capability, input).await.code
}

/// The JSON that a call answers that must not fail.
pub async fn done(router: &Router, capability: &str, input: &str) -> Value {
    let answer = invoke(router, capability, input)
        .await
        .expect("it stays within its limits");
    serde_json::from_slice(&answer.payload.body).expect("JSON")
}

/// A router to `guests/hostile` alone.
pub async fn hostile(toml: &str) -> Arc<Router> {
    router(vec![guest("hostile")], toml).await
}

/// A host that serves every guest of this repository on a free loopback port until it is dropped.
pub struct Host {
    /// Where it listens.
    pub addr: SocketAddr,
    /// Follows no redirects and has a timeout, so that no test hangs.
    pub client: reqwest::Client,
    serving: tokio::task::JoinHandle<io::Result<()>>,
}

impl Host {
    /// Serves with the default settings, but for what `tweak` changes.
    pub async fn start(tweak: impl FnOnce(&mut api::Settings)) -> Self {
        let files = ["hello-world", "document-conversion", "hostile"].map(guest);
        Self::of(router(files.into(), "").await, tweak).await
    }

    /// Serves what a router has.
    pub async fn of(router: Arc<Router>, tweak: impl FnOnce(&mut api::Settings)) -> Self {
        LazyLock::force(&LOG);
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let addr = listener.local_addr().expect("it has an address");
        let mut settings = api::Settings::from(&*config(""));
        tweak(&mut settings);
        let serving = tokio::spawn(api::serve(
            listener,
            router,
            settings,
            std::future::pending(),
        ));
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(Duration::from_secs(60))
            .no_proxy()
            .build()
            .expect("a client");
        Self {
            addr,
            client,
            serving,
        }
    }

    /// The URL of a path: `/healthz`.
    pub fn url(&self, path: &str) -> String {
        format!("http://{}{path}", self.addr)
    }

    /// What comes back from a path.
    pub async fn get(&self, path: &str) -> reqwest::Response {
        let sent = self.client.get(self.url(path)).send().await;
        sent.expect("it answers")
    }

    /// Sends bytes as they are and reads until the host closes the connection.
    pub async fn raw(&self, bytes: &[u8]) -> Vec<u8> {
        let mut stream = TcpStream::connect(self.addr)
            .await
            .expect("the host accepts");
        // A host that has answered already may close before all is sent.
        let _ = stream.write_all(bytes).await;
        let mut answer = Vec::new();
        let _ =
            tokio::time::timeout(Duration::from_secs(60), stream.read_to_end(&mut answer)).await;
        answer
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        self.serving.abort();
    }
}
