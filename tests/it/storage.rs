//! A guest's files: quotas, walls, and what is left of them.

mod ways;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Code;
use crank::router::Router;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::Serving;
use crate::support::component::{Wat, capability};
use crate::support::{call, code, dir, done, failure, guest, invoke, load, place, router, run};
use ways::{ways_to_free, ways_to_grow};

const MB: u64 = 1 << 20;
const BLOCK: u64 = 4096;
/// With a /tmp of 1 MiB, and models of at most 1 MiB.
const QUOTA: &str = "misbehave_files:one_megabyte";
/// With what the operator gives by default.
const DEFAULT: &str = "misbehave_files:by_default";

/// A router to `guests/hostile-files`, whose scratch directories lie below `tmp`.
async fn files(tmp: &TempDir, toml: &str) -> Arc<Router> {
    let toml = format!("tmp_dir = {:?}\n{toml}", tmp.path());
    router(vec![guest("hostile-files")], &toml).await
}

fn script(steps: &[Value]) -> String {
    json!({ "steps": steps }).to_string()
}

async fn results(router: &Router, capability: &str, steps: &[Value]) -> Vec<String> {
    let answer = done(router, capability, &script(steps)).await;
    let results = answer["results"].as_array().expect("a list");
    let texts = results
        .iter()
        .map(|text| text.as_str().expect("a text").to_owned());
    texts.collect()
}

fn open(path: &str, handle: &str, flags: &[&str]) -> Value {
    json!({ "op": "open", "path": path, "handle": handle, "flags": flags })
}

fn create(path: &str, handle: &str) -> Value {
    open(path, handle, &["create", "write"])
}

fn write(handle: &str, at: u64, bytes: u64) -> Value {
    json!({ "op": "write", "handle": handle, "at": at, "bytes": bytes })
}

fn on(op: &str, handle: &str, bytes: u64) -> Value {
    json!({ "op": op, "handle": handle, "bytes": bytes })
}

fn make(path: &str, bytes: u64) -> Value {
    json!({ "op": "make", "path": path, "bytes": bytes })
}

fn path(op: &str, path: &str, to: &str) -> Value {
    json!({ "op": op, "path": path, "to": to })
}

fn times(mut step: Value, count: u64) -> Value {
    step["count"] = count.into();
    step
}

/// Scratch directories of invocations that are there now.
fn scratch(tmp: &Path) -> usize {
    let hosts = tmp.read_dir().expect("a directory").flatten();
    hosts
        .filter_map(|host| host.path().read_dir().ok())
        .map(|host| host.count())
        .sum()
}

async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let began = Instant::now();
    while !holds() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[test]
fn what_fits_the_quota_is_fine_and_what_does_not_is_a_storage_limit() {
    run(async {
        let tmp = dir();
        let router = files(&tmp, "limits.tmp_files = 300").await;
        for (way, fits, over) in ways_to_grow().into_iter().chain(ways_to_free()) {
            let results = results(&router, QUOTA, &fits).await;
            assert!(
                results.iter().all(|result| result == "ok"),
                "{way}: {results:?}"
            );
            let steps = [fits, vec![over]].concat();
            let ended = code(&router, QUOTA, &script(&steps)).await;
            assert_eq!(ended, Code::StorageLimit, "{way}");
        }
        until("all of it is gone", || scratch(tmp.path()) == 0).await;
    });
}

#[test]
fn a_refused_removal_frees_nothing() {
    run(async {
        let tmp = dir();
        let router = files(&tmp, "").await;
        let steps = [
            path("mkdir", "d", ""),
            make("d/f", MB - 2 * BLOCK),
            path("symlink", "l", "d"),
            path("unlink", "d", ""),
            path("rmdir", "d", ""),
            path("rename", "d/f", "l/."),
            path("rename", "d/f", "."),
            path("rmdir", "d/.", ""),
            path("unlink", "missing", ""),
        ];
        let told = results(&router, QUOTA, &steps).await;
        assert!(told[3..].iter().all(|result| result != "ok"), "{told:?}");
        let over = [&steps[..], &[make("g", 1)]].concat();
        assert_eq!(
            code(&router, QUOTA, &script(&over)).await,
            Code::StorageLimit
        );
    });
}

#[test]
fn what_was_used_is_told() {
    run(async {
        let tmp = dir();
        let router = files(&tmp, "").await;
        let steps = [make("f", MB / 2), path("unlink", "f", ""), make("g", 1)];
        let answer = invoke(&router, QUOTA, &script(&steps))
            .await
            .expect("it fits");
        assert_eq!(answer.usage.storage_peak, MB / 2);
        let snapshot = router.registry().snapshot();
        assert_eq!(snapshot.workers()[0].observed().storage_peak, MB / 2);
    });
}

#[test]
fn nothing_leads_out() {
    run(async {
        let tmp = dir();
        let secret = tmp.path().join("secret");
        std::fs::write(&secret, "the host's").unwrap();
        let up = "../".repeat(12);
        let outside = format!("{up}{}", secret.display());
        let secret = secret.to_str().unwrap();
        let steps = [
            path("read", secret, ""),
            path("read", "/etc/passwd", ""),
            path("read", &outside, ""),
            path("read", "../../secret", ""),
            path("symlink", "absolute", secret),
            path("read", "absolute", ""),
            create("../escaped", "f"),
            create("/escaped", "f"),
            path("mkdir", "../escaped", ""),
            path("symlink", "../escaped", "x"),
            path("link", "kept", "../escaped"),
            path("link", "../../secret", "stolen"),
            path("rename", "kept", "../escaped"),
            path("rename", "../../secret", "stolen"),
            path("unlink", "../../secret", ""),
            path("rmdir", "../../secret", ""),
            path("list", "..", ""),
        ];
        let router = files(&tmp, "").await;
        let told = results(&router, QUOTA, &[&[make("kept", 1)], &steps[..]].concat()).await;
        for (step, result) in steps.iter().zip(&told[1..]) {
            assert!(
                ["not-permitted", "no-entry"].contains(&&**result),
                "{step}: {result}"
            );
        }
        // A link may say anything; it leads nowhere.
        let linked = [
            path("symlink", "up", "../.."),
            path("read", "up/secret", ""),
            create("up/escaped", "f"),
            path("symlink", "relative", "../../secret"),
            path("read", "relative", ""),
            open("relative", "f", &["truncate", "write", "follow"]),
        ];
        let told = results(&router, QUOTA, &linked).await;
        for at in [1, 2, 4, 5] {
            assert_eq!(told[at], "not-permitted", "{}", linked[at]);
        }
        assert_eq!(std::fs::read_to_string(secret).unwrap(), "the host's");
        until("all of it is gone", || scratch(tmp.path()) == 0).await;
        // The secret, the gate, and this process's own directory.
        assert_eq!(tmp.path().read_dir().unwrap().count(), 3);
    });
}

#[test]
fn nothing_is_left_and_nobody_sees_anothers_files() {
    run(async {
        let tmp = dir();
        let router = files(&tmp, "limits.tmp_mb = 64").await;
        let begun = |name: &str| vec![make(name, 1), on("wait", "", 2000), path("list", ".", "")];
        let (one, other) = (script(&begun("one")), script(&begun("other")));
        let dropped = script(&[
            make("dropped", MB),
            create("f", "f"),
            path("unlink", "f", ""),
            on("wait", "", 60_000),
        ]);
        let dropped = tokio::spawn({
            let router = router.clone();
            async move { invoke(&router, QUOTA, &dropped).await.map(|_| ()) }
        });
        let both = async { tokio::join!(done(&router, QUOTA, &one), done(&router, QUOTA, &other)) };
        let (answers, ()) = tokio::join!(both, async {
            until("three are there", || scratch(tmp.path()) == 3).await;
        });
        assert_eq!(answers.0["results"][2], "one");
        assert_eq!(answers.1["results"][2], "other");
        until("those that have ended left nothing", || {
            scratch(tmp.path()) == 1
        })
        .await;
        dropped.abort();
        until("what was dropped is gone", || scratch(tmp.path()) == 0).await;

        // Deeper than a path can be, and than there are handles.
        let deep = [times(json!({ "op": "deep" }), 3000)];
        assert_eq!(results(&router, DEFAULT, &deep).await, ["ok"]);
        let mut late = call(QUOTA, &script(&[make("f", MB), on("wait", "", 60_000)]));
        late.timeout = Some(Duration::from_millis(300));
        let late = router.invoke(late).await.expect_err("it waits too long");
        assert_eq!(late.code, Code::Deadline);
        until("it is gone as well", || scratch(tmp.path()) == 0).await;
    });
}

#[test]
fn what_a_guest_holds_open_is_bounded() {
    run(async {
        let tmp = dir();
        let router = files(&tmp, "limits.tmp_files = 100").await;
        let cases = [
            (vec![make("f", 1)], json!({ "op": "keep", "path": "f" }), 64),
            (vec![create("f", "it")], json!({ "op": "keep_input" }), 64),
            (
                vec![times(make("f{}", 0), 100)],
                json!({ "op": "keep_listing", "path": "." }),
                4,
            ),
        ];
        for (before, step, most) in cases {
            let fits = [before.clone(), vec![times(step.clone(), most)]].concat();
            assert_eq!(results(&router, QUOTA, &fits).await[1], "ok", "{step}");
            let over = [before, vec![times(step.clone(), most + 1)]].concat();
            assert_eq!(
                results(&router, QUOTA, &over).await[1],
                "insufficient-memory",
                "{step}"
            );
        }
    });
}

#[test]
fn without_a_quota_there_is_no_tmp() {
    run(async {
        let tmp = dir();
        let preopens = [json!({ "op": "preopens" })];
        let bare = files(&tmp, "").await;
        assert_eq!(results(&bare, DEFAULT, &preopens).await, ["ok"]);
        assert_eq!(results(&bare, QUOTA, &preopens).await, ["/tmp "]);
        let given = files(&tmp, "limits.tmp_mb = 1").await;
        assert_eq!(results(&given, DEFAULT, &[make("f", MB)]).await, ["ok"]);
        assert_eq!(
            code(&given, DEFAULT, &script(&[make("f", MB + 1)])).await,
            Code::StorageLimit
        );
        // What a worker declares is cut to what the operator allows.
        let cut = files(&tmp, "limits.max_tmp_mb = 0").await;
        assert_eq!(results(&cut, QUOTA, &preopens).await, ["ok"]);
    });
}

#[test]
fn an_import_that_is_not_declared_opens_nothing() {
    run(async {
        let mut declared = capability("look");
        declared["required-capabilities"] = json!(["wasi:filesystem/preopens"]);
        for (offered, expected) in [(capability("look"), None), (declared, Some(Code::Trapped))] {
            let mut wat = Wat::new("worker-looks", json!([offered]));
            wat.packages = "package wasi:filesystem@0.2.0 {
                    interface types { resource descriptor; }
                    interface preopens {
                        use types.{descriptor};
                        get-directories: func() -> list<tuple<descriptor, string>>;
                    }
                }"
            .to_owned();
            wat.world = "import wasi:filesystem/preopens@0.2.0;".to_owned();
            wat.imports = r#"(import "wasi:filesystem/preopens@0.2.0" "get-directories"
                (func $get (param i32)))"#
                .to_owned();
            // It dies if there is anything.
            wat.handle =
                "(call $get (i32.const 0)) (if (i32.load (i32.const 4)) (then (unreachable)))"
                    .to_owned();
            let at = dir();
            let file = place(&at, "looks", &wat.build());
            let router = router(
                vec![file],
                &format!("tmp_dir = {:?}\nlimits.tmp_mb = 1", at.path()),
            )
            .await;
            let ended = invoke(&router, "misbehave:look", "{}").await;
            assert_eq!(ended.err().map(|failure| failure.code), expected);
        }
    });
}

#[test]
fn models_are_read_and_never_written() {
    run(async {
        let (tmp, models) = (dir(), dir());
        std::fs::create_dir(models.path().join("inner")).unwrap();
        std::fs::write(models.path().join("inner/weights"), "0.5").unwrap();
        std::fs::write(models.path().join("rest"), vec![0; MB as usize - 3]).unwrap();
        let toml = format!("[workers.hostile-files]\nmodels = {:?}", models.path());
        let router = files(&tmp, &toml).await;
        let steps = [
            json!({ "op": "preopens" }),
            json!({ "op": "read", "dir": "/models", "path": "inner/weights" }),
            json!({ "op": "list", "dir": "/models", "path": "." }),
            make("mine", 1),
        ];
        let told = results(&router, QUOTA, &steps).await;
        assert_eq!(told, ["/tmp /models ", "0.5", "inner rest", "ok"]);
        let told = results(&router, DEFAULT, &steps[..3]).await;
        assert_eq!(told, ["/models ", "0.5", "inner rest"]);
        let mut misdeeds = vec![
            create("new", "f"),
            open("rest", "f", &["write"]),
            open("rest", "f", &["truncate"]),
            path("mkdir", "new", ""),
            path("symlink", "new", "rest"),
            path("link", "rest", "new"),
            path("rename", "rest", "new"),
            path("unlink", "rest", ""),
            path("rmdir", "inner", ""),
            json!({ "op": "rename_from", "to": "/tmp", "path": "mine" }),
        ];
        for step in &mut misdeeds {
            step["dir"] = "/models".into();
        }
        let steps = [vec![make("mine", 1)], misdeeds.clone()].concat();
        let told = results(&router, QUOTA, &steps).await;
        for (step, result) in misdeeds.iter().zip(&told[1..]) {
            assert!(
                ["not-permitted", "bad-descriptor"].contains(&&**result),
                "{step}: {result}"
            );
        }
        let mut handle = open("rest", "f", &[]);
        handle["dir"] = "/models".into();
        for step in [
            write("f", 0, 1),
            on("set_size", "f", 0),
            on("stream", "f", 1),
            on("append", "f", 1),
        ] {
            let told = results(&router, QUOTA, &[handle.clone(), step.clone()]).await;
            assert_eq!(told[1], "not-permitted", "{step}");
        }

        std::fs::write(models.path().join("more"), "1").unwrap();
        let snapshot = load(vec![guest("hostile-files")], &toml).await;
        let reason = &snapshot.refused()[0].reasons[0];
        assert!(
            reason.contains("1048577 bytes") && reason.contains("1048576"),
            "{reason}"
        );
        let toml = "[workers.hostile-files]\nmodels = \"/nonexistent\"";
        let snapshot = load(vec![guest("hostile-files")], toml).await;
        assert!(snapshot.refused()[0].reasons[0].contains("/nonexistent"));
    });
}

#[test]
fn a_host_that_cannot_make_a_tmp_blames_itself() {
    run(async {
        let tmp = dir();
        let file = place(&tmp, "in-the-way", b"");
        let toml = format!("tmp_dir = {file:?}");
        let router = router(vec![guest("hostile-files")], &toml).await;
        let failure = failure(&router, QUOTA, &script(&[])).await;
        assert_eq!(failure.code, Code::Internal);
        assert!(failure.cause.expect("for the log").contains("/tmp"));
    });
}

/// A host of its own that makes a file and then waits, whoever calls.
fn waiting(workers: &TempDir, tmp: &TempDir) -> Serving {
    let serving = Serving::start(workers.path(), &[]);
    let url = format!("{}/invoke/misbehave_files/one_megabyte", serving.1);
    let before = scratch(tmp.path());
    std::thread::spawn(move || {
        run(async {
            let body = script(&[make("f", MB), on("wait", "", 60_000)]);
            let call = reqwest::Client::new().post(url).body(body);
            let _ = call.header("content-type", "application/json").send().await;
        })
    });
    run(until("it is in flight", || scratch(tmp.path()) > before));
    serving
}

#[test]
fn what_a_killed_host_left_the_next_start_sweeps_and_no_live_hosts_files() {
    let (workers, tmp) = (dir(), dir());
    std::fs::copy(
        guest("hostile-files"),
        workers.path().join("hostile-files.wasm"),
    )
    .unwrap();
    let toml = format!("tmp_dir = {:?}\ngrace_ms = 200\n", tmp.path());
    std::fs::write(workers.path().join("crank.toml"), toml).unwrap();
    let mut live = waiting(&workers, &tmp);
    let mut killed = waiting(&workers, &tmp);
    killed.0.kill().unwrap();
    killed.0.wait().unwrap();
    assert_eq!(scratch(tmp.path()), 2, "nobody was there to remove it");

    let _next = Serving::start(workers.path(), &[]);
    run(until("the killed host's is swept", || {
        scratch(tmp.path()) == 1
    }));
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(scratch(tmp.path()), 1, "the live host's stays");
    live.terminate();
    assert!(live.0.wait().unwrap().success());
    assert_eq!(
        scratch(tmp.path()),
        0,
        "a host that ends leaves nothing, though a call was in flight"
    );
    // The gate alone.
    assert_eq!(tmp.path().read_dir().unwrap().count(), 1);
}
