//! An authority that issues certificates and tokens, a host that trusts it, and clients.

use std::fs::Permissions;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::Arc;

use crank::auth::Auth;
use crank::registry::Registry;
use crank::remote::Remotes;
use crank::router::Router;
use jsonwebtoken::jwk::Jwk;
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode, get_current_timestamp};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, KeyUsagePurpose, SanType,
};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::support::{Host, config, dir, guest, load};

pub const ADA: &str = "spiffe://crank.local/user/ada";
pub const AUDIENCE: &str = "spiffe://crank.local/host/one";

/// A certificate with its key, both PEM.
#[derive(Clone)]
pub struct Leaf {
    pub certificate: String,
    pub key: String,
}

/// Whoever signs certificates.
pub struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let key = KeyPair::generate().expect("a key");
        Self(CertifiedIssuer::self_signed(params, key).expect("a root"))
    }

    pub fn pem(&self) -> String {
        self.0.pem()
    }

    /// An X.509-SVID with these URI names, but for what `tweak` changes.
    pub fn svid(&self, uris: &[&str], tweak: impl FnOnce(&mut CertificateParams)) -> Leaf {
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        let uris = uris.iter().map(|uri| (*uri).try_into().expect("ascii"));
        params.subject_alt_names = uris.map(SanType::URI).collect();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        tweak(&mut params);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.signed_by(&key, &self.0).expect("it is signed");
        Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        }
    }

    /// A host's own certificate: it is `localhost`, and has this id.
    pub fn of_host(&self, uris: &[&str]) -> Leaf {
        let name = "localhost".try_into().expect("ascii");
        self.svid(uris, |params| {
            params.subject_alt_names.push(SanType::DnsName(name));
        })
    }
}

/// Whoever signs tokens.
pub struct Issuer {
    pub kid: &'static str,
    key: EncodingKey,
}

impl Issuer {
    pub fn new(kid: &'static str) -> Self {
        let key = KeyPair::generate().expect("a key");
        let key = EncodingKey::from_ec_der(&key.serialize_der());
        Self { kid, key }
    }

    /// Its public key, as an entry of a SPIFFE bundle.
    pub fn jwk(&self) -> Value {
        let jwk = Jwk::from_encoding_key(&self.key, Algorithm::ES256).expect("a public key");
        let mut jwk = serde_json::to_value(jwk).expect("JSON");
        jwk["use"] = json!("jwt-svid");
        jwk["kid"] = json!(self.kid);
        jwk
    }

    pub fn sign(&self, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::ES256);
        header.kid = Some(self.kid.to_owned());
        encode(&header, claims, &self.key).expect("a token")
    }

    /// A token for a host, for so many seconds.
    pub fn token(&self, audience: &str, seconds: i64) -> String {
        self.sign(&json!({ "sub": ADA, "aud": [audience], "exp": ends(seconds) }))
    }
}

/// So many seconds from now.
pub fn ends(seconds: i64) -> u64 {
    get_current_timestamp().saturating_add_signed(seconds)
}

/// A host that asks who calls, with the files that say whose credentials hold.
pub struct Asking {
    pub host: Host,
    pub router: Arc<Router>,
    pub auth: Arc<Auth>,
    pub dir: TempDir,
}

impl Asking {
    /// Serves relay and hello-world. `keys` are lines of `[identity]`; files are named by [`file`].
    pub async fn start(dir: TempDir, keys: &str) -> Self {
        let toml = format!(
            "[workers.relay]\nspiffe_id = \"spiffe://crank.local/worker/relay\"\n[workers.hello-world]\nspiffe_id = \"spiffe://crank.local/worker/hello-world\"\n[identity]\n{keys}\n"
        );
        Self::serve(dir, &toml, &["relay", "hello-world"]).await
    }

    /// Serves these guests, and whoever is registered.
    pub async fn serve(dir: TempDir, toml: &str, guests: &[&str]) -> Self {
        let config = config(toml);
        let auth = Auth::open(&config).expect("the files are whole");
        let auth = auth.expect("identity is configured");
        let guests = guests.iter().map(|name| guest(name)).collect();
        let loaded = load(guests, toml).await;
        assert!(loaded.refused().is_empty(), "{:?}", loaded.refused());
        let remotes = Remotes::open(&config).expect("the files are whole");
        let router = Arc::new(Router::new(Registry::new(loaded).joined_by(remotes)));
        let host = Host::of(router.clone(), |settings| {
            settings.identified = true;
            settings.auth = Some(auth.clone());
        });
        Self {
            host: host.await,
            router,
            auth,
            dir,
        }
    }

    /// Speaks TLS, and takes certificates that lead to `authority`.
    pub async fn by_certificate(authority: &Authority, more: &str) -> Self {
        let dir = dir();
        let keys = own(&dir, authority, &authority.of_host(&[]));
        Self::start(dir, &format!("{keys}{more}")).await
    }

    /// Replaces a file, as a rotation does.
    pub fn rotate(&self, name: &str, content: &str) {
        std::fs::write(path(&self.dir, name), content).expect("a file");
        self.auth.look();
    }

    /// What `relay:who` is told of who calls with this token.
    pub async fn who(&self, token: &str) -> (u16, Value, Option<String>) {
        let sent = self.host.client.post(self.host.url("/invoke/relay/who"));
        let sent = sent.bearer_auth(token).json(&Value::Null).send().await;
        let answered = sent.expect("it answers");
        let challenge = answered.headers().get("www-authenticate");
        let challenge = challenge.map(|value| value.to_str().expect("ascii").to_owned());
        let status = answered.status().as_u16();
        (status, answered.json().await.expect("JSON"), challenge)
    }
}

/// Writes a host's own certificate and its bundle, and names them in lines of `[identity]`.
pub fn own(dir: &TempDir, authority: &Authority, leaf: &Leaf) -> String {
    let lines = [
        file(dir, "certificate", &leaf.certificate),
        file(dir, "key", &leaf.key),
        file(dir, "bundle", &authority.pem()),
    ];
    lines.concat()
}

/// Writes a file and names it in a line of `[identity]`.
pub fn file(dir: &TempDir, key: &str, content: &str) -> String {
    std::fs::write(path(dir, key), content).expect("a file");
    permit(dir, key, 0o600);
    format!("{key} = {:?}\n", path(dir, key))
}

/// Says who may do what with a file.
pub fn permit(dir: &TempDir, name: &str, mode: u32) {
    let mode = Permissions::from_mode(mode);
    std::fs::set_permissions(path(dir, name), mode).expect("it is ours");
}

fn path(dir: &TempDir, name: &str) -> PathBuf {
    dir.path().join(name)
}

/// A TLS connection to a host, perhaps with a certificate.
pub struct Client(TlsStream<TcpStream>);

impl Client {
    pub async fn connect(
        host: &Host,
        authority: &Authority,
        own: Option<&Leaf>,
    ) -> io::Result<Self> {
        let mut roots = RootCertStore::empty();
        let root = CertificateDer::from_pem_slice(authority.pem().as_bytes()).expect("PEM");
        roots.add(root).expect("a root");
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_root_certificates(roots);
        let config = match own {
            Some(own) => {
                let chain = CertificateDer::pem_slice_iter(own.certificate.as_bytes());
                let chain = chain.map(|der| der.expect("PEM")).collect();
                let key = PrivateKeyDer::from_pem_slice(own.key.as_bytes()).expect("PEM");
                builder.with_client_auth_cert(chain, key).expect("a pair")
            }
            None => builder.with_no_client_auth(),
        };
        let stream = TcpStream::connect(host.addr).await?;
        let name = ServerName::try_from("localhost").expect("a name");
        let connector = TlsConnector::from(Arc::new(config));
        Ok(Self(connector.connect(name, stream).await?))
    }

    /// Asks `relay:who` and reads status, headers and body.
    pub async fn who(&mut self, headers: &str) -> io::Result<String> {
        self.post("/invoke/relay/who", headers, "null").await
    }

    /// Sends JSON and reads status, headers and body.
    pub async fn post(&mut self, path: &str, headers: &str, body: &str) -> io::Result<String> {
        let length = body.len();
        let request = format!(
            "POST {path} HTTP/1.1\r\nhost: localhost\r\n{headers}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}"
        );
        self.0.write_all(request.as_bytes()).await?;
        let mut answer = Vec::new();
        loop {
            if self.0.read_buf(&mut answer).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
            let text = String::from_utf8_lossy(&answer).into_owned();
            if let Some((head, body)) = text.split_once("\r\n\r\n") {
                let length = head
                    .lines()
                    .find_map(|line| line.strip_prefix("content-length: "));
                if Some(body.len()) == length.and_then(|length| length.parse().ok()) {
                    return Ok(text);
                }
            }
        }
    }
}

/// What becomes of one call over a connection of its own: the answer, or the alert.
pub async fn ask(host: &Host, authority: &Authority, own: Option<&Leaf>, headers: &str) -> String {
    let asked = async {
        let mut client = Client::connect(host, authority, own).await?;
        client.who(headers).await
    };
    asked.await.unwrap_or_else(|error| error.to_string())
}
