use std::fs;
use std::path::Path;
use std::time::Instant;

use serde_json::json;
use tempfile::TempDir;

use super::*;

const HEAD: &str = "package crank.invoke\nimport rego.v1\n";

fn policies(files: &[(&str, &str)]) -> TempDir {
    let dir = tempfile::tempdir().expect("a directory");
    fs::create_dir(dir.path().join("data")).expect("a directory in it");
    for (name, text) in files {
        put(dir.path(), name, text);
    }
    dir
}

fn put(dir: &Path, name: &str, text: &str) {
    fs::write(dir.join(name), text).expect("a file in it");
}

fn broken(files: &[(&str, &str)]) -> String {
    let dir = policies(files);
    Rules::open(Some(dir.path())).err().expect("it is broken")
}

fn judge(rules: &Rules, input: Value) -> Judgement {
    rules.current().explain(INVOKE, input).0
}

#[test]
fn without_files_nobody_is_asked_and_the_built_in_policy_denies_nobody() {
    assert_eq!(Rules::default().revision(), None);
    let dir = policies(&[]);
    let rules = Rules::open(Some(dir.path())).expect("it opens");
    assert_eq!(rules.revision(), None);
    assert_eq!(
        judge(&rules, json!({ "nested": true })),
        Judgement::default()
    );
}

/// Each names its file and line.
#[test]
fn what_is_broken_is_told_by_file_and_line() {
    let parse = broken(&[("mine.rego", &format!("{HEAD}deny contains if if"))]);
    assert!(parse.contains("mine.rego:3:"), "{parse}");
    let unknown = broken(&[("mine.rego", &format!("{HEAD}deny contains 1 if no_such(1)"))]);
    assert!(unknown.contains("mine.rego:3:"), "{unknown}");
    let unsafe_variable = broken(&[("mine.rego", &format!("{HEAD}deny contains x if true"))]);
    assert!(
        unsafe_variable.contains("mine.rego:3:"),
        "{unsafe_variable}"
    );
    let data = broken(&[("data/mine.json", "{\n  \"a\": \n}")]);
    assert!(data.contains("mine.json:3:1:"), "{data}");
    let slip = broken(&[("mine.rego", "package crank.invok\ndeny := true")]);
    assert!(slip.contains("asked by nobody"), "{slip}");
    let reserved = broken(&[("data/crank.json", "{}")]);
    assert!(reserved.contains("another name"), "{reserved}");
    let both = broken(&[("mine.rego", &format!("{HEAD}deny := true"))]);
    assert!(both.contains("mine.rego:3:1:"), "{both}");
    let endless = format!("{HEAD}{ENDLESS}deny contains 1 if steps == 0");
    let endless = broken(&[("mine.rego", &endless)]);
    assert!(endless.contains("limit"), "{endless}");
}

/// More steps than any machine makes in the time that there is.
const ENDLESS: &str = "
    many := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
    steps := count([1 | some a in many; some b in many; some c in many; some d in many; some e in many
        some f in many; some g in many; some h in many; a + b + c + d + e + f + g + h == 0])
";

#[test]
fn an_evaluation_that_takes_too_long_denies_within_its_bound() {
    let text = format!("{HEAD}{ENDLESS}deny contains 1 if {{ input.caller == \"x\"; steps == 1 }}");
    let dir = policies(&[("mine.rego", &text)]);
    let rules = Rules::open(Some(dir.path())).expect("it opens");
    let runtime = tokio::runtime::Builder::new_current_thread();
    let runtime = { runtime }.enable_all().build().expect("a runtime");
    let began = Instant::now();
    let asked = vec![
        json!({ "caller": "y" }),
        json!({ "caller": "x" }),
        json!({ "caller": "y" }),
    ];
    let (_, judged) = runtime
        .block_on(rules.invoke(asked, Some("x"), began + LOAD_TIME))
        .expect("there is time");
    assert!(
        began.elapsed() < INVOKE_TIME + GRACE,
        "{:?}",
        began.elapsed()
    );
    let failed: Vec<bool> = judged.iter().map(|judged| judged.failed).collect();
    assert_eq!(failed, [false, true, true], "{judged:?}");
    let denial = judged[1].denial().expect("it is denied");
    assert_eq!(denial.rules, "policy_error");
    // Who has less time than that is not made to wait.
    let asked = vec![json!({ "caller": "x" })];
    let soon = Instant::now() + INVOKE_TIME / 4;
    let late = runtime.block_on(async { rules.invoke(asked, Some("x"), soon).await });
    assert_eq!(late, Err(Late));
    assert!(soon.elapsed() < INVOKE_TIME / 2, "{:?}", soon.elapsed());
}

#[test]
fn an_allow_that_is_written_has_to_be_true() {
    let text = format!("{HEAD}allow if input.caller == \"x\"\ndeny contains \"b: 2\" if input.bad");
    let dir = policies(&[("mine.rego", &text)]);
    let rules = Rules::open(Some(dir.path())).expect("it opens");
    assert_eq!(judge(&rules, json!({ "caller": "x" })).denial(), None);
    let denial = judge(&rules, json!({ "caller": null, "bad": true })).denial();
    assert_eq!(denial.expect("it is denied").rules, "b, allow");
}

#[test]
fn a_file_of_a_built_in_name_stands_for_it() {
    let dir = policies(&[
        (
            "default_invoke.rego",
            "package crank.invoke\ndefault allow := false\n",
        ),
        ("data/worker_manifests.json", r#"{ "workers": {} }"#),
    ]);
    let rules = Rules::open(Some(dir.path())).expect("it opens");
    let judged = judge(&rules, json!({ "nested": true }));
    assert_eq!(judged.reasons, ["allow: no rule allows it"]);
}

#[test]
fn a_broken_file_leaves_the_policy_before_in_place() {
    let dir = policies(&[("mine.rego", &format!("{HEAD}deny contains \"one\" if true"))]);
    let rules = Rules::open(Some(dir.path())).expect("it opens");
    let first = rules.revision();
    assert_eq!(rules.refresh(false), Looked::Same);
    put(dir.path(), "mine.rego", "package");
    assert!(matches!(rules.refresh(false), Looked::Unsettled(_)));
    std::thread::sleep(SETTLE);
    assert!(matches!(rules.refresh(false), Looked::Broken(_)));
    // It is said once, and to whoever asks.
    assert_eq!(rules.refresh(false), Looked::Same);
    assert!(matches!(rules.refresh(true), Looked::Broken(_)));
    assert_eq!(rules.revision(), first);
    assert_eq!(judge(&rules, json!({})).reasons, ["one"]);

    put(
        dir.path(),
        "mine.rego",
        &format!("{HEAD}deny contains \"two\" if true"),
    );
    std::thread::sleep(SETTLE);
    assert_eq!(rules.refresh(false), Looked::Revised);
    assert_ne!(rules.revision(), first);
    assert_eq!(judge(&rules, json!({})).reasons, ["two"]);
    assert_eq!(rules.refresh(true), Looked::Same, "nothing else is there");
}

#[test]
fn a_verdict_is_known_to_its_own_caller_and_revision_alone() {
    let verdicts = Verdicts::default();
    let asking = Asking {
        revision: 1,
        caller: Some("a"),
        origin: None,
        depth: 0,
    };
    let others = [
        Asking {
            revision: 2,
            ..asking
        },
        Asking {
            caller: None,
            origin: Some("a"),
            ..asking
        },
        Asking { depth: 1, ..asking },
    ];
    let denied = Judgement {
        reasons: vec!["rule: why".to_owned()],
        failed: false,
    };
    assert!(verdicts.get(&asking, asking.hash()).is_none());
    verdicts.put(&asking, asking.hash(), &denied);
    let known = verdicts.get(&asking, asking.hash()).flatten();
    assert_eq!(known.expect("it is denied").rules, "rule");
    for other in others {
        assert!(verdicts.get(&other, other.hash()).is_none(), "{other:?}");
        // Also where two fall into one place.
        assert!(verdicts.get(&other, asking.hash()).is_none(), "{other:?}");
    }
    // However many ask, the table stays as it is, and the last one is known.
    for caller in 0..10_000 {
        let caller = caller.to_string();
        let asking = Asking {
            caller: Some(&caller),
            ..asking
        };
        verdicts.put(&asking, asking.hash(), &Judgement::default());
        assert_eq!(verdicts.get(&asking, asking.hash()), Some(None));
    }
}
