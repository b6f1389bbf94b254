//! The image worker in a mesh: a host that has none classifies pictures, whichever of the hosts dies.
//! Needs a GPU, of software or not, as `classify` does.

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::mesh::Program;
use super::*;
use crate::classify::{has_gpu, read};
use crate::support::guest;

/// Pictures to classify. Each takes some 50 ms of a software GPU.
const PICTURES: usize = 100;
/// As many callers, each with one picture after the other.
const CALLERS: usize = 4;
const EACH: [(&str, &str, &str); 3] = [
    ("house.png", "image/png", "house"),
    ("umbrella.jpg", "image/jpeg", "umbrella"),
    ("mushroom.webp", "image/webp", "mushroom"),
];

/// What one host sends to the other, as it passes.
#[derive(Clone, Default)]
struct Passed(Arc<Mutex<Vec<Vec<u8>>>>);

impl Passed {
    /// Hands connections on to a URL, and keeps what goes there.
    async fn to(&self, url: &str) -> u16 {
        let there = url.replace("http://", "");
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let passed = self.clone();
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                let (passed, there) = (passed.clone(), there.clone());
                tokio::spawn(async move {
                    // Where nobody listens, the caller's connection closes too.
                    let Ok(far) = TcpStream::connect(there).await else {
                        return;
                    };
                    let ((near_in, near_out), (far_in, far_out)) =
                        (near.into_split(), far.into_split());
                    let at = {
                        let mut all = passed.0.lock().unwrap();
                        all.push(Vec::new());
                        all.len() - 1
                    };
                    tokio::select! {
                        () = pass(near_in, far_out, |bytes| passed.0.lock().unwrap()[at].extend_from_slice(bytes)) => {}
                        () = pass(far_in, near_out, |_| {}) => {}
                    }
                });
            }
        });
        port
    }

    /// The calls among it: id and `Crank-Path`.
    fn calls(&self) -> Vec<(String, String)> {
        let all = self.0.lock().unwrap();
        let mut calls = Vec::new();
        for bytes in all.iter() {
            let text = String::from_utf8_lossy(bytes);
            for call in text.split("POST /invoke/classify/image_objects").skip(1) {
                let header = |name: &str| {
                    let found = call.lines().find_map(|line| line.strip_prefix(name));
                    found.unwrap_or_default().to_owned()
                };
                calls.push((header("x-request-id: "), header("crank-path: ")));
            }
        }
        calls
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    see: impl Fn(&[u8]),
) {
    let mut bytes = vec![0; 64 << 10];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        see(&bytes[..count]);
        if to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// Host B, which has the image worker.
fn serving() -> Program {
    let relax = "relax = [\"gpu_count\", \"gpu_memory_mb\", \"gpu_type\", \"min_memory_mb\"]";
    let host = Program::new(&format!("[workers.image-classifier]\n{relax}"));
    let file = host.dir.path().join("image-classifier.wasm");
    std::fs::copy(guest("image-classifier"), file).unwrap();
    host
}

/// What the host with the image worker lists of it, once the drivers have answered.
async fn listed(client: &reqwest::Client, url: &str) -> Value {
    for _ in 0..600 {
        let listed = client.get(format!("{url}/capabilities")).send().await;
        let mut listed: Value = listed.unwrap().json().await.unwrap();
        if let Some(first) = listed["capabilities"].get_mut(0) {
            return first.take();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the image worker is not served");
}

#[test]
fn pictures_are_classified_by_a_host_without_a_gpu_worker_whichever_host_is_killed() {
    if !has_gpu() {
        return;
    }
    let mut hosts = [
        Program::new(&format!("controller_id = \"front\"\n{LOOPBACK}")),
        serving(),
    ];
    hosts.iter_mut().for_each(Program::start);
    let [front, back] = [hosts[0].url(), hosts[1].url()];
    let client = reqwest::Client::builder().timeout(Duration::from_secs(20));
    let client = client.no_proxy().build().unwrap();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let passed = Passed::default();
    runtime.block_on(async {
        let mut offered = listed(&client, &back).await;
        let port = passed.to(&back).await;
        offered["url"] = json!(format!("http://127.0.0.1:{port}"));
        let registered = client.post(format!("{front}/register")).json(&offered);
        let registered = registered.send().await.unwrap();
        assert_eq!(registered.status(), 200, "{:?}", registered.text().await);
    });

    // The one, then the other, each while calls are under way.
    let right = Arc::new(AtomicUsize::new(0));
    let progress = right.clone();
    let killer = std::thread::spawn(move || {
        for (kill, host) in [1, 0, 1, 0].into_iter().enumerate() {
            while progress.load(SeqCst) < (kill + 1) * PICTURES / 5 {
                std::thread::sleep(Duration::from_millis(1));
            }
            hosts[host].kill();
            std::thread::sleep(Duration::from_millis(20));
            hosts[host].start();
        }
        hosts
    });
    let began = Instant::now();
    let attempts = runtime.block_on(async {
        let mut callers = tokio::task::JoinSet::new();
        for caller in 0..CALLERS {
            let url = format!("{front}/invoke/classify/image_objects?top_k=1");
            let (client, right) = (client.clone(), right.clone());
            callers.spawn(async move {
                let mut attempts = 0;
                for picture in (caller..PICTURES).step_by(CALLERS) {
                    let picture = EACH[picture % EACH.len()];
                    loop {
                        assert!(
                            began.elapsed() < Duration::from_secs(120),
                            "it goes on for ever"
                        );
                        attempts += 1;
                        if is_classified(&client, &url, picture).await {
                            break;
                        }
                        tokio::time::sleep(Duration::from_millis(50)).await;
                    }
                    right.fetch_add(1, SeqCst);
                }
                attempts
            });
        }
        callers.join_all().await.into_iter().sum::<usize>()
    });
    println!(
        "{PICTURES} pictures, {attempts} calls, {:?}",
        began.elapsed()
    );
    drop(killer.join().unwrap());

    let calls = passed.calls();
    let ids: HashSet<&str> = calls.iter().map(|(id, _)| &**id).collect();
    assert!(calls.iter().all(|(_, path)| path == "front"), "{calls:?}");
    assert_eq!(ids.len(), calls.len(), "a call was made twice: {calls:?}");
    assert!(
        (PICTURES..=attempts).contains(&calls.len()),
        "{}",
        calls.len()
    );
    assert!(attempts > PICTURES, "nobody noticed that hosts died");
}

/// Whether it is; if not, then because of a host that died, and the caller is told so.
async fn is_classified(
    client: &reqwest::Client,
    url: &str,
    (name, media_type, label): (&str, &str, &str),
) -> bool {
    let call = client.post(url).header("content-type", media_type);
    let sent = call.body(read(&format!("images/{name}"))).send().await;
    // A caller whose own host is killed has no answer at all, which says so.
    let Ok(sent) = sent else { return false };
    let status = sent.status().as_u16();
    let Ok(answer) = sent.json::<Value>().await else {
        return false;
    };
    if status == 200 {
        assert_eq!(answer["labels"][0]["label"], label, "{answer}");
        return true;
    }
    let code = answer["code"].as_str().unwrap_or_default();
    let says_so = ["unavailable", "worker-failed"].contains(&code);
    assert!(says_so, "{answer}");
    false
}
