//! What work on a GPU costs: calls of a worker that uses it, what fuel costs in each kernel, and the image
//! classifier over HTTP, if `target/workers` has one. Prints a table under the adapter's name.
//!
//!     cargo bench --bench gpu
//!
//! Where `gpu-lab` cannot be built, one in `target/workers` is taken; without that, the kernels alone are
//! measured. `benches/gpu.sh` runs the tests before.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::config::Config;
use crank::engine::{self, Engine};
use crank::gpu::{Account, Adapter, Binding, Device, Dispatch, Memory, Run, Settings};
use crank::limits::Budget;
use crank::registry::{Registry, Snapshot};
use crank::router::{Call, Router};
use crank::sandbox::Payload;
use crank::toolchain::{BuildRequest, Terminal, build};
use serde_json::{Value, json};
use sha2::Digest;

/// Calls of one kind, one after the other.
const CALLS: usize = 100;
/// Callers at once, and the calls of each.
const CALLERS: usize = 8;
const EACH: usize = 25;
/// Runs of a kernel with fuel and without, in turn.
const RUNS: usize = 9;
/// What a worker sends or keeps, in bytes.
const WEIGHTS: u64 = 16 << 20;

/// A shader over 1,024 words of `out`; `a` and `b` have as many.
struct Kernel {
    name: &'static str,
    body: &'static str,
    /// Turns of loops that one thread takes, each counted once more at its end.
    fuel: u32,
}

/// To be followed by those of `guests/gpu-kernels`.
const KERNELS: [Kernel; 4] = [
    Kernel {
        name: "add, no loop",
        body: "out[i] = a[i] + b[i];",
        fuel: 0,
    },
    Kernel {
        name: "dot product, a loop that all threads share",
        body: "var sum = 0.0; for (var k = 0u; k < 1024u; k++) { sum += a[k] * b[(i + k) & 1023u]; } out[i] = sum;",
        fuel: 1_100,
    },
    Kernel {
        name: "3 x 3 convolution over 32 channels, three loops",
        body: "var sum = 0.0;
               for (var c = 0u; c < 32u; c++) { for (var y = 0u; y < 3u; y++) { for (var x = 0u; x < 3u; x++) {
                   sum += a[(i + c * 32u + y * 8u + x) & 1023u] * b[(c * 9u + y * 3u + x) & 1023u];
               } } }
               out[i] = sum;",
        fuel: 600,
    },
    Kernel {
        name: "turns that differ between threads",
        body: "var n = i; var turns = 0.0; while (n > 1u) { n = select(n / 2u, n * 3u + 1u, (n & 1u) == 1u); turns += 1.0; } out[i] = turns + a[i] * b[i];",
        fuel: 500,
    },
];

/// Threads of a kernel's dispatch: enough that it takes longer than to begin it, few enough for a software GPU.
const THREADS: u32 = 1 << 13;

impl Kernel {
    fn wgsl(&self) -> String {
        format!(
            "@group(0) @binding(0) var<storage, read> a: array<f32>;
             @group(0) @binding(1) var<storage, read> b: array<f32>;
             @group(0) @binding(2) var<storage, read_write> out: array<f32>;
             @compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ let i = id.x & 1023u; {} }}",
            self.body
        )
    }
}

fn main() {
    let Some(adapter) = Adapter::find().into_iter().next() else {
        println!("not measured: {}", crank::gpu::NONE);
        return;
    };
    println!("## {}\n", adapter.found);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(engine::threads())
        .enable_all()
        .build()
        .expect("threads");
    runtime.block_on(async {
        fuel(&adapter).await;
        match lab() {
            Ok(file) => calls(file).await,
            Err(why) => println!("calls of a worker: not measured: {why}\n"),
        }
        if let Err(why) = classifier().await {
            println!("image classifier: not measured: {why}");
        }
    });
}

/// Each kernel with its loops metered and not, in turn.
async fn fuel(adapter: &Adapter) {
    println!(
        "| kernel, {THREADS} threads | without fuel | with fuel | fuel costs |\n|---|---|---|---|"
    );
    for kernel in KERNELS {
        let mut runs = Vec::new();
        for metered in [false, true] {
            let settings = Settings { kept: 0, metered };
            runs.push(Bench::new(adapter, settings, &kernel).await);
        }
        let mut took = [Vec::new(), Vec::new()];
        for _ in 0..RUNS {
            for (bench, took) in runs.iter().zip(&mut took) {
                took.push(bench.once().await);
            }
        }
        let [plain, metered] = took.map(|took| quantile(took, 0.5));
        println!(
            "| {} | {} | {} | {:+.1} % |",
            kernel.name,
            ms(plain),
            ms(metered),
            (metered.as_secs_f64() / plain.as_secs_f64() - 1.0) * 100.0
        );
    }
    println!();
}

/// A kernel that is ready to run.
struct Bench {
    device: Device,
    dispatch: Box<dyn Fn() -> Dispatch>,
    budget: Arc<Budget>,
}

impl Bench {
    async fn new(adapter: &Adapter, settings: Settings, kernel: &Kernel) -> Self {
        let device = Device::open(adapter, settings).await.expect("a device");
        let budget = Arc::new(Budget::new(1 << 30));
        let turn = device.turn().await.expect("the device is there");
        let compiled = device.compile(turn, kernel.wgsl(), "main".to_owned());
        let pipeline = compiled.await.expect("it compiles");
        let words: Vec<u8> = (0..1024_u16)
            .flat_map(|word| f32::from(word % 7).to_le_bytes())
            .collect();
        let account = Account::new(1 << 20);
        let mut buffers: Vec<Memory> = Vec::new();
        for _ in 0..3 {
            let paid = account.take(4096).await.expect("there is room");
            let buffer = device.buffer(4096, paid).await.expect("a buffer").memory();
            let held = budget.hold(4096).expect("there is room");
            let written = device.write(buffer.clone(), 0, words.clone(), held);
            written.await.expect("it fits");
            buffers.push(buffer);
        }
        let fuel = kernel.fuel;
        let dispatch = move || Dispatch {
            pipeline: pipeline.clone(),
            bindings: (0..3)
                .map(|slot| Binding {
                    slot,
                    buffer: buffers[slot as usize].clone(),
                    offset: 0,
                    size: 0,
                })
                .collect(),
            workgroups: [THREADS / 64, 1, 1],
            fuel,
        };
        let bench = Self {
            device,
            dispatch: Box::new(dispatch),
            budget,
        };
        bench.once().await;
        bench
    }

    /// The time of one run: the GPU's own, where it has a clock.
    async fn once(&self) -> Duration {
        let run = Run {
            dispatches: vec![(self.dispatch)()],
            reads: Vec::new(),
            held: self.budget.hold(1 << 10).expect("there is room"),
        };
        let began = Instant::now();
        let ran = self.device.run(run).await.expect("it runs");
        ran.took.unwrap_or_else(|| began.elapsed())
    }
}

/// Calls of a worker that adds two vectors beside its weights.
async fn calls(file: PathBuf) {
    let program = |weights: Value| {
        json!({
            "buffers": [{"size": 4 << 20}, {"size": 4 << 20}, weights],
            "shaders": ["
                @group(0) @binding(0) var<storage, read> a: array<f32>;
                @group(0) @binding(1) var<storage, read_write> b: array<f32>;
                @compute @workgroup_size(64)
                fn main(@builtin(global_invocation_id) id: vec3<u32>) {
                    if (id.x < arrayLength(&b)) { b[id.x] += a[id.x]; }
                }"],
            "dispatches": [{"bind": [[0, 0], [1, 1]], "groups": [(1 << 20) / 64, 1, 1]}],
            "read": [[1, 0, 4]],
        })
        .to_string()
    };
    let sent = program(json!({"size": WEIGHTS, "zeroes": true}));
    // Of so many zeroes.
    let hash = sha2::Sha256::digest(vec![0; WEIGHTS as usize]).to_vec();
    let kept = program(json!({"size": WEIGHTS, "zeroes": true, "keep": true, "sha256": hash}));
    let lab = router(&[file], "").await.expect("gpu-lab serves");
    let mib = WEIGHTS >> 20;

    println!("| vector add of 2²⁰ words by a worker, in a fresh sandbox | p50 | p99 | GPU time |");
    println!("|---|---|---|---|");
    let first = timed(&lab, &kept).await;
    row("first call: device opened, shader compiled", vec![first]);
    row(
        &format!("pipeline cached, {mib} MiB of weights sent with each call"),
        several(&lab, &sent, CALLS).await,
    );
    row(
        "pipeline cached, weights kept",
        several(&lab, &kept, CALLS).await,
    );
    let began = Instant::now();
    let callers = (0..CALLERS).map(|_| {
        let (lab, kept) = (lab.clone(), kept.clone());
        tokio::spawn(async move { several(&lab, &kept, EACH).await })
    });
    let callers: Vec<_> = callers.collect();
    let mut took = Vec::new();
    for caller in callers {
        took.extend(caller.await.expect("no panic"));
    }
    let rate = took.len() as f64 / began.elapsed().as_secs_f64();
    row(
        &format!("the same, {CALLERS} callers with {EACH} calls each: {rate:.0} calls a second"),
        took,
    );
    println!();
}

async fn several(router: &Router, input: &str, times: usize) -> Vec<(Duration, Duration)> {
    let mut took = Vec::with_capacity(times);
    for _ in 0..times {
        took.push(timed(router, input).await);
    }
    took
}

/// How long a call took, and the GPU for it.
async fn timed(router: &Router, input: &str) -> (Duration, Duration) {
    let input = Payload {
        media_type: "application/json".to_owned(),
        body: input.to_owned().into(),
    };
    let id = "00000000000000000000000000000000".to_owned();
    let call = Call::new(id, "gpu".to_owned(), Some("run".to_owned()), input);
    let began = Instant::now();
    let answer = router.invoke(call).await.expect("it answers");
    (began.elapsed(), answer.usage.gpu)
}

fn row(what: &str, took: Vec<(Duration, Duration)>) {
    let (took, gpu): (Vec<_>, Vec<_>) = took.into_iter().unzip();
    let [p50, p99] = [0.5, 0.99].map(|part| ms(quantile(took.clone(), part)));
    println!("| {what} | {p50} | {p99} | {} |", ms(quantile(gpu, 0.5)));
}

/// The image classifier's own example, over HTTP.
async fn classifier() -> Result<(), String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/workers/image-classifier.wasm");
    if !file.exists() {
        return Err("target/workers has none".to_owned());
    }
    let relaxed =
        "[workers.image-classifier]\nrelax = [\"gpu_type\", \"gpu_memory_mb\", \"gpu_count\"]";
    let router = router(&[file], relaxed).await?;
    let snapshot = router.registry().snapshot();
    let offered = &snapshot.workers()[0].offered()[0].capability;
    let example = offered.examples.first().ok_or("it has no example")?;
    let (body, media_type) = (example.body.clone(), example.media_type.to_string());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await;
    let listener = listener.map_err(|error| error.to_string())?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    let settings = crank::api::Settings::from(&*config(relaxed));
    tokio::spawn(crank::api::serve(
        listener,
        router.clone(),
        settings,
        std::future::pending(),
    ));
    let client = reqwest::Client::new();
    let url = format!(
        "http://{address}/invoke/{}",
        offered.key().replace(':', "/")
    );
    let once = async || {
        let before = snapshot.workers()[0].observed().gpu_total;
        let began = Instant::now();
        let call = client.post(&url).header("content-type", &media_type);
        let answer = call.body(body.clone()).send().await;
        let answer = answer.map_err(|error| error.to_string())?;
        let (status, text) = (answer.status(), answer.text().await);
        let took = began.elapsed();
        match status.is_success() {
            true => Ok((took, snapshot.workers()[0].observed().gpu_total - before)),
            false => Err(format!("{status}: {}", text.unwrap_or_default())),
        }
    };
    let first = once().await?;
    let mut took = Vec::new();
    for _ in 0..CALLS {
        took.push(once().await?);
    }
    println!("| image classifier over HTTP | p50 | p99 | GPU time |\n|---|---|---|---|");
    row("first call", vec![first]);
    row("the next ones", took);
    Ok(())
}

fn config(toml: &str) -> Arc<Config> {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("crank.toml");
    std::fs::write(&file, toml).expect("a file");
    Arc::new(Config::load(&[], Some(&file), std::env::vars()).expect("it holds"))
}

async fn router(files: &[PathBuf], toml: &str) -> Result<Arc<Router>, String> {
    let config = config(toml);
    let settings = engine::Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"));
    let code = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
    let engine = Engine::new(settings, Some(&code)).map_err(|error| error.to_string())?;
    let snapshot = Snapshot::load(&engine, &config, files.to_vec()).await;
    match snapshot.refused() {
        [] => Ok(Arc::new(Router::new(Registry::new(snapshot)))),
        refused => Err(format!("{:?}", refused[0].reasons)),
    }
}

/// The worker that does what it is told.
fn lab() -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let there = root.join("target/workers/gpu-lab.wasm");
    let request = BuildRequest {
        crates: vec![root.join("guests/gpu-lab")],
        // Not where `crank demo` serves from.
        out: Path::new(env!("CARGO_TARGET_TMPDIR")).join("workers"),
        target_dir: root.join("target"),
        cache_dir: config("").cache_dir.clone(),
        offline: false,
    };
    let terminal = Terminal::default();
    match build(&request, &|event| terminal.show(event)).as_deref() {
        Ok([built]) => Ok(built.component.clone()),
        _ if there.exists() => Ok(there),
        Ok(_) => Err("guests/gpu-lab is no single component".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

fn quantile(mut took: Vec<Duration>, part: f64) -> Duration {
    took.sort_unstable();
    took[((took.len() - 1) as f64 * part).round() as usize]
}

fn ms(took: Duration) -> String {
    format!("{:.2} ms", took.as_secs_f64() * 1e3)
}
