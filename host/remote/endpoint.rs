//! One remote worker's address: its connections, and whether it is alive.
//!
//! A connection goes to an address that was found once, whatever the name means later, and follows no
//! redirect. What matters to the caller of a call that failed is whether a byte of it was sent.

use std::net::SocketAddr;
use std::sync::atomic::{
    AtomicU32, AtomicU64, AtomicUsize,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::header::{HOST, HeaderMap};
use hyper::{Request, Response};
use serde::Serialize;

use super::address::Address;
use super::link::{Link, Proof};
use super::lock;
use crate::identity::SpiffeId;

/// How long an unused connection is kept: less than after which servers close theirs, since a request
/// that meets a closing connection is lost.
const IDLE: Duration = Duration::from_secs(4);
/// Unused connections that are kept.
const MAX_IDLE: usize = 32;
/// Calls at once.
const MAX_CALLS: usize = 256;
/// How long a worker may take to say that it lives.
const PROBE: Duration = Duration::from_secs(2);
/// What is read of an answer to a probe, in bytes.
const PROBE_BYTES: usize = 64 << 10;
/// Between two probes, on average; and where there is doubt.
const PROBE_EVERY: Duration = Duration::from_secs(10);
const PROBE_SOON: Duration = Duration::from_secs(1);
/// Failures in a row, with no answer between them, after which a worker counts as down.
const DOWN: u32 = 2;
/// Failures in a row up to which it is asked again soon: it may just be starting again.
const PATIENCE: u32 = 15;

/// Whether a remote worker is alive, as far as is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Health {
    /// It does not answer: it gets no calls.
    Down,
    /// Not proven yet, or it failed once: it gets calls if no healthy one offers the same.
    Suspect,
    /// It answered when it was last asked.
    Healthy,
}

/// Why there is no whole response.
#[derive(Debug)]
pub enum Broken {
    /// Nothing was sent: the worker cannot have done anything.
    Unsent(String),
    /// As many calls as may be are under way there; nothing was sent.
    Busy,
    /// It broke off after something was sent: what the worker did is not known.
    Lost(String),
    /// The response has more bytes than it may.
    TooLarge,
}

/// See the module.
pub struct Endpoint {
    address: Address,
    pinned: OnceLock<Vec<SocketAddr>>,
    /// Where it is reached over TLS.
    proof: Option<Proof>,
    idle: Mutex<Vec<(Instant, Link)>>,
    in_flight: AtomicUsize,
    calls: AtomicU64,
    broken: AtomicU64,
    /// In a row. One before anything is known.
    failures: AtomicU32,
    probe: Mutex<Probe>,
}

#[derive(Default)]
struct Probe {
    next: Option<Instant>,
    /// Why the last one failed, or the last call.
    reason: Option<String>,
}

/// How a remote worker does, for who asks.
#[derive(Clone, Debug, Serialize)]
pub struct Condition {
    /// Whether it is alive.
    pub health: Health,
    /// Why not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
    /// Calls under way.
    pub in_flight: usize,
    /// Calls that were answered, however.
    pub calls: u64,
    /// Calls that were not.
    pub broken: u64,
}

impl Endpoint {
    /// An address that is looked up when it is first needed, or has been. `proof` counts for https.
    pub fn new(address: Address, pinned: Option<Vec<SocketAddr>>, proof: Proof) -> Self {
        Self {
            proof: Some(proof).filter(|_| address.is_https()),
            address,
            pinned: pinned.map_or_else(OnceLock::new, OnceLock::from),
            idle: Mutex::default(),
            in_flight: AtomicUsize::new(0),
            calls: AtomicU64::new(0),
            broken: AtomicU64::new(0),
            failures: AtomicU32::new(1),
            probe: Mutex::default(),
        }
    }

    /// Whether it is at this address, and proves to be this id.
    pub fn is(&self, address: &Address, id: Option<&SpiffeId>) -> bool {
        let proves = |proof: &Proof| proof.id.as_ref() == id;
        self.address == *address && self.proof.as_ref().is_none_or(proves)
    }

    /// The address as it was given.
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// What it was found to mean, once it was looked up.
    pub fn pinned(&self) -> &[SocketAddr] {
        self.pinned.get().map_or(&[], Vec::as_slice)
    }

    /// Whether it is alive.
    pub fn health(&self) -> Health {
        match self.failures.load(Relaxed) {
            0 => Health::Healthy,
            failures if failures < DOWN => Health::Suspect,
            _ => Health::Down,
        }
    }

    /// How it does.
    pub fn condition(&self) -> Condition {
        let health = self.health();
        let reason = lock(&self.probe).reason.clone();
        Condition {
            health,
            reason: reason.filter(|_| health != Health::Healthy),
            in_flight: self.in_flight(),
            calls: self.calls.load(Relaxed),
            broken: self.broken.load(Relaxed),
        }
    }

    /// Calls under way.
    pub fn in_flight(&self) -> usize {
        self.in_flight.load(SeqCst)
    }

    /// The worker spoke: whatever it said, it is alive.
    pub fn note_alive(&self) {
        if self.failures.load(Relaxed) != 0 {
            self.failures.store(0, Relaxed);
        }
    }

    /// It did not answer in time. It may be at work, so this alone never takes it for dead.
    pub fn note_silent(&self) {
        self.failures.fetch_max(1, Relaxed);
        self.probe_soon("it did not answer in time".to_owned());
    }

    fn note_dead(&self, reason: String) {
        // Where one connection broke off the others mostly have, and do not know it yet: a request that
        // is written to one of them is lost.
        lock(&self.idle).clear();
        let failures = self.failures.fetch_add(1, Relaxed);
        if failures < PATIENCE {
            self.probe_soon(reason);
        }
    }

    fn probe_soon(&self, reason: String) {
        let mut probe = lock(&self.probe);
        let soon = Instant::now() + PROBE_SOON;
        probe.next = Some(probe.next.map_or(soon, |next| next.min(soon)));
        probe.reason = Some(reason);
    }

    /// Whether it is time to ask whether it lives. Whoever is told so asks.
    pub fn is_probe_due(&self, now: Instant) -> bool {
        let mut probe = lock(&self.probe);
        if probe.next.is_some_and(|next| next > now) {
            return false;
        }
        // The answer brings it forward where there is doubt.
        probe.next = Some(now + jittered(PROBE_EVERY));
        true
    }

    /// Asks whether it lives. Any answer is a yes: not every worker has this route.
    pub async fn probe(&self) {
        let request = Request::get(self.address.target("/healthz")).body(Full::default());
        let Ok(request) = request else { return };
        let nobody = HeaderMap::new();
        let asked = self.exchange(request, &nobody, PROBE_BYTES);
        match tokio::time::timeout(PROBE, asked).await {
            Ok(Ok(_) | Err(Broken::TooLarge | Broken::Busy)) => self.note_alive(),
            Ok(Err(Broken::Unsent(reason) | Broken::Lost(reason))) => self.note_dead(reason),
            Err(_) => self.note_dead(format!("no answer to a probe within {PROBE:?}")),
        }
    }

    /// Sends a call and reads its whole response; the headers of `behalf` go to a remote that has proven who it is, and
    /// knows who asks. Dropping the future closes the connection.
    pub async fn call(
        &self,
        request: Request<Full<Bytes>>,
        behalf: &HeaderMap,
        most: usize,
    ) -> Result<Response<Bytes>, Broken> {
        let _under_way = UnderWay::enter(&self.in_flight).ok_or(Broken::Busy)?;
        let answered = self.exchange(request, behalf, most).await;
        match &answered {
            Ok(_) | Err(Broken::TooLarge) => {
                self.calls.fetch_add(1, Relaxed);
                self.note_alive();
            }
            Err(Broken::Unsent(reason) | Broken::Lost(reason)) => {
                self.broken.fetch_add(1, Relaxed);
                self.note_dead(reason.clone());
            }
            Err(Broken::Busy) => {}
        }
        answered
    }

    async fn exchange(
        &self,
        mut request: Request<Full<Bytes>>,
        behalf: &HeaderMap,
        most: usize,
    ) -> Result<Response<Bytes>, Broken> {
        if let Ok(host) = self.address.authority().parse() {
            request.headers_mut().insert(HOST, host);
        }
        // A connection that was closed meanwhile gives the request back; a new one does not.
        while let Some(mut link) = self.take_idle() {
            if link.sender.ready().await.is_err() {
                continue;
            }
            link.tell(&mut request, behalf);
            match link.sender.try_send_request(request).await {
                Ok(response) => return self.read(link, response, most).await,
                Err(mut error) => match error.take_message() {
                    Some(unsent) => request = unsent,
                    None => return Err(Broken::Lost(told(error.error()))),
                },
            }
        }
        let mut link = self.connect().await.map_err(Broken::Unsent)?;
        link.tell(&mut request, behalf);
        match link.sender.try_send_request(request).await {
            Ok(response) => self.read(link, response, most).await,
            Err(error) if error.message().is_some() => Err(Broken::Unsent(told(error.error()))),
            Err(error) => Err(Broken::Lost(told(error.error()))),
        }
    }

    async fn connect(&self) -> Result<Link, String> {
        if self.pinned.get().is_none() {
            let found = self.address.resolve().await?;
            // Who was first has it: all connections go where the first one goes.
            let _lost = self.pinned.set(found);
        }
        Link::open(&self.address, self.pinned(), self.proof.as_ref()).await
    }

    async fn read(
        &self,
        link: Link,
        response: Response<Incoming>,
        most: usize,
    ) -> Result<Response<Bytes>, Broken> {
        let (head, mut body) = response.into_parts();
        let promised = usize::try_from(body.size_hint().lower()).unwrap_or(usize::MAX);
        let mut bytes = BytesMut::with_capacity(if promised > most {
            return Err(Broken::TooLarge);
        } else {
            promised
        });
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| Broken::Lost(told(&error)))?;
            if let Ok(data) = frame.into_data() {
                if bytes.len() + data.len() > most {
                    return Err(Broken::TooLarge);
                }
                bytes.extend_from_slice(&data);
            }
        }
        let mut idle = lock(&self.idle);
        if link.is_good(self.proof.as_ref()) && idle.len() < MAX_IDLE {
            idle.push((Instant::now(), link));
        }
        drop(idle);
        Ok(Response::from_parts(head, bytes.freeze()))
    }

    /// The connection that was used last, and is still open.
    fn take_idle(&self) -> Option<Link> {
        let mut idle = lock(&self.idle);
        idle.retain(|(since, link)| since.elapsed() < IDLE && link.is_good(self.proof.as_ref()));
        idle.pop().map(|(_, link)| link)
    }
}

/// A call under way, until dropped.
struct UnderWay<'a>(&'a AtomicUsize);

impl<'a> UnderWay<'a> {
    fn enter(count: &'a AtomicUsize) -> Option<Self> {
        let more = |count| (count < MAX_CALLS).then_some(count + 1);
        count.fetch_update(SeqCst, SeqCst, more).ok()?;
        Some(Self(count))
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

/// Four to six fifths of a time, so that many probes do not meet.
fn jittered(time: Duration) -> Duration {
    let [.., random] = *uuid::Uuid::now_v7().as_bytes();
    time * 4 / 5 + time * 2 / 5 * u32::from(random) / 255
}

/// What hyper says, with what lies behind it.
pub(super) fn told(error: &hyper::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}
