//! What lies within a limit runs: the other side of the suite, and what a caller is told.

use std::time::{Duration, Instant};

use crank::error::Code;
use serde_json::json;

use super::{beside, doing, run_beside, serving};
use crate::support::{call, code, done, failure, hostile, invoke, run};

/// Far above what a stop takes, far below the default deadline of 30 s.
const SOON: Duration = Duration::from_secs(10);

#[test]
fn a_callers_timeout_lowers_the_deadline_and_never_raises_it() {
    run(async {
        let router = hostile("[workers.hostile]\nwall_ms = 300").await;
        for (timeout, least) in [
            (None, 300),
            (Some(Duration::from_millis(50)), 50),
            (Some(Duration::from_secs(3600)), 300),
        ] {
            let began = Instant::now();
            let mut call = call("misbehave:loop_forever", "{}");
            call.timeout = timeout;
            assert_eq!(
                router.invoke(call).await.expect_err("it loops").code,
                Code::Deadline
            );
            assert!((Duration::from_millis(least)..SOON).contains(&began.elapsed()));
        }
    });
}

#[test]
fn time_under_the_cpu_limit_is_enough() {
    run(async {
        let router = hostile("[workers.hostile]\ncpu_ms = 100").await;
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
        for (mb, fits) in [(17, true), (22, false)] {
            let grow: String = (0..3)
                .map(|slot| format!("(drop {})", run_beside(slot, mb * 16)))
                .collect();
            let mut wat = doing(&grow);
            let memory =
                "(memory 1) (func $run (param i32) (result i32) (memory.grow (local.get 0)))";
            beside(&mut wat, &[memory; 3].map(str::to_owned));
            let router = serving(&wat, "memory_mb = 64").await;
            match invoke(&router, "misbehave:work", "{}").await {
                Ok(answer) => {
                    assert!(fits, "{mb} MiB");
                    let peak = answer.usage.memory_peak;
                    assert!((51 << 20..=64 << 20).contains(&peak), "{peak}");
                }
                Err(failure) => {
                    assert!(!fits, "{failure}");
                    assert_eq!(failure.code, Code::MemoryLimit);
                }
            }
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
fn a_stack_that_overflows_says_so() {
    run(async {
        let router = hostile("").await;
        assert_eq!(
            done(&router, "misbehave:recurse", r#"{"count": 1000}"#).await["done"],
            1000
        );
        let mut wat = doing("(call $down)");
        wat.items = "(func $down (call $down) (nop))".to_owned();
        let failure = failure(&*serving(&wat, "").await, "misbehave:work", "{}").await;
        assert!(failure.message.contains("stack"), "{}", failure.message);
    });
}

#[test]
fn an_answer_under_the_limit_arrives() {
    run(async {
        // The worker may use 2 GiB, an answer may have 32 MiB.
        let router = hostile("").await;
        let answer = invoke(&router, "misbehave:return_bytes", r#"{"mb": 32}"#)
            .await
            .expect("the most");
        assert_eq!(answer.payload.body.len(), 32 << 20);
    });
}

#[test]
fn an_answer_that_breaks_the_workers_promise_is_told_with_the_place() {
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
        for broken in [r#"{"message": ""}"#, r#"{"message": "[1"}"#] {
            assert_eq!(
                code(&router, "misbehave:return_text", broken).await,
                Code::InvalidOutput,
                "{broken}"
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
