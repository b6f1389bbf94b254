//! A schema as a graph of subschemas.

use std::collections::{BTreeSet, HashMap};

use percent_encoding::percent_decode_str;
use regex_syntax::hir::{Hir, HirKind};
use serde_json::{Map, Value};

use super::{nodes, shorten};

/// Schemas that every one of them must hold for the same value.
const IN_PLACE: [&str; 4] = ["not", "if", "then", "else"];
const IN_PLACE_LISTS: [&str; 3] = ["allOf", "anyOf", "oneOf"];
const IN_PLACE_MAPS: [&str; 2] = ["dependentSchemas", "dependencies"];
/// Applied to every property; `true` if those that `properties` names are left out.
const ANY_PROPERTY: [(&str, bool); 2] = [
    ("additionalProperties", true),
    ("unevaluatedProperties", false),
];
/// Applied to every item; `true` if those that `prefixItems` covers are left out.
const ANY_ITEM: [(&str, bool); 3] = [
    ("items", true),
    ("unevaluatedItems", false),
    ("contains", false),
];
/// Keywords that make an error own a copy of the value it is about.
const COPYING: [&str; 4] = ["anyOf", "oneOf", "propertyNames", "not"];

/// Which children of a value an edge leads to.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Child<'a> {
    Property(&'a str),
    Item(usize),
    AnyProperty {
        but_named: bool,
    },
    AnyItem {
        but_prefix: bool,
    },
    /// Names are strings: nothing recurses below them.
    Name,
}

#[derive(Default)]
pub(super) struct Node<'a> {
    pub in_place: Vec<usize>,
    pub down: Vec<(Child<'a>, usize)>,
    pub names: BTreeSet<&'a str>,
    pub prefix: usize,
    /// `unevaluated…` walks everything at its value a second time.
    pub twice: bool,
    reference: Option<&'a str>,
    /// Positions of its own regular expressions.
    pub matching: u64,
}

#[derive(Default)]
pub(super) struct Graph<'a> {
    pub nodes: Vec<Node<'a>>,
    /// A subschema is known by where it lies in memory: cheaper and safer than its pointer as text.
    known: HashMap<usize, usize>,
    anchors: HashMap<&'a str, usize>,
    pub patterns: usize,
    /// Values that `enum` and `const` list, all together: each may be compared with.
    pub listed: u64,
    pub copies: bool,
    pub problems: Vec<String>,
}

impl<'a> Graph<'a> {
    /// Adds a subschema and all below it, references not yet followed.
    pub(super) fn add(&mut self, schema: &'a Value) -> usize {
        let address = std::ptr::from_ref(schema).addr();
        if let Some(&index) = self.known.get(&address) {
            return index;
        }
        let index = self.nodes.len();
        self.known.insert(address, index);
        self.nodes.push(Node::default());
        let Value::Object(object) = schema else {
            return index;
        };
        let mut node = Node::default();
        self.keywords(index, object, &mut node);
        self.children(object, &mut node);
        if let Some(slot) = self.nodes.get_mut(index) {
            *slot = node;
        }
        index
    }

    /// Keywords that have a say beyond their own place: references, anchors, identifiers, patterns.
    fn keywords(&mut self, index: usize, object: &'a Map<String, Value>, node: &mut Node<'a>) {
        if index != 0 {
            for keyword in ["$id", "$schema"] {
                if object.contains_key(keyword) {
                    self.problems.push(format!(
                        "has a {keyword} below its root; only the root may carry one"
                    ));
                }
            }
        }
        for keyword in ["$anchor", "$dynamicAnchor"] {
            if let Some(Value::String(anchor)) = object.get(keyword) {
                self.anchors.insert(anchor, index);
            }
        }
        for keyword in ["$ref", "$dynamicRef"] {
            let Some(Value::String(target)) = object.get(keyword) else {
                continue;
            };
            if !target.starts_with('#') {
                self.problems.push(format!(
                    "has the {keyword} \"{}\", which leads out of the schema; only \"#…\" is allowed",
                    shorten(target, 128)
                ));
            } else if node.reference.replace(target).is_some() {
                self.problems
                    .push("has a $ref and a $dynamicRef side by side; keep one".to_owned());
            }
        }
        if let Some(Value::String(pattern)) = object.get("pattern") {
            self.patterns += 1;
            node.matching = node.matching.saturating_add(positions(pattern));
        }
        for keyword in ["enum", "const"] {
            self.listed += object.get(keyword).map_or(0, nodes);
        }
        self.copies |= COPYING.iter().any(|keyword| object.contains_key(*keyword));
        node.twice =
            object.contains_key("unevaluatedProperties") || object.contains_key("unevaluatedItems");
    }

    fn children(&mut self, object: &'a Map<String, Value>, node: &mut Node<'a>) {
        for keyword in ["$defs", "definitions"] {
            for schema in object
                .get(keyword)
                .and_then(Value::as_object)
                .into_iter()
                .flat_map(Map::values)
            {
                self.add(schema);
            }
        }
        if let Some(schema) = object.get("contentSchema") {
            self.add(schema);
        }
        for schema in IN_PLACE.iter().filter_map(|keyword| object.get(*keyword)) {
            node.in_place.push(self.add(schema));
        }
        for list in IN_PLACE_LISTS
            .iter()
            .filter_map(|keyword| object.get(*keyword)?.as_array())
        {
            for schema in list {
                node.in_place.push(self.add(schema));
            }
        }
        for map in IN_PLACE_MAPS
            .iter()
            .filter_map(|keyword| object.get(*keyword)?.as_object())
        {
            for schema in map.values() {
                node.in_place.push(self.add(schema));
            }
        }
        for (name, schema) in object
            .get("properties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            node.names.insert(name);
            node.down.push((Child::Property(name), self.add(schema)));
        }
        for (at, schema) in object
            .get("prefixItems")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .enumerate()
        {
            node.prefix = at + 1;
            node.down.push((Child::Item(at), self.add(schema)));
        }
        for (pattern, schema) in object
            .get("patternProperties")
            .and_then(Value::as_object)
            .into_iter()
            .flatten()
        {
            self.patterns += 1;
            node.matching = node.matching.saturating_add(positions(pattern));
            node.down
                .push((Child::AnyProperty { but_named: false }, self.add(schema)));
        }
        for (keyword, but_named) in ANY_PROPERTY {
            if let Some(schema) = object.get(keyword) {
                node.down
                    .push((Child::AnyProperty { but_named }, self.add(schema)));
            }
        }
        for (keyword, but_prefix) in ANY_ITEM {
            if let Some(schema) = object.get(keyword) {
                node.down
                    .push((Child::AnyItem { but_prefix }, self.add(schema)));
            }
        }
        if let Some(schema) = object.get("propertyNames") {
            node.down.push((Child::Name, self.add(schema)));
        }
    }

    /// Follows every reference; a target outside of the places that hold schemas joins the graph here.
    pub(super) fn link(&mut self, root: &'a Value) {
        let mut at = 0;
        while let Some(reference) = self.nodes.get(at).map(|node| node.reference) {
            if let Some(reference) = reference {
                match self.target(root, reference) {
                    Some(target) => {
                        if let Some(node) = self.nodes.get_mut(at) {
                            node.in_place.push(target);
                        }
                    }
                    None => self.problems.push(format!(
                        "has the $ref \"{}\", which leads nowhere",
                        shorten(reference, 128)
                    )),
                }
            }
            at += 1;
        }
    }

    fn target(&mut self, root: &'a Value, reference: &str) -> Option<usize> {
        let fragment = percent_decode_str(reference.strip_prefix('#')?)
            .decode_utf8()
            .ok()?;
        if fragment.is_empty() || fragment.starts_with('/') {
            return root.pointer(&fragment).map(|schema| self.add(schema));
        }
        self.anchors.get(fragment.as_ref()).copied()
    }
}

/// Positions of a regular expression, repetitions written out: what matching one byte costs at most.
fn positions(pattern: &str) -> u64 {
    fn count(hir: &Hir) -> u64 {
        match hir.kind() {
            HirKind::Empty | HirKind::Look(_) | HirKind::Class(_) => 1,
            HirKind::Literal(literal) => literal.0.len() as u64,
            HirKind::Capture(capture) => count(&capture.sub),
            HirKind::Repetition(repetition) => {
                let times = repetition
                    .max
                    .unwrap_or_else(|| repetition.min.saturating_add(1))
                    .max(1);
                count(&repetition.sub).saturating_mul(u64::from(times))
            }
            HirKind::Concat(parts) | HirKind::Alternation(parts) => {
                parts.iter().map(count).fold(0, u64::saturating_add)
            }
        }
    }
    match regex_syntax::parse(pattern) {
        Ok(hir) => count(&hir),
        // ECMA-262 has escapes that this parser does not know; the compiler has the last word on them.
        Err(_) => 100 * pattern.len() as u64,
    }
}
