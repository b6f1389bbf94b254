//! Capabilities as resources: read, by a URI of their authors', and watched.

use std::sync::Arc;
use std::time::Duration;

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crank::registry::{Local, Snapshot};
use crank::router::Router;
use serde_json::{Value, json};

use super::client::{Client, until};
use crate::support::component::{Wat, capability};
use crate::support::{Host, dir, guest, load, place, router, run};

async fn read(client: &Client<'_>, uri: &str) -> Value {
    let told = client.ask("resources/read", json!({ "uri": uri })).await;
    told.answer().clone()
}

#[test]
fn who_reads_a_capabilitys_resource_has_it_called() {
    run(async {
        let router = router(vec![guest("mcp-conformance")], "").await;
        let host = Host::of(router, |_| {}).await;
        // What there is not has another code since the current version.
        let clients = [
            (Client::current(&host), -32602),
            (Client::previous(&host).await, -32002),
        ];
        for (client, nothing) in clients {
            let list = client.result("resources/list", json!({})).await;
            let of = |uri: &str| {
                let mut resources = list["resources"].as_array().expect("a list").iter();
                resources.find(|resource| resource["uri"] == uri).cloned()
            };
            let text = of("test://static-text").expect("it is listed");
            assert_eq!(text["mimeType"], "text/plain");
            assert!(of("test://template/{id}/data").is_none(), "{list:#}");
            let templates = client.result("resources/templates/list", json!({})).await;
            let template = &templates["resourceTemplates"][1];
            assert_eq!(template["uriTemplate"], "test://template/{id}/data");

            let contents = |answer: Value| answer["result"]["contents"][0].clone();
            let text = contents(read(&client, "test://static-text").await);
            assert_eq!(text["text"], "This is a simple text response for testing.");
            assert_eq!(text["uri"], "test://static-text");
            let image = contents(read(&client, "test://static-binary").await);
            let bytes = image["blob"].as_str().expect("bytes");
            let bytes = BASE64_STANDARD.decode(bytes).expect("base64");
            assert!(bytes.starts_with(b"\x89PNG"));
            let data = contents(read(&client, "test://template/a%20b/data").await);
            assert_eq!(data["text"], "\"Data for ID: a b\"");
            for other in [
                "test://template/data",
                "test://nothing",
                "crank://capabilities/x",
            ] {
                assert_eq!(
                    read(&client, other).await["error"]["code"],
                    nothing,
                    "{other}"
                );
            }
        }
    });
}

/// A worker with one capability that is a resource.
async fn named(version: &str, uri: &str) -> Snapshot {
    let mut offered = capability("notes");
    offered["version"] = version.into();
    offered["extensions"] = json!([["mcp.resource", uri]]);
    let dir = dir();
    let worker = Wat::new("worker-notes", json!([offered])).build();
    load(vec![place(&dir, "notes", &worker)], "").await
}

#[test]
fn no_capability_takes_anothers_resource_or_a_page_of_the_hosts() {
    run(async {
        let dir = dir();
        let own = "crank://capabilities/misbehave/first";
        let files = [
            ("first", "a://x"),
            ("second", "a://{value}"),
            ("third", own),
        ]
        .map(|(name, uri)| {
            let mut offered = capability(name);
            offered["extensions"] = json!([["mcp.resource", uri]]);
            let id = format!("worker-{name}");
            place(&dir, name, &Wat::new(&id, json!([offered])).build())
        });
        let host = Host::of(router(files.into(), "").await, |_| {}).await;
        let client = Client::current(&host);
        assert_eq!(read(&client, "a://x").await["error"]["code"], -32602);
        assert!(read(&client, "a://y").await["result"].is_object());
        let page = read(&client, own).await;
        let page = page["result"]["contents"][0]["text"]
            .as_str()
            .expect("text");
        assert!(page.starts_with("# misbehave:first"), "{page}");
    });
}

async fn replace(router: &Router, with: Snapshot) {
    router.registry().replace_local(Local {
        workers: with.workers().to_vec(),
        ..Local::default()
    });
}

#[test]
fn who_watches_a_resource_is_told_that_it_is_another() {
    run(async {
        let router = Arc::new(Router::new(crank::registry::Registry::new(
            named("1.0.0", "notes://all").await,
        )));
        let host = Host::of(router.clone(), |_| {}).await;
        let session = Client::previous(&host).await;
        let uri = json!({ "uri": "notes://all" });
        let page = json!({ "uri": "crank://capabilities/misbehave/notes" });
        for watched in [&uri, &page] {
            assert_eq!(
                session.result("resources/subscribe", watched.clone()).await,
                json!({})
            );
        }
        let nothing = json!({ "uri": "notes://none" });
        let nothing = session.ask("resources/subscribe", nothing).await;
        assert!(nothing.answer()["error"].is_object(), "{:?}", nothing.0);
        session.result("resources/unsubscribe", page).await;
        let mut told = session.open().await;
        let client = Client::current(&host);
        let listening = json!({ "notifications": { "resourceSubscriptions": ["notes://all"] } });
        let mut listened = client.send(9, "subscriptions/listen", listening).await;
        until(&mut listened, "notifications/subscriptions/acknowledged").await;
        // What they know is noted a moment later.
        tokio::time::sleep(Duration::from_millis(200)).await;

        // The tools are the same, and so the list.
        replace(&router, named("1.0.1", "notes://all").await).await;
        for told in [&mut told, &mut listened] {
            let updated = until(told, "notifications/resources/updated").await;
            assert_eq!(updated["params"]["uri"], "notes://all");
        }
        // One update each: the page is not watched any more, and nobody is told of a list.
        for told in [&mut told, &mut listened] {
            let quiet = tokio::time::timeout(Duration::from_millis(100), told.chunk()).await;
            assert!(quiet.is_err(), "{quiet:?}");
        }
    });
}
