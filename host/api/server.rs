//! Connections: accepting them, keeping slow and idle ones from holding the host, ending them.

use std::convert::Infallible;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use axum::body::Body;
use axum::http::Request;
use hyper::body::{Body as _, Incoming};
use hyper::server::conn::http1::Builder;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinSet;
use tokio_io_timeout::TimeoutStream;
use tokio_util::task::AbortOnDropHandle;

use super::Settings;
use super::edge::Address;
use super::routes::{App, app};
use crate::auth::{Auth, Peer};
use crate::error::Code;
use crate::limits::{Callers, Who};
use crate::outbox::{self, Out};
use crate::router::Router;

/// Connections that are open at once. Each holds a file descriptor and some buffers; what comes on top
/// waits in the kernel's queue. One address has a part of them (`limits.address_connections`); what it opens on top is
/// closed, and so waits in nobody's way.
const CONNECTIONS: usize = 4096;

/// After an error that says that the process or the machine is out of something, wait for it to pass.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// Serves until `shutdown` is ready; then accepts nothing new, gives calls in flight the grace time, and
/// cuts the rest.
///
/// # Errors
///
/// When the listener has no local address, or identities are configured and were not opened. Nothing that a connection does ends the server.
pub async fn serve(
    listener: TcpListener,
    router: Arc<Router>,
    settings: Settings,
    shutdown: impl Future<Output = ()>,
) -> io::Result<()> {
    if settings.identified && settings.auth.is_none() {
        let message = "identities are configured, and what proves them was not opened";
        return Err(io::Error::other(message));
    }
    let auth = settings.auth.clone();
    let followed = auth.clone().map(Auth::follow).map(tokio::spawn);
    let _until_the_end = followed.map(AbortOnDropHandle::new);
    let (stop, stopping) = watch::channel(());
    let app = app(router, &settings, listener.local_addr()?, stopping.clone());
    let builder = builder(&settings);
    let slots = Arc::new(Semaphore::new(CONNECTIONS));
    let addresses = Callers::new(0, 1, settings.address_connections);
    let mut connections = JoinSet::new();
    let mut shutdown = std::pin::pin!(shutdown);

    loop {
        let accepted = tokio::select! {
            () = &mut shutdown => break,
            Some(_) = connections.join_next() => continue,
            accepted = accept(&listener, &slots) => accepted,
        };
        let (stream, address, slot) = accepted;
        let of_address = addresses
            .as_ref()
            .map(|addresses| addresses.admit(Who::of(None, address.0)));
        let Ok(of_address) = of_address.transpose() else {
            tracing::debug!(address = %address.0, "closed: the address has as many connections as it may");
            continue;
        };
        let connection = Connection {
            builder: builder.clone(),
            app: app.clone(),
            stopping: stopping.clone(),
            auth: auth.clone(),
            header_timeout: settings.header_timeout,
            body_timeout: settings.body_timeout,
            address,
        };
        connections.spawn(async move {
            connection.serve(stream).await;
            drop((slot, of_address));
        });
    }

    drop((listener, stopping));
    stop.send_replace(());
    let drained = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(settings.grace, drained).await.is_err() {
        tracing::warn!(
            connections = connections.len(),
            "the grace time is over; calls in flight are cut"
        );
        connections.shutdown().await;
    }
    Ok(())
}

/// The next connection and its slot. An error of `accept` is logged and survived.
async fn accept(
    listener: &TcpListener,
    slots: &Arc<Semaphore>,
) -> (TcpStream, Address, impl Send + 'static) {
    loop {
        // The semaphore is never closed, so this is never an error.
        let slot = slots.clone().acquire_owned().await;
        match listener.accept().await {
            Ok((stream, address)) => return (stream, Address(address.ip()), slot),
            Err(error) if is_of_one_connection(&error) => {}
            Err(error) => {
                tracing::error!(%error, "no connection can be accepted; trying again");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
    }
}

fn is_of_one_connection(error: &io::Error) -> bool {
    use io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset};
    matches!(
        error.kind(),
        ConnectionAborted | ConnectionRefused | ConnectionReset
    )
}

fn builder(settings: &Settings) -> Builder {
    // Hyper answers heads beyond its own limits with a bare status. Ours are checked in `door`, with a
    // problem document; hyper's stand at twice as much and keep memory bounded.
    let head = 2 * (settings.header_bytes + settings.uri_bytes);
    let mut builder = Builder::new();
    builder
        .timer(TokioTimer::new())
        .header_read_timeout(settings.header_timeout)
        .max_buf_size(head.max(64 << 10));
    builder
}

/// Who showed a certificate that does not hold stands in the audit log; of other handshakes that fail there are
/// many, and they say little.
fn note_refused(error: &io::Error) {
    let tls = error
        .get_ref()
        .and_then(|inner| inner.downcast_ref::<rustls::Error>());
    match tls {
        Some(rustls::Error::InvalidCertificate(why)) => {
            let reason = match why {
                rustls::CertificateError::Other(why) => why.to_string(),
                why => why.to_string(),
            };
            tracing::warn!(target: "audit", code = %Code::Unauthenticated, reason, "certificate refused");
        }
        Some(rustls::Error::NoCertificatesPresented) => {
            tracing::warn!(target: "audit", code = %Code::Unauthenticated, reason = "no certificate", "certificate refused");
        }
        _ => tracing::debug!(%error, "a TLS handshake failed"),
    }
}

struct Connection {
    builder: Builder,
    app: App,
    stopping: watch::Receiver<()>,
    auth: Option<Arc<Auth>>,
    header_timeout: Duration,
    body_timeout: Duration,
    address: Address,
}

impl Connection {
    async fn serve(self, stream: TcpStream) {
        // A response is written whole: waiting to fill a packet would only delay it.
        let _ = stream.set_nodelay(true);
        let connection = outbox::Connection::new(stream);
        let out = connection.out();
        let mut stream = TimeoutStream::new(connection);
        // A reader who takes nothing for this long holds a response, and perhaps an invocation.
        stream.set_write_timeout(Some(self.body_timeout));
        let stream = Box::pin(stream);
        let Some(acceptor) = self.auth.as_ref().and_then(|auth| auth.acceptor()) else {
            return self.speak(stream, &out, None).await;
        };
        match tokio::time::timeout(self.header_timeout, acceptor.accept(stream)).await {
            Ok(Ok(stream)) => {
                let shown = stream.get_ref().1.peer_certificates();
                let peer = shown.map(|chain| Arc::new(Peer::new(chain)));
                self.speak(stream, &out, peer).await;
            }
            Ok(Err(error)) => note_refused(&error),
            Err(_) => tracing::debug!("a TLS handshake took too long"),
        }
    }

    async fn speak(
        mut self,
        stream: impl AsyncRead + AsyncWrite + Unpin,
        out: &Out,
        peer: Option<Arc<Peer>>,
    ) {
        let begun = AtomicUsize::new(0);
        let service = service_fn(async |request: Request<Incoming>| {
            let mut request = request.map(Body::new);
            begun.fetch_add(1, Ordering::Relaxed);
            if let Some(peer) = &peer {
                request.extensions_mut().insert(peer.clone());
            }
            let response = self.app.answer(self.address, request).await;
            out.whole(response.body().size_hint().exact().is_some());
            Ok::<_, Infallible>(response)
        });
        let connection = self.builder.serve_connection(TokioIo::new(stream), service);
        let mut connection = std::pin::pin!(connection);
        let mut closing = false;
        let mut seen = 0;
        loop {
            tokio::select! {
                ended = connection.as_mut() => {
                    if let Err(error) = ended {
                        tracing::debug!(%error, "a connection ended early");
                    }
                    return;
                }
                _ = self.stopping.changed(), if !closing => {
                    closing = true;
                    connection.as_mut().graceful_shutdown();
                }
                // Hyper's header timeout does not know silence before the first byte. So a
                // connection that begins no request for this long ends when those that it has are
                // answered, and is cut if it never had one.
                () = tokio::time::sleep(self.header_timeout) => {
                    let last = std::mem::replace(&mut seen, begun.load(Ordering::Relaxed));
                    if seen == 0 && closing {
                        return;
                    }
                    if seen == last && !closing {
                        closing = true;
                        connection.as_mut().graceful_shutdown();
                    }
                }
            }
        }
    }
}
