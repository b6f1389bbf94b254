//! Workers that behave beside workers that do not, many at once: every call is answered, each as it
//! must be, and nothing is left behind.

use std::sync::Arc;
use std::time::Duration;

use crank::error::Code;
use crank::registry::{Registry, Snapshot};
use crank::router::{EVENTS_BUFFERED, Router};
use futures_util::StreamExt;
use serde_json::json;
use tokio::sync::mpsc;

use crate::support::component::{Wat, capability};
use crate::support::{call, config, dir, engine, guest, place, run};

/// Calls of each kind.
const EACH: usize = 60;
/// Calls at once: no worker has so few slots that one has to wait.
const AT_ONCE: usize = 30;

/// One kind of call, and how each of its calls ends.
struct Kind {
    capability: &'static str,
    input: &'static str,
    /// Within which it ends, where it would not end by itself.
    timeout: Option<Duration>,
    /// Nobody reads its events.
    unread: bool,
    ends: Result<&'static str, Code>,
}

const fn kind(
    capability: &'static str,
    input: &'static str,
    ends: Result<&'static str, Code>,
) -> Kind {
    Kind {
        capability,
        input,
        timeout: None,
        unread: false,
        ends,
    }
}

const FLOOD: &str = r#"{"count": 4000000000, "event": "flood", "bytes": 100}"#;
const ENDLESS: Option<Duration> = Some(Duration::from_millis(200));

const KINDS: [Kind; 11] = [
    kind("greet:hello_world", r#"{"name": "Ada"}"#, Ok("Hello, Ada!")),
    kind(
        "convert:text_to_stream",
        r#"{"text": "One. Two."}"#,
        Ok("chunks"),
    ),
    kind("misbehave:compute", "{}", Ok("{}")),
    kind("misbehave:grow", "{}", Ok("{}")),
    Kind {
        timeout: ENDLESS,
        ..kind("misbehave:spin", "{}", Err(Code::Deadline))
    },
    kind("misbehave:burn", "{}", Err(Code::CpuLimit)),
    kind("misbehave:hog", "{}", Err(Code::MemoryLimit)),
    kind("misbehave:trap", "{}", Err(Code::Trapped)),
    kind(
        "misbehave:panic",
        r#"{"message": "no"}"#,
        Err(Code::Trapped),
    ),
    Kind {
        timeout: ENDLESS,
        ..kind("misbehave:send_events", FLOOD, Err(Code::Deadline))
    },
    Kind {
        timeout: ENDLESS,
        unread: true,
        ..kind("misbehave:send_events", FLOOD, Err(Code::Deadline))
    },
];

/// Workers of one capability each, from what their `handle` does.
fn wats() -> [(&'static str, Wat); 6] {
    [
        (
            "compute",
            "(loop $again
                (global.set $n (i32.add (global.get $n) (i32.const 1)))
                (br_if $again (i32.lt_u (global.get $n) (i32.const 1000000))))",
        ),
        ("grow", "(drop (memory.grow (i32.const 64)))"),
        ("spin", "(loop $again (br $again))"),
        ("burn", "(loop $again (br $again))"),
        (
            "hog",
            "(loop $again (drop (memory.grow (i32.const 100))) (br $again))",
        ),
        ("trap", "(unreachable)"),
    ]
    .map(|(name, handle)| {
        let mut wat = Wat::new(&format!("worker-{name}"), json!([capability(name)]));
        wat.handle = handle.to_owned();
        wat.items = "(global $n (mut i32) (i32.const 0))".to_owned();
        (name, wat)
    })
}

/// An engine of its own: no other test's instances take its places.
async fn router() -> Arc<Router> {
    let dir = dir();
    let mut files = ["hello-world", "document-conversion", "hostile"]
        .map(guest)
        .to_vec();
    files.extend(wats().map(|(name, wat)| place(&dir, name, &wat.build())));
    let config = config("[workers.burn]\ncpu_ms = 50");
    let snapshot = Snapshot::load(&engine(dir.path()), &config, files).await;
    assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
    Arc::new(Router::new(Registry::new(snapshot)))
}

/// Makes one call, which must end as its kind does.
async fn one(router: &Router, kind: &Kind) {
    let mut call = call(kind.capability, kind.input);
    call.timeout = kind.timeout;
    let (sender, _unread) = mpsc::channel(EVENTS_BUFFERED);
    call.events = kind.unread.then_some(sender);
    let ended = router.invoke(call).await;
    match (&kind.ends, ended) {
        (Ok(words), Ok(answer)) => {
            let text = String::from_utf8_lossy(&answer.payload.body);
            assert!(text.contains(words), "{}: {text}", kind.capability);
        }
        (Err(code), Err(failure)) => {
            assert_eq!(failure.code, *code, "{}: {failure}", kind.capability);
        }
        (_, ended) => panic!("{}: {ended:?}", kind.capability),
    }
}

#[test]
fn every_call_of_a_wild_mix_is_answered_as_it_must_be() {
    run(async {
        let router = router().await;
        // Kinds alternate, so that good ones and runaways are always in flight together.
        let calls = (0..EACH * KINDS.len()).map(|at| {
            let router = router.clone();
            tokio::spawn(async move { one(&router, &KINDS[at % KINDS.len()]).await })
        });
        let mut answered = 0;
        let mut ended = futures_util::stream::iter(calls).buffer_unordered(AT_ONCE);
        while let Some(call) = ended.next().await {
            call.expect("it ends as its kind does");
            answered += 1;
        }
        assert_eq!(answered, EACH * KINDS.len());

        let snapshot = router.registry().snapshot();
        let mut calls = 0;
        for worker in snapshot.workers() {
            let seen = worker.observed();
            assert_eq!(
                (seen.in_flight, seen.queued, seen.refused),
                (0, 0, 0),
                "{}",
                worker.id()
            );
            calls += seen.calls;
        }
        assert_eq!(calls, (EACH * KINDS.len()) as u64);
        assert_eq!(router.admission().in_flight(), 0);
    });
}
