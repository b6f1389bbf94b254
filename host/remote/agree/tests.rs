use serde_json::json;

use super::*;

fn base() -> Value {
    json!({
        "type": "object",
        "title": "for readers",
        "required": ["text"],
        "properties": {
            "text": {"type": "string", "maxLength": 100},
            "count": {"type": "integer", "minimum": 1},
            "kind": {"enum": ["a", "b"]},
        },
    })
}

fn changed(pointer: &str, to: Value) -> Value {
    let mut schema = base();
    let (parent, name) = pointer.rsplit_once('/').unwrap();
    let parent = schema.pointer_mut(parent).unwrap();
    parent.as_object_mut().unwrap().insert(name.to_owned(), to);
    schema
}

/// An input may be widened by a newer version of the same major, an output narrowed.
#[test]
fn a_compatible_change_widens_what_goes_in_or_narrows_what_comes_out() {
    let wider = [
        changed("/title", json!("other words")),
        changed("/properties/note", json!({"type": "string"})),
        changed("/properties/text/maxLength", json!(200)),
        changed("/properties/count/type", json!("number")),
        changed("/properties/count/type", json!(["integer", "null"])),
        changed("/properties/count/minimum", json!(0)),
        changed("/properties/kind/enum", json!(["a", "b", "c"])),
        changed("/required", json!([])),
    ];
    for schema in wider {
        covers(&bare(&schema), &bare(&base())).unwrap();
    }
    // The other way round the same changes are no promise kept, but for words and new optional parts.
    for (pointer, to, place) in [
        ("/properties/text/maxLength", json!(200), "/text"),
        ("/properties/count/type", json!("number"), "/count"),
        ("/properties/count/minimum", json!(0), "/count"),
        ("/properties/kind/enum", json!(["a", "b", "c"]), "/kind"),
        ("/required", json!([]), "required"),
    ] {
        let refused = covers(&base(), &changed(pointer, to)).unwrap_err();
        assert!(refused.contains(place), "{refused}");
    }
}

#[test]
fn an_incompatible_change_is_named_with_its_place() {
    for (pointer, to, place) in [
        ("/required", json!(["text", "count"]), "required"),
        ("/properties/text/maxLength", json!(50), "/text"),
        ("/properties/text/pattern", json!("^a"), "/text"),
        ("/properties/count/type", json!("string"), "/count"),
        ("/properties/kind/enum", json!(["a"]), "/kind"),
        (
            "/additionalProperties",
            json!(false),
            "additionalProperties",
        ),
        ("/oneOf", json!([true]), "oneOf"),
    ] {
        let refused = covers(&changed(pointer, to), &base()).unwrap_err();
        assert!(refused.contains(place), "{pointer}: {refused}");
    }
    covers(&json!(true), &base()).unwrap();
    covers(&base(), &json!(false)).unwrap();
    assert!(covers(&json!(false), &base()).is_err());
    assert!(covers(&base(), &json!(true)).is_err());
}

#[test]
fn references_are_followed_and_no_circle_is() {
    let tree = |least: u32| {
        json!({"$ref": "#/$defs/tree", "$defs": {"tree": {
            "properties": {"value": {"type": "integer", "minimum": least}, "left": {"$ref": "#/$defs/tree"}}}}})
    };
    covers(&tree(1), &tree(1)).unwrap();
    assert!(covers(&tree(2), &tree(1)).is_err());
    // True, and beyond what is decided.
    assert!(covers(&tree(1), &tree(2)).unwrap_err().contains("too deep"));
}

#[test]
fn semver_promises_within_a_major() {
    let version = |text: &str| Version::parse(text).unwrap();
    for (older, newer, promised) in [
        ("1.0.0", "1.2.0", true),
        ("1.0.0", "2.0.0", false),
        ("0.1.0", "0.1.5", true),
        ("0.1.0", "0.2.0", false),
    ] {
        assert_eq!(is_promised(&version(older), &version(newer)), promised);
    }
}

#[test]
fn a_difference_is_named_by_its_place() {
    let other = changed("/properties/kind/enum", json!(["a", "c"]));
    let told = difference("/input", &base(), &other).unwrap();
    assert_eq!(
        told,
        r#"/input/properties/kind/enum is ["a","b"] and ["a","c"]"#
    );
    let reordered = changed("/properties/kind/enum", json!(["b", "a"]));
    assert_eq!(difference("", &base(), &reordered), None);
}
