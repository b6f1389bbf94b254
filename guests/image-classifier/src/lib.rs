//! The worker that names what an image shows: `classify:image_objects`.
//!
//! What it declares is complete, so that it is placed as it will be: a host without the GPU that it
//! asks for refuses it. The host's interface to a GPU is not there yet, nor is its inference; where an
//! operator relaxes the placement, a call says so.

use std::time::Duration;

use crank_worker::{Bytes, Capability, Constraints, Failure, Slo, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// An image, and how much is to be said about it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// PNG, JPEG or WebP.
    #[allow(dead_code, reason = "read by the inference, which is not there yet")]
    image: Bytes,
    /// How many labels are wanted, the likeliest first; 5 if it is left out.
    #[allow(dead_code, reason = "read by the inference, which is not there yet")]
    #[schemars(range(min = 1, max = 100))]
    top_k: Option<usize>,
}

/// What the image shows.
#[derive(Serialize, JsonSchema)]
struct Output {
    /// The likeliest first.
    labels: Vec<Label>,
}

/// Something that the image may show.
#[derive(Serialize, JsonSchema)]
struct Label {
    /// What it is.
    label: String,
    /// How likely that is.
    #[schemars(range(min = 0, max = 1))]
    confidence: f64,
}

fn classify(_: Input) -> Result<Output, Failure> {
    Err(Failure::unavailable(
        Duration::from_secs(3600),
        "this host offers no inference on a GPU yet; leave the worker's placement as it is declared",
    )
    .code("no-inference"))
}

fn image_classifier() -> Worker {
    Worker::new("worker-image-classifier").offers(
        Capability::new("classify", "image_objects", "1.0.0", classify)
            .description("Names what an image shows, the likeliest first.")
            .accepts(&["application/json", "image/png", "image/jpeg", "image/webp"])
            .env_profile("gpu-required")
            .constraints(Constraints {
                min_memory_mb: Some(4096),
                max_memory_mb: Some(16384),
                cpu_shares: Some(8192),
                gpu_count: Some(1),
                gpu_memory_mb: Some(8192),
                gpu_type: Some("nvidia"),
                ..Constraints::default()
            })
            .slo(Slo {
                latency_p50_ms: Some(100),
                latency_p95_ms: Some(300),
                latency_p99_ms: Some(1000),
                availability_pct: Some(99.5),
                error_budget_pct: Some(0.5),
            })
            // A GPU is dear: a hundred times what a call of hello_world costs, and served first.
            .cost_tokens(10.0)
            .slo_bid(5.0)
            .controller_affinity(&["controller-gpu-1", "controller-gpu-2"]),
    )
}

crank_worker::worker!(image_classifier);

#[cfg(test)]
mod tests {
    use super::*;
    use crank_worker::{FailureKind, Payload, Request};

    #[test]
    fn a_call_says_that_there_is_no_inference() {
        let request = Request {
            capability: "classify:image_objects".into(),
            ..Request::default()
        };
        let input = Payload {
            media_type: "image/png".into(),
            body: b"\x89PNG".into(),
        };
        let failure = image_classifier().handle(&request, input).unwrap_err();
        assert_eq!(failure.kind, FailureKind::Unavailable);
        assert_eq!(failure.code.as_deref(), Some("no-inference"));
    }
}
