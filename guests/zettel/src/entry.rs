//! What lies in a drawer. Entries stand one behind the other, sorted by id, as `postcard` writes them.

use crank_worker::Failure;
use serde::{Deserialize, Serialize};

/// The first byte of a drawer and of what a zettel was.
const FORMAT: u8 = 1;

/// A zettel, or that there was one: versions are not given twice.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Entry<'a> {
    /// Its id.
    pub id: &'a str,
    /// Counts its changes from 1, deletions among them.
    pub version: u64,
    /// When it was made, in milliseconds since 1970 UTC.
    pub created: i64,
    /// When it was changed or deleted last.
    pub updated: i64,
    /// `None`: deleted.
    #[serde(borrow)]
    pub content: Option<Content<'a>>,
}

/// What a zettel says, and what is derived from that.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Content<'a> {
    /// Its title.
    pub title: &'a str,
    /// Given and in the text.
    #[serde(borrow)]
    pub tags: Vec<&'a str>,
    /// Ids that it links to.
    #[serde(borrow)]
    pub links: Vec<&'a str>,
    /// For [`crate::Terms`]; empty in what a zettel was.
    pub terms: &'a [u8],
    /// How many terms there are, repetitions counted.
    pub words: u32,
    /// The text, in Markdown.
    pub body: &'a str,
}

/// A drawer's bytes.
pub struct Drawer(Option<Vec<u8>>);

impl Drawer {
    /// A drawer, or what a zettel was, as it was read; `None` if there is nothing.
    pub fn new(value: Option<Vec<u8>>) -> Self {
        Self(value)
    }

    /// What is in it, in the order of the ids.
    pub fn entries(&self) -> Entries<'_> {
        match self.0.as_deref() {
            None => Entries(&[]),
            Some([FORMAT, entries @ ..]) => Entries(entries),
            // Read as an entry, this fails.
            Some(_) => Entries(&[u8::MAX]),
        }
    }

    /// The entry of an id.
    pub fn find(&self, id: &str) -> Result<Option<Entry<'_>>, Failure> {
        let here =
            |entry: &Result<Entry<'_>, _>| entry.as_ref().map_or(true, |entry| entry.id == id);
        self.entries().find(here).transpose()
    }
}

/// The entries of a [`Drawer`].
pub struct Entries<'a>(&'a [u8]);

impl<'a> Iterator for Entries<'a> {
    type Item = Result<Entry<'a>, Failure>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let read = postcard::take_from_bytes(self.0);
        let (entry, rest) = match read {
            Ok((entry, rest)) => (Ok(entry), rest),
            Err(_) => {
                let message = "a drawer of the slip box is damaged, or of a later version";
                (Err(Failure::failed(message).code("damaged")), &[][..])
            }
        };
        self.0 = rest;
        Some(entry)
    }
}

/// The bytes of a drawer with these entries, which are sorted by id.
pub fn write_drawer<'e, 'a: 'e>(
    entries: impl IntoIterator<Item = &'e Entry<'a>>,
) -> Result<Vec<u8>, Failure> {
    entries
        .into_iter()
        .try_fold(vec![FORMAT], |bytes, entry| {
            postcard::to_extend(entry, bytes)
        })
        .map_err(|error| Failure::failed(format!("a zettel cannot be written: {error}")))
}

/// The bytes that keep what a zettel was: [`Drawer`] reads them.
pub fn write_entry(entry: &Entry<'_>) -> Result<Vec<u8>, Failure> {
    let mut entry = entry.clone();
    if let Some(content) = &mut entry.content {
        content.terms = &[];
    }
    write_drawer([&entry])
}
