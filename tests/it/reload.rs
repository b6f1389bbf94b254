//! The directory of components changes while it is served.

use std::fs::{File, rename, write};
use std::io::Write;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant, SystemTime};

use crank::error::Code;
use crank::registry::{Changes, Registry, Watch};
use crank::router::Router;
use crank::worker::Worker;
use reqwest::StatusCode;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Serving, output, path};
use crate::support::component::{Wat, bursting, capability};
use crate::support::{ENGINE, Host, code, config, dir, done, run};

/// A worker that answers `[VERSION, input]`, and promises that very version.
fn versioned(version: u32) -> Wat {
    let mut offered = capability("echo");
    offered["version"] = json!(format!("1.0.{version}"));
    offered["output"] = json!(format!(
        r#"{{"prefixItems": [{{"const": {version}}}, {{}}], "minItems": 2}}"#
    ));
    let mut wat = Wat::new("worker-echo", json!([offered]));
    wat.answer_with(&format!("[{version},"));
    wat
}

/// A worker that waits for so many milliseconds, then answers `[VERSION, input]`.
fn slow(version: u32, ms: u32) -> Wat {
    let mut wat = bursting("slow", 1024, 1);
    wat.handle = format!(
        "(local.set $wait (call $subscribe (i64.const {ms}000000)))
        (call $block (local.get $wait)) (call $drop (local.get $wait))"
    );
    wat.answer_with(&format!("[{version},"));
    wat.handle.insert_str(0, "(local $wait i32)");
    wat
}

/// Puts a component into place at once, as if it had been made a while ago: nothing is waited for.
fn put(dir: &TempDir, stem: &str, component: &[u8]) {
    let fresh = dir.path().join(format!(".{stem}"));
    write(&fresh, component).expect("a file in a temporary directory");
    let before = SystemTime::now() - Duration::from_secs(60);
    let file = File::options().write(true).open(&fresh).expect("the file");
    file.set_modified(before).expect("its time");
    rename(&fresh, dir.path().join(format!("{stem}.wasm"))).expect("a rename");
}

type Count = Arc<AtomicUsize>;

async fn open(dir: &TempDir, toml: &str) -> Arc<Router> {
    let config = config(toml);
    let registry = Registry::open(&ENGINE, &config, dir.path()).await;
    let registry = registry.expect("the directory is read");
    Arc::new(Router::new(registry))
}

async fn reload(router: &Router) -> Changes {
    let changes = router.registry().reload().await;
    changes.expect("the directory is read")
}

/// How many were loaded, replaced, removed and refused.
fn counts(changes: &Changes) -> [usize; 4] {
    [
        changes.loaded.len(),
        changes.replaced.len(),
        changes.removed.len(),
        changes.refused.len(),
    ]
}

fn reasons(router: &Router) -> String {
    let snapshot = router.registry().snapshot();
    let refused = snapshot.refused().iter();
    let reasons: Vec<String> = refused
        .flat_map(|refused| refused.reasons.clone())
        .collect();
    reasons.join("\n")
}

fn serving(router: &Router) -> Weak<Worker> {
    let snapshot = router.registry().snapshot();
    Arc::downgrade(snapshot.workers().first().expect("one serves"))
}

#[track_caller]
fn assert_gone(worker: &Weak<Worker>) {
    let until = Instant::now() + Duration::from_secs(10);
    while worker.strong_count() > 0 {
        assert!(Instant::now() < until, "somebody keeps it");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Sixteen callers at once, who know which versions may answer: the one that served when they asked, or a
/// later one that was in place by the time they had their answer.
#[test]
fn ten_thousand_calls_during_a_hundred_replacements_are_answered_each_by_one_version() {
    const REPLACEMENTS: usize = 100;
    const CALLS: usize = 10_000;
    // They come round again, so that the compiler has little to do.
    const VERSIONS: usize = 10;
    run(async {
        let dir = dir();
        let built: Vec<Vec<u8>> = (0..VERSIONS)
            .map(|at| versioned(1000 + at as u32).build())
            .collect();
        put(&dir, "echo", &built[0]);
        let router = open(&dir, "").await;
        let (floor, ceiling, made) = (Count::default(), Count::default(), Count::default());
        let is_over = Arc::new(AtomicBool::new(false));
        let callers: Vec<_> = (0..16)
            .map(|caller| {
                let (router, is_over) = (router.clone(), is_over.clone());
                let (floor, ceiling, made) = (floor.clone(), ceiling.clone(), made.clone());
                tokio::spawn(async move {
                    while !is_over.load(SeqCst) || made.load(SeqCst) < CALLS {
                        let number = made.fetch_add(1, SeqCst);
                        let least = floor.load(SeqCst);
                        let input = json!({ "caller": caller, "number": number });
                        let answer = done(&router, "misbehave:echo", &input.to_string()).await;
                        let may = least..=ceiling.load(SeqCst);
                        let mut may = may.map(|at| json!(1000 + at % VERSIONS));
                        assert!(may.any(|version| version == answer[0]), "{answer}");
                        assert_eq!(answer[1], input);
                        // The compiler has a low priority: it must find time.
                        tokio::time::sleep(Duration::from_millis(2)).await;
                    }
                })
            })
            .collect();
        let mut before = Vec::new();
        for at in 1..=REPLACEMENTS {
            before.push(serving(&router));
            put(&dir, "echo", &built[at % VERSIONS]);
            ceiling.store(at, SeqCst);
            assert_eq!(counts(&reload(&router).await), [0, 1, 0, 0]);
            floor.store(at, SeqCst);
        }
        is_over.store(true, SeqCst);
        for caller in callers {
            caller.await.expect("no call fails");
        }
        let made = made.load(SeqCst);
        assert!(made >= CALLS);
        let snapshot = router.registry().snapshot();
        let observed = snapshot.workers()[0].observed();
        assert_eq!(
            (observed.calls, observed.in_flight, observed.queued),
            (made as u64, 0, 0),
            "what all versions did is counted as one worker's"
        );
        before.iter().for_each(assert_gone);
    });
}

#[test]
fn a_broken_replacement_changes_nothing_but_the_list_of_workers() {
    run(async {
        let dir = dir();
        put(&dir, "echo", &versioned(1).build());
        let router = open(&dir, "").await;
        let host = Host::of(router.clone(), |_| {}).await;
        let workers = async || -> Value {
            let answer = host.client.get(host.url("/workers")).send().await;
            answer.expect("an answer").json().await.expect("JSON")
        };
        let reloaded = async || -> Value {
            let answer = host.client.post(host.url("/reload")).send().await;
            answer.expect("an answer").json().await.expect("JSON")
        };
        let before = workers().await;
        assert_eq!(before["workers"][0]["refused_update"], Value::Null);

        let whole = versioned(2).build();
        for broken in [&whole[..whole.len() / 2], b"", b"no component"] {
            put(&dir, "echo", broken);
            let changes = reloaded().await;
            assert_eq!(changes["replaced"], json!([]));
            assert_eq!(changes["refused"][0]["file"], "echo.wasm");
            let now = workers().await;
            let update = &now["workers"][0]["refused_update"];
            assert_eq!(*update, now["refused"][0]["reasons"]);
            assert!(update[0].as_str().is_some_and(|reason| !reason.is_empty()));
            assert_eq!(done(&router, "misbehave:echo", "{}").await[0], 1);
        }
        // The version that serves comes back: nothing is loaded, and nothing is refused any more.
        put(&dir, "echo", &versioned(1).build());
        let changes = reloaded().await;
        assert_eq!(
            (&changes["replaced"], &changes["loaded"]),
            (&json!([]), &json!([]))
        );
        let mut now = workers().await;
        assert_eq!(now["refused"], json!([]));
        for volatile in ["calls", "cpu_ms", "highest_use", "capabilities"] {
            now["workers"][0][volatile] = before["workers"][0][volatile].clone();
        }
        assert_eq!(now, before);

        put(&dir, "echo", &whole);
        let changes = reloaded().await;
        let named = json!([{ "worker_id": "worker-echo", "file": "echo.wasm" }]);
        assert_eq!(changes["replaced"], named);
        assert_eq!(done(&router, "misbehave:echo", "{}").await[0], 2);
    });
}

#[test]
fn a_page_from_elsewhere_cannot_have_the_directory_reloaded() {
    run(async {
        let dir = dir();
        let router = open(&dir, "").await;
        put(&dir, "echo", &versioned(1).build());
        let host = Host::of(router.clone(), |_| {}).await;
        let request = host.client.post(host.url("/reload"));
        let request = request.header("origin", "https://elsewhere.example");
        let status = request.send().await.expect("an answer").status();
        assert_eq!(status, StatusCode::FORBIDDEN);
        assert!(router.registry().snapshot().workers().is_empty());
        let status = host.client.get(host.url("/reload")).send().await;
        assert_eq!(
            status.expect("an answer").status(),
            StatusCode::METHOD_NOT_ALLOWED
        );
    });
}

/// The two versions together never hold more than the worker's slots, and who waits for one keeps his place.
#[test]
fn two_versions_share_the_slots_of_one_worker() {
    run(async {
        let dir = dir();
        put(&dir, "slow", &slow(1, 400).build());
        let router = open(&dir, "[workers.slow]\nconcurrency = 1").await;
        let old = serving(&router);
        let ask = |router: &Arc<Router>| {
            let router = router.clone();
            tokio::spawn(async move { done(&router, "misbehave:slow", "7").await })
        };
        let lane = |router: &Router| {
            let snapshot = router.registry().snapshot();
            let observed = snapshot.workers()[0].observed();
            (observed.in_flight, observed.queued)
        };
        let first = ask(&router);
        let until = async |expected: (usize, usize)| {
            while lane(&router) != expected {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        until((1, 0)).await;
        let second = ask(&router);
        until((1, 1)).await;
        put(&dir, "slow", &slow(2, 1).build());
        assert_eq!(counts(&reload(&router).await), [0, 1, 0, 0]);
        let third = ask(&router);
        let (most, answers) = (AtomicUsize::new(0), async {
            let asked = [first, second, third].map(async |asked| asked.await.expect("an answer"));
            futures_util::future::join_all(asked).await
        });
        let watched = async {
            loop {
                most.fetch_max(lane(&router).0, SeqCst);
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        };
        let answers = tokio::select! {
            answers = answers => answers,
            () = watched => unreachable!(),
        };
        assert_eq!(answers, [json!([1, 7]), json!([1, 7]), json!([2, 7])]);
        assert_eq!(most.load(SeqCst), 1);
        assert_gone(&old);
    });
}

#[test]
fn a_file_that_is_removed_drains() {
    run(async {
        let dir = dir();
        put(&dir, "slow", &slow(1, 1500).build());
        put(&dir, "echo", &versioned(1).build());
        let router = open(&dir, "").await;
        let snapshot = router.registry().snapshot();
        let slow = snapshot.workers().iter();
        let slow = slow.filter(|worker| &**worker.id() == "worker-slow");
        let slow: Vec<_> = slow.map(Arc::downgrade).collect();
        drop(snapshot);
        let in_flight = tokio::spawn({
            let router = router.clone();
            async move { done(&router, "misbehave:slow", "3").await }
        });
        while router.admission().in_flight() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        std::fs::remove_file(dir.path().join("slow.wasm")).expect("it is there");
        assert_eq!(counts(&reload(&router).await), [0, 0, 1, 0]);
        assert_eq!(
            code(&router, "misbehave:slow", "3").await,
            Code::UnknownCapability
        );
        assert_eq!(slow[0].strong_count(), 1, "the call in flight has it");
        assert_eq!(in_flight.await.expect("it ends"), json!([1, 3]));
        assert_gone(&slow[0]);
        assert_eq!(done(&router, "misbehave:echo", "{}").await[0], 1);

        // A directory that cannot be read is not an empty one.
        let elsewhere = dir.path().with_extension("away");
        rename(dir.path(), &elsewhere).expect("a rename");
        assert!(router.registry().reload().await.is_err());
        assert_eq!(done(&router, "misbehave:echo", "{}").await[0], 1);
        rename(&elsewhere, dir.path()).expect("a rename");
    });
}

#[test]
fn a_file_keeps_its_ids_while_the_host_runs() {
    run(async {
        let dir = dir();
        let named = |worker_id: &str, spiffe: Option<&str>| {
            let mut wat = versioned(1);
            wat.declaration["worker-id"] = json!(worker_id);
            if let Some(id) = spiffe {
                let id = format!("spiffe://crank.local/{id}");
                wat.declaration["capabilities"][0]["spiffe-id"] = json!(id);
            }
            wat.build()
        };
        put(&dir, "echo", &named("worker-echo", Some("echo")));
        let router = open(&dir, "").await;
        let others = [
            named("worker-other", Some("echo")),
            named("worker-echo", Some("other")),
            named("worker-echo", None),
        ];
        for other in &others {
            put(&dir, "echo", other);
            assert_eq!(counts(&reload(&router).await), [0, 0, 0, 1]);
            assert!(
                reasons(&router).contains("keeps its ids"),
                "{}",
                reasons(&router)
            );
        }
        // Not even by going away in between.
        std::fs::remove_file(dir.path().join("echo.wasm")).expect("it is there");
        assert_eq!(counts(&reload(&router).await), [0, 0, 1, 0]);
        put(&dir, "echo", &others[0]);
        assert_eq!(counts(&reload(&router).await), [0, 0, 0, 1]);
        put(&dir, "echo", &named("worker-echo", Some("echo")));
        assert_eq!(counts(&reload(&router).await), [1, 0, 0, 0]);
    });
}

#[test]
fn an_id_stays_with_who_serves_until_he_is_gone() {
    run(async {
        let dir = dir();
        put(&dir, "one", &versioned(1).build());
        let router = open(&dir, "").await;
        put(&dir, "two", &versioned(2).build());
        assert_eq!(counts(&reload(&router).await), [0, 0, 0, 1]);
        let told = reasons(&router);
        assert!(told.contains("worker-echo is that of one.wasm"), "{told}");
        assert_eq!(done(&router, "misbehave:echo", "{}").await[0], 1);
        // The first is gone, and the second has its place at the same moment.
        std::fs::remove_file(dir.path().join("one.wasm")).expect("it is there");
        assert_eq!(counts(&reload(&router).await)[..3], [1, 0, 1]);
        assert_eq!(done(&router, "misbehave:echo", "{}").await[0], 2);
        assert_eq!(reasons(&router), "");

        // Of two who come at once, neither has it.
        let other = |version| {
            let mut wat = versioned(version);
            wat.declaration["worker-id"] = json!("worker-other");
            wat.build()
        };
        put(&dir, "three", &other(3));
        put(&dir, "four", &other(4));
        assert_eq!(counts(&reload(&router).await), [0, 0, 0, 2]);
        std::fs::remove_file(dir.path().join("four.wasm")).expect("it is there");
        assert_eq!(counts(&reload(&router).await)[..3], [1, 0, 0]);
        assert_eq!(reasons(&router), "");
    });
}

#[test]
fn a_file_that_is_written_slowly_is_loaded_once_and_whole() {
    run(async {
        let whole = versioned(2).build();
        for _attempt in 0..5 {
            let dir = dir();
            put(&dir, "echo", &versioned(1).build());
            let router = open(&dir, "").await;
            let watch = Watch::start(dir.path());
            let target = dir.path().join("echo.wasm");
            let writing = async {
                let began = Instant::now();
                let mut longest = Duration::ZERO;
                let mut file = File::create(&target).expect("the file");
                for part in whole.chunks(whole.len().div_ceil(40)) {
                    let before = Instant::now();
                    tokio::time::sleep(Duration::from_millis(25)).await;
                    file.write_all(part).expect("a part");
                    longest = longest.max(before.elapsed());
                }
                assert!(began.elapsed() > Duration::from_millis(500));
                longest
            };
            let mut seen = Vec::new();
            let looking = async {
                while serving(&router)
                    .upgrade()
                    .is_some_and(|worker| worker.offered()[0].capability.version.patch == 1)
                {
                    seen.push(reasons(&router));
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            let followed = async {
                tokio::select! {
                    () = watch.follow(router.registry()) => {},
                    () = looking => {},
                }
            };
            let followed = tokio::time::timeout(Duration::from_secs(60), followed);
            let (longest, followed) = tokio::join!(writing, followed);
            followed.expect("it is loaded");
            assert_eq!(done(&router, "misbehave:echo", "5").await, json!([2, 5]));
            // Who writes nothing for so long may be taken for one who has finished, on a machine that is
            // too busy to write steadily.
            if longest < Duration::from_millis(150) {
                assert!(
                    seen.iter().all(String::is_empty),
                    "half of it was loaded: {seen:?}"
                );
                return;
            }
        }
    });
}

#[test]
fn what_is_written_anew_and_says_the_same_is_not_loaded_again() {
    run(async {
        let dir = dir();
        put(&dir, "echo", &versioned(1).build());
        put(&dir, "broken", b"no component");
        let router = open(&dir, "").await;
        let before = serving(&router);
        put(&dir, "echo", &versioned(1).build());
        put(&dir, "broken", b"no component");
        let changes = router.registry().refresh().await.expect("it is read");
        assert_eq!(counts(&changes), [0, 0, 0, 0]);
        assert!(Weak::ptr_eq(&before, &serving(&router)));
        // Who asks has what was refused tried again.
        assert_eq!(counts(&reload(&router).await), [0, 0, 0, 1]);
    });
}

/// Asks a host for JSON.
async fn ask(request: reqwest::RequestBuilder) -> Value {
    let answer = request.timeout(Duration::from_secs(60)).send().await;
    answer.expect("an answer").json().await.expect("JSON")
}

/// Waits until the host's only worker answers with a version.
async fn until_version(url: &str, version: u32) {
    let client = reqwest::Client::new();
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let request = client.post(format!("{url}/invoke/misbehave/echo"));
        let request = request.header("content-type", "application/json").body("1");
        if ask(request).await == json!([version, 1]) {
            return;
        }
        assert!(Instant::now() < until, "version {version} does not come");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[test]
fn a_served_directory_is_watched_unless_the_operator_says_otherwise() {
    let watched = dir();
    let still = dir();
    write(still.path().join("crank.toml"), "watch = false\n").expect("a file");
    for dir in [&watched, &still] {
        put(dir, "echo", &versioned(1).build());
    }
    let hosts = [
        Serving::start(watched.path(), &[]),
        Serving::start(still.path(), &[]),
    ];
    for dir in [&watched, &still] {
        put(dir, "echo", &versioned(2).build());
    }
    run(async {
        until_version(&hosts[0].1, 2).await;
        // By now the other would have noticed too.
        until_version(&hosts[1].1, 1).await;
        let changes = ask(reqwest::Client::new().post(format!("{}/reload", hosts[1].1))).await;
        assert_eq!(changes["replaced"][0]["worker_id"], "worker-echo");
        until_version(&hosts[1].1, 2).await;
        put(&still, "echo", &versioned(3).build());
        let pid = rustix::process::Pid::from_child(&hosts[1].0);
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).expect("it runs");
        until_version(&hosts[1].1, 3).await;
    });
}

#[test]
fn manifests_have_the_form_that_policies_read() {
    let dir = dir();
    let mut wat = versioned(1);
    let offered = &mut wat.declaration["capabilities"];
    offered[0]["spiffe-id"] = json!("spiffe://crank.local/worker/email-classifier");
    offered[0]["required-capabilities"] =
        json!(["convert:email_to_text", "classify:spam_detection"]);
    let mut second = offered[0].clone();
    second["name"] = json!("echo_again");
    second["required-capabilities"] = json!(["convert:email_to_text", "wasi:keyvalue/store"]);
    offered.as_array_mut().expect("a list").push(second);
    put(&dir, "email-classifier", &wat.build());
    // Nobody's: there is nothing to know it by.
    put(&dir, "slow", &slow(1, 1).build());
    let toml = "[workers.email-classifier]\nowner = \"ml-team\"\n";
    write(dir.path().join("crank.toml"), toml).expect("a file");
    let file = File::open(dir.path().join("email-classifier.wasm")).expect("the file");
    let deployed = SystemTime::UNIX_EPOCH + Duration::from_secs(1_763_287_200);
    file.set_modified(deployed).expect("its time");
    let expected = json!({
        "workers": {
            "spiffe://crank.local/worker/email-classifier": {
                "worker_id": "worker-echo",
                "required_capabilities": [
                    "convert:email_to_text", "classify:spam_detection", "wasi:keyvalue/store"
                ],
                "owner": "ml-team",
                "deployed_at": "2025-11-16T10:00:00Z"
            }
        }
    });

    let written = dir.path().join("worker_manifests.json");
    write(&written, "what was there before").expect("a file");
    let written = written.to_str().expect("UTF-8");
    // The tests' workers lack metadata: that is what the exit code says.
    let (code, _, error) = output(&["check", path(&dir), "--manifests", written]);
    assert_eq!(code, 1, "{error}");
    let text = std::fs::read_to_string(written).expect("it is written");
    assert_eq!(
        serde_json::from_str::<Value>(&text).expect("JSON"),
        expected
    );
    let nowhere = dir.path().join("absent/worker_manifests.json");
    let nowhere = nowhere.to_str().expect("UTF-8");
    let (code, _, error) = output(&["check", path(&dir), "--manifests", nowhere]);
    assert_eq!(code, 2, "{error}");
    assert!(error.contains("is not written"), "{error}");

    run(async {
        let router = open(&dir, toml).await;
        let host = Host::of(router, |_| {}).await;
        let manifests = ask(host.client.get(host.url("/manifests"))).await;
        assert_eq!(manifests, expected);
    });
}
