//! A page as a tree, with bounds: what `html5ever` builds is stopped before a hostile page costs
//! more than its size is worth.

use std::borrow::Cow;
use std::cell::{Cell, Ref, RefCell};

use html5ever::interface::{ElementFlags, NodeOrText, QuirksMode, TreeSink};
use html5ever::tendril::{StrTendril, TendrilSink};
use html5ever::tree_builder::TreeBuilderOpts;
use html5ever::{Attribute, ParseOpts, QualName, local_name, ns, parse_document};

use super::attributes;

/// Elements that may lie inside each other; browsers stop there too. The parser's work grows with
/// the square of the depth, and the renderer's stack with the depth.
const DEPTH: usize = 512;

/// Bytes that the parser gets at once. Between two pieces the tree's bounds are looked at.
const PIECE: usize = 16 << 10;

/// A page that would cost too much.
#[derive(Debug)]
pub struct TooComplex;

/// One node: its place and what it is.
pub struct Node {
    parent: Option<usize>,
    /// Of elements; in order.
    pub children: Vec<usize>,
    pub kind: Kind,
    /// Of elements; of others it is empty.
    name: QualName,
    /// Elements around it.
    depth: usize,
}

pub enum Kind {
    Element(Vec<Attribute>),
    Text(StrTendril),
    /// The document itself, comments and processing instructions.
    Other,
}

impl Node {
    /// The name of an HTML element, `svg` for whatever belongs to a drawing; else empty.
    pub fn tag(&self) -> &str {
        match &self.name.ns {
            ns if *ns == ns!(html) => &self.name.local,
            ns if *ns == ns!(svg) => "svg",
            _ => "",
        }
    }

    pub fn attribute(&self, name: &str) -> Option<&str> {
        let Kind::Element(attributes) = &self.kind else {
            return None;
        };
        let found = attributes
            .iter()
            .find(|attribute| &*attribute.name.local == name);
        found.map(|attribute| &*attribute.value)
    }
}

/// A page. Node 0 is the document.
pub struct Tree {
    pub nodes: Vec<Node>,
}

impl Tree {
    /// Reads a page as a browser without scripts does.
    pub fn parse(page: &str) -> Result<Self, TooComplex> {
        if attributes::are_too_many(page) {
            return Err(TooComplex);
        }
        let options = ParseOpts {
            tree_builder: TreeBuilderOpts {
                scripting_enabled: false,
                ..TreeBuilderOpts::default()
            },
            ..ParseOpts::default()
        };
        // A node and an attribute take two bytes of the page each, or more; misnested formatting, which the
        // parser repeats in each paragraph, makes them without end.
        let sink = Sink {
            nodes: RefCell::new(vec![Node::new(nameless(), Kind::Other)]),
            left: Cell::new(10_000 + page.len() / 2),
            refused: Cell::new(false),
        };
        let mut parser = parse_document(sink, options);
        let mut rest = page;
        while !rest.is_empty() {
            let (piece, later) = rest.split_at(rest.floor_char_boundary(PIECE));
            parser.process(StrTendril::from_slice(piece));
            if parser.tokenizer.sink.sink.refused.get() {
                return Err(TooComplex);
            }
            rest = later;
        }
        let nodes = parser.finish();
        let tree = Self { nodes };
        // What the parser moved about may lie deeper than was seen.
        let shallow = tree.walk().all(|(_, depth)| depth <= DEPTH);
        shallow.then_some(tree).ok_or(TooComplex)
    }

    /// All nodes in the page's order, with the number of elements around each.
    pub fn walk(&self) -> impl Iterator<Item = (usize, usize)> {
        let mut pending = vec![(0, 0)];
        std::iter::from_fn(move || {
            let (node, depth) = pending.pop()?;
            let children = self.nodes[node].children.iter().rev();
            pending.extend(children.map(|child| (*child, depth + 1)));
            Some((node, depth))
        })
    }

    /// The texts below a node as they stand, one after the other.
    pub fn text(&self, node: usize) -> String {
        let mut text = String::new();
        let mut pending = vec![node];
        while let Some(node) = pending.pop() {
            let node = &self.nodes[node];
            match &node.kind {
                Kind::Text(piece) => text.push_str(piece),
                _ if node.tag() == "br" => text.push('\n'),
                _ => pending.extend(node.children.iter().rev()),
            }
        }
        text
    }
}

impl Node {
    fn new(name: QualName, kind: Kind) -> Self {
        Self {
            name,
            parent: None,
            children: Vec::new(),
            kind,
            depth: 0,
        }
    }
}

fn nameless() -> QualName {
    QualName::new(None, ns!(), local_name!(""))
}

/// Where the parser puts what it finds. Its calls are those of the HTML standard's tree construction.
struct Sink {
    nodes: RefCell<Vec<Node>>,
    /// Nodes and attributes that there may still be.
    left: Cell<usize>,
    /// The tree has become too deep or too large.
    refused: Cell<bool>,
}

impl Sink {
    fn create(&self, name: QualName, mut kind: Kind) -> usize {
        let attributes = match &kind {
            Kind::Element(attributes) => attributes.len(),
            _ => 0,
        };
        match self.left.get().checked_sub(1 + attributes) {
            Some(left) => self.left.set(left),
            None => {
                self.refused.set(true);
                // The piece goes on.
                kind = Kind::Other;
            }
        }
        let mut nodes = self.nodes.borrow_mut();
        nodes.push(Node::new(name, kind));
        nodes.len() - 1
    }

    /// Puts something into a parent, before one of its children or at its end.
    fn put(&self, parent: usize, before: Option<usize>, child: NodeOrText<usize>) {
        if let NodeOrText::AppendNode(child) = &child {
            self.remove_from_parent(child);
        }
        let place = {
            let children = &self.nodes.borrow()[parent].children;
            let found = before.and_then(|before| children.iter().rposition(|node| *node == before));
            found.unwrap_or(children.len())
        };
        let child = match child {
            NodeOrText::AppendNode(child) => child,
            NodeOrText::AppendText(text) => {
                let mut nodes = self.nodes.borrow_mut();
                let previous = place
                    .checked_sub(1)
                    .map(|place| nodes[parent].children[place]);
                if let Some(Kind::Text(there)) = previous.map(|node| &mut nodes[node].kind) {
                    return there.push_tendril(&text);
                }
                drop(nodes);
                self.create(nameless(), Kind::Text(text))
            }
        };
        let mut nodes = self.nodes.borrow_mut();
        let depth = nodes[parent].depth + 1;
        if depth > DEPTH {
            self.refused.set(true);
        }
        nodes[child].parent = Some(parent);
        nodes[child].depth = depth;
        nodes[parent].children.insert(place, child);
    }
}

impl TreeSink for Sink {
    type Handle = usize;
    type Output = Vec<Node>;
    type ElemName<'a> = Ref<'a, QualName>;

    fn finish(self) -> Vec<Node> {
        self.nodes.into_inner()
    }

    fn parse_error(&self, _: Cow<'static, str>) {}

    fn get_document(&self) -> usize {
        0
    }

    fn elem_name<'a>(&'a self, target: &'a usize) -> Ref<'a, QualName> {
        Ref::map(self.nodes.borrow(), |nodes| &nodes[*target].name)
    }

    fn create_element(&self, name: QualName, attrs: Vec<Attribute>, _: ElementFlags) -> usize {
        self.create(name, Kind::Element(attrs))
    }

    fn create_comment(&self, _: StrTendril) -> usize {
        self.create(nameless(), Kind::Other)
    }

    fn create_pi(&self, _: StrTendril, _: StrTendril) -> usize {
        self.create(nameless(), Kind::Other)
    }

    fn append(&self, parent: &usize, child: NodeOrText<usize>) {
        self.put(*parent, None, child);
    }

    fn append_based_on_parent_node(
        &self,
        element: &usize,
        previous: &usize,
        child: NodeOrText<usize>,
    ) {
        let parent = self.nodes.borrow()[*element].parent;
        match parent {
            Some(parent) => self.put(parent, Some(*element), child),
            None => self.put(*previous, None, child),
        }
    }

    fn append_before_sibling(&self, sibling: &usize, child: NodeOrText<usize>) {
        let parent = self.nodes.borrow()[*sibling].parent;
        if let Some(parent) = parent {
            self.put(parent, Some(*sibling), child);
        }
    }

    fn append_doctype_to_document(&self, _: StrTendril, _: StrTendril, _: StrTendril) {}

    /// A template's contents are its children: nobody shows them.
    fn get_template_contents(&self, target: &usize) -> usize {
        *target
    }

    fn same_node(&self, one: &usize, other: &usize) -> bool {
        one == other
    }

    fn set_quirks_mode(&self, _: QuirksMode) {}

    /// Of attributes on a second `html` or `body` none matters here.
    fn add_attrs_if_missing(&self, _: &usize, _: Vec<Attribute>) {}

    fn remove_from_parent(&self, target: &usize) {
        let mut nodes = self.nodes.borrow_mut();
        if let Some(parent) = nodes[*target].parent.take() {
            let children = &mut nodes[parent].children;
            if let Some(place) = children.iter().rposition(|node| node == target) {
                children.remove(place);
            }
        }
    }

    fn reparent_children(&self, node: &usize, new_parent: &usize) {
        let mut nodes = self.nodes.borrow_mut();
        let children = std::mem::take(&mut nodes[*node].children);
        let depth = nodes[*new_parent].depth + 1;
        for child in &children {
            nodes[*child].parent = Some(*new_parent);
            nodes[*child].depth = depth;
        }
        nodes[*new_parent].children.extend(children);
    }
}
