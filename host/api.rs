//! The protocols: HTTP requests become calls, answers and failures become responses.
//!
//! Nothing below this room knows a status, a header or a media range. Nothing here chooses, runs or
//! validates: that is `router`'s work.

mod caller;
mod door;
mod edge;
mod events;
mod explain;
mod invoke;
mod mcp;
mod openapi;
mod problem;
mod register;
mod reload;
mod routes;
mod server;
mod standing;
mod telemetry;
mod workers;

use std::sync::Arc;
use std::time::Duration;

use crate::auth::Auth;
use crate::config::{ByteCount, Config};
use crate::identity::SpiffeId;

pub use mcp::converse;
pub use problem::status;
pub use server::serve;

/// Proxies close what is silent for a minute, many for half of one.
const HEARTBEAT: Duration = Duration::from_secs(15);

/// What the operator says about serving.
#[derive(Clone, Debug)]
pub struct Settings {
    /// How long calls in flight may go on once the host is told to stop.
    pub grace: Duration,
    /// Values of `Host` to answer to besides loopback names: `name` (any port) or `name:port`.
    pub allowed_hosts: Vec<String>,
    /// Values of `Origin` to accept besides the host's own: `https://app.example`.
    pub allowed_origins: Vec<String>,
    /// Bytes that the body of a request may have.
    pub input_bytes: usize,
    /// Bytes that the names and values of a request's headers may have together.
    pub header_bytes: usize,
    /// Bytes that a request's path and query may have together.
    pub uri_bytes: usize,
    /// Within which a connection must deliver a request's head; also how long it may stay unused.
    pub header_timeout: Duration,
    /// Within which a request's body must arrive; also how long a response may wait for its reader.
    pub body_timeout: Duration,
    /// Requests of one caller per second, at once before that holds, and under way. 0: any number.
    pub caller_rate: u32,
    /// See `caller_rate`.
    pub caller_burst: u32,
    /// See `caller_rate`.
    pub caller_concurrency: usize,
    /// Connections from one address that are open at once.
    pub address_connections: usize,
    /// A stream in which nothing happened for this long gets a comment, so that nobody on the way takes
    /// it for dead, and a caller who is gone without a word is found out.
    pub heartbeat: Duration,
    /// Whether callers must prove who they are. Then nothing is served without [`Settings::auth`].
    pub identified: bool,
    /// Whether `GET /metrics` is answered without credentials.
    pub open_metrics: bool,
    /// What proves who calls, and what the host speaks TLS with.
    pub auth: Option<Arc<Auth>>,
    /// In whose name calls over standard input and output are made.
    pub local: Option<SpiffeId>,
}

impl From<&Config> for Settings {
    fn from(config: &Config) -> Self {
        let bytes = |count: ByteCount| usize::try_from(count.get()).unwrap_or(usize::MAX);
        Self {
            grace: config.grace,
            allowed_hosts: config.allowed_hosts.clone(),
            allowed_origins: config.allowed_origins.clone(),
            input_bytes: bytes(config.limits.input),
            header_bytes: bytes(config.limits.header),
            uri_bytes: bytes(config.limits.uri),
            header_timeout: config.limits.header_timeout,
            body_timeout: config.limits.body_timeout,
            caller_rate: config.limits.caller_rate,
            caller_burst: config.limits.caller_burst,
            caller_concurrency: config.limits.caller_concurrency,
            address_connections: config.limits.address_connections,
            heartbeat: HEARTBEAT,
            identified: config.identity.is_required() || config.identity.tls.is_some(),
            open_metrics: config.identity.open_metrics,
            auth: None,
            local: config.identity.local.clone(),
        }
    }
}
