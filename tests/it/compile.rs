//! Compiling a stranger's component is bounded, whatever it takes.

use std::fmt::Write;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crank::engine::Origin;
use crank::registry::Snapshot;
use crank::worker::Worker;
use serde_json::json;

use crate::support::component::{Wat, capability};
use crate::support::{config, dir, engine_with, place, run};

/// A worker of 70 kB whose one function costs the compiler many seconds and hundreds of MiB: a
/// thousand variables live through four thousand loops.
fn costly() -> Wat {
    let mut wat = Wat::new("worker-costly", json!([capability("costly")]));
    wat.items = format!("(func (local {})", "i32 ".repeat(1000));
    for at in 0..12_000 {
        let (own, other) = (at % 1000, (at * 7 + 1) % 1000);
        write!(
            wat.items,
            "(loop (local.set {own} (i32.add (local.get {own}) (local.get {other})))
                (br_if 0 (local.get {own})))"
        )
        .expect("a string");
    }
    wat.items.push(')');
    wat
}

/// A worker with more than a MiB of data.
fn bulky() -> Wat {
    let mut wat = Wat::new("worker-bulky", json!([capability("bulky")]));
    wat.items = format!("(data \"{}\")", "x".repeat(1200 << 10));
    wat
}

fn honest() -> Wat {
    Wat::new("worker-honest", json!([capability("honest")]))
}

/// The bound that is broken is named, the others serve, and what compiled is kept.
#[test]
fn a_component_that_costs_too_much_to_compile_is_refused_by_the_bound_that_it_breaks() {
    run(async {
        for (wat, key, bound, said) in [
            (costly(), "compile_ms", 1000, "1 s of CPU time"),
            (costly(), "compile_memory_mb", 64, "64 MiB of memory"),
            (bulky(), "artifact_mb", 1, "1 MiB of code"),
        ] {
            let dir = dir();
            let files = vec![
                place(&dir, "bad", &wat.build()),
                place(&dir, "honest", &honest().build()),
            ];
            let config = config(&format!("[limits]\n{key} = {bound}"));
            let engine = engine_with(&config, dir.path());
            let began = Instant::now();
            let snapshot = Snapshot::load(&engine, &config, files.clone()).await;
            assert!(began.elapsed() < Duration::from_secs(30), "{key}");
            let [refused] = snapshot.refused() else {
                panic!("{key}: {:?}", snapshot.refused())
            };
            let reason = refused.reasons.join("\n");
            assert!(reason.contains(&format!("limits.{key}")), "{reason}");
            assert!(reason.contains(said), "{reason}");
            assert_eq!(snapshot.workers().len(), 1, "the other serves");
            let again = Worker::load(&engine, &config, &files[1]).await;
            assert_eq!(
                again.map(|worker| worker.origin()).ok(),
                Some(Origin::Cached)
            );
        }
        let compiles = config("[limits]\nartifact_mb = 2");
        let dir = dir();
        let file = place(&dir, "bulky", &bulky().build());
        let engine = engine_with(&compiles, dir.path());
        assert!(Worker::load(&engine, &compiles, &file).await.is_ok());
    });
}

#[test]
fn a_load_that_is_given_up_ends_its_compiler() {
    run(async {
        let dir = dir();
        let file = place(&dir, "costly", &costly().build());
        // A number that finds this test's compiler among those of the others.
        let config = config("[limits]\ncompile_memory_mb = 1537");
        let engine = engine_with(&config, dir.path());
        let loading =
            tokio::spawn(async move { Worker::load(&engine, &config, &file).await.is_ok() });
        let compiler = eventually("it compiles", || compiler(std::process::id(), 1537));
        loading.abort();
        eventually("it is ended and reaped", || {
            (!compiler.exists()).then_some(())
        });
    });
}

#[test]
fn a_host_that_stops_or_is_killed_leaves_no_compiler_behind() {
    let dir = dir();
    place(&dir, "costly", &costly().build());
    for (at, signal) in ["-TERM", "-KILL"].into_iter().enumerate() {
        let memory = 1538 + at as u64;
        let mut host = Host(
            Command::new(env!("CARGO_BIN_EXE_crank"))
                .args(["serve", "--listen", "127.0.0.1:0"])
                .arg(dir.path())
                .env("CRANK_CACHE_DIR", dir.path().join("cache"))
                .env("CRANK_LIMITS_COMPILE_MEMORY_MB", memory.to_string())
                .stderr(Stdio::inherit())
                .spawn()
                .expect("it starts"),
        );
        let compiler = eventually("it compiles", || {
            let ended = host.0.try_wait().expect("a child");
            assert_eq!(ended, None, "the host ended by itself");
            compiler(host.0.id(), memory)
        });
        let pid = host.0.id().to_string();
        let killed = Command::new("kill").args([signal, &pid]).status();
        assert!(killed.expect("kill runs").success());
        eventually("the host has ended", || host.0.try_wait().expect("a child"));
        eventually("its compiler has ended", || ended(&compiler).then_some(()));
    }
}

/// A host of a test's own; gone after the test, however that ends.
struct Host(Child);

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The directory in /proc of the compiler that a process has started and that may take so many MiB. Who
/// started it is looked at first: to read the command line of every process waits for those that are
/// busy with their memory, and a compiler does not live long.
fn compiler(parent: u32, mib: u64) -> Option<PathBuf> {
    let memory = (mib << 20).to_string();
    let parent = parent.to_string();
    let entries = std::fs::read_dir("/proc").expect("this is Linux").flatten();
    entries.map(|entry| entry.path()).find(|process| {
        let stat = std::fs::read_to_string(process.join("stat")).unwrap_or_default();
        let fields = stat.rsplit(") ").next().unwrap_or_default();
        if fields.split(' ').nth(1) != Some(&parent) {
            return false;
        }
        let line = std::fs::read_to_string(process.join("cmdline")).unwrap_or_default();
        let line: Vec<&str> = line.split('\0').collect();
        line.get(1) == Some(&"compile") && line.get(3) == Some(&&*memory)
    })
}

/// Whether a process runs no more. Whoever inherits an orphan may leave it unreaped.
fn ended(process: &std::path::Path) -> bool {
    std::fs::read_to_string(process.join("stat")).map_or(true, |stat| stat.contains(") Z "))
}

/// Long enough for a machine on which all other tests and their compilers run meanwhile.
const EVENTUALLY: Duration = Duration::from_secs(90);

#[track_caller]
fn eventually<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    let mut look = look;
    let until = Instant::now() + EVENTUALLY;
    while Instant::now() < until {
        if let Some(found) = look() {
            return found;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    panic!("not in time: {what}");
}
