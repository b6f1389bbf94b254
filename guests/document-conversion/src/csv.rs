//! `convert:csv_to_json`.

use std::collections::{BTreeMap, HashMap, HashSet};

use crank_worker::{Bytes, Failure};
use csv::{Reader, ReaderBuilder, StringRecord};
use schemars::JsonSchema;
use serde::ser::{Error as _, SerializeSeq};
use serde::{Deserialize, Serialize, Serializer};

use crate::source;

/// A table. It comes as `csv` or, raw, as `document`.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Input {
    /// The table.
    csv: Option<String>,
    /// The table as a file, in place of `csv`.
    #[schemars(extend("contentMediaType" = "text/csv"))]
    document: Option<Bytes>,
    /// The file's character set, `windows-1252`. By default what its bytes look like.
    charset: Option<String>,
    /// The character between two cells. By default the comma, semicolon, tab or bar that divides the
    /// first lines most evenly, or what a first line `sep=;` says.
    #[schemars(length(min = 1, max = 1), regex(pattern = "^[ -~\\t]$"))]
    delimiter: Option<String>,
    /// The first row names the columns.
    #[serde(default = "yes")]
    header: bool,
}

fn yes() -> bool {
    true
}

/// A table, row by row.
#[derive(Serialize, JsonSchema)]
pub struct Output {
    /// The rows in order. With a header each is an object, by the names in `columns`; a row that is
    /// too short lacks the last ones. Without, each is a list. Cells are text, as they stand.
    #[schemars(with = "Vec<Cells>")]
    rows: Rows,
    /// The names of the columns, each once: a second `name` is `name_2`, one without a name
    /// `column_3`. None without a header.
    columns: Vec<String>,
    /// The character between two cells.
    delimiter: String,
    /// The character set of the file.
    #[serde(skip_serializing_if = "Option::is_none")]
    charset: Option<String>,
}

/// The table's rows, read again when they are written: lists of cells would need many times the
/// memory of the text.
struct Rows {
    text: String,
    delimiter: u8,
    /// None without a header.
    columns: Option<Vec<String>>,
}

/// What a row looks like as JSON.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "it is there for its schema")]
enum Cells {
    Named(BTreeMap<String, String>),
    Listed(Vec<String>),
}

impl Serialize for Rows {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut reader = reader(&self.text, self.delimiter);
        let mut rows = serializer.serialize_seq(None)?;
        let mut cells = StringRecord::new();
        let mut header = self.columns.is_some();
        while reader.read_record(&mut cells).map_err(S::Error::custom)? {
            match &self.columns {
                Some(_) if header => header = false,
                Some(columns) => rows.serialize_element(&Named(columns, &cells))?,
                None => rows.serialize_element(&Listed(&cells))?,
            }
        }
        rows.end()
    }
}

/// A row as an object.
struct Named<'a>(&'a [String], &'a StringRecord);

impl Serialize for Named<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().zip(self.1))
    }
}

/// A row as a list.
struct Listed<'a>(&'a StringRecord);

impl Serialize for Listed<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.0)
    }
}

/// Bytes of names in an answer. A long name in the header, repeated in each row, makes much of little.
const LARGEST: u64 = 256 << 20;

/// Bytes of the table's start that are looked at for its delimiter.
const SAMPLE: usize = 64 << 10;

pub fn to_json(input: Input) -> Result<Output, Failure> {
    let (pointer, text, charset) = match (input.csv, input.document) {
        (Some(csv), None) => ("/csv", csv, None),
        (None, Some(document)) => {
            let (text, charset) = source::decode(&document, input.charset.as_deref(), || None)?;
            ("/document", text, Some(charset.to_owned()))
        }
        _ => return Err(source::one_of("csv")),
    };
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    let (announced, text) = announced(text);
    let given = input
        .delimiter
        .as_ref()
        .and_then(|given| given.bytes().next());
    let delimiter = given.or(announced).unwrap_or_else(|| sniff(text));
    let columns = names(text, delimiter, input.header).map_err(|fault| match fault {
        Fault::Broken(error) => {
            Failure::invalid_input(pointer, format!("this is no table: {error}")).code("broken")
        }
        Fault::TooLarge => Failure::invalid_input(
            pointer,
            "with the header's names in every row the answer is too large; set header to false",
        )
        .code("too-large"),
    })?;
    Ok(Output {
        rows: Rows {
            text: text.to_owned(),
            delimiter,
            columns: input.header.then(|| columns.clone()),
        },
        columns,
        delimiter: char::from(delimiter).to_string(),
        charset,
    })
}

/// Why a text is not converted.
enum Fault {
    Broken(csv::Error),
    TooLarge,
}

/// A first line `sep=;`, as Excel writes it, and what follows.
fn announced(text: &str) -> (Option<u8>, &str) {
    let found = text.strip_prefix("sep=").and_then(|rest| {
        let (line, rest) = rest.split_once('\n')?;
        match line.trim_end_matches('\r').as_bytes() {
            [delimiter] => Some((Some(*delimiter), rest)),
            _ => None,
        }
    });
    found.unwrap_or((None, text))
}

fn reader(text: &str, delimiter: u8) -> Reader<&[u8]> {
    ReaderBuilder::new()
        .has_headers(false)
        .flexible(true)
        .delimiter(delimiter)
        .from_reader(text.as_bytes())
}

/// The delimiter that divides the first rows into the same number of cells most often; among equals
/// the one that makes most cells, and the comma of what divides nothing.
fn sniff(text: &str) -> u8 {
    let sample = &text[..text.floor_char_boundary(SAMPLE)];
    // The last row may be cut off.
    let end = if sample.len() < text.len() {
        sample.rfind('\n')
    } else {
        None
    };
    let sample = &sample[..end.unwrap_or(sample.len())];
    let score = |delimiter: u8| {
        let rows = reader(sample, delimiter)
            .into_records()
            .map_while(Result::ok);
        let widths: Vec<usize> = rows.map(|cells| cells.len()).collect();
        let first = widths.first().copied().unwrap_or_default();
        let alike = widths.iter().filter(|width| **width == first).count();
        // Text with commas in it makes rows of many widths.
        if first < 2 {
            (0, 0)
        } else {
            (1 + alike * 100 / widths.len(), first)
        }
    };
    // Of equals the last is the greatest.
    let candidates = [b'|', b'\t', b';', b','];
    candidates
        .into_iter()
        .max_by_key(|delimiter| score(*delimiter))
        .unwrap_or(b',')
}

/// A name for each column, if there is a header. Reads the whole table: rows may be wider than it.
fn names(text: &str, delimiter: u8, header: bool) -> Result<Vec<String>, Fault> {
    let mut reader = reader(text, delimiter);
    let mut cells = StringRecord::new();
    let mut first = StringRecord::new();
    if header {
        reader.read_record(&mut first).map_err(Fault::Broken)?;
    }
    // How many rows have so many cells.
    let mut widths = vec![0_u64; first.len() + 1];
    while reader.read_record(&mut cells).map_err(Fault::Broken)? {
        if widths.len() <= cells.len() {
            widths.resize(cells.len() + 1, 0);
        }
        if let Some(rows) = widths.get_mut(cells.len()) {
            *rows += 1;
        }
    }
    if !header {
        return Ok(Vec::new());
    }
    let names = different(&first, widths.len() - 1);
    let (mut upto, mut total) = (0_u64, 0_u64);
    for (rows, name) in widths.iter().skip(1).zip(&names) {
        upto += name.len() as u64;
        total = total.saturating_add(rows.saturating_mul(upto));
    }
    if total > LARGEST {
        return Err(Fault::TooLarge);
    }
    Ok(names)
}

/// So many names, each different: those of the header as far as they go.
fn different(header: &StringRecord, columns: usize) -> Vec<String> {
    // How often a name was wanted.
    let mut wanted: HashMap<String, usize> = HashMap::new();
    let mut taken: HashSet<String> = header.iter().map(|name| name.trim().to_owned()).collect();
    let mut kept = HashSet::new();
    let mut names = Vec::with_capacity(columns);
    for column in 0..columns {
        let given = header.get(column).unwrap_or_default().trim();
        let base = match given {
            "" => format!("column_{}", column + 1),
            name => name.to_owned(),
        };
        let count = wanted.entry(base.clone()).or_insert(0);
        // The first in the header keeps its name; no other takes one that stands there.
        let keeps = !given.is_empty() && kept.insert(given);
        *count = (*count).max(1);
        let mut name = base.clone();
        while !keeps && !taken.insert(name.clone()) {
            *count += 1;
            name = format!("{base}_{count}");
        }
        names.push(name);
    }
    names
}
