//! The operator's policy: who may invoke what, which worker may be loaded, and what a refusal says.

mod again;
mod shown;

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::engine::Engine;
use crank::error::{Code, Failure};
use crank::registry::{Registry, Snapshot};
use crank::router::{Call, Chain, Question, Router};
use crank::rules::{INVOKE, LOAD, Rules};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::cli::{Serving, output, path};
use crate::support::component::{Wat, capability};
use crate::support::{ENGINE, call, config, dir, guest, place, run};

const ADA: &str = "spiffe://crank.local/agent/ada";
const EVE: &str = "spiffe://crank.local/agent/eve";
const MAIL: &str = "spiffe://crank.local/worker/email-classifier";
const HEAD: &str = "package crank.invoke\nimport rego.v1\n";

/// The seed's own example of a manifest.
fn manifests() -> String {
    json!({
        "workers": {
            MAIL: {
                "worker_id": "worker-email-classifier",
                "required_capabilities": ["convert:email_to_text", "classify:spam_detection"],
                "owner": "ml-team",
                "deployed_at": "2025-11-16T10:00:00Z",
            }
        }
    })
    .to_string()
}

/// A directory of policies.
fn policies(files: &[(&str, &str)]) -> TempDir {
    let dir = dir();
    std::fs::create_dir(dir.path().join("data")).expect("a directory in it");
    for (name, text) in files {
        put(&dir, name, text);
    }
    dir
}

/// Writes a file as if it had been there for a while.
fn put(dir: &TempDir, name: &str, text: &str) {
    let path = dir.path().join(name);
    std::fs::write(&path, text).expect("a file in a temporary directory");
    let file = std::fs::File::options().write(true).open(path);
    let before = std::time::SystemTime::now() - Duration::from_secs(60);
    file.and_then(|file| file.set_modified(before))
        .expect("its time");
}

fn ruled(policies: &Path) -> Engine {
    let rules = Rules::open(Some(policies)).expect("the policy holds");
    ENGINE.clone().with_rules(rules)
}

async fn load(engine: &Engine, files: Vec<std::path::PathBuf>) -> (Router, Vec<String>) {
    let snapshot = Snapshot::load(engine, &config(""), files).await;
    let refused = snapshot.refused().iter();
    let reasons = refused
        .flat_map(|refused| refused.reasons.clone())
        .collect();
    let registry = Registry::new(snapshot).ruled_by(engine.rules().clone());
    (Router::new(registry), reasons)
}

/// A worker with one capability, an identity and what it declares.
fn worker(id: &str, name: &str, spiffe_id: Option<&str>, required: &[&str]) -> Vec<u8> {
    let mut offered = capability(name);
    offered["required-capabilities"] = json!(required);
    if let Some(spiffe_id) = spiffe_id {
        offered["spiffe-id"] = json!(spiffe_id);
    }
    Wat::new(id, json!([offered])).build()
}

/// A call that a worker makes while it answers somebody.
fn nested(capability: &str, caller: Option<&str>, origin: Option<&str>) -> Call {
    Call {
        caller: caller.map(str::to_owned),
        chain: Some(Chain {
            origin: origin.map(str::to_owned),
            path: vec![Arc::from("misbehave:calls")],
            forwarded: Vec::new(),
            deadline: Instant::now() + Duration::from_secs(30),
        }),
        ..call(capability, "{}")
    }
}

fn of(caller: Option<&str>, call: Call) -> Call {
    Call {
        caller: caller.map(str::to_owned),
        ..call
    }
}

async fn refusal(router: &Router, call: Call) -> Option<Failure> {
    let failure = router.invoke(call).await.err();
    failure.filter(|failure| failure.code == Code::Denied)
}

/// `tests/policy/compare.py` has recorded what another engine decides.
#[test]
fn decisions_are_those_of_another_rego_engine() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = std::fs::read_to_string(root.join("tests/golden/policy.json"));
    let golden: Value = serde_json::from_str(&golden.expect("it is there")).expect("JSON");
    let mut judged = 0;
    for group in golden["groups"].as_array().expect("groups") {
        let dir = policies(&[]);
        for policy in group["policies"].as_array().expect("paths") {
            let from = root.join(policy.as_str().expect("a path"));
            let name = from.file_name().expect("a name");
            std::fs::copy(&from, dir.path().join(name)).expect("a copy");
        }
        for (name, data) in group["data"].as_object().expect("by name") {
            put(&dir, &format!("data/{name}.json"), &data.to_string());
        }
        let rules = Rules::open(Some(dir.path())).expect("the policy holds");
        for case in group["cases"].as_array().expect("cases") {
            let package = match case["package"] == "data.crank.load" {
                true => LOAD,
                false => INVOKE,
            };
            let ours = rules.current().explain(package, case["input"].clone()).0;
            assert_eq!(
                json!(ours.reasons),
                case["reasons"],
                "{}: {case}",
                group["name"]
            );
            judged += 1;
        }
    }
    assert!(judged > 150, "{judged}");
}

#[test]
fn the_mail_worker_calls_the_two_peers_of_its_manifest_and_no_other() {
    run(async {
        let policies = policies(&[("data/worker_manifests.json", &manifests())]);
        let names = [
            "email-classifier",
            "spam-detection",
            "document-conversion",
            "hello-world",
        ];
        let (router, refused) = load(&ruled(policies.path()), names.map(guest).into()).await;
        assert!(refused.is_empty(), "{refused:?}");
        for (peer, is_listed) in [
            ("convert:email_to_text", true),
            ("classify:spam_detection", true),
            ("greet:hello_world", false),
            ("convert:pdf_to_text", false),
        ] {
            let refusal = refusal(&router, nested(peer, Some(MAIL), Some(ADA))).await;
            assert_eq!(refusal.is_none(), is_listed, "{peer}: {refusal:?}");
        }
        // A worker that no manifest knows calls nobody; who is no worker calls anybody.
        let unknown = refusal(&router, nested("greet:hello_world", None, Some(ADA))).await;
        let message = unknown.expect("it has no manifest").message;
        assert_eq!(message, "the policy denies it: manifest");
        for caller in [None, Some(ADA)] {
            let direct = of(caller, call("greet:hello_world", "{}"));
            assert!(refusal(&router, direct).await.is_none());
        }
        let direct = of(Some(MAIL), call("greet:hello_world", "{}"));
        assert!(
            refusal(&router, direct).await.is_some(),
            "also from elsewhere"
        );
    });
}

#[test]
fn a_worker_that_declares_more_than_its_manifest_is_not_loaded() {
    run(async {
        let policies = policies(&[("data/worker_manifests.json", &manifests())]);
        let engine = ruled(policies.path());
        let two = [
            "convert:email_to_text",
            "classify:spam_detection@^1",
            "wasi:keyvalue/store",
        ];
        let wider = [&two[..], &["greet:hello_world"]].concat();
        for (required, spiffe_id, reason) in [
            (&two[..], Some(MAIL), None),
            (&wider, Some(MAIL), Some("declares greet:hello_world")),
            (&two, None, Some("declares convert:email_to_text")),
            (&["wasi:keyvalue/store"], None, None),
        ] {
            let dir = dir();
            let file = place(
                &dir,
                "mail",
                &worker("worker-mail", "mail", spiffe_id, required),
            );
            let (_, refused) = load(&engine, vec![file]).await;
            let Some(reason) = reason else {
                assert!(refused.is_empty(), "{refused:?}");
                continue;
            };
            let told = refused.join("\n");
            assert!(told.contains(reason) && told.contains("manifest"), "{told}");
            assert!(told.contains("data.crank.load"), "{told}");
        }
    });
}

/// Whoever calls through a worker may do what they may do themselves.
#[test]
fn a_worker_is_no_confused_deputy() {
    run(async {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"));
        let engine = ruled(&root.join("docs/examples/policies"));
        let (router, refused) = load(&engine, ["relay", "hello-world"].map(guest).into()).await;
        assert!(refused.is_empty(), "{refused:?}");
        for (caller, code) in [
            (Some(ADA), None),
            (Some(EVE), Some("denied")),
            (None, Some("denied")),
        ] {
            let input = json!({ "to": "greet:hello_world", "input": { "name": "Ada" } });
            let relayed = of(caller, call("relay:one", &input.to_string()));
            let answer = router
                .invoke(relayed)
                .await
                .expect("the relay itself is free");
            let became: Value = serde_json::from_slice(&answer.payload.body).expect("JSON");
            assert_eq!(became["code"].as_str(), code, "{caller:?}: {became}");
            if code.is_some() {
                assert_eq!(became["message"], "the policy denies it: deputy");
            }
            let direct = of(caller, call("greet:hello_world", r#"{"name": "Ada"}"#));
            let refused = refusal(&router, direct).await;
            let rule = refused.map(|refused| refused.message);
            let expected = code.map(|_| "the policy denies it: guarded");
            assert_eq!(rule.as_deref(), expected);
        }
    });
}

#[test]
fn explain_says_who_is_barred_and_by_which_rule() {
    run(async {
        let text = format!("{HEAD}deny contains \"night: she sleeps\" if input.caller == {ADA:?}");
        let policies = policies(&[("mine.rego", &text)]);
        let dir = dir();
        let file = place(&dir, "work", &worker("worker-work", "work", None, &[]));
        let (router, _) = load(&ruled(policies.path()), vec![file]).await;
        for (caller, verdict) in [
            (Some(ADA), "policy"),
            (Some(EVE), "chosen"),
            (None, "chosen"),
        ] {
            let question = Question {
                verb: "misbehave".to_owned(),
                caller: caller.map(str::to_owned),
                ..Question::default()
            };
            let told = router.explain(&question).await.expect("it is offered");
            let told = serde_json::to_value(&told[0]).expect("JSON");
            let candidate = &told["candidates"][0];
            assert_eq!(candidate["verdict"], verdict, "{told}");
            let sentence = candidate["sentence"].as_str().expect("a sentence");
            assert_eq!(
                sentence.contains("the policy denies it: night"),
                verdict == "policy"
            );
        }
    });
}

/// Who asks what takes long waits for it no longer than their call may take, and nobody else for them.
#[test]
fn a_slow_policy_holds_up_no_call_past_its_deadline_and_no_other_caller() {
    run(async {
        let slow = format!(
            "{HEAD}
            many := [1, 2, 3, 4, 5, 6, 7, 8, 9, 10]
            steps := count([1 | some a in many; some b in many; some c in many; some d in many; some e in many
                some f in many; some g in many; some h in many; a + b + c + d + e + f + g + h == 0])
            deny contains \"slow: it is\" if {{ input.caller == {EVE:?}; steps == 1 }}"
        );
        let policies = policies(&[("mine.rego", &slow)]);
        let dir = dir();
        let file = place(&dir, "work", &worker("worker-work", "work", None, &[]));
        let (router, refused) = load(&ruled(policies.path()), vec![file]).await;
        assert!(refused.is_empty(), "{refused:?}");
        let eves = (0..20).map(|_| {
            let short = Call {
                timeout: Some(Duration::from_millis(50)),
                ..of(Some(EVE), call("misbehave:work", "{}"))
            };
            let router = router.clone();
            tokio::spawn(async move { router.invoke(short).await })
        });
        let eves: Vec<_> = eves.collect();
        let began = Instant::now();
        let ada = of(Some(ADA), call("misbehave:work", "{}"));
        router.invoke(ada).await.expect("she is not held up");
        assert!(
            began.elapsed() < Duration::from_secs(5),
            "{:?}",
            began.elapsed()
        );
        for eve in eves {
            let refused = eve.await.expect("no panic").expect_err("there is no time");
            assert_eq!(refused.code, Code::Deadline, "{refused:?}");
        }
    });
}

/// A new policy is asked anew, also of workers that serve; a broken one changes nothing.
#[test]
fn a_reload_puts_another_policy_in_place_or_leaves_the_one_before() {
    run(async {
        let policies = policies(&[("mine.rego", HEAD)]);
        let engine = ruled(policies.path());
        let workers = dir();
        place(
            &workers,
            "work",
            &worker("worker-work", "work", None, &["greet:hello_world"]),
        );
        place(&workers, "rest", &worker("worker-rest", "rest", None, &[]));
        let registry = Registry::open(&engine, &config(""), workers.path()).await;
        let router = Router::new(registry.expect("the directory is read"));
        let ask = async |name: &str| router.invoke(of(Some(EVE), call(name, "{}"))).await;
        ask("misbehave:rest").await.expect("nothing is denied yet");

        put(
            &policies,
            "mine.rego",
            "package crank.invoke\ndeny contains",
        );
        let changes = router.registry().reload().await.expect("it is read");
        assert!(
            changes
                .policy
                .expect("it is broken")
                .contains("mine.rego:2:")
        );
        ask("misbehave:rest").await.expect("the one before holds");

        let deny = format!("{HEAD}deny contains \"eve: not her\" if input.caller == {EVE:?}");
        put(&policies, "mine.rego", &deny);
        put(
            &policies,
            "data/worker_manifests.json",
            r#"{ "workers": {} }"#,
        );
        let changes = router.registry().reload().await.expect("it is read");
        assert_eq!((changes.policy, changes.removed.len()), (None, 1));
        let refused = ask("misbehave:rest").await.expect_err("she is denied now");
        assert_eq!(refused.message, "the policy denies it: eve");
        let gone = ask("misbehave:work")
            .await
            .expect_err("it declares too much now");
        assert_eq!(gone.code, Code::UnknownCapability);

        std::fs::remove_file(policies.path().join("data/worker_manifests.json")).expect("gone");
        let changes = router.registry().reload().await.expect("it is read");
        assert_eq!(changes.loaded.len(), 1, "it may serve again");
        std::fs::remove_file(policies.path().join("mine.rego")).expect("gone");
        // The watch looks by itself.
        router.registry().refresh().await.expect("it is read");
        ask("misbehave:work")
            .await
            .expect("nothing is denied any more");
    });
}

#[test]
fn a_refusal_names_its_rule_and_stands_in_the_audit_log() {
    let dir = dir();
    place(&dir, "work", &worker("worker-work", "work", None, &[]));
    std::fs::create_dir(dir.path().join("policies")).expect("a directory in it");
    let text =
        format!("{HEAD}deny contains \"nobody: an id is asked for\" if input.caller == null");
    std::fs::write(dir.path().join("policies/mine.rego"), text).expect("a policy");
    let audit = dir.path().join("audit.jsonl");
    std::fs::write(
        dir.path().join("crank.toml"),
        format!("audit_log = {audit:?}"),
    )
    .expect("a file");
    let serving = Serving::start(dir.path(), &[]);
    run(async {
        let url = format!("{}/invoke/misbehave/work", serving.1);
        let call = reqwest::Client::new().post(url).body("{}");
        let call = call.header("content-type", "application/json");
        let answer = call.send().await.expect("it answers");
        assert_eq!(answer.status(), 403);
        let problem: Value = answer.json().await.expect("JSON");
        assert_eq!(problem["code"], "denied");
        assert_eq!(
            problem["detail"], "the policy denies it: nobody",
            "{problem}"
        );
    });
    let lines = std::fs::read_to_string(audit).expect("it is there");
    let line: Value = serde_json::from_str(lines.lines().next().expect("a line")).expect("JSON");
    assert_eq!(line["capability"], "misbehave:work", "{line}");
    assert_eq!(line["reason"], "nobody: an id is asked for", "{line}");
}

#[test]
fn the_command_line_tests_and_explains_a_policy() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let example = root.join("docs/examples/policies");
    let example = example.to_str().expect("UTF-8");
    let (code, out, err) = output(&["policy", "test", example]);
    assert_eq!(code, 0, "{out}{err}");
    assert!(
        out.contains("PASS data.crank.invoke_test.test_eve_may_not"),
        "{out}"
    );

    let failing = policies(&[(
        "a_test.rego",
        "package crank.invoke_test\ntest_it if false\n",
    )]);
    let (code, out, _) = output(&["policy", "test", path(&failing)]);
    assert_eq!(
        (code, out.contains("FAIL data.crank.invoke_test.test_it")),
        (1, true),
        "{out}"
    );
    assert_eq!(
        output(&["policy", "test", path(&policies(&[]))]).0,
        1,
        "no tests"
    );

    let explain = |caller: &str, more: &[&str]| {
        let arguments = [
            "policy",
            "explain",
            caller,
            "store:zettel",
            "--policies",
            example,
        ];
        output(&[&arguments[..], more].concat())
    };
    assert_eq!(explain(ADA, &[]).0, 0);
    let (code, out, _) = explain(EVE, &[]);
    assert_eq!(
        (code, out.contains("guarded: this caller")),
        (1, true),
        "{out}"
    );
    assert!(
        out.contains(ADA),
        "the facts that it was held against: {out}"
    );
    let (code, out, _) = explain(MAIL, &["--origin", EVE, "--json"]);
    let told: Value = serde_json::from_str(&out).expect("JSON");
    assert_eq!((code, &told[0]["allowed"]), (1, &json!(false)), "{told}");
    assert_eq!(told[0]["input"]["nested"], true, "{told}");
    assert_eq!(explain("eve", &[]).0, 2, "no id");

    let broken = policies(&[("mine.rego", "package crank.invoke\n\ndeny contains if")]);
    let workers = dir();
    for command in ["serve", "check"] {
        place(&workers, "work", &worker("worker-work", "work", None, &[]));
        let (code, _, err) = output(&[command, path(&workers), "--policies", path(&broken)]);
        assert_eq!(code, 2, "{err}");
        assert!(err.contains("mine.rego:3:"), "{err}");
    }
    let listed = policies(&[("data/worker_manifests.json", &manifests())]);
    place(
        &workers,
        "mail",
        &worker("worker-mail", "mail", Some(MAIL), &["greet:hello_world"]),
    );
    let (code, out, _) = output(&["check", path(&workers), "--policies", path(&listed)]);
    assert_eq!(code, 1);
    assert!(out.contains("the policy refuses it: manifest"), "{out}");
}
