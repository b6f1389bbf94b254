//! What state costs: a bucket of the host's, the embedded store that it is built on without the host, and a map
//! behind a lock, which keeps nothing. Values of 256 bytes under 1,000 keys; a write is over when it is on the
//! disk. One run, so that the ratios hold whatever the machine.
//!
//!     cargo bench --bench state

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use common::Random;
use crank::state::State;
use criterion::{Criterion, criterion_group, criterion_main};
use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};
use tokio::runtime::Runtime;

const KEYS: usize = 1000;
const VALUE: [u8; 256] = [7; 256];
const TABLE: TableDefinition<&str, &[u8]> = TableDefinition::new("entries");
const NUMBERS: TableDefinition<&str, i64> = TableDefinition::new("numbers");

/// Keys in no order, the same ones for each row.
fn keys() -> impl FnMut() -> String {
    let mut random = Random(1);
    move || format!("key-{}", (random.unit() * KEYS as f64) as usize)
}

fn map(c: &mut Criterion) {
    let map = Mutex::new(HashMap::new());
    let numbers = Mutex::new(HashMap::new());
    let lock = || map.lock().expect("nobody panics");
    lock().extend((0..=KEYS).map(|at| (format!("key-{at}"), VALUE.to_vec())));
    let mut key = keys();
    c.bench_function("state/get/a map", |b| {
        b.iter(|| lock().get(&key()).cloned())
    });
    let mut key = keys();
    c.bench_function("state/set/a map", |b| {
        b.iter(|| lock().insert(key(), VALUE.to_vec()));
    });
    c.bench_function("state/increment/a map", |b| {
        b.iter(|| {
            *numbers
                .lock()
                .expect("nobody panics")
                .entry("number")
                .and_modify(|n| *n += 1)
                .or_insert(1)
        });
    });
}

fn bare(c: &mut Criterion) {
    // Where a build is, not in memory: a flush is to cost what it costs.
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let database = Database::create(dir.path().join("bare.redb")).expect("a database");
    let write = |key: &str| {
        let transaction = database.begin_write().expect("a turn");
        let mut table = transaction.open_table(TABLE).expect("a table");
        table.insert(key, VALUE.as_slice()).expect("room");
        drop(table);
        transaction.commit().expect("a disk");
    };
    write("key-0");
    let mut key = keys();
    c.bench_function("state/set/bare redb", |b| b.iter(|| write(&key())));
    let mut key = keys();
    c.bench_function("state/get/bare redb", |b| {
        b.iter(|| {
            let transaction = database.begin_read().expect("a view");
            let table = transaction.open_table(TABLE).expect("a table");
            let value = table.get(key().as_str()).expect("a disk");
            value.map(|value| value.value().to_vec())
        });
    });
    c.bench_function("state/increment/bare redb", |b| {
        b.iter(|| {
            let transaction = database.begin_write().expect("a turn");
            let mut table = transaction.open_table(NUMBERS).expect("a table");
            let before = table
                .get("number")
                .expect("a disk")
                .map_or(0, |n| n.value());
            table.insert("number", before + 1).expect("room");
            drop(table);
            transaction.commit().expect("a disk");
        });
    });
}

fn crank(c: &mut Criterion) {
    let runtime = Runtime::new().expect("a runtime");
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).expect("a directory");
    let state = Arc::new(State::at(dir.path().to_owned()));
    let bucket = state.bucket("bench", Some(1 << 30));
    let bucket = &bucket;
    let mut key = keys();
    c.bench_function("state/set/crank", |b| {
        b.to_async(&runtime).iter_batched(
            || (key(), VALUE.to_vec()),
            |(key, value)| async move { bucket.set(key, value).await.expect("a disk") },
            criterion::BatchSize::SmallInput,
        );
    });
    let mut key = keys();
    c.bench_function("state/get/crank", |b| {
        b.to_async(&runtime).iter_batched(
            &mut key,
            |key| async move { bucket.get(key).await.expect("a disk") },
            criterion::BatchSize::SmallInput,
        );
    });
    c.bench_function("state/increment/crank", |b| {
        b.to_async(&runtime).iter(|| async {
            bucket
                .increment("number".to_owned(), 1)
                .await
                .expect("a disk")
        });
    });
    // What writes at once share.
    c.bench_function("state/set/crank, 16 at once", |b| {
        b.to_async(&runtime).iter(|| async {
            let sets = (0..16).map(|at| bucket.set(format!("key-{at}"), VALUE.to_vec()));
            futures_util::future::try_join_all(sets)
                .await
                .expect("a disk")
        });
    });
    runtime.block_on(state.close());
}

criterion_group! {
    name = benches;
    config = Criterion::default().sample_size(30);
    targets = map, bare, crank
}
criterion_main!(benches);
