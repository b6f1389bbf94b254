//! Zettels that are not linked and seem to belong together: by the words that they share and others do
//! not, and by whom both are linked with.

use crate::graph::{Graph, Node};

/// The words of a zettel that are compared: those that tell it apart best.
const WORDS: usize = 24;
/// A word, or a neighbour, of more zettels than these tells nobody apart. It bounds the work, too.
const COMMON: usize = 200;
/// Suggestions for one zettel at most, so that there are some for the others.
const EACH: usize = 3;
/// A weaker one is none.
const WEAKEST: f64 = 0.1;
/// Shared words that are told.
const TOLD: usize = 5;

/// Two zettels that might be linked.
pub struct Suggestion {
    pub from: usize,
    pub to: usize,
    /// 0 to 1: the mean of the cosine of their words (tf-idf) and their neighbours' Jaccard index.
    pub score: f64,
    /// What they share: words, the strongest first, and neighbours.
    pub words: Vec<String>,
    pub neighbours: Vec<usize>,
}

/// The best, at most so many.
pub fn suggest(graph: &Graph, limit: usize) -> Vec<Suggestion> {
    if limit == 0 {
        return Vec::new();
    }
    let profiles = profiles(graph);
    let mut postings: Vec<Vec<(usize, f64)>> = vec![Vec::new(); graph.words.len()];
    for (number, profile) in profiles.iter().enumerate() {
        for (word, weight) in profile {
            if let Some(posting) = postings.get_mut(*word) {
                posting.push((number, *weight));
            }
        }
    }
    let neighbours: Vec<Vec<usize>> = graph.nodes.iter().map(neighbours).collect();
    let of = |number: usize| neighbours.get(number).map_or(&[][..], Vec::as_slice);
    let mut found = Vec::new();
    // What is shared with each other zettel: words, neighbours; and with whom there is anything.
    let mut shared = vec![(0.0, 0_usize); graph.nodes.len()];
    let mut touched = Vec::new();
    for (from, profile) in profiles.iter().enumerate() {
        let mut share = |to: usize, weight: f64, neighbours: usize| {
            if let Some(slot) = shared.get_mut(to).filter(|_| to > from) {
                if *slot == (0.0, 0) {
                    touched.push(to);
                }
                slot.0 += weight;
                slot.1 += neighbours;
            }
        };
        for (word, weight) in profile {
            let posting = postings.get(*word).map_or(&[][..], Vec::as_slice);
            // What came before has been compared already.
            let after = posting.partition_point(|(to, _)| *to <= from);
            for (to, other) in posting.get(after..).unwrap_or_default() {
                share(*to, weight * other, 0);
            }
        }
        for between in of(from)
            .iter()
            .filter(|between| of(**between).len() <= COMMON)
        {
            of(*between).iter().for_each(|to| share(*to, 0.0, 1));
        }
        let mut best = Vec::new();
        for to in touched.drain(..) {
            let Some(slot) = shared.get_mut(to) else {
                continue;
            };
            let (cosine, common) = std::mem::take(slot);
            let all = of(from).len() + of(to).len() - common;
            let score = (cosine + common as f64 / all.max(1) as f64) / 2.0;
            if score >= WEAKEST && of(from).binary_search(&to).is_err() {
                best.push((score, from, to));
            }
        }
        best.sort_by(strongest);
        found.extend(best.into_iter().take(EACH));
    }
    found.sort_by(strongest);
    found.truncate(limit);
    let empty = Vec::new();
    let profile = |number: usize| profiles.get(number).unwrap_or(&empty);
    let explain = |(score, from, to)| Suggestion {
        from,
        to,
        score,
        words: words(graph, profile(from), profile(to)),
        neighbours: of(from)
            .iter()
            .copied()
            .filter(|between| of(to).binary_search(between).is_ok())
            .collect(),
    };
    found.into_iter().map(explain).collect()
}

/// Whom a zettel is linked with, in order.
fn neighbours(node: &Node) -> Vec<usize> {
    let mut all: Vec<usize> = node.neighbours().collect();
    all.sort_unstable();
    all.dedup();
    all
}

type Pair = (f64, usize, usize);

fn strongest(a: &Pair, b: &Pair) -> std::cmp::Ordering {
    b.0.total_cmp(&a.0)
        .then_with(|| (a.1, a.2).cmp(&(b.1, b.2)))
}

/// For each zettel its words by number, with weights whose squares are one together.
fn profiles(graph: &Graph) -> Vec<Vec<(usize, f64)>> {
    let mut spread = vec![0_usize; graph.words.len()];
    for (word, _) in graph.nodes.iter().flat_map(|node| &node.words) {
        if let Some(spread) = spread.get_mut(*word) {
            *spread += 1;
        }
    }
    let profile = |node: &Node| {
        let mut words: Vec<(usize, f64)> = Vec::new();
        for (word, count) in &node.words {
            let spread = spread.get(*word).copied().unwrap_or(0);
            if (2..=COMMON).contains(&spread) {
                let idf = (1.0 + graph.nodes.len() as f64 / spread as f64).ln();
                words.push((*word, (1.0 + f64::from(*count).ln()) * idf));
            }
        }
        words.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
        words.truncate(WORDS);
        let length = words
            .iter()
            .map(|(_, weight)| weight * weight)
            .sum::<f64>()
            .sqrt();
        for (_, weight) in &mut words {
            *weight /= length;
        }
        words
    };
    graph.nodes.iter().map(profile).collect()
}

fn words(graph: &Graph, from: &[(usize, f64)], to: &[(usize, f64)]) -> Vec<String> {
    let both = from
        .iter()
        .filter(|(word, _)| to.iter().any(|(other, _)| other == word));
    let texts = both.filter_map(|(word, _)| graph.words.get(*word).cloned());
    texts.take(TOLD).collect()
}
