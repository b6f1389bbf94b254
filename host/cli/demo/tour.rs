//! The demo's tour: calls over HTTP, each shown as a curl line, and what came of them.

use std::net::SocketAddr;
use std::path::Path;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::gpu;
use crate::cli::Ended;
use crate::gpu::Found;
use crate::registry::Snapshot;

/// How much of an answer is shown, in characters.
const SHOWN: usize = 240;

const JSON: &str = "application/json";

/// What is called, in this order: what is searched for was indexed before.
const STOPS: &[Stop] = &[
    Stop::json("greet:hello_world", r#"{"name": "Ada"}"#),
    Stop::file("convert:pdf_to_text", "application/pdf", "groff.pdf"),
    Stop::file("convert:email_to_text", "message/rfc822", "nested.eml"),
    Stop::json(
        "convert:html_to_markdown",
        r#"{"html": "<h1>Stores</h1><ul><li>oil<li>wicks</ul>"}"#,
    ),
    Stop::json(
        "stream:sse_events",
        r#"{"text": "The lamp is lit. The wind comes from the northwest."}"#,
    ),
    Stop::json(
        "classify:spam_detection",
        r#"{"subject": "You have won", "email_text": "Claim your free prize now! Click here, limited offer, no risk."}"#,
    ),
    Stop::json(
        "classify:email_category",
        r#"{"subject": "Contract, please sign today", "email_text": "The deadline is five o'\''clock. Please sign and send it back."}"#,
    ),
    Stop::json(
        "index:semantic_documents",
        r#"{"documents": [{"id": "lamp", "text": "The keeper trims the wick and fills the lamp with oil at dusk."}, {"id": "fog", "text": "In fog the horn sounds twice a minute, and ships keep away from the rocks."}, {"id": "soup", "text": "Onions, barley and a ham bone make a soup for four."}]}"#,
    ),
    Stop::json(
        "search:semantic_documents",
        r#"{"query": "light the lamp", "top_k": 1}"#,
    ),
    Stop::json(
        "store:zettel",
        r#"{"id": "lamp", "title": "The lamp", "body": "Burns [[oil]] from dusk on. #light"}"#,
    ),
    Stop::json(
        "store:zettel",
        r#"{"id": "oil", "title": "Oil", "body": "Forty barrels each spring, for the [[lamp]]. #stores"}"#,
    ),
    Stop::json("retrieve:zettel", r#"{"tag": "light"}"#),
    Stop::json("analyze:zettel_links", "{}"),
    Stop::file("classify:image_objects", "image/png", "images/house.png"),
    Stop::file(
        "classify:image_objects",
        "image/jpeg",
        "images/umbrella.jpg",
    ),
    Stop::file(
        "classify:image_objects",
        "image/webp",
        "images/mushroom.webp",
    ),
];

/// One call.
struct Stop {
    /// `verb:name`
    capability: &'static str,
    media_type: &'static str,
    input: Input,
}

enum Input {
    /// As it stands between single quotes in a shell.
    Json(&'static str),
    /// A file in tests/data.
    File(&'static str),
}

/// A call that was made, of a worker that serves.
struct Made {
    worker: String,
    capability: &'static str,
    /// How long it took; why it failed, if it did.
    ended: Result<Duration, String>,
}

/// Calls what the workers of a snapshot offer, then shows a line for each of them.
///
/// # Errors
///
/// A call to a worker that serves failed, after all others were made; or the host cannot be reached.
pub(super) async fn walk(
    address: SocketAddr,
    root: &Path,
    snapshot: &Snapshot,
    gpu: Option<&Found>,
) -> Result<(), Ended> {
    let mut made = Vec::new();
    for stop in STOPS {
        let mut workers = snapshot.workers().iter();
        let offers = workers.find(|worker| {
            let mut offered = worker.offered().iter();
            offered.any(|offered| &*offered.id == stop.capability)
        });
        let Some(worker) = offers else {
            println!("\n{}: not offered here", stop.capability);
            continue;
        };
        made.push(Made {
            worker: worker.id().to_string(),
            capability: stop.capability,
            ended: stop.call(address, root, gpu).await?,
        });
    }
    summary(snapshot, &made);
    match made.iter().filter(|made| made.ended.is_err()).count() {
        0 => Ok(()),
        failed => Err(Ended::Short(format!(
            "{failed} of the demo's calls failed; the lines above say how"
        ))),
    }
}

/// A line for each worker: what it answered, or why it does not serve.
fn summary(snapshot: &Snapshot, made: &[Made]) {
    println!();
    for worker in snapshot.workers() {
        let id = &**worker.id();
        let own = || made.iter().filter(|made| made.worker == id);
        let failed = own().find_map(|made| Some((made.capability, made.ended.as_ref().err()?)));
        let took: Duration = own().filter_map(|made| made.ended.as_ref().ok()).sum();
        let (mark, told) = match (failed, own().count()) {
            (Some((capability, why)), _) => ("❌", format!("{capability}: {why}")),
            (None, 0) => ("➖", "loaded; the tour has no call for it".to_owned()),
            (None, 1) => ("✅", format!("1 call in {:.2} ms", ms(took))),
            (None, calls) => ("✅", format!("{calls} calls in {:.2} ms", ms(took))),
        };
        println!("{mark} {id:<28} {told}");
    }
    for refused in snapshot.refused() {
        let file = || refused.file.display().to_string();
        let id = refused.worker_id.clone().unwrap_or_else(file);
        // The reason ends with what the operator could do about it, behind a semicolon.
        let reason = refused.reasons.first().map(String::as_str).unwrap_or("");
        let reason = reason.split("; ").next().unwrap_or_default();
        println!("➖ {id:<28} refused: {reason}");
    }
}

impl Stop {
    const fn json(capability: &'static str, json: &'static str) -> Self {
        Self {
            capability,
            media_type: JSON,
            input: Input::Json(json),
        }
    }

    const fn file(capability: &'static str, media_type: &'static str, name: &'static str) -> Self {
        Self {
            capability,
            media_type,
            input: Input::File(name),
        }
    }

    /// Makes the call and shows it: how long it took, or how it failed.
    async fn call(
        &self,
        address: SocketAddr,
        root: &Path,
        gpu: Option<&Found>,
    ) -> Result<Result<Duration, String>, Ended> {
        let path = format!("/invoke/{}", self.capability.replace(':', "/"));
        let (body, data) = match self.input {
            Input::Json(text) => (
                text.replace(r"'\''", "'").into_bytes(),
                format!("-d '{text}'"),
            ),
            Input::File(name) => {
                let file = root.join("tests/data").join(name);
                let body = std::fs::read(&file)
                    .map_err(|error| Ended::Usage(format!("{}: {error}", file.display())))?;
                (body, format!("--data-binary @tests/data/{name}"))
            }
        };
        println!(
            "\n$ curl http://{address}{path} -H 'content-type: {}' {data}",
            self.media_type
        );
        let began = Instant::now();
        let (status, timing, answer) = post(address, &path, self.media_type, body).await?;
        let took = began.elapsed();
        let text = String::from_utf8_lossy(&answer);
        println!("{}", excerpt(&text));
        println!("  {status} in {:.2} ms; sandbox: {timing}", ms(took));
        let seen = gpu.filter(|_| self.capability == "classify:image_objects");
        if let Some(line) = seen.and_then(|gpu| gpu::line(&answer, &timing, gpu)) {
            println!("  {line}");
        }
        Ok(if status.is_success() {
            Ok(took)
        } else {
            Err(status.to_string())
        })
    }
}

/// The status, what the sandbox took, and the body.
async fn post(
    address: SocketAddr,
    path: &str,
    media_type: &str,
    body: Vec<u8>,
) -> Result<(hyper::StatusCode, String, Bytes), Ended> {
    let stream = TcpStream::connect(address).await.map_err(Ended::usage)?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(Ended::usage)?;
    tokio::spawn(connection);
    let request = Request::post(path)
        .header("host", address.to_string())
        .header("content-type", media_type)
        .body(Full::new(Bytes::from(body)))
        .map_err(Ended::usage)?;
    let response = sender.send_request(request).await.map_err(Ended::usage)?;
    let status = response.status();
    let timing = response.headers().get("server-timing");
    let timing = timing.and_then(|value| value.to_str().ok()).unwrap_or("-");
    let timing = timing.to_owned();
    let answer = response.into_body().collect().await.map_err(Ended::usage)?;
    Ok((status, timing, answer.to_bytes()))
}

fn excerpt(text: &str) -> String {
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => {
            let (shown, rest) = text.split_at(end);
            format!("{shown}… ({} characters more)", rest.chars().count())
        }
        None => text.to_owned(),
    }
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
