//! Guests that leave something for the next: the next finds nothing.
//!
//! The pool keeps pages and tables of an instance that has ended for the next one. So each of these
//! guests first looks at every byte that it has, answers `not-found` if there is a trace, then soils it
//! all and ends in one way or another. Which one, the input says by its length.

use std::sync::Arc;
use std::time::Duration;

use crank::error::Code;
use crank::router::Router;
use futures_util::{StreamExt, stream};

use super::{Wat, beside, called, doing, returning, run_beside, serving};
use crate::support::{call, run};

cases! {
    what_memory_held ends "answered": rounds(memory());
    what_a_grown_memory_held ends "answered": rounds(grown());
    what_a_data_segment_became ends "answered": rounds(segment());
    what_globals_and_tables_held ends "answered": rounds(slots());
    what_the_stack_held ends "answered": rounds(stack());
    a_timer_that_another_invocation_made ends "trapped": called(foreign_handle(), "");
}

/// Ways to end, by the length of the input: it answers, it traps, it takes too much memory, its time is
/// up, its caller hangs up.
const ENDS: [(&str, Option<Code>); 5] = [
    ("1", None),
    ("11", Some(Code::Trapped)),
    ("111", Some(Code::MemoryLimit)),
    ("1111", Some(Code::Deadline)),
    ("11111", None),
];
/// To look at everything and to soil it.
const LONG_ENOUGH: Duration = Duration::from_millis(60);
const ENDING: &str = "(if (i32.eq (local.get 7) (i32.const 2)) (then (unreachable)))
    (if (i32.eq (local.get 7) (i32.const 3)) (then (drop (memory.grow (i32.const 60000)))))
    (if (i32.gt_u (local.get 7) (i32.const 3)) (then (loop $again (br $again))))";

/// What a guest answers that finds a trace.
fn found() -> String {
    returning(1, &[1])
}

/// Invocations of one case at one time: each has two memories, and the tests' pool has 64.
const AT_ONCE: usize = 4;

/// Many invocations at once and one after another, so that each slot of the pool is used again.
async fn rounds(wat: Wat) -> String {
    let router = serving(&wat, "memory_mb = 64").await;
    let turns = ENDS.iter().chain(&ENDS[..3]).cycle().take(48);
    stream::iter(turns)
        .for_each_concurrent(AT_ONCE, |(input, expected)| {
            let task = tokio::spawn(round(router.clone(), input, *expected));
            async { task.await.expect("no trace of another") }
        })
        .await;
    "answered".to_owned()
}

async fn round(router: Arc<Router>, input: &str, expected: Option<Code>) {
    let mut call = call("misbehave:work", input);
    if expected == Some(Code::Deadline) {
        call.timeout = Some(LONG_ENOUGH);
    }
    let running = router.invoke(call);
    if input.len() == 5 {
        let hung_up = tokio::time::timeout(LONG_ENOUGH, running).await;
        assert!(hung_up.is_err(), "{hung_up:?}");
        return;
    }
    let ended = running.await.err().map(|failure| failure.code);
    assert_eq!(ended, expected, "input {input}");
}

/// A worker whose second module has the fields that are looked at, and a `$run` that answers 1 if it
/// found a trace.
fn looking(fields: &str, run: &str) -> Wat {
    let mut wat = doing(&format!(
        "(if {} (then {})) {ENDING}",
        run_beside(0, 0),
        found()
    ));
    beside(
        &mut wat,
        &[format!(
            "{fields} (func $run (param i32) (result i32) (local i32 i64) {run} (i32.const 0))"
        )],
    );
    wat
}

/// Looks at so many bytes from an address on, of which each word must be `expected`, then soils them.
fn look(from: u32, bytes: u32, expected: u64) -> String {
    let end = from + bytes;
    format!(
        "(local.set 1 (i32.const {from}))
         (loop $again
             (if (i64.ne (i64.load (local.get 1)) (i64.const {expected})) (then (return (i32.const 1))))
             (local.set 1 (i32.add (local.get 1) (i32.const 8)))
             (br_if $again (i32.lt_u (local.get 1) (i32.const {end}))))
         (memory.fill (i32.const {from}) (i32.const 170) (i32.const {bytes}))"
    )
}

const MIB: u32 = 1 << 20;

/// Eight MiB: more than the one that the pool zeroes by hand and keeps.
fn memory() -> Wat {
    looking("(memory 128)", &look(0, 8 * MIB, 0))
}

fn grown() -> Wat {
    let grow = "(drop (memory.grow (i32.const 64)))";
    looking("(memory 16)", &format!("{grow} {}", look(0, 5 * MIB, 0)))
}

/// A segment that every instance begins with, in the middle of zeros; its memory is a mapping of the
/// same file for all of them.
fn segment() -> Wat {
    let text = "x".repeat(MIB as usize);
    let expected = u64::from_le_bytes([b'x'; 8]);
    looking(
        &format!("(memory 64) (data (i32.const {MIB}) \"{text}\")"),
        &(look(0, MIB, 0) + &look(MIB, MIB, expected) + &look(2 * MIB, 2 * MIB, 0)),
    )
}

/// Globals, elements of a table that has them from the start and of one that grew, and what is left of
/// segments that were dropped.
fn slots() -> Wat {
    looking(
        r#"(memory 1) (data $bytes "abcd")
           (global $small (mut i32) (i32.const 7)) (global $large (mut f64) (f64.const 0.5))
           (table $own 5000 funcref) (table $grown 10 funcref) (elem declare func $run)
           (elem $part func $run $run)"#,
        "(if (i32.ne (global.get $small) (i32.const 7)) (then (return (i32.const 1))))
         (if (f64.ne (global.get $large) (f64.const 0.5)) (then (return (i32.const 1))))
         (global.set $small (i32.const 8)) (global.set $large (f64.const 8))
         (if (i32.ne (table.grow $grown (ref.null func) (i32.const 5000)) (i32.const 10))
             (then (return (i32.const 1))))
         (loop $again
             (if (i32.eqz (ref.is_null (table.get $own (local.get 1)))) (then (return (i32.const 1))))
             (if (i32.eqz (ref.is_null (table.get $grown (local.get 1)))) (then (return (i32.const 1))))
             (table.set $own (local.get 1) (ref.func $run))
             (table.set $grown (local.get 1) (ref.func $run))
             (local.set 1 (i32.add (local.get 1) (i32.const 1)))
             (br_if $again (i32.lt_u (local.get 1) (i32.const 5000))))
         (memory.init $bytes (i32.const 0) (i32.const 0) (i32.const 4))
         (table.init $own $part (i32.const 0) (i32.const 0) (i32.const 2))
         (data.drop $bytes) (elem.drop $part)",
    )
}

/// Locals are zero, whatever the stack's pages held: WebAssembly has no way to look at them otherwise.
fn stack() -> Wat {
    let locals = "i64 ".repeat(1000);
    let look: String = (1..1000)
        .map(|local| {
            format!("(if (i64.ne (local.get {local}) (i64.const 0)) (then (return (i32.const 1))))")
        })
        .collect();
    let soil: String = (1..1000)
        .map(|local| format!("(local.set {local} (i64.load (i32.const {})))", local * 8))
        .collect();
    let keep: String = (1..1000)
        .map(|local| format!("(i64.store (i32.const {}) (local.get {local}))", local * 8))
        .collect();
    looking(
        &format!(
            "(memory 1) (func $deep (param i32) (result i32) (local {locals})
                 {look} (memory.fill (i32.const 0) (i32.const 170) (i32.const 8192)) {soil}
                 (if (local.get 0) (then (return (call $deep (i32.sub (local.get 0) (i32.const 1))))))
                 {keep} (i32.const 0))"
        ),
        "(return (call $deep (i32.const 4)))",
    )
}

/// The first invocation's handles mean nothing to the second, though the table begins at the same index.
fn foreign_handle() -> Wat {
    super::calls::clocks("(call $block (i32.const 1))")
}

/// Who looks a second time finds what it left itself: the others look in the right places.
#[test]
fn a_guest_that_looks_twice_finds_itself() {
    run(async {
        for mut wat in [memory(), grown(), segment(), slots()] {
            let look = format!("(drop {})", run_beside(0, 0));
            wat.handle.insert_str(0, &look);
            assert_eq!(called(wat, "memory_mb = 64").await, "not-found");
        }
    });
}
