//! What a caller sees, through the worker's own front door.

mod attributes;
mod formats;

use crank_worker::{Failure, Payload, Request};
use serde_json::{Value, json};
use similar::{ChangeTag, TextDiff};

fn data(name: &str) -> Vec<u8> {
    std::fs::read(format!(
        "{}/../../tests/data/{name}",
        env!("CARGO_MANIFEST_DIR")
    ))
    .unwrap()
}

fn call(
    capability: &str,
    media_type: &str,
    body: Vec<u8>,
    parameters: &[(&str, &str)],
) -> Result<Value, Failure> {
    let parameters = parameters
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect();
    let request = Request {
        capability: capability.into(),
        parameters,
        ..Request::default()
    };
    let answer = super::document_conversion().handle(
        &request,
        Payload {
            media_type: media_type.into(),
            body,
        },
    )?;
    assert_eq!(answer.media_type, "application/json");
    Ok(serde_json::from_slice(&answer.body).unwrap())
}

fn pdf(name: &str) -> Result<Value, Failure> {
    call("convert:pdf_to_text", "application/pdf", data(name), &[])
}

/// The share of a source's words that a text has, in order.
fn accuracy(source: &str, text: &str) -> f64 {
    let source: Vec<&str> = source
        .split_whitespace()
        .filter(|word| *word != "#")
        .collect();
    let text: Vec<&str> = text.split_whitespace().collect();
    let changes = TextDiff::from_slices(&source, &text);
    let kept = changes
        .iter_all_changes()
        .filter(|change| change.tag() == ChangeTag::Equal)
        .count();
    kept as f64 / source.len() as f64
}

#[test]
fn pdfs_of_five_producers_keep_their_words_in_order() {
    for (producer, source) in [
        ("groff", "paper-groff"),
        ("libreoffice", "paper"),
        ("pdftex", "paper"),
        ("cairo", "paper"),
        ("typst", "paper"),
        ("encrypted-readable", "paper"),
    ] {
        let answer = pdf(&format!("{producer}.pdf")).unwrap();
        let source = String::from_utf8(data(&format!("source/{source}.txt"))).unwrap();
        let accuracy = accuracy(&source, answer["text"].as_str().unwrap());
        println!("{producer}: {:.2} %", accuracy * 100.0);
        assert!(accuracy > 0.995, "{producer}: {accuracy}");
        assert_eq!(answer["pages"], 1, "{producer}");
    }
}

#[test]
fn a_pdf_names_its_title_and_its_author() {
    let answer = pdf("typst.pdf").unwrap();
    assert_eq!(
        (answer["title"].as_str(), answer["author"].as_str()),
        (Some("The Ledger"), Some("Crank"))
    );
}

#[test]
fn a_page_that_is_not_there_is_invalid_input() {
    let page = |first: &str| {
        call(
            "convert:pdf_to_text",
            "application/pdf",
            data("cairo.pdf"),
            &[("first_page", first)],
        )
    };
    assert!(page("1").is_ok());
    let failure = page("2").unwrap_err();
    assert_eq!(failure.pointer.as_deref(), Some("/first_page"));
}

#[test]
fn encrypted_broken_and_textless_pdfs_each_fail_in_their_own_way() {
    for (name, code) in [
        ("encrypted.pdf", "encrypted"),
        ("broken.pdf", "broken"),
        ("image-only.pdf", "no-text"),
    ] {
        let failure = pdf(name).unwrap_err();
        assert_eq!(failure.code.as_deref(), Some(code), "{name}");
        assert_eq!(failure.pointer.as_deref(), Some("/document"), "{name}");
    }
}

/// Every fixture, cut off at many places and with many bytes changed: an answer or a failure, no
/// panic. The changes come from a fixed sequence, so a failure comes again.
#[test]
fn damaged_pdfs_end_in_an_answer() {
    let mut seed = 1887_u64;
    let mut random = move |below: usize| {
        seed = seed
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    for name in [
        "groff",
        "libreoffice",
        "pdftex",
        "cairo",
        "typst",
        "encrypted-readable",
    ] {
        let whole = data(&format!("{name}.pdf"));
        for round in 0..rounds() {
            let mut damaged = whole.clone();
            if round % 4 == 0 {
                damaged.truncate(random(whole.len()));
            }
            for _ in 0..random(30).min(damaged.len()) {
                let place = random(damaged.len());
                damaged[place] = random(256) as u8;
            }
            let _ = call("convert:pdf_to_text", "application/pdf", damaged, &[]);
        }
    }
}

/// Damaged variants of each file: few by default, more with `DAMAGED`.
fn rounds() -> usize {
    std::env::var("DAMAGED")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(12)
}

#[test]
fn an_email_in_parts_is_read_through_encodings_and_charsets() {
    let answer = call(
        "convert:email_to_text",
        "message/rfc822",
        data("nested.eml"),
        &[],
    )
    .unwrap();
    assert_eq!(answer["subject"], "Logbuch März – η γνώση");
    assert_eq!(
        answer["from"],
        json!(["Zoë Ångström <zoe@leuchtturm.example>"])
    );
    assert_eq!(
        answer["to"],
        json!(["Weiß, Anna <anna@amt.example>", "keeper@leuchtturm.example"])
    );
    assert_eq!(answer["cc"], json!(["Капитан <captain@odessa.example>"]));
    assert_eq!(answer["date"], "2022-09-01T21:15:30+02:00");
    let text = answer["text"].as_str().unwrap();
    for part in [
        "Sehr geehrte Frau Weiß,",
        "die Öllampe brennt wieder.",
        "umgebrochen wird, und doch ist sie eine einzige Zeile geblieben.",
        "Море помнит всех.",
        "灯台は光っています。",
    ] {
        assert!(text.contains(part), "{part} is not in {text}");
    }
    let attachments = &answer["attachments"];
    assert!(
        attachments
            .as_array()
            .unwrap()
            .contains(&json!({"name": "Ölverbrauch.csv", "media_type": "text/csv", "bytes": 16})),
        "{attachments}"
    );
    assert!(
        attachments.to_string().contains("message/rfc822"),
        "{attachments}"
    );
}

#[test]
fn an_html_email_gives_its_text_and_no_markup() {
    let answer = call(
        "convert:email_to_text",
        "message/rfc822",
        data("html-only.eml"),
        &[],
    )
    .unwrap();
    let text = answer["text"].as_str().unwrap();
    let words: Vec<&str> = text.split_whitespace().collect();
    assert_eq!(
        words.join(" "),
        "# The reflector It costs 27 € & arrives on Monday. - one mirror - two screws"
    );
}

fn chunks(input: Value) -> Vec<String> {
    let body = serde_json::to_vec(&input).unwrap();
    let answer = call("convert:text_to_stream", "application/json", body, &[]).unwrap();
    serde_json::from_value(answer["chunks"].clone()).unwrap()
}

#[test]
fn a_text_is_divided_at_sentences_and_paragraphs() {
    let text = "One ship,\nfar off. It passed!\n\nThe lamp is lit.";
    assert_eq!(
        chunks(json!({"text": text})),
        ["One ship, far off.", "It passed!", "The lamp is lit."]
    );
    assert_eq!(
        chunks(json!({"text": text, "unit": "paragraph"})),
        ["One ship, far off. It passed!", "The lamp is lit."]
    );
    let raw = call(
        "convert:text_to_stream",
        "text/plain",
        text.into(),
        &[("unit", "paragraph"), ("max_chars", "16")],
    );
    assert_eq!(
        raw.unwrap()["chunks"],
        json!(["One ship, far", "off. It passed!", "The lamp is lit."])
    );
}

#[test]
fn a_chunk_never_ends_inside_of_a_character() {
    let family = "👨‍👩‍👧‍👦";
    assert_eq!(
        chunks(json!({"text": family.repeat(3), "max_chars": 8})),
        [family; 3]
    );
    assert_eq!(
        chunks(json!({"text": "e\u{301}e\u{301}e\u{301}", "max_chars": 5})),
        ["e\u{301}e\u{301}", "e\u{301}"]
    );
    assert_eq!(chunks(json!({"text": family, "max_chars": 1})), [family]);
    // The second of these two letters has no place of its own, and words end everywhere in Thai.
    let thai = "\u{e01}\u{e33}";
    assert_eq!(
        chunks(json!({"text": thai.repeat(2), "max_chars": 1})),
        [thai; 2]
    );
}
