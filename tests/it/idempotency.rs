//! `Idempotency-Key`: a call that is sent twice runs once, whatever happens between.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use crank::idempotency::Keys;
use reqwest::{Client, Response};
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::mcp::client::Client as McpClient;
use crate::state::{Serving, served};
use crate::support::{Host, config, dir, guest, router, run};

/// How often a host is killed at random moments.
const KILLS: u64 = 3;

/// A host that keeps answers, as these lines of `crank.toml` say, and where.
async fn keeping(toml: &str, guests: &[&str]) -> (Host, TempDir) {
    let dir = dir();
    let files = guests.iter().map(|name| guest(name)).collect();
    let router = router(files, "").await;
    router.keep(Keys::at(
        dir.path().join("idempotency"),
        &config(toml).idempotency,
    ));
    (Host::of(router, |_| {}).await, dir)
}

async fn send(client: &Client, url: &str, key: &str, body: &Value) -> Response {
    let request = client.post(url).header("idempotency-key", key).json(body);
    request.send().await.expect("it answers")
}

/// What a caller holds of an answer: all but what belongs to the request alone.
#[derive(Debug, PartialEq, Eq)]
struct Answer {
    status: u16,
    media_type: String,
    worker: Option<String>,
    body: Vec<u8>,
}

impl Answer {
    /// The answer, and whether it was told again.
    async fn of(response: Response) -> (Self, bool) {
        let header = |name: &str| {
            let value = response.headers().get(name);
            value.map(|value| value.to_str().expect("ASCII").to_owned())
        };
        let replayed = header("idempotency-replayed").is_some_and(|value| value == "true");
        let answer = Self {
            status: response.status().as_u16(),
            media_type: header("content-type").expect("it has a body"),
            worker: header("crank-worker"),
            body: Vec::new(),
        };
        let body = response.bytes().await.expect("it comes whole").to_vec();
        (Self { body, ..answer }, replayed)
    }

    fn code(&self) -> String {
        let problem: Value = serde_json::from_slice(&self.body).unwrap_or_default();
        problem["code"].as_str().unwrap_or_default().to_owned()
    }

    fn json(&self) -> Value {
        serde_json::from_slice(&self.body).expect("JSON")
    }
}

#[test]
fn an_answer_or_a_failure_is_told_again_to_the_byte() {
    run(async {
        let (host, _dir) = keeping("", &["hello-world", "hostile"]).await;
        for (route, body, status) in [
            ("greet/hello_world", json!({"name": "Ada"}), 200),
            ("misbehave/return_bytes", json!({"mb": 0}), 200),
            ("misbehave/panic", json!({"message": "x"}), 502),
            ("misbehave/fail", json!({"kind": "failed"}), 502),
            ("misbehave/fail", json!({"kind": "not-found"}), 404),
            ("misbehave/fail", json!({"kind": "invalid-input"}), 422),
            ("misbehave/break_schema", json!({"count": 0}), 502),
        ] {
            let url = host.url(&format!("/invoke/{route}"));
            let key = format!("\"{route} {status}\"");
            let (first, new) = Answer::of(send(&host.client, &url, &key, &body).await).await;
            assert_eq!((first.status, new), (status, false), "{first:?}");
            assert!(first.worker.is_some());
            for _ in 0..2 {
                let (again, replayed) =
                    Answer::of(send(&host.client, &url, &key, &body).await).await;
                assert!(replayed, "{again:?}");
                assert_eq!(again, first);
            }
        }
    });
}

#[test]
fn a_key_is_one_callers_for_one_call_of_one_capability() {
    run(async {
        let (host, _dir) = keeping("", &["hello-world", "hostile"]).await;
        let greet = host.url("/invoke/greet/hello_world");
        let ada = json!({"name": "Ada"});
        assert_eq!(send(&host.client, &greet, "k", &ada).await.status(), 200);
        // Other white space is another payload: a caller who sends twice sends the same bytes.
        let spaced = host
            .client
            .post(&greet)
            .header("idempotency-key", "k")
            .header("content-type", "application/json")
            .body("{\"name\": \"Ada\"}");
        let others = [
            send(&host.client, &greet, "k", &json!({"name": "Bob"})).await,
            send(&host.client, &format!("{greet}?version=^1"), "k", &ada).await,
            spaced.send().await.unwrap(),
        ];
        for other in others {
            let (other, _) = Answer::of(other).await;
            assert_eq!(
                (other.status, other.code().as_str()),
                (422, "idempotency-mismatch")
            );
        }
        // Elsewhere the same text is another key; quoted it is the same.
        let elsewhere = host.url("/invoke/greet");
        for (url, key, again) in [
            (&elsewhere, "k", false),
            (&greet, "\"k\"", true),
            (&greet, "K", false),
        ] {
            let (answer, replayed) = Answer::of(send(&host.client, url, key, &ada).await).await;
            assert_eq!((answer.status, replayed), (200, again), "{url} {key}");
        }
        for bad in ["", "\"", "a b", "a,b", "\"a\";p=1", &"x".repeat(256)] {
            let (answer, _) = Answer::of(send(&host.client, &greet, bad, &ada).await).await;
            assert_eq!(answer.code(), "invalid-request", "{bad:.9}");
        }
        let twice = host
            .client
            .post(&greet)
            .header("idempotency-key", "a")
            .header("idempotency-key", "b");
        assert_eq!(twice.json(&ada).send().await.unwrap().status(), 400);
    });
}

#[test]
fn what_never_ran_leaves_its_key_free() {
    run(async {
        let (host, _dir) = keeping("", &["hello-world", "hostile"]).await;
        let greet = host.url("/invoke/greet/hello_world");
        let (wrong, _) =
            Answer::of(send(&host.client, &greet, "a", &json!({"name": 1})).await).await;
        assert_eq!(wrong.code(), "invalid-input");
        let (right, replayed) =
            Answer::of(send(&host.client, &greet, "a", &json!({"name": "Ada"})).await).await;
        assert_eq!((right.status, replayed), (200, false));
        // "Not now", of a worker that leaves nothing behind: the key may be used again.
        let fail = host.url("/invoke/misbehave/fail");
        for _ in 0..2 {
            let not_now = send(&host.client, &fail, "b", &json!({"kind": "unavailable"})).await;
            assert!(!not_now.headers().contains_key("idempotency-replayed"));
            assert_eq!(not_now.headers()["retry-after"], "3");
        }
    });
}

#[test]
fn a_caller_who_hangs_up_finds_the_answer_later() {
    run(async {
        let (host, _dir) = keeping("", &["hostile"]).await;
        let url = host.url("/invoke/misbehave/loop_forever");
        let sent = |millis: u64| {
            let request = host.client.post(&url).header("idempotency-key", "k");
            let request = request.header("crank-timeout-ms", "1000").json(&json!({}));
            request.timeout(Duration::from_millis(millis)).send()
        };
        assert!(sent(300).await.is_err(), "the caller gave up first");
        // It runs on: whoever asks meanwhile is told so.
        let meanwhile = sent(5000).await.unwrap();
        assert_eq!(meanwhile.headers()["retry-after"], "1");
        let (meanwhile, _) = Answer::of(meanwhile).await;
        assert_eq!(
            (meanwhile.status, meanwhile.code().as_str()),
            (409, "idempotency-in-progress")
        );
        loop {
            let (answer, replayed) = Answer::of(sent(5000).await.unwrap()).await;
            if answer.code() != "idempotency-in-progress" {
                assert_eq!((answer.code().as_str(), replayed), ("deadline", true));
                break;
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn a_caller_who_hangs_up_still_has_that_call_under_way() {
    run(async {
        let dir = dir();
        let router = router(vec![guest("hostile")], "").await;
        let keys = dir.path().join("idempotency");
        router.keep(Keys::at(keys, &config("").idempotency));
        let host = Host::of(router, |settings| settings.caller_concurrency = 1).await;
        let call = host.client.post(host.url("/invoke/misbehave/loop_forever"));
        let call = call.header("idempotency-key", "k").json(&json!({}));
        let call = call.header("crank-timeout-ms", "1500");
        let given_up = call.timeout(Duration::from_millis(300)).send().await;
        assert!(given_up.is_err(), "the caller gave up first");
        assert_eq!(host.get("/capabilities").await.status(), 429);
        let began = Instant::now();
        while host.get("/capabilities").await.status() != 200 {
            assert!(began.elapsed() < Duration::from_secs(10), "it ended");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    });
}

#[test]
fn a_stream_that_is_asked_for_again_has_the_result_alone() {
    run(async {
        let (host, _dir) = keeping("", &["hostile"]).await;
        let url = host.url("/invoke/misbehave/send_events");
        let streamed = async || {
            let request = host.client.post(&url).header("idempotency-key", "k");
            let request = request.header("accept", "text/event-stream");
            let body = json!({"count": 2, "event": "note", "bytes": 1});
            request.json(&body).send().await.unwrap()
        };
        let result = "event: result\ndata: {\"done\":2}\n\n";
        let note = "event: note\ndata: x\n\n";
        let first = streamed().await.text().await.unwrap();
        assert_eq!(first, format!("{note}{note}{result}"));
        let again = streamed().await;
        assert_eq!(again.headers()["idempotency-replayed"], "true");
        assert_eq!(again.text().await.unwrap(), result);
    });
}

#[test]
fn an_mcp_call_with_a_key_runs_once_too_and_shares_keys_with_http() {
    run(async {
        let (host, _dir) = keeping("", &["hello-world", "relay"]).await;
        let client = McpClient::current(&host);
        let greet = async |name: &str, key: Value| {
            let meta = json!({"idempotency-key": key});
            let params =
                json!({"name": "greet-hello_world", "arguments": {"name": name}, "_meta": meta});
            client.ask("tools/call", params).await.answer().clone()
        };
        let first = greet("Ada", json!("k")).await;
        assert_eq!(
            first["result"]["structuredContent"]["greeting"],
            "Hello, Ada!"
        );
        assert_eq!(
            greet("Ada", json!("\"k\"")).await["result"]["structuredContent"],
            first["result"]["structuredContent"]
        );
        let other = greet("Bob", json!("k")).await;
        assert_eq!(
            other["result"]["structuredContent"]["code"],
            "idempotency-mismatch"
        );
        for bad in [json!(""), json!(7)] {
            assert!(greet("Ada", bad).await["error"].is_object());
        }
        // The worker learns the key; without one there is none to learn.
        let who = host.url("/invoke/relay/who");
        let (answer, _) = Answer::of(send(&host.client, &who, "k", &json!({})).await).await;
        let context = answer.json()["context"].clone();
        assert!(
            context
                .as_array()
                .unwrap()
                .contains(&json!(["idempotency-key", "k"])),
            "{context}"
        );
    });
}

#[test]
fn keys_go_when_their_time_is_over_or_the_oldest_where_there_is_no_room() {
    run(async {
        let (host, _dir) = keeping("[idempotency]\nttl_ms = 400", &["hello-world"]).await;
        let greet = host.url("/invoke/greet/hello_world");
        let ada = json!({"name": "Ada"});
        assert_eq!(send(&host.client, &greet, "k", &ada).await.status(), 200);
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (later, replayed) =
            Answer::of(send(&host.client, &greet, "k", &json!({"name": "Bob"})).await).await;
        assert_eq!((later.status, replayed), (200, false));

        let toml = "[idempotency]\nmax_mb = 16\nmax_answer_bytes = 4194304";
        let (host, _dir) = keeping(toml, &["hostile"]).await;
        let bytes = host.url("/invoke/misbehave/return_bytes");
        let replayed = async |key: &str, mb: u32| {
            let answer = send(&host.client, &bytes, key, &json!({"mb": mb})).await;
            assert_eq!(answer.status(), 200);
            answer.headers().contains_key("idempotency-replayed")
        };
        // More than 64 keys: so many make room at once.
        for at in 0..64 {
            assert!(!replayed(&format!("small-{at}"), 0).await);
        }
        for at in 0..10 {
            assert!(!replayed(&format!("large-{at}"), 2).await);
        }
        assert!(!replayed("small-0", 0).await, "the oldest made room");
        assert!(replayed("large-9", 2).await, "the newest is kept");
    });
}

#[test]
fn an_answer_too_large_to_keep_is_given_once_and_its_call_runs_once() {
    run(async {
        let (host, _dir) = keeping("", &["hostile"]).await;
        let url = host.url("/invoke/misbehave/return_bytes");
        let body = json!({"mb": 2});
        let (first, _) = Answer::of(send(&host.client, &url, "k", &body).await).await;
        assert_eq!((first.status, first.body.len()), (200, 2 << 20));
        let (again, _) = Answer::of(send(&host.client, &url, "k", &body).await).await;
        assert_eq!(
            (again.status, again.code().as_str()),
            (409, "idempotency-unanswered")
        );
    });
}

#[test]
fn a_second_host_beside_the_first_refuses_keys_and_serves_all_else() {
    run(async {
        let (host, dir) = keeping("", &["hello-world"]).await;
        let ada = json!({"name": "Ada"});
        let greet = "/invoke/greet/hello_world";
        let first = send(&host.client, &host.url(greet), "k", &ada).await;
        assert_eq!(first.status(), 200);
        let router = router(vec![guest("hello-world")], "").await;
        router.keep(Keys::at(
            dir.path().join("idempotency"),
            &config("").idempotency,
        ));
        let second = Host::of(router, |_| {}).await;
        let refused = send(&second.client, &second.url(greet), "k", &ada).await;
        assert_eq!(Answer::of(refused).await.0.code(), "unavailable");
        let plain = second.client.post(second.url(greet)).json(&ada);
        assert_eq!(plain.send().await.unwrap().status(), 200);
    });
}

/// `guests/stateful` in a process of its own.
struct Counting {
    serving: Serving,
    client: Client,
}

impl Counting {
    fn start(dir: &TempDir) -> Self {
        let client = Client::builder().no_proxy().build().expect("a client");
        let serving = Serving::start(dir);
        Self { serving, client }
    }

    /// Adds one to a counter, under its name as the key.
    async fn add(&self, counter: &str, then: Value) -> Option<(Answer, bool)> {
        let mut ops = vec![json!({"increment": [counter, 1]})];
        ops.extend(then.as_array().cloned().unwrap_or_default());
        let url = format!("{}/invoke/run/own", self.serving.url);
        let request = self.client.post(url).header("idempotency-key", counter);
        let request = request.json(&json!({"bucket": "", "ops": ops}));
        Some(Answer::of(request.send().await.ok()?).await)
    }

    async fn count(&self, counter: &str) -> Value {
        let url = format!("{}/invoke/run/own", self.serving.url);
        let body = json!({"bucket": "", "ops": [{"get": counter}]});
        let answer = self.client.post(url).json(&body).send().await;
        answer
            .expect("it answers")
            .json::<Value>()
            .await
            .expect("JSON")["results"][0]
            .take()
    }
}

#[test]
fn two_hundred_calls_at_once_run_the_worker_once() {
    let dir = served();
    run(async {
        let host = std::sync::Arc::new(Counting::start(&dir));
        let calls = (0..200).map(|_| {
            let host = host.clone();
            tokio::spawn(async move { host.add("k", json!([])).await.expect("it answers") })
        });
        let calls: Vec<_> = calls.collect();
        let mut answered = 0;
        for call in calls {
            let (answer, _) = call.await.expect("no panic");
            match answer.status {
                200 => assert_eq!(answer.json(), json!({"results": [1]})),
                _ => assert_eq!(answer.code(), "idempotency-in-progress"),
            }
            answered += u32::from(answer.status == 200);
        }
        assert!(answered >= 1);
        assert_eq!(host.count("k").await, "1");
    });
}

#[test]
fn a_call_that_a_killed_host_had_begun_is_not_run_again_if_it_may_have_changed_something() {
    let dir = served();
    run(async {
        let host = std::sync::Arc::new(Counting::start(&dir));
        // A second of reading after the write.
        let long = json!([{"get_often": ["k", 1_000_000]}]);
        let running = tokio::spawn({
            let (host, long) = (host.clone(), long.clone());
            async move { host.add("k", long).await }
        });
        while host.count("k").await != "1" {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        host.serving.kill();
        assert!(running.await.expect("no panic").is_none(), "it was cut");
        drop(host);

        let host = Counting::start(&dir);
        for _ in 0..2 {
            let (answer, _) = host.add("k", long.clone()).await.expect("it answers");
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (409, "idempotency-unanswered")
            );
        }
        assert_eq!(host.count("k").await, "1");
        let (other, _) = host.add("k", json!([])).await.expect("it answers");
        assert_eq!(other.code(), "idempotency-mismatch");
    });
}

#[test]
fn a_call_that_a_killed_host_had_begun_is_run_again_if_it_leaves_nothing() {
    let dir = dir();
    std::fs::copy(guest("hostile"), dir.path().join("hostile.wasm")).expect("a copy");
    run(async {
        let client = Client::builder().no_proxy().build().expect("a client");
        let sent = |serving: &Serving, ms: u32| {
            let url = format!("{}/invoke/misbehave/loop_forever", serving.url);
            let request = client.post(url).header("idempotency-key", "k");
            let request = request.header("crank-timeout-ms", ms.to_string());
            request.json(&json!({})).send()
        };
        let serving = Serving::start(&dir);
        let first = tokio::spawn(sent(&serving, 20_000));
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (meanwhile, _) = Answer::of(sent(&serving, 20_000).await.unwrap()).await;
        assert_eq!(meanwhile.code(), "idempotency-in-progress");
        serving.kill();
        assert!(first.await.expect("no panic").is_err());
        drop(serving);

        let serving = Serving::start(&dir);
        let (answer, replayed) = Answer::of(sent(&serving, 200).await.unwrap()).await;
        assert_eq!((answer.code().as_str(), replayed), ("deadline", false));
        drop(serving);
        // And that is the answer from now on, over one more end.
        let serving = Serving::start(&dir);
        let (again, replayed) = Answer::of(sent(&serving, 200).await.unwrap()).await;
        assert!(replayed);
        assert_eq!(again, answer);
    });
}

/// Counters that are raised by many callers, of a host that is killed at random moments: what was answered
/// is answered again to the byte, and no counter is ever raised twice.
#[test]
fn a_host_that_is_killed_at_any_moment_gives_no_two_answers_and_runs_nothing_twice() {
    use std::hash::{BuildHasher, RandomState};
    const CALLERS: u64 = 8;
    let dir = served();
    run(async {
        let mut answered = 0;
        for kill in 0..KILLS {
            let host = std::sync::Arc::new(Counting::start(&dir));
            let callers = (0..CALLERS).map(|caller| {
                let host = host.clone();
                tokio::spawn(async move {
                    let mut told = Vec::new();
                    for call in 0.. {
                        let counter = format!("{kill}-{caller}-{call}");
                        let answer = host.add(&counter, json!([])).await;
                        let ended = answer.is_none();
                        told.push((counter, answer.map(|(answer, _)| answer)));
                        if ended {
                            break;
                        }
                    }
                    told
                })
            });
            let callers: Vec<_> = callers.collect();
            let moment = RandomState::new().hash_one(kill) % 400;
            tokio::time::sleep(Duration::from_millis(100 + moment)).await;
            host.serving.kill();
            let mut told = Vec::new();
            for caller in callers {
                told.extend(caller.await.expect("no panic"));
            }
            drop(host);

            let host = Counting::start(&dir);
            let mut endings = BTreeSet::new();
            for (counter, before) in told {
                let (after, replayed) = host.add(&counter, json!([])).await.expect("it answers");
                answered += u64::from(before.is_some());
                if let Some(before) = before {
                    assert!(replayed, "{counter}");
                    assert_eq!(after, before, "{counter}");
                }
                let count = host.count(&counter).await;
                if after.status == 200 {
                    assert_eq!(after.json(), json!({"results": [1]}), "{counter}");
                    assert_eq!(count, "1", "{counter}");
                } else {
                    assert_eq!(after.code(), "idempotency-unanswered");
                    assert!(count == "1" || count.is_null(), "{counter}: {count}");
                }
                endings.insert((after.status, replayed));
            }
            assert!(endings.contains(&(200, true)), "{endings:?}");
        }
        assert!(answered > KILLS * CALLERS, "only {answered} were answered");
    });
}
