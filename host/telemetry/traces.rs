//! A span for each call of a worker, sent by OTLP over HTTP where the operator names a collector.
//!
//! Spans are collected and sent by a thread of the SDK's own; a collector that is slow or gone costs spans
//! and no call.

use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt, Full, Limited};
use hyper::client::conn::http1;
use hyper::header::HOST;
use hyper::{Request, Response, Uri};
use hyper_util::rt::TokioIo;
use opentelemetry::trace::{
    Span as _, SpanContext, SpanId, SpanKind, Status, TraceContextExt, TraceFlags, TraceId,
    TraceState, Tracer as _, TracerProvider as _,
};
use opentelemetry::{Context, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SdkTracer, SdkTracerProvider, Span};
use tokio::net::TcpStream;
use tokio::runtime::Handle;

use super::blame::End;
use super::series::Key;
use super::tally::Temperature;

/// What a collector has to take a batch and answer.
const PATIENCE: Duration = Duration::from_secs(10);
/// Bytes of a collector's answer that are read.
const ANSWER: usize = 1 << 20;

/// Where spans go.
#[derive(Debug)]
pub(super) struct Traces {
    provider: SdkTracerProvider,
    tracer: SdkTracer,
}

/// One call as a span, which is sent when it ends.
#[derive(Debug)]
pub(super) struct Traced(Span);

impl Traces {
    /// Sends to `{endpoint}/v1/traces` from the runtime that this is called on.
    pub fn to(endpoint: &str) -> Result<Self, String> {
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Client {
                runtime: Handle::current(),
                failing: AtomicBool::new(false),
            })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(format!("{}/v1/traces", endpoint.trim_end_matches('/')))
            .build()
            .map_err(|error| error.to_string())?;
        let version = KeyValue::new("service.version", env!("CARGO_PKG_VERSION"));
        let resource = Resource::builder().with_service_name("crank");
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_resource(resource.with_attribute(version).build())
            .build();
        let tracer = provider.tracer("crank");
        Ok(Self { provider, tracer })
    }

    /// Begins the span of a call, below the one that `parent` names.
    pub fn begin(&self, key: &Key, request_id: &str, nested: bool, parent: Option<&str>) -> Traced {
        let (kind, trigger) = match nested {
            true => (SpanKind::Internal, "other"),
            false => (SpanKind::Server, "http"),
        };
        let parent = parent.and_then(remote).map_or_else(Context::new, |parent| {
            Context::new().with_remote_span_context(parent)
        });
        let attributes = [
            KeyValue::new("faas.trigger", trigger),
            KeyValue::new("faas.invocation_id", request_id.to_owned()),
            KeyValue::new("faas.invoked_name", key.capability.to_string()),
            KeyValue::new("faas.version", key.version.to_string()),
            KeyValue::new("crank.worker", key.worker_id.to_string()),
        ];
        let span = self.tracer.span_builder(key.capability.to_string());
        let span = span.with_kind(kind).with_attributes(attributes);
        Traced(span.start_with_context(&self.tracer, &parent))
    }

    /// Sends what is there. Blocks until that is done or given up.
    pub fn close(&self) {
        if let Err(error) = self.provider.shutdown() {
            tracing::warn!("the last spans are not sent: {error}");
        }
    }
}

impl Traced {
    /// Itself, as the parent of what happens within (W3C Trace Context, section 3.2).
    pub fn traceparent(&self) -> String {
        let own = self.0.span_context();
        let (trace, span, flags) = (own.trace_id(), own.span_id(), own.trace_flags().to_u8());
        format!("00-{trace}-{span}-{flags:02x}")
    }

    pub fn end(&mut self, end: End, temperature: Option<Temperature>) {
        if let Some(temperature) = temperature {
            self.0
                .set_attribute(KeyValue::new("faas.coldstart", !temperature.is_fresh()));
        }
        let failed = match end {
            End::Answered => return self.0.end(),
            End::Cancelled => "cancelled",
            End::Failed(code, blame) => {
                self.0
                    .set_attribute(KeyValue::new("crank.blame", blame.as_str()));
                code.as_str()
            }
        };
        self.0.set_attribute(KeyValue::new("error.type", failed));
        self.0.set_status(Status::error(failed));
        self.0.end();
    }
}

/// The span that a `traceparent` of the right form names.
fn remote(traceparent: &str) -> Option<SpanContext> {
    let mut fields = traceparent.split('-').skip(1);
    let trace = TraceId::from_hex(fields.next()?).ok()?;
    let span = SpanId::from_hex(fields.next()?).ok()?;
    let flags = u8::from_str_radix(fields.next()?, 16).ok()?;
    let flags = TraceFlags::new(flags) & TraceFlags::SAMPLED;
    Some(SpanContext::new(trace, span, flags, true, TraceState::NONE))
}

/// Carries batches to the collector, on the host's runtime: the thread that asks has none.
#[derive(Debug)]
struct Client {
    runtime: Handle,
    /// Whether the last batch did not arrive: the log is told once, not every few seconds.
    failing: AtomicBool,
}

#[async_trait]
impl HttpClient for Client {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let to = request.uri().to_string();
        let sending = async move { tokio::time::timeout(PATIENCE, send(request)).await };
        let sent = match self.runtime.spawn(sending).await {
            Ok(Ok(sent)) => sent,
            Ok(Err(late)) => Err(late.into()),
            Err(gone) => Err(gone.into()),
        };
        let problem = match &sent {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(answer.status().to_string()),
            Err(error) => Some(error.to_string()),
        };
        let failed_before = self.failing.swap(problem.is_some(), Relaxed);
        if let Some(problem) = problem.filter(|_| !failed_before) {
            tracing::warn!("spans do not reach {to}: {problem}");
        }
        sent
    }
}

async fn send(request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
    let (mut parts, body) = request.into_parts();
    let authority = parts
        .uri
        .authority()
        .ok_or("the endpoint names no host")?
        .clone();
    let host = authority.host().trim_matches(['[', ']']);
    let stream = TcpStream::connect((host, authority.port_u16().unwrap_or(80))).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with the sender.
    tokio::spawn(connection);
    let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
    parts.uri = Uri::try_from(path)?;
    parts.headers.insert(HOST, authority.as_str().try_into()?);
    let answer = sender
        .send_request(Request::from_parts(parts, Full::new(body)))
        .await?;
    let (parts, body) = answer.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(parts, body))
}
