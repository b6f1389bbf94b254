//! Tags with many attributes.

use super::formats::{html, refused};

/// So many attributes, in each of which something looks like the end of the tag.
fn named(count: u32) -> String {
    let names = (0..count).map(|number| format!(" a{number}=\">\""));
    names.collect()
}

#[test]
fn a_tag_whose_attributes_would_cost_too_much_is_refused_wherever_it_stands() {
    let page = |capability: &str, page: String| refused(capability, "text/html", page.into());
    let many = named(30_000);
    for tag in [
        format!("<p{many}>"),
        format!("</p{many}>"),
        format!("</p='{many}>"),
        format!("text <<p/=\"{many}>"),
        format!("<svg><title><a{many}>"),
        format!("<!-- > <p x='--> <p{many}>"),
        format!("<a{}>", many.replace("=\">\" ", "/")),
        format!("<p{}>", named(4_000)).repeat(40),
    ] {
        for capability in ["convert:html_to_text", "convert:html_to_markdown"] {
            assert_eq!(page(capability, tag.clone()), "too-complex");
        }
    }
    let cleaned = refused(
        "convert:markdown_to_html",
        "text/markdown",
        format!("<p{many}>").into(),
    );
    assert_eq!(cleaned, "too-complex");
    // They are repeated with the formatting that has them.
    let font = format!("<p><font{}>", named(4_000));
    assert_eq!(
        page("convert:html_to_text", font + &"<p>x".repeat(3_000)),
        "too-complex"
    );
}

#[test]
fn words_that_only_look_like_attributes_cost_nothing() {
    let script = format!(
        "<script>if (a<b) {{ {} }}</script>",
        "c = d / e; ".repeat(2_000)
    );
    let style = format!("<p style=\"{}\"{}>", "a: b; ".repeat(100_000), named(2_000));
    let comment = format!("<!-- a <b {} -->", "word ".repeat(10_000));
    let harmless = format!("{script}{comment}{style}read me");
    assert_eq!(html("convert:html_to_markdown", &harmless), "read me");
}
