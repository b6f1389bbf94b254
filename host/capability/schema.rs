//! A capability's schemas, compiled once at load.
//!
//! Nothing remote is ever read, patterns match in linear time, and what a check or its report may cost
//! is bounded before anything is compiled (`cost`).

use std::fmt::{self, Write};

use jsonschema::error::ValidationErrorKind;
use jsonschema::{Draft, PatternOptions, ValidationError, Validator};
use serde_json::Value;

use super::cost::{self, Cost};
use super::shorten;
use crate::error::Fault;

/// Longest text of a schema, in bytes.
pub const MAX_SCHEMA_BYTES: usize = 64 << 10;
/// Steps that checking one value may take, nodes of the value times steps of the schema for each: a
/// second or so.
const MAX_STEPS: u64 = 200_000_000;
/// Steps within which a check is over before anyone notices.
const QUICK_STEPS: u64 = 1_000_000;
/// Faults that one report names at most.
const MAX_FAULTS: usize = 16;
/// Longest detail of one fault, in bytes.
const MAX_DETAIL_BYTES: usize = 256;
/// Size of one compiled regular expression, in bytes.
const MAX_PATTERN_BYTES: usize = 256 << 10;
/// What a report may hold in memory while it is made, in bytes: errors of alternatives own copies.
const MAX_REPORT_BYTES: u64 = 64 << 20;
/// Steps of matching that one value may cost: bytes of text times positions of regular expressions.
const MAX_MATCHING: u64 = 100_000_000;
/// What one error takes beside the value that it copies, in bytes, generously.
const ERROR_BYTES: u64 = 256;

/// One JSON Schema 2020-12, compiled.
#[derive(Debug)]
pub struct Schema {
    document: Value,
    validator: Validator,
    cost: Cost,
}

impl Schema {
    /// Reads and compiles a schema's text. What is wrong with it is said for its author.
    pub fn parse(text: &str) -> Result<Self, Vec<String>> {
        if text.len() > MAX_SCHEMA_BYTES {
            return Err(vec![format!(
                "has {} bytes; at most {MAX_SCHEMA_BYTES} are allowed",
                text.len()
            )]);
        }
        let document =
            serde_json::from_str(text).map_err(|error| vec![format!("is not JSON: {error}")])?;
        Self::compile(document)
    }

    /// Makes what schemas are compiled with: the first one takes a millisecond more.
    pub fn warm() {
        let _known = Self::compile(serde_json::json!({ "type": "object" }));
    }

    pub(super) fn compile(mut document: Value) -> Result<Self, Vec<String>> {
        if let Some(object) = document.as_object_mut() {
            match object
                .get("$schema")
                .and_then(Value::as_str)
                .map(|uri| uri.trim_end_matches('#'))
            {
                None | Some("https://json-schema.org/draft/2020-12/schema") => {}
                Some(_) => {
                    return Err(vec![
                        "names another $schema than JSON Schema 2020-12".to_owned(),
                    ]);
                }
            }
            // Every reference stays in the document, so its own name has no use, and could only
            // collide with one that the validator knows.
            object.remove("$id");
        }
        let cost = cost::measure(&document)?;
        let validator = jsonschema::options()
            .with_draft(Draft::Draft202012)
            .with_pattern_options(
                PatternOptions::regex()
                    .size_limit(MAX_PATTERN_BYTES)
                    .dfa_size_limit(MAX_PATTERN_BYTES),
            )
            .offline()
            .build(&document)
            .map_err(|error| {
                let at = shorten(error.instance_path().as_str(), 128);
                vec![format!(
                    "is not a valid JSON Schema 2020-12 at \"{at}\": {}",
                    detail(&error)
                )]
            })?;
        Ok(Self {
            document,
            validator,
            cost,
        })
    }

    /// The schema itself, as JSON.
    pub fn document(&self) -> &Value {
        &self.document
    }

    /// How many regular expressions it holds.
    pub(super) fn patterns(&self) -> usize {
        self.cost.patterns
    }

    /// Whether checking a text of so many bytes takes at most about a millisecond.
    pub fn is_quick(&self, bytes: usize) -> bool {
        let steps = self.cost.steps.saturating_add(self.cost.matching);
        (bytes as u64).saturating_mul(steps) <= QUICK_STEPS
    }

    /// Checks a value. Names at most 16 places that are at fault.
    pub fn validate(&self, value: &Value) -> Result<(), Vec<Fault>> {
        if cost::nodes(value) > MAX_STEPS / self.cost.steps.max(1) {
            return Err(vec![Fault {
                pointer: String::new(),
                detail: "has too many parts to be checked against a schema this large".to_owned(),
            }]);
        }
        if self.cost.matching > 0 && text_bytes(value) > MAX_MATCHING / self.cost.matching {
            return Err(vec![Fault {
                pointer: String::new(),
                detail: "has too much text to be matched against the schema's regular expressions"
                    .to_owned(),
            }]);
        }
        if self.validator.is_valid(value) {
            return Ok(());
        }
        Err(self.report(value))
    }

    #[cold]
    fn report(&self, value: &Value) -> Vec<Fault> {
        let budget = MAX_REPORT_BYTES / self.cost.paths;
        let mut faults: Vec<Fault> = if weight(value, budget).is_some() {
            self.validator
                .iter_errors(value)
                .take(MAX_FAULTS)
                .map(|error| fault(&error))
                .collect()
        } else if self.cost.copies {
            Vec::new()
        } else {
            self.validator
                .validate(value)
                .err()
                .iter()
                .map(fault)
                .collect()
        };
        if faults.is_empty() {
            faults.push(Fault {
                pointer: String::new(),
                detail: "does not match the schema; it is too large to say where".to_owned(),
            });
        }
        faults
    }
}

/// What a schema's plain `$ref` leads to within the document, over so many references at most.
pub fn resolve<'a>(root: &'a Value, schema: &'a Value, hops: usize) -> &'a Value {
    let mut at = schema;
    for _ in 0..hops {
        let target = at
            .get("$ref")
            .and_then(Value::as_str)
            .and_then(|reference| reference.strip_prefix('#'));
        match target.and_then(|pointer| root.pointer(pointer)) {
            Some(next) => at = next,
            None => break,
        }
    }
    at
}

/// Bytes of all texts and names in a value.
fn text_bytes(value: &Value) -> u64 {
    match value {
        Value::String(text) => text.len() as u64,
        Value::Array(items) => items.iter().map(text_bytes).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, member)| name.len() as u64 + text_bytes(member))
            .sum(),
        _ => 0,
    }
}

/// Memory in bytes that errors about every part of a value would take; `None` if more than `budget`.
fn weight(value: &Value, budget: u64) -> Option<u64> {
    let own = match value {
        Value::String(text) => text.len() as u64,
        _ => 0,
    };
    let mut sum = own.saturating_add(ERROR_BYTES);
    let mut add = |child: &Value| -> Option<()> {
        let left = budget.checked_sub(sum)?;
        sum += weight(child, left)?;
        Some(())
    };
    match value {
        Value::Array(items) => items.iter().try_for_each(&mut add)?,
        Value::Object(members) => members.values().try_for_each(&mut add)?,
        _ => {}
    }
    (sum <= budget).then_some(sum)
}

fn fault(error: &ValidationError<'_>) -> Fault {
    Fault {
        pointer: shorten(error.instance_path().as_str(), 1024).to_owned(),
        detail: detail(error),
    }
}

/// What is wrong, without the value itself: it may be large, or secret.
fn detail(error: &ValidationError<'_>) -> String {
    let mut text = Shortened(String::new());
    // A full `Shortened` reports an error so that nothing more is formatted for it.
    let _ = match error.kind() {
        ValidationErrorKind::Required { property } => {
            write!(text, "the property {property} is missing")
        }
        ValidationErrorKind::AdditionalProperties { unexpected }
        | ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            write!(text, "unknown properties: ").and_then(|()| {
                unexpected.iter().enumerate().try_for_each(|(at, name)| {
                    write!(
                        text,
                        "{}{:?}",
                        if at == 0 { "" } else { ", " },
                        shorten(name, 64)
                    )
                })
            })
        }
        ValidationErrorKind::AnyOf { .. } | ValidationErrorKind::OneOfNotValid { .. } => {
            write!(text, "matches none of the allowed forms")
        }
        ValidationErrorKind::OneOfMultipleValid { .. } => {
            write!(
                text,
                "matches more than one of the allowed forms, and exactly one must match"
            )
        }
        ValidationErrorKind::FalseSchema => write!(text, "nothing is allowed here"),
        ValidationErrorKind::PropertyNames { .. } => {
            write!(text, "has a property whose name is not allowed")
        }
        _ => write!(text, "{}", error.masked_with("the value")),
    };
    text.0
}

/// Takes text up to the longest detail.
struct Shortened(String);

impl Write for Shortened {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let kept = shorten(text, MAX_DETAIL_BYTES - self.0.len());
        self.0.push_str(kept);
        if kept.len() < text.len() {
            self.0.push('…');
            return Err(fmt::Error);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use serde_json::json;

    use super::*;

    fn refusal(schema: &Value) -> String {
        let start = Instant::now();
        let problems = Schema::parse(&schema.to_string())
            .map(|_| ())
            .unwrap_err()
            .join("; ");
        assert!(
            start.elapsed() < Duration::from_secs(1),
            "took {:?}: {problems}",
            start.elapsed()
        );
        problems
    }

    #[test]
    fn faults_point_at_their_place_and_do_not_repeat_the_value() {
        let schema = Schema::parse(
            r#"{"type":"object","required":["name"],"additionalProperties":false,
                "properties":{"name":{"type":"string"},"list":{"items":{"type":"integer"}}}}"#,
        )
        .unwrap();
        let value = json!({"list": [1, "a secret"], "x".repeat(10_000): 1});
        let mut faults = schema.validate(&value).unwrap_err();
        faults.sort_by(|a, b| a.pointer.cmp(&b.pointer).then(a.detail.cmp(&b.detail)));
        let seen: Vec<_> = faults.iter().map(|fault| fault.pointer.as_str()).collect();
        assert_eq!(seen, ["", "", "/list/1"]);
        assert!(
            faults
                .iter()
                .any(|fault| fault.detail == "the property \"name\" is missing")
        );
        assert!(
            faults
                .iter()
                .all(|fault| !fault.detail.contains("secret") && fault.detail.len() < 300)
        );
        schema.validate(&json!({"name": "x", "list": [1]})).unwrap();
    }

    #[test]
    fn a_report_on_a_huge_value_stays_small() {
        let plain = Schema::parse(r#"{"items":{"type":"string"}}"#).unwrap();
        let value = Value::Array(vec![json!(1); 1_000_000]);
        assert_eq!(plain.validate(&value).unwrap_err()[0].pointer, "/0");
        let alternatives =
            Schema::parse(r#"{"items":{"anyOf":[{"type":"string"},{"type":"null"}]}}"#).unwrap();
        assert!(
            alternatives.validate(&value).unwrap_err()[0]
                .detail
                .contains("too large")
        );
    }

    #[test]
    fn matching_is_bounded_by_text_and_patterns_together() {
        let schema = Schema::parse(r#"{"items":{"pattern":"[ab]*a[ab]{199}$"}}"#).unwrap();
        let start = Instant::now();
        let refused = schema.validate(&json!(["ab".repeat(4 << 20)])).unwrap_err();
        assert!(refused[0].detail.contains("too much text"));
        assert!(start.elapsed() < Duration::from_secs(1));
        schema.validate(&json!(["ab".repeat(1000)])).unwrap();
    }

    #[test]
    fn references_that_double_are_refused_quickly() {
        let mut defs = serde_json::Map::new();
        for level in 0..12 {
            let next = json!({"$ref": format!("#/$defs/d{}", level + 1)});
            defs.insert(format!("d{level}"), json!({"anyOf": vec![next; 4]}));
        }
        defs.insert("d12".to_owned(), json!({"type": "string"}));
        assert!(refusal(&json!({"$defs": defs, "$ref": "#/$defs/d0"})).contains("paths"));

        let mut defs = serde_json::Map::new();
        for level in 0..60 {
            let next = json!({"properties": {"x": {"$ref": format!("#/$defs/d{}", level + 1)}}});
            defs.insert(format!("d{level}"), json!({"allOf": [next, next]}));
        }
        defs.insert("d60".to_owned(), json!(true));
        assert!(refusal(&json!({"$defs": defs, "$ref": "#/$defs/d0"})).contains("paths"));
    }

    #[test]
    fn recursion_that_doubles_is_refused_and_a_tree_is_not() {
        let twice = json!({"anyOf": [{"items": {"$ref": "#"}}, {"items": {"$ref": "#"}}, {"type": "string"}]});
        assert!(refusal(&twice).contains("recurses more than once"));
        let overlap =
            json!({"properties": {"a": {"$ref": "#"}}, "patternProperties": {"^a": {"$ref": "#"}}});
        assert!(refusal(&overlap).contains("property \"a\""));
        assert!(refusal(&json!({"allOf": [{"$ref": "#"}]})).contains("refers to itself"));
        let anchored = json!({"$dynamicAnchor": "x", "anyOf": [{"$dynamicRef": "#x"}]});
        assert!(refusal(&anchored).contains("refers to itself"));

        let tree = Schema::parse(
            r##"{"$defs":{"tree":{"type":"object","required":["v"],"properties":{"v":{"type":"integer"},
                "left":{"anyOf":[{"$ref":"#/$defs/tree"},{"type":"null"}]},
                "right":{"anyOf":[{"$ref":"#/$defs/tree"},{"type":"null"}]}}}},"$ref":"#/$defs/tree"}"##,
        )
        .unwrap();
        tree.validate(&json!({"v": 1, "left": {"v": 2, "right": {"v": 3}}}))
            .unwrap();
        assert!(tree.validate(&json!({"v": 1, "left": {"v": "x"}})).is_err());
    }

    #[test]
    fn nothing_leads_out_of_the_document() {
        for schema in [
            json!({"$ref": "https://example.com/a"}),
            json!({"$ref": "other.json#/a"}),
            json!({"$dynamicRef": "https://example.com/a#x"}),
            json!({"$defs": {"a": {"$id": "https://example.com/", "$ref": "#/b"}}}),
            json!({"default": {"$ref": "https://example.com/"}, "$ref": "#/default"}),
            json!({"$schema": "http://json-schema.org/draft-04/schema"}),
            json!({"$ref": "#/nowhere"}),
            json!({"type": "strin"}),
            json!({"pattern": "(?=a)b"}),
            json!({"pattern": "(a{1000}){1000}"}),
            json!(7),
        ] {
            refusal(&schema);
        }
    }

    #[test]
    fn the_worst_that_fits_is_checked_in_time_and_on_a_small_stack() {
        let nested = "[".repeat(32 << 10) + &"]".repeat(32 << 10);
        assert!(Schema::parse(&nested).unwrap_err()[0].contains("not JSON"));
        let patterns: Vec<_> = (0..64)
            .map(|n| json!({"pattern": format!("^[\\w.-]{{1,{}}}$", n % 16 + 1)}))
            .collect();
        let lists = json!({"enum": vec![vec![[1]; 1000]; 8]});
        // Recursion on the longest allowed way at each level, on a thread with little stack.
        let mut deep = json!({"type": "object", "properties": {"x": {"$ref": "#"}}});
        for _ in 0..14 {
            deep = json!({"anyOf": [deep, {"type": "string"}]});
        }
        std::thread::Builder::new()
            .stack_size(1 << 20)
            .spawn(move || {
                let start = Instant::now();
                Schema::parse(&json!({"anyOf": patterns}).to_string()).unwrap();
                Schema::parse(&lists.to_string()).unwrap();
                let schema = Schema::parse(&deep.to_string()).unwrap();
                let mut value = json!(1);
                for _ in 0..120 {
                    value = json!({"x": value});
                }
                assert!(schema.validate(&value).is_err());
                assert!(
                    start.elapsed() < Duration::from_secs(1),
                    "took {:?}",
                    start.elapsed()
                );
            })
            .unwrap()
            .join()
            .unwrap();
    }
}
