//! Workers that call other capabilities: what they may call, how deep, and what ends with what.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Code;
use crank::router::Router;
use serde_json::{Value, json};

use crate::support::{call, done, failure, guest, invoke, log, router, run};

/// The relay beside those whom it calls.
async fn relay(toml: &str) -> Arc<Router> {
    let files = ["relay", "hello-world", "hostile"].map(guest);
    router(files.into(), toml).await
}

/// What became of one call that `relay:one` handed on.
async fn one(router: &Router, to: &str, input: Value) -> Value {
    let input = json!({ "to": to, "input": input }).to_string();
    done(router, "relay:one", &input).await
}

#[test]
fn a_peer_that_is_listed_answers_and_its_failures_come_with_their_code() {
    run(async {
        let router = relay("[workers.hostile]\ncpu_ms = 200").await;
        let greeted = one(&router, "greet:hello_world", json!({ "name": "Ada" })).await;
        assert!(
            greeted["answer"]["greeting"]
                .as_str()
                .expect("a greeting")
                .contains("Ada"),
            "{greeted}"
        );
        for (to, input, expected) in [
            ("greet:hello_world", json!({ "name": 7 }), "invalid-input"),
            (
                "greet:hello_world@^2",
                json!({ "name": "Ada" }),
                "unknown-capability",
            ),
            ("misbehave:loop_forever", json!({}), "cpu-limit"),
            (
                "misbehave:take_memory",
                json!({ "mb": 100 }),
                "memory-limit",
            ),
            ("misbehave:fail", json!({ "kind": "conflict" }), "conflict"),
            ("nobody:offers_this", json!({}), "unknown-capability"),
            ("no capability", json!({}), "invalid-request"),
        ] {
            assert_eq!(one(&router, to, input).await["code"], expected, "{to}");
        }
        // Most workers fail as their peer fails, and say of whom they speak.
        let missing = json!({ "to": "nobody:offers_this", "input": {} }).to_string();
        let failure = failure(&router, "relay:or_fail", &missing).await;
        assert_eq!(failure.code, Code::Unavailable);
        assert!(failure.message.contains("nobody:offers_this"), "{failure}");
        assert_eq!(failure.worker_code.as_deref(), Some("unknown-capability"));
    });
}

#[test]
fn a_peer_that_the_calling_capability_does_not_list_is_denied_and_audited() {
    run(async {
        let router = relay("").await;
        // `relay:narrow` lists one, at ^1; that another capability of the worker lists more opens nothing.
        for (to, expected) in [
            ("greet:hello_world", None),
            ("greet:hello_world@1.0.0", None),
            ("greet:hello_world@^2", Some("unknown-capability")),
            ("misbehave:fail", Some("denied")),
            ("relay:who", Some("denied")),
        ] {
            let input = json!({ "to": to, "input": { "name": "Ada" } }).to_string();
            let became = done(&router, "relay:narrow", &input).await;
            assert_eq!(became["code"].as_str(), expected, "{to}: {became}");
        }
        let id = "audit-this-one";
        let mut denied = call("relay:narrow", r#"{"to": "misbehave:fail", "input": {}}"#);
        denied.request_id = id.to_owned();
        router.invoke(denied).await.expect("the worker goes on");
        let log = log();
        let line = log
            .lines()
            .find(|line| line.contains("audit") && line.contains(id))
            .expect("it stands in the audit log");
        assert!(line.contains("relay:narrow > misbehave:fail"), "{line}");
    });
}

#[test]
fn calls_go_in_no_circle_and_no_deeper_than_eight() {
    run(async {
        let router = relay("").await;
        let reached = done(&router, "relay:hop0", &hops_left(7)).await;
        assert_eq!(reached["reached"], "hop7");
        let deeper = failure(&router, "relay:hop0", &hops_left(8)).await;
        assert!(deeper.message.contains("no deeper than 8"), "{deeper}");

        let circle = one(&router, "relay:one", json!({ "to": "x:y", "input": {} })).await;
        assert_eq!(circle["code"], "denied");
        assert!(
            circle["message"].as_str().expect("why").contains("circle"),
            "{circle}"
        );
    });
}

fn hops_left(left: u32) -> String {
    json!({ "left": left }).to_string()
}

#[test]
fn a_peer_learns_who_calls_and_on_whose_behalf() {
    run(async {
        let router = relay("").await;
        let mut outer = call("relay:one", r#"{"to": "relay:who", "input": null}"#);
        outer.request_id = "one-request".to_owned();
        outer.caller = Some("spiffe://crank.local/agent/ada".to_owned());
        let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        outer.traceparent = Some(trace.to_owned());
        let answer = router.invoke(outer).await.expect("it answers");
        let became: Value = serde_json::from_slice(&answer.payload.body).expect("JSON");
        assert_eq!(
            became["answer"],
            json!({
                "id": "one-request",
                "caller": "spiffe://crank.local/worker/relay",
                "context": [["traceparent", trace], ["origin", "spiffe://crank.local/agent/ada"]],
            })
        );
        let log = log();
        assert!(
            log.lines().any(|line| line.contains("peer call")
                && line.contains("one-request")
                && line.contains("relay:one > relay:who")),
            "the call path is in the log"
        );
    });
}

/// One deadline over all of them; and what a peer computes is not the caller's CPU time.
#[test]
fn the_deadline_of_the_outermost_call_ends_the_innermost() {
    run(async {
        let router = relay("[workers.relay]\nwall_ms = 300\ncpu_ms = 100").await;
        let began = Instant::now();
        let input = json!({ "to": "misbehave:loop_forever", "input": {} }).to_string();
        let ended = invoke(&router, "relay:one", &input).await;
        assert_eq!(ended.expect_err("it has no time left").code, Code::Deadline);
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        idle(&router).await;

        // A timeout of its own is sooner than the deadline, and the worker goes on.
        let input = json!({ "to": "misbehave:loop_forever", "input": {}, "timeout_ms": 50 });
        let became = done(&router, "relay:one", &input.to_string()).await;
        assert_eq!(became["code"], "deadline");
    });
}

/// Several calls run at once; those that nobody waits for end with the one who made them.
#[test]
fn calls_run_at_once_and_end_when_they_are_dropped() {
    run(async {
        let router = relay("").await;
        let slow = json!({ "to": "misbehave:loop_forever", "input": {}, "timeout_ms": 400 });
        let calls = json!({ "calls": [slow, slow, slow, slow] }).to_string();
        let began = Instant::now();
        let all = done(&router, "relay:several", &calls).await;
        assert_eq!(all["became"].as_array().expect("a list").len(), 4);
        assert!(
            began.elapsed() < Duration::from_millis(1500),
            "{:?}",
            began.elapsed()
        );

        let endless = json!({ "to": "misbehave:loop_forever", "input": {} });
        let greet = json!({ "to": "greet:hello_world", "input": { "name": "Ada" } });
        let calls = json!({ "calls": [greet, endless, endless], "wait_for": 1 }).to_string();
        let all = done(&router, "relay:several", &calls).await;
        assert!(all["became"][0]["answer"]["greeting"].is_string(), "{all}");
        idle(&router).await;
    });
}

/// A chain whose workers have all their slots taken by the chain itself goes on: nested calls wait for
/// nobody.
#[test]
fn chains_at_full_load_do_not_wait_for_themselves() {
    run(async {
        let router = relay("[workers.relay]\nconcurrency = 2\n[limits]\nqueue = 1000").await;
        let chains = (0..16).map(|_| {
            let router = router.clone();
            tokio::spawn(async move { done(&router, "relay:hop0", &hops_left(3)).await })
        });
        for chain in chains.collect::<Vec<_>>() {
            let reached = tokio::time::timeout(Duration::from_secs(20), chain).await;
            let reached = reached.expect("nobody waits for ever").expect("no panic");
            assert_eq!(reached["reached"], "hop3");
        }
        idle(&router).await;
    });
}

/// Waits until no worker runs anything; fails if that does not come soon.
async fn idle(router: &Router) {
    let began = Instant::now();
    let busy = || {
        let snapshot = router.registry().snapshot();
        snapshot
            .workers()
            .iter()
            .any(|worker| worker.observed().in_flight > 0)
    };
    while busy() {
        assert!(
            began.elapsed() < Duration::from_secs(2),
            "something still runs"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
