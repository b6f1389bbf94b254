//! Documents at their worst, over HTTP: hostile, empty, huge, and in every script.

use serde_json::{Value, json};

use crate::convert::{DOCX, convert, start};
use crate::support::{Host, crc32, run};

/// The answer of a conversion that must succeed, in bytes as they are.
async fn done(host: &Host, name: &str, media_type: &'static str, body: Vec<u8>) -> Value {
    let (status, answer) = convert(host, name, media_type, body).await;
    assert_eq!(status, 200, "{name}: {answer:.500}");
    answer
}

fn text<'a>(answer: &'a Value, field: &str) -> &'a str {
    answer[field].as_str().expect("a text")
}

/// What runs scripts in some browser, as Markdown.
const SCRIPTS: [&str; 36] = [
    "<script>alert(1)</script>",
    "<SCRIPT/SRC=http://x.example/x.js></SCRIPT>",
    "<<script>alert(1)//<</script>",
    "<scr<script>ipt>alert(1)</scr</script>ipt>",
    "<img src=x onerror=alert(1)>",
    "<img/src=x/onerror=alert(1)//",
    "<img src=`x` onerror\n=alert(1)>",
    "<svg onload=alert(1)>",
    "<svg><script>alert(1)</script></svg>",
    "<svg><a xlink:href=\"javascript:alert(1)\"><text>x</text></a></svg>",
    "<math><mtext><table><mglyph><style><!--</style><img title=\"--&gt;&lt;img src=1 onerror=alert(1)&gt;\">",
    "<noscript><p title=\"</noscript><img src=x onerror=alert(1)>\">",
    "<textarea><p title=\"</textarea><img src=x onerror=alert(1)>\">",
    "<a href=\"jAvAsCrIpT&colon;alert(1)\">x</a>",
    "<a href=\"java&Tab;script:alert(1)\">x</a>",
    "<a href=\"&#1;javascript:alert(1)\">x</a>",
    "<iframe srcdoc=\"<script>alert(1)</script>\"></iframe>",
    "<object data=\"javascript:alert(1)\"></object><embed src=\"javascript:alert(1)\">",
    "<form action=\"javascript:alert(1)\"><button formaction=\"javascript:alert(1)\">x</button></form>",
    "<details open ontoggle=alert(1)>x</details>",
    "<base href=\"javascript:alert(1)//\">",
    "<meta http-equiv=refresh content=\"0;url=javascript:alert(1)\">",
    "<link rel=stylesheet href=\"javascript:alert(1)\">",
    "<style>@import 'javascript:alert(1)';</style>",
    "<table><tr><td style=\"background:url(javascript:alert(1));text-align:left\">x</table>",
    "[a](javascript:alert(1))",
    "[a](JaVaScRiPt:alert(1))",
    "[a](<java\tscript:alert(1)>)",
    "[a](&#x6A;&#x61;vascript:alert(1))",
    "[a](vbscript:msgbox(1))",
    "[a](data:text/html;base64,PHNjcmlwdD5hbGVydCgxKTwvc2NyaXB0Pg==)",
    "![a](javascript:alert(1))",
    "![a](x\"onerror=\"alert(1))",
    "[a](x \"t\\\" onmouseover=\\\"alert(1)\")",
    "<javascript:alert(1)>",
    "```\"><script>alert(1)</script>\nx\n```",
];

#[test]
fn no_script_survives_markdown() {
    run(async {
        let host = start().await;
        // Alone, within a paragraph, in a list, a quote and a table, and all of them in a row.
        let mut pages: Vec<String> = SCRIPTS.map(str::to_owned).into();
        pages.extend(SCRIPTS.map(|one| {
            format!("Before {one} after\n\n- {one}\n\n> {one}\n\n| a |\n| - |\n| {one} |")
        }));
        pages.push(SCRIPTS.join("\n\n"));
        for page in pages {
            let answer = done(
                &host,
                "markdown_to_html",
                "text/markdown",
                page.clone().into(),
            )
            .await;
            harmless(text(&answer, "html"), &page);
        }
        let kept = "**b** [x](https://x.example \"t\") <kbd>k</kbd>";
        let answer = done(&host, "markdown_to_html", "text/markdown", kept.into()).await;
        for part in ["<strong>b</strong>", "https://x.example", "<kbd>k</kbd>"] {
            assert!(text(&answer, "html").contains(part), "{answer}");
        }
    });
}

/// Every tag is known to be harmless, and so is every attribute.
fn harmless(html: &str, from: &str) {
    const FORBIDDEN: [&str; 20] = [
        "script", "iframe", "object", "embed", "svg", "math", "form", "button", "input", "base",
        "meta", "link", "style", "noscript", "textarea", "template", "mglyph", "select", "frame",
        "video",
    ];
    for tag in html.split('<').skip(1) {
        let tag = tag
            .split('>')
            .next()
            .unwrap_or_default()
            .to_ascii_lowercase();
        // What stands in quotes is no attribute's name.
        let pieces: Vec<&str> = tag.split('"').collect();
        let names: String = pieces.iter().copied().step_by(2).collect();
        let mut parts = names.trim_start_matches('/').split_ascii_whitespace();
        let name = parts.next().expect("a name");
        assert!(!FORBIDDEN.contains(&name), "<{tag}> of {from:?} in {html}");
        for part in parts {
            assert!(!part.starts_with("on"), "<{tag}> of {from:?} in {html}");
        }
        for pair in pieces.chunks_exact(2) {
            // These two are only shown.
            if pair[0].ends_with("alt=") || pair[0].ends_with("title=") {
                continue;
            }
            for bad in ["javascript", "vbscript", "data:", "url("] {
                assert!(!pair[1].contains(bad), "<{tag}> of {from:?} in {html}");
            }
        }
    }
}

#[test]
fn no_script_survives_on_the_way_to_markdown() {
    run(async {
        let host = start().await;
        let mut pages: Vec<String> = SCRIPTS[..25].iter().map(|&page| page.to_owned()).collect();
        // Texts that look like tags or links must stay texts.
        pages.push(
            "<p>&lt;script&gt;alert(1)&lt;/script&gt; [a](javascript:alert(1))</p>".to_owned(),
        );
        pages.push(
            "<a href='x)<script>alert(1)</script>'>y</a><img alt='](javascript:alert(1))' src=x>"
                .to_owned(),
        );
        for page in pages {
            let answer = done(&host, "html_to_markdown", "text/html", page.clone().into()).await;
            let markdown = text(&answer, "markdown");
            let raw = markdown.match_indices('<').any(|(at, _)| {
                // `<` may begin the target of a link, where no tag can stand.
                !markdown[..at].ends_with('\\') && !markdown[..at].ends_with("](")
            });
            assert!(
                !raw && !markdown.replace("\\]", "").contains("](javascript"),
                "{page:?}: {markdown}"
            );
            let answer = done(&host, "markdown_to_html", "text/markdown", markdown.into()).await;
            harmless(text(&answer, "html"), &page);
        }
    });
}

#[test]
fn an_empty_document_is_an_empty_text_or_says_that_it_is_none() {
    run(async {
        let host = start().await;
        for (name, media_type, field, nothing) in [
            ("html_to_text", "text/html", "text", json!("")),
            ("html_to_markdown", "text/html", "markdown", json!("")),
            ("markdown_to_html", "text/markdown", "html", json!("")),
            ("csv_to_json", "text/csv", "rows", json!([])),
            ("text_to_stream", "text/plain", "chunks", json!([])),
        ] {
            for empty in ["", " \n\n", "\u{feff}"] {
                let answer = done(&host, name, media_type, empty.into()).await;
                let mut got = answer[field].clone();
                if let Value::String(text) = &mut got {
                    *text = text.trim_matches(['\n', '\u{feff}']).to_owned();
                }
                assert_eq!(got, nothing, "{name} of {empty:?}");
            }
        }
        for (name, media_type) in [
            ("pdf_to_text", "application/pdf"),
            ("docx_to_text", DOCX),
            ("email_to_text", "message/rfc822"),
        ] {
            let (status, problem) = convert(&host, name, media_type, Vec::new()).await;
            assert_eq!(
                (status, &problem["worker_code"]),
                (422, &json!("broken")),
                "{problem}"
            );
        }
        // Neither in one form nor in the other.
        for name in [
            "html_to_text",
            "html_to_markdown",
            "markdown_to_html",
            "csv_to_json",
            "text_to_stream",
        ] {
            let (status, problem) = convert(&host, name, "application/json", "{}".into()).await;
            assert_eq!(
                (status, &problem["code"]),
                (422, &json!("invalid-input")),
                "{problem}"
            );
        }
    });
}

const HEBREW: &str =
    "\u{5d4}\u{5de}\u{5e0}\u{5d5}\u{5e8}\u{5d4} \u{5d3}\u{5d5}\u{5dc}\u{5e7}\u{5ea}";
const ARABIC: &str =
    "\u{627}\u{644}\u{645}\u{635}\u{628}\u{627}\u{62d} \u{645}\u{636}\u{627}\u{621}";
const JAPANESE: &str = "\u{706f}\u{53f0}\u{306f}\u{5149}\u{3063}\u{3066}\u{3044}\u{307e}\u{3059}";
const CHINESE: &str = "\u{706f}\u{5854}\u{4eae}\u{7740}";

#[test]
fn every_script_comes_through_in_its_own_order() {
    run(async {
        let host = start().await;
        let all = [HEBREW, ARABIC, JAPANESE, CHINESE];
        let page: String = all
            .iter()
            .map(|one| format!("<p dir=auto>{one}</p>"))
            .collect();
        let answer = done(&host, "html_to_text", "text/html", page.clone().into()).await;
        assert_eq!(text(&answer, "text"), all.join("\n\n"));
        let answer = done(&host, "html_to_markdown", "text/html", page.into()).await;
        assert_eq!(text(&answer, "markdown"), all.join("\n\n"));
        let answer = done(
            &host,
            "markdown_to_html",
            "text/markdown",
            all.join("\n\n").into(),
        )
        .await;
        let expected: String = all.iter().map(|one| format!("<p>{one}</p>\n")).collect();
        assert_eq!(text(&answer, "html"), expected);

        // UTF-16 with its mark, as spreadsheets save it; and Shift JIS, which the bytes show.
        let table = format!("a,b\n{HEBREW},{JAPANESE}\n");
        let utf16: Vec<u8> = "\u{feff}"
            .encode_utf16()
            .chain(table.encode_utf16())
            .flat_map(u16::to_le_bytes)
            .collect();
        for (query, bytes) in [("", table.into_bytes()), ("", utf16)] {
            let answer = done(&host, &format!("csv_to_json{query}"), "text/csv", bytes).await;
            assert_eq!(answer["rows"], json!([{ "a": HEBREW, "b": JAPANESE }]));
        }
        // "Lighthouse", in Shift JIS.
        let shift_jis = b"a,b\n\x93\x94\x91\xe4,1\n".to_vec();
        let answer = done(
            &host,
            "csv_to_json?charset=shift_jis",
            "text/csv",
            shift_jis,
        )
        .await;
        assert_eq!(answer["rows"][0]["a"], "\u{706f}\u{53f0}");

        let question = format!("{ARABIC}\u{61f} {HEBREW}. {JAPANESE}\u{3002}{CHINESE}\u{3002}");
        let answer = done(&host, "text_to_stream", "text/plain", question.into()).await;
        let sentences = [
            format!("{ARABIC}\u{61f}"),
            format!("{HEBREW}."),
            format!("{JAPANESE}\u{3002}"),
            format!("{CHINESE}\u{3002}"),
        ];
        assert_eq!(answer["chunks"], json!(sentences));
    });
}

/// What a reader sees as one character each, and what it is made of.
const CHARACTERS: [&str; 12] = [
    "\u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{200d}\u{1f466}", // a family
    "\u{1f3f3}\u{fe0f}\u{200d}\u{1f308}",                           // a rainbow flag
    "\u{1f1e9}\u{1f1ea}",                                           // two flags, side by side
    "\u{1f1eb}\u{1f1f7}",
    "\u{1f3f4}\u{e0067}\u{e0062}\u{e0065}\u{e006e}\u{e0067}\u{e007f}", // England's
    "\u{1f44d}\u{1f3fd}",           // a thumb with its skin's tone
    "1\u{fe0f}\u{20e3}",            // a keycap
    "e\u{323}\u{301}",              // two marks on a letter
    "\u{915}\u{94d}\u{937}\u{93f}", // a conjunct in Devanagari
    "\u{1112}\u{1161}\u{11ab}",     // a syllable of three jamo
    "\u{e01}\u{e33}",               // Thai
    "Z\u{351}\u{36b}\u{343}\u{36a}\u{302}\u{36b}\u{33d}\u{34f}\u{334}\u{319}", // more marks than anyone needs
];

#[test]
fn no_chunk_begins_or_ends_within_a_character() {
    run(async {
        let host = start().await;
        for max in [1, 2, 3, 5, 8, 13] {
            for unit in ["sentence", "paragraph"] {
                let source = CHARACTERS.concat().repeat(20);
                let name = format!("text_to_stream?unit={unit}&max_chars={max}");
                let answer = done(&host, &name, "text/plain", source.clone().into()).await;
                let mut expected = CHARACTERS.iter().cycle();
                for chunk in answer["chunks"].as_array().expect("a list") {
                    let chunk = chunk.as_str().expect("a text");
                    let mut rest = chunk;
                    let mut whole = 0;
                    while !rest.is_empty() {
                        let character = expected.next().expect("no end");
                        rest = rest
                            .strip_prefix(character)
                            .unwrap_or_else(|| panic!("{chunk:?} at {max} breaks {character:?}"));
                        whole += 1;
                    }
                    // Longer than asked only where one character alone is.
                    assert!(
                        whole == 1 || chunk.chars().count() <= max,
                        "{chunk:?} at {max}"
                    );
                }
                let chunks = answer["chunks"].as_array().expect("a list").iter();
                assert_eq!(
                    chunks
                        .map(|chunk| chunk.as_str().expect("a text"))
                        .collect::<String>(),
                    source
                );
            }
        }
    });
}

#[test]
fn documents_of_megabytes_are_converted() {
    run(async {
        let host = start().await;
        let rows = "day,litres,\"a, remark\"\n".to_owned()
            + &"2024-02-29,3.5,\"calm,\nand \"\"clear\"\"\"\n".repeat(100_000);
        let answer = done(&host, "csv_to_json", "text/csv", rows.into()).await;
        let rows = answer["rows"].as_array().expect("a list");
        assert_eq!(rows.len(), 100_000);
        assert_eq!(rows[99_999]["a, remark"], "calm,\nand \"clear\"");

        let page = "<h2>Log</h2><p>The <b>lamp</b> is <a href=/lit>lit</a>.</p><ul><li>oil<li>wicks</ul><table><tr><td>1<td>2</table>".repeat(10_000);
        let answer = done(&host, "html_to_text", "text/html", page.clone().into()).await;
        assert_eq!(
            text(&answer, "text").matches("The lamp is lit.").count(),
            10_000
        );
        let answer = done(&host, "html_to_markdown", "text/html", page.into()).await;
        let markdown = text(&answer, "markdown");
        assert_eq!(
            markdown.matches("The **lamp** is [lit](/lit).").count(),
            10_000
        );
        let answer = done(&host, "markdown_to_html", "text/markdown", markdown.into()).await;
        assert_eq!(
            text(&answer, "html")
                .matches("<strong>lamp</strong>")
                .count(),
            10_000
        );

        let text = "The lamp is lit. The wind turns! Is it night?\n\n".repeat(100_000);
        let answer = done(&host, "text_to_stream", "text/plain", text.into()).await;
        assert_eq!(answer["chunks"].as_array().expect("a list").len(), 300_000);
    });
}

/// A ZIP file of files that are stored as they are.
fn stored(files: &[(&str, &str)]) -> Vec<u8> {
    let (mut zip, mut directory) = (Vec::new(), Vec::new());
    for (name, text) in files {
        let offset = zip.len() as u32;
        let length = (text.len() as u32).to_le_bytes();
        let mut about = vec![20, 0, 0, 0, 0, 0, 0, 0, 0, 0];
        about.extend(crc32(text.as_bytes()).to_le_bytes());
        about.extend([length, length].concat());
        about.extend([name.len() as u8, 0, 0, 0]);
        zip.extend(b"PK\x03\x04");
        zip.extend(&about);
        zip.extend([name.as_bytes(), text.as_bytes()].concat());
        directory.extend(b"PK\x01\x02\x14\0");
        directory.extend(&about);
        directory.extend([0; 10]);
        directory.extend(offset.to_le_bytes());
        directory.extend(name.as_bytes());
    }
    let (start, files) = (zip.len() as u32, files.len() as u8);
    let length = directory.len() as u32;
    zip.extend(directory);
    zip.extend(b"PK\x05\x06\0\0\0\0");
    zip.extend([files, 0, files, 0]);
    zip.extend([length.to_le_bytes(), start.to_le_bytes()].concat());
    zip.extend([0, 0]);
    zip
}

#[test]
fn a_word_document_of_a_thousand_pages_is_read_to_its_last_line() {
    run(async {
        let host = start().await;
        let paragraph = |text: &str| format!("<w:p><w:r><w:t>{text}</w:t></w:r></w:p>");
        let scripts = [HEBREW, ARABIC, JAPANESE, CHINESE];
        let mut body = String::new();
        for page in 1..=1000 {
            body += &format!(
                "<w:p><w:pPr><w:pStyle w:val=\"Heading1\"/><w:outlineLvl w:val=\"0\"/></w:pPr><w:r><w:t>Page {page}</w:t></w:r></w:p>"
            );
            for line in 1..=40 {
                body += &paragraph(&format!("Page {page}, line {line}: {}", scripts[line % 4]));
            }
            let cell = |text: usize| format!("<w:tc>{}</w:tc>", paragraph(&text.to_string()));
            body += &format!(
                "<w:tbl><w:tr>{}{}</w:tr></w:tbl>",
                cell(page),
                cell(page * 2)
            );
        }
        const WORD: &str = "http://schemas.openxmlformats.org/wordprocessingml/2006/main";
        const RELATIONS: &str = "http://schemas.openxmlformats.org/package/2006/relationships";
        const DOCUMENT: &str =
            "http://schemas.openxmlformats.org/officeDocument/2006/relationships/officeDocument";
        let document =
            format!("<w:document xmlns:w=\"{WORD}\"><w:body>{body}</w:body></w:document>");
        let relations = format!(
            "<Relationships xmlns=\"{RELATIONS}\"><Relationship Id=\"r1\" Type=\"{DOCUMENT}\" Target=\"word/document.xml\"/></Relationships>"
        );
        let file = stored(&[
            ("_rels/.rels", &relations),
            ("word/document.xml", &document),
        ]);
        let answer = done(&host, "docx_to_text", DOCX, file).await;
        let text = text(&answer, "text");
        assert_eq!(text.matches(", line 40: ").count(), 1000);
        assert!(
            text.starts_with("# Page 1\n\nPage 1, line 1: "),
            "{text:.100}"
        );
        let last = format!("Page 1000, line 40: {HEBREW}\n\n1000 | 2000");
        assert!(text.trim_end().ends_with(&last), "no {last:?} at the end");
    });
}
