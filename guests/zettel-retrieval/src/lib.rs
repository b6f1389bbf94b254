//! The worker that finds zettels: `retrieve:zettel`.
//!
//! An id is one drawer; anything else is a walk through all of them, one at a time, that remembers who
//! matches. Only the page that is answered is read again with its texts.

#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};

use crank_worker::{Capability, Failure, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use zettel::{Content, Entry, SlipBox, Terms, Zettel, asked, drawer_of, moment, profile, tag};

/// Zettels on a page, if nothing is said.
const PAGE: usize = 20;
/// A page ends once its texts have so many bytes.
const PAGE_BYTES: usize = 8 << 20;
/// BM25 (Robertson and Zaragoza 2009): how soon repetition saturates, and how much length counts.
const K1: f64 = 1.2;
const B: f64 = 0.75;

/// What all zettels that are found have in common; all of them, if nothing is said.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
struct Input {
    /// This very zettel.
    id: Option<String>,
    /// They have this tag, or one below it: `sea` finds `sea/north`.
    tag: Option<String>,
    /// All of these words are in them. The best come first, by BM25; else ids are in their order.
    query: Option<String>,
    /// They were made then or later: a date (UTC) or RFC 3339.
    from: Option<String>,
    /// They were made then or before; a date is the whole day.
    to: Option<String>,
    /// They link to this zettel, or it links to them.
    neighbours: Option<String>,
    /// How many at most; 20 if absent. There are fewer where texts are long.
    #[schemars(range(min = 1, max = 500))]
    limit: Option<usize>,
    /// Goes on where the answer with this `cursor` ended; the rest of the input stays as it was.
    cursor: Option<String>,
}

/// The zettels that were found.
#[derive(Debug, Serialize, JsonSchema)]
struct Output {
    /// One page of them.
    zettels: Vec<Found>,
    /// How many there are on all pages.
    total: usize,
    /// Where the next page begins, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    cursor: Option<String>,
}

/// A zettel, and why it was found.
#[derive(Debug, Serialize, JsonSchema)]
struct Found {
    #[serde(flatten)]
    zettel: Zettel,
    /// How well it fits the `query`.
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    /// How it is a neighbour.
    #[serde(skip_serializing_if = "Option::is_none")]
    relation: Option<Relation>,
}

/// How a zettel is a neighbour.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Relation {
    /// It links there.
    LinksTo,
    /// It is linked from there.
    LinkedFrom,
    /// Both.
    Mutual,
}

/// The input, understood.
struct Question {
    id: Option<String>,
    tag: Option<String>,
    terms: Vec<String>,
    from: i64,
    to: i64,
    centre: Option<Centre>,
}

/// The zettel whose neighbours are asked for.
struct Centre {
    id: String,
    links: BTreeSet<String>,
}

/// A zettel that fits.
struct Hit {
    id: String,
    score: f64,
    relation: Option<Relation>,
    /// How often each term occurs, and how many words there are.
    counts: Vec<u32>,
    words: u32,
}

fn retrieve(input: Input) -> Result<Output, Failure> {
    let slip_box = SlipBox::open()?;
    let question = Question::new(&slip_box, &input)?;
    let after = input.cursor.as_deref().map(read_cursor).transpose()?;
    let mut hits = question.hits(&slip_box)?;
    if let (Some(id), true) = (&question.id, hits.is_empty()) {
        return Err(no_such(id));
    }
    let total = hits.len();
    hits.sort_by(|a, b| place(a.score, &a.id, b.score, &b.id));
    if let Some((score, id)) = &after {
        hits.retain(|hit| place(*score, id, hit.score, &hit.id).is_lt());
    }
    let more = hits.len();
    hits.truncate(input.limit.unwrap_or(PAGE));
    let (zettels, last) = page(&slip_box, &hits, question.terms.is_empty())?;
    let cursor = hits.get(last).filter(|_| last + 1 < more);
    Ok(Output {
        zettels,
        total,
        cursor: cursor.map(|hit| format!("{:016x}.{}", hit.score.to_bits(), hit.id)),
    })
}

/// The best first, then by id.
fn place(score: f64, id: &str, other_score: f64, other_id: &str) -> std::cmp::Ordering {
    other_score.total_cmp(&score).then_with(|| id.cmp(other_id))
}

fn read_cursor(cursor: &str) -> Result<(f64, String), Failure> {
    let read = cursor.split_once('.').and_then(|(score, id)| {
        let score = u64::from_str_radix(score, 16).ok()?;
        Some((f64::from_bits(score), id.to_owned()))
    });
    read.ok_or_else(|| Failure::invalid_input("/cursor", "no cursor of an earlier answer"))
}

fn no_such(id: &str) -> Failure {
    Failure::not_found(format!("there is no zettel `{id}`"))
}

/// The hits with their texts, as far as they fit on a page, and the place of the last. One that was
/// deleted meanwhile is not there.
fn page(slip_box: &SlipBox, hits: &[Hit], unscored: bool) -> Result<(Vec<Found>, usize), Failure> {
    let mut drawers: BTreeMap<u8, Vec<usize>> = BTreeMap::new();
    for (at, hit) in hits.iter().enumerate() {
        drawers.entry(drawer_of(&hit.id)).or_default().push(at);
    }
    let mut zettels: BTreeMap<usize, Zettel> = BTreeMap::new();
    for (number, wanted) in drawers {
        let drawer = slip_box.drawer(number)?;
        for entry in drawer.entries() {
            let entry = entry?;
            let at = wanted
                .iter()
                .find(|at| hits.get(**at).is_some_and(|hit| hit.id == entry.id));
            if let (Some(at), Some(zettel)) = (at, Zettel::of(&entry)) {
                zettels.insert(*at, zettel);
            }
        }
    }
    let (mut found, mut bytes, mut last) = (Vec::new(), 0, 0);
    for (at, hit) in hits.iter().enumerate() {
        if bytes >= PAGE_BYTES {
            break;
        }
        last = at;
        let Some(zettel) = zettels.remove(&at) else {
            continue;
        };
        bytes += zettel.body.len();
        found.push(Found {
            zettel,
            score: (!unscored).then_some(hit.score),
            relation: hit.relation,
        });
    }
    Ok((found, last))
}

impl Question {
    fn new(slip_box: &SlipBox, input: &Input) -> Result<Self, Failure> {
        let id = |text: &Option<String>| match text {
            None => Ok(None),
            Some(text) => zettel::id(text).map(Some).ok_or_else(|| no_such(text)),
        };
        let terms = input.query.as_deref().map_or(Vec::new(), asked);
        if input.query.is_some() && terms.is_empty() {
            let message = "there is no word in it to look for";
            return Err(Failure::invalid_input("/query", message));
        }
        let when = |pointer: &str, text: &Option<String>| {
            text.as_deref()
                .map(|text| moment(pointer, text))
                .transpose()
        };
        Ok(Self {
            id: id(&input.id)?,
            tag: input
                .tag
                .as_deref()
                .map(|text| tag("/tag", text))
                .transpose()?,
            terms,
            from: when("/from", &input.from)?.map_or(i64::MIN, |(begin, _)| begin),
            to: when("/to", &input.to)?.map_or(i64::MAX, |(_, end)| end),
            centre: id(&input.neighbours)?
                .map(|id| Centre::new(slip_box, id))
                .transpose()?,
        })
    }

    fn hits(&self, slip_box: &SlipBox) -> Result<Vec<Hit>, Failure> {
        let numbers = match &self.id {
            Some(id) => drawer_of(id)..drawer_of(id) + 1,
            None => SlipBox::numbers(),
        };
        let mut hits = Vec::new();
        let (mut zettels, mut words) = (0_u32, 0_u64);
        // In how many zettels each term is, be they asked for or not.
        let mut spread = vec![0_u32; self.terms.len()];
        for number in numbers {
            let drawer = slip_box.drawer(number)?;
            for entry in drawer.entries() {
                let entry = entry?;
                let Some(content) = &entry.content else {
                    continue;
                };
                zettels += 1;
                words += u64::from(content.words);
                let counts = self.counts(content);
                for (spread, count) in spread.iter_mut().zip(&counts) {
                    *spread += u32::from(*count > 0);
                }
                if counts.contains(&0) {
                    continue;
                }
                hits.extend(self.hit(&entry, content, counts));
            }
        }
        let mean = words as f64 / f64::from(zettels.max(1));
        for hit in &mut hits {
            hit.score = score(hit, &spread, zettels, mean);
        }
        Ok(hits)
    }

    /// How often each of the terms is there; both lists are in order.
    fn counts(&self, content: &Content<'_>) -> Vec<u32> {
        let mut counts = vec![0; self.terms.len()];
        let mut wanted = self.terms.iter().zip(&mut counts).peekable();
        for (term, count) in Terms(content.terms) {
            while wanted.next_if(|(asked, _)| asked.as_str() < term).is_some() {}
            match wanted.next_if(|(asked, _)| asked.as_str() == term) {
                Some((_, here)) => *here = count,
                None if wanted.peek().is_none() => break,
                None => {}
            }
        }
        counts
    }

    fn hit(&self, entry: &Entry<'_>, content: &Content<'_>, counts: Vec<u32>) -> Option<Hit> {
        let below = |has: &str, tag: &str| {
            has.strip_prefix(tag)
                .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
        };
        let tagged = |tag: &String| content.tags.iter().any(|has| below(has, tag));
        let fits = self.id.as_ref().is_none_or(|id| id == entry.id)
            && self.tag.as_ref().is_none_or(tagged)
            && (self.from..self.to).contains(&entry.created);
        let relation = match &self.centre {
            Some(centre) => Some(centre.relation(entry, content)?),
            None => None,
        };
        fits.then(|| Hit {
            id: entry.id.to_owned(),
            score: 0.0,
            relation,
            counts,
            words: content.words,
        })
    }
}

/// BM25 with the idf that is never below zero; 0 where nothing is asked for.
fn score(hit: &Hit, spread: &[u32], zettels: u32, mean: f64) -> f64 {
    let length = K1 * (1.0 - B + B * f64::from(hit.words) / mean.max(1.0));
    let part = |(count, spread): (&u32, &u32)| {
        let (count, spread) = (f64::from(*count), f64::from(*spread));
        let idf = (1.0 + (f64::from(zettels) - spread + 0.5) / (spread + 0.5)).ln();
        idf * count * (K1 + 1.0) / (count + length)
    };
    hit.counts
        .iter()
        .zip(spread)
        .map(part)
        .fold(0.0, |sum, part| sum + part)
}

impl Centre {
    fn new(slip_box: &SlipBox, id: String) -> Result<Self, Failure> {
        let drawer = slip_box.drawer(drawer_of(&id))?;
        let content = drawer.find(&id)?.and_then(|entry| entry.content);
        let content = content.ok_or_else(|| no_such(&id))?;
        let links = content
            .links
            .iter()
            .map(|link| (*link).to_owned())
            .collect();
        Ok(Self { id, links })
    }

    fn relation(&self, entry: &Entry<'_>, content: &Content<'_>) -> Option<Relation> {
        let there = content.links.contains(&self.id.as_str());
        let back = self.links.contains(entry.id);
        match (there, back) {
            _ if entry.id == self.id => None,
            (true, true) => Some(Relation::Mutual),
            (true, false) => Some(Relation::LinksTo),
            (false, true) => Some(Relation::LinkedFrom),
            (false, false) => None,
        }
    }
}

fn zettel_retrieval() -> Worker {
    Worker::new("worker-zettel-retrieval").offers(
        profile(Capability::new("retrieve", "zettel", "1.0.0", retrieve))
            .description(
                "Finds zettels by id, tag, words (full text), date and neighbours, page by page.",
            )
            .example("All of them", "{}")
            .example("By words", r#"{"query": "lighthouse reefs"}"#)
            .required_capabilities(&["wasi:keyvalue/store[zettel:ro]"]),
    )
}

crank_worker::worker!(zettel_retrieval);
