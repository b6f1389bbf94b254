//! Guests that want all memory there is, and guests that lie about theirs.

use serde_json::json;

use super::{Wat, beside, called, called_with, doing, honest, loaded, misbehaved, run_beside};

cases! {
    a_page_at_a_time_forever ends "memory-limit": called(growing(1), "memory_mb = 16");
    a_grow_that_the_guest_shrugs_off ends "memory-limit": called(shrugging(), "memory_mb = 16");
    an_allocator_that_dies_of_the_refusal ends "memory-limit":
        misbehaved("take_memory", r#"{"mb": 4000000}"#, "");
    three_memories_at_once ends "memory-limit": called(three_memories(), "memory_mb = 64");
    a_memory_that_is_too_large_from_the_start ends "memory-limit":
        called(with_module("(memory 400)"), "memory_mb = 16");
    a_memory_of_four_gigabytes ends "refused":
        loaded(with_module("(memory 65536)"), &["declare", "memory-limit"]);
    tables_that_are_too_large_together ends "memory-limit": called(tables(), "memory_mb = 1");
    a_table_that_grows_forever ends "answered": called(growing_table(), "");
    a_table_of_65535_elements ends "refused": loaded(with_module("(table 65535 funcref)"), &["20000"]);
    a_segment_of_65535_elements ends "trapped": called(elements(), "");
    a_data_segment_of_megabytes ends "memory-limit": called(segment(80, 0), "memory_mb = 2");
    a_data_segment_outside_of_its_memory ends "refused": loaded(segment(1, 65_536), &["declare", "trapped"]);
    a_fifth_memory ends "refused": loaded(many("(memory 1)", 4), &["memories"]);
    a_ninth_table ends "refused":
        loaded(many("(table 1 funcref) (table 1 funcref) (table 1 funcref)", 3), &["tables"]);
    a_seventeenth_module ends "refused": loaded(many("", 16), &["instances"]);
    an_access_behind_the_memory ends "trapped":
        called(doing("(drop (i32.load offset=4294967292 (i32.const -4)))"), "");
    a_fill_behind_the_memory ends "trapped":
        called(doing("(memory.fill (i32.const 0) (i32.const 1) (i32.const -1))"), "");
    a_realloc_that_points_behind_the_memory ends "trapped": called(realloc("(return (i32.const -16))"), "");
    a_realloc_that_has_less_room_than_it_says ends "trapped":
        called(realloc("(return (i32.sub (i32.mul (memory.size) (i32.const 65536)) (i32.const 1)))"), "");
    a_realloc_that_is_not_aligned ends "trapped":
        called_with(realloc("(return (i32.const 40001))"), "", |call| {
            // A list of pairs: what is aligned to four bytes.
            call.traceparent = Some("00-0-0-00".to_owned());
        });
    a_realloc_that_gives_the_same_place_twice ends "answered":
        called(realloc("(return (i32.const 40000))"), "");
    a_realloc_that_takes_all_memory ends "memory-limit":
        called(realloc("(loop $again (drop (memory.grow (i32.const 1))) (br $again))"), "memory_mb = 16");
    a_realloc_that_traps ends "trapped": called(realloc("(unreachable)"), "");
}

fn growing(pages: u32) -> Wat {
    doing(&format!(
        "(loop $again (drop (memory.grow (i32.const {pages}))) (br $again))"
    ))
}

/// Asks once for more than there is, and answers as if nothing had been.
fn shrugging() -> Wat {
    doing("(drop (memory.grow (i32.const 60000)))")
}

fn three_memories() -> Wat {
    let grow: String = (0..3)
        .map(|slot| format!("(drop {})", run_beside(slot, 1)))
        .collect();
    let mut wat = doing(&format!("(loop $again {grow} (br $again))"));
    let memory = "(memory 1)
        (func $run (param i32) (result i32) (memory.grow (local.get 0)))";
    beside(&mut wat, &[memory; 3].map(str::to_owned));
    wat
}

/// A worker with one more module, which is instantiated.
fn with_module(fields: &str) -> Wat {
    many(fields, 1)
}

fn many(fields: &str, count: usize) -> Wat {
    let instance = "(core instance (instantiate $more))".repeat(count);
    Wat {
        component: format!("(core module $more {fields}) {instance}"),
        ..honest()
    }
}

/// Seven tables of 19,000 elements, 8 bytes each, are more than 1 MiB less a page.
fn tables() -> Wat {
    let table = "(table 19000 funcref)";
    let mut wat = honest();
    wat.component = format!(
        "(core module $four {}) (core instance (instantiate $four))
         (core module $three {}) (core instance (instantiate $three))",
        table.repeat(4),
        table.repeat(3)
    );
    wat
}

/// A table ends where the pool's room for it ends, far below any limit.
fn growing_table() -> Wat {
    Wat {
        items: "(table $t 0 funcref)".to_owned(),
        ..doing(
            "(loop $again
                 (br_if $again (i32.ge_s
                     (table.grow $t (ref.null func) (i32.const 100)) (i32.const 0))))
             (if (i32.gt_u (table.size $t) (i32.const 20000)) (then (unreachable)))",
        )
    }
}

fn elements() -> Wat {
    let listed = "$f ".repeat(65_535);
    Wat {
        items: format!("(table $t 20000 funcref) (func $f) (elem $e func {listed})"),
        ..doing("(table.init $t $e (i32.const 0) (i32.const 0) (i32.const 65535))")
    }
}

/// A segment of so many times 64 KiB behind `at`, in a memory of as many pages.
fn segment(pages: usize, at: usize) -> Wat {
    let text = "x".repeat(pages << 16);
    with_module(&format!(
        "(memory {pages}) (data (i32.const {at}) \"{text}\")"
    ))
}

fn realloc(instructions: &str) -> Wat {
    let mut wat = honest();
    wat.realloc = instructions.to_owned();
    // What it is given is of no use to it.
    wat.answer = json!({ "ok": { "media-type": "application/json", "body": "{}" } });
    wat
}
