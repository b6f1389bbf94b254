//! The worker that converts documents: PDF, DOCX, HTML, Markdown, e-mails, tables, and text into
//! chunks.

mod chunks;
mod csv;
mod docx;
mod html;
mod mail;
mod markdown;
mod pdf;
mod source;
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
            profile(Capability::new("convert", "docx_to_text", "1.0.0", docx::to_text))
                .description("Extracts the text of a Word document, with its headings, lists, tables and notes.")
                .accepts(&["application/json", DOCX])
                .raw_example("A document from pandoc", DOCX, include_bytes!("../../../tests/data/pandoc.docx"), &[]),
        )
        .offers(
            profile(Capability::new("convert", "html_to_text", "1.0.0", html::to_text))
                .description("Extracts the text of a page, with its headings, lists and tables.")
                .accepts(&["application/json", "text/html"])
                .example("A list", r#"{"html": "<h1>Stores</h1><ul><li>oil</li><li>wicks</li></ul>"}"#),
        )
        .offers(
            profile(Capability::new("convert", "html_to_markdown", "1.0.0", html::to_markdown))
                .description("Turns a page into Markdown, as GitHub understands it.")
                .accepts(&["application/json", "text/html"])
                .example("A link", r#"{"html": "<p>See <a href='/log'>the <b>log</b></a>.</p>"}"#),
        )
        .offers(
            profile(Capability::new("convert", "markdown_to_html", "1.0.0", markdown::to_html))
                .description("Turns Markdown into HTML that is safe to show: no script in it survives.")
                .accepts(&["application/json", "text/markdown"])
                .example("A heading", r##"{"markdown": "# Log\n\nThe lamp is *lit*."}"##),
        )
        .offers(
            profile(Capability::new("convert", "csv_to_json", "1.0.0", csv::to_json))
                .description("Reads a table of comma-separated values; finds out its delimiter and its character set.")
                .accepts(&["application/json", "text/csv"])
                .example("Semicolons", r#"{"csv": "day;litres\n1;3,5\n2;4,0"}"#),
        )
        .offers(
            profile(Capability::new("convert", "text_to_stream", "1.0.0", chunks::divide))
                .description("Divides a text into sentences or paragraphs, of a greatest length if that is given.")
                .accepts(&["application/json", "text/plain"])
                .example("Two sentences", r#"{"text": "The lamp is lit. The wind comes from the northwest."}"#),
        )
}

/// The media type of Word's documents.
const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

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
