//! All cases at once, in a process of their own, since what a process holds can be told apart by nothing
//! else: nothing is left of them.

use std::path::Path;
use std::process::Command;
use std::time::Instant;

use futures_util::{StreamExt, stream};

use super::{Case, beside_a_neighbour, cases};
use crate::support::{ENGINE, INSTANCES, dir, guest, kib, run};

/// Cases at one time.
const AT_ONCE: usize = 4;
/// They take all the time that `declare` has: once is enough.
const SLOW: [&str; 4] = [
    "a_loop_in_declare",
    "a_loop_in_a_start_function",
    "a_loop_in_post_return_of_declare",
    "a_sleep_in_declare",
];

/// What the engine's stacks come to once a deep recursion was on each: they stay as touched.
const STACKS: u64 = INSTANCES as u64 * (512 << 10);

/// What this process holds.
#[derive(Debug)]
pub struct Held {
    /// Bytes of memory, but for what the engine keeps of ended instances, which its settings bound.
    pub resident: u64,
    pub files: usize,
    pub threads: usize,
    /// Files in the folder for temporary ones, the cache of code among them.
    pub on_disk: usize,
}

impl Held {
    pub fn now() -> Self {
        give_back_what_is_free();
        let kib = kib("/proc/self", "VmRSS");
        let pool = ENGINE.wasm().pooling_allocator_metrics();
        let pool = pool.expect("instances are pooled");
        let kept = pool.unused_memory_bytes_resident()
            + pool.unused_table_bytes_resident()
            + pool.unused_stack_bytes_resident().unwrap_or_default();
        let entries = |dir| std::fs::read_dir(dir).expect("procfs").count();
        Self {
            resident: (kib << 10).saturating_sub(kept as u64),
            files: entries("/proc/self/fd"),
            threads: entries("/proc/self/task"),
            on_disk: files_in(&std::env::temp_dir()),
        }
    }

    /// Holds that no more is held than before, but for `bytes` of memory.
    pub fn assert_no_more_than(&self, before: &Self, bytes: u64) {
        println!("before {before:?}\nafter  {self:?}");
        assert!(
            self.resident < before.resident + bytes,
            "{before:?} {self:?}"
        );
        assert!(self.files <= before.files, "{before:?} {self:?}");
        // Tokio's threads for blocking work come and go.
        assert!(self.threads <= before.threads + 4, "{before:?} {self:?}");
        assert!(self.on_disk <= before.on_disk, "{before:?} {self:?}");
    }
}

/// Whatever the allocator holds and nobody uses goes back to the kernel, from between what is used too:
/// what remains resident is in use.
#[expect(unsafe_code, reason = "only C offers it")]
fn give_back_what_is_free() {
    // SAFETY: it takes a number and touches nothing but what is free, under the allocator's locks.
    unsafe { libc::malloc_trim(0) };
}

fn files_in(dir: &Path) -> usize {
    let entries = std::fs::read_dir(dir).expect("it is readable");
    entries
        .map(|entry| entry.expect("an entry").path())
        .map(|path| 1 + if path.is_dir() { files_in(&path) } else { 0 })
        .sum()
}

/// Runs an ignored test in a process of its own, with folders of its own.
pub fn in_a_process_of_its_own(test: &str) {
    // Built here: compilers that run meanwhile would make every neighbour slow.
    for name in ["hello-world", "hostile"] {
        guest(name);
    }
    // What was compiled is kept, and is meant to be: not where files are counted.
    let (dir, code) = (dir(), dir());
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args([test, "--exact", "--ignored", "--nocapture"])
        .env("TMPDIR", dir.path())
        .env("CARGO_TARGET_TMPDIR", code.path())
        // Fewer heaps, fewer holes in them.
        .env("MALLOC_ARENA_MAX", "2")
        .output()
        .expect("it starts");
    // Why it failed comes before all that it did: reports are cut at their end.
    let [why, what] =
        [child.stderr, child.stdout].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    assert!(child.status.success(), "{why}{what}");
    assert!(what.contains("1 passed"), "the child ran nothing: {what}");
    println!("{what}");
}

#[test]
fn hostile_workers_disturb_no_neighbour_and_leave_nothing_behind() {
    in_a_process_of_its_own("hostile::together::all_at_once");
}

#[test]
#[ignore = "runs as a child of the test above"]
fn all_at_once() {
    run(async {
        // Twice: whatever is made once and kept (threads, pools, the allocator's own) is there then.
        for _ in 0..2 {
            round(cases().filter(|case| !SLOW.contains(&case.name))).await;
        }
        let before = Held::now();
        round(cases()).await;
        Held::now().assert_no_more_than(&before, (32 << 20) + STACKS);
    });
}

async fn round(cases: impl Iterator<Item = &'static Case>) {
    let began = Instant::now();
    stream::iter(cases)
        .for_each_concurrent(AT_ONCE, beside_a_neighbour)
        .await;
    println!("a round took {:?}", began.elapsed());
}
