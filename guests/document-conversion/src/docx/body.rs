//! The text of a part, paragraph by paragraph.

use std::collections::HashMap;

use crank_worker::Failure;
use quick_xml::events::BytesStart;

use super::styles::{Look, Role, Styles};
use super::{Xml, attribute, read};

/// Lists within lists that are shown as such.
const LEVELS: usize = 8;

/// A text that grows paragraph by paragraph, through all parts.
pub struct Body<'a> {
    styles: &'a Styles,
    text: String,
    /// The last block is an item; its outermost list has numbers.
    in_list: Option<bool>,
    /// How far each list has counted, by level.
    counts: HashMap<String, Vec<u32>>,
    /// Paragraphs that are open: a text box lies within one.
    paragraphs: Vec<(Look, String)>,
    tables: Vec<Table>,
    /// Elements around this place whose content is not wanted.
    skipped: usize,
    /// The text of a run follows.
    in_text: bool,
    /// Before the next paragraph: the number of a note.
    label: Option<String>,
    /// Number of each note, by kind and id, in the order of their marks.
    notes: HashMap<(bool, String), usize>,
}

#[derive(Default)]
struct Table {
    rows: Vec<Vec<String>>,
    /// Columns that the present cell spans.
    span: usize,
}

impl<'a> Body<'a> {
    pub fn new(styles: &'a Styles) -> Self {
        Self {
            styles,
            text: String::new(),
            in_list: None,
            counts: HashMap::new(),
            paragraphs: Vec::new(),
            tables: Vec::new(),
            skipped: 0,
            in_text: false,
            label: None,
            notes: HashMap::new(),
        }
    }

    pub fn into_text(self) -> String {
        self.text
    }

    /// Adds the text of a part.
    pub fn read(&mut self, part: &str) -> Result<(), Failure> {
        read(part, |event| match event {
            Xml::Start(name, tag) => self.start(name, tag),
            Xml::End(name) => self.end(name),
            Xml::Text(text) if self.in_text && self.skipped == 0 => self.push(text),
            Xml::Text(_) => {}
        })
    }

    fn start(&mut self, name: &str, tag: &BytesStart<'_>) {
        // What old programs show in place of a drawing is there twice; what was moved away is
        // elsewhere; what properties were before a change no longer counts.
        if self.skipped > 0
            || matches!(
                name,
                "Fallback" | "moveFrom" | "pPrChange" | "rPrChange" | "numberingChange"
            )
        {
            self.skipped += 1;
            return;
        }
        match name {
            "p" => self.paragraphs.push((Look::default(), String::new())),
            "pStyle" | "outlineLvl" | "numId" | "ilvl" => {
                if let Some((look, _)) = self.paragraphs.last_mut() {
                    look.take(name, attribute(tag, "val"));
                }
            }
            "t" => self.in_text = true,
            "tab" | "ptab" => self.push("\t"),
            "br" | "cr" => self.push("\n"),
            "noBreakHyphen" => self.push("\u{2011}"),
            "sym" => self.symbol(tag),
            "tbl" => self.tables.push(Table::default()),
            "tr" => self.cell(|table| table.rows.push(Vec::new())),
            "tc" => self.cell(|table| {
                table.span = 1;
                if let Some(row) = table.rows.last_mut() {
                    row.push(String::new());
                }
            }),
            "gridSpan" => {
                let span = attribute(tag, "val").and_then(|span| span.parse().ok());
                self.cell(|table| table.span = span.unwrap_or(1).clamp(1, 100));
            }
            "footnoteReference" | "endnoteReference" => {
                let number = self.notes.len() + 1;
                let key = (
                    name == "footnoteReference",
                    attribute(tag, "id").unwrap_or_default(),
                );
                let number = *self.notes.entry(key).or_insert(number);
                self.push(&format!("[{number}]"));
            }
            "footnote" | "endnote" => {
                let key = (name == "footnote", attribute(tag, "id").unwrap_or_default());
                // Notes that no mark leads to are the lines that separate them from the text.
                match self.notes.get(&key) {
                    Some(number) => self.label = Some(format!("[{number}] ")),
                    None => self.skipped = 1,
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, name: &str) {
        if self.skipped > 0 {
            self.skipped -= 1;
            return;
        }
        match name {
            "t" => self.in_text = false,
            "p" => {
                if let Some((look, text)) = self.paragraphs.pop() {
                    self.paragraph(look, text.trim());
                }
            }
            "tc" => self.cell(|table| {
                if let Some(row) = table.rows.last_mut() {
                    row.resize(row.len() + table.span - 1, String::new());
                }
            }),
            "tbl" => self.table(),
            _ => {}
        }
    }

    fn push(&mut self, text: &str) {
        if let Some((_, paragraph)) = self.paragraphs.last_mut() {
            paragraph.push_str(text);
        }
    }

    /// A character of a symbol font, if it is one that Unicode has there too.
    fn symbol(&mut self, tag: &BytesStart<'_>) {
        let code = attribute(tag, "char").and_then(|code| u32::from_str_radix(&code, 16).ok());
        if let Some(c) = code
            .and_then(char::from_u32)
            .filter(|c| !('\u{e000}'..='\u{f8ff}').contains(c))
        {
            self.push(c.encode_utf8(&mut [0; 4]));
        }
    }

    fn cell(&mut self, change: impl FnOnce(&mut Table)) {
        if let Some(table) = self.tables.last_mut() {
            change(table);
        }
    }

    fn paragraph(&mut self, look: Look, text: &str) {
        if let Some(cell) = self
            .tables
            .last_mut()
            .and_then(|table| table.rows.last_mut()?.last_mut())
        {
            let words = text.split_whitespace();
            for word in words {
                if !cell.is_empty() {
                    cell.push(' ');
                }
                cell.push_str(word);
            }
            return;
        }
        let role = self.styles.role(look);
        // An item counts even if it is empty.
        let mark = match &role {
            Role::Item {
                list,
                level,
                numbered: true,
            } => format!("{}. ", self.count(list, *level)),
            Role::Item { .. } => "- ".to_owned(),
            Role::Heading(level) => format!("{} ", "#".repeat(*level)),
            Role::Text => String::new(),
        };
        if text.is_empty() {
            return;
        }
        let label = self.label.take().unwrap_or_default();
        match role {
            Role::Item {
                level, numbered, ..
            } => {
                let outermost = if level == 0 {
                    numbered
                } else {
                    self.in_list.unwrap_or(numbered)
                };
                let indent = "  ".repeat(level.min(LEVELS));
                let text = text.replace('\n', &format!("\n{indent}  "));
                self.block(&format!("{indent}{mark}{label}{text}"), Some(outermost));
            }
            Role::Heading(_) => {
                self.block(&format!("{mark}{label}{}", text.replace('\n', " ")), None);
            }
            Role::Text => self.block(&format!("{label}{text}"), None),
        }
    }

    /// The number of a list's next item.
    fn count(&mut self, list: &str, level: usize) -> u32 {
        let level = level.min(LEVELS);
        let counts = self.counts.entry(list.to_owned()).or_default();
        // A deeper list begins anew below each item.
        counts.resize(level + 1, 0);
        let count = &mut counts[level];
        *count = count.saturating_add(1);
        *count
    }

    fn table(&mut self) {
        let Some(table) = self.tables.pop() else {
            return;
        };
        let rows = table
            .rows
            .iter()
            .filter(|row| row.iter().any(|cell| !cell.is_empty()));
        let lines: Vec<String> = rows.map(|row| row.join(" | ")).collect();
        if lines.is_empty() {
            return;
        }
        // A table in a cell is text there.
        if self.tables.is_empty() {
            self.block(&lines.join("\n"), None);
        } else {
            self.paragraph(Look::default(), &lines.join(" "));
        }
    }

    fn block(&mut self, block: &str, list: Option<bool>) {
        if !self.text.is_empty() {
            let same = list.is_some() && self.in_list == list;
            self.text.push_str(if same { "\n" } else { "\n\n" });
        }
        self.in_list = list;
        self.text.push_str(block);
    }
}
