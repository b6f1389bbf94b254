//! Calls whose times and ends are chosen: what the figures make of them.

use super::*;
use crate::capability::Slo;

fn promising(slo: Slo) -> Arc<Series> {
    let key = Key {
        worker_id: "worker-test".into(),
        capability: "test:it".into(),
        version: "1.0.0".into(),
    };
    let terms = Terms {
        slo,
        wall: Duration::from_secs(30),
        cost_tokens: 0.25,
    };
    Telemetry::default().series(key, terms)
}

fn by(tenant: Option<&str>) -> Asked<'_> {
    Asked {
        request_id: "test",
        tenant,
        traceparent: None,
        nested: false,
    }
}

fn answered(series: &Series, times: u32, took: Duration) {
    for _ in 0..times {
        series.record(
            End::Answered,
            Some((Temperature::Fresh, [Duration::ZERO, took, took, took])),
        );
    }
}

fn failed(series: &Series, times: u32, code: Code, blame: Blame) {
    for _ in 0..times {
        series.record(End::Failed(code, blame), None);
    }
}

#[test]
fn the_budget_is_what_may_fail_less_what_did_by_the_workers_fault() {
    let series = promising(Slo {
        availability_pct: Some(99.0),
        ..Slo::default()
    });
    assert_eq!(series.error_budget_left(), Some(1.0));
    answered(&series, 995, Duration::from_millis(1));
    failed(&series, 5, Code::Trapped, Blame::Worker);
    failed(&series, 500, Code::InvalidInput, Blame::Caller);
    failed(&series, 500, Code::Overloaded, Blame::Host);
    series.refresh();
    let left = series.error_budget_left().expect("a budget");
    assert!((left - 0.5).abs() < 1e-9, "{left}");
    assert!((series.error_rate() - 0.005).abs() < 1e-9);
    failed(&series, 15, Code::Trapped, Blame::Worker);
    series.refresh();
    assert!(series.error_budget_left().expect("a budget") < 0.0);

    // An error budget of its own goes before what the availability leaves.
    let own = promising(Slo {
        availability_pct: Some(99.0),
        error_budget_pct: Some(50.0),
        ..Slo::default()
    });
    answered(&own, 3, Duration::from_millis(1));
    failed(&own, 1, Code::WorkerFailed, Blame::Worker);
    own.refresh();
    assert_eq!(own.error_budget_left(), Some(0.5));

    // What may never fail has no budget to divide by.
    let never = promising(Slo {
        availability_pct: Some(100.0),
        ..Slo::default()
    });
    failed(&never, 1, Code::Trapped, Blame::Worker);
    never.refresh();
    assert_eq!(never.error_budget_left(), Some(-1000.0));

    let silent = promising(Slo::default());
    failed(&silent, 1, Code::Trapped, Blame::Worker);
    silent.refresh();
    assert_eq!(
        (silent.error_budget_left(), silent.error_rate()),
        (None, 1.0)
    );
}

#[test]
fn the_p95_is_predicted_from_the_calls_of_the_last_minute() {
    let series = promising(Slo::default());
    assert_eq!(series.predicted_p95(), None);
    answered(&series, 90, Duration::from_millis(10));
    answered(&series, 10, Duration::from_millis(200));
    series.refresh();
    let p95 = series.predicted_p95().expect("calls").as_secs_f64() * 1e3;
    assert!((194.0..207.0).contains(&p95), "{p95}");
}

#[test]
fn a_call_is_paid_where_the_worker_did_its_part() {
    let telemetry = Telemetry::default();
    let series = promising(Slo::default());
    let call = |started: bool, code: Option<Code>| {
        let mut recording = telemetry.record(&series, &by(Some("spiffe://crank.local/ada")));
        if started {
            recording.started(Temperature::Cached, Duration::ZERO);
        }
        recording.end(code);
    };
    call(true, None);
    call(true, Some(Code::InvalidInput));
    // Refused before the worker ran, and failed by its own fault: free.
    call(false, Some(Code::InvalidInput));
    call(true, Some(Code::Trapped));
    call(false, Some(Code::Overloaded));
    // Who hangs up pays for what was begun.
    let mut gone = telemetry.record(&series, &by(None));
    gone.started(Temperature::Fresh, Duration::ZERO);
    drop(gone);
    drop(telemetry.record(&series, &by(None)));
    let accounts = telemetry.shared.ledger.accounts();
    let spent = |tenant: &str| {
        let spent = accounts[tenant]["test:it"];
        (spent.calls, spent.tokens)
    };
    assert_eq!(spent("spiffe://crank.local/ada"), (2, 0.5));
    assert_eq!(spent("anonymous"), (1, 0.25));
    assert_eq!(series.live().count(End::Cancelled), 2);
    assert_eq!(series.live().cold_starts(), 3);
}

#[test]
fn a_worker_that_hangs_does_not_look_fast() {
    let telemetry = Telemetry::default();
    let series = promising(Slo {
        latency_p95_ms: Some(1),
        ..Slo::default()
    });
    let mut recording = telemetry.record(&series, &by(None));
    recording.given(Duration::from_millis(5));
    recording.started(Temperature::Fresh, Duration::ZERO);
    std::thread::sleep(Duration::from_millis(5));
    recording.end(Some(Code::Deadline));
    let kept = series.kept().expect("a promise");
    assert_eq!(
        serde_json::to_value(kept).expect("JSON")["missed"],
        serde_json::json!(["latency_p95_ms"])
    );
    assert_eq!(
        series
            .live()
            .count(End::Failed(Code::Deadline, Blame::Worker)),
        1
    );
}

#[test]
fn what_nobody_offers_and_no_window_holds_is_forgotten() {
    let telemetry = Telemetry::default();
    let key = |name: &str| Key {
        worker_id: name.into(),
        capability: "test:it".into(),
        version: "1.0.0".into(),
    };
    let offered = telemetry.series(key("offered"), Terms::default());
    answered(
        &telemetry.series(key("called"), Terms::default()),
        1,
        Duration::ZERO,
    );
    drop(telemetry.series(key("neither"), Terms::default()));
    telemetry.prune();
    let left: Vec<Key> = telemetry.all().keys().cloned().collect();
    assert_eq!(left, [key("called"), key("offered")]);
    drop(offered);
}
