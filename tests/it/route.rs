//! Where calls go, and why: real workers, over HTTP where a caller would see it.

mod choice;

use std::sync::Arc;
use std::time::Duration;

use crank::error::Code;
use crank::router::{Answer, Call, Router};
use serde_json::{Value, json};

use crate::support::component::{Wat, bursting, capability};
use crate::support::{Host, call, dir, invoke, place, router, run};

/// `misbehave:route` by a worker of its own, with these fields.
fn offered(fields: Value) -> Value {
    let mut offered = capability("route");
    for (name, value) in fields.as_object().expect("fields") {
        offered[name] = value.clone();
    }
    offered
}

/// A worker that answers at once.
fn quick(id: &str, fields: Value) -> Wat {
    Wat::new(id, json!([offered(fields)]))
}

/// A worker that traps where the input has more than ten bytes.
fn frail(id: &str, fields: Value) -> Wat {
    let mut wat = quick(id, fields);
    // The length of the body is the eighth of the flattened parameters.
    wat.handle = "(if (i32.gt_u (local.get 7) (i32.const 10)) (then unreachable))".to_owned();
    wat
}

/// A worker that waits for so many milliseconds.
fn slow(id: &str, ms: u32, fields: Value) -> Wat {
    let mut wat = bursting("route", 1024, 1);
    wat.declaration = quick(id, fields).declaration;
    wat.handle = format!(
        "(local $wait i32)
        (local.set $wait (call $subscribe (i64.const {ms}000000)))
        (call $block (local.get $wait))
        (call $drop (local.get $wait))"
    );
    wat
}

/// A router to these workers, each in a file of its id.
async fn among<const N: usize>(workers: [Wat; N], toml: &str) -> Arc<Router> {
    let dir = dir();
    let files = workers.map(|wat| {
        let id = wat.declaration["worker-id"]
            .as_str()
            .expect("an id")
            .to_owned();
        place(&dir, &id, &wat.build())
    });
    router(files.into(), toml).await
}

fn route(input: &str) -> Call {
    call("misbehave:route", input)
}

async fn served_by(router: &Router, call: Call) -> String {
    let Answer { worker_id, .. } = router.invoke(call).await.expect("it is answered");
    worker_id.to_string()
}

async fn get(host: &Host, path: &str) -> Value {
    host.get(path).await.json().await.expect("JSON")
}

#[test]
fn the_highest_version_goes_first_then_affinity_then_the_least_cost() {
    run(async {
        let workers = || {
            [
                quick("old-and-free", json!({ "version": "1.0.0" })),
                quick("cheap", json!({ "version": "1.1.0", "cost-tokens": 1.0 })),
                quick(
                    "dear",
                    json!({ "version": "1.1.0", "cost-tokens": 9.0, "controller-affinity": ["north"] }),
                ),
            ]
        };
        let plain = among(workers(), "").await;
        assert_eq!(served_by(&plain, route("{}")).await, "cheap");
        let mut older = route("{}");
        older.version = Some("<1.1".parse().unwrap());
        assert_eq!(served_by(&plain, older).await, "old-and-free");
        // A ceiling bars, so a lower version may be what is left.
        let mut poor = route("{}");
        poor.max_cost = Some(0.5);
        assert_eq!(served_by(&plain, poor).await, "old-and-free");

        let north = among(workers(), "controller_id = \"north\"").await;
        assert_eq!(served_by(&north, route("{}")).await, "dear");
    });
}

#[test]
fn a_ceiling_below_every_cost_is_refused_with_the_least_of_them() {
    run(async {
        let workers = [
            quick("cheap", json!({ "cost-tokens": 1.5 })),
            quick("dear", json!({ "cost-tokens": 9.0 })),
        ];
        let host = Host::of(among(workers, "").await, |_| {}).await;
        let with = |most: &str| {
            let request = host.client.post(host.url("/invoke/misbehave/route"));
            request.header("crank-max-cost", most).body("{}").send()
        };
        let refused = with("1.25").await.unwrap();
        assert_eq!(refused.status(), 412);
        let problem: Value = refused.json().await.unwrap();
        assert_eq!(problem["code"], "cost-ceiling");
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("1.5 tokens") && detail.contains("1.25 may"),
            "{detail}"
        );
        let served = with("1.5").await.unwrap();
        assert_eq!(
            (served.status().as_u16(), &served.headers()["crank-worker"]),
            (200, &"cheap".parse().unwrap())
        );
        for wrong in ["-1", "+1", "inf", "NaN", "", "."] {
            assert_eq!(with(wrong).await.unwrap().status(), 400, "{wrong}");
        }
    });
}

#[test]
fn a_call_is_explained_in_its_answer_and_a_question_in_full() {
    run(async {
        let workers = [
            quick(
                "cheap",
                json!({ "cost-tokens": 1.0, "slo": { "latency-p95-ms": 5000 }, "runtime": "wasm-component" }),
            ),
            quick("dear", json!({ "cost-tokens": 9.0 })),
            quick("old", json!({ "version": "0.9.0" })),
        ];
        let host = Host::of(among(workers, "").await, |_| {}).await;
        let sent = host.client.post(host.url("/invoke/misbehave/route"));
        let answer = sent
            .header("crank-explain", "1")
            .body("{}")
            .send()
            .await
            .unwrap();
        let header = answer.headers()["crank-explain"].to_str().unwrap();
        let brief: Value = serde_json::from_str(header).unwrap();
        assert_eq!(
            (&brief["chosen"], &brief["more"]),
            (&json!("cheap"), &json!(0))
        );
        assert_eq!(brief["candidates"][1]["verdict"], "cost");
        let plain = host
            .client
            .post(host.url("/invoke/misbehave/route"))
            .body("{}");
        assert!(
            !plain
                .send()
                .await
                .unwrap()
                .headers()
                .contains_key("crank-explain")
        );

        let told = get(&host, "/explain/misbehave/route").await;
        assert_eq!(told["chosen"], "cheap");
        let [cheap, dear, old] = [0, 1, 2].map(|at| &told["candidates"][at]);
        assert!(cheap["predicted_p95_ms"].as_f64().is_some(), "{cheap}");
        assert_eq!(
            (&cheap["target_p95_ms"], &cheap["health"]),
            (&json!(5000.0), &json!("well"))
        );
        assert_eq!(cheap["criteria"].as_array().unwrap().len(), 9);
        assert_eq!(
            (&dear["verdict"], &old["verdict"]),
            (&json!("cost"), &json!("version"))
        );
        assert_eq!(
            dear["sentence"],
            "dear is passed over: it takes 9 tokens, and cheap takes 1 token and stands as well in all before"
        );
        assert_eq!(
            old["sentence"],
            "old is passed over: version 0.9.0 is below 1.0.0"
        );

        let other = get(&host, "/explain/misbehave/route?version=%3C1&max_cost=3").await;
        assert_eq!(other["chosen"], "old");
        assert_eq!(other["candidates"][1]["verdict"], "asked");
        let nobody = get(&host, "/explain/misbehave/route?runtime=python").await;
        assert_eq!(
            (&nobody["chosen"], &nobody["candidates"][0]["verdict"]),
            (&Value::Null, &json!("asked"))
        );
        let alone = get(&host, "/explain/misbehave").await;
        assert_eq!(alone["names"][0]["capability"], "misbehave:route");
        assert_eq!(
            get(&host, "/explain/misbehave/none").await["code"],
            "unknown-capability"
        );
        assert_eq!(
            get(&host, "/explain/misbehave/route?colour=red").await["code"],
            "invalid-request"
        );
    });
}

#[test]
fn calls_flow_over_to_the_dear_one_while_the_cheap_one_is_busy_and_back() {
    run(async {
        let slo = json!({ "latency-p95-ms": 800 });
        let workers = [
            slow("cheap", 100, json!({ "cost-tokens": 1.0, "slo": slo })),
            quick("dear", json!({ "cost-tokens": 9.0, "slo": slo })),
        ];
        let router = among(workers, "[workers.cheap]\nconcurrency = 1").await;
        let host = Host::of(router.clone(), |_| {}).await;
        let chosen = async || get(&host, "/explain/misbehave/route").await;
        assert_eq!(served_by(&router, route("{}")).await, "cheap");
        assert_eq!(chosen().await["chosen"], "cheap");

        let calls = (0..12).map(|_| {
            let router = router.clone();
            tokio::spawn(async move { served_by(&router, route("{}")).await })
        });
        let calls: Vec<_> = calls.collect();
        let busy = loop {
            let told = chosen().await;
            if told["chosen"] == "dear" {
                break told;
            }
            assert!(
                !calls.iter().all(|call| call.is_finished()),
                "it never flips: {told}"
            );
            tokio::task::yield_now().await;
        };
        assert_eq!(busy["candidates"][0]["verdict"], "slo", "{busy}");
        let mut by = Vec::new();
        for call in calls {
            by.push(call.await.unwrap());
        }
        assert!(
            by.contains(&"cheap".to_owned()) && by.contains(&"dear".to_owned()),
            "{by:?}"
        );
        assert_eq!(chosen().await["chosen"], "cheap");
    });
}

#[test]
fn a_worker_that_traps_steps_back_and_returns_once_a_trial_succeeds() {
    run(async {
        let workers = [
            frail("frail", json!({ "cost-tokens": 1.0 })),
            quick("sturdy", json!({ "cost-tokens": 9.0 })),
        ];
        let router = among(workers, "").await;
        let host = Host::of(router.clone(), |_| {}).await;
        let health = async || get(&host, "/workers").await["workers"][0]["health"].clone();
        assert_eq!(
            health().await,
            json!({ "state": "well", "recent_faults": 0.0, "rests_ms": 0.0 })
        );
        let long = "{         }";
        for _ in 0..6 {
            let failure = invoke(&router, "misbehave:route", long).await.unwrap_err();
            assert_eq!(
                (failure.code, failure.worker_id.as_deref()),
                (Code::Trapped, Some("frail"))
            );
        }
        let seen = health().await;
        assert_eq!(seen["state"], "suspect", "{seen}");
        assert_eq!(served_by(&router, route(long)).await, "sturdy");
        let told = get(&host, "/explain/misbehave/route").await;
        assert_eq!(told["candidates"][0]["verdict"], "health", "{told}");

        let rested = seen["rests_ms"].as_f64().unwrap() / 1e3;
        tokio::time::sleep(Duration::from_secs_f64(rested + 0.05)).await;
        assert_eq!(health().await["state"], "trial");
        assert_eq!(served_by(&router, route("{}")).await, "frail");
        assert_eq!(health().await["state"], "well");
    });
}

#[test]
fn one_callers_bad_inputs_do_not_shut_the_only_worker_for_others() {
    run(async {
        let router = among([frail("frail", json!({}))], "").await;
        for _ in 0..20 {
            let failure = invoke(&router, "misbehave:route", "{         }")
                .await
                .unwrap_err();
            assert_eq!(failure.code, Code::Trapped);
        }
        assert_eq!(served_by(&router, route("{}")).await, "frail");
    });
}

#[test]
fn a_call_without_room_goes_to_the_next_best_and_one_that_ran_goes_nowhere_else() {
    run(async {
        let toml = "[limits]\nqueue = 0\n[workers.cheap]\nconcurrency = 1\n[workers.dear]\nconcurrency = 1";
        let workers = [
            slow("cheap", 400, json!({ "cost-tokens": 1.0 })),
            slow("dear", 400, json!({ "cost-tokens": 9.0 })),
        ];
        let router = among(workers, toml).await;
        let start = |call: Call| {
            let router = router.clone();
            tokio::spawn(async move { router.invoke(call).await })
        };
        let busy = |at: usize| {
            router.registry().snapshot().workers()[at]
                .observed()
                .in_flight
        };
        let first = start(route("{}"));
        while busy(0) == 0 {
            tokio::task::yield_now().await;
        }
        let mut explained = route("{}");
        explained.explain = true;
        let second = start(explained);
        while busy(1) == 0 {
            tokio::task::yield_now().await;
        }
        // Two tries are all: with a third worker it would end here too.
        let third = router.invoke(route("{}")).await.unwrap_err();
        assert_eq!(
            (third.code, third.worker_id.as_deref()),
            (Code::Overloaded, Some("cheap"))
        );
        let second = second.await.unwrap().unwrap();
        assert_eq!(&*second.worker_id, "dear");
        let told = second.explanation.unwrap();
        assert!(
            told.before.as_deref().unwrap().starts_with("overloaded: "),
            "{told:?}"
        );
        assert_eq!(&*first.await.unwrap().unwrap().worker_id, "cheap");

        // "Not now" from a worker that has begun is its answer.
        let mut unwilling = quick("cheap", json!({ "cost-tokens": 1.0 }));
        unwilling.answer = json!({ "err": { "kind": "unavailable", "message": "not now" } });
        let router = among(
            [unwilling, quick("dear", json!({ "cost-tokens": 9.0 }))],
            "",
        )
        .await;
        let failure = router.invoke(route("{}")).await.unwrap_err();
        assert_eq!(
            (failure.code, failure.worker_id.as_deref()),
            (Code::Unavailable, Some("cheap"))
        );
    });
}

#[test]
fn a_verb_alone_goes_to_the_name_whose_schema_takes_the_input() {
    run(async {
        let named = |name: &str, field: &str| {
            let schema = json!({
                "type": "object", "properties": { field: { "type": "string" } }, "required": [field],
            });
            let mut offered = capability(name);
            offered["verb"] = json!("classify");
            offered["input"] = json!(schema.to_string());
            Wat::new(&format!("worker-{name}"), json!([offered]))
        };
        let workers = [
            named("mail", "subject"),
            named("image", "pixels"),
            named("spam", "subject"),
        ];
        let host = Host::of(among(workers, "").await, |_| {}).await;
        let post = async |input: &str| {
            let sent = host.client.post(host.url("/invoke/classify"));
            let sent = sent.body(input.to_owned()).send().await.unwrap();
            let status = sent.status().as_u16();
            let worker = sent.headers().get("crank-worker").cloned();
            (status, worker, sent.json::<Value>().await.unwrap())
        };
        let (status, worker, _) = post(r#"{"pixels": "…"}"#).await;
        assert_eq!(
            (status, worker.unwrap().to_str().unwrap()),
            (200, "worker-image")
        );

        let (status, _, problem) = post(r#"{"subject": "hello"}"#).await;
        assert_eq!(
            (status, &problem["code"]),
            (400, &json!("ambiguous-capability"))
        );
        let detail = problem["detail"].as_str().unwrap();
        assert!(
            detail.contains("classify:mail, classify:spam") && !detail.contains("image"),
            "{detail}"
        );

        let (status, _, problem) = post("{}").await;
        assert_eq!((status, &problem["code"]), (422, &json!("invalid-input")));
        let reasons: Vec<&str> = problem["errors"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["detail"].as_str().unwrap())
            .collect();
        assert_eq!(reasons.len(), 3);
        assert!(
            reasons[0].starts_with("classify:image: ") && reasons[0].contains("pixels"),
            "{reasons:?}"
        );

        assert_eq!(post("{").await.2["code"], "invalid-request");
        let told = get(&host, "/explain/classify").await;
        assert_eq!(told["names"].as_array().unwrap().len(), 3);
    });
}
