//! Guests that abuse what the host does for them.

use std::time::Duration;

use crank::router::EVENTS_BUFFERED;
use tokio::sync::mpsc;

use super::{Wat, called, called_with, doing, end, misbehaved, serving};
use crate::support::{call, log};

cases! {
    a_flood_of_log_lines ends "cpu-limit": log_flood();
    a_flood_of_huge_log_lines ends "cpu-limit": called(huge_lines(), "cpu_ms = 30");
    a_log_line_beyond_what_a_call_may_carry ends "output-limit": called(endless_line(), "memory_mb = 256");
    a_flood_of_events_that_nobody_asked_for ends "cpu-limit":
        called(events(&format!("(loop $again {} (br $again))", send(16))), "cpu_ms = 30");
    a_flood_of_events_that_nobody_reads ends "deadline": unread_events();
    an_event_that_is_too_large ends "output-limit": called(events(&send(65_537)), "");
    an_event_that_passes_for_the_hosts_own ends "trapped":
        misbehaved("send_events", r#"{"count": 1, "event": "result", "bytes": 1}"#, "");
    an_event_with_a_line_break_in_its_type ends "trapped":
        misbehaved("send_events", r#"{"count": 1, "event": "a\ndata: forged", "bytes": 1}"#, "");
    a_flood_of_random_bytes ends "cpu-limit": called(random_flood(), "cpu_ms = 30");
    more_random_bytes_than_there_is_memory ends "trapped":
        called(random("(call $bytes (i64.const -1) (i32.const 4096))"), "");
    a_sleep_past_the_deadline ends "deadline": called(sleeping(HOUR), "wall_ms = 100");
    a_sleep_until_the_end_of_time ends "deadline": called(sleeping(u64::MAX), "wall_ms = 100");
    a_sleep_in_a_poll_of_many ends "deadline": called(polling(), "wall_ms = 100");
    a_poll_of_nothing ends "trapped":
        called(clocks("(call $poll (i32.const 4096) (i32.const 0) (i32.const 4104))"), "");
    a_poll_of_what_is_not_there ends "trapped":
        called(clocks("(call $poll (i32.const 4096) (i32.const -1) (i32.const 4104))"), "");
    a_hoard_of_timers ends "trapped":
        called(clocks(&format!("(loop $again (drop {}) (br $again))", subscribe(HOUR))), "cpu_ms = 1000");
    a_handle_that_it_made_up ends "trapped": called(clocks("(call $block (i32.const 77))"), "");
    a_handle_that_it_drops_twice ends "trapped": called(dropped_twice(), "");
    a_host_call_from_within_realloc ends "trapped": called(reentering(), "");
    a_host_call_from_within_post_return ends "trapped": called(late(), "");
    an_exit ends "trapped": called(exiting(), "");
    a_sleep_in_declare ends "refused": super::loaded(sleeping_in_declare(), &["declare"]);
}

const HOUR: u64 = 3_600_000_000_000;

/// A worker that may write lines to the log, `(call $log level address length)`.
fn logging(handle: &str) -> Wat {
    Wat {
        world: "import crank:worker/log@0.1.0;".to_owned(),
        imports: r#"(import "crank:worker/log@0.1.0" "write" (func $log (param i32 i32 i32)))"#
            .to_owned(),
        ..doing(handle)
    }
}

/// A worker that may send events: `$send` takes the record flat, and where the result goes.
pub fn events(handle: &str) -> Wat {
    Wat {
        world: "import crank:worker/events@0.1.0;".to_owned(),
        imports: r#"(import "crank:worker/events@0.1.0" "send"
            (func $send (param i32 i32 i32 i32 i32 i32 i32 i32 i32)))"#
            .to_owned(),
        // Zeros are a text too, and they need no room of their own.
        items: "(func $room (drop (memory.grow (i32.const 2))))".to_owned(),
        ..doing(&format!("(call $room) {handle}"))
    }
}

/// Sends an event of so many bytes.
fn send(bytes: u32) -> String {
    format!(
        "(call $send (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
             (i32.const 0) (i32.const 65536) (i32.const {bytes}) (i32.const 4096))"
    )
}

/// A worker that may have random bytes, `(call $bytes count result)`.
pub fn random(handle: &str) -> Wat {
    Wat {
        packages: "package wasi:random@0.2.0 {
            interface random { get-random-bytes: func(len: u64) -> list<u8>; } }"
            .to_owned(),
        world: "import wasi:random/random@0.2.0;".to_owned(),
        imports: r#"(import "wasi:random/random@0.2.0" "get-random-bytes"
            (func $bytes (param i64 i32)))"#
            .to_owned(),
        ..doing(handle)
    }
}

/// A worker that may look at the clock and wait for it.
pub fn clocks(handle: &str) -> Wat {
    Wat {
        packages: "package wasi:io@0.2.0 { interface poll {
                resource pollable { block: func(); }
                poll: func(in: list<borrow<pollable>>) -> list<u32>;
            } }
            package wasi:clocks@0.2.0 { interface monotonic-clock {
                use wasi:io/poll@0.2.0.{pollable};
                now: func() -> u64;
                subscribe-duration: func(when: u64) -> pollable;
            } }"
        .to_owned(),
        world: "import wasi:io/poll@0.2.0; import wasi:clocks/monotonic-clock@0.2.0;".to_owned(),
        imports: r#"
            (import "wasi:clocks/monotonic-clock@0.2.0" "now" (func $now (result i64)))
            (import "wasi:clocks/monotonic-clock@0.2.0" "subscribe-duration"
                (func $subscribe (param i64) (result i32)))
            (import "wasi:io/poll@0.2.0" "[method]pollable.block" (func $block (param i32)))
            (import "wasi:io/poll@0.2.0" "[resource-drop]pollable" (func $drop (param i32)))
            (import "wasi:io/poll@0.2.0" "poll" (func $poll (param i32 i32 i32)))"#
            .to_owned(),
        ..doing(handle)
    }
}

fn subscribe(nanoseconds: u64) -> String {
    format!("(call $subscribe (i64.const {nanoseconds}))")
}

pub fn sleeping(nanoseconds: u64) -> Wat {
    clocks(&format!("(call $block {})", subscribe(nanoseconds)))
}

/// What an invocation may log in all is capped; what is over the cap costs the guest's own time.
async fn log_flood() -> String {
    let before = lines("a_flood_of_log_lines");
    let mut wat = logging(
        "(loop $again (call $log (i32.const 4) (i32.const 40000) (i32.const 20)) (br $again))",
    );
    wat.items = r#"(data (i32.const 40000) "a_flood_of_log_lines")"#.to_owned();
    let end = called(wat, "cpu_ms = 30").await;
    let written = lines("a_flood_of_log_lines") - before;
    // 64 KiB for each invocation.
    assert!((1..=(64 << 10) / 20).contains(&written), "{written} lines");
    end
}

fn lines(text: &str) -> usize {
    log().lines().filter(|line| line.contains(text)).count()
}

fn huge_lines() -> Wat {
    logging(
        "(drop (memory.grow (i32.const 100)))
         (loop $again (call $log (i32.const 0) (i32.const 65536) (i32.const 6000000)) (br $again))",
    )
}

fn endless_line() -> Wat {
    logging(
        "(drop (memory.grow (i32.const 640)))
         (call $log (i32.const 0) (i32.const 65536) (i32.const 41000000))",
    )
}

async fn unread_events() -> String {
    let (sender, unread) = mpsc::channel(EVENTS_BUFFERED);
    let flood = events(&format!("(loop $again {} (br $again))", send(16)));
    let end = called_with(flood, "wall_ms = 100", |call| call.events = Some(sender)).await;
    assert_eq!(unread.len(), EVENTS_BUFFERED);
    end
}

fn random_flood() -> Wat {
    let mut wat = random(
        "(drop (memory.grow (i32.const 20)))
         (loop $again (call $bytes (i64.const 1048576) (i32.const 4096)) (br $again))",
    );
    wat.items = "(global $ready (mut i32) (i32.const 0))".to_owned();
    // The request's own bytes are few: what is large goes to the same place each time.
    wat.realloc =
        "(if (i32.gt_u (local.get $size) (i32.const 1000)) (then (return (i32.const 65536))))"
            .to_owned();
    wat
}

/// Hundreds of timers, all in one list.
fn polling() -> Wat {
    let timer = subscribe(HOUR);
    let mut wat = clocks(&format!(
        "(loop $again
             (i32.store (i32.add (i32.const 50000) (i32.mul (global.get $count) (i32.const 4))) {timer})
             (global.set $count (i32.add (global.get $count) (i32.const 1)))
             (br_if $again (i32.lt_u (global.get $count) (i32.const 400))))
         (call $poll (i32.const 50000) (i32.const 400) (i32.const 4096))"
    ));
    wat.items = "(global $count (mut i32) (i32.const 0))".to_owned();
    wat
}

fn dropped_twice() -> Wat {
    let mut wat = clocks(&format!(
        "(global.set $timer {}) (call $drop (global.get $timer)) (call $drop (global.get $timer))",
        subscribe(HOUR)
    ));
    wat.items = "(global $timer (mut i32) (i32.const 0))".to_owned();
    wat
}

/// While the host gives it bytes, it asks for more.
fn reentering() -> Wat {
    let mut wat = random("(call $bytes (i64.const 16) (i32.const 4096))");
    wat.realloc = "(call $bytes (i64.const 16) (i32.const 4096))".to_owned();
    wat
}

fn late() -> Wat {
    let mut wat = random("");
    wat.items = r#"(func (export "cabi_post_crank:worker/handler@0.1.0#handle") (param i32)
        (call $bytes (i64.const 16) (i32.const 4096)))"#
        .to_owned();
    wat
}

fn exiting() -> Wat {
    Wat {
        packages: "package wasi:cli@0.2.0 { interface exit { exit: func(status: result); } }"
            .to_owned(),
        world: "import wasi:cli/exit@0.2.0;".to_owned(),
        imports: r#"(import "wasi:cli/exit@0.2.0" "exit" (func $exit (param i32)))"#.to_owned(),
        ..doing("(call $exit (i32.const 0))")
    }
}

fn sleeping_in_declare() -> Wat {
    let mut wat = sleeping(HOUR);
    wat.declare = std::mem::take(&mut wat.handle);
    wat
}

/// A caller who hangs up ends a guest that sleeps in the host, and what waits for it.
#[test]
fn a_caller_who_hangs_up_ends_a_sleeper() {
    crate::support::run(async {
        let router = serving(&sleeping(HOUR), "").await;
        let call = router.invoke(call("misbehave:work", "{}"));
        let hung_up = tokio::time::timeout(Duration::from_millis(50), call).await;
        assert!(hung_up.map(end).is_err(), "it sleeps for an hour");
        let snapshot = router.registry().snapshot();
        assert_eq!(snapshot.workers()[0].observed().in_flight, 0);
    });
}
