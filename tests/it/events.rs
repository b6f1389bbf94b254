//! What workers tell unasked: events to the caller, lines to the log. Neither can be flooded or forged.

use std::time::{Duration, Instant};

use crank::error::Code;
use crank::router::EVENTS_BUFFERED;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::{call, code, done, hostile, log, run};

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
