//! JWT-SVIDs: bearer tokens that an issuer of the trust domain signed for this host.
//!
//! Source of the rules: the JWT-SVID specification
//! (<https://github.com/spiffe/spiffe/blob/main/standards/JWT-SVID.md>); keys come as a SPIFFE bundle or another JWK set.

use std::collections::HashMap;
use std::path::Path;
use std::sync::{Arc, Mutex, PoisonError};

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode, decode_header};
use serde::Deserialize;
use serde_json::Value;

use super::watched::{File, Watched};
use crate::identity::{Caller, Proof, SpiffeId, TrustDomain};

/// Seconds that the clocks of issuer and host may differ.
const LEEWAY: u64 = 5;
/// Tokens whose check is remembered.
const REMEMBERED: usize = 4096;
/// Keys that a set may have.
const MAX_KEYS: usize = 256;

/// The keys that hold, and the tokens that they have proven.
pub(super) struct Jwts {
    keys: HashMap<String, Key>,
    audience: Vec<String>,
    domain: TrustDomain,
    /// By the token's hash, with the second after which it no longer holds. It goes with the keys.
    proven: Mutex<HashMap<blake3::Hash, (u64, Arc<Caller>)>>,
}

struct Key {
    key: DecodingKey,
    algorithms: Vec<Algorithm>,
}

#[derive(Deserialize)]
struct Claims {
    sub: String,
    exp: u64,
}

pub(super) fn watch(
    file: &Path,
    audience: Vec<String>,
    domain: &TrustDomain,
) -> Result<Watched<Jwts>, String> {
    let domain = domain.clone();
    let read = move |contents: &[Vec<u8>]| {
        let text = contents.first().map(Vec::as_slice).unwrap_or_default();
        Ok(Jwts {
            keys: keys(text)?,
            audience: audience.clone(),
            domain: domain.clone(),
            proven: Mutex::default(),
        })
    };
    Watched::open(vec![File::open_to_all(file)], Box::new(read))
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<Value>,
}

/// The keys for tokens. Those for certificates, and kinds that the specification does not know, are passed over,
/// as it wants.
fn keys(text: &[u8]) -> Result<HashMap<String, Key>, String> {
    let set: Set = serde_json::from_slice(text).map_err(|error| format!("no JWK set: {error}"))?;
    if set.keys.len() > MAX_KEYS {
        return Err(format!("has more than {MAX_KEYS} keys"));
    }
    let mut keys = HashMap::new();
    for (at, entry) in set.keys.into_iter().enumerate() {
        let text = |name: &str| entry.get(name).and_then(Value::as_str);
        let for_tokens = matches!(text("use"), None | Some("jwt-svid" | "sig"));
        if !for_tokens || !matches!(text("kty"), Some("RSA" | "EC")) {
            continue;
        }
        let kid = text("kid").filter(|kid| !kid.is_empty()).map(str::to_owned);
        let kid = kid.ok_or_else(|| format!("keys[{at}] has no kid"))?;
        let wrong = |error: jsonwebtoken::errors::Error| format!("the key {kid:?}: {error}");
        let jwk: Jwk = serde_json::from_value(entry.clone())
            .map_err(|error| format!("the key {kid:?}: {error}"))?;
        let algorithms = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => RSA.to_vec(),
            AlgorithmParameters::EllipticCurve(key) => match key.curve {
                EllipticCurve::P256 => vec![Algorithm::ES256],
                EllipticCurve::P384 => vec![Algorithm::ES384],
                _ => continue,
            },
            _ => continue,
        };
        let said = jwk.common.key_algorithm.map(|said| said.to_string());
        let algorithms: Vec<Algorithm> = algorithms
            .into_iter()
            .filter(|known| {
                said.as_ref()
                    .is_none_or(|said| format!("{known:?}") == *said)
            })
            .collect();
        let key = DecodingKey::from_jwk(&jwk).map_err(wrong)?;
        if keys.insert(kid.clone(), Key { key, algorithms }).is_some() {
            return Err(format!("two keys have the kid {kid:?}"));
        }
    }
    if keys.is_empty() {
        tracing::warn!("no key of the JWK set is for tokens: none is accepted");
    }
    Ok(keys)
}

const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

impl Jwts {
    /// Whom a token names. One that was checked is checked no more until it ends, or the keys change.
    pub fn caller(&self, token: &str) -> Result<Arc<Caller>, String> {
        let hash = blake3::hash(token.as_bytes());
        let now = super::now();
        if let Some(caller) = self.remembered(&hash, now) {
            return Ok(caller);
        }
        let (ends, caller) = self.check(token)?;
        let caller = Arc::new(caller);
        let mut proven = self.proven();
        if proven.len() >= REMEMBERED {
            proven.retain(|_, (ends, _)| now <= *ends);
        }
        if proven.len() >= REMEMBERED {
            proven.clear();
        }
        proven.insert(hash, (ends, caller.clone()));
        Ok(caller)
    }

    /// Whether a token was checked, and has not ended.
    pub fn remembers(&self, token: &str) -> bool {
        let hash = blake3::hash(token.as_bytes());
        self.remembered(&hash, super::now()).is_some()
    }

    fn remembered(&self, hash: &blake3::Hash, now: u64) -> Option<Arc<Caller>> {
        let proven = self.proven();
        let (_, caller) = proven.get(hash).filter(|(ends, _)| now <= *ends)?;
        Some(caller.clone())
    }

    fn check(&self, token: &str) -> Result<(u64, Caller), String> {
        let header = decode_header(token).map_err(|error| error.to_string())?;
        if !matches!(header.typ.as_deref(), None | Some("JWT" | "JOSE")) {
            return Err("the token's typ is none of a JWT-SVID".to_owned());
        }
        // An extension that must be understood is not.
        if header.crit.is_some() {
            return Err("the token's head has critical extensions".to_owned());
        }
        let kid = header.kid.ok_or("the token names no key")?;
        let Some(Key { key, algorithms }) = self.keys.get(&kid) else {
            // `{:?}` takes no width: a stranger says how long it is.
            let kid: String = kid.chars().take(64).collect();
            return Err(format!("the key {kid:?} is unknown"));
        };
        if !algorithms.contains(&header.alg) {
            return Err(format!(
                "{:?} is no algorithm of the key {kid:?}",
                header.alg
            ));
        }
        let mut validation = Validation::new(header.alg);
        validation.leeway = LEEWAY;
        validation.validate_nbf = true;
        validation.set_audience(&self.audience);
        validation.set_required_spec_claims(&["exp", "aud", "sub"]);
        let claims = decode::<Claims>(token, key, &validation)
            .map_err(|error| error.to_string())?
            .claims;
        let id = SpiffeId::parse(&claims.sub).map_err(|error| error.to_string())?;
        if !id.is_member_of(&self.domain) {
            return Err(format!(
                "{id} is outside of the trust domain {}",
                self.domain
            ));
        }
        let proof = Proof::Jwt;
        Ok((claims.exp.saturating_add(LEEWAY), Caller::new(id, proof)))
    }

    fn proven(&self) -> std::sync::MutexGuard<'_, HashMap<blake3::Hash, (u64, Arc<Caller>)>> {
        // Each change is one call of the map's own.
        self.proven.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
