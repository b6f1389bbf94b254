//! Real documents over HTTP: what goes in is a file, what comes out is its text.

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

use crate::support::{Host, run};

async fn start() -> Host {
    Host::start(|_| {}).await
}

/// A file of `tests/data`.
fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!("{}/tests/data/{name}", env!("CARGO_MANIFEST_DIR"))).unwrap()
}

/// Posts a raw document and answers status and body.
async fn convert(host: &Host, name: &str, media_type: &'static str, body: Vec<u8>) -> (u16, Value) {
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
fn two_hundred_pages_are_read_within_the_workers_limits() {
    run(async {
        let host = start().await;
        let (status, answer) = convert(&host, "pdf_to_text", "application/pdf", pages(200)).await;
        assert_eq!(
            (status, &answer["pages"]),
            (200, &json!(200)),
            "{answer:.300}"
        );
        let text = answer["text"].as_str().unwrap();
        for page in [1, 100, 200] {
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
