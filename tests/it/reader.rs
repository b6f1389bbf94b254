//! Readers of a stream, seen from outside of the process that serves: one who takes his time, and one who is
//! gone.

use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::cli::Serving;
use crate::support::{dir, guest, kib, run};

/// More than all buffers between the guest and its reader take.
const TEXT_BYTES: usize = 12 << 20;
const PATIENT: &str = "wall_ms = 300000\nrelax = [\"min_memory_mb\"]\n";

/// A directory of the worker that streams and the one that divides for it.
fn served() -> TempDir {
    let dir = dir();
    let mut toml = String::new();
    for name in ["streaming", "document-conversion"] {
        fs::copy(guest(name), dir.path().join(format!("{name}.wasm"))).unwrap();
        toml += &format!("[workers.{name}]\n{PATIENT}");
    }
    fs::write(dir.path().join("crank.toml"), toml).unwrap();
    dir
}

/// What `curl -N` does: asks for a long text as events, and reads up to the first of them.
fn ask(serving: &Serving) -> TcpStream {
    let address = serving.1.strip_prefix("http://").unwrap();
    let line = "The lamp is lit. The wind comes from the northwest!\n\n";
    let text = line.repeat(TEXT_BYTES / line.len());
    let mut stream = TcpStream::connect(address).unwrap();
    stream
        .set_read_timeout(Some(Duration::from_secs(60)))
        .unwrap();
    write!(
        stream,
        "POST /invoke/stream/text_events HTTP/1.1\r\nhost: {address}\r\naccept: text/event-stream\r\n\
         content-type: text/plain\r\ncontent-length: {}\r\n\r\n{text}",
        text.len()
    )
    .unwrap();
    let mut read = Vec::new();
    let first = "id: 1\nevent: chunk\ndata: The lamp is lit.\n\n";
    while !String::from_utf8_lossy(&read).contains(first) {
        let mut some = [0; 64];
        let count = stream.read(&mut some).unwrap();
        assert_ne!(count, 0, "{}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&some[..count]);
    }
    stream
}

/// CPU time that the serving process has used, and memory of its own that it has, in MiB: compiled code and images,
/// which it may map meanwhile, are files.
fn used(serving: &Serving) -> (Duration, u64) {
    let process = format!("/proc/{}", serving.0.id());
    let stat = fs::read_to_string(format!("{process}/stat")).unwrap();
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    let fields: Vec<&str> = after_name.split(' ').collect();
    // utime and stime, in hundredths of a second on every Linux that programs see (proc_pid_stat(5)).
    let ticks: u64 = fields[11..13]
        .iter()
        .map(|t| t.parse::<u64>().unwrap())
        .sum();
    let kib = kib(&process, "RssAnon");
    (Duration::from_millis(ticks * 10), kib >> 10)
}

/// Invocations that run now.
async fn in_flight(client: &reqwest::Client, serving: &Serving) -> u64 {
    let workers = serving.workers(client).await;
    let running = workers.iter().map(|one| one["in_flight"].as_u64().unwrap());
    running.sum()
}

#[test]
fn a_slow_reader_costs_no_cpu_and_no_memory_and_one_who_is_killed_ends_the_call() {
    let dir = served();
    let serving = Serving::start(dir.path(), &[]);
    let client = reqwest::Client::builder().no_proxy().build().unwrap();
    // A snapshot that is being made takes the host memory and time of its own.
    run(serving.settled(&client, 2));
    let mut slow = ask(&serving);
    // What is on its way fills every buffer; from then on nothing is left to do.
    let began = Instant::now();
    let (cpu, memory) = loop {
        let before = used(&serving);
        std::thread::sleep(Duration::from_millis(500));
        let now = used(&serving);
        if now.0 - before.0 <= Duration::from_millis(20) {
            break now;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "it never rests");
    };
    let pause = Duration::from_secs(2);
    std::thread::sleep(pause);
    let after = used(&serving);
    println!(
        "in {pause:?} of a reader's pause: {:?} of CPU time, {memory} and {} MiB",
        after.0 - cpu,
        after.1
    );
    assert!(after.0 - cpu < pause / 20, "{:?}", after.0 - cpu);
    assert!(after.1 < memory + 16, "{memory} MiB became {}", after.1);
    run(async {
        assert_eq!(
            in_flight(&client, &serving).await,
            1,
            "its end waits for the reader"
        );
        // He reads on, and so does the guest.
        let mut more = vec![0; 1 << 20];
        slow.read_exact(&mut more).unwrap();
        let mut took = Vec::new();
        for reader in std::iter::once(slow).chain((1..5).map(|_| ask(&serving))) {
            let began = Instant::now();
            // What the kernel does for a process that is killed.
            drop(reader);
            while in_flight(&client, &serving).await > 0 {
                assert!(began.elapsed() < Duration::from_secs(10), "it runs on");
            }
            took.push(began.elapsed());
        }
        // The best of them: what else the machine does is not measured here.
        println!("a call whose reader was killed ended after {took:?}");
        assert!(
            took.iter().min() < Some(&Duration::from_millis(100)),
            "{took:?}"
        );
    });
}
