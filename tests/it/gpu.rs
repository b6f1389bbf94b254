//! GPU work by a guest, on whatever GPU there is: Mesa's software driver will do. Where no driver is
//! installed these tests say so and are no use; `TEST_GPU=1` makes that a failure.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Code;
use crank::gpu::{self, Account, Adapter, Seat};
use crank::limits::Budget;
use crank::machine::Machine;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::support::{self, ENGINE, code, config, done, failure, guest, kib, machine, router, run};

/// A router to the worker that does what it is told, if there is a GPU.
async fn lab() -> Option<Arc<Router>> {
    lab_with("").await
}

async fn lab_with(toml: &str) -> Option<Arc<Router>> {
    if Adapter::find().is_empty() {
        assert!(std::env::var_os("TEST_GPU").is_none(), "{}", gpu::NONE);
        println!("not run: {}", gpu::NONE);
        return None;
    }
    Some(router(vec![guest("gpu-lab")], toml).await)
}

fn shader(body: &str) -> String {
    format!(
        "@group(0) @binding(0) var<storage, read> input: array<u32>;
         @group(0) @binding(1) var<storage, read_write> out: array<u32>;
         var<workgroup> tile: array<u32, 64>;
         @compute @workgroup_size(64)
         fn main(@builtin(global_invocation_id) id: vec3<u32>, @builtin(local_invocation_index) me: u32) {{
             let n = arrayLength(&input);
             {body}
             out[id.x] = out[id.x] + 0u * input[0] * tile[0];
         }}"
    )
}

/// One dispatch over 64 threads, and what they wrote.
fn program(body: &str, fuel: u32) -> Value {
    json!({
        "buffers": [{"words": (0..64).collect::<Vec<u32>>()}, {"size": 256}],
        "shaders": [shader(body)],
        "dispatches": [{"bind": [[0, 0], [1, 1]], "groups": [1, 1, 1], "fuel": fuel}],
        "read": [[1, 0, 256]],
    })
}

async fn words(lab: &Router, program: &Value) -> Vec<u32> {
    let answer = done(lab, "gpu:run", &program.to_string()).await;
    serde_json::from_value(answer["words"][0].clone()).expect("numbers")
}

/// The next inference is right, whatever came before.
async fn still_right(lab: &Router) {
    let sum = program(
        "var s = 0u; for (var i = 0u; i < n; i++) { s += input[i]; } out[id.x] = s;",
        65,
    );
    assert_eq!(words(lab, &sum).await, [2016; 64]);
}

#[test]
fn what_a_shader_computes_comes_back() {
    run(async {
        let Some(lab) = lab().await else { return };
        let double = program("out[id.x] = 2u * input[id.x];", 0);
        let doubled: Vec<u32> = (0..64).map(|word| 2 * word).collect();
        assert_eq!(words(&lab, &double).await, doubled);
        still_right(&lab).await;
        let tile = program(
            "tile[me] = input[me]; workgroupBarrier(); out[id.x] = tile[63u - me];",
            0,
        );
        assert_eq!(
            words(&lab, &tile).await,
            (0..64).rev().collect::<Vec<u32>>()
        );
        let snapshot = lab.registry().snapshot();
        assert_eq!(snapshot.workers()[0].observed().gpu_memory_peak, 512);
    });
}

/// A program that is the worker's mistake ends as one, and the next is right.
async fn refused(lab: &Router, program: &Value, why: &str) {
    let failure = failure(lab, "gpu:run", &program.to_string()).await;
    assert_eq!(
        (failure.code, failure.worker_code.as_deref()),
        (Code::WorkerFailed, Some("gpu-invalid")),
        "{why}: {}",
        failure.message
    );
    assert!(failure.message.contains(why), "{why}: {}", failure.message);
    still_right(lab).await;
}

/// A program that asks for too much ends so, and the next is right.
async fn over_limit(lab: &Router, program: &Value, what: &str) {
    let ended = code(lab, "gpu:run", &program.to_string()).await;
    assert_eq!(ended, Code::GpuLimit, "{what}");
    still_right(lab).await;
}

#[test]
fn a_loop_that_does_not_end_is_ended_and_never_answers() {
    run(async {
        let Some(lab) = lab().await else { return };
        for endless in [
            "loop { if (input[1] == 7u) { break; } }",
            "for (var i = 0u; i < 100000u; i++) { for (var j = 0u; j < 100000u; j++) { out[me] += 1u; } }",
            "for (var i = 0u; i < 4000000000u; i++) { tile[me] = i; workgroupBarrier(); }",
            "var i = me; while (i != 1000000u) { i = i * 3u + 1u; }",
        ] {
            over_limit(&lab, &program(endless, 5_000), endless).await;
        }
    });
}

#[test]
fn a_shader_that_means_harm_is_refused() {
    run(async {
        let Some(lab) = lab().await else { return };
        for (body, why) in [
            (
                "var a: array<u32, 100000000>; out[0] = a[me];",
                "variables of a thread",
            ),
            ("let a = array<u32, 5000>(); out[0] = a[me];", "a value of"),
            ("if (me == 0u) { workgroupBarrier(); }", "barrier"),
            ("if (me == 0u) { return; } workgroupBarrier();", "barrier"),
            ("out[0] = undefined;", "no definition"),
        ] {
            refused(&lab, &program(body, 9), why).await;
        }
        let mut whole = program("", 0);
        whole["shaders"][0] = shader("tile[me] = 1u;")
            .replace("array<u32, 64>", "array<u32, 100000000>")
            .into();
        refused(&lab, &whole, "variables of a workgroup").await;
        let (open, close) = ("(".repeat(20_000), ")".repeat(20_000));
        whole["shaders"][0] = shader(&format!("out[0] = {open}1u{close};")).into();
        refused(&lab, &whole, "nested").await;
        // Each calls the one before twice.
        let calls: String = (1..31)
            .map(|at| {
                format!(
                    "fn f{at}(x: u32) -> u32 {{ return f{0}(x) + f{0}(x + 1u); }}",
                    at - 1
                )
            })
            .collect();
        let first = "fn f0(x: u32) -> u32 { return x; }";
        whole["shaders"][0] = format!("{first} {calls} {}", shader("out[0] = f30(1u);")).into();
        refused(&lab, &whole, "longer than").await;
    });
}

/// Parsers and drivers recurse, and a stack that ends would take the host along.
#[test]
fn a_shader_as_deep_as_may_be_runs_and_a_deeper_one_is_refused() {
    run(async {
        let Some(lab) = lab().await else { return };
        for (start, step, end, times) in [
            ("out[0] = ", "~", "1u;", 395),
            ("out[0] = u32(", "!", "true);", 390),
            ("out[0] = input[0]", " + input[1]", ";", 390),
            ("out[0] = ", "*&", "input[0];", 190),
            ("if (me == 70u", " || me == 71u", ") { }", 90),
            ("if (me == 70u) { }", " else if (me == 71u) { }", "", 249),
        ] {
            let shader = |times| program(&format!("{start}{}{end}", step.repeat(times)), 0);
            words(&lab, &shader(times)).await;
            let failure = failure(&lab, "gpu:run", &shader(2500).to_string()).await;
            assert_eq!(
                failure.worker_code.as_deref(),
                Some("gpu-invalid"),
                "{step}"
            );
        }
        still_right(&lab).await;
    });
}

/// What a shader stands for is computed before it can be looked at: elsewhere, and bounded.
#[test]
fn a_short_shader_that_stands_for_gigabytes_takes_no_memory_of_the_host() {
    run(async {
        let Some(lab) = lab().await else { return };
        let double = |first: &str, one: &dyn Fn(usize) -> String| {
            (1..27)
                .map(one)
                .fold(first.to_owned(), |all, next| all + &next)
        };
        let dag = double("const a0 = array(1u, 1u);", &|at| {
            format!("const a{at} = array(a{0}, a{0});", at - 1)
        });
        let structs = double("struct S0 { a: u32, b: u32 }", &|at| {
            format!("struct S{at} {{ a: S{0}, b: S{0} }}", at - 1)
        });
        for (outside, body) in [
            ("const x = -array<u32, 4294967295u>();", "out[0] = x[0];"),
            ("", "let x = !array<u32, 2000000000>(); out[0] = x[0];"),
            (&*dag, "let x = a26[0]; out[0] = x[0][0];"),
            (&*structs, "let x = -S26(); out[0] = 1u;"),
        ] {
            let mut bomb = program("", 0);
            bomb["shaders"][0] = format!("{outside} {}", shader(body)).into();
            let failure = failure(&lab, "gpu:run", &bomb.to_string()).await;
            assert_eq!(
                failure.worker_code.as_deref(),
                Some("gpu-invalid"),
                "{body}"
            );
        }
        still_right(&lab).await;
    });
}

/// Grids, sizes, slots and offsets that cannot be, or cost too much.
#[test]
fn what_is_asked_of_the_gpu_is_bounded() {
    run(async {
        let Some(lab) = lab().await else { return };
        type Change<'a> = &'a dyn Fn(&mut Value);
        let with = |change: Change<'_>| {
            let mut program = program("out[id.x] = 1u;", 0);
            change(&mut program);
            program
        };
        let costly: [(Change<'_>, &str); 4] = [
            (
                &|p| p["dispatches"][0]["groups"] = json!([65535, 65535, 65535]),
                "more work than fits into the time",
            ),
            (
                &|p| p["buffers"] = vec![json!({"size": 8 << 20}); 9].into(),
                "many buffers",
            ),
            // Larger than any quota: the quota comes first.
            (
                &|p| p["buffers"][1] = json!({"size": u64::MAX}),
                "a buffer of all bytes",
            ),
            (
                &|p| {
                    let one = |at| shader(&format!("out[id.x] = {at}u;"));
                    p["shaders"] = (0..1000).map(one).collect();
                },
                "a thousand pipelines",
            ),
        ];
        for (change, what) in costly {
            over_limit(&lab, &with(change), what).await;
        }
        let words = vec![0; 64];
        let invalid: [(Change<'_>, &str); 13] = [
            (&|p| p["buffers"][1] = json!({"size": 1}), "multiple of 4"),
            (
                &|p| p["buffers"][1] = json!({"size": 256, "words": [1], "at": 256}),
                "inside",
            ),
            (
                &|p| p["buffers"][1] = json!({"size": 256, "words": [1], "at": u64::MAX - 3}),
                "inside",
            ),
            (
                &|p| p["dispatches"][0]["groups"] = json!([0, 1, 1]),
                "workgroups",
            ),
            (
                &|p| p["dispatches"][0]["groups"] = json!([70_000, 1, 1]),
                "workgroups",
            ),
            (&|p| p["dispatches"][0]["fuel"] = json!(u32::MAX), "fuel"),
            (&|p| p["dispatches"][0]["bind"] = json!([[0, 0]]), "slots"),
            (
                &|p| p["dispatches"][0]["bind"] = json!([[0, 1], [1, 1]]),
                "read and written",
            ),
            (
                &|p| p["buffers"][1] = json!({"words": words, "keep": true}),
                "would write a kept buffer",
            ),
            (
                &|p| p["buffers"][0] = json!({"words": words, "keep": true, "rewrite": true}),
                "never written again",
            ),
            (&|p| p["read"] = json!([[1, 252, 8]]), "inside"),
            (&|p| p["read"] = json!([[1, u64::MAX - 3, 4]]), "inside"),
            (&|p| p["read"] = json!([[1, 0, u64::MAX]]), "the most is"),
        ];
        for (change, why) in invalid {
            refused(&lab, &with(change), why).await;
        }
    });
}

/// What is let go of may be had again, though the GPU may still be busy with it.
#[test]
fn what_a_guest_drops_it_may_have_again() {
    run(async {
        let Some(lab) = lab().await else { return };
        let program = json!({"buffers": [{"size": 60 << 20, "words": [1]}], "again": 50});
        let answer = done(&lab, "gpu:run", &program.to_string()).await;
        assert_eq!(answer["memory_left"], json!(64 << 20));
        still_right(&lab).await;
    });
}

#[test]
fn what_is_kept_is_its_workers_alone() {
    run(async {
        let adapters = Adapter::find();
        let Some(adapter) = adapters.first() else {
            return;
        };
        let budget = Arc::new(Budget::new(1 << 20));
        let held = || budget.hold(4).expect("there is room");
        let bytes = vec![1, 2, 3, 4];
        let hash: [u8; 32] = Sha256::digest(&bytes).into();
        let seats = [(); 2].map(|()| Seat::new(adapter.clone(), 1 << 20));
        for seat in &seats {
            let device = seat.device().await.expect("it opens");
            assert!(device.kept(&hash).is_none());
            let paid = Account::new(4).take(4).await.expect("there is room");
            let kept = device.keep(bytes.clone(), paid, held()).await;
            kept.expect("there is room");
            assert!(device.kept(&hash).is_some());
        }
    });
}

/// A software GPU's memory is the host's: also what is kept between invocations.
#[test]
fn what_a_software_gpu_keeps_is_in_the_hosts_budget() {
    run(async {
        if !Adapter::find()
            .first()
            .is_some_and(|at| at.found.is_software())
        {
            return;
        }
        let engine = ENGINE.clone().on(Machine {
            gpus: None,
            ..machine(2048)
        });
        let snapshot = Snapshot::load(&engine, &config(""), vec![guest("gpu-lab")]).await;
        let lab = Router::new(Registry::new(snapshot));
        let keep = json!({"buffers": [{"size": 32 << 20, "zeroes": true, "keep": true}]});
        done(&lab, "gpu:run", &keep.to_string()).await;
        let began = Instant::now();
        // What was on its way has arrived.
        while engine.budget().used() != 32 << 20 {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{}",
                engine.budget().used()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(lab);
        while engine.budget().used() > 0 {
            assert!(
                began.elapsed() < Duration::from_secs(20),
                "{}",
                engine.budget().used()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

/// As after a reset of the driver: who waits for it, or for a turn on it, does not wait for its deadline.
#[test]
fn a_lost_gpu_ends_those_who_use_it_and_the_next_call_has_another() {
    run(async {
        // Time enough for more work than there will be.
        let toml = "[workers.gpu-lab]\nwall_ms = 300000";
        let Some(lab) = lab_with(toml).await else {
            return;
        };
        still_right(&lab).await;
        let mut long = program(
            "for (var i = 0u; i < 64000u; i++) { out[me] += input[i % 64u]; }",
            64_001,
        );
        long["dispatches"][0]["groups"] = json!([16, 1, 1]);
        long["buffers"][1] = json!({"size": 4 << 10});
        long["again"] = json!(1000);
        let calls: Vec<_> = (0..6)
            .map(|_| {
                let (lab, long) = (lab.clone(), long.to_string());
                tokio::spawn(async move { code(&lab, "gpu:run", &long).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let snapshot = lab.registry().snapshot();
        let seat = snapshot.workers()[0].seat().expect("it has a GPU");
        let device = seat.device().await.expect("it is open");
        let began = Instant::now();
        device.lose();
        for call in calls {
            assert_eq!(call.await.expect("no panic"), Code::Unavailable);
        }
        let waited = began.elapsed();
        assert!(waited < Duration::from_secs(5), "{waited:?}");
        still_right(&lab).await;
        let next = seat.device().await.expect("it is open");
        assert!(device.is_lost() && !next.is_lost());
    });
}

#[cfg(not(feature = "gpu"))]
#[test]
fn a_build_without_the_feature_says_so_to_who_asks_for_a_gpu() {
    run(async {
        let engine = ENGINE.clone().on(Machine {
            gpus: None,
            ..machine(2048)
        });
        for engine in [engine, ENGINE.clone()] {
            let snapshot = Snapshot::load(&engine, &config(""), vec![guest("gpu-lab")]).await;
            let reasons = snapshot.refused()[0].reasons.join(" ");
            assert!(
                reasons.contains("built without the feature gpu"),
                "{reasons}"
            );
        }
    });
}

/// Reads and writes beyond a buffer stay inside of it, and nothing of another invocation is ever seen.
#[test]
fn nobody_sees_what_another_wrote() {
    run(async {
        let Some(lab) = lab().await else { return };
        let wild = program(
            "out[id.x + 1000000u] = 7u; out[id.x] = input[id.x + 1000000u];",
            0,
        );
        assert!(words(&lab, &wild).await.iter().all(|word| *word < 64));
        let secret = json!({
            "buffers": [{"words": vec![0xdead_beef_u32; 100_000]}, {"size": 400_000}],
            "shaders": [shader("out[id.x] = 0xdeadbeefu; tile[me] = 0xdeadbeefu;")],
            "dispatches": [{"bind": [[0, 0], [1, 1]], "groups": [1000, 1, 1], "fuel": 0}],
            "read": [[1, 0, 4]],
        });
        // What is fresh is zero: in buffers, in a workgroup's memory and in a thread's.
        let look = json!({
            "buffers": [{"size": 400_000}, {"size": 400_000}],
            "shaders": [shader("var own: array<u32, 64>; out[id.x] = out[id.x] + tile[me] + own[me] + input[id.x];")],
            "dispatches": [{"bind": [[0, 0], [1, 1]], "groups": [1000, 1, 1], "fuel": 0}],
            "read": [[1, 0, 400_000]],
        });
        for _ in 0..10 {
            assert_eq!(words(&lab, &secret).await, [0xdead_beef]);
            assert!(words(&lab, &look).await.iter().all(|word| *word == 0));
        }
    });
}

#[test]
fn what_a_dead_invocation_held_on_the_gpu_is_given_back() {
    run(async {
        let Some(lab) = lab().await else { return };
        let resident = || kib("/proc/self", "VmRSS");
        let mut held = program("out[id.x] = 1u;", 0);
        held["trap"] = json!(true);
        held["buffers"] = json!([{"words": [1]}, {"size": 256}, {"size": 60 << 20, "words": [1], "at": (60 << 20) - 4}]);
        let held = held.to_string();
        let die = async |times| {
            for _ in 0..times {
                assert_eq!(code(&lab, "gpu:run", &held).await, Code::Trapped);
            }
        };
        die(20).await;
        let before = resident();
        die(100).await;
        let after = resident();
        println!("resident before {before} KiB, after {after} KiB");
        // A hundred times 60 MiB would be six times this; tests beside it take some too.
        assert!(after < before + (1 << 20), "{before} {after}");
        still_right(&lab).await;
    });
}

#[test]
fn what_the_operator_denies_gets_no_gpu() {
    run(async {
        // The lab declares it; the operator may deny it all the same.
        let snapshot = support::load(
            vec![guest("gpu-lab")],
            "[workers.gpu-lab]\ndeny = [\"crank:gpu/compute\"]",
        )
        .await;
        let [refused] = snapshot.refused() else {
            panic!("it serves")
        };
        assert!(
            refused.reasons.join(" ").contains("denies"),
            "{:?}",
            refused.reasons
        );
    });
}
