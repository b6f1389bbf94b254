//! `convert:pdf_to_text`.

mod glyphs;
mod lines;

use crank_worker::{Bytes, Failure};
use hayro_interpret::{Context, InterpreterCache, InterpreterSettings, interpret_page};
use hayro_syntax::{DecryptionError, LoadPdfError, Pdf};
use kurbo::{Affine, Rect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A PDF, and which of its pages are wanted.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The PDF file.
    #[schemars(extend("contentMediaType" = "application/pdf"))]
    document: Bytes,
    /// The first page that is wanted, counted from 1. By default the first.
    #[schemars(range(min = 1))]
    first_page: Option<usize>,
    /// The last page that is wanted. By default, and where the file is shorter, its last.
    #[schemars(range(min = 1))]
    last_page: Option<usize>,
}

/// The text of a PDF.
#[derive(Debug, Serialize, JsonSchema)]
pub struct Output {
    /// The text, line by line. A blank line stands between paragraphs, a form feed between pages.
    pub text: String,
    /// Number of pages in the whole file.
    pub pages: usize,
    /// The title that the file gives itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// The author whom the file names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
}

pub fn to_text(input: Input) -> Result<Output, Failure> {
    let pdf = open(input.document.0)?;
    let pages = pdf.pages();
    let first = input.first_page.unwrap_or(1);
    if first > pages.len() {
        let message = format!("the file ends with page {}", pages.len());
        return Err(Failure::invalid_input("/first_page", message).code("no-such-page"));
    }
    let last = input.last_page.unwrap_or(usize::MAX);
    let cache = InterpreterCache::new();
    let wanted = pages.iter().take(last).skip(first.saturating_sub(1));
    let mut text = String::new();
    for (index, page) in wanted.enumerate() {
        // Positions in the page's own space will do, so there is no box and no transform.
        let (transform, bounds) = (Affine::IDENTITY, Rect::new(0.0, 0.0, 1.0, 1.0));
        let settings = InterpreterSettings::default();
        let mut context = Context::new(transform, bounds, &cache, pdf.xref(), settings);
        let mut lines = lines::Lines::default();
        interpret_page(page, &mut context, &mut glyphs::Glyphs::new(&mut lines));
        let page = lines.into_text();
        // A word may be divided at a page's end too.
        let rest = lines::rejoin(&mut text, &page).unwrap_or(&page);
        if index > 0 {
            text.push_str("\n\u{c}");
        }
        text.push_str(rest);
    }
    if !text.contains(|c: char| c.is_alphanumeric()) {
        return Err(fault(
            "no-text",
            "the file shows no text, it may be a scan; it needs character recognition first",
        ));
    }
    let metadata = pdf.metadata();
    Ok(Output {
        text,
        pages: pages.len(),
        title: named(metadata.title.as_deref()),
        author: named(metadata.author.as_deref()),
    })
}

/// Reads the file's structure. A file that only restricts what may be done with it, and has no
/// password for reading, opens.
fn open(document: Vec<u8>) -> Result<Pdf, Failure> {
    let encrypted = |message: &str| Err(fault("encrypted", message));
    match Pdf::new(document) {
        Ok(pdf) if pdf.pages().is_empty() => {
            Err(fault("broken", "the file has no page that can be read"))
        }
        Ok(pdf) => Ok(pdf),
        Err(LoadPdfError::Decryption(DecryptionError::PasswordProtected)) => {
            encrypted("the file needs a password; send it unencrypted")
        }
        Err(LoadPdfError::Decryption(_)) => {
            encrypted("the file is encrypted in a way that is not understood; send it unencrypted")
        }
        Err(LoadPdfError::Invalid) => Err(fault(
            "broken",
            "the file is not a PDF, or is damaged beyond repair",
        )),
    }
}

fn fault(code: &str, message: &str) -> Failure {
    Failure::invalid_input("/document", message).code(code)
}

/// A title or a name from the file's metadata, if there is one.
fn named(bytes: Option<&[u8]>) -> Option<String> {
    let text = text_string(bytes?);
    let text = text.trim();
    (!text.is_empty()).then(|| text.to_owned())
}

/// A text string of PDF 32000-1, section 7.9.2.2: UTF-16 or UTF-8 with a byte order mark, else
/// PDFDocEncoding, of which only what it shares with Latin-1 is read.
fn text_string(bytes: &[u8]) -> String {
    match bytes {
        [0xfe, 0xff, rest @ ..] => {
            let (pairs, _) = rest.as_chunks();
            let units: Vec<u16> = pairs.iter().map(|pair| u16::from_be_bytes(*pair)).collect();
            String::from_utf16_lossy(&units)
        }
        [0xef, 0xbb, 0xbf, rest @ ..] => String::from_utf8_lossy(rest).into_owned(),
        latin => latin.iter().map(|byte| char::from(*byte)).collect(),
    }
}
