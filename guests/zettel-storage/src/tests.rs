use serde_json::{Value, json};

use super::*;

/// What the worker answers; a failure as its code or message.
fn call(input: Value) -> Result<Value, String> {
    let input = serde_json::from_value(input).unwrap();
    match store(input) {
        Ok(output) => Ok(serde_json::to_value(output).unwrap()),
        Err(failure) => Err(failure.code.unwrap_or(failure.message)),
    }
}

fn versions(id: &str) -> Vec<u64> {
    let answer = call(json!({"op": "history", "id": id})).unwrap();
    let history = answer["history"].as_array().unwrap();
    history
        .iter()
        .map(|past| past["version"].as_u64().unwrap())
        .collect()
}

#[test]
fn a_zettel_is_changed_only_as_it_is_believed_to_be() {
    let put = |if_match: Option<u64>, body: &str| {
        let answer = call(json!({"id": "a", "title": "A", "body": body, "if_match": if_match}));
        answer.map(|answer| answer["version"].as_u64().unwrap())
    };
    let stale = || Err("version-mismatch".to_owned());
    assert_eq!(put(Some(1), "none is there"), stale());
    assert_eq!(put(Some(0), "first"), Ok(1));
    assert_eq!(put(Some(0), "again"), stale());
    assert_eq!(put(None, "second"), Ok(2));
    assert_eq!(put(Some(1), "late"), stale());
    assert_eq!(put(Some(2), "third"), Ok(3));
    assert_eq!(versions("a"), [3, 2, 1]);
    let second = call(json!({"op": "history", "id": "a", "at": 2})).unwrap();
    assert_eq!(second["history"][0]["body"], "second");

    let delete = |fields: Value| {
        let mut input = json!({"op": "delete", "id": "a"});
        input
            .as_object_mut()
            .unwrap()
            .extend(fields.as_object().unwrap().clone());
        call(input)
    };
    assert_eq!(
        delete(json!({"if_match": 2})),
        Err("version-mismatch".to_owned())
    );
    assert_eq!(
        delete(json!({"if_match": 3})),
        Ok(json!({"id": "a", "version": 4}))
    );
    assert!(delete(json!({})).unwrap_err().contains("no zettel"));
    assert_eq!(versions("a"), [3, 2, 1]);
    // No version is given twice, so nobody takes the new one for the old.
    assert_eq!(put(Some(0), "back"), Ok(5));
    assert_eq!(versions("a"), [5, 3, 2, 1]);
    assert_eq!(delete(json!({"purge": true})).unwrap()["version"], 6);
    assert_eq!(versions("a"), [0_u64; 0]);
    let keys = SlipBox::open().unwrap();
    assert_eq!(keys.bucket().keys("old/").count(), 0);
}

#[test]
fn a_hundred_past_versions_are_kept() {
    for at in 1..=KEPT + 5 {
        call(json!({"id": "a", "title": "A", "body": format!("{at}")})).unwrap();
    }
    assert_eq!(versions("a").len() as u64, KEPT + 1);
    let slip_box = SlipBox::open().unwrap();
    assert_eq!(slip_box.bucket().keys("old/a/").count() as u64, KEPT);
}

#[test]
fn zettels_without_an_id_get_one_each() {
    let mut ids = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let answer = call(json!({"title": "Thought", "body": ""})).unwrap();
        assert_eq!(answer["version"], 1);
        let id = answer["id"].as_str().unwrap().to_owned();
        assert!(
            id.len() == 17 && id.bytes().all(|byte| byte.is_ascii_digit()),
            "{id}"
        );
        assert!(ids.insert(id));
    }
}

#[test]
fn files_are_imported_all_or_none_and_only_what_changed() {
    let import = |lines: &str| call(json!({"lines": Bytes(lines.into())}));
    let files = "{\"path\": \"notes/one.md\", \"body\": \"# The first\\n\\n[[two]] #x\", \"created\": \"2020-02-29\"}\r\n\n{\"path\": \"two.md\", \"body\": \"\"}";
    assert_eq!(import(files), Ok(json!({"imported": 2, "unchanged": 0})));
    assert_eq!(import(files), Ok(json!({"imported": 0, "unchanged": 2})));
    let one = call(json!({"op": "history", "id": "one", "at": 1})).unwrap();
    assert_eq!(one["history"][0]["title"], "The first");
    assert_eq!(one["history"][0]["tags"], json!(["x"]));
    let changed = "{\"id\": \"two\", \"body\": \"now\", \"tags\": [\"#New\"]}\n{\"id\": \"three\", \"body\": \"\"}";
    assert_eq!(import(changed), Ok(json!({"imported": 2, "unchanged": 0})));
    assert_eq!(versions("two"), [2, 1]);
    for bad in [
        "{\"id\": \"four\", \"body\": \"\"}\nno json",
        "{\"id\": \"four\", \"body\": \"\"}\n{\"id\": \"four\", \"body\": \"\"}",
        "{\"id\": \"four\", \"body\": \"\"}\n{\"body\": \"\"}",
        "{\"id\": \"four\", \"body\": \"\"}\n{\"id\": \"a/b\", \"body\": \"\"}",
        "{\"id\": \"four\", \"body\": \"\", \"created\": \"soon\"}",
    ] {
        assert_eq!(import(bad), Err("bad-line".to_owned()), "{bad}");
    }
    assert_eq!(import("\n"), Err("empty".to_owned()));
    assert!(call(json!({"op": "history", "id": "four"})).is_err());
}

#[test]
fn what_makes_no_zettel_is_refused_with_its_place() {
    let pointer = |input: Value| {
        let failure = store(serde_json::from_value(input).unwrap()).unwrap_err();
        failure.pointer.unwrap()
    };
    let long = "x".repeat(zettel::MAX_BODY + 1);
    for (input, place) in [
        (json!({"body": "x"}), "/title"),
        (json!({"title": "x"}), "/body"),
        (json!({"title": " ", "body": "x"}), "/title"),
        (json!({"title": "x", "body": long}), "/body"),
        (json!({"title": "x", "body": "x", "id": "a|b"}), "/id"),
        (
            json!({"title": "x", "body": "x", "tags": ["a", "b c"]}),
            "/tags/1",
        ),
        (
            json!({"title": "x", "body": "x", "created": "soon"}),
            "/created",
        ),
        (
            json!({"title": "x", "body": "x", "if_match": 1}),
            "/if_match",
        ),
        (json!({"op": "delete"}), "/id"),
        (json!({"op": "import"}), "/lines"),
    ] {
        assert_eq!(pointer(input), place);
    }
}

#[test]
fn a_drawer_has_an_end_and_says_so() {
    let drawer = drawer_of("n0");
    let ids = (0..)
        .map(|n| format!("n{n}"))
        .filter(|id| drawer_of(id) == drawer);
    let body = "x".repeat(zettel::MAX_BODY);
    let full = ids
        .take(17)
        .try_for_each(|id| call(json!({"id": id, "title": "Large", "body": body})).map(|_| ()));
    assert_eq!(full, Err("drawer-full".to_owned()));
    assert_eq!(versions("n0"), [1]);
}

#[test]
fn a_text_of_nothing_but_links_is_kept() {
    let body: String = (0..80_000).map(|n| format!("[[n{n}]] #t{n} ")).collect();
    let answer = call(json!({"id": "a", "title": "Links", "body": body}));
    assert!(answer.is_err(), "it is over 1 MiB");
    let body = &body[..zettel::MAX_BODY];
    assert!(call(json!({"id": "a", "title": "Links", "body": body})).is_ok());
}
