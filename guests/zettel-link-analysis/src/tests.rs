use serde_json::{Value, json};
use zettel::{Draft, drawer_key, drawer_of, write_drawer};

use super::*;

/// Zettels by id and body, several in a drawer if their ids fall so.
fn keep(zettels: &[(&str, &str)]) {
    let bucket = SlipBox::open().unwrap();
    let bucket = bucket.bucket();
    let mut drawers: BTreeMap<u8, Vec<Draft>> = BTreeMap::new();
    for (id, body) in zettels {
        let draft = Draft::new(id, None, (*body).to_owned(), &[]).unwrap();
        drawers.entry(drawer_of(id)).or_default().push(draft);
    }
    for (number, drafts) in drawers {
        let entries: Vec<_> = drafts.iter().map(|draft| draft.entry(1, 0, 0)).collect();
        bucket
            .set(&drawer_key(number), &write_drawer(&entries).unwrap())
            .unwrap();
    }
}

fn analysis(input: Value) -> Value {
    let input = serde_json::from_value(input).unwrap();
    serde_json::to_value(analyze(input).unwrap()).unwrap()
}

#[test]
fn links_give_backlinks_orphans_hubs_clusters_and_what_is_broken() {
    keep(&[
        ("a", "[[b]] [[c]] [[gone]]"),
        ("b", "[[a]] [[c]] `[[d]]`"),
        ("c", "[[a]] [[c]]"),
        ("x", "[[y]] [[z]]"),
        ("y", "[[z]] [[c]]"),
        ("z", "[[x]]"),
        ("alone", "[[alone]]"),
    ]);
    let found = analysis(json!({"format": "dot"}));
    assert_eq!(
        (&found["zettels"], &found["links"]),
        (&json!(7), &json!(10))
    );
    assert_eq!(
        found["backlinks"],
        json!({"a": ["b", "c"], "b": ["a"], "c": ["a", "b", "y"], "x": ["z"], "y": ["x"], "z": ["x", "y"]})
    );
    assert_eq!(found["orphans"], json!(["alone"]));
    assert_eq!(found["broken"], json!([{"from": "a", "to": "gone"}]));
    let hubs = found["hubs"].as_array().unwrap();
    assert_eq!((&hubs[0]["id"], &hubs[1]["id"]), (&json!("a"), &json!("c")));
    let ranks: f64 = hubs.iter().map(|hub| hub["rank"].as_f64().unwrap()).sum();
    assert!((ranks - 1.0).abs() < 1e-6, "{ranks}");
    assert_eq!(
        found["clusters"],
        json!([{"centre": "a", "zettels": ["a", "b", "c"]}, {"centre": "x", "zettels": ["x", "y", "z"]}])
    );
    let dot = found["dot"].as_str().unwrap();
    for line in [
        "\"a\" -> \"b\";",
        "\"a\" -> \"gone\" [style=dashed];",
        "\"alone\" [label=\"alone\"];",
    ] {
        assert!(dot.contains(line), "{dot}");
    }
    assert!(!dot.contains("\"b\" -> \"d\""));
}

#[test]
fn what_shares_rare_words_and_neighbours_is_suggested_unless_it_is_linked() {
    keep(&[
        (
            "fresnel",
            "The lens of the lighthouse bends every ray. [[optics]]",
        ),
        (
            "lamp",
            "A lighthouse needs a lens, and a ray of light. [[optics]]",
        ),
        ("optics", "Rays and glass."),
        ("bread", "Flour, water, salt, and a day of rest. [[oven]]"),
        ("oven", "Flour and heat make a loaf after a day of rest."),
    ]);
    let found = analysis(json!({}));
    let best = &found["suggestions"][0];
    assert_eq!(
        (&best["from"], &best["to"]),
        (&json!("fresnel"), &json!("lamp"))
    );
    assert_eq!(best["neighbours"], json!(["optics"]));
    let words = best["words"].as_array().unwrap();
    assert!(
        words.contains(&json!("lens")) && words.contains(&json!("lighthouse")),
        "{words:?}"
    );
    for suggestion in found["suggestions"].as_array().unwrap() {
        assert_ne!(
            (&suggestion["from"], &suggestion["to"]),
            (&json!("bread"), &json!("oven"))
        );
    }
    assert_eq!(analysis(json!({"limit": 0}))["suggestions"], json!([]));
}

#[test]
fn an_empty_box_has_nothing_and_names_are_quoted() {
    assert_eq!(analysis(json!({}))["backlinks"], json!({}));
    keep(&[("say \"a\"", "# A \"title\" with \\\\\n")]);
    let found = analysis(json!({"format": "dot"}));
    let dot = found["dot"].as_str().unwrap();
    assert!(
        dot.contains(r#""say \"a\"" [label="A \"title\" with \\"];"#),
        "{dot}"
    );
}
