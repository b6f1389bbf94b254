//! Workers that are not components of this host: they speak HTTP, another Crank host among them.
//!
//! They come from `POST /register` and from the operator's capabilities file. This room knows where
//! they are, whether they live, what they may claim, and how to call them; HTTP as a client's side of it
//! is spoken here and nowhere else. Which of them serves a call must not enter it.

mod address;
mod agree;
mod book;
mod endpoint;
mod file;
mod forward;
mod join;
mod kept;
mod link;
mod path;
mod registration;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::capability::Capability;
use crate::config::{Config, Registrar};
use crate::error::{Code, Failure};
use crate::identity::SpiffeId;
use crate::limits::{Handed, Limits};
use crate::rules::Verdicts;
use crate::worker::Offered;

pub use book::{Registered, Remotes};
pub use endpoint::{Condition, Endpoint, Health};
pub use forward::{Forward, Unanswered};
pub use join::{Joined, join};
pub use path::{MAX_HOPS, read_path};
pub use registration::{Registration, SchemaText, SloText};

/// Who says that a worker is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The operator's capabilities file.
    Configured,
    /// A registration, until it runs out.
    Registered,
}

impl Source {
    /// As `GET /workers` writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Source::Configured => "capabilities file",
            Source::Registered => "registered",
        }
    }
}

/// One capability of one remote worker, as its source describes it.
pub struct Entry {
    capability: Capability,
    has_schema: bool,
    source: Source,
    registration: Registration,
    endpoint: Arc<Endpoint>,
    /// The registrar whose it is. None: the operator's.
    owner: Option<SpiffeId>,
    /// Who registered it as an operator, where that was an identity: it holds as long as they are one.
    operator: Option<SpiffeId>,
    limits: Limits,
    bid: f64,
    /// What it says of its load, as the bits of a float from 0 to 1.
    load: AtomicU64,
    /// Milliseconds since 1970; `u64::MAX` is never.
    expires: AtomicU64,
}

/// An entry that may be called, with the schemas that hold for it.
pub struct Remote {
    entry: Arc<Entry>,
    offered: Arc<Offered>,
    worker_id: Arc<str>,
}

/// An entry that may not be called.
#[derive(Clone)]
pub struct Refused {
    entry: Arc<Entry>,
    reason: String,
}

/// Who asks to register or to remove a worker: it then gets other people's inputs. Where callers have no identities only
/// the local operator may, else those whom the configuration lists.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Caller {
    /// Came over the loopback interface, past the door: whoever runs programs on this machine. Or, with an id, has
    /// proven to be an operator who may register.
    Operator(Option<SpiffeId>),
    /// Has proven to be one whom the operator lists in `identity.registrars`.
    Registrar(Registrar),
    /// Anybody else.
    Foreign,
}

impl Caller {
    /// Whose the registrations are: a registrar's own, or the operator's.
    ///
    /// # Errors
    ///
    /// `denied`: they may not register.
    pub fn owner(&self) -> Result<Option<&SpiffeId>, Failure> {
        match self {
            Caller::Operator(_) => Ok(None),
            Caller::Registrar(registrar) => Ok(Some(&registrar.id)),
            Caller::Foreign => Err(Failure::new(
                Code::Denied,
                "workers are registered from the host's own machine, or by who stands in identity.registrars",
            )),
        }
    }

    fn operator(&self) -> Option<&SpiffeId> {
        match self {
            Caller::Operator(id) => id.as_ref(),
            _ => None,
        }
    }
}

/// Whether a registrar may offer this, under this identity.
///
/// # Errors
///
/// `denied`.
fn may_offer(registrar: &Registrar, capability: &Capability) -> Result<(), Failure> {
    let key = capability.key();
    if !registrar.may_offer(&key) {
        let message = format!(
            "{} may not offer {key}; its entry of identity.registrars says what it may",
            registrar.id
        );
        return Err(Failure::new(Code::Denied, message));
    }
    match &capability.spiffe_id {
        Some(id) if *id != registrar.id => {
            let message = format!(
                "spiffe_id {id} is not {}, who registers it; claim your own, or none",
                registrar.id
            );
            Err(Failure::new(Code::Denied, message))
        }
        _ => Ok(()),
    }
}

impl Entry {
    fn worker_id(&self) -> &str {
        self.capability.worker_id.as_str()
    }

    /// Whether somebody may replace or remove it: its owner, or the operator.
    fn is_for(&self, owner: Option<&SpiffeId>) -> bool {
        owner.is_none() || self.owner.as_ref() == owner
    }

    /// What makes a later registration replace this one: the same capability of the same worker, within
    /// what semver takes for one line of versions.
    fn is_replaced_by(&self, other: &Entry) -> bool {
        let line = |entry: &Entry| {
            let version = &entry.capability.version;
            (version.major, (version.major == 0).then_some(version.minor))
        };
        self.source == other.source
            && self.worker_id() == other.worker_id()
            && self.capability.verb == other.capability.verb
            && self.capability.name == other.capability.name
            && line(self) == line(other)
    }

    fn renew(&self, registration: &Registration) {
        let load = registration.load_score.unwrap_or_default();
        self.load.store(load.to_bits(), Relaxed);
        let ttl = Duration::from_secs(registration.ttl());
        self.expires.store(now_ms() + millis(ttl), Relaxed);
        self.endpoint.note_alive();
    }
}

impl Remote {
    fn new(entry: Arc<Entry>, capability: Capability) -> Self {
        let worker_id = Arc::from(capability.worker_id.as_str());
        let offered = Arc::new(Offered {
            id: capability.key().into(),
            limits: entry.limits,
            constraints: Vec::new(),
            bid: entry.bid,
            // What it is called among hosts is not known.
            affinity: capability.affinity(""),
            series: OnceLock::new(),
            verdicts: Verdicts::default(),
            capability,
        });
        Self {
            entry,
            offered,
            worker_id,
        }
    }

    /// The worker's id.
    pub fn worker_id(&self) -> &Arc<str> {
        &self.worker_id
    }

    /// What it offers, with the schemas that hold. No constraint of it is enforced here.
    pub fn offered(&self) -> &Arc<Offered> {
        &self.offered
    }

    /// Where it is, as it was given.
    pub fn url(&self) -> &str {
        self.entry.endpoint.address().url()
    }

    /// Its connections and its health, which all capabilities of a worker at one address share.
    pub fn endpoint(&self) -> &Arc<Endpoint> {
        &self.entry.endpoint
    }

    /// Who says that it is there.
    pub fn source(&self) -> Source {
        self.entry.source
    }

    /// What it says of its own load, from 0 (idle) to 1.
    pub fn load_score(&self) -> f64 {
        f64::from_bits(self.entry.load.load(Relaxed))
    }

    /// Whether a call may be made again elsewhere when it broke off in the middle.
    pub fn is_idempotent(&self) -> bool {
        self.entry.registration.idempotent.unwrap_or(false)
    }

    /// Whether it is called by its verb alone.
    pub fn is_nameless(&self) -> bool {
        self.entry.registration.name.is_none()
    }

    /// Time until it is dropped, where it is not renewed.
    pub fn expires_in(&self) -> Option<Duration> {
        match self.entry.expires.load(Relaxed) {
            u64::MAX => None,
            at => Some(Duration::from_millis(at.saturating_sub(now_ms()))),
        }
    }

    fn order(&self) -> (&str, &str, &semver::Version) {
        let version = &self.offered.capability.version;
        (&self.worker_id, &self.offered.id, version)
    }
}

impl Refused {
    /// The worker that is refused.
    pub fn worker_id(&self) -> &str {
        self.entry.worker_id()
    }

    /// What it would offer.
    pub fn capability(&self) -> &Capability {
        &self.entry.capability
    }

    /// Where it is.
    pub fn url(&self) -> &str {
        self.entry.endpoint.address().url()
    }

    /// Who says that it is there.
    pub fn source(&self) -> Source {
        self.entry.source
    }

    /// Why.
    pub fn reason(&self) -> &str {
        &self.reason
    }
}

/// What holds here for a call to another machine: time, and the sizes of what goes to and fro.
fn limits(config: &Config) -> Limits {
    let bytes = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    Limits {
        memory: 0,
        wall: config.limits.wall,
        cpu: Duration::ZERO,
        input: bytes(config.limits.input.get()),
        output: bytes(config.limits.output.get()),
        handed: Handed { bytes: 0, items: 0 },
        storage: 0,
        files: 0,
        gpu_memory: 0,
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is held here is whole at any line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Milliseconds since 1970.
fn now_ms() -> u64 {
    millis(
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .unwrap_or_default(),
    )
}

fn millis(time: Duration) -> u64 {
    u64::try_from(time.as_millis()).unwrap_or(u64::MAX >> 1)
}
