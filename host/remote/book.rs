//! What the remote sources say now, and what keeps it true: registrations that run out, a file that
//! changes, workers that are asked whether they live.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use ipnet::IpNet;
use tokio::task::spawn_blocking;

use super::address::{Address, within};
use super::kept::{Kept, Line, fresh_controller_id};
use super::registration::Registration;
use super::{Endpoint, Entry, Source, file, limits, now_ms};
use crate::capability::Capability;
use crate::config::{Config, WorkerSettings};
use crate::error::{Code, Failure, Fault};
use crate::identity::TrustDomain;
use crate::limits::Limits;

/// Registrations that are kept: each takes memory.
const MAX_REGISTRATIONS: usize = 1000;
/// Heartbeats reach the disk within this time; what is registered anew does at once.
const SAVE: Duration = Duration::from_secs(10);
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
    file: Option<PathBuf>,
    /// The file as it was when it was last looked at.
    stamp: Mutex<Option<Stamp>>,
    budget: AtomicI64,
    retries: AtomicU64,
}

type Stamp = Option<(SystemTime, u64)>;

/// What the operator says of remote workers.
struct Terms {
    trust_domain: TrustDomain,
    /// Ids that belong to files.
    bound: Vec<WorkerSettings>,
    ranges: Vec<IpNet>,
    limits: Limits,
    max_bid: f64,
}

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
    /// The capabilities file cannot be read, or is not what it should be.
    pub fn open(config: &Config) -> Result<Self, String> {
        let kept = open_kept(config);
        let terms = Terms {
            trust_domain: config.trust_domain.clone(),
            bound: config.workers.values().cloned().collect(),
            ranges: config.remote_addresses.clone(),
            limits: limits(config),
            max_bid: config.limits.max_slo_bid.into(),
        };
        let id = controller_id(config, kept.as_ref());
        let remotes = Self::new(id, Some(terms), kept, config.capabilities.clone());
        if let Some(path) = &remotes.file {
            *lock(&remotes.stamp) = Some(stamp(path));
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

    /// Takes a registration for a heartbeat, if it says nothing new.
    pub fn renew(&self, registration: &Registration) -> Option<Registered> {
        let entry = lock(&self.entries)
            .iter()
            .find(|entry| {
                entry.source == Source::Registered && entry.registration.is_renewed_by(registration)
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
    pub async fn prepare(&self, registration: Registration) -> Result<Arc<Entry>, Failure> {
        let terms = self.terms()?;
        let capability = registration.read().map_err(|problems| {
            let faults = problems.into_iter().map(|problem| Fault {
                pointer: format!("/{}", problem.path.replace('.', "/")),
                detail: problem.detail,
            });
            let message = "the registration is not accepted";
            Failure::new(Code::InvalidRequest, message).with_faults(faults.collect())
        })?;
        terms.owns(&capability)?;
        let at_url = |detail| {
            let pointer = "/url".to_owned();
            let message = "the registration is not accepted";
            Failure::new(Code::InvalidRequest, message).with_faults(vec![Fault { pointer, detail }])
        };
        let address = Address::parse(&registration.url).map_err(at_url)?;
        let endpoint = match self.known(Source::Registered, &registration.worker_id, &address) {
            Some(endpoint) => endpoint,
            None => {
                let found = address.resolve().await.map_err(at_url)?;
                let pinned = terms.allowed(&address, &found)?;
                Arc::new(Endpoint::new(address, Some(pinned)))
            }
        };
        let entry = terms.entry(capability, registration, Source::Registered, endpoint);
        entry.renew(&entry.registration);
        Ok(Arc::new(entry))
    }

    /// What the entries would be with one more, and without those that it replaces.
    ///
    /// # Errors
    ///
    /// There are as many as may be.
    pub fn with(&self, entry: &Arc<Entry>) -> Result<Vec<Arc<Entry>>, Failure> {
        let mut entries = self.entries();
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
    /// It registered nothing: it is in the capabilities file, or nowhere.
    pub fn without(&self, worker_id: &str) -> Result<Vec<Arc<Entry>>, Failure> {
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
            Some(Source::Registered) => Ok(entries
                .into_iter()
                .filter(|entry| entry.worker_id() != worker_id)
                .collect()),
        }
    }

    /// Looks at the clock, the file and the workers. `true`: what the sources say has changed.
    pub async fn tick(self: &Arc<Self>) -> bool {
        let ran_out = self.drop_expired();
        let changed = self.reread().await;
        let late = lock(&self.saved).is_none_or(|saved| saved.elapsed() >= SAVE);
        if ran_out || (late && self.dirty.load(Relaxed)) {
            self.save().await;
        }
        self.probe();
        ran_out || changed
    }

    fn drop_expired(&self) -> bool {
        let now = now_ms();
        let mut entries = lock(&self.entries);
        let before = entries.len();
        entries.retain(|entry| {
            let lives = entry.expires.load(Relaxed) > now;
            if !lives {
                tracing::warn!(
                    worker = entry.worker_id(),
                    capability = entry.capability.key(),
                    "dropped: nobody renewed its registration"
                );
            }
            lives
        });
        entries.len() < before
    }

    /// Reads the capabilities file again if it is another. A broken one changes nothing.
    async fn reread(self: &Arc<Self>) -> bool {
        let Some(path) = self.file.clone() else {
            return false;
        };
        let remotes = self.clone();
        // A disk may take its time.
        let looked = spawn_blocking(move || {
            let now = stamp(&path);
            let mut last = lock(&remotes.stamp);
            if last.as_ref() == Some(&now) {
                return None;
            }
            *last = Some(now);
            drop(last);
            Some(remotes.read_file(&path))
        });
        match looked.await {
            Ok(Some(Ok(configured))) => {
                let mut entries = lock(&self.entries);
                let registered = entries
                    .iter()
                    .filter(|entry| entry.source == Source::Registered);
                *entries = configured.iter().chain(registered).cloned().collect();
                tracing::info!(
                    workers = configured.len(),
                    "the capabilities file is read again"
                );
                true
            }
            Ok(Some(Err(error))) => {
                tracing::error!(
                    "the capabilities file is not taken over, what was there stays: {error}"
                );
                false
            }
            Ok(None) | Err(_) => false,
        }
    }

    fn read_file(&self, path: &Path) -> Result<Vec<Arc<Entry>>, String> {
        let terms = self.terms().map_err(|failure| failure.message)?;
        let registrations = file::read(path)?;
        let entries = registrations.into_iter().map(|registration| {
            let fail = |reason: &dyn std::fmt::Display| {
                let (worker, verb) = (&registration.worker_id, &registration.verb);
                format!(
                    "{}: worker {worker:?} of {verb:?}: {reason}",
                    path.display()
                )
            };
            let capability = registration.read().map_err(|problems| {
                let told: Vec<String> = problems.iter().map(ToString::to_string).collect();
                fail(&told.join("; "))
            })?;
            terms
                .owns(&capability)
                .map_err(|failure| fail(&failure.message))?;
            let address = Address::parse(&registration.url).map_err(|error| fail(&error))?;
            let endpoint = self
                .known(Source::Configured, &registration.worker_id, &address)
                .unwrap_or_else(|| Arc::new(Endpoint::new(address, None)));
            let source = Source::Configured;
            Ok(Arc::new(terms.entry(
                capability,
                registration,
                source,
                endpoint,
            )))
        });
        // One worker may stand under several capabilities: it has one health.
        entries.collect::<Result<Vec<_>, String>>().map(share)
    }

    /// Asks those workers whether they live whose turn it is.
    fn probe(&self) {
        let now = Instant::now();
        for entry in self.entries() {
            let endpoint = entry.endpoint.clone();
            if endpoint.is_probe_due(now) {
                tokio::spawn(async move { endpoint.probe().await });
            }
        }
    }

    /// A worker's endpoint, if the same source has it at the same address already: its connections, its
    /// health and what its name was found to mean go on.
    fn known(&self, source: Source, worker_id: &str, address: &Address) -> Option<Arc<Endpoint>> {
        let entries = lock(&self.entries);
        let same = entries.iter().find(|entry| {
            entry.source == source
                && entry.worker_id() == worker_id
                && entry.endpoint.address() == address
        });
        same.map(|entry| entry.endpoint.clone())
    }

    /// Takes over what was registered before the last stop, as far as it still may be.
    fn restore(&self) {
        let (Some(kept), Some(terms)) = (&self.kept, &self.terms) else {
            return;
        };
        let now = now_ms();
        for line in kept.load().into_iter().filter(|line| line.expires > now) {
            let worker = line.registration.worker_id.clone();
            match self.restored(terms, line) {
                Ok(entry) => lock(&self.entries).push(Arc::new(entry)),
                Err(reason) => tracing::warn!(worker, "not registered any more: {reason}"),
            }
        }
    }

    fn restored(&self, terms: &Terms, line: Line) -> Result<Entry, String> {
        let told = |failure: Failure| failure.message;
        let capability = line
            .registration
            .read()
            .map_err(|problems| format!("{problems:?}"))?;
        terms.owns(&capability).map_err(told)?;
        let address = Address::parse(&line.registration.url)?;
        let pinned = terms.allowed(&address, &line.pinned).map_err(told)?;
        let worker_id = &line.registration.worker_id;
        let endpoint = self
            .known(Source::Registered, worker_id, &address)
            .unwrap_or_else(|| Arc::new(Endpoint::new(address, Some(pinned))));
        let entry = terms.entry(capability, line.registration, Source::Registered, endpoint);
        entry.expires.store(line.expires, Relaxed);
        Ok(entry)
    }

    /// Writes down what is registered.
    pub async fn save(self: &Arc<Self>) {
        if self.kept.is_none() {
            return;
        }
        let remotes = self.clone();
        let saved = spawn_blocking(move || {
            // One at a time, so that the newest is written last.
            let mut saved = lock(&remotes.saved);
            remotes.dirty.store(false, Relaxed);
            let lines: Vec<Line> = remotes
                .entries()
                .iter()
                .filter(|entry| entry.source == Source::Registered)
                .map(|entry| Line {
                    registration: entry.registration.clone(),
                    pinned: entry.endpoint.pinned().to_vec(),
                    expires: entry.expires.load(Relaxed),
                })
                .collect();
            *saved = Some(Instant::now());
            remotes
                .kept
                .as_ref()
                .map_or(Ok(()), |kept| kept.save(&lines))
        });
        if let Ok(Err(error)) = saved.await {
            tracing::error!("registrations are not kept: {error}");
        }
    }

    fn terms(&self) -> Result<&Terms, Failure> {
        let none = || Failure::new(Code::Denied, "this host takes no remote workers");
        self.terms.as_ref().ok_or_else(none)
    }
}

impl Terms {
    /// Whether the ids that it claims may be a remote worker's.
    fn owns(&self, capability: &Capability) -> Result<(), Failure> {
        let worker_id = &capability.worker_id;
        if self
            .bound
            .iter()
            .any(|bound| bound.worker_id.as_ref() == Some(worker_id))
        {
            let message = format!(
                "worker id {worker_id} belongs to a file of this host: so says the configuration"
            );
            return Err(Failure::new(Code::Conflict, message));
        }
        let Some(id) = &capability.spiffe_id else {
            return Ok(());
        };
        if !id.is_member_of(&self.trust_domain) {
            let message = format!(
                "spiffe_id {id} is outside the trust domain {}",
                self.trust_domain
            );
            return Err(Failure::new(Code::Denied, message));
        }
        if self
            .bound
            .iter()
            .any(|bound| bound.spiffe_id.as_ref() == Some(id))
        {
            let message =
                format!("spiffe_id {id} belongs to a file of this host: so says the configuration");
            return Err(Failure::new(Code::Conflict, message));
        }
        Ok(())
    }

    /// Those of the addresses that the operator allows.
    fn allowed(
        &self,
        address: &Address,
        found: &[std::net::SocketAddr],
    ) -> Result<Vec<std::net::SocketAddr>, Failure> {
        let allowed = within(found, &self.ranges);
        if allowed.is_empty() {
            let message = format!(
                "{} is at no address that the operator allows; remote_addresses in crank.toml names the ranges, such as [\"127.0.0.0/8\", \"::1/128\"]",
                address.url()
            );
            return Err(Failure::new(Code::Denied, message));
        }
        Ok(allowed)
    }

    fn entry(
        &self,
        capability: Capability,
        registration: Registration,
        source: Source,
        endpoint: Arc<Endpoint>,
    ) -> Entry {
        let load = registration.load_score.unwrap_or_default();
        Entry {
            has_schema: registration.schema.is_some(),
            source,
            endpoint,
            limits: self.limits,
            bid: capability.slo_bid.unwrap_or_default().min(self.max_bid),
            load: AtomicU64::new(load.to_bits()),
            expires: AtomicU64::new(u64::MAX),
            capability,
            registration,
        }
    }
}

/// Gives entries of the same worker at the same address the same endpoint.
fn share(entries: Vec<Arc<Entry>>) -> Vec<Arc<Entry>> {
    let mut shared: Vec<Arc<Entry>> = Vec::new();
    for mut entry in entries {
        let same = shared.iter().find(|other| {
            other.worker_id() == entry.worker_id()
                && other.endpoint.address() == entry.endpoint.address()
        });
        if let (Some(same), Some(entry)) = (same, Arc::get_mut(&mut entry)) {
            entry.endpoint = same.endpoint.clone();
        }
        shared.push(entry);
    }
    shared
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

fn stamp(path: &Path) -> Stamp {
    let found = path.metadata().ok()?;
    Some((found.modified().ok()?, found.len()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is held is whole at any line.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
