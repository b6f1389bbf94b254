//! What a caller is shown: what the policy lets them call, by every door alike.

use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use crank::auth::Auth;
use crank::identity::SpiffeId;
use crank::registry::Registry;
use crank::router::Router;
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{ADA, EVE, HEAD, load, policies, put, ruled, worker};
use crate::mcp::client::{Client, until};
use crate::support::component::{Wat, capability};
use crate::support::{Host, config, dir, place, run};

/// The tokens of Ada and Eve, and what knows them.
struct Known {
    auth: Arc<Auth>,
    tokens: [String; 2],
    _dir: TempDir,
}

impl Known {
    fn new() -> Self {
        let tokens = [(); 2].map(|()| crank::auth::fresh().expect("a token"));
        let lines = tokens.iter().zip([ADA, EVE]).map(|(token, id)| {
            let id = SpiffeId::parse(id).expect("an id");
            crank::auth::line(token, &id)
        });
        let dir = dir();
        let file = dir.path().join("tokens");
        std::fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("a file");
        std::fs::set_permissions(&file, Permissions::from_mode(0o600)).expect("it is ours");
        let auth = Auth::open(&config(&format!("[identity]\ntokens = {file:?}\n")));
        Self {
            auth: auth.expect("it opens").expect("it is configured"),
            tokens,
            _dir: dir,
        }
    }

    /// A host for each of the two, who sends their token with everything.
    async fn hosts(&self, router: &Arc<Router>) -> [Host; 2] {
        let [ada, eve] = &self.tokens;
        [self.host(router, ada).await, self.host(router, eve).await]
    }

    async fn host(&self, router: &Arc<Router>, token: &str) -> Host {
        let mut host = Host::of(router.clone(), |settings| {
            settings.identified = true;
            settings.auth = Some(self.auth.clone());
        })
        .await;
        let mut headers = HeaderMap::new();
        let bearer = format!("Bearer {token}").parse().expect("a header");
        headers.insert(AUTHORIZATION, bearer);
        let client = reqwest::Client::builder().default_headers(headers);
        let client = client.timeout(Duration::from_secs(60)).no_proxy().build();
        host.client = client.expect("a client");
        host
    }
}

/// The last part of each text.
fn names<'a>(texts: impl Iterator<Item = &'a str>, separator: char) -> BTreeSet<String> {
    let last = |text: &str| text.rsplit(separator).next().unwrap_or_default().to_owned();
    texts.map(last).collect()
}

fn each<'a>(list: &'a Value, member: &'a str) -> impl Iterator<Item = &'a str> {
    let items = list.as_array().expect("a list").iter();
    items.map(move |item| item[member].as_str().expect("a text"))
}

/// The names that a caller finds behind each door.
async fn shown(host: &Host) -> Vec<BTreeSet<String>> {
    let get = async |path: &str| host.get(path).await.json::<Value>().await.expect("JSON");
    let (current, session) = (Client::current(host), Client::previous(host).await);
    let mut found = Vec::new();
    for client in [current, session] {
        let tools = client.result("tools/list", json!({})).await;
        found.push(names(each(&tools["tools"], "name"), '-'));
        let resources = client.result("resources/list", json!({})).await;
        found.push(names(each(&resources["resources"], "uri"), '/'));
    }
    let capabilities = get("/capabilities").await;
    found.push(names(each(&capabilities["capabilities"], "name"), '/'));
    let document = get("/openapi.json").await;
    let paths = document["paths"].as_object().expect("paths").keys();
    let paths = paths.filter_map(|path| path.strip_prefix("/invoke/misbehave/"));
    found.push(names(paths, '/'));
    let manifests = get("/manifests").await;
    let ids = manifests["workers"].as_object().expect("by id").keys();
    found.push(names(ids.map(String::as_str), '/'));
    found
}

#[test]
fn a_caller_is_shown_what_they_may_call_by_every_door_alike() {
    run(async {
        let rule = format!("{{ input.caller == {EVE:?}; input.capability.name == \"work\" }}");
        let text = format!("{HEAD}deny contains \"night: she sleeps\" if {rule}");
        let policies = policies(&[("mine.rego", &text)]);
        let dir = dir();
        let files = ["work", "rest"].map(|name| {
            let id = format!("spiffe://crank.local/worker/{name}");
            let worker = worker(&format!("worker-{name}"), name, Some(&id), &[]);
            place(&dir, name, &worker)
        });
        let (router, refused) = load(&ruled(policies.path()), files.into()).await;
        assert!(refused.is_empty(), "{refused:?}");
        let (router, known) = (Arc::new(router), Known::new());
        let [ada, eve] = known.hosts(&router).await;
        let anybody = Host::of(router.clone(), |_| {}).await;
        for (host, expected) in [
            (&ada, &["rest", "work"][..]),
            (&eve, &["rest"]),
            // Nobody says who calls there.
            (&anybody, &["rest", "work"]),
        ] {
            let expected: BTreeSet<String> = expected.iter().map(|&name| name.into()).collect();
            for found in shown(host).await {
                assert_eq!(found, expected);
            }
        }
        // A verb with one name for her.
        let document: Value = eve.get("/openapi.json").await.json().await.expect("JSON");
        assert!(document["paths"]["/invoke/misbehave"].is_object());

        let client = Client::current(&eve);
        let denied = client.call("misbehave-work", json!({ "value": {} })).await;
        assert_eq!(denied["structuredContent"]["code"], "denied", "{denied}");
        let page = json!({ "uri": "crank://capabilities/misbehave/work" });
        let page = client.ask("resources/read", page).await;
        assert!(page.answer()["error"].is_object(), "{:?}", page.0);
    });
}

#[test]
fn a_tool_is_the_highest_version_that_its_caller_may_call() {
    run(async {
        let rule = format!("{{ input.caller == {EVE:?}; input.capability.version == \"2.0.0\" }}");
        let text = format!("{HEAD}deny contains \"early: not yet\" if {rule}");
        let policies = policies(&[("mine.rego", &text)]);
        let dir = dir();
        let files = ["1.0.0", "2.0.0"].map(|version| {
            let mut offered = capability("work");
            offered["version"] = version.into();
            offered["description"] = version.into();
            let id = format!("worker-{}", &version[..1]);
            place(&dir, &id, &Wat::new(&id, json!([offered])).build())
        });
        let (router, refused) = load(&ruled(policies.path()), files.into()).await;
        assert!(refused.is_empty(), "{refused:?}");
        let (router, known) = (Arc::new(router), Known::new());
        for (host, version) in known.hosts(&router).await.iter().zip(["2.0.0", "1.0.0"]) {
            let client = Client::current(host);
            let list = client.result("tools/list", json!({})).await;
            assert_eq!(list["tools"][0]["description"], version);
            let called = client.call("misbehave-work", json!({ "value": {} })).await;
            assert_eq!(called["isError"], false, "{called}");
        }
    });
}

#[test]
fn another_policy_is_another_list_for_those_whom_it_concerns() {
    run(async {
        let policies = policies(&[("mine.rego", HEAD)]);
        let (engine, workers) = (ruled(policies.path()), dir());
        let work = worker("worker-work", "work", None, &[]);
        place(&workers, "work", &work);
        let registry = Registry::open(&engine, &config(""), workers.path()).await;
        let router = Arc::new(Router::new(registry.expect("the directory is read")));
        let known = Known::new();
        let [ada, eve] = known.hosts(&router).await;
        let sessions = [Client::previous(&ada).await, Client::previous(&eve).await];
        let [mut told_ada, mut told_eve] = [sessions[0].open().await, sessions[1].open().await];
        let listening = json!({ "notifications": { "toolsListChanged": true } });
        let client = Client::current(&eve);
        let mut listened = client.send(9, "subscriptions/listen", listening).await;
        until(&mut listened, "notifications/subscriptions/acknowledged").await;
        // What they know is noted a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;

        let deny = format!("{HEAD}deny contains \"eve: not her\" if input.caller == {EVE:?}");
        put(&policies, "mine.rego", &deny);
        router.registry().reload().await.expect("it is read");
        for told in [&mut told_eve, &mut listened] {
            until(told, "notifications/tools/list_changed").await;
        }
        let list = sessions[1].result("tools/list", json!({})).await;
        assert_eq!(list["tools"], json!([]));
        let quiet = tokio::time::timeout(Duration::from_millis(100), told_ada.chunk()).await;
        assert!(quiet.is_err(), "it is no news to her: {quiet:?}");
        let list = sessions[0].result("tools/list", json!({})).await;
        assert_eq!(list["tools"][0]["name"], "misbehave-work");
    });
}
