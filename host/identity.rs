//! Who calls and who a worker is: SPIFFE ids and the trust domain they belong to. Pure text, no keys, no sockets.
//!
//! Source of the rules: the SPIFFE-ID specification, section 2
//! (<https://github.com/spiffe/spiffe/blob/main/standards/SPIFFE-ID.md>).

use std::fmt;

use serde::{Serialize, Serializer};

/// Longest SPIFFE id in bytes (SPIFFE-ID, section 2.3).
const MAX_ID_BYTES: usize = 2048;
/// Longest trust domain in bytes (SPIFFE-ID, section 2.3: that of a host name).
const MAX_TRUST_DOMAIN_BYTES: usize = 255;
const SCHEME: &str = "spiffe://";

/// Why a text is no SPIFFE id or no trust domain.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct IdentityError(&'static str);

/// The authority that issues ids: `crank.local`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TrustDomain(Box<str>);

impl TrustDomain {
    /// Reads a trust domain's name: lower-case letters, digits, dots, dashes and underscores.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.is_empty() {
            return Err(IdentityError("a trust domain may not be empty"));
        }
        if text.len() > MAX_TRUST_DOMAIN_BYTES {
            return Err(IdentityError("a trust domain has at most 255 bytes"));
        }
        if !text
            .bytes()
            .all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'.' | b'-' | b'_'))
        {
            return Err(IdentityError(
                "a trust domain consists of a-z, 0-9, '.', '-' and '_', without port or user",
            ));
        }
        Ok(Self(text.into()))
    }

    /// The name itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// An identity: `spiffe://crank.local/worker/hello-world`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SpiffeId {
    text: Box<str>,
    /// Bytes of `text` up to the end of the trust domain.
    path_at: usize,
}

impl SpiffeId {
    /// Reads an id of a workload: scheme, trust domain and a path of at least one segment.
    pub fn parse(text: &str) -> Result<Self, IdentityError> {
        if text.len() > MAX_ID_BYTES {
            return Err(IdentityError("a SPIFFE id has at most 2048 bytes"));
        }
        let Some(rest) = text.strip_prefix(SCHEME) else {
            return Err(IdentityError("a SPIFFE id begins with \"spiffe://\""));
        };
        let Some((domain, path)) = rest.split_once('/') else {
            return Err(IdentityError(
                "a worker's SPIFFE id needs a path after the trust domain: spiffe://<trust domain>/<path>",
            ));
        };
        TrustDomain::parse(domain)?;
        for segment in path.split('/') {
            if segment.is_empty() {
                return Err(IdentityError(
                    "a SPIFFE id's path has no empty segments and no slash at its end",
                ));
            }
            if matches!(segment, "." | "..") {
                return Err(IdentityError(
                    "a SPIFFE id's path has no segment \".\" or \"..\"",
                ));
            }
            if !segment
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
            {
                return Err(IdentityError(
                    "a SPIFFE id's path consists of a-z, A-Z, 0-9, '.', '-' and '_'; no percent signs, no query",
                ));
            }
        }
        Ok(Self {
            text: text.into(),
            path_at: SCHEME.len() + domain.len(),
        })
    }

    /// The whole id.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The trust domain's name.
    pub fn trust_domain(&self) -> &str {
        self.text
            .get(SCHEME.len()..self.path_at)
            .unwrap_or_default()
    }

    /// True if this trust domain is the one that vouches for the id.
    pub fn is_member_of(&self, domain: &TrustDomain) -> bool {
        self.trust_domain() == domain.as_str()
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Serialize for SpiffeId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.text)
    }
}

/// Who calls, and how that was proven.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Caller {
    /// The caller's identity.
    pub id: SpiffeId,
    /// What proved it.
    pub proof: Proof,
    /// The host that says so, of a call that it forwards; `proof` is that host's.
    pub via: Option<SpiffeId>,
}

impl Caller {
    /// Who has proven that themselves.
    pub fn new(id: SpiffeId, proof: Proof) -> Self {
        let via = None;
        Self { id, proof, via }
    }
}

/// How a caller proved who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// An X.509-SVID, by mutual TLS.
    Certificate,
    /// A JWT-SVID, as a bearer token.
    Jwt,
    /// A token that this host's operator made.
    LocalToken,
}

impl Proof {
    /// As logs write it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Proof::Certificate => "x509-svid",
            Proof::Jwt => "jwt-svid",
            Proof::LocalToken => "local token",
        }
    }
}

/// Longest id of a host, in bytes.
const MAX_CONTROLLER_ID: usize = 128;

/// Whether it is a host's id among others, as in `controller_affinity` and `Crank-Path`: letters, digits, `-`, `_`
/// and `.`.
pub fn is_controller_id(text: &str) -> bool {
    (1..=MAX_CONTROLLER_ID).contains(&text.len())
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_of_the_seed_is_read_and_belongs_to_its_trust_domain() {
        let id = SpiffeId::parse("spiffe://crank.local/worker/hello-world").unwrap();
        assert_eq!(id.trust_domain(), "crank.local");
        assert!(id.is_member_of(&TrustDomain::parse("crank.local").unwrap()));
        assert!(!id.is_member_of(&TrustDomain::parse("crank.loca").unwrap()));
        assert_eq!(id.to_string(), "spiffe://crank.local/worker/hello-world");
    }

    #[test]
    fn what_the_specification_forbids_is_refused() {
        let long = format!("spiffe://a/{}", "x".repeat(2048));
        let wide = format!("spiffe://{}/x", "a".repeat(256));
        for text in [
            "",
            "spiffe://",
            "SPIFFE://a/b",
            "http://a/b",
            "spiffe://a",
            "spiffe://a/",
            "spiffe:///b",
            "spiffe://A/b",
            "spiffe://a:80/b",
            "spiffe://u@a/b",
            "spiffe://a/b/",
            "spiffe://a//b",
            "spiffe://a/./b",
            "spiffe://a/../b",
            "spiffe://a/b?c",
            "spiffe://a/b#c",
            "spiffe://a/%61",
            "spiffe://a/ü",
            &long,
            &wide,
        ] {
            assert!(SpiffeId::parse(text).is_err(), "{text:.40} was accepted");
        }
    }
}
