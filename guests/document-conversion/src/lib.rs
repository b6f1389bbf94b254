//! The worker that makes text of documents: of PDFs, of e-mails, and chunks of text.

mod chunks;
mod mail;
mod pdf;
#[cfg(test)]
mod tests;

use crank_worker::{Capability, Constraints, Slo, Worker};

fn document_conversion() -> Worker {
    Worker::new("worker-document-conversion")
        .offers(
            profile(Capability::new("convert", "pdf_to_text", "1.0.0", pdf::to_text))
                .description("Extracts the text of a PDF in the order of reading.")
                .accepts(&["application/json", "application/pdf"])
                .raw_example("A page from groff", "application/pdf", include_bytes!("../../../tests/data/groff.pdf"), &[]),
        )
        .offers(
            profile(Capability::new("convert", "email_to_text", "1.0.0", mail::to_text))
                .description("Reads an e-mail: who wrote to whom, when, about what, its text, and its attachments' names.")
                .accepts(&["application/json", "message/rfc822"])
                .raw_example("A message in parts", "message/rfc822", include_bytes!("../../../tests/data/nested.eml"), &[]),
        )
        .offers(
            profile(Capability::new("convert", "text_to_stream", "1.0.0", chunks::divide))
                .description("Divides a text into sentences or paragraphs, of a greatest length if that is given.")
                .accepts(&["application/json", "text/plain"])
                .example("Two sentences", r#"{"text": "The lamp is lit. The wind comes from the northwest."}"#),
        )
}

/// What the capabilities have in common: a document may be large, and is held in memory as a whole.
fn profile(capability: Capability) -> Capability {
    capability
        .env_profile("memory-intensive")
        .constraints(Constraints {
            min_memory_mb: Some(2048),
            max_memory_mb: Some(4096),
            cpu_shares: Some(2048),
            disk_type: Some("ssd"),
            tmp_storage_mb: Some(1024),
            ..Constraints::default()
        })
        .slo(Slo {
            latency_p50_ms: Some(500),
            latency_p95_ms: Some(2000),
            latency_p99_ms: Some(5000),
            availability_pct: Some(99.5),
            error_budget_pct: Some(0.5),
        })
}

crank_worker::worker!(document_conversion);
