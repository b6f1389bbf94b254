//! Guests that dig: none reaches the host's own stack.

use super::{Wat, called, doing, misbehaved};

cases! {
    a_recursion ends "trapped": called(recursion(), "");
    a_recursion_of_compiled_rust ends "trapped":
        misbehaved("recurse", r#"{"count": 4000000000}"#, "");
    a_recursion_through_a_table ends "trapped": called(through_a_table(), "");
    a_recursion_of_large_frames ends "trapped": called(large_frames(), "");
    a_recursion_in_realloc ends "trapped": called(in_realloc(), "");
    a_recursion_that_calls_the_host_at_each_depth ends "trapped": called(at_the_brink(), "");
}

fn recursion() -> Wat {
    Wat {
        items: "(func $down (param i64) (call $down (i64.add (local.get 0) (i64.const 1))))"
            .to_owned(),
        ..doing("(call $down (i64.const 0))")
    }
}

fn through_a_table() -> Wat {
    Wat {
        items:
            "(type $step (func (param i32)))
            (table 2 funcref) (elem (i32.const 0) $even $odd)
            (func $even (type $step) (call_indirect (type $step) (i32.const 0) (i32.const 1)) (nop))
            (func $odd (type $step) (call_indirect (type $step) (i32.const 0) (i32.const 0)) (nop))"
                .to_owned(),
        ..doing("(call $even (i32.const 0))")
    }
}

/// Twenty thousand values that are alive over the call: each frame takes a good part of the stack.
fn large_frames() -> Wat {
    let locals = "(local ".to_owned() + &"i64 ".repeat(20_000) + ")";
    let set: String = (1..20_000)
        .map(|local| format!("(local.set {local} (i64.load (i32.const {})))", local % 64))
        .collect();
    let add: String = (1..20_000)
        .map(|local| format!("(i64.add (local.get {local}))"))
        .collect();
    Wat {
        items: format!(
            "(func $down (param i64) (result i64) {locals} {set}
                 (call $down (i64.const 1)) {add})"
        ),
        ..doing("(drop (call $down (i64.const 0)))")
    }
}

fn in_realloc() -> Wat {
    Wat {
        realloc:
            "(return (call $realloc (local.get $old) (local.get $old_size) (local.get $align) \
                  (i32.add (local.get $size) (i32.const 1))))"
                .to_owned(),
        ..doing("")
    }
}

/// However little is left of the guest's stack, a host function has its own room.
fn at_the_brink() -> Wat {
    let mut wat = super::calls::random("(call $down)");
    wat.items =
        "(func $down (call $bytes (i64.const 8) (i32.const 4096)) (call $down) (nop))".to_owned();
    // Where the bytes go does not matter.
    wat.realloc = "(return (i32.const 40000))".to_owned();
    wat
}
