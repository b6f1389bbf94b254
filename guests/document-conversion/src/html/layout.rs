//! Lines with what stands before them: the marks of quotes and lists, and the gaps between blocks.

/// Bytes of marks before a line. What lies deeper stands no further to the right, so that a page
/// cannot make its text many times as long.
const INDENT: usize = 60;

/// What separates a block from the one before.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Gap {
    Line,
    Blank,
}

/// A text that grows block by block.
#[derive(Default)]
pub struct Layout {
    text: String,
    /// Before each line.
    prefix: String,
    /// Before the next line, where that differs: a list's mark.
    first: Option<String>,
    /// What the next block wants before it, and how much of the prefix belongs to that.
    gap: Option<(Gap, usize)>,
}

impl Layout {
    /// Asks for a gap before the next block, unless that begins a list's item.
    pub fn gap(&mut self, gap: Gap) {
        if self.first.is_none() && self.gap.is_none_or(|(there, _)| there < gap) {
            self.gap = Some((gap, self.prefix.len()));
        }
    }

    /// Begins what has a mark before its first line, and something else before the others. Returns
    /// what ends it.
    pub fn enter(&mut self, mark: &str, rest: &str) -> usize {
        let outer = self.prefix.len();
        if outer < INDENT {
            let first = self.first.take();
            if first.is_some() || mark != rest {
                self.first = Some(first.unwrap_or_else(|| self.prefix.clone()) + mark);
            }
            self.prefix.push_str(rest);
        }
        outer
    }

    /// Ends what `enter` began. A mark that nothing followed is dropped.
    pub fn leave(&mut self, outer: usize) {
        self.prefix.truncate(outer);
        self.first = None;
    }

    /// Writes a block of one or more lines.
    pub fn block(&mut self, gap: Gap, lines: &str) {
        self.gap(gap);
        let gap = self.gap.take();
        if !self.text.is_empty() {
            self.text.push('\n');
            if let Some((Gap::Blank, prefix)) = gap {
                let prefix = self.prefix.get(..prefix).unwrap_or(&self.prefix);
                self.text.push_str(prefix.trim_end());
                self.text.push('\n');
            }
        }
        for (index, line) in lines.split('\n').enumerate() {
            if index > 0 {
                self.text.push('\n');
            }
            let first = self.first.take();
            let start = self.text.len();
            self.text.push_str(first.as_ref().unwrap_or(&self.prefix));
            self.text.push_str(line);
            if line.is_empty() {
                let kept = self.text[start..].trim_end().len();
                self.text.truncate(start + kept);
            }
        }
    }

    pub fn into_text(self) -> String {
        self.text
    }
}
