use serde_json::{Value, json};
use zettel::{Draft, drawer_key, write_drawer};

use super::*;

/// Zettels by id, body and day; each the only one in its drawer, or this fails.
fn keep(zettels: &[(&str, &str, &str)]) {
    let slip_box = SlipBox::open().unwrap();
    for (id, body, day) in zettels {
        let (created, _) = moment("", day).unwrap();
        let draft = Draft::new(id, None, (*body).to_owned(), &[]).unwrap();
        let key = drawer_key(drawer_of(id));
        assert!(!slip_box.bucket().exists(&key).unwrap(), "{id}");
        let drawer = write_drawer([&draft.entry(1, created, created)]).unwrap();
        slip_box.bucket().set(&key, &drawer).unwrap();
    }
}

fn find(input: Value) -> Result<Output, Failure> {
    retrieve(serde_json::from_value(input).unwrap())
}

fn ids(input: Value) -> Vec<String> {
    let found = find(input).unwrap().zettels.into_iter();
    found.map(|found| found.zettel.id).collect()
}

fn a_few() {
    keep(&[
        ("a", "[[b]] lighthouse lighthouse #sea", "2024-01-01"),
        (
            "b",
            "[[a]] [[c]] [[b]] a lighthouse among much else that is said of reefs #sea/north",
            "2024-01-02",
        ),
        ("c", "nothing #seaside", "2024-01-03"),
        ("d", "[[a]] 灯台の光", "2024-01-03T12:00:00Z"),
    ]);
}

#[test]
fn zettels_are_found_by_what_they_have_in_common() {
    a_few();
    for (input, found) in [
        (json!({}), vec!["a", "b", "c", "d"]),
        (json!({"id": "b"}), vec!["b"]),
        (json!({"tag": "#Sea"}), vec!["a", "b"]),
        (json!({"tag": "sea/north"}), vec!["b"]),
        (json!({"query": "Lighthouse"}), vec!["a", "b"]),
        (json!({"query": "reefs lighthouse"}), vec!["b"]),
        (json!({"query": "灯台"}), vec!["d"]),
        (json!({"query": "unheard"}), vec![]),
        (json!({"from": "2024-01-02", "to": "2024-01-02"}), vec!["b"]),
        (json!({"from": "2024-01-03T00:00:01Z"}), vec!["d"]),
        (json!({"to": "2024-01-01"}), vec!["a"]),
        (json!({"neighbours": "a"}), vec!["b", "d"]),
        (json!({"neighbours": "a", "query": "lighthouse"}), vec!["b"]),
        (json!({"neighbours": "b"}), vec!["a", "c"]),
    ] {
        assert_eq!(ids(input.clone()), found, "{input}");
    }
    let around = find(json!({"neighbours": "a"})).unwrap().zettels;
    let relations: Vec<_> = around.iter().map(|found| found.relation.unwrap()).collect();
    assert_eq!(relations, [Relation::Mutual, Relation::LinksTo]);
    let scores = find(json!({"query": "lighthouse"})).unwrap().zettels;
    assert!(scores[0].score.unwrap() > scores[1].score.unwrap());
}

#[test]
fn pages_follow_each_other_without_a_gap() {
    a_few();
    for mut input in [json!({}), json!({"query": "lighthouse"})] {
        let whole = ids(input.clone());
        input["limit"] = json!(1);
        let mut pages = Vec::new();
        loop {
            let page = find(input.clone()).unwrap();
            assert_eq!(page.total, whole.len());
            pages.extend(page.zettels.into_iter().map(|found| found.zettel.id));
            match page.cursor {
                Some(cursor) => input["cursor"] = json!(cursor),
                None => break,
            }
        }
        assert_eq!(pages, whole);
    }
    let body = "x".repeat(1 << 20);
    let ids: Vec<String> = (0..12).map(|at| format!("big{at}")).collect();
    let big: Vec<_> = ids
        .iter()
        .map(|id| (id.as_str(), body.as_str(), "2024-01-01"))
        .collect();
    keep(&big);
    let page = find(json!({})).unwrap();
    assert_eq!((page.zettels.len(), page.total), (10, 16));
    assert!(page.cursor.is_some());
}

#[test]
fn what_is_not_there_is_not_found_and_what_makes_no_sense_is_refused() {
    a_few();
    for input in [
        json!({"id": "x"}),
        json!({"id": "a/b"}),
        json!({"neighbours": "x"}),
    ] {
        assert!(
            find(input)
                .unwrap_err()
                .message
                .contains("there is no zettel")
        );
    }
    for (input, place) in [
        (json!({"query": "?!"}), "/query"),
        (json!({"tag": "a b"}), "/tag"),
        (json!({"from": "soon"}), "/from"),
        (json!({"to": "2024-02-30"}), "/to"),
        (json!({"cursor": "x"}), "/cursor"),
    ] {
        assert_eq!(find(input).unwrap_err().pointer.as_deref(), Some(place));
    }
}
