//! `crank bench`: what is measured holds together, and what falls short is told by the exit code.

use std::fs;

use crank::bench::{Report, compare};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{output, path};
use crate::support::component::{Wat, capability};
use crate::support::{dir, guest, place};

/// A directory with hello-world, and a worker without an example.
fn workers() -> TempDir {
    let dir = dir();
    fs::copy(guest("hello-world"), dir.path().join("hello-world.wasm")).unwrap();
    let mute = Wat::new("worker-mute", json!([capability("mute")]));
    place(&dir, "mute", &mute.build());
    dir
}

/// A file in it.
fn file(dir: &TempDir, name: &str) -> String {
    dir.path().join(name).to_str().unwrap().to_owned()
}

/// A worker that promises an answer within a millisecond and computes for many.
fn slow() -> Wat {
    let mut offered = capability("slow");
    offered["slo"] = json!({ "latency-p50-ms": 1, "latency-p99-ms": 60_000 });
    offered["examples"] = json!([{
        "title": "Any", "input": { "media-type": "application/json", "body": "{}" }, "parameters": [],
    }]);
    let mut wat = Wat::new("worker-slow", json!([offered]));
    wat.items = "(global $n (mut i32) (i32.const 0))".to_owned();
    wat.handle = "(loop $again
        (global.set $n (i32.add (global.get $n) (i32.const 1)))
        (br_if $again (i32.lt_u (global.get $n) (i32.const 20000000))))"
        .to_owned();
    wat
}

fn number(of: &Value, pointer: &str) -> f64 {
    let found = of.pointer(pointer).and_then(Value::as_f64);
    found.unwrap_or_else(|| panic!("no {pointer} in {of}"))
}

#[test]
fn a_worker_that_keeps_its_promises_is_measured_consistently_and_shown() {
    let dir = workers();
    let (json, html) = (file(&dir, "bench.json"), file(&dir, "bench.html"));
    let run = [
        "bench",
        path(&dir),
        "--duration",
        "500ms",
        "--rate",
        "200",
        "--json",
        &json,
        "--html",
        &html,
    ];
    let (code, out, err) = output(&run);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("greet:hello_world") && out.contains("met"),
        "{out}"
    );
    assert!(
        out.contains("skipped") && out.contains("--input 'misbehave:mute=JSON'"),
        "{out}"
    );
    assert!(
        err.contains("1 of 1: greet:hello_world"),
        "no progress: {err}"
    );

    let report: Value = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    assert_eq!(report["version"], 1);
    let hello = &report["capabilities"][0];
    let latency = ["p50", "p95", "p99", "p99_9", "max"]
        .map(|name| number(hello, &format!("/latency_ms/{name}")));
    assert!(latency.is_sorted() && latency[0] > 0.0, "{latency:?}");
    assert_eq!(
        number(hello, "/calls"),
        100.0,
        "200 a second for half a second"
    );
    assert_eq!(hello["answered"], hello["calls"]);
    assert_eq!(hello["rate_from"], "given");
    let starts = ["uncompiled", "cached", "fresh"]
        .map(|name| number(hello, &format!("/temperatures/{name}/ms")));
    assert!(starts[0] > starts[1] && starts[1] > starts[2], "{starts:?}");
    for part in ["engine_ms", "load_ms", "call_ms"] {
        assert!(number(hello, &format!("/temperatures/cached/{part}")) > 0.0);
    }
    assert!(number(hello, "/memory_peak_bytes") >= 65536.0);
    let verdicts = hello["slo"].as_array().unwrap();
    assert_eq!(verdicts.len(), 5);
    assert!(
        verdicts.iter().all(|verdict| verdict["met"] == true),
        "{verdicts:?}"
    );

    let page = fs::read_to_string(&html).unwrap();
    assert!(
        !page.contains("http") && !page.contains("<script"),
        "the page is not alone"
    );
    for part in [
        "greet:hello_world",
        "misbehave:mute",
        "<svg role=\"img\"",
        "prefers-color-scheme",
        "latency_p95_ms",
    ] {
        assert!(page.contains(part), "no {part:?} in the page");
    }

    // The same again, held against that run: as good. Against one that needed less memory: worse.
    let again = |old: &str| {
        output(&[
            "bench",
            path(&dir),
            "--capability",
            "greet:hello_world",
            "--duration",
            "200ms",
            "--compare",
            old,
            "--tolerance",
            "100000",
            "--json",
            "-",
        ])
    };
    let (code, out, err) = again(&json);
    assert_eq!(code, 0, "{err}");
    let second: Value = serde_json::from_str(&out).expect("nothing but JSON");
    assert_eq!(second["capabilities"][0]["rate_from"], "compared");
    let mut doctored = report;
    doctored["capabilities"][0]["memory_peak_bytes"] = json!(1);
    fs::write(&json, doctored.to_string()).unwrap();
    let (code, _, err) = again(&json);
    assert_eq!(code, 1);
    assert!(
        err.contains("greet:hello_world: memory peak was 0.001 KiB"),
        "{err}"
    );
}

#[test]
fn a_worker_slowed_on_purpose_is_caught() {
    let dir = dir();
    place(&dir, "slow", &slow().build());
    let json = file(&dir, "bench.json");
    let (code, out, err) = output(&["bench", path(&dir), "--duration", "200ms", "--json", &json]);
    assert_eq!(code, 1, "{out}{err}");
    assert!(
        err.contains("misbehave:slow: latency_p50_ms is missed"),
        "{err}"
    );
    assert!(out.contains("missed: latency_p50_ms"), "{out}");

    // What was faster once is a regression, unless the machine is slower or busier as well.
    let new: Report = serde_json::from_slice(&fs::read(&json).unwrap()).unwrap();
    let mut old = new.clone();
    let was = &mut old.capabilities[0];
    was.best_round_ms.p50 /= 2.0;
    was.temperatures.fresh.least_ms /= 2.0;
    let figures = |old: &Report| {
        let regressions = compare(old, &new, 25.0).regressions;
        let figures: Vec<&str> = regressions.iter().map(|found| found.figure).collect();
        figures
    };
    assert_eq!(figures(&old), ["p50 of the best round", "fresh, the least"]);
    let mut busier = old.clone();
    busier.capabilities[0].bare.wait_ms.p99 = 0.0;
    let mut now = new.clone();
    now.capabilities[0].bare.wait_ms.p99 = 50.0;
    let found = compare(&busier, &now, 25.0);
    assert_eq!(found.regressions.len(), 1, "{:?}", found.regressions);
    assert!(found.notes[0].contains("busier"), "{:?}", found.notes);
    old.capabilities[0].bare.run_ms /= 2.0;
    assert!(figures(&old).is_empty());
    assert!(figures(&new).is_empty());
}

#[test]
fn what_cannot_be_measured_is_a_usage_error_that_names_the_way() {
    let dir = workers();
    let told = |arguments: &[&str]| {
        let (code, _, err) = output(&[&["bench", path(&dir)], arguments].concat());
        assert_eq!(code, 2, "{err}");
        err
    };
    let unknown = told(&["--capability", "greet:nobody"]);
    assert!(
        unknown.contains("there are: greet:hello_world, misbehave:mute"),
        "{unknown}"
    );
    assert!(told(&["--input", "{}"]).contains("put VERB:NAME= before it"));
    assert!(told(&["--input", "misbehave:mute=paper.pdf"]).contains("@FILE reads a file"));
    assert!(told(&["--compare", &file(&dir, "none.json")]).contains("none.json"));
    assert!(told(&["--duration", "5"]).contains("with its unit"));

    // With an input it is measured.
    let (code, out, err) = output(&[
        "bench",
        path(&dir),
        "--capability",
        "misbehave:mute",
        "--input",
        "{}",
        "--duration",
        "100ms",
    ]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("misbehave:mute") && out.contains("none declared"),
        "{out}"
    );
}
