//! Workers that mean harm: however one goes about it, it ends with its own failure code, and the host
//! and its neighbours go on.
//!
//! Each case is a test of its own; all of them together run once more in a process of their own, where
//! nothing may be left of them. `docs/security.md` has a row for each case.

use std::fmt::Debug;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::error::Failure;
use crank::router::{Answer, Call, Router};
use serde_json::json;
use tokio::sync::OnceCell;

use crate::support::component::{Wat, capability};
use crate::support::{call, dir, done, guest, load, place, router, run};

/// Tests of the cases of one file, and the list of them.
macro_rules! cases {
    ($($name:ident ends $end:literal: $act:expr;)+) => {
        pub const CASES: &[super::Case] = &[$(super::Case {
            name: stringify!($name),
            end: $end,
            act: || Box::pin(async { $act.await }),
        }),+];
        $(#[test]
        fn $name() {
            super::alone(CASES, stringify!($name));
        })+
    };
}

mod calls;
mod deaths;
mod limits;
mod loops;
mod memory;
mod metadata;
mod output;
mod random;
mod stack;
mod state;
mod together;

/// A misdeed, how it must end, and how to do it.
struct Case {
    name: &'static str,
    /// A failure code, `answered`, or `refused` at load.
    end: &'static str,
    /// Answers how it ended.
    act: fn() -> Act,
}

type Act = Pin<Box<dyn Future<Output = String> + Send>>;

/// Every case of the suite.
fn cases() -> impl Iterator<Item = &'static Case> {
    [
        loops::CASES,
        memory::CASES,
        stack::CASES,
        output::CASES,
        calls::CASES,
        metadata::CASES,
        state::CASES,
    ]
    .into_iter()
    .flatten()
}

/// Runs one case of a list.
fn alone(cases: &'static [Case], name: &str) {
    // Built here: compilers that run meanwhile would make every neighbour slow.
    for name in ["hello-world", "hostile"] {
        guest(name);
    }
    let case = cases.iter().find(|case| case.name == name);
    run(beside_a_neighbour(case.expect("it is in the list")));
}

/// Runs a case while a neighbour is called again and again.
async fn beside_a_neighbour(case: &'static Case) {
    static NEIGHBOUR: OnceCell<Arc<Router>> = OnceCell::const_new();
    let neighbour = NEIGHBOUR
        .get_or_init(|| router(vec![guest("hello-world")], ""))
        .await;
    let started = Instant::now();
    let acting = tokio::spawn((case.act)());
    let mut slowest = Duration::ZERO;
    loop {
        let began = Instant::now();
        let answer = done(neighbour, "greet:hello_world", r#"{"name": "Ada"}"#).await;
        slowest = slowest.max(began.elapsed());
        assert_eq!(answer["greeting"], "Hello, Ada!");
        if acting.is_finished() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert_eq!(acting.await.expect("no panic"), case.end, "{}", case.name);
    println!(
        "{} took {:?}, the slowest call of a neighbour {slowest:?}",
        case.name,
        started.elapsed()
    );
    // Other tests and their compilers run meanwhile; `fair` has the narrow bound.
    assert!(
        slowest < Duration::from_secs(2),
        "{}: {slowest:?}",
        case.name
    );
}

/// A worker that is beyond reproach until a case changes it.
fn honest() -> Wat {
    Wat::new("worker-wat", json!([capability("work")]))
}

/// A worker that does this when it is called.
fn doing(handle: &str) -> Wat {
    Wat {
        handle: handle.to_owned(),
        ..honest()
    }
}

/// A router to one worker, which is bound to these settings.
async fn serving(wat: &Wat, settings: &str) -> Arc<Router> {
    let dir = dir();
    let file = place(&dir, "wat", &wat.build());
    router(vec![file], &format!("[workers.wat]\n{settings}")).await
}

/// How a call of a worker ends.
async fn called(wat: Wat, settings: &str) -> String {
    called_with(wat, settings, |_| {}).await
}

/// The same, of a call that is not quite like others.
async fn called_with(wat: Wat, settings: &str, change: impl FnOnce(&mut Call)) -> String {
    let router = serving(&wat, settings).await;
    let mut call = call("misbehave:work", "{}");
    change(&mut call);
    end(router.invoke(call).await)
}

/// How a call of a capability of `guests/hostile` ends.
async fn misbehaved(capability: &str, input: &str, settings: &str) -> String {
    let settings = format!("[workers.hostile]\n{settings}");
    let router = crate::support::hostile(&settings).await;
    let call = call(&format!("misbehave:{capability}"), input);
    end(router.invoke(call).await)
}

fn end(result: Result<Answer, Failure>) -> String {
    match result {
        Ok(_) => "answered".to_owned(),
        Err(failure) => {
            assert_presentable(&failure.message, 4 << 10);
            assert_presentable(failure.cause.as_deref().unwrap_or_default(), 16 << 10);
            failure.code.as_str().to_owned()
        }
    }
}

/// How loading a worker ends. The reasons hold these words, one of those between bars.
async fn loaded(wat: Wat, words: &[&str]) -> String {
    loaded_bytes(wat.build(), words).await
}

async fn loaded_bytes(component: Vec<u8>, words: &[&str]) -> String {
    let dir = dir();
    let snapshot = load(vec![place(&dir, "wat", &component)], "").await;
    let [refused] = snapshot.refused() else {
        return "served".to_owned();
    };
    let reasons = refused.reasons.join(" / ");
    assert_presentable(&reasons, 64 << 10);
    for word in words {
        let said = word.split('|').any(|either| reasons.contains(either));
        assert!(said, "no `{word}` in: {reasons}");
    }
    "refused".to_owned()
}

/// What a stranger made up and people read is short and a single line.
fn assert_presentable(text: &str, most: usize) {
    assert!(text.len() <= most, "{} bytes", text.len());
    assert!(!text.contains(char::is_control), "{text:?}");
}

/// Gives a worker core modules beside its own, for what one module may not have twice. Each holds a
/// function `$run` from an `i32` to an `i32`; see [`run_beside`].
fn beside(wat: &mut Wat, modules: &[String]) {
    let count = modules.len();
    wat.items.push_str(&format!(
        r#"(type $run (func (param i32) (result i32))) (table (export "run") {count} funcref)"#
    ));
    wat.component.push_str(
        r#"(alias core export $main "run" (core table $run))
           (core instance $env (export "run" (table $run)))"#,
    );
    for (slot, fields) in modules.iter().enumerate() {
        // Each puts its function into a table of the worker's own module.
        wat.component.push_str(&format!(
            r#"(core module $beside{slot} (import "env" "run" (table {count} funcref))
                   {fields} (elem (i32.const {slot}) func $run))
               (core instance (instantiate $beside{slot} (with "env" (instance $env))))"#
        ));
    }
}

/// The instruction that calls such a function.
fn run_beside(slot: usize, argument: impl Debug) -> String {
    format!("(call_indirect (type $run) (i32.const {argument:?}) (i32.const {slot}))")
}

/// Where [`returning`] writes, free in every worker made of text that has little to say.
const RESULT: u32 = 32 << 10;

/// Instructions that return a result laid out by hand: its tag, then words of 32 bits.
fn returning(tag: u8, words: &[u32]) -> String {
    let mut text = format!("(i32.store8 (i32.const {RESULT}) (i32.const {tag}))");
    for (at, word) in words.iter().enumerate() {
        let at = RESULT as usize + 4 * (at + 1);
        text.push_str(&format!("(i32.store (i32.const {at}) (i32.const {word}))"));
    }
    text + &format!("(return (i32.const {RESULT}))")
}

/// The table in `docs/security.md` lists every case, and nothing else.
#[test]
fn the_documentation_lists_every_case_and_how_it_ends() {
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/security.md");
    let text = std::fs::read_to_string(file).expect("it is there");
    let suite = text
        .split("\n## ")
        .find(|section| section.starts_with("The hostile suite"))
        .expect("a section of its own");
    let rows = suite.lines().filter_map(|line| {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        match cells[..] {
            ["", _, end, name, ""] if name.starts_with('`') => {
                Some((name.trim_matches('`').to_owned(), end.to_owned()))
            }
            _ => None,
        }
    });
    let mut listed: Vec<_> = rows.collect();
    let mut known: Vec<_> = cases()
        .map(|case| (case.name.to_owned(), case.end.to_owned()))
        .collect();
    listed.sort();
    known.sort();
    assert!(known.len() >= 40, "{} cases", known.len());
    assert_eq!(listed, known);
}
