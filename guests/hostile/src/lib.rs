//! A worker that misbehaves on demand: the host's tests hold each limit against it.
//!
//! One capability per misdeed, each with a parameter that keeps it within its limit, so that the
//! same code shows both sides. Never serve it.

use std::hint::black_box;
use std::time::Duration;

use crank_worker::events::{self, Event};
use crank_worker::log::info;
use crank_worker::{Capability, Constraints, Failure, Payload, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Deserialize, JsonSchema)]
struct Nothing {}

#[derive(Deserialize, JsonSchema)]
struct Megabytes {
    /// MiB.
    mb: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Count {
    /// How often.
    count: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Words {
    /// What is said.
    message: String,
}

#[derive(Deserialize, JsonSchema)]
struct Kind {
    /// The contract's name of a failure kind.
    kind: String,
}

#[derive(Deserialize, JsonSchema)]
struct Stream {
    /// Number of events.
    count: u32,
    /// Their type.
    event: String,
    /// Bytes of text in each.
    bytes: u32,
}

#[derive(Deserialize, JsonSchema)]
struct Lines {
    /// Number of lines.
    count: u32,
    /// The text of each.
    line: String,
}

#[derive(Serialize, JsonSchema)]
struct Done {
    /// What was done, in the unit of the input.
    done: u32,
}

#[derive(Serialize, JsonSchema)]
struct Positive {
    /// At least one: so says the schema.
    #[schemars(range(min = 1))]
    count: u32,
}

fn loop_forever(_: Nothing) -> Result<Done, Failure> {
    let mut done = 0;
    loop {
        done = black_box(done ^ 1);
    }
}

/// Takes memory MiB by MiB and uses it.
fn take_memory(input: Megabytes) -> Result<Done, Failure> {
    let mut taken = Vec::new();
    for _ in 0..input.mb {
        taken.push(black_box(vec![1u8; 1 << 20]));
    }
    Ok(Done {
        done: taken.len() as u32,
    })
}

fn panics(input: Words) -> Result<Done, Failure> {
    panic!("{}", input.message)
}

fn recurse(input: Count) -> Result<Done, Failure> {
    fn down(left: u32) -> u32 {
        let here = black_box([left; 16]);
        if left == 0 {
            0
        } else {
            down(left - 1) + here[0].min(1)
        }
    }
    Ok(Done {
        done: down(input.count),
    })
}

fn return_bytes(input: Megabytes) -> Result<Payload, Failure> {
    Ok(Payload {
        media_type: "application/octet-stream".into(),
        body: vec![0; (input.mb as usize) << 20],
    })
}

fn break_schema(input: Count) -> Result<Positive, Failure> {
    Ok(Positive { count: input.count })
}

/// Returns as JSON what the input says.
fn return_text(input: Words) -> Result<Payload, Failure> {
    Ok(Payload {
        media_type: "application/json".into(),
        body: input.message.into(),
    })
}

fn return_html(_: Nothing) -> Result<Payload, Failure> {
    Ok(Payload {
        media_type: "text/html".into(),
        body: b"{}".into(),
    })
}

fn fail(input: Kind) -> Result<Done, Failure> {
    Err(match input.kind.as_str() {
        "invalid-input" => Failure::invalid_input("/kind", "this kind will not do"),
        "not-found" => Failure::not_found("there is no such thing"),
        "denied" => Failure::denied("not for you"),
        "conflict" => Failure::conflict("it has changed"),
        "unavailable" => Failure::unavailable(Duration::from_millis(2500), "not now"),
        _ => Failure::failed("it broke").code("broken-on-demand"),
    })
}

fn send_events(input: Stream) -> Result<Done, Failure> {
    let data = "x".repeat(input.bytes as usize);
    for done in 0..input.count {
        if events::send(Event::new(input.event.as_str(), data.as_str())).is_err() {
            return Ok(Done { done });
        }
    }
    Ok(Done { done: input.count })
}

fn write_log(input: Lines) -> Result<Done, Failure> {
    for _ in 0..input.count {
        info!("{}", input.line);
    }
    Ok(Done { done: input.count })
}

fn hostile() -> Worker {
    let megabytes = |mb| Constraints {
        max_memory_mb: Some(mb),
        ..Constraints::default()
    };
    Worker::new("worker-hostile")
        .offers(misdeed("loop_forever", loop_forever))
        .offers(misdeed("take_memory", take_memory).constraints(megabytes(64)))
        .offers(misdeed("panic", panics))
        .offers(misdeed("recurse", recurse))
        .offers(
            misdeed("return_bytes", return_bytes)
                .constraints(megabytes(2048))
                .produces("application/octet-stream"),
        )
        .offers(misdeed("break_schema", break_schema))
        .offers(misdeed("return_text", return_text))
        .offers(misdeed("return_html", return_html))
        .offers(misdeed("fail", fail))
        .offers(misdeed("send_events", send_events))
        .offers(misdeed("write_log", write_log))
}

fn misdeed<A, F: crank_worker::Function<A>>(name: &'static str, function: F) -> Capability {
    Capability::new("misbehave", name, "1.0.0", function)
        .description("Misbehaves on demand. For tests.")
}

crank_worker::worker!(hostile);
