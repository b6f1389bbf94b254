//! Inputs that are not JSON: the body is one property, query parameters are the others.

use schemars::Schema;
use serde::de::value::MapDeserializer;
use serde::de::{self, DeserializeOwned, IntoDeserializer, Visitor};
use serde_json::{Error, Value};

/// Reads an input from a raw body, which becomes the property with `contentEncoding: base64`, and
/// from parameters, coerced to what the schema says of them.
pub(crate) fn read<T: DeserializeOwned>(
    schema: &Schema,
    body: Vec<u8>,
    parameters: &[(String, String)],
) -> Result<T, Error> {
    let root = schema.as_value();
    let properties = root.get("properties").and_then(Value::as_object);
    let mut properties = properties.into_iter().flatten();
    let Some((name, _)) = properties.find(|(_, property)| is_raw(property)) else {
        return Err(de::Error::custom("this capability takes JSON only"));
    };
    let mut fields = vec![(name.clone(), Field::Raw(body))];
    for (parameter, _) in parameters {
        if fields.iter().all(|(known, _)| known != parameter) {
            let texts = parameters
                .iter()
                .filter(|(name, _)| name == parameter)
                .map(|(_, text)| text.as_str());
            let property = root
                .get("properties")
                .and_then(|properties| properties.get(parameter));
            let value = coerce(root, property.unwrap_or(&Value::Null), texts);
            fields.push((parameter.clone(), Field::Parameter(value)));
        }
    }
    T::deserialize(MapDeserializer::new(fields.into_iter()))
}

fn is_raw(property: &Value) -> bool {
    property.get("contentEncoding").and_then(Value::as_str) == Some("base64")
}

/// What the texts of one parameter are, by its schema. Where the schema leaves a choice, a number or
/// a boolean wins over text. A parameter that is not a list takes its last text.
fn coerce<'a>(root: &Value, schema: &Value, texts: impl Iterator<Item = &'a str>) -> Value {
    let mut types = Vec::new();
    let mut items = &Value::Null;
    collect_types(root, schema, &mut types, &mut items, 8);
    if types.contains(&"array") {
        return texts
            .map(|text| coerce(root, items, std::iter::once(text)))
            .collect();
    }
    let text = texts.last().unwrap_or_default();
    let number = types.contains(&"integer") || types.contains(&"number");
    match serde_json::from_str(text) {
        Ok(value @ Value::Number(_)) if number => value,
        Ok(value @ Value::Bool(_)) if types.contains(&"boolean") => value,
        _ => Value::String(text.to_owned()),
    }
}

/// The types that a schema allows, seen through references and alternatives; `depth` is how many of
/// those may lie inside each other.
fn collect_types<'a>(
    root: &'a Value,
    schema: &'a Value,
    types: &mut Vec<&'a str>,
    items: &mut &'a Value,
    depth: u8,
) {
    match schema.get("type") {
        Some(Value::String(name)) => types.push(name),
        Some(Value::Array(names)) => types.extend(names.iter().filter_map(Value::as_str)),
        _ => {}
    }
    if let Some(found) = schema.get("items") {
        *items = found;
    }
    let Some(depth) = depth.checked_sub(1) else {
        return;
    };
    let reference = schema
        .get("$ref")
        .and_then(Value::as_str)
        .and_then(|text| text.strip_prefix('#'));
    let referred = reference.and_then(|pointer| root.pointer(pointer));
    let keywords = ["anyOf", "oneOf", "allOf"].into_iter();
    let alternatives = keywords
        .filter_map(|keyword| schema.get(keyword)?.as_array())
        .flatten();
    for inner in referred.into_iter().chain(alternatives) {
        collect_types(root, inner, types, items, depth);
    }
}

/// One property of a raw input.
enum Field {
    Raw(Vec<u8>),
    Parameter(Value),
}

impl IntoDeserializer<'_, Error> for Field {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> de::Deserializer<'de> for Field {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self {
            Self::Raw(body) => visitor.visit_byte_buf(body),
            Self::Parameter(value) => value.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        visitor.visit_some(self)
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self {
            Self::Raw(_) => self.deserialize_any(visitor),
            Self::Parameter(value) => value.deserialize_enum(name, variants, visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf unit
        unit_struct seq tuple tuple_struct map struct identifier ignored_any
    }
}
