//! One connection to a remote worker: opened to a pinned address, over TLS where its URL says so.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::Full;
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{HeaderMap, HeaderValue};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;

use super::address::Address;
use super::endpoint::told;
use crate::auth::{Outgoing, Secured};
use crate::identity::SpiffeId;

/// How long a connection may take to come about, its handshake included.
const CONNECT: Duration = Duration::from_secs(2);
/// The head of a response, in bytes.
const HEAD: usize = 64 << 10;
/// How long a TLS connection is used: certificates end, and are verified when a connection begins.
const VERIFIED: Duration = Duration::from_secs(60);

/// How a worker proves who it is.
pub struct Proof {
    /// What it proves that by, and what this host shows it.
    pub outgoing: Arc<Outgoing>,
    /// Whom it is registered as. None: its name has to do.
    pub id: Option<SpiffeId>,
}

pub type Sender = SendRequest<Full<Bytes>>;

/// See the module.
pub struct Link {
    pub sender: Sender,
    opened: Instant,
    /// Of the files that TLS was begun with.
    revision: u64,
    is_mutual: bool,
}

impl Link {
    /// Opens a connection.
    ///
    /// # Errors
    ///
    /// None comes about in time, or its other end does not prove who it is; the text is for the log.
    pub async fn open(
        address: &Address,
        pinned: &[SocketAddr],
        proof: Option<&Proof>,
    ) -> Result<Self, String> {
        let opening = async {
            let stream = TcpStream::connect(pinned).await;
            let stream = stream.map_err(|error| error.to_string())?;
            // A request is written whole: waiting to fill a packet would only delay it.
            let _ = stream.set_nodelay(true);
            let Some(Proof { outgoing, id }) = proof else {
                return Ok((speak(stream).await?, false, 0));
            };
            // Before the handshake: a rotation in the middle of it ends the connection early, not late.
            let revision = outgoing.revision();
            let secured = outgoing.connect(stream, address.host(), id.as_ref());
            let Secured { stream, is_mutual } = secured.await?;
            Ok((speak(stream).await?, is_mutual, revision))
        };
        let opened = tokio::time::timeout(CONNECT, opening).await;
        let opened = opened.unwrap_or_else(|_| Err(format!("no connection within {CONNECT:?}")));
        let (sender, is_mutual, revision) = opened?;
        Ok(Self {
            sender,
            opened: Instant::now(),
            revision,
            is_mutual,
        })
    }

    /// Whether it may be used again.
    pub fn is_good(&self, proof: Option<&Proof>) -> bool {
        let holds = |proof: &Proof| {
            proof.outgoing.revision() == self.revision && self.opened.elapsed() < VERIFIED
        };
        !self.sender.is_closed() && proof.is_none_or(holds)
    }

    /// Says in whose name a request is made, where the other end has proven who it is and knows who asks.
    pub fn tell<B>(&self, request: &mut Request<B>, behalf: &HeaderMap<HeaderValue>) {
        for (name, value) in behalf {
            match self.is_mutual {
                true => request.headers_mut().insert(name, value.clone()),
                false => request.headers_mut().remove(name),
            };
        }
    }
}

async fn speak(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
) -> Result<Sender, String> {
    let (sender, connection) = http1::Builder::new()
        .max_buf_size(HEAD)
        .handshake(TokioIo::new(stream))
        .await
        .map_err(|error| told(&error))?;
    // It ends with the sender, or with the connection.
    tokio::spawn(connection);
    Ok(sender)
}
