//! Who may start, who waits and who is sent away: the scheduler alone, then over HTTP.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use crank::admission::{Admission, Lane, Permit};
use crank::error::{Code, Failure};
use crank::registry::Registry;
use crank::router::Router;
use reqwest::StatusCode;
use serde_json::{Value, json};

use crate::support::component::{Wat, capability};
use crate::support::{Host, call, dir, guest, load, place, run};

const LONG: Duration = Duration::from_secs(30);

fn soon(time: Duration) -> Instant {
    Instant::now() + time
}

/// A permit that must be there at once.
async fn at_once<'a>(admission: &'a Admission, lane: &'a Arc<Lane>) -> Permit<'a> {
    let mut asked = pin!(admission.admit(lane, 0.0, soon(LONG)));
    match poll(asked.as_mut()) {
        Some(permit) => permit.expect("there is room"),
        None => panic!("it waits though there is room"),
    }
}

/// Polls once, as a task that nobody wakes.
fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Option<T> {
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        std::task::Poll::Ready(value) => Some(value),
        std::task::Poll::Pending => None,
    }
}

/// Polls until it is ready, for one that has been decided.
async fn decided<'a>(
    asked: Pin<&mut impl Future<Output = Result<Permit<'a>, Failure>>>,
) -> Result<Permit<'a>, Failure> {
    tokio::time::timeout(LONG, asked).await.expect("a verdict")
}

fn assert_refused(refused: Result<Permit<'_>, Failure>) {
    let failure = refused.err().expect("it is refused");
    assert_eq!(failure.code, Code::Overloaded);
    let delay = failure.retry_after.expect("it says when to come back");
    let sane = Duration::from_millis(100)..=Duration::from_secs(60);
    assert!(sane.contains(&delay), "{delay:?}");
}

#[test]
fn who_bids_more_starts_first_and_then_whose_deadline_is_nearest() {
    run(async {
        let (admission, lane) = (Admission::new(10, || false), Arc::new(Lane::new(1, 10)));
        let first = at_once(&admission, &lane).await;
        let started = Mutex::new(Vec::new());
        let wait = |name: &'static str, bid: f64, seconds: u64| {
            let (admission, lane, started) = (&admission, &lane, &started);
            async move {
                let deadline = soon(Duration::from_secs(seconds));
                let _permit = admission.admit(lane, bid, deadline).await.expect("a turn");
                started.lock().expect("no panic").push(name);
                tokio::task::yield_now().await;
            }
        };
        let all = [
            // A zero with a sign bids no more than one without.
            wait("last", -0.0, 900),
            wait("second of its kind", 1.0, 20),
            wait("highest bid", 2.5, 800),
            wait("nearest deadline", 1.0, 10),
            wait("higher bid", 2.0, 10),
        ];
        let mut all = all.map(Box::pin);
        for waiting in &mut all {
            assert!(poll(waiting.as_mut()).is_none());
        }
        assert_eq!((lane.in_flight(), lane.queued()), (1, 5));
        drop(first);
        futures_util::future::join_all(all).await;
        let order = [
            "highest bid",
            "higher bid",
            "nearest deadline",
            "second of its kind",
            "last",
        ];
        assert_eq!(*started.lock().expect("no panic"), order);
        assert_eq!((lane.in_flight(), lane.queued()), (0, 0));
    });
}

#[test]
fn a_line_that_is_full_refuses_its_last() {
    run(async {
        let (admission, lane) = (Admission::new(10, || false), Arc::new(Lane::new(1, 2)));
        let held = at_once(&admission, &lane).await;
        let ask = |bid| Box::pin(admission.admit(&lane, bid, soon(LONG)));
        let (mut low, mut middle) = (ask(1.0), ask(2.0));
        assert!(poll(low.as_mut()).is_none() && poll(middle.as_mut()).is_none());
        // The newcomer is the last.
        assert_refused(decided(ask(0.5).as_mut()).await);
        assert_eq!((lane.queued(), lane.refused()), (2, 1));
        // A newcomer takes the place of the last.
        let mut high = ask(3.0);
        assert!(poll(high.as_mut()).is_none());
        assert_refused(decided(low.as_mut()).await);
        assert_eq!((lane.queued(), lane.refused()), (2, 2));
        drop(held);
        drop(decided(high.as_mut()).await.expect("the first turn"));
        let last = decided(middle.as_mut()).await.expect("the second turn");
        assert!(last.waited() > Duration::ZERO);
        drop(last);

        // No line at all: who finds room starts, who finds none is refused.
        let none = Arc::new(Lane::new(1, 0));
        let held = at_once(&admission, &none).await;
        assert_refused(admission.admit(&none, 9.0, soon(LONG)).await);
        drop(held);
        drop(at_once(&admission, &none).await);
    });
}

#[test]
fn what_would_come_too_late_is_not_started() {
    run(async {
        let (admission, lane) = (Admission::new(10, || false), Arc::new(Lane::new(1, 10)));
        let late = admission.admit(&lane, 0.0, Instant::now()).await;
        assert_eq!(late.err().expect("it is late").code, Code::Deadline);

        // The worker is seen to take 300 ms.
        let held = at_once(&admission, &lane).await;
        tokio::time::sleep(Duration::from_millis(300)).await;
        drop(held);
        let held = at_once(&admission, &lane).await;
        let began = Instant::now();
        let hopeless = admission.admit(&lane, 9.0, soon(Duration::from_millis(250)));
        assert_refused(hopeless.await);
        assert!(began.elapsed() < Duration::from_millis(200), "not at once");
        // One that could make it waits, until it cannot.
        let hopeful = admission.admit(&lane, 0.0, soon(Duration::from_millis(700)));
        assert_refused(hopeful.await);
        assert!(began.elapsed() >= Duration::from_millis(700));
        // Time has run out for one that waits: another is started in its place.
        let mut tight = pin!(admission.admit(&lane, 9.0, soon(Duration::from_millis(550))));
        let mut ample = pin!(admission.admit(&lane, 0.0, soon(LONG)));
        assert!(poll(tight.as_mut()).is_none() && poll(ample.as_mut()).is_none());
        std::thread::sleep(Duration::from_millis(600));
        drop(held);
        assert_refused(decided(tight.as_mut()).await);
        drop(decided(ample.as_mut()).await.expect("its turn"));
        // A worker that runs nothing tries, whatever is known of it.
        let short = admission.admit(&lane, 0.0, soon(Duration::from_millis(50)));
        assert!(short.await.is_ok());
        assert_eq!((lane.in_flight(), lane.queued()), (0, 0));
    });
}

#[test]
fn who_hangs_up_leaves_at_once_and_a_slot_given_at_that_moment_goes_on() {
    run(async {
        let (admission, lane) = (Admission::new(1, || false), Arc::new(Lane::new(1, 10)));
        let held = at_once(&admission, &lane).await;
        let ask = || Box::pin(admission.admit(&lane, 0.0, soon(LONG)));
        let (mut gone, mut unlucky, mut next) = (ask(), ask(), ask());
        for waiting in [&mut gone, &mut unlucky, &mut next] {
            assert!(poll(waiting.as_mut()).is_none());
        }
        drop(gone);
        assert_eq!(lane.queued(), 2);
        // The slot is `unlucky`'s, who never hears of it.
        drop(held);
        assert_eq!(
            (lane.queued(), lane.in_flight(), admission.in_flight()),
            (1, 1, 1)
        );
        drop(unlucky);
        drop(decided(next.as_mut()).await.expect("its turn"));
        assert_eq!((lane.queued(), admission.in_flight()), (0, 0));
    });
}

#[test]
fn a_worker_without_room_holds_up_no_other_and_the_hosts_slot_goes_to_the_best() {
    run(async {
        let admission = Admission::new(2, || false);
        let [full, other, third] = [1, 2, 2].map(|limit| Arc::new(Lane::new(limit, 10)));
        let held = at_once(&admission, &full).await;
        let mut waits = pin!(admission.admit(&full, 100.0, soon(LONG)));
        assert!(poll(waits.as_mut()).is_none());
        let neighbour = at_once(&admission, &other).await;

        // The host is full now. Its next slot is for the best whose worker has one.
        let mut low = pin!(admission.admit(&other, 1.0, soon(LONG)));
        let mut high = pin!(admission.admit(&third, 2.0, soon(LONG)));
        assert!(poll(low.as_mut()).is_none() && poll(high.as_mut()).is_none());
        drop(neighbour);
        let high = decided(high.as_mut()).await.expect("the higher bid");
        assert!(poll(low.as_mut()).is_none() && poll(waits.as_mut()).is_none());
        // Who comes now stands behind those who wait for the host, though its worker is idle.
        let idle = Arc::new(Lane::new(5, 10));
        let mut newcomer = pin!(admission.admit(&idle, 0.0, soon(LONG)));
        assert!(poll(newcomer.as_mut()).is_none());
        drop(high);
        drop(decided(low.as_mut()).await.expect("the lower bid"));
        drop(decided(newcomer.as_mut()).await.expect("the newcomer"));
        assert!(poll(waits.as_mut()).is_none());
        drop(held);
        drop(
            decided(waits.as_mut())
                .await
                .expect("its own worker's slot"),
        );
        assert_eq!(admission.in_flight(), 0);
    });
}

#[test]
fn short_of_memory_a_worker_runs_one_at_a_time() {
    run(async {
        let high = Arc::new(AtomicBool::new(false));
        let admission = Admission::new(10, {
            let high = high.clone();
            move || high.load(SeqCst)
        });
        let [lane, other] = [4, 4].map(|limit| Arc::new(Lane::new(limit, 10)));
        let two = [
            at_once(&admission, &lane).await,
            at_once(&admission, &lane).await,
        ];
        high.store(true, SeqCst);
        let mut waits = pin!(admission.admit(&lane, 0.0, soon(LONG)));
        let mut too = pin!(admission.admit(&lane, 0.0, soon(LONG)));
        assert!(poll(waits.as_mut()).is_none() && poll(too.as_mut()).is_none());
        let neighbour = at_once(&admission, &other).await;
        drop(two);
        let waits = decided(waits.as_mut()).await.expect("it is the only one");
        assert!(poll(too.as_mut()).is_none());
        // Memory comes back with another worker's end.
        high.store(false, SeqCst);
        drop(neighbour);
        drop(decided(too.as_mut()).await.expect("there is memory"));
        drop(waits);

        // Who comes when there is memory again does not overtake who waited for it.
        let narrow = Arc::new(Lane::new(2, 10));
        let held = at_once(&admission, &narrow).await;
        high.store(true, SeqCst);
        let mut waits = pin!(admission.admit(&narrow, 1.0, soon(LONG)));
        assert!(poll(waits.as_mut()).is_none());
        high.store(false, SeqCst);
        let mut newcomer = pin!(admission.admit(&narrow, 0.0, soon(LONG)));
        assert!(poll(newcomer.as_mut()).is_none());
        let waits = decided(waits.as_mut()).await.expect("the newcomer noticed");
        drop((held, waits));
        drop(decided(newcomer.as_mut()).await.expect("its turn"));
        assert_eq!((lane.queued(), admission.in_flight()), (0, 0));
    });
}

/// Many threads, tight limits, callers that hang up at any moment, memory that comes and goes: no
/// limit is passed, nobody is forgotten, and all is as it was.
#[test]
fn whatever_happens_no_limit_is_passed_and_nobody_is_forgotten() {
    const HOST: usize = 5;
    const LIMITS: [usize; 4] = [1, 2, 3, 8];
    run(async {
        for seed in 1..=8 {
            let high = Arc::new(AtomicBool::new(false));
            let memory = high.clone();
            let admission = Arc::new(Admission::new(HOST, move || memory.load(SeqCst)));
            let lanes = LIMITS.map(|limit| Arc::new(Lane::new(limit, 1000)));
            let running: Arc<[AtomicUsize; 5]> = Arc::default();
            let tasks = (0..64).map(|task| {
                let (admission, lanes) = (admission.clone(), lanes.clone());
                let (running, high) = (running.clone(), high.clone());
                let mut random = Random(seed << 32 | task + 1);
                tokio::spawn(async move {
                    for _ in 0..50 {
                        one(&admission, &lanes, &running, &high, &mut random).await;
                    }
                })
            });
            let all = futures_util::future::join_all(tasks.collect::<Vec<_>>());
            let ended = tokio::time::timeout(LONG, all).await;
            for task in ended.expect("nobody is forgotten") {
                task.expect("no limit is passed");
            }
            assert_eq!(admission.in_flight(), 0, "seed {seed}");
            for (lane, limit) in lanes.iter().zip(LIMITS) {
                assert_eq!((lane.in_flight(), lane.queued()), (0, 0), "seed {seed}");
                let room = limit.min(HOST);
                let mut permits = Vec::new();
                high.store(false, SeqCst);
                for _ in 0..room {
                    permits.push(at_once(&admission, lane).await);
                }
            }
        }
    });
}

async fn one(
    admission: &Admission,
    lanes: &[Arc<Lane>; 4],
    running: &[AtomicUsize; 5],
    high: &AtomicBool,
    random: &mut Random,
) {
    let at = random.below(4);
    if random.below(8) == 0 {
        high.store(random.below(2) == 0, SeqCst);
    }
    let bid = random.below(3) as f64;
    let asked = admission.admit(&lanes[at], bid, soon(Duration::from_secs(600)));
    let patience = [0, 0, 50, 200, 1_000_000_000][random.below(5)];
    let patience = Duration::from_micros(patience);
    let Ok(permit) = tokio::time::timeout(patience, asked).await else {
        return;
    };
    let permit = permit.expect("time and places are ample");
    let most = LIMITS_AND_HOST[at];
    assert!(
        running[at].fetch_add(1, SeqCst) < most,
        "the worker's limit"
    );
    assert!(
        running[4].fetch_add(1, SeqCst) < LIMITS_AND_HOST[4],
        "the host's limit"
    );
    match random.below(3) {
        0 => {}
        1 => tokio::task::yield_now().await,
        _ => tokio::time::sleep(Duration::from_micros(100)).await,
    }
    running[at].fetch_sub(1, SeqCst);
    running[4].fetch_sub(1, SeqCst);
    drop(permit);
}

const LIMITS_AND_HOST: [usize; 5] = [1, 2, 3, 8, 5];

/// Xorshift (Marsaglia, 2003): the same numbers each time.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 16) as usize % end
    }
}

/// A host with hello-world and a worker `busy` that loops until its deadline; one at a time, two wait.
/// `misbehave:dear` bids more than `misbehave:cheap`.
async fn busy_host() -> (Host, Arc<Router>) {
    let mut offered = ["cheap", "dear"].map(capability);
    offered[1]["slo-bid"] = json!(1000.0);
    let mut wat = Wat::new("worker-busy", json!(offered));
    wat.handle = "(loop $again (br $again))".to_owned();
    let dir = dir();
    let files = vec![guest("hello-world"), place(&dir, "busy", &wat.build())];
    let toml = "[limits]\nqueue = 2\nmax_slo_bid = 7\n[workers.busy]\nconcurrency = 1";
    let snapshot = load(files, toml).await;
    assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
    let admission = Admission::new(40, || false);
    let router = Arc::new(Router::with(Registry::new(snapshot), admission));
    (Host::of(router.clone(), |_| {}).await, router)
}

fn misbehave(host: &Host, name: &str) -> reqwest::RequestBuilder {
    let url = host.url(&format!("/invoke/misbehave/{name}"));
    host.client.post(url).json(&json!({}))
}

/// Waits until so many run and so many wait at the worker `busy`.
async fn until(router: &Router, in_flight: usize, queued: usize) {
    let began = Instant::now();
    loop {
        let snapshot = router.registry().snapshot();
        let mut workers = snapshot.workers().iter();
        let busy = workers.find(|worker| &**worker.id() == "worker-busy");
        let seen = busy.expect("it is loaded").observed();
        if (seen.in_flight, seen.queued) == (in_flight, queued) {
            return;
        }
        assert!(began.elapsed() < LONG, "{seen:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}

fn assert_overloaded(answer: &reqwest::Response) {
    assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
    let seconds: u64 = answer.headers()["retry-after"]
        .to_str()
        .expect("text")
        .parse()
        .expect("whole seconds");
    assert!((1..=60).contains(&seconds), "{seconds}");
}

#[test]
fn over_http_a_full_worker_refuses_a_neighbour_answers_and_who_hangs_up_makes_room() {
    run(async {
        let (host, router) = busy_host().await;
        let start = |name: &str| tokio::spawn(misbehave(&host, name).send());
        let running = start("cheap");
        until(&router, 1, 0).await;
        let first = start("cheap");
        until(&router, 1, 1).await;
        let second = start("cheap");
        until(&router, 1, 2).await;

        // The newcomer is the last; one that bids more takes the place of the last.
        let refused = misbehave(&host, "cheap").send().await.expect("an answer");
        assert_overloaded(&refused);
        let problem: Value = refused.json().await.expect("a problem");
        assert_eq!(problem["code"], "overloaded");
        assert_eq!(problem["worker_id"], "worker-busy");
        assert!(problem["retry_after"].as_u64() >= Some(1), "{problem}");
        let dear = start("dear");
        assert_overloaded(&second.await.expect("no panic").expect("an answer"));

        // Neither its line nor its loop is a neighbour's.
        for _ in 0..20 {
            let began = Instant::now();
            let url = host.url("/invoke/greet/hello_world");
            let greeted = host.client.post(url).json(&json!({"name": "Ada"}));
            let greeted = greeted.send().await.expect("an answer");
            assert_eq!(greeted.status(), StatusCode::OK);
            let timing = greeted.headers()["server-timing"].to_str().expect("text");
            assert!(
                timing.starts_with("queue;dur=0.000, start;dur="),
                "{timing}"
            );
            assert!(began.elapsed() < Duration::from_secs(5));
        }

        // Who hangs up in line leaves it; who hangs up in flight makes room for the next.
        until(&router, 1, 2).await;
        first.abort();
        until(&router, 1, 1).await;
        running.abort();
        until(&router, 1, 0).await;
        dear.abort();
        until(&router, 0, 0).await;
        assert_eq!(router.admission().in_flight(), 0);
    });
}

#[test]
fn a_bid_counts_up_to_the_operators_ceiling() {
    run(async {
        let (_host, router) = busy_host().await;
        let snapshot = router.registry().snapshot();
        let mut workers = snapshot.workers().iter();
        let busy = workers.find(|worker| &**worker.id() == "worker-busy");
        let bids: Vec<(&str, f64)> = busy
            .expect("it is loaded")
            .offered()
            .iter()
            .map(|offered| (&*offered.id, offered.bid))
            .collect();
        assert_eq!(bids, [("misbehave:cheap", 0.0), ("misbehave:dear", 7.0)]);
    });
}

/// A stream whose head is out has no header left to say when to come back.
#[test]
fn a_stream_that_is_refused_after_waiting_says_when_to_come_back() {
    run(async {
        let (host, router) = busy_host().await;
        let running = tokio::spawn(misbehave(&host, "cheap").send());
        until(&router, 1, 0).await;
        let stream = misbehave(&host, "cheap")
            .header("accept", "text/event-stream")
            .header("crank-timeout-ms", "400")
            .send()
            .await
            .expect("an answer");
        assert_eq!(stream.status(), StatusCode::OK);
        let text = stream.text().await.expect("events");
        let data = text.split("data: ").nth(1).expect("an event");
        let problem: Value = serde_json::from_str(data.trim()).expect("JSON");
        assert!(text.starts_with("event: error\n"), "{text}");
        assert_eq!(
            (&problem["code"], &problem["retry_after"]),
            (&json!("overloaded"), &json!(1))
        );
        running.abort();
        until(&router, 0, 0).await;
    });
}

/// In process, a call that is dropped at any moment leaves nothing behind.
#[test]
fn calls_that_are_dropped_in_line_or_in_flight_leave_nothing_behind() {
    run(async {
        let (_host, router) = busy_host().await;
        for round in 0..200 {
            let call = call("misbehave:cheap", "{}");
            let dropped = router.invoke(call);
            let patience = Duration::from_micros(round % 10 * 100);
            let other = router.invoke(crate::support::call("misbehave:dear", "{}"));
            let both = futures_util::future::join(dropped, other);
            let _ = tokio::time::timeout(patience, both).await;
        }
        until(&router, 0, 0).await;
        assert_eq!(router.admission().in_flight(), 0);
    });
}
