//! Local tokens: secrets that this host's operator hands out, kept as hashes.
//!
//! A line of the file is a hash and a SPIFFE id. A token has 256 random bits, so its hash cannot be turned back by
//! trying, however fast it is: what slows the hashing of passwords would only slow the host.

use std::path::Path;
use std::sync::Arc;

use base64::Engine;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;

use super::watched::{File, Watched};
use crate::identity::{Caller, Proof, SpiffeId, TrustDomain};

/// What a token begins with, so that scanners for lost secrets know it.
const PREFIX: &str = "crank_";
/// Tokens that a file may have: each is compared with each.
const MAX_TOKENS: usize = 1000;

/// The tokens that hold.
pub(super) struct Tokens(Vec<(blake3::Hash, Arc<Caller>)>);

pub(super) fn watch(file: &Path, domain: &TrustDomain) -> Result<Watched<Tokens>, String> {
    let domain = domain.clone();
    let read = move |contents: &[Vec<u8>]| {
        let text = contents.first().map(Vec::as_slice).unwrap_or_default();
        let text = std::str::from_utf8(text).map_err(|_| "is no text".to_owned())?;
        Tokens::read(text, &domain)
    };
    Watched::open(vec![File::secret(file)], Box::new(read))
}

/// Whether a bearer token is one of ours, by its look.
pub(super) fn is_local(token: &str) -> bool {
    token.starts_with(PREFIX)
}

/// A new token.
///
/// # Errors
///
/// The system gives no random numbers.
pub fn fresh() -> Result<String, String> {
    let mut bits = [0; 32];
    let random = rustls::crypto::aws_lc_rs::default_provider().secure_random;
    let filled = random.fill(&mut bits);
    filled.map_err(|_| "the system gives no random numbers".to_owned())?;
    Ok(format!("{PREFIX}{}", BASE64_URL_SAFE_NO_PAD.encode(bits)))
}

/// The line of a file of tokens that lets this one in.
pub fn line(token: &str, id: &SpiffeId) -> String {
    format!("{} {id}", blake3::hash(token.as_bytes()).to_hex())
}

impl Tokens {
    fn read(text: &str, domain: &TrustDomain) -> Result<Self, String> {
        let mut tokens: Vec<(blake3::Hash, Arc<Caller>)> = Vec::new();
        for (at, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or_default().trim();
            if line.is_empty() {
                continue;
            }
            let wrong = |why: String| format!("line {}: {why}", at + 1);
            let (hash, id) = line.split_once(char::is_whitespace).ok_or_else(|| {
                wrong("is no hash and SPIFFE id; `crank token new` prints one".to_owned())
            })?;
            let hash = blake3::Hash::from_hex(hash).map_err(|error| wrong(error.to_string()))?;
            let id = SpiffeId::parse(id.trim()).map_err(|error| wrong(error.to_string()))?;
            if !id.is_member_of(domain) {
                return Err(wrong(format!(
                    "{id} is outside of the trust domain {domain}"
                )));
            }
            if tokens.iter().any(|(known, _)| *known == hash) {
                return Err(wrong("has the hash of a line above".to_owned()));
            }
            if tokens.len() == MAX_TOKENS {
                return Err(wrong(format!(
                    "is one too many: {MAX_TOKENS} tokens are read"
                )));
            }
            let proof = Proof::LocalToken;
            tokens.push((hash, Arc::new(Caller::new(id, proof))));
        }
        Ok(Self(tokens))
    }

    /// Whose token this is. Hashes are compared in constant time, and all of them are.
    pub fn caller(&self, token: &str) -> Result<Arc<Caller>, String> {
        let hash = blake3::hash(token.as_bytes());
        let mut found = None;
        for (known, caller) in &self.0 {
            if *known == hash {
                found = Some(caller);
            }
        }
        found
            .cloned()
            .ok_or_else(|| "no such local token".to_owned())
    }
}
