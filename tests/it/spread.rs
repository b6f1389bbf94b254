//! Workers that are called often: each thread has a copy, within the same limits.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::engine::{Engine, cores};
use crank::error::Code;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use futures_util::future::join_all;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::component::{Wat, capability};
use crate::support::{call, code, config, dir, done, engine, guest, log, place, router, run};

/// Components that are copied at one time.
const COMPONENTS: usize = 16;

fn engine_of_its_own() -> Engine {
    engine(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("code"))
}

/// A worker that fails where it does not find its memory and its globals as `declare` left them.
fn fresh(name: &str) -> Wat {
    let mut wat = Wat::new(&format!("worker-{name}"), json!([capability(name)]));
    wat.items = "(global $state (mut i32) (i32.const 0))".to_owned();
    wat.declare = "(global.set $state (i32.const 1))".to_owned();
    wat.handle = "(if (i32.gt_u (global.get $state) (i32.const 1)) (then unreachable))
        (if (i32.load offset=65528 (i32.const 0)) (then unreachable))
        (global.set $state (i32.const 2))
        (i32.store offset=65528 (i32.const 0) (i32.const 1))"
        .to_owned();
    wat
}

#[test]
fn every_limit_holds_in_a_copy_and_what_does_not_fit_starts_from_the_original() {
    run(async {
        let engine = engine_of_its_own();
        let settings = config("[workers.hostile]\ncpu_ms = 200\nconcurrency = 40\n");
        let snapshot = Snapshot::load(&engine, &settings, vec![guest("hostile")]).await;
        assert_eq!(snapshot.workers().len(), 1, "{:?}", snapshot.refused());
        let worker = snapshot.workers()[0].clone();
        assert_eq!(worker.spread().await, cores() > 1);
        assert!(!worker.spread().await, "it has copies");
        let router = Arc::new(Router::new(Registry::new(snapshot)));
        for (capability, input, expected) in [
            ("misbehave:loop_forever", "{}", Code::CpuLimit),
            ("misbehave:take_memory", r#"{"mb": 65}"#, Code::MemoryLimit),
            ("misbehave:panic", r#"{"message": "oh"}"#, Code::Trapped),
            (
                "misbehave:recurse",
                r#"{"count": 4000000000}"#,
                Code::Trapped,
            ),
            ("misbehave:return_bytes", r#"{"mb": 33}"#, Code::OutputLimit),
        ] {
            assert_eq!(code(&router, capability, input).await, expected);
        }
        let mut late = call("misbehave:loop_forever", "{}");
        late.timeout = Some(Duration::from_millis(50));
        let late = router.invoke(late).await.expect_err("it loops");
        assert_eq!(late.code, Code::Deadline);

        // All wait at once, on one thread, whose copies are too few.
        let event = r#"{"count": 2, "event": "here", "bytes": 10}"#;
        let (calls, readers): (Vec<_>, Vec<_>) = (0..40)
            .map(|_| {
                let (sender, reader) = mpsc::channel(1);
                let mut call = call("misbehave:send_events", event);
                call.events = Some(sender);
                (router.invoke(call), reader)
            })
            .unzip();
        let read = async {
            while worker.observed().in_flight < 40 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            for mut reader in readers {
                while reader.recv().await.is_some() {}
            }
        };
        let (answers, ()) = tokio::join!(join_all(calls), read);
        for answer in answers {
            answer.expect("there is room for all");
        }
        assert_eq!(
            done(&router, "misbehave:take_memory", r#"{"mb": 37}"#).await["done"],
            37
        );
    });
}

#[test]
fn who_is_called_often_is_copied_and_each_call_starts_anew() {
    run(async {
        let dir = dir();
        let router = router(vec![place(&dir, "often", &fresh("often").build())], "").await;
        let copied = || {
            log().lines().any(|line| {
                line.contains("each thread has a copy") && line.contains("worker-often")
            })
        };
        // As often as a thousand times a second it is called here only where nobody else computes.
        let began = Instant::now();
        while cores() > 1 && !copied() {
            for _ in 0..1024 {
                done(&router, "misbehave:often", "{}").await;
            }
            assert!(began.elapsed() < Duration::from_secs(60));
        }
        for _ in 0..100 {
            done(&router, "misbehave:often", "{}").await;
        }
    });
}

#[test]
fn no_more_components_are_copied_than_there_is_room_for() {
    run(async {
        let (dir, engine) = (dir(), engine_of_its_own());
        let files = (0..=COMPONENTS).map(|number| {
            let name = format!("copied_{number}");
            let wat = Wat::new(
                &format!("worker-copied-{number}"),
                json!([capability(&name)]),
            );
            place(&dir, &name, &wat.build())
        });
        let snapshot = Snapshot::load(&engine, &config(""), files.collect()).await;
        assert_eq!(snapshot.workers().len(), COMPONENTS + 1);
        let (last, others) = snapshot.workers().split_last().expect("some");
        for worker in others {
            assert_eq!(worker.spread().await, cores() > 1);
        }
        assert!(!last.spread().await);
        let last = last.clone();
        drop(snapshot);
        assert_eq!(last.spread().await, cores() > 1);
    });
}
