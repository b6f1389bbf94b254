//! Which paragraphs are headings, and which are items of lists.

use std::collections::HashMap;

use crank_worker::Failure;

use super::{Xml, attribute, read};

/// How many styles may be based on one another.
const CHAIN: usize = 20;

/// What a paragraph's properties or its style say of it.
#[derive(Clone, Debug, Default)]
pub struct Look {
    pub style: Option<String>,
    /// 0 is a chapter; 9 and more is text.
    pub outline: Option<u8>,
    /// The list; `0` takes the paragraph out of its style's.
    pub list: Option<String>,
    /// How many lists it lies in, beyond the first.
    pub level: Option<usize>,
    /// The style of the document's title. Styles that are based on it are others.
    title: bool,
}

impl Look {
    /// Takes one of a paragraph's properties.
    pub fn take(&mut self, name: &str, value: Option<String>) {
        match name {
            "pStyle" | "basedOn" => self.style = value,
            "outlineLvl" => self.outline = value.and_then(|level| level.parse().ok()),
            "numId" => self.list = value,
            "ilvl" => self.level = value.and_then(|level| level.parse().ok()),
            _ => {}
        }
    }

    /// What it leaves open, as another says.
    fn or(self, other: &Self) -> Self {
        Self {
            style: other.style.clone(),
            outline: self.outline.or(other.outline),
            list: self.list.or_else(|| other.list.clone()),
            level: self.level.or(other.level),
            title: false,
        }
    }
}

/// What a paragraph is.
#[derive(Debug, PartialEq, Eq)]
pub enum Role {
    Text,
    /// From 1.
    Heading(usize),
    /// Of the list with this name, so deep; its items have numbers.
    Item {
        list: String,
        level: usize,
        numbered: bool,
    },
}

/// The document's styles and lists.
#[derive(Default)]
pub struct Styles {
    styles: HashMap<String, Look>,
    /// The kind of list that a list is.
    kinds: HashMap<String, String>,
    /// By kind and level: items with bullets. Others have numbers.
    bullets: HashMap<(String, usize), bool>,
}

impl Styles {
    pub fn read(styles: Option<&str>, numbering: Option<&str>) -> Result<Self, Failure> {
        let mut found = Self::default();
        if let Some(styles) = styles {
            found.read_styles(styles)?;
        }
        if let Some(numbering) = numbering {
            found.read_numbering(numbering)?;
        }
        Ok(found)
    }

    fn read_styles(&mut self, part: &str) -> Result<(), Failure> {
        let mut id = None;
        read(part, |event| {
            let Xml::Start(name, tag) = event else {
                return;
            };
            if name == "style" {
                id = attribute(tag, "styleId");
            }
            let Some(id) = &id else {
                return;
            };
            let look = self.styles.entry(id.clone()).or_default();
            let value = attribute(tag, "val");
            if name == "name" {
                // `heading 1`, in files of every language.
                let value = value.unwrap_or_default().to_ascii_lowercase();
                let level = value
                    .strip_prefix("heading ")
                    .and_then(|level| level.parse::<u8>().ok());
                if value == "title" {
                    look.title = true;
                } else if let Some(level @ 1..=9) = level {
                    look.outline = Some(level - 1);
                }
            } else {
                look.take(name, value);
            }
        })
    }

    fn read_numbering(&mut self, part: &str) -> Result<(), Failure> {
        let (mut kind, mut list, mut level) = (None, None, 0);
        read(part, |event| {
            let Xml::Start(name, tag) = event else {
                return;
            };
            match name {
                "abstractNum" => kind = attribute(tag, "abstractNumId"),
                "num" => list = attribute(tag, "numId"),
                "lvl" => {
                    let number = attribute(tag, "ilvl").and_then(|level| level.parse().ok());
                    level = number.unwrap_or(0);
                }
                "numFmt" => {
                    let bullet =
                        matches!(attribute(tag, "val").as_deref(), Some("bullet" | "none"));
                    // A list's own change of one level stands outside of a kind.
                    if let (Some(kind), None) = (&kind, &list) {
                        self.bullets.insert((kind.clone(), level), bullet);
                    }
                }
                "abstractNumId" => {
                    if let (Some(list), Some(kind)) = (&list, attribute(tag, "val")) {
                        self.kinds.insert(list.clone(), kind);
                    }
                }
                _ => {}
            }
        })
    }

    /// What a paragraph is, by its own properties and by its styles.
    pub fn role(&self, own: Look) -> Role {
        let style = |look: &Look| self.styles.get(look.style.as_ref()?);
        let mut look = own;
        if style(&look).is_some_and(|style| style.title) {
            return Role::Heading(1);
        }
        for _ in 0..CHAIN {
            let Some(base) = style(&look) else {
                break;
            };
            look = look.or(base);
        }
        if let Some(outline @ 0..=8) = look.outline {
            return Role::Heading(usize::from(outline) + 1);
        }
        let Some(list) = look.list.filter(|list| list != "0") else {
            return Role::Text;
        };
        let level = look.level.unwrap_or(0);
        let kind = self.kinds.get(&list).cloned();
        let bullet = kind.and_then(|kind| self.bullets.get(&(kind, level)).copied());
        Role::Item {
            list,
            level,
            numbered: bullet == Some(false),
        }
    }
}
