//! Who calls: certificates, tokens, what ends where, and what workers learn of it.

pub mod authority;
mod files;
mod powers;
mod streams;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use crank::auth::Auth;
use crank::config::Config;
use crank::identity::SpiffeId;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use rcgen::{BasicConstraints, IsCa, KeyUsagePurpose, date_time_ymd};
use reqwest::Method;
use serde_json::{Value, json};

use crate::support::{config, dir, guest, load, log, run};
use authority::{ADA, AUDIENCE, Asking, Authority, Client, Issuer, Leaf, ask, ends, file};

const EVE: &str = "spiffe://crank.local/user/eve";

#[test]
fn a_certificate_names_its_caller_and_each_that_does_not_hold_ends_the_handshake() {
    run(async {
        let ours = Authority::new();
        let asking = Asking::by_certificate(&ours, "").await;
        let ada = ours.svid(&[ADA], |_| {});
        let answer = ask(&asking.host, &ours, Some(&ada), "").await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(
            answer.contains(&format!("\"caller\":\"{ADA}\"")),
            "{answer}"
        );

        let theirs = Authority::new();
        let leaf = |uris: &[&str]| ours.svid(uris, |_| {});
        let refused: [(&str, Option<Leaf>, &str); 10] = [
            ("no certificate", None, "CertificateRequired"),
            (
                "expired",
                Some(ours.svid(&[ADA], |params| {
                    params.not_after = date_time_ymd(2020, 1, 1)
                })),
                "CertificateExpired",
            ),
            (
                "unknown authority",
                Some(theirs.svid(&[ADA], |_| {})),
                "alert",
            ),
            (
                "other trust domain",
                Some(leaf(&["spiffe://else.where/user/ada"])),
                "CertificateUnknown",
            ),
            (
                "two URI names",
                Some(leaf(&[ADA, "spiffe://crank.local/user/eve"])),
                "CertificateUnknown",
            ),
            ("no URI name", Some(leaf(&[])), "CertificateUnknown"),
            (
                "no path",
                Some(leaf(&["spiffe://crank.local"])),
                "CertificateUnknown",
            ),
            (
                "no SPIFFE id",
                Some(leaf(&["https://crank.local/user/ada"])),
                "CertificateUnknown",
            ),
            (
                "an authority's own",
                Some(ours.svid(&[ADA], |params| {
                    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained)
                })),
                "alert",
            ),
            (
                "it may sign others",
                Some(ours.svid(&[ADA], |params| {
                    params.key_usages.push(KeyUsagePurpose::KeyCertSign)
                })),
                "CertificateUnknown",
            ),
        ];
        for (what, leaf, alert) in refused {
            let told = ask(&asking.host, &ours, leaf.as_ref(), "").await;
            assert!(
                told.contains("alert") && told.contains(alert),
                "{what}: {told}"
            );
        }
        let log = log();
        assert!(
            log.contains("2 URI names") && log.contains("no URI name"),
            "it is audited"
        );
    });
}

#[test]
fn a_bundles_rotation_revokes_for_new_connections_and_for_open_ones() {
    run(async {
        let old = Authority::new();
        let asking = Asking::by_certificate(&old, "").await;
        let ada = old.svid(&[ADA], |_| {});
        let mut open = Client::connect(&asking.host, &old, Some(&ada))
            .await
            .expect("it holds");
        let answer = open.who("").await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        // What is no bundle leaves the one before it.
        asking.rotate("bundle", "-----BEGIN CERTIFICATE-----\nnonsense\n");
        let answer = open.who("").await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");

        let new = Authority::new();
        asking.rotate("bundle", &new.pem());
        let answer = open.who("").await.expect("it answers");
        assert!(answer.starts_with("HTTP/1.1 401"), "{answer}");
        assert!(answer.contains("www-authenticate: Bearer"), "{answer}");
        assert!(answer.contains("connection: close"), "{answer}");
        let told = ask(&asking.host, &old, Some(&ada), "").await;
        assert!(told.contains("alert"), "{told}");
        // The host's own certificate is still the old authority's.
        let eve = new.svid(&["spiffe://crank.local/user/eve"], |_| {});
        let answer = ask(&asking.host, &old, Some(&eve), "").await;
        assert!(answer.contains("spiffe://crank.local/user/eve"), "{answer}");
    });
}

#[test]
fn a_token_over_tls_needs_no_certificate_and_names_the_caller_beside_one() {
    run(async {
        let ours = Authority::new();
        let token = crank::auth::fresh().expect("a token");
        let id = SpiffeId::parse("spiffe://crank.local/user/tom").expect("an id");
        let folder = dir();
        let tokens = file(&folder, "tokens", &crank::auth::line(&token, &id));
        let asking = Asking::by_certificate(&ours, &tokens).await;
        let bearer = format!("authorization: Bearer {token}\r\n");
        let ada = ours.svid(&[ADA], |_| {});
        for (own, headers, expected) in [
            (None, bearer.as_str(), "user/tom"),
            (Some(&ada), bearer.as_str(), "user/tom"),
            (Some(&ada), "", "user/ada"),
            // Wrong credentials are not made good by right ones.
            (
                Some(&ada),
                "authorization: Bearer crank_x\r\n",
                "HTTP/1.1 401",
            ),
            (None, "", "HTTP/1.1 401"),
        ] {
            let answer = ask(&asking.host, &ours, own, headers).await;
            assert!(answer.contains(expected), "{expected}: {answer}");
        }
    });
}

#[test]
fn a_jwt_that_holds_names_its_caller_and_any_other_is_refused_without_a_hint() {
    run(async {
        let issuer = Issuer::new("first");
        let dir = dir();
        let set =
            json!({ "keys": [issuer.jwk(), { "kty": "oct", "kid": "shared", "k": "c2VjcmV0" }] });
        let keys = file(&dir, "jwks", &set.to_string());
        let asking = Asking::start(dir, &format!("{keys}audience = [{AUDIENCE:?}]")).await;
        let good = issuer.token(AUDIENCE, 60);
        for _ in 0..2 {
            let (status, answer, _) = asking.who(&good).await;
            assert_eq!((status, &answer["caller"]), (200, &json!(ADA)), "{answer}");
        }

        let part = |value: Value| BASE64_URL_SAFE_NO_PAD.encode(value.to_string());
        let claims = json!({ "sub": ADA, "aud": AUDIENCE, "exp": ends(60) });
        let (head, signature) = good.rsplit_once('.').expect("three parts");
        let mut other = claims.clone();
        other["sub"] = json!("spiffe://crank.local/user/root");
        let altered = format!(
            "{}.{}.{signature}",
            &head[..head.find('.').expect("a dot")],
            part(other)
        );
        let unsigned = |alg: &str| {
            format!(
                "{}.{}.",
                part(json!({ "alg": alg, "kid": "first" })),
                part(claims.clone())
            )
        };
        let mut shared = Header::new(Algorithm::HS256);
        shared.kid = Some("first".to_owned());
        let public = issuer.jwk()["x"].as_str().expect("a key").to_owned();
        let by_public = encode(
            &shared,
            &claims,
            &EncodingKey::from_secret(public.as_bytes()),
        );
        shared.kid = Some("shared".to_owned());
        let by_shared = encode(&shared, &claims, &EncodingKey::from_secret(b"secret"));
        let without = |name: &str| {
            let mut claims = claims.clone();
            claims.as_object_mut().expect("an object").remove(name);
            issuer.sign(&claims)
        };
        for (what, token) in [
            ("altered", altered),
            ("expired", issuer.token(AUDIENCE, -60)),
            ("alg none", unsigned("none")),
            ("alg ES256, no signature", unsigned("ES256")),
            ("HS256 with the public key", by_public.expect("a token")),
            ("HS256 with a key of the set", by_shared.expect("a token")),
            (
                "meant for another host",
                issuer.token("spiffe://crank.local/host/two", 60),
            ),
            ("an unknown key", Issuer::new("second").token(AUDIENCE, 60)),
            (
                "another's key under a known name",
                Issuer::new("first").token(AUDIENCE, 60),
            ),
            ("no audience", without("aud")),
            ("no end", without("exp")),
            ("no subject", without("sub")),
            (
                "another trust domain",
                issuer.sign(
                    &json!({ "sub": "spiffe://else.where/x", "aud": AUDIENCE, "exp": ends(60) }),
                ),
            ),
            ("no token", "nonsense".to_owned()),
            ("too long", "x".repeat(9000)),
            ("a local token, where there are none", "crank_x".to_owned()),
        ] {
            let (status, answer, challenge) = asking.who(&token).await;
            assert_eq!(
                (status, &answer["code"]),
                (401, &json!("unauthenticated")),
                "{what}"
            );
            assert_eq!(
                answer["detail"], "the credentials do not hold here",
                "{what}"
            );
            let challenge = challenge.expect("a challenge");
            assert!(
                challenge.contains("error=\"invalid_token\""),
                "{what}: {challenge}"
            );
        }

        // The keys' rotation ends what was remembered of tokens.
        asking.rotate(
            "jwks",
            &json!({ "keys": [Issuer::new("second").jwk()] }).to_string(),
        );
        assert_eq!(asking.who(&good).await.0, 401);
    });
}

/// A token that one host has taken is another's too only if it names it.
#[test]
fn a_token_is_not_taken_by_another_host() {
    run(async {
        let issuer = Issuer::new("first");
        let set = json!({ "keys": [issuer.jwk()] }).to_string();
        let (one, two) = (dir(), dir());
        let keys = file(&one, "jwks", &set);
        let one = Asking::start(one, &format!("{keys}audience = [{AUDIENCE:?}]")).await;
        let keys = file(&two, "jwks", &set);
        let two = Asking::start(
            two,
            &format!("{keys}audience = [\"spiffe://crank.local/host/two\"]"),
        )
        .await;
        let token = issuer.token(AUDIENCE, 60);
        assert_eq!(one.who(&token).await.0, 200);
        assert_eq!(two.who(&token).await.0, 401);
    });
}

#[test]
fn a_local_token_opens_until_its_line_is_gone_and_no_credentials_open_nothing() {
    run(async {
        let token = crank::auth::fresh().expect("a token");
        let id = SpiffeId::parse(ADA).expect("an id");
        let dir = dir();
        let line = crank::auth::line(&token, &id);
        assert!(
            !line.contains(&token),
            "the line tells nothing of the token"
        );
        let keys = file(&dir, "tokens", &format!("# people\n{line} # Ada's\n"));
        let asking = Asking::start(dir, &keys).await;
        let (status, answer, _) = asking.who(&token).await;
        assert_eq!((status, &answer["caller"]), (200, &json!(ADA)), "{answer}");
        assert_eq!(asking.who("crank_wrong").await.0, 401);

        for (path, status) in [
            ("/healthz", 200),
            ("/readyz", 200),
            ("/metrics", 401),
            ("/capabilities", 401),
            ("/openapi.json", 401),
            ("/mcp", 401),
            ("/no/such/route", 401),
        ] {
            let answered = asking.host.get(path).await;
            assert_eq!(answered.status().as_u16(), status, "{path}");
            let challenge = answered.headers().get("www-authenticate");
            let challenge = challenge.map(|value| value.to_str().expect("ascii"));
            assert_eq!(
                challenge,
                (status == 401).then_some("Bearer realm=\"crank\""),
                "{path}"
            );
        }
        // Being on this machine is no leave to say where workers are.
        let asked = asking.host.client.delete(asking.host.url("/register/x"));
        let answered = asked.bearer_auth(&token).send().await.expect("it answers");
        assert_eq!(answered.status().as_u16(), 403);
        let told = log();
        assert!(
            told.lines().any(|line| line.contains("audit")
                && line.contains("/register/x")
                && line.contains(ADA)),
            "it is audited"
        );

        // A file that is none leaves the one before it.
        asking.rotate("tokens", "nonsense");
        assert_eq!(asking.who(&token).await.0, 200);
        asking.rotate("tokens", "");
        assert_eq!(asking.who(&token).await.0, 401);
    });
}

#[test]
fn a_tool_and_a_peer_are_told_who_calls_and_on_whose_behalf() {
    run(async {
        let token = crank::auth::fresh().expect("a token");
        let id = SpiffeId::parse(ADA).expect("an id");
        let dir = dir();
        let keys = file(&dir, "tokens", &crank::auth::line(&token, &id));
        let asking = Asking::start(dir, &keys).await;
        let to = json!({ "to": "relay:who", "input": null });
        let nested = asking
            .host
            .client
            .post(asking.host.url("/invoke/relay/one"));
        let nested = nested.bearer_auth(&token).json(&to).send().await;
        let nested: Value = nested.expect("it answers").json().await.expect("JSON");
        assert_eq!(
            nested["answer"]["caller"], "spiffe://crank.local/worker/relay",
            "{nested}"
        );
        let context = nested["answer"]["context"].to_string();
        assert!(
            context.contains(&format!("[\"origin\",\"{ADA}\"]")),
            "{context}"
        );

        let version = "2026-07-28";
        let meta = json!({
            "io.modelcontextprotocol/protocolVersion": version,
            "io.modelcontextprotocol/clientInfo": { "name": "test", "version": "1" },
            "io.modelcontextprotocol/clientCapabilities": {},
        });
        let arguments = json!({ "value": null });
        let params = json!({ "name": "relay-who", "arguments": arguments, "_meta": meta });
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": params });
        let sent = asking.host.client.post(asking.host.url("/mcp"));
        let sent = sent.bearer_auth(&token).json(&call);
        let sent = sent.header("accept", "application/json, text/event-stream");
        let sent = sent.header("mcp-protocol-version", version);
        let sent = sent.header("mcp-method", "tools/call");
        let sent = sent.header("mcp-name", "relay-who").send().await;
        let told = sent.expect("it answers").text().await.expect("text");
        assert!(told.contains(ADA), "{told}");
        let events = asking
            .host
            .client
            .post(asking.host.url("/invoke/relay/who"));
        let events = events
            .bearer_auth(&token)
            .header("accept", "text/event-stream");
        let events = events.json(&Value::Null).send().await.expect("it answers");
        assert!(events.text().await.expect("text").contains(ADA));
    });
}

/// A host that knows Ada and Eve by tokens, with more lines of `[identity]`.
async fn two(more: &str) -> (Asking, [String; 2]) {
    let tokens = [(); 2].map(|()| crank::auth::fresh().expect("a token"));
    let lines = tokens.iter().zip([ADA, EVE]).map(|(token, id)| {
        let id = SpiffeId::parse(id).expect("an id");
        crank::auth::line(token, &id)
    });
    let lines: Vec<String> = lines.collect();
    let dir = dir();
    let keys = file(&dir, "tokens", &lines.join("\n"));
    (Asking::start(dir, &format!("{keys}{more}")).await, tokens)
}

#[test]
fn a_session_is_its_callers_and_nobody_elses_who_learns_its_id() {
    run(async {
        let (asking, [ada, eve]) = two("").await;
        let ask = |token: &str, method: Method, session: Option<&str>, body: Value| {
            let sent = asking.host.client.request(method, asking.host.url("/mcp"));
            let sent = sent
                .bearer_auth(token)
                .header("accept", "application/json, text/event-stream")
                .header("mcp-protocol-version", "2025-06-18");
            let sent = match session {
                Some(session) => sent.header("mcp-session-id", session),
                None => sent,
            };
            let sent = sent.json(&body).send();
            async move { sent.await.expect("it answers") }
        };
        let begin = json!({
            "jsonrpc": "2.0", "id": 1, "method": "initialize",
            "params": {
                "protocolVersion": "2025-06-18", "capabilities": {},
                "clientInfo": { "name": "test", "version": "1" },
            },
        });
        let begun = ask(&ada, Method::POST, None, begin).await;
        let session = begun.headers()["mcp-session-id"].to_str().expect("ascii");
        let ready = json!({ "jsonrpc": "2.0", "method": "notifications/initialized" });
        let ready = ask(&ada, Method::POST, Some(session), ready).await;
        assert_eq!(ready.status().as_u16(), 202);

        let list = json!({ "jsonrpc": "2.0", "id": 2, "method": "tools/list" });
        for method in [Method::POST, Method::GET, Method::DELETE] {
            let refused = ask(&eve, method.clone(), Some(session), list.clone()).await;
            assert_eq!(refused.status().as_u16(), 404, "{method}");
        }
        let listed = ask(&ada, Method::POST, Some(session), list).await;
        assert_eq!(listed.status().as_u16(), 200);
        let ended = ask(&ada, Method::DELETE, Some(session), Value::Null).await;
        assert_eq!(ended.status().as_u16(), 204);
    });
}

#[test]
fn what_concerns_the_whole_host_is_for_its_operators_and_without_any_for_nobody() {
    run(async {
        let (asking, [ada, eve]) = two(&format!("operators = [\"{ADA}\"]\n")).await;
        let status = |token: &str, method: Method, path: &str| {
            let sent = asking.host.client.request(method, asking.host.url(path));
            let sent = sent.bearer_auth(token).send();
            async move { sent.await.expect("it answers").status().as_u16() }
        };
        for path in ["/workers", "/slo", "/costs", "/metrics"] {
            assert_eq!(status(&ada, Method::GET, path).await, 200, "{path}");
            assert_eq!(status(&eve, Method::GET, path).await, 403, "{path}");
        }
        assert_eq!(status(&eve, Method::POST, "/reload").await, 403);
        assert_ne!(status(&ada, Method::POST, "/reload").await, 403);
        let of = |caller: &str| format!("/explain/greet/hello_world?caller={caller}");
        assert_eq!(status(&ada, Method::GET, &of(EVE)).await, 200);
        assert_eq!(status(&eve, Method::GET, &of(EVE)).await, 200);
        assert_eq!(status(&eve, Method::GET, &of(ADA)).await, 403);
        let tools = status(&eve, Method::GET, "/capabilities").await;
        assert_eq!(tools, 200);

        let (asking, [ada, _]) = two("").await;
        for path in ["/workers", "/slo", "/costs", "/metrics"] {
            let sent = asking.host.client.get(asking.host.url(path));
            let answered = sent.bearer_auth(&ada).send().await.expect("it answers");
            assert_eq!(answered.status().as_u16(), 403, "{path}");
        }
    });
}

#[test]
fn where_ids_open_doors_a_component_has_the_one_that_the_operator_gave_it() {
    run(async {
        let dir = dir();
        let keys = format!("[identity]\n{}", file(&dir, "tokens", ""));
        let refused = load(vec![guest("relay")], &keys).await;
        let reasons = refused.refused()[0].reasons.join("; ");
        assert!(
            reasons.contains("[workers.\"relay\"] spiffe_id"),
            "{reasons}"
        );
        let granted = "[workers.relay]\nspiffe_id = \"spiffe://crank.local/worker/relay\"\n";
        let loaded = load(vec![guest("relay")], &format!("{granted}{keys}")).await;
        assert!(loaded.refused().is_empty(), "{:?}", loaded.refused());
    });
}

#[test]
fn another_address_than_loopback_asks_for_identities_and_for_tls() {
    let refusal = |toml: &str| {
        let folder = dir();
        let path = folder.path().join("crank.toml");
        std::fs::write(&path, format!("listen = \"0.0.0.0:0\"\n{toml}")).expect("a file");
        let home = [("HOME".to_owned(), "/home/ada".to_owned())];
        Config::load(&[], Some(&path), home)
            .err()
            .map(|error| error.to_string())
    };
    assert!(refusal("").expect("no").contains("set [identity]"));
    let tokens = "[identity]\ntokens = \"t\"\n";
    assert!(
        refusal(tokens)
            .expect("no")
            .contains("identity.certificate")
    );
    let tls = "certificate = \"c\"\nkey = \"k\"\n";
    assert_eq!(refusal(&format!("{tokens}{tls}")), None);
    assert!(
        refusal(&format!("[identity]\n{tls}")).is_some(),
        "TLS alone names no caller"
    );
    assert_eq!(refusal(&format!("[identity]\n{tls}bundle = \"b\"")), None);
    for wrong in [
        "certificate = \"c\"",
        "bundle = \"b\"",
        "jwks = \"j\"",
        "audience = [\"a\"]",
        "registrars = [\"spiffe://else.where/x\"]",
        "local = \"ada\"",
        "token = \"t\"",
    ] {
        assert!(
            refusal(&format!("listen = \"127.0.0.1:0\"\n[identity]\n{wrong}")).is_some(),
            "{wrong}"
        );
    }
    // What is named must be there before anything is served.
    assert!(Auth::open(&config("[identity]\ntokens = \"/no/such/file\"")).is_err());
    assert!(Auth::open(&config("")).expect("nothing to read").is_none());
}
