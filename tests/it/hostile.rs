//! Workers that misbehave: each misdeed ends with its own failure code, and the host goes on.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Code;
use crank::router::Router;
use serde_json::json;
use tempfile::TempDir;

use crate::support::component::{Wat, capability};
use crate::support::{call, code, dir, done, failure, guest, hostile, invoke, place, router, run};

/// Far above what a stop takes, far below the default deadline of 30 s.
const SOON: Duration = Duration::from_secs(10);

/// A router to one worker made of text.
async fn wat(wat: &Wat, toml: &str) -> Arc<Router> {
    let dir = dir();
    router(vec![place(&dir, "wat", &wat.build())], toml).await
}

#[test]
fn a_loop_ends_at_its_deadline() {
    run(async {
        let router = hostile("[workers.hostile]\nwall_ms = 300").await;
        let began = Instant::now();
        assert_eq!(
            code(&router, "misbehave:loop_forever", "{}").await,
            Code::Deadline
        );
        assert!(
            (Duration::from_millis(300)..SOON).contains(&began.elapsed()),
            "{:?}",
            began.elapsed()
        );
    });
}

#[test]
fn a_callers_timeout_lowers_the_deadline_and_never_raises_it() {
    run(async {
        let router = hostile("[workers.hostile]\nwall_ms = 300").await;
        for (timeout, least) in [
            (Duration::from_millis(50), 50),
            (Duration::from_secs(3600), 300),
        ] {
            let began = Instant::now();
            let mut call = call("misbehave:loop_forever", "{}");
            call.timeout = Some(timeout);
            assert_eq!(
                router.invoke(call).await.expect_err("it loops").code,
                Code::Deadline
            );
            assert!((Duration::from_millis(least)..SOON).contains(&began.elapsed()));
        }
    });
}

#[test]
fn a_loop_ends_at_its_cpu_limit() {
    run(async {
        let router = hostile("[workers.hostile]\ncpu_ms = 100").await;
        assert_eq!(
            code(&router, "misbehave:loop_forever", "{}").await,
            Code::CpuLimit
        );
        assert_eq!(
            done(&router, "misbehave:recurse", r#"{"count": 100}"#).await["done"],
            100
        );
    });
}

#[test]
fn memory_under_the_limit_runs_and_over_it_is_refused() {
    run(async {
        // The capability declares 64 MiB.
        let router = hostile("").await;
        assert_eq!(
            done(&router, "misbehave:take_memory", r#"{"mb": 50}"#).await["done"],
            50
        );
        assert_eq!(
            code(&router, "misbehave:take_memory", r#"{"mb": 70}"#).await,
            Code::MemoryLimit
        );
        assert_eq!(
            code(&router, "misbehave:take_memory", r#"{"mb": 4000000}"#).await,
            Code::MemoryLimit
        );
        // What one invocation took is not charged to the next.
        assert_eq!(
            done(&router, "misbehave:take_memory", r#"{"mb": 50}"#).await["done"],
            50
        );
    });
}

#[test]
fn several_memories_have_one_limit_together() {
    run(async {
        // 64 MiB for all. 17 MiB in each of three fit beside the main memory, 22 MiB do not.
        let under = wat(&hog(17 * 16, ""), "").await;
        let answer = invoke(&under, "misbehave:hog", "{}")
            .await
            .expect("it stays within its limit");
        assert!(
            (51 << 20..=64 << 20).contains(&answer.usage.memory_peak),
            "{}",
            answer.usage.memory_peak
        );
        let over = wat(&hog(22 * 16, ""), "").await;
        assert_eq!(code(&over, "misbehave:hog", "{}").await, Code::MemoryLimit);
        let endless = wat(&hog(16, "(br $again)"), "").await;
        assert_eq!(
            code(&endless, "misbehave:hog", "{}").await,
            Code::MemoryLimit
        );
    });
}

/// A worker of 64 MiB with three memories besides its own: grows each by so many pages of 64 KiB.
fn hog(pages: u32, again: &str) -> Wat {
    let mut offered = capability("hog");
    offered["constraints"] = json!({ "max-memory-mb": 64 });
    let mut wat = Wat::new("worker-hog", json!([offered]));
    // Whatever `memory.grow` answers is ignored: a guest cannot talk itself out of the limit.
    let grow = |slot: u32| {
        format!("(drop (call_indirect (type $grow) (i32.const {pages}) (i32.const {slot})))")
    };
    wat.handle = format!("(loop $again {} {} {} {again})", grow(0), grow(1), grow(2));
    wat.items = r#"(type $grow (func (param i32) (result i32))) (table (export "grow") 3 funcref)"#
        .to_owned();
    // Each further module has a memory of its own and puts its `grow` into the main module's table.
    let further = |slot: u32| {
        format!(
            r#"(core module $hog{slot}
                   (import "env" "grow" (table 3 funcref))
                   (memory 1)
                   (func $grow (param i32) (result i32) (memory.grow (local.get 0)))
                   (elem (i32.const {slot}) func $grow))
               (core instance (instantiate $hog{slot} (with "env" (instance $env))))"#
        )
    };
    wat.component = format!(
        r#"(alias core export $main "grow" (core table $grow))
           (core instance $env (export "grow" (table $grow)))
           {} {} {}"#,
        further(0),
        further(1),
        further(2)
    );
    wat
}

#[test]
fn memory_that_is_there_from_the_start_counts() {
    run(async {
        for (mb, expected) in [(60, None), (70, Some(Code::MemoryLimit))] {
            let mut wat = hog(0, "");
            wat.component.push_str(&format!(
                "(core module $large (memory {})) (core instance (instantiate $large))",
                mb * 16
            ));
            // Four memories are the most, so one of the three gives way.
            wat.component = wat.component.replace(
                r#"(core instance (instantiate $hog2 (with "env" (instance $env))))"#,
                "",
            );
            wat.handle.clear();
            let router = self::wat(&wat, "").await;
            let code = invoke(&router, "misbehave:hog", "{}")
                .await
                .err()
                .map(|failure| failure.code);
            assert_eq!(code, expected, "{mb} MiB");
        }
    });
}

#[test]
fn a_panic_traps_and_its_message_reaches_the_log() {
    run(async {
        let router = hostile("").await;
        let failure = failure(
            &router,
            "misbehave:panic",
            r#"{"message": "out of cheese\n\u001b[31m"}"#,
        )
        .await;
        assert_eq!(failure.code, Code::Trapped);
        let cause = failure.cause.expect("the log learns why");
        assert!(
            cause.contains("out of cheese") && cause.contains("lib.rs:"),
            "{cause}"
        );
        assert!(!cause.contains(char::is_control), "{cause:?}");
        assert!(
            !failure.message.contains("cheese"),
            "the caller learns it too: {}",
            failure.message
        );
    });
}

#[test]
fn a_stack_that_overflows_traps() {
    run(async {
        let router = hostile("").await;
        assert_eq!(
            done(&router, "misbehave:recurse", r#"{"count": 1000}"#).await["done"],
            1000
        );
        assert_eq!(
            code(&router, "misbehave:recurse", r#"{"count": 4000000000}"#).await,
            Code::Trapped
        );

        let mut wat = Wat::new("worker-deep", json!([capability("deep")]));
        wat.items = "(func $down (param i64) (call $down (i64.add (local.get 0) (i64.const 1))))"
            .to_owned();
        wat.handle = "(call $down (i64.const 0))".to_owned();
        let failure = failure(&*self::wat(&wat, "").await, "misbehave:deep", "{}").await;
        assert_eq!(failure.code, Code::Trapped);
        assert!(failure.message.contains("stack"), "{}", failure.message);
    });
}

#[test]
fn an_answer_under_the_limit_arrives_and_over_it_is_refused() {
    run(async {
        // The worker may use 2 GiB, an answer may have 32 MiB.
        let router = hostile("").await;
        let answer = invoke(&router, "misbehave:return_bytes", r#"{"mb": 32}"#)
            .await
            .expect("the most");
        assert_eq!(answer.payload.body.len(), 32 << 20);
        assert_eq!(
            code(&router, "misbehave:return_bytes", r#"{"mb": 33}"#).await,
            Code::OutputLimit
        );
        assert_eq!(
            code(&router, "misbehave:return_bytes", r#"{"mb": 1024}"#).await,
            Code::OutputLimit
        );
    });
}

#[test]
fn an_answer_that_breaks_the_workers_promise_is_invalid_output() {
    run(async {
        let router = hostile("").await;
        assert_eq!(
            done(&router, "misbehave:break_schema", r#"{"count": 1}"#).await["count"],
            1
        );
        let failure = failure(&router, "misbehave:break_schema", r#"{"count": 0}"#).await;
        assert_eq!(failure.code, Code::InvalidOutput);
        assert_eq!(failure.faults[0].pointer, "/count");

        assert_eq!(
            done(&router, "misbehave:return_text", r#"{"message": "[1]"}"#).await,
            json!([1])
        );
        for broken in [
            r#"{"message": ""}"#,
            r#"{"message": "[1"}"#,
            r#"{"message": "[1] 2"}"#,
        ] {
            assert_eq!(
                code(&router, "misbehave:return_text", broken).await,
                Code::InvalidOutput,
                "{broken}"
            );
        }
        assert_eq!(
            code(&router, "misbehave:return_html", "{}").await,
            Code::InvalidOutput
        );
    });
}

#[test]
fn an_answer_that_breaks_the_canonical_abi_traps() {
    run(async {
        let misdeeds = [
            ("an address behind the memory", "(return (i32.const -16))"),
            (
                "no case of the result",
                "(i32.store8 (i32.const 16) (i32.const 0)) (return (i32.const 4096))",
            ),
            ("an illegal access", "(drop (i32.load (i32.const -4)))"),
            (
                "a division by zero",
                "(drop (i32.div_s (i32.const 1) (i32.const 0)))",
            ),
        ];
        for (what, handle) in misdeeds {
            let mut wat = Wat::new("worker-broken", json!([capability("broken")]));
            // 4096 bytes on lies a tag that the contract does not know.
            wat.items = r#"(data (i32.const 4096) "\07")"#.to_owned();
            wat.handle = handle.to_owned();
            assert_eq!(
                code(&*self::wat(&wat, "").await, "misbehave:broken", "{}").await,
                Code::Trapped,
                "{what}"
            );
        }
    });
}

#[test]
fn a_workers_own_failures_keep_their_kind() {
    run(async {
        let router = hostile("").await;
        for (kind, expected) in [
            ("invalid-input", Code::InvalidInput),
            ("not-found", Code::NotFound),
            ("denied", Code::Denied),
            ("conflict", Code::Conflict),
            ("unavailable", Code::Unavailable),
            ("failed", Code::WorkerFailed),
        ] {
            let input = json!({ "kind": kind }).to_string();
            let failure = failure(&router, "misbehave:fail", &input).await;
            assert_eq!(failure.code, expected);
            assert_eq!(failure.worker_id.as_deref(), Some("worker-hostile"));
            let pointers: Vec<&str> = failure.faults.iter().map(|fault| &*fault.pointer).collect();
            assert_eq!(
                pointers,
                if kind == "invalid-input" {
                    vec!["/kind"]
                } else {
                    vec![]
                }
            );
            let retry = (kind == "unavailable").then_some(Duration::from_millis(2500));
            assert_eq!(failure.retry_after, retry, "{kind}");
            let own = (kind == "failed").then_some("broken-on-demand");
            assert_eq!(failure.worker_code.as_deref(), own, "{kind}");
        }
    });
}

#[test]
fn a_failures_texts_are_cut() {
    run(async {
        let mut wat = Wat::new("worker-verbose", json!([capability("talk")]));
        let long = "é".repeat(100_000);
        wat.answer = json!({ "err": { "kind": "invalid-input", "message": long, "code": long, "pointer": long } });
        let failure = failure(&*self::wat(&wat, "").await, "misbehave:talk", "{}").await;
        assert_eq!(failure.code, Code::InvalidInput);
        assert!(failure.message.len() <= 4 << 10);
        assert!(failure.worker_code.is_none_or(|code| code.len() <= 64));
        assert!(
            failure
                .faults
                .iter()
                .all(|fault| fault.pointer.len() <= 1 << 10)
        );
    });
}

/// The misdeeds of `hostile_workers_disturb_no_neighbour_and_leave_nothing_behind`.
const MISDEEDS: [(&str, &str, Code); 6] = [
    ("misbehave:loop_forever", "{}", Code::Deadline),
    (
        "misbehave:take_memory",
        r#"{"mb": 4000000}"#,
        Code::MemoryLimit,
    ),
    ("misbehave:panic", r#"{"message": "again"}"#, Code::Trapped),
    (
        "misbehave:recurse",
        r#"{"count": 4000000000}"#,
        Code::Trapped,
    ),
    (
        "misbehave:return_bytes",
        r#"{"mb": 1024}"#,
        Code::OutputLimit,
    ),
    (
        "misbehave:break_schema",
        r#"{"count": 0}"#,
        Code::InvalidOutput,
    ),
];

/// In a process of its own, since what a process holds can be told apart by nothing else.
#[test]
fn hostile_workers_disturb_no_neighbour_and_leave_nothing_behind() {
    // Built here: compilers that run meanwhile would make every neighbour slow.
    guest("hostile");
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args([
            "hostile::alone_in_its_process",
            "--exact",
            "--ignored",
            "--nocapture",
        ])
        .output()
        .expect("it starts");
    let told =
        [child.stdout, child.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(child.status.success(), "{}{}", told[0], told[1]);
    assert!(
        told[0].contains("1 passed"),
        "the child ran nothing: {}",
        told[0]
    );
}

#[test]
#[ignore = "runs as a child of the test above"]
fn alone_in_its_process() {
    run(async {
        let dir = dir();
        let files = vec![
            guest("hello-world"),
            guest("hostile"),
            several_memories(&dir),
        ];
        let router = router(files, "").await;
        // Twice: whatever is made once and kept (threads, pools, the allocator's own) is there then.
        round(&router).await;
        round(&router).await;
        let before = Held::now();
        for _ in 0..5 {
            round(&router).await;
        }
        let after = Held::now();
        println!("before {before:?}\nafter  {after:?}");
        assert!(
            after.resident < before.resident + (32 << 20),
            "{before:?} {after:?}"
        );
        assert!(after.files <= before.files, "{before:?} {after:?}");
        // Tokio's threads for blocking work come and go.
        assert!(after.threads <= before.threads + 4, "{before:?} {after:?}");
        assert!(
            router
                .registry()
                .snapshot()
                .workers()
                .iter()
                .all(|worker| worker.observed().in_flight == 0)
        );
    });
}

fn several_memories(dir: &TempDir) -> PathBuf {
    place(dir, "hog", &hog(16, "(br $again)").build())
}

/// All misdeeds at once, three times each, while a neighbour is called again and again.
async fn round(router: &Arc<Router>) {
    let mut running = tokio::task::JoinSet::new();
    let hog = ("misbehave:hog", "{}", Code::MemoryLimit);
    for (capability, input, expected) in MISDEEDS.into_iter().chain([hog]).cycle().take(21) {
        let router = router.clone();
        running.spawn(async move {
            let mut call = call(capability, input);
            // The others end by themselves, however busy this machine is.
            call.timeout = (expected == Code::Deadline).then_some(Duration::from_millis(200));
            let failure = router.invoke(call).await.expect_err("it misbehaves");
            assert_eq!(failure.code, expected, "{capability}");
        });
    }
    let mut slowest = Duration::ZERO;
    let mut calls = 0;
    while !running.is_empty() {
        let began = Instant::now();
        let answer = done(router, "greet:hello_world", r#"{"name": "Ada"}"#).await;
        slowest = slowest.max(began.elapsed());
        calls += 1;
        assert_eq!(answer["greeting"], "Hello, Ada!");
        while running
            .try_join_next()
            .transpose()
            .expect("each ends with its own code")
            .is_some()
        {}
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("{calls} calls of a neighbour, the slowest took {slowest:?}");
    assert!(
        calls > 5 && slowest < Duration::from_secs(2),
        "{calls} calls, the slowest took {slowest:?}"
    );
}

/// What this process holds.
#[derive(Debug)]
struct Held {
    /// Bytes of memory.
    resident: u64,
    files: usize,
    threads: usize,
}

impl Held {
    fn now() -> Self {
        let status = std::fs::read_to_string("/proc/self/status").expect("procfs");
        let resident = status
            .lines()
            .find_map(|line| line.strip_prefix("VmRSS:"))
            .expect("a field");
        let kib: u64 = resident
            .trim()
            .trim_end_matches(" kB")
            .parse()
            .expect("a number");
        let entries = |dir| std::fs::read_dir(dir).expect("procfs").count();
        Self {
            resident: kib << 10,
            files: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
        }
    }
}
