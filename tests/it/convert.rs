//! Real documents over HTTP: what goes in is a file, what comes out is its text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use crate::support::{CONVERSIONS, Host, run};

/// A host with the converter.
pub async fn start() -> Host {
    Host::start(|_| {}).await
}

/// A file of `tests/data`.
pub fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Posts a raw document and answers status and body.
pub async fn convert(
    host: &Host,
    name: &str,
    media_type: &'static str,
    body: Vec<u8>,
) -> (u16, Value) {
    let request = host
        .client
        .post(host.url(&format!("/invoke/convert/{name}")));
    let answer = request
        .header("content-type", media_type)
        .body(body)
        .send()
        .await
        .unwrap();
    (answer.status().as_u16(), answer.json().await.unwrap())
}

/// How many percent of the source's words stand in the text, in order.
fn words_in_order(source: &str, text: &str) -> f64 {
    let source: Vec<&str> = source.split_whitespace().collect();
    let text: Vec<&str> = text.split_whitespace().collect();
    let diff = TextDiff::from_slices(&source, &text);
    let kept = diff
        .iter_all_changes()
        .filter(|change| change.tag() == ChangeTag::Equal)
        .count();
    100.0 * kept as f64 / source.len() as f64
}

#[test]
fn the_words_of_a_pdf_come_out_in_order_whoever_made_it() {
    run(async {
        let host = start().await;
        let paper = String::from_utf8(data("source/paper.txt")).unwrap();
        let plain = String::from_utf8(data("source/paper-groff.txt")).unwrap();
        for (file, source) in [
            ("groff.pdf", &plain),
            ("libreoffice.pdf", &paper),
            ("pdftex.pdf", &paper),
            ("cairo.pdf", &paper),
            ("typst.pdf", &paper),
        ] {
            let (status, answer) =
                convert(&host, "pdf_to_text", "application/pdf", data(file)).await;
            assert_eq!(status, 200, "{file}: {answer}");
            let kept = words_in_order(source, answer["text"].as_str().unwrap());
            assert!(kept >= 97.0, "{file}: {kept:.1} % of the words, in order");
            assert!(answer["pages"].as_u64().unwrap() >= 1);
        }
    });
}

#[test]
fn a_document_in_json_is_the_same_document() {
    run(async {
        let host = start().await;
        let file = data("typst.pdf");
        let raw = convert(&host, "pdf_to_text", "application/pdf", file.clone()).await;
        let wrapped = json!({ "document": BASE64_STANDARD.encode(&file) });
        let json = convert(
            &host,
            "pdf_to_text",
            "application/json",
            wrapped.to_string().into(),
        )
        .await;
        assert_eq!(raw, json);
    });
}

#[test]
fn a_document_without_readable_text_says_why() {
    run(async {
        let host = start().await;
        for (file, code) in [
            ("encrypted.pdf", "encrypted"),
            ("broken.pdf", "broken"),
            ("image-only.pdf", "no-text"),
        ] {
            let (status, problem) =
                convert(&host, "pdf_to_text", "application/pdf", data(file)).await;
            assert_eq!(
                (status, &problem["code"], &problem["worker_code"]),
                (422, &json!("invalid-input"), &json!(code)),
                "{file}: {problem}"
            );
        }
    });
}

#[test]
fn a_thousand_pages_are_read_within_the_workers_limits() {
    run(async {
        let host = start().await;
        let (status, answer) = convert(&host, "pdf_to_text", "application/pdf", pages(1000)).await;
        assert_eq!(
            (status, &answer["pages"]),
            (200, &json!(1000)),
            "{answer:.300}"
        );
        let text = answer["text"].as_str().unwrap();
        for page in [1, 500, 1000] {
            assert!(
                text.contains(&format!("page {page} line 40")),
                "page {page}"
            );
        }
    });
}

/// A PDF of so many pages, 40 lines each, with the one font that every reader has.
fn pages(count: usize) -> Vec<u8> {
    let mut objects = vec![
        "<< /Type /Catalog /Pages 2 0 R >>".to_owned(),
        String::new(),
        "<< /Type /Font /Subtype /Type1 /BaseFont /Helvetica >>".to_owned(),
    ];
    let mut kids = String::new();
    for page in 1..=count {
        let number = objects.len() + 1;
        kids += &format!("{number} 0 R ");
        objects.push(format!(
            "<< /Type /Page /Parent 2 0 R /MediaBox [0 0 595 842] /Contents {} 0 R \
             /Resources << /Font << /F1 3 0 R >> >> >>",
            number + 1
        ));
        let mut lines = String::from("BT /F1 12 Tf 60 780 Td 18 TL\n");
        for line in 1..=40 {
            lines += &format!("(This is page {page} line {line} of a long report.) Tj T*\n");
        }
        lines += "ET";
        objects.push(format!(
            "<< /Length {} >>\nstream\n{lines}\nendstream",
            lines.len()
        ));
    }
    objects[1] = format!("<< /Type /Pages /Count {count} /Kids [ {kids}] >>");
    let mut pdf = String::from("%PDF-1.4\n");
    let mut table = String::new();
    for (index, object) in objects.iter().enumerate() {
        table += &format!("{:010} 00000 n \n", pdf.len());
        pdf += &format!("{} 0 obj\n{object}\nendobj\n", index + 1);
    }
    let start = pdf.len();
    let size = objects.len() + 1;
    pdf += &format!("xref\n0 {size}\n0000000000 65535 f \n{table}");
    pdf += &format!("trailer\n<< /Size {size} /Root 1 0 R >>\nstartxref\n{start}\n%%EOF\n");
    pdf.into_bytes()
}

#[test]
fn an_email_comes_apart_into_its_fields() {
    run(async {
        let host = start().await;
        let mail = data("nested.eml");
        let (status, answer) = convert(&host, "email_to_text", "message/rfc822", mail).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["subject"], "Logbuch März – η γνώση");
        assert_eq!(
            answer["from"],
            json!(["Zoë Ångström <zoe@leuchtturm.example>"])
        );
        assert_eq!(
            answer["to"],
            json!(["Weiß, Anna <anna@amt.example>", "keeper@leuchtturm.example"])
        );
        assert_eq!(answer["date"], "2022-09-01T21:15:30+02:00");
        for words in [
            "Sehr geehrte Frau Weiß",
            "Море помнит всех",
            "灯台は光っています",
        ] {
            assert!(answer["text"].as_str().unwrap().contains(words), "{words}");
        }
        assert!(!answer["attachments"].as_array().unwrap().is_empty());

        let html = data("html-only.eml");
        let (status, answer) = convert(&host, "email_to_text", "message/rfc822", html).await;
        assert_eq!(status, 200, "{answer}");
        let text = answer["text"].as_str().unwrap();
        assert!(!text.is_empty() && !text.contains('<'), "{text}");
    });
}

#[test]
fn a_text_is_divided_and_parameters_are_coerced_and_checked() {
    run(async {
        let host = start().await;
        let ask = async |query: &str| {
            let text = "The lamp is lit. The wind turns.\n\nIt is night.";
            let name = format!("text_to_stream{query}");
            convert(&host, &name, "text/plain", text.into()).await
        };
        let chunks = |answer: Value| answer["chunks"].as_array().unwrap().len();
        assert_eq!(chunks(ask("?unit=sentence").await.1), 3);
        assert_eq!(chunks(ask("?unit=paragraph").await.1), 2);
        assert!(chunks(ask("?max_chars=10").await.1) > 3);
        for (query, pointer) in [("?max_chars=many", "/max_chars"), ("?unit=word", "/unit")] {
            let (status, problem) = ask(query).await;
            assert_eq!((status, &problem["code"]), (422, &json!("invalid-input")));
            assert_eq!(problem["errors"][0]["pointer"], pointer, "{problem}");
        }
    });
}

/// The media type of Word's documents.
pub const DOCX: &str = "application/vnd.openxmlformats-officedocument.wordprocessingml.document";

#[test]
fn a_mail_of_fifty_megabytes_is_read_as_it_was_sent() {
    run(async {
        let host = start().await;
        let mut mail = String::from(
            "From: a@b.example\r\nSubject: Plans\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n\
             --x\r\nContent-Type: text/html; charset=utf-8\r\n\r\n<p>The <b>plans</b>: \u{5e9}\u{5dc}\u{5d5}\u{5dd}, \u{706f}\u{53f0}.</p>\r\n\
             --x\r\nContent-Type: application/octet-stream; name=plans.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n",
        );
        let line = "QUJD".repeat(19) + "\r\n";
        mail += &line.repeat(50_000_000 / line.len());
        mail += "--x--\r\n";
        let (status, answer) = convert(&host, "email_to_text", "message/rfc822", mail.into()).await;
        assert_eq!(status, 200, "{answer:.300}");
        assert_eq!(
            answer["text"],
            "The plans: \u{5e9}\u{5dc}\u{5d5}\u{5dd}, \u{706f}\u{53f0}."
        );
        assert_eq!(answer["attachments"][0]["name"], "plans.bin");
        assert!(answer["attachments"][0]["bytes"].as_u64().unwrap() > 36_000_000);
    });
}

#[test]
fn a_word_document_keeps_its_headings_lists_and_tables_whoever_wrote_it() {
    run(async {
        let host = start().await;
        for file in ["pandoc.docx", "libreoffice.docx", "python-docx.docx"] {
            let raw = convert(&host, "docx_to_text", DOCX, data(file)).await;
            assert_eq!(raw.0, 200, "{file}: {}", raw.1);
            let text = raw.1["text"].as_str().unwrap();
            for part in [
                "# The lamp\n\nThe lamp burns every night;",
                "## What is needed\n\n- oil\n",
                "1. Fill it.\n2. Light it.",
                "Day | Litres | Remark\n1 | 3.5 | calm\n2 | 4.0 | a < b",
                "\u{627}\u{644}\u{645}\u{635}\u{628}\u{627}\u{62d} \u{645}\u{636}\u{627}\u{621}",
                "\u{706f}\u{53f0}\u{306f}\u{6bce}\u{6669}\u{5149}\u{3063}\u{3066}\u{3044}\u{307e}\u{3059}\u{3002}",
            ] {
                assert!(text.contains(part), "{file}: no {part:?} in {text}");
            }
            let wrapped = json!({ "document": BASE64_STANDARD.encode(data(file)) }).to_string();
            let json = convert(&host, "docx_to_text", "application/json", wrapped.into()).await;
            assert_eq!(raw, json, "{file}");
        }
        let (status, empty) = convert(&host, "docx_to_text", DOCX, data("empty.docx")).await;
        assert_eq!((status, &empty["text"]), (200, &json!("")));
    });
}

#[test]
fn a_page_becomes_text_and_markdown_and_markdown_becomes_a_page_without_scripts() {
    run(async {
        let host = start().await;
        let page = "<meta charset=windows-1255><title>Log</title><h1>The lamp</h1><ul><li>oil<li>\u{5e9}</ul>\
                    <table><tr><th>a<th>b<tr><td>1<td>2</table><p>See <a href=/x>it</a>.<script>alert(1)</script>";
        // The letter shin, in the character set that the page names.
        let page: Vec<u8> = page
            .chars()
            .map(|c| u8::try_from(c).unwrap_or(0xf9))
            .collect();
        let (status, answer) = convert(&host, "html_to_text", "text/html", page.clone()).await;
        let text = "# The lamp\n\n- oil\n- \u{5e9}\n\na | b\n1 | 2\n\nSee it.";
        assert_eq!(
            (status, &answer),
            (200, &json!({"text": text, "title": "Log"}))
        );

        let (status, answer) = convert(&host, "html_to_markdown", "text/html", page).await;
        let markdown = "# The lamp\n\n- oil\n- \u{5e9}\n\n| a | b |\n| --- | --- |\n| 1 | 2 |\n\nSee [it](/x).";
        assert_eq!((status, &answer["markdown"]), (200, &json!(markdown)));

        let hostile = format!(
            "{markdown}\n\n<script>alert(1)</script>\n\n<b onclick=x>[y](javascript:z)</b>"
        );
        let body = json!({ "markdown": hostile }).to_string();
        let (status, answer) =
            convert(&host, "markdown_to_html", "application/json", body.into()).await;
        assert_eq!(status, 200, "{answer}");
        let html = answer["html"].as_str().unwrap();
        for part in [
            "<h1>The lamp</h1>",
            "<li>oil</li>",
            "<td>2</td>",
            "<a href=\"/x\"",
            "<b>",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        assert!(
            !html.contains("script") && !html.contains("onclick"),
            "{html}"
        );
    });
}

#[test]
fn a_table_becomes_rows_whatever_divides_its_cells() {
    run(async {
        let host = start().await;
        // Semicolons and Latin-1, as a spreadsheet in Germany writes it; a short row, a name twice.
        let table = b"Tag;\xd6l;\xd6l\n1;\"3,5; ca.\";x\n2\n".to_vec();
        let (status, answer) = convert(&host, "csv_to_json", "text/csv", table).await;
        assert_eq!(status, 200, "{answer}");
        assert_eq!(answer["columns"], json!(["Tag", "Öl", "Öl_2"]));
        assert_eq!(
            answer["rows"],
            json!([{"Tag": "1", "Öl": "3,5; ca.", "Öl_2": "x"}, {"Tag": "2"}])
        );
        let (_, bare) = convert(
            &host,
            "csv_to_json?header=false&delimiter=%7C",
            "text/csv",
            "1,2|3".into(),
        )
        .await;
        assert_eq!(bare["rows"], json!([["1,2", "3"]]));
    });
}

#[test]
fn what_cannot_be_converted_says_why() {
    run(async {
        let host = start().await;
        for (name, media_type, body, code) in [
            ("docx_to_text", DOCX, data("bomb.docx"), "too-large"),
            ("docx_to_text", DOCX, data("groff.pdf"), "broken"),
            (
                "html_to_text",
                "text/html",
                "<div>".repeat(100_000).into(),
                "too-complex",
            ),
            (
                "html_to_markdown",
                "text/html",
                "<b><p>".repeat(50_000).into(),
                "too-complex",
            ),
            (
                "markdown_to_html",
                "text/markdown",
                "> ".repeat(100_000).into(),
                "too-complex",
            ),
            (
                "markdown_to_html",
                "text/markdown",
                b"\xff".to_vec(),
                "charset",
            ),
            (
                "csv_to_json?charset=klingon",
                "text/csv",
                b"a".to_vec(),
                "charset",
            ),
            ("text_to_stream", "text/plain", b"\xff".to_vec(), "charset"),
            ("email_to_text", "message/rfc822", Vec::new(), "broken"),
        ] {
            let (status, problem) = convert(&host, name, media_type, body).await;
            assert_eq!(
                (status, &problem["worker_code"]),
                (422, &json!(code)),
                "{name}: {problem:.300}"
            );
        }
    });
}

#[test]
fn a_megabyte_of_text_without_spaces_is_divided_between_characters() {
    run(async {
        let host = start().await;
        let family = "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}";
        let text = format!("\u{706f}\u{53f0}{family}e\u{301}").repeat(40_000);
        let (status, answer) = convert(
            &host,
            "text_to_stream?max_chars=50",
            "text/plain",
            text.clone().into(),
        )
        .await;
        assert_eq!(status, 200, "{answer:.300}");
        let chunks: Vec<&str> = answer["chunks"]
            .as_array()
            .unwrap()
            .iter()
            .map(|chunk| chunk.as_str().unwrap())
            .collect();
        assert_eq!(chunks.concat(), text);
        assert!(chunks.iter().all(
            |chunk| chunk.chars().count() <= 50 && !chunk.starts_with(['\u{200d}', '\u{301}'])
        ));
    });
}

/// Read off the first seed, not off the code.
#[test]
fn every_conversion_has_the_metadata_of_the_seed() {
    run(async {
        let host = start().await;
        let url = host.url("/capabilities?worker_id=worker-document-conversion");
        let answer: Value = host
            .client
            .get(url)
            .send()
            .await
            .unwrap()
            .json()
            .await
            .unwrap();
        let capabilities = answer["capabilities"].as_array().unwrap();
        let mut names: Vec<&str> = capabilities
            .iter()
            .map(|one| one["name"].as_str().unwrap())
            .collect();
        names.sort_unstable();
        assert_eq!(names, CONVERSIONS);
        for capability in capabilities {
            for (field, value) in [
                ("verb", json!("convert")),
                ("version", json!("1.0.0")),
                ("runtime", json!("wasm-component")),
                ("env_profile", json!("memory-intensive")),
                (
                    "constraints",
                    json!({"min_memory_mb": 2048, "max_memory_mb": 4096, "cpu_shares": 2048, "disk_type": "ssd", "tmp_storage_mb": 1024}),
                ),
                (
                    "slo",
                    json!({"latency_p50_ms": 500, "latency_p95_ms": 2000, "latency_p99_ms": 5000, "availability_pct": 99.5, "error_budget_pct": 0.5}),
                ),
                ("spiffe_id", Value::Null),
                ("cost_tokens", Value::Null),
                ("slo_bid", Value::Null),
                ("controller_affinity", Value::Null),
            ] {
                assert_eq!(
                    capability[field], value,
                    "{} of {}",
                    field, capability["name"]
                );
            }
        }
    });
}
