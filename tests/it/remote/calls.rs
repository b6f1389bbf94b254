//! Calls of remote workers: what goes out, what comes back, and what happens when they die.

use super::*;

#[tokio::test(flavor = "multi_thread")]
async fn the_adrs_file_routes_validates_both_ways_and_fails_over_in_the_middle_of_a_call() {
    let (state, shared) = (dir(), Arc::new(dir()));
    let file = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/capabilities.yaml");
    let toml = format!("capabilities = {file:?}\n{LOOPBACK}\n[limits]\noutput_mb = 1");
    let host = Meshed::start(vec![], &toml, state.path()).await;
    assert_eq!(host.capabilities("").await.len(), 2);
    is(
        &host.invoke("classify_email", &json!({})).await,
        503,
        "unavailable",
    );

    // Two workers beside it, whose calls may be made twice: they only look.
    let mut pair = [0, 0].map(|port| Python::at(shared.clone(), port));
    for (at, python) in pair.iter().enumerate() {
        let id = format!("email-classifier-1{at}");
        let offered = classify(&id, python, json!({"idempotent": true}));
        assert_eq!(host.register(&offered).await.0, 200);
    }
    let mail = |subject: &str| json!({"email_text": "Dear", "subject": subject});
    let (status, answer) = host.invoke("classify_email", &mail("Hello")).await;
    assert_eq!(
        (status, &answer["category"]),
        (200, &json!("normal")),
        "{answer}"
    );
    is(
        &host.invoke("classify_email", &json!({"subject": 7})).await,
        422,
        "invalid-input",
    );
    is(
        &host.invoke("classify_email", &mail("lie")).await,
        502,
        "invalid-output",
    );
    is(
        &host.invoke("classify_email", &mail("large")).await,
        502,
        "output-limit",
    );
    is(
        &host.invoke("classify_email", &mail("redirect")).await,
        502,
        "worker-failed",
    );

    let asked = pair[0].calls().len();
    let (status, answer) = host.invoke("classify_email", &mail("die once")).await;
    assert_eq!(
        (status, &answer["category"]),
        (200, &json!("normal")),
        "{answer}"
    );
    assert_eq!(pair[0].calls().len(), asked + 2, "both were asked");
    for _ in 0..5 {
        assert_eq!(host.invoke("classify_email", &mail("Hello")).await.0, 200);
    }
    is(
        &host.invoke("classify_email", &mail("die")).await,
        502,
        "worker-failed",
    );
    // A process that exits may close its connections before it stops to listen.
    for python in &mut pair {
        python.child.wait().unwrap();
    }
    is(
        &host.invoke("classify_email", &mail("Hello")).await,
        503,
        "unavailable",
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_that_broke_off_is_made_once_unless_its_worker_says_that_twice_does_no_harm() {
    let (state, shared) = (dir(), Arc::new(dir()));
    let host = Meshed::start(vec![], LOOPBACK, state.path()).await;
    let pair = [0, 0].map(|port| Python::at(shared.clone(), port));
    for (at, python) in pair.iter().enumerate() {
        let offered = classify(&format!("worker-{at}"), python, json!({}));
        assert_eq!(host.register(&offered).await.0, 200);
    }
    let broken = host
        .invoke("classify_email", &json!({"subject": "die"}))
        .await;
    is(&broken, 502, "worker-failed");
    assert!(
        broken.1["detail"].as_str().unwrap().contains("not known"),
        "{}",
        broken.1
    );
    assert_eq!(pair[0].calls().len(), 1, "nobody else was asked");
    // Whoever is dead refuses connections: that nothing was sent is certain, so the other one is asked.
    for _ in 0..5 {
        assert_eq!(host.invoke("classify_email", &json!({})).await.0, 200);
    }
    host.until("worker-0", |seen| seen["health"] != "suspect")
        .await;
    host.until("worker-1", |seen| seen["health"] != "suspect")
        .await;
    let health = [host.remote("worker-0").await, host.remote("worker-1").await];
    let mut health = health.map(|seen| seen["health"].as_str().unwrap().to_owned());
    health.sort();
    assert_eq!(health, ["down", "healthy"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_remote_worker_learns_what_it_needs_and_its_failures_come_with_their_code() {
    let (state, python) = (dir(), Python::start());
    let toml = format!("controller_id = \"here\"\n{LOOPBACK}");
    let host = Meshed::start(vec![], &toml, state.path()).await;
    let raw = json!({"accepts": ["image/png"], "name": "of_image", "schema": {"input": {
        "properties": {"image": {"type": "string", "contentEncoding": "base64"}, "a b": {"type": "integer"}},
        "required": ["image"]}}});
    assert_eq!(
        host.register(&classify("worker-image", &python, raw))
            .await
            .0,
        200
    );
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let sent = host
        .host
        .client
        .post(host.host.url("/invoke/classify_email/of_image?a%20b=7"))
        .header("content-type", "image/png")
        .header("crank-timeout-ms", "4000")
        .header("traceparent", trace)
        .body("PNG");
    assert_eq!(sent.send().await.unwrap().status(), 200);
    let call = &python.calls()[0];
    assert_eq!(call["path"], "/invoke/classify_email/of_image?a%20b=7");
    let headers = &call["headers"];
    assert_eq!(headers["host"], format!("localhost:{}", python.port));
    assert_eq!(headers["content-type"], "image/png");
    assert_eq!(
        (&headers["traceparent"], &headers["crank-path"]),
        (&json!(trace), &json!("here"))
    );
    let left: u64 = headers["crank-timeout-ms"]
        .as_str()
        .unwrap()
        .parse()
        .unwrap();
    assert!((3000..=4000).contains(&left), "{left}");

    assert_eq!(
        host.register(&classify("worker-plain", &python, json!({})))
            .await
            .0,
        200
    );
    let failed = async |input: Value| host.invoke("classify_email/classify_email", &input).await;
    for (code, status, told) in [
        ("invalid-input", 422, "invalid-input"),
        ("not-found", 404, "not-found"),
        ("memory-limit", 502, "memory-limit"),
        ("unknown-capability", 503, "unavailable"),
        ("uri-too-long", 502, "worker-failed"),
        ("made-up", 502, "worker-failed"),
    ] {
        let answer = failed(json!({"subject": "problem", "code": code})).await;
        is(&answer, status, told);
        assert_eq!(answer.1["worker_id"], "worker-plain");
        assert_eq!(answer.1["errors"][0]["pointer"], "/subject");
        assert_eq!(answer.1["worker_code"], "own");
        assert!(!answer.1["detail"].as_str().unwrap().contains('\n'));
    }
    let busy = failed(json!({"subject": "busy"})).await;
    is(&busy, 503, "unavailable");
    assert_eq!(busy.1["retry_after"], 7);
    let began = Instant::now();
    let slow = host
        .host
        .client
        .post(host.host.url("/invoke/classify_email/classify_email"));
    let slow = slow
        .header("crank-timeout-ms", "300")
        .json(&json!({"subject": "wait"}));
    assert_eq!(slow.send().await.unwrap().status(), 504);
    assert!(began.elapsed() < Duration::from_secs(3));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_with_a_key_is_sent_once_under_a_key_of_its_caller_and_capability() {
    let state = dir();
    let host = Meshed::start(vec![], LOOPBACK, state.path()).await;
    let python = Python::start();
    assert_eq!(
        host.register(&classify("email-classifier-1", &python, json!({})))
            .await
            .0,
        200
    );
    let send = async |subject: &str, key: &str| {
        let request = host
            .host
            .client
            .post(host.host.url("/invoke/classify_email"));
        let request = request.header("idempotency-key", key);
        let answer = request
            .json(&json!({"subject": subject}))
            .send()
            .await
            .unwrap();
        let replayed = answer.headers().contains_key("idempotency-replayed");
        (answer.status().as_u16(), replayed)
    };
    assert_eq!(send("Hello", "k").await, (200, false));
    assert_eq!(send("Hello", "k").await, (200, true));
    // "Not now" of a worker that may have done something is what its key stands for.
    assert_eq!(send("busy", "l").await, (503, false));
    assert_eq!(send("busy", "l").await, (503, true));
    let calls = python.calls();
    let keys: Vec<&str> = calls
        .iter()
        .map(|call| call["headers"]["idempotency-key"].as_str().unwrap())
        .collect();
    assert_eq!(keys.len(), 2);
    assert_ne!(keys[0], keys[1]);
    for key in keys {
        let digits = key.trim_matches('"');
        assert_eq!((key.len(), digits.len()), (66, 64), "{key}");
        assert!(digits.bytes().all(|byte| byte.is_ascii_hexdigit()));
    }
}
