//! What a caller of the HTTP interface sees.

use std::time::{Duration, Instant};

use crank::api::status;
use crank::error::Code;
use reqwest::{Method, Response, StatusCode};
use serde_json::{Value, json};

use crate::support::{CONVERSIONS, Host};

/// The problem document of an answer, whose status, code and id must agree.
async fn problem(response: Response) -> Value {
    let status = response.status();
    let id = response.headers()["crank-request-id"].clone();
    assert_eq!(
        response.headers()["content-type"],
        "application/problem+json"
    );
    assert_eq!(response.headers()["x-content-type-options"], "nosniff");
    let problem: Value = response.json().await.unwrap();
    assert_eq!(problem["status"], status.as_u16());
    assert_eq!(
        problem["type"],
        format!("urn:crank:problem:{}", problem["code"].as_str().unwrap())
    );
    assert_eq!(problem["request_id"], id.to_str().unwrap());
    problem
}

/// Posts to a route and answers the status and the problem's code.
async fn refused(host: &Host, route: &str, body: impl Into<reqwest::Body>) -> (u16, String) {
    let response = host
        .client
        .post(host.url(route))
        .body(body)
        .send()
        .await
        .unwrap();
    let status = response.status().as_u16();
    (
        status,
        problem(response).await["code"].as_str().unwrap().to_owned(),
    )
}

/// The status line and the code of what comes back on a raw connection.
fn raw_answer(bytes: &[u8]) -> (u16, String) {
    let text = String::from_utf8_lossy(bytes);
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok())
        .unwrap_or_default();
    let body = text.split("\r\n\r\n").nth(1).unwrap_or_default();
    let problem: Value = serde_json::from_str(body).unwrap_or_default();
    (
        status,
        problem["code"].as_str().unwrap_or_default().to_owned(),
    )
}

fn is(status: u16, code: &str) -> (u16, String) {
    (status, code.to_owned())
}

async fn in_flight(host: &Host) -> u64 {
    let view: Value = host
        .client
        .get(host.url("/workers"))
        .send()
        .await
        .unwrap()
        .json()
        .await
        .unwrap();
    view["workers"]
        .as_array()
        .unwrap()
        .iter()
        .map(|worker| worker["in_flight"].as_u64().unwrap())
        .sum()
}

/// Waits until so many invocations are in flight.
async fn until_in_flight(host: &Host, count: u64) {
    let began = Instant::now();
    while in_flight(host).await != count {
        assert!(
            began.elapsed() < Duration::from_secs(10),
            "never {count} in flight"
        );
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_is_the_payload_and_says_who_gave_it() {
    let host = Host::start(|_| {}).await;
    for route in [
        "/invoke/greet/hello_world",
        "/invoke/greet",
        "/invoke/greet?version=^1",
    ] {
        let sent = host
            .client
            .post(host.url(route))
            .json(&json!({"name": "Ada"}))
            .send()
            .await
            .unwrap();
        assert_eq!(sent.status(), StatusCode::OK);
        let headers = sent.headers();
        assert_eq!(headers["content-type"], "application/json");
        assert_eq!(headers["crank-worker"], "worker-hello-world");
        assert!(headers.contains_key("crank-cold") && headers.contains_key("crank-request-id"));
        let timing = headers["server-timing"].to_str().unwrap();
        for part in [
            "start;dur=",
            "run;dur=",
            "cpu;dur=",
            "memory;desc=",
            "storage;desc=",
        ] {
            assert!(timing.contains(part), "{timing}");
        }
        assert_eq!(
            sent.json::<Value>().await.unwrap(),
            json!({"greeting": "Hello, Ada!"})
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_input_that_will_not_do_is_refused_with_its_own_status() {
    let host = Host::start(|settings| settings.input_bytes = 4096).await;
    let greet = "/invoke/greet/hello_world";
    assert_eq!(
        refused(&host, greet, "{name").await,
        is(400, "invalid-request")
    );
    assert_eq!(
        refused(&host, greet, r#"{"name": 1}"#).await,
        is(422, "invalid-input")
    );
    assert_eq!(refused(&host, greet, "{}").await, is(422, "invalid-input"));
    assert_eq!(
        refused(&host, "/invoke/greet/nobody", "{}").await,
        is(404, "unknown-capability")
    );
    assert_eq!(
        refused(&host, "/invoke/fly", "{}").await,
        is(404, "unknown-capability")
    );
    assert_eq!(
        refused(&host, "/invoke/greet?version=^7", "{}").await,
        is(404, "unknown-capability")
    );
    assert_eq!(
        refused(&host, "/invoke/greet?version=x.y", "{}").await,
        is(400, "invalid-request")
    );
    assert_eq!(
        refused(&host, "/invoke/convert", "{}").await,
        is(400, "ambiguous-capability")
    );
    assert_eq!(
        refused(&host, greet, vec![b' '; 4097]).await,
        is(413, "too-large")
    );

    let places = async |body: Value| {
        let sent = host
            .client
            .post(host.url(greet))
            .json(&body)
            .send()
            .await
            .unwrap();
        problem(sent).await["errors"].clone()
    };
    assert_eq!(places(json!({"name": 1})).await[0]["pointer"], "/name");
    let missing = places(json!({})).await;
    assert_eq!(missing[0]["pointer"], "");
    assert!(
        missing[0]["detail"].as_str().unwrap().contains("name"),
        "{missing}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_header_that_promises_what_is_not_kept_is_refused() {
    let host = Host::start(|_| {}).await;
    let sent = async |name: &str, value: &str| {
        // Before the body, whose content type would else stand beside this one.
        let request = host
            .client
            .post(host.url("/invoke/greet"))
            .header(name, value);
        request.json(&json!({"name": "Ada"})).send().await.unwrap()
    };
    for (name, value) in [
        ("idempotency-key", "a b"),
        ("crank-max-cost", "-1"),
        ("crank-explain", "true"),
        ("crank-timeout", "5"),
        ("crank-timeout-ms", "0"),
        ("crank-timeout-ms", "5s"),
    ] {
        assert_eq!(
            problem(sent(name, value).await).await["code"],
            "invalid-request",
            "{name}: {value}"
        );
    }
    assert_eq!(
        problem(sent("content-encoding", "gzip").await).await["code"],
        "unsupported-media-type"
    );
    assert_eq!(
        problem(sent("content-type", "text/css").await).await["code"],
        "unsupported-media-type"
    );
    assert_eq!(
        sent("traceparent", "nonsense").await.status(),
        StatusCode::OK
    );
    assert_eq!(
        sent("crank-timeout-ms", "5000").await.status(),
        StatusCode::OK
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_timeout_of_the_caller_lowers_the_deadline() {
    let host = Host::start(|_| {}).await;
    let request = host
        .client
        .post(host.url("/invoke/misbehave/loop_forever"))
        .json(&json!({}));
    let sent = request
        .header("crank-timeout-ms", "200")
        .send()
        .await
        .unwrap();
    let problem = problem(sent).await;
    assert_eq!(
        (&problem["status"], &problem["code"]),
        (&json!(504), &json!("deadline"))
    );
    assert_eq!(problem["worker_id"], "worker-hostile");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_that_says_not_now_says_when() {
    let host = Host::start(|_| {}).await;
    let body = json!({"kind": "unavailable"});
    let sent = host
        .client
        .post(host.url("/invoke/misbehave/fail"))
        .json(&body)
        .send()
        .await
        .unwrap();
    assert_eq!(sent.headers()["retry-after"], "3", "2.5 s, rounded up");
    assert_eq!(problem(sent).await["code"], "unavailable");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_foreign_host_or_origin_is_denied() {
    let host = Host::start(|settings| {
        settings.allowed_hosts = vec!["crank.example".to_owned()];
        settings.allowed_origins = vec!["https://app.example".to_owned()];
    })
    .await;
    let own = format!("http://{}", host.addr);
    for (name, value, allowed) in [
        ("host", "localhost", true),
        ("host", "localhost:1", true),
        ("host", "127.8.9.10:80", true),
        ("host", "[::1]:80", true),
        ("host", "Crank.Example:99", true),
        ("host", "evil.example", false),
        ("host", "localhost.evil.example", false),
        ("host", "evil@localhost", false),
        ("origin", &own, true),
        ("origin", "https://app.example", true),
        ("origin", "http://localhost:1", false),
        ("origin", "https://evil.example", false),
        ("origin", "null", false),
    ] {
        let sent = host
            .client
            .get(host.url("/healthz"))
            .header(name, value)
            .send()
            .await
            .unwrap();
        if allowed {
            assert_eq!(sent.status(), StatusCode::OK, "{name}: {value}");
            let may_read = (name, value) == ("origin", "https://app.example");
            assert_eq!(
                sent.headers().contains_key("access-control-allow-origin"),
                may_read
            );
        } else {
            let problem = problem(sent).await;
            assert_eq!(
                (&problem["status"], &problem["code"]),
                (&json!(403), &json!("denied")),
                "{value}"
            );
            assert!(
                problem["detail"]
                    .as_str()
                    .unwrap()
                    .contains(&format!("allowed_{name}s")),
                "{problem}"
            );
        }
    }
    let none = host
        .raw(b"GET /healthz HTTP/1.1\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(raw_answer(&none), is(400, "invalid-request"));
    let target = host
        .raw(b"GET http://evil/healthz HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .await;
    assert_eq!(raw_answer(&target), is(403, "denied"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_head_that_is_too_large_is_refused_with_a_problem() {
    let host =
        Host::start(|settings| (settings.header_bytes, settings.uri_bytes) = (2048, 1024)).await;
    let sent = async |path: &str, headers: &str| {
        let request =
            format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n{headers}\r\n");
        raw_answer(&host.raw(request.as_bytes()).await)
    };
    assert_eq!(
        sent("/healthz", &format!("x: {}\r\n", "a".repeat(1900)))
            .await
            .0,
        200
    );
    assert_eq!(
        sent("/healthz", &format!("x: {}\r\n", "a".repeat(2048))).await,
        is(431, "headers-too-large")
    );
    assert_eq!(
        sent("/healthz", &"x: a\r\n".repeat(70)).await,
        is(431, "headers-too-large")
    );
    assert_eq!(
        sent(&format!("/{}", "a".repeat(1000)), "").await,
        is(404, "not-found")
    );
    assert_eq!(
        sent(&format!("/{}", "a".repeat(1024)), "").await,
        is(414, "uri-too-long")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_body_that_is_too_large_is_refused_however_it_comes() {
    let host = Host::start(|settings| settings.input_bytes = 64 << 10).await;
    let head = "POST /invoke/greet HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n";
    let announced = format!("{head}content-length: 1000000000\r\n\r\n");
    assert_eq!(
        raw_answer(&host.raw(announced.as_bytes()).await),
        is(413, "too-large")
    );
    // Four megabytes that nobody wants: the answer must arrive all the same.
    let chunk = format!("10000\r\n{}\r\n", "x".repeat(0x10000));
    let chunked = format!(
        "{head}transfer-encoding: chunked\r\n\r\n{}0\r\n\r\n",
        chunk.repeat(64)
    );
    assert_eq!(
        raw_answer(&host.raw(chunked.as_bytes()).await),
        is(413, "too-large")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn slow_clients_time_out() {
    let host = Host::start(|settings| {
        settings.header_timeout = Duration::from_millis(300);
        settings.body_timeout = Duration::from_millis(300);
    })
    .await;
    for head in ["", "P", "GET /healthz HTTP/1.1\r\nho"] {
        assert_eq!(
            host.raw(head.as_bytes()).await,
            b"",
            "{head:?} is cut without an answer"
        );
    }
    let body = b"POST /invoke/greet HTTP/1.1\r\nhost: localhost\r\ncontent-length: 10\r\n\r\n{";
    assert_eq!(
        raw_answer(&host.raw(body).await),
        is(408, "request-timeout")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn unknown_routes_and_methods_are_problems_and_head_works() {
    let host = Host::start(|_| {}).await;
    let sent = async |method: Method, path: &str| {
        host.client
            .request(method, host.url(path))
            .send()
            .await
            .unwrap()
    };
    assert_eq!(
        problem(sent(Method::GET, "/nowhere").await).await["code"],
        "not-found"
    );
    assert_eq!(
        problem(sent(Method::POST, "/invoke/%FF/x").await).await["code"],
        "invalid-request"
    );
    for (method, path, allow) in [
        (Method::GET, "/invoke/greet", "POST"),
        (Method::POST, "/workers", "GET,HEAD"),
    ] {
        let answer = sent(method, path).await;
        assert_eq!(answer.headers()["allow"], allow);
        assert_eq!(problem(answer).await["code"], "method-not-allowed");
    }
    for path in ["/healthz", "/readyz", "/capabilities", "/workers"] {
        assert_eq!(sent(Method::GET, path).await.status(), StatusCode::OK);
        let head = sent(Method::HEAD, path).await;
        assert_eq!(head.status(), StatusCode::OK);
        assert_ne!(head.headers()["content-length"], "0");
        assert!(head.bytes().await.unwrap().is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn capabilities_can_be_filtered() {
    let host = Host::start(|_| {}).await;
    let ask = async |query: &str| {
        host.client
            .get(host.url(&format!("/capabilities?{query}")))
            .send()
            .await
            .unwrap()
    };
    let names = async |query: &str| {
        let listed: Value = ask(query).await.json().await.unwrap();
        let mut names: Vec<String> = listed["capabilities"]
            .as_array()
            .unwrap()
            .iter()
            .map(|capability| capability["name"].as_str().unwrap().to_owned())
            .collect();
        names.sort();
        names
    };
    assert_eq!(names("verb=convert").await, CONVERSIONS);
    assert_eq!(
        names("verb=convert&name=pdf_to_text").await,
        ["pdf_to_text"]
    );
    assert_eq!(
        names("verb=greet&version=^1&max_latency_p95=100").await,
        ["hello_world"]
    );
    assert!(names("verb=greet&max_latency_p95=99").await.is_empty());
    assert!(names("verb=greet&version=^2").await.is_empty());
    for query in ["verbs=greet", "verb=a&verb=b", "max_latency_p95=fast"] {
        assert_eq!(
            problem(ask(query).await).await["code"],
            "invalid-request",
            "{query}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn events_come_before_the_result_and_a_failure_before_them_is_plain() {
    let host = Host::start(|_| {}).await;
    let stream = async |body: Value| {
        let request = host
            .client
            .post(host.url("/invoke/misbehave/send_events"))
            .json(&body);
        request
            .header("accept", "text/event-stream")
            .send()
            .await
            .unwrap()
    };
    let answer = stream(json!({"count": 2, "event": "note", "bytes": 3})).await;
    assert_eq!(answer.headers()["content-type"], "text/event-stream");
    let expected =
        "event: note\ndata: xxx\n\nevent: note\ndata: xxx\n\nevent: result\ndata: {\"done\":2}\n\n";
    assert_eq!(answer.text().await.unwrap(), expected);
    assert_eq!(
        problem(stream(json!({"count": "two"})).await).await["code"],
        "invalid-input"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_who_hangs_up_ends_the_invocation() {
    let host = Host::start(|_| {}).await;
    let endless = json!({"count": u32::MAX, "event": "note", "bytes": 1000});
    for (name, body) in [("loop_forever", json!({})), ("send_events", endless)] {
        for accept in ["application/json", "text/event-stream"] {
            let request = host
                .client
                .post(host.url(&format!("/invoke/misbehave/{name}")))
                .json(&body);
            let call = tokio::spawn(request.header("accept", accept).send());
            until_in_flight(&host, 1).await;
            // The head of a stream may have come already; then this drops the answer, unread.
            call.abort();
            drop(call.await);
            let began = Instant::now();
            until_in_flight(&host, 0).await;
            assert!(
                began.elapsed() < Duration::from_secs(5),
                "{name} as {accept} ended long before its deadline"
            );
        }
    }
}

#[test]
fn docs_name_every_failure_code_with_its_status() {
    let docs = include_str!("../../docs/errors.md");
    let mut sections = docs.split("\n## ").skip(1);
    for code in Code::ALL {
        let section = sections.next().unwrap_or_default();
        let head = format!("{code}\n\n**HTTP {} · ", status(code).as_u16());
        assert!(
            section.starts_with(&head),
            "docs/errors.md wants a section {head:?}"
        );
    }
    assert_eq!(
        sections.next(),
        None,
        "docs/errors.md has a section that is no code"
    );
}
