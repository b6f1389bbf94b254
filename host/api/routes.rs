//! The routes, and the layer around all of them: request id, door, panics, problems, log.

use std::any::Any;
use std::error::Error;
use std::net::SocketAddr;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::rejection::{PathRejection, QueryRejection};
use axum::extract::{Query, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, Uri};
use axum::response::{IntoResponse, Response};
use axum::routing::{delete, get, post};
use axum::{Json, Router as Routes};
use futures_util::FutureExt;
use hyper::service::Service;
use hyper_util::service::TowerToHyperService;
use semver::VersionReq;
use serde_json::json;
use tokio::sync::{Semaphore, watch};
use tower_http::cors::{AllowOrigin, Any as AnyHeader, CorsLayer};
use tracing::Level;
use uuid::{NoContext, Timestamp, Uuid};

use super::caller::{self, Credentials};
use super::door::Door;
use super::edge::Address;
use super::problem::{self, Refusal, WORKER};
use super::{
    Settings, edge, explain, invoke, mcp, openapi, register, reload, standing, telemetry, workers,
};
use crate::capability::Filter;
use crate::error::{Code, Failure};
use crate::limits::Callers;
use crate::registry::Manifests;
use crate::remote::Caller;
use crate::router::Router;

/// How long what is left of a refused request's body is still read, and thrown away. A socket that is
/// closed with bytes unread is reset, and the caller loses the answer that says why.
const LINGER: Duration = Duration::from_secs(2);

/// What every handler shares.
pub(super) struct Shared {
    pub router: Arc<Router>,
    pub input_bytes: usize,
    pub body_timeout: Duration,
    pub heartbeat: Duration,
    /// Room for the bodies of all calls together, in bytes.
    pub bodies: Arc<Semaphore>,
    /// Where this host is reached, as capabilities name it.
    url: String,
    /// Who can reach it at all.
    pub callers: Caller,
    pub credentials: Credentials,
    door: Arc<Door>,
    /// What each caller may ask, if that is bounded.
    accounts: Option<Callers>,
    pub mcp: mcp::Service,
}

const REQUEST_ID: HeaderName = HeaderName::from_static("crank-request-id");

/// The id of one request, in its answer, its log lines and the worker's request.
#[derive(Clone)]
pub(super) struct RequestId(pub Arc<str>);

impl RequestId {
    /// UUID version 7 (RFC 9562): ids sort by time, to the millisecond. Those of one millisecond are not ordered:
    /// that would take a lock, one for all threads.
    pub fn new() -> Self {
        let mut text = Uuid::encode_buffer();
        let id = Uuid::new_v7(Timestamp::now(NoContext));
        Self(Arc::from(&*id.hyphenated().encode_lower(&mut text)))
    }
}

/// Everything that is served. A clone is another handle to the same.
#[derive(Clone)]
pub(super) struct App {
    shared: Arc<Shared>,
    routes: TowerToHyperService<Routes>,
}

/// Everything that is served at `bound`. What lasts as long as its reader ends when `stopping` changes.
pub(super) fn app(
    router: Arc<Router>,
    settings: &Settings,
    bound: SocketAddr,
    stopping: watch::Receiver<()>,
) -> App {
    let door = Arc::new(Door::new(settings, bound));
    let shared = Arc::new(Shared {
        mcp: mcp::service(&router, settings, stopping),
        router,
        input_bytes: settings.input_bytes,
        body_timeout: settings.body_timeout,
        heartbeat: settings.heartbeat,
        bodies: Arc::new(Semaphore::new(invoke::BODIES)),
        url: match settings.auth.as_ref().and_then(|auth| auth.acceptor()) {
            Some(_) => format!("https://{bound}"),
            None => format!("http://{bound}"),
        },
        credentials: Credentials::new(settings),
        callers: match bound.ip().is_loopback() {
            true => Caller::Operator(None),
            false => Caller::Foreign,
        },
        door: door.clone(),
        accounts: Callers::new(
            settings.caller_rate,
            settings.caller_burst,
            settings.caller_concurrency,
        ),
    });
    let mut routes = Routes::new()
        .route("/invoke/{verb}/{name}", post(invoke::by_name))
        .route("/invoke/{verb}", post(invoke::by_verb))
        .route("/explain/{verb}/{name}", get(explain::by_name))
        .route("/explain/{verb}", get(explain::by_verb))
        .route("/capabilities", get(list_capabilities))
        .route("/workers", get(list_workers))
        .route("/openapi.json", get(openapi::document))
        .route("/docs", get(openapi::page))
        .route("/docs/", get(openapi::index))
        .route("/docs/{*file}", get(openapi::asset))
        .route("/manifests", get(list_manifests))
        .route("/reload", post(reload::reload))
        .route("/slo", get(telemetry::slo))
        .route("/costs", get(telemetry::costs))
        .route("/metrics", get(telemetry::metrics))
        .route("/register", post(register::register))
        .route("/register/{worker_id}", delete(register::unregister))
        .route(
            "/mcp",
            get(mcp::handle).post(mcp::handle).delete(mcp::handle),
        )
        .route("/healthz", get(async || Json(json!({"status": "ok"}))))
        .route("/readyz", get(ready))
        .fallback(async || Refusal(Failure::new(Code::NotFound, "there is no such route")))
        .method_not_allowed_fallback(method_not_allowed);
    if !settings.allowed_origins.is_empty() {
        routes = routes.layer(cors(door));
    }
    App {
        routes: TowerToHyperService::new(routes.with_state(shared.clone())),
        shared,
    }
}

/// Lets the pages that the operator allows read what they may send for. Own pages need no such leave.
fn cors(door: Arc<Door>) -> CorsLayer {
    let allowed = AllowOrigin::predicate(move |origin, _| door.allows_origin(origin));
    CorsLayer::new()
        .allow_origin(allowed)
        .allow_methods([Method::GET, Method::HEAD, Method::POST, Method::DELETE])
        .allow_headers(AnyHeader)
        .expose_headers(AnyHeader)
}

fn refused(failure: Failure) -> Response {
    Refusal(failure).into_response()
}

impl App {
    /// What is asked for, by whoever may.
    async fn handle(&self, id: RequestId, mut request: Request) -> Response {
        if let Some((verb, name)) = invoke::plainly_named(&request) {
            let (verb, name) = (verb.to_owned(), name.to_owned());
            return invoke::named(&self.shared, id, verb, name, request).await;
        }
        request.extensions_mut().insert(id);
        match self.routes.call(request).await {
            Ok(response) => response,
            Err(never) => match never {},
        }
    }

    /// Answers one request. Not a layer of the routes: each of those would box this, for every request.
    pub async fn answer(&self, address: Address, mut request: Request) -> Response {
        let shared = &self.shared;
        let started = Instant::now();
        let id = RequestId::new();
        let (method, uri) = (request.method().clone(), request.uri().clone());
        let mut unanswered = Unanswered(Some(id.0.clone()));

        let closing = edge::ends_connection(&request);
        let admitted = shared.door.check(&request);
        let admitted = admitted.map_err(refused).and_then(|()| {
            let known = shared.credentials.admit(&mut request, address);
            // Who shows what does not hold is counted by the address.
            let id = known.as_ref().ok().and_then(Option::as_ref);
            let id = id.map(|known| known.caller.id.as_str());
            let turn =
                edge::admit(shared.accounts.as_ref(), id, address, &request).map_err(refused)?;
            let turn = turn.map(Arc::new);
            if let Some(turn) = &turn {
                // A call that outlives its request keeps it.
                request.extensions_mut().insert(turn.clone());
            }
            Ok((known?, turn))
        });
        let (caller, mut response) = match admitted {
            Ok((known, turn)) => {
                let (caller, shown) = known.map(|known| (known.caller, known.shown)).unzip();
                let operates = shared
                    .credentials
                    .check_operator(caller.as_deref(), &request);
                let response = match operates {
                    Err(failure) => {
                        linger(request.into_body());
                        refused(failure)
                    }
                    Ok(()) => match AssertUnwindSafe(self.handle(id.clone(), request))
                        .catch_unwind()
                        .await
                    {
                        Ok(response) => standing::bound(shown, edge::hold(turn, response)),
                        Err(panic) => refused(Failure::internal(panic_message(&*panic))),
                    },
                };
                (caller, response)
            }
            Err(response) => {
                linger(request.into_body());
                (None, response)
            }
        };
        let caller = caller.as_deref();

        unanswered.0 = None;
        let failure = response.extensions_mut().remove::<Failure>();
        telemetry::note(shared, failure.as_ref(), caller, &id.0, uri.path());
        if let Some(failure) = &failure {
            problem::render(failure, &id.0, &mut response);
            log_cause(failure, &id.0);
        }
        let headers = response.headers_mut();
        if let Ok(value) = HeaderValue::from_str(&id.0) {
            headers.insert(REQUEST_ID, value);
        }
        edge::finish(&mut response, &uri, closing);
        let worker = || {
            let value = response.headers().get(WORKER)?;
            value.to_str().ok()
        };
        // A line for each call that went well would cost a busy host more than some calls do.
        macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                $level,
                request_id = &*id.0,
                %method,
                path = uri.path(),
                status = response.status().as_u16(),
                code = failure.as_ref().map(|failure| failure.code.as_str()),
                worker = worker(),
                caller = caller.map(|caller| caller.id.as_str()),
                ms = started.elapsed().as_secs_f64() * 1e3,
                "request",
            )
        };
    }
        match failure {
            None => line!(Level::DEBUG),
            Some(_) => line!(Level::INFO),
        }
        response
    }
}

/// Logs, when it is dropped, that a request came to no answer: the caller hung up, or the host stopped.
pub(super) struct Unanswered(pub Option<Arc<str>>);

impl Drop for Unanswered {
    fn drop(&mut self) {
        if let Some(request_id) = &self.0 {
            tracing::info!(request_id = &**request_id, "gone before the answer");
        }
    }
}

/// Tells the log what the caller does not learn.
pub(super) fn log_cause(failure: &Failure, request_id: &str) {
    let Some(cause) = &failure.cause else { return };
    let (code, worker) = (failure.code.as_str(), failure.worker_id.as_deref());
    if failure.code == Code::Internal {
        tracing::error!(request_id, code, worker, cause, "{}", failure.message);
    } else {
        tracing::warn!(request_id, code, worker, cause, "{}", failure.message);
    }
}

pub(super) fn panic_message(panic: &(dyn Any + Send)) -> String {
    let text = panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str));
    format!("a handler panicked: {}", text.unwrap_or("no message"))
}

/// Reads and drops what is left of a body that nobody wants, for a while.
pub(super) fn linger(mut body: axum::body::Body) {
    use http_body_util::BodyExt;
    use hyper::body::Body;
    if body.is_end_stream() {
        return;
    }
    tokio::spawn(tokio::time::timeout(LINGER, async move {
        while let Some(Ok(_)) = body.frame().await {}
    }));
}

async fn method_not_allowed(method: Method, uri: Uri) -> Refusal {
    let message = format!(
        "{} does not take {method}; the allow header names what it takes",
        uri.path()
    );
    Refusal(Failure::new(Code::MethodNotAllowed, message))
}

async fn list_capabilities(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Refusal> {
    let Query(filter) = Query::<Filter>::try_from_uri(request.uri()).map_err(bad_query)?;
    let caller = caller::id(request.extensions());
    let snapshot = shared.router.shown(caller.as_deref()).await?;
    let capabilities = snapshot.capabilities(&filter, &shared.url);
    Ok(Json(json!({ "capabilities": capabilities })).into_response())
}

async fn list_workers(State(shared): State<Arc<Shared>>) -> Response {
    Json(workers::view(&shared.router)).into_response()
}

async fn list_manifests(
    State(shared): State<Arc<Shared>>,
    request: Request,
) -> Result<Response, Refusal> {
    let caller = caller::id(request.extensions());
    let snapshot = shared.router.shown(caller.as_deref()).await?;
    Ok(Json(Manifests::of(&snapshot)).into_response())
}

async fn ready(State(shared): State<Arc<Shared>>) -> Result<Response, Refusal> {
    if !shared.router.registry().snapshot().is_ready() {
        return Err(Failure::new(
            Code::Unavailable,
            "no worker serves yet; GET /workers says why",
        )
        .into());
    }
    Ok(Json(json!({"status": "ready"})).into_response())
}

/// The query's pairs, decoded, in order.
pub(super) fn query(uri: &Uri) -> Result<Vec<(String, String)>, Failure> {
    let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
    pairs.map(|Query(pairs)| pairs).map_err(bad_query)
}

pub(super) fn bad_query(error: QueryRejection) -> Failure {
    Failure::new(
        Code::InvalidRequest,
        format!("the query is not accepted: {}", innermost(&error)),
    )
}

pub(super) fn bad_path(_: PathRejection) -> Failure {
    Failure::new(
        Code::InvalidRequest,
        "the path is not percent-encoded utf-8",
    )
}

/// Axum's own words come first in the chain; the last says what is wrong.
fn innermost(mut error: &dyn Error) -> &dyn Error {
    while let Some(source) = error.source() {
        error = source;
    }
    error
}

/// A semver requirement from a query, `^1` or `>=1.2, <3`.
pub(super) fn requirement(text: &str) -> Result<VersionReq, Failure> {
    text.parse().map_err(|error| {
        Failure::new(
            Code::InvalidRequest,
            format!("version is no semver requirement, such as ^1: {error}"),
        )
    })
}
