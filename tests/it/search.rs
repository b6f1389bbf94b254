//! Documents that are indexed, found and deleted over HTTP, by `guests/semantic-search`.

use std::path::Path;
use std::time::{Duration, Instant};

use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::state::State;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Host, config, dir, engine, guest, run};

/// The worker asks for more memory than a machine for tests need have.
const RELAXED: &str = "[workers.semantic-search]\nrelax = [\"min_memory_mb\"]\n";

/// A host with the worker and an empty index.
struct Searching {
    host: Host,
    _dir: TempDir,
}

impl Searching {
    async fn start(toml: &str) -> Self {
        let dir = dir();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let engine = engine(&cache).with_state(State::at(dir.path().join("state")));
        let config = config(&format!("{toml}{RELAXED}"));
        let snapshot = Snapshot::load(&engine, &config, vec![guest("semantic-search")]).await;
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        let router = Router::new(Registry::new(snapshot));
        Self {
            host: Host::of(router.into(), |_| {}).await,
            _dir: dir,
        }
    }

    async fn post(&self, verb: &str, input: Value) -> (u16, Value) {
        let url = self.host.url(&format!("/invoke/{verb}/semantic_documents"));
        let answer = self.host.client.post(url).json(&input).send().await;
        let answer = answer.expect("an answer");
        let status = answer.status().as_u16();
        (status, answer.json().await.expect("JSON"))
    }

    async fn done(&self, verb: &str, input: Value) -> Value {
        let (status, answer) = self.post(verb, input).await;
        assert_eq!(status, 200, "{answer}");
        answer
    }

    /// The ids that are found, the best first.
    async fn found(&self, input: Value) -> Vec<String> {
        let answer = self.done("search", input).await;
        let results = answer["results"].as_array().expect("a list").iter();
        let id = |result: &Value| result["id"].as_str().expect("an id").to_owned();
        results.map(id).collect()
    }
}

/// The collection in the repository.
fn collection() -> Vec<Value> {
    let file = "guests/semantic-search/evaluation/documents.txt";
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    let text = std::fs::read_to_string(file).expect("it is in the repository");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    let document = |line: &str| {
        let (id, text) = line.split_once(": ")?;
        let (topic, _) = id.split_once('-')?;
        Some(json!({ "id": id, "text": text, "metadata": { "topic": topic } }))
    };
    lines.filter_map(document).collect()
}

#[test]
fn documents_are_indexed_found_filtered_and_deleted() {
    run(async {
        let search = Searching::start("").await;
        let documents = collection();
        let indexed = search
            .done("index", json!({ "documents": documents }))
            .await;
        assert_eq!(indexed, json!({ "indexed": documents.len() }));
        let answer = search
            .done(
                "search",
                json!({ "query": "worn brakes on a vehicle", "top_k": 3 }),
            )
            .await;
        let best = &answer["results"][0];
        assert_eq!(
            (
                answer["results"].as_array().map(Vec::len),
                &best["metadata"]["topic"]
            ),
            (Some(3), &json!("cars"))
        );
        assert!(
            best["score"].is_number()
                && best["snippet"].as_str().expect("a text").contains("discs"),
            "{answer}"
        );
        let filtered = search
            .found(json!({ "query": "battery", "filter": { "topic": ["energy", "bikes"] } }))
            .await;
        assert!(
            !filtered.is_empty() && filtered.iter().all(|id| !id.starts_with("cars")),
            "{filtered:?}"
        );
        let deleted = search
            .done("delete", json!({ "ids": ["cars-1", "cars-2", "nobody"] }))
            .await;
        assert_eq!(deleted, json!({ "deleted": 2 }));
        let found = search
            .found(json!({ "query": "battery of the car", "top_k": 100 }))
            .await;
        assert!(
            found.len() > 10 && !found.contains(&"cars-1".to_owned()),
            "{found:?}"
        );
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    run(async {
        let search = Searching::start("").await;
        for (verb, input, pointer) in [
            ("search", json!({ "query": "" }), "/query"),
            ("search", json!({ "query": " ?! " }), "/query"),
            ("search", json!({ "query": "x", "top_k": 0 }), "/top_k"),
            (
                "search",
                json!({ "query": "x", "filter": { "year": { "gt": 2000 } } }),
                "/filter/year",
            ),
            ("search", json!({ "query": "x", "mode": "magic" }), "/mode"),
            (
                "index",
                json!({ "documents": [{ "text": "no id" }] }),
                "/documents/0",
            ),
            (
                "index",
                json!({ "documents": [{ "id": "", "text": "" }] }),
                "/documents/0/id",
            ),
            (
                "index",
                json!({ "documents": [{ "id": "a", "text": "" }, { "id": "a", "text": "" }] }),
                "/documents/1/id",
            ),
            ("index", json!({ "documents": [] }), "/documents"),
            ("delete", json!({}), ""),
        ] {
            let (status, problem) = search.post(verb, input.clone()).await;
            assert_eq!(
                (status, &problem["code"]),
                (422, &json!("invalid-input")),
                "{input}: {problem}"
            );
            assert_eq!(
                problem["errors"][0]["pointer"], pointer,
                "{input}: {problem}"
            );
        }
        assert!(
            search
                .found(json!({ "query": "anything" }))
                .await
                .is_empty()
        );
    });
}

#[test]
fn empty_documents_every_script_and_ten_thousand_in_batches() {
    run(async {
        let search = Searching::start("").await;
        let strange = json!({ "documents": [
            { "id": "empty", "text": "" },
            { "id": "marks", "text": "\u{0} \u{200b} --- 🙂" },
            { "id": "he", "text": "החתול ישן על הספה" },
            { "id": "ar", "text": "القِطَّة تنام على الأريكة" },
            { "id": "zh", "text": "猫在沙发上睡觉。" },
            { "id": "long", "text": format!("{} needle {}", "straw ".repeat(50_000), "hay ".repeat(50_000)) },
        ] });
        search.done("index", strange).await;
        for batch in 0..10 {
            let documents: Vec<Value> = (0..1000)
                .map(|at| {
                    let text = format!(
                        "paper {at} of batch{batch} on subject{} and subject{}",
                        at % 37,
                        at % 23
                    );
                    json!({ "id": format!("{batch}/{at}"), "text": text })
                })
                .collect();
            search
                .done("index", json!({ "documents": documents }))
                .await;
        }
        for (query, id) in [
            ("الأريكة", "ar"),
            ("הספה", "he"),
            ("沙发", "zh"),
            ("needle", "long"),
        ] {
            let found = search
                .found(json!({ "query": query, "top_k": 1, "mode": "bm25" }))
                .await;
            assert_eq!(found, [id], "{query}");
        }
        let found = search
            .found(json!({ "query": "paper 123 of batch4", "top_k": 1 }))
            .await;
        assert_eq!(found, ["4/123"]);
        let mut slowest = Duration::ZERO;
        for mode in ["bm25", "vectors", "both"] {
            let began = Instant::now();
            let query = json!({ "query": "subject12", "top_k": 100, "mode": mode });
            let found = search.found(query).await;
            slowest = slowest.max(began.elapsed());
            assert!(!found.is_empty(), "{mode}");
        }
        println!("10,000 documents: found in {slowest:?} at most");
        // A quick answer on a slow machine; one that computes vectors anew takes minutes.
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        // All of them go in one call, with as many that were never there.
        for batches in [0..5, 5..10] {
            let ids = batches.flat_map(|batch| (0..1000).map(move |at| format!("{batch}/{at}")));
            let ids: Vec<String> = ids
                .chain((0..5000).map(|at| format!("none/{at}")))
                .collect();
            let deleted = search.done("delete", json!({ "ids": ids })).await;
            assert_eq!(deleted, json!({ "deleted": 5000 }));
        }
        let query = json!({ "query": "paper 123 of batch4", "mode": "bm25" });
        assert_eq!(search.found(query).await, [""; 0]);
        assert_eq!(
            search.found(json!({ "query": "x".repeat(10_000) })).await,
            [""; 0]
        );
    });
}

#[test]
fn concurrent_calls_lose_no_document() {
    run(async {
        let search = &Searching::start("").await;
        let calls = (0..40).map(|call| async move {
            let documents: Vec<Value> = (0..5).map(|at| {
                json!({ "id": format!("{call}/{at}"), "text": format!("unique{call}x{at} shared words") })
            }).collect();
            search.done("index", json!({ "documents": documents })).await;
            search.done("delete", json!({ "ids": [format!("{call}/4")] })).await
        });
        let deleted = futures_util::future::join_all(calls).await;
        assert!(
            deleted.iter().all(|deleted| deleted["deleted"] == 1),
            "{deleted:?}"
        );
        for call in 0..40 {
            for at in 0..5 {
                let query = json!({ "query": format!("unique{call}x{at}"), "mode": "bm25" });
                let wanted: Vec<String> = (at < 4)
                    .then(|| format!("{call}/{at}"))
                    .into_iter()
                    .collect();
                assert_eq!(search.found(query).await, wanted);
            }
        }
    });
}

#[test]
fn an_index_over_its_quota_ends_as_storage_limit_and_stays_whole() {
    run(async {
        let search = Searching::start("[limits]\nmax_state_mb = 1\n").await;
        search
            .done(
                "index",
                json!({ "documents": [{ "id": "small", "text": "a small paper" }] }),
            )
            .await;
        let big: Vec<Value> = (0..2000)
            .map(|at| json!({ "id": format!("b{at}"), "text": "a big paper ".repeat(100) }))
            .collect();
        let (status, problem) = search.post("index", json!({ "documents": big })).await;
        assert_eq!(
            (status, &problem["code"]),
            (502, &json!("storage-limit")),
            "{problem}"
        );
        assert_eq!(
            search
                .found(json!({ "query": "paper", "top_k": 100 }))
                .await,
            ["small"]
        );
        search
            .done(
                "index",
                json!({ "documents": [{ "id": "other", "text": "another" }] }),
            )
            .await;
        assert_eq!(search.found(json!({ "query": "another" })).await, ["other"]);
    });
}
