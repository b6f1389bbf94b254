//! What checking a value against a stranger's schema can cost, found before the schema is compiled.
//!
//! A schema is a program: references double (`anyOf` of twice the same `$ref`, thirty levels deep) and
//! recurse. Here it becomes a graph of subschemas. An edge stays at the same value (`$ref`, `allOf`, …)
//! or goes down to a child (`properties`, `items`, …). What passes costs, for each node of a value, at
//! most `MAX_PATHS` steps; recursion adds nothing to that, since every child is reached at most once
//! by something that recurses.

mod graph;

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::shorten;
use graph::{Child, Graph, Node};

/// Steps that one node of a value may cost: the paths through the schema, references expanded.
const MAX_PATHS: u64 = 10_000;
/// Steps in a row at the same value. With JSON's own depth limit of 128 it bounds the stack.
const MAX_IN_PLACE: u32 = 16;
/// Steps in a row without recursion, for the stack as well.
const MAX_DEPTH: u32 = 256;
/// Regular expressions in one schema: compiling them is what costs most at load.
const MAX_PATTERNS: usize = 64;

/// What a schema costs at most.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cost {
    /// Steps for each node of a value.
    pub paths: u64,
    /// Steps for each node of a value, comparisons with listed values among them.
    pub steps: u64,
    /// True if describing an error may copy parts of the value.
    pub copies: bool,
    /// Regular expressions to compile.
    pub patterns: usize,
    /// Positions of regular expressions that each byte of a text may be held against.
    pub matching: u64,
}

/// The cost of a schema, or what is wrong with it.
pub(super) fn measure(schema: &Value) -> Result<Cost, Vec<String>> {
    let mut graph = Graph::default();
    let root = graph.add(schema);
    graph.link(schema);
    if graph.patterns > MAX_PATTERNS {
        graph.problems.push(format!(
            "has {} regular expressions; at most {MAX_PATTERNS} are allowed",
            graph.patterns
        ));
    }
    if !graph.problems.is_empty() {
        graph.problems.truncate(16);
        return Err(graph.problems);
    }
    let (paths, matching) = graph.price(root).map_err(|problem| vec![problem])?;
    Ok(Cost {
        paths,
        steps: paths.saturating_add(graph.listed),
        copies: graph.copies,
        patterns: graph.patterns,
        matching,
    })
}

/// A value and all values in it.
pub(super) fn nodes(value: &Value) -> u64 {
    1 + match value {
        Value::Array(items) => items.iter().map(nodes).sum(),
        Value::Object(members) => members.values().map(nodes).sum(),
        _ => 0,
    }
}

impl<'a> Graph<'a> {
    /// The steps that one node of a value costs, and the positions that each byte of a text may be held
    /// against; both at most.
    fn price(&self, root: usize) -> Result<(u64, u64), String> {
        let (_, removed) = self.peel(|node| {
            node.in_place
                .iter()
                .chain(node.down.iter().map(|(_, to)| to))
                .copied()
                .collect()
        });
        // What could not be peeled off leads to a cycle.
        let recursive: Vec<bool> = removed.iter().map(|removed| !removed).collect();
        let recurs = |to: usize| recursive.get(to).copied().unwrap_or(true);
        let (order, removed) = self.peel(|node| {
            let down = node
                .down
                .iter()
                .map(|(_, to)| *to)
                .filter(|to| !recurs(*to));
            node.in_place.iter().copied().chain(down).collect()
        });
        if removed.contains(&false) {
            return Err("refers to itself without going into a property or an item".to_owned());
        }

        let mut totals = vec![Total::default(); self.nodes.len()];
        for index in order {
            let total = self
                .nodes
                .get(index)
                .map(|node| Total::of(node, &totals, &recurs))
                .unwrap_or_default();
            if total.paths > MAX_PATHS {
                return Err(format!(
                    "expands to more than {MAX_PATHS} paths through its references and alternatives"
                ));
            }
            if total.in_place > MAX_IN_PLACE || total.depth > MAX_DEPTH {
                return Err(format!(
                    "chains more than {MAX_IN_PLACE} references and alternatives at one value, or {MAX_DEPTH} in all"
                ));
            }
            if let Some(slot) = totals.get_mut(index) {
                *slot = total;
            }
        }
        self.single_recursion(root, &recurs, &totals)?;
        let paths = totals.iter().map(|total| total.paths).max();
        let matching = totals.iter().map(|total| total.matching).max();
        Ok((paths.unwrap_or(1), matching.unwrap_or(0)))
    }

    /// Removes, again and again, what leads nowhere any more. Answers the order of removal and, for
    /// each node, whether it was removed.
    fn peel(&self, successors: impl Fn(&Node<'a>) -> Vec<usize>) -> (Vec<usize>, Vec<bool>) {
        let mut before: Vec<Vec<usize>> = vec![Vec::new(); self.nodes.len()];
        let mut left: Vec<usize> = Vec::with_capacity(self.nodes.len());
        for (index, node) in self.nodes.iter().enumerate() {
            let successors = successors(node);
            left.push(successors.len());
            for to in successors {
                if let Some(list) = before.get_mut(to) {
                    list.push(index);
                }
            }
        }
        let mut order: Vec<usize> = (0..left.len())
            .filter(|index| left.get(*index) == Some(&0))
            .collect();
        let mut removed = vec![false; left.len()];
        let mut next = 0;
        while let Some(&index) = order.get(next) {
            next += 1;
            if let Some(flag) = removed.get_mut(index) {
                *flag = true;
            }
            for &from in before.get(index).into_iter().flatten() {
                if let Some(count) = left.get_mut(from) {
                    *count -= 1;
                    if *count == 0 {
                        order.push(from);
                    }
                }
            }
        }
        (order, removed)
    }

    /// Holds that no child of a value is reached by more than one thing that recurses: two would be
    /// four one level further down.
    fn single_recursion(
        &self,
        root: usize,
        recurs: &impl Fn(usize) -> bool,
        totals: &[Total],
    ) -> Result<(), String> {
        let mut arrivals: BTreeSet<usize> = [root].into_iter().filter(|to| recurs(*to)).collect();
        arrivals.extend(
            self.nodes
                .iter()
                .flat_map(|node| &node.down)
                .map(|(_, to)| *to)
                .filter(|to| recurs(*to)),
        );
        let work: u64 = arrivals
            .iter()
            .filter_map(|at| totals.get(*at))
            .map(|total| total.paths)
            .sum();
        if work > 20 * MAX_PATHS {
            return Err("is too large for a schema that recurses".to_owned());
        }
        arrivals.into_iter().try_for_each(|at| {
            let mut reached = Vec::new();
            self.reach(at, 1, recurs, &mut reached);
            at_most_once(&reached)
        })
    }

    /// Gathers where recursion goes on from one value, over everything that is checked at that value.
    fn reach<'s>(
        &'s self,
        at: usize,
        times: u64,
        recurs: &impl Fn(usize) -> bool,
        reached: &mut Vec<Edge<'s, 'a>>,
    ) {
        let Some(node) = self.nodes.get(at) else {
            return;
        };
        for (child, _) in node.down.iter().filter(|(_, to)| recurs(*to)) {
            reached.push(Edge {
                child: *child,
                from: node,
                times,
            });
        }
        for &to in &node.in_place {
            self.reach(
                to,
                if node.twice { times * 2 } else { times },
                recurs,
                reached,
            );
        }
    }
}

/// An edge that recursion takes, and how often.
struct Edge<'s, 'a> {
    child: Child<'a>,
    from: &'s Node<'a>,
    times: u64,
}

fn at_most_once(edges: &[Edge<'_, '_>]) -> Result<(), String> {
    let (mut named, mut items) = (BTreeMap::new(), BTreeMap::new());
    let (mut any_name, mut any_item) = (Vec::new(), Vec::new());
    for edge in edges {
        match edge.child {
            Child::Property(name) => *named.entry(name).or_insert(0) += edge.times,
            Child::Item(at) => *items.entry(at).or_insert(0) += edge.times,
            Child::AnyProperty { .. } => any_name.push(edge),
            Child::AnyItem { .. } => any_item.push(edge),
            Child::Name => {}
        }
    }
    let total = |edges: &[&Edge<'_, '_>]| edges.iter().map(|edge| edge.times).sum::<u64>();
    if total(&any_name) > 1 || total(&any_item) > 1 {
        return Err("recurses more than once into every property or item of a value".to_owned());
    }
    for (name, times) in named {
        let covered = any_name.iter().any(|edge| {
            !(edge.child == Child::AnyProperty { but_named: true }
                && edge.from.names.contains(name))
        });
        if times + u64::from(covered) > 1 {
            return Err(format!(
                "recurses more than once into the property \"{}\" of a value",
                shorten(name, 64)
            ));
        }
    }
    for (at, times) in items {
        let covered = any_item.iter().any(|edge| {
            !(edge.child == Child::AnyItem { but_prefix: true } && at < edge.from.prefix)
        });
        if times + u64::from(covered) > 1 {
            return Err(format!(
                "recurses more than once into the item {at} of a value"
            ));
        }
    }
    Ok(())
}

/// What a subschema costs with all that it leads to, recursion left out.
#[derive(Clone, Copy, Debug, Default)]
struct Total {
    paths: u64,
    matching: u64,
    in_place: u32,
    depth: u32,
}

impl Total {
    fn of(node: &Node<'_>, totals: &[Total], recurs: &impl Fn(usize) -> bool) -> Self {
        let mut sum = Total {
            paths: 1,
            matching: node.matching,
            ..Total::default()
        };
        for total in node.in_place.iter().filter_map(|to| totals.get(*to)) {
            let times = if node.twice { 2 } else { 1 };
            sum.paths = sum.paths.saturating_add(total.paths.saturating_mul(times));
            sum.matching = sum
                .matching
                .saturating_add(total.matching.saturating_mul(times));
            sum.in_place = sum.in_place.max(total.in_place + 1);
            sum.depth = sum.depth.max(total.depth + 1);
        }
        for (_, to) in &node.down {
            let total = totals
                .get(*to)
                .filter(|_| !recurs(*to))
                .copied()
                .unwrap_or_default();
            sum.paths = sum.paths.saturating_add(total.paths.max(1));
            sum.matching = sum.matching.saturating_add(total.matching);
            sum.depth = sum.depth.max(total.depth + 1);
        }
        sum
    }
}
