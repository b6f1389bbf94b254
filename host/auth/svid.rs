//! TLS: the host's own certificate, and X.509-SVIDs that callers show.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use arc_swap::ArcSwap;
use rustls::client::danger::HandshakeSignatureValid;
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore,
    ServerConfig, SignatureScheme,
};

use super::leaf;
use super::watched::{File, Watched};
use crate::config::TlsFiles;
use crate::identity::{Caller, Proof, TrustDomain};

/// How the host speaks TLS: its own certificate, and the bundle that callers' certificates lead to.
#[derive(Debug)]
pub(super) struct Tls {
    pair: Watched<CertifiedKey>,
    bundle: Option<Watched<Verifier>>,
    /// What connections are greeted with, until the next rotation.
    server: ArcSwap<ServerConfig>,
}

impl Tls {
    /// Reads the files. `optional`: a caller may show a token and no certificate.
    pub fn open(files: &TlsFiles, domain: &TrustDomain, optional: bool) -> Result<Self, String> {
        let pair = pair(files)?;
        let bundle = files.bundle.as_ref().map(|file| {
            let domain = domain.clone();
            let revisions = AtomicU64::new(1);
            let read = move |contents: &[Vec<u8>]| {
                let revision = revisions.fetch_add(1, Relaxed);
                Verifier::new(roots(contents)?, &domain, optional, revision)
            };
            Watched::open(vec![File::open_to_all(file)], Box::new(read))
        });
        let bundle = bundle.transpose()?;
        let server = server(pair.now(), bundle.as_ref().map(Watched::now))?;
        Ok(Self {
            pair,
            bundle,
            server: ArcSwap::from_pointee(server),
        })
    }

    /// Looks at the files, each on its own: an authority that left the bundle is out also while the host's own
    /// certificate cannot be read.
    pub fn look(&self) {
        let rotated = [
            self.pair.look(),
            self.bundle.as_ref().is_some_and(Watched::look),
        ];
        if !rotated.contains(&true) {
            return;
        }
        match server(self.pair.now(), self.verifier()) {
            Ok(server) => self.server.store(Arc::new(server)),
            Err(error) => tracing::error!("connections are greeted as before: {error}"),
        }
    }

    /// What a new connection is greeted with.
    pub fn server(&self) -> Arc<ServerConfig> {
        self.server.load_full()
    }

    fn verifier(&self) -> Option<Arc<Verifier>> {
        self.bundle.as_ref().map(Watched::now)
    }
}

/// The host's own certificate and its key, followed.
pub(super) fn pair(files: &TlsFiles) -> Result<Watched<CertifiedKey>, String> {
    let read = |contents: &[Vec<u8>]| {
        let [certificate, key] = contents else {
            return Err("a certificate and a key are needed".to_owned());
        };
        let chain = certificates(certificate, "the certificate's file")?;
        let key =
            PrivateKeyDer::from_pem_slice(key).map_err(|error| format!("the key: {error}"))?;
        CertifiedKey::from_der(chain, key, &provider()).map_err(|error| error.to_string())
    };
    let files = vec![
        File::open_to_all(&files.certificate),
        File::secret(&files.key),
    ];
    Watched::open(files, Box::new(read))
}

/// The roots that a bundle's file names.
pub(super) fn roots(contents: &[Vec<u8>]) -> Result<RootCertStore, String> {
    let bundle = contents.first().map(Vec::as_slice).unwrap_or_default();
    let mut roots = RootCertStore::empty();
    for certificate in certificates(bundle, "the bundle")? {
        let added = roots.add(certificate);
        added.map_err(|error| format!("the bundle: {error}"))?;
    }
    Ok(roots)
}

pub(super) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn server(
    pair: Arc<CertifiedKey>,
    verifier: Option<Arc<Verifier>>,
) -> Result<ServerConfig, String> {
    let builder = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?;
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut server = builder.with_cert_resolver(Arc::new(SingleCertAndKey::from(pair)));
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    // A session that is taken up again would bring along a certificate that nobody verifies.
    server.session_storage = Arc::new(NoServerSessionStorage {});
    server.send_tls13_tickets = 0;
    Ok(server)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, String> {
    let read = CertificateDer::pem_slice_iter(pem).collect::<Result<Vec<_>, _>>();
    match read.map_err(|error| format!("{what}: {error}"))? {
        none if none.is_empty() => Err(format!("{what} has no certificate (PEM)")),
        some => Ok(some),
    }
}

/// Verifies chains as webpki does, and that what they end in is an X.509-SVID of the trust domain.
#[derive(Debug)]
pub(super) struct Verifier {
    chains: Arc<dyn ClientCertVerifier>,
    domain: TrustDomain,
    /// Unlike for every rotation.
    revision: u64,
}

impl Verifier {
    fn new(
        roots: RootCertStore,
        domain: &TrustDomain,
        optional: bool,
        revision: u64,
    ) -> Result<Self, String> {
        let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider());
        let builder = match optional {
            true => builder.allow_unauthenticated(),
            false => builder,
        };
        let chains = builder
            .build()
            .map_err(|error| format!("the bundle: {error}"))?;
        Ok(Self {
            chains,
            domain: domain.clone(),
            revision,
        })
    }

    /// Whom a chain names, now.
    fn caller(&self, chain: &[CertificateDer<'_>]) -> Result<Caller, Error> {
        let (leaf, between) = chain.split_first().ok_or(Error::NoCertificatesPresented)?;
        self.chains
            .verify_client_cert(leaf, between, UnixTime::now())?;
        let id = leaf::id(leaf, &self.domain).map_err(no_svid)?;
        let proof = Proof::Certificate;
        Ok(Caller::new(id, proof))
    }
}

pub(super) fn no_svid(reason: String) -> Error {
    let reason = OtherError(Arc::from(Box::<dyn std::error::Error + Send + Sync>::from(
        reason,
    )));
    CertificateError::Other(reason).into()
}

impl ClientCertVerifier for Verifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chains.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chains.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self
            .chains
            .verify_client_cert(end_entity, intermediates, now)?;
        leaf::id(end_entity, &self.domain).map_err(no_svid)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chains
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chains.supported_verify_schemes()
    }
}

/// The certificates that an open connection began with.
#[derive(Debug)]
pub struct Peer {
    chain: Vec<CertificateDer<'static>>,
    /// Who it was when it was verified last: in which second, under which revision.
    known: std::sync::Mutex<Option<(u64, u64, Arc<Caller>)>>,
}

impl Peer {
    /// Of a handshake that has succeeded.
    pub fn new(chain: &[CertificateDer<'_>]) -> Self {
        Self {
            chain: chain.iter().map(|der| der.clone().into_owned()).collect(),
            known: std::sync::Mutex::default(),
        }
    }

    /// Who it is now. A connection may outlive its certificate, and the bundle that it was verified with: so the
    /// chain is verified again, once in a second at most.
    pub(super) fn caller(&self, tls: &Tls) -> Result<Arc<Caller>, String> {
        let now = super::now();
        let mut known = self
            .known
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let verifier = tls.verifier();
        let verifier = verifier.ok_or("certificates are no longer taken")?;
        if let Some((second, revision, caller)) = &*known
            && (*second, *revision) == (now, verifier.revision)
        {
            return Ok(caller.clone());
        }
        let caller = verifier.caller(&self.chain);
        let caller = Arc::new(caller.map_err(|error| error.to_string())?);
        *known = Some((now, verifier.revision, caller.clone()));
        Ok(caller)
    }
}
