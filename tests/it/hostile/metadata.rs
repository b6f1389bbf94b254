//! Workers that lie about themselves, or say more than anyone wants to know.

use serde_json::{Value, json};

use super::{RESULT, Wat, called_with, doing, end, honest, loaded, loaded_bytes, serving};
use crate::support::component::capability;
use crate::support::{call, dir, guest, load, place};

cases! {
    a_verb_that_it_did_not_declare ends "unknown-capability":
        called_with(honest(), "", |call| call.name = Some("other".to_owned()));
    a_capability_of_another_at_a_higher_version ends "answered": squatting();
    the_worker_id_of_another ends "refused": stolen_worker_id();
    the_identity_of_another_trust_domain ends "refused":
        loaded(with("spiffe-id", json!("spiffe://elsewhere.example/worker/original")), &["trust domain"]);
    the_identity_that_belongs_to_another_file ends "refused": stolen_spiffe_id();
    a_declaration_that_changes_after_the_first ends "answered": changing();
    a_name_that_writes_to_the_terminal ends "refused":
        loaded(with("name", json!("x\u{1b}]0;owned\u{7}\r\n\u{9b}31m")), &["capabilities[0].name"]);
    an_anyof_that_doubles_at_each_level ends "refused": loaded(schema(&multiplying(22, 2)), &["chains"]);
    an_anyof_that_multiplies_at_few_levels ends "refused": loaded(schema(&multiplying(7, 8)), &["paths"]);
    a_schema_that_refers_to_itself ends "refused":
        loaded(schema(&json!({ "allOf": [{ "$ref": "#" }] })), &["refers to itself"]);
    a_schema_of_brackets ends "refused":
        loaded(with("input", json!("[".repeat(60_000))), &["capabilities[0].input"]);
    a_pattern_that_explodes ends "refused":
        loaded(schema(&json!({ "pattern": "(a{1000}){1000}" })), &["capabilities[0].input"]);
    a_pattern_that_looks_around ends "refused":
        loaded(schema(&json!({ "pattern": "(?=(a+)+$)b" })), &["capabilities[0].input"]);
    a_thousand_patterns ends "refused":
        loaded(schema(&json!({ "anyOf": vec![json!({ "pattern": "a+" }); 1000] })), &["expressions"]);
    a_pattern_that_backtracks_elsewhere ends "invalid-output": slow_pattern();
    a_uniqueness_of_fifty_thousand ends "invalid-output": slow_uniqueness();
    a_schema_from_the_network ends "refused":
        loaded(schema(&json!({ "$ref": "http://169.254.169.254/latest" })), &["capabilities[0].input"]);
    a_worker_id_of_five_megabytes ends "refused":
        loaded(declaring(&record(5 << 20, 0)), &["declare", "output-limit"]);
    ten_thousand_capabilities ends "refused":
        loaded(declaring(&record(0, 10_000)), &["declare", "output-limit"]);
    a_hundred_capabilities ends "refused":
        loaded(Wat::new("worker-wat", json!(vec![capability("work"); 100])), &["100 entries", "64"]);
    ten_thousand_extensions ends "refused":
        loaded(with("extensions", json!(vec![["a", "b"]; 10_000])), &["capabilities[0].extensions"]);
    a_constraint_that_is_made_up ends "refused":
        loaded(with("constraints", json!({ "other": [["root_access", "yes"]] })), &["root_access"]);
    a_price_that_is_not_a_number ends "refused":
        loaded(with("cost-tokens", json!("NaN")), &["capabilities[0].cost_tokens"]);
    a_bid_beyond_all_others ends "refused":
        loaded(with("slo-bid", json!(1e308)), &["capabilities[0].slo_bid"]);
    a_declaration_behind_the_memory ends "refused": loaded(declaring("(return (i32.const -16))"), &["declare"]);
    a_declaration_of_endless_lists ends "refused":
        loaded(declaring(&record(0, u32::MAX)), &["declare"]);
    an_import_that_it_did_not_declare ends "refused": loaded(networked(), &["test:net/socket"]);
    a_component_of_two_thousand_shells ends "refused": loaded_bytes(shells(), &["capabilities"]);
    a_file_of_noise ends "refused": loaded_bytes(noise(), &["compile"]);
}

fn with(field: &str, value: Value) -> Wat {
    let mut wat = honest();
    wat.declaration["capabilities"][0][field] = value;
    wat
}

fn schema(schema: &Value) -> Wat {
    with("input", json!(schema.to_string()))
}

fn declaring(instructions: &str) -> Wat {
    Wat {
        declare: instructions.to_owned(),
        ..honest()
    }
}

/// Returns a record `worker`: an id of so many zeros, and so many capabilities that are all zeros.
fn record(id: u32, capabilities: u32) -> String {
    let words = [65_536, id, 65_536, capabilities];
    let fields: String = (0..)
        .step_by(4)
        .zip(words)
        .map(|(at, word)| format!("(i32.store (i32.const {}) (i32.const {word}))", RESULT + at))
        .collect();
    format!("(drop (memory.grow (i32.const 100))) {fields} (return (i32.const {RESULT}))")
}

/// A schema that multiplies the work at each level.
fn multiplying(levels: u32, width: usize) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..levels {
        let next = json!({ "$ref": format!("#/$defs/d{}", level + 1) });
        defs.insert(format!("d{level}"), json!({ "anyOf": vec![next; width] }));
    }
    defs.insert(format!("d{levels}"), json!({ "type": "string" }));
    json!({ "$defs": defs, "$ref": "#/$defs/d0" })
}

/// It offers what `hello-world` offers, in version 999. Who asks for version 1 gets the original.
async fn squatting() -> String {
    let mut squatter = honest();
    let mut offered = capability("hello_world");
    offered["verb"] = json!("greet");
    offered["version"] = json!("999.0.0");
    squatter.declaration["capabilities"] = json!([offered]);
    let dir = dir();
    let files = vec![place(&dir, "wat", &squatter.build()), guest("hello-world")];
    let router = crate::support::router(files, "").await;
    let mut call = call("greet:hello_world", r#"{"name": "Ada"}"#);
    call.version = Some("^1".parse().expect("a requirement"));
    let answer = router.invoke(call).await;
    let answered_by = answer.as_ref().ok().map(|answer| &*answer.worker_id);
    assert_eq!(answered_by, Some("worker-hello-world"));
    end(answer)
}

async fn stolen_worker_id() -> String {
    let mut thief = honest();
    thief.declaration["worker-id"] = json!("worker-hello-world");
    let dir = dir();
    let files = vec![place(&dir, "wat", &thief.build()), guest("hello-world")];
    let snapshot = load(files, "").await;
    let refused = snapshot.refused();
    // It belongs to neither, so that no caller takes the one for the other.
    assert_eq!((snapshot.workers().len(), refused.len()), (0, 2));
    let thief = refused
        .iter()
        .find(|refused| refused.file.ends_with("wat.wasm"));
    let reasons = thief.expect("the thief").reasons.join(" / ");
    assert!(
        reasons.contains("worker-hello-world is claimed by"),
        "{reasons}"
    );
    "refused".to_owned()
}

async fn stolen_spiffe_id() -> String {
    let id = "spiffe://crank.local/worker/original";
    let named = |name: &str| {
        let mut wat = Wat::new(&format!("worker-{name}"), json!([capability(name)]));
        wat.declaration["capabilities"][0]["spiffe-id"] = json!(id);
        wat.build()
    };
    let dir = dir();
    let files = vec![
        place(&dir, "original", &named("original")),
        place(&dir, "thief", &named("thief")),
    ];
    let snapshot = load(files, &format!("[workers.original]\nspiffe_id = \"{id}\"")).await;
    let [worker] = snapshot.workers() else {
        panic!("{:?}", snapshot.refused())
    };
    assert_eq!(&**worker.id(), "worker-original");
    "refused".to_owned()
}

/// Its first declaration is honest; the next of the same instance would be another worker's.
fn fickle() -> Wat {
    let mut wat = honest();
    wat.items = "(global $asked (mut i32) (i32.const 0))
        (func $again (export \"again\") (if (global.get $asked) (then (unreachable)))
            (global.set $asked (i32.const 1)))"
        .to_owned();
    wat.declare = "(call $again)".to_owned();
    wat
}

/// Each `declare` has an instance of its own, so that a worker which counts them never gets to two: it
/// is the same worker however often it is loaded and called.
async fn changing() -> String {
    let mut ended = Vec::new();
    for _ in 0..3 {
        let router = serving(&fickle(), "").await;
        for _ in 0..3 {
            ended.push(end(router.invoke(call("misbehave:work", "{}")).await));
        }
        assert_eq!(
            &**router.registry().snapshot().workers()[0].id(),
            "worker-wat"
        );
    }
    ended.dedup();
    ended.join(" ")
}

/// A pattern that takes a backtracking matcher until the end of days, and this one no time.
async fn slow_pattern() -> String {
    let mut wat = honest();
    wat.declaration["capabilities"][0]["output"] = json!(r#"{"pattern": "^(a+)+$"}"#);
    let body = format!("\"{}!\"", "a".repeat(100_000));
    wat.answer = json!({ "ok": { "media-type": "application/json", "body": body } });
    super::called(wat, "wall_ms = 5000").await
}

/// A list in which everything is to be compared with everything.
async fn slow_uniqueness() -> String {
    let mut wat = honest();
    wat.declaration["capabilities"][0]["output"] = json!(r#"{"uniqueItems": true}"#);
    let items: Vec<String> = (0..50_000)
        .map(|item| format!("{{\"a\":{item}}}"))
        .collect();
    let body = format!("[{},{}]", items.join(","), items[0]);
    wat.answer = json!({ "ok": { "media-type": "application/json", "body": body } });
    super::called(wat, "wall_ms = 5000").await
}

fn networked() -> Wat {
    Wat {
        packages: "package test:net@1.0.0 { interface socket { open: func(); } }".to_owned(),
        world: "import test:net/socket@1.0.0;".to_owned(),
        imports: r#"(import "test:net/socket@1.0.0" "open" (func $open))"#.to_owned(),
        ..doing("(call $open)")
    }
}

/// A component in a component in a component: for whoever reads it by recursion.
fn shells() -> Vec<u8> {
    const PREAMBLE: &[u8] = b"\0asm\x0d\0\x01\0";
    let mut inner = PREAMBLE.to_vec();
    for _ in 0..2000 {
        let mut outer = PREAMBLE.to_vec();
        outer.push(4);
        // LEB128 in three bytes.
        let size = inner.len();
        outer.extend([
            size as u8 | 0x80,
            (size >> 7) as u8 | 0x80,
            (size >> 14) as u8,
        ]);
        outer.append(&mut inner);
        inner = outer;
    }
    inner
}

/// It begins like a component.
fn noise() -> Vec<u8> {
    let mut bytes = b"\0asm\x0d\0\x01\0".to_vec();
    bytes.extend((0..100_000u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8));
    bytes
}
