//! What all invocations have together, and what one may pass through the host.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::engine::Engine;
use crank::error::Code;
use crank::registry::{Registry, Snapshot};
use crank::router::{EVENTS_BUFFERED, Router};
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::component::{Wat, capability};
use crate::support::{
    call, code, config, dir, done, engine, failure, guest, hostile, invoke, machine, place, router,
    run,
};

/// The hostile worker on a host that gives so many MiB to all guests together.
async fn on_budget(mb: u32) -> (Engine, Arc<Router>) {
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
    let engine = engine(&cache).on(machine(mb));
    let snapshot = Snapshot::load(&engine, &config(""), vec![guest("hostile")]).await;
    assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
    (engine, Arc::new(Router::new(Registry::new(snapshot))))
}

/// A worker within its own limit that asks for more than the host has left did nothing wrong: the
/// host is out of memory and says so. Whatever an invocation took is back when it ends.
#[test]
fn the_hosts_memory_budget_ends_what_it_cannot_hold_and_gets_everything_back() {
    run(async {
        // The capability declares 64 MiB.
        let (engine, router) = on_budget(64).await;
        assert_eq!(
            done(&router, "misbehave:take_memory", r#"{"mb": 50}"#).await["done"],
            50
        );
        let taken = engine.budget().hold(30 << 20).expect("there is room");
        let failure = failure(&router, "misbehave:take_memory", r#"{"mb": 50}"#).await;
        assert_eq!(failure.code, Code::Overloaded);
        assert!(failure.retry_after.is_some());
        for (capability, input, expected) in [
            (
                "misbehave:take_memory",
                r#"{"mb": 100000}"#,
                Code::Overloaded,
            ),
            ("misbehave:panic", r#"{"message": "oh"}"#, Code::Trapped),
            (
                "misbehave:recurse",
                r#"{"count": 4000000000}"#,
                Code::Trapped,
            ),
            ("misbehave:return_bytes", r#"{"mb": 33}"#, Code::OutputLimit),
        ] {
            assert_eq!(code(&router, capability, input).await, expected);
            assert_eq!(engine.budget().used(), 30 << 20, "after {capability}");
        }
        drop(taken);
        assert_eq!(engine.budget().used(), 0);
    });
}

/// Two invocations share what one alone could have.
#[test]
fn what_one_invocation_holds_another_cannot_have() {
    run(async {
        let (engine, router) = on_budget(40).await;
        let (sender, mut events) = mpsc::channel(1);
        let mut waits = call(
            "misbehave:send_events",
            r#"{"count": 3, "event": "here", "bytes": 60000}"#,
        );
        waits.events = Some(sender);
        let waiting = tokio::spawn({
            let router = router.clone();
            async move { router.invoke(waits).await }
        });
        // It waits in its second event until someone reads the first.
        while engine.budget().used() == 0 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert_eq!(
            code(&router, "misbehave:take_memory", r#"{"mb": 37}"#).await,
            Code::Overloaded
        );
        while events.recv().await.is_some() {}
        waiting.await.expect("no panic").expect("it ends well");
        assert_eq!(engine.budget().used(), 0);
        assert_eq!(
            done(&router, "misbehave:take_memory", r#"{"mb": 37}"#).await["done"],
            37
        );
    });
}

/// An answer is the host's memory until the caller has it.
#[test]
fn an_answer_counts_until_nobody_holds_it() {
    run(async {
        let (engine, router) = on_budget(40).await;
        let answer = invoke(&router, "misbehave:return_bytes", r#"{"mb": 10}"#)
            .await
            .expect("it fits");
        assert_eq!(engine.budget().used(), 10 << 20);
        drop(answer);
        assert_eq!(engine.budget().used(), 0);
    });
}

#[test]
fn events_that_nobody_reads_count_as_the_workers_memory() {
    run(async {
        let router = hostile("[workers.hostile]\nmemory_mb = 5\nwall_ms = 2000").await;
        let flood = r#"{"count": 1000, "event": "flood", "bytes": 60000}"#;
        let (sender, unread) = mpsc::channel(EVENTS_BUFFERED);
        let mut call = call("misbehave:send_events", flood);
        call.events = Some(sender);
        let failure = router.invoke(call).await.expect_err("nobody reads");
        assert_eq!(failure.code, Code::MemoryLimit);
        assert!(
            (1..EVENTS_BUFFERED).contains(&unread.len()),
            "{}",
            unread.len()
        );
    });
}

#[test]
fn what_one_invocation_hands_the_host_in_all_is_bounded_in_bytes_and_in_items() {
    run(async {
        let few = hostile("[limits]\nhostcalls = 20").await;
        let much = hostile("[limits]\nhostcall_mb = 1").await;
        let lines = |count: u32, bytes: usize| {
            json!({ "count": count, "line": "x".repeat(bytes) }).to_string()
        };
        let events = |count: u32, bytes: u32| {
            json!({ "count": count, "event": "flood", "bytes": bytes }).to_string()
        };
        for (router, capability, input, expected) in [
            (&few, "misbehave:write_log", lines(20, 1), None),
            (
                &few,
                "misbehave:write_log",
                lines(21, 1),
                Some(Code::OutputLimit),
            ),
            (&few, "misbehave:send_events", events(20, 1), None),
            (
                &few,
                "misbehave:send_events",
                events(21, 1),
                Some(Code::OutputLimit),
            ),
            (&much, "misbehave:write_log", lines(10, 100_000), None),
            (
                &much,
                "misbehave:write_log",
                lines(11, 100_000),
                Some(Code::OutputLimit),
            ),
            (&much, "misbehave:send_events", events(10, 60_000), None),
            (
                &much,
                "misbehave:send_events",
                events(18, 60_000),
                Some(Code::OutputLimit),
            ),
        ] {
            let ended = invoke(router, capability, &input).await;
            let code = ended.err().map(|failure| failure.code);
            assert_eq!(code, expected, "{capability} {}", input.len());
        }
    });
}

/// `network_bandwidth_mbps` lets through what flows in one second at once, and then its rate: over all
/// invocations of the worker, answers and events alike.
#[test]
fn what_a_worker_sends_keeps_to_its_bandwidth() {
    run(async {
        // One Mbit/s: 125,000 bytes a second.
        let mut offered = capability("talk");
        offered["constraints"] = json!({ "network-bandwidth-mbps": 1 });
        let mut wat = Wat::new("worker-talk", json!([offered]));
        let text = "x".repeat(100_000);
        wat.answer = json!({
            "ok": { "media-type": "application/json", "body": format!("\"{text}\"") }
        });
        let dir = dir();
        let router = router(vec![place(&dir, "talk", &wat.build())], "").await;
        let talk = async |timeout_ms| {
            let mut call = call("misbehave:talk", "{}");
            call.timeout = Some(Duration::from_millis(timeout_ms));
            let began = Instant::now();
            let ended = router.invoke(call).await;
            (ended.map_err(|failure| failure.code), began.elapsed())
        };
        let (first, _) = talk(10_000).await;
        assert_eq!(first.expect("within the burst").usage.sent, 100_002);
        let (second, took) = talk(10_000).await;
        second.expect("later");
        assert!(took > Duration::from_millis(300), "{took:?}");
        // The bucket is empty: 0.8 s do not fit into a quarter of a second, and nobody waits for that.
        let (third, took) = talk(250).await;
        assert_eq!(third.expect_err("too late"), Code::Deadline);
        assert!(took < Duration::from_millis(240), "{took:?}");
        let worker = router.registry().snapshot().workers()[0].clone();
        assert_eq!(worker.observed().sent_peak, 100_002);
    });
}
