//! Overload: what a host still does when four times as much is asked of it as it can do.
//!
//!     cargo bench --bench overload [-- SECONDS [MILLISECONDS]]
//!
//! One worker that computes for some milliseconds (4, if none are given), called over HTTP, in one run: its capacity (closed
//! loop), the latency of an idle host, four times the capacity (open loop: who is not answered does not
//! slow down who comes next), the latency again one second after the last call of the burst, and the
//! capacity again; three rounds. Calls of two capabilities come mixed, one bids more than the other. The
//! generator is a process of its own on a core of its own; the host has the others. Exits 1 if the host
//! does not keep what the documentation promises.

mod common;
#[path = "../tests/it/support/component.rs"]
#[allow(dead_code)]
mod component;

use std::net::SocketAddr;
use std::process::{Command, ExitCode, Stdio};
use std::sync::{Arc, Mutex};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use common::{Random, allowed_cores, config, pin};
use component::{Wat, capability};
use crank::admission::Admission;
use crank::engine::{self, Engine, Settings};
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use serde_json::{Value, json};
use tokio::runtime::Runtime;

/// The argument that makes this program the generator.
const GENERATE: &str = "--generate";
/// Turns of the worker's loop in a millisecond, about.
const TURNS: u32 = 1_000_000;
/// How much of the capacity the burst asks for.
const OVERLOAD: f64 = 4.0;
/// The part of the calls that bids more.
const DEAR: f64 = 0.15;
/// Rounds of one run: the median counts.
const ROUNDS: usize = 3;
/// Seconds of burst that stand for none: only what a refusal costs is measured.
const REFUSALS: u64 = 0;
/// What a caller's patience is.
const PATIENCE: Duration = Duration::from_secs(1);
/// After the burst, how long until latency is as before.
const RECOVERY: Duration = Duration::from_secs(1);

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1).filter(|given| given != "--bench");
    let first = arguments.next();
    if first.as_deref() == Some(GENERATE) {
        generate(&arguments.collect::<Vec<_>>());
        return ExitCode::SUCCESS;
    }
    let seconds = first.map_or(5, |text| text.parse().expect("a number of seconds"));
    let cores = allowed_cores();
    if let [_, own @ ..] = &cores[..]
        && !own.is_empty()
    {
        pin(own);
    }
    let work = arguments.next();
    let work = work.map_or(4, |text| text.parse().expect("milliseconds of work"));
    let result = measure(seconds, work, cores[0]);
    report(&result, cores.len())
}

/// Serves the worker, lets the generator call it, and returns what that saw.
fn measure(seconds: u64, work: u32, core: usize) -> Value {
    let runtime = common::runtime(engine::threads());
    let dir = tempfile::tempdir().expect("a directory");
    let config = Arc::new(config());
    let settings = Settings::new(&config.limits, env!("CARGO_BIN_EXE_crank"));
    let engine = Engine::new(settings, Some(dir.path())).expect("an engine");
    let file = dir.path().join("compute.wasm");
    std::fs::write(&file, worker(work)).expect("a file");
    let snapshot = runtime.block_on(Snapshot::load(&engine, &config, vec![file]));
    assert_eq!(snapshot.workers().len(), 1, "{:?}", snapshot.refused());
    let admission = Admission::new(config.limits.concurrency, || false);
    let router = Arc::new(Router::with(Registry::new(snapshot), admission));
    let listener = runtime
        .block_on(tokio::net::TcpListener::bind("127.0.0.1:0"))
        .expect("a loopback port");
    let address = listener.local_addr().expect("an address");
    let api = crank::api::Settings {
        // All callers are one address here, as behind a load balancer.
        address_connections: 0,
        ..crank::api::Settings::from(&*config)
    };
    runtime.spawn(crank::api::serve(
        listener,
        router.clone(),
        api,
        std::future::pending(),
    ));

    let generated = |seconds: u64| -> Value {
        let output = Command::new(std::env::current_exe().expect("this program"))
            .args([
                GENERATE,
                &address.to_string(),
                &core.to_string(),
                &seconds.to_string(),
            ])
            .stderr(Stdio::inherit())
            .output()
            .expect("the generator runs");
        assert!(output.status.success(), "the generator failed");
        serde_json::from_slice(&output.stdout).expect("JSON")
    };
    refusals(&runtime, &router, || generated(REFUSALS));
    let mut result = generated(seconds);
    let seen = router.registry().snapshot().workers()[0].observed();
    result["in_flight_at_end"] =
        json!(seen.in_flight + seen.queued + router.admission().in_flight());
    result["cpu_ms_per_call"] = json!(seen.cpu_total.as_secs_f64() * 1e3 / seen.calls as f64);
    result
}

/// What the host spends on a call that it refuses: every slot and every place in line is taken, and nothing
/// runs. Beside it the host's cheapest answer of all.
fn refusals(runtime: &Runtime, router: &Router, generate: impl FnOnce() -> Value) {
    let snapshot = router.registry().snapshot();
    let lane = snapshot.workers()[0].lane();
    let (admission, far) = (router.admission(), Instant::now() + 100 * PATIENCE);
    let _runtime = runtime.enter();
    let mut taken: Vec<_> = (0..1000)
        .map(|_| Box::pin(admission.admit(lane, f64::MAX, far)))
        .collect();
    let mut context = Context::from_waker(Waker::noop());
    let held: Vec<_> = taken
        .iter_mut()
        .map(|asked| asked.as_mut().poll(&mut context))
        .collect();
    let figures = generate();
    println!(
        "host's CPU time for a refusal: {:.1} µs; for an answer of /healthz: {:.1} µs",
        figures["refusal"].as_f64().unwrap_or(f64::NAN),
        figures["health"].as_f64().unwrap_or(f64::NAN)
    );
    drop(held);
}

/// `misbehave:cheap` and `misbehave:dear`: the same work, another bid.
fn worker(work: u32) -> Vec<u8> {
    let turns = work.saturating_mul(TURNS);
    let mut offered = ["cheap", "dear"].map(capability);
    offered[0]["slo-bid"] = json!(1.0);
    offered[1]["slo-bid"] = json!(10.0);
    let mut wat = Wat::new("worker-compute", json!(offered));
    wat.items = "(global $n (mut i32) (i32.const 0))".to_owned();
    wat.handle = format!(
        "(loop $again
            (global.set $n (i32.add (global.get $n) (i32.const 1)))
            (br_if $again (i32.lt_u (global.get $n) (i32.const {turns}))))"
    );
    wat.build()
}

fn report(result: &Value, cores: usize) -> ExitCode {
    println!("cores: {cores}, one of them the generator's");
    println!(
        "CPU time of a call: {:.2} ms",
        result["cpu_ms_per_call"].as_f64().unwrap_or(f64::NAN)
    );
    let rounds: Vec<Round> = result["rounds"]
        .as_array()
        .into_iter()
        .flatten()
        .map(Round)
        .collect();
    for (at, round) in rounds.iter().enumerate() {
        println!("round {}", at + 1);
        round.print();
    }
    let median =
        |name: fn(&Round) -> f64| percentile(&mut rounds.iter().map(name).collect::<Vec<_>>(), 0.5);
    let goodput = median(|round| round.goodput());
    let recovered = median(|round| round.recovered());
    println!(
        "median: goodput {goodput:.3} of the capacity, latency after the burst {recovered:.2} of that before"
    );
    let every = |kept: fn(&Round) -> bool| rounds.iter().all(kept);
    let kept = [
        ("goodput of 0.9 of the capacity", goodput >= 0.9),
        (
            "every refused call says when to come back",
            every(|round| round.number("/refused_without_retry") == 0.0),
        ),
        (
            "no call is lost",
            every(|round| round.0["lost"] == json!([])),
        ),
        (
            "a higher bid waits less",
            every(|round| round.number("/dear/wait_mean") < round.number("/cheap/wait_mean")),
        ),
        ("latency as before within a second", recovered < 1.5),
        ("nothing left in flight", result["in_flight_at_end"] == 0),
    ];
    for (what, kept) in kept {
        println!("{}: {what}", if kept { "kept  " } else { "BROKEN" });
    }
    ExitCode::from(u8::from(!kept.iter().all(|(_, kept)| *kept)))
}

/// What the generator saw in one round.
struct Round<'a>(&'a Value);

impl Round<'_> {
    fn number(&self, path: &str) -> f64 {
        self.0
            .pointer(path)
            .and_then(Value::as_f64)
            .unwrap_or(f64::NAN)
    }

    /// Good answers per second in the burst, as a part of the capacity.
    fn goodput(&self) -> f64 {
        self.number("/goodput") / self.number("/capacity")
    }

    /// The median latency after the burst over that before.
    fn recovered(&self) -> f64 {
        self.number("/after/p50") / self.number("/before/p50")
    }

    fn print(&self) {
        let number = |path: &str| self.number(path);
        println!(
            "  capacity {:.0}/s, asked {:.0}/s",
            number("/capacity"),
            number("/asked")
        );
        println!(
            "  goodput {:.0}/s, {:.3} of the capacity",
            number("/goodput"),
            self.goodput()
        );
        println!(
            "  refused {:.0}, told after {:.1} ms (p50), {:.1} ms (p99); ended at their deadline {:.0}",
            number("/refused"),
            number("/refusal_p50"),
            number("/refusal_p99"),
            number("/late"),
        );
        println!(
            "  host's CPU time for an answer: {:.2} ms at capacity, {:.2} ms in the burst, refusals and all",
            number("/cpu_ms"),
            number("/cpu_ms_in_burst"),
        );
        for lost in self.0["lost"].as_array().into_iter().flatten().take(5) {
            println!("  LOST: {lost}");
        }
        for class in ["dear", "cheap"] {
            println!(
                "  {class}: {:.0} of {:.0} answered, which waited {:.1} ms on average",
                number(&format!("/{class}/answered")),
                number(&format!("/{class}/asked")),
                number(&format!("/{class}/wait_mean")),
            );
        }
        for phase in ["before", "after"] {
            println!(
                "  latency {phase}: {:.2} ms (p50), {:.2} ms (p99)",
                number(&format!("/{phase}/p50")),
                number(&format!("/{phase}/p99")),
            );
        }
    }
}

/// What became of one call.
struct Call {
    dear: bool,
    status: u16,
    /// Why there is no answer, or none of those that may come.
    lost: Option<String>,
    retry_after: bool,
    /// Milliseconds that it waited to be admitted, as the host says.
    queued: f64,
    /// From when it was due to its answer.
    took: Duration,
    /// Since the phase began.
    ended: Duration,
}

struct Generator {
    client: reqwest::Client,
    base: String,
    health: String,
}

fn generate(arguments: &[String]) {
    let [address, core, seconds] = arguments else {
        panic!("an address, a core and a number of seconds");
    };
    pin(&[core.parse().expect("a core")]);
    let address: SocketAddr = address.parse().expect("an address");
    let burst = Duration::from_secs(seconds.parse().expect("seconds"));
    let generator = Arc::new(Generator {
        client: reqwest::Client::builder()
            .no_proxy()
            // Less than the host keeps an idle connection: a call must not meet it closing.
            .pool_idle_timeout(Duration::from_secs(5))
            .build()
            .expect("a client"),
        base: format!("http://{address}/invoke/misbehave"),
        health: format!("http://{address}/healthz"),
    });
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("a runtime");
    let result = match burst.is_zero() {
        true => runtime.block_on(costs(&generator)),
        false => runtime.block_on(phases(generator, burst)),
    };
    println!("{result}");
}

/// The host's CPU time for a refusal and for an answer of `/healthz`, in microseconds.
async fn costs(generator: &Generator) -> Value {
    let (mut refusal, mut health) = (Vec::new(), Vec::new());
    for _ in 0..5 {
        let calls = 4000;
        let spent = host_cpu();
        for _ in 0..calls {
            let now = Instant::now();
            let call = generator.call(false, now, now, PATIENCE).await;
            assert_eq!(call.status, 503, "{:?}", call.lost);
        }
        refusal.push((host_cpu() - spent) / f64::from(calls) * 1e6);
        let spent = host_cpu();
        for _ in 0..calls {
            let answer = generator.client.get(&generator.health).send().await;
            answer.expect("an answer").bytes().await.expect("all of it");
        }
        health.push((host_cpu() - spent) / f64::from(calls) * 1e6);
    }
    json!({ "refusal": percentile(&mut refusal, 0.5), "health": percentile(&mut health, 0.5) })
}

async fn phases(generator: Arc<Generator>, burst: Duration) -> Value {
    let closed = Duration::from_secs(3);
    closed_loop(&generator, Duration::from_secs(1)).await;
    let (mut capacity, mut cpu) = closed_loop(&generator, closed).await;
    let mut rounds = Vec::new();
    for _ in 0..ROUNDS {
        let quiet = Duration::from_secs(2);
        let before = open_loop(&generator, capacity / 10.0, quiet, PATIENCE).await;
        let spent = host_cpu();
        let calls = open_loop(&generator, capacity * OVERLOAD, burst, PATIENCE).await;
        let spent = host_cpu() - spent;
        // The second of recovery counts from the last arrival.
        let after = open_loop(&generator, capacity / 10.0, quiet, PATIENCE).await;
        // What else runs on this machine comes and goes: the capacity before and after.
        let (again, cpu_again) = closed_loop(&generator, closed).await;
        let mut round = summary(&calls, burst);
        round["capacity"] = json!((capacity + again) / 2.0);
        let answered = calls.iter().filter(|call| call.status == 200).count();
        round["cpu_ms"] = json!((cpu + cpu_again) / 2.0 * 1e3);
        round["cpu_ms_in_burst"] = json!(spent / answered as f64 * 1e3);
        round["before"] = latency(&before);
        round["after"] = latency(&after);
        rounds.push(round);
        (capacity, cpu) = (again, cpu_again);
    }
    json!({ "rounds": rounds })
}

/// Seconds of CPU time that the host has used: what it has done, whoever else wants the cores.
fn host_cpu() -> f64 {
    let stat = format!("/proc/{}/stat", std::os::unix::process::parent_id());
    let stat = std::fs::read_to_string(stat).expect("the host runs");
    // After the name, which may hold anything, in parentheses: utime and stime are the 14th and 15th of
    // proc_pid_stat(5), in hundredths of a second.
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    let ticks = rest.split_whitespace().skip(11).take(2);
    ticks
        .map(|ticks| ticks.parse::<f64>().expect("a number"))
        .sum::<f64>()
        / 100.0
}

/// Answers per second, and the host's CPU time for each, with as many callers as a worker has slots by
/// default, each with one call after the other.
async fn closed_loop(generator: &Arc<Generator>, time: Duration) -> (f64, f64) {
    let (began, spent) = (Instant::now(), host_cpu());
    let callers = (0..32).map(|_| {
        let generator = generator.clone();
        tokio::spawn(async move {
            let mut answered = 0;
            while began.elapsed() < time {
                let call = generator.call(false, began, Instant::now(), PATIENCE).await;
                answered += u32::from(call.status == 200 && call.ended <= time);
            }
            answered
        })
    });
    let mut answered = 0;
    for caller in callers.collect::<Vec<_>>() {
        answered += caller.await.expect("no panic");
    }
    let cpu = (host_cpu() - spent) / f64::from(answered);
    (f64::from(answered) / time.as_secs_f64(), cpu)
}

/// Calls that come at random (a Poisson process), so many per second, whatever becomes of them. Returns
/// a second after the last came.
async fn open_loop(
    generator: &Arc<Generator>,
    rate: f64,
    time: Duration,
    patience: Duration,
) -> Vec<Call> {
    let calls = Arc::new(Mutex::new(Vec::new()));
    let mut random = Random(0x2545_F491_4F6C_DD1D);
    let began = Instant::now();
    let mut due = began;
    let mut tasks = tokio::task::JoinSet::new();
    loop {
        due += Duration::from_secs_f64(-random.unit().ln() / rate);
        if due - began >= time {
            break;
        }
        tokio::time::sleep_until(due.into()).await;
        let (generator, calls) = (generator.clone(), calls.clone());
        let dear = random.unit() < DEAR;
        tasks.spawn(async move {
            let call = generator.call(dear, began, due, patience).await;
            calls.lock().expect("no panic").push(call);
        });
    }
    tokio::time::sleep_until((began + time + RECOVERY).into()).await;
    tasks.join_all().await;
    Arc::into_inner(calls)
        .expect("all have ended")
        .into_inner()
        .expect("no panic")
}

impl Generator {
    async fn call(&self, dear: bool, began: Instant, due: Instant, patience: Duration) -> Call {
        let name = if dear { "dear" } else { "cheap" };
        let request = self
            .client
            .post(format!("{}/{name}", self.base))
            .header("crank-timeout-ms", patience.as_millis().to_string())
            .body("{}");
        let mut call = Call {
            dear,
            status: 0,
            lost: None,
            retry_after: false,
            queued: 0.0,
            took: Duration::ZERO,
            ended: Duration::ZERO,
        };
        let answered = async {
            let answer = request.send().await?;
            let (status, headers) = (answer.status(), answer.headers().clone());
            // An answer that breaks off is none.
            answer.bytes().await.map(|_| (status, headers))
        };
        match answered.await {
            Ok((status, headers)) => {
                call.status = status.as_u16();
                call.lost = (!matches!(call.status, 200 | 503 | 504)).then(|| status.to_string());
                call.retry_after = headers.contains_key("retry-after");
                call.queued = headers
                    .get("server-timing")
                    .and_then(|value| value.to_str().ok()?.strip_prefix("queue;dur="))
                    .and_then(|rest| rest.split(',').next()?.parse().ok())
                    .unwrap_or_default();
            }
            Err(error) => call.lost = Some(format!("{error:?}")),
        }
        call.took = due.elapsed();
        call.ended = began.elapsed();
        call
    }
}

fn summary(calls: &[Call], time: Duration) -> Value {
    let good = |call: &&Call| call.status == 200;
    let refused: Vec<&Call> = calls.iter().filter(|call| call.status == 503).collect();
    let lost: Vec<&String> = calls.iter().filter_map(|call| call.lost.as_ref()).collect();
    let class = |dear: bool| {
        let asked: Vec<&Call> = calls.iter().filter(|call| call.dear == dear).collect();
        let waited: Vec<f64> = asked
            .iter()
            .copied()
            .filter(good)
            .map(|call| call.queued)
            .collect();
        json!({
            "asked": asked.len(),
            "answered": waited.len(),
            "wait_mean": waited.iter().sum::<f64>() / waited.len() as f64,
        })
    };
    let mut told: Vec<f64> = refused
        .iter()
        .map(|call| call.took.as_secs_f64() * 1e3)
        .collect();
    let in_time = calls
        .iter()
        .filter(good)
        .filter(|call| call.ended <= time)
        .count();
    json!({
        "asked": calls.len() as f64 / time.as_secs_f64(),
        "goodput": in_time as f64 / time.as_secs_f64(),
        "refused": refused.len(),
        "refused_without_retry": refused.iter().filter(|call| !call.retry_after).count(),
        "refusal_p50": percentile(&mut told, 0.5),
        "refusal_p99": percentile(&mut told, 0.99),
        "late": calls.iter().filter(|call| call.status == 504).count(),
        "lost": lost,
        "dear": class(true),
        "cheap": class(false),
    })
}

fn latency(calls: &[Call]) -> Value {
    assert!(
        calls.iter().all(|call| call.status == 200),
        "an idle host answers"
    );
    let mut times: Vec<f64> = calls
        .iter()
        .map(|call| call.took.as_secs_f64() * 1e3)
        .collect();
    json!({ "p50": percentile(&mut times, 0.5), "p99": percentile(&mut times, 0.99) })
}

fn percentile(values: &mut [f64], part: f64) -> f64 {
    values.sort_by(f64::total_cmp);
    let at = (values.len() as f64 * part) as usize;
    values.get(at).copied().unwrap_or(f64::NAN)
}
