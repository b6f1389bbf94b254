//! The section `[identity]`: how callers prove who they are.

use std::net::SocketAddr;
use std::path::PathBuf;

use super::reader::Reader;
use crate::capability::Name;
use crate::identity::{SpiffeId, TrustDomain};

/// The section `[identity]`.
#[derive(Clone, Debug, Default)]
pub struct IdentitySettings {
    /// Where the host speaks TLS: its own certificate, and whose certificates it takes.
    pub tls: Option<TlsFiles>,
    /// JWK set of the keys that sign JWT-SVIDs.
    pub jwks: Option<PathBuf>,
    /// What the `aud` of a JWT-SVID may name this host by. Not empty where there is `jwks`.
    pub audience: Vec<String>,
    /// Hashes of local tokens, with whose they are.
    pub tokens: Option<PathBuf>,
    /// Who may say where remote workers are, and of which capabilities.
    pub registrars: Vec<Registrar>,
    /// Who may reload the host, and read what tells of all its callers. None: nobody.
    pub operators: Vec<SpiffeId>,
    /// Hosts that are believed when they say for whom they forward a call. None: nobody is.
    pub forwarders: Vec<SpiffeId>,
    /// Whether `GET /metrics` is answered without credentials.
    pub open_metrics: bool,
    /// In whose name calls over standard input and output are made.
    pub local: Option<SpiffeId>,
}

/// Who may say where remote workers are: `spiffe://crank.local/host/two greet classify:email_spam`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Registrar {
    /// Who that is.
    pub id: SpiffeId,
    /// Verbs, and capabilities as `verb:name`, that they may offer. None: all.
    pub offers: Vec<String>,
}

impl Registrar {
    /// Reads an entry of `identity.registrars`: an id, and what it may offer, with spaces between.
    ///
    /// # Errors
    ///
    /// It is none; the text is for the operator.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut words = text.split_ascii_whitespace();
        let id = SpiffeId::parse(words.next().unwrap_or_default());
        let id = id.map_err(|error| format!("{text:?}: {error}"))?;
        let offers = words.map(|word| {
            let (verb, name) = word.split_once(':').unwrap_or((word, word));
            match (Name::parse(verb), Name::parse(name)) {
                (Ok(_), Ok(_)) => Ok(word.to_owned()),
                _ => Err(format!("{word:?} is no verb and no verb:name")),
            }
        });
        let offers = offers.collect::<Result<_, _>>()?;
        Ok(Self { id, offers })
    }

    /// Whether they may offer a capability, `verb:name`.
    pub fn may_offer(&self, capability: &str) -> bool {
        let verb = capability.split(':').next().unwrap_or_default();
        let is = |offer: &String| offer == verb || offer == capability;
        self.offers.is_empty() || self.offers.iter().any(is)
    }
}

/// PEM files, followed while they rotate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The host's certificate, and those between it and its root.
    pub certificate: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The certificates that callers' certificates must lead to. None: callers show none.
    pub bundle: Option<PathBuf>,
}

impl IdentitySettings {
    /// Whether callers must prove who they are.
    pub fn is_required(&self) -> bool {
        self.takes_certificates() || self.takes_tokens()
    }

    /// Whether a certificate proves who calls.
    pub fn takes_certificates(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.bundle.is_some())
    }

    /// Whether a token proves who calls.
    pub fn takes_tokens(&self) -> bool {
        self.jwks.is_some() || self.tokens.is_some()
    }

    pub(super) fn read(reader: &mut Reader, domain: Option<&TrustDomain>) -> Option<Self> {
        let path =
            |reader: &mut Reader, key: &str| reader.optional(key, |reader, key| reader.path(key));
        let certificate = path(reader, "identity.certificate");
        let key = path(reader, "identity.key");
        let bundle = path(reader, "identity.bundle");
        let jwks = path(reader, "identity.jwks");
        let audience = reader.list("identity.audience", audience);
        let tokens = path(reader, "identity.tokens");
        let member = |text: &str| {
            let id = SpiffeId::parse(text).map_err(|error| format!("{text:?}: {error}"))?;
            match domain {
                Some(domain) if !id.is_member_of(domain) => {
                    Err(format!("{id} is outside of the trust domain {domain}"))
                }
                _ => Ok(id),
            }
        };
        let registrars = reader.list("identity.registrars", |text| {
            member(Registrar::parse(text)?.id.as_str()).map(|_| text.to_owned())
        });
        let mut ids = |key| reader.list(key, |text| member(text).map(|id| id.to_string()));
        let operators = ids("identity.operators");
        let forwarders = ids("identity.forwarders");
        let open_metrics = reader.boolean("identity.open_metrics");
        let local = reader.optional("identity.local", |reader, key| reader.text(key, member));
        let (certificate, key, bundle) = (certificate?, key?, bundle?);
        let tls = match (certificate, key) {
            (Some(certificate), Some(key)) => Some(TlsFiles {
                certificate,
                key,
                bundle,
            }),
            (None, None) if bundle.is_none() => None,
            _ => {
                let message =
                    "goes with identity.key, and identity.bundle with both: name them all";
                reader.problem("identity.certificate", message);
                return None;
            }
        };
        let forwarders = parsed(&forwarders?);
        let has_bundle = tls.as_ref().is_some_and(|tls| tls.bundle.is_some());
        if !forwarders.is_empty() && !has_bundle {
            let message =
                "goes with identity.bundle: a host proves by its certificate that it may forward";
            reader.problem("identity.forwarders", message);
            return None;
        }
        let (jwks, audience) = (jwks?, audience?);
        if jwks.is_some() == audience.is_empty() {
            let message = "goes with identity.audience: a token that names no audience here could be meant for anyone";
            reader.problem("identity.jwks", message);
            return None;
        }
        Some(Self {
            tls,
            jwks,
            audience,
            tokens: tokens?,
            registrars: registrars?
                .iter()
                .filter_map(|text| Registrar::parse(text).ok())
                .collect(),
            operators: parsed(&operators?),
            forwarders,
            open_metrics: open_metrics?,
            local: local?,
        })
    }

    /// Whether the host may be reached from other machines.
    pub(super) fn check_listen(&self, reader: &mut Reader, listen: SocketAddr) {
        if listen.ip().is_loopback() {
            return;
        }
        let port = listen.port();
        if !self.is_required() {
            // Anybody who reaches the port could call every worker in anybody's name.
            reader.problem("listen", format!(
                "{listen} can be reached from other machines, and this host has no identities to tell callers apart; set [identity], or use a loopback address such as 127.0.0.1:{port}"
            ));
        } else if self.tls.is_none() {
            reader.problem("listen", format!(
                "{listen} can be reached from other machines, and tokens that travel without TLS are anyone's; set identity.certificate and identity.key, or use a loopback address such as 127.0.0.1:{port}"
            ));
        }
    }
}

/// Each was read as one already.
fn parsed(ids: &[String]) -> Vec<SpiffeId> {
    let ids = ids.iter();
    ids.filter_map(|id| SpiffeId::parse(id).ok()).collect()
}

/// What a token calls this host by: mostly its SPIFFE id.
fn audience(text: &str) -> Result<String, String> {
    match (1..=255).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic()) {
        true => Ok(text.to_owned()),
        false => Err("must be 1 to 255 visible ascii characters".to_owned()),
    }
}
