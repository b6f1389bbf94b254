//! What a caller sends as its key, whose it is, and which call it stands for.

use std::fmt;

/// The longest key, in bytes.
const MAX: usize = 255;

/// A caller's name for one call (draft-ietf-httpapi-idempotency-key-header-07).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Key(String);

impl Key {
    /// Reads a structured-field string, `"8e03978e"` (RFC 9651, section 3.3.3), or the bare characters that
    /// most clients send. Both spell the same key.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        let key = match text.strip_prefix('"') {
            Some(rest) => unquote(rest)?,
            None if text.bytes().all(is_bare) => text.to_owned(),
            None => {
                return Err(
                    "must be a string in double quotes, or letters, digits and signs alone",
                );
            }
        };
        match key.len() {
            1..=MAX => Ok(Self(key)),
            _ => Err("must have 1 to 255 bytes"),
        }
    }

    /// The key itself.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

fn is_bare(byte: u8) -> bool {
    byte.is_ascii_graphic() && !matches!(byte, b'"' | b'\\' | b',' | b';')
}

/// The rest of a string after its first quote.
fn unquote(rest: &str) -> Result<String, &'static str> {
    let mut key = String::new();
    let mut chars = rest.chars();
    loop {
        match chars.next() {
            Some('"') if chars.as_str().is_empty() => return Ok(key),
            Some('\\') => match chars.next() {
                Some(c @ ('"' | '\\')) => key.push(c),
                _ => return Err("has a backslash before what needs none"),
            },
            Some(c @ ' '..='~') if c != '"' => key.push(c),
            _ => return Err("must end with its closing quote, and have printable ASCII before it"),
        }
    }
}

/// Digits that tell callers apart.
const OWNER: usize = 16;

/// Within what a key is one: its caller and what it calls. Digests, as text.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Scope {
    whole: String,
    owner: String,
}

impl Scope {
    /// The scope of a key. Callers that the host does not know are one caller.
    pub fn new(caller: Option<&str>, verb: &str, name: Option<&str>, key: &Key) -> Self {
        let digest = |parts: &[Option<&str>]| {
            let mut digest = blake3::Hasher::new();
            for part in parts {
                take(&mut digest, part.map(str::as_bytes));
            }
            digest.finalize().to_hex()
        };
        let mut owner = digest(&[caller]).to_string();
        owner.truncate(OWNER);
        Self {
            whole: digest(&[caller, Some(verb), name, Some(key.as_str())]).to_string(),
            owner,
        }
    }

    /// 64 hexadecimal digits, which tell nobody whose key it is.
    pub fn as_str(&self) -> &str {
        &self.whole
    }

    /// 16 hexadecimal digits, which all keys of a caller share.
    pub(super) fn owner(&self) -> &str {
        &self.owner
    }
}

/// Tells a call from another one under the same key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fingerprint(blake3::Hash);

impl Fingerprint {
    /// Of all that makes it another call, part by part.
    pub fn of<'a>(parts: impl IntoIterator<Item = &'a [u8]>) -> Self {
        let mut digest = blake3::Hasher::new();
        for part in parts {
            take(&mut digest, Some(part));
        }
        Self(digest.finalize())
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.to_hex())
    }
}

/// With its length, so that no two lists of parts look the same.
fn take(digest: &mut blake3::Hasher, part: Option<&[u8]>) {
    let length = part.map_or(u64::MAX, |part| part.len() as u64);
    digest.update(&length.to_le_bytes());
    digest.update(part.unwrap_or_default());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_a_string_or_bare_and_both_are_the_same() {
        let key = |text| Key::parse(text).map(|key| key.0);
        assert_eq!(key("8e03978e-40d5").unwrap(), "8e03978e-40d5");
        assert_eq!(key("\"8e03978e-40d5\""), key("8e03978e-40d5"));
        assert_eq!(key(r#""a \"b\" \\ c, d;e""#).unwrap(), r#"a "b" \ c, d;e"#);
        let long = "x".repeat(255);
        assert_eq!(key(&long).unwrap(), long);
        let longer = "x".repeat(256);
        let quoted = format!("\"{longer}\"");
        for bad in [
            "",
            "\"\"",
            "\"",
            "\"a",
            "a\"",
            "a b",
            "a, b",
            "a;b=1",
            "\"a\";b=1",
            "\"a\\n\"",
            "\"\u{e9}\"",
            "\u{e9}",
            "\"a\tb\"",
            &longer,
            &quoted,
        ] {
            assert!(key(bad).is_err(), "{bad:.20}");
        }
    }

    #[test]
    fn no_two_callers_or_capabilities_share_a_scope() {
        let key = Key::parse("k").unwrap();
        let scopes = [
            Scope::new(None, "greet", Some("x"), &key),
            Scope::new(Some(""), "greet", Some("x"), &key),
            Scope::new(Some("a"), "greet", Some("x"), &key),
            Scope::new(None, "greet", None, &key),
            Scope::new(None, "greetx", Some(""), &key),
            Scope::new(None, "greet", Some("x"), &Key::parse("l").unwrap()),
        ];
        let distinct: std::collections::BTreeSet<_> = scopes.iter().map(Scope::as_str).collect();
        assert_eq!(distinct.len(), scopes.len());
        let owners: std::collections::BTreeSet<_> = scopes.iter().map(Scope::owner).collect();
        assert_eq!(owners.len(), 3);
    }
}
