//! Soak: minutes of good and hostile calls against the real program, from outside.
//!
//!     cargo bench --bench soak -- MINUTES [PROGRAM]
//!
//! Starts `crank serve` with well-behaved workers and runaways, calls them over HTTP at random (open
//! loop), and lets some callers hang up. Prints every ten seconds what was sent, how it was answered,
//! and what the server holds. Exits 1 if a call gets no answer or a wrong one, or if the server's
//! memory, open files or threads grow.

mod common;
#[path = "../tests/it/support/component.rs"]
#[allow(dead_code)]
mod component;

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use common::Random;
use component::{Wat, capability};
use crank::config::Config;
use crank::toolchain::{BuildRequest, Terminal, build};
use serde_json::json;

/// Calls per second.
const RATE: f64 = 150.0;
/// Between two lines of the report.
const REPORT: Duration = Duration::from_secs(10);
/// What a call may take: far more than any deadline.
const LOST: Duration = Duration::from_secs(30);
/// When a caller who hangs up does.
const HANG_UP: Duration = Duration::from_millis(30);
/// Until the server has closed idle connections and let go of threads that wait for work.
const QUIET: Duration = Duration::from_secs(25);
/// Resident memory that may come and go, in KiB, beside a tenth of what there is.
const MEMORY_NOISE: u64 = 16 << 10;
/// Open files and threads that may be there at the end beyond those before the first call.
const HANDLES: usize = 4;

const CONFIG: &str = "
[workers.spin]
wall_ms = 200
[workers.burn]
cpu_ms = 50
[workers.hostile]
wall_ms = 1000
";

/// How often a kind of call comes, what it is, and the codes with which it may end. `overloaded` is
/// always one: nobody asked how much this machine can do.
const KINDS: [(u32, Kind, &[&str]); 11] = [
    (
        30,
        Kind::json("greet/hello_world", r#"{"name": "Ada"}"#),
        &["ok"],
    ),
    (
        20,
        Kind::json("convert/text_to_stream", r#"{"text": "One. Two."}"#),
        &["ok"],
    ),
    (20, Kind::json("misbehave/compute", "{}"), &["ok"]),
    (4, Kind::json("misbehave/spin", "{}"), &["deadline"]),
    (4, Kind::json("misbehave/burn", "{}"), &["cpu-limit"]),
    (4, Kind::json("misbehave/hog", "{}"), &["memory-limit"]),
    (
        4,
        Kind::json("misbehave/panic", r#"{"message": "no"}"#),
        &["trapped"],
    ),
    (
        4,
        Kind::json("greet/hello_world", r#"{"name": 1}"#),
        &["invalid-input"],
    ),
    (
        2,
        Kind {
            events: true,
            ..Kind::json(
                "misbehave/send_events",
                r#"{"count": 4000000000, "event": "flood", "bytes": 100}"#,
            )
        },
        &["deadline"],
    ),
    (
        4,
        Kind {
            hangs_up: true,
            ..Kind::json("misbehave/spin", "{}")
        },
        &["hung up", "deadline"],
    ),
    (
        4,
        Kind {
            hangs_up: true,
            ..Kind::json("greet/hello_world", r#"{"name": "Ada"}"#)
        },
        &["hung up", "ok"],
    ),
];

#[derive(Clone, Copy)]
struct Kind {
    path: &'static str,
    input: &'static str,
    events: bool,
    hangs_up: bool,
}

impl Kind {
    const fn json(path: &'static str, input: &'static str) -> Self {
        Self {
            path,
            input,
            events: false,
            hangs_up: false,
        }
    }
}

fn main() -> ExitCode {
    let mut given = std::env::args().skip(1).filter(|given| given != "--bench");
    let minutes: f64 = given
        .next()
        .map_or(1.0, |text| text.parse().expect("a number of minutes"));
    let program = given.next();
    let program = program.as_deref().unwrap_or(env!("CARGO_BIN_EXE_crank"));
    let dir = tempfile::tempdir().expect("a directory");
    place_workers(dir.path());
    let server = Server::start(program, dir.path());
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let kept = runtime.block_on(soak(&server, Duration::from_secs_f64(minutes * 60.0)));
    ExitCode::from(u8::from(!kept))
}

fn place_workers(dir: &Path) {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let scratch = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let config = Config::load(&[], None, std::env::vars()).expect("the defaults hold");
    let guests = ["hello-world", "document-conversion", "hostile"];
    let request = BuildRequest {
        crates: guests.map(|name| root.join("guests").join(name)).to_vec(),
        out: scratch.join("workers"),
        target_dir: scratch.parent().expect("it lies in target/").to_owned(),
        cache_dir: config.cache_dir.clone(),
        offline: false,
    };
    let terminal = Terminal::default();
    for built in build(&request, &|event| terminal.show(event)).expect("the guests build") {
        let name = built.component.file_name().expect("a file").to_owned();
        std::fs::copy(&built.component, dir.join(name)).expect("a copy");
    }
    let wats = [
        (
            "compute",
            "(loop $again
                (global.set $n (i32.add (global.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (global.get $n) (i32.const 1000000))))",
        ),
        ("spin", "(loop $again (br $again))"),
        ("burn", "(loop $again (br $again))"),
        (
            "hog",
            "(loop $again (drop (memory.grow (i32.const 100))) (br $again))",
        ),
    ];
    for (name, handle) in wats {
        let mut wat = Wat::new(&format!("worker-{name}"), json!([capability(name)]));
        wat.handle = handle.to_owned();
        wat.items = "(global $n (mut i32) (i32.const 0))".to_owned();
        std::fs::write(dir.join(format!("{name}.wasm")), wat.build()).expect("a file");
    }
    std::fs::write(dir.join("crank.toml"), CONFIG).expect("a file");
}

/// The program under load, killed when this is dropped.
struct Server {
    process: Child,
    url: String,
}

/// What it holds.
#[derive(Clone, Copy)]
struct Held {
    /// Resident, in KiB.
    memory: u64,
    files: usize,
    threads: usize,
}

impl Server {
    fn start(program: &str, dir: &Path) -> Self {
        let mut process = Command::new(program)
            .arg("serve")
            .arg(dir)
            .args(["--listen", "127.0.0.1:0"])
            .env("RUST_LOG", "error,crank::cli=info")
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program starts");
        let mut lines = BufReader::new(process.stderr.take().expect("it is piped")).lines();
        let url = lines.by_ref().map_while(Result::ok).find_map(|line| {
            let (_, url) = line.split_once("listening on ")?;
            Some(url.to_owned())
        });
        // What else it writes is shown: an error of the host's own belongs in the report.
        std::thread::spawn(move || {
            for line in lines.map_while(Result::ok) {
                println!("server: {line}");
            }
        });
        Self {
            process,
            url: url.expect("it listens"),
        }
    }

    fn held(&self) -> Held {
        let place = Path::new("/proc").join(self.process.id().to_string());
        let status = std::fs::read_to_string(place.join("status")).expect("the server runs");
        let number = |name: &str| -> u64 {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let text = line.and_then(|rest| rest.split_whitespace().next());
            text.and_then(|text| text.parse().ok()).expect("a number")
        };
        Held {
            memory: number("VmRSS:"),
            files: std::fs::read_dir(place.join("fd"))
                .expect("it is ours")
                .count(),
            threads: number("Threads:") as usize,
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// What was sent and how it ended, by code.
#[derive(Default)]
struct Tally {
    sent: u64,
    ended: BTreeMap<String, u64>,
    wrong: Vec<String>,
}

async fn soak(server: &Server, time: Duration) -> bool {
    let client = reqwest::Client::builder()
        .no_proxy()
        // Less than the host keeps an idle connection: a call must not meet it closing.
        .pool_idle_timeout(Duration::from_secs(5))
        .timeout(LOST)
        .build()
        .expect("a client");
    let tally = Arc::new(Mutex::new(Tally::default()));
    let before = server.held();
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let began = Instant::now();
    let (mut due, mut report) = (began, began + REPORT);
    let mut seen = Vec::new();
    let mut calls = tokio::task::JoinSet::new();
    while due - began < time {
        due += Duration::from_secs_f64(-random.unit().ln() / RATE);
        tokio::time::sleep_until(due.into()).await;
        let at = pick(&mut random);
        tally.lock().expect("no panic").sent += 1;
        calls.spawn(one(client.clone(), server.url.clone(), at, tally.clone()));
        while calls.try_join_next().is_some() {}
        if due >= report {
            report += REPORT;
            let held = server.held();
            println!("{}", line(began.elapsed(), &tally, held));
            seen.push(held.memory);
        }
    }
    calls.join_all().await;
    drop(client);
    tokio::time::sleep(QUIET).await;
    let after = server.held();
    println!("{}", line(began.elapsed(), &tally, after));
    verdict(&tally.lock().expect("no panic"), &seen, before, after)
}

/// Makes one call and notes how it ended.
async fn one(client: reqwest::Client, url: String, at: usize, tally: Arc<Mutex<Tally>>) {
    let (_, kind, expected) = KINDS[at];
    let mut request = client
        .post(format!("{url}/invoke/{}", kind.path))
        .header("content-type", "application/json")
        .body(kind.input);
    if kind.events {
        request = request.header("accept", "text/event-stream");
    }
    let answered = async { Ok::<_, reqwest::Error>(code(&request.send().await?.text().await?)) };
    let patience = if kind.hangs_up { HANG_UP } else { LOST * 2 };
    let ended = match tokio::time::timeout(patience, answered).await {
        Ok(Ok(code)) => code,
        Ok(Err(error)) => format!("lost: {error:?}"),
        Err(_) => "hung up".to_owned(),
    };
    let mut tally = tally.lock().expect("no panic");
    if ended != "overloaded" && !expected.contains(&&*ended) {
        tally.wrong.push(format!("{} ended as {ended}", kind.path));
    }
    *tally.ended.entry(ended).or_default() += 1;
}

/// The failure code of a problem document, alone or as an event.
fn code(text: &str) -> String {
    let after = text.rsplit_once(r#""code":""#);
    let code = after.and_then(|(_, rest)| rest.split('"').next());
    code.unwrap_or("ok").to_owned()
}

fn pick(random: &mut Random) -> usize {
    let all: u32 = KINDS.iter().map(|(weight, ..)| weight).sum();
    let mut left = random.unit() * f64::from(all);
    let chosen = KINDS.iter().position(|(weight, ..)| {
        left -= f64::from(*weight);
        left <= 0.0
    });
    chosen.unwrap_or(0)
}

fn line(since: Duration, tally: &Mutex<Tally>, held: Held) -> String {
    let tally = tally.lock().expect("no panic");
    let ended: Vec<String> = tally
        .ended
        .iter()
        .map(|(code, count)| format!("{code} {count}"))
        .collect();
    format!(
        "{:4} s: sent {}; {}; {} MiB resident, {} files, {} threads",
        since.as_secs(),
        tally.sent,
        ended.join(", "),
        held.memory >> 10,
        held.files,
        held.threads,
    )
}

fn verdict(tally: &Tally, memory: &[u64], before: Held, after: Held) -> bool {
    for wrong in tally.wrong.iter().take(20) {
        println!("WRONG: {wrong}");
    }
    let ended: u64 = tally.ended.values().sum();
    // The first quarter warms up. Means of the next and the last: single samples jump.
    let quarter = (memory.len() / 4).max(1);
    let mean = |part: &[u64]| part.iter().sum::<u64>() / part.len().max(1) as u64;
    let warm = mean(memory.get(quarter..2 * quarter).unwrap_or(memory));
    let last = mean(&memory[memory.len().saturating_sub(quarter)..]);
    let kept = [
        (
            "every call was answered, and as it must be",
            tally.wrong.is_empty() && ended == tally.sent,
        ),
        (
            "memory does not grow",
            last <= warm + warm / 10 + MEMORY_NOISE,
        ),
        (
            "open files are as before",
            after.files <= before.files + HANDLES,
        ),
        (
            "threads are as before",
            after.threads <= before.threads + HANDLES,
        ),
    ];
    println!(
        "memory {} MiB warm, {} MiB at last; files {} before, {} after; threads {} before, {} after",
        warm >> 10,
        last >> 10,
        before.files,
        after.files,
        before.threads,
        after.threads,
    );
    for (what, kept) in kept {
        println!("{}: {what}", if kept { "kept  " } else { "BROKEN" });
    }
    kept.iter().all(|(_, kept)| *kept)
}
