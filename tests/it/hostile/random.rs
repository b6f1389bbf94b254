//! Random modules: whatever they do, it has a name, and the host goes on.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use futures_util::{StreamExt, stream};
use serde_json::json;

use super::{Wat, end, honest};
use crate::support::{call, dir, done, guest, invoke, load, place, router, run};

/// Seeds, always the same: a failure can be repeated.
const SEEDS: u64 = 200;
/// Far above what one takes, far below what "hangs" means.
const SOON: Duration = Duration::from_secs(20);

/// A worker that calls a random module's function, or has it called when it is instantiated.
fn around(module: &[u8], at_start: bool) -> Wat {
    let text = wasmprinter::print_bytes(module).expect("a module prints");
    let fields = text.strip_prefix("(module").expect("a module");
    let mut wat = honest();
    let call = "(call_indirect (type $run) (i32.const 0))";
    if !at_start {
        wat.handle = call.to_owned();
    }
    wat.items = r#"(type $run (func)) (table (export "run") 1 funcref)"#.to_owned();
    let start = if at_start { "(start $run)" } else { "" };
    wat.component = format!(
        r#"(core module $random {fields}
           (core instance $random (instantiate $random))
           (alias core export $main "run" (core table $run))
           (core instance $env (export "run" (table $run)))
           (core module $link
               (import "env" "run" (table 1 funcref)) (import "random" "run" (func $run))
               (elem (i32.const 0) func $run) {start})
           (core instance (instantiate $link
               (with "env" (instance $env)) (with "random" (instance $random))))"#
    );
    wat
}

#[test]
fn random_modules_end_one_way_or_another_and_the_host_goes_on() {
    let guests = ["hello-world", "random-module"].map(guest);
    run(async {
        let maker = router(guests.into(), "").await;
        let ends: Vec<String> = stream::iter(0..SEEDS)
            .map(|seed| {
                let maker = maker.clone();
                tokio::spawn(async move {
                    // From small to large.
                    let input = json!({ "seed": seed, "bytes": 1024 << (seed % 6) }).to_string();
                    let module = invoke(&maker, "make:random_module", &input).await;
                    let module = module.expect("a module").payload.body;
                    let began = Instant::now();
                    // Rarely at the start: one that loops there takes the two seconds of `declare`.
                    let end = lived(&around(&module, seed % 40 == 0)).await;
                    assert!(began.elapsed() < SOON, "seed {seed}: {:?}", began.elapsed());
                    let answer = done(&maker, "greet:hello_world", r#"{"name": "Ada"}"#).await;
                    assert_eq!(answer["greeting"], "Hello, Ada!");
                    end
                })
            })
            .buffer_unordered(8)
            .map(|ended| ended.expect("no panic"))
            .collect()
            .await;
        let mut counted: BTreeMap<String, usize> = BTreeMap::new();
        for end in ends {
            *counted.entry(end).or_default() += 1;
        }
        println!("{counted:?}");
        let refused = counted.get("refused").copied().unwrap_or_default();
        assert!(refused < SEEDS as usize / 4, "few were run: {counted:?}");
        assert!(counted.len() >= 4, "all alike: {counted:?}");
        assert!(!counted.contains_key("internal"), "{counted:?}");
    });
}

/// How it ends: `refused`, or how its call ends.
async fn lived(wat: &Wat) -> String {
    let dir = dir();
    let snapshot = load(
        vec![place(&dir, "wat", &wat.build())],
        "[workers.wat]\nmemory_mb = 64\ncpu_ms = 20",
    )
    .await;
    if !snapshot.refused().is_empty() {
        return "refused".to_owned();
    }
    let router = crank::router::Router::new(crank::registry::Registry::new(snapshot));
    end(router.invoke(call("misbehave:work", "{}")).await)
}
