//! Mail over HTTP, through the real workers: each alone, and all three as one request.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use crank::registry::{Registry, Snapshot};
use crank::router::Router;
use crank::state::State;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{Host, call, config, dir, engine, guest, log, run};

const ALL: [&str; 3] = ["document-conversion", "spam-detection", "email-classifier"];

/// The media type of a mail as it was sent.
const MAIL: &str = "message/rfc822";

/// Nobody's mail, and what it is made of: an offer of pills.
const OFFER: &str = "Cheap viagra and cialis without prescription. Order now and save 80% off all pills, discreet shipping: http://best-pills.example/offer";

/// Workers for mail behind HTTP, with state of their own.
struct Mailroom {
    host: Host,
    router: Arc<Router>,
    _dir: TempDir,
}

/// An answer over HTTP.
struct Answer {
    status: u16,
    request_id: String,
    body: Value,
}

impl Mailroom {
    async fn of(workers: &[&str]) -> Self {
        let dir = dir();
        let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("code");
        let engine = engine(&cache).with_state(State::at(dir.path().join("state")));
        let files = workers.iter().copied().map(guest).collect();
        let snapshot = Snapshot::load(&engine, &config(""), files).await;
        assert!(snapshot.refused().is_empty(), "{:?}", snapshot.refused());
        let router = Arc::new(Router::new(Registry::new(snapshot)));
        let host = Host::of(router.clone(), |_| {}).await;
        Self {
            host,
            router,
            _dir: dir,
        }
    }

    async fn post(
        &self,
        to: &str,
        media_type: &'static str,
        body: impl Into<Vec<u8>>,
        timeout_ms: u32,
    ) -> Answer {
        let url = self.host.url(&format!("/invoke/{}", to.replace(':', "/")));
        let answer = self
            .host
            .client
            .post(url)
            .header("content-type", media_type);
        let answer = answer
            .header("crank-timeout-ms", timeout_ms)
            .body(body.into())
            .send()
            .await
            .expect("the host answers");
        Answer {
            status: answer.status().as_u16(),
            request_id: answer.headers()["crank-request-id"]
                .to_str()
                .expect("an id")
                .to_owned(),
            body: answer.json().await.expect("JSON"),
        }
    }

    async fn json(&self, to: &str, input: &Value) -> Answer {
        self.post(to, "application/json", input.to_string(), 30_000)
            .await
    }

    async fn raw(&self, to: &str, mail: impl Into<Vec<u8>>) -> Answer {
        self.post(to, MAIL, mail, 30_000).await
    }

    /// What a caller with an identity gets, which this version's HTTP has no way to show.
    async fn of_caller(&self, caller: &str, to: &str, input: &Value) -> Value {
        let mut call = call(to, &input.to_string());
        call.caller = Some(format!("spiffe://crank.local/person/{caller}"));
        let answer = self.router.invoke(call).await.expect("it answers");
        serde_json::from_slice(&answer.payload.body).expect("JSON")
    }
}

fn done(answer: Answer) -> Value {
    assert_eq!(answer.status, 200, "{:.500}", answer.body);
    answer.body
}

/// A mail as it is sent: UTF-8 in base64, the subject in an encoded word.
fn mail(subject: &str, text: &str) -> String {
    let [subject, text] = [subject, text].map(|part| BASE64_STANDARD.encode(part));
    format!(
        "From: Ada <ada@example.org>\r\nTo: bob@example.org\r\nSubject: =?utf-8?B?{subject}?=\r\n\
         MIME-Version: 1.0\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: base64\r\n\r\n{text}\r\n"
    )
}

/// A mail of 50 MB, nearly all of it an attachment.
fn large(text: &str) -> String {
    let line = "QUJD".repeat(19) + "\r\n";
    let file = line.repeat(50_000_000 / line.len());
    format!(
        "From: Ada <ada@example.org>\r\nSubject: Plans\r\nMIME-Version: 1.0\r\nContent-Type: multipart/mixed; boundary=x\r\n\r\n\
         --x\r\nContent-Type: text/plain; charset=utf-8\r\n\r\n{text}\r\n\
         --x\r\nContent-Type: application/octet-stream; name=plans.bin\r\nContent-Transfer-Encoding: base64\r\n\r\n{file}--x--\r\n"
    )
}

/// The lines of the log that tell of one request.
fn told_of(request_id: &str) -> Vec<String> {
    let log = log();
    let lines = log.lines().filter(|line| line.contains(request_id));
    lines.map(str::to_owned).collect()
}

#[test]
fn a_mail_as_it_was_sent_goes_through_three_workers_as_one_request() {
    run(async {
        let room = Mailroom::of(&ALL).await;
        for (subject, text, category) in [
            ("Discount meds", OFFER, "spam"),
            (
                "Invoice 4417 is due on Friday",
                "Please transfer the amount by Friday to avoid a reminder fee.",
                "important",
            ),
            (
                "Photos",
                "Hi all, here are the pictures from the lake. See you on Sunday for cake, love, Grandma",
                "normal",
            ),
        ] {
            let answer = room
                .raw("classify:email_category", mail(subject, text))
                .await;
            let lines = told_of(&answer.request_id);
            let paths: Vec<&str> = lines
                .iter()
                .filter(|line| line.contains("peer call"))
                .filter_map(|line| line.split('"').find(|part| part.contains(" > ")))
                .collect();
            assert_eq!(
                paths,
                [
                    "classify:email_category > convert:email_to_text",
                    "classify:email_category > classify:spam_detection"
                ],
                "{lines:#?}"
            );
            assert_eq!(lines.len(), 3, "one request and its two calls: {lines:#?}");
            let body = done(answer);
            assert_eq!(body["category"], category, "{body}");
            assert!(!body["words"].as_array().expect("a list").is_empty());
            // The same in JSON: the text needs no converter.
            let input = json!({ "subject": subject, "email_text": text });
            let body = done(room.json("classify:email_category", &input).await);
            assert_eq!(body["category"], category, "{body}");
        }
    });
}

#[test]
fn one_deadline_ends_the_whole_chain() {
    run(async {
        let room = Mailroom::of(&ALL).await;
        // A page that takes its converter seconds.
        let page = "<p><b>oil</b> and <i>wicks</i>".repeat(700_000);
        let head = "From: a@b.example\r\nContent-Type: text/html; charset=utf-8\r\n\r\n";
        let began = Instant::now();
        let answer = room
            .post(
                "classify:email_category",
                MAIL,
                format!("{head}{page}"),
                300,
            )
            .await;
        let took = began.elapsed();
        assert_eq!(
            (answer.status, &answer.body["code"]),
            (504, &json!("deadline")),
            "{}",
            answer.body
        );
        assert!(took >= Duration::from_millis(300), "{took:?}");
        assert!(took < Duration::from_secs(3), "{took:?}");
        let snapshot = room.router.registry().snapshot();
        let began = Instant::now();
        while snapshot
            .workers()
            .iter()
            .any(|worker| worker.observed().in_flight > 0)
        {
            assert!(began.elapsed() < Duration::from_secs(2), "one still runs");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
}

#[test]
fn without_one_of_its_workers_the_chain_fails_as_a_whole_and_names_it() {
    run(async {
        for (missing, capability) in [
            ("spam-detection", "classify:spam_detection"),
            ("document-conversion", "convert:email_to_text"),
        ] {
            let others: Vec<&str> = ALL.into_iter().filter(|name| *name != missing).collect();
            let room = Mailroom::of(&others).await;
            let answer = room
                .raw("classify:email_category", mail("Sunday", "Lunch?"))
                .await;
            let problem = &answer.body;
            assert_eq!(
                (answer.status, &problem["code"], &problem["worker_code"]),
                (503, &json!("unavailable"), &json!("unknown-capability")),
                "{problem}"
            );
            assert_eq!(problem["worker_id"], "worker-email-classifier");
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains(capability), "{detail}");
            let lines = told_of(&answer.request_id);
            let path = format!("classify:email_category > {capability}");
            assert!(
                lines
                    .iter()
                    .any(|line| line.contains(&path) && line.contains("unknown-capability")),
                "{lines:#?}"
            );
        }
    });
}

#[test]
fn a_mail_of_fifty_megabytes_is_sorted_and_learned_from_as_it_was_sent() {
    run(async {
        let room = Mailroom::of(&ALL).await;
        let sent = large(
            "Invoice 4417 is due. Please transfer the amount by Friday to avoid a reminder fee.",
        );
        assert!(sent.len() > 49_900_000);
        let body = done(room.raw("classify:email_category", sent.clone()).await);
        assert_eq!(body["category"], "important", "{body}");
        let body = done(room.raw("learn:email_category?category=normal", sent).await);
        assert_eq!((&body["learned"], &body["normal"]), (&json!(1), &json!(1)));

        // A text of that size does not fit into its converter's answer, and that is what it says.
        let long = format!(
            "Subject: Plans\r\n\r\n{}",
            "lorem ipsum\r\n".repeat(3_800_000)
        );
        let answer = room.raw("classify:email_category", long).await;
        let problem = &answer.body;
        assert_eq!(
            (answer.status, &problem["code"], &problem["worker_code"]),
            (502, &json!("worker-failed"), &json!("output-limit")),
            "{problem}"
        );

        // As text in JSON it is judged by its ends.
        let text = format!("{OFFER}\n{}", "lorem ipsum\n".repeat(3_800_000));
        let input = json!({ "email_text": text, "subject": "Meds" });
        let body = done(room.json("classify:spam_detection", &input).await);
        assert_eq!(body["spam"], true, "{body}");
        let input = json!({ "mails": [{ "email_text": text, "spam": true }] });
        let body = done(room.json("learn:spam_detection", &input).await);
        assert_eq!(body["spam"], 1, "{body}");
        let lesson = json!({ "mails": [{ "email_text": text, "category": "spam" }] });
        let body = done(room.json("learn:email_category", &lesson).await);
        assert_eq!(body["spam"], 1, "{body}");
    });
}

#[test]
fn what_is_no_mail_is_refused_with_its_place() {
    run(async {
        let room = Mailroom::of(&ALL).await;
        let message = BASE64_STANDARD.encode(mail("Sunday", "Lunch?"));
        for (to, input, pointer) in [
            ("classify:spam_detection", json!({}), ""),
            (
                "classify:spam_detection",
                json!({ "email_text": 7 }),
                "/email_text",
            ),
            (
                "classify:spam_detection",
                json!({ "email_text": "x", "spam": true }),
                "",
            ),
            (
                "classify:spam_detection",
                json!({ "email_text": " \n" }),
                "/email_text",
            ),
            ("classify:email_category", json!({}), "/email_text"),
            (
                "classify:email_category",
                json!({ "email_text": "x", "message": message }),
                "/message",
            ),
            ("classify:email_category", json!({ "message": "?" }), ""),
            (
                "classify:email_category",
                json!({ "message": "" }),
                "/message",
            ),
            ("learn:spam_detection", json!({ "mails": [] }), "/mails"),
            (
                "learn:spam_detection",
                json!({ "mails": [{ "email_text": "x" }] }),
                "/mails/0",
            ),
            (
                "learn:spam_detection",
                json!({ "mails": [{ "email_text": "x", "spam": true, "category": "spam" }] }),
                "/mails/0",
            ),
            (
                "learn:spam_detection",
                json!({ "mails": [{ "email_text": "x", "spam": true }, { "email_text": "", "spam": true }] }),
                "/mails/1/email_text",
            ),
            ("learn:email_category", json!({}), "/mails"),
            (
                "learn:email_category",
                json!({ "message": message }),
                "/category",
            ),
            (
                "learn:email_category",
                json!({ "message": message, "category": "ham" }),
                "/category",
            ),
            (
                "learn:email_category",
                json!({ "mails": [{ "email_text": "x", "category": "spam", "spam": true }] }),
                "/mails/0",
            ),
        ] {
            let answer = room.json(to, &input).await;
            let problem = &answer.body;
            assert_eq!(
                (
                    answer.status,
                    &problem["code"],
                    &problem["errors"][0]["pointer"]
                ),
                (422, &json!("invalid-input"), &json!(pointer)),
                "{to} {input:.200}: {problem}"
            );
        }
        // Sent raw: nothing, what has no headers, and what this capability does not take.
        for (to, body, status, code) in [
            ("classify:email_category", "", 422, "invalid-input"),
            (
                "classify:email_category",
                "no headers at all",
                422,
                "invalid-input",
            ),
            (
                "learn:email_category?category=spam",
                "",
                422,
                "invalid-input",
            ),
            (
                "classify:spam_detection",
                "Subject: x\r\n\r\ny",
                415,
                "unsupported-media-type",
            ),
            (
                "learn:spam_detection",
                "Subject: x\r\n\r\ny",
                415,
                "unsupported-media-type",
            ),
        ] {
            let answer = room.raw(to, body).await;
            assert_eq!(
                (answer.status, &answer.body["code"]),
                (status, &json!(code)),
                "{to} {body:?}: {}",
                answer.body
            );
        }
    });
}

#[test]
fn mails_in_every_script_are_read_and_disguises_seen_through() {
    run(async {
        let room = Mailroom::of(&ALL).await;
        for (subject, text) in [
            (
                "\u{5d4}\u{5d9} \u{5d3}\u{5e0}\u{5d4}",
                "\u{5e9}\u{5dc}\u{5d5}\u{5dd} \u{5d3}\u{5e0}\u{5d4}, \u{5d4}\u{5de}\u{5e4}\u{5d2}\u{5e9} \u{5de}\u{5d7}\u{5e8} \u{5d1}\u{5d1}\u{5d9}\u{5ea}.",
            ),
            (
                "\u{645}\u{631}\u{62d}\u{628}\u{627}",
                "\u{627}\u{644}\u{645}\u{635}\u{628}\u{627}\u{62d} \u{645}\u{636}\u{627}\u{621}\u{60c} \u{646}\u{644}\u{62a}\u{642}\u{64a} \u{63a}\u{62f}\u{627} \u{641}\u{64a} \u{627}\u{644}\u{628}\u{64a}\u{62a}.",
            ),
            (
                "\u{540c}\u{7a93}\u{4f1a}",
                "\u{6765}\u{6708}\u{306e}\u{540c}\u{7a93}\u{4f1a}\u{306e}\u{5834}\u{6240}\u{306f}\u{99c5}\u{524d}\u{3067}\u{3059}\u{3002}",
            ),
            (
                "\u{5468}\u{672b}",
                "\u{6211}\u{4eec}\u{5468}\u{672b}\u{53bb}\u{6e56}\u{8fb9}\u{91ce}\u{9910}\u{5427}\u{ff0c}\u{5e26}\u{4e0a}\u{5b69}\u{5b50}\u{3002}",
            ),
        ] {
            let raw = done(
                room.raw("classify:email_category", mail(subject, text))
                    .await,
            );
            let input = json!({ "subject": subject, "email_text": text });
            let judged = done(room.json("classify:spam_detection", &input).await);
            assert_eq!(judged["spam"], false, "{text}: {judged}");
            assert_ne!(raw["category"], "spam", "{text}: {raw}");
        }
        // Look-alike letters, zero-width characters, comments and bidirectional controls.
        let letters = OFFER
            .replace('a', "\u{430}")
            .replace('e', "\u{435}")
            .replace('i', "\u{456}");
        let (words, link) = OFFER.split_once("http").expect("it has a link");
        let disguises = [
            format!(
                "{}http{link}",
                letters.split_once("http").expect("a link").0
            ),
            OFFER.replace("viagra", "v\u{200b}i\u{200b}a\u{200b}g\u{200b}r\u{200b}a"),
            format!(
                "<p>{}http{link}",
                words
                    .replace("ia", "i<!-- x -->a")
                    .replace("ll", "l<!-- y -->l")
            ),
            OFFER.replace("viagra", "\u{202e}viagra\u{202c}"),
            OFFER
                .replace("viagra", "v1agra")
                .replace("cialis", "c.i.a.l.i.s"),
        ];
        for text in disguises {
            let input = json!({ "subject": "Discount", "email_text": text });
            let judged = done(room.json("classify:spam_detection", &input).await);
            assert_eq!(judged["spam"], true, "{text}: {judged}");
            let sorted = done(
                room.raw("classify:email_category", mail("Discount", &text))
                    .await,
            );
            assert_eq!(sorted["category"], "spam", "{text}: {sorted}");
        }
    });
}

#[test]
fn what_a_caller_teaches_changes_their_verdicts_and_nobody_elses() {
    run(async {
        let hike = "Fellow ramblers, our next hike takes us up the hill. Sturdy boots and a thermos, departure at dawn by the old mill. Warden Hobbs leads.";
        let boiler =
            "Hourly reading of the relief valve: pressure nominal, flue clean, ignition count 12.";
        let lunch = json!({ "subject": "Sunday", "email_text": "Are you two coming for lunch on Sunday? Bring the kids!" });
        for (name, field, verdict, lesson, unseen) in [
            (
                "spam_detection",
                "spam",
                json!(true),
                hike,
                "Fellow ramblers, on Saturday we hike up the Matterhorn. Bring sturdy boots, departure at dawn by the mill. Warden Hobbs",
            ),
            (
                "email_category",
                "category",
                json!("important"),
                boiler,
                "Hourly reading of the main valve: pressure falling, flue clean, ignition count 7.",
            ),
        ] {
            // Each with state of its own: what the one is taught of spam, the other asks it.
            let room = Mailroom::of(&ALL).await;
            let [detect, teach] = ["classify", "learn"].map(|verb| format!("{verb}:{name}"));
            let unseen = json!({ "email_text": unseen });
            let lessons = |count: usize| {
                let lesson = json!({ "email_text": lesson, field: verdict });
                json!({ "mails": vec![lesson; count] })
            };
            let before = done(room.json(&detect, &unseen).await);
            assert_ne!(before[field], verdict, "{before}");
            let learned = done(room.json(&teach, &lessons(20)).await);
            assert_eq!(learned["learned"], 20, "{learned}");
            let after = done(room.json(&detect, &unseen).await);
            assert_eq!((&after[field], &after["taught"]), (&verdict, &json!(20)));
            let unlike = done(room.json(&detect, &lunch).await);
            assert_ne!(unlike[field], verdict, "{unlike}");
            // Ada did not teach it, and what she teaches stays hers.
            let hers = room.of_caller("ada", &detect, &unseen).await;
            assert_eq!((&hers[field], &hers["taught"]), (&before[field], &json!(0)));
            room.of_caller("ada", &teach, &lessons(1)).await;
            let hers = room.of_caller("ada", &detect, &unseen).await;
            assert_eq!(hers["taught"], 1);
            assert_eq!(done(room.json(&detect, &unseen).await)["taught"], 20);
        }
    });
}
