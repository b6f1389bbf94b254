//! One entry of `required_capabilities`: a capability or a WIT interface, perhaps with a scope.

use std::fmt;

use semver::VersionReq;
use serde::{Serialize, Serializer};

use super::{Name, NameError};

/// Longest entry, in bytes.
const MAX_ENTRY_BYTES: usize = 512;
/// Scopes that one entry may name.
const MAX_SCOPES: usize = 32;

/// What a worker asks to use.
#[derive(Clone, Debug, PartialEq)]
pub enum Required {
    /// `verb:name[@requirement]`: another capability, through the host.
    Capability {
        /// What is done.
        verb: Name,
        /// To what.
        name: Name,
        /// Which versions; any without it.
        requirement: Option<VersionReq>,
    },
    /// `namespace:package/interface[@requirement][[scope,…]]`: an interface of the host.
    Interface(InterfaceEntry),
}

/// An interface, or all of a package, that a worker asks to use or an operator grants.
#[derive(Clone, Debug, PartialEq)]
pub struct InterfaceEntry {
    /// `wasi`
    pub namespace: String,
    /// `keyvalue`
    pub package: String,
    /// `store`; absent for `*`, every interface of the package.
    pub interface: Option<String>,
    /// Which versions; any without it.
    pub requirement: Option<VersionReq>,
    /// What it is narrowed to: buckets, hosts. Empty without brackets.
    pub scope: Vec<String>,
}

/// Why a text is no entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct RequiredError(String);

impl Required {
    /// Reads an entry.
    pub fn parse(text: &str) -> Result<Self, RequiredError> {
        if text.len() > MAX_ENTRY_BYTES {
            return Err(RequiredError(format!(
                "an entry has at most {MAX_ENTRY_BYTES} bytes"
            )));
        }
        let (text, scope) = split_scope(text)?;
        let (path, requirement) = match text.split_once('@') {
            Some((path, requirement)) => {
                let requirement = VersionReq::parse(requirement).map_err(|error| {
                    RequiredError(format!(
                        "\"{requirement}\" is not a semver requirement: {error}"
                    ))
                })?;
                (path, Some(requirement))
            }
            None => (text, None),
        };
        let Some((left, right)) = path.split_once(':') else {
            return Err(RequiredError(
                "an entry is \"verb:name\" or \"namespace:package/interface\", perhaps followed by \"@\" and a semver requirement"
                    .to_owned(),
            ));
        };
        if let Some((package, interface)) = right.split_once('/') {
            let interface = match interface {
                "*" => None,
                interface => Some(kebab(interface)?),
            };
            return Ok(Self::Interface(InterfaceEntry {
                namespace: kebab(left)?,
                package: kebab(package)?,
                interface,
                requirement,
                scope,
            }));
        }
        if !scope.is_empty() {
            return Err(RequiredError(
                "only an interface carries a scope in brackets".to_owned(),
            ));
        }
        let name = |text: &str| {
            Name::parse(text).map_err(|NameError(reason)| {
                RequiredError(format!(
                    "\"{}\" is no verb or name: {reason}",
                    super::shorten(text, 64)
                ))
            })
        };
        Ok(Self::Capability {
            verb: name(left)?,
            name: name(right)?,
            requirement,
        })
    }
}

/// Splits `path[a,b]` into the path and its scopes.
fn split_scope(text: &str) -> Result<(&str, Vec<String>), RequiredError> {
    let Some((path, rest)) = text.split_once('[') else {
        return Ok((text, Vec::new()));
    };
    let Some(inner) = rest.strip_suffix(']') else {
        return Err(RequiredError(
            "a scope stands in brackets at the end: \"wasi:keyvalue/store[bucket]\"".to_owned(),
        ));
    };
    let scope: Vec<String> = inner
        .split(',')
        .map(|item| item.trim().to_owned())
        .collect();
    let well_formed = |item: &String| {
        !item.is_empty()
            && item
                .bytes()
                .all(|b| b.is_ascii_graphic() && !matches!(b, b'[' | b']' | b'"' | b'\\'))
    };
    if scope.len() > MAX_SCOPES || !scope.iter().all(well_formed) {
        return Err(RequiredError(format!(
            "a scope is a list of at most {MAX_SCOPES} names, separated by commas and without spaces, quotes or brackets inside"
        )));
    }
    Ok((path, scope))
}

/// An identifier of WIT in lower case: `outgoing-handler`.
fn kebab(text: &str) -> Result<String, RequiredError> {
    let word = |word: &str| {
        word.starts_with(|c: char| c.is_ascii_lowercase())
            && word
                .bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
    };
    if text.len() <= 64 && text.split('-').all(word) {
        return Ok(text.to_owned());
    }
    Err(RequiredError(format!(
        "\"{}\" is not a WIT identifier: lower-case words of letters and digits, joined by '-', at most 64 bytes",
        super::shorten(text, 64)
    )))
}

impl fmt::Display for InterfaceEntry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}:{}/{}",
            self.namespace,
            self.package,
            self.interface.as_deref().unwrap_or("*")
        )?;
        if let Some(requirement) = &self.requirement {
            write!(f, "@{requirement}")?;
        }
        if !self.scope.is_empty() {
            write!(f, "[{}]", self.scope.join(","))?;
        }
        Ok(())
    }
}

impl fmt::Display for Required {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Capability {
                verb,
                name,
                requirement: None,
            } => write!(f, "{verb}:{name}"),
            Self::Capability {
                verb,
                name,
                requirement: Some(requirement),
            } => {
                write!(f, "{verb}:{name}@{requirement}")
            }
            Self::Interface(entry) => entry.fmt(f),
        }
    }
}

impl Serialize for Required {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_every_form_are_read_and_written_alike() {
        for text in [
            "convert:email_to_text",
            "convert:email_to_text@^1.2",
            "wasi:keyvalue/store",
            "wasi:keyvalue/*",
            "wasi:keyvalue/store@^0.2[zettel:ro]",
            "wasi:http/outgoing-handler[api.example.com:443,b.example.com:443]",
        ] {
            assert_eq!(Required::parse(text).unwrap().to_string(), text);
        }
    }

    #[test]
    fn malformed_entries_are_refused() {
        for text in [
            "",
            ":",
            "convert",
            "Convert:x",
            "a:b@",
            "a:b@x.y",
            "a:b[c]",
            "wasi:keyvalue/",
            "wasi:/x",
            "wasi:a/b/c",
            "wasi:a/b[",
            "wasi:a/b[]",
            "wasi:a/b[x,]",
            "wasi:a/b[x]y",
            "wasi:a/-b",
            "wasi:a_b/c",
            "ü:b/c",
        ] {
            assert!(Required::parse(text).is_err(), "{text} was accepted");
        }
    }
}
