//! What the host tells of its calls: promises kept and missed, budgets, costs, metrics, refusals.

mod traces;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use crank::admission::Admission;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::telemetry::Telemetry;
use futures_util::StreamExt;
use reqwest::StatusCode;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::crank;
use crate::support::component::{Wat, capability};
use crate::support::{Host, call, config, dir, engine, invoke, log, place, run};

/// A worker `worker-NAME` that offers `misbehave:NAME` and promises this.
fn promising(name: &str, slo: Value) -> Wat {
    let mut offered = capability(name);
    offered["slo"] = slo;
    offered["cost-tokens"] = json!(0.5);
    Wat::new(
        &format!("worker-{name}").replace('_', "-"),
        json!([offered]),
    )
}

/// It takes this long to answer.
fn slow(mut wat: Wat, ms: u32) -> Wat {
    wat.packages =
        "package wasi:clocks@0.2.0 { interface monotonic-clock { now: func() -> u64; } }"
            .to_owned();
    wat.world = "import wasi:clocks/monotonic-clock@0.2.0;".to_owned();
    wat.imports =
        r#"(import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))"#.to_owned();
    wat.handle = format!(
        "(local $end i64)
        (local.set $end (i64.add (call $now) (i64.const {ms}000000)))
        (loop $wait (br_if $wait (i64.lt_u (call $now) (local.get $end))))"
    );
    wat
}

/// It answers with a failure.
fn failing(mut wat: Wat, kind: &str) -> Wat {
    wat.answer = json!({ "err": { "kind": kind, "message": "no" } });
    wat
}

fn placed(dir: &TempDir, workers: &[(&str, &Wat)]) -> Vec<PathBuf> {
    let one = |(stem, wat): &(&str, &Wat)| place(dir, stem, &wat.build());
    workers.iter().map(one).collect()
}

/// A router whose figures are kept in a directory, of components that were never compiled before.
async fn watched(files: Vec<PathBuf>, state: &Path) -> Arc<Router> {
    let engine = engine(&state.join("cache"));
    let snapshot = Snapshot::load(&engine, &config(""), files).await;
    assert!(snapshot.refused().is_empty(), "{:#?}", snapshot.refused());
    let admission = Admission::new(64, || false);
    let telemetry = Telemetry::kept_in(state);
    Arc::new(Router::watched(
        Registry::new(snapshot),
        admission,
        telemetry,
    ))
}

async fn get(host: &Host, path: &str) -> Value {
    let answer = host.get(path).await;
    assert_eq!(answer.status(), StatusCode::OK);
    answer.json().await.expect("JSON")
}

async fn text(host: &Host, path: &str) -> String {
    host.get(path).await.text().await.expect("text")
}

/// The entry of a capability in `GET /slo`.
fn entry<'a>(slo: &'a Value, capability: &str) -> &'a Value {
    let all = slo["capabilities"].as_array().expect("a list");
    let mut found = all.iter().filter(|entry| entry["capability"] == capability);
    found
        .next()
        .unwrap_or_else(|| panic!("no {capability} in {slo}"))
}

fn verdict<'a>(entry: &'a Value, target: &str) -> &'a Value {
    let targets = entry["targets"].as_array().expect("a list");
    let mut found = targets.iter().filter(|found| found["target"] == target);
    &found
        .next()
        .unwrap_or_else(|| panic!("no {target} in {entry}"))["windows"]["5m"]
}

#[test]
fn a_promise_is_shown_beside_what_was_measured_kept_or_missed() {
    run(async {
        let dir = dir();
        let promise = |p95: u32| json!({ "latency-p95-ms": p95, "availability-pct": 90.0 });
        let slow_one = slow(promising("slo_slow", promise(1)), 5);
        let quick = promising("slo_quick", promise(20_000));
        let broken = failing(promising("slo_broken", promise(20_000)), "failed");
        let silent = Wat::new("worker-slo-silent", json!([capability("slo_silent")]));
        let workers = [
            ("slow", &slow_one),
            ("quick", &quick),
            ("broken", &broken),
            ("silent", &silent),
        ];
        let router = watched(placed(&dir, &workers), dir.path()).await;
        for name in ["slo_slow", "slo_quick", "slo_broken", "slo_silent"] {
            for _ in 0..4 {
                let _ = invoke(&router, &format!("misbehave:{name}"), "{}").await;
            }
        }
        let host = Host::of(router, |_| {}).await;
        let slo = get(&host, "/slo").await;

        let missed = entry(&slo, "misbehave:slo_slow");
        let latency = verdict(missed, "latency_p95_ms");
        assert_eq!(
            (&latency["kept"], &latency["samples"]),
            (&json!(false), &json!(4))
        );
        assert!(
            latency["measured"].as_f64().expect("a time") >= 5.0,
            "{latency}"
        );
        assert_eq!(verdict(missed, "availability_pct")["kept"], true);
        assert_eq!(missed["error_budget"]["left"], 1.0);

        let kept = entry(&slo, "misbehave:slo_quick");
        assert_eq!(verdict(kept, "latency_p95_ms")["kept"], true);
        let day = &kept["windows"]["24h"];
        assert_eq!(
            (&day["calls"], &day["availability_pct"]),
            (&json!(4), &json!(100.0))
        );
        let times = &day["latency_ms"];
        assert_eq!(times["uncompiled"]["run"]["samples"], 1, "{times}");
        assert_eq!(times["fresh"]["queue"]["samples"], 3, "{times}");

        let broken = entry(&slo, "misbehave:slo_broken");
        assert_eq!(verdict(broken, "availability_pct")["measured"], 0.0);
        assert_eq!(verdict(broken, "availability_pct")["kept"], false);
        // No call was answered, so nothing is known of how long answers take.
        assert_eq!(verdict(broken, "latency_p95_ms")["kept"], Value::Null);
        let budget = &broken["error_budget"];
        assert_eq!(budget["allowed_pct"], 10.0);
        assert!(
            (budget["left"].as_f64().expect("a share") + 9.0).abs() < 1e-9,
            "{budget}"
        );
        assert!((budget["burn_rate"]["1h"].as_f64().expect("a rate") - 10.0).abs() < 1e-9);
        assert_eq!(
            broken["windows"]["1h"]["codes"],
            json!({ "worker-failed": 4 })
        );

        let silent = entry(&slo, "misbehave:slo_silent");
        assert_eq!(
            (&silent["targets"], &silent["error_budget"]),
            (&json!([]), &Value::Null)
        );

        let workers = get(&host, "/workers").await;
        let short = |id: &str| {
            let all = workers["workers"].as_array().expect("a list");
            let worker = all
                .iter()
                .find(|worker| worker["worker_id"] == id)
                .expect("it serves");
            worker["capabilities"][0]["slo"].clone()
        };
        assert_eq!(
            short("worker-slo-slow")["missed"],
            json!(["latency_p95_ms"])
        );
        assert_eq!(
            short("worker-slo-quick"),
            json!({ "missed": [], "error_budget_left": 1.0, "samples": 4 })
        );
        assert_eq!(short("worker-slo-silent"), Value::Null);
    });
}

#[test]
fn what_callers_do_wrong_spends_nobodys_budget() {
    run(async {
        let dir = dir();
        let promise = json!({ "availability-pct": 99.9 });
        let mut strict = promising("slo_strict", promise.clone());
        strict.declaration["capabilities"][0]["input"] =
            json!(r#"{"type": "object", "required": ["name"]}"#);
        let picky = failing(promising("slo_picky", promise), "invalid-input");
        let workers = [("strict", &strict), ("picky", &picky)];
        let router = watched(placed(&dir, &workers), dir.path()).await;
        for name in ["slo_strict", "slo_picky"] {
            for _ in 0..3 {
                let answered = invoke(&router, &format!("misbehave:{name}"), "{}").await;
                answered.expect_err("the input is refused");
            }
        }
        // A caller who hangs up, too.
        let mut waiting = Box::pin(invoke(&router, "misbehave:slo_strict", "{}"));
        let _ = futures_util::poll!(waiting.as_mut());
        drop(waiting);
        let host = Host::of(router, |_| {}).await;
        let slo = get(&host, "/slo").await;
        for name in ["misbehave:slo_strict", "misbehave:slo_picky"] {
            let entry = entry(&slo, name);
            assert_eq!(entry["error_budget"]["left"], 1.0, "{entry}");
            let failed = &entry["windows"]["5m"]["failed"];
            assert_eq!((&failed["worker"], &failed["host"]), (&json!(0), &json!(0)));
            assert!(failed["caller"].as_u64() >= Some(3), "{entry}");
            assert_eq!(verdict(entry, "availability_pct")["samples"], 0);
        }
    });
}

#[test]
fn tenants_pay_for_what_was_done_for_them() {
    run(async {
        let dir = dir();
        let paid = promising("slo_paid", json!({}));
        let router = watched(placed(&dir, &[("paid", &paid)]), dir.path()).await;
        for caller in [None, Some("ada"), Some("ada"), Some("bob")] {
            let mut call = call("misbehave:slo_paid", "{}");
            call.caller = caller.map(|name| format!("spiffe://crank.local/{name}"));
            router.invoke(call).await.expect("it answers");
        }
        let host = Host::of(router, |_| {}).await;
        let account = |tenant: &str, calls: u32, tokens: f64| {
            json!({
                "tenant": tenant, "calls": calls, "tokens": tokens,
                "capabilities":
                    [{ "capability": "misbehave:slo_paid", "calls": calls, "tokens": tokens }],
            })
        };
        let tenants = [
            account("anonymous", 1, 0.5),
            account("spiffe://crank.local/ada", 2, 1.0),
            account("spiffe://crank.local/bob", 1, 0.5),
        ];
        assert_eq!(get(&host, "/costs").await, json!({ "tenants": tenants }));
    });
}

#[test]
fn figures_outlive_the_router_and_a_broken_file_is_set_aside() {
    run(async {
        let dir = dir();
        let kept = promising("slo_kept", json!({ "availability-pct": 50.0 }));
        let broken = failing(
            promising("slo_kept", json!({ "availability-pct": 50.0 })),
            "failed",
        );
        let first = watched(placed(&dir, &[("kept", &kept)]), dir.path()).await;
        invoke(&first, "misbehave:slo_kept", "{}")
            .await
            .expect("it answers");

        // While one has the directory, another keeps nothing there, and serves.
        let beside = Telemetry::kept_in(dir.path());
        beside.save();
        assert!(!dir.path().join("telemetry.json").exists());
        assert!(log().contains("another host keeps its own there"));
        first.telemetry().save();
        drop(first);

        // The same worker with other code goes on with the same series.
        let second = watched(placed(&dir, &[("kept", &broken)]), dir.path()).await;
        invoke(&second, "misbehave:slo_kept", "{}")
            .await
            .expect_err("it fails");
        second.telemetry().save();
        let host = Host::of(second.clone(), |_| {}).await;
        let slo = get(&host, "/slo").await;
        let entry = entry(&slo, "misbehave:slo_kept");
        assert_eq!(entry["windows"]["24h"]["answered"], 1, "{entry}");
        assert_eq!(entry["error_budget"]["left"], 0.0, "{entry}");
        // Its own failure costs nothing.
        assert_eq!(get(&host, "/costs").await["tenants"][0]["calls"], 1);
        // A request that is under way may hold the router a little longer.
        drop((host, second));

        let state = TempDir::new().expect("a directory");
        let whole = std::fs::read(dir.path().join("telemetry.json")).expect("it was saved");
        let file = state.path().join("telemetry.json");
        std::fs::write(&file, &whole[..whole.len() / 2]).expect("half of it");
        let third = Telemetry::kept_in(state.path());
        assert!(state.path().join("telemetry.json.broken").exists() && !file.exists());
        third.save();
        assert!(file.exists());
    });
}

#[test]
fn the_metrics_are_what_prometheus_reads() {
    run(async {
        let dir = dir();
        let promise = json!({ "latency-p95-ms": 20_000, "error-budget-pct": 1.0 });
        let counted = promising("slo_counted", promise);
        let router = watched(placed(&dir, &[("counted", &counted)]), dir.path()).await;
        for _ in 0..3 {
            invoke(&router, "misbehave:slo_counted", "{}")
                .await
                .expect("it answers");
        }
        let host = Host::of(router, |_| {}).await;
        let text = text(&host, "/metrics").await;
        let lines = text.lines().map(|line| Ok(line.to_owned()));
        let scraped = prometheus_parse::Scrape::parse(lines).expect("it is the format");
        let sample = |name: &str, labels: &[(&str, &str)]| {
            let mut found = scraped.samples.iter().filter(|sample| {
                let labelled =
                    |(name, value): &(&str, &str)| sample.labels.get(name) == Some(*value);
                sample.metric == name && labels.iter().all(labelled)
            });
            let sample = found
                .next()
                .unwrap_or_else(|| panic!("no {name} {labels:?} in {text}"));
            sample.value.clone()
        };
        let of = [
            ("worker", "worker-slo-counted"),
            ("capability", "misbehave:slo_counted"),
        ];
        let number = |name: &str| match sample(name, &of) {
            prometheus_parse::Value::Counter(value) | prometheus_parse::Value::Gauge(value) => {
                value
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(number("faas_invocations_total"), 3.0);
        assert_eq!(number("faas_coldstarts_total"), 1.0);
        assert_eq!(number("crank_cost_tokens_total"), 1.5);
        assert_eq!(number("crank_slo_kept"), 1.0);
        assert_eq!(number("crank_slo_error_budget_left_ratio"), 1.0);
        for (name, labels) in [
            (
                "faas_invoke_duration_seconds",
                [of[0], ("temperature", "fresh")],
            ),
            (
                "faas_init_duration_seconds",
                [of[0], ("temperature", "uncompiled")],
            ),
            ("faas_mem_usage_bytes", of),
            ("faas_cpu_usage_seconds", of),
        ] {
            let prometheus_parse::Value::Histogram(buckets) = sample(name, &labels) else {
                panic!("{name} is no histogram");
            };
            let counts: Vec<f64> = buckets.iter().map(|bucket| bucket.count).collect();
            assert!(
                counts.is_sorted() && counts.last() >= Some(&1.0),
                "{name}: {counts:?}"
            );
        }
        checked_by_promtool(&text);
    });
}

/// Prometheus' own tool, where this machine has it.
fn checked_by_promtool(text: &str) {
    let tool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let Ok(mut tool) = tool else { return };
    let mut input = tool.stdin.take().expect("piped");
    input.write_all(text.as_bytes()).expect("it reads");
    drop(input);
    let told = tool.wait_with_output().expect("it ends");
    assert!(told.status.success(), "{told:?}");
}

#[test]
fn ten_thousand_bad_verbs_do_not_grow_the_label_set() {
    run(async {
        let dir = dir();
        let plain = promising("slo_plain", json!({}));
        let router = watched(placed(&dir, &[("plain", &plain)]), dir.path()).await;
        invoke(&router, "misbehave:slo_plain", "{}")
            .await
            .expect("it answers");
        let host = Host::of(router, |_| {}).await;
        let series = |text: &str| -> BTreeSet<String> {
            let samples = text.lines().filter(|line| !line.starts_with('#'));
            samples
                .map(|line| line.rsplit_once(' ').expect("a value").0.to_owned())
                .collect()
        };
        let before = series(&text(&host, "/metrics").await);
        let bad = futures_util::stream::iter(0..10_000).map(|number| {
            let url = match number % 2 {
                0 => host.url(&format!("/invoke/bad_{number}/thing")),
                _ => host.url(&format!("/invoke/bad_{number}")),
            };
            let request = host
                .client
                .post(url)
                .header("content-type", "application/json");
            async move {
                request
                    .body("{}")
                    .send()
                    .await
                    .expect("it answers")
                    .status()
            }
        });
        let statuses: Vec<StatusCode> = bad.buffer_unordered(32).collect().await;
        assert!(
            statuses
                .iter()
                .all(|status| *status == StatusCode::NOT_FOUND)
        );
        let text = text(&host, "/metrics").await;
        assert_eq!(series(&text), before);
        assert!(
            text.contains("crank_requests_total{outcome=\"unknown-capability\"} 10000\n"),
            "{text}"
        );
        assert_eq!(
            get(&host, "/slo").await["capabilities"]
                .as_array()
                .map(Vec::len),
            Some(1)
        );
    });
}

/// `crank serve` with its state and its audit log in a directory.
struct Serving {
    child: Child,
    url: String,
}

impl Serving {
    fn start(dir: &TempDir) -> Self {
        let at = |name: &str| dir.path().join(name);
        let mut child = crank(&["serve", "--listen", "127.0.0.1:0"])
            .arg(dir.path())
            .env("CRANK_STATE_DIR", at("state"))
            .env("CRANK_AUDIT_LOG", at("audit.jsonl"))
            .stderr(Stdio::piped())
            .spawn()
            .expect("it starts");
        let lines = BufReader::new(child.stderr.take().expect("piped")).lines();
        let mut lines = lines.map(|line| line.expect("UTF-8"));
        let listening = lines.find(|line| line.contains("listening on "));
        let listening = listening.expect("it listens");
        let url = listening
            .split("listening on ")
            .nth(1)
            .expect("an address")
            .trim()
            .to_owned();
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, url }
    }

    fn stop(&mut self) {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::TERM).expect("it runs");
        assert!(self.child.wait().expect("it ends").success());
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        // Has an effect only where a test failed.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_host_that_is_started_again_knows_its_calls_and_its_refusals_are_on_file() {
    let dir = dir();
    place(
        &dir,
        "told",
        &promising("slo_told", json!({ "availability-pct": 99.0 })).build(),
    );
    let client = reqwest::Client::builder()
        .no_proxy()
        .build()
        .expect("a client");
    let mut serving = Serving::start(&dir);
    let url = serving.url.clone();
    run(async {
        let post = |path: &str| client.post(format!("{url}{path}")).json(&json!({}));
        let answer = post("/invoke/misbehave/slo_told")
            .send()
            .await
            .expect("it answers");
        assert_eq!(answer.status(), StatusCode::OK);
        let refused =
            post("/invoke/misbehave/slo_told").header("origin", "https://foreign.example");
        let refused = refused.send().await.expect("it answers");
        assert_eq!(refused.status(), StatusCode::FORBIDDEN);
        let id = refused.headers()["crank-request-id"]
            .to_str()
            .expect("an id")
            .to_owned();

        let lines = std::fs::read_to_string(dir.path().join("audit.jsonl")).expect("it is there");
        let line: Value = serde_json::from_str(lines.trim()).expect("one line of JSON");
        assert_eq!(
            (&line["request_id"], &line["code"], &line["capability"]),
            (&json!(id), &json!("denied"), &json!("misbehave:slo_told"))
        );
        assert!(
            line["reason"]
                .as_str()
                .expect("why")
                .contains("foreign.example"),
            "{line}"
        );
        assert!(line["timestamp"].is_string(), "{line}");
    });
    serving.stop();

    let mut again = Serving::start(&dir);
    run(async {
        let slo = client
            .get(format!("{}/slo", again.url))
            .send()
            .await
            .expect("it answers");
        let slo: Value = slo.json().await.expect("JSON");
        let entry = entry(&slo, "misbehave:slo_told");
        assert_eq!(entry["windows"]["24h"]["answered"], 1, "{entry}");
    });
    again.stop();
}
