//! What work on a GPU costs: calls of a worker that uses it, what fuel costs in each kernel, and the image
//! classifier over HTTP, if `target/workers` has one. Prints a table under the adapter's name.
//!
//!     cargo bench --bench gpu
//!
//! Where `gpu-lab` cannot be built, one in `target/workers` is taken; without that, the kernels alone are
//! measured. `benches/gpu.sh` runs the tests before.

mod common;

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
use kernels::{ELEMENTS, Kernel, LANES, STEP, TILE, Tile};
use serde_json::{Value, json};
use sha2::Digest;

/// The kernels themselves: their crate is a guest's, and of another workspace.
#[path = "../guests/gpu-kernels/src/kernels.rs"]
mod kernels;

/// Calls of one kind, one after the other.
const CALLS: usize = 100;
/// Callers at once, and the calls of each.
const CALLERS: usize = 8;
const EACH: usize = 25;
/// Runs of a kernel with fuel and without, in turn.
const RUNS: usize = 21;
/// What a worker sends or keeps, in bytes.
const WEIGHTS: u64 = 16 << 20;

/// A shader that is ready to be compiled, and what it is given.
struct Shader {
    name: String,
    wgsl: String,
    /// Slots and the words of their buffers.
    buffers: Vec<(u32, Vec<u32>)>,
    groups: [u32; 3],
    /// Turns of loops that one thread takes, each counted once more at its end.
    fuel: u32,
    /// Times that it is dispatched in one run: enough that a run takes longer than to begin it.
    times: usize,
}

/// The kernels of `guests/gpu-kernels`, each with the shape of a layer of the default model or of MobileNetV2.
fn ours() -> Vec<Shader> {
    use Kernel::{Add, Conv, Dense, Depthwise, Pointwise, Pool, Relu6, Softmax};
    let pointwise = |side: usize, fours| Pointwise {
        tile: Tile::of(side * side),
        fours,
    };
    // Channels and side of the input, then of the output, and the stride.
    [
        (Conv(3, 3), [3, 64], [16, 32], 2),
        (Conv(3, 3), [32, 32], [32, 32], 1),
        (Depthwise(3, 3), [96, 32], [96, 32], 1),
        (pointwise(32, true), [96, 32], [24, 32], 1),
        (pointwise(32, false), [27, 32], [24, 32], 1),
        (pointwise(16, true), [144, 16], [32, 16], 1),
        (pointwise(8, true), [192, 8], [64, 8], 1),
        (Relu6, [96, 32], [96, 32], 1),
        (Add, [24, 32], [24, 32], 1),
        (Pool, [1280, 7], [1280, 1], 1),
        (Dense, [1280, 1], [1000, 1], 1),
        (Softmax, [1000, 1], [1000, 1], 1),
    ]
    .map(|(kernel, from, to, stride)| own(kernel, from, to, stride))
    .into()
}

fn own(kernel: Kernel, from: [u32; 2], to: [u32; 2], stride: u32) -> Shader {
    let ([channels, side], [outputs, out_side]) = (from, to);
    let (pixels, out_pixels) = (side * side, out_side * out_side);
    let (values, out_values) = (channels * pixels, outputs * out_pixels);
    let (lanes, tile, elements) = (LANES as u32, TILE as u32, ELEMENTS as u32);
    let per_output = match kernel {
        Kernel::Conv(height, width) => channels * (height * width) as u32,
        Kernel::Depthwise(height, width) => (height * width) as u32,
        _ => channels,
    };
    // As `plan/layer.rs` has it.
    let (x, y, fuel) = match kernel {
        Kernel::Conv(..) => (
            out_pixels.div_ceil(lanes),
            outputs.div_ceil(tile),
            channels + 1,
        ),
        Kernel::Depthwise(..) => (out_pixels.div_ceil(lanes), outputs, 0),
        Kernel::Pointwise { tile: of, fours } => {
            let (lanes, each) = of.size();
            let turns = if fours { channels / 4 } else { channels };
            (
                out_pixels.div_ceil((lanes * each) as u32),
                outputs.div_ceil(tile),
                turns + 1,
            )
        }
        Kernel::Relu6 | Kernel::Add => (out_values.div_ceil(lanes * elements), 1, 0),
        Kernel::Pool => (outputs.div_ceil(lanes), 1, pixels + 1),
        Kernel::Dense => {
            let step = STEP as u32;
            (
                outputs.div_ceil(lanes),
                1,
                values / step + values % step + 2,
            )
        }
        Kernel::Softmax => {
            let turns = 2 * values.div_ceil(STEP as u32) + values.div_ceil(lanes);
            (1, 1, turns + 3)
        }
    };
    let padding = u32::from(matches!(kernel, Kernel::Conv(..) | Kernel::Depthwise(..)));
    let weights = per_output * outputs;
    let params = [
        channels,
        side,
        side,
        outputs,
        out_side,
        out_side,
        stride,
        padding,
        0,
        weights,
        0_f32.to_bits(),
        6_f32.to_bits(),
        0,
        0,
        0,
        0,
    ];
    let words = |count: u32| (0..count).map(|word| (f32::from((word % 7) as u8) / 7.0).to_bits());
    let mut buffers = vec![
        (0, params.to_vec()),
        (1, words(values).collect()),
        (3, vec![0; out_values as usize]),
    ];
    if kernel.has_weights() {
        buffers.push((2, words(weights + outputs).collect()));
    }
    if kernel == Kernel::Add {
        buffers.push((4, words(values).collect()));
    }
    Shader {
        name: format!("{kernel:?}, {channels} x {side}² to {outputs} x {out_side}²"),
        wgsl: kernel.wgsl(),
        buffers,
        groups: [x, y, 1],
        fuel,
        times: 20,
    }
}

/// What costs most: a loop of a few instructions, whose turns differ between threads.
fn others() -> Shader {
    let body = "var n = i; var turns = 0.0; while (n > 1u) { n = select(n / 2u, n * 3u + 1u, (n & 1u) == 1u); turns += 1.0; } y[i] = turns + x[i];";
    Shader {
        name: "turns that differ between threads (not one of ours)".to_owned(),
        wgsl: format!(
            "@group(0) @binding(1) var<storage, read> x: array<f32>;
             @group(0) @binding(3) var<storage, read_write> y: array<f32>;
             @compute @workgroup_size(64)
             fn main(@builtin(global_invocation_id) id: vec3<u32>) {{ let i = id.x & 1023u; {body} }}"
        ),
        buffers: vec![(1, vec![0; 1024]), (3, vec![0; 1024])],
        groups: [128, 1, 1],
        fuel: 500,
        times: 1,
    }
}

fn main() {
    let Some(adapter) = Adapter::find().into_iter().next() else {
        println!("not measured: {}", crank::gpu::NONE);
        return;
    };
    println!("## {}\n", adapter.found);
    let runtime = common::runtime(engine::threads());
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
    println!("| kernel | without fuel | with fuel | fuel costs |\n|---|---|---|---|");
    for shader in ours().into_iter().chain([others()]) {
        let mut runs = Vec::new();
        for metered in [false, true] {
            let settings = Settings { kept: 0, metered };
            runs.push(Bench::new(adapter, settings, &shader).await);
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
            shader.name,
            ms(plain),
            ms(metered),
            (metered.as_secs_f64() / plain.as_secs_f64() - 1.0) * 100.0
        );
    }
    println!();
}

/// A shader that is ready to run.
struct Bench {
    device: Device,
    dispatch: Box<dyn Fn() -> Dispatch>,
    times: usize,
    budget: Arc<Budget>,
}

impl Bench {
    async fn new(adapter: &Adapter, settings: Settings, shader: &Shader) -> Self {
        let device = Device::open(adapter, settings).await.expect("a device");
        let budget = Arc::new(Budget::new(1 << 30));
        let turn = device.turn().await.expect("the device is there");
        let compiled = device.compile(turn, shader.wgsl.clone(), "main".to_owned());
        let pipeline = compiled.await.expect("it compiles");
        let account = Account::new(64 << 20);
        let mut buffers: Vec<(u32, Memory)> = Vec::new();
        for (slot, words) in &shader.buffers {
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            let size = bytes.len() as u64;
            let paid = account.take(size).await.expect("there is room");
            let buffer = device.buffer(size, paid).await.expect("a buffer").memory();
            let held = budget.hold(size).expect("there is room");
            let written = device.write(buffer.clone(), 0, bytes, held);
            written.await.expect("it fits");
            buffers.push((*slot, buffer));
        }
        let (workgroups, fuel) = (shader.groups, shader.fuel);
        let dispatch = move || Dispatch {
            pipeline: pipeline.clone(),
            bindings: buffers
                .iter()
                .map(|(slot, buffer)| Binding {
                    slot: *slot,
                    buffer: buffer.clone(),
                    offset: 0,
                    size: 0,
                })
                .collect(),
            workgroups,
            fuel,
        };
        let bench = Self {
            device,
            dispatch: Box::new(dispatch),
            times: shader.times,
            budget,
        };
        bench.once().await;
        bench
    }

    /// The time of one run: the GPU's own, where it has a clock.
    async fn once(&self) -> Duration {
        let run = Run {
            dispatches: (0..self.times).map(|_| (self.dispatch)()).collect(),
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
