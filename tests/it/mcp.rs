//! The Model Context Protocol: what a client sees, in the current version and in the one before.

pub mod client;
mod resources;

use std::io::{BufRead, BufReader, Write};
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crank::api;
use crank::registry::Local;
use crank::router::Router;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::cli::crank;
use crate::support::{Host, config, dir, guest, load, router, run};
use client::{CURRENT, Client, PREVIOUS, Told, until};

const WORKERS: [&str; 5] = [
    "hello-world",
    "document-conversion",
    "streaming",
    "hostile",
    "mcp-conformance",
];

async fn workers() -> Arc<Router> {
    router(WORKERS.map(guest).into(), "").await
}

async fn host() -> Host {
    Host::of(workers().await, |_| {}).await
}

fn tool<'a>(list: &'a Value, name: &str) -> &'a Value {
    let mut tools = list["tools"].as_array().expect("tools").iter();
    tools
        .find(|tool| tool["name"] == name)
        .unwrap_or_else(|| panic!("no {name} in {list:#}"))
}

#[test]
fn every_capability_is_a_tool_in_both_versions() {
    run(async {
        let router = workers().await;
        let offered: usize = router.registry().snapshot().offers().count();
        let host = Host::of(router, |_| {}).await;
        let list = Client::current(&host).result("tools/list", json!({})).await;
        let session = Client::previous(&host).await;
        assert_eq!(
            session.result("tools/list", json!({})).await["tools"],
            list["tools"]
        );
        assert_eq!(list["tools"].as_array().unwrap().len(), offered);

        let greet = tool(&list, "greet-hello_world");
        assert_eq!(greet["description"], "Greets someone by name.");
        assert_eq!(greet["inputSchema"]["properties"]["name"]["maxLength"], 200);
        assert_eq!(greet["outputSchema"]["type"], "object");
        // The sandbox proves it.
        assert_eq!(
            greet["annotations"],
            json!({"readOnlyHint": true, "openWorldHint": false})
        );
        // This one calls others, of which nothing is known.
        assert_eq!(tool(&list, "stream-text_events").get("annotations"), None);
        assert_eq!(tool(&list, "test_image_content").get("outputSchema"), None);

        // What is no object is wrapped, and refers to itself from where it now stands.
        let sum = tool(&list, "sum-tree");
        assert_eq!(sum["annotations"]["idempotentHint"], true);
        let takes = |value: Value| jsonschema::is_valid(&sum["inputSchema"], &value);
        assert!(takes(json!({"value": [1, [2, [3]]]})), "{sum:#}");
        assert!(!takes(json!({"value": [1, ["x"]]})) && !takes(json!([1])));
        assert!(jsonschema::is_valid(
            &sum["outputSchema"],
            &json!({"value": 6})
        ));
    });
}

#[test]
fn json_is_structured_content_and_text() {
    run(async {
        let host = host().await;
        for client in [Client::current(&host), Client::previous(&host).await] {
            let answer = client
                .call("greet-hello_world", json!({"name": "Ada"}))
                .await;
            let greeting = json!({"greeting": "Hello, Ada!"});
            assert_eq!(answer["structuredContent"], greeting);
            let text = answer["content"][0]["text"].as_str().unwrap();
            assert_eq!(serde_json::from_str::<Value>(text).unwrap(), greeting);
            assert_eq!(answer["isError"], false);

            let answer = client
                .call("sum-tree", json!({"value": [1, [2, [3]]]}))
                .await;
            assert_eq!(answer["structuredContent"], json!({"value": 6}));
            assert_eq!(answer["content"][0]["text"], "6");
        }
    });
}

#[test]
fn bytes_are_images_sounds_or_embedded_resources() {
    run(async {
        let host = host().await;
        let client = Client::current(&host);
        let kind = async |tool: &str| client.call(tool, json!({})).await["content"][0].clone();
        assert_eq!(kind("test_simple_text").await["type"], "text");
        let image = kind("test_image_content").await;
        assert_eq!(
            (&image["type"], &image["mimeType"]),
            (&json!("image"), &json!("image/png"))
        );
        let bytes = BASE64_STANDARD
            .decode(image["data"].as_str().unwrap())
            .unwrap();
        assert!(bytes.starts_with(b"\x89PNG"));
        assert_eq!(kind("test_audio_content").await["mimeType"], "audio/wav");
        let resource = &kind("test_embedded_resource").await["resource"];
        assert_eq!(resource["blob"], BASE64_STANDARD.encode([0, 159, 146, 150]));
        assert!(resource["uri"].as_str().unwrap().starts_with("urn:uuid:"));
    });
}

#[test]
fn a_capability_without_json_takes_base64_and_typed_arguments() {
    run(async {
        let host = host().await;
        let client = Client::current(&host);
        let list = client.result("tools/list", json!({})).await;
        let schema = &tool(&list, "measure-bytes")["inputSchema"]["properties"];
        assert_eq!(
            schema["media_type"]["enum"],
            json!(["image/png", "audio/wav"])
        );

        let arguments =
            json!({"document": BASE64_STANDARD.encode("hello"), "times": 3, "words": ["a", "b"]});
        let answer = client.call("measure-bytes", arguments.clone()).await;
        let measure = json!({"bytes": 15, "words": ["a", "b"], "parameters": 3});
        assert_eq!(answer["structuredContent"], measure, "{answer:#}");

        let with = |name: &str, value: Value| {
            let mut arguments = arguments.clone();
            arguments[name] = value;
            client.call("measure-bytes", arguments)
        };
        assert_eq!(
            with("media_type", "audio/wav".into()).await["isError"],
            false
        );
        let failed = with("media_type", "text/csv".into()).await;
        assert_eq!(
            failed["structuredContent"]["code"],
            "unsupported-media-type"
        );
        for (name, value, pointer) in [
            ("document", json!("not base64!"), "/document"),
            ("document", json!(7), "/document"),
            ("times", json!("many"), "/times"),
        ] {
            let failed = with(name, value).await["structuredContent"].clone();
            assert_eq!(failed["code"], "invalid-input", "{failed:#}");
            assert_eq!(failed["errors"][0]["pointer"], pointer, "{failed:#}");
        }
    });
}

#[test]
fn a_failure_is_a_result_with_its_code() {
    run(async {
        let host = host().await;
        for client in [Client::current(&host), Client::previous(&host).await] {
            let failed = client
                .call("misbehave-fail", json!({"kind": "unavailable"}))
                .await;
            assert_eq!(failed["isError"], true);
            let told = &failed["structuredContent"];
            assert_eq!(told["code"], "unavailable");
            assert_eq!(told["message"], "not now");
            assert_eq!(told["worker_id"], "worker-hostile");
            assert_eq!(told["retry_after"], 3);
            assert_eq!(told["request_id"].as_str().unwrap().len(), 36);
            let text = failed["content"][0]["text"].as_str().unwrap();
            assert_eq!(text, "unavailable: not now\ntry again in 3 s");

            let failed = client
                .call("misbehave-fail", json!({"kind": "other"}))
                .await;
            assert_eq!(
                failed["structuredContent"]["worker_code"],
                "broken-on-demand"
            );
            let failed = client
                .call("misbehave-panic", json!({"message": "ouch"}))
                .await;
            assert_eq!(failed["structuredContent"]["code"], "trapped");

            // Faults are places in the arguments as the client sent them.
            for arguments in [json!({"value": "x"}), json!({"value": 13}), json!({})] {
                let failed =
                    client.call("sum-tree", arguments.clone()).await["structuredContent"].clone();
                assert_eq!(failed["code"], "invalid-input");
                let pointer = failed["errors"][0]["pointer"].as_str().unwrap();
                assert_eq!(pointer == "/value", arguments != json!({}), "{failed:#}");
            }

            for unknown in ["greet", "greet-nobody", "test_simple_text-test_simple_text"] {
                let told = client.ask("tools/call", json!({"name": unknown})).await;
                assert_eq!(told.answer()["error"]["code"], -32602, "{:?}", told.0);
            }
        }
    });
}

#[test]
fn events_are_progress_and_where_they_are_the_answer_it_is_whole() {
    run(async {
        let host = host().await;
        let text = "One. Two. Three. Four.";
        for client in [Client::current(&host), Client::previous(&host).await] {
            let call = async |tool: &str, token: Option<&str>| {
                let mut params = json!({"name": tool, "arguments": {"text": text}});
                if let Some(token) = token {
                    params["_meta"] = json!({"progressToken": token});
                }
                client.ask("tools/call", params).await
            };
            let silent = call("stream-sse_events", None).await;
            assert!(silent.progress().is_empty());
            let told = call("stream-sse_events", Some("t")).await;
            let whole = &told.answer()["result"]["structuredContent"]["value"];
            assert_eq!(
                whole,
                &silent.answer()["result"]["structuredContent"]["value"]
            );
            assert_eq!(
                whole[1],
                json!({"id": "2", "event": "chunk", "data": "Two."})
            );

            let progress = told.progress();
            assert_eq!(progress.len(), whole.as_array().unwrap().len());
            for (place, told) in progress.iter().enumerate() {
                assert_eq!(told["progressToken"], "t");
                assert_eq!(told["progress"].as_f64(), Some(place as f64 + 1.0));
                assert_eq!(told["message"], whole[place]["data"]);
            }
            let counted = call("stream-text_events", Some("u")).await;
            assert_eq!(counted.progress().len(), progress.len());
            assert_eq!(counted.answer()["result"]["structuredContent"]["chunks"], 4);
        }
    });
}

#[test]
fn cancelling_or_leaving_ends_the_sandbox() {
    run(async {
        let router = workers().await;
        let host = Host::of(router.clone(), |_| {}).await;
        let busy = || {
            let snapshot = router.registry().snapshot();
            snapshot
                .workers()
                .iter()
                .map(|worker| worker.observed().in_flight)
                .sum::<usize>()
        };
        let becomes = async |count: usize| {
            let began = Instant::now();
            while busy() != count {
                assert!(
                    began.elapsed() < Duration::from_secs(10),
                    "{} in flight",
                    busy()
                );
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        let forever = json!({"name": "misbehave-loop_forever", "arguments": {}});

        let session = Client::previous(&host).await;
        let running = session.send(77, "tools/call", forever.clone()).await;
        becomes(1).await;
        session
            .notify("notifications/cancelled", json!({"requestId": 77}))
            .await;
        becomes(0).await;
        drop(running);

        let running = session.send(78, "tools/call", forever.clone()).await;
        becomes(1).await;
        drop(running);
        becomes(0).await;

        let _running = session.send(79, "tools/call", forever.clone()).await;
        becomes(1).await;
        assert_eq!(session.close().await, 204);
        becomes(0).await;
        assert_eq!(
            session.notify("notifications/initialized", json!({})).await,
            404
        );

        let client = Client::current(&host);
        let calling = async {
            tokio::select! {
                _ = client.send(1, "tools/call", forever) => panic!("it has no answer"),
                () = becomes(1) => {}
            }
        };
        calling.await;
        becomes(0).await;
    });
}

/// Puts another worker in the place of those that there are.
async fn replace(router: &Router, name: &str) {
    let workers = load(vec![guest(name)], "").await.workers().to_vec();
    let refused = Vec::new();
    router.registry().replace_local(Local {
        workers,
        refused,
        ..Local::default()
    });
}

#[test]
fn clients_are_told_when_the_tools_change_and_only_then() {
    run(async {
        let router = router(vec![guest("hello-world")], "").await;
        let host = Host::of(router.clone(), |_| {}).await;
        let session = Client::previous(&host).await;
        let mut told = session.open().await;
        let listening = json!({"notifications": {"toolsListChanged": true}});
        let client = Client::current(&host);
        let mut listened = client.send(9, "subscriptions/listen", listening).await;
        until(&mut listened, "notifications/subscriptions/acknowledged").await;

        // The same tools again are no change.
        replace(&router, "hello-world").await;
        tokio::time::sleep(Duration::from_millis(100)).await;
        replace(&router, "mcp-conformance").await;
        until(&mut told, "notifications/tools/list_changed").await;
        let message = until(&mut listened, "notifications/tools/list_changed").await;
        assert_eq!(
            message["params"]["_meta"]["io.modelcontextprotocol/subscriptionId"],
            9
        );
        let list = session.result("tools/list", json!({})).await;
        tool(&list, "test_simple_text");
        let quiet = tokio::time::timeout(Duration::from_millis(100), listened.chunk()).await;
        assert!(quiet.is_err(), "told twice: {quiet:?}");
    });
}

#[test]
fn each_capability_has_a_page() {
    run(async {
        let host = host().await;
        let client = Client::current(&host);
        let list = client.result("resources/list", json!({})).await;
        let uri = "crank://capabilities/greet/hello_world";
        let resources = list["resources"].as_array().unwrap();
        assert!(
            resources.iter().any(|resource| resource["uri"] == uri),
            "{list:#}"
        );
        let templates = client.result("resources/templates/list", json!({})).await;
        let template = &templates["resourceTemplates"][0]["uriTemplate"];
        assert_eq!(template, "crank://capabilities/{verb}/{name}");

        let read = client.result("resources/read", json!({"uri": uri})).await;
        let page = read["contents"][0]["text"].as_str().unwrap();
        for part in [
            "# greet:hello_world 1.0.0",
            "* tool: `greet-hello_world`",
            "\"maxLength\": 200",
            "{\"name\": \"Ada\"}",
            "* memory: ",
            "\"latency_p95_ms\": 100",
        ] {
            assert!(page.contains(part), "no {part:?} in {page}");
        }
        let uri = "crank://capabilities/greet/nobody";
        let told = client.ask("resources/read", json!({"uri": uri})).await;
        assert_eq!(told.answer()["error"]["code"], -32602);
        assert_eq!(told.answer()["error"]["data"]["uri"], uri);
    });
}

#[test]
fn the_door_and_the_caps_are_those_of_every_route() {
    run(async {
        let host = Host::of(workers().await, |settings| settings.input_bytes = 2000).await;
        let post = || {
            let accept = "application/json, text/event-stream";
            host.client.post(host.url("/mcp")).header("accept", accept)
        };
        let list = json!({"jsonrpc": "2.0", "id": 1, "method": "tools/list"});
        let foreign = post()
            .header("origin", "https://evil.example")
            .json(&list)
            .send()
            .await
            .unwrap();
        assert_eq!(foreign.status(), 403);
        assert_eq!(foreign.json::<Value>().await.unwrap()["code"], "denied");
        let rebound = post()
            .header("host", "evil.example")
            .json(&list)
            .send()
            .await
            .unwrap();
        assert_eq!(rebound.status(), 403);
        let large = post()
            .json(&json!({"pad": "x".repeat(2000)}))
            .send()
            .await
            .unwrap();
        assert_eq!(large.status(), 413);
        let session = Client::previous(&host).await;
        assert!(session.result("tools/list", json!({})).await["tools"].is_array());
        let put = host.client.put(host.url("/mcp")).send().await.unwrap();
        assert_eq!(put.status(), 405);
    });
}

#[test]
fn the_session_that_was_used_longest_ago_makes_room() {
    run(async {
        let host = Host::of(router(vec![guest("hello-world")], "").await, |_| {}).await;
        let first = Client::previous(&host).await;
        let second = Client::previous(&host).await;
        for _ in 2..256 {
            Client::previous(&host).await;
        }
        first.result("tools/list", json!({})).await;
        Client::previous(&host).await;
        assert_eq!(
            second.notify("notifications/initialized", json!({})).await,
            404
        );
        assert_eq!(
            first.notify("notifications/initialized", json!({})).await,
            202
        );
    });
}

#[test]
fn a_host_that_stops_waits_for_no_reader() {
    run(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let addr = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let settings = api::Settings::from(&*config(""));
        let stopped = async { drop(stopped.await) };
        let serving = api::serve(listener, workers().await, settings, stopped);
        let serving = tokio::spawn(serving);
        // Only its client and its address are used.
        let mut host = host().await;
        host.addr = addr;
        let session = Client::previous(&host).await;
        let _told = session.open().await;
        let listening = json!({"notifications": {"toolsListChanged": true}});
        let client = Client::current(&host);
        let _listened = client.send(9, "subscriptions/listen", listening).await;
        stop.send(()).unwrap();
        let ended = tokio::time::timeout(Duration::from_secs(5), serving).await;
        ended.expect("it waits for nobody").unwrap().unwrap();
    });
}

#[test]
fn over_standard_input_and_output_there_is_the_protocol_and_nothing_else() {
    let workers = dir();
    std::fs::copy(
        guest("hello-world"),
        workers.path().join("hello-world.wasm"),
    )
    .unwrap();
    std::fs::write(workers.path().join("broken.wasm"), "no component").unwrap();
    for version in [PREVIOUS, CURRENT] {
        let mut child = crank(&["mcp", workers.path().to_str().unwrap()])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let client = json!({"name": "test", "version": "1"});
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientInfo": client,
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let meta = if version == CURRENT { meta } else { json!({}) };
        let mut ask = |id: u64, method: &str, mut params: Value| -> Value {
            if method != "initialize" {
                params["_meta"] = meta.clone();
            }
            let message = json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params});
            writeln!(stdin, "{message}").unwrap();
            let answer: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
            assert_eq!(answer["id"], id);
            answer["result"].clone()
        };
        if version == PREVIOUS {
            let info =
                json!({"protocolVersion": version, "capabilities": {}, "clientInfo": client});
            assert_eq!(ask(0, "initialize", info)["serverInfo"]["name"], "crank");
        } else {
            let versions = &ask(0, "server/discover", json!({}))["supportedVersions"];
            assert!(
                versions.as_array().unwrap().contains(&json!(CURRENT)),
                "{versions}"
            );
        }
        let list = ask(1, "tools/list", json!({}));
        assert_eq!(list["tools"][0]["name"], "greet-hello_world");
        let call = json!({"name": "greet-hello_world", "arguments": {"name": "Ada"}});
        assert_eq!(
            ask(2, "tools/call", call)["structuredContent"]["greeting"],
            "Hello, Ada!"
        );
        drop(stdin);
        assert_eq!(lines.next().map(Result::unwrap), None);
        let output = child.wait_with_output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let log = String::from_utf8(output.stderr).unwrap();
        assert!(log.contains("broken.wasm"), "{log}");
    }
}

#[test]
fn what_is_no_message_of_the_protocol_is_an_error_and_no_crash() {
    run(async {
        let host = host().await;
        let post = |body: &'static str| {
            let accept = "application/json, text/event-stream";
            let request = host.client.post(host.url("/mcp")).header("accept", accept);
            request
                .header("content-type", "application/json")
                .body(body)
                .send()
        };
        for body in [
            "",
            "{",
            "[]",
            "{\"jsonrpc\": \"2.0\"}",
            "\"x\"",
            "{\"jsonrpc\":\"2.0\",\"id\":1,\"method\":\"tools/call\"}",
        ] {
            let status = post(body).await.unwrap().status();
            assert!(status.is_client_error(), "{body:?}: {status}");
        }
        let told = Told::read(Client::current(&host).send(1, "no/such", json!({})).await).await;
        assert_eq!(told.answer()["error"]["code"], -32601);
    });
}
