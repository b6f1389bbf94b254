//! The slip box as a graph, and what follows from its links alone. Self links and links to what is not there
//! are no edges. Zettels are numbered in the order of their ids, so that the same box gives the same answer.

use std::collections::{BTreeMap, HashMap};

use crank_worker::Failure;
use zettel::{SlipBox, Terms};

/// The share of a zettel's rank that its links hand on (Brin and Page 1998).
const DAMPING: f64 = 0.85;
/// Rounds of PageRank at most, and the change, in all, that ends it sooner.
const RANK_ROUNDS: usize = 100;
const RANK_CHANGE: f64 = 1e-9;
/// Rounds of label propagation at most: it settles in a few.
const LABEL_ROUNDS: usize = 30;

/// All zettels and their links.
#[derive(Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    /// Links to what is not there: from which zettel, to which id.
    pub broken: Vec<(usize, String)>,
    /// Words, by their number.
    pub words: Vec<String>,
}

/// A zettel.
#[derive(Default)]
pub struct Node {
    pub id: String,
    pub title: String,
    /// Whom it links to and who links to it, in order.
    pub out: Vec<usize>,
    pub into: Vec<usize>,
    /// Its words by number, and how often each occurs.
    pub words: Vec<(usize, u32)>,
}

impl Node {
    /// Whom it is linked with, either way; twice who is linked both ways.
    pub fn neighbours(&self) -> impl Iterator<Item = usize> + '_ {
        self.out.iter().chain(&self.into).copied()
    }
}

impl Graph {
    /// Reads the whole box.
    pub fn read(slip_box: &SlipBox) -> Result<Self, Failure> {
        let mut graph = Self::default();
        let mut numbers: HashMap<String, usize> = HashMap::new();
        let mut zettels: BTreeMap<String, (Node, Vec<String>)> = BTreeMap::new();
        for number in SlipBox::numbers() {
            let drawer = slip_box.drawer(number)?;
            for entry in drawer.entries() {
                let entry = entry?;
                let Some(content) = &entry.content else {
                    continue;
                };
                let mut words = Vec::new();
                for (word, count) in Terms(content.terms) {
                    let number = numbers.get(word).copied().unwrap_or_else(|| {
                        graph.words.push(word.to_owned());
                        numbers.insert(word.to_owned(), numbers.len());
                        numbers.len() - 1
                    });
                    words.push((number, count));
                }
                let node = Node {
                    id: entry.id.to_owned(),
                    title: content.title.to_owned(),
                    words,
                    ..Node::default()
                };
                let links = content.links.iter().map(|link| (*link).to_owned());
                zettels.insert(entry.id.to_owned(), (node, links.collect()));
            }
        }
        graph.link(zettels);
        Ok(graph)
    }

    fn link(&mut self, zettels: BTreeMap<String, (Node, Vec<String>)>) {
        let numbers: HashMap<String, usize> = zettels.keys().cloned().zip(0..).collect();
        let mut links = Vec::new();
        for (from, (node, to)) in zettels.into_values().enumerate() {
            self.nodes.push(node);
            for to in to {
                match numbers.get(&to) {
                    Some(to) if *to != from => links.push((from, *to)),
                    Some(_) => {}
                    None => self.broken.push((from, to)),
                }
            }
        }
        links.sort_unstable();
        for (from, to) in links {
            if let Some(node) = self.nodes.get_mut(from) {
                node.out.push(to);
            }
            if let Some(node) = self.nodes.get_mut(to) {
                node.into.push(from);
            }
        }
    }

    pub fn id(&self, number: usize) -> String {
        self.nodes
            .get(number)
            .map_or(String::new(), |node| node.id.clone())
    }

    /// PageRank of each zettel; together they are one. What links nowhere hands its rank to all.
    pub fn ranks(&self) -> Vec<f64> {
        let count = self.nodes.len().max(1) as f64;
        let mut ranks = vec![1.0 / count; self.nodes.len()];
        for _ in 0..RANK_ROUNDS {
            let of = |number: usize| ranks.get(number).copied().unwrap_or(0.0);
            let handed = |from: usize| {
                let links = self.nodes.get(from).map_or(1, |node| node.out.len());
                of(from) / links as f64
            };
            let nowhere = self.nodes.iter().zip(&ranks);
            let nowhere = nowhere.filter(|(node, _)| node.out.is_empty());
            let lost: f64 = nowhere.map(|(_, rank)| rank).sum();
            let base = (1.0 - DAMPING + DAMPING * lost) / count;
            let next: Vec<f64> = self
                .nodes
                .iter()
                .map(|node| {
                    base + DAMPING * node.into.iter().map(|from| handed(*from)).sum::<f64>()
                })
                .collect();
            let change: f64 = next.iter().zip(&ranks).map(|(a, b)| (a - b).abs()).sum();
            ranks = next;
            if change < RANK_CHANGE {
                break;
            }
        }
        ranks
    }

    /// Zettels that hang together more than with others, by label propagation (Raghavan, Albert and
    /// Kumara 2007), in the order of the ids and with the least label where several are as frequent, so
    /// that nothing is left to chance. The largest first; who is alone is in none.
    pub fn clusters(&self) -> Vec<Vec<usize>> {
        let mut labels: Vec<usize> = (0..self.nodes.len()).collect();
        for _ in 0..LABEL_ROUNDS {
            let mut changed = false;
            for (number, node) in self.nodes.iter().enumerate() {
                let mut votes: BTreeMap<usize, usize> = BTreeMap::new();
                for label in node.neighbours().filter_map(|other| labels.get(other)) {
                    *votes.entry(*label).or_default() += 1;
                }
                let Some(most) = votes.values().max() else {
                    continue;
                };
                let Some(own) = labels.get_mut(number) else {
                    continue;
                };
                let best = votes.iter().find(|(_, count)| *count == most);
                let (Some((best, _)), false) = (best, votes.get(own) == Some(most)) else {
                    continue;
                };
                *own = *best;
                changed = true;
            }
            if !changed {
                break;
            }
        }
        let mut clusters: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
        for (number, label) in labels.into_iter().enumerate() {
            clusters.entry(label).or_default().push(number);
        }
        let mut clusters: Vec<_> = clusters.into_values().filter(|of| of.len() > 1).collect();
        // Stable: of the same size the one with the first id first.
        clusters.sort_by_key(|cluster| std::cmp::Reverse(cluster.len()));
        clusters
    }

    /// For Graphviz: a box for each zettel, dashed arrows to what is not there.
    pub fn dot(&self) -> String {
        let mut dot = String::from("digraph zettel {\n  rankdir=LR;\n  node [shape=box];\n");
        for node in &self.nodes {
            let (id, title) = (quoted(&node.id), quoted(&node.title));
            dot.push_str(&format!("  {id} [label={title}];\n"));
        }
        for node in &self.nodes {
            for to in &node.out {
                let (from, to) = (quoted(&node.id), quoted(&self.id(*to)));
                dot.push_str(&format!("  {from} -> {to};\n"));
            }
        }
        for (from, to) in &self.broken {
            let (from, to) = (quoted(&self.id(*from)), quoted(to));
            dot.push_str(&format!("  {from} -> {to} [style=dashed];\n"));
        }
        dot.push_str("}\n");
        dot
    }
}

fn quoted(text: &str) -> String {
    let text = text.replace(char::is_control, " ");
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}
