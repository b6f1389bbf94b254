//! Spans, as a collector takes them.

use crank::admission::Admission;
use crank::registry::Registry;
use crank::router::Router;
use crank::telemetry::{Asked, Key, Telemetry, Terms};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::mpsc;

use super::{placed, promising};
use crate::support::{call, dir, load, run};

/// Takes what is posted to it, whole requests one after the other, and answers each with 200.
async fn collector() -> (String, mpsc::UnboundedReceiver<Vec<u8>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}", listener.local_addr().expect("an address"));
    let (sender, received) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !is_whole(&request) && stream.read_buf(&mut request).await.expect("bytes") > 0 {}
            let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
            stream.write_all(answer).await.expect("it is read");
            // Nobody may wait for it any more.
            let _ = sender.send(request);
        }
    });
    (url, received)
}

fn is_whole(request: &[u8]) -> bool {
    let Some(end) = request.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
        return false;
    };
    let head = String::from_utf8_lossy(&request[..end]).to_lowercase();
    let length = head
        .lines()
        .find_map(|line| line.strip_prefix("content-length: "));
    request.len() - end - 4 >= length.expect("a length").parse().expect("a number")
}

#[test]
fn a_span_for_each_call_goes_to_the_collector_below_the_callers() {
    run(async {
        let (url, mut received) = collector().await;
        let dir = dir();
        let traced = promising("slo_traced", json!({}));
        let snapshot = load(placed(&dir, &[("traced", &traced)]), "").await;
        let telemetry = Telemetry::default().traced(&url).expect("an exporter");
        let admission = Admission::new(64, || false);
        let router = Router::watched(Registry::new(snapshot), admission, telemetry.clone());
        let mut call = call("misbehave:slo_traced", "{}");
        let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
        call.traceparent = Some(format!("00-{trace}-00f067aa0ba902b7-01"));
        let id = call.request_id.clone();
        router.invoke(call).await.expect("it answers");
        let closing = tokio::task::spawn_blocking(move || telemetry.close());
        closing.await.expect("no panic");

        let request = received.recv().await.expect("a batch");
        let has = |bytes: &[u8]| request.windows(bytes.len()).any(|found| found == bytes);
        assert!(has(b"POST /v1/traces HTTP/1.1\r\n"));
        assert!(has(&u128::from_str_radix(trace, 16)
            .expect("hex")
            .to_be_bytes()));
        // The caller's span is the parent.
        assert!(has(&0x00f0_67aa_0ba9_02b7_u64.to_be_bytes()));
        assert!(has(b"misbehave:slo_traced") && has(b"faas.coldstart") && has(id.as_bytes()));
    });
}

#[test]
fn what_a_worker_is_given_names_the_new_span_of_the_same_trace() {
    run(async {
        // Nobody listens there: that costs spans and no call.
        let telemetry = Telemetry::default()
            .traced("http://127.0.0.1:9")
            .expect("an exporter");
        let key = Key {
            worker_id: "worker-test".into(),
            capability: "test:it".into(),
            version: "1.0.0".into(),
        };
        let series = telemetry.series(key, Terms::default());
        let parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7";
        let given = |traceparent: Option<String>| {
            let asked = Asked {
                request_id: "test",
                tenant: None,
                traceparent: traceparent.as_deref(),
                nested: false,
            };
            telemetry
                .record(&series, &asked)
                .traceparent()
                .expect("a span")
        };
        let (sampled, not) = (format!("{parent}-01"), format!("{parent}-00"));
        let inner = given(Some(sampled.clone()));
        assert_eq!(inner.len(), sampled.len());
        assert!(
            inner.starts_with(&parent[..36]) && inner.ends_with("-01"),
            "{inner}"
        );
        assert_ne!(inner, sampled);
        // Who did not want it sampled gets that handed on.
        assert!(given(Some(not)).ends_with("-00"));
        assert!(given(None).ends_with("-01"));
        // And without a collector, the caller's is handed on as it is.
        let asked = Asked {
            request_id: "test",
            tenant: None,
            traceparent: Some(&sampled),
            nested: false,
        };
        assert_eq!(
            Telemetry::default().record(&series, &asked).traceparent(),
            None
        );
        drop(tokio::task::spawn_blocking(move || telemetry.close()));
    });
}
