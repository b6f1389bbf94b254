//! Who gets a thread, and when answers leave it, seen from outside of the process that serves.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::thread;
use std::time::Duration;

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};
use serde_json::{Value, json};

use crate::cli::Serving;
use crate::support::{dir, guest};

/// A connection that is kept.
struct Caller {
    address: String,
    reader: BufReader<TcpStream>,
}

impl Caller {
    fn new(serving: &Serving) -> Self {
        let address = serving.1.strip_prefix("http://").unwrap().to_owned();
        let stream = TcpStream::connect(&address).unwrap();
        let timeout = Some(Duration::from_secs(60));
        stream.set_read_timeout(timeout).unwrap();
        stream.set_nodelay(true).unwrap();
        let reader = BufReader::new(stream);
        Self { address, reader }
    }

    /// The bytes of a call.
    fn request(&self, path: &str, input: &Value) -> Vec<u8> {
        let (address, input) = (&self.address, input.to_string());
        format!(
            "POST /invoke/{path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
             content-length: {}\r\n\r\n{input}",
            input.len()
        )
        .into_bytes()
    }

    /// The next answer: its status and its body.
    fn answer(&mut self) -> (u16, Value) {
        let (mut status, mut length, mut line) = (0, 0, String::new());
        while line != "\r\n" {
            line.clear();
            assert_ne!(self.reader.read_line(&mut line).unwrap(), 0, "it hung up");
            if let Some(rest) = line.strip_prefix("HTTP/1.1 ") {
                status = rest[..3].parse().unwrap();
            } else if let Some(rest) = line.strip_prefix("content-length: ") {
                length = rest.trim().parse().unwrap();
            }
        }
        let mut body = vec![0; length];
        self.reader.read_exact(&mut body).unwrap();
        (status, serde_json::from_slice(&body).unwrap())
    }

    fn call(&mut self, path: &str, input: &Value) -> (u16, Value) {
        let request = self.request(path, input);
        self.reader.get_mut().write_all(&request).unwrap();
        self.answer()
    }

    fn greet(&mut self) {
        let (status, answer) = self.call("greet/hello_world", &json!({"name": "Ada"}));
        assert_eq!((status, &answer["greeting"]), (200, &json!("Hello, Ada!")));
    }
}

/// Serves with one core for all its threads.
fn on_one_core(dir: &Path) -> Serving {
    thread::scope(|scope| {
        let start = || {
            let allowed = sched_getaffinity(None).unwrap();
            let first = (0..CpuSet::MAX_CPU).find(|core| allowed.is_set(*core));
            let mut one = CpuSet::new();
            one.set(first.unwrap());
            sched_setaffinity(None, &one).unwrap();
            // A process has what the thread had that started it.
            Serving::start(dir, &[])
        };
        scope.spawn(start).join().unwrap()
    })
}

#[test]
fn on_one_core_short_calls_are_answered_while_another_computes() {
    let dir = dir();
    for name in ["hello-world", "hostile"] {
        fs::copy(guest(name), dir.path().join(format!("{name}.wasm"))).unwrap();
    }
    let limits = "[workers.hostile]\nwall_ms = 3000\n";
    fs::write(dir.path().join("crank.toml"), limits).unwrap();
    let serving = on_one_core(dir.path());
    // Many short ones, so that one thread does them all.
    thread::scope(|scope| {
        for _ in 0..8 {
            let mut caller = Caller::new(&serving);
            scope.spawn(move || (0..2000).for_each(|_| caller.greet()));
        }
    });
    let mut computing = Caller::new(&serving);
    let looping = thread::spawn(move || computing.call("misbehave/loop_forever", &json!({})));
    let (mut caller, mut greeted) = (Caller::new(&serving), 0);
    while !looping.is_finished() {
        caller.greet();
        greeted += 1;
    }
    let (status, problem) = looping.join().unwrap();
    assert_eq!(status, 504, "{problem}");
    // Were they to wait for its end, there would be one.
    assert!(greeted > 50, "{greeted} calls in {problem}");
}

#[test]
fn answers_come_whole_and_in_order_to_a_caller_who_reads_late() {
    const CALLS: usize = 20_000;
    let dir = dir();
    fs::copy(guest("hello-world"), dir.path().join("hello-world.wasm")).unwrap();
    let serving = Serving::start(dir.path(), &[]);
    let mut caller = Caller::new(&serving);
    let requests: Vec<u8> = (0..CALLS)
        .flat_map(|number| {
            caller.request("greet/hello_world", &json!({"name": number.to_string()}))
        })
        .collect();
    let mut stream = caller.reader.get_ref().try_clone().unwrap();
    thread::scope(|scope| {
        scope.spawn(move || stream.write_all(&requests).unwrap());
        // By then the host has filled every buffer between them.
        thread::sleep(Duration::from_millis(500));
        for number in 0..CALLS {
            let (status, answer) = caller.answer();
            let greeting = format!("Hello, {number}!");
            assert_eq!((status, &answer["greeting"]), (200, &json!(greeting)));
        }
    });
}
