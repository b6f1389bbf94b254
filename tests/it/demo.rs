//! `crank demo`, as a newcomer runs it: every worker has its line.

use std::path::Path;

use crate::cli::{crank, told};

const WORKERS: [&str; 10] = [
    "worker-document-conversion",
    "worker-email-classifier",
    "worker-hello-world",
    "worker-image-classifier",
    "worker-semantic-search",
    "worker-spam-detection",
    "worker-streaming",
    "worker-zettel-link-analysis",
    "worker-zettel-retrieval",
    "worker-zettel-storage",
];

/// What a machine may lack, and a worker is then refused for.
const PLACEMENT: [&str; 2] = ["min_memory_mb", "gpu_"];

#[test]
fn the_demo_ends_with_a_line_for_each_worker() {
    let repository = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut demo = crank(&["demo", "--once"]);
    // The private compiler for guests lies in the user's cache.
    demo.current_dir(repository).env_remove("CRANK_CACHE_DIR");
    let (code, out, error) = told(&demo.output().unwrap());
    assert_eq!(code, 0, "{out}{error}");
    let rows: Vec<&str> = out
        .lines()
        .filter(|line| line.starts_with(['✅', '➖', '❌']))
        .collect();
    assert_eq!(rows.len(), WORKERS.len(), "{out}");
    for worker in WORKERS {
        let row = rows
            .iter()
            .find(|row| row.split(' ').nth(1) == Some(worker));
        let row = row.unwrap_or_else(|| panic!("no line for {worker}: {out}"));
        let served = row.starts_with('✅') && row.contains(" call");
        let placed_elsewhere =
            row.starts_with('➖') && PLACEMENT.iter().any(|name| row.contains(name));
        assert!(served || placed_elsewhere, "{row}");
    }
    assert!(
        rows.iter()
            .any(|row| row.starts_with("✅ worker-hello-world")),
        "{out}"
    );
}
