//! A zettel that is to be kept.

use crank_worker::Failure;

use crate::entry::{Content, Entry};
use crate::markdown::{self, id, tag};
use crate::words;

/// The longest text, in bytes.
pub const MAX_BODY: usize = 1 << 20;
/// The longest title, in bytes.
const MAX_TITLE: usize = 1000;
/// Tags that are given.
const MAX_TAGS: usize = 100;

/// A zettel that is to be kept, with all that is derived from it.
#[derive(Debug)]
pub struct Draft {
    /// Its id.
    pub id: String,
    /// When it was made, if that is said.
    pub created: Option<i64>,
    title: String,
    body: String,
    tags: Vec<String>,
    links: Vec<String>,
    terms: Vec<u8>,
    words: u32,
}

impl Draft {
    /// Checks what was given and reads the text. Without a title the first heading is it, or the id.
    pub fn new(
        given_id: &str,
        title: Option<&str>,
        body: String,
        tags: &[String],
    ) -> Result<Self, Failure> {
        let Some(id) = id(given_id) else {
            let message = "an id has 1 to 200 bytes, none of [ ] | # / \\ and no control character";
            return Err(Failure::invalid_input("/id", message));
        };
        if body.len() > MAX_BODY {
            let message = "a zettel has at most 1 MiB of text; make several of it";
            return Err(Failure::invalid_input("/body", message));
        }
        let said = markdown::read(&body);
        let title = title.map_or_else(|| said.heading.as_deref().unwrap_or(&id), str::trim);
        if !(1..=MAX_TITLE).contains(&title.len()) {
            let message = "a title has 1 to 1,000 bytes";
            return Err(Failure::invalid_input("/title", message));
        }
        if tags.len() > MAX_TAGS {
            return Err(Failure::invalid_input(
                "/tags",
                "a zettel is given at most 100 tags",
            ));
        }
        let mut all = Vec::new();
        for (at, given) in tags.iter().enumerate() {
            all.push(tag(&format!("/tags/{at}"), given)?);
        }
        all.extend(said.tags);
        all.sort_unstable();
        all.dedup();
        let (terms, words) = words::count(title, &said.text);
        Ok(Self {
            title: title.to_owned(),
            created: None,
            tags: all,
            links: said.links,
            terms,
            words,
            body,
            id,
        })
    }

    /// Its entry, as a version of it.
    pub fn entry(&self, version: u64, created: i64, updated: i64) -> Entry<'_> {
        Entry {
            id: &self.id,
            version,
            created,
            updated,
            content: Some(Content {
                title: &self.title,
                tags: self.tags.iter().map(String::as_str).collect(),
                links: self.links.iter().map(String::as_str).collect(),
                terms: &self.terms,
                words: self.words,
                body: &self.body,
            }),
        }
    }
}

/// The id of a file: its name without `.md`.
pub fn id_of_path(path: &str) -> &str {
    let name = path.rsplit(['/', '\\']).next().unwrap_or(path);
    name.strip_suffix(".md")
        .or_else(|| name.strip_suffix(".markdown"))
        .unwrap_or(name)
}
