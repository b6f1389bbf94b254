//! Who calls: certificates, tokens, and the files that say whose they are. And who is called, over TLS.
//!
//! The files are followed while the host serves: what is taken out of one no longer opens anything. A file that
//! cannot be read or understood leaves what held before, and the log says so. Which caller may do what must not
//! enter this room, and HTTP only as the value of one header.

mod jwt;
mod leaf;
mod local;
mod outgoing;
mod svid;
mod watched;

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::TlsAcceptor;

use crate::config::{Config, Registrar};
use crate::identity::{Caller, Proof, SpiffeId, TrustDomain};

use jwt::Jwts;
use local::Tokens;
pub use local::{fresh, line};
pub use outgoing::{Outgoing, Secured};
pub use svid::Peer;
use svid::Tls;
use watched::Watched;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(1);
/// Longest token, in bytes. Heads of requests have 16 KiB.
const MAX_TOKEN: usize = 8 << 10;

/// All that proves who calls.
#[derive(Debug)]
pub struct Auth {
    tls: Option<Tls>,
    jwts: Option<Watched<Jwts>>,
    tokens: Option<Watched<Tokens>>,
    registrars: Vec<Registrar>,
    operators: Vec<SpiffeId>,
    forwarders: Vec<SpiffeId>,
    domain: TrustDomain,
    takes_certificates: bool,
}

/// Why nobody knows who calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unknown {
    /// There are no credentials.
    Missing,
    /// There are some that do not hold. The reason is for the log alone: it would help whoever forges.
    Invalid(String),
}

impl Auth {
    /// Reads what the configuration names. None: callers need prove nothing, and the host speaks no TLS.
    ///
    /// # Errors
    ///
    /// A file cannot be read or understood; the text is for the operator.
    pub fn open(config: &Config) -> Result<Option<Arc<Self>>, String> {
        let settings = &config.identity;
        if settings.tls.is_none() && !settings.is_required() {
            return Ok(None);
        }
        if settings.is_required() && settings.operators.is_empty() {
            tracing::warn!(
                "identity.operators names nobody: nobody may reload, or read /workers, /slo, /costs and /metrics"
            );
        }
        let tls = settings.tls.as_ref().map(|files| {
            let optional = settings.takes_tokens();
            Tls::open(files, &config.trust_domain, optional)
        });
        let jwts = settings
            .jwks
            .as_ref()
            .map(|file| jwt::watch(file, settings.audience.clone(), &config.trust_domain));
        let tokens = settings.tokens.as_ref();
        let tokens = tokens.map(|file| local::watch(file, &config.trust_domain));
        Ok(Some(Arc::new(Self {
            tls: tls.transpose()?,
            jwts: jwts.transpose()?,
            tokens: tokens.transpose()?,
            registrars: settings.registrars.clone(),
            operators: settings.operators.clone(),
            forwarders: settings.forwarders.clone(),
            domain: config.trust_domain.clone(),
            takes_certificates: settings.takes_certificates(),
        })))
    }

    /// Looks at the files once. What has changed and can be read holds from now on.
    pub fn look(&self) {
        if let Some(tls) = &self.tls {
            tls.look();
        }
        if let Some(jwts) = &self.jwts {
            jwts.look();
        }
        if let Some(tokens) = &self.tokens {
            tokens.look();
        }
    }

    /// Looks at the files for as long as it is polled.
    pub async fn follow(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let auth = self.clone();
            // Only a panic is an error here, and that was printed.
            let _ = tokio::task::spawn_blocking(move || auth.look()).await;
        }
    }

    /// What a new connection is greeted with, where the host speaks TLS.
    pub fn acceptor(&self) -> Option<TlsAcceptor> {
        let tls = self.tls.as_ref()?;
        Some(TlsAcceptor::from(tls.server()))
    }

    /// Whether callers must prove who they are.
    pub fn is_required(&self) -> bool {
        self.takes_certificates || self.takes_tokens()
    }

    /// As what this caller may say where remote workers are, if they may.
    pub fn registrar(&self, caller: &Caller) -> Option<&Registrar> {
        let mut registrars = self.registrars.iter();
        registrars.find(|registrar| registrar.id == caller.id)
    }

    /// Whether this caller may see and do what concerns the whole host. Where nobody is named, nobody may.
    pub fn may_operate(&self, caller: &Caller) -> bool {
        self.operators.contains(&caller.id)
    }

    /// Whether this caller's word counts on whom it calls for. A token may have leaked, so a certificate it has to be.
    pub fn may_forward(&self, caller: &Caller) -> bool {
        caller.proof == Proof::Certificate && self.forwarders.contains(&caller.id)
    }

    /// An id of the trust domain, as a forwarder names it.
    ///
    /// # Errors
    ///
    /// It is none.
    pub fn member(&self, text: &str) -> Result<SpiffeId, String> {
        let id = SpiffeId::parse(text).map_err(|error| error.to_string())?;
        match id.is_member_of(&self.domain) {
            true => Ok(id),
            false => Err(format!(
                "{id} is outside of the trust domain {}",
                self.domain
            )),
        }
    }

    /// Who calls: whom the token names where there is one, else the certificate's owner. Both must hold.
    ///
    /// # Errors
    ///
    /// Nobody knows.
    pub fn caller(
        &self,
        peer: Option<&Peer>,
        authorization: Option<&[u8]>,
    ) -> Result<Arc<Caller>, Unknown> {
        let certified = match (peer, &self.tls) {
            (Some(peer), Some(tls)) => Some(peer.caller(tls).map_err(Unknown::Invalid)?),
            _ => None,
        };
        match authorization {
            Some(header) => self.bearer(header),
            None => certified.ok_or(Unknown::Missing),
        }
    }

    /// Whether a look tells what these credentials are worth. To verify a signature takes a hundred times as long.
    pub fn is_quick(&self, authorization: Option<&[u8]>) -> bool {
        match (authorization.map(token), &self.jwts) {
            (Some(Ok(token)), Some(jwts)) => local::is_local(token) || jwts.now().remembers(token),
            _ => true,
        }
    }

    fn bearer(&self, header: &[u8]) -> Result<Arc<Caller>, Unknown> {
        let token = token(header)?;
        let invalid = |reason: &str| Unknown::Invalid(reason.to_owned());
        let known = if local::is_local(token) {
            let tokens = self.tokens.as_ref();
            let tokens = tokens.ok_or_else(|| invalid("no local tokens are configured"))?;
            tokens.now().caller(token)
        } else {
            let jwts = self.jwts.as_ref();
            let jwts = jwts.ok_or_else(|| invalid("no JWT-SVIDs are configured"))?;
            jwts.now().caller(token)
        };
        known.map_err(Unknown::Invalid)
    }

    fn takes_tokens(&self) -> bool {
        self.jwts.is_some() || self.tokens.is_some()
    }
}

/// The token of a header.
fn token(header: &[u8]) -> Result<&str, Unknown> {
    let invalid = |reason: &str| Unknown::Invalid(reason.to_owned());
    let text = std::str::from_utf8(header).map_err(|_| invalid("authorization is no ascii"))?;
    let token = match text.split_once(' ') {
        Some((scheme, token)) if scheme.eq_ignore_ascii_case("bearer") => token.trim(),
        _ => return Err(invalid("authorization has another scheme than Bearer")),
    };
    match token.len() > MAX_TOKEN {
        true => Err(invalid("the token is too long")),
        false => Ok(token),
    }
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.unwrap_or_default().as_secs()
}
