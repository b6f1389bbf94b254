//! A capability's two schemas together, and what a raw input (not JSON) means by them: the body is one
//! property, query parameters are the rest.

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use super::MediaType;
use super::schema::{Schema, resolve};
use super::shorten;
use crate::error::Fault;

/// References and alternatives followed to find a property's types.
const MAX_HOPS: usize = 8;

/// What goes in and what comes out, compiled.
#[derive(Debug)]
pub struct Schemas {
    /// Of the input.
    pub input: Schema,
    /// Of the output.
    pub output: Schema,
    raw: Option<RawInput>,
}

/// How a body that is not JSON fits the input schema.
#[derive(Debug)]
struct RawInput {
    /// The property that is the body.
    property: String,
    /// The input schema without that property.
    rest: Schema,
    /// What query parameters may be.
    shapes: BTreeMap<String, Shape>,
    /// True if the schema says that other names are welcome.
    open: bool,
}

/// JSON types that a query parameter may become.
#[derive(Debug, Default)]
struct Shape {
    itself: Vec<String>,
    /// Types of the items, where the parameter may be an array.
    items: Vec<String>,
}

impl Schemas {
    /// Joins both; with a media type that is not JSON the input schema must say which property is the
    /// body. An error is for the worker's author.
    pub(super) fn new(
        input: Schema,
        output: Schema,
        accepts: &[MediaType],
    ) -> Result<Self, Vec<String>> {
        let raw = if accepts.iter().all(MediaType::is_json) {
            None
        } else {
            Some(RawInput::of(&input)?)
        };
        Ok(Self { input, output, raw })
    }

    /// The property of the input schema that a raw body stands for.
    pub fn raw_property(&self) -> Option<&str> {
        self.raw.as_ref().map(|raw| raw.property.as_str())
    }

    /// Reads query parameters as the input schema's types.
    pub fn coerce(
        &self,
        parameters: &[(String, String)],
    ) -> Result<Map<String, Value>, Vec<Fault>> {
        match &self.raw {
            Some(raw) => raw.coerce(parameters),
            None => Err(vec![Fault {
                pointer: String::new(),
                detail: "this capability takes JSON only, without query parameters".to_owned(),
            }]),
        }
    }

    /// Checks the query parameters of a raw input against the schema, the body left out.
    pub fn validate_raw(&self, parameters: &[(String, String)]) -> Result<(), Vec<Fault>> {
        let members = self.coerce(parameters)?;
        match &self.raw {
            Some(raw) => raw.rest.validate(&Value::Object(members)),
            None => Ok(()),
        }
    }
}

impl RawInput {
    fn of(input: &Schema) -> Result<Self, Vec<String>> {
        let root = input.document();
        let empty = Map::new();
        let properties = resolve(root, root, MAX_HOPS)
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&empty);
        let encoded = |schema: &Value| {
            resolve(root, schema, MAX_HOPS)
                .get("contentEncoding")
                .and_then(Value::as_str)
                == Some("base64")
        };
        let bodies: Vec<&String> = properties
            .iter()
            .filter(|(_, schema)| encoded(schema))
            .map(|(name, _)| name)
            .collect();
        let [property] = bodies.as_slice() else {
            return Err(vec![format!(
                "has {} properties with \"contentEncoding\": \"base64\"; a media type other than JSON in accepts needs exactly one, which is the raw body",
                bodies.len()
            )]);
        };
        if properties.contains_key("version") {
            return Err(vec![
                "has a property \"version\", which as a query parameter selects the capability's version; rename it".to_owned(),
            ]);
        }
        let shapes = properties
            .iter()
            .filter(|(name, _)| name != property)
            .map(|(name, schema)| (name.clone(), Shape::of(root, schema)))
            .collect();
        let open = resolve(root, root, MAX_HOPS)
            .get("additionalProperties")
            .is_some_and(|schema| *schema != Value::Bool(false));
        Ok(Self {
            property: (*property).clone(),
            rest: without(root, property)?,
            shapes,
            open,
        })
    }

    fn coerce(&self, parameters: &[(String, String)]) -> Result<Map<String, Value>, Vec<Fault>> {
        let mut grouped: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, text) in parameters {
            grouped.entry(name).or_default().push(text);
        }
        let (mut members, mut faults) = (Map::new(), Vec::new());
        let text_only = Shape {
            itself: vec!["string".to_owned()],
            items: Vec::new(),
        };
        for (name, texts) in grouped {
            let shape = match self.shapes.get(name) {
                Some(shape) => Ok(shape),
                None if name == self.property => {
                    Err("is the body of the request itself, not a query parameter".to_owned())
                }
                None if self.open => Ok(&text_only),
                None => Err("unknown query parameter".to_owned()),
            };
            match shape.and_then(|shape| shape.read(&texts)) {
                Ok(value) => {
                    members.insert(name.to_owned(), value);
                }
                Err(detail) if faults.len() < 16 => {
                    let escaped = shorten(name, 64).replace('~', "~0").replace('/', "~1");
                    faults.push(Fault {
                        pointer: format!("/{escaped}"),
                        detail,
                    });
                }
                Err(_) => {}
            }
        }
        if faults.is_empty() {
            Ok(members)
        } else {
            Err(faults)
        }
    }
}

/// The schema with one property no longer asked for.
fn without(root: &Value, property: &str) -> Result<Schema, Vec<String>> {
    let mut object = match resolve(root, root, MAX_HOPS) {
        Value::Object(object) => object.clone(),
        _ => Map::new(),
    };
    // If the root only refers to a definition, that definition still needs its neighbours.
    for keyword in ["$defs", "definitions"] {
        if let Some(definitions) = root.get(keyword) {
            object.insert(keyword.to_owned(), definitions.clone());
        }
    }
    let forget = |list: &mut Value| {
        if let Some(names) = list.as_array_mut() {
            names.retain(|name| name != property);
        }
    };
    if let Some(required) = object.get_mut("required") {
        forget(required);
    }
    for list in object
        .get_mut("dependentRequired")
        .and_then(Value::as_object_mut)
        .into_iter()
        .flat_map(Map::values_mut)
    {
        forget(list);
    }
    if let Some(least) = object.get("minProperties").and_then(Value::as_u64) {
        object.insert("minProperties".to_owned(), least.saturating_sub(1).into());
    }
    Schema::compile(Value::Object(object))
}

impl Shape {
    fn of(root: &Value, schema: &Value) -> Self {
        let mut shape = Self::default();
        types(root, schema, MAX_HOPS, &mut shape.itself);
        for list in arrays(root, schema) {
            types(root, list, MAX_HOPS, &mut shape.items);
        }
        shape
    }

    fn read(&self, texts: &[&str]) -> Result<Value, String> {
        let is_list = self.itself.iter().any(|name| name == "array");
        if let [text] = texts
            && let Some(value) = scalar(&self.itself, text)
        {
            return Ok(value);
        }
        if is_list {
            let items: Option<Vec<Value>> =
                texts.iter().map(|text| scalar(&self.items, text)).collect();
            return items
                .map(Value::Array)
                .ok_or_else(|| format!("each must be one of: {}", self.items.join(", ")));
        }
        if texts.len() > 1 {
            return Err("is given more than once".to_owned());
        }
        Err(format!("must be one of: {}", self.itself.join(", ")))
    }
}

/// Gathers the types that a schema allows, through references and alternatives; `string` if it is silent.
fn types(root: &Value, schema: &Value, hops: usize, found: &mut Vec<String>) {
    let schema = resolve(root, schema, MAX_HOPS);
    let mut add = |name: &str| {
        if !found.iter().any(|known| known == name) && found.len() < 8 {
            found.push(name.to_owned());
        }
    };
    match schema.get("type") {
        Some(Value::String(name)) => return add(name),
        Some(Value::Array(names)) => return names.iter().filter_map(Value::as_str).for_each(add),
        _ => {}
    }
    let listed = schema
        .get("enum")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .take(64);
    let mut known = false;
    for value in listed.chain(schema.get("const")) {
        known = true;
        add(match value {
            Value::Bool(_) => "boolean",
            Value::Number(number) if number.is_f64() => "number",
            Value::Number(_) => "integer",
            Value::String(_) => "string",
            Value::Array(_) => "array",
            Value::Null | Value::Object(_) => "null",
        });
    }
    for alternative in alternatives(schema).filter(|_| hops > 0) {
        known = true;
        types(root, alternative, hops - 1, found);
    }
    if !known {
        found.push("string".to_owned());
    }
}

fn alternatives(schema: &Value) -> impl Iterator<Item = &Value> {
    ["anyOf", "oneOf", "allOf"]
        .into_iter()
        .filter_map(|keyword| schema.get(keyword)?.as_array())
        .flatten()
        .take(8)
}

/// Schemas of the items, where a parameter may be an array: its own or an alternative's.
fn arrays<'a>(root: &'a Value, schema: &'a Value) -> Vec<&'a Value> {
    let schema = resolve(root, schema, MAX_HOPS);
    let nested = alternatives(schema).map(|alternative| resolve(root, alternative, MAX_HOPS));
    std::iter::once(schema)
        .chain(nested)
        .filter_map(|schema| schema.get("items"))
        .collect()
}

/// Reads a text as the narrowest of the allowed types.
fn scalar(types: &[String], text: &str) -> Option<Value> {
    let allows = |name: &str| types.iter().any(|known| known == name);
    // Numbers as JSON writes them: the helper crate reads them so too.
    if (allows("integer") || allows("number"))
        && let Ok(Value::Number(number)) = serde_json::from_str(text)
        && (allows("number") || !number.is_f64())
    {
        return Some(Value::Number(number));
    }
    match text {
        "true" if allows("boolean") => Some(Value::Bool(true)),
        "false" if allows("boolean") => Some(Value::Bool(false)),
        _ if allows("string") => Some(Value::String(text.to_owned())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn schemas(input: &Value) -> Result<Schemas, Vec<String>> {
        let pdf = MediaType::parse("application/pdf").unwrap();
        Schemas::new(
            Schema::parse(&input.to_string())?,
            Schema::parse("true")?,
            &[MediaType::json(), pdf],
        )
    }

    fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
        pairs
            .iter()
            .map(|(name, text)| ((*name).to_owned(), (*text).to_owned()))
            .collect()
    }

    fn converter() -> Schemas {
        schemas(&json!({
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "document": {"$ref": "#/$defs/Bytes"},
                "pages": {"type": "array", "items": {"type": "integer"}},
                "limit": {"type": ["integer", "null"], "maximum": 10},
                "scale": {"anyOf": [{"type": "number"}, {"type": "null"}]},
                "layout": {"type": "boolean"},
                "mode": {"$ref": "#/$defs/Mode"},
            },
            "required": ["document", "mode"],
            "$defs": {
                "Bytes": {"type": "string", "contentEncoding": "base64"},
                "Mode": {"enum": ["plain", "rich"]},
            },
        }))
        .unwrap()
    }

    #[test]
    fn query_parameters_become_the_types_of_the_schema() {
        let schemas = converter();
        assert_eq!(schemas.raw_property(), Some("document"));
        let query = pairs(&[
            ("pages", "1"),
            ("limit", "7"),
            ("pages", "3"),
            ("scale", "1.5"),
            ("layout", "true"),
            ("mode", "rich"),
        ]);
        assert_eq!(
            Value::Object(schemas.coerce(&query).unwrap()),
            json!({"pages": [1, 3], "limit": 7, "scale": 1.5, "layout": true, "mode": "rich"})
        );
        schemas.validate_raw(&query).unwrap();
        assert_eq!(
            schemas.coerce(&pairs(&[("pages", "2")])).unwrap()["pages"],
            json!([2])
        );
    }

    #[test]
    fn query_parameters_that_do_not_fit_are_faults_at_their_names() {
        let schemas = converter();
        for (query, pointer) in [
            (&[("limit", "x")], "/limit"),
            (&[("pages", "x")], "/pages"),
            (&[("scale", "1e999")], "/scale"),
            (&[("document", "x")], "/document"),
            (&[("a/b~", "x")], "/a~1b~0"),
            (&[("mode", "other")], "/mode"),
        ] {
            let faults = schemas.validate_raw(&pairs(query)).unwrap_err();
            assert_eq!(faults[0].pointer, pointer, "{faults:?}");
        }
        let twice = schemas
            .coerce(&pairs(&[("layout", "true"), ("layout", "false")]))
            .unwrap_err();
        assert_eq!(twice[0].detail, "is given more than once");
        let missing = schemas.validate_raw(&[]).unwrap_err();
        assert_eq!(missing[0].detail, "the property \"mode\" is missing");
        let over = schemas
            .validate_raw(&pairs(&[("limit", "11"), ("mode", "rich")]))
            .unwrap_err();
        assert_eq!(over[0].pointer, "/limit");
    }

    #[test]
    fn a_raw_input_needs_exactly_one_encoded_property() {
        let body = json!({"type": "string", "contentEncoding": "base64"});
        assert!(schemas(&json!({"properties": {"a": {"type": "string"}}})).is_err());
        assert!(schemas(&json!({"properties": {"a": body, "b": body}})).is_err());
        assert!(schemas(&json!({"properties": {"a": body, "version": {}}})).is_err());
        assert!(schemas(&json!(true)).is_err());
        schemas(&json!({"$ref": "#/$defs/Input", "$defs": {"Input": {"properties": {"a": body}, "required": ["a"]}}}))
            .unwrap()
            .validate_raw(&[])
            .unwrap();
    }
}
