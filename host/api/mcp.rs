//! The Model Context Protocol: capabilities as tools, their documentation as resources.
//!
//! The SDK (`rmcp`) speaks the protocol. Here stands what a capability is in its terms, and nothing that
//! the other protocols do not do too: who may call, sizes and deadlines are the same.

mod call;
mod document;
mod outcome;
mod resource;
mod seen;
mod server;
mod sessions;
mod tool;

use std::io;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use http_body_util::{BodyExt, Full};
use rmcp::RoleServer;
use rmcp::service::{ServerInitializeError, serve_server_with_ct};
use rmcp::transport::async_rw::AsyncRwTransport;
use rmcp::transport::{StreamableHttpServerConfig, StreamableHttpService, stdio_pipes};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use super::invoke::read_body;
use super::problem::Refusal;
use super::routes::{Shared, linger};
use super::{Settings, caller};
use crate::error::{Code, Failure};
use crate::router::Router;
use server::Server;
use sessions::Sessions;

/// What serves `/mcp`.
pub(super) struct Service {
    sdk: StreamableHttpService<Server, Sessions>,
    sessions: Arc<Sessions>,
}

/// Names a session.
const SESSION: &str = "mcp-session-id";

/// Is cancelled when nobody reads the response any more.
#[derive(Clone)]
struct Gone(CancellationToken);

/// What serves `/mcp`. Streams that last as long as their reader end when `stopping` changes.
pub(super) fn service(
    router: &Arc<Router>,
    settings: &Settings,
    stopping: watch::Receiver<()>,
) -> Service {
    let config = StreamableHttpServerConfig::default()
        // The door has looked at `Host` and `Origin`, and the body was read under the host's own cap.
        .disable_allowed_hosts()
        .with_max_request_body_bytes(usize::MAX)
        .with_json_response(true)
        .with_sse_keep_alive(Some(settings.heartbeat))
        // No stream is kept, so nobody is invited to come back for one.
        .with_sse_retry(None);
    let sessions = Arc::new(Sessions::new(stopping.clone()));
    let router = router.clone();
    let server = move || Ok(Server::new(router.clone(), stopping.clone()));
    Service {
        sdk: StreamableHttpService::new(server, sessions.clone(), config),
        sessions,
    }
}

/// `/mcp`: one JSON-RPC message in, one or a stream of them out.
pub(super) async fn handle(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Refusal> {
    let (mut parts, body) = request.into_parts();
    let caller = caller::id(&parts.extensions);
    let session = parts.headers.get(SESSION).and_then(|id| id.to_str().ok());
    if session.is_some_and(|id| shared.mcp.sessions.is_anothers(id, caller.as_deref())) {
        linger(body);
        // As of one that is not there: whose it is, is nobody's business.
        return Err(Failure::new(Code::NotFound, "there is no such session").into());
    }
    let held = read_body(body, &shared).await?;
    let gone = CancellationToken::new();
    parts.extensions.insert(Gone(gone.clone()));
    // The SDK keeps the parts of a request for as long as it works on it.
    parts.extensions.insert(held.part.map(Arc::new));
    let guard = gone.drop_guard();
    let is_farewell = parts.method == Method::DELETE;
    let request = Request::from_parts(parts, Full::new(held.bytes));
    let handled = shared.mcp.sdk.handle(request);
    let mut response = sessions::CALLER.scope(caller, handled).await;
    if is_farewell && response.status() == StatusCode::ACCEPTED {
        // The Python SDK's client takes any other success for a failure.
        *response.status_mut() = StatusCode::NO_CONTENT;
    }
    Ok(response.map(|body| {
        Body::new(body.map_frame(move |frame| {
            let _until_the_body_is_dropped = &guard;
            frame
        }))
    }))
}

/// Speaks the protocol over standard input and output until the input ends or `stop` is ready.
///
/// # Errors
///
/// The other side does not begin as the protocol wants it.
pub async fn converse(
    router: Arc<Router>,
    settings: &Settings,
    stop: impl Future<Output = ()>,
) -> io::Result<()> {
    let (reader, writer) = stdio_pipes();
    let transport = AsyncRwTransport::<RoleServer, _, _>::new(reader, writer)
        .with_max_line_length(settings.input_bytes);
    let (_until_the_end, stopping) = watch::channel(());
    let ended = CancellationToken::new();
    let local = settings.local.as_ref().map(|id| id.as_str().into());
    let conversation = async {
        let server = Server::new(router, stopping).of(local);
        match serve_server_with_ct(server, transport, ended.clone()).await {
            Ok(service) => service.waiting().await.map(drop).map_err(io::Error::other),
            Err(ServerInitializeError::ConnectionClosed(_)) => Ok(()),
            Err(error) => Err(io::Error::other(error)),
        }
    };
    let mut conversation = std::pin::pin!(conversation);
    tokio::select! {
        ended = &mut conversation => ended,
        () = stop => {
            // What has been answered already is still written.
            ended.cancel();
            let _ = tokio::time::timeout(settings.grace, conversation).await;
            Ok(())
        }
    }
}
