//! The worker's functions as its callers see them, over a state in memory.

mod evaluation;

use crank_worker::state::Bucket;
use crank_worker::{Payload, Request};
use serde_json::{Value, json};

use crate::semantic_search;

/// Calls a capability, `index`, with an input.
pub fn call(verb: &str, input: &Value) -> Result<Value, String> {
    let request = Request {
        capability: format!("{verb}:semantic_documents"),
        ..Request::default()
    };
    let input = Payload {
        media_type: "application/json".into(),
        body: input.to_string().into_bytes(),
    };
    let answer = semantic_search().handle(&request, input);
    let answer = answer.map_err(|failure| format!("{failure:?}"))?;
    Ok(serde_json::from_slice(&answer.body).unwrap())
}

fn index(documents: &[(&str, &str)]) {
    let documents: Vec<Value> = documents
        .iter()
        .map(|(id, text)| json!({"id": id, "text": text}))
        .collect();
    call("index", &json!({ "documents": documents })).unwrap();
}

/// The ids that are found, the best first.
pub fn found(input: &Value) -> Vec<String> {
    let answer = call("search", input).unwrap();
    let results = answer["results"].as_array().unwrap().iter();
    results
        .map(|result| result["id"].as_str().unwrap().to_owned())
        .collect()
}

fn keys() -> Vec<String> {
    Bucket::open("index")
        .unwrap()
        .keys("")
        .map(Result::unwrap)
        .collect()
}

#[test]
fn a_document_is_found_replaced_and_deleted() {
    index(&[("a", "The cat sleeps."), ("b", "A dog barks.")]);
    assert_eq!(found(&json!({"query": "cats"})), ["a"]);
    index(&[("a", "A horse eats hay.")]);
    assert!(found(&json!({"query": "cats"})).is_empty());
    assert_eq!(found(&json!({"query": "horse"})), ["a"]);
    let deleted = call("delete", &json!({"ids": ["a", "nobody"]})).unwrap();
    assert_eq!(deleted, json!({"deleted": 1}));
    assert!(found(&json!({"query": "horse"})).is_empty());
    assert_eq!(
        call("delete", &json!({"ids": ["a"]})).unwrap(),
        json!({"deleted": 0})
    );
    assert_eq!(found(&json!({"query": "dog"})), ["b"]);
}

#[test]
fn filters_take_equal_values_and_lists_and_hold_together() {
    let document =
        |id, metadata: Value| json!({"id": id, "text": "a paper on bread", "metadata": metadata});
    let documents = json!({"documents": [
        document("a", json!({"lang": "en", "year": 2020, "tags": ["x", "y"]})),
        document("b", json!({"lang": "de", "year": 2021, "draft": true})),
        document("c", json!({"lang": "2020"})),
    ]});
    call("index", &documents).unwrap();
    let ids = |filter: Value| {
        let mut ids = found(&json!({"query": "bread", "filter": filter}));
        ids.sort();
        ids.concat()
    };
    assert_eq!(ids(json!({})), "abc");
    assert_eq!(ids(json!({"lang": "en"})), "a");
    assert_eq!(ids(json!({"lang": ["en", "de"]})), "ab");
    assert_eq!(ids(json!({"lang": ["en", "de"], "year": 2021.0})), "b");
    assert_eq!(ids(json!({"tags": "y"})), "a");
    assert_eq!(ids(json!({"draft": true})), "b");
    assert_eq!(ids(json!({"lang": 2020})), "");
    assert_eq!(ids(json!({"lang": []})), "");
    assert_eq!(ids(json!({"other": "x"})), "");
    let answer = call(
        "search",
        &json!({"query": "bread", "filter": {"draft": true}}),
    )
    .unwrap();
    assert_eq!(
        answer["results"][0]["metadata"],
        json!({"lang": "de", "year": 2021.0, "draft": true})
    );
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    let bad = |verb, input: Value, part: &str| {
        let failure = call(verb, &input).unwrap_err();
        assert!(failure.contains(part), "{failure}");
    };
    bad("search", json!({"query": " ?! "}), "/query");
    bad(
        "index",
        json!({"documents": [{"id": "a", "text": ""}, {"id": "a", "text": ""}]}),
        "/documents/1/id",
    );
    let long = "x".repeat(257);
    bad(
        "index",
        json!({"documents": [{"id": "a", "text": "", "metadata": {"k": long}}]}),
        "/documents/0/metadata",
    );
    bad(
        "search",
        json!({"query": "x", "filter": {"k": {"gt": 1}}}),
        "untagged enum Values",
    );
    assert!(keys().is_empty());
}

#[test]
fn one_document_more_writes_little_and_many_calls_leave_few_segments() {
    let mut written = 0;
    for at in 0..300 {
        let id = format!("d{at}");
        let text = format!(
            "number{at} {} {}",
            ["apple tree", "blue sea", "old book"][at % 3],
            "filler ".repeat(at % 7)
        );
        index(&[(&id, &text)]);
        if at % 10 == 0 {
            call("delete", &json!({"ids": [id]})).unwrap();
        }
        written = written.max(
            keys()
                .iter()
                .filter(|key| key.ends_with("/documents"))
                .count(),
        );
    }
    assert!(written <= 4 * 7, "{written} segments at once");
    for at in (0..300).step_by(7) {
        let ids = found(&json!({"query": format!("number{at}"), "mode": "bm25"}));
        let wanted: Vec<String> = (at % 10 != 0)
            .then(|| format!("d{at}"))
            .into_iter()
            .collect();
        assert_eq!(ids, wanted);
    }
    // Every blob belongs to what the manifest names: nothing is left of what was merged or learnt anew.
    let manifest = crate::store::Index::open().unwrap().manifest().unwrap();
    assert_eq!(manifest.documents(), 270);
    assert!(manifest.reserved.is_empty());
    assert_eq!(manifest.models.len(), 1);
    let bucket = Bucket::open("index").unwrap();
    let held = keys()
        .iter()
        .filter(|key| *key != "manifest")
        .map(|key| key.len() + bucket.get(key).unwrap().unwrap().len())
        .sum::<usize>();
    let vectors: usize = keys()
        .iter()
        .filter(|key| key.contains("/vectors/"))
        .map(String::len)
        .sum();
    assert!(
        held as u64 - manifest.bytes() <= vectors as u64,
        "{held} {}",
        manifest.bytes()
    );
}

#[test]
fn a_full_index_says_so_and_stays_whole() {
    index(&[("a", "The cat sleeps.")]);
    let store = crate::store::Index::open().unwrap();
    let full = |bytes| {
        store.change(|manifest| {
            manifest.segments[0].bytes = bytes;
            Ok(Some(()))
        })
    };
    full(crate::index::QUOTA / 4 * 3).unwrap();
    let failure = call(
        "index",
        &json!({"documents": [{"id": "b", "text": "more"}]}),
    )
    .unwrap_err();
    assert!(
        failure.contains("index-full") && failure.contains("delete documents"),
        "{failure}"
    );
    assert_eq!(found(&json!({"query": "cat"})), ["a"]);
    assert!(
        keys()
            .iter()
            .all(|key| key.starts_with("segment/0/") || key == "manifest"),
        "{:?}",
        keys()
    );
    full(100).unwrap();
    index(&[("b", "more")]);
    assert_eq!(found(&json!({"query": "more"})), ["b"]);
}

#[test]
fn every_script_and_no_text_at_all_can_be_indexed() {
    index(&[
        ("empty", ""),
        ("marks", "\u{200b} --- \0 🙂"),
        ("he", "החתול ישן על הספה"),
        ("ar", "القِطَّة تنام على الأريكة"),
        ("zh", "猫在沙发上睡觉。狗在花园里叫。"),
        ("ja", "猫はソファーで寝ている"),
        ("ko", "고양이가 소파에서 잔다"),
        ("th", "แมวนอนบนโซฟา"),
        ("de", "Die Katze schläft auf dem Sofa"),
    ]);
    for (query, id) in [
        ("חתול החתול", "he"),
        ("القطة", "ar"),
        ("沙发", "zh"),
        ("ソファー", "ja"),
        ("소파", "ko"),
        ("โซฟา", "th"),
        ("SCHLAFT", "de"),
    ] {
        assert_eq!(
            found(&json!({"query": query, "top_k": 1, "mode": "bm25"})),
            [id],
            "{query}"
        );
    }
    let answer = call("search", &json!({"query": "花园", "mode": "bm25"})).unwrap();
    assert_eq!(answer["results"][0]["snippet"], "… 狗在花园里叫。");
}
