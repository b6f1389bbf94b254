//! A page's blocks in the order of reading: headings, paragraphs, lists, quotes, code, tables.

use super::inline::{Run, fence};
use super::layout::{Gap, Layout};
use super::tree::Tree;
use super::{Format, is_block, is_hidden};

/// Columns that one cell may span, and rows: more is no table that anybody reads.
const SPAN: usize = 100;

/// Empty cells for each cell of a table, where others span columns and rows.
const EMPTY: usize = 10;

/// Writes a page as text or as Markdown.
pub fn render(tree: &Tree, format: Format) -> String {
    let mut writer = Writer {
        tree,
        format,
        has_block: has_block(tree),
        layout: Layout::default(),
        lists: 0,
    };
    writer.blocks(0);
    writer.layout.into_text()
}

/// Of each node, whether a block lies in it.
fn has_block(tree: &Tree) -> Vec<bool> {
    let mut found = vec![false; tree.nodes.len()];
    let order: Vec<usize> = tree.walk().map(|(node, _)| node).collect();
    for node in order.into_iter().rev() {
        let children = &tree.nodes[node].children;
        let inside = |child: &usize| found[*child] || is_block(tree.nodes[*child].tag());
        found[node] = children.iter().any(inside);
    }
    found
}

struct Writer<'a> {
    tree: &'a Tree,
    format: Format,
    has_block: Vec<bool>,
    layout: Layout,
    /// Lists around this place.
    lists: usize,
}

impl Writer<'_> {
    /// Writes what is in an element: its blocks, and the text between them as paragraphs.
    fn blocks(&mut self, node: usize) {
        let mut run = Run::new(self.format);
        for child in &self.tree.nodes[node].children {
            let tag = self.tree.nodes[*child].tag();
            if is_hidden(tag) {
                continue;
            }
            if is_block(tag) || self.has_block[*child] {
                self.paragraph(&mut run);
                self.block(*child, tag);
            } else {
                run.add(self.tree, *child);
            }
        }
        self.paragraph(&mut run);
    }

    fn paragraph(&mut self, run: &mut Run) {
        let text = run.take();
        if !text.is_empty() {
            self.layout.block(Gap::Blank, &text);
        }
    }

    fn block(&mut self, node: usize, tag: &str) {
        match tag {
            "h1" | "h2" | "h3" | "h4" | "h5" | "h6" => self.heading(node, tag),
            "ul" | "ol" | "menu" | "dir" => self.list(node, tag == "ol"),
            // One that lies in no list.
            "li" => self.item(node, "- "),
            "blockquote" => {
                self.layout.gap(Gap::Blank);
                let outer = self.layout.enter("> ", "> ");
                self.blocks(node);
                self.layout.leave(outer);
            }
            "pre" | "listing" | "xmp" => self.code(node),
            "hr" if self.format == Format::Markdown => self.layout.block(Gap::Blank, "---"),
            "table" => match self.rows(node) {
                Some(rows) => self.table(node, rows),
                None => self.blocks(node),
            },
            _ => self.blocks(node),
        }
    }

    fn heading(&mut self, node: usize, tag: &str) {
        let text = self.line(node);
        if !text.is_empty() {
            let level = tag
                .bytes()
                .next_back()
                .map_or(1, |digit| usize::from(digit - b'0'));
            let line = format!("{} {text}", "#".repeat(level));
            self.layout.block(Gap::Blank, &line);
        }
    }

    /// An element's text on one line.
    fn line(&self, node: usize) -> String {
        let mut run = Run::new(self.format);
        run.children(self.tree, node);
        let text = run.take();
        match text.contains('\n') {
            true => text.replace("\\\n", " ").replace('\n', " "),
            false => text,
        }
    }

    fn list(&mut self, node: usize, ordered: bool) {
        let gap = if self.lists == 0 {
            Gap::Blank
        } else {
            Gap::Line
        };
        self.layout.gap(gap);
        self.lists += 1;
        let start = self.tree.nodes[node].attribute("start");
        let mut number: u32 = start
            .and_then(|start| start.trim().parse().ok())
            .unwrap_or(1);
        for child in &self.tree.nodes[node].children {
            match self.tree.nodes[*child].tag() {
                "li" if ordered => {
                    self.item(*child, &format!("{number}. "));
                    number = number.saturating_add(1);
                }
                "li" => self.item(*child, "- "),
                tag if is_block(tag) || self.has_block[*child] => self.block(*child, tag),
                _ => {
                    let mut run = Run::new(self.format);
                    run.add(self.tree, *child);
                    self.paragraph(&mut run);
                }
            }
        }
        self.lists -= 1;
    }

    fn item(&mut self, node: usize, mark: &str) {
        self.layout.gap(Gap::Line);
        let outer = self.layout.enter(mark, &" ".repeat(mark.len()));
        self.blocks(node);
        self.layout.leave(outer);
    }

    fn code(&mut self, node: usize) {
        let text = self.tree.text(node).replace("\r\n", "\n");
        let text = text.trim_end();
        if text.is_empty() {
            return;
        }
        if self.format == Format::Text {
            return self.layout.block(Gap::Blank, text);
        }
        let fence = fence(text, 3);
        let inner = self.tree.nodes[node]
            .children
            .first()
            .copied()
            .unwrap_or(node);
        let classes = [node, inner].map(|node| self.tree.nodes[node].attribute("class"));
        let language = classes
            .into_iter()
            .flatten()
            .flat_map(str::split_whitespace)
            .find_map(|class| class.strip_prefix("language-"))
            .filter(|name| !name.contains('`'));
        let language = language.unwrap_or_default();
        let block = format!("{fence}{language}\n{text}\n{fence}");
        self.layout.block(Gap::Blank, &block);
    }

    /// The cells of a table with data, row by row; none of a table that only arranges the page.
    fn rows(&self, table: usize) -> Option<Vec<Vec<String>>> {
        let arranges = |tag: &str| {
            matches!(
                tag,
                "table" | "ul" | "ol" | "h1" | "h2" | "h3" | "pre" | "blockquote" | "hr"
            )
        };
        let mut rows = Vec::new();
        let mut pending = self.tree.nodes[table].children.clone();
        pending.reverse();
        while let Some(node) = pending.pop() {
            let found = &self.tree.nodes[node];
            match found.tag() {
                "tr" => rows.push(node),
                "thead" | "tbody" | "tfoot" => pending.extend(found.children.iter().rev()),
                _ => {}
            }
        }
        let mut seen = Vec::new();
        pending.extend(&rows);
        while let Some(node) = pending.pop() {
            let found = &self.tree.nodes[node];
            if arranges(found.tag()) {
                return None;
            }
            pending.extend(&found.children);
        }
        let mut spans = Spans {
            down: Vec::new(),
            left: 0,
        };
        for row in rows {
            let mut cells = Vec::new();
            for cell in &self.tree.nodes[row].children {
                let found = &self.tree.nodes[*cell];
                if matches!(found.tag(), "td" | "th") {
                    let span = |name: &str| {
                        let number = found
                            .attribute(name)
                            .and_then(|text| text.trim().parse().ok());
                        number.unwrap_or(1).clamp(1, SPAN)
                    };
                    spans.put(
                        &mut cells,
                        self.line(*cell),
                        span("colspan"),
                        span("rowspan"),
                    );
                }
            }
            spans.pad(&mut cells);
            seen.push(cells);
        }
        // One column is a frame around text.
        seen.iter().any(|cells| cells.len() > 1).then_some(seen)
    }

    /// Writes a table, its first row as the heading that Markdown demands.
    fn table(&mut self, table: usize, rows: Vec<Vec<String>>) {
        for child in &self.tree.nodes[table].children {
            if self.tree.nodes[*child].tag() == "caption" {
                self.blocks(*child);
            }
        }
        let columns = rows.iter().map(Vec::len).max().unwrap_or_default();
        let mut lines = Vec::new();
        for mut cells in rows {
            if cells.iter().all(String::is_empty) {
                continue;
            }
            if self.format == Format::Text {
                lines.push(cells.join(" | "));
                continue;
            }
            if lines.is_empty() {
                cells.resize(columns, String::new());
            }
            let cells: Vec<String> = cells.iter().map(|cell| cell.replace('|', "\\|")).collect();
            lines.push(format!("| {} |", cells.join(" | ")));
            if lines.len() == 1 {
                lines.push(format!("|{}", " --- |".repeat(columns)));
            }
        }
        if !lines.is_empty() {
            self.layout.block(Gap::Blank, &lines.join("\n"));
        }
    }
}

/// The cells of a table that are empty because others reach into them.
struct Spans {
    /// Of each column, the later rows into which a cell reaches.
    down: Vec<usize>,
    /// Empty cells that there may still be.
    left: usize,
}

impl Spans {
    /// Adds a cell, and the empty ones before and behind it.
    fn put(&mut self, cells: &mut Vec<String>, text: String, columns: usize, rows: usize) {
        self.left += EMPTY;
        self.pad(cells);
        let columns = columns.min(self.left + 1);
        self.left -= columns - 1;
        for column in 0..columns {
            if rows > 1 {
                self.down.resize(self.down.len().max(cells.len() + 1), 0);
                self.down[cells.len()] = rows - 1;
            }
            cells.push(if column == 0 {
                text.clone()
            } else {
                String::new()
            });
        }
    }

    /// Leaves the columns empty into which cells of earlier rows reach.
    fn pad(&mut self, cells: &mut Vec<String>) {
        while let Some(rows @ 1..) = self.down.get_mut(cells.len()) {
            let Some(left) = self.left.checked_sub(1) else {
                return;
            };
            self.left = left;
            *rows -= 1;
            cells.push(String::new());
        }
    }
}
