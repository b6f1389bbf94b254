//! What it costs to compile a component in a child process, to the bare compilation in this one. One
//! run, in turns, so that the ratios hold whatever the machine.
//!
//!     cargo bench --bench compile

use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use crank::config::Config;
use crank::engine::{Engine, Settings};
use crank::toolchain::{BuildRequest, Terminal, build};
use tokio::runtime::Runtime;
use wasmtime::component::Component;

fn main() {
    let config = Config::load(&[], None, std::env::vars()).expect("the defaults hold");
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let guests = ["hello-world", "document-conversion"];
    let request = BuildRequest {
        crates: guests.map(|guest| root.join("guests").join(guest)).into(),
        out: root.join("target/workers"),
        target_dir: root.join("target"),
        cache_dir: config.cache_dir.clone(),
        offline: false,
    };
    let terminal = Terminal::default();
    let built = build(&request, &|event| terminal.show(event)).expect("the guests build");

    let settings = Settings {
        instances: 10,
        ..Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"))
    };
    let runtime = Runtime::new().expect("a runtime");
    let engine = Engine::new(settings, None).expect("an engine");
    for built in built {
        let bytes = Bytes::from(std::fs::read(&built.component).expect("a component"));
        let (mut bare, mut child) = (Vec::new(), Vec::new());
        for _ in 0..11 {
            bare.push(timed(|| {
                Component::from_binary(engine.wasm(), &bytes).expect("it compiles");
            }));
            child.push(timed(|| {
                let made =
                    runtime.block_on(engine.component(bytes.clone(), blake3::hash(&bytes), || ()));
                made.expect("it compiles");
            }));
        }
        let (bare, child) = (median(bare), median(child));
        println!(
            "{}: bare {bare:.1?}, in a child {child:.1?}, {:.2} times as long",
            built.component.file_stem().unwrap_or_default().display(),
            child.as_secs_f64() / bare.as_secs_f64()
        );
    }
}

fn timed(work: impl FnOnce()) -> Duration {
    let began = Instant::now();
    work();
    began.elapsed()
}

fn median(mut times: Vec<Duration>) -> Duration {
    times.sort();
    times[times.len() / 2]
}
