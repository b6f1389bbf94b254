//! State that outlives invocations: who may open what, how much it may hold, and what a crash leaves.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::io::{BufRead, BufReader, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;

use crank::engine::Engine;
use crank::error::Code;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::state::State;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{code, config, dir, done, engine, failure, guest, invoke, load, place, run};

/// How often the host is killed, at random moments.
const KILLS: u64 = 3;
/// What lets `guests/stateful` load: it declares a bucket that workers share.
const GRANT: &str = "[workers.stateful]\ngrants = [\"wasi:keyvalue/store[zettel]\"]\n";

/// A host with state in a directory of its own, and `guests/stateful` under several names.
struct Stateful {
    router: Arc<Router>,
    engine: Engine,
    dir: TempDir,
}

impl Stateful {
    async fn start(toml: &str, stems: &[&str]) -> Self {
        let dir = dir();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let engine = engine(&cache).with_state(State::at(dir.path().join("state")));
        let component = std::fs::read(guest("stateful")).expect("it is built");
        let files = stems
            .iter()
            .map(|stem| place(&dir, stem, &component))
            .collect();
        let snapshot = Snapshot::load(&engine, &config(&format!("{toml}{GRANT}")), files).await;
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        let router = Arc::new(Router::new(Registry::new(snapshot)));
        Self {
            router,
            engine,
            dir,
        }
    }

    async fn run(&self, name: &str, bucket: &str, ops: Value) -> Value {
        let input = json!({ "bucket": bucket, "ops": ops }).to_string();
        let mut answer = done(&self.router, &format!("run:{name}"), &input).await;
        answer["results"].take()
    }

    async fn fails(&self, name: &str, bucket: &str, ops: Value) -> (Code, String) {
        let input = json!({ "bucket": bucket, "ops": ops }).to_string();
        let failure = failure(&self.router, &format!("run:{name}"), &input).await;
        (failure.code, failure.message)
    }
}

#[test]
fn every_operation_does_what_it_says_and_the_next_invocation_sees_it() {
    run(async {
        let host = Stateful::start("", &["stateful"]).await;
        let ops = json!([
            { "set": ["a", "1"] }, { "get": "a" }, { "get": "b" }, { "exists": "a" }, { "exists": "b" },
            { "set_many": [["c", "3"], ["d", "4"], ["c", "5"]] }, { "get_many": ["d", "b", "c"] },
            { "increment": ["n", 40] }, { "increment": ["n", 2] }, { "append": ["a", "23"] },
            { "delete": "d" }, { "delete": "d" }, { "keys": "" },
        ]);
        let results = host.run("own", "", ops).await;
        assert_eq!(
            results,
            json!([
                null,
                "1",
                null,
                true,
                false,
                null,
                ["4", null, "5"],
                40,
                42,
                3,
                null,
                null,
                ["a", "c", "n"]
            ])
        );
        let results = host
            .run("own", "default", json!([{ "get_many": ["a", "n"] }]))
            .await;
        assert_eq!(results, json!([["123", "42"]]));

        let many: Vec<_> = (0..2500).map(|n| (format!("p/{n:04}"), "")).collect();
        let ops = json!([{ "set_many": many }, { "keys": "p/1" }, { "keys": "p" }, { "delete_many": ["p/0000", "p/0001"] }, { "keys": "p/000" }]);
        let results = host.run("own", "", ops).await;
        let count = |at: usize| results[at].as_array().map(Vec::len);
        assert_eq!(
            (count(1), count(2), count(4)),
            (Some(1000), Some(2500), Some(8))
        );
    });
}

#[test]
fn a_capability_opens_what_it_declares_and_nothing_else() {
    run(async {
        let host = Stateful::start("", &["stateful"]).await;
        let set = json!([{ "set": ["k", "v"] }]);
        let get = json!([{ "get": "k" }]);
        host.run("own", "", set.clone()).await;
        host.run("own", "index", json!([{ "set": ["k", "i"] }]))
            .await;
        host.run("shared", "zettel", json!([{ "set": ["k", "z"] }]))
            .await;
        // Each name its own bucket; what one capability wrote another of the same worker reads.
        for (name, bucket, value) in [
            ("own", "", "v"),
            ("own", "default", "v"),
            ("own", "index", "i"),
            ("shared", "default", "v"),
            ("shared", "zettel", "z"),
            ("reader", "zettel", "z"),
        ] {
            let results = host.run(name, bucket, get.clone()).await;
            assert_eq!(results, json!([value]), "{name} {bucket}");
        }
        for (name, bucket) in [
            ("own", "zettel"),
            ("own", "worker/stateful/default"),
            ("own", "other"),
            ("shared", "index"),
            ("reader", ""),
            ("reader", "default"),
            ("nothing", ""),
            ("nothing", "zettel"),
        ] {
            let (code, message) = host.fails(name, bucket, get.clone()).await;
            assert_eq!(code, Code::WorkerFailed, "{name} {bucket}");
            assert!(message.contains("does not declare"), "{message}");
        }
        // Every way to write to what is only to be read.
        for (name, bucket) in [("reader", "zettel"), ("shared", "default")] {
            for op in [
                json!({ "set": ["k", "x"] }),
                json!({ "delete": "k" }),
                json!({ "delete_many": ["k"] }),
                json!({ "set_many": [["k", "x"]] }),
                json!({ "append": ["k", "x"] }),
                json!({ "increment": ["k", 1] }),
            ] {
                let (code, message) = host.fails(name, bucket, json!([op])).await;
                assert_eq!(code, Code::WorkerFailed, "{op}");
                assert!(message.contains("may not write"), "{message}");
            }
        }
        assert_eq!(host.run("reader", "zettel", get).await, json!(["z"]));
    });
}

#[test]
fn a_shared_bucket_needs_the_operator_and_another_workers_bucket_is_another() {
    run(async {
        let refused = load(vec![guest("stateful")], "").await;
        let reasons = &refused.refused()[0].reasons;
        let line = "[workers.\"stateful\"] grants = [\"wasi:keyvalue/store[zettel]\"]";
        assert!(
            reasons.iter().any(|reason| reason.contains(line)),
            "{reasons:?}"
        );
        let read_only = "[workers.stateful]\ngrants = [\"wasi:keyvalue/store[zettel:ro]\"]\n";
        let refused = load(vec![guest("stateful")], read_only).await;
        let reasons = &refused.refused()[0].reasons;
        assert_eq!(
            reasons.len(),
            1,
            "to read it is granted, to write it is not: {reasons:?}"
        );

        // The same component as another file: its own bucket is the file's, the shared one is the same.
        let host = Stateful::start("", &["stateful"]).await;
        host.run("own", "", json!([{ "set": ["k", "v"] }])).await;
        host.run("shared", "zettel", json!([{ "set": ["k", "z"] }]))
            .await;
        let component = std::fs::read(guest("stateful")).expect("it is built");
        let toml = "[workers.other]\ngrants = [\"wasi:keyvalue/store[zettel]\"]\n";
        let files = vec![place(&host.dir, "other", &component)];
        let snapshot = Snapshot::load(&host.engine, &config(toml), files).await;
        let other = Router::new(Registry::new(snapshot));
        let get = |bucket| json!({ "bucket": bucket, "ops": [{ "get": "k" }] }).to_string();
        assert_eq!(
            done(&other, "run:own", &get("")).await["results"],
            json!([null])
        );
        assert_eq!(
            done(&other, "run:reader", &get("zettel")).await["results"],
            json!(["z"])
        );
    });
}

#[test]
fn a_bucket_holds_its_quota_to_the_byte_and_a_write_beyond_ends_as_storage_limit() {
    run(async {
        let host = Stateful::start("[limits]\nstate_mb = 1\n", &["stateful"]).await;
        let mib = 1 << 20;
        for (name, bucket, quota) in [
            ("own", "", mib),
            ("own", "index", 2 * mib),
            ("shared", "zettel", mib),
        ] {
            let fill = |key: &str, bytes: usize| json!([{ "fill": [key, bytes] }]);
            host.run(name, bucket, fill("half", quota / 2 - 4)).await;
            host.run(name, bucket, fill("rest", quota / 2 - 4)).await;
            let length = json!([{ "length": "half" }]);
            for over in [
                fill("rest", quota / 2 - 3),
                fill("x", 0),
                json!([{ "increment": ["n", 1] }]),
                json!([{ "append": ["rest", "x"] }]),
            ] {
                let (code, _) = host.fails(name, bucket, over.clone()).await;
                assert_eq!(code, Code::StorageLimit, "{name} {bucket} {over}");
            }
            assert_eq!(host.run(name, bucket, length).await, json!([quota / 2 - 4]));
            // What is deleted is free again; all of a batch is written or nothing.
            host.run(name, bucket, json!([{ "delete": "rest" }])).await;
            let big = "x".repeat(quota / 4);
            let over = json!([{ "set_many": [["a", big], ["b", big]] }]);
            assert_eq!(host.fails(name, bucket, over).await.0, Code::StorageLimit);
            let keys = host.run(name, bucket, json!([{ "keys": "" }])).await;
            assert_eq!(keys, json!([["half"]]));
            host.run(
                name,
                bucket,
                json!([{ "set_many": [["a", big], ["b", &big[2..]]] }]),
            )
            .await;
        }
    });
}

#[test]
fn of_two_hundred_concurrent_updates_none_is_lost() {
    run(async {
        let host = Stateful::start("", &["stateful"]).await;
        let input = json!({ "bucket": "", "ops": [{ "append": ["log", "x"] }, { "increment": ["sum", 1] }] });
        let input = input.to_string();
        let calls = (0..200).map(|_| {
            let (router, input) = (host.router.clone(), input.clone());
            tokio::spawn(async move { invoke(&router, "run:own", &input).await })
        });
        for call in calls.collect::<Vec<_>>() {
            call.await.expect("no panic").expect("it gets through");
        }
        let results = host
            .run("own", "", json!([{ "length": "log" }, { "get": "sum" }]))
            .await;
        assert_eq!(results, json!([200, "200"]));
    });
}

#[test]
fn what_is_read_and_what_is_open_counts_as_the_invocations_memory_and_handles() {
    run(async {
        let host = Stateful::start(
            "[limits]\nmemory_mb = 24\nhostcalls = 2000\n",
            &["stateful"],
        )
        .await;
        let mib = 1 << 20;
        host.run("own", "", json!([{ "fill": ["k", 6 * mib] }]))
            .await;
        // Once in the guest, once in the host: 12 MiB of 24.
        assert_eq!(
            host.run("own", "", json!([{ "length": "k" }])).await,
            json!([6 * mib])
        );
        let tight = "[limits]\nmemory_mb = 10\n";
        let toml = format!("{tight}{GRANT}");
        let snapshot = Snapshot::load(&host.engine, &config(&toml), vec![guest("stateful")]).await;
        let tight = Router::new(Registry::new(snapshot));
        let input = json!({ "bucket": "", "ops": [{ "length": "k" }] }).to_string();
        assert_eq!(code(&tight, "run:own", &input).await, Code::MemoryLimit);

        host.run("own", "", json!([{ "get_often": ["none", 1900] }]))
            .await;
        let (code, _) = host
            .fails("own", "", json!([{ "get_often": ["none", 2000] }]))
            .await;
        assert_eq!(code, Code::OutputLimit);
        host.run("own", "", json!([{ "open_many": 1000 }])).await;
        let (code, _) = host.fails("own", "", json!([{ "open_many": 1024 }])).await;
        assert_eq!(code, Code::Trapped);
    });
}

#[test]
fn a_worker_that_keeps_no_state_imports_none_and_makes_no_file() {
    run(async {
        let dir = dir();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let place = dir.path().join("state");
        let engine = engine(&cache).with_state(State::at(place.clone()));
        let snapshot = Snapshot::load(&engine, &config(""), vec![guest("hello-world")]).await;
        let worker = &snapshot.workers()[0];
        assert!(!worker.keeps_state());
        assert!(
            worker
                .imports()
                .iter()
                .all(|import| !import.contains("keyvalue")),
            "{:?}",
            worker.imports()
        );
        let router = Router::new(Registry::new(snapshot));
        done(&router, "greet:hello_world", r#"{"name": "Ada"}"#).await;
        assert!(!place.exists());
    });
}

/// `crank serve` on a directory of workers, with its state in there; killed when it is dropped.
pub struct Serving {
    child: Child,
    pub url: String,
}

impl Serving {
    fn command(dir: &TempDir) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crank"));
        for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("CRANK_")) {
            command.env_remove(name);
        }
        command
            .args([
                "serve",
                dir.path().to_str().expect("UTF-8"),
                "--listen",
                "127.0.0.1:0",
            ])
            .env(
                "CRANK_CACHE_DIR",
                concat!(env!("CARGO_TARGET_TMPDIR"), "/cli"),
            )
            .env("CRANK_STATE_DIR", dir.path().join("state"))
            .env_remove("RUST_LOG")
            .stderr(Stdio::piped());
        command
    }

    pub fn start(dir: &TempDir) -> Self {
        let mut child = Self::command(dir).spawn().expect("it starts");
        let mut log = BufReader::new(child.stderr.take().expect("piped"));
        let mut line = String::new();
        while !line.contains("listening on ") {
            line.clear();
            let read = log.read_line(&mut line).expect("UTF-8");
            assert_ne!(read, 0, "it ended before it listened");
        }
        let url = line.split("listening on ").nth(1).expect("it is there");
        let url = url.trim().to_owned();
        // Read on, so that the program never waits for its log to be read.
        std::thread::spawn(move || drop(log.read_to_end(&mut Vec::new())));
        Self { child, url }
    }

    /// `kill -9`, at once.
    pub fn kill(&self) {
        let pid = rustix::process::Pid::from_child(&self.child);
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).expect("it runs");
    }

    async fn run(&self, client: &reqwest::Client, ops: Value) -> Option<Value> {
        let answer = client
            .post(format!("{}/invoke/run/own", self.url))
            .json(&json!({ "bucket": "", "ops": ops }))
            .send()
            .await
            .ok()?;
        assert!(answer.status().is_success(), "{answer:?}");
        let mut answer: Value = answer.json().await.ok()?;
        Some(answer["results"].take())
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // SIGKILL.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A directory that serves `guests/stateful`.
pub fn served() -> TempDir {
    let dir = dir();
    std::fs::copy(guest("stateful"), dir.path().join("stateful.wasm")).expect("a copy");
    std::fs::write(dir.path().join("crank.toml"), GRANT).expect("a file");
    dir
}

#[test]
fn a_second_host_on_the_same_state_is_refused_and_told_who_holds_it() {
    let dir = served();
    let first = Serving::start(&dir);
    let second = Serving::command(&dir).output().expect("it runs");
    let error = String::from_utf8(second.stderr).expect("UTF-8");
    assert_eq!(second.status.code(), Some(2), "{error}");
    let holder = format!("held by process {}", first.child.id());
    assert!(error.contains(&holder), "no {holder:?} in {error}");
    drop(first);
    drop(Serving::start(&dir));
}

/// Each writer sets three keys at once to the number of its write. A killed host may have done the write
/// that it did not answer, and none but that.
#[test]
fn a_killed_host_loses_nothing_that_it_answered_and_leaves_nothing_half_done() {
    const WRITERS: u64 = 8;
    let dir = served();
    run(async {
        let mut answered: BTreeMap<u64, u64> = BTreeMap::new();
        for kill in 0..KILLS {
            let serving = Arc::new(Serving::start(&dir));
            let client = reqwest::Client::builder()
                .no_proxy()
                .build()
                .expect("a client");
            let writers = (0..WRITERS).map(|writer| {
                let (serving, client) = (serving.clone(), client.clone());
                let mut last = answered.get(&writer).copied().unwrap_or(0);
                tokio::spawn(async move {
                    loop {
                        let stamp = (last + 1).to_string();
                        // One of them long enough to be kept in pieces.
                        let long = stamp.repeat(5000);
                        let entries = json!([
                            [format!("{writer}/a"), stamp],
                            [format!("{writer}/b"), long],
                            [format!("{writer}/c"), stamp]
                        ]);
                        match serving.run(&client, json!([{ "set_many": entries }])).await {
                            Some(_) => last += 1,
                            None => return (writer, last),
                        }
                    }
                })
            });
            let writers: Vec<_> = writers.collect();
            let moment = RandomState::new().hash_one(kill) % 500;
            tokio::time::sleep(Duration::from_millis(100 + moment)).await;
            serving.kill();
            for writer in writers {
                let (writer, last) = writer.await.expect("no panic");
                answered.insert(writer, last);
            }
            drop(serving);

            let serving = Serving::start(&dir);
            for (writer, last) in &mut answered {
                let keys = ["a", "b", "c"].map(|key| format!("{writer}/{key}"));
                let results = serving.run(&client, json!([{ "get_many": keys }])).await;
                let found = &results.expect("it answers")[0];
                let Some(stamp) = found[0].as_str() else {
                    assert_eq!((*last, found), (0, &json!([null, null, null])));
                    continue;
                };
                assert_eq!(found, &json!([stamp, stamp.repeat(5000), stamp]));
                let stamp: u64 = stamp.parse().expect("a number");
                assert!(
                    (*last..=*last + 1).contains(&stamp),
                    "{stamp} after {last} answered"
                );
                *last = stamp;
            }
        }
        let writes: u64 = answered.values().sum();
        assert!(
            writes > KILLS * WRITERS,
            "only {writes} writes were answered"
        );
    });
}
