//! What the remote sources say now, and what keeps it true: registrations that run out, a file that
//! changes, workers that are asked whether they live.

mod terms;
mod watch;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex};
use std::time::{Instant, SystemTime};

use terms::Terms;

use super::address::Address;
use super::kept::{Kept, fresh_controller_id};
use super::registration::Registration;
use super::{Caller, Endpoint, Entry, Source, lock};
use crate::capability::Capability;
use crate::config::Config;
use crate::error::{Code, Failure, Fault};
use crate::identity::SpiffeId;

/// Registrations that are kept: each takes memory.
const MAX_REGISTRATIONS: usize = 1000;
/// What a retry takes of the budget, to which each call adds one: a fifth of the calls may be retries.
const RETRY: i64 = 5;
/// What the budget holds at most: twenty retries at once.
const BUDGET: i64 = 20 * RETRY;

/// The remote part of a host: who is there, and how this host is called by others.
pub struct Remotes {
    controller_id: String,
    terms: Option<Terms>,
    entries: Mutex<Vec<Arc<Entry>>>,
    kept: Option<Kept>,
    /// Heartbeats that the disk does not know yet.
    dirty: AtomicBool,
    saved: Mutex<Option<Instant>>,
    /// When the files of `[identity]` were looked at last.
    looked: Mutex<Option<Instant>>,
    file: Option<PathBuf>,
    /// The file as it was when it was last looked at.
    stamp: Mutex<Option<Stamp>>,
    budget: AtomicI64,
    retries: AtomicU64,
}

/// When the file was written last, and its size.
type Stamp = Option<(SystemTime, u64)>;

/// What became of a registration.
pub struct Registered {
    /// What it became.
    pub entry: Arc<Entry>,
    /// Whether it outlives this host.
    pub is_kept: bool,
}

impl Registered {
    /// What was registered.
    pub fn capability(&self) -> &Capability {
        &self.entry.capability
    }

    /// Seconds until it is dropped, unless it is renewed.
    pub fn ttl(&self) -> u64 {
        self.entry.registration.ttl()
    }

    /// Its worker.
    pub fn endpoint(&self) -> &Endpoint {
        &self.entry.endpoint
    }
}

impl Remotes {
    /// No remote worker, and none can be registered.
    pub fn none() -> Self {
        Self::new(fresh_controller_id(), None, None, None)
    }

    fn new(
        controller_id: String,
        terms: Option<Terms>,
        kept: Option<Kept>,
        file: Option<PathBuf>,
    ) -> Self {
        Self {
            controller_id,
            terms,
            entries: Mutex::default(),
            kept,
            dirty: AtomicBool::new(false),
            saved: Mutex::default(),
            looked: Mutex::default(),
            file,
            stamp: Mutex::default(),
            budget: AtomicI64::new(BUDGET),
            retries: AtomicU64::new(0),
        }
    }

    /// Reads the capabilities file and what was registered before the last stop.
    ///
    /// # Errors
    ///
    /// The capabilities file or a file of `[identity]` cannot be read, or is not what it should be.
    pub fn open(config: &Config) -> Result<Self, String> {
        let kept = open_kept(config);
        let terms = Terms::new(config)?;
        let id = controller_id(config, kept.as_ref());
        let remotes = Self::new(id, Some(terms), kept, config.capabilities.clone());
        if let Some(path) = &remotes.file {
            *lock(&remotes.stamp) = Some(watch::stamp(path));
            let entries = remotes.read_file(path)?;
            *lock(&remotes.entries) = entries;
        }
        remotes.restore();
        Ok(remotes)
    }

    /// What this host is called in `Crank-Path`.
    pub fn controller_id(&self) -> &str {
        &self.controller_id
    }

    /// Everything that the sources say, the earlier first.
    pub fn entries(&self) -> Vec<Arc<Entry>> {
        lock(&self.entries).clone()
    }

    /// Notes that a call is forwarded.
    pub fn note_call(&self) {
        let more = |budget: i64| (budget < BUDGET).then_some(budget + 1);
        let _full = self.budget.fetch_update(Relaxed, Relaxed, more);
    }

    /// Whether one more call may be made again elsewhere: a fifth of them may be. More would make a bad
    /// hour worse.
    pub fn may_retry(&self) -> bool {
        let less = |budget: i64| (budget >= RETRY).then_some(budget - RETRY);
        let may = self.budget.fetch_update(Relaxed, Relaxed, less).is_ok();
        if may {
            self.retries.fetch_add(1, Relaxed);
        }
        may
    }

    /// Calls that were made again elsewhere.
    pub fn retries(&self) -> u64 {
        self.retries.load(Relaxed)
    }

    /// Takes a registration for a heartbeat, if it says nothing new and comes from who registered it.
    pub fn renew(
        &self,
        registration: &Registration,
        owner: Option<&SpiffeId>,
    ) -> Option<Registered> {
        let entry = lock(&self.entries)
            .iter()
            .find(|entry| {
                entry.source == Source::Registered
                    && entry.owner.as_ref() == owner
                    && entry.registration.is_renewed_by(registration)
            })
            .cloned()?;
        let load = registration.load_score.unwrap_or_default();
        if registration.ttl() != entry.registration.ttl() || !(0.0..=1.0).contains(&load) {
            return None;
        }
        entry.renew(registration);
        self.dirty.store(true, Relaxed);
        Some(self.registered(entry))
    }

    /// Checks a registration and finds its worker. Nothing is registered by that.
    ///
    /// # Errors
    ///
    /// It is malformed, claims what is another's, or its address is not allowed or not found.
    pub async fn prepare(
        &self,
        registration: Registration,
        caller: &Caller,
    ) -> Result<Arc<Entry>, Failure> {
        let (terms, owner) = (self.terms()?, caller.owner()?);
        let capability = registration.read().map_err(|problems| {
            let faults = problems.into_iter().map(|problem| Fault {
                pointer: format!("/{}", problem.path.replace('.', "/")),
                detail: problem.detail,
            });
            let message = "the registration is not accepted";
            Failure::new(Code::InvalidRequest, message).with_faults(faults.collect())
        })?;
        if let Some(owner) = owner {
            terms.grants(owner, &capability)?;
        }
        check_owner(&lock(&self.entries), &registration.worker_id, owner)?;
        terms.owns(&capability)?;
        let at_url = |detail| {
            let pointer = "/url".to_owned();
            let message = "the registration is not accepted";
            Failure::new(Code::InvalidRequest, message).with_faults(vec![Fault { pointer, detail }])
        };
        let address = Address::parse(&registration.url).map_err(at_url)?;
        let endpoint = match self.known(Source::Registered, &capability, &address) {
            Some(endpoint) => endpoint,
            None => {
                let found = address.resolve().await.map_err(at_url)?;
                let pinned = terms.allowed(&address, &found)?;
                terms.endpoint(address, Some(pinned), &capability)
            }
        };
        let mut entry = terms.entry(capability, registration, Source::Registered, endpoint);
        entry.owner = owner.cloned();
        entry.operator = caller.operator().cloned();
        entry.renew(&entry.registration);
        Ok(Arc::new(entry))
    }

    /// What the entries would be with one more, and without those that it replaces.
    ///
    /// # Errors
    ///
    /// There are as many as may be, or the worker is another registrar's.
    pub fn with(&self, entry: &Arc<Entry>) -> Result<Vec<Arc<Entry>>, Failure> {
        let mut entries = self.entries();
        check_owner(&entries, entry.worker_id(), entry.owner.as_ref())?;
        entries.retain(|other| !other.is_replaced_by(entry));
        if entries.len() >= MAX_REGISTRATIONS {
            let message = format!("{MAX_REGISTRATIONS} capabilities are registered, no more are");
            return Err(Failure::new(Code::Overloaded, message));
        }
        entries.push(entry.clone());
        Ok(entries)
    }

    /// Makes these the entries, and writes them down.
    pub async fn commit(self: &Arc<Self>, entries: Vec<Arc<Entry>>) {
        *lock(&self.entries) = entries;
        self.save().await;
    }

    /// A registration, with whether it is kept.
    pub fn registered(&self, entry: Arc<Entry>) -> Registered {
        Registered {
            entry,
            is_kept: self.kept.is_some(),
        }
    }

    /// The entries without those that a worker registered.
    ///
    /// # Errors
    ///
    /// It registered nothing: it is in the capabilities file, or nowhere. Or another registrar did.
    pub fn without(
        &self,
        worker_id: &str,
        owner: Option<&SpiffeId>,
    ) -> Result<Vec<Arc<Entry>>, Failure> {
        let entries = self.entries();
        let of = |entry: &&Arc<Entry>| entry.worker_id() == worker_id;
        match entries.iter().find(of).map(|entry| entry.source) {
            None => {
                let message = format!("no worker {worker_id:?} is registered");
                Err(Failure::new(Code::NotFound, message))
            }
            Some(Source::Configured) => {
                let message = format!(
                    "worker {worker_id} is in the capabilities file; the operator takes it out there"
                );
                Err(Failure::new(Code::Conflict, message))
            }
            Some(Source::Registered) => {
                check_owner(&entries, worker_id, owner)?;
                let others = entries.into_iter();
                Ok(others
                    .filter(|entry| entry.worker_id() != worker_id)
                    .collect())
            }
        }
    }

    /// A worker's endpoint, if the same source has it at the same address already: its connections, its
    /// health and what its name was found to mean go on.
    fn known(
        &self,
        source: Source,
        capability: &Capability,
        address: &Address,
    ) -> Option<Arc<Endpoint>> {
        let entries = lock(&self.entries);
        let same = entries.iter().find(|entry| {
            entry.source == source
                && entry.capability.worker_id == capability.worker_id
                && entry.endpoint.is(address, capability.spiffe_id.as_ref())
        });
        same.map(|entry| entry.endpoint.clone())
    }

    fn terms(&self) -> Result<&Terms, Failure> {
        let none = || Failure::new(Code::Denied, "this host takes no remote workers");
        self.terms.as_ref().ok_or_else(none)
    }
}

/// Who registers a worker anew or removes it gets, or cuts off, what others' callers send.
fn check_owner(
    entries: &[Arc<Entry>],
    worker_id: &str,
    owner: Option<&SpiffeId>,
) -> Result<(), Failure> {
    let is_anothers = |entry: &Arc<Entry>| {
        entry.source == Source::Registered && entry.worker_id() == worker_id && !entry.is_for(owner)
    };
    if !entries.iter().any(is_anothers) {
        return Ok(());
    }
    let message = format!(
        "worker {worker_id} was registered by somebody else, and is theirs or the operator's to change"
    );
    Err(Failure::new(Code::Conflict, message))
}

/// The place where registrations are kept; without one they go with the host. There is nothing to keep
/// where the operator lets nobody register.
fn open_kept(config: &Config) -> Option<Kept> {
    if config.remote_addresses.is_empty() {
        return None;
    }
    match Kept::open(&config.state_dir) {
        Ok(kept) => Some(kept),
        Err(error) => {
            tracing::warn!("registrations go with this host, nothing is kept: {error}");
            None
        }
    }
}

/// What this host is called: what the operator says, else an id of its own. Two hosts of one name would
/// take each other's calls for their own that came back.
fn controller_id(config: &Config, kept: Option<&Kept>) -> String {
    if let Some(id) = &config.controller_id {
        return id.clone();
    }
    let kept = kept.map(Kept::controller_id);
    match kept {
        Some(Ok(id)) => id,
        Some(Err(error)) => {
            tracing::warn!("the id of this host is new: {error}");
            fresh_controller_id()
        }
        None => fresh_controller_id(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fifth_of_the_calls_may_be_retries() {
        let remotes = Remotes::none();
        let spent = || (0..100).filter(|_| remotes.may_retry()).count();
        assert_eq!(spent(), 20, "what is saved up");
        (0..10).for_each(|_| remotes.note_call());
        assert_eq!(spent(), 2);
        assert_eq!(remotes.retries(), 22);
    }
}
