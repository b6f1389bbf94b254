//! What those may whom the operator names, and nobody else.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};

use super::authority::{ADA, Asking, file};
use super::{EVE, SpiffeId};
use crate::support::{dir, run};

const OPS: &str = "spiffe://crank.local/ops";

/// A host that takes remote workers and knows these callers by tokens, with more lines of `[identity]`.
async fn knowing<const N: usize>(
    state: &Path,
    ids: [&str; N],
    more: &str,
) -> (Asking, [String; N]) {
    let tokens = [(); N].map(|()| crank::auth::fresh().expect("a token"));
    let lines = tokens.iter().zip(ids).map(|(token, id)| {
        let id = SpiffeId::parse(id).expect("an id");
        crank::auth::line(token, &id)
    });
    let lines: Vec<String> = lines.collect();
    let folder = dir();
    let keys = file(&folder, "tokens", &lines.join("\n"));
    let toml = format!(
        "remote_addresses = [\"127.0.0.0/8\"]\nstate_dir = {state:?}\n[identity]\n{keys}{more}\n"
    );
    (Asking::serve(folder, &toml, &[]).await, tokens)
}

async fn send(at: &Asking, token: &str, method: Method, path: &str, body: &Value) -> (u16, Value) {
    let sent = at.host.client.request(method, at.host.url(path));
    let sent = sent.bearer_auth(token).json(body).send().await;
    let answered = sent.expect("it answers");
    let status = answered.status().as_u16();
    (status, answered.json().await.unwrap_or_default())
}

fn worker(worker_id: &str, capability: &str, id: Option<&str>) -> Value {
    let (verb, name) = capability.split_once(':').expect("verb:name");
    json!({
        "verb": verb, "name": name, "version": "1.0.0", "worker_id": worker_id,
        "url": "http://127.0.0.1:9", "spiffe_id": id,
    })
}

#[test]
fn a_registrar_offers_what_it_may_under_its_own_id_and_touches_nobody_elses_worker() {
    run(async {
        let registrars = format!("registrars = [\"{ADA} greet mail:sort\", {EVE:?}, {OPS:?}]");
        let more = format!("{registrars}\noperators = [{OPS:?}]");
        let state = dir();
        let (at, [ada, eve, ops]) = knowing(state.path(), [ADA, EVE, OPS], &more).await;
        let register = async |token: &str, worker: Value| {
            let (status, told) = send(&at, token, Method::POST, "/register", &worker).await;
            (
                status,
                told["detail"].as_str().unwrap_or_default().to_owned(),
            )
        };
        let remove = async |token: &str, worker: &str| {
            let path = format!("/register/{worker}");
            send(&at, token, Method::DELETE, &path, &Value::Null)
                .await
                .0
        };
        // Its verbs, in its own name or none, for as many workers as it has.
        for (id, capability, claims) in [
            ("ada-one", "greet:one", Some(ADA)),
            ("ada-two", "greet:two", Some(ADA)),
            ("ada-three", "mail:sort", None),
        ] {
            let told = register(&ada, worker(id, capability, claims)).await;
            assert_eq!(told.0, 200, "{told:?}");
        }
        for (capability, claims, why) in [
            ("mail:send", None, "may not offer mail:send"),
            ("greet:one", Some(EVE), "claim your own"),
            (
                "greet:one",
                Some("spiffe://crank.local/worker/x"),
                "claim your own",
            ),
        ] {
            let (status, told) = register(&ada, worker("ada-four", capability, claims)).await;
            assert_eq!(status, 403, "{told}");
            assert!(told.contains(why), "{told}");
        }
        // Another's worker gets other people's inputs: it is not taken over, renewed or removed.
        let (status, told) = register(&eve, worker("ada-one", "greet:one", None)).await;
        assert_eq!(status, 409, "{told}");
        assert_eq!(
            register(&eve, worker("ada-one", "greet:one", Some(ADA)))
                .await
                .0,
            403
        );
        assert_eq!(remove(&eve, "ada-one").await, 409);
        assert_eq!(
            register(&ada, worker("ada-one", "greet:one", Some(ADA)))
                .await
                .0,
            200
        );
        assert_eq!(remove(&ada, "ada-one").await, 200);
        // Who is an operator besides speaks for others.
        let other = Some("spiffe://crank.local/worker/other");
        assert_eq!(
            register(&ops, worker("other", "any:thing", other)).await.0,
            200
        );
        assert_eq!(remove(&ada, "other").await, 409);
        assert_eq!(remove(&ops, "ada-two").await, 200);
    });
}

#[test]
fn what_was_registered_holds_after_a_restart_only_if_who_registered_it_still_may() {
    run(async {
        let state = dir();
        let grants = |ada: &str, eve: &str, operators: &str| {
            format!("registrars = [\"{ADA} {ada}\", {eve} {OPS:?}]\noperators = [{operators}]")
        };
        let (eve, ops) = (format!("{EVE:?},"), format!("{OPS:?}"));
        let more = grants("greet", &eve, &ops);
        let (at, tokens) = knowing(state.path(), [ADA, EVE, OPS], &more).await;
        let other = Some("spiffe://crank.local/worker/other");
        for (token, worker) in tokens.iter().zip([
            worker("adas", "greet:one", Some(ADA)),
            worker("eves", "mail:sort", None),
            worker("others", "any:thing", other),
        ]) {
            let (status, told) = send(&at, token, Method::POST, "/register", &worker).await;
            assert_eq!((status, &told["kept"]), (200, &json!(true)), "{told}");
        }
        stop(at).await;

        for (more, left) in [
            (grants("mail", "", &ops), vec!["others"]),
            (grants("greet:one", "", ""), vec!["adas"]),
            (grants("", &eve, &ops), vec!["adas", "eves", "others"]),
        ] {
            let (at, [ada]) = knowing(state.path(), [ADA], &more).await;
            let (_, listed) = send(&at, &ada, Method::GET, "/capabilities", &Value::Null).await;
            let listed = listed["capabilities"].as_array().expect("a list");
            let mut workers: Vec<_> = listed.iter().map(|one| &one["worker_id"]).collect();
            workers.sort_by_key(|worker| worker.to_string());
            assert_eq!(workers, left, "{more}");
            stop(at).await;
        }
    });
}

/// Ends a host, and waits until it has let go of its directory.
async fn stop(at: Asking) {
    let router = Arc::downgrade(&at.router);
    drop(at);
    while router.strong_count() > 0 {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}
