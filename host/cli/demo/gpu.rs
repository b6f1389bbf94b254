//! The demo's GPU, and what the image classifier did on it.

use serde_json::Value;

use crate::capability::{Constraint, GpuType};
use crate::config::Config;
use crate::gpu::{Adapter, Found};

/// The classifier's file, without its ending.
const CLASSIFIER: &str = "image-classifier";
/// What a GPU in software has not.
const RELAXED: [Constraint; 2] = [Constraint::GpuType, Constraint::GpuMemoryMb];

/// Finds the GPU that the classifier is placed on, and says what it is. Where there is only one in
/// software, what the classifier asks for beyond it is relaxed: an operator's decision, here the demo's.
pub(super) fn place(config: &mut Config) -> Option<Found> {
    let mut found: Vec<Found> = Adapter::find().into_iter().map(|gpu| gpu.found).collect();
    let wanted = |found: &Found| found.kind == Some(GpuType::Nvidia);
    let at = found.iter().position(wanted).unwrap_or(0);
    if found.is_empty() {
        println!(
            "no driver offers a GPU: {CLASSIFIER} is refused (Debian: mesa-vulkan-drivers has one in software)"
        );
        return None;
    }
    let placed = found.swap_remove(at);
    println!("GPU: {placed}");
    if placed.kind == Some(GpuType::Software) {
        let names = RELAXED.map(|constraint| format!("\"{}\"", constraint.as_str()));
        println!(
            "  in software: the demo sets [workers.{CLASSIFIER}] relax = [{}]",
            names.join(", ")
        );
        let worker = config.workers.entry(CLASSIFIER.to_owned()).or_default();
        for constraint in RELAXED {
            if !worker.relax.contains(&constraint) {
                worker.relax.push(constraint);
            }
        }
    }
    Some(placed)
}

/// A line for an image: its likeliest label, where that was found, how long it took, with how much memory.
pub(super) fn line(answer: &[u8], timing: &str, gpu: &Found) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let likeliest = answer.pointer("/labels/0")?;
    let label = likeliest["label"].as_str()?;
    let percent = likeliest["confidence"].as_f64()? * 100.0;
    let part = |name: &str| {
        let mut parts = timing.split(", ");
        parts.find_map(|part| part.strip_prefix(name)?.parse::<f64>().ok())
    };
    let took = match part("gpu;dur=") {
        Some(took) if took > 0.0 => format!("{took:.2} ms of GPU time"),
        _ => "a GPU without a clock".to_owned(),
    };
    let mut parts = timing.split(", ");
    let memory = parts.find_map(|part| part.strip_prefix("gpu-memory;desc=\"")?.strip_suffix('"'));
    let kib = memory.and_then(|bytes| bytes.parse::<u64>().ok())? >> 10;
    Some(format!(
        "{label}, {percent:.0} % sure; {}, {took}, {kib} KiB of its memory",
        gpu.name
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_tells_what_was_seen_and_what_it_took() {
        let found = Found {
            name: "llvmpipe".to_owned(),
            kind: Some(GpuType::Software),
            backend: "vulkan".to_owned(),
            driver: String::new(),
            max_buffer: 0,
            max_threads: 0,
            max_workgroups: 0,
            memory: 0,
            has_clock: true,
        };
        let answer = br#"{"labels":[{"label":"disc","confidence":0.987}]}"#;
        let timing = "queue;dur=0.1, run;dur=9.000, gpu;dur=2.250, gpu-memory;desc=\"20480\"";
        assert_eq!(
            line(answer, timing, &found).as_deref(),
            Some("disc, 99 % sure; llvmpipe, 2.25 ms of GPU time, 20 KiB of its memory")
        );
        assert_eq!(line(b"{}", timing, &found), None);
    }
}
