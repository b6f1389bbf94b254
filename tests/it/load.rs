//! What is refused at load, with which words; and the cache of compiled code.

use std::path::Path;
use std::time::{Duration, Instant};

use crank::engine::Origin;
use crank::error::Code;
use crank::registry::Snapshot;
use crank::worker::{Refused, Worker};
use serde_json::{Value, json};

use crate::support::component::{Wat, capability};
use crate::support::{config, dir, engine, failure, guest, invoke, load, log, place, router, run};

/// A worker that is beyond reproach until a test changes it.
fn honest() -> Wat {
    Wat::new("worker-wat", json!([capability("work")]))
}

/// A worker that imports `test:net/socket` and calls it.
fn networked(required: Value) -> Wat {
    let mut wat = honest();
    wat.declaration["capabilities"][0]["required-capabilities"] = required;
    wat.packages = "package test:net@1.0.0 { interface socket { open: func(); } }".to_owned();
    wat.world = "import test:net/socket@1.0.0;".to_owned();
    wat.imports = r#"(import "test:net/socket@1.0.0" "open" (func $open))"#.to_owned();
    wat.handle = "(call $open)".to_owned();
    wat
}

/// Why a worker, placed as `wat.wasm`, is refused: its reasons, a line each.
async fn refusal(wat: &Wat, toml: &str) -> String {
    refusal_of_bytes(&wat.build(), toml).await
}

async fn refusal_of_bytes(bytes: &[u8], toml: &str) -> String {
    let dir = dir();
    let snapshot = load(vec![place(&dir, "wat", bytes)], toml).await;
    match snapshot.refused() {
        [refused] => refused.reasons.join("\n"),
        other => panic!("not refused: {other:?}"),
    }
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

#[test]
fn an_import_that_is_not_declared_is_refused_with_the_line_to_add() {
    run(async {
        let reasons = refusal(&networked(json!([])), "").await;
        assert_says(
            &reasons,
            &["test:net/socket", "\"wat\"", "required_capabilities"],
        );
        let reasons = refusal(&networked(json!(null)), "").await;
        assert_says(&reasons, &["test:net/socket", "required_capabilities"]);
        // Another interface of the same package, or another version, is another import.
        for other in ["test:net/listener", "test:net/socket@^2", "test:nets/*"] {
            let reasons = refusal(&networked(json!([other])), "").await;
            assert_says(&reasons, &["test:net/socket", "required_capabilities"]);
        }
    });
}

#[test]
fn an_interface_that_is_declared_and_not_granted_is_refused_with_the_line_to_add() {
    run(async {
        for entry in ["test:net/socket", "test:net/socket@^1", "test:net/*"] {
            let reasons = refusal(&networked(json!([entry])), "").await;
            assert_says(&reasons, &["test:net/", "wat", "grants"]);
        }
        // It is refused though no import needs it: what is declared is what is asked for.
        let mut wat = honest();
        wat.declaration["capabilities"][0]["required-capabilities"] = json!(["test:net/socket"]);
        assert_says(&refusal(&wat, "").await, &["test:net/socket", "grants"]);
        // A grant cannot make up for a host that has nothing of the kind, nor for another file.
        for stem in ["wat", "other"] {
            let grant = format!("[workers.{stem}]\ngrants = [\"test:net/*\"]");
            let reasons = refusal(&networked(json!(["test:net/socket"])), &grant).await;
            assert_says(&reasons, &["test:net/socket"]);
        }
    });
}

#[test]
fn a_powerless_interface_needs_no_declaration_and_can_be_denied() {
    run(async {
        let mut wat = honest();
        wat.packages =
            "package wasi:random@0.2.0 { interface random { get-random-u64: func() -> u64; } }"
                .to_owned();
        wat.world = "import wasi:random/random@0.2.0;".to_owned();
        wat.imports =
            r#"(import "wasi:random/random@0.2.0" "get-random-u64" (func $random (result i64)))"#
                .to_owned();
        wat.handle = "(drop (call $random))".to_owned();
        let dir = dir();
        let router = router(vec![place(&dir, "wat", &wat.build())], "").await;
        invoke(&router, "misbehave:work", "{}")
            .await
            .expect("it is linked");
        let reasons = refusal(&wat, "[workers.wat]\ndeny = [\"wasi:random/*\"]").await;
        assert_says(&reasons, &["wasi:random/random", "den"]);
    });
}

#[test]
fn an_import_that_declare_calls_is_not_there_yet() {
    run(async {
        let mut wat = networked(json!(["test:net/socket"]));
        wat.declare = "(call $open)".to_owned();
        assert_says(&refusal(&wat, "").await, &["declare"]);
    });
}

#[test]
fn bad_metadata_is_refused_with_the_fields_path() {
    run(async {
        let remote = r#"{"properties": {"a": {"$ref": "https://example.com/schema.json"}}}"#;
        for (field, value, path) in [
            ("verb", json!("Convert"), "capabilities[0].verb"),
            ("name", json!(""), "capabilities[0].name"),
            ("version", json!("one"), "capabilities[0].version"),
            (
                "description",
                json!("x".repeat(5000)),
                "capabilities[0].description",
            ),
            ("input", json!("{"), "capabilities[0].input"),
            (
                "input",
                json!(r#"{"type": "strong"}"#),
                "capabilities[0].input",
            ),
            ("input", json!(remote), "capabilities[0].input"),
            (
                "output",
                json!(r#"{"pattern": "("}"#),
                "capabilities[0].output",
            ),
            (
                "output",
                json!(format!("{{\"title\": \"{}\"}}", "x".repeat(70_000))),
                "capabilities[0].output",
            ),
            (
                "accepts",
                json!(["application/pdf", "pdf"]),
                "capabilities[0].accepts[1]",
            ),
            ("produces", json!("image/*"), "capabilities[0].produces"),
            ("runtime", json!("python"), "capabilities[0].runtime"),
            ("env-profile", json!("fast"), "capabilities[0].env_profile"),
            (
                "spiffe-id",
                json!("https://crank.local/x"),
                "capabilities[0].spiffe_id",
            ),
            (
                "required-capabilities",
                json!(["a:b", "nonsense"]),
                "capabilities[0].required_capabilities[1]",
            ),
            ("cost-tokens", json!(-1.0), "capabilities[0].cost_tokens"),
            ("slo-bid", json!(1e300), "capabilities[0].slo_bid"),
            (
                "slo",
                json!({ "availability-pct": 101.0 }),
                "capabilities[0].slo.availability_pct",
            ),
            (
                "slo",
                json!({ "latency-p50-ms": 9, "latency-p95-ms": 8 }),
                "capabilities[0].slo.latency_p95_ms",
            ),
            (
                "constraints",
                json!({ "min-memory-mb": 2, "max-memory-mb": 1 }),
                "capabilities[0].constraints.min_memory_mb",
            ),
            (
                "constraints",
                json!({ "max-memory-mb": 0 }),
                "capabilities[0].constraints.max_memory_mb",
            ),
            (
                "constraints",
                json!({ "cpu-shares": 1 }),
                "capabilities[0].constraints.cpu_shares",
            ),
            (
                "constraints",
                json!({ "disk-type": "tape" }),
                "capabilities[0].constraints.disk_type",
            ),
            (
                "constraints",
                json!({ "other": [["max_frobs", "3"]] }),
                "capabilities[0].constraints.max_frobs",
            ),
        ] {
            let mut wat = honest();
            wat.declaration["capabilities"][0][field] = value;
            assert_says(&refusal(&wat, "").await, &[&format!("{path}: ")]);
        }
    });
}

#[test]
fn what_is_allowed_is_said_and_all_problems_at_once() {
    run(async {
        let mut wat = Wat::new("Worker", json!([capability("work"), capability("work")]));
        wat.declaration["capabilities"][1]["constraints"] = json!({ "disk-type": "tape" });
        let reasons = refusal(&wat, "").await;
        assert_says(
            &reasons,
            &[
                "worker_id: ",
                "[a-z]",
                "capabilities[1].name: ",
                "twice",
                "disk_type: ",
                "nvme",
            ],
        );
        assert_says(
            &refusal(&Wat::new("worker-idle", json!([])), "").await,
            &["capabilities: "],
        );
    });
}

#[test]
fn a_declare_that_loops_traps_or_lies_is_refused_in_time() {
    run(async {
        let mut loops = honest();
        loops.declare = "(loop $again (br $again))".to_owned();
        let began = Instant::now();
        assert_says(&refusal(&loops, "").await, &["declare"]);
        assert!((Duration::from_secs(1)..Duration::from_secs(10)).contains(&began.elapsed()));

        let mut grows = honest();
        grows.declare = "(loop $again (drop (memory.grow (i32.const 100))) (br $again))".to_owned();
        assert_says(&refusal(&grows, "").await, &["declare", "memory"]);

        let mut traps = honest();
        traps.declare = "(unreachable)".to_owned();
        assert_says(&refusal(&traps, "").await, &["declare"]);

        // A worker id of 3 GiB, in a memory that is much smaller.
        let mut lies = honest();
        lies.items = r#"(data (i32.const 8192) "\10\00\00\00\00\00\00\c0")"#.to_owned();
        lies.declare = "(return (i32.const 8192))".to_owned();
        assert_says(&refusal(&lies, "").await, &["declare"]);
    });
}

#[test]
fn what_is_no_worker_is_refused_with_what_would_make_it_one() {
    run(async {
        assert_says(
            &refusal_of_bytes(b"", "").await,
            &["not a WebAssembly component"],
        );
        assert_says(
            &refusal_of_bytes(b"#!/bin/sh\n", "").await,
            &["not a WebAssembly component"],
        );
        let module = wat::parse_str("(module)").expect("text");
        assert_says(&refusal_of_bytes(&module, "").await, &["crank build"]);
        let component = wat::parse_str("(component)").expect("text");
        assert_says(&refusal_of_bytes(&component, "").await, &["capabilities"]);
        let mut cut = honest().build();
        cut.truncate(cut.len() / 2);
        assert_says(&refusal_of_bytes(&cut, "").await, &["compile"]);
        // Features that the engine leaves out.
        for memory in [
            "(memory i64 1)",
            "(memory 1 1 shared)",
            "(memory 1) (memory 1)",
        ] {
            let text = format!("(component (core module {memory}))");
            let component = wat::parse_str(&text).expect("text");
            assert_says(&refusal_of_bytes(&component, "").await, &["compile"]);
        }
    });
}

#[test]
fn a_component_over_the_size_cap_is_refused_and_under_it_loads() {
    run(async {
        let padded = |kib: usize| {
            let mut bytes = honest().build();
            // A custom section named "x": id, size in three LEB128 bytes, name, padding.
            let size = (kib << 10) - bytes.len() - 4;
            bytes.push(0);
            bytes.extend([
                size as u8 | 0x80,
                (size >> 7) as u8 | 0x80,
                (size >> 14) as u8,
            ]);
            bytes.extend([1, b'x']);
            bytes.resize(kib << 10, 0);
            bytes
        };
        let dir = dir();
        let files = vec![place(&dir, "wat", &padded(1024))];
        let snapshot = load(files, "[limits]\ncomponent_mb = 1").await;
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        let reasons = refusal_of_bytes(&padded(1025), "[limits]\ncomponent_mb = 1").await;
        assert_says(&reasons, &["1 MiB", "limits.component_mb"]);
    });
}

/// What this host cannot hold is refused, whatever else is in order.
/// An id that the operator gave to one file is no other's, and costs its owner nothing.
#[test]
fn an_id_that_the_operator_bound_belongs_to_its_file_alone() {
    run(async {
        let id = "spiffe://crank.local/worker/original";
        let named = |name: &str| {
            let mut wat = Wat::new(&format!("worker-{name}"), json!([capability(name)]));
            wat.declaration["capabilities"][0]["spiffe-id"] = json!(id);
            wat.build()
        };
        let dir = dir();
        let files = vec![
            place(&dir, "original", &named("original")),
            place(&dir, "thief", &named("thief")),
        ];
        let bound = format!("[workers.original]\nspiffe_id = \"{id}\"\n");
        let snapshot = load(files, &bound).await;
        assert_eq!(snapshot.workers().len(), 1, "{:?}", snapshot.refused());
        assert_eq!(&**snapshot.workers()[0].id(), "worker-original");
        let [thief] = snapshot.refused() else {
            panic!("one is refused")
        };
        assert_says(&thief.reasons.join("\n"), &[id, "original"]);
    });
}

/// A stranger's file that claims the id of another cannot take it from its place, once it is bound.
#[test]
fn a_worker_id_that_the_operator_bound_belongs_to_its_file_alone() {
    run(async {
        let dir = dir();
        let named = |name| Wat::new("worker-original", json!([capability(name)])).build();
        let files = vec![
            place(&dir, "original", &named("original")),
            place(&dir, "thief", &named("thief")),
        ];
        let bound = "[workers.original]\nworker_id = \"worker-original\"\n";
        let snapshot = load(files.clone(), bound).await;
        let [thief] = snapshot.refused() else {
            panic!("{:?}", snapshot.refused())
        };
        assert_says(
            &thief.reasons.join("\n"),
            &["worker-original", "\"original\""],
        );
        assert_eq!(snapshot.workers()[0].file(), files[0]);

        let other = "[workers.original]\nworker_id = \"worker-other\"\n";
        let snapshot = load(files[..1].to_vec(), other).await;
        assert_eq!(snapshot.refused().len(), 1, "it is not who it should be");
    });
}

/// A schema is a stranger's program: what it may cost for a value is bounded before it runs.
#[test]
fn a_schema_that_costs_too_much_for_an_answer_refuses_it_quickly() {
    run(async {
        let listed: Vec<u32> = (0..10_000).collect();
        let mut wat = honest();
        wat.declaration["capabilities"][0]["output"] =
            json!(json!({ "items": { "enum": listed } }).to_string());
        let many = format!("[{}7]", "70000,".repeat(200_000));
        wat.answer = json!({ "ok": { "media-type": "application/json", "body": many } });
        let dir = dir();
        let router = router(vec![place(&dir, "wat", &wat.build())], "").await;
        let began = Instant::now();
        let failure = failure(&router, "misbehave:work", "{}").await;
        assert_eq!(failure.code, Code::InvalidOutput);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn an_id_that_two_files_claim_belongs_to_neither_and_the_others_serve() {
    run(async {
        let dir = dir();
        let mut twin = honest();
        twin.declaration["capabilities"][0]["name"] = json!("other");
        let mut alias = Wat::new("worker-alias", json!([capability("alias")]));
        let mut original = Wat::new("worker-original", json!([capability("original")]));
        for wat in [&mut alias, &mut original] {
            wat.declaration["capabilities"][0]["spiffe-id"] =
                json!("spiffe://crank.local/worker/original");
        }
        let files = vec![
            place(&dir, "first", &honest().build()),
            place(&dir, "second", &twin.build()),
            place(&dir, "alias", &alias.build()),
            place(&dir, "original", &original.build()),
            guest("hello-world"),
        ];
        let snapshot = load(files, "").await;
        let served: Vec<&str> = snapshot
            .workers()
            .iter()
            .map(|worker| &**worker.id())
            .collect();
        assert_eq!(served, ["worker-hello-world"]);
        let refused: Vec<(&str, &str)> = snapshot
            .refused()
            .iter()
            .map(|refused| (stem(refused), &*refused.reasons[0]))
            .collect();
        let [(_, alias), (_, first), (_, original), (_, second)] = refused[..] else {
            panic!("{refused:?}")
        };
        assert_says(first, &["worker-wat", "second.wasm"]);
        assert_says(second, &["worker-wat", "first.wasm"]);
        assert_says(
            alias,
            &["spiffe://crank.local/worker/original", "original.wasm"],
        );
        assert_says(
            original,
            &["spiffe://crank.local/worker/original", "alias.wasm"],
        );
    });
}

fn stem(refused: &Refused) -> &str {
    refused
        .file
        .file_stem()
        .and_then(|stem| stem.to_str())
        .expect("a name")
}

#[test]
fn a_directory_serves_its_good_workers_and_lists_the_bad() {
    run(async {
        let dir = dir();
        place(&dir, "good", &honest().build());
        place(&dir, "bad", b"");
        place(&dir, ".hidden", b"");
        std::fs::write(dir.path().join("readme.txt"), "no component").expect("a file");
        std::fs::create_dir(dir.path().join("folder.wasm")).expect("a folder");
        let engine = engine(&dir.path().join("code"));
        let snapshot = Snapshot::load_dir(&engine, &config(""), dir.path())
            .await
            .expect("it is readable");
        assert_eq!(snapshot.workers().len(), 1);
        assert_eq!(
            snapshot.refused().iter().map(stem).collect::<Vec<_>>(),
            ["bad"]
        );
        assert!(
            Snapshot::load_dir(&engine, &config(""), &dir.path().join("absent"))
                .await
                .is_err()
        );
    });
}

#[test]
fn compiled_code_is_kept_and_an_altered_file_is_noticed_and_compiled_anew() {
    run(async {
        let dir = dir();
        let file = place(&dir, "wat", &honest().build());
        let cache = dir.path().join("code");
        let engine = engine(&cache);
        let origin = async || {
            let worker = Worker::load(&engine, &config(""), &file).await;
            worker
                .unwrap_or_else(|refused| panic!("{refused:?}"))
                .origin()
        };
        assert_eq!(origin().await, Origin::Compiled);
        assert_eq!(origin().await, Origin::Cached);

        let code = only_code_file(&cache);
        let intact = std::fs::read(&code).expect("it was written");
        // The whole path: other tests have the same component in caches of their own.
        let name = code.display().to_string();
        let complaints = || {
            log()
                .lines()
                .filter(|line| line.contains(&name) && line.contains("WARN"))
                .count()
        };
        assert_eq!(complaints(), 0);
        let mut altered = [
            intact.clone(),
            intact.clone(),
            intact[..intact.len() / 2].to_vec(),
            Vec::new(),
        ];
        // One bit of the code, one bit of the MAC; then a file cut short and an empty one.
        *altered[0].last_mut().expect("code") ^= 1;
        altered[1][0] ^= 1;
        for (at, bytes) in altered.iter().enumerate() {
            std::fs::write(&code, bytes).expect("it is ours");
            assert_eq!(origin().await, Origin::Compiled, "alteration {at}");
            assert_eq!(complaints(), at + 1, "alteration {at} is logged");
            assert_eq!(origin().await, Origin::Cached, "alteration {at} is mended");
        }
        // Another component's code, whole and well signed, under this one's name.
        let other = Wat::new("worker-other", json!([capability("other")]));
        let elsewhere = dir.path().join("other.wasm");
        std::fs::write(&elsewhere, other.build()).expect("a file");
        assert!(Worker::load(&engine, &config(""), &elsewhere).await.is_ok());
        let foreign = std::fs::read_dir(&cache)
            .expect("it is readable")
            .map(|entry| entry.expect("an entry").path())
            .find(|path| {
                path.extension()
                    .is_some_and(|extension| extension == "cwasm")
                    && *path != code
            })
            .expect("a second file");
        std::fs::copy(foreign, &code).expect("it is ours");
        assert_eq!(origin().await, Origin::Compiled);
    });
}

fn only_code_file(cache: &Path) -> std::path::PathBuf {
    let files: Vec<_> = std::fs::read_dir(cache)
        .expect("it is readable")
        .map(|entry| entry.expect("an entry").path())
        .filter(|path| {
            path.extension()
                .is_some_and(|extension| extension == "cwasm")
        })
        .collect();
    match &files[..] {
        [file] => file.clone(),
        files => panic!("{files:?}"),
    }
}

#[test]
fn a_cache_that_others_may_read_is_not_used_and_the_workers_serve() {
    use std::os::unix::fs::PermissionsExt;
    run(async {
        let dir = dir();
        let file = place(&dir, "wat", &honest().build());
        let cache = dir.path().join("code");
        let load = async || {
            let engine = engine(&cache);
            Worker::load(&engine, &config(""), &file)
                .await
                .map(|worker| worker.origin())
                .ok()
        };
        assert_eq!(load().await, Some(Origin::Compiled));
        let open = std::fs::Permissions::from_mode(0o644);
        std::fs::set_permissions(cache.join("key"), open).expect("it is ours");
        assert_eq!(load().await, Some(Origin::Compiled));
    });
}
