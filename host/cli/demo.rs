//! `crank demo`.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::oneshot;

use super::{Ended, build, serve};
use crate::api;

/// How much of an answer is shown, in characters.
const SHOWN: usize = 480;

/// The tour: what is called, with which file of tests/data.
const TOUR: &[Stop] = &[
    Stop {
        verb: "greet",
        name: "hello_world",
        media_type: "application/json",
        input: Input::Json(r#"{"name": "Ada"}"#),
    },
    Stop {
        verb: "convert",
        name: "pdf_to_text",
        media_type: "application/pdf",
        input: Input::File("groff.pdf"),
    },
    Stop {
        verb: "convert",
        name: "email_to_text",
        media_type: "message/rfc822",
        input: Input::File("nested.eml"),
    },
    Stop {
        verb: "convert",
        name: "text_to_stream",
        media_type: "text/plain",
        input: Input::File("source/paper.txt"),
    },
];

struct Stop {
    verb: &'static str,
    name: &'static str,
    media_type: &'static str,
    input: Input,
}

enum Input {
    Json(&'static str),
    /// A file in tests/data.
    File(&'static str),
}

/// Build this repository's workers, serve them, and show real calls.
///
/// Runs in a clone of the repository: compiles guests/ (the first time takes minutes), serves them
/// on a loopback port, sends them real files over HTTP and prints each call as a curl line that you
/// can paste. Then it keeps serving.
#[derive(Args)]
#[command(after_help = "\
Examples:
  cargo run --release -- demo
  crank demo --once --listen 127.0.0.1:8080")]
pub struct Demo {
    /// End after the tour
    #[arg(long)]
    once: bool,
    /// Address to listen on; port 0 is a free one
    #[arg(long, value_name = "ADDR", default_value = "127.0.0.1:0")]
    listen: SocketAddr,
}

impl Demo {
    pub fn run(self) -> Result<(), Ended> {
        let root = Path::new(".");
        let guests = build::guests(root)?;
        let out = PathBuf::from("target/workers");
        let flags = [("listen", self.listen.to_string())];
        let config = super::configure(Some(&guests), None, &flags)?;
        super::log(config.log, "warn,crank::worker=info");

        let began = Instant::now();
        let built = build::build(vec![guests], out.clone(), &config.cache_dir, false)?;
        println!(
            "{} workers built in {:.1} s",
            built.len(),
            began.elapsed().as_secs_f64()
        );
        super::runtime()?.block_on(async {
            let (listener, router, config, engine) = serve::ready(config, &out).await?;
            let address = listener.local_addr().map_err(Ended::usage)?;
            let (stop, stopped) = oneshot::channel::<()>();
            let server = tokio::spawn(api::serve(
                listener,
                router,
                api::Settings::from(config.as_ref()),
                async { drop(stopped.await) },
            ));
            tour(address, root).await?;
            if !self.once {
                println!("\nserving on http://{address} until Ctrl-C; GET /capabilities and /workers tell more");
                serve::stop_signal().map_err(Ended::usage)?.await;
            }
            drop(stop);
            server.await.map_err(Ended::usage)?.map_err(Ended::usage)?;
            if let Some(state) = engine.state() {
                state.close().await;
            }
            Ok(())
        })
    }
}

async fn tour(address: SocketAddr, root: &Path) -> Result<(), Ended> {
    for stop in TOUR {
        let path = format!("/invoke/{}/{}", stop.verb, stop.name);
        let (body, data) = match stop.input {
            Input::Json(text) => (text.as_bytes().to_vec(), format!("--data '{text}'")),
            Input::File(name) => {
                let file = root.join("tests/data").join(name);
                let body = std::fs::read(&file)
                    .map_err(|error| Ended::Usage(format!("{}: {error}", file.display())))?;
                (body, format!("--data-binary @tests/data/{name}"))
            }
        };
        println!(
            "\n$ curl {data} -H 'content-type: {}' http://{address}{path}",
            stop.media_type
        );
        let began = Instant::now();
        let response = post(address, &path, stop.media_type, body).await?;
        show(response, began.elapsed()).await?;
    }
    Ok(())
}

async fn post(
    address: SocketAddr,
    path: &str,
    media_type: &str,
    body: Vec<u8>,
) -> Result<Response<hyper::body::Incoming>, Ended> {
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
    sender.send_request(request).await.map_err(Ended::usage)
}

async fn show(response: Response<hyper::body::Incoming>, took: Duration) -> Result<(), Ended> {
    let status = response.status();
    let header = |name: &str| {
        response
            .headers()
            .get(name)
            .and_then(|value| value.to_str().ok())
            .unwrap_or("-")
            .to_owned()
    };
    let (worker, timing) = (header("crank-worker"), header("server-timing"));
    let body = response
        .into_body()
        .collect()
        .await
        .map_err(Ended::usage)?
        .to_bytes();
    let text = String::from_utf8_lossy(&body);
    let shown: String = text.chars().take(SHOWN).collect();
    let rest = text.chars().count().saturating_sub(SHOWN);
    println!(
        "{shown}{}",
        if rest > 0 {
            format!("… ({rest} characters more)")
        } else {
            String::new()
        }
    );
    println!(
        "  {status} by {worker} in {:.2} ms; sandbox: {timing}",
        took.as_secs_f64() * 1e3
    );
    if status.is_success() {
        Ok(())
    } else {
        Err(Ended::Short(
            "the demo's call failed; the lines above say how".to_owned(),
        ))
    }
}
