use serde_json::json;

use super::*;

fn hello() -> RawCapability {
    RawCapability {
        verb: "greet".into(),
        name: "hello_world".into(),
        version: "1.0".into(),
        description: "Greets.".into(),
        input: r#"{"type":"object","required":["name"],"properties":{"name":{"type":"string"}}}"#.into(),
        output: r#"{"type":"object","required":["greeting"],"properties":{"greeting":{"type":"string"}}}"#.into(),
        examples: vec![RawExample {
            title: "Ada".into(),
            media_type: "application/json".into(),
            body: br#"{"name":"Ada"}"#.to_vec(),
            parameters: Vec::new(),
        }],
        runtime: Some("wasm-component".into()),
        env_profile: Some("cpu-optimized".into()),
        constraints: Some(RawConstraints {
            min_memory_mb: Some(512),
            max_memory_mb: Some(1024),
            cpu_shares: Some(1024),
            disk_type: Some("any".into()),
            ..RawConstraints::default()
        }),
        slo: Some(RawSlo {
            latency_p50_ms: Some(50),
            latency_p95_ms: Some(100),
            latency_p99_ms: Some(200),
            availability_pct: Some(99.5),
            error_budget_pct: Some(0.5),
        }),
        spiffe_id: Some("spiffe://crank.local/worker/hello-world".into()),
        required_capabilities: Some(Vec::new()),
        cost_tokens: Some(0.1),
        slo_bid: Some(1.0),
        controller_affinity: Some(vec!["controller-primary".into()]),
        ..RawCapability::default()
    }
}

fn checked(capabilities: Vec<RawCapability>) -> Result<Vec<Capability>, Vec<Problem>> {
    check(Declaration {
        worker_id: "worker-hello-world".into(),
        capabilities,
    })
}

#[test]
fn the_seeds_reference_worker_is_complete_and_shown_with_the_seeds_names() {
    let capabilities = checked(vec![hello()]).unwrap();
    assert_eq!(tiers(&capabilities), Tier::ALL.into());
    let view = serde_json::to_value(View::new(
        &capabilities[0],
        "http://localhost/invoke/greet/hello_world",
        0.25,
    ))
    .unwrap();
    let expected = json!({
        "verb": "greet", "name": "hello_world", "version": "1.0.0", "worker_id": "worker-hello-world",
        "url": "http://localhost/invoke/greet/hello_world", "load_score": 0.25, "description": "Greets.",
        "accepts": ["application/json"], "produces": "application/json", "runtime": "wasm-component",
        "env_profile": "cpu-optimized",
        "constraints": {"min_memory_mb": 512, "max_memory_mb": 1024, "cpu_shares": 1024, "disk_type": "any"},
        "slo": {"latency_p50_ms": 50, "latency_p95_ms": 100, "latency_p99_ms": 200, "availability_pct": 99.5,
                "error_budget_pct": 0.5},
        "spiffe_id": "spiffe://crank.local/worker/hello-world", "required_capabilities": [],
        "cost_tokens": 0.1, "slo_bid": 1.0, "controller_affinity": ["controller-primary"],
        "schema": {
            "input": {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}},
            "output": {"type": "object", "required": ["greeting"], "properties": {"greeting": {"type": "string"}}},
        },
    });
    assert_eq!(view, expected);
}

#[test]
fn minimal_metadata_is_enough_and_what_it_lacks_is_named() {
    let minimal = RawCapability {
        verb: "test".into(),
        name: "minimal".into(),
        version: "1.0.0".into(),
        input: "true".into(),
        output: "true".into(),
        constraints: Some(RawConstraints::default()),
        ..RawCapability::default()
    };
    let capabilities = checked(vec![hello(), minimal]).unwrap();
    assert!(tiers(&capabilities).is_empty());
    assert_eq!(
        missing_faas(&capabilities),
        [
            "minimal: missing runtime",
            "minimal: missing env_profile",
            "minimal: missing constraints"
        ]
    );
    let view = serde_json::to_value(View::new(&capabilities[1], "", 0.0)).unwrap();
    assert!(
        view.get("slo").is_none()
            && view.get("runtime").is_none()
            && view.get("extensions").is_none()
    );
}

#[test]
fn every_problem_is_told_at_once_with_its_path() {
    let mut bad = hello();
    bad.verb = "Greet".into();
    bad.version = "one".into();
    bad.description = "x".repeat(5000);
    bad.input = r#"{"$ref":"https://example.com/"}"#.into();
    bad.output = "nonsense".into();
    bad.accepts = vec!["image/*".into()];
    bad.produces = "none".into();
    bad.runtime = Some("python3.11".into());
    bad.env_profile = Some("large".into());
    bad.constraints = Some(RawConstraints {
        min_memory_mb: Some(2),
        max_memory_mb: Some(1),
        cpu_shares: Some(1),
        max_cpu_ms: Some(0),
        disk_type: Some("tape".into()),
        gpu_type: Some("abacus".into()),
        other: vec![("max_patience".into(), "1".into())],
        ..RawConstraints::default()
    });
    bad.slo = Some(RawSlo {
        latency_p50_ms: Some(9),
        latency_p99_ms: Some(8),
        availability_pct: Some(f64::NAN),
        error_budget_pct: Some(-0.1),
        ..RawSlo::default()
    });
    bad.spiffe_id = Some("http://crank.local/x".into());
    bad.required_capabilities = Some(vec!["x:y".into(), "nonsense".into()]);
    bad.cost_tokens = Some(-1.0);
    bad.slo_bid = Some(f64::INFINITY);
    bad.controller_affinity = Some(vec![String::new()]);
    let problems = checked(vec![bad]).unwrap_err();
    let mut paths: Vec<_> = problems
        .iter()
        .filter_map(|problem| problem.path.strip_prefix("capabilities[0]."))
        .collect();
    paths.sort_unstable();
    assert_eq!(
        paths,
        [
            "accepts[0]",
            "constraints.cpu_shares",
            "constraints.disk_type",
            "constraints.gpu_type",
            "constraints.max_cpu_ms",
            "constraints.max_patience",
            "constraints.min_memory_mb",
            "controller_affinity",
            "cost_tokens",
            "description",
            "env_profile",
            "input",
            "output",
            "produces",
            "required_capabilities[1]",
            "runtime",
            "slo.availability_pct",
            "slo.error_budget_pct",
            "slo.latency_p99_ms",
            "slo_bid",
            "spiffe_id",
            "verb",
            "version",
        ]
    );
}

#[test]
fn a_worker_may_not_contradict_itself() {
    let problem = |capabilities: Vec<RawCapability>| checked(capabilities).unwrap_err().remove(0);
    assert!(
        problem(vec![hello(), hello()])
            .detail
            .contains("declared twice")
    );
    let other = |change: fn(&mut RawCapability)| {
        let mut other = hello();
        other.name = "other".into();
        change(&mut other);
        vec![hello(), other]
    };
    let shares = problem(other(|other| {
        other.constraints.as_mut().unwrap().cpu_shares = Some(2048)
    }));
    assert_eq!(shares.path, "capabilities[*].constraints.cpu_shares");
    let id = problem(other(|other| {
        other.spiffe_id = Some("spiffe://crank.local/worker/other".into())
    }));
    assert_eq!(id.path, "capabilities[*].spiffe_id");
    assert_eq!(problem(Vec::new()).path, "capabilities");
}

#[test]
fn an_example_that_breaks_its_own_schema_is_a_problem() {
    let mut bad = hello();
    bad.examples[0].body = br#"{"name":7}"#.to_vec();
    let problems = checked(vec![bad]).unwrap_err();
    assert_eq!(problems[0].path, "capabilities[0].examples[0].input");
    assert!(
        problems[0].detail.contains("/name"),
        "{}",
        problems[0].detail
    );
    let mut raw = hello();
    raw.examples[0].media_type = "application/pdf".into();
    assert!(
        checked(vec![raw]).unwrap_err()[0]
            .detail
            .contains("accepts")
    );
}

#[test]
fn filters_narrow_what_is_listed() {
    let capability = checked(vec![hello()]).unwrap().remove(0);
    let filter = |text: serde_json::Value| serde_json::from_value::<Filter>(text).unwrap();
    for yes in [
        json!({}),
        json!({"verb": "greet", "name": "hello_world"}),
        json!({"version": "^1"}),
        json!({"runtime": "wasm-component", "env_profile": "cpu-optimized"}),
        json!({"max_latency_p95": 100}),
    ] {
        assert!(filter(yes.clone()).matches(&capability), "{yes}");
    }
    for no in [
        json!({"verb": "convert"}),
        json!({"version": "^2"}),
        json!({"max_latency_p95": 99}),
        json!({"worker_id": "x"}),
    ] {
        assert!(!filter(no.clone()).matches(&capability), "{no}");
    }
    assert!(serde_json::from_value::<Filter>(json!({"verbs": "greet"})).is_err());
}
