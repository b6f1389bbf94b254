//! The worker that names what an image shows: `classify:image_objects`.
//!
//! An image is decoded and cut to the network's size here, in the sandbox; the network runs on the GPU.
//! `docs/image-classifier.md` says which images, which networks, and how to bring one.

mod models;
mod picture;

use std::sync::LazyLock;
use std::time::Duration;

use crank_worker::{Bytes, Capability, Constraints, Failure, Slo, Worker};
use gpu_kernels::{Broken, Model};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How long until an operator may have repaired a model.
const REPAIRED: Duration = Duration::from_secs(3600);

/// An image, and how much is to be said about it.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
struct Input {
    /// PNG, JPEG or WebP.
    image: Bytes,
    /// How many labels are wanted, the likeliest first; 5 if it is left out.
    #[schemars(range(min = 1, max = 100))]
    top_k: Option<usize>,
}

/// What the image shows.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Output {
    /// The likeliest first.
    labels: Vec<Label>,
}

/// Something that the image may show.
#[derive(Debug, PartialEq, Serialize, JsonSchema)]
struct Label {
    /// What it is.
    label: String,
    /// How likely that is.
    #[schemars(range(min = 0, max = 1))]
    confidence: f64,
}

fn classify(input: Input) -> Result<Output, Failure> {
    #[cfg(target_arch = "wasm32")]
    if let Some(file) = models::operators::read()? {
        let name = models::operators::NAME;
        let model = Model::read(&file).map_err(|Broken(why)| unusable(name, &why))?;
        return run(&model, name, None, input);
    }
    let name = models::OWN_NAME;
    let model = models::OWN.as_ref();
    let model = model.map_err(|Broken(why)| unusable(name, why))?;
    run(model, name, Some(models::OWN_SHA256), input)
}

/// Looks at the image with a model; `sha256` is that of its weights, where it is known beforehand.
fn run(
    model: &Model<'_>,
    name: &str,
    sha256: Option<&[u8]>,
    input: Input,
) -> Result<Output, Failure> {
    if !model.is_classifier {
        return Err(unusable(name, "its last layer is no softmax"));
    }
    let picture = picture::decode(&input.image)?;
    let values = picture::values(picture, &model.input);
    let confidences = model.run(&values, sha256)?;
    if confidences.iter().any(|confidence| !confidence.is_finite()) {
        return Err(unusable(name, "what it answers are no numbers"));
    }
    Ok(likeliest(
        &model.labels,
        &confidences,
        input.top_k.unwrap_or(5),
    ))
}

/// The labels with the highest confidences.
fn likeliest(labels: &[String], confidences: &[f32], count: usize) -> Output {
    let mut labels: Vec<Label> = labels
        .iter()
        .zip(confidences)
        .map(|(label, &confidence)| Label {
            label: label.clone(),
            // A sum of quotients may be a little more than 1.
            confidence: f64::from(confidence).clamp(0.0, 1.0),
        })
        .collect();
    labels.sort_by(|a, b| b.confidence.total_cmp(&a.confidence));
    labels.truncate(count);
    Output { labels }
}

fn unusable(name: &str, why: &str) -> Failure {
    Failure::unavailable(REPAIRED, format!("the model {name} cannot be used: {why}"))
        .code("broken-model")
}

fn image_classifier() -> Worker {
    // `declare` runs this too, and what it leaves is what calls start from.
    LazyLock::force(&models::OWN);
    Worker::new("worker-image-classifier").offers(
        Capability::new("classify", "image_objects", "1.0.0", classify)
            .description("Names what an image shows, the likeliest first.")
            .accepts(&["application/json", "image/png", "image/jpeg", "image/webp"])
            .raw_example(
                "A mushroom",
                "image/webp",
                include_bytes!("../train/samples/mushroom.webp"),
                &[],
            )
            .env_profile("gpu-required")
            .constraints(Constraints {
                min_memory_mb: Some(4096),
                max_memory_mb: Some(16384),
                cpu_shares: Some(8192),
                gpu_count: Some(1),
                gpu_memory_mb: Some(8192),
                gpu_type: Some("nvidia"),
                // For a model of the operator's.
                model_storage_mb: Some(256),
                ..Constraints::default()
            })
            .slo(Slo {
                latency_p50_ms: Some(100),
                latency_p95_ms: Some(300),
                latency_p99_ms: Some(1000),
                availability_pct: Some(99.5),
                error_budget_pct: Some(0.5),
            })
            .required_capabilities(&[
                "crank:gpu/compute",
                "wasi:filesystem/types",
                "wasi:filesystem/preopens",
            ])
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

    #[test]
    fn the_default_model_is_a_classifier() {
        let model = models::OWN.as_ref().expect("it is whole");
        assert!(model.is_classifier);
    }

    #[test]
    fn the_likeliest_come_first() {
        let labels = ["a", "b", "c"].map(str::to_owned).to_vec();
        let output = likeliest(&labels, &[0.2, 0.5, 0.3], 2);
        let label = |label: &str, confidence| Label {
            label: label.to_owned(),
            confidence: f64::from(confidence),
        };
        assert_eq!(output.labels, [label("b", 0.5_f32), label("c", 0.3_f32)]);
    }
}
