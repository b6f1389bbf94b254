//! What the workers declare, against what the seed says of them: the values, the tiers, and the page that
//! quotes them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::output;
use crate::support::{dir, guest};

/// What the seed says of one worker, read from its documents and not from our code.
struct Row {
    /// Its folder in `guests/`.
    folder: &'static str,
    worker_id: &'static str,
    /// `verb:name`, version.
    capabilities: &'static [(&'static str, &'static str)],
    /// The same for all of these; what the seed leaves out is left out.
    metadata: Value,
}

/// The seed's table, "Validation & Testing": `crank_hello_world: FaaS + SLO + …`.
const TIERS: [(&str, &str); 9] = [
    (
        "worker-hello-world",
        "FaaS + SLO + Identity + Economic + Multi-Controller",
    ),
    ("worker-streaming", "FaaS + SLO + Identity"),
    ("worker-document-conversion", "FaaS + SLO"),
    ("worker-email-classifier", "FaaS + SLO + Identity"),
    ("worker-semantic-search", "FaaS + SLO"),
    ("worker-zettel-storage", "FaaS"),
    ("worker-zettel-retrieval", "FaaS"),
    ("worker-zettel-link-analysis", "FaaS"),
    (
        "worker-image-classifier",
        "FaaS + SLO + Economic + Multi-Controller",
    ),
];

fn rows() -> Vec<Row> {
    let mut rows = vec![
        Row {
            folder: "hello-world",
            worker_id: "worker-hello-world",
            capabilities: &[("greet:hello_world", "1.0.0")],
            metadata: json!({
                "env_profile": "cpu-optimized",
                "constraints": { "min_memory_mb": 512, "max_memory_mb": 1024, "cpu_shares": 1024, "disk_type": "any" },
                "slo": {
                    "latency_p50_ms": 50, "latency_p95_ms": 100, "latency_p99_ms": 200,
                    "availability_pct": 99.5, "error_budget_pct": 0.5,
                },
                "spiffe_id": "spiffe://crank.local/worker/hello-world",
                "required_capabilities": [],
                "cost_tokens": 0.1,
                "slo_bid": 1.0,
                "controller_affinity": ["controller-primary"],
            }),
        },
        Row {
            folder: "streaming",
            worker_id: "worker-streaming",
            capabilities: &[
                ("stream:text_events", "1.0.0"),
                ("stream:sse_events", "1.0.0"),
            ],
            metadata: json!({
                "env_profile": "cpu-optimized",
                "constraints": {
                    "min_memory_mb": 1024, "max_memory_mb": 2048, "cpu_shares": 2048, "network_bandwidth_mbps": 100,
                },
                "slo": {
                    "latency_p50_ms": 100, "latency_p95_ms": 250, "latency_p99_ms": 500,
                    "availability_pct": 99.9, "error_budget_pct": 0.1,
                },
                "spiffe_id": "spiffe://crank.local/worker/streaming",
                "required_capabilities": ["convert:text_to_stream"],
            }),
        },
        Row {
            folder: "document-conversion",
            worker_id: "worker-document-conversion",
            // The seed writes out the first; "other conversion capabilities" are ours.
            capabilities: &[
                ("convert:pdf_to_text", "1.0.0"),
                ("convert:email_to_text", "1.0.0"),
                ("convert:text_to_stream", "1.0.0"),
                ("convert:docx_to_text", "1.0.0"),
                ("convert:html_to_text", "1.0.0"),
                ("convert:html_to_markdown", "1.0.0"),
                ("convert:markdown_to_html", "1.0.0"),
                ("convert:csv_to_json", "1.0.0"),
            ],
            metadata: json!({
                "env_profile": "memory-intensive",
                "constraints": {
                    "min_memory_mb": 2048, "max_memory_mb": 4096, "cpu_shares": 2048, "disk_type": "ssd",
                    "tmp_storage_mb": 1024,
                },
                "slo": {
                    "latency_p50_ms": 500, "latency_p95_ms": 2000, "latency_p99_ms": 5000,
                    "availability_pct": 99.5, "error_budget_pct": 0.5,
                },
            }),
        },
        Row {
            folder: "email-classifier",
            worker_id: "worker-email-classifier",
            capabilities: &[("classify:email_category", "2.0.0")],
            metadata: json!({
                "env_profile": "cpu-optimized",
                "constraints": {
                    "min_memory_mb": 2048, "max_memory_mb": 4096, "cpu_shares": 4096, "model_storage_mb": 500,
                },
                "slo": {
                    "latency_p50_ms": 200, "latency_p95_ms": 500, "latency_p99_ms": 1000,
                    "availability_pct": 99.9, "error_budget_pct": 0.1,
                },
                "spiffe_id": "spiffe://crank.local/worker/email-classifier",
                "required_capabilities": ["convert:email_to_text", "classify:spam_detection"],
            }),
        },
        Row {
            // The tenth: the seed has its capability, as what email-classifier calls, and no values.
            folder: "spam-detection",
            worker_id: "worker-spam-detection",
            capabilities: &[("classify:spam_detection", "1.0.0")],
            metadata: json!({
                "env_profile": "cpu-optimized",
                "constraints": { "min_memory_mb": 64, "max_memory_mb": 256, "cpu_shares": 2048 },
                "slo": {
                    "latency_p50_ms": 20, "latency_p95_ms": 100, "latency_p99_ms": 200,
                    "availability_pct": 99.9, "error_budget_pct": 0.1,
                },
                "spiffe_id": "spiffe://crank.local/worker/spam-detection",
            }),
        },
        Row {
            folder: "semantic-search",
            worker_id: "worker-semantic-search",
            capabilities: &[("search:semantic_documents", "1.0.0")],
            metadata: json!({
                "env_profile": "memory-intensive",
                "constraints": {
                    "min_memory_mb": 4096, "max_memory_mb": 8192, "cpu_shares": 4096, "vector_index_mb": 2048,
                },
                "slo": {
                    "latency_p50_ms": 500, "latency_p95_ms": 2000, "latency_p99_ms": 5000,
                    "availability_pct": 99.0, "error_budget_pct": 1.0,
                },
            }),
        },
        Row {
            folder: "image-classifier",
            worker_id: "worker-image-classifier",
            capabilities: &[("classify:image_objects", "1.0.0")],
            metadata: json!({
                "env_profile": "gpu-required",
                "constraints": {
                    "min_memory_mb": 4096, "max_memory_mb": 16384, "cpu_shares": 8192,
                    "gpu_count": 1, "gpu_memory_mb": 8192, "gpu_type": "nvidia",
                },
                "slo": {
                    "latency_p50_ms": 100, "latency_p95_ms": 300, "latency_p99_ms": 1000,
                    "availability_pct": 99.5, "error_budget_pct": 0.5,
                },
                "cost_tokens": 10.0,
                "slo_bid": 5.0,
                "controller_affinity": ["controller-gpu-1", "controller-gpu-2"],
            }),
        },
    ];
    rows.extend(zettels());
    rows
}

/// "All similar", and one is written out: the other two copy its values.
fn zettels() -> [Row; 3] {
    type Named = (
        &'static str,
        &'static str,
        &'static [(&'static str, &'static str)],
    );
    let names: [Named; 3] = [
        (
            "zettel-storage",
            "worker-zettel-storage",
            &[("store:zettel", "1.0.0")],
        ),
        (
            "zettel-retrieval",
            "worker-zettel-retrieval",
            &[("retrieve:zettel", "1.0.0")],
        ),
        (
            "zettel-link-analysis",
            "worker-zettel-link-analysis",
            &[("analyze:zettel_links", "1.0.0")],
        ),
    ];
    names.map(|(folder, worker_id, capabilities)| Row {
        folder,
        worker_id,
        capabilities,
        metadata: json!({
            "env_profile": "cpu-optimized",
            "constraints": {
                "min_memory_mb": 1024, "max_memory_mb": 2048, "cpu_shares": 1024, "disk_type": "ssd",
                "disk_storage_gb": 10,
            },
        }),
    })
}

/// The ten components in a directory of their own, as `crank build` leaves them.
static BUILT: LazyLock<TempDir> = LazyLock::new(|| {
    let built = dir();
    for row in rows() {
        let file = built.path().join(format!("{}.wasm", row.folder));
        std::fs::copy(guest(row.folder), file).unwrap();
    }
    built
});

fn in_repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `crank check` over the ten, with the grants that the repository's own configuration gives them.
fn check(more: &[&str]) -> (i32, String) {
    let config = in_repository("guests/crank.toml");
    let arguments = [
        &[
            "check",
            BUILT.path().to_str().unwrap(),
            "--config",
            config.to_str().unwrap(),
        ],
        more,
    ];
    let (code, out, error) = output(&arguments.concat());
    assert!(code == 0 || !out.is_empty(), "{error}");
    (code, out)
}

/// What each capability of the ten declares, by `verb:name`.
fn declared() -> BTreeMap<String, Value> {
    let (_, out) = check(&["--json"]);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(report["refused"], json!([]));
    let workers = report["workers"].as_array().unwrap().iter();
    let all = workers.flat_map(|worker| worker["metadata"].as_array().unwrap().clone());
    let key = |one: &Value| {
        let text = |field: &str| one[field].as_str().unwrap().to_owned();
        format!("{}:{}", text("verb"), text("name"))
    };
    all.map(|one| (key(&one), one)).collect()
}

/// Drops what a component needs of the host beside what the seed lists: entries for interfaces.
fn without_interfaces(required: &mut Value) {
    let interface = |entry: &Value| entry.as_str().unwrap().contains('/');
    required
        .as_array_mut()
        .unwrap()
        .retain(|entry| !interface(entry));
}

#[test]
fn every_value_that_the_workers_declare_is_the_seed_s() {
    let declared = declared();
    let rows = rows();
    assert_eq!(rows.len(), 10);
    for row in &rows {
        for (capability, version) in row.capabilities {
            let Some(found) = declared.get(*capability) else {
                panic!("{} does not declare {capability}", row.folder);
            };
            let mut found = found.as_object().unwrap().clone();
            // What the seed has no word for.
            for ours in [
                "verb",
                "name",
                "description",
                "accepts",
                "produces",
                "extensions",
            ] {
                found.remove(ours);
            }
            if let Some(required) = found.get_mut("required_capabilities") {
                without_interfaces(required);
                if row.metadata.get("required_capabilities").is_none() && *required == json!([]) {
                    found.remove("required_capabilities");
                }
            }
            let mut expected = row.metadata.as_object().unwrap().clone();
            expected.insert("version".into(), json!(version));
            expected.insert("worker_id".into(), json!(row.worker_id));
            // The one value that is another: a component in place of a Python process.
            expected.insert("runtime".into(), json!("wasm-component"));
            // The one that is more: room for a model of the operator's.
            if *capability == "classify:image_objects" {
                expected["constraints"]["model_storage_mb"] = json!(256);
            }
            assert_eq!(Value::from(found), Value::from(expected), "{capability}");
        }
    }
}

/// What the seed has no name for says of itself what its worker's named capability says.
#[test]
fn what_a_worker_offers_beside_has_the_same_values() {
    let declared = declared();
    for (beside, named) in [
        ("learn:email_category", "classify:email_category"),
        ("learn:spam_detection", "classify:spam_detection"),
        ("index:semantic_documents", "search:semantic_documents"),
        ("delete:semantic_documents", "search:semantic_documents"),
    ] {
        for field in [
            "worker_id",
            "version",
            "runtime",
            "env_profile",
            "constraints",
            "slo",
            "spiffe_id",
            "cost_tokens",
            "slo_bid",
            "controller_affinity",
        ] {
            assert_eq!(
                declared[beside].get(field),
                declared[named].get(field),
                "{beside}: {field}"
            );
        }
    }
    let named: usize = rows().iter().map(|row| row.capabilities.len()).sum();
    assert_eq!(declared.len(), named + 4, "{:?}", declared.keys());
}

#[test]
fn check_prints_the_seed_s_table() {
    let (code, out) = check(&[]);
    assert_eq!(code, 0, "{out}");
    let lines: Vec<&str> = out.lines().collect();
    assert_eq!(
        lines.last(),
        Some(&"All workers have complete metadata ✅"),
        "{out}"
    );
    let rows = lines.iter().filter_map(|line| line.strip_prefix("✅ "));
    let table: BTreeMap<&str, &str> = rows.filter_map(|row| row.split_once(": ")).collect();
    for (worker, tiers) in TIERS {
        assert_eq!(table.get(worker), Some(&tiers), "{worker}: {out}");
    }
    assert_eq!(table.len(), 10, "the nine and spam-detection: {out}");
    // They stand together, above the last line.
    let above = &lines[lines.len() - 11..lines.len() - 1];
    assert!(above.iter().all(|line| line.starts_with("✅ ")), "{out}");
}

#[test]
fn the_reference_quotes_what_hello_world_declares() {
    let page = std::fs::read_to_string(in_repository(
        "docs/examples/capability-metadata-reference.md",
    ))
    .unwrap();
    let block = |language: &str| {
        let (_, rest) = page.split_once(&format!("```{language}\n")).unwrap();
        rest.split_once("```").unwrap().0.to_owned()
    };
    let source = std::fs::read_to_string(in_repository("guests/hello-world/src/lib.rs")).unwrap();
    let quoted = block("rust");
    assert!(source.contains(&quoted), "{quoted}");

    let component = guest("hello-world");
    let (code, out, error) = output(&["check", component.to_str().unwrap(), "--json"]);
    assert_eq!(code, 0, "{error}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let quoted: Value = serde_json::from_str(&block("json")).unwrap();
    let declared = &report["workers"][0]["metadata"][0];
    assert_eq!(&quoted, declared);
    // The tiers' line, too.
    let (_, tiers) = TIERS[0];
    assert!(page.contains(&format!("✅ worker-hello-world: {tiers}\n")));
}

#[test]
fn the_guide_quotes_hello_world_as_it_is() {
    let page = std::fs::read_to_string(in_repository("docs/workers.md")).unwrap();
    let source = std::fs::read_to_string(in_repository("guests/hello-world/src/lib.rs")).unwrap();
    let quotes = page.split("In `guests/hello-world`:\n\n```rust\n").skip(1);
    let quotes: Vec<&str> = quotes
        .filter_map(|rest| Some(rest.split_once("```")?.0))
        .collect();
    // What comes in, what goes out, how it fails, the declaration, a test.
    assert_eq!(quotes.len(), 5);
    for quoted in quotes {
        assert!(source.contains(quoted), "{quoted}");
    }
}
