//! Answers that are told again, where the policy has become another meanwhile.

use crank::error::Code;
use crank::idempotency::{Key, Keys};
use crank::registry::Registry;
use crank::router::{Call, Once, Router};
use serde_json::json;

use super::{EVE, HEAD, of, policies, put, ruled};
use crate::support::component::{Wat, capability};
use crate::support::{call, config, dir, place, run};

/// Eve's call under a key.
fn under(key: &str) -> Call {
    let key = Key::parse(key).expect("a key");
    let once = Once {
        key,
        body: None,
        turn: None,
    };
    Call {
        once: Some(once),
        ..of(Some(EVE), call("misbehave:work", "{}"))
    }
}

/// That somebody else may be asked instead opens no answer of one who may not.
#[test]
fn an_answer_is_told_again_while_its_worker_may_be_asked_and_no_longer() {
    run(async {
        let policies = policies(&[("mine.rego", HEAD)]);
        let (engine, workers) = (ruled(policies.path()), dir());
        for version in ["1.0.0", "2.0.0"] {
            let mut offered = capability("work");
            offered["version"] = version.into();
            let id = format!("worker-{}", &version[..1]);
            place(&workers, &id, &Wat::new(&id, json!([offered])).build());
        }
        let registry = Registry::open(&engine, &config(""), workers.path()).await;
        let router = Router::new(registry.expect("the directory is read"));
        let kept = dir();
        let keys = Keys::at(kept.path().join("keys"), &config("").idempotency);
        router.keep(keys);
        let told = async |key: &str| {
            let answered = router.invoke(under(key)).await;
            answered.map(|answer| (answer.worker_id.to_string(), answer.replayed))
        };
        let policy = async |text: &str| {
            put(&policies, "mine.rego", text);
            router.registry().reload().await.expect("it is read");
        };
        let by = |worker: &str, replayed| (worker.to_owned(), replayed);
        assert_eq!(told("k").await.expect("an answer"), by("worker-2", false));
        assert_eq!(told("k").await.expect("an answer"), by("worker-2", true));

        policy(&format!(
            "{HEAD}deny contains \"two: not it\" if input.worker.id == \"worker-2\""
        ))
        .await;
        let refused = told("k").await.expect_err("it was the second's");
        assert_eq!(
            (refused.code, refused.message.as_str()),
            (Code::Denied, "the policy denies it: two")
        );
        assert_eq!(told("l").await.expect("an answer"), by("worker-1", false));

        policy(HEAD).await;
        assert_eq!(told("k").await.expect("an answer"), by("worker-2", true));
        assert_eq!(told("l").await.expect("an answer"), by("worker-1", true));
    });
}
