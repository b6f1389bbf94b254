//! Guests that never end, wherever the host lets them run.

use tokio::sync::mpsc;

use super::{Wat, beside, called, called_with, doing, honest, loaded, misbehaved, run_beside};

const FOREVER: &str = "(loop $again (br $again))";
/// Two seconds of CPU time; on a busy machine the ten seconds of wall time may come first.
const IN_DECLARE: &[&str] = &["`declare` failed", "CPU time|in time"];

cases! {
    a_tight_loop ends "deadline": called(doing(FOREVER), "wall_ms = 100");
    a_tight_loop_that_has_time_and_no_cpu ends "cpu-limit": called(doing(FOREVER), "cpu_ms = 30");
    a_loop_of_compiled_rust ends "cpu-limit": misbehaved("loop_forever", "{}", "cpu_ms = 30");
    a_loop_of_tail_calls ends "deadline": called(tail_calls(), "wall_ms = 100");
    a_loop_of_host_calls ends "cpu-limit": called(host_calls(), "cpu_ms = 30");
    a_loop_of_bulk_operations ends "cpu-limit": called(bulk(), "cpu_ms = 30");
    a_loop_in_another_module ends "deadline": called(elsewhere(), "wall_ms = 100");
    a_loop_in_declare ends "refused": loaded(in_declare(), IN_DECLARE);
    a_loop_in_a_start_function ends "refused": loaded(in_start(), IN_DECLARE);
    a_loop_in_a_start_function_that_knows_when ends "deadline":
        called_with(in_start_of_a_call(), "wall_ms = 100", |call| {
            // A caller who does not listen: by that the guest tells a call from `declare`.
            call.events = Some(mpsc::channel(1).0);
        });
    a_loop_in_realloc ends "deadline": called(in_realloc(), "wall_ms = 100");
    a_loop_in_realloc_for_a_host_calls_result ends "deadline":
        called(in_realloc_of_a_result(), "wall_ms = 100");
    a_loop_in_post_return ends "deadline": called(in_post_return("handler@0.1.0#handle"), "wall_ms = 100");
    a_loop_in_post_return_of_declare ends "refused":
        loaded(in_post_return("capabilities@0.1.0#declare"), IN_DECLARE);
}

fn tail_calls() -> Wat {
    Wat {
        items: "(func $forever (return_call $forever))".to_owned(),
        ..doing("(call $forever)")
    }
}

fn host_calls() -> Wat {
    super::calls::clocks("(loop $again (drop (call $now)) (br $again))")
}

/// What the host does for one instruction cannot be interrupted: it must be short.
fn bulk() -> Wat {
    doing(
        "(drop (memory.grow (i32.const 3000)))
         (loop $again
             (memory.fill (i32.const 65536) (i32.const 1) (i32.const 190000000))
             (br $again))",
    )
}

fn elsewhere() -> Wat {
    let mut wat = doing(&format!("(drop {})", run_beside(0, 0)));
    let forever = format!("(func $run (param i32) (result i32) {FOREVER} (i32.const 0))");
    beside(&mut wat, &[forever]);
    wat
}

fn in_declare() -> Wat {
    Wat {
        declare: FOREVER.to_owned(),
        ..honest()
    }
}

fn in_start() -> Wat {
    Wat {
        items: format!("(func $start {FOREVER}) (start $start)"),
        ..honest()
    }
}

/// Its start function sends an event and loops if nobody hears it. At load nobody asked for events, and
/// sending succeeds.
fn in_start_of_a_call() -> Wat {
    let mut wat = super::calls::events("");
    let send = "(call $send (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
                    (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 4096))";
    wat.items += &format!(
        r#"(func (export "start") {send} (if (i32.load8_u (i32.const 4096)) (then {FOREVER})))"#
    );
    wat.component = r#"
        (alias core export $main "start" (core func $start))
        (core instance $late (export "start" (func $start)))
        (core module $starter (import "main" "start" (func $start)) (start $start))
        (core instance (instantiate $starter (with "main" (instance $late))))"#
        .to_owned();
    wat
}

fn in_realloc() -> Wat {
    Wat {
        realloc: FOREVER.to_owned(),
        ..honest()
    }
}

/// The request arrives; bytes that the guest asks for do not.
fn in_realloc_of_a_result() -> Wat {
    let mut wat = super::calls::random(
        "(global.set $trap_door (i32.const 1)) (call $bytes (i64.const 16) (i32.const 4096))",
    );
    wat.items = "(global $trap_door (mut i32) (i32.const 0))".to_owned();
    wat.realloc = format!("(if (global.get $trap_door) (then {FOREVER}))");
    wat
}

fn in_post_return(function: &str) -> Wat {
    let mut wat = honest();
    wat.items =
        format!(r#"(func (export "cabi_post_crank:worker/{function}") (param i32) {FOREVER})"#);
    wat
}
