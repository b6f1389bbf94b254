//! What a worker asks of the host, and what the host has: refused where it does not fit, relaxed by
//! name, and told in `GET /workers`.

use std::path::Path;
use std::sync::{Arc, LazyLock};

use crank::capability::{Constraint, DiskType, GpuType};
use crank::config::ByteCount;
use crank::engine::Engine;
use crank::error::Code;
use crank::machine::{Gpu, Machine};
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::worker::{Held, Offered};
use serde_json::{Value, json};

use crate::cli::{Serving, output, path};
use crate::support::component::{Wat, capability};
use crate::support::{Host, code, config, dir, engine, guest, machine, place, run};

/// One for this file, on no machine.
static ENGINE: LazyLock<Engine> =
    LazyLock::new(|| engine(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("code")));

fn gpus(gpus: &[(GpuType, u32)]) -> Machine {
    let gpu = |(maker, mb): &(GpuType, u32)| Gpu {
        maker: *maker,
        memory: ByteCount::mib(*mb),
    };
    Machine {
        gpus: Some(gpus.iter().map(gpu).collect()),
        ..machine(1024)
    }
}

/// A worker with these constraints; `env-profile` among them is set where it belongs.
fn asking(name: &str, mut constraints: Value) -> Wat {
    let mut offered = capability(name);
    let given = constraints.as_object_mut().expect("an object");
    if let Some(profile) = given.remove("env-profile") {
        offered["env-profile"] = profile;
    }
    offered["constraints"] = constraints;
    Wat::new(&format!("worker-{name}"), json!([offered]))
}

/// Loads workers, each placed under its own name, on a machine.
async fn load(machine: Option<Machine>, wats: &[(&str, Wat)], toml: &str) -> Snapshot {
    let dir = dir();
    let files = wats
        .iter()
        .map(|(stem, wat)| place(&dir, stem, &wat.build()));
    let engine = ENGINE.clone();
    let engine = match machine {
        Some(machine) => engine.on(machine),
        None => engine,
    };
    Snapshot::load(&engine, &config(toml), files.collect()).await
}

/// Why a worker that asks for this, placed as `wat.wasm`, is refused: nothing if it is not.
async fn refusal(machine: &Machine, constraints: Value, toml: &str) -> String {
    let wats = [("wat", asking("work", constraints))];
    let snapshot = load(Some(machine.clone()), &wats, toml).await;
    let reasons = |refused: &crank::worker::Refused| refused.reasons.join("\n");
    snapshot.refused().first().map(reasons).unwrap_or_default()
}

#[track_caller]
fn assert_says(text: &str, words: &[&str]) {
    for word in words {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
}

fn held(offered: &Offered, constraint: Constraint) -> &Held {
    let found = |held: &&Held| held.constraint == constraint;
    offered
        .constraints
        .iter()
        .find(found)
        .expect("all are there")
}

#[test]
fn a_minimum_beyond_the_budget_is_refused_with_both_numbers_and_each_worker_counts_alone() {
    run(async {
        let host = machine(1024);
        let asks = |mb: u32| json!({ "min-memory-mb": mb, "max-memory-mb": 4096 });
        assert_says(
            &refusal(&host, asks(1025), "").await,
            &[
                "min_memory_mb is 1025",
                "1024 MiB",
                "[workers.\"wat\"] relax = [\"min_memory_mb\"]",
            ],
        );
        let both = [
            ("a", asking("a", asks(1024))),
            ("b", asking("b", asks(1024))),
        ];
        let snapshot = load(Some(host.clone()), &both, "").await;
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        // The operator's own ceiling can be what is in the way.
        let ceiling = "[limits]\nmax_memory_mb = 64";
        let reasons = refusal(&host, asks(128), ceiling).await;
        assert_says(&reasons, &["min_memory_mb is 128", "64 MiB"]);
    });
}

#[test]
fn a_maximum_beyond_the_budget_is_cut_to_it_and_held_there() {
    run(async {
        let mut wat = asking("work", json!({ "max-memory-mb": 4096 }));
        // 2,000 pages of 64 KiB.
        wat.handle = "(drop (memory.grow (i32.const 2000)))".to_owned();
        for (host, limit_mb) in [(Some(machine(64)), 64), (None, 4096)] {
            let snapshot = load(host.clone(), &[("wat", wat.clone())], "").await;
            let offered = snapshot.workers()[0].offered()[0].clone();
            assert_eq!(offered.limits.memory, limit_mb << 20);
            let row = held(&offered, Constraint::MaxMemoryMb);
            assert_eq!(row.declared, Some(json!(4096)));
            assert_eq!(row.in_force, Some(json!(limit_mb)));
            if host.is_some() {
                let router = Router::new(Registry::new(snapshot));
                let code = code(&router, "misbehave:work", "{}").await;
                assert_eq!(code, Code::MemoryLimit);
            }
        }
        // A minimum alone raises the default, which would not do.
        let least = asking("work", json!({ "min-memory-mb": 512 }));
        let snapshot = load(Some(machine(1024)), &[("wat", least)], "").await;
        assert_eq!(snapshot.workers()[0].offered()[0].limits.memory, 512 << 20);
    });
}

#[test]
fn a_disk_is_refused_only_where_the_operator_says_that_it_is_slower() {
    run(async {
        use DiskType::{Hdd, Nvme, Ssd};
        for (says, fits) in [
            // The kernel says hdd here, and that refuses nobody.
            (None, &["any", "hdd", "ssd", "nvme"][..]),
            (Some(Hdd), &["any", "hdd"]),
            (Some(Ssd), &["any", "hdd", "ssd"]),
            (Some(Nvme), &["any", "hdd", "ssd", "nvme"]),
        ] {
            let host = Machine {
                disk_type: says,
                ..machine(1024)
            };
            for asked in ["any", "hdd", "ssd", "nvme"] {
                let reasons = refusal(&host, json!({ "disk-type": asked }), "").await;
                if fits.contains(&asked) {
                    assert_eq!(reasons, "", "{asked} on {says:?}");
                } else {
                    let says = says.map_or("", DiskType::as_str);
                    assert_says(&reasons, &[&format!("disk_type is {asked}"), says, "relax"]);
                }
            }
        }
    });
}

#[test]
fn gpus_that_are_not_there_refuse_and_those_that_are_do_not() {
    run(async {
        let none = machine(1024);
        for (asked, says) in [
            (json!({ "gpu-count": 1 }), "gpu_count is 1"),
            (json!({ "gpu-type": "nvidia" }), "gpu_type is nvidia"),
            (json!({ "gpu-memory-mb": 8192 }), "gpu_memory_mb is 8192"),
            (
                json!({ "env-profile": "gpu-required" }),
                "env_profile is gpu-required",
            ),
        ] {
            assert_says(
                &refusal(&none, asked, "").await,
                &[says, "this host has no GPU", "relax"],
            );
        }
        let nothing = json!({ "gpu-count": 0, "gpu-memory-mb": 0, "env-profile": "cpu-optimized" });
        assert_eq!(refusal(&none, nothing, "").await, "");

        let two = gpus(&[(GpuType::Nvidia, 8192), (GpuType::Amd, 16_384)]);
        for fits in [
            json!({ "gpu-count": 2, "gpu-memory-mb": 8192, "env-profile": "gpu-required" }),
            json!({ "gpu-count": 1, "gpu-memory-mb": 8192, "gpu-type": "nvidia" }),
        ] {
            assert_eq!(refusal(&two, fits.clone(), "").await, "", "{fits}");
        }
        // Each of these is there, and not in one GPU; or not often enough.
        let apart = json!({ "gpu-memory-mb": 16_384, "gpu-type": "nvidia" });
        assert_says(
            &refusal(&two, apart, "").await,
            &[
                "gpu_memory_mb is 16384 of type nvidia",
                "nvidia with 8192 MiB",
                "amd with 16384 MiB",
            ],
        );
        let often = json!({ "gpu-count": 2, "gpu-type": "amd" });
        assert_says(
            &refusal(&two, often, "").await,
            &["gpu_count is 2 of type amd, and this host has 1 of these: it has 2 GPUs ("],
        );
        let other = json!({ "gpu-count": 1, "gpu-type": "software", "gpu-memory-mb": 64 });
        assert_says(
            &refusal(&two, other, "").await,
            &[
                "gpu_count is 1 of type software with 64 MiB or more, and this host has none: it has 2 GPUs (",
            ],
        );
    });
}

#[test]
fn a_single_demand_is_relaxed_by_name_and_shown_as_relaxed() {
    run(async {
        let host = Machine {
            disk_type: Some(DiskType::Hdd),
            ..machine(64)
        };
        for (constraint, asked) in [
            (Constraint::MinMemoryMb, json!({ "min-memory-mb": 128 })),
            (Constraint::DiskType, json!({ "disk-type": "ssd" })),
            (Constraint::GpuCount, json!({ "gpu-count": 1 })),
            (Constraint::GpuMemoryMb, json!({ "gpu-memory-mb": 1 })),
            (Constraint::GpuType, json!({ "gpu-type": "amd" })),
            (
                Constraint::EnvProfile,
                json!({ "env-profile": "gpu-required" }),
            ),
        ] {
            assert_ne!(
                refusal(&host, asked.clone(), "").await,
                "",
                "{constraint:?}"
            );
            let relax = format!("[workers.wat]\nrelax = [\"{}\"]", constraint.as_str());
            let wats = [("wat", asking("work", asked))];
            let snapshot = load(Some(host.clone()), &wats, &relax).await;
            assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
            let offered = &snapshot.workers()[0].offered()[0];
            let row = held(offered, constraint);
            assert!(row.declared.is_some() && row.in_force.is_none(), "{row:?}");
            assert_eq!(row.enforced, "relaxed by the operator");
        }
        // What is not named still refuses.
        let asked = json!({ "gpu-count": 1, "gpu-type": "amd" });
        let reasons = refusal(&host, asked, "[workers.wat]\nrelax = [\"gpu_type\"]").await;
        assert_says(&reasons, &["gpu_count is 1"]);
        assert!(!reasons.contains("gpu_type"), "{reasons}");
    });
}

#[test]
fn a_weight_is_cut_to_the_operators_ceiling_and_the_operators_own_word_wins() {
    run(async {
        let weight = async |declared: u32, toml: &str| {
            let wats = [("wat", asking("work", json!({ "cpu-shares": declared })))];
            let snapshot = load(None, &wats, toml).await;
            let offered = &snapshot.workers()[0].offered()[0];
            held(offered, Constraint::CpuShares).in_force.clone()
        };
        assert_eq!(weight(8192, "").await, Some(json!(8192)));
        assert_eq!(weight(262_144, "").await, Some(json!(10_240)));
        let ceiling = "[limits]\nmax_cpu_shares = 512\n";
        assert_eq!(weight(8192, ceiling).await, Some(json!(512)));
        let own = format!("{ceiling}[workers.wat]\ncpu_shares = 2048");
        assert_eq!(weight(8192, &own).await, Some(json!(2048)));
    });
}

/// A directory with a worker that asks for more GPUs than any machine has, one that asks for much of everything else, and a
/// configuration.
fn served(toml: &str) -> tempfile::TempDir {
    let dir = dir();
    let wants = |name, constraints| place(&dir, name, &asking(name, constraints).build());
    wants("gpu", json!({ "gpu-count": 1000 }));
    wants(
        "much",
        json!({ "min-memory-mb": 8, "max-memory-mb": 64, "cpu-shares": 2048, "disk-type": "ssd", "max-cpu-ms": 500 }),
    );
    std::fs::write(dir.path().join("crank.toml"), toml).expect("a file");
    dir
}

#[test]
fn check_looks_at_this_machine_only_when_it_is_told_to() {
    let dir = served("memory_budget = 16\ndisk_type = \"hdd\"\n");
    let refused = |arguments: &[&str]| {
        let (_, out, error) = output(&[&["check", path(&dir), "--json"], arguments].concat());
        let report: Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{error}"));
        report["refused"].to_string()
    };
    assert_eq!(refused(&[]), "[]");
    assert_says(
        &refused(&["--host"]),
        &["gpu_count is 1000", "disk_type is ssd", "hdd"],
    );
    let (code, ..) = output(&["check", path(&dir), "--host"]);
    assert_eq!(code, 1);
}

#[test]
fn print_host_says_what_there_is_and_where_it_was_read() {
    let (code, out, error) = output(&["serve", "--print-host"]);
    assert_eq!(code, 0, "{error}");
    let facts: toml::Table = out.parse().unwrap_or_else(|_| panic!("{out}"));
    let number = |key: &str| facts[key].as_integer().expect("a number");
    assert_eq!(number("cores"), crank::engine::cores() as i64);
    assert!(number("memory_mb") > 0, "{out}");
    let quarters = number("memory_mb") * 3 / 4;
    assert!((number("memory_budget") - quarters).abs() <= 1, "{out}");
    assert_says(
        &out,
        &[
            "# default, three quarters",
            "disk_type = \"\"  # default",
            "gpus = [",
        ],
    );
    assert!(out.lines().all(|line| line.contains("  # ")), "{out}");

    let dir = served("memory_budget = 16\ndisk_type = \"nvme\"\n");
    let (code, out, error) = output(&["serve", path(&dir), "--print-host"]);
    assert_eq!(code, 0, "{error}");
    assert_says(
        &out,
        &[
            "memory_budget = 16  # file ",
            "disk_type = \"nvme\"  # file ",
        ],
    );
    assert_eq!(output(&["serve"]).0, 2);
}

#[test]
fn workers_lists_every_constraint_with_what_is_declared_in_force_and_used() {
    let dir =
        served("memory_budget = 32\n[workers.much]\ncpu_shares = 4096\nrelax = [\"disk_type\"]\n");
    let serving = Serving::start(dir.path(), &[]);
    let view: Value = run(async {
        let client = reqwest::Client::new();
        let invoked = client
            .post(format!("{}/invoke/misbehave/much", serving.1))
            .json(&json!({}))
            .send()
            .await
            .expect("an answer");
        assert_eq!(invoked.status().as_u16(), 200);
        loop {
            let view = client.get(format!("{}/workers", serving.1)).send().await;
            let view: Value = view.expect("an answer").json().await.expect("JSON");
            // The others serve before the drivers have answered.
            if view["starting"] == json!([]) {
                break view;
            }
        }
    });
    assert_says(
        &view["refused"][0]["reasons"].to_string(),
        &["gpu_count is 1000, and this host has"],
    );
    let rows = view["workers"][0]["capabilities"][0]["constraints"].as_array();
    let rows = rows.expect("a list");
    let names: Vec<&str> = rows.iter().filter_map(|row| row["name"].as_str()).collect();
    assert_eq!(names, Constraint::WORDS);
    let row = |name: &str| {
        let found = rows.iter().find(|row| row["name"] == name);
        let mut row = found.expect("it is listed").clone();
        let used = row["highest_use"].take();
        (row, used)
    };
    let is = |name: &str, declared: Value, in_force: Value, enforced: &str| {
        let (row, _) = row(name);
        let expected = json!({ "name": name, "declared": declared, "in_force": in_force, "enforced": enforced, "highest_use": null });
        assert_eq!(row, expected);
    };
    is("min_memory_mb", json!(8), json!(8), "placement");
    is(
        "max_memory_mb",
        json!(64),
        json!(32),
        "limit: a refused grow ends as memory-limit",
    );
    is(
        "cpu_shares",
        json!(2048),
        json!(4096),
        "weight in the fair gate",
    );
    is(
        "max_cpu_ms",
        json!(500),
        json!(500),
        "limit: more ends as cpu-limit",
    );
    is(
        "disk_type",
        json!("ssd"),
        json!(null),
        "relaxed by the operator",
    );
    is("gpu_type", json!(null), json!(null), "placement");
    is("vector_index_mb", json!(null), json!(0), "quota");
    let used = row("max_memory_mb").1.as_f64().expect("it was called");
    assert!((0.01..32.0).contains(&used), "{used} MiB");
    assert!(row("max_cpu_ms").1.as_f64().expect("it was called") > 0.0);
}

#[test]
fn the_image_classifier_is_refused_without_a_gpu() {
    run(async {
        let engine = ENGINE.clone().on(machine(8192));
        let files = vec![guest("image-classifier")];
        let snapshot = Snapshot::load(&engine, &config(""), files).await;
        let router = Arc::new(Router::new(Registry::new(snapshot)));
        let host = Host::of(router, |_| {}).await;
        let view = host.client.get(host.url("/workers")).send().await.unwrap();
        let view: Value = view.json().await.unwrap();
        assert_eq!(view["workers"], json!([]));
        let refused = &view["refused"][0];
        assert_eq!(refused["worker_id"], "worker-image-classifier");
        assert_says(
            &refused["reasons"].to_string(),
            &[
                "gpu_count is 1, and this host has no GPU",
                "gpu_memory_mb is 8192",
                "gpu_type is nvidia",
                "env_profile is gpu-required",
            ],
        );
        let url = host.url("/invoke/classify/image_objects");
        let call = host.client.post(url).header("content-type", "image/png");
        let answer = call.body(&b"\x89PNG"[..]).send().await.unwrap();
        assert_eq!(answer.status().as_u16(), 404);
    });
}

#[test]
fn who_asks_for_a_gpu_is_starting_until_the_drivers_have_answered() {
    run(async {
        let dir = dir();
        let put = |stem: &str, name: &str, constraints: Value| {
            place(&dir, stem, &asking(name, constraints).build());
        };
        put("plain", "plain", json!({}));
        put("small", "small", json!({ "gpu-memory-mb": 64 }));
        put("large", "large", json!({ "gpu-memory-mb": 4096 }));
        // Claims what a worker has that is starting: neither gets it, whoever is first.
        put("contested", "contested", json!({ "gpu-memory-mb": 64 }));
        place(&dir, "copy", &{
            let mut copy = asking("copy", json!({}));
            copy.declaration["worker-id"] = json!("worker-contested");
            copy.build()
        });
        let code = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let engine = engine(&code).on(gpus(&[(GpuType::Software, 1024)]));
        let registry = Registry::open(&engine, &config(""), dir.path()).await;
        let router = Arc::new(Router::new(registry.expect("the directory is read")));
        let host = Host::of(router.clone(), |_| {}).await;
        let called = async |name: &str| {
            let url = host.url(&format!("/invoke/misbehave/{name}"));
            let answer = host.client.post(url).json(&json!({})).send().await;
            answer.expect("an answer")
        };
        let listed = async |list: &str| {
            let view: Value = host.get("/workers").await.json().await.expect("JSON");
            let list = view[list].as_array().expect("a list").clone();
            let ids = list.iter().map(|worker| worker["worker_id"].clone());
            ids.collect::<Vec<Value>>()
        };

        assert_eq!(called("plain").await.status(), 200);
        let early = called("small").await;
        assert_eq!(
            (early.status().as_u16(), &early.headers()["retry-after"]),
            (503, &"1".parse().unwrap())
        );
        assert_says(
            &early.text().await.expect("a body"),
            &["`misbehave:small` is starting", "worker-small"],
        );
        assert_eq!(called("nobody").await.status(), 404);
        let waiting = ["worker-contested", "worker-large", "worker-small"];
        assert_eq!(listed("starting").await, waiting);
        assert_eq!(listed("workers").await, ["worker-plain"]);
        assert_eq!(listed("refused").await, ["worker-contested"]);

        router
            .registry()
            .place()
            .await
            .expect("the directory is read");
        assert_eq!(called("small").await.status(), 200);
        assert_eq!(listed("starting").await, [""; 0]);
        assert_eq!(listed("workers").await, ["worker-plain", "worker-small"]);
        assert_eq!(
            listed("refused").await,
            ["worker-contested", "worker-contested", "worker-large"]
        );
    });
}

#[test]
fn a_host_whose_workers_want_no_gpu_asks_no_driver() {
    run(async {
        let dir = dir();
        place(&dir, "plain", &asking("plain", json!({})).build());
        let code = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let engine = engine(&code).on(gpus(&[]));
        let registry = Registry::open(&engine, &config(""), dir.path()).await;
        let registry = registry.expect("the directory is read");
        registry.place().await.expect("the directory is read");
        registry.reload().await.expect("the directory is read");
        assert!(engine.known_gpus().is_none());
    });
}
