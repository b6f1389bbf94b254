//! A worker that hands calls on: the host's tests follow them. Never serve it.

use std::time::Duration;

use crank_worker::peers::{Call, CallFailure};
use crank_worker::{Capability, Failure, Payload, Request, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// One call to hand on.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
struct To {
    /// `verb:name`, perhaps with a requirement.
    to: String,
    /// What it is given.
    input: Value,
    /// Milliseconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    timeout_ms: Option<u64>,
}

#[derive(Deserialize, JsonSchema)]
struct Several {
    /// All of them at once.
    calls: Vec<To>,
    /// How many answers are waited for; the other calls are dropped.
    #[serde(default)]
    wait_for: Option<usize>,
}

/// What became of a call.
#[derive(Serialize, JsonSchema)]
struct Became {
    /// The peer's answer.
    answer: Option<Value>,
    /// The peer's failure code.
    code: Option<String>,
    /// What the peer says of it.
    message: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct All {
    /// In the order of the calls.
    became: Vec<Became>,
}

fn call(to: To) -> Result<Call, Failure> {
    let call = Call::json(to.to, &to.input)?;
    Ok(match to.timeout_ms {
        Some(ms) => call.timeout(Duration::from_millis(ms)),
        None => call,
    })
}

fn became(ended: Result<Payload, CallFailure>) -> Became {
    match ended {
        Ok(payload) => Became {
            answer: serde_json::from_slice(&payload.body).ok(),
            code: None,
            message: None,
        },
        Err(failure) => Became {
            answer: None,
            code: Some(failure.code),
            message: Some(failure.message),
        },
    }
}

fn one(to: To) -> Result<Became, Failure> {
    Ok(became(call(to)?.invoke()))
}

fn several(input: Several) -> Result<All, Failure> {
    let calls: Vec<_> = input
        .calls
        .into_iter()
        .map(call)
        .collect::<Result<_, _>>()?;
    let pending: Vec<_> = calls.into_iter().map(Call::start).collect();
    let most = input.wait_for.unwrap_or(usize::MAX);
    let became = pending
        .into_iter()
        .take(most)
        .map(|pending| became(pending.wait()));
    Ok(All {
        became: became.collect(),
    })
}

/// Fails as the peer fails, as most workers do.
fn or_fail(to: To) -> Result<Value, Failure> {
    crank_worker::peers::call(&to.to, &to.input)
}

/// Who calls whom: the caller that the worker is told, and the origin.
fn who(_: Value, request: &Request) -> Result<Value, Failure> {
    Ok(json!({ "caller": request.caller, "context": request.context, "id": request.id }))
}

#[derive(Deserialize, JsonSchema)]
struct Depth {
    /// How many more.
    left: u32,
}

/// Capabilities that call each the next.
const HOPS: [&str; 10] = [
    "hop0", "hop1", "hop2", "hop3", "hop4", "hop5", "hop6", "hop7", "hop8", "hop9",
];

fn hop<const N: usize>(input: Depth) -> Result<Value, Failure> {
    if input.left == 0 {
        return Ok(json!({ "reached": HOPS[N] }));
    }
    let next = HOPS.get(N + 1).copied().unwrap_or(HOPS[0]);
    crank_worker::peers::call(&format!("relay:{next}"), &json!({ "left": input.left - 1 }))
}

const PEERS: &[&str] = &[
    "greet:hello_world",
    "misbehave:loop_forever",
    "misbehave:take_memory",
    "misbehave:fail",
    "misbehave:send_events",
    "nobody:offers_this",
    "relay:one",
    "relay:who",
    "stream:sse_events",
];

fn relay() -> Worker {
    Worker::new("worker-relay")
        .offers(relays("one", one).required_capabilities(PEERS))
        .offers(relays("several", several).required_capabilities(PEERS))
        .offers(relays("or_fail", or_fail).required_capabilities(PEERS))
        .offers(relays("narrow", one).required_capabilities(&["greet:hello_world@^1"]))
        .offers(relays("who", who))
        .offers(relays("hop0", hop::<0>).required_capabilities(&["relay:hop1"]))
        .offers(relays("hop1", hop::<1>).required_capabilities(&["relay:hop2"]))
        .offers(relays("hop2", hop::<2>).required_capabilities(&["relay:hop3"]))
        .offers(relays("hop3", hop::<3>).required_capabilities(&["relay:hop4"]))
        .offers(relays("hop4", hop::<4>).required_capabilities(&["relay:hop5"]))
        .offers(relays("hop5", hop::<5>).required_capabilities(&["relay:hop6"]))
        .offers(relays("hop6", hop::<6>).required_capabilities(&["relay:hop7"]))
        .offers(relays("hop7", hop::<7>).required_capabilities(&["relay:hop8"]))
        .offers(relays("hop8", hop::<8>).required_capabilities(&["relay:hop9"]))
        .offers(relays("hop9", hop::<9>).required_capabilities(&["relay:hop0"]))
}

fn relays<A, F: crank_worker::Function<A>>(name: &'static str, function: F) -> Capability {
    Capability::new("relay", name, "1.0.0", function)
        .description("Hands calls on. For tests.")
        .spiffe_id("spiffe://crank.local/worker/relay")
}

crank_worker::worker!(relay);
