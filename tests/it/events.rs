//! What workers tell unasked: events to the caller, lines to the log. Neither can be flooded or forged.

use std::time::{Duration, Instant};

use crank::error::Code;
use crank::router::EVENTS_BUFFERED;
use serde_json::{Value, json};
use tokio::sync::mpsc;

use crate::support::component::{Wat, capability};
use crate::support::{Host, call, code, dir, done, guest, hostile, log, place, router, run};

#[test]
fn every_event_arrives_before_the_answer() {
    run(async {
        let router = hostile("").await;
        let (sender, mut events) = mpsc::channel(EVENTS_BUFFERED);
        let mut call = call(
            "misbehave:send_events",
            r#"{"count": 200, "event": "progress", "bytes": 10}"#,
        );
        call.events = Some(sender);
        let calling = tokio::spawn(async move { router.invoke(call).await });
        let mut seen = 0;
        while let Some(event) = events.recv().await {
            assert_eq!(event.event.as_deref(), Some("progress"));
            assert_eq!(event.data.len(), 10);
            seen += 1;
        }
        assert_eq!(seen, 200);
        assert!(calling.await.expect("no panic").is_ok());
    });
}

#[test]
fn a_worker_whose_caller_does_not_read_ends_at_its_deadline() {
    run(async {
        let router = hostile("[workers.hostile]\nwall_ms = 300").await;
        let flood = r#"{"count": 4000000000, "event": "flood", "bytes": 1}"#;
        let (sender, unread) = mpsc::channel(EVENTS_BUFFERED);
        let mut call = call("misbehave:send_events", flood);
        call.events = Some(sender);
        let began = Instant::now();
        assert_eq!(
            router.invoke(call).await.expect_err("it waits").code,
            Code::Deadline
        );
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        assert_eq!(unread.len(), EVENTS_BUFFERED);
    });
}

#[test]
fn a_worker_whose_caller_has_gone_hears_of_it() {
    run(async {
        let router = hostile("").await;
        let (sender, gone) = mpsc::channel(EVENTS_BUFFERED);
        drop(gone);
        let mut call = call(
            "misbehave:send_events",
            r#"{"count": 1000, "event": "news", "bytes": 1}"#,
        );
        call.events = Some(sender);
        let answer = router.invoke(call).await.expect("it stops by itself");
        assert_eq!(&*answer.payload.body, br#"{"done":0}"#);
    });
}

#[test]
fn an_event_may_not_pass_for_the_hosts_own_nor_break_the_wire() {
    run(async {
        let router = hostile("").await;
        for event in ["result", "error", "a\nb", "a\rb", "a\u{0}b"] {
            let input = json!({ "count": 1, "event": event, "bytes": 1 }).to_string();
            assert_eq!(
                code(&router, "misbehave:send_events", &input).await,
                Code::Trapped,
                "{event:?}"
            );
        }
        // An event may have 64 KiB; what is more is refused, before or after it is copied.
        let input = json!({ "count": 1, "event": "news", "bytes": 64 << 10 }).to_string();
        done(&router, "misbehave:send_events", &input).await;
        let input = json!({ "count": 1, "event": "news", "bytes": (64 << 10) + 1 }).to_string();
        assert_eq!(
            code(&router, "misbehave:send_events", &input).await,
            Code::OutputLimit
        );
        let input = json!({ "count": 1, "event": "news", "bytes": 33 << 20 }).to_string();
        assert_eq!(
            code(&router, "misbehave:send_events", &input).await,
            Code::OutputLimit
        );
    });
}

#[test]
fn a_flood_of_log_lines_is_capped_and_cannot_forge_a_line() {
    run(async {
        let router = hostile("").await;
        let line = "spam-\u{1b}[31m\r\nFORGED line";
        let input = json!({ "count": 20_000, "line": line }).to_string();
        assert_eq!(
            done(&router, "misbehave:write_log", &input).await["done"],
            20_000
        );
        let log = log();
        let spam: Vec<&str> = log.lines().filter(|line| line.contains("spam-")).collect();
        assert!((100..5_000).contains(&spam.len()), "{} lines", spam.len());
        assert!(
            spam.iter().all(|line| !line.contains(char::is_control)),
            "{:?}",
            spam[0]
        );
        assert!(!log.lines().any(|line| line.starts_with("FORGED")));
        assert!(
            log.lines()
                .any(|line| line.contains("dropped") && line.contains("worker-hostile"))
        );
    });
}

/// Asks a hostile capability for a stream, with one header more.
async fn stream(host: &Host, name: &str, header: (&str, &str), input: &Value) -> (u16, String) {
    let request = host
        .client
        .post(host.url(&format!("/invoke/misbehave/{name}")))
        .header("accept", "text/event-stream")
        .header(header.0, header.1)
        .json(input);
    let answer = request.send().await.expect("the host answers");
    (answer.status().as_u16(), answer.text().await.expect("text"))
}

#[test]
fn a_silent_stream_has_a_heart_that_beats() {
    run(async {
        let beat = Duration::from_millis(50);
        let host = Host::of(hostile("").await, |settings| settings.heartbeat = beat).await;
        let timeout = ("crank-timeout-ms", "1000");
        let (status, text) = stream(&host, "loop_forever", timeout, &json!({})).await;
        assert_eq!(status, 200);
        let (beats, end) = text.split_once("event: error\n").expect("it ends late");
        assert!(beats.len() >= 3 * 3, "{text}");
        assert_eq!(beats.replace(":\n\n", ""), "");
        assert!(end.contains(r#""code":"deadline""#), "{text}");
    });
}

#[test]
fn a_stream_that_broke_off_is_neither_resumed_nor_run_again_unasked() {
    run(async {
        let router = hostile("").await;
        let host = Host::of(router.clone(), |_| {}).await;
        let input = json!({ "count": 1, "event": "note", "bytes": 1 });
        for id in ["7", ""] {
            let (status, text) = stream(&host, "send_events", ("last-event-id", id), &input).await;
            assert_eq!(status, 400, "{text}");
            assert!(text.contains(r#""code":"invalid-request""#), "{text}");
            assert!(text.contains("made anew"), "{text}");
        }
        let snapshot = router.registry().snapshot();
        assert_eq!(snapshot.workers()[0].observed().calls, 0);
    });
}

#[test]
fn events_of_a_peer_are_its_callers_matter() {
    run(async {
        let files = ["relay", "hostile", "streaming", "document-conversion"].map(guest);
        let router = router(files.into(), "").await;
        let events = json!({ "count": 3, "event": "note", "bytes": 1 });
        let text = json!({ "text": "One. Two." });
        let array = json!([
            { "id": "1", "event": "chunk", "data": "One." },
            { "id": "2", "event": "chunk", "data": "Two." },
            { "event": "done", "data": r#"{"chars":8,"chunks":2}"# },
        ]);
        for (to, input, expected) in [
            ("misbehave:send_events", events, json!({ "done": 3 })),
            // What produces events answers a peer with them.
            ("stream:sse_events", text, array),
        ] {
            let input = json!({ "to": to, "input": input }).to_string();
            let (sender, mut first) = mpsc::channel(EVENTS_BUFFERED);
            let mut call = call("relay:one", &input);
            call.events = Some(sender);
            let answer = router.invoke(call).await.expect("the relay answers");
            assert!(
                first.recv().await.is_none(),
                "{to} spoke to the first caller"
            );
            let became: Value = serde_json::from_slice(&answer.payload.body).expect("JSON");
            assert_eq!(became["answer"], expected, "{became}");
        }
    });
}

#[test]
fn what_produces_events_answers_with_nothing_else() {
    run(async {
        let mut offered = capability("stream");
        offered["produces"] = json!("text/event-stream");
        let worker = |body: &str| {
            let mut wat = Wat::new("worker-stream", json!([offered.clone()]));
            let payload = json!({ "media-type": "text/event-stream", "body": body });
            wat.answer = json!({ "ok": payload });
            wat.build()
        };
        let dir = dir();
        let silent = router(vec![place(&dir, "silent", &worker(""))], "").await;
        assert_eq!(done(&silent, "misbehave:stream", "{}").await, json!([]));
        let both = router(vec![place(&dir, "both", &worker("data: x\n\n"))], "").await;
        assert_eq!(
            code(&both, "misbehave:stream", "{}").await,
            Code::InvalidOutput
        );
    });
}
