//! What a choice costs among a hundred candidates: the pure function alone, and with the facts gathered
//! from a hundred loaded workers.
//!
//!     cargo bench --bench route

#[path = "../tests/it/support/component.rs"]
#[allow(dead_code)]
mod component;

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use component::{Wat, capability};
use crank::capability::Affinity;
use crank::config::Config;
use crank::engine::{Engine, Settings};
use crank::registry::Snapshot;
use crank::router::{Ask, Decision, Facts, Load, Place, choose, facts};
use crank::worker::Health;
use criterion::{Criterion, criterion_group, criterion_main};
use semver::{Version, VersionReq};
use serde_json::json;

const CANDIDATES: usize = 100;

/// Candidates that differ by what `change` makes of their number.
fn hundred<'a>(version: &'a Version, change: impl Fn(usize, &mut Facts<'a>)) -> Vec<Facts<'a>> {
    let one = |number| {
        let mut facts = Facts {
            number,
            worker_id: "worker-hello-world",
            place: Place::Local,
            version,
            runtime: Some("wasm-component"),
            env_profile: Some("cpu-optimized"),
            denied: None,
            health: Health::Well,
            predicted: Some(Duration::from_millis(20)),
            promised: Some(Duration::from_millis(100)),
            budget_left: Some(0.5),
            affinity: Affinity::Anywhere,
            cost: 1.0,
            load: Load {
                in_flight: number % 7,
                queued: 0,
                capacity: 32,
            },
        };
        change(number, &mut facts);
        facts
    };
    (0..CANDIDATES).map(one).collect()
}

fn alone(c: &mut Criterion) {
    let (version, wanted) = (
        Version::new(1, 2, 3),
        VersionReq::parse("^1.1").expect("valid"),
    );
    let shapes = [
        ("equal in all", hundred(&version, |_, _| {})),
        (
            "each better than the one before",
            hundred(&version, |number, facts| facts.cost = 200.0 - number as f64),
        ),
        (
            "none keeps its target",
            hundred(&version, |number, facts| {
                facts.predicted = Some(Duration::from_millis(300 - number as u64));
            }),
        ),
        (
            "ninety-nine suspect",
            hundred(&version, |number, facts| {
                facts.health = if number == 50 {
                    Health::Well
                } else {
                    Health::Suspect
                };
            }),
        ),
    ];
    let ask = Ask {
        version: Some(&wanted),
        max_cost: Some(1000.0),
        patience: Some(Duration::from_secs(1)),
        ..Ask::default()
    };
    let mut group = c.benchmark_group("choose among 100");
    for (name, facts) in &shapes {
        let mut seed = 0;
        group.bench_function(*name, |b| {
            b.iter(|| {
                seed += 1;
                choose(black_box(facts), black_box(&ask), seed)
            });
        });
    }
    group.finish();
}

/// What a call pays in all: a snapshot of a hundred workers that offer the same.
fn gathered(c: &mut Criterion) {
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let config = Arc::new(Config::load(&[], None, std::env::vars()).expect("the defaults hold"));
    let settings = Settings {
        instances: CANDIDATES as u32,
        ..Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"))
    };
    let engine = Engine::new(settings, None).expect("an engine");
    let dir = tempfile::tempdir().expect("a directory");
    let files = (0..CANDIDATES).map(|number| {
        let mut offered = capability("route");
        offered["cost-tokens"] = json!(1.0);
        offered["slo"] = json!({ "latency-p95-ms": 100 });
        let file = dir.path().join(format!("worker-{number}.wasm"));
        let component = Wat::new(&format!("worker-{number}"), json!([offered])).build();
        std::fs::write(&file, component).expect("a file");
        file
    });
    let snapshot = runtime.block_on(Snapshot::load(&engine, &config, files.collect()));
    assert_eq!(
        snapshot.workers().len(),
        CANDIDATES,
        "{:?}",
        snapshot.refused()
    );
    let mut seed = 0;
    c.bench_function("look up, gather the facts of 100 workers, choose", |b| {
        b.iter(|| {
            seed += 1;
            let names = snapshot.names("misbehave").expect("the verb");
            let candidates = &names["route"];
            let now = Instant::now();
            let mut gathered = Vec::with_capacity(candidates.len());
            for (number, candidate) in candidates.iter().enumerate() {
                gathered.push(facts(number, candidate, now, true));
            }
            let decision = choose(&gathered, &Ask::default(), seed);
            assert!(matches!(decision, Decision::Chosen(_)));
            decision
        });
    });
}

criterion_group!(benches, alone, gathered);
criterion_main!(benches);
