//! DOCX, HTML, Markdown and CSV.

use std::io::Write;

use flate2::Compression;
use flate2::write::DeflateEncoder;
use rawzip::{CompressionMethod, ZipArchiveWriter};

use super::*;

fn docx(name: &str) -> Result<Value, Failure> {
    call("convert:docx_to_text", crate::DOCX, data(name), &[])
}

pub fn html(capability: &str, page: &str) -> String {
    let answer = call(capability, "text/html", page.into(), &[]).unwrap();
    let field = if capability.ends_with("text") {
        "text"
    } else {
        "markdown"
    };
    answer[field].as_str().unwrap().to_owned()
}

fn csv(table: &str) -> Value {
    call("convert:csv_to_json", "text/csv", table.into(), &[]).unwrap()
}

fn to_html(markdown: &str) -> String {
    let answer = call(
        "convert:markdown_to_html",
        "text/markdown",
        markdown.into(),
        &[],
    )
    .unwrap();
    answer["html"].as_str().unwrap().to_owned()
}

/// A document with these parts, and the ones without which it is none.
fn package(parts: &[(&str, Vec<u8>)]) -> Vec<u8> {
    let relations = br#"<Relationships><Relationship Type="http://x/officeDocument" Target="w/d.xml"/></Relationships>"#;
    let mut file = Vec::new();
    let mut archive = ZipArchiveWriter::new(&mut file);
    for (name, bytes) in [("_rels/.rels", relations.to_vec())].iter().chain(parts) {
        let method = CompressionMethod::DEFLATE;
        let (mut entry, config) = archive
            .new_file(name)
            .compression_method(method)
            .start()
            .unwrap();
        let mut writer = config.wrap(DeflateEncoder::new(&mut entry, Compression::default()));
        writer.write_all(bytes).unwrap();
        let (encoder, descriptor) = writer.finish().unwrap();
        encoder.finish().unwrap();
        entry.finish(descriptor).unwrap();
    }
    archive.finish().unwrap();
    file
}

pub fn refused(capability: &str, media_type: &str, body: Vec<u8>) -> String {
    let failure = call(capability, media_type, body, &[]).unwrap_err();
    assert_eq!(failure.kind, crank_worker::FailureKind::InvalidInput);
    failure.code.unwrap()
}

#[test]
fn documents_of_three_producers_keep_headings_lists_tables_notes_and_scripts() {
    let lists = "## What is needed\n\n- oil\n  - colza\n  - paraffin\n- wicks & glass\n\n1. Fill it.\n2. Light it.";
    // Its second-level style has a level of its own, and no depth.
    let flat = "## What is needed\n\n- oil\n- colza\n- paraffin\n- wicks & glass\n\n1. Fill it.\n2. Light it.";
    let table = "Day | Litres | Remark\n1 | 3.5 | calm\n2 | 4.0 | a < b";
    let tongues = "## In other tongues\n\nالمصباح مضاء كل ليلة.\n\nהמנורה דולקת בכל לילה.\n\n灯台は毎晩光っています。";
    let note = "\n\n[1] Colza oil, since 1841.";
    let merged = "\nall |  | | 7.5\n";
    for (producer, parts) in [
        (
            "pandoc",
            vec![
                "# Report of the keeper\n\nZoë Ångström\n\n# The lamp\n\nThe lamp burns every night; see the rules.[1]\n",
                lists,
                table,
                tongues,
                note,
            ],
        ),
        (
            "libreoffice",
            vec![
                "# The lamp\n\nThe lamp burns every night; see the rules.[1]\n",
                lists,
                table,
                tongues,
                note,
            ],
        ),
        (
            "python-docx",
            vec![
                "# The lamp\n\nThe lamp burns every night;\tsee\nthe rules.\n",
                flat,
                table,
                merged,
                tongues,
            ],
        ),
    ] {
        let answer = docx(&format!("{producer}.docx")).unwrap();
        let text = answer["text"].as_str().unwrap();
        for part in parts {
            assert!(text.contains(part), "{producer}: no {part:?} in {text}");
        }
        assert_eq!(answer["title"], "Report of the keeper", "{producer}");
        assert_eq!(answer["author"], "Zoë Ångström", "{producer}");
    }
    assert_eq!(docx("empty.docx").unwrap()["text"], "");
}

#[test]
fn what_was_deleted_is_gone_and_what_is_there_twice_is_read_once() {
    let body = r#"<w:document xmlns:w="w"><w:body><w:p><w:r><w:t>a&amp;b&#x20;</w:t></w:r>
        <w:del><w:r><w:delText>gone</w:delText></w:r></w:del><w:ins><w:r><w:t>new</w:t></w:r></w:ins>
        <w:r><AlternateContent><Choice><w:p><w:r><w:t>box</w:t></w:r></w:p></Choice><Fallback><w:p><w:r><w:t>box</w:t></w:r></w:p></Fallback></AlternateContent></w:r>
        </w:p></w:body></w:document>"#;
    let file = package(&[("w/d.xml", body.into())]);
    let answer = call("convert:docx_to_text", crate::DOCX, file, &[]).unwrap();
    assert_eq!(answer["text"], "box\n\na&b new");
}

#[test]
fn bombs_entities_and_broken_documents_are_refused() {
    let refused = |file: Vec<u8>| refused("convert:docx_to_text", crate::DOCX, file);
    let bomb = package(&[("w/d.xml", vec![b' '; 200 << 20])]);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    assert_eq!(refused(bomb), "too-large");
    assert_eq!(refused(b"PK\x03\x04 and then nothing".to_vec()), "broken");
    assert_eq!(refused(Vec::new()), "broken");
    assert_eq!(refused(package(&[])), "broken");
    assert_eq!(
        refused(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1".to_vec()),
        "encrypted"
    );
    assert_eq!(
        refused(package(&[("w/d.xml", b"<a><b></a>".to_vec())])),
        "broken"
    );
    // A claim of another size than there is, at every place of the directory.
    let mut claims = data("pandoc.docx");
    for place in claims.len() - 600..claims.len() {
        let kept = std::mem::replace(&mut claims[place], 0xff);
        let _ = call("convert:docx_to_text", crate::DOCX, claims.clone(), &[]);
        claims[place] = kept;
    }

    let laughs = r#"<!DOCTYPE d [<!ENTITY a "haha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c SYSTEM "file:///etc/passwd">]>
        <w:document><w:p><w:t>x&b;&c;y</w:t></w:p></w:document>"#;
    let file = package(&[("w/d.xml", laughs.into())]);
    let answer = call("convert:docx_to_text", crate::DOCX, file, &[]).unwrap();
    assert_eq!(answer["text"], "xy");
    let deep = format!(
        "{}{}",
        "<w:tbl><w:tr><w:tc>".repeat(100_000),
        "</w:tc></w:tr></w:tbl>".repeat(100_000)
    );
    let file = package(&[("w/d.xml", format!("<w:d>{deep}</w:d>").into())]);
    assert_eq!(
        call("convert:docx_to_text", crate::DOCX, file, &[]).unwrap()["text"],
        ""
    );
}

#[test]
fn a_page_keeps_its_structure_as_text_and_as_markdown() {
    let page = r#"<title> The
        log </title><style>p{}</style><h1>The <em>lamp</em></h1>
        <p>It burns <b> every </b>night; see <a href="/a(b)">the rules</a> &amp; <a href="javascript:alert(1)">this</a>.<br>A * star.</p>
        <ul><li>oil<ul><li>colza</ul><li><p>wicks</p><p>of wool</p></ul><ol start=3><li>three<li><blockquote>four</ol>
        <pre><code class="language-rust">fn main() {
    x
}</code></pre><table><tr><th>Day<th>a|b<tr><td rowspan=2>1<td>3.5<tr><td>4</table>
        <table><tr><td><ul><li>frame</ul></table><script>alert(1)</script><p>1. no list<p>המנורה <b>בכל</b><p>灯台は<i>光</i>。"#;
    assert_eq!(
        html("convert:html_to_text", page),
        "# The lamp\n\nIt burns every night; see the rules & this.\nA * star.\n\n\
         - oil\n  - colza\n- wicks\n\n  of wool\n\n3. three\n4. > four\n\n\
         fn main() {\n    x\n}\n\nDay | a|b\n1 | 3.5\n | 4\n\n- frame\n\n1. no list\n\nהמנורה בכל\n\n灯台は光。"
    );
    assert_eq!(
        html("convert:html_to_markdown", page),
        "# The *lamp*\n\nIt burns **every** night; see [the rules](</a(b)>) & this.\\\nA \\* star.\n\n\
         - oil\n  - colza\n- wicks\n\n  of wool\n\n3. three\n4. > four\n\n\
         ```rust\nfn main() {\n    x\n}\n```\n\n| Day | a\\|b |\n| --- | --- |\n| 1 | 3.5 |\n|  | 4 |\n\n- frame\n\n\
         1\\. no list\n\nהמנורה **בכל**\n\n灯台は*光*。"
    );
    let title = call("convert:html_to_text", "text/html", page.into(), &[]).unwrap();
    assert_eq!(title["title"], "The log");
    assert_eq!(html("convert:html_to_text", ""), "");
}

/// What Markdown would misread is escaped: there and back again it is the same text.
#[test]
fn text_survives_the_way_to_markdown_and_back() {
    for text in [
        "a * b _c_ d_e_f `g` [h](i) ![j] <k> &amp; \\ ~~l~~ m|n",
        "# no heading",
        "- no item",
        "1) no item",
        "> no quote",
        "---",
        "+ x",
        "~~~",
        "3.5 is a number",
        "a! [b]",
    ] {
        let escaped = text.replace('&', "&amp;").replace('<', "&lt;");
        let markdown = html("convert:html_to_markdown", &format!("<p>{escaped}</p>"));
        let back = html("convert:html_to_text", &to_html(&markdown));
        assert_eq!(back, text, "{markdown}");
    }
}

#[test]
fn a_page_is_read_in_the_character_set_that_it_names_or_has() {
    let read = |page: &[u8], parameters: &[(&str, &str)]| {
        call(
            "convert:html_to_text",
            "text/html",
            page.to_vec(),
            parameters,
        )
        .unwrap()["text"]
            .clone()
    };
    assert_eq!(
        read(b"<meta charset=koi8-r><p>\xed\xcf\xd2\xc5", &[]),
        "Море"
    );
    assert_eq!(
        read(b"<p>\xed\xcf\xd2\xc5", &[("charset", "koi8-r")]),
        "Море"
    );
    assert_eq!(read(b"\xff\xfe<\0p\0>\0\x6f\x70", &[]), "灯");
    assert_eq!(read("<p>Öl".as_bytes(), &[]), "Öl");
    let unknown = call(
        "convert:html_to_text",
        "text/html",
        b"x".to_vec(),
        &[("charset", "klingon")],
    );
    assert_eq!(unknown.unwrap_err().pointer.as_deref(), Some("/charset"));
}

#[test]
fn pages_that_would_cost_too_much_are_refused_and_others_answered() {
    let page = |capability: &str, page: String| refused(capability, "text/html", page.into());
    for capability in ["convert:html_to_text", "convert:html_to_markdown"] {
        assert_eq!(page(capability, "<div>".repeat(100_000)), "too-complex");
    }
    // Formatting that is open is repeated in each paragraph.
    let fonts: String = (0..400)
        .map(|number| format!("<p><font color={number}>"))
        .collect();
    assert_eq!(
        page("convert:html_to_text", fonts + &"<p>".repeat(50_000)),
        "too-complex"
    );
    let mail = format!("Content-Type: text/html\r\n\r\n{}", "<div>".repeat(100_000));
    assert_eq!(
        refused("convert:email_to_text", "message/rfc822", mail.into()),
        "too-complex"
    );
    for deep in [
        "> ".repeat(100_000),
        "<div>".repeat(100_000),
        "&amp".repeat(50_000),
    ] {
        assert_eq!(
            refused("convert:markdown_to_html", "text/markdown", deep.into()),
            "too-complex"
        );
    }
    // As deep as may be, and wide cells over wide cells: no longer than some times the page.
    for (opened, text) in [
        ("<blockquote>", "x<br>"),
        ("<ul><li>", "x<p>"),
        ("<b>", "x "),
        ("<p><i><b>", "x"),
    ] {
        let deep = opened.repeat(120) + &text.repeat(5_000);
        assert!(
            html("convert:html_to_markdown", &deep).len() < 40 * deep.len(),
            "{opened}"
        );
    }
    let cells = format!("<table><tr>{}", "<td rowspan=999 colspan=999>x".repeat(50))
        + &"<tr><td>x".repeat(500);
    assert!(html("convert:html_to_markdown", &cells).len() < 10 * cells.len());
    // Marks in a row, each of which may end a sentence.
    let row = format!("a.{} End.", ")".repeat(50_000));
    let body = serde_json::to_vec(&json!({ "text": row })).unwrap();
    call("convert:text_to_stream", "application/json", body, &[]).unwrap();
}

#[test]
fn no_script_survives_markdown() {
    let hostile = "<script>alert(1)</script>\n\n[a](javascript:alert(1)) [b](JaVaScRiPt&#58;alert(1)) ![c](data:text/html;base64,x)\n\
        <img src=x onerror=alert(1)> <a href='vbscript:x' onclick=y>d</a> <iframe src=//x></iframe> <form action=x><input></form>\n\n\
        <svg><style><img src=x onerror=alert(1)></style></svg> <math><mi//xlink:href=\"data:x,<script>alert(4)</script>\">\n\n\
        <p style=\"background:url(javascript:x)\">e</p> <a id=location name=x>f</a> <https://example.org/\"onmouseover=alert(1)>";
    let page = to_html(hostile).to_lowercase();
    for bad in [
        "<script",
        "javascript:",
        "vbscript:",
        "data:text",
        " onerror",
        " onclick",
        "<iframe",
        "<form",
        "<input",
        "<svg",
        "<math",
        "<style",
        "url(",
        " id=",
        " onmouseover",
    ] {
        assert!(!page.contains(bad), "{bad} in {page}");
    }
    assert_eq!(
        to_html(
            "# Log\n\n- [x] *done*\n- [ ] `open`\n\n|a|b|\n|-|-:|\n|1|~~2~~|\n\n[x](/y \"z\") H<sub>2</sub>O"
        ),
        "<h1>Log</h1>\n<ul>\n<li>☑ <em>done</em></li>\n<li>☐ <code>open</code></li>\n</ul>\n\
         <table><thead><tr><th>a</th><th style=\"text-align:right\">b</th></tr></thead><tbody>\n\
         <tr><td>1</td><td style=\"text-align:right\"><del>2</del></td></tr>\n</tbody></table>\n\
         <p><a href=\"/y\" title=\"z\" rel=\"noopener noreferrer\">x</a> H<sub>2</sub>O</p>\n"
    );
    assert_eq!(to_html(""), "");
}

#[test]
fn a_table_is_read_with_quotes_and_whatever_divides_it() {
    let answer = csv("day,remark\r\n1,\"calm, \"\"clear\"\"\nand cold\"\r\n");
    assert_eq!(
        answer["rows"],
        json!([{"day": "1", "remark": "calm, \"clear\"\nand cold"}])
    );
    for (table, delimiter) in [
        ("a;b\n1,5;2\n", ";"),
        ("a\tb\n1\t2", "\t"),
        ("a|b\n1|2", "|"),
        ("sep=;\na,a;b\n1;2", ";"),
        ("a\n1,2 3", ","),
    ] {
        assert_eq!(csv(table)["delimiter"], delimiter, "{table}");
    }
    assert_eq!(
        csv("\u{feff}day,litres\n1,2")["rows"],
        json!([{"day": "1", "litres": "2"}])
    );
    let latin = call(
        "convert:csv_to_json",
        "text/csv",
        b"Stra\xdfe;M\xfcller\nK\xf6ln;5\n".to_vec(),
        &[],
    )
    .unwrap();
    assert_eq!(latin["rows"], json!([{"Straße": "Köln", "Müller": "5"}]));
    assert_eq!(latin["charset"], "windows-1252");
    for empty in ["", "\n\n", "a,b"] {
        assert_eq!(csv(empty)["rows"], json!([]));
    }
    let bare = call(
        "convert:csv_to_json",
        "text/csv",
        "1,2\n3".into(),
        &[("header", "false"), ("delimiter", ",")],
    );
    assert_eq!(bare.unwrap()["rows"], json!([["1", "2"], ["3"]]));
}

#[test]
fn every_column_has_a_name_of_its_own() {
    let answer = csv("n,n,,n_2,column_3\n1,2,3,4,5,6\n1\n");
    assert_eq!(
        answer["columns"],
        json!(["n", "n_3", "column_3_2", "n_2", "column_3", "column_6"])
    );
    assert_eq!(answer["rows"][0]["n_3"], "2");
    assert_eq!(answer["rows"][1], json!({"n": "1"}));
    let long = format!("{}\n{}", "h".repeat(100_000), "x\n".repeat(10_000));
    assert_eq!(
        refused("convert:csv_to_json", "text/csv", long.into()),
        "too-large"
    );
}
