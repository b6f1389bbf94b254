//! The command line, as its users run it.

use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tempfile::TempDir;

use crate::support::component::{Wat, capability};
use crate::support::{dir, guest, place};

/// The program, with nothing of the environment that would configure it, and the tests' code cache.
pub fn crank(arguments: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_crank"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRANK_")) {
        command.env_remove(name);
    }
    command
        .args(arguments)
        .env(
            "CRANK_CACHE_DIR",
            concat!(env!("CARGO_TARGET_TMPDIR"), "/cli"),
        )
        .env_remove("RUST_LOG");
    command
}

pub fn output(arguments: &[&str]) -> (i32, String, String) {
    told(&crank(arguments).output().unwrap())
}

pub fn told(output: &Output) -> (i32, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code().unwrap(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// A directory with the two workers.
fn workers() -> TempDir {
    let dir = dir();
    for name in ["hello-world", "document-conversion"] {
        std::fs::copy(guest(name), dir.path().join(format!("{name}.wasm"))).unwrap();
    }
    dir
}

pub fn path(dir: &TempDir) -> &str {
    dir.path().to_str().unwrap()
}

#[test]
fn check_prints_the_tiers_and_fails_on_what_is_missing() {
    let dir = workers();
    let (code, out, _) = output(&["check", path(&dir)]);
    assert_eq!(code, 0, "{out}");
    for line in [
        "✅ worker-hello-world: FaaS + SLO + Identity + Economic + Multi-Controller",
        "✅ worker-document-conversion: FaaS + SLO",
        "imports   crank:worker/log@0.1.0",
        "All workers have complete metadata ✅",
    ] {
        assert!(out.contains(line), "no {line:?} in {out}");
    }

    let (code, out, _) = output(&["check", path(&dir), "--require", "slo,identity"]);
    assert_eq!(code, 1);
    assert!(out.contains("❌ worker-document-conversion"), "{out}");
    assert!(out.contains("Identity is required"), "{out}");

    let bare = dir.path().join("bare.wasm");
    std::fs::write(
        &bare,
        Wat::new("worker-bare", serde_json::json!([capability("work")])).build(),
    )
    .unwrap();
    let (code, out, _) = output(&["check", bare.to_str().unwrap(), "--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(
        (code, &report["complete"]),
        (1, &Value::Bool(false)),
        "{report}"
    );
    assert!(
        report["workers"][0]["missing"][0]
            .as_str()
            .unwrap()
            .contains("missing"),
        "{report}"
    );

    place(&dir, "no-worker", b"not wasm");
    let (code, out, _) = output(&["check", path(&dir)]);
    assert_eq!(code, 1);
    assert!(
        out.contains("refused") && out.contains("not a WebAssembly component"),
        "{out}"
    );
}

#[test]
fn invoke_runs_one_capability_from_argument_file_and_standard_input() {
    let dir = workers();
    let hello = ["invoke", path(&dir), "greet:hello_world"];
    let (code, out, _) = output(&[&hello[..], &[r#"{"name":"Ada"}"#]].concat());
    assert_eq!((code, out.as_str()), (0, r#"{"greeting":"Hello, Ada!"}"#));

    let (code, _, error) = output(&[&hello[..], &[r#"{"name":7}"#]].concat());
    assert_eq!(code, 1);
    assert!(
        error.contains("invalid-input") && error.contains("/name"),
        "{error}"
    );

    let pdf = format!("@{}/tests/data/groff.pdf", env!("CARGO_MANIFEST_DIR"));
    let (code, out, error) = output(&["invoke", path(&dir), "convert:pdf_to_text", &pdf]);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("The Lighthouse Keeper"), "{out}");

    let mail = format!("{}/tests/data/nested.eml", env!("CARGO_MANIFEST_DIR"));
    let piped = crank(&[
        "invoke",
        path(&dir),
        "convert:email_to_text",
        "-",
        "--media-type",
        "message/rfc822",
    ])
    .stdin(std::fs::File::open(mail).unwrap())
    .output()
    .unwrap();
    let (code, out, error) = told(&piped);
    assert_eq!(code, 0, "{error}");
    assert!(out.contains("Logbuch März"), "{out}");
}

#[test]
fn a_configuration_that_is_not_understood_stops_the_start() {
    let dir = workers();
    let (code, _, error) = output(&["serve", path(&dir), "--listen", "0.0.0.0:0"]);
    assert_eq!(code, 2);
    assert!(error.contains("loopback"), "{error}");

    let unknown = crank(&["serve", path(&dir)])
        .env("CRANK_LISTNE", "x")
        .output()
        .unwrap();
    let (code, _, error) = told(&unknown);
    assert_eq!(code, 2);
    assert!(
        error.contains("CRANK_LISTNE") && error.contains("CRANK_LISTEN"),
        "{error}"
    );

    std::fs::write(dir.path().join("crank.toml"), "[limits]\nmemory = 3\n").unwrap();
    let (code, _, error) = output(&["serve", path(&dir)]);
    assert_eq!(code, 2);
    assert!(
        error.contains("limits.memory") && error.contains("memory_mb"),
        "{error}"
    );

    let (code, _, error) = output(&["serve", "/nonexistent"]);
    assert_eq!(code, 2);
    assert!(error.contains("/nonexistent"), "{error}");
}

#[test]
fn print_config_says_what_holds_and_where_it_came_from() {
    let dir = workers();
    std::fs::write(dir.path().join("crank.toml"), "[limits]\nmemory_mb = 64\n").unwrap();
    let printed = crank(&[
        "serve",
        path(&dir),
        "--listen",
        "127.0.0.1:0",
        "--print-config",
    ])
    .env("CRANK_LIMITS_WALL_MS", "5000")
    .output()
    .unwrap();
    let (code, out, error) = told(&printed);
    assert_eq!(code, 0, "{error}");
    for (line, origin) in [
        ("listen = \"127.0.0.1:0\"", "flag"),
        ("limits.memory_mb = 64", "crank.toml"),
        ("limits.wall_ms = 5000", "environment CRANK_LIMITS_WALL_MS"),
        ("limits.cpu_ms = 30000", "default"),
    ] {
        let found = out.lines().find(|printed| printed.starts_with(line));
        assert!(
            found.is_some_and(|found| found.contains(origin)),
            "{line}: {out}"
        );
    }
}

/// A serving program, killed if the test fails.
pub struct Serving(pub Child, pub String);

impl Serving {
    pub fn start(dir: &Path, extra: &[&str]) -> Self {
        let dir = dir.to_str().unwrap();
        let arguments = [&["serve", dir, "--listen", "127.0.0.1:0"], extra].concat();
        let mut child = crank(&arguments).stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        while !line.contains("listening on http://") {
            line.clear();
            assert_ne!(
                log.read_line(&mut line).unwrap(),
                0,
                "it ended before it listened"
            );
        }
        let url = line
            .split("listening on ")
            .nth(1)
            .unwrap()
            .trim()
            .to_owned();
        // Read on, so that the program never waits for its log to be read.
        std::thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
        Self(child, url)
    }

    /// What the host says of its workers.
    pub async fn workers(&self, client: &reqwest::Client) -> Vec<Value> {
        let answer = client.get(format!("{}/workers", self.1)).send().await;
        let answer: Value = answer.unwrap().json().await.unwrap();
        answer["workers"].as_array().unwrap().clone()
    }

    /// The same, once there are so many and no init snapshot is being made.
    pub async fn settled(&self, client: &reqwest::Client, count: usize) -> Vec<Value> {
        let began = Instant::now();
        loop {
            let workers = self.workers(client).await;
            let pending = |worker: &Value| worker["snapshot"]["state"] == "pending";
            if workers.len() == count && !workers.iter().any(pending) {
                return workers;
            }
            assert!(began.elapsed() < Duration::from_secs(60), "{workers:?}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }

    pub fn terminate(&self) {
        let pid = rustix::process::Pid::from_child(&self.0);
        rustix::process::kill_process(pid, rustix::process::Signal::TERM).unwrap();
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn sigterm_lets_calls_in_flight_finish_and_ends_with_zero() {
    let dir = dir();
    std::fs::copy(guest("hostile"), dir.path().join("hostile.wasm")).unwrap();
    let limits = "[workers.hostile]\nwall_ms = 3000\n";
    std::fs::write(dir.path().join("crank.toml"), limits).unwrap();
    let mut serving = Serving::start(dir.path(), &[]);
    let url = serving.1.clone();
    let call = std::thread::spawn({
        let url = format!("{url}/invoke/misbehave/loop_forever");
        move || {
            crate::support::run(async move {
                let call = reqwest::Client::new().post(url).body("{}");
                let call = call.header("content-type", "application/json");
                call.send().await.unwrap().status().as_u16()
            })
        }
    });
    crate::support::run(async {
        let in_flight = async || {
            let workers = reqwest::get(format!("{url}/workers")).await.unwrap();
            let workers: Value = workers.json().await.unwrap();
            workers["workers"][0]["in_flight"].as_u64().unwrap()
        };
        while in_flight().await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
    serving.terminate();
    let answered = call.join().unwrap();
    assert_eq!(answered, 504, "the call in flight got its answer");
    let began = Instant::now();
    assert_eq!(serving.0.wait().unwrap().code(), Some(0));
    let waited = began.elapsed();
    assert!(
        waited < Duration::from_secs(5),
        "it waited for more than the call: {waited:?}"
    );
}
