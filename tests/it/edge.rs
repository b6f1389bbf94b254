//! The edge of the host: what one caller may ask, what every answer says, and requests of unclear length.

use std::time::Duration;

use reqwest::Method;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::{Host, guest, router, run};

#[test]
fn a_caller_beyond_its_rate_is_told_when_to_come_back() {
    run(async {
        let host = Host::start(|settings| {
            (settings.caller_rate, settings.caller_burst) = (1, 5);
        })
        .await;
        let mut refused = 0;
        for _ in 0..10 {
            let answer = host.get("/capabilities").await;
            if answer.status() == 200 {
                continue;
            }
            assert_eq!(answer.status(), 429);
            let wait: u64 = answer.headers()["retry-after"]
                .to_str()
                .unwrap()
                .parse()
                .unwrap();
            assert!((1..=2).contains(&wait), "{wait}");
            let problem: Value = answer.json().await.unwrap();
            assert_eq!(problem["code"], "rate-limited");
            assert_eq!(problem["retry_after"], wait);
            refused += 1;
        }
        assert!((3..=5).contains(&refused), "{refused}");
        // What watches the host is no caller.
        assert_eq!(host.get("/healthz").await.status(), 200);
        tokio::time::sleep(Duration::from_millis(1100)).await;
        assert_eq!(host.get("/capabilities").await.status(), 200);
    });
}

#[test]
fn a_caller_has_so_many_requests_under_way_and_a_stream_is_one_until_it_ends() {
    run(async {
        let host = Host::start(|settings| settings.caller_concurrency = 1).await;
        let events = host
            .client
            .post(host.url("/invoke/misbehave/send_events"))
            .header("accept", "text/event-stream")
            .json(&json!({"count": u32::MAX, "event": "note", "bytes": 1000}));
        let stream = events.send().await.unwrap();
        assert_eq!(stream.status(), 200);
        let refused = host.get("/workers").await;
        assert_eq!(refused.status(), 429);
        assert_eq!(refused.headers()["retry-after"], "1");
        drop(stream);
        let began = std::time::Instant::now();
        while host.get("/workers").await.status() != 200 {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "its turn never came back"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn one_address_holds_so_many_connections_and_no_more() {
    run(async {
        let router = router(vec![guest("hello-world")], "").await;
        let host = Host::of(router, |settings| settings.address_connections = 3).await;
        let open = async || {
            let mut stream = TcpStream::connect(host.addr).await.unwrap();
            let probe = b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
            // A connection that is closed already may take what is written, or not.
            let _ = stream.write_all(probe).await;
            let mut answer = [0; 12];
            let answered = stream.read_exact(&mut answer).await.is_ok();
            answered.then_some(stream)
        };
        let mut held = Vec::new();
        for _ in 0..3 {
            held.push(open().await.expect("there is room"));
        }
        assert!(open().await.is_none(), "one too many");
        held.pop();
        let began = std::time::Instant::now();
        while open().await.is_none() {
            assert!(
                began.elapsed() < Duration::from_secs(10),
                "its place never came back"
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    });
}

#[test]
fn every_answer_keeps_browsers_and_caches_from_it() {
    run(async {
        let host = Host::start(|_| {}).await;
        for (method, path) in [
            (Method::GET, "/capabilities"),
            (Method::GET, "/workers"),
            (Method::GET, "/openapi.json"),
            (Method::GET, "/docs/"),
            (Method::GET, "/docs/swagger-ui.css"),
            (Method::GET, "/nowhere"),
            (Method::PUT, "/workers"),
            (Method::POST, "/invoke/greet"),
            (Method::POST, "/mcp"),
            (Method::OPTIONS, "/invoke/greet"),
        ] {
            let request = host.client.request(method.clone(), host.url(path));
            let answer = request.send().await.unwrap();
            let header = |name: &str| {
                let value = answer.headers().get(name);
                value.map_or("", |value| value.to_str().unwrap()).to_owned()
            };
            let docs = path.starts_with("/docs");
            assert_eq!(
                header("x-content-type-options"),
                "nosniff",
                "{method} {path}"
            );
            assert_eq!(
                header("cache-control"),
                if docs { "no-cache" } else { "no-store" }
            );
            assert_eq!(header("referrer-policy"), "no-referrer");
            assert_eq!(header("x-frame-options"), "DENY");
            let policy = header("content-security-policy");
            assert!(
                policy.contains("frame-ancestors 'none'"),
                "{path}: {policy}"
            );
            assert!(
                !policy.contains("http") && !policy.contains('*'),
                "{path}: {policy}"
            );
            assert!(docs || policy.contains("default-src 'none'"));
            for absent in ["server", "x-powered-by", "access-control-allow-origin"] {
                assert_eq!(header(absent), "", "{method} {path}");
            }
        }
    });
}

/// Every kind of failure that a caller can bring about.
#[test]
fn no_failure_tells_a_version_or_a_path_of_the_machine() {
    run(async {
        let host = Host::start(|settings| settings.input_bytes = 4096).await;
        let post = |route: &str, body: &str| {
            let request = host.client.post(host.url(&format!("/invoke/{route}")));
            let request = request.header("content-type", "application/json");
            request.body(body.to_owned())
        };
        let mut answers = Vec::new();
        for (route, body) in [
            ("greet/hello_world", "{"),
            ("greet/hello_world", "{}"),
            ("greet/nobody", "{}"),
            ("%FF/x", "{}"),
            ("convert", "{}"),
            ("greet?version=x", "{}"),
            ("misbehave/panic", r#"{"message": "x"}"#),
            ("misbehave/recurse", r#"{"count": 4294967295}"#),
            ("misbehave/take_memory", r#"{"mb": 1000}"#),
            ("misbehave/return_bytes", r#"{"mb": 40}"#),
            ("misbehave/return_html", "{}"),
            ("misbehave/return_text", r#"{"message": "{"}"#),
            ("misbehave/break_schema", r#"{"count": 0}"#),
            ("misbehave/fail", r#"{"kind": "failed"}"#),
            ("misbehave/fail", r#"{"kind": "unavailable"}"#),
        ] {
            answers.push(post(route, body).send().await.unwrap());
        }
        let greet = || post("greet", r#"{"name": "Ada"}"#);
        for (name, value) in [
            ("idempotency-key", "k"),
            ("crank-nonsense", "1"),
            ("crank-timeout-ms", "x"),
            ("last-event-id", "1"),
            ("host", "evil.example"),
            ("origin", "https://evil.example"),
            ("content-encoding", "gzip"),
        ] {
            answers.push(greet().header(name, value).send().await.unwrap());
        }
        let looping = post("misbehave/loop_forever", "{}").header("crank-timeout-ms", "50");
        answers.push(looping.send().await.unwrap());
        answers.push(post("greet", &"x".repeat(5000)).send().await.unwrap());
        for (method, path, body) in [
            (Method::GET, "/nowhere", ""),
            (Method::GET, "/docs/nowhere", ""),
            (Method::DELETE, "/workers", ""),
            (Method::GET, "/capabilities?x=1", ""),
            (Method::GET, "/explain/nobody", ""),
            (Method::POST, "/register", "{}"),
            (Method::POST, "/register", "nonsense"),
            (Method::DELETE, "/register/nobody", ""),
            (Method::POST, "/mcp", "nonsense"),
        ] {
            let request = host.client.request(method, host.url(path));
            answers.push(request.body(body).send().await.unwrap());
        }
        let home = std::env::var("HOME").unwrap_or_else(|_| "/root".to_owned());
        let told = [
            env!("CARGO_MANIFEST_DIR"),
            env!("CARGO_TARGET_TMPDIR"),
            env!("CARGO_PKG_VERSION"),
            std::env::temp_dir().to_str().unwrap(),
            home.as_str(),
            ".rs:",
            "/src/",
            "wasmtime",
            "hyper",
        ]
        .map(str::to_owned);
        let mut codes = std::collections::BTreeSet::new();
        for answer in answers {
            assert!(!answer.status().is_success(), "{answer:?}");
            let head = format!("{:?}", answer.headers());
            let body = answer.text().await.unwrap();
            if let Ok(problem) = serde_json::from_str::<Value>(&body) {
                codes.extend(problem["code"].as_str().map(str::to_owned));
            }
            for told in &told {
                assert!(
                    !head.contains(told) && !body.contains(told),
                    "{told:?} in {head} {body}"
                );
            }
        }
        assert!(codes.len() >= 15, "{codes:?}");
    });
}

/// What the host answers to bytes on one connection, until it closes that: the status of each answer.
async fn statuses(host: &Host, bytes: &str) -> Vec<u16> {
    let mut stream = TcpStream::connect(host.addr).await.unwrap();
    let _closed_already = stream.write_all(bytes.as_bytes()).await;
    let mut answer = Vec::new();
    let read = stream.read_to_end(&mut answer);
    // Well beyond the host's own time limits for heads and bodies.
    tokio::time::timeout(Duration::from_secs(20), read)
        .await
        .expect("the connection ends")
        .unwrap_or_default();
    let text = String::from_utf8_lossy(&answer);
    text.match_indices("HTTP/1.1 ")
        .filter_map(|(at, _)| text.get(at + 9..at + 12)?.parse().ok())
        .collect()
}

/// Each of these may be read in two ways; a proxy before the host may read it in the other. So the second
/// request, which is one only in one of them, must not be answered.
#[test]
fn a_request_of_unclear_length_is_the_last_of_its_connection() {
    run(async {
        let host = Host::start(|settings| {
            settings.header_timeout = Duration::from_millis(1500);
            settings.body_timeout = Duration::from_millis(1500);
        })
        .await;
        let next = "GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n";
        let body = "{\"name\":\"Ada\"}";
        let chunked = format!("{:x}\r\n{body}\r\n0\r\n\r\n", body.len());
        let sent = async |fields: &str, body: &str| {
            let head =
                "POST /invoke/greet HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json";
            statuses(&host, &format!("{head}\r\n{fields}\r\n\r\n{body}{next}")).await
        };
        // As it should be: both are answered.
        let length = format!("content-length: {}", body.len());
        assert_eq!(sent(&length, body).await, [200, 200]);
        // Chunked alone, and with a length that is not read: answered, and the last.
        assert_eq!(sent("transfer-encoding: chunked", &chunked).await, [200]);
        for fields in [
            format!(
                "content-length: {}\r\ntransfer-encoding: chunked",
                chunked.len()
            ),
            format!(
                "transfer-encoding: chunked\r\ncontent-length: {}",
                body.len()
            ),
            "content-length: 0\r\ntransfer-encoding: chunked".to_owned(),
        ] {
            assert_eq!(sent(&fields, &chunked).await, [200], "{fields}");
        }
        for (fields, body) in [
            // Two lengths.
            (format!("{length}\r\ncontent-length: 0"), body),
            (format!("{length}, 0"), body),
            // A length that is none.
            ("content-length: +14".to_owned(), body),
            ("content-length: 0xe".to_owned(), body),
            ("content-length: -1".to_owned(), body),
            // Lines that are folded, a name before a space, no colon.
            (format!("{length}\r\nx: a\r\n b"), body),
            (format!("{length}\r\ntransfer-encoding : chunked"), body),
            (format!("{length}\r\n transfer-encoding: chunked"), body),
            (format!("{length}\r\nnonsense"), body),
            // An encoding whose end is not chunked.
            ("transfer-encoding: gzip".to_owned(), body),
            (
                "transfer-encoding: chunked, identity".to_owned(),
                chunked.as_str(),
            ),
            // Chunks that are none.
            (
                "transfer-encoding: chunked".to_owned(),
                "-1\r\nx\r\n0\r\n\r\n",
            ),
            (
                "transfer-encoding: chunked".to_owned(),
                "0x1\r\nx\r\n0\r\n\r\n",
            ),
            (
                "transfer-encoding: chunked".to_owned(),
                "ffffffffffffffffff\r\nx\r\n0\r\n\r\n",
            ),
            (
                "transfer-encoding: chunked".to_owned(),
                "1\r\nxx\r\n0\r\n\r\n",
            ),
        ] {
            let answered = sent(&fields, body).await;
            assert!(
                matches!(answered[..], [] | [400] | [408] | [413]),
                "{fields} {body}: {answered:?}"
            );
        }
        // The old protocol has no chunks.
        let old = format!(
            "POST /invoke/greet HTTP/1.0\r\nhost: localhost\r\ntransfer-encoding: chunked\r\n\r\n{chunked}{next}"
        );
        assert!(matches!(statuses(&host, &old).await[..], [] | [400]));
    });
}

#[test]
fn no_page_from_elsewhere_may_read_unless_the_operator_says_so() {
    run(async {
        let preflight = async |host: &Host| {
            let request = host
                .client
                .request(Method::OPTIONS, host.url("/invoke/greet"))
                .header("origin", "https://app.example")
                .header("access-control-request-method", "POST");
            let answer = request.send().await.unwrap();
            let allowed = answer.headers().get("access-control-allow-origin").cloned();
            (answer.status().as_u16(), allowed)
        };
        let closed = Host::start(|_| {}).await;
        assert_eq!(preflight(&closed).await, (403, None));
        let open = Host::start(|settings| {
            settings.allowed_origins = vec!["https://app.example".to_owned()];
        })
        .await;
        let (status, allowed) = preflight(&open).await;
        assert_eq!(
            (status, allowed.unwrap().to_str().unwrap()),
            (200, "https://app.example")
        );
    });
}
