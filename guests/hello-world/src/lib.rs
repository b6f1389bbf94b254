//! The reference worker: `greet:hello_world`, with every field that a capability can have.
//!
//! A worker needs three things: types for what goes in and comes out, functions between them, and
//! one declaration. Only the declaration's first four words are required; `docs/workers.md` says
//! what the others do.

use crank_worker::{Capability, Constraints, Failure, Slo, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Who is to be greeted.
#[derive(Deserialize, JsonSchema)]
struct Input {
    /// The name, as it should stand in the greeting.
    #[schemars(length(min = 1, max = 200))]
    name: String,
}

/// The greeting.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// One sentence.
    greeting: String,
}

fn greet(input: Input) -> Result<Output, Failure> {
    let name = input.name.trim();
    if name.is_empty() {
        return Err(Failure::invalid_input("/name", "a name needs a letter"));
    }
    Ok(Output {
        greeting: format!("Hello, {name}!"),
    })
}

fn hello_world() -> Worker {
    Worker::new("worker-hello-world").offers(
        Capability::new("greet", "hello_world", "1.0.0", greet)
            .description("Greets someone by name.")
            .example("Greet Ada", r#"{"name": "Ada"}"#)
            // What it needs.
            .env_profile("cpu-optimized")
            .constraints(Constraints {
                min_memory_mb: Some(512),
                max_memory_mb: Some(1024),
                cpu_shares: Some(1024),
                disk_type: Some("any"),
                ..Constraints::default()
            })
            // What it promises.
            .slo(Slo {
                latency_p50_ms: Some(50),
                latency_p95_ms: Some(100),
                latency_p99_ms: Some(200),
                availability_pct: Some(99.5),
                error_budget_pct: Some(0.5),
            })
            // Who it is, and what it may use: nothing.
            .spiffe_id("spiffe://crank.local/worker/hello-world")
            .required_capabilities(&[])
            // What a call costs, and how urgent it is: very cheap, normal priority.
            .cost_tokens(0.1)
            .slo_bid(1.0)
            // Where it should run.
            .controller_affinity(&["controller-primary"]),
    )
}

crank_worker::worker!(hello_world);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ada_is_greeted_and_nobody_is_not() {
        let greeting = |name: &str| greet(Input { name: name.into() });
        assert_eq!(greeting("Ada").unwrap().greeting, "Hello, Ada!");
        assert_eq!(
            greeting(" ").err().unwrap().pointer.as_deref(),
            Some("/name")
        );
    }
}
