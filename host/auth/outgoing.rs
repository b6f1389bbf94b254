//! TLS as a client: whom this host believes where it calls another, and what it shows there.
//!
//! A peer proves to be the SPIFFE id that it is registered with, by a certificate that leads to the bundle. One
//! without an id proves its name: by the bundle, or where there is none by the machine's own roots.

use std::sync::atomic::{
    AtomicBool, AtomicU64,
    Ordering::{Relaxed, SeqCst},
};
use std::sync::{Arc, OnceLock};

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{
    ResolvesClientCert, Resumption, WebPkiServerVerifier, verify_server_cert_signed_by_trust_anchor,
};
use rustls::crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::ParsedCertificate;
use rustls::sign::CertifiedKey;
use rustls::{ClientConfig, DigitallySignedStruct, Error, RootCertStore, SignatureScheme};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::leaf;
use super::svid::{no_svid, pair, provider, roots};
use super::watched::{File, Watched};
use crate::config::TlsFiles;
use crate::identity::{SpiffeId, TrustDomain};

/// See the module. The files are followed for as long as somebody looks.
#[derive(Debug)]
pub struct Outgoing {
    pair: Option<Watched<CertifiedKey>>,
    bundle: Option<Watched<RootCertStore>>,
    /// The machine's roots, read when the first name is proven by them.
    machine: OnceLock<Arc<RootCertStore>>,
    domain: TrustDomain,
    revision: AtomicU64,
}

/// A connection to who proved to be whom it was opened for.
pub struct Secured {
    /// The connection.
    pub stream: TlsStream<TcpStream>,
    /// Whether each side has proven itself to the other, the peer by the bundle.
    pub is_mutual: bool,
}

impl Outgoing {
    /// Reads the files, where there are some.
    ///
    /// # Errors
    ///
    /// One cannot be read or understood; the text is for the operator.
    pub fn open(files: Option<&TlsFiles>, domain: &TrustDomain) -> Result<Self, String> {
        let bundle = files
            .and_then(|files| files.bundle.as_ref())
            .map(|file| Watched::open(vec![File::open_to_all(file)], Box::new(roots)));
        Ok(Self {
            pair: files.map(pair).transpose()?,
            bundle: bundle.transpose()?,
            machine: OnceLock::new(),
            domain: domain.clone(),
            revision: AtomicU64::new(0),
        })
    }

    /// Looks at the files once, each on its own.
    pub fn look(&self) {
        let rotated = [
            self.pair.as_ref().is_some_and(Watched::look),
            self.bundle.as_ref().is_some_and(Watched::look),
        ];
        if rotated.contains(&true) {
            self.revision.fetch_add(1, SeqCst);
        }
    }

    /// Another after each rotation: a connection of an earlier one is not to be used again.
    pub fn revision(&self) -> u64 {
        self.revision.load(SeqCst)
    }

    /// Makes a connection secure, or says why its other end is not who it should be.
    ///
    /// # Errors
    ///
    /// The handshake fails; the text is for the log.
    pub async fn connect(
        &self,
        stream: TcpStream,
        host: &str,
        id: Option<&SpiffeId>,
    ) -> Result<Secured, String> {
        let name = ServerName::try_from(host.to_owned())
            .map_err(|_| format!("{host:?} is no name that a certificate can have"))?;
        let shown = Arc::new(Shown {
            pair: self.pair.as_ref().map(Watched::now),
            is_shown: AtomicBool::new(false),
        });
        let mut config = ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(|error| error.to_string())?
            .dangerous()
            .with_custom_certificate_verifier(self.verifier(id)?)
            .with_client_cert_resolver(shown.clone());
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        // A session that is taken up again would verify nobody.
        config.resumption = Resumption::disabled();
        let connector = TlsConnector::from(Arc::new(config));
        let connected = connector.connect(name, stream).await;
        Ok(Secured {
            stream: connected.map_err(|error| told(&error))?,
            is_mutual: self.bundle.is_some() && shown.is_shown.load(Relaxed),
        })
    }

    fn verifier(&self, id: Option<&SpiffeId>) -> Result<Arc<dyn ServerCertVerifier>, String> {
        let bundle = self.bundle.as_ref().map(Watched::now);
        if let Some(id) = id {
            let bundle = bundle.ok_or_else(|| {
                format!("it claims {id}, and only identity.bundle can prove that; set it, or register it without spiffe_id")
            })?;
            return Ok(Arc::new(ById {
                roots: bundle,
                domain: self.domain.clone(),
                id: id.clone(),
                algorithms: provider().signature_verification_algorithms,
            }));
        }
        let roots = bundle.unwrap_or_else(|| self.machine.get_or_init(machine).clone());
        let by_name = WebPkiServerVerifier::builder_with_provider(roots, provider()).build();
        Ok(by_name.map_err(|error| error.to_string())?)
    }
}

/// The roots that this machine believes.
fn machine() -> Arc<RootCertStore> {
    let found = rustls_native_certs::load_native_certs();
    for error in found.errors {
        tracing::warn!("roots of this machine: {error}");
    }
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(found.certs);
    Arc::new(roots)
}

/// rustls tells what is wrong with a certificate in words for programmers; what was found here is told as it is.
fn told(error: &std::io::Error) -> String {
    let tls = error.get_ref();
    match tls.and_then(|inner| inner.downcast_ref::<Error>()) {
        Some(Error::InvalidCertificate(rustls::CertificateError::Other(why))) => why.to_string(),
        _ => error.to_string(),
    }
}

/// What is shown to a peer that asks for it.
#[derive(Debug)]
struct Shown {
    pair: Option<Arc<CertifiedKey>>,
    is_shown: AtomicBool,
}

impl ResolvesClientCert for Shown {
    fn resolve(&self, _: &[&[u8]], _: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let pair = self.pair.clone()?;
        self.is_shown.store(true, Relaxed);
        Some(pair)
    }

    fn has_certs(&self) -> bool {
        self.pair.is_some()
    }
}

/// Takes the X.509-SVID of one id, whatever name it was reached by.
#[derive(Debug)]
struct ById {
    roots: Arc<RootCertStore>,
    domain: TrustDomain,
    id: SpiffeId,
    algorithms: WebPkiSupportedAlgorithms,
}

impl ServerCertVerifier for ById {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(
            &parsed,
            &self.roots,
            intermediates,
            now,
            algorithms,
        )?;
        match leaf::id(end_entity, &self.domain) {
            Ok(id) if id == self.id => Ok(ServerCertVerified::assertion()),
            Ok(id) => Err(no_svid(format!(
                "it is {id}, and registered as {}",
                self.id
            ))),
            Err(reason) => Err(no_svid(reason)),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, certificate, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}
