//! The cache of compiled code: bounded, shared, and no more than a help.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use crank::engine::{Engine, Origin, Settings};
use crank::worker::{Snapshotted, Worker};
use serde_json::{Value, json};

use crate::support::component::{Wat, capability};
use crate::support::{INSTANCES, config, dir, engine, log, place, run};

/// A worker with so many KiB of data that are its own.
fn heavy(name: &str, kib: usize) -> Wat {
    let mut wat = Wat::new(&format!("worker-{name}"), json!([capability(name)]));
    let data = name.repeat((kib << 10) / name.len());
    wat.items = format!("(data \"{data}\")");
    wat
}

/// An engine whose cache may take so many bytes.
fn bounded(cache: &Path, bytes: u64) -> Engine {
    let settings = Settings {
        instances: INSTANCES,
        cache: bytes,
        ..Settings::new(&config("").limits, env!("CARGO_BIN_EXE_crank"))
    };
    Engine::new(settings, Some(cache)).expect("the engine starts")
}

async fn origin(engine: &Engine, file: &Path) -> Origin {
    let worker = Worker::load(engine, &config(""), file).await;
    worker
        .unwrap_or_else(|refused| panic!("{refused:?}"))
        .origin()
}

/// Compiled code in a cache, with what has been put beside it.
fn files(cache: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(cache).expect("it is readable");
    let mut files: Vec<_> = entries
        .map(|entry| entry.expect("an entry").path())
        .collect();
    files.retain(|file| file.file_name().is_some_and(|name| name != "key"));
    files.sort();
    files
}

/// Makes a file as old as one that was used so long ago.
fn age(file: &Path, age: Duration) {
    let opened = std::fs::File::options().write(true).open(file);
    let then = SystemTime::now() - age;
    opened
        .and_then(|file| file.set_modified(then))
        .expect("it is ours");
}

#[test]
fn what_was_used_longest_ago_goes_first() {
    run(async {
        let dir = dir();
        let cache = dir.path().join("code");
        let [one, two, three] =
            ["one", "two", "three"].map(|name| place(&dir, name, &heavy(name, 600).build()));
        // Room for two.
        let engine = bounded(&cache, 1500 << 10);
        assert_eq!(origin(&engine, &one).await, Origin::Compiled);
        assert_eq!(origin(&engine, &two).await, Origin::Compiled);
        files(&cache)
            .iter()
            .for_each(|file| age(file, Duration::from_secs(60)));
        assert_eq!(origin(&engine, &one).await, Origin::Cached);
        assert_eq!(origin(&engine, &three).await, Origin::Compiled);
        assert_eq!(files(&cache).len(), 2);
        assert_eq!(origin(&engine, &one).await, Origin::Cached);
        assert_eq!(origin(&engine, &three).await, Origin::Cached);
        assert_eq!(origin(&engine, &two).await, Origin::Compiled);

        // One that is larger than all the room is kept alone, and a smaller bound holds from the start.
        let engine = bounded(&cache, 1);
        assert_eq!(files(&cache).len(), 1);
        assert_eq!(origin(&engine, &one).await, Origin::Compiled);
        assert_eq!(origin(&engine, &one).await, Origin::Cached);
    });
}

#[test]
fn what_a_crash_left_half_written_is_swept_and_what_is_being_written_is_not() {
    run(async {
        let dir = dir();
        let cache = dir.path().join("code");
        let file = place(&dir, "wat", &heavy("swept", 1).build());
        assert_eq!(origin(&engine(&cache), &file).await, Origin::Compiled);
        let (left, fresh) = (
            cache.join(".unfinished-left"),
            cache.join(".unfinished-new"),
        );
        for unfinished in [&left, &fresh] {
            std::fs::write(unfinished, "half").expect("a file");
        }
        age(&left, Duration::from_secs(3600));
        assert_eq!(origin(&engine(&cache), &file).await, Origin::Cached);
        assert_eq!((left.exists(), fresh.exists()), (false, true));
    });
}

/// Two hosts on one directory load and keep the same at once, and neither notices.
#[test]
fn two_hosts_share_a_cache() {
    run(async {
        let dir = dir();
        let cache = dir.path().join("code");
        let file = place(&dir, "wat", &heavy("shared", 100).build());
        let (one, other) = (engine(&cache), engine(&cache));
        for expected in [Origin::Compiled, Origin::Cached] {
            let (mine, theirs) = tokio::join!(origin(&one, &file), origin(&other, &file));
            assert_eq!((mine, theirs), (expected, expected));
        }
        assert_eq!(files(&cache).len(), 1, "{:?}", files(&cache));
    });
}

/// A disk that takes no more: a host that may write no file of more than four kilobytes.
#[test]
fn a_full_disk_costs_speed_and_not_service() {
    let dir = dir();
    place(&dir, "wat", &heavy("full", 100).build());
    let cache = dir.path().join("cache");
    let program = env!("CARGO_BIN_EXE_crank");
    let script = format!(
        "trap '' XFSZ; ulimit -f 8; exec {program} invoke {} misbehave:full '{{}}'",
        dir.path().display()
    );
    let mut shell = Command::new("sh");
    shell.args(["-c", &script]).env("CRANK_CACHE_DIR", &cache);
    let ended = shell.env("RUST_LOG", "warn").output().expect("it runs");
    let (out, error) = (
        String::from_utf8_lossy(&ended.stdout),
        String::from_utf8_lossy(&ended.stderr),
    );
    assert_eq!(out.trim(), "{}", "{error}");
    assert!(error.contains("compiled code not kept"), "{error}");
    assert_eq!(files(&cache.join("code")), Vec::<PathBuf>::new());
}

#[test]
fn a_cache_that_vanishes_while_a_host_runs_is_logged() {
    run(async {
        let dir = dir();
        let cache = dir.path().join("vanishing");
        let file = place(&dir, "wat", &heavy("vanishes", 1).build());
        let engine = engine(&cache);
        std::fs::remove_dir_all(&cache).expect("it is ours");
        assert_eq!(origin(&engine, &file).await, Origin::Compiled);
        let name = cache.display().to_string();
        let told = |line: &str| line.contains(&name) && line.contains("not kept");
        assert!(log().lines().any(told));
    });
}

#[test]
fn a_snapshot_that_was_altered_is_not_used() {
    run(async {
        let dir = dir();
        let cache = dir.path().join("code");
        let file = place(&dir, "wat", &heavy("altered", 1).build());
        let (engine, config) = (engine(&cache), config(""));
        let load = async || {
            let worker = Worker::load(&engine, &config, &file).await;
            worker.unwrap_or_else(|refused| panic!("{refused:?}"))
        };
        load().await.take_snapshot(&engine, &config).await;
        assert_eq!(load().await.snapshotted(), Snapshotted::Used);
        let snapshot = files(&cache).into_iter().find(|file| {
            file.extension()
                .is_some_and(|extension| extension == "snapshot")
        });
        let snapshot = snapshot.expect("it is kept");
        let code = snapshot.with_extension("cwasm");
        let intact = std::fs::read(&snapshot).expect("it is ours");
        // Plain code under the snapshot's name is well signed, and for something else.
        for bytes in [
            intact[..100].to_vec(),
            std::fs::read(code).expect("it is ours"),
        ] {
            std::fs::write(&snapshot, bytes).expect("it is ours");
            assert_eq!(load().await.snapshotted(), Snapshotted::Pending);
        }
        std::fs::write(&snapshot, intact).expect("it is ours");
        assert_eq!(load().await.snapshotted(), Snapshotted::Used);
    });
}

#[test]
fn an_operator_sees_what_is_kept_and_clears_it() {
    let dir = dir();
    place(&dir, "wat", &heavy("listed", 10).build());
    let cache = dir.path().join("cache");
    let crank = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_crank"));
        command.args(arguments).env("CRANK_CACHE_DIR", &cache);
        let ended = command.output().expect("it runs");
        let error = String::from_utf8_lossy(&ended.stderr);
        assert_eq!(ended.status.code(), Some(0), "{error}");
        String::from_utf8(ended.stdout).expect("text")
    };
    let listed =
        || -> Value { serde_json::from_str(&crank(&["cache", "list", "--json"])).expect("JSON") };
    assert_eq!(listed()["entries"], json!([]), "nothing yet");
    let workers = dir.path().to_str().expect("a path");
    crank(&["invoke", workers, "misbehave:listed", "{}"]);
    let kept = listed();
    assert_eq!(kept["entries"][0]["kind"], "code", "{kept}");
    assert!(kept["bytes"].as_u64() > Some(10 << 10), "{kept}");
    assert!(crank(&["cache", "list"]).contains("1 files"));
    assert!(crank(&["cache", "clear"]).contains("removed 1 files"));
    assert_eq!(listed()["entries"], json!([]));
    crank(&["invoke", workers, "misbehave:listed", "{}"]);
}
