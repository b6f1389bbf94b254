//! The three workers for zettels, over HTTP: what they do, what ten thousand zettels cost, and what a
//! killed host leaves.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::state::State;
use reqwest::Client;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::state::Serving;
use crate::support::{Host, config, dir, engine, guest, run};

const WORKERS: [&str; 3] = ["zettel-storage", "zettel-retrieval", "zettel-link-analysis"];
/// What grants them their bucket: the file that `crank demo` uses.
const GRANTS: &str = include_str!("../../guests/crank.toml");
const STORE: &str = "store/zettel";
const RETRIEVE: &str = "retrieve/zettel";
const ANALYZE: &str = "analyze/zettel_links";

/// How often the host is killed.
const KILLS: u64 = 20;
const WRITERS: u64 = 8;
/// What all writers write.
const COMMON: &str = "common";

/// A host with the three workers and nothing in their slip box.
struct Zettels {
    host: Host,
    _dir: TempDir,
}

impl Zettels {
    async fn start(toml: &str) -> Self {
        let dir = dir();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let engine = engine(&cache).with_state(State::at(dir.path().join("state")));
        let files = WORKERS.map(guest).into();
        let snapshot = Snapshot::load(&engine, &config(&format!("{toml}{GRANTS}")), files).await;
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        let router = Arc::new(Router::new(Registry::new(snapshot)));
        let host = Host::of(router, |_| {}).await;
        Self { host, _dir: dir }
    }

    /// Status and answer.
    async fn call(&self, capability: &str, input: Value) -> (u16, Value) {
        let url = self.host.url(&format!("/invoke/{capability}"));
        let answer = self.host.client.post(url).json(&input).send().await;
        let answer = answer.expect("it answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn done(&self, capability: &str, input: Value) -> Value {
        let (status, answer) = self.call(capability, input.clone()).await;
        assert_eq!(status, 200, "{input}: {answer}");
        answer
    }

    /// Sends JSON lines as they are.
    async fn import(&self, lines: impl Into<reqwest::Body>) -> (u16, Value) {
        let url = self.host.url("/invoke/store/zettel");
        let request = self.host.client.post(url).body(lines);
        let request = request.header("content-type", "application/x-ndjson");
        let answer = request.send().await.expect("it answers");
        (answer.status().as_u16(), answer.json().await.expect("JSON"))
    }

    async fn found(&self, input: Value) -> Vec<String> {
        ids(&self.done(RETRIEVE, input).await)
    }
}

fn ids(answer: &Value) -> Vec<String> {
    let zettels = answer["zettels"].as_array().expect("a list").iter();
    let id = |zettel: &Value| zettel["id"].as_str().expect("an id").to_owned();
    zettels.map(id).collect()
}

#[test]
fn zettels_are_kept_found_and_analyzed() {
    run(async {
        let zettels = Zettels::start("").await;
        let light = json!({"id": "light", "title": "Lighthouses", "body": "They warn of [[reefs|the reefs]]. #sea"});
        assert_eq!(
            zettels.done(STORE, light).await,
            json!({"id": "light", "version": 1})
        );
        let new = zettels
            .done(
                STORE,
                json!({"title": "Untitled", "body": "", "tags": ["Sea"]}),
            )
            .await;
        let new = new["id"].as_str().expect("an id").to_owned();
        let files = concat!(
            r##"{"path": "notes/reefs.md", "body": "# Reefs\n\nSee [[light]] and [[coral]]. `[[no]]` #sea/deep", "created": "2020-02-29"}"##,
            "\n",
            r##"{"path": "notes/lamp.md", "body": "A lighthouse needs a lamp: [[light]]"}"##
        );
        let imported = json!({"imported": 2, "unchanged": 0});
        assert_eq!(zettels.import(files).await, (200, imported));

        let light = zettels.done(RETRIEVE, json!({"id": "light"})).await;
        let light = &light["zettels"][0];
        assert_eq!(
            (&light["title"], &light["tags"], &light["links"]),
            (&json!("Lighthouses"), &json!(["sea"]), &json!(["reefs"]))
        );
        for (input, found) in [
            (json!({"tag": "sea"}), vec![new.as_str(), "light", "reefs"]),
            (json!({"query": "lighthouse"}), vec!["lamp"]),
            (json!({"query": "see reefs"}), vec!["reefs"]),
            (json!({"to": "2020-12-31"}), vec!["reefs"]),
            (json!({"neighbours": "light"}), vec!["lamp", "reefs"]),
        ] {
            assert_eq!(zettels.found(input.clone()).await, found, "{input}");
        }
        let links = zettels.done(ANALYZE, json!({"format": "dot"})).await;
        assert_eq!(
            links["backlinks"],
            json!({"light": ["lamp", "reefs"], "reefs": ["light"]})
        );
        assert_eq!(links["orphans"], json!([new]));
        assert_eq!(links["broken"], json!([{"from": "reefs", "to": "coral"}]));
        assert_eq!(links["hubs"][0]["id"], "light");
        assert_eq!(
            links["clusters"][0]["zettels"],
            json!(["lamp", "light", "reefs"])
        );
        assert!(
            links["dot"]
                .as_str()
                .expect("text")
                .contains("\"lamp\" -> \"light\";")
        );

        let changed =
            json!({"id": "light", "title": "Lighthouses", "body": "Gone dark.", "if_match": 1});
        assert_eq!(zettels.done(STORE, changed.clone()).await["version"], 2);
        let (status, stale) = zettels.call(STORE, changed).await;
        assert_eq!(
            (status, &stale["code"], &stale["worker_code"]),
            (409, &json!("conflict"), &json!("version-mismatch"))
        );
        let past = zettels
            .done(STORE, json!({"op": "history", "id": "light", "at": 1}))
            .await;
        assert_eq!(
            past["history"][0]["body"],
            "They warn of [[reefs|the reefs]]. #sea"
        );
        zettels
            .done(STORE, json!({"op": "delete", "id": "light"}))
            .await;
        assert_eq!(zettels.call(RETRIEVE, json!({"id": "light"})).await.0, 404);
    });
}

#[test]
fn what_makes_no_sense_is_refused_with_its_place() {
    run(async {
        let zettels = Zettels::start("").await;
        for (capability, input, status, pointer) in [
            (STORE, json!({"body": "x"}), 422, "/title"),
            (
                STORE,
                json!({"title": "x", "body": "x", "id": "a/b"}),
                422,
                "/id",
            ),
            (
                STORE,
                json!({"title": "x", "body": "x".repeat((1 << 20) + 1)}),
                422,
                "/body",
            ),
            (
                STORE,
                json!({"title": "x", "body": "x", "tags": ["#a b"]}),
                422,
                "/tags/0",
            ),
            (STORE, json!({"op": "burn"}), 422, "/op"),
            (STORE, json!({"op": "delete", "id": "none"}), 404, ""),
            (RETRIEVE, json!({"id": "none"}), 404, ""),
            (RETRIEVE, json!({"neighbours": "none"}), 404, ""),
            (RETRIEVE, json!({"query": "?"}), 422, "/query"),
            (RETRIEVE, json!({"from": "soon"}), 422, "/from"),
            (RETRIEVE, json!({"limit": 0}), 422, "/limit"),
            (RETRIEVE, json!({"cursor": "x"}), 422, "/cursor"),
            (ANALYZE, json!({"format": "png"}), 422, "/format"),
        ] {
            let (got, answer) = zettels.call(capability, input).await;
            assert_eq!(got, status, "{answer}");
            let place = answer["errors"][0]["pointer"].as_str();
            assert_eq!(place.unwrap_or_default(), pointer, "{answer}");
        }
        let lines = "{\"id\": \"good\", \"body\": \"\"}\n{\"id\": \"bad\"}";
        let (status, answer) = zettels.import(lines).await;
        assert_eq!((status, &answer["worker_code"]), (422, &json!("bad-line")));
        assert!(
            answer["errors"][0]["detail"]
                .as_str()
                .expect("text")
                .contains("line 2"),
            "{answer}"
        );
        assert_eq!(zettels.found(json!({})).await, [""; 0]);
        assert_eq!(zettels.done(ANALYZE, json!({})).await["zettels"], 0);
    });
}

/// The body of the n-th of ten thousand: each links to the next, to itself, and in code to nothing.
fn body(n: usize) -> String {
    if n % 100 == 99 {
        return String::new();
    }
    let text = match n % 3 {
        0 => format!("The {n}th keeper of the light walks the gallery at night. number{n}"),
        1 => format!("שומר המגדלור הולך בלילה number{n} ‏مرحبا بالعالم"),
        _ => format!("灯台守は夜に回廊を歩く。number{n} 光の塔"),
    };
    let next = (n + 1) % 10_000;
    format!(
        "{text} [[z{next}]] [[z{n}]] `[[code{n}]]` #t{}x\n\n```\n[[code]] #code\n```\n",
        n % 50
    )
}

#[test]
fn ten_thousand_zettels_in_three_scripts_are_imported_and_found_quickly() {
    run(async {
        let zettels = Zettels::start("").await;
        let began = Instant::now();
        for quarter in 0..4 {
            let line = |n| {
                json!({"path": format!("z{n}.md"), "title": format!("Zettel {n}"), "body": body(n)})
                    .to_string()
                    + "\n"
            };
            let lines: String = (quarter..10_000).step_by(4).map(line).collect();
            let (status, answer) = zettels.import(lines).await;
            assert_eq!(
                (status, answer),
                (200, json!({"imported": 2500, "unchanged": 0}))
            );
        }
        let imported = began.elapsed();
        let mut slowest = Duration::ZERO;
        for (input, total, first) in [
            (json!({"id": "z4711"}), 1, "z4711"),
            (json!({"tag": "t7x"}), 200, "z1007"),
            (json!({"query": "number8888"}), 1, "z8888"),
            (json!({"query": "keeper gallery"}), 3300, ""),
            (json!({"query": "המגדלור"}), 3300, ""),
            (json!({"query": "مرحبا"}), 3300, ""),
            (json!({"query": "灯台"}), 3300, ""),
            (json!({"query": "台灯"}), 0, ""),
            (json!({"neighbours": "z5"}), 2, "z4"),
            (json!({}), 10_000, "z0"),
            (json!({"to": "2001-01-01"}), 0, ""),
        ] {
            let began = Instant::now();
            let answer = zettels.done(RETRIEVE, input.clone()).await;
            slowest = slowest.max(began.elapsed());
            assert_eq!(answer["total"], total, "{input}");
            if !first.is_empty() {
                assert_eq!(answer["zettels"][0]["id"], first, "{input}");
            }
        }
        let began = Instant::now();
        let links = zettels.done(ANALYZE, json!({"format": "dot"})).await;
        let analyzed = began.elapsed();
        // A hundred are empty and link nowhere; a ring in a hundred pieces is left.
        assert_eq!(
            (&links["zettels"], &links["links"]),
            (&json!(10_000), &json!(9900))
        );
        assert_eq!(links["backlinks"].as_object().expect("a map").len(), 9900);
        assert_eq!(
            (&links["broken"], &links["orphans"]),
            (&json!([]), &json!([]))
        );
        println!(
            "10,000 zettels: imported in {imported:?}, found in {slowest:?} at most, analyzed in {analyzed:?}"
        );
        // A quick answer on a slow machine; a worker that reads them one by one takes minutes.
        assert!(slowest < Duration::from_secs(3), "{slowest:?}");
        assert!(analyzed < Duration::from_secs(10), "{analyzed:?}");

        // All pages together are all of them, once.
        let (mut seen, mut input) = (
            BTreeSet::new(),
            json!({"limit": 500, "query": "number1 光の塔"}),
        );
        assert_eq!(zettels.found(input.clone()).await, [""; 0]);
        input["query"] = json!("光の塔");
        loop {
            let page = zettels.done(RETRIEVE, input.clone()).await;
            for id in ids(&page) {
                assert!(seen.insert(id.clone()), "{id} twice");
            }
            match page.get("cursor") {
                Some(cursor) => input["cursor"] = cursor.clone(),
                None => break,
            }
        }
        assert_eq!(seen.len(), 3300);
    });
}

#[test]
fn a_full_slip_box_says_so_keeps_what_it_has_and_takes_more_once_something_is_purged() {
    run(async {
        let zettels = Zettels::start("[limits]\nmax_state_mb = 1\n").await;
        let put = |n: usize, text: &str| json!({"id": format!("n{n}"), "title": "Note", "body": text.repeat(60_000)});
        let mut kept = 0;
        let full = loop {
            let (status, answer) = zettels.call(STORE, put(kept, "x")).await;
            if status != 200 {
                break answer;
            }
            kept += 1;
        };
        assert_eq!(
            (&full["code"], kept > 10),
            (&json!("storage-limit"), true),
            "{full}"
        );
        // A change needs room for what was. Tried again and again, it takes no more of it.
        for _ in 0..20 {
            let (_, answer) = zettels.call(STORE, put(0, "y")).await;
            assert_eq!(answer["code"], "storage-limit");
        }
        let all = zettels.done(RETRIEVE, json!({"limit": 100})).await;
        assert_eq!(ids(&all).len(), kept);
        for zettel in all["zettels"].as_array().expect("a list") {
            assert_eq!(
                (&zettel["version"], zettel["body"].as_str().map(str::len)),
                (&json!(1), Some(60_000))
            );
            assert!(zettel["body"].as_str().expect("text").starts_with('x'));
        }
        for n in [1, 2] {
            zettels
                .done(
                    STORE,
                    json!({"op": "delete", "id": format!("n{n}"), "purge": true}),
                )
                .await;
        }
        assert_eq!(zettels.done(STORE, put(0, "y")).await["version"], 2);
        assert_eq!(zettels.found(json!({"limit": 100})).await.len(), kept - 2);
    });
}

#[test]
fn what_the_three_declare_is_what_the_schema_gives_them() {
    run(async {
        let zettels = Zettels::start("").await;
        let answer = zettels
            .host
            .client
            .get(zettels.host.url("/capabilities"))
            .send()
            .await;
        let answer: Value = answer.expect("it answers").json().await.expect("JSON");
        let all = answer["capabilities"].as_array().expect("a list");
        for (worker, verb, name, scope) in [
            ("worker-zettel-storage", "store", "zettel", "zettel"),
            ("worker-zettel-retrieval", "retrieve", "zettel", "zettel:ro"),
            (
                "worker-zettel-link-analysis",
                "analyze",
                "zettel_links",
                "zettel:ro",
            ),
        ] {
            let found = all
                .iter()
                .find(|one| one["verb"] == verb && one["name"] == name);
            let found = found.unwrap_or_else(|| panic!("no {verb}:{name}"));
            for (field, value) in [
                ("worker_id", json!(worker)),
                ("version", json!("1.0.0")),
                ("runtime", json!("wasm-component")),
                ("env_profile", json!("cpu-optimized")),
                (
                    "required_capabilities",
                    json!([format!("wasi:keyvalue/store[{scope}]")]),
                ),
                (
                    "constraints",
                    json!({"min_memory_mb": 1024, "max_memory_mb": 2048, "cpu_shares": 1024, "disk_type": "ssd", "disk_storage_gb": 10}),
                ),
            ] {
                assert_eq!(found[field], value, "{worker} {field}");
            }
            for absent in [
                "slo",
                "spiffe_id",
                "cost_tokens",
                "slo_bid",
                "controller_affinity",
            ] {
                assert_eq!(found[absent], Value::Null, "{worker} {absent}");
            }
        }
    });
}

/// A call to a host that may be killed meanwhile: `None` if it was.
async fn ask(url: &str, client: &Client, capability: &str, input: &Value) -> Option<Value> {
    let url = format!("{url}/invoke/{capability}");
    let answer = client.post(url).json(input).send().await.ok()?;
    let status = answer.status();
    let answer = answer.json().await.ok()?;
    assert!(status.is_success(), "{input}: {answer}");
    Some(answer)
}

/// What a writer's zettel says at a version. Long enough to be kept in pieces.
fn said(writer: u64, version: u64) -> String {
    let text = format!("Writer {writer}, version {version}. ").repeat(100);
    format!(
        "{text} unique{writer}x{version} [[gone{writer}x{version}]] [[{COMMON}]] #tag{writer}x{version}"
    )
}

/// Writes until the host is gone. Returns the last version that was answered, and those of the zettel that
/// all write.
async fn write(url: String, client: Client, writer: u64, mut last: u64) -> (u64, u64, Vec<u64>) {
    let mut common = Vec::new();
    loop {
        let own = json!({"id": format!("w{writer}"), "title": "Own", "body": said(writer, last + 1), "if_match": last});
        let Some(answer) = ask(&url, &client, STORE, &own).await else {
            return (writer, last, common);
        };
        last += 1;
        assert_eq!(answer["version"], last);
        let shared = json!({"id": COMMON, "title": "Common", "body": format!("of {writer}")});
        let Some(answer) = ask(&url, &client, STORE, &shared).await else {
            return (writer, last, common);
        };
        common.push(answer["version"].as_u64().expect("a number"));
    }
}

/// Each answered write is there; of the one that was not answered all or nothing. Returns the version now.
async fn check(url: &str, client: &Client, writer: u64, last: u64) -> u64 {
    let ask = async |capability, input| {
        ask(url, client, capability, &input)
            .await
            .expect("it answers")
    };
    let id = format!("w{writer}");
    let all = ask(RETRIEVE, json!({})).await;
    // The one that was written last and not answered, if it is there.
    let unanswered = json!({"tag": format!("tag{writer}x{}", last + 1)});
    let unanswered = ids(&ask(RETRIEVE, unanswered).await);
    let version = last + unanswered.len() as u64;
    assert_eq!(ids(&all).contains(&id), version > 0);
    if version == 0 {
        return 0;
    }
    let found = ask(RETRIEVE, json!({"id": id})).await;
    let zettel = &found["zettels"][0];
    assert_eq!(
        (&zettel["version"], zettel["body"].as_str()),
        (&json!(version), Some(&*said(writer, version)))
    );
    // The index says the same: words, tags and links of this version and of no other.
    for (query, is) in [
        (version, vec![id.clone()]),
        (version - 1, vec![]),
        (version + 1, vec![]),
    ] {
        let found = ask(
            RETRIEVE,
            json!({"query": format!("unique{writer}x{query}")}),
        )
        .await;
        assert_eq!(ids(&found), is, "{id} is at {version}, asked for {query}");
    }
    assert_eq!(
        zettel["links"],
        json!([format!("gone{writer}x{version}"), COMMON])
    );
    let history = ask(STORE, json!({"op": "history", "id": id})).await;
    let versions: Vec<_> = history["history"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|past| past["version"].as_u64())
        .collect();
    assert!(
        versions
            .iter()
            .copied()
            .eq((1..=version).rev().take(101).map(Some)),
        "{versions:?}"
    );
    if version > 1 {
        let past = ask(STORE, json!({"op": "history", "id": id, "at": version - 1})).await;
        assert_eq!(past["history"][0]["body"], said(writer, version - 1));
    }
    version
}

#[test]
fn a_host_killed_twenty_times_loses_no_answered_zettel_and_leaves_none_half_there() {
    let dir = dir();
    for name in WORKERS {
        std::fs::copy(guest(name), dir.path().join(format!("{name}.wasm"))).expect("a copy");
    }
    std::fs::write(dir.path().join("crank.toml"), GRANTS).expect("a file");
    run(async {
        let mut last: BTreeMap<u64, u64> = (0..WRITERS).map(|writer| (writer, 0)).collect();
        // Who was answered which version of what all write.
        let mut common = BTreeMap::new();
        let seeded = BuildHasherDefault::<DefaultHasher>::default();
        for kill in 0..=KILLS {
            let serving = Serving::start(&dir);
            let client = Client::builder().no_proxy().build().expect("a client");
            for (writer, last) in &mut last {
                *last = check(&serving.url, &client, *writer, *last).await;
            }
            let links = ask(&serving.url, &client, ANALYZE, &json!({"limit": 0}))
                .await
                .expect("it answers");
            // On a slow machine the first kill comes before anybody has written what all link to.
            let all = ask(&serving.url, &client, RETRIEVE, &json!({})).await;
            let common_is_there = ids(&all.expect("it answers")).contains(&COMMON.to_owned());
            let mut broken = Vec::new();
            for (writer, last) in last.iter().filter(|(_, last)| **last > 0) {
                let from = format!("w{writer}");
                broken.push(json!({"from": from, "to": format!("gone{writer}x{last}")}));
                if !common_is_there {
                    broken.push(json!({"from": from, "to": COMMON}));
                }
            }
            assert_eq!(links["broken"], json!(broken));
            if kill == KILLS {
                let history = json!({"op": "history", "id": COMMON});
                let history = ask(&serving.url, &client, STORE, &history)
                    .await
                    .expect("it answers");
                let now = history["version"].as_u64().expect("a number");
                assert!(Some(&now) >= common.keys().next_back(), "{history}");
                // Each answered one that is kept says what its writer wrote.
                for (version, writer) in common.range(now.saturating_sub(100)..) {
                    let past = json!({"op": "history", "id": COMMON, "at": version});
                    let past = ask(&serving.url, &client, STORE, &past).await;
                    let past = &past.expect("it answers")["history"][0]["body"];
                    assert_eq!(past, &json!(format!("of {writer}")), "version {version}");
                }
                break;
            }
            let writers = last.iter().map(|(writer, last)| {
                tokio::spawn(write(serving.url.clone(), client.clone(), *writer, *last))
            });
            let writers: Vec<_> = writers.collect();
            tokio::time::sleep(Duration::from_millis(20 + seeded.hash_one(kill) % 250)).await;
            serving.kill();
            for writer in writers {
                let (writer, answered, versions) = writer.await.expect("no panic");
                last.insert(writer, answered);
                for version in versions {
                    let other = common.insert(version, writer);
                    assert_eq!(other, None, "version {version} was given twice");
                }
            }
        }
        let written: u64 = last.values().sum();
        println!(
            "{written} versions of their own, {} of the common zettel",
            common.len()
        );
        assert!(written > KILLS * WRITERS, "only {written} writes");
    });
}
