//! Workers elsewhere: registered or named by the operator, called over HTTP, dying at any time.

mod calls;
mod mesh;
mod pictures;
mod tls;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crank::idempotency::Keys;
use crank::registry::Registry;
use crank::remote::Remotes;
use crank::router::Router;
use reqwest::Method;
use serde_json::{Map, Value, json};
use tempfile::TempDir;

use crate::identity::authority::Leaf;
use crate::support::component::{Wat, capability};
use crate::support::{Host, config, dir, load, place};

/// What the operator says who lets workers of this machine register.
const LOOPBACK: &str = "remote_addresses = [\"127.0.0.0/8\", \"::1\"]";

/// A worker in Python, killed at the end.
struct Python {
    child: Child,
    scheme: &'static str,
    port: u16,
    dir: Arc<TempDir>,
}

impl Python {
    fn start() -> Self {
        Self::at(Arc::new(dir()), 0)
    }

    fn at(dir: Arc<TempDir>, port: u16) -> Self {
        Self::with(dir, port, "http", &[])
    }

    /// One that is `localhost` by this certificate.
    fn over_tls(leaf: &Leaf) -> Self {
        let dir = Arc::new(dir());
        let files = [("certificate", &leaf.certificate), ("key", &leaf.key)];
        let files = files.map(|(name, pem)| {
            std::fs::write(dir.path().join(name), pem).unwrap();
            dir.path().join(name)
        });
        Self::with(dir, 0, "https", &files)
    }

    fn with(dir: Arc<TempDir>, port: u16, scheme: &'static str, files: &[PathBuf]) -> Self {
        let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/remote/worker.py");
        let mut child = Command::new("python3")
            .arg(script)
            .arg(dir.path())
            .arg(port.to_string())
            .args(files)
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .expect("python3 is there");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap())
            .read_line(&mut line)
            .unwrap();
        let port = line.trim().parse().expect("it prints its port");
        Self {
            child,
            scheme,
            port,
            dir,
        }
    }

    fn url(&self) -> String {
        format!("{}://localhost:{}", self.scheme, self.port)
    }

    /// The calls that reached it.
    fn calls(&self) -> Vec<Value> {
        let text = std::fs::read_to_string(self.dir.path().join("calls")).unwrap_or_default();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    }
}

impl Drop for Python {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A host with remote workers, kept true as `crank serve` does it.
struct Meshed {
    host: Host,
    router: Arc<Router>,
    keeping: tokio::task::JoinHandle<()>,
}

impl Meshed {
    /// With these components and lines of `crank.toml`; its state lies in a directory.
    async fn start(components: Vec<PathBuf>, toml: &str, state: &Path) -> Self {
        let toml = format!("state_dir = {:?}\n{toml}", state.to_str().unwrap());
        let remotes = Remotes::open(&config(&toml)).unwrap();
        let registry = Registry::new(load(components, &toml).await).joined_by(remotes);
        let router = Arc::new(Router::with(
            registry,
            crank::admission::Admission::new(64, || false),
        ));
        router.keep(Keys::at(state.join("idempotency"), &config("").idempotency));
        let kept = router.clone();
        let keeping = tokio::spawn(async move {
            kept.registry().keep_remote().await;
        });
        let host = Host::of(router.clone(), |_| {}).await;
        Self {
            host,
            router,
            keeping,
        }
    }

    /// Ends it, and waits until it has let go of its directory.
    async fn stop(self) {
        let router = Arc::downgrade(&self.router);
        drop(self);
        while router.strong_count() > 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    async fn send(&self, method: Method, route: &str, body: Option<&Value>) -> (u16, Value) {
        let mut request = self.host.client.request(method, self.host.url(route));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.unwrap();
        let status = response.status().as_u16();
        (status, response.json().await.unwrap_or_default())
    }

    async fn register(&self, registration: &Value) -> (u16, Value) {
        self.send(Method::POST, "/register", Some(registration))
            .await
    }

    async fn invoke(&self, route: &str, input: &Value) -> (u16, Value) {
        let route = format!("/invoke/{route}");
        self.send(Method::POST, &route, Some(input)).await
    }

    /// What `GET /capabilities` lists for a query.
    async fn capabilities(&self, query: &str) -> Vec<Value> {
        let route = format!("/capabilities{query}");
        let (_, listed) = self.send(Method::GET, &route, None).await;
        listed["capabilities"].as_array().unwrap().clone()
    }

    async fn remote(&self, worker_id: &str) -> Value {
        let (_, workers) = self.send(Method::GET, "/workers", None).await;
        let remote = workers["remote"].as_array().unwrap().iter();
        let mut found = remote.filter(|remote| remote["worker_id"] == worker_id);
        found.next_back().cloned().unwrap_or_default()
    }

    /// Waits until a remote worker is listed so.
    async fn until(&self, worker_id: &str, is: impl Fn(&Value) -> bool) {
        let began = Instant::now();
        loop {
            let seen = self.remote(worker_id).await;
            if is(&seen) {
                return;
            }
            assert!(began.elapsed() < Duration::from_secs(20), "it stays {seen}");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Meshed {
    fn drop(&mut self) {
        self.keeping.abort();
    }
}

/// The seed's reference worker, all fields.
fn hello_world(url: &str) -> Value {
    json!({
        "verb": "greet", "name": "hello_world", "version": "1.0.0",
        "worker_id": "worker-hello-world", "url": url, "load_score": 0.1,
        "runtime": "python3.11", "env_profile": "cpu-optimized",
        "constraints": {"min_memory_mb": 512, "max_memory_mb": 1024, "cpu_shares": 1024, "disk_type": "any"},
        "slo": {"latency_p50_ms": 50, "latency_p95_ms": 100, "latency_p99_ms": 200,
                "availability_pct": 99.5, "error_budget_pct": 0.5},
        "spiffe_id": "spiffe://crank.local/worker/hello-world", "required_capabilities": [],
        "cost_tokens": 0.1, "slo_bid": 1.0, "controller_affinity": ["controller-primary"],
    })
}

/// The seed's worker without extended fields; a Python dataclass says what it has not got as null.
fn minimal(worker_id: &str, url: &str) -> Value {
    json!({
        "verb": "test", "name": "minimal", "version": "1.0.0", "worker_id": worker_id,
        "url": url, "load_score": 0.1, "runtime": null, "slo": null,
    })
}

/// Registers a capability of a Python worker, nameless and without a schema.
fn classify(worker_id: &str, python: &Python, more: Value) -> Value {
    let mut registration = json!({
        "verb": "classify_email", "version": "1.0", "worker_id": worker_id, "url": python.url(),
    });
    let more: Map<String, Value> = more.as_object().unwrap().clone();
    registration.as_object_mut().unwrap().extend(more);
    registration
}

fn is(answer: &(u16, Value), status: u16, code: &str) {
    assert_eq!(
        (answer.0, &answer.1["code"]),
        (status, &json!(code)),
        "{}",
        answer.1
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_seeds_workers_register_and_are_found_by_their_metadata() {
    let state = dir();
    let host = Meshed::start(vec![], LOOPBACK, state.path()).await;
    let hello = hello_world("https://localhost:8500");
    let (status, answer) = host.register(&hello).await;
    assert_eq!((status, &answer["ttl"]), (200, &json!(300)), "{answer}");
    let listed = host.capabilities("").await;
    for (field, value) in hello.as_object().unwrap() {
        assert_eq!(&listed[0][field], value, "{field}");
    }

    let (status, answer) = host
        .register(&minimal("worker-minimal", "https://localhost:9999"))
        .await;
    assert_eq!(status, 200, "{answer}");

    let mut gpu = hello_world("http://127.0.0.1:8508");
    for (field, value) in [
        ("verb", json!("classify")),
        ("name", json!("image_objects")),
        ("worker_id", json!("worker-image-classifier")),
        ("runtime", json!("python3.12")),
        ("env_profile", json!("gpu-required")),
        ("slo", json!({"latency_p95_ms": 500})),
        ("spiffe_id", Value::Null),
        ("cost_tokens_per_invocation", json!(10.0)),
    ] {
        gpu[field] = value;
    }
    gpu.as_object_mut().unwrap().remove("cost_tokens");
    assert_eq!(host.register(&gpu).await.0, 200);
    let names = async |query: &str| {
        let found = host.capabilities(query).await.into_iter();
        found
            .map(|found| found["name"].as_str().unwrap().to_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(names("?runtime=python3.11").await, ["hello_world"]);
    assert_eq!(names("?env_profile=gpu-required").await, ["image_objects"]);
    assert_eq!(names("?max_latency_p95=300").await, ["hello_world"]);
    assert_eq!(
        host.capabilities("?name=image_objects").await[0]["cost_tokens"],
        10.0
    );

    // What is listed can be registered as it stands: so hosts learn of each other's workers.
    assert_eq!(host.register(&host.capabilities("").await[0]).await.0, 200);
    assert_eq!(host.capabilities("").await.len(), 3);

    // Nobody listens there: the worker is listed, and says why it gets no calls.
    let unreachable = host.invoke("greet/hello_world", &json!({})).await;
    is(&unreachable, 503, "unavailable");
    let reason = &host.remote("worker-hello-world").await["reason"];
    assert!(reason.as_str().unwrap().contains("refused"), "{reason}");

    let (status, removed) = host
        .send(Method::DELETE, "/register/worker-hello-world", None)
        .await;
    assert_eq!((status, &removed["capabilities"]), (200, &json!(1)));
    is(
        &host
            .send(Method::DELETE, "/register/worker-hello-world", None)
            .await,
        404,
        "not-found",
    );
    assert_eq!(names("?runtime=python3.11").await, [""; 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_registration_outlives_the_host_and_ends_where_nobody_renews_it() {
    let (state, python) = (dir(), Python::start());
    let host = Meshed::start(vec![], LOOPBACK, state.path()).await;
    let (_, kept) = host.register(&minimal("worker-kept", &python.url())).await;
    assert_eq!(kept["kept"], true, "{kept}");
    let mut brief = minimal("worker-brief", &python.url());
    brief["ttl"] = json!(2);
    assert_eq!(host.register(&brief).await.0, 200);
    let id = host.router.registry().remotes().controller_id().to_owned();
    host.stop().await;

    let host = Meshed::start(vec![], LOOPBACK, state.path()).await;
    assert_eq!(host.router.registry().remotes().controller_id(), id);
    assert_eq!(host.invoke("test/minimal", &json!({})).await.0, 200);
    for _ in 0..3 {
        tokio::time::sleep(Duration::from_millis(900)).await;
        assert_eq!(host.register(&brief).await.0, 200);
    }
    assert!(
        host.remote("worker-brief").await["expires_in_s"]
            .as_u64()
            .unwrap()
            <= 2
    );
    host.until("worker-brief", Value::is_null).await;
    assert_eq!(host.remote("worker-kept").await["health"], "healthy");

    // An operator who takes the range away takes the workers away.
    host.stop().await;
    let host = Meshed::start(vec![], "remote_addresses = [\"10.0.0.0/8\"]", state.path()).await;
    assert_eq!(host.capabilities("").await.len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_registration_may_not_claim_is_refused() {
    let workers = dir();
    let loaded = place(
        &workers,
        "loaded",
        &Wat::new("worker-loaded", json!([capability("work")])).build(),
    );
    let state = dir();
    let toml = format!("{LOOPBACK}\n[workers.absent]\nworker_id = \"worker-bound\"");
    let host = Meshed::start(vec![loaded], &toml, state.path()).await;
    let with = |field: &str, value: Value| {
        let mut registration = minimal("worker-minimal", "http://localhost:9999");
        registration[field] = value;
        registration
    };
    for (field, value, status, code) in [
        ("worker_id", json!("worker-loaded"), 409, "conflict"),
        ("worker_id", json!("worker-bound"), 409, "conflict"),
        ("spiffe_id", json!("spiffe://elsewhere/a"), 403, "denied"),
        ("url", json!("http://192.0.2.1:80"), 403, "denied"),
        ("url", json!("http://[::ffff:192.0.2.1]"), 403, "denied"),
        ("url", json!("ftp://localhost"), 400, "invalid-request"),
        (
            "url",
            json!("http://nowhere.invalid"),
            400,
            "invalid-request",
        ),
        ("load_score", json!(2), 400, "invalid-request"),
        ("ttl", json!(0), 400, "invalid-request"),
        ("verb", json!("Fly"), 400, "invalid-request"),
        ("version", json!("one"), 400, "invalid-request"),
        (
            "constraints",
            json!({"min_memory_gb": 1}),
            400,
            "invalid-request",
        ),
        (
            "schema",
            json!({"input": {"type": "strin"}}),
            400,
            "invalid-request",
        ),
        ("priority", json!(1), 400, "invalid-request"),
    ] {
        is(
            &host.register(&with(field, value.clone())).await,
            status,
            code,
        );
    }
    let (_, told) = host
        .register(&with("constraints", json!({"min_memory_gb": 1})))
        .await;
    assert_eq!(told["errors"][0]["pointer"], "/constraints/min_memory_gb");

    // A web page may call, and says nothing about where workers are.
    let page = host.host.client.post(host.host.url("/register"));
    let page = page
        .header("origin", host.host.url(""))
        .json(&with("ttl", json!(9)));
    assert_eq!(page.send().await.unwrap().status(), 403);
    is(
        &host
            .send(Method::DELETE, "/register/worker-loaded", None)
            .await,
        409,
        "conflict",
    );

    // Nothing may register where the operator names no range.
    let state = dir();
    let closed = Meshed::start(vec![], "", state.path()).await;
    let refused = closed.register(&with("ttl", json!(9))).await;
    is(&refused, 403, "denied");
    assert!(
        refused.1["detail"]
            .as_str()
            .unwrap()
            .contains("remote_addresses")
    );
    assert!(
        std::fs::read_dir(state.path()).unwrap().next().is_none(),
        "nothing to keep"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn schemas_of_a_capability_agree_between_sources_and_majors_live_side_by_side() {
    let state = dir();
    let host = Meshed::start(vec![], LOOPBACK, state.path()).await;
    let offer = async |worker_id: &str, version: &str, input: Value| {
        let mut offered = minimal(worker_id, "http://localhost:9999");
        offered["version"] = json!(version);
        offered["schema"] = json!({"input": input, "output": {"type": "object"}});
        host.register(&offered).await
    };
    let base = json!({"type": "object", "properties": {"a": {"type": "integer"}}});
    assert_eq!(offer("worker-a", "1.0.0", base.clone()).await.0, 200);
    let mut worded = base.clone();
    worded["description"] = json!("words make no difference");
    assert_eq!(offer("worker-b", "1.0.0", worded).await.0, 200);

    let other = json!({"type": "object", "properties": {"a": {"type": "string"}}});
    let refused = offer("worker-c", "1.0.0", other.clone()).await;
    is(&refused, 409, "conflict");
    let detail = refused.1["detail"].as_str().unwrap();
    assert!(
        detail.contains("/input/properties/a/type") && detail.contains("worker-"),
        "{detail}"
    );

    // A minor version may accept more, and not less; a major version is another capability.
    let mut narrower = base.clone();
    narrower["required"] = json!(["a"]);
    is(&offer("worker-c", "1.1.0", narrower).await, 409, "conflict");
    let mut wider = base.clone();
    wider["properties"]["a"] = json!({"type": ["integer", "null"]});
    assert_eq!(offer("worker-c", "1.1.0", wider).await.0, 200);
    assert_eq!(offer("worker-c", "2.0.0", other).await.0, 200);
    let versions = host.capabilities("?worker_id=worker-c").await;
    assert_eq!(versions.len(), 2, "{versions:?}");

    // Who brings no schema takes over that of its version.
    assert_eq!(
        host.register(&minimal("worker-d", "http://localhost:9999"))
            .await
            .0,
        200
    );
    let inherited = &host.capabilities("?worker_id=worker-d").await[0]["schema"]["input"];
    assert_eq!(inherited, &base, "of the first");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_operators_file_is_watched_and_a_broken_one_changes_nothing() {
    let (state, python) = (dir(), Python::start());
    let file = state.path().join("capabilities.yaml");
    let entry = |verb: &str| {
        format!(
            "capabilities:\n  - verb: {verb}\n    version: 1.0\n    workers:\n      - {{worker_id: in-file, address: '{}'}}\n",
            python.url()
        )
    };
    let write = |text: &str| std::fs::write(&file, text).unwrap();
    let toml = format!("capabilities = {:?}\n{LOOPBACK}", file.to_str().unwrap());
    write("capabilities: 7");
    let broken = Remotes::open(&config(&toml)).err().expect("it says why");
    assert!(broken.contains("capabilities.yaml"), "{broken}");

    write(&entry("look"));
    // Its addresses are the operator's own word: no range is asked.
    let toml = format!("capabilities = {:?}", file.to_str().unwrap());
    let host = Meshed::start(vec![], &toml, &state.path().join("state")).await;
    assert_eq!(host.invoke("look", &json!({})).await.0, 200);
    is(
        &host.send(Method::DELETE, "/register/in-file", None).await,
        409,
        "conflict",
    );
    write("capabilities: [");
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(host.invoke("look", &json!({})).await.0, 200);
    write(&entry("look_again"));
    host.until("in-file", |seen| {
        seen["capability"] == "look_again:look_again"
    })
    .await;
    is(
        &host.invoke("look", &json!({})).await,
        404,
        "unknown-capability",
    );
    assert_eq!(host.invoke("look_again", &json!({})).await.0, 200);
    std::fs::remove_file(&file).unwrap();
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert_eq!(host.invoke("look_again", &json!({})).await.0, 200);
}
