//! Hosts that forward to each other.

use std::collections::HashMap;
use std::net::TcpListener;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use super::*;
use crate::cli::crank;

/// A component that answers `{}` to `misbehave:work`.
fn worker(workers: &TempDir) -> PathBuf {
    let component = Wat::new("worker-there", json!([capability("work")])).build();
    place(workers, "there", &component)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_without_the_worker_routes_to_one_that_has_it_and_never_in_a_circle() {
    let (workers, a_state, b_state) = (dir(), dir(), dir());
    let a = Meshed::start(vec![], LOOPBACK, a_state.path()).await;
    let b = Meshed::start(vec![worker(&workers)], LOOPBACK, b_state.path()).await;
    // As the other host lists it, so it is registered.
    let listed = b.capabilities("").await.remove(0);
    assert_eq!(a.register(&listed).await.0, 200);
    assert_eq!(
        a.invoke("misbehave/work", &json!({})).await,
        (200, json!({}))
    );

    // Each believes that the other has it: the call comes back, and is not served for ever.
    let mut back = listed.clone();
    back["worker_id"] = json!("host-a");
    back["name"] = json!("elsewhere");
    back["url"] = json!(a.host.url(""));
    assert_eq!(b.register(&back).await.0, 200);
    back["worker_id"] = json!("host-b");
    back["url"] = json!(b.host.url(""));
    assert_eq!(a.register(&back).await.0, 200);
    is(
        &a.invoke("misbehave/elsewhere", &json!({})).await,
        508,
        "loop-detected",
    );

    // One that offers it itself and lists the other serves what it is sent.
    let mut too = listed.clone();
    too["worker_id"] = json!("host-a");
    too["url"] = json!(a.host.url(""));
    assert_eq!(b.register(&too).await.0, 200);
    for _ in 0..20 {
        assert_eq!(
            a.invoke("misbehave/work", &json!({})).await,
            (200, json!({}))
        );
    }

    let far = async |path: &str| {
        let call = b.host.client.post(b.host.url("/invoke/misbehave/work"));
        let call = call.header("crank-path", path).json(&json!({}));
        call.send().await.unwrap().status().as_u16()
    };
    assert_eq!(far("a, b, c, d").await, 200);
    assert_eq!(far("a, b, c, d, e").await, 508);
    assert_eq!(
        far(b.router.registry().remotes().controller_id()).await,
        508
    );
    assert_eq!(far("not an id").await, 400);

    // The other host stops: who asks is told that nothing was done.
    b.stop().await;
    let (status, told) = a.invoke("misbehave/work", &json!({})).await;
    assert_eq!(status, 503, "{told}");
}

/// A `crank serve` of its own that is killed and started again at one port.
pub struct Program {
    child: Option<Child>,
    port: u16,
    pub dir: TempDir,
    /// More of its environment.
    pub environment: Vec<(&'static str, PathBuf)>,
}

impl Program {
    pub fn new(toml: &str) -> Self {
        let dir = dir();
        let state = dir.path().join("state");
        let toml = format!("state_dir = {:?}\n{toml}", state.to_str().unwrap());
        std::fs::write(dir.path().join("crank.toml"), toml).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = free.local_addr().unwrap().port();
        Self {
            child: None,
            port,
            dir,
            environment: Vec::new(),
        }
    }

    pub fn start(&mut self) {
        let listen = self.url().replace("http://", "");
        let arguments = [
            "serve",
            self.dir.path().to_str().unwrap(),
            "--listen",
            &listen,
        ];
        let mut serve = crank(&arguments);
        serve.envs(self.environment.iter().cloned());
        let mut child = serve.stderr(Stdio::piped()).spawn().unwrap();
        let mut log = BufReader::new(child.stderr.take().unwrap());
        let (mut line, mut all) = (String::new(), String::new());
        while !line.contains("listening on http://") {
            line.clear();
            assert_ne!(log.read_line(&mut line).unwrap(), 0, "it ended: {all}");
            all.push_str(&line);
        }
        std::thread::spawn(move || std::io::copy(&mut log, &mut std::io::sink()));
        self.child = Some(child);
    }

    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().unwrap();
        child.wait().unwrap();
    }

    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.child.is_some() {
            self.kill();
        }
    }
}

/// Client, host, host, worker: both hosts are killed again and again while a thousand calls are under way.
#[test]
fn hosts_that_are_killed_give_no_wrong_answer_and_no_call_happens_twice() {
    let python = Python::start();
    let mut hosts = [Program::new(LOOPBACK), Program::new(LOOPBACK)];
    hosts.iter_mut().for_each(Program::start);
    let [front, back] = [hosts[0].url(), hosts[1].url()];
    let client = reqwest::Client::builder()
        .timeout(Duration::from_secs(20))
        .no_proxy();
    let client = client.build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let offered = |url: &str, worker_id: &str| json!({"verb": "count", "name": "up", "version": "1.0.0", "worker_id": worker_id, "url": url});
    for (host, registration) in [
        (&front, offered(&back, "host-back")),
        (&back, offered(&python.url(), "worker-python")),
    ] {
        let request = client.post(format!("{host}/register")).json(&registration);
        let sent = runtime.block_on(async { request.send().await.unwrap() });
        assert_eq!(sent.status(), 200);
    }

    let done = Arc::new(AtomicBool::new(false));
    let killing = done.clone();
    let killer = std::thread::spawn(move || {
        let mut kills = 0;
        while !killing.load(Relaxed) {
            for host in &mut hosts {
                std::thread::sleep(Duration::from_millis(150));
                host.kill();
                kills += 1;
                std::thread::sleep(Duration::from_millis(20));
                host.start();
            }
        }
        kills
    });
    let mut answered = HashMap::new();
    runtime.block_on(async {
        let mut calls = tokio::task::JoinSet::new();
        for n in 0..1000 {
            let (client, url) = (client.clone(), format!("{front}/invoke/count/up"));
            calls.spawn(async move {
                let sent = client.post(url).json(&json!({ "n": n })).send().await;
                // A caller whose own host is killed has no answer at all, which says so.
                let Ok(sent) = sent else {
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    return (n, None);
                };
                let status = sent.status().as_u16();
                (
                    n,
                    sent.json::<Value>().await.ok().map(|body| (status, body)),
                )
            });
            if calls.len() >= 8 {
                let (n, outcome) = calls.join_next().await.unwrap().unwrap();
                answered.insert(n, outcome);
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        while let Some(joined) = calls.join_next().await {
            let (n, outcome) = joined.unwrap();
            answered.insert(n, outcome);
        }
    });
    done.store(true, Relaxed);
    let kills = killer.join().unwrap();

    let mut effects: HashMap<i64, usize> = HashMap::new();
    for call in python.calls() {
        *effects
            .entry(call["input"]["n"].as_i64().unwrap())
            .or_default() += 1;
    }
    assert!(
        effects.values().all(|times| *times == 1),
        "a call happened twice"
    );
    let mut succeeded = 0;
    for (n, outcome) in &answered {
        match outcome {
            Some((200, body)) => {
                assert_eq!(body["n"], *n);
                assert_eq!(
                    effects.get(n),
                    Some(&1),
                    "{n} was answered and never happened"
                );
                succeeded += 1;
            }
            Some((_, problem)) => {
                let code = problem["code"].as_str().unwrap_or_default();
                assert!(
                    ["unavailable", "worker-failed"].contains(&code),
                    "{problem}"
                );
                if code == "unavailable" {
                    assert_eq!(
                        effects.get(n),
                        None,
                        "{n} happened, and its caller was told that not"
                    );
                }
            }
            None => {}
        }
    }
    println!("{succeeded} of 1000 succeeded over {kills} kills");
    assert_eq!(answered.len(), 1000);
    assert!(
        kills >= 4 && succeeded >= 100,
        "{kills} kills, {succeeded} answers"
    );
}
