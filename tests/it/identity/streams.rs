//! What credentials cost and how long they last: floods of tokens that do not hold, streams that outlive those that do.

use std::time::{Duration, Instant};

use crank::identity::SpiffeId;
use serde_json::json;

use super::authority::{ADA, AUDIENCE, Asking, Issuer, file};
use crate::support::{dir, log, run};

/// Reads a stream without end until it does.
async fn broken_off(asking: &Asking, token: &str, revoke: impl FnOnce(&Asking)) {
    let endless = json!({"count": u32::MAX, "event": "note", "bytes": 10});
    let path = "/invoke/misbehave/send_events";
    let events = asking.host.client.post(asking.host.url(path));
    let events = events.header("accept", "text/event-stream");
    let sent = events.bearer_auth(token).json(&endless).send().await;
    let mut stream = sent.expect("it answers");
    assert_eq!(stream.status().as_u16(), 200);
    let begun = stream.chunk().await.expect("it goes on");
    assert!(begun.is_some());
    revoke(asking);
    let began = Instant::now();
    let ended = loop {
        match stream.chunk().await {
            Ok(Some(_)) => assert!(began.elapsed() < Duration::from_secs(20), "it goes on"),
            ended => break ended,
        }
    };
    assert!(ended.is_err(), "it is cut, and not at its end");
}

#[test]
fn a_stream_ends_when_the_credentials_of_its_reader_do() {
    run(async {
        let folder = dir();
        let token = crank::auth::fresh().expect("a token");
        let id = SpiffeId::parse(ADA).expect("an id");
        let tokens = file(&folder, "tokens", &crank::auth::line(&token, &id));
        let issuer = Issuer::new("first");
        let set = json!({ "keys": [issuer.jwk()] });
        let keys = file(&folder, "jwks", &set.to_string());
        let toml = format!("[identity]\n{tokens}{keys}audience = [{AUDIENCE:?}]\n");
        let asking = Asking::serve(folder, &toml, &["hostile"]).await;
        // Five seconds of leeway less three.
        broken_off(&asking, &issuer.token(AUDIENCE, -3), |_| {}).await;
        broken_off(&asking, &issuer.token(AUDIENCE, 600), |asking| {
            let other = json!({ "keys": [Issuer::new("second").jwk()] });
            asking.rotate("jwks", &other.to_string());
        })
        .await;
        broken_off(&asking, &token, |asking| asking.rotate("tokens", "")).await;
        let told = log();
        let mut told = told.lines().filter(|line| line.contains("stream ended"));
        assert!(told.any(|line| line.contains("audit") && line.contains(ADA)));
    });
}

#[test]
fn an_address_has_so_many_tokens_verified_in_vain_and_who_is_known_goes_on() {
    run(async {
        let issuer = Issuer::new("first");
        let folder = dir();
        let set = json!({ "keys": [issuer.jwk()] });
        let keys = file(&folder, "jwks", &set.to_string());
        let asking = Asking::start(folder, &format!("{keys}audience = [{AUDIENCE:?}]")).await;
        let good = issuer.token(AUDIENCE, 60);
        assert_eq!(asking.who(&good).await.0, 200);
        let forger = Issuer::new("first");
        let mut vain = 0;
        while asking.who(&forger.token(AUDIENCE, 60 + vain)).await.0 == 401 {
            vain += 1;
            assert!(vain < 5000, "each is verified");
        }
        assert!(vain >= 100, "{vain}");
        assert_eq!(asking.who(&good).await.0, 200);
        // Those that hold take nothing of it: a hundred callers may begin at once behind one proxy.
        tokio::time::sleep(Duration::from_secs(1)).await;
        for seconds in 0..50 {
            assert_eq!(
                asking.who(&issuer.token(AUDIENCE, 70 + seconds)).await.0,
                200
            );
        }
    });
}
