//! A worker that does with the host's state what it is told: the host's tests look at what comes of it.
//!
//! One function, `run`, under several names: each capability declares other buckets.

use crank_worker::state::Bucket;
use crank_worker::{Capability, Constraints, Failure, Worker};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

#[derive(Deserialize, JsonSchema)]
struct Script {
    /// What is opened.
    bucket: String,
    /// What is done, in this order.
    ops: Vec<Op>,
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum Op {
    Get(String),
    /// How long the value is.
    Length(String),
    Exists(String),
    Delete(String),
    DeleteMany(Vec<String>),
    Set(String, String),
    /// A value of so many zeros.
    Fill(String, usize),
    SetMany(Vec<(String, String)>),
    GetMany(Vec<String>),
    /// Keys with a prefix.
    Keys(String),
    /// Adds text at the end, by compare-and-swap.
    Append(String, String),
    Increment(String, i64),
    /// The same read so many times.
    GetOften(String, u32),
    /// As many buckets as that, open at once.
    OpenMany(u32),
}

#[derive(Serialize, JsonSchema)]
struct Results {
    /// What each came to.
    results: Vec<Value>,
}

fn run(script: Script) -> Result<Results, Failure> {
    let bucket = Bucket::open(&script.bucket)?;
    let done = script.ops.into_iter().map(|op| one(&bucket, op));
    Ok(Results {
        results: done.collect::<Result<_, _>>()?,
    })
}

fn one(bucket: &Bucket, op: Op) -> Result<Value, Failure> {
    let text =
        |value: Option<Vec<u8>>| value.map(|value| String::from_utf8_lossy(&value).into_owned());
    Ok(match op {
        Op::Get(key) => json!(text(bucket.get(&key)?)),
        Op::Length(key) => json!(bucket.get(&key)?.map(|value| value.len())),
        Op::Exists(key) => json!(bucket.exists(&key)?),
        Op::Delete(key) => json!(bucket.delete(&key)?),
        Op::DeleteMany(keys) => json!(bucket.delete_many(&keys)?),
        Op::Set(key, value) => json!(bucket.set(&key, value.as_bytes())?),
        Op::Fill(key, bytes) => json!(bucket.set(&key, &vec![0; bytes])?),
        Op::SetMany(entries) => {
            let entries: Vec<_> = entries
                .into_iter()
                .map(|(key, value)| (key, value.into_bytes()))
                .collect();
            json!(bucket.set_many(&entries)?)
        }
        Op::GetMany(keys) => {
            let values = bucket.get_many(&keys)?;
            json!(values.into_iter().map(text).collect::<Vec<_>>())
        }
        Op::Keys(prefix) => json!(bucket.keys(&prefix).collect::<Result<Vec<_>, _>>()?),
        Op::Append(key, more) => {
            let set = bucket.update(&key, |value| {
                let mut value = value.unwrap_or_default();
                value.extend_from_slice(more.as_bytes());
                Ok(value)
            })?;
            json!(set.len())
        }
        Op::Increment(key, delta) => json!(bucket.increment(&key, delta)?),
        Op::GetOften(key, times) => {
            for _ in 0..times {
                bucket.get(&key)?;
            }
            json!(times)
        }
        Op::OpenMany(count) => {
            let open: Vec<Bucket> = (0..count)
                .map(|_| Bucket::own())
                .collect::<Result<_, _>>()?;
            json!(open.len())
        }
    })
}

fn stateful() -> Worker {
    let constraints = Constraints {
        vector_index_mb: Some(2),
        ..Constraints::default()
    };
    let runs = |name, required| {
        Capability::new("run", name, "1.0.0", run)
            .description("Does with a bucket what it is told. For tests.")
            .constraints(constraints)
            .required_capabilities(required)
    };
    Worker::new("worker-stateful")
        .offers(runs("own", &["wasi:keyvalue/store"]))
        .offers(runs("shared", &["wasi:keyvalue/store[default:ro,zettel]"]))
        .offers(runs("reader", &["wasi:keyvalue/store[zettel:ro]"]))
        .offers(runs("nothing", &[]))
}

crank_worker::worker!(stateful);
