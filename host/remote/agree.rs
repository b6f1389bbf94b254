//! Whether two sources mean the same capability: equal schemas at the same version, compatible ones where
//! semver promises it. `docs/remote.md` has the rule for people.
//!
//! `covers` errs on one side only: what it accepts is compatible; of what it cannot decide it says no.

use std::collections::BTreeSet;

use semver::{Comparator, Op, Version};
use serde_json::{Map, Value};

use crate::capability::{Schemas, resolve};

/// Keywords that say nothing about which values are valid.
const ANNOTATIONS: [&str; 10] = [
    "$schema",
    "$id",
    "$comment",
    "title",
    "description",
    "default",
    "examples",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// Schemas within schemas that are compared.
const DEPTH: usize = 64;

/// Says where the schemas of a capability contradict those of the same capability from another source.
pub fn disagreement(
    (version, schemas): (&Version, &Schemas),
    (other_version, other): (&Version, &Schemas),
) -> Option<String> {
    let documents =
        |schemas: &Schemas| [&schemas.input, &schemas.output].map(|schema| bare(schema.document()));
    let ([input, output], [other_input, other_output]) = (documents(schemas), documents(other));
    if version == other_version {
        return difference("/input", &input, &other_input)
            .or_else(|| difference("/output", &output, &other_output));
    }
    let (older, newer) = match version < other_version {
        true => ((&input, &output), (&other_input, &other_output)),
        false => ((&other_input, &other_output), (&input, &output)),
    };
    if !is_promised(version.min(other_version), version.max(other_version)) {
        return None;
    }
    covers(newer.0, older.0)
        .map_err(|why| {
            format!("the newer version's input refuses what the older one's takes: {why}")
        })
        .and_then(|()| {
            covers(older.1, newer.1).map_err(|why| {
                format!("the newer version's output is none that the older one's promises: {why}")
            })
        })
        .err()
}

/// Whether semver promises that the newer one serves who asked for the older.
pub fn is_promised(older: &Version, newer: &Version) -> bool {
    let caret = Comparator {
        op: Op::Caret,
        major: older.major,
        minor: Some(older.minor),
        patch: Some(older.patch),
        pre: older.pre.clone(),
    };
    caret.matches(newer)
}

/// The schema without what is for readers. Within `properties` and the like names are no keywords.
fn bare(schema: &Value) -> Value {
    let Value::Object(members) = schema else {
        return schema.clone();
    };
    let kept = members
        .iter()
        .filter(|(name, _)| !ANNOTATIONS.contains(&name.as_str()));
    let inner = |(name, value): (&String, &Value)| {
        let value = match (name.as_str(), value) {
            (
                "properties" | "patternProperties" | "$defs" | "dependentSchemas",
                Value::Object(named),
            ) => {
                let named = named
                    .iter()
                    .map(|(name, schema)| (name.clone(), bare(schema)));
                Value::Object(named.collect())
            }
            ("enum" | "const", value) => value.clone(),
            (_, Value::Array(list)) => Value::Array(list.iter().map(bare).collect()),
            (_, value) => bare(value),
        };
        (name.clone(), value)
    };
    Value::Object(kept.map(inner).collect())
}

/// The first place at which two documents differ.
fn difference(at: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        _ if one == other => None,
        (Value::Object(one), Value::Object(other)) => {
            let names: BTreeSet<&String> = one.keys().chain(other.keys()).collect();
            names.into_iter().find_map(|name| {
                let at = format!("{at}/{}", name.replace('~', "~0").replace('/', "~1"));
                match (one.get(name), other.get(name)) {
                    (Some(one), Some(other)) => difference(&at, one, other),
                    (Some(_), None) => Some(format!("{at} is not there in the other")),
                    _ => Some(format!("{at} is only there in the other")),
                }
            })
        }
        // As sets, where the order says nothing.
        (Value::Array(one), Value::Array(other))
            if one.len() == other.len() && one.iter().all(|item| other.contains(item)) =>
        {
            None
        }
        _ => Some(format!("{at} is {} and {}", brief(one), brief(other))),
    }
}

fn brief(value: &Value) -> String {
    let mut text = value.to_string();
    if text.len() > 80 {
        text.truncate(text.floor_char_boundary(80));
        text.push('…');
    }
    text
}

/// Whether every value that `narrow` accepts is accepted by `wide`; if not, where that fails. A property
/// that `narrow` does not name is none that its callers send.
fn covers(wide: &Value, narrow: &Value) -> Result<(), String> {
    let comparison = Comparison { wide, narrow };
    comparison.covers("", wide, narrow, DEPTH)
}

struct Comparison<'a> {
    wide: &'a Value,
    narrow: &'a Value,
}

impl Comparison<'_> {
    fn covers(&self, at: &str, wide: &Value, narrow: &Value, depth: usize) -> Result<(), String> {
        let no = |why: &str| Err(format!("{}: {why}", if at.is_empty() { "/" } else { at }));
        if depth == 0 {
            return no("is too deep to compare");
        }
        let empty = Map::new();
        let has_references = |value: &Value| value.to_string().contains("\"$ref\"");
        let same_definitions = || self.wide.get("$defs") == self.narrow.get("$defs");
        if wide == narrow && (!has_references(wide) || same_definitions()) {
            return Ok(());
        }
        let wide = match resolve(self.wide, wide, DEPTH) {
            Value::Bool(true) => return Ok(()),
            Value::Object(wide) => wide,
            _ => return no("nothing is allowed any more"),
        };
        let narrow = match resolve(self.narrow, narrow, DEPTH) {
            Value::Bool(false) => return Ok(()),
            Value::Object(narrow) => narrow,
            _ => &empty,
        };
        for (keyword, value) in wide {
            let other = narrow.get(keyword);
            let held = match keyword.as_str() {
                "$defs" => true,
                "type" => types(narrow).is_some_and(|types| {
                    let allowed = named(value);
                    types.iter().all(|name| {
                        allowed.contains(name)
                            || (*name == "integer" && allowed.contains(&"number"))
                    })
                }),
                "enum" | "const" => {
                    let allowed = listed(wide).unwrap_or_default();
                    listed(narrow)
                        .is_some_and(|values| values.iter().all(|value| allowed.contains(value)))
                }
                "minimum" | "exclusiveMinimum" | "minLength" | "minItems" | "minProperties" => {
                    bound(other).is_some_and(|other| Some(other) >= bound(Some(value)))
                }
                "maximum" | "exclusiveMaximum" | "maxLength" | "maxItems" | "maxProperties" => {
                    bound(other).is_some_and(|other| Some(other) <= bound(Some(value)))
                }
                "required" => named(value)
                    .iter()
                    .all(|name| named(other.unwrap_or(&Value::Null)).contains(name)),
                "properties" => {
                    self.properties(at, value, narrow, depth)?;
                    true
                }
                "additionalProperties" => {
                    self.additional(at, wide, value, narrow, depth)?;
                    true
                }
                "items" => {
                    let items = other.unwrap_or(&Value::Bool(true));
                    self.covers(&format!("{at}/items"), value, items, depth - 1)?;
                    true
                }
                // What is not understood here must not have changed.
                _ => other == Some(value) && (!has_references(value) || same_definitions()),
            };
            if !held {
                let before = other.map_or_else(|| "anything".to_owned(), brief);
                return no(&format!(
                    "{keyword} allows {}, and not {before}",
                    brief(value)
                ));
            }
        }
        Ok(())
    }

    fn properties(
        &self,
        at: &str,
        wide: &Value,
        narrow: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        let named = narrow.get("properties").and_then(Value::as_object);
        for (name, schema) in wide.as_object().into_iter().flatten() {
            if let Some(other) = named.and_then(|named| named.get(name)) {
                self.covers(&format!("{at}/{name}"), schema, other, depth - 1)?;
            }
        }
        Ok(())
    }

    fn additional(
        &self,
        at: &str,
        wide: &Map<String, Value>,
        additional: &Value,
        narrow: &Map<String, Value>,
        depth: usize,
    ) -> Result<(), String> {
        let known = wide.get("properties").and_then(Value::as_object);
        let named = narrow.get("properties").and_then(Value::as_object);
        for (name, schema) in named.into_iter().flatten() {
            if known.is_none_or(|known| !known.contains_key(name)) {
                self.covers(&format!("{at}/{name}"), additional, schema, depth - 1)?;
            }
        }
        let open = Value::Bool(true);
        let rest = narrow.get("additionalProperties").unwrap_or(&open);
        self.covers(
            &format!("{at}/additionalProperties"),
            additional,
            rest,
            depth - 1,
        )
    }
}

/// The types that a schema allows, where it says so.
fn types(schema: &Map<String, Value>) -> Option<Vec<&str>> {
    if let Some(given) = schema.get("type") {
        return Some(named(given));
    }
    let of = |value: &&Value| match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(number) if number.is_f64() => "number",
        Value::Number(_) => "integer",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    };
    Some(listed(schema)?.iter().map(of).collect())
}

/// The values that a schema lists, where it does.
fn listed(schema: &Map<String, Value>) -> Option<Vec<&Value>> {
    match (schema.get("const"), schema.get("enum")) {
        (Some(value), _) => Some(vec![value]),
        (None, Some(Value::Array(values))) => Some(values.iter().collect()),
        _ => None,
    }
}

/// One name, or a list of them.
fn named(value: &Value) -> Vec<&str> {
    match value {
        Value::Array(names) => names.iter().filter_map(Value::as_str).collect(),
        name => name.as_str().into_iter().collect(),
    }
}

fn bound(value: Option<&Value>) -> Option<f64> {
    value.and_then(Value::as_f64)
}

#[cfg(test)]
mod tests;
