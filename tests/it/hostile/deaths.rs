//! Ten thousand invocations that die, each way in turn, leave nothing behind.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Code;
use crank::router::{EVENTS_BUFFERED, Router};
use futures_util::{StreamExt, stream};
use serde_json::json;
use tokio::sync::mpsc;

use super::together::{Held, in_a_process_of_its_own};
use super::{Wat, calls, doing, returning};
use crate::support::component::capability;
use crate::support::{call, dir, place, router, run};

const DEATHS: usize = 10_000;
/// By then the slots of the pool that are kept warm were used, and every thread has an arena.
const WARM_UP: usize = 10_000;
/// Lives at one time.
const AT_ONCE: usize = 16;
/// What more may be resident afterwards. A kilobyte lost in each death would be 10 MiB; what the
/// allocator and the pool (1 MiB for each of its slots) keep differs by less between two moments.
const TOLERANCE: u64 = 8 << 20;

/// How an invocation comes to its end.
#[derive(Clone, Copy)]
enum Death {
    /// By a limit, a trap or a failure of its own.
    Failing(Code),
    /// Its caller gives it so little time.
    Late,
    /// Its caller hangs up.
    Dropped,
    /// Its caller asked for events and does not read them.
    Unread,
}

const LOOP: &str = "(loop $again (br $again))";

/// Every way to die that is quick.
fn ways() -> Vec<(&'static str, Death, Wat)> {
    use Death::{Dropped, Failing, Late, Unread};
    // Pages that were used: two MiB, more than the pool zeroes by hand.
    let soiled = "(drop (memory.grow (i32.const 40)))
        (memory.fill (i32.const 65536) (i32.const 1) (i32.const 2097152))";
    let realloc = |instructions: &str| Wat {
        realloc: instructions.to_owned(),
        ..doing("")
    };
    let answering = |body: &str| Wat {
        answer: json!({ "ok": { "media-type": "application/json", "body": body } }),
        ..doing("")
    };
    let mut deep = doing("(call $down)");
    deep.items = "(func $down (call $down) (nop))".to_owned();
    let mut after = doing("");
    after.items = r#"(func (export "cabi_post_crank:worker/handler@0.1.0#handle") (param i32)
        (unreachable))"#
        .to_owned();
    vec![
        ("trap", Failing(Code::Trapped), doing("(unreachable)")),
        (
            "soil",
            Failing(Code::Trapped),
            doing(&format!("{soiled} (unreachable)")),
        ),
        ("overflow", Failing(Code::Trapped), deep),
        (
            "lie",
            Failing(Code::Trapped),
            realloc("(return (i32.const -16))"),
        ),
        (
            "wrong_case",
            Failing(Code::Trapped),
            doing(&returning(9, &[])),
        ),
        ("post_return", Failing(Code::Trapped), after),
        (
            "grow",
            Failing(Code::MemoryLimit),
            doing(&format!("{soiled} (drop (memory.grow (i32.const 60000)))")),
        ),
        (
            "grow_in_realloc",
            Failing(Code::MemoryLimit),
            realloc("(drop (memory.grow (i32.const 60000)))"),
        ),
        ("burn", Failing(Code::CpuLimit), doing(LOOP)),
        (
            "huge",
            Failing(Code::OutputLimit),
            doing(&format!(
                "(drop (memory.grow (i32.const 600))) {}",
                returning(0, &[0, 0, 0, 34 << 20])
            )),
        ),
        ("not_json", Failing(Code::InvalidOutput), answering("{")),
        (
            "fail",
            Failing(Code::WorkerFailed),
            doing(&returning(1, &[5])),
        ),
        ("late", Late, doing(LOOP)),
        ("late_asleep", Late, calls::sleeping(3_600_000_000_000)),
        ("dropped", Dropped, doing(&format!("{soiled} {LOOP}"))),
        (
            "dropped_asleep",
            Dropped,
            calls::sleeping(3_600_000_000_000),
        ),
        (
            "unread",
            Unread,
            calls::events(
                "(loop $again
                 (call $send (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                     (i32.const 0) (i32.const 65536) (i32.const 1024) (i32.const 4096))
                 (br $again))",
            ),
        ),
    ]
}

#[test]
fn ten_thousand_invocations_that_die_leave_nothing_behind() {
    in_a_process_of_its_own("hostile::deaths::ten_thousand");
}

#[test]
#[ignore = "runs as a child of the test above"]
fn ten_thousand() {
    run(async {
        let dir = dir();
        let mut files = Vec::new();
        let mut toml = String::new();
        let mut deaths = Vec::new();
        for (name, death, mut wat) in ways() {
            wat.declaration["worker-id"] = json!(format!("worker-{}", name.replace('_', "-")));
            wat.declaration["capabilities"] = json!([capability(name)]);
            files.push(place(&dir, name, &wat.build()));
            // A tick is a millisecond: this is the least that a limit can be.
            let cpu = if name == "burn" { "cpu_ms = 1" } else { "" };
            toml.push_str(&format!("[workers.{name}]\nmemory_mb = 64\n{cpu}\n"));
            deaths.push((name, death));
        }
        let router = router(files, &toml).await;
        die(&router, &deaths, WARM_UP).await;
        let before = Held::now();
        let began = Instant::now();
        die(&router, &deaths, DEATHS).await;
        println!("{DEATHS} deaths took {:?}", began.elapsed());
        Held::now().assert_no_more_than(&before, TOLERANCE);
        let snapshot = router.registry().snapshot();
        assert!(
            snapshot
                .workers()
                .iter()
                .all(|worker| worker.observed().in_flight == 0)
        );
    });
}

async fn die(router: &Arc<Router>, deaths: &[(&'static str, Death)], count: usize) {
    let turns = deaths.iter().cycle().take(count);
    stream::iter(turns)
        .for_each_concurrent(AT_ONCE, |(name, death)| {
            let task = tokio::spawn(one(router.clone(), name, *death));
            async { task.await.expect("it dies as it should") }
        })
        .await;
}

async fn one(router: Arc<Router>, name: &str, death: Death) {
    let mut call = call(&format!("misbehave:{name}"), "{}");
    let (sender, unread) = mpsc::channel(EVENTS_BUFFERED);
    match death {
        Death::Failing(_) => {}
        Death::Late => call.timeout = Some(Duration::from_millis(3)),
        Death::Dropped => call.timeout = None,
        Death::Unread => {
            call.timeout = Some(Duration::from_millis(3));
            call.events = Some(sender);
        }
    }
    if let Death::Dropped = death {
        let running = tokio::time::timeout(Duration::from_millis(3), router.invoke(call));
        assert!(running.await.is_err(), "{name} ended by itself");
        return;
    }
    let failure = router.invoke(call).await.expect_err("it dies");
    let expected = match death {
        Death::Failing(code) => code,
        _ => Code::Deadline,
    };
    assert_eq!(failure.code, expected, "{name}: {failure}");
    drop(unread);
}
