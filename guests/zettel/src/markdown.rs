//! What a zettel's Markdown says: its links, its tags, its words.

use std::collections::HashSet;

use crank_worker::Failure;
use pulldown_cmark::{Event, LinkType, Options, Parser, Tag, TagEnd, TextMergeStream};
use unicode_normalization::UnicodeNormalization;

/// The longest id, in bytes: with its version it is part of a key.
const LONGEST_ID: usize = 200;
/// The longest tag, in bytes.
const LONGEST_TAG: usize = 100;
/// What no id has: it would end a link, or stands for something else in one.
const NOT_IN_IDS: [char; 6] = ['[', ']', '|', '#', '/', '\\'];

/// What a text says.
#[derive(Debug, Default)]
pub struct Said {
    /// The ids that it links to, each once, in the order of the text.
    pub links: Vec<String>,
    /// Its `#tags`, in lower case.
    pub tags: Vec<String>,
    /// The text alone.
    pub text: String,
    /// The first heading.
    pub heading: Option<String>,
}

/// An id as it is kept: NFC, without space around it. `None` if it is none.
pub fn id(text: &str) -> Option<String> {
    let id: String = text.trim().nfc().collect();
    let fits = (1..=LONGEST_ID).contains(&id.len())
        && !id.contains(|sign: char| sign.is_control() || NOT_IN_IDS.contains(&sign));
    fits.then_some(id)
}

/// A tag as it is kept: NFC, lower case, without the `#`; a number alone is none. `pointer` says where it
/// stands in the input.
pub fn tag(pointer: &str, text: &str) -> Result<String, Failure> {
    let message = "a tag is letters, digits, _ - /, with a letter among them";
    kept_tag(text).ok_or_else(|| Failure::invalid_input(pointer, message))
}

fn kept_tag(text: &str) -> Option<String> {
    let text = text.trim();
    let text = text.strip_prefix('#').unwrap_or(text);
    let tag: String = text.nfc().flat_map(char::to_lowercase).collect();
    let fits = (1..=LONGEST_TAG).contains(&tag.len())
        && tag.chars().all(in_tags)
        && tag.contains(char::is_alphabetic);
    fits.then(|| tag.trim_end_matches('/').to_owned())
}

fn in_tags(sign: char) -> bool {
    // A combining mark is not alphanumeric, and a part of a word in many scripts.
    sign.is_alphanumeric()
        || matches!(sign, '_' | '-' | '/')
        || unicode_normalization::char::is_combining_mark(sign)
}

/// Reads CommonMark with tables, `[[id]]` and `[[id|label]]`. What stands in code or in the header
/// (YAML) is neither link nor tag.
pub fn read(markdown: &str) -> Said {
    let options = Options::ENABLE_TABLES
        | Options::ENABLE_STRIKETHROUGH
        | Options::ENABLE_TASKLISTS
        | Options::ENABLE_WIKILINKS
        | Options::ENABLE_YAML_STYLE_METADATA_BLOCKS;
    let mut said = Said::default();
    // Where we are: in how many links, and whether in code, a header, a heading.
    let (mut links, mut code, mut header, mut heading) = (0_usize, false, false, None);
    for event in TextMergeStream::new(Parser::new_ext(markdown, options)) {
        match event {
            Event::Start(
                Tag::Link {
                    link_type,
                    dest_url,
                    ..
                }
                | Tag::Image {
                    link_type,
                    dest_url,
                    ..
                },
            ) => {
                links += 1;
                if matches!(link_type, LinkType::WikiLink { .. }) {
                    said.link(&dest_url);
                }
            }
            Event::End(TagEnd::Link | TagEnd::Image) => links = links.saturating_sub(1),
            Event::Start(Tag::CodeBlock(_)) => code = true,
            Event::End(TagEnd::CodeBlock) => code = false,
            Event::Start(Tag::MetadataBlock(_)) => header = true,
            Event::End(TagEnd::MetadataBlock(_)) => header = false,
            Event::Start(Tag::Heading { .. }) => heading = Some(said.text.len()),
            Event::End(TagEnd::Heading(_)) => {
                let begin = heading.take().unwrap_or(said.text.len());
                let words = said.text.get(begin..).unwrap_or_default().trim();
                if said.heading.is_none() && !words.is_empty() {
                    said.heading = Some(words.to_owned());
                }
                said.text.push('\n');
            }
            Event::Text(text) if !header => {
                if links == 0 && !code {
                    said.tags(&text);
                }
                said.text.push_str(&text);
            }
            Event::Code(text) => said.text.push_str(&text),
            Event::SoftBreak | Event::HardBreak => said.text.push('\n'),
            Event::End(end) if !inline(end) => said.text.push('\n'),
            _ => {}
        }
    }
    let mut seen = HashSet::new();
    said.links.retain(|link| seen.insert(link.clone()));
    said
}

/// What ends within a word's reach.
fn inline(end: TagEnd) -> bool {
    matches!(
        end,
        TagEnd::Emphasis | TagEnd::Strong | TagEnd::Strikethrough
    )
}

impl Said {
    /// `[[id]]`, `[[id#heading]]`, `[[folder/id]]`.
    fn link(&mut self, target: &str) {
        let target = target.split('#').next().unwrap_or_default();
        let target = target.rsplit('/').next().unwrap_or_default();
        self.links.extend(id(target));
    }

    fn tags(&mut self, text: &str) {
        for (at, _) in text.match_indices('#') {
            let (before, after) = text.split_at(at);
            if before.ends_with(|sign: char| in_tags(sign) || sign == '#' || sign == '&') {
                continue;
            }
            let after = after.get(1..).unwrap_or_default();
            let end = after.find(|sign| !in_tags(sign)).unwrap_or(after.len());
            self.tags.extend(after.get(..end).and_then(kept_tag));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn links_and_tags_are_found_where_they_are_meant_and_not_in_code() {
        let said = read(
            "---\ntags: [no]\nsee: '[[no]]'\n---\n# The #Heading of [[one]]\n\nAs [[two|the *second*]] says, \
             [[one]] and [[ three#part ]], ![[folder/four]], **#Light/Red** (#über_all). #日本語 #שלום\n\n\
             `[[no]] #no` \\[\\[no\\]\\] a#no #12 ##no &#35;x [a](http://x.org/#no) [#no](y)\n\n\
             ```\n[[no]] #no\n```\n\n    [[no]] #no\n\n| [[five]] |\n|---|\n| #cell |\n\n<!-- [[no]] #no -->\n\n[[]] [[#only]]",
        );
        assert_eq!(said.links, ["one", "two", "three", "four", "five"]);
        assert_eq!(
            said.tags,
            [
                "heading",
                "light/red",
                "über_all",
                "日本語",
                "שלום",
                "x",
                "cell"
            ]
        );
        assert_eq!(said.heading.as_deref(), Some("The #Heading of one"));
        assert!(said.text.contains("As the second says"), "{}", said.text);
        assert!(!said.text.contains("tags:"), "{}", said.text);
    }

    #[test]
    fn ids_and_tags_have_one_form() {
        assert_eq!(id(" caf\u{65}\u{301} ").as_deref(), Some("café"));
        for wrong in ["", " ", "a/b", "a|b", "a]", "a#b", "a\nb", &"x".repeat(201)] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
        assert_eq!(kept_tag("#Light").as_deref(), Some("light"));
        assert_eq!(kept_tag("हिन्दी").as_deref(), Some("हिन्दी"));
        for wrong in ["", "#", "two words", "12", "a,b"] {
            assert_eq!(kept_tag(wrong), None, "{wrong}");
        }
    }
}
