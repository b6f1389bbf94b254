//! Who reads a stream proves who they are for as long as it lasts: it ends when their credentials no longer hold.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::http::HeaderValue;
use axum::response::Response;
use bytes::Bytes;
use hyper::body::{Body as _, Frame};
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at};

use crate::auth::{Auth, Peer};
use crate::identity::Caller;

/// How often that is looked at: as often as the files are that credentials hang on.
const LOOK: Duration = Duration::from_secs(1);

/// The credentials that a request came with, and whose they were then.
pub(super) struct Shown {
    pub auth: Arc<Auth>,
    pub peer: Option<Arc<Peer>>,
    pub authorization: Option<HeaderValue>,
    pub caller: Arc<Caller>,
}

impl Shown {
    fn holds(&self) -> bool {
        let authorization = self.authorization.as_ref().map(HeaderValue::as_bytes);
        let now = self.auth.caller(self.peer.as_deref(), authorization);
        now.is_ok_and(|now| now.id == self.caller.id)
    }
}

/// Bounds an answer that goes on by the credentials of who reads it. One that is there already goes out at once.
pub(super) fn bound(shown: Option<Shown>, response: Response) -> Response {
    let Some(shown) = shown.filter(|_| response.body().size_hint().exact().is_none()) else {
        return response;
    };
    let mut look = interval_at(Instant::now() + LOOK, LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    response.map(|body| Body::new(Standing { body, shown, look }))
}

struct Standing {
    body: Body,
    shown: Shown,
    look: Interval,
}

impl hyper::body::Body for Standing {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        while self.look.poll_tick(context).is_ready() {
            if !self.shown.holds() {
                let caller = self.shown.caller.id.as_str();
                tracing::warn!(target: "audit", caller, "stream ended: its reader's credentials no longer hold");
                // Whatever feeds it ends with it. An error, so that nobody takes what came for all there was.
                self.body = Body::empty();
                let reason = "the credentials no longer hold";
                return Poll::Ready(Some(Err(axum::Error::new(reason))));
            }
        }
        Pin::new(&mut self.body).poll_frame(context)
    }
}
