//! Remote workers over TLS: who they prove to be, and in whose name a call is made there.

use super::mesh::Program;
use super::*;
use crate::identity::authority::{ADA, Asking, Authority, Client, file, own};
use crate::support::{invoke, run};
use crank::error::Code;
use crank::remote::Caller;

const A: &str = "spiffe://crank.local/host/a";
const B: &str = "spiffe://crank.local/host/b";
const RELAY: &str = "spiffe://crank.local/worker/relay";

/// The host that has the worker, with more lines of `[identity]`.
async fn serving(authority: &Authority, more: &str) -> Asking {
    let folder = dir();
    let keys = own(&folder, authority, &authority.of_host(&[B]));
    let toml = format!("[workers.relay]\nspiffe_id = {RELAY:?}\n[identity]\n{keys}{more}\n");
    Asking::serve(folder, &toml, &["relay"]).await
}

/// A host that forwards.
async fn forwarding(authority: &Authority) -> Asking {
    let folder = dir();
    let keys = own(&folder, authority, &authority.of_host(&[A]));
    let toml = format!(
        "{LOOPBACK}\nstate_dir = {:?}\n[identity]\n{keys}",
        folder.path()
    );
    Asking::serve(folder, &toml, &[]).await
}

/// Says where `relay:who` is, and as whom it is known.
async fn registered(at: &Asking, url: String, id: Option<&str>) {
    let registration = json!({
        "verb": "relay", "name": "who", "version": "1.0.0", "worker_id": "relay-there",
        "url": url, "spiffe_id": id,
    });
    let registration = serde_json::from_value(registration).unwrap();
    let registry = at.router.registry();
    let taken = registry
        .register(registration, &Caller::Operator(None))
        .await;
    assert!(taken.is_ok());
}

fn url(of: &Asking, host: &str) -> String {
    format!("https://{host}:{}", of.host.addr.port())
}

/// What comes of Ada's call.
async fn who(at: &Asking, authority: &Authority, headers: &str) -> String {
    let ada = authority.svid(&[ADA], |_| {});
    let client = Client::connect(&at.host, authority, Some(&ada)).await;
    client.unwrap().who(headers).await.unwrap()
}

fn names(answer: &str, caller: &str) {
    let caller = format!("\"caller\":{caller:?}");
    assert!(answer.contains(&caller), "{caller}: {answer}");
}

#[test]
fn a_call_that_is_forwarded_is_its_callers_where_both_hosts_have_proven_themselves() {
    run(async {
        let ours = Authority::new();
        let a = forwarding(&ours).await;
        let believing = serving(&ours, &format!("forwarders = [{A:?}]")).await;
        registered(&a, url(&believing, "localhost"), Some(B)).await;
        for _ in 0..2 {
            names(&who(&a, &ours, "").await, ADA);
        }
        // Who is no forwarder calls in their own name, whatever they say.
        let claim = "crank-caller: spiffe://crank.local/user/eve\r\n";
        names(&who(&believing, &ours, claim).await, ADA);
        names(&who(&a, &ours, claim).await, ADA);

        let wary = serving(&ours, "").await;
        registered(&a, url(&wary, "localhost"), Some(B)).await;
        names(&who(&a, &ours, "").await, A);

        // What is no id of the trust domain is nobody's, and a host that may forward is no operator by that.
        let host = ours.svid(&[A], |_| {});
        let mut host = Client::connect(&believing.host, &ours, Some(&host))
            .await
            .unwrap();
        let told = host
            .who("crank-caller: spiffe://else.where/x\r\n")
            .await
            .unwrap();
        assert!(told.starts_with("HTTP/1.1 400"), "{told}");
        let both = format!("crank-caller: {RELAY}\r\ncrank-origin: {ADA}\r\n");
        let told = host.who(&both).await.unwrap();
        names(&told, RELAY);
        assert!(told.contains(&format!("[\"origin\",{ADA:?}]")), "{told}");
    });
}

#[test]
fn a_remote_over_tls_gets_a_call_only_if_it_proves_to_be_whom_it_is_registered_as() {
    run(async {
        let (ours, theirs) = (Authority::new(), Authority::new());
        let a = forwarding(&ours).await;
        let b = serving(&ours, "").await;
        let foreign = serving(&theirs, "").await;
        for (at, host, id, takes) in [
            (&b, "localhost", Some(B), true),
            // An id is proven under any name, a name only by a certificate that has it.
            (&b, "127.0.0.1", Some(B), true),
            (&b, "localhost", None, true),
            (&b, "127.0.0.1", None, false),
            (&b, "localhost", Some(A), false),
            (&foreign, "localhost", Some(B), false),
            (&foreign, "localhost", None, false),
        ] {
            registered(&a, url(at, host), id).await;
            let answer = who(&a, &ours, "").await;
            let status = if takes {
                "HTTP/1.1 200"
            } else {
                "HTTP/1.1 503"
            };
            assert!(answer.starts_with(status), "{host} as {id:?}: {answer}");
        }
    });
}

#[test]
fn an_authority_that_leaves_the_bundle_proves_no_remote_any_more() {
    run(async {
        let ours = Authority::new();
        let a = forwarding(&ours).await;
        let b = serving(&ours, "").await;
        registered(&a, url(&b, "localhost"), Some(B)).await;
        let router = a.router.clone();
        let keeping = tokio::spawn(async move { router.registry().keep_remote().await });
        let call = async || invoke(&a.router, "relay:who", "null").await;
        call().await.expect("it is believed");

        file(&a.dir, "bundle", &Authority::new().pem());
        let began = Instant::now();
        let failure = loop {
            match call().await {
                Err(failure) => break failure,
                Ok(_) => assert!(began.elapsed() < Duration::from_secs(10), "still believed"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(failure.code, Code::Unavailable);
        let cause = failure.cause.unwrap_or_default();
        assert!(cause.contains("invalid peer certificate"), "{cause}");
        keeping.abort();
    });
}

/// The operator's file, with one worker of `classify_email`.
fn capabilities(dir: &TempDir, url: &str) -> PathBuf {
    let file = dir.path().join("capabilities.yaml");
    let worker = format!("{{worker_id: there, address: {url:?}}}");
    let text = format!(
        "capabilities:\n  - verb: classify_email\n    version: \"1.0\"\n    workers: [{worker}]\n"
    );
    std::fs::write(&file, text).unwrap();
    file
}

#[tokio::test(flavor = "multi_thread")]
async fn a_worker_of_the_capabilities_file_proves_its_name_by_the_bundle() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let [python, foreign] =
        [&ours, &theirs].map(|authority| Python::over_tls(&authority.of_host(&[])));
    for (url, why) in [
        (python.url(), None),
        (
            python.url().replace("localhost", "127.0.0.1"),
            Some("not valid for name"),
        ),
        (foreign.url(), Some("invalid peer certificate")),
    ] {
        let state = dir();
        let file = capabilities(&state, &url);
        let keys = own(&state, &ours, &ours.of_host(&[A]));
        let toml = format!("capabilities = {file:?}\n[identity]\n{keys}");
        let host = Meshed::start(vec![], &toml, state.path()).await;
        let answer = host.invoke("classify_email", &json!({})).await;
        match why {
            None => assert_eq!(answer.1["category"], "normal", "{}", answer.1),
            Some(why) => {
                is(&answer, 503, "unavailable");
                let reason = &host.remote("there").await["reason"];
                assert!(reason.as_str().unwrap().contains(why), "{url}: {reason}");
            }
        }
    }
    assert_eq!((python.calls().len(), foreign.calls().len()), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_bundle_a_worker_proves_its_name_by_the_machines_roots() {
    let (ours, theirs) = (Authority::new(), Authority::new());
    let python = Python::over_tls(&ours.of_host(&[]));
    let roots = dir();
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    for (authority, status) in [(&ours, 200), (&theirs, 503)] {
        let file = roots.path().join("roots.pem");
        std::fs::write(&file, authority.pem()).unwrap();
        let yaml = capabilities(&roots, &python.url());
        let mut host = Program::new(&format!("capabilities = {yaml:?}"));
        host.environment = vec![("SSL_CERT_FILE", file)];
        host.start();
        let call = client.post(format!("{}/invoke/classify_email", host.url()));
        let answer = call.json(&json!({})).send().await.unwrap();
        assert_eq!(answer.status(), status, "{:?}", answer.text().await);
        let listed = client.get(format!("{}/workers", host.url())).send().await;
        let listed = listed.unwrap().text().await.unwrap();
        let is_foreign = listed.contains("invalid peer certificate");
        assert_eq!(is_foreign, status == 503, "{listed}");
    }
    assert_eq!(python.calls().len(), 1);
}
