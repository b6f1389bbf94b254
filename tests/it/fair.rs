//! Who gets the CPU when more guests want it than there are cores.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Code;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;

use crate::support::component::{Wat, bursting, runaway};
use crate::support::{call, config, dir, engine, guest, invoke, place, run};

/// An engine of its own, so that no other test's guests compete, with these workers and hello-world.
async fn workers(wats: &[(String, Wat)]) -> Arc<Router> {
    let dir = dir();
    let mut files = vec![guest("hello-world")];
    files.extend(
        wats.iter()
            .map(|(name, wat)| place(&dir, name, &wat.build())),
    );
    let engine = engine(dir.path());
    let snapshot = Snapshot::load(&engine, &config(""), files).await;
    assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
    Arc::new(Router::new(Registry::new(snapshot)))
}

/// Starts invocations of a runaway that end after `time`.
fn start(
    router: &Arc<Router>,
    name: &str,
    count: usize,
    time: Duration,
) -> Vec<tokio::task::JoinHandle<()>> {
    let invocation = || {
        let (router, mut call) = (router.clone(), call(&format!("misbehave:{name}"), "{}"));
        call.timeout = Some(time);
        tokio::spawn(async move {
            // Polled at each millisecond too, as by a busy connection: that wins nothing.
            let mut tick = tokio::time::interval(Duration::from_millis(1));
            let mut ended = std::pin::pin!(router.invoke(call));
            let ended = loop {
                tokio::select! {
                    ended = &mut ended => break ended.expect_err("it never answers"),
                    _ = tick.tick() => {}
                }
            };
            assert_eq!(ended.code, Code::Deadline);
        })
    };
    (0..count).map(|_| invocation()).collect()
}

/// Workers at shares 1:2:4:8 that all compute get CPU time in that proportion, though the lightest has
/// twice as many invocations in flight as the heaviest. The bound is wide, since other tests compete
/// too; docs/benchmarks.md has the figures of a machine of its own.
#[test]
fn workers_that_compete_get_cpu_by_their_shares() {
    run(async {
        let shares = [512, 1024, 2048, 4096];
        let named = shares.map(|shares| {
            let name = format!("share_{shares}");
            let wat = runaway(&name, shares);
            (name, wat)
        });
        let router = workers(&named).await;
        let running: Vec<_> = named
            .iter()
            .zip([8, 4, 4, 4])
            // The heaviest first: what the first computes before anyone competes is its own.
            .rev()
            .flat_map(|((name, _), count)| start(&router, name, count, Duration::from_secs(4)))
            .collect();
        for invocation in running {
            invocation.await.expect("it ends as it should");
        }
        let used = named.each_ref().map(|(name, _)| cpu_seconds(&router, name));
        let total: f64 = used.iter().sum();
        for (used, shares) in used.into_iter().zip(shares) {
            let (got, due) = (used / total, f64::from(shares) / 7680.0);
            println!(
                "share {shares}: {:.1} % of the CPU, {:.1} % due",
                got * 100.0,
                due * 100.0
            );
            assert!(
                (got / due - 1.0).abs() < 0.3,
                "{got:.3} of the CPU, {due:.3} due"
            );
        }
    });
}

/// Seconds of CPU time that a worker has used.
fn cpu_seconds(router: &Router, name: &str) -> f64 {
    let id = format!("worker-{name}").replace('_', "-");
    let snapshot = router.registry().snapshot();
    let mut workers = snapshot.workers().iter();
    let worker = workers.find(|worker| **worker.id() == *id);
    let observed = worker.expect("it is loaded").observed();
    observed.cpu_total.as_secs_f64()
}

/// A worker that computes in bursts just under a tick, waiting in a host function between them, gets no
/// more than a worker of the same weight that simply computes.
#[test]
fn a_worker_that_computes_in_short_bursts_gets_no_more_than_its_share() {
    run(async {
        let named = [
            ("bursting".to_owned(), bursting("bursting", 1024, 800)),
            ("plain".to_owned(), runaway("plain", 1024)),
        ];
        let router = workers(&named).await;
        let time = Duration::from_secs(3);
        let mut running = start(&router, "bursting", 24, time);
        running.extend(start(&router, "plain", 8, time));
        for invocation in running {
            invocation.await.expect("it ends as it should");
        }
        let [bursting, plain] = ["bursting", "plain"].map(|name| cpu_seconds(&router, name));
        println!("bursts: {bursting:.2} s of CPU, a plain loop: {plain:.2} s");
        assert!(bursting < plain * 1.2, "{bursting:.2} s to {plain:.2} s");
    });
}

/// A short call finds a thread at once, however many guests compute.
#[test]
fn a_short_call_is_answered_while_many_guests_compute() {
    run(async {
        let router = workers(&[("loop".to_owned(), runaway("loop", 1024))]).await;
        let hello = async || {
            let began = Instant::now();
            let answered = invoke(&router, "greet:hello_world", r#"{"name": "Ada"}"#).await;
            answered.expect("a neighbour is answered");
            began.elapsed()
        };
        for _ in 0..20 {
            hello().await;
        }
        let running = start(&router, "loop", 32, Duration::from_secs(2));
        tokio::time::sleep(Duration::from_millis(100)).await;
        let mut times = Vec::new();
        for _ in 0..200 {
            times.push(hello().await);
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        times.sort();
        println!(
            "beside 32 loops: p50 {:?}, p99 {:?}",
            times[100], times[198]
        );
        // With plain yields in place of the gate each call waits for a turn of most of the loops.
        assert!(
            times[100] < Duration::from_millis(10),
            "p50 {:?}",
            times[100]
        );
        for invocation in running {
            invocation.await.expect("it ends as it should");
        }
    });
}
